"""What a frozen process may find when it wakes, one instant at a time: nothing here sleeps, the
freeze is acted.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from nano_vm import ExecutionVM, Program, tool
from nano_vm.errors import VMError
from nano_vm.run.durable.journal import Journal
from nano_vm.store.protocol import Append, Claim
from nano_vm.store.records import INTENT
from nano_vm.store.sql.store import SqlStore

PAY = Program.from_dict(
    {
        "name": "pay",
        "steps": [
            {"id": "go", "type": "wait", "event": "go"},
            {"id": "pay", "type": "tool", "tool": "pay"},
            {"id": "end", "type": "set", "values": {"done": True}},
        ],
    }
)


class Two:
    """Two workers over one database; the calls that each made."""

    def __init__(self, folder: Path) -> None:
        self.calls: list[str] = []
        url = f"sqlite:///{folder}/runs.db"
        self.first, self.second = self.worker("first", url), self.worker("second", url)

    def worker(self, name: str, url: str) -> ExecutionVM:
        @tool(effect="irreversible")
        async def pay() -> str:
            self.calls.append(name)
            return "paid"

        return ExecutionVM(None, {"pay": pay}, store=url)

    async def waiting(self) -> None:
        """A run that has begun, waited, and may go on."""
        await self.first.run(PAY, run_id="r")
        self.first.send_event("r", "go")

    def take_over(self) -> None:
        """The second worker claims the run, as if the lease of the first had run out."""
        second: Any = self.second
        second._durable.lease.begin()
        second.store.heartbeat(self.first._durable.lease.owner, -1)  # type: ignore[union-attr]
        assert second.store.claim(["r"], second._durable.lease.owner, time.time_ns())

    def lapse(self) -> None:
        """The lease of the first runs out, and its heartbeat brings it back."""
        lease: Any = self.first._durable.lease
        lease.until = lease.clock() - 100
        self.take_over()
        lease.renew()

    def close(self) -> None:
        self.first.close()
        self.second.close()


@pytest.fixture
def two(tmp_path: Path) -> Any:
    both = Two(tmp_path)
    yield both
    both.close()


async def resumed(vm: ExecutionVM) -> str | None:
    """How the run stands after a resume, None where another has it."""
    try:
        return (await vm.resume("r")).status.value
    except VMError:  # that it is under way elsewhere
        return None


async def test_frozen_between_claim_and_load(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    await two.waiting()
    claim = SqlStore.claim

    def then_frozen(self: SqlStore, *given: Any, **options: Any) -> dict[str, Claim]:
        claimed = claim(self, *given, **options)
        monkeypatch.setattr(SqlStore, "claim", claim)
        two.take_over()
        return claimed

    monkeypatch.setattr(SqlStore, "claim", then_frozen)
    assert await resumed(two.first) is None
    assert two.calls == []


async def test_frozen_between_intent_and_call(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat comes back before the call looks at the lease."""
    await two.waiting()
    append = Journal.append

    async def then_frozen(self: Journal, rows: Any, *more: Any) -> None:
        await append(self, rows, *more)
        if any(row.kind == INTENT and row.path == "pay" for row in rows):
            monkeypatch.setattr(Journal, "append", append)
            two.lapse()

    monkeypatch.setattr(Journal, "append", then_frozen)
    two.first.preparer.clock = Impatient(two)
    assert await resumed(two.first) == "success"
    assert two.calls == []


class Impatient:
    """A clock on which the second worker, which has the run now, is done as soon as the first waits
    for it.
    """

    def __init__(self, two: Two) -> None:
        self.store: Any = two.second.store

    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)

    async def sleep(self, seconds: float) -> None:
        stored = self.store.load("r", rows=False)
        if stored.status == "running":
            await self.store.append(
                Append(stored.key, stored.fence, (), {"status": "success", "owner": None})
            )
