"""An OpenID Connect provider, by the code flow with PKCE, of which this server is a confidential or
a public client.

A token counts if its signature is of one of the provider's keys, and issuer, audience, times and
nonce are right. Needs the extra ``oidc``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from ..visible import name as visible
from .flows import Flow, Unproved
from .providers import ProviderFile

logger = logging.getLogger("nano_vm.server")

KNOWN_SECONDS = 3600.0
"""How long what a provider says of itself holds; a key that is not known is asked for at once."""

ASKED_AGAIN_SECONDS = 60.0
"""Keys are not asked for again more often, else tokens with made-up keys would have it asked."""

TIMEOUT_SECONDS = 10.0

SKEW_SECONDS = 60
"""By how much the clocks of provider and server may differ."""

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Of signatures: all by a key that the provider alone has. Neither "none" nor HMAC."""


class Provider:
    """A provider, as *known* describes it; *transport* is httpx's."""

    def __init__(self, known: ProviderFile, secret: str | None, transport: Any = None) -> None:
        self.known = known
        self._secret = secret
        self._http = httpx.Client(timeout=TIMEOUT_SECONDS, transport=transport)
        self._lock = threading.Lock()
        self._said: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def address(self, flow: Flow, back: str) -> str:
        """Where one logs in, to come back to *back*.

        Raises:
            Unproved: If the provider does not answer.
        """
        query = {
            "response_type": "code",
            "client_id": self.known.client_id,
            "redirect_uri": back,
            "scope": " ".join(self.known.scopes),
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": create_s256_code_challenge(flow.verifier),
            "code_challenge_method": "S256",
        }
        return _with_query(self._metadata()["authorization_endpoint"], query)

    def goodbye(self, back: str) -> str | None:
        """Where one logs out at the provider, to come back to *back*; None if it has no such place,
        or does not answer.
        """
        try:
            place = self._metadata().get("end_session_endpoint")
        except Unproved:
            return None
        query = {"client_id": self.known.client_id, "post_logout_redirect_uri": back}
        return _with_query(place, query) if isinstance(place, str) else None

    def claims(self, code: str, flow: Flow, back: str) -> dict[str, Any]:
        """What the provider says of who has logged in.

        Raises:
            Unproved: If the code or what it gives is not right, or the provider does not answer.
        """
        metadata = self._metadata()
        tokens = self._tokens(metadata, code, flow, back)
        claims = dict(self._proved(metadata, tokens, flow.nonce))
        wanted = {self.known.name_claim, self.known.group_claim}
        place = metadata.get("userinfo_endpoint")
        if not wanted <= claims.keys() and isinstance(place, str):
            more = self._got(place, {"Authorization": f"Bearer {tokens['access_token']}"})
            if more.get("sub") != claims["sub"]:
                raise Unproved("refused", "what the provider says more is of somebody else")
            claims = {**more, **claims}
        return claims

    def _tokens(
        self, metadata: Mapping[str, Any], code: str, flow: Flow, back: str
    ) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back,
            "code_verifier": flow.verifier,
        }
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        auth = None
        if self._secret is not None and "client_secret_basic" in methods:
            auth = httpx.BasicAuth(self.known.client_id, self._secret)
        else:
            form["client_id"] = self.known.client_id
            if self._secret is not None:
                form["client_secret"] = self._secret
        found = self._asked("POST", metadata["token_endpoint"], data=form, auth=auth)
        if not all(isinstance(found.get(name), str) for name in ("id_token", "access_token")):
            raise Unproved("refused", "the provider gave no tokens for the code")
        return found

    def _proved(
        self, metadata: Mapping[str, Any], tokens: Mapping[str, str], nonce: str
    ) -> CodeIDToken:
        allowed = metadata.get("id_token_signing_alg_values_supported", ["RS256"])
        algorithms = [name for name in ALGORITHMS if name in allowed]
        try:
            token = self._signed(metadata["jwks_uri"], tokens["id_token"], algorithms)
            claims = CodeIDToken(
                token.claims,
                token.header,
                options={
                    "iss": {"essential": True, "value": metadata["issuer"]},
                    "aud": {"essential": True, "value": self.known.client_id},
                    "sub": {"essential": True},
                },
                params={
                    "nonce": nonce,
                    "client_id": self.known.client_id,
                    "access_token": tokens["access_token"],
                },
            )
            claims.validate(now=int(time.time()), leeway=SKEW_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise Unproved("refused", f"the provider's token does not count: {error}") from error
        return claims

    def _signed(self, place: str, text: str, algorithms: list[str]) -> jwt.Token:
        try:
            return jwt.decode(text, self._key_set(place), algorithms)
        except (JoseError, ValueError):
            again = self._key_set(place, ASKED_AGAIN_SECONDS)  # it may have new keys by now
            return jwt.decode(text, again, algorithms)

    def _key_set(self, place: str, seconds: float = KNOWN_SECONDS) -> KeySet:
        with self._lock:
            kept = self._keys
        if kept is None or time.monotonic() - kept[0] > seconds:
            found: Any = self._got(place)
            kept = time.monotonic(), KeySet.import_key_set(found)
            with self._lock:
                self._keys = kept
        return kept[1]

    def _metadata(self) -> dict[str, Any]:
        with self._lock:
            kept = self._said
        if kept is None or time.monotonic() - kept[0] > KNOWN_SECONDS:
            issuer = self.known.issuer.rstrip("/")
            kept = time.monotonic(), self._got(f"{issuer}/.well-known/openid-configuration")
            _require_endpoints(kept[1], issuer)
            with self._lock:
                self._said = kept
        return kept[1]

    def _got(self, place: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._asked("GET", place, headers=headers)

    def _asked(self, method: str, place: str, **more: Any) -> dict[str, Any]:
        headers = {"Accept": "application/json", **(more.pop("headers", None) or {})}
        try:
            answer = self._http.request(method, place, headers=headers, **more)
            found = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unproved("unreached", f"{place} does not answer: {error}") from error
        except ValueError as error:
            raise Unproved("unreached", f"{place} answers {answer.status_code}, no JSON") from error
        if not answer.is_success or not isinstance(found, dict):
            told = found.get("error") if isinstance(found, dict) else None
            raise Unproved(
                "refused" if method == "POST" else "unreached",
                f"{place} answers {answer.status_code}: {visible(str(told))}",
            )
        return found


def _require_endpoints(metadata: Mapping[str, Any], issuer: str) -> None:
    """Refuse what does not describe *issuer*, or would have secrets cross a network in clear."""
    if str(metadata.get("issuer")).rstrip("/") != issuer:
        raise Unproved("unreached", f"{issuer} says that it is another issuer")
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        place = metadata.get(name)
        if not isinstance(place, str) or urlsplit(place).scheme not in ("https", _scheme(issuer)):
            raise Unproved("unreached", f"{issuer} has no {name} by https")


def _scheme(issuer: str) -> str:
    return urlsplit(issuer).scheme


def _with_query(place: str, query: Mapping[str, str]) -> str:
    return f"{place}{'&' if '?' in place else '?'}{urlencode(query)}"
