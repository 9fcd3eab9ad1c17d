"""Events that are addressed to no run: the one that waits for their values gets them, each once,
whoever comes first.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from build import parallel, program
from postgres import url_of
from test_inbox import Time

from nano_vm import ExecutionVM, Trace, TraceStatus, VMError
from nano_vm.errors import AlreadyDecided, Expired
from nano_vm.language.correlation import MATCHABLE_FIELDS
from nano_vm.machine.machine import machine_of
from nano_vm.machine.outcome import Arrived
from nano_vm.replay import replay, subject_of, verify
from nano_vm.run.inbox import EVENT_CHARS, Inbox
from nano_vm.store.protocol import open_store
from nano_vm.store.records import Message
from nano_vm.store.signing import SigningKey
from nano_vm.store.waits import takes
from nano_vm.testing import explore

SUCCESS, SUSPENDED = TraceStatus.SUCCESS, TraceStatus.SUSPENDED
PAID = {"id": "w", "type": "wait", "event": "paid", "match": {"order": "$order"}}
ONE = program(PAID)


class Host:
    """VMs over one database and one clock."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = Time()
        self.vms: list[ExecutionVM] = []

    def vm(self, **options: Any) -> ExecutionVM:
        vm = ExecutionVM(
            tools={"pay": lambda x=None: x}, store=self.url, clock=self.clock, **options
        )
        self.vms.append(vm)
        return vm

    async def waiting(self, **runs: Any) -> ExecutionVM:
        """Runs by id, each waiting for the payment of its order."""
        vm = self.vm()
        for run_id, order in runs.items():
            assert (await vm.run(ONE, {"order": order}, run_id=run_id)).status is SUSPENDED
        return vm

    def count(self, table: str) -> int:
        store: Any = self.vms[0].require_store()
        with store.database.reading() as connection:
            return int(connection.one(f"SELECT count(*) FROM {table}")[0])


