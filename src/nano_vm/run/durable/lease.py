"""Who owns runs: a process by its name, its lease, and what other processes can see of it.

A lease is renewed by a thread and compared by the store's clock, which nobody sets: the server's,
or for a file the time since the machine was started. Whether an owner's process is there can be
seen besides, where it runs on this machine.

Rule 1: no call is begun after the lease ended here, and it ends here before it ends in the store.
Rule 2: a run is not taken from a process that is seen alive, whatever a clock says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from ... import forking
from ...errors import LeaseLost, StoreError
from ...language.semantics import CALLS
from ...records.status import StepStatus
from ...store.protocol import Append, Store
from ...store.records import ENDED, INTENT, STEP, Message, Row, late_outcomes
from ...store.seals import RunSeal
from ...values import UNSET
from ..system import SYSTEM, Process, Seen, System, Thread

LEASE_SECONDS = 30.0
"""How long an owner that gives no sign of life keeps its runs: longer than any pause of a healthy
process, shorter than patience.
"""

MAX_LEASE_SECONDS = 24 * 3600.0
"""A day: what a process left would wait for its lease longer than anybody waits for a run."""

LEASE_MARGIN = 0.2
"""The part of a lease, at its end, in which no call is begun: a renewal takes time to arrive, and a
check is not yet the call.
"""

SOON_SECONDS = 0.5
"""How soon the store is asked again for what it did not take."""

CLOSING_SECONDS = 5.0
"""How long a process that closes its store waits for it, so that its runs are free at once."""

LATE = "run %s has ended (%s), and %r came to something else since: see nano-vm show %s"

logger = logging.getLogger("nano_vm")


@dataclass(slots=True)
class Debt:
    """What a run is owed by a process that stopped driving it: what was not stored, and that it is
    free; or what calls gave whose run has another owner now.
    """

    run_id: str
    append: Append | None = None
    outcomes: list[Message] = field(default_factory=list)
    unsafe: Container[str] = frozenset()  # paths of calls whose outcomes another owner waits for


def outcomes_of(rows: Iterable[Row], unsafe: Container[str]) -> list[Message]:
    """What calls gave, or that their tools failed, for the owner that has their run now; of those
    at the *unsafe* paths, which that one does not make again.
    """
    found = []
    for row in rows:
        body: dict[str, Any] = {}
        if row.kind != STEP or row.path not in unsafe:
            continue
        if row.status is StepStatus.SUCCESS:
            body = {"output": None if row.output is UNSET else row.output}
        elif (
            row.status is StepStatus.FAILED
            and (row.rest or {}).get("error", {}).get("kind") == "tool"
        ):
            body = {"error": (row.rest or {})["error"]}
        if body:
            found.append(Message("outcome", row.path, body, None, row.finished_ns))
    return found


class Lease(forking.Begins):
    """A process as an owner of runs: its name, until when it may begin calls, and what it owes to
    runs that it left.

    *clock* is seconds that nobody sets and that go on while the machine sleeps, by default the
    *system*'s. The time is taken before the store has it, so that this side always gives up first. What the store does not take
    is given to it again by the thread that renews the lease, and a run that the store says is this
    process's and that nobody here drives is given back: nothing waits for the end of this process.
    """

    def __init__(
        self,
        store: Store,
        seconds: float = LEASE_SECONDS,
        *,
        process: Process | None = None,
        clock: Callable[[], float] | None = None,
        system: System = SYSTEM,
    ) -> None:
        self.store, self.seconds, self.system = store, seconds, system
        self.clock = clock or (lambda: system.boot_ns() / 1e9)
        self._begin_as(process or system.process())
        forking.join(self)

    def after_fork_in_child(self) -> None:
        """Become another owner: the runs of the parent stay the parent's, and so does what they are
        owed.
        """
        forking.leave(self._debts)
        self.system.leases.discard(self.owner)
        self._begin_as(self.system.process())

    def _begin_as(self, process: Process) -> None:
        self.process = process
        self.owner = f"{self.process}/{self.system.random_bytes(4).hex()}"
        self.until = 0.0
        # how often it ran out before it was renewed: then others may have taken any run
        self.lapses = 0
        # runs that are driven here, or being claimed, or owed something
        self._held: set[str] = set()
        self._debts: list[Debt] = []
        # runs that the store says are this process's, by id: their key and fence
        self._strays: dict[str, tuple[int, int]] = {}
        # calls that threads are making and nobody waits for, by run and path
        self._calls: list[tuple[str, str]] = []
        self._calling = self._ended = False
        # whether the store may have given a run to this process without its knowledge
        self._unsure = False
        system = self.system
        self._lock, self._paying, self._beginning = system.lock(), system.lock(), system.lock()
        self._thread: Thread | None = None
        self._wake, self._stopped = system.event(), system.event()

    # --- the lease ---

    def begin(self) -> None:
        """Take the lease, and renew it from now on."""
        with self._beginning:
            if self._thread is None:
                self.system.leases.add(self.owner)
                self.renew()
                self._thread = self.system.thread(self._work, "nano-vm-lease")

    @property
    def begun(self) -> bool:
        """Whether it was taken, and is renewed."""
        return self._thread is not None

    def renew(self) -> None:
        """Tell the store that this process lives."""
        before = self.clock()
        self.store.heartbeat(self.owner, self.seconds)
        with self._lock:
            if self._stopped.is_set():  # it was given back meanwhile, and is not to hold again
                return
            if self.until and self.clock() > self.until:
                self.lapses += 1
            self.until = before + self.seconds * (1 - LEASE_MARGIN)

    def holds(self) -> bool:
        """Whether a call may be begun now."""
        return self.clock() < self.until

    def end(self, *, calling: bool = False) -> None:
        """Give the lease back, and all runs with it. Where calls with effects are still being made,
        as *calling* says or threads do, the owner is not forgotten: nobody may take such a call for
        gone before the process ends.
        """
        self._calling = calling
        with self._lock:
            self._stopped.set()
            self._wake.set()
            self.until = 0.0
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._ended = True
            if not self._makes_calls():
                self.system.leases.discard(self.owner)

    def note_call(self, run_id: str, path: str, call: Future[Any]) -> None:
        """Note that a thread is making a *call* which nobody waits for, until it ends."""
        with self._lock:
            self._calls.append((run_id, path))
        call.add_done_callback(lambda _: self._forget_call(run_id, path))

    def _forget_call(self, run_id: str, path: str) -> None:
        with self._lock:
            self._calls.remove((run_id, path))
            if self._ended and not self._makes_calls():
                self.system.leases.discard(self.owner)

    def makes(self, run_id: str, path: str) -> bool:
        """Whether a thread is still making a call that was noted."""
        with self._lock:
            return (run_id, path) in self._calls

    def _makes_calls(self) -> bool:
        return self._calling or bool(self._calls)

    def _leave(self) -> None:
        until = self.clock() + CLOSING_SECONDS
        while True:
            try:
                self.pay()
                with self._lock:
                    makes_calls = self._makes_calls()
                    self._held.clear()
                if makes_calls:
                    self._unsure = True
                    self.pay()
                else:
                    self.store.forget_owner(self.owner)
                return
            except StoreError as error:
                if not error.passing or self.clock() >= until:
                    logger.warning(
                        "its runs stay with process %s until it ends: %s", self.owner, error
                    )
                    return
            self.system.sleep(SOON_SECONDS)

    def _work(self) -> None:
        due = self.clock() + self.seconds / 4
        while True:
            pause = max(due - self.clock(), 0.0)
            self._wake.wait(min(pause, SOON_SECONDS) if self.owes else pause)
            self._wake.clear()
            if self._stopped.is_set():
                return self._leave()
            try:
                if self.clock() >= due:
                    due = self.clock() + min(self.seconds / 4, SOON_SECONDS)
                    self.renew()
                    due = self.clock() + self.seconds / 4
                    self._unsure = True
                self.pay(due)  # however much is owed, the lease is renewed in time
            except StoreError as error:
                # the next attempt may do; without any the lease runs out by itself
                logger.debug("the store does not answer: %s", error)
            except Exception:  # the thread must live as long as the process
                logger.exception("the lease of process %s", self.owner)

    # --- runs ---

    def hold(self, run_ids: Iterable[str]) -> list[str]:
        """Mark runs as this process's to claim and drive; those of *run_ids* that were not marked
        before.
        """
        with self._lock:
            free = [run_id for run_id in run_ids if run_id not in self._held]
            self._held.update(free)
            return free

    def has(self, run_id: str) -> bool:
        """Whether a run has the mark of `hold`."""
        with self._lock:
            return run_id in self._held

    def let_go(self, run_ids: Iterable[str]) -> None:
        """Take the mark of `hold` away."""
        with self._lock:
            self._held.difference_update(run_ids)

    def owe(self, debt: Debt) -> None:
        """Give the store what *debt* says, as soon as it answers; a run that is to be freed is held
        until then.
        """
        with self._lock:
            self._debts.append(debt)
        self._wake.set()

    @property
    def owes(self) -> bool:
        """Whether there are runs to be given back, or may be."""
        return bool(self._debts or self._strays) or self._unsure

    def doubt(self) -> None:
        """Look soon whether the store gave a run to this process that nobody here drives: an answer
        to a claim may have been lost.
        """
        self._unsure = True
        self._wake.set()

    def pay(self, until: float = float("inf")) -> None:
        """Give the store what it is owed, and back what nobody here drives; of what would take
        longer than *until*, by the clock of the lease, a part.

        Raises:
            StoreError: If it does not answer; what is left is kept.
        """
        while self.clock() < until:
            with self._paying:  # for one step: a renewal waits for no more
                if not self._step():
                    return

    def _step(self) -> bool:
        """Do a part of what is owed; whether there was any."""
        if self._debts:
            if self._pay(self._debts[0]):
                with self._lock:
                    del self._debts[0]
        elif self._strays:
            self._free(*self._strays.popitem())
        elif self._unsure:
            self._unsure = False
            try:
                self._strays = dict(self.store.owned(self.owner))
            except StoreError:
                self._unsure = True
                raise
        else:
            return False
        return True

    def _pay(self, debt: Debt) -> bool:
        """Give the store a part of one; whether that was the last. What can never be paid is said
        and dropped, or the others would wait for it.
        """
        try:
            if debt.append is not None:
                debt.outcomes += self._settled(debt, debt.append)
                debt.append = None
                self.let_go([debt.run_id])
            elif debt.outcomes:
                self.store.send(debt.run_id, debt.outcomes[0])
                outcome = debt.outcomes.pop(0)
                self._warn(debt.run_id, outcome)
        except Exception as error:
            if isinstance(error, StoreError) and error.passing:
                raise
            ours = not isinstance(error, StoreError)
            text = "run %s: what it did last cannot be stored: %s"
            logger.warning(text, debt.run_id, error, exc_info=ours)
            if debt.append is not None:
                self._unsure = True  # so that it is given back without that
                self.let_go([debt.run_id])
            return True
        return not debt.outcomes

    def _warn(self, run_id: str, outcome: Message) -> None:
        """That a call ended after its run was lost; louder where the run has ended without it."""
        run = self.store.load(run_id)
        if run.status not in ENDED:
            logger.warning(
                "run %s has another owner now, which gets what %r gave", run_id, outcome.name
            )
        elif any(found.name == outcome.name for found in late_outcomes(run)):
            logger.warning(LATE, run_id, run.status, outcome.name, run_id)

    def _settled(self, debt: Debt, left: Append) -> list[Message]:
        """Store what is *left* of a run, and that it is free; what its new owner has to know, where
        it has one.

        What was stored all the same, and only the answer lost, is not stored again. A call whose
        intent was not acknowledged was not made, so that is left out.
        """
        run = self.store.load(debt.run_id)
        assert left.after is not None
        pairs = zip(run.rows[left.after :], left.rows, strict=False)
        there = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        rest = left.rows[there:]
        if run.fence != left.fence or run.owner != self.owner:
            return outcomes_of(rest, debt.unsafe) if run.fence != left.fence else []
        made = [row for row in rest if row.kind != INTENT or row.type not in CALLS]
        used = [message for message in run.inbox if message.id in left.used]
        sealed = RunSeal(run, self.store.signer).after(
            made, {**(left.update or {}), "owner": None}, used
        )
        try:
            self._append(replace(left, rows=made, update=sealed, after=left.after + there))
        except LeaseLost:
            return outcomes_of(rest, debt.unsafe)
        return []

    def _free(self, run_id: str, claim: tuple[int, int]) -> None:
        """Give back a run that the store says is this process's, unless it is driven here."""
        key, fence = claim
        try:
            if not self.has(run_id):
                with suppress(LeaseLost):
                    self._append(Append(key, fence, (), {"owner": None}))
        except StoreError:
            self._unsure = True
            raise

    def _append(self, item: Append) -> None:
        """Store *item*, in a thread that has no event loop."""

        async def stored() -> None:
            await self.store.append(item)

        self.system.run(stored())

    # --- others ---

    def sees(self, owner: str) -> Seen:
        """What can be seen of *owner* from this process."""
        return self.system.sees(owner, self.process, one_machine=self.store.one_machine)

    def alive(self, owner: str) -> bool:
        """Whether the process of *owner* is seen alive, whatever became of its lease."""
        return self.sees(owner) is Seen.ALIVE

    def gone(self, owner: str) -> bool:
        """Whether *owner* has surely ended: it is seen gone, or the store does not list it, by its
        own word or that of one who saw it.
        """
        return self.sees(owner) is Seen.GONE or owner not in self.store.owners()

    def spared(self) -> list[str]:
        """Owners that are seen alive though their time is over, so that nobody tries for their
        runs; the runs of those that are seen gone are given to others.
        """
        spared = []
        for owner, left in self.store.owners().items():
            if owner == self.owner:
                continue
            what = self.sees(owner)
            if what is Seen.GONE:
                self.store.forget_owner(owner)
            elif what is Seen.ALIVE and left < 0:
                spared.append(owner)
        return spared


def living(store: Store, system: System = SYSTEM) -> frozenset[str]:
    """The owners in *store* that may be alive."""
    here, one_machine = system.process(), store.one_machine
    found = {
        owner: (left, system.sees(owner, here, one_machine=one_machine))
        for owner, left in store.owners().items()
    }
    return frozenset(
        owner
        for owner, (left, what) in found.items()
        if what is Seen.ALIVE or (what is Seen.UNKNOWN and left >= 0)
    )
