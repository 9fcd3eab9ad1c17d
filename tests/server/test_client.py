"""The client of a server, in both its forms, and what it makes of refusals and of a bad way."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from nano_vm import client as module
from nano_vm.client import AsyncClient, Client, ServerError
from nano_vm.errors import (
    AlreadyDecided,
    Changed,
    NotPermitted,
    ProgramError,
    StoreError,
    UnknownRun,
    VMError,
)

from .conftest import World
from .serving import served


@pytest.fixture(scope="module")
def address(world: World) -> Iterator[str]:
    with served(world.state) as found:
        yield found


@pytest.fixture(scope="module")
def keys(world: World) -> dict[str, str]:
    """A key for each role, made by the owner, who may approve anything."""
    path = "/api/v1/projects/shop/keys"
    return {
        role: world.owner.post(path, json={"name": role, "role": role}).json()["key"]
        for role in ("admin", "developer", "operator", "viewer")
    }


INPUTS = {"order_id": "C-1", "amount": 12345678901234567890}


def test_a_run_from_start_to_end(world: World, address: str, keys: dict[str, str]) -> None:
    with Client(address, keys["admin"]) as client:
        run_id = client.start("refund", INPUTS, labels={"from": "test"})
        world.work()
        view = client.wait(run_id, until="waiting", timeout_seconds=30)
        assert view["inputs"]["amount"] == "12345678901234567890"
        [asked] = [one for one in client.inbox() if one["run"] == run_id]
        with pytest.raises(Changed):
            client.approve(run_id, asked["path"], shown="0" * 64)
        client.approve(run_id, asked["path"], shown=asked["shown"], reason="fine")
        with pytest.raises(AlreadyDecided):
            client.reject(run_id, asked["path"], shown=asked["shown"], reason="late")
        world.work()
        assert client.wait(run_id)["output"] == '"paid C-1"'
        kinds = [happened.kind for happened in client.events(run_id)]
        assert kinds[0] == "record"
        assert kinds[-1] == "end"
        rest = [h.seq for h in client.events(run_id, after=0) if h.kind == "record"]
        assert rest == list(range(1, kinds.count("record")))
        assert client.verify(run_id)["identical"]
        assert run_id in [row["id"] for row in client.runs(labels="from=test")]
        assert client.costs() == []


def test_the_same_awaited(world: World, address: str, keys: dict[str, str]) -> None:
    async def go() -> None:
        async with AsyncClient(address, keys["admin"]) as client:
            run_id = await client.start("refund", INPUTS)
            await asyncio.to_thread(world.work)
            await client.wait(run_id, until="waiting")
            [asked] = [one for one in await client.inbox() if one["run"] == run_id]
            await client.reject(run_id, asked["path"], shown=asked["shown"], reason="no")
            await asyncio.to_thread(world.work)
            assert (await client.wait(run_id))["status"] == "success"
            assert [h.kind async for h in client.events(run_id)][-1] == "end"
            assert (await client.verify(run_id))["identical"]
            assert run_id in [row["id"] async for row in client.runs(program="refund")]
            other = await client.start("refund", INPUTS)
            await client.cancel(other)
            with pytest.raises(TimeoutError, match="is pending still"):
                await client.wait(other, timeout_seconds=0)
            assert await client.costs("day") == []

    asyncio.run(go())


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(value).parameters)
            for name, value in vars(kind).items()
            if inspect.isfunction(value) and not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)


def test_refusals_are_the_errors_of_a_store(
    world: World, address: str, keys: dict[str, str]
) -> None:
    with Client(address, keys["viewer"]) as client:
        with pytest.raises(NotPermitted, match="run:start"):
            client.start("refund", INPUTS)
        with pytest.raises(UnknownRun):
            client.show("nothing-such")
    with Client(address, keys["developer"]) as client:
        with pytest.raises(ProgramError) as refused:
            client.start("refund", {"order_id": "x"})
        assert "amount" in refused.value.diagnostics[0].message
        with pytest.raises(UnknownRun, match="no program 'none'"):
            client.start("none")
    with Client(address, "nvm_0_x") as client, pytest.raises(ServerError) as stranger:
        client.show("x")
    assert (stranger.value.status, bool(stranger.value.request_id)) == (401, True)


def faulty(*answers: Any) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A way on which requests meet *answers*, one after the other."""
    left, seen = list(answers), list[httpx.Request]()

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(*answer[:1], json=answer[1])

    return httpx.MockTransport(handle), seen


LOST = httpx.ReadError("the connection was cut")
STARTED = (201, {"id": "r-1"})
DOWN = (503, {"type": "urn:nano-vm:problem:store", "detail": "away"})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.001)


def test_a_start_whose_answer_was_lost_is_asked_for_again_with_its_key() -> None:
    transport, seen = faulty(LOST, DOWN, STARTED)
    with Client("http://x", "nvm_k", project="p", transport=transport) as client:
        assert client.start("refund", INPUTS) == "r-1"
    assert len({request.headers["idempotency-key"] for request in seen}) == 1
    assert len(seen) == 3


def test_a_decision_whose_answer_was_lost_is_not_repeated() -> None:
    transport, seen = faulty(LOST)
    lost = pytest.raises(StoreError, match="cannot be reached: the connection was cut")
    with Client("http://x", "nvm_k", project="p", transport=transport) as client, lost:
        client.approve("r", "ask", shown="0" * 64)
    assert len(seen) == 1


def test_a_server_that_stays_away_is_given_up() -> None:
    transport, seen = faulty(*[DOWN] * 9)
    with (
        Client("http://x", "nvm_k", project="p", transport=transport) as client,
        pytest.raises(StoreError, match="away"),
    ):
        client.show("r")
    assert len(seen) == module.ATTEMPTS


def test_what_a_proxy_answers_is_said_so() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(502, text="<html>bad gateway"))
    refused = pytest.raises(ServerError, match="a proxy before it, answered 502")
    with Client("http://x", "nvm_k", project="p", transport=transport) as client, refused:
        client.show("r")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Client("http://x"), "which key"),
        (lambda: Client("x:80", "nvm_k"), "a server is http://"),
        (lambda: Client("http://x", "nvm_\u2022"), "no key"),
    ],
)
def test_what_is_no_client(
    make: Callable[[], Client], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NANO_VM_KEY", raising=False)
    with pytest.raises(VMError, match=told):
        make()


def test_an_id_is_one_part_of_a_path() -> None:
    transport, seen = faulty((404, {"type": "urn:x:not-found", "detail": "no"}))
    with (
        Client("http://x", "nvm_k", project="a/b", transport=transport) as client,
        pytest.raises(UnknownRun),
    ):
        client.show("../../users?x=1#y")
    assert seen[0].url.raw_path == b"/api/v1/projects/a%2Fb/runs/..%2F..%2Fusers%3Fx%3D1%23y"
