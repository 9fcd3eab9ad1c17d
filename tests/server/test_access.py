"""Every route, for every role, in one's own project and in another: what is allowed stands in
`allowed.yaml`, and all else is refused.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import yaml
from fastapi import FastAPI

from nano_vm.errors import VMError
from nano_vm.server import roles
from nano_vm.server.problems import missing
from nano_vm.server.routing import Routes, require_permissions, route

from .conftest import HOST, REFUND, World

ALLOWED: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_name("allowed.yaml").read_text())

PEOPLE = ("nobody", "viewer", "operator", "developer", "admin", "stranger", "owner")

ENDS_SESSIONS = {"logout", "logout_everywhere"}


def operations(world: World) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Each operation of the API: its method, path and description, by its id."""
    document = world.owner.get("/api/v1/openapi.json").json()
    return {
        told["operationId"]: (method.upper(), path, told)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    }


def is_allowed(answer: Any) -> bool:
    """Whether the gate let a request through: whatever its route made of it."""
    gone = answer.status_code == 404 and answer.json()["detail"] == missing().detail
    return answer.status_code not in (401, 403) and not gone


def asked(world: World, who: str, method: str, path: str, project: str, run_id: str) -> Any:
    values = {"project": project, "run_id": run_id, "a": run_id, "b": run_id}
    filled = path
    for part in {piece.strip("{}") for piece in path.split("/") if piece.startswith("{")}:
        filled = filled.replace(f"{{{part}}}", values.get(part, "1"))
    if filled.endswith("/events") and method == "GET":  # which would go on until the run ends
        with world.people[who].stream(method, filled, headers={"last-event-id": "999"}) as answer:
            if answer.is_success:
                return answer
            answer.read()
            return answer
    return world.people[who].request(method, filled)


@pytest.mark.slow
def test_the_matrix(world: World) -> None:
    run_id = world.start(run_id="matrix")
    found: dict[str, list[str]] = {}
    for name, (method, path, _) in operations(world).items():
        found[name] = []
        for who in PEOPLE:
            if name in ENDS_SESSIONS and who != "nobody":
                kept = world.people[who]
                world.people[who] = world.login(who)
                allowed = is_allowed(asked(world, who, method, path, "shop", run_id))
                world.people[who] = world.login(who) if name == "logout_everywhere" else kept
            else:
                allowed = is_allowed(asked(world, who, method, path, "shop", run_id))
            if allowed:
                found[name].append(who)
    assert found == ALLOWED


