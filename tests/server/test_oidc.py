"""Logging in by an OpenID Connect provider: a mock of one, and what is tried with its tokens."""

from __future__ import annotations

import json
import re
import threading
import time
import warnings
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import sqlalchemy as sa
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from starlette.testclient import TestClient

from nano_vm.cli import main
from nano_vm.errors import VMError
from nano_vm.server import attempts, flows, oidc, tables
from nano_vm.server.oidc import MOST_WAITING, Provider
from nano_vm.server.providers import ProviderFile, provider_in

from .conftest import PASSWORD, World, world_at

with warnings.catch_warnings():  # of the mock, which uses a module that Authlib moves
    warnings.simplefilter("ignore")
    import oidc_provider_mock

ISSUER = "http://localhost:9400"
LOGIN, CALLBACK, ME = "/api/v1/oidc/login", "/api/v1/oidc/callback", "/api/v1/me"
SECRET = "a secret of the client"

FILE = """
issuer = "http://localhost:9400"
client_id = "nano-vm"
label = "Example"

[[roles]]
group = "payments"
project = "shop"
role = "operator"
approves = ["clerk"]

[[roles]]
group = "managers"
project = "shop"
role = "viewer"
approves = ["manager"]

[[roles]]
project = "bank"
role = "viewer"

[[roles]]
group = "platform"
owner = true
"""


@cache
def published() -> RSAKey:
    """The provider's key. It takes as long to make as ten tests, and every process of a run reads
    this module.
    """
    return RSAKey.generate_key()


@cache
def unknown() -> RSAKey:
    return RSAKey.generate_key()


Claims = dict[str, Any]


