"""An OpenID Connect provider, by the code flow with PKCE, of which this server is a confidential or
a public client.

A token counts if its signature is of one of the provider's keys, and issuer, audience, times and
nonce are right. Needs the extra ``oidc``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from ..visible import name as visible
from .flows import Flow, Unproved
from .providers import LOOPBACK, ProviderFile

T = TypeVar("T")

KNOWN_SECONDS = 3600.0
"""How long what a provider says of itself holds; a key that is not known is asked for at once."""

ASKED_AGAIN_SECONDS = 60.0
"""Keys are not asked for again more often, else tokens with made-up keys would have it asked."""

TIMEOUT_SECONDS = 10.0

FAILED_SECONDS = 10.0
"""How long a provider is left alone that does not say of itself what it should."""

MOST_WAITING = 16
"""Requests that wait for the provider at once: fewer than half of those that the server answers at
once, so that a provider that is slow holds up nothing but logins.
"""

SKEW_SECONDS = 60
"""By how much the clocks of provider and server may differ."""

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Of signatures: all by a key that the provider alone has. Neither "none" nor HMAC."""

REQUIRED_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
OTHER_ENDPOINTS = ("userinfo_endpoint", "end_session_endpoint")

EMAIL = {"email", "email_verified"}

LOGGED_OUT = "http://schemas.openid.net/event/backchannel-logout"
"""The event of a logout token, which no other token has."""