def unread(world: World, method: str, path: str, headers: dict[str, str]) -> int:
    """The status that a request is answered with whose body cannot be read."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError(f"the body of {method} {path} was read")

    async def send(message: Any) -> None:
        sent.append(message)

    url = urlsplit(HOST)
    told = {"host": url.netloc, "content-length": "1000000", "origin": HOST, **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in told.items()],
        "client": ("127.0.0.1", 1),
        "server": (url.hostname, url.port),
        "scheme": url.scheme,
    }
    asyncio.run(world.app(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.slow
def test_nothing_is_read_of_a_body_before_it_is_known_who_sends_it(world: World) -> None:
    cookies = "; ".join(f"{name}={value}" for name, value in world.viewer.cookies.items())
    tried = 0
    for name, (method, path, told) in operations(world).items():
        if method == "GET" or told["x-permission"] == roles.PUBLIC:
            continue
        filled = path.replace("{project}", "shop").replace("{", "").replace("}", "")
        assert unread(world, method, filled, {}) == 401, name
        assert unread(world, method, filled, {"authorization": "Bearer nvm_x_y"}) == 401, name
        if told["x-permission"] != roles.SIGNED_IN and "viewer" not in ALLOWED[name]:
            assert unread(world, method, filled, {"cookie": cookies}) == 403, name
            tried += 1
    assert tried > 10
    assert unread(world, "POST", "/api/v1/nothing", {}) == 401
    for path in ("/api/v1/login", "/api/v1/setup"):  # which anybody may send a little to
        assert unread(world, "POST", path, {}) == 413


@pytest.mark.slow
def test_nothing_of_another_project_is_there(world: World) -> None:
    """Not for its members, and not with the id of a run that one has oneself."""
    run_id = world.start()
    for name, (method, path, _) in operations(world).items():
        if "{project}" not in path:
            continue
        for who in ("viewer", "operator", "developer", "admin"):
            for project in ("bank", "none"):
                answer = asked(world, who, method, path, project, run_id)
                assert (answer.status_code, answer.json()["detail"]) == (
                    404,
                    missing().detail,
                ), (name, who, project)
        if "{run_id}" in path or "{a}" in path:
            answer = asked(world, "stranger", method, path, "bank", run_id)
            assert not answer.is_success, name
            assert run_id not in answer.text.replace(path, ""), name


@pytest.mark.slow
def test_a_key_may_do_what_its_role_may_and_no_more(world: World) -> None:
    made = world.admin.post(
        "/api/v1/projects/shop/keys", json={"name": "ci", "role": "operator"}
    ).json()
    world.people["key"] = world.client(made["key"])
    run_id = world.start(run_id="of-a-key")
    for name, (method, path, told) in operations(world).items():
        if name in ENDS_SESSIONS:
            continue
        allowed = is_allowed(asked(world, "key", method, path, "shop", run_id))
        needs = told["x-permission"]
        expected = needs in roles.ROLES["operator"] or needs in (roles.PUBLIC, roles.SIGNED_IN)
        assert allowed == expected, name
        if "{project}" in path:
            assert not is_allowed(asked(world, "key", method, path, "bank", run_id)), name
    assert world.people["key"].post("/api/v1/logout-everywhere").status_code == 403
    assert world.admin.get("/api/v1/me").status_code == 200, "who made it is still logged in"
    listed = world.admin.get("/api/v1/projects/shop/keys")
    assert made["key"] not in listed.text
    assert world.admin.delete(f"/api/v1/projects/shop/keys/{made['id']}").status_code == 204
    assert world.people.pop("key").get("/api/v1/me").status_code == 401


def test_a_key_ends_with_the_membership_of_its_maker(world: World) -> None:
    assert world.admin.put("/api/v1/projects/shop/members/stranger", json={"role": "admin"})
    made = world.stranger.post("/api/v1/projects/shop/keys", json={"name": "x", "role": "admin"})
    key = world.client(made.json()["key"])
    assert key.get("/api/v1/projects/shop/runs").status_code == 200
    assert key.get("/api/v1/projects/bank/runs").status_code == 404  # whose maker is an admin there
    assert world.admin.delete("/api/v1/projects/shop/members/stranger").status_code == 204
    assert key.get("/api/v1/projects/shop/runs").status_code == 401


def test_what_was_not_done_is_not_in_the_log(world: World) -> None:
    def entries(*actions: str) -> int:
        found = world.owner.get("/api/v1/audit").json()["entries"]
        return sum(one["action"] in actions for one in found)

    actions = ("program.put", "key.revoked", "logout", "run.started")
    keys = "/api/v1/projects/shop/keys"
    made = world.admin.post(keys, json={"name": "x", "role": "developer"}).json()
    key = world.client(made["key"])
    before = entries(*actions)
    assert world.developer.post(
        "/api/v1/projects/shop/programs", json={"source": REFUND}
    ).is_success
    assert entries(*actions) == before, "it is the newest version already"
    assert key.post("/api/v1/logout").status_code == 403
    assert entries(*actions) == before
    run = {"program": "refund", "inputs": {"order_id": "A", "amount": 1}, "run_id": "once"}
    for _ in range(2):
        assert key.post("/api/v1/projects/shop/runs", json=run).is_success
    assert entries(*actions) == before + 1
    for _ in range(2):
        assert world.admin.delete(f"{keys}/{made['id']}").status_code == 204
    assert entries(*actions) == before + 2


def test_what_is_made_is_reached_by_its_address(world: World) -> None:
    for name in ("a/b", ".", "..", "/"):
        run = {"program": "refund", "inputs": {"order_id": "A", "amount": 1}, "run_id": name}
        answer = world.developer.post("/api/v1/projects/shop/runs", json=run)
        assert answer.status_code == 422, name
        source = REFUND.replace("name: refund", f"name: '{name}'")
        answer = world.developer.post("/api/v1/projects/shop/programs", json={"source": source})
        assert (answer.status_code, "stands in addresses" in answer.text) == (422, True), name
    for run_id in ("a.b", "...", "a?b", "a#b", "a&b=c", "~"):
        run = {"program": "refund", "inputs": {"order_id": "A", "amount": 1}, "run_id": run_id}
        assert world.developer.post("/api/v1/projects/shop/runs", json=run).is_success, run_id
        address = f"/api/v1/projects/shop/runs/{quote(run_id, safe='')}"
        assert world.developer.get(address).json()["run"]["id"] == run_id


def test_what_is_no_key(world: World) -> None:
    made = world.admin.post(
        "/api/v1/projects/shop/keys", json={"name": "x", "role": "viewer"}
    ).json()
    for text in ("", "x", "nvm_", f"nvm_{made['id']}_", made["key"][:-1], made["key"] + "x", "é"):
        headers = {"authorization": f"Bearer {text}".encode()}
        answer = world.client().get("/api/v1/me", headers=headers)
        assert answer.status_code == 401, text
    basic = {"authorization": f"Basic {made['key']}"}
    assert world.client().get("/api/v1/me", headers=basic).status_code == 401


def test_every_permission_is_of_a_role_and_of_a_route(world: World) -> None:
    needed = {told["x-permission"] for _, _, told in operations(world).values()}
    assert needed >= roles.ALL
    for role in roles.ROLES.values():
        assert role <= roles.ALL


def test_a_route_without_a_permission_keeps_the_server_from_starting() -> None:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    routes = Routes()

    @route(routes, "GET", "/fine", roles.PUBLIC)
    def fine() -> None: ...

    routes.into(app)
    require_permissions(app)
    app.get("/forgotten")(fine)
    with pytest.raises(VMError, match="/forgotten declares no permission"):
        require_permissions(app)
    other = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    route(routes, "GET", "/typo", "run:raed")(fine)
    routes.into(other)
    with pytest.raises(VMError, match="run:raed', which no role has"):
        require_permissions(other)
    nowhere = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    of_none = Routes()
    route(of_none, "GET", "/api/v1/runs", "run:read")(fine)
    of_none.into(nowhere)
    with pytest.raises(VMError, match="/api/v1/runs needs run:read of a project, and has none"):
        require_permissions(nowhere)
    beside = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    beside.get("/beside", openapi_extra={"x-permission": "run:read"})(fine)
    with pytest.raises(VMError, match="/beside is not behind the gate"):
        require_permissions(beside)