@cache
def mocked() -> Any:
    """The provider, which takes a third of a second to make its key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return oidc_provider_mock.app(require_nonce=True)


class Wire(httpx.BaseTransport):
    """What server and provider say to each other. Tokens are signed anew, by `published` unless
    *sign* says otherwise, with the claims that *change* has changed.
    """

    def __init__(self) -> None:
        self.mock = mocked()
        self.began = ""  # the address of the provider that a browser was sent to last
        self.provider = httpx.WSGITransport(app=self.mock)
        self.change: Callable[[Claims], object] = lambda claims: None
        self.sign: Callable[[Claims], str] = signed
        self.metadata: dict[str, Any] = {}
        self.tokens: dict[str, Any] = {}
        self.jwks_status = 200
        self.asked: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        path = request.url.path
        if path == "/jwks":
            return httpx.Response(self.jwks_status, json=KeySet([published()]).as_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = self.provider.handle_request(request)
            answer.read()
        if path == "/.well-known/openid-configuration":
            return httpx.Response(200, json={**answer.json(), **self.metadata})
        if path != "/oauth2/token" or not answer.is_success:
            return httpx.Response(answer.status_code, json=answer.json())
        found = answer.json()
        claims = json.loads(jwt_payload(found["id_token"]))
        claims.pop("at_hash", None)
        self.change(claims)
        return httpx.Response(200, json={**found, "id_token": self.sign(claims), **self.tokens})

    def user(self, subject: str, **claims: Any) -> None:
        """Have the provider know somebody."""
        self.mock.test_client().put(f"/users/{subject}", json=claims)


def jwt_payload(token: str) -> bytes:
    from base64 import urlsafe_b64decode

    part = token.split(".")[1]
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def signed(claims: Claims, key: Any = None, algorithm: str = "RS256") -> str:
    return jwt.encode({"alg": algorithm}, claims, key or published(), [algorithm])


def unsigned(claims: Claims) -> str:
    from base64 import urlsafe_b64encode

    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("oidc")
    made = world_at(f"sqlite:///{folder}/runs.db")
    (folder / "oidc.toml").write_text(FILE)
    known, _ = provider_in(folder / "oidc.toml", {})
    made.state.provider = Provider(known, SECRET)
    yield made
    made.state.store.close()


@pytest.fixture
def wire(shared: World) -> Wire:
    assert shared.state.provider is not None
    made = Wire()
    shared.state.tables.write(lambda rows: rows.run(sa.delete(tables.attempts)))
    shared.state.provider = Provider(shared.state.provider.known, SECRET, made)
    return made


def way(client: TestClient, wire: Wire, subject: str) -> str:
    """Where the provider sends a browser in which *subject* logs in, back to the server."""
    begun = client.get(LOGIN, follow_redirects=False)
    assert begun.status_code == 303, begun.text
    wire.began = begun.headers["location"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = wire.mock.test_client().post(wire.began, data={"sub": subject})
    assert back.status_code == 302, back.text
    found = urlsplit(back.headers["location"])
    return f"{found.path}?{found.query}"


def enter(world: World, wire: Wire, subject: str) -> tuple[TestClient, str]:
    """A browser that has come back from the provider, and where the server sends it then."""
    client = world.client()
    answer = client.get(way(client, wire, subject), follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return client, answer.headers["location"]


def verified(name: str, *groups: str) -> Claims:
    return {"email": name, "email_verified": True, "groups": list(groups)}


@pytest.mark.slow
def test_who_the_provider_knows_comes_in_with_the_roles_of_their_groups(
    shared: World, wire: Wire
) -> None:
    wire.user("sub-1", **verified("mia@example.org", "payments", "managers", "others"))
    client, location = enter(shared, wire, "sub-1")
    assert location == "/"
    me = client.get(ME).json()
    assert (me["name"], me["owner"]) == ("mia@example.org", False)
    assert {one["project"]: one["role"] for one in me["projects"]} == {
        "shop": "operator",  # of the first entry that fits
        "bank": "viewer",
    }
    listed = shared.admin.get("/api/v1/projects/shop/members").json()["members"]
    [approves] = [one["approves"] for one in listed if one["name"] == "mia@example.org"]
    assert approves == ["clerk", "manager"]  # of all that fit
    entries = shared.owner.get("/api/v1/audit").json()["entries"]
    told = [(one["action"], one["project"]) for one in entries if one["target"] == me["name"]]
    assert told == [
        ("login", ""),
        ("member.put", "bank"),
        ("member.put", "shop"),
        ("user.made", ""),
    ]
    enter(shared, wire, "sub-1")
    again = shared.owner.get("/api/v1/audit").json()["entries"]
    assert [one["action"] for one in again[: len(again) - len(entries)]] == ["login"]


def test_roles_go_with_the_groups(shared: World, wire: Wire) -> None:
    wire.user("sub-2", **verified("ben@example.org", "payments"))
    client, _ = enter(shared, wire, "sub-2")
    assert client.get("/api/v1/projects/shop/runs").status_code == 200
    shared.admin.put("/api/v1/projects/shop/members/ben@example.org", json={"role": "admin"})
    made = client.post("/api/v1/projects/shop/keys", json={"name": "x", "role": "admin"}).json()
    key = shared.client(made["key"])
    assert key.get("/api/v1/projects/shop/runs").status_code == 200
    wire.user("sub-2", **verified("ben@example.org"))
    client, _ = enter(shared, wire, "sub-2")
    assert client.get("/api/v1/projects/shop/runs").status_code == 404
    assert key.get("/api/v1/projects/shop/runs").status_code == 401
    assert client.get("/api/v1/projects/bank/runs").status_code == 200


def test_owners_are_a_group_and_the_last_one_stays(shared: World, wire: Wire) -> None:
    wire.user("sub-3", **verified("olga@example.org", "platform"))
    client, _ = enter(shared, wire, "sub-3")
    assert client.get(ME).json()["owner"] is True
    assert client.patch("/api/v1/users/owner", json={"owner": False}).status_code == 200
    wire.user("sub-3", **verified("olga@example.org"))
    client, _ = enter(shared, wire, "sub-3")
    assert client.get(ME).json()["owner"] is True, "else the instance would be nobody's"
    assert client.patch("/api/v1/users/owner", json={"owner": True}).status_code == 200
    client, _ = enter(shared, wire, "sub-3")
    assert client.get(ME).json()["owner"] is False


def test_the_code_is_bound_to_who_began(shared: World, wire: Wire) -> None:
    wire.user("sub-4", **verified("pia@example.org"))
    client = shared.client()
    begun = way(client, wire, "sub-4")
    sent = parse_qs(urlsplit(wire.began).query)
    assert sent["code_challenge_method"] == ["S256"]
    assert sent["redirect_uri"] == [f"http://127.0.0.1:8642{CALLBACK}"]
    assert sent["scope"] == ["openid email profile"]
    client.get(begun)
    [token] = [one for one in wire.asked if one.url.path == "/oauth2/token"]
    [verifier] = parse_qs(token.content.decode())["code_verifier"]
    assert len(verifier) >= 43
    assert sent["code_challenge"] == [create_s256_code_challenge(verifier)]
    assert verifier not in f"{wire.began} {dict(client.cookies)}"
    assert token.headers["authorization"].startswith("Basic ")
    assert SECRET not in token.content.decode()


def refused(world: World, wire: Wire, subject: str = "sub-5") -> str:
    """The word by which a login was refused, after which nobody is logged in."""
    wire.user(subject, **verified("eve@example.org", "platform"))
    client, location = enter(world, wire, subject)
    assert client.get(ME).status_code == 401
    listed = world.owner.get("/api/v1/users").json()["users"]
    assert all(user["name"] != "eve@example.org" for user in listed)
    entry = world.owner.get("/api/v1/audit").json()["entries"][0]
    assert entry["action"] == "login.failed"
    return location.removeprefix("/#/login/")


LATER, EARLIER = 3600, -3600

CHANGES: dict[str, Callable[[Claims], object]] = {
    "expired": lambda c: c.update(exp=int(time.time()) + EARLIER, iat=int(time.time()) - 7200),
    "made in the future": lambda c: c.update(iat=int(time.time()) + LATER),
    "not yet": lambda c: c.update(nbf=int(time.time()) + LATER),
    "without an end": lambda c: c.pop("exp"),
    "of another issuer": lambda c: c.update(iss="http://localhost:1"),
    "without an issuer": lambda c: c.pop("iss"),
    "for another client": lambda c: c.update(aud="another"),
    "for several, of another": lambda c: c.update(aud=["nano-vm", "another"], azp="another"),
    "for another, by us": lambda c: c.update(aud="another", azp="nano-vm"),
    "for nobody": lambda c: c.pop("aud"),
    "of nobody": lambda c: c.pop("sub"),
    "replayed": lambda c: c.update(nonce="of another login"),
    "without a nonce": lambda c: c.pop("nonce"),
    "with another access token": lambda c: c.update(at_hash="x" * 22),
    "with a name that is none": lambda c: c.update(email=["eve@example.org"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_token_that_is_not_right_is_refused(shared: World, wire: Wire, change: str) -> None:
    wire.change = CHANGES[change]
    assert refused(shared, wire) == ("name" if "name" in change else "refused")


FORGED: dict[str, Callable[[Claims], str]] = {
    "by a key that is not the provider's": lambda claims: signed(claims, unknown()),
    "by nobody": unsigned,
    "by the client's secret": lambda claims: signed(claims, OctKey.import_key(SECRET), "HS256"),
    "by the public key as a secret": lambda claims: signed(
        claims, OctKey.import_key(published().as_bytes(private=False).hex()), "HS256"
    ),
    "cut": lambda claims: signed(claims)[:-8],
    "changed": lambda claims: signed(claims).replace(".", ".eyJhIjoxfQ", 1),
    "no token": lambda claims: "x",
    "no claims": lambda claims: signed({}),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_token_is_refused(shared: World, wire: Wire, forgery: str) -> None:
    wire.sign = FORGED[forgery]
    assert refused(shared, wire) == "refused"


@pytest.mark.parametrize("algorithms", [["none", "HS256"], ["RS256", "none"], []])
def test_a_provider_that_allows_any_signature_is_not_believed(
    shared: World, wire: Wire, algorithms: list[str]
) -> None:
    wire.metadata = {"id_token_signing_alg_values_supported": algorithms}
    wire.sign = unsigned
    assert refused(shared, wire) == "refused"


@pytest.mark.parametrize("algorithms", [["none"], ["HS256", "none"], [7], ["rs256"]])
def test_no_algorithm_that_counts_is_not_any(
    shared: World, wire: Wire, algorithms: list[Any]
) -> None:
    """joserfc would take what it thinks well of, RS256 among them."""
    wire.metadata = {"id_token_signing_alg_values_supported": algorithms}
    assert refused(shared, wire) == "refused"


@pytest.mark.parametrize("value", [None, [], 7, "RS256"])
@pytest.mark.parametrize(
    "name", ["id_token_signing_alg_values_supported", "token_endpoint_auth_methods_supported"]
)
def test_metadata_that_list_nothing_mean_what_the_standard_says(
    shared: World, wire: Wire, name: str, value: Any
) -> None:
    wire.metadata = {name: value}
    wire.user("sub-15", **verified("joe@example.org"))
    assert enter(shared, wire, "sub-15")[1] == "/"


def test_a_secret_of_any_characters_is_given_as_the_standard_says() -> None:
    wire = Wire()
    known = ProviderFile(issuer=ISSUER, client_id="a client:\N{GREEK SMALL LETTER ALPHA}")
    provider = Provider(known, "a+b c%:\N{EURO SIGN}", wire)
    with pytest.raises(flows.Unproved):
        provider.claims("none", flows.new_flow(b"x" * 32), f"http://127.0.0.1{CALLBACK}")
    kind, _, given = wire.asked[-1].headers["authorization"].partition(" ")
    assert kind == "Basic"
    # application/x-www-form-urlencoded, as RFC 6749 has it in 2.3.1
    assert b64decode(given) == b"a+client%3A%CE%B1:a%2Bb+c%25%3A%E2%82%AC"


EMAILS: dict[str, Claims] = {
    "the address alone": {},
    "another address alone": {"email": "zoe.other@example.org"},
    "the flag alone": {"email": None, "email_verified": True},
}


@pytest.mark.parametrize("how", EMAILS)
def test_whether_an_address_is_verified_is_asked_for(shared: World, wire: Wire, how: str) -> None:
    """Of a token that has the address alone, or the flag alone; an address and its flag are of one
    answer, else a verified address would vouch for one that is not.
    """
    subject = f"sub-16 {how}"
    name = f"zoe-{len(how)}@example.org"
    wire.user(subject, **verified(name, "payments"))

    def left(claims: Claims) -> None:
        claims.pop("email_verified", None)
        claims.update(EMAILS[how])
        if claims["email"] is None:
            claims.pop("email")

    wire.change = left
    client, location = enter(shared, wire, subject)
    assert location == "/"
    assert client.get(ME).json()["name"] == name


def test_a_token_that_no_header_holds_is_refused(shared: World, wire: Wire) -> None:
    wire.tokens = {"access_token": "\N{EURO SIGN}"}
    wire.change = lambda claims: claims.pop("groups", None)
    assert refused(shared, wire) == "unreached"


def test_an_answer_counts_once_in_the_browser_that_asked(shared: World, wire: Wire) -> None:
    wire.user("sub-6", **verified("tom@example.org"))

    def location(client: TestClient, path: str) -> str:
        return str(client.get(path, follow_redirects=False).headers["location"])

    mine, other = shared.client(), shared.client()
    back = way(mine, wire, "sub-6")
    assert location(other, back) == "/#/login/expired", "who began none"
    way(other, wire, "sub-6")
    assert location(other, back) == "/#/login/expired", "who began another: login CSRF"
    kept = dict(mine.cookies)
    assert location(mine, back) == "/"
    assert location(mine, back) == "/#/login/expired", "which was over with the first"
    thief = shared.client()
    for name, value in kept.items():
        thief.cookies.set(name, value, domain="127.0.0.1", path="/")
    assert location(thief, back) == "/#/login/refused", "the code was used"
    assert thief.get(ME).status_code == 401


@pytest.mark.parametrize(
    "cookie", ["", "x", "1.2.3", "9999999999.x.y", "\N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_what_began_no_login_ends_none(shared: World, wire: Wire, cookie: str) -> None:
    headers = {"cookie": f"{shared.state.flow_cookie}={cookie}".encode()}
    answer = shared.client().get(
        f"{CALLBACK}?state=x&code=y",
        headers=headers,
        follow_redirects=False,  # type: ignore[arg-type]
    )
    assert answer.headers["location"] == "/#/login/expired"
    assert all(one.url.path != "/oauth2/token" for one in wire.asked)


def test_a_login_that_takes_too_long_is_over(
    shared: World, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "FLOW_SECONDS", -1)
    wire.user("sub-7", **verified("lea@example.org"))
    assert enter(shared, wire, "sub-7")[1] == "/#/login/expired"


def test_a_cookie_that_was_planted_is_not_the_session(shared: World, wire: Wire) -> None:
    wire.user("sub-8", **verified("kim@example.org"))
    client = shared.client()
    client.cookies.set(shared.state.cookie, "planted", domain="127.0.0.1", path="/")
    answer = client.get(way(client, wire, "sub-8"), follow_redirects=False)
    assert answer.headers["location"] == "/"
    set_ = answer.headers.get_list("set-cookie")
    [session] = [one for one in set_ if one.startswith(f"{shared.state.cookie}=")]
    assert "planted" not in session
    assert "HttpOnly" in session
    assert "SameSite=lax" in session


@pytest.mark.slow
def test_nobody_becomes_another_by_a_name(shared: World, wire: Wire) -> None:
    wire.user("sub-9", **verified("admin"))  # a local account of that name is another person
    assert enter(shared, wire, "sub-9")[1] == "/#/login/name"
    wire.user("sub-10", email="new@example.org", groups=[])
    assert enter(shared, wire, "sub-10")[1] == "/#/login/name", "the address is not verified"
    for name in ("a/b", "..", "al\u200bice", ""):
        wire.user("sub-11", **verified(name))
        assert enter(shared, wire, "sub-11")[1] == "/#/login/name", name


def test_an_account_is_the_subjects_whatever_they_are_called(shared: World, wire: Wire) -> None:
    wire.user("sub-12", **verified("ada@example.org"))
    enter(shared, wire, "sub-12")
    wire.user("sub-12", **verified("ada.married@example.org"))
    client, _ = enter(shared, wire, "sub-12")
    assert client.get(ME).json()["name"] == "ada@example.org"
    assert shared.owner.patch("/api/v1/users/ada@example.org", json={"disabled": True}).is_success
    assert client.get(ME).status_code == 401
    assert enter(shared, wire, "sub-12")[1] == "/#/login/disabled"
    by_name = {"name": "ada@example.org", "password": ""}
    assert shared.client().post("/api/v1/login", json=by_name).status_code == 401


def test_what_the_token_lacks_is_asked_for(shared: World, wire: Wire) -> None:
    wire.user("sub-13", **verified("uwe@example.org", "payments"))
    wire.change = lambda claims: claims.pop("groups", None)
    client, _ = enter(shared, wire, "sub-13")
    assert {one["project"] for one in client.get(ME).json()["projects"]} == {"shop", "bank"}
    assert wire.asked[-1].url.path == "/userinfo"
    wire.change = lambda claims: (claims.pop("groups", None), claims.update(sub="somebody else"))
    assert enter(shared, wire, "sub-13")[1] == "/#/login/refused"


def test_logging_out_is_logging_out_there_too(shared: World, wire: Wire) -> None:
    wire.user("sub-14", **verified("ian@example.org"))
    client, _ = enter(shared, wire, "sub-14")
    next_ = urlsplit(client.post("/api/v1/logout").json()["next"])
    assert next_.path == "/oauth2/end_session"
    assert parse_qs(next_.query)["post_logout_redirect_uri"] == ["http://127.0.0.1:8642/"]
    assert client.get(ME).status_code == 401
    assert shared.login("viewer").post("/api/v1/logout").json() == {"next": None}


LOGOUT = "/api/v1/oidc/logout"


def told_out(subject: str, **changed: Any) -> Claims:
    """The claims of a logout token; those that are None are left out."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": "nano-vm",
        "sub": subject,
        "iat": now,
        "exp": now + 120,
        "jti": "j-1",
        "events": {oidc.LOGGED_OUT: {}},
        **changed,
    }
    return {name: value for name, value in claims.items() if value is not None}


