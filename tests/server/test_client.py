"""The client of a server, in both its forms, and what it makes of refusals and of a bad way."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from types import SimpleNamespace
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
    """A key for each role, made by the owner, who is listed as a manager."""
    listed = {"role": "viewer", "approves": ["manager"]}
    assert world.owner.put("/api/v1/projects/shop/members/owner", json=listed).is_success
    path = "/api/v1/projects/shop/keys"
    return {
        role: world.owner.post(path, json={"name": role, "role": role}).json()["key"]
        for role in ("admin", "developer", "operator", "viewer")
    }


INPUTS = {"order_id": "C-1", "amount": 12345678901234567890}


@pytest.mark.slow
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
        assert [row["id"] for row in client.search("paid C-1", labels="from=test")] == [run_id]
        assert client.costs() == []
        sums = client.sums("member", prices={"m": (1, 2.5), "n": {"input": 1, "output": 2}})
        assert (sums["costs"], sums["whole"]) == ([], True)
        assert client.budgets()["accounts"] == []


@pytest.mark.slow
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
            assert run_id in [row["id"] async for row in client.search("c-1")]
            other = await client.start("refund", INPUTS)
            await client.cancel(other)
            with pytest.raises(TimeoutError, match="is pending still"):
                await client.wait(other, timeout_seconds=0)
            assert await client.costs("day") == []
            assert (await client.budgets())["budgets"] == []
            assert (await client.sums("version", prices={"m": (1, 2)}))["runs"] > 0

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


def streaming(*answers: Any) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A way on which requests for events meet *answers*: what a stream says before it ends, a
    status, or an error.
    """
    left, seen = list(answers), list[httpx.Request]()

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, bytes):
            return httpx.Response(200, content=answer)
        return httpx.Response(answer[0], json=answer[1])

    return httpx.MockTransport(handle), seen


def record(number: int, output: str = "") -> bytes:
    data = json.dumps({"seq": number, "output": output}, ensure_ascii=False)
    return f"id: {number}\nevent: record\ndata: {data}\n\n".encode()


END = b'event: end\ndata: {"status":"success"}\n\n'


def followed(transport: httpx.MockTransport, kind: str) -> list[module.Happened]:
    """The events of a run, as either client gives them."""
    if kind == "blocking":
        with Client("http://x", "nvm_k", project="p", transport=transport) as client:
            return list(client.events("r"))

    async def follow() -> list[module.Happened]:
        async with AsyncClient("http://x", "nvm_k", project="p", transport=transport) as client:
            return [happened async for happened in client.events("r")]

    return asyncio.run(follow())


both = pytest.mark.parametrize("kind", ["blocking", "awaited"])


@both
@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_what_a_model_says_is_no_line_of_a_stream(kind: str, end: str) -> None:
    said = f"fine{end}{end}event: end{end}data: {{}}{end}{end}"
    raw = json.dumps({"output": said}, ensure_ascii=False).encode()
    transport, _ = streaming(b"id: 0\nevent: record\ndata: " + raw + b"\n\n" + END)
    happened = followed(transport, kind)
    assert [one.kind for one in happened] == ["record", "end"]
    assert happened[0].data["output"] == said


@both
def test_a_stream_that_is_cut_goes_on_behind_its_last_event(kind: str) -> None:
    cut = record(1) + b"id: 2\nevent: rec"
    transport, seen = streaming(record(0), LOST, DOWN, cut, record(2) + END)
    assert [one.seq for one in followed(transport, kind)] == [0, 1, 2, None]
    asked = [request.headers.get("last-event-id") for request in seen]
    assert asked == [None, "0", "0", "0", "1"]


@both
@pytest.mark.parametrize(
    ("answer", "told"), [(LOST, "cannot be reached"), (DOWN, "away"), (b"", "ended the stream")]
)
def test_a_stream_of_which_nothing_comes_is_given_up(kind: str, answer: Any, told: str) -> None:
    tries = module.STREAM_ATTEMPTS
    # an event that comes sets the count back
    answers = [answer] * (tries - 1) + [record(0)] + [answer] * (tries - 1)
    transport, seen = streaming(*answers)
    with pytest.raises(StoreError, match=told):
        followed(transport, kind)
    assert len(seen) == 2 * tries - 1


@both
def test_waits_between_streams_that_fail_double(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    # of the module alone: other threads of this process sleep too, such as that of a server
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=sleep))
    transport, _ = streaming(LOST, DOWN, LOST, END)
    followed(transport, kind)
    assert [seconds / module.FIRST_WAIT_SECONDS for seconds in waited] == [1, 2, 4]


@both
def test_a_run_that_is_waited_for_is_drawn_when_it_has_changed(kind: str) -> None:
    def stood(version: str, status: str | None) -> tuple[int, Any]:
        return 200, {"version": version, "run": status and {"status": status}}

    answers = stood("1", "pending"), stood("1", None), stood("2", "success")
    transport, seen = streaming(*answers)
    if kind == "blocking":
        with Client("http://x", "nvm_k", project="p", transport=transport) as client:
            assert client.wait("r") == {"status": "success"}
    else:

        async def wait() -> Any:
            async with AsyncClient("http://x", "nvm_k", project="p", transport=transport) as it:
                return await it.wait("r")

        assert asyncio.run(wait()) == {"status": "success"}
    assert [request.url.params["seen"] for request in seen] == ["", "1", "1"]


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800", {1: 2}])
def test_what_is_no_value_is_told_before_it_is_sent(value: Any) -> None:
    transport, seen = faulty()
    with Client("http://x", "nvm_k", project="p", transport=transport) as client:
        for send in (
            lambda: client.start("refund", {"x": value}),
            lambda: client.send_event("r", "paid", {"x": value}),
            lambda: client.resolve("r", "pay", shown="0" * 64, done={"x": value}),
        ):
            with pytest.raises(VMError, match=r"^value"):
                send()
    assert seen == []


def test_what_a_tool_may_return_may_be_sent() -> None:
    transport, seen = faulty(STARTED)
    with Client("http://x", "nvm_k", project="p", transport=transport) as client:
        client.start("refund", {"day": date(2027, 1, 31), "amount": Decimal("1.5")})
    assert json.loads(seen[0].content)["inputs"] == {"day": "2027-01-31", "amount": 1.5}
