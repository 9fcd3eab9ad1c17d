"""Logging in: the first owner, passwords, sessions and what is tried against them."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from damage import full_after
from starlette.testclient import TestClient

from nano_vm.errors import StoreError, VMError
from nano_vm.server import access, app, attempts, credentials, secrets
from nano_vm.server.app import application
from nano_vm.server.guards import MAX_BODY_BYTES, MAX_PUBLIC_BODY_BYTES
from nano_vm.server.state import State
from nano_vm.store.protocol import open_tables

from .conftest import HOST, PASSWORD, PEPPER, World

ME, LOGIN = "/api/v1/me", "/api/v1/login"


@pytest.mark.slow
def test_the_token_of_the_console_makes_one_owner(world: World) -> None:
    assert world.state.setup_token is None
    body = {"token": "", "name": "mallory", "password": PASSWORD}
    assert world.client().post("/api/v1/setup", json=body).status_code == 403
    world.state.setup_token = "late"  # as of a second process that was started before
    late = world.client().post("/api/v1/setup", json={**body, "token": "late"})
    world.state.setup_token = None
    assert late.status_code == 422
    assert "has an owner already" in late.json()["detail"]


@pytest.mark.slow
def test_a_token_is_over_once_another_server_has_an_owner(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    store = open_tables(url)
    second = State(store, PEPPER)  # started before the first owner was made
    assert second.wants_owner()
    make_world(url, copy=False)
    client = TestClient(application(second), base_url=HOST)
    assert client.get("/api/v1/standing").json()["setup"] is False
    assert second.setup_token is None
    store.close()


UNREACHED = (
    "a/b",
    ".",
    "..",
    "alice\u200b",
    "al\nice",
    " alice",
    "alice ",
    "\u202ealice",
    "\u2028",
    "",
)


@pytest.mark.parametrize("name", UNREACHED)
def test_nobody_has_a_name_that_no_address_reaches(world: World, name: str) -> None:
    body = {"name": name, "password": PASSWORD}
    assert world.owner.post("/api/v1/users", json=body).status_code == 422
    world.state.setup_token = "late"
    answer = world.client().post("/api/v1/setup", json={**body, "token": "late"})
    world.state.setup_token = None
    assert answer.status_code == 422
    assert "has an owner already" not in answer.text


@pytest.mark.parametrize("name", ["mia@example.org", "M\u00fcller, \u738b", "a?b#c\\e", "x" * 200])
def test_whoever_is_made_is_reached(world: World, name: str) -> None:
    assert world.owner.post("/api/v1/users", json={"name": name, "password": PASSWORD}).is_success
    address = f"/api/v1/users/{quote(name, safe='')}"
    assert world.owner.patch(address, json={"disabled": True}).is_success
    listed = world.owner.get("/api/v1/users").json()["users"]
    assert [user["disabled"] for user in listed if user["name"] == name] == [True]


@pytest.mark.slow
def test_without_a_login_there_is_the_page_and_nothing_else(world: World) -> None:
    client = world.client()
    open_ = {"/healthz", "/readyz", "/", "/assets/app.js", "/assets/app.css"}
    for found in world.app.routes:
        path = found.path.replace("{project}", "shop")
        for method in found.methods:
            answer = client.request(method, path)
            if path in open_:
                assert answer.status_code != 401, path
            elif found.openapi_extra["x-permission"] == "provider":
                assert answer.status_code == 404, path  # a token proves it, and there is none here
            elif found.openapi_extra["x-permission"] != "public":
                assert answer.status_code == 401, path
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/api/v2/nothing").status_code == 401
    assert world.viewer.get("/api/v2/nothing").status_code == 404


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(world: World) -> None:
    client = world.client()
    answer = client.post(LOGIN, json={"name": "viewer", "password": PASSWORD})
    cookie = answer.headers["set-cookie"]
    for part in ("nano_vm_session=", "HttpOnly", "SameSite=lax", "Path=/"):
        assert part in cookie
    kept = client.cookies[world.state.cookie]
    with world.state.tables.reading() as rows:
        dump = str(rows.transaction.all("SELECT * FROM nano_sessions"))
    assert kept not in dump


def test_a_session_cannot_be_fixed_before_it_is_anybodys(world: World) -> None:
    client = world.client()
    client.cookies.set(world.state.cookie, "chosen-by-mallory", domain="127.0.0.1", path="/")
    assert client.post(LOGIN, json={"name": "viewer", "password": PASSWORD}).is_success
    other = world.client()
    other.cookies.set(world.state.cookie, "chosen-by-mallory", domain="127.0.0.1", path="/")
    assert other.get(ME).status_code == 401
    first = client.cookies[world.state.cookie]
    client.post(LOGIN, json={"name": "viewer", "password": PASSWORD})
    assert client.cookies[world.state.cookie] != first
    other.cookies.clear()
    other.cookies.set(world.state.cookie, first, domain="127.0.0.1", path="/")
    assert other.get(ME).status_code == 401


def test_a_cookie_that_was_stolen_is_worth_nothing_after_logout(world: World) -> None:
    client, thief = world.login("viewer"), world.client()
    thief.cookies.update(client.cookies)
    assert thief.get(ME).json()["name"] == "viewer"
    assert client.post("/api/v1/logout").json() == {"next": None}
    assert thief.get(ME).status_code == 401


def test_logout_everywhere_ends_all_sessions_of_one_person(world: World) -> None:
    one, two, other = world.login("viewer"), world.login("viewer"), world.login("operator")
    assert one.post("/api/v1/logout-everywhere").status_code == 204
    assert [client.get(ME).status_code for client in (one, two, other)] == [401, 401, 200]
    world.people["viewer"] = world.login("viewer")


@pytest.mark.parametrize("limit", ["IDLE_NS", "ABSOLUTE_NS"])
def test_a_session_ends_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    client = world.login("viewer")
    assert client.get(ME).status_code == 200
    monkeypatch.setattr(credentials, limit, 0)
    assert client.get(ME).status_code == 401


def test_a_person_who_is_disabled_is_out_at_once(world: World) -> None:
    assert world.owner.post("/api/v1/users", json={"name": "eve", "password": PASSWORD}).is_success
    eve = world.login("eve")
    assert world.owner.patch("/api/v1/users/eve", json={"disabled": True}).is_success
    assert eve.get(ME).status_code == 401
    again = world.client().post(LOGIN, json={"name": "eve", "password": PASSWORD})
    assert again.status_code == 401


def test_the_last_owner_stays(world: World) -> None:
    for change in ({"disabled": True}, {"owner": False}):
        answer = world.owner.patch("/api/v1/users/owner", json=change)
        assert answer.status_code == 422
        assert "only owner" in answer.json()["detail"]


def test_changing_a_password_ends_sessions(world: World) -> None:
    world.owner.post("/api/v1/users", json={"name": "zoe", "password": PASSWORD})
    one, two = world.login("zoe"), world.login("zoe")
    change = "/api/v1/password"
    wrong = one.post(change, json={"old": "not this one at all", "new": "another long one"})
    assert wrong.status_code == 403
    short = one.post(change, json={"old": PASSWORD, "new": "short"})
    assert (short.status_code, "12 to 200 characters" in short.text) == (422, True)
    assert one.post(change, json={"old": PASSWORD, "new": "another long one"}).status_code == 204
    assert [client.get(ME).status_code for client in (one, two)] == [401, 401]
    assert world.login("zoe", "another long one").get(ME).json()["name"] == "zoe"


@pytest.fixture
def forgotten(world: World) -> Iterator[None]:
    """Attempts of other tests are forgotten before, and those of this one afterwards."""

    def forget() -> None:
        world.state.tables.write(lambda rows: rows.transaction.run("DELETE FROM nano_attempts"))

    forget()
    yield
    forget()


def guess(world: World, name: str, password: str = "x" * 12) -> int:
    body = {"name": name, "password": password}
    return world.client().post(LOGIN, json=body).status_code


@pytest.mark.usefixtures("forgotten")
def test_who_guesses_waits_longer_and_longer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.client()
    answers = [guess(world, f"guess {number}") for number in range(attempts.FREE_ATTEMPTS)]
    assert answers == [401] * attempts.FREE_ATTEMPTS
    late = client.post(LOGIN, json={"name": "owner", "password": PASSWORD})
    assert late.status_code == 429  # from there, whoever they say they are
    assert int(late.headers["retry-after"]) >= 1
    later = time.time_ns() + attempts.LONGEST_WAIT_NS
    monkeypatch.setattr(attempts.time, "time_ns", lambda: later)
    assert client.post(LOGIN, json={"name": "owner", "password": PASSWORD}).is_success
    assert world.client().get("/healthz").is_success
    # who has an account does not get more guesses at others by it
    assert [guess(world, "viewer"), guess(world, "admin")] == [401, 429]


@pytest.mark.usefixtures("forgotten")
def test_who_guesses_many_at_once_guesses_no_more(world: World) -> None:
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda number: guess(world, f"guess {number}"), range(12)))
    assert sorted(answers) == [401] * attempts.FREE_ATTEMPTS + [429] * 7


@pytest.mark.usefixtures("forgotten")
def test_who_logs_in_often_does_not_wait(world: World) -> None:
    for _ in range(attempts.FREE_ATTEMPTS - 1):
        assert guess(world, "viewer") == 401
    for _ in range(attempts.FREE_ATTEMPTS + 2):
        assert guess(world, "viewer", PASSWORD) == 200


@pytest.mark.usefixtures("forgotten")
def test_the_old_password_is_not_guessed_by_a_stolen_session(world: World) -> None:
    client = world.login("viewer")
    body = {"old": "not this one at all", "new": "another long one"}
    answers = [client.post("/api/v1/password", json=body).status_code for _ in range(6)]
    assert answers == [403] * attempts.FREE_ATTEMPTS + [429]


def test_one_network_is_one_place() -> None:
    pepper = b"x" * 32
    places = [
        attempts.attempt_of("x", ip, pepper).place
        for ip in ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1", "192.0.2.1", "testclient")
    ]
    assert places[0] == places[1] == "ip 2001:db8::/64"
    assert len(set(places)) == 4


@pytest.mark.usefixtures("forgotten")
def test_what_was_typed_as_a_name_is_kept_nowhere(world: World) -> None:
    typed = "my password, in the wrong field"
    assert [guess(world, typed), guess(world, "viewer")] == [401, 401]
    with world.state.tables.reading() as rows:
        for table in ("nano_attempts", "nano_audit", "nano_sessions"):
            assert typed not in str(rows.transaction.all(f"SELECT * FROM {table}")), table
    known, unknown = world.owner.get("/api/v1/audit").json()["entries"][:2]
    assert (known["action"], known["target"], known["detail"]) == ("login.failed", "viewer", {})
    assert (unknown["target"], unknown["detail"]) == ("", {"unknown_name_chars": len(typed)})


@pytest.mark.usefixtures("forgotten")
def test_an_unknown_name_is_answered_like_a_wrong_password(world: World) -> None:
    said = [
        world.client().post(LOGIN, json={"name": name, "password": "x" * 12}).json()["detail"]
        for name in ("viewer", "nobody at all")
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null", "http://127.0.0.1:1"])
def test_a_change_from_another_site_is_refused(world: World, origin: str | None) -> None:
    client = world.login("operator")
    del client.headers["origin"]
    headers = {} if origin is None else {"origin": origin}
    for path in ("/api/v1/logout", "/api/v1/projects/shop/inbox", LOGIN, "/api/v1/setup"):
        answer = client.post(path, headers=headers, json={})
        assert (answer.status_code, answer.json()["title"]) == (403, "cross origin"), path
    assert client.get(ME, headers=headers).status_code == 200


def test_another_host_is_not_answered(world: World) -> None:
    client = world.login("viewer")
    answer = client.get(ME, headers={"host": "evil.example"})
    assert answer.status_code == 421
    assert client.get("/healthz", headers={"host": "10.0.0.1"}).status_code == 200


def test_what_every_answer_tells_a_browser(world: World) -> None:
    for path in (ME, "/healthz", "/api/v1/projects/none/runs"):
        headers = world.viewer.get(path).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe-inline'" not in policy.split("style-src-attr")[0]
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["x-request-id"]
    given = world.viewer.get(ME, headers={"x-request-id": "from-the-proxy"})
    assert given.headers["x-request-id"] == "from-the-proxy"
    hostile = world.viewer.get(ME, headers={"x-request-id": "a\x1b[31m"})
    assert "\x1b" not in hostile.headers["x-request-id"]


def test_an_error_of_ours_is_answered_like_all_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(access, "credential_of", fails)
    client = TestClient(world.app, base_url=HOST, raise_server_exceptions=False)
    answer = client.get(ME, headers={"x-request-id": "from-the-proxy"})
    assert (answer.status_code, answer.json()["title"]) == (500, "internal")
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "from-the-proxy"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_a_page_is_sent_again_only_where_it_is_another(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "assets").mkdir()
    for name in ("index.html", "assets/app.js", "assets/app.css"):
        (tmp_path / name).write_text(f"<head>{name}")
    monkeypatch.setattr("nano_vm.ui.page.DIST", tmp_path)
    app.part.cache_clear()
    client = world.client()
    tags = set()
    for path in ("/", "/assets/app.js", "/assets/app.css"):
        first = client.get(path)
        assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
        tags.add(first.headers["etag"])
        for tag in (first.headers["etag"], f"W/{first.headers['etag']}"):  # as nginx has it
            again = client.get(path, headers={"if-none-match": tag})
            assert (again.status_code, again.content) == (304, b"")
        assert client.get(path, headers={"if-none-match": '"another"'}).content == first.content
    assert len(tags) == 3
    app.part.cache_clear()


def test_what_is_noted_of_sessions_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MOST_TOUCHED", 3)
    world.state.touched.clear()
    for _ in range(5):
        assert world.login("viewer").get(ME).is_success
    assert len(world.state.touched) == 3


def test_a_probe_asks_by_any_name_and_costs_little(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(world.state.store), "counts", None)  # which reads every header
    for path in ("/healthz", "/readyz"):
        answer = world.client().get(path, headers={"host": "10.0.0.1"})
        assert (answer.status_code, answer.json()) == (200, {"ok": True}), path

    def away(*_: Any) -> Any:
        raise StoreError("away", passing=True)

    monkeypatch.setattr(type(world.state.store), "reading", away)
    assert world.client().get("/readyz").status_code == 503
    assert world.client().get("/healthz").status_code == 200


def test_a_body_that_is_too_long_is_refused_before_it_is_read(world: World) -> None:
    for content in (b"x" * (MAX_BODY_BYTES + 1), iter([b"x" * 1_000_000] * 18)):
        answer = world.operator.post("/api/v1/projects/shop/inbox", content=content)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["title"]) == (413, "too long")


def test_a_body_that_anybody_may_send_is_short(world: World) -> None:
    most = b'{"name":"' + rb"\u00e9" * 1000 + b'","password":"' + rb"\u00e9" * 1000 + b'"}'
    assert len(most) <= MAX_PUBLIC_BODY_BYTES
    for path in (LOGIN, "/api/v1/setup"):
        for content in (b"x" * (MAX_PUBLIC_BODY_BYTES + 1), iter([b"x" * 1000] * 17)):
            answer = world.client().post(path, content=content)  # type: ignore[arg-type]
            assert (answer.status_code, answer.json()["title"]) == (413, "too long")


def test_the_secret_of_the_server_is_its_own(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    made = secrets.pepper_of(file)
    assert len(made) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secrets.pepper_of(file) == made
    file.chmod(0o644)
    with pytest.raises(VMError, match="others may read the server's secret; chmod 600"):
        secrets.pepper_of(file)
    file.chmod(0o600)
    file.write_text("short")
    with pytest.raises(VMError, match="at least 32 bytes"):
        secrets.pepper_of(file)
    with pytest.raises(VMError, match="No such file"):
        secrets.pepper_of(tmp_path / "none" / "secret")


def test_a_secret_for_which_there_is_no_room_leaves_no_part_of_one(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with full_after(20), pytest.raises(VMError, match="File too large"):
        secrets.pepper_of(file)
    assert not file.exists()
    assert len(secrets.pepper_of(file)) >= 32


def test_by_tls_the_cookie_is_bound_to_the_host(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(world.state, "public_url", "https://runs.example.org")
    headers = {"origin": "https://runs.example.org"}
    body = {"name": "viewer", "password": PASSWORD}
    cookie = world.client().post(LOGIN, json=body, headers=headers).headers["set-cookie"]
    assert cookie.startswith("__Host-nano_vm_session=")
    assert "Secure" in cookie
    refused = world.client().post(LOGIN, json=body, headers={"origin": HOST})
    assert refused.status_code == 403