class Kept(Generic[T]):
    """What a provider says of itself. One caller at a time asks for it, in its *turn*, and the
    others wait for the answer; that there was none is kept for a while too.
    """

    def __init__(
        self, ask: Callable[[], T], turn: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._ask = ask
        self._turn = turn
        self._asking = threading.Lock()
        self._found: tuple[float, T] | None = None
        self._failed: tuple[float, Unproved] | None = None

    def get(self, seconds: float = KNOWN_SECONDS) -> T:
        """What was said no longer ago than that.

        Raises:
            Unproved: If the provider does not say it, or too many wait for it already.
        """
        found = self._recent(seconds)
        if found is not None:
            return found
        with self._turn(), self._asking:
            found = self._recent(seconds)  # whoever held the lock has asked
            return self._asked() if found is None else found

    def _recent(self, seconds: float) -> T | None:
        now, found, failed = time.monotonic(), self._found, self._failed
        if found is not None and now - found[0] <= seconds:
            return found[1]
        if failed is not None and now - failed[0] <= FAILED_SECONDS:
            raise Unproved(failed[1].kind, str(failed[1]))
        return None

    def _asked(self) -> T:
        try:
            found = self._ask()
        except Unproved as error:
            self._failed = time.monotonic(), error
            raise
        self._found, self._failed = (time.monotonic(), found), None
        return found


class Provider:
    """A provider, as *known* describes it; *transport* is httpx's."""

    def __init__(self, known: ProviderFile, secret: str | None, transport: Any = None) -> None:
        self.known = known
        self._secret = secret
        self._http = httpx.Client(timeout=TIMEOUT_SECONDS, transport=transport)
        self._turns = threading.Semaphore(MOST_WAITING)
        self._metadata = Kept(self._ask_metadata, self._turn)
        self._keys = Kept(self._ask_keys, self._turn)

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
        return _with_query(self._metadata.get()["authorization_endpoint"], query)

    def goodbye(self, back: str) -> str | None:
        """Where one logs out at the provider, to come back to *back*; None if it has no such place,
        or does not answer.
        """
        try:
            place = self._metadata.get().get("end_session_endpoint")
        except Unproved:
            return None
        query = {"client_id": self.known.client_id, "post_logout_redirect_uri": back}
        return _with_query(place, query) if isinstance(place, str) else None

    def claims(self, code: str, flow: Flow, back: str) -> dict[str, Any]:
        """What the provider says of who has logged in.

        Raises:
            Unproved: If the code or what it gives is not right, or the provider does not answer.
        """
        metadata = self._metadata.get()
        tokens = self._tokens(metadata, code, flow, back)
        claims = dict(self._proved(metadata, tokens, flow.nonce))
        name = EMAIL if self.known.name_claim == "email" else {self.known.name_claim}
        place = metadata.get("userinfo_endpoint")
        if (name | {self.known.group_claim}) <= claims.keys() or place is None:
            return claims
        with self._turn():
            more = self._got(place, {"Authorization": f"Bearer {tokens['access_token']}"})
        if more.get("sub") != claims["sub"]:
            raise Unproved("refused", "what the provider says more is of somebody else")
        if not name <= claims.keys():  # an address and whether it is verified are of one answer
            claims = {key: value for key, value in claims.items() if key not in name}
        return {**more, **claims}

    def logged_out(self, text: str) -> tuple[str, str]:
        """Issuer and subject of a logout token (OpenID Connect Back-Channel Logout 1.0).

        Raises:
            Unproved: If it does not count, or is of a session alone, or the provider does not answer.
        """
        metadata = self._metadata.get()
        algorithms = _algorithms(metadata)
        right = jwt.JWTClaimsRegistry(
            leeway=SKEW_SECONDS,
            iss={"essential": True, "value": metadata["issuer"]},
            aud={"essential": True, "value": self.known.client_id},
            sub={"essential": True},
            iat={"essential": True},
            exp={"essential": True},
            jti={"essential": True},
        )
        try:
            claims = self._signed(text, algorithms).claims
            right.validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise Unproved("refused", f"a logout token does not count: {error}") from error
        events = claims.get("events")
        if "nonce" in claims or not isinstance(events, Mapping) or LOGGED_OUT not in events:
            raise Unproved("refused", "a logout token does not count: it is another token")
        return str(claims["iss"]), str(claims["sub"])

    def _tokens(
        self, metadata: Mapping[str, Any], code: str, flow: Flow, back: str
    ) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back,
            "code_verifier": flow.verifier,
        }
        methods = _listed(
            metadata, "token_endpoint_auth_methods_supported", ["client_secret_basic"]
        )
        auth = None
        if self._secret is not None and "client_secret_basic" in methods:  # RFC 6749, 2.3.1
            auth = httpx.BasicAuth(quote_plus(self.known.client_id), quote_plus(self._secret))
        else:
            form["client_id"] = self.known.client_id
            if self._secret is not None:
                form["client_secret"] = self._secret
        with self._turn():
            found = self._asked("POST", metadata["token_endpoint"], data=form, auth=auth)
        if not all(isinstance(found.get(name), str) for name in ("id_token", "access_token")):
            raise Unproved("refused", "the provider gave no tokens for the code")
        return found

    def _proved(
        self, metadata: Mapping[str, Any], tokens: Mapping[str, str], nonce: str
    ) -> CodeIDToken:
        algorithms = _algorithms(metadata)
        try:
            token = self._signed(tokens["id_token"], algorithms)
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

    def _signed(self, text: str, algorithms: list[str]) -> jwt.Token:
        try:
            return jwt.decode(text, self._keys.get(), algorithms)
        except (JoseError, ValueError):  # it may have new keys by now
            return jwt.decode(text, self._keys.get(ASKED_AGAIN_SECONDS), algorithms)

    def _ask_keys(self) -> KeySet:
        place = self._metadata.get()["jwks_uri"]
        found: Any = self._got(place)
        try:
            return KeySet.import_key_set(found)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise Unproved("unreached", f"{place} gives no keys: {error}") from error

    def _ask_metadata(self) -> dict[str, Any]:
        issuer = self.known.issuer.rstrip("/")
        found = self._got(f"{issuer}/.well-known/openid-configuration")
        _require_endpoints(found, issuer)
        return found

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """While this lasts, the provider is asked.

        Raises:
            Unproved: If as many requests as may wait for it do.
        """
        if not self._turns.acquire(blocking=False):
            raise Unproved("unreached", f"{MOST_WAITING} requests wait for the provider already")
        try:
            yield
        finally:
            self._turns.release()

    def _got(self, place: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._asked("GET", place, headers=headers)

    def _asked(self, method: str, place: str, **more: Any) -> dict[str, Any]:
        headers = {"Accept": "application/json", **(more.pop("headers", None) or {})}
        try:
            answer = self._http.request(method, place, headers=headers, **more)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Unproved("unreached", f"{place} does not answer: {error}") from error
        try:
            found = answer.json()
        except (ValueError, RecursionError) as error:
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
    for name in REQUIRED_ENDPOINTS:
        if not _is_private(metadata.get(name), issuer):
            raise Unproved("unreached", f"{issuer} has no {name} by https")
    for name in OTHER_ENDPOINTS:
        if metadata.get(name) is not None and not _is_private(metadata[name], issuer):
            raise Unproved("unreached", f"{issuer} has a {name} that is not by https")


def _is_private(place: Any, issuer: str) -> bool:
    """Whether what is sent to *place* crosses no network in clear. On this machine it may be as
    that of *issuer* is.
    """
    if not isinstance(place, str):
        return False
    try:
        found = urlsplit(place)
        local = found.hostname in LOOPBACK and found.scheme == urlsplit(issuer).scheme
    except ValueError:  # of an address that is none
        return False
    return bool(found.hostname) and (found.scheme == "https" or local)


def _algorithms(metadata: Mapping[str, Any]) -> list[str]:
    """Those of the provider's signatures that count."""
    allowed = _listed(metadata, "id_token_signing_alg_values_supported", ["RS256"])
    found = [name for name in ALGORITHMS if name in allowed]
    if not found:  # of which joserfc would make its own
        raise Unproved("refused", "the provider signs by no algorithm that counts")
    return found


def _listed(metadata: Mapping[str, Any], name: str, default: list[str]) -> list[Any]:
    """A list of the metadata; *default* where that has none."""
    found = metadata.get(name)
    return found if isinstance(found, list) and found else default


def _with_query(place: str, query: Mapping[str, str]) -> str:
    return f"{place}{'&' if '?' in place else '?'}{urlencode(query)}"
