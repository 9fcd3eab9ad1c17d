"""What a run appends on its way into a store that a test plays."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from nano_vm.errors import StoreError
from nano_vm.run.durable import outbox
from nano_vm.run.durable.outbox import Outbox
from nano_vm.store.protocol import Append
from nano_vm.store.records import INTENT, Row, StoredRun


class Played:
    """A store that keeps what it is given, or raises ``fault``."""

    def __init__(self) -> None:
        self.given: list[Append] = []
        self.fault: Exception | None = None

    def give(self, append: Append, _: Any) -> None:
        if self.fault is not None:
            raise self.fault
        self.given.append(append)


def begun(store: Played) -> Outbox:
    return Outbox(store, StoredRun("r", "p", "", 0), time)  # type: ignore[arg-type]


def row(number: int) -> Row:
    return Row(INTENT, "", f"s{number}", "tool", None, number)


async def test_what_is_given_meanwhile_goes_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is put together once, however much there is."""
    store, joins = Played(), []
    replaced = outbox.replace
    monkeypatch.setattr(outbox, "replace", lambda *a, **k: joins.append(1) or replaced(*a, **k))
    box = begun(store)
    waits: Any = ([], [])
    futures = [box.give([row(0)])]
    for n in range(1, 500):
        futures.append(box.give([row(n)], {"count": n}, [n], [-n], waits if n == 499 else None))
    box.set_result(None)
    first, rest = store.given
    assert first.rows == [row(0)]
    assert (rest.after, rest.rows) == (1, [row(n) for n in range(1, 500)])
    assert (rest.update, rest.waits) == ({"count": 499}, waits)
    assert (list(rest.used), list(rest.seen)) == (
        list(range(1, 500)),
        [-n for n in range(1, 500)],
    )
    assert len(joins) == 1
    assert box.left() == rest
    box.set_result(None)
    assert all(future.done() for future in futures)


async def test_a_single_append_is_given_as_it_is() -> None:
    store = Played()
    rows = [row(0)]
    begun(store).give(rows)
    assert store.given[0].rows is rows


async def test_a_fault_of_the_machine_is_told_to_who_waits_and_to_nobody_else() -> None:
    """Whoever answers one append gives the next, and has others to answer."""
    store = Played()
    box = begun(store)
    first, second = box.give([row(0)]), box.give([row(1)])
    store.fault = RuntimeError("can't start new thread")
    box.set_result(None)
    await asyncio.wait_for(first, 1)
    with pytest.raises(StoreError, match=r"could not be stored: .*can't start new thread"):
        await asyncio.wait_for(second, 1)
    assert box.fault is not None