def log_out(world: World, token: str, **headers: str) -> httpx.Response:
    """What the provider is answered, which is no browser."""
    client = TestClient(world.app, base_url="http://127.0.0.1:8642", headers=headers)
    return client.post(LOGOUT, data={"logout_token": token})


def test_who_logs_out_at_the_provider_is_logged_out_here(shared: World, wire: Wire) -> None:
    for subject in ("out-1", "out-2"):
        wire.user(subject, **verified(f"{subject}@example.org"))
    one, two = (enter(shared, wire, "out-1")[0] for _ in range(2))
    other, _ = enter(shared, wire, "out-2")
    token = signed(told_out("out-1", sid="s-1", aud=["nano-vm"]))
    answer = log_out(shared, token, origin="https://elsewhere.example.org")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["cache-control"] == "no-store"
    assert [client.get(ME).status_code for client in (one, two, other)] == [401, 401, 200]
    [entry, *_] = shared.owner.get("/api/v1/audit").json()["entries"]
    assert (entry["action"], entry["target"]) == ("logout.everywhere", "out-1@example.org")
    assert entry["detail"] == {"by": "provider"}
    for again in (token, signed(told_out("nobody"))):  # there is nothing to end
        assert log_out(shared, again).status_code == 200
    [last, *_] = shared.owner.get("/api/v1/audit").json()["entries"]
    assert last["number"] == entry["number"]


