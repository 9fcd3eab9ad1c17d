"""Each word about a stored run is refused with the type that says why, whichever way it is said: by
a VM, by an `Inbox`, and by its awaited form.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from build import program, step

from nano_vm import ExecutionVM, VMError
from nano_vm.errors import AlreadyDecided, Changed, Expired, NotPermitted, StoreError, UnknownRun
from nano_vm.run.aio import AsyncInbox
from nano_vm.run.inbox import Inbox

ASK = {"id": "ask", "type": "approval", "role": "boss", "show": {"x": 1}}
WAIT = {"id": "hear", "type": "wait", "event": "paid"}
DOUBT = step("send", "send", timeout_seconds=0.01)
SHOWN = "0" * 64

WORDS: dict[str, Callable[[Any], Any]] = {
    "approve": lambda to: to.approve("r", "ask", shown=SHOWN, by="ann"),
    "reject": lambda to: to.reject("r", "ask", by="ann"),
    "resolve": lambda to: to.resolve("r", "send", retry=True, by="ann"),
    "cancel": lambda to: to.cancel("r", by="ann"),
    "event": lambda to: to.send_event("paid", 1, run_id="r"),
}


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[ExecutionVM]:
    async def send() -> None:
        await asyncio.Event().wait()

    made = ExecutionVM(
        tools={"send": send},
        store=f"sqlite:///{tmp_path / 'runs.db'}",
        roles=roles,
    )
    yield made
    made.close()


def roles(name: str) -> list[str]:
    return ["boss"] if name == "ann" else []


async def said(vm: ExecutionVM, way: str, word: Callable[[Any], Any]) -> Any:
    """What saying a *word* gives: by the VM, its inbox, one without a VM, or awaited."""
    to: Any = vm
    if way != "vm":
        to = vm.inbox if way == "inbox" else Inbox(vm.require_store(), roles, time)
    result = word(to.aio if way == "awaited" else to)
    return await result if asyncio.iscoroutine(result) else result


WAYS = pytest.mark.parametrize("way", ["vm", "inbox", "alone", "awaited"])


@WAYS
@pytest.mark.parametrize("word", WORDS)
async def test_of_a_run_that_is_not_there(vm: ExecutionVM, way: str, word: str) -> None:
    with pytest.raises(UnknownRun, match="there is no run 'r'"):
        await said(vm, way, WORDS[word])


@WAYS
@pytest.mark.parametrize("word", WORDS)
async def test_of_a_run_that_has_ended(vm: ExecutionVM, way: str, word: str) -> None:
    await vm.run(program({"id": "a", "type": "set", "values": {"x": 1}}), run_id="r")
    with pytest.raises(Expired, match=r"has ended \(success\)") as refused:
        await said(vm, way, WORDS[word])
    assert refused.value.deadline_ns is not None


@WAYS
@pytest.mark.parametrize("word", [word for word in WORDS if word != "resolve"])
async def test_of_a_run_that_is_to_be_cancelled(vm: ExecutionVM, way: str, word: str) -> None:
    await vm.run(program(WAIT), run_id="r")
    vm.inbox.cancel("r", by="bob")
    with pytest.raises(AlreadyDecided, match="is to be cancelled already, by 'bob'") as refused:
        await said(vm, way, WORDS[word])
    assert (refused.value.decision, refused.value.by) == ("cancel", "bob")


@WAYS
@pytest.mark.parametrize("word", ["approve", "reject", "resolve"])
async def test_of_what_is_not_asked(vm: ExecutionVM, way: str, word: str) -> None:
    await vm.run(program(WAIT), run_id="r")
    with pytest.raises(Changed, match=r"\(suspended\) (asks no approval|has nothing in doubt) at"):
        await said(vm, way, WORDS[word])


@WAYS
async def test_of_another_request_than_was_shown(vm: ExecutionVM, way: str) -> None:
    await vm.run(program(ASK), run_id="r")
    with pytest.raises(Changed, match="is not the digest of the request as it stands"):
        await said(vm, way, WORDS["approve"])


@WAYS
@pytest.mark.parametrize("word", ["approve", "reject"])
async def test_by_who_lacks_the_role(vm: ExecutionVM, way: str, word: str) -> None:
    await vm.run(program(ASK), run_id="r")
    more = {"shown": vm.waiting("r")[0]["shown"]} if word == "approve" else {}
    with pytest.raises(NotPermitted, match="'bob' lacks the role 'boss'") as refused:
        await said(vm, way, lambda to: getattr(to, word)("r", "ask", by="bob", **more))
    assert (refused.value.by, refused.value.role) == ("bob", "boss")


@WAYS
@pytest.mark.parametrize("word", ["approve", "reject", "resolve", "cancel"])
async def test_by_nobody(vm: ExecutionVM, way: str, word: str) -> None:
    await vm.run(program(ASK), run_id="r")

    def nobody(to: Any) -> Any:
        arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
            "approve": (("r", "ask"), {"shown": SHOWN}),
            "reject": (("r", "ask"), {}),
            "resolve": (("r", "send"), {"retry": True}),
            "cancel": (("r",), {}),
        }
        given, named = arguments[word]
        return getattr(to, word)(*given, **named, by=" ")

    with pytest.raises(NotPermitted, match="a decision is somebody's"):
        await said(vm, way, nobody)


@WAYS
@pytest.mark.parametrize("word", ["approve", "reject", "resolve"])
async def test_of_what_somebody_decided(vm: ExecutionVM, way: str, word: str) -> None:
    await vm.run(program(DOUBT if word == "resolve" else ASK), run_id="r")
    if word == "resolve":
        vm.resolve("r", "send", fail="lost", by="eve")
    else:
        vm.inbox.reject("r", "ask", by="ann")
    with pytest.raises(AlreadyDecided, match=r"already: (resolve by 'eve'|reject by 'ann')"):
        await said(vm, way, WORDS[word])


@WAYS
@pytest.mark.parametrize("word", ["approve", "reject", "event"])
async def test_after_the_deadline(
    vm: ExecutionVM, way: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**(WAIT if word == "event" else ASK), "timeout_seconds": 30}
    await vm.run(program(asked), run_id="r")
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 60 * 10**9)
    vm.preparer.clock = time
    shown = vm.waiting("r")[0]["shown"]
    late = WORDS[word]
    if word == "approve":
        late = lambda to: to.approve("r", "ask", shown=shown, by="ann")  # noqa: E731
    with pytest.raises(Expired, match="could be decided until") as refused:
        await said(vm, way, late)
    assert refused.value.deadline_ns is not None


def test_a_handler_can_tell_refusals_from_a_store_that_fails() -> None:
    refusals = (NotPermitted, AlreadyDecided, Expired, Changed, UnknownRun)
    assert all(issubclass(refusal, VMError) for refusal in refusals)
    assert [r for r in refusals if issubclass(r, StoreError)] == [UnknownRun]


async def test_what_is_awaited_leaves_the_event_loop_free(vm: ExecutionVM) -> None:
    await vm.run(program(ASK), run_id="r")
    here, seen = threading.get_ident(), []

    def looked_up(name: str) -> list[str]:
        seen.append(threading.get_ident())
        return ["boss"]

    inbox = Inbox(vm.require_store(), looked_up, time).aio
    (request,) = await inbox.waiting("r")
    await inbox.approve("r", "ask", shown=request["shown"], by="ann")
    assert seen
    assert here not in seen
    assert (await vm.aio.load("r")).run_id == "r"
    assert (await vm.resume("r")).ok


def test_everything_that_an_inbox_records_can_be_awaited(vm: ExecutionVM) -> None:
    public = {name for name in vars(Inbox) if not name.startswith("_") and name != "aio"}
    assert set(vars(AsyncInbox(vm.inbox))) == public
    for name in public:
        assert getattr(vm.inbox.aio, name).__doc__ == getattr(Inbox, name).__doc__