@pytest.fixture(params=["file", "postgres"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    made = Host(url_of(request, tmp_path))
    yield made
    for vm in made.vms:
        vm.close()


async def gone_on(vm: ExecutionVM) -> dict[str, Any]:
    """What the runs that go on come to, by id."""
    return {
        trace.run_id: trace.final_output for trace in await vm.work(until_idle=True) if trace.ok
    }


# --- whose it is ----------------------------------------------------------------------------------


async def test_the_run_that_waits_for_the_values_gets_it(host: Host) -> None:
    vm = await host.waiting(a=1, b=2)
    assert vm.send_event("paid", {"order": 2, "sum": 30})
    assert await gone_on(vm) == {"b": {"order": 2, "sum": 30}}
    assert vm.send_event("paid", {"order": 1})
    assert await gone_on(vm) == {"a": {"order": 1}}
    assert host.count("nano_marks") == 0


async def test_one_that_comes_before_its_wait_is_kept(host: Host) -> None:
    vm = host.vm()
    vm.send_event("paid", {"order": 1, "n": 1})
    vm.send_event("paid", {"order": 1, "n": 2})
    vm.send_event("paid", {"order": 9})
    # the first
    assert (await vm.run(ONE, {"order": 1}, run_id="a")).final_output == {"order": 1, "n": 1}
    assert (await vm.run(ONE, {"order": 1}, run_id="b")).final_output == {"order": 1, "n": 2}
    assert (await vm.run(ONE, {"order": 1}, run_id="c")).status is SUSPENDED


async def test_each_goes_to_one_run(host: Host) -> None:
    """The oldest of those that wait for the same."""
    vm = await host.waiting(a=1, b=1, c=1)
    for number in (1, 2):
        vm.send_event("paid", {"order": 1, "n": number})
    assert await gone_on(vm) == {"a": {"order": 1, "n": 1}, "b": {"order": 1, "n": 2}}


async def test_one_name_is_not_another(host: Host) -> None:
    vm = await host.waiting(a=1)
    vm.send_event("refunded", {"order": 1})
    assert await gone_on(vm) == {}


async def test_branches_of_a_run_get_their_own(host: Host) -> None:
    vm = host.vm()
    rooms = [
        {"id": f"r{n}", "type": "wait", "event": "warmth", "match": {"room": "$base", "floor": n}}
        for n in (1, 2)
    ]
    await vm.run(program(parallel(*rooms, id="p")), {"base": "x"}, run_id="r")
    vm.send_event("warmth", {"room": "x", "floor": 2, "value": 20})
    vm.send_event("warmth", {"room": "y", "floor": 1, "value": 99})
    # for the next that waits for it
    vm.send_event("warmth", {"room": "x", "floor": 2, "value": 21})
    vm.send_event("warmth", {"room": "x", "floor": "1", "value": 10})
    found = await gone_on(vm)
    assert {name: event["value"] for name, event in found["r"].items()} == {"r1": 10, "r2": 20}


async def test_a_loop_gets_one_each_time(host: Host) -> None:
    vm = host.vm()
    again = {
        "id": "l",
        "type": "loop",
        "max_iterations": 3,
        "on_exhausted": "continue",
        "steps": [PAID],
    }
    await vm.run(program(again), {"order": 1}, run_id="r")
    for number in (1, 2, 3, 4):
        vm.send_event("paid", {"order": 1, "n": number})
    assert await gone_on(vm) == {"r": {"order": 1, "n": 3}}
    trace = vm.load("r")
    assert [s.output["n"] for s in trace.steps if s.type == "wait"] == [1, 2, 3]


async def test_a_wait_without_values_is_not_reached(host: Host) -> None:
    vm = host.vm()
    await vm.run(program({"id": "w", "type": "wait", "event": "paid"}), run_id="r")
    vm.send_event("paid", {"order": 1})
    assert await gone_on(vm) == {}
    vm.send_event("r", "paid", {"order": 1})
    assert await gone_on(vm) == {"r": {"order": 1}}


async def test_one_that_is_addressed_to_the_run_must_fit_too(host: Host) -> None:
    vm = await host.waiting(a=1)
    vm.send_event("a", "paid", {"order": 2})
    assert await gone_on(vm) == {}
    vm.send_event("paid", {"order": 1}, run_id="a")
    assert await gone_on(vm) == {"a": {"order": 1}}


async def test_an_answered_wait_is_given_no_second(host: Host) -> None:
    vm = await host.waiting(a=1, b=1)
    vm.send_event("a", "paid", {"order": 1, "n": 1})
    vm.send_event("paid", {"order": 1, "n": 2})
    assert await gone_on(vm) == {"a": {"order": 1, "n": 1}, "b": {"order": 1, "n": 2}}


async def test_one_that_is_to_be_cancelled_waits_no_more(host: Host) -> None:
    vm = await host.waiting(a=1, b=1)
    vm.inbox.cancel("a", by="ann")
    with pytest.raises(AlreadyDecided, match="is to be cancelled already, by 'ann'"):
        vm.send_event("a", "paid", {"order": 1})
    vm.send_event("paid", {"order": 1})
    assert await gone_on(vm) == {"b": {"order": 1}}
    assert vm.load("a").status is TraceStatus.CANCELLED


async def test_one_of_an_ended_run_waits_no_more(host: Host) -> None:
    vm = await host.waiting(a=1)
    await vm.cancel("a")
    vm.send_event("paid", {"order": 1})
    assert (await vm.run(ONE, {"order": 1}, run_id="b")).final_output == {"order": 1}


# --- once -----------------------------------------------------------------------------------------


async def test_the_same_id_is_delivered_once(host: Host) -> None:
    vm = await host.waiting(a=1, b=1)
    assert vm.send_event("paid", {"order": 1}, id="evt_1")
    assert not vm.send_event("paid", {"order": 1}, id="evt_1")
    assert await gone_on(vm) == {"a": {"order": 1}}
    assert not vm.send_event("paid", {"order": 1}, id="evt_1")
    assert await gone_on(vm) == {}
    assert vm.send_event("other", {"order": 1}, id="evt_1")  # an id is one of its name
    assert vm.send_event("paid", {"order": 1}, id="evt_2")
    assert await gone_on(vm) == {"b": {"order": 1}}


async def test_the_same_id_to_a_run_is_used_once(host: Host) -> None:
    vm = host.vm()
    waits = [{"id": name, "type": "wait", "event": "paid"} for name in ("v", "w")]
    await vm.run(program(*waits), run_id="r")
    assert vm.send_event("r", "paid", 1, id="e")
    assert not vm.send_event("r", "paid", 1, id="e")
    await vm.work(until_idle=True)
    assert not vm.send_event("r", "paid", 1, id="e")  # also after it was used
    assert vm.load("r").status is SUSPENDED
    assert vm.send_event("r", "paid", 2, id="f")
    assert await gone_on(vm) == {"r": 2}
    # and after the run has ended: it is no fault to send it again
    assert not vm.send_event("r", "paid", 2, id="f")


async def test_one_by_its_values_and_the_same_by_a_run_are_one(host: Host) -> None:
    vm = host.vm()
    two = program(PAID, {**PAID, "id": "v"})
    await vm.run(two, {"order": 1}, run_id="r")
    vm.send_event("r", "paid", {"order": 1}, id="e")
    vm.send_event("paid", {"order": 1}, id="e")
    await vm.work(until_idle=True)
    assert [entry["path"] for entry in vm.waiting("r")] == ["v"]
    vm.send_event("paid", {"order": 2}, id="f")  # kept
    await vm.run(two, {"order": 2}, run_id="s")
    assert [entry["path"] for entry in vm.waiting("s")] == ["v"]
    vm.send_event("paid", {"order": 3}, id="g")  # nobody takes it
    await vm.run(two, {"order": 4}, run_id="t")
    vm.send_event("t", "paid", {"order": 3}, id="g")
    assert (await vm.run(two, {"order": 3}, run_id="u")).status is SUSPENDED
    # what was sent to t is not for u as well
    assert [entry["path"] for entry in vm.waiting("u")] == ["w"]


# --- until when, and what fits --------------------------------------------------------------------


async def test_a_late_one_is_for_another(host: Host) -> None:
    vm = host.vm()
    await vm.run(program({**PAID, "timeout_seconds": 60}), {"order": 1}, run_id="a")
    host.clock.pass_(61)
    assert vm.send_event("paid", {"order": 1})
    assert (await vm.resume("a")).status is TraceStatus.FAILED
    assert (await vm.run(ONE, {"order": 1}, run_id="b")).final_output == {"order": 1}


async def test_one_in_time_counts_however_late_a_worker_looks(host: Host) -> None:
    vm = host.vm()
    await vm.run(program({**PAID, "timeout_seconds": 60}), {"order": 1}, run_id="a")
    assert vm.send_event("paid", {"order": 1})
    host.clock.pass_(3600)
    assert await gone_on(vm) == {"a": {"order": 1}}


async def test_what_the_schema_refuses(host: Host) -> None:
    vm = host.vm()
    strict = program({**PAID, "output_schema": {"type": "object", "required": ["sum"]}})
    vm.send_event("paid", {"order": 1})  # nobody waits yet, so nobody can say
    await vm.run(strict, {"order": 1}, run_id="a")
    assert vm.load("a").status is SUSPENDED  # what does not fit is not given to it
    with pytest.raises(VMError, match="does not fit what 'w' waits for"):
        vm.send_event("paid", {"order": 1})
    vm.send_event("paid", {"order": 1, "sum": 5})
    assert await gone_on(vm) == {"a": {"order": 1, "sum": 5}}


@pytest.mark.parametrize(
    "payload",
    [None, 5, "x", [], {}, {str(n): n for n in range(MATCHABLE_FIELDS + 1)}],
    ids=lambda p: str(p)[:20],
)
async def test_what_has_no_values_is_addressed_to_nobody(host: Host, payload: Any) -> None:
    vm = host.vm()
    with pytest.raises(VMError, match="is an object with 1 to 100 fields"):
        vm.inbox.send_event("paid", payload)


async def test_what_is_no_event(host: Host) -> None:
    vm = await host.waiting(a=1)
    for given in ((), ("a", "b", 1, 2)):
        with pytest.raises(VMError, match="send_event takes"):
            vm.send_event(*given)
    for name, event_id in (("", None), (5, None), ("paid", ""), ("paid", 5)):
        with pytest.raises(VMError, match="is a string that is not empty"):
            vm.inbox.send_event(name, {"order": 1}, id=event_id)  # type: ignore[arg-type]
    for odd, why in (
        ("x" * (EVENT_CHARS + 1), "more than 200"),
        ("a\x00", "a NUL"),
        ("a\ud800", "a lone surrogate"),
    ):
        for name, event_id in ((odd, None), ("paid", odd)):
            with pytest.raises(VMError, match=why):
                vm.inbox.send_event(name, {"order": 1}, id=event_id)
    drawn = Random(1)
    longest = ["".join(chr(drawn.randrange(0x20000, 0x2A6DF)) for _ in range(200)) for _ in "12"]
    assert vm.inbox.send_event(longest[0], {"order": 1}, id=longest[1])
    await vm.cancel("a")
    with pytest.raises(Expired):
        vm.send_event("a", "paid", {"order": 1})


# --- whoever comes first, and whoever dies --------------------------------------------------------


async def test_a_sender_that_dies_before_it_delivers(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await host.waiting(a=1)
    monkeypatch.setattr(vm.require_store(), "deliver", lambda trusted: [])
    vm.send_event("paid", {"order": 1})
    assert await gone_on(host.vm()) == {"a": {"order": 1}}


async def test_a_run_that_dies_before_it_looks(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = host.vm()
    vm.send_event("paid", {"order": 1})
    monkeypatch.setattr(vm.require_store(), "deliver", lambda trusted: [])
    assert (await vm.run(ONE, {"order": 1}, run_id="a")).status is SUSPENDED
    assert await gone_on(host.vm()) == {"a": {"order": 1}}


@pytest.mark.slow
async def test_many_at_the_same_time(host: Host) -> None:
    """Senders and runs that come at once, from several connections: each event is used once, each
    run gets one.
    """
    count, orders = 40, 4
    vms = [host.vm() for _ in range(3)]
    stores = [open_store(host.url) for _ in range(3)]

    def send(number: int) -> None:
        inbox = Inbox(stores[number], None, time)
        for n in range(number, count, len(stores)):
            inbox.send_event("paid", {"order": n % orders, "n": n}, id=str(n))
            inbox.send_event("paid", {"order": n % orders, "n": n}, id=str(n))

    senders = [threading.Thread(target=send, args=(number,)) for number in range(len(stores))]
    for sender in senders:
        sender.start()

    async def begin(number: int) -> Trace:
        return await vms[number % 3].run(ONE, {"order": number % orders}, run_id=f"r{number}")

    await asyncio.gather(*(begin(number) for number in range(count)))
    await asyncio.to_thread(lambda: [sender.join() for sender in senders])
    for store in stores:
        store.close()
    await vms[0].work(until_idle=True)
    outputs = [vms[0].load(f"r{number}").final_output for number in range(count)]
    assert all(output is not None for output in outputs)
    assert Counter(output["n"] for output in outputs) == Counter(range(count))
    assert all(output["order"] == number % orders for number, output in enumerate(outputs))


async def test_a_damaged_run_keeps_no_other_from_its_events(host: Host) -> None:
    vm = await host.waiting(a=1, b=1)
    store: Any = vm.require_store()
    store.written(
        lambda connection, _: connection.run("UPDATE nano_runs SET crc = 5 WHERE run_id = ?", "a")
    )
    vm.send_event("paid", {"order": 1})
    assert await gone_on(vm) == {"b": {"order": 1}}


# --- what is kept of them -------------------------------------------------------------------------


async def test_what_was_taken_goes_with_its_run(host: Host) -> None:
    vm = await host.waiting(a=1)
    vm.send_event("paid", {"order": 1, "card": "4000 1234"}, id="e")
    assert await gone_on(vm)
    store: Any = vm.require_store()
    with store.database.reading() as connection:
        assert [bytes(cell) for (cell,) in connection.all("SELECT message FROM nano_events")] == [
            b""
        ]
    assert store.erase("a")
    assert not vm.send_event("paid", {"order": 1}, id="e")


async def test_old_ones_are_deleted(host: Host) -> None:
    vm = host.vm()
    vm.send_event("paid", {"order": 1, "x": 2}, id="e")
    store: Any = vm.require_store()
    store.prune(host.clock.time_ns() - 10**12)
    assert host.count("nano_events") == 1
    store.prune(host.clock.time_ns() + 1)
    assert (host.count("nano_events"), host.count("nano_marks")) == (0, 0)


async def test_a_run_that_was_brought_from_elsewhere_waits_here(host: Host, tmp_path: Path) -> None:
    vm = await host.waiting(a=1)
    text = io.StringIO()
    store: Any = vm.require_store()
    store.export(["a"], text)
    other = ExecutionVM(store=f"sqlite:///{tmp_path / 'other.db'}")
    there: Any = other.require_store()
    there.import_(text.getvalue().splitlines(keepends=True), unfinished=True)
    other.send_event("paid", {"order": 1})
    assert (await other.resume("a")).final_output == {"order": 1}
    other.close()


async def test_what_is_recorded_is_verified_and_replayed(host: Host) -> None:
    vm = await host.waiting(a=1)
    vm.send_event("paid", {"order": 1})
    await vm.work(until_idle=True)
    stored = vm.require_store().load("a")
    assert verify(subject_of(stored))
    assert replay(stored)
    assert [message.body for message in stored.decided] == [{"payload": {"order": 1}}]


async def test_who_trusts_some_keys_takes_events_of_these_only(host: Host) -> None:
    key = SigningKey.generate()
    vm = host.vm(signing_key=key)
    await vm.run(ONE, {"order": 1}, run_id="a")
    Inbox(open_store(host.url), None, time).send_event("paid", {"order": 1, "forged": True})
    assert (await vm.work(until_idle=True))[-1].status is SUSPENDED
    vm.send_event("paid", {"order": 1})  # signed by whoever records it, addressed to no run
    assert await gone_on(vm) == {"a": {"order": 1}}


# --- the language ---------------------------------------------------------------------------------


def test_a_made_up_event_has_the_values() -> None:
    same = {
        "id": "c",
        "type": "condition",
        "condition": "$w.output.order == $order",
        "then": "$end",
        "otherwise": "$fail",
    }
    inputs = {"type": "object", "properties": {"order": {"enum": [1, 2]}}, "required": ["order"]}
    found = explore(program(PAID, same, inputs=inputs), tools={}, errors=False)
    assert dict(found.statuses) == {"success": found.runs}


@pytest.mark.parametrize(
    ("payload", "status"),
    [({"order": 1}, SUCCESS), ({"order": 2}, TraceStatus.FAILED), (5, TraceStatus.FAILED)],
)
def test_the_machine_takes_no_other(payload: Any, status: TraceStatus) -> None:
    """So a record that was changed does not replay."""
    machine = machine_of(ExecutionVM().plan(ONE), {"order": 1})
    machine.start(0)
    machine.resume(Arrived(payload), 1)
    assert machine.status is status
    assert machine.error is None or machine.error.type == "InvalidEvent"


def test_takes() -> None:
    entry = {"event": "e", "match": {"a": 1}, "deadline_ns": 10}
    assert takes(entry, Message("event", "e", {"payload": {"a": 1}}, None, 9))
    assert not takes(entry, Message("event", "e", {"payload": {"a": 1}}, None, 10))
    assert not takes(entry, Message("event", "f", {"payload": {"a": 1}}, None, 9))
    assert not takes(entry, Message("event", "e", {"payload": {"a": 2}}, None, 9))
    assert not takes(entry, Message("approve", "e", {"payload": {"a": 1}}, "x", 9))