@pytest.mark.parametrize(
    "token",
    [
        lambda sub: signed(told_out(sub), unknown()),
        lambda sub: unsigned(told_out(sub)),
        lambda sub: signed(told_out(sub, iss="http://localhost:9401")),
        lambda sub: signed(told_out(sub, aud="another")),
        lambda sub: signed(told_out(sub, aud=None)),
        lambda sub: signed(told_out(sub, exp=int(time.time()) - 3600)),
        lambda sub: signed(told_out(sub, exp=None)),
        lambda sub: signed(told_out(sub, iat=None)),
        lambda sub: signed(told_out(sub, iat=int(time.time()) + 3600)),
        lambda sub: signed(told_out(sub, jti=None)),
        lambda sub: signed(told_out(sub, sub=None, sid="s-1")),
        lambda sub: signed(told_out(sub, events=None)),
        lambda sub: signed(told_out(sub, events={"another": {}})),
        lambda sub: signed(told_out(sub, events=[oidc.LOGGED_OUT])),
        lambda sub: signed(told_out(sub, nonce="n")),
        lambda sub: "no.token.at-all",
        lambda sub: "",
        lambda sub: "\u00e9",
    ],
)
def test_what_is_no_logout_token_ends_no_session(
    shared: World, wire: Wire, token: Callable[[str], str]
) -> None:
    wire.user("out-3", **verified("out-3@example.org"))
    client, _ = enter(shared, wire, "out-3")
    answer = log_out(shared, token("out-3"))
    assert (answer.status_code, answer.json()["title"]) == (400, "refused")
    assert client.get(ME).status_code == 200


def test_a_logout_token_is_no_login_and_waits_for_no_provider_that_is_away(
    shared: World, wire: Wire, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared.state.provider is not None
    wire.sign = lambda claims: signed(told_out("out-4", nonce=None))
    assert refused(shared, wire, "out-4")
    assert log_out(world, "x").status_code == 404
    known = shared.state.provider.known
    monkeypatch.setattr(shared.state, "provider", Provider(known, SECRET, Away()))
    away = log_out(shared, signed(told_out("out-4")))
    assert (away.status_code, away.json()["title"]) == (503, "unreached")
    too_long = log_out(shared, "x" * 20_000)
    assert too_long.status_code == 413


@pytest.mark.slow
def test_the_page_knows_how_one_logs_in(
    shared: World, wire: Wire, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def standing(of: World) -> Any:
        return of.client().get("/api/v1/standing").json()

    assert standing(shared) == {"setup": False, "local": True, "oidc": "Example"}
    assert standing(world) == {"setup": False, "local": True, "oidc": None}
    for path in (LOGIN, CALLBACK):
        assert world.client().get(path).status_code == 404
    assert shared.state.provider is not None
    only = shared.state.provider.known.model_copy(update={"passwords": False})
    monkeypatch.setattr(shared.state, "provider", Provider(only, SECRET, wire))
    assert standing(shared)["local"] is False
    body = {"name": "viewer", "password": PASSWORD}
    refused = shared.client().post("/api/v1/login", json=body)
    assert (refused.status_code, "by Example" in refused.text) == (403, True)


class Away(httpx.BaseTransport):
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route to host")


def answering(**metadata: Any) -> httpx.BaseTransport:
    """A provider whose metadata are right but for those."""
    right = {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/a",
        "token_endpoint": "https://login.example.org/t",
        "jwks_uri": f"{ISSUER}/k",
    }
    return httpx.MockTransport(lambda _: httpx.Response(200, json={**right, **metadata}))


ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
    "end_session_endpoint",
)

NOT_PRIVATE: tuple[Any, ...] = (
    "http://login.example.org/x",
    "ftp://localhost/x",
    "//login.example.org/x",
    "https:///x",
    "https://[x",
    "javascript:alert(1)",
    "",
    7,
    [f"{ISSUER}/x"],
)


BROKEN: dict[str, httpx.BaseTransport] = {
    "away": Away(),
    "no JSON": httpx.MockTransport(lambda _: httpx.Response(200, text="<html>")),
    "a list": httpx.MockTransport(lambda _: httpx.Response(200, json=[])),
    "an error": httpx.MockTransport(lambda _: httpx.Response(500, json={"error": "\x1b[31m"})),
    "another issuer": httpx.MockTransport(
        lambda _: httpx.Response(200, json={"issuer": "https://evil.example"})
    ),
    "nothing else": httpx.MockTransport(lambda _: httpx.Response(200, json={"issuer": ISSUER})),
    "nested too deeply": httpx.MockTransport(
        lambda _: httpx.Response(200, text='{"issuer": ' + "[" * 100_000)
    ),
    "no address": answering(token_endpoint=None),
}


@pytest.mark.parametrize("place", NOT_PRIVATE, ids=str)
@pytest.mark.parametrize("name", ENDPOINTS)
def test_no_endpoint_is_in_clear(name: str, place: Any) -> None:
    provider = Provider(
        ProviderFile(issuer=ISSUER, client_id="nano-vm"), SECRET, answering(**{name: place})
    )
    with pytest.raises(flows.Unproved, match=name):
        provider.address(flows.new_flow(b"x" * 32), "http://127.0.0.1/")
    assert provider.goodbye("http://127.0.0.1/") is None


def test_an_endpoint_on_this_machine_is_as_its_issuer_is() -> None:
    known = ProviderFile(issuer="https://login.example.org", client_id="nano-vm")
    private = dict.fromkeys(ENDPOINTS, f"{known.issuer}/x")
    clear = answering(
        **{**private, "issuer": known.issuer, "end_session_endpoint": "http://localhost/x"}
    )
    with pytest.raises(flows.Unproved, match="end_session_endpoint"):
        Provider(known, SECRET, clear).address(flows.new_flow(b"x" * 32), "https://x/")
    known = ProviderFile(issuer=ISSUER, client_id="nano-vm")
    provider = Provider(known, SECRET, answering(end_session_endpoint=f"{ISSUER}/out"))
    assert str(provider.goodbye("http://127.0.0.1/")).startswith(f"{ISSUER}/out?")
    without = Provider(known, SECRET, answering(end_session_endpoint=None, userinfo_endpoint=None))
    assert without.goodbye("http://127.0.0.1/") is None
    assert without.address(flows.new_flow(b"x" * 32), "http://127.0.0.1/")


class Slow(httpx.BaseTransport):
    """A provider that answers once it is let go; *answer* gives what."""

    def __init__(self, answer: httpx.BaseTransport) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        self.begun.set()
        assert self.go.wait(60)
        return self.answer.handle_request(request)


def outcomes(provider: Provider, wire: Slow, callers: int) -> list[str]:
    """What each of so many gets that begin a login at once, the provider being slow."""

    def begin() -> str:
        try:
            provider.address(flows.new_flow(b"x" * 32), "http://127.0.0.1/")
        except flows.Unproved as error:
            return error.kind
        return "begun"

    with ThreadPoolExecutor(callers) as pool:
        waiting = [pool.submit(begin) for _ in range(callers)]
        assert wire.begun.wait(60)
        end = time.monotonic() + 60
        while (
            callers > MOST_WAITING and sum(one.done() for one in waiting) < callers - MOST_WAITING
        ):
            assert time.monotonic() < end, "those that may not wait are refused at once"
            time.sleep(0.01)
        wire.go.set()
        return sorted(one.result(60) for one in waiting)


def test_a_slow_provider_is_asked_once_and_holds_up_few() -> None:
    known = ProviderFile(issuer=ISSUER, client_id="nano-vm")
    wire = Slow(answering())
    found = outcomes(Provider(known, SECRET, wire), wire, 3 * MOST_WAITING)
    assert found == ["begun"] * MOST_WAITING + ["unreached"] * 2 * MOST_WAITING
    assert wire.asked == ["/.well-known/openid-configuration"]


def test_that_a_provider_is_away_is_known_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ProviderFile(issuer=ISSUER, client_id="nano-vm")
    wire = Slow(Away())
    provider = Provider(known, SECRET, wire)
    assert outcomes(provider, wire, MOST_WAITING) == ["unreached"] * MOST_WAITING
    assert outcomes(provider, wire, 1) == ["unreached"]
    assert len(wire.asked) == 1
    monkeypatch.setattr(oidc, "FAILED_SECONDS", -1.0)
    wire.answer = answering()
    assert outcomes(provider, wire, 1) == ["begun"], "asked again, once it may be back"
    assert outcomes(provider, wire, 1) == ["begun"]
    assert len(wire.asked) == 2


def test_codes_wait_for_a_slow_provider_no_more_than_logins_that_begin() -> None:
    """Anybody may come back with a code, which only the provider knows to be none."""
    wire = Slow(answering())
    provider = Provider(ProviderFile(issuer=ISSUER, client_id="nano-vm"), SECRET, wire)
    wire.go.set()
    flow = flows.new_flow(b"x" * 32)
    provider.address(flow, "http://127.0.0.1/")  # by which its metadata are known
    wire.go.clear()

    def end() -> str:
        with pytest.raises(flows.Unproved) as found:
            provider.claims("x", flow, "http://127.0.0.1/")
        return found.value.kind

    with ThreadPoolExecutor(MOST_WAITING) as pool:
        waiting = [pool.submit(end) for _ in range(MOST_WAITING)]
        try:
            deadline = time.monotonic() + 60
            while len(wire.asked) < 1 + MOST_WAITING:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert end() == "unreached", "one more does not wait"
            assert provider.address(flow, "http://127.0.0.1/"), "what is known needs no turn"
        finally:
            wire.go.set()
        assert {one.result(60) for one in waiting} == {"refused"}
    assert end() == "refused", "turns come back"


def test_known_keys_count_while_new_ones_cannot_be_had(
    shared: World, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token with a made-up key has the keys asked for again, and nobody else suffers by it."""
    wire.user("sub-17", **verified("max@example.org"))
    assert enter(shared, wire, "sub-17")[1] == "/"
    monkeypatch.setattr(oidc, "ASKED_AGAIN_SECONDS", -1.0)
    wire.jwks_status = 500
    wire.sign = FORGED["by a key that is not the provider's"]
    assert enter(shared, wire, "sub-17")[1] == "/#/login/unreached"
    asked = len(wire.asked)
    assert enter(shared, wire, "sub-17")[1] == "/#/login/unreached"
    assert [one.url.path for one in wire.asked[asked:]] == ["/oauth2/token"]
    wire.sign = signed
    assert enter(shared, wire, "sub-17")[1] == "/"


@pytest.mark.parametrize("how", BROKEN)
def test_a_provider_that_does_not_answer_is_no_error_of_ours(
    shared: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    assert shared.state.provider is not None
    broken = Provider(shared.state.provider.known, SECRET, BROKEN[how])
    monkeypatch.setattr(shared.state, "provider", broken)
    answer = shared.client().get(LOGIN, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/#/login/unreached")
    assert "a login by the provider failed" in caplog.text
    assert "\x1b" not in caplog.text
    assert broken.goodbye("http://127.0.0.1:8642/") is None


def failures(world: World) -> int:
    """How many logins that failed are in the audit log."""
    entries = world.owner.get("/api/v1/audit").json()["entries"]
    return sum(one["action"] == "login.failed" for one in entries)


@pytest.mark.parametrize("asked", ["state=x", "state=x&code=y", "state=x&error=access_denied", ""])
def test_who_began_no_login_writes_nothing_into_the_log(
    shared: World, wire: Wire, asked: str
) -> None:
    before = failures(shared)
    answer = shared.client().get(f"{CALLBACK}?{asked}", follow_redirects=False)
    assert answer.headers["location"] == "/#/login/expired"
    assert failures(shared) == before


def test_a_provider_that_is_away_lets_nobody_write_into_the_log(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared.state.provider is not None
    broken = Provider(shared.state.provider.known, SECRET, Away())
    monkeypatch.setattr(shared.state, "provider", broken)
    before = failures(shared)
    answer = shared.client().get(LOGIN, follow_redirects=False)
    assert answer.headers["location"] == "/#/login/unreached"
    assert failures(shared) == before


@pytest.mark.slow
@pytest.mark.parametrize("flows_begun", [1, 12])
def test_who_has_begun_a_login_writes_few_entries_into_the_log(
    make_world: Callable[[str], World], database: str, flows_begun: int
) -> None:
    """One can have as many as one likes, and answer each as often, without the provider."""
    world = make_world(database)
    known = ProviderFile(issuer=ISSUER, client_id="nano-vm")
    world.state.provider = Provider(known, SECRET, Wire())
    for _ in range(flows_begun):
        client = world.client()
        begun = client.get(LOGIN, follow_redirects=False)
        [state] = parse_qs(urlsplit(begun.headers["location"]).query)["state"]
        cookies = dict(client.cookies)
        for _ in range(12 // flows_begun):
            for name, value in cookies.items():
                client.cookies.set(name, value, domain="127.0.0.1", path="/")
            answer = client.get(f"{CALLBACK}?state={state}&error=no", follow_redirects=False)
            assert answer.headers["location"] == "/#/login/refused"
    assert failures(world) == attempts.FREE_ATTEMPTS
    body = {"name": "viewer", "password": PASSWORD}
    assert world.client().post("/api/v1/login", json=body).is_success, "passwords do not wait"


FAULTS = {
    "": "issuer: field required",
    'issuer = "https://x"': "client_id: field required",
    'issuer = "http://login.example.org"\nclient_id = "x"': "issuer: write the issuer as https://",
    'issuer = "https://x"\nclient_id = "x"\nsecret = "x"': "secret: extra inputs",
    'issuer = "https://x"\nclient_id = "x"\n[[roles]]\nproject = "p"': "either project and role",
    'issuer = "https://x"\nclient_id = "x"\n[[roles]]\nowner = true': "owners are a group",
    'issuer = "https://x"\nclient_id = "x"\n[[roles]]\nproject="p"\nrole="root"': "roles.0.role:",
    "issuer": "not TOML",
    'issuer = "https://x"\nclient_id = "x"\nclient_secret_file = "none"': "No such file",
    'issuer = "https://x"\nclient_id = "x"\nclient_secret_file = "open"': "others may read",
    'issuer = "https://x"\nclient_id = "x"\nclient_secret_file = "empty"': "the file is empty",
    'issuer = "https://x"\nclient_id = "x"\nclient_secret_file = "bytes"': "no UTF-8 at byte 1",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_file_that_is_wrong_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "open").write_text(SECRET)
    (tmp_path / "open").chmod(0o644)
    for name, content in (("empty", b" \n"), ("bytes", b"x\xff")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    file = tmp_path / "oidc.toml"
    file.write_text(text)
    store = f"sqlite:///{tmp_path}/runs.db"
    assert main(["serve", "--store", store, "--bind", "0", "--oidc", str(file)]) == 2
    told = capsys.readouterr().err
    assert FAULTS[text] in told
    assert "--oidc: " in told
    assert "Traceback" not in told
    assert SECRET not in told


def test_the_secret_is_of_the_environment_or_of_a_file(tmp_path: Path) -> None:
    file, secret = tmp_path / "oidc.toml", tmp_path / "secret"
    file.write_text('issuer = "https://x"\nclient_id = "x"\nclient_secret_file = "secret"\n')
    secret.write_text("of the file\n")
    secret.chmod(0o600)
    assert provider_in(file, {})[1] == "of the file"
    assert provider_in(file, {"NANO_VM_OIDC_SECRET": "of the environment"})[1] == (
        "of the environment"
    )
    file.write_text('issuer = "https://x"\nclient_id = "x"\n')
    assert provider_in(file, {})[1] is None
    with pytest.raises(VMError, match="No such file"):
        provider_in(tmp_path / "none.toml", {})


def test_a_public_client_sends_no_secret() -> None:
    wire = Wire()
    known = ProviderFile(issuer=ISSUER, client_id="nano-vm")
    provider = Provider(known, None, wire)
    with pytest.raises(flows.Unproved):
        provider.claims("none", flows.new_flow(b"x" * 32), f"http://127.0.0.1{CALLBACK}")
    form = parse_qs(wire.asked[-1].content.decode())
    assert form["client_id"] == ["nano-vm"]
    assert "client_secret" not in form
    assert "authorization" not in wire.asked[-1].headers


def test_the_file_that_the_page_shows_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/how-to/server.md").read_text(encoding="utf-8")
    [block] = re.findall(r'^```toml title="oidc.toml"\n(.*?)^```$', text, re.M | re.S)
    (tmp_path / "oidc.toml").write_text(block)
    known, _ = provider_in(tmp_path / "oidc.toml", {"NANO_VM_OIDC_SECRET": "x"})
    assert known.memberships({"payments-managers"}) == {"shop": ("operator", {"manager"})}
    assert known.memberships(set()) == {"shop": ("viewer", frozenset())}
    assert (known.owns({"platform"}), known.owns(set())) == (True, False)
