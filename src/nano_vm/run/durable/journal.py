"""Durable runs: a journal beside the driver, so that a run killed at any instant goes on from its
records.

Before a call is made, what finished since and the *intent* of the call are committed together; a
call that only reads does not wait for the records of others that do. A run that is resumed
computes its control flow anew; each call that is recorded is answered from its record, and the
first that is not is live again. A call with an effect that was begun and has no outcome is in
doubt: it is never repeated here.

Rule 1: no call with an effect is made before its intent is durable and the lease was looked at.
Rule 2: a row, once appended, never changes; who lost the lease appends nothing more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any, Protocol

from ...adapters.protocol import Clock
from ...collector import collector_paused
from ...errors import LeaseLost, StoreError, ToolError
from ...machine.faults import LOST
from ...machine.ledger import UNLIMITED
from ...machine.machine import Machine
from ...machine.outcome import (
    Arrived,
    Cancelled,
    Decided,
    Failed,
    NotCalled,
    Suspended,
    TimedOut,
    Unknown,
    Value,
)
from ...machine.pending import due_at
from ...machine.plan import DOUBT, END, FOREVER, FORK, PAUSE, TOOL, Op, ToolOp
from ...machine.recorded import HELD
from ...records.record import StepError
from ...records.status import TraceStatus
from ...records.trace import Trace
from ...store.protocol import Store
from ...store.records import SUSPENDED, Message, Row, StoredRun, late_outcomes
from ...store.seals import RunSeal
from ...store.waits import Waits, matched
from ..driver import Abandoned
from .heard import Heard
from .interruption import Interruption
from .lease import LATE, Debt, Lease, outcomes_of
from .outbox import Outbox, patiently
from .rows import Rows
from .stored import columns_of, recorded_in

logger = logging.getLogger("nano_vm")

PILE_ROWS = 32
"""How many records of tools that only read may accumulate while others of them are stored. What a
crash loses of them is read again; nothing was done that depends on them, since every other call waits
for all of them.
"""

UNSEEN = StepError(
    "in_doubt",
    "LostCall",
    "the process that made the call lost the run, and may be making it still",
    retryable=False,
)

SOONEST_LOOK_NS, LATEST_LOOK_NS = 10 * 10**9, 3600 * 10**9
"""When to look again whether the process that made a call in doubt is gone: after as long again as
it is in doubt, within these.
"""


class Origin(Protocol):
    """What a fork takes from the run that it was made from, as long as it is driven by who made
    it.
    """

    def known(self, machine: Machine, op: Op) -> Op | None:
        """The request that follows, where the outcome of *op* is taken from that run."""
        ...

    def makes(self, op: Op) -> bool:
        """Whether a call with an effect is made though the fork makes none: by a tool that stands
        in for the real one.
        """
        ...


class Journal:
    """What one run appends while it is driven here; *base_ns* added to monotonic time gives
    nanoseconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        run: StoredRun,
        base_ns: int,
        ops: Sequence[Op],
        seal: RunSeal,
        clock: Clock,
        lapses: int = 0,
        origin: Origin | None = None,
    ) -> None:
        self.store, self.lease, self.run, self.base_ns, self.ops = store, lease, run, base_ns, ops
        self.clock = clock
        self.outbox = Outbox(store, run, clock)
        self.rows = Rows(run, ops, base_ns, lease.owner)
        self.heard = Heard(store, run, seal, clock)
        self.interruption = Interruption(self.heard)
        self.lapses = lapses  # of the lease, before the run was claimed
        self.origin = origin
        # whether calls with an effect are left to a person's word
        self.holds = run.about.get("effects") is False
        self.recorded = recorded_in(run, base_ns)
        self.along = self.recorded.along
        if run.rows:  # of what is recorded most is handed over at the first request
            self.along = collector_paused()(self.along)
        self.unsafe: set[str] = set()  # of calls that another owner does not make again
        # calls that were in doubt as the run was claimed, and whose reconcile is asked
        self.reconciling: set[str] = set()
        self.seal = seal
        self.wakes: list[int] = []
        self.leaving = False  # whether this process stops: no further call is begun
        self.pile: list[Row] = []  # what was only read, and is not handed over yet
        self.pushing = False
        self.free = False  # whether the run is no longer this process's, with its own word for it

    async def before(self, machine: Machine, op: Op, now: int) -> Op | None:
        """Called with every request: the request that follows where its outcome is known already,
        else None when it may be made.
        """
        self.interruption.calling.pop(machine.frame_name, None)
        if self.interruption.stopping:
            self.keep(machine)
            await self.interruption.hear_out()
        if op.code == FORK or op.code == END:
            return await self.bounds(machine, op, now)
        following = self.along(machine, op) or self.recorded.feed(machine, op)
        self.along = self.recorded.along
        if following is None and op.code == DOUBT:
            # a person says it to the stored run, which is then driven anew
            return machine.resume(Suspended(), now)
        if following is None and self.origin is not None:
            following = self.known(self.origin, machine, op)
        if following is not None:
            return following
        path = machine.path
        machine.now = max(machine.now, now)
        if op.code == TOOL and op.unsafe:  # type: ignore[attr-defined]
            self.rows.arguments[path] = op.names, machine.request
            self.unsafe.add(path)
        if path in self.rows.begun and not machine.retrying and op.code != PAUSE:
            following = await self.lost(machine, op, path)
            if following is not None:
                return following
        if self.heard.cancelled and machine.side_call is None and not machine.cancelling:
            return machine.resume(Cancelled(called=False), machine.now)
        if op.code == PAUSE:
            return await self.pause(machine, op, path)
        if now >= machine.deadline and machine.side_call is None:
            return machine.resume(TimedOut(called=False), machine.now)
        if self.holds and op.code == TOOL and op.unsafe:  # type: ignore[attr-defined]
            following = await self.held(machine, op, path)
            if following is not None:
                return following
        await self.announce(machine, op, path)
        if self.interruption.stopping and machine.side_call is None:
            await self.interruption.hear_out()
            return machine.resume(Cancelled(called=False), machine.now)
        self.interruption.calling[machine.frame_name] = machine, op
        return None

    def rest(self, machine: Machine) -> AbstractContextManager[bool]:
        """See `driver.Journal.rest`: what stops the run or this process ends the wait."""
        if self.leaving or self.interruption.stopping or self.heard.cancelled:
            return nullcontext(False)  # `before` says what becomes of the run
        return self.interruption.resting(machine)

    def leave(self) -> None:
        """Take that this process stops: no further call is begun, and none is waited for."""
        self.leaving = True
        self.interruption.leave()

    async def bounds(self, machine: Machine, op: Op, now: int) -> Op | None:
        """`before` of a fork, and of the end of a frame."""
        if op.code == FORK:  # what came before it is stored before what is in it
            rows = self.rows.new(machine)
            if rows:
                await self.append(rows)
        elif machine.frame_name:  # the run's own last rows go with its end
            await self.append(self.rows.new(machine))
        elif self.heard.cancelled and machine.status is TraceStatus.SUCCESS:
            return machine.resume(Cancelled(called=False), max(machine.now, now))
        return None

    async def announce(self, machine: Machine, op: Op, path: str) -> None:
        """Store what was recorded and that a call begins; what only reads need not be waited for,
        and is not announced.
        """
        rows = self.rows.new(machine)
        if self.leaving:
            await self.append(rows)
            raise Abandoned(LeaseLost(f"run {self.run.run_id!r} is left to others"))
        if op.code == TOOL and op.effect == "read" and machine.ledger.tool_calls >= UNLIMITED:  # type: ignore[attr-defined]
            if self.rows.repeatable and not self.heard.used and len(self.pile) < PILE_ROWS:
                self.pile += rows
                self.push()
            else:
                await self.append(rows)
        else:
            self.reconciling.discard(path)
            await self.append(
                [*rows, self.rows.intent(machine, op, path, machine.now + self.base_ns)]
            )

    def known(self, origin: Origin, machine: Machine, op: Op) -> Op | None:
        """The request that follows, where a fork takes the outcome of *op* from its origin."""
        path = machine.path
        following = origin.known(machine, op)
        if following is None:
            self.rows.taken.discard(path)
        else:
            self.rows.taken.add(path)
        return following

    async def held(self, machine: Machine, op: Op, path: str) -> Op | None:
        """What becomes of a call with an effect in a fork that makes none; None where it may be
        made.
        """
        if self.origin is not None and self.origin.makes(op):
            return None
        message = self.heard.take(("resolve",), path)
        if message is not None and message.by is not None:
            self.rows.resolved[path] = message.by
        if message is not None:
            return None if message.body.get("retry") else self.settled(machine, message)
        if machine.side_call == "reconcile":
            return machine.resume(NotCalled(HELD), machine.now)
        await self.append(self.rows.new(machine))
        return machine.resume(Suspended(), machine.now)

    def check(self) -> None:
        """See `driver.Journal.check`: raises where this process may have lost the run."""
        if not self.lease.holds() or self.lease.lapses != self.lapses:
            message = (
                f"run {self.run.run_id!r}: this process was not heard of for too long, and "
                f"may have lost the run"
            )
            raise Abandoned(LeaseLost(message))

    async def leave_run(self) -> None:
        """Let the run go as it is, if it is still ours, for others to claim at once; a call that
        was cut off has no outcome.
        """
        with suppress(Abandoned):
            await self.append([], {"owner": None})

    def debt(self) -> Debt:
        """What the store does not have of the run as this process stops driving it: all of it, and
        that the run is free; or, where it is not this process's any more, what calls gave.
        """
        left = self.outbox.left()
        if self.free:
            rows = [*left.rows, *self.pile]
            return Debt(self.run.run_id, outcomes=outcomes_of(rows, self.unsafe))
        return Debt(self.run.run_id, left, unsafe=self.unsafe)

    async def lost(self, machine: Machine, op: Op, path: str) -> Op | None:
        """What becomes of a call that was begun before and has no outcome; None where it may be
        made (again).
        """
        now, begun = machine.now, self.rows.begun[path]
        unsafe = op.code == TOOL and op.unsafe  # type: ignore[attr-defined]
        # what the call gave counts for more than what a person thought became of it; both count also
        # where the tool has another contract here than where it was in doubt
        message = self.heard.take(("outcome",), path) or self.heard.take(("resolve",), path)
        again = bool(message.body.get("retry")) if message is not None else not unsafe
        gone = again or message is not None or await self.maker_gone(path)
        refusal = machine.lose(op, begun, settled=not again)
        if message is not None and message.by is not None:
            self.rows.resolved[path] = message.by
        if refusal is not None:
            return machine.resume(Failed(refusal), now)
        if again:
            return None
        if message is not None:
            return self.settled(machine, message)
        if gone:
            self.reconciling.add(path)
            return machine.resume(Unknown(LOST), now)
        # later and later, for hours: whoever can tell that the process is gone may be on another machine
        passed_ns = max(now + self.base_ns - begun[-1], 0)
        self.wakes.append(now + self.base_ns + min(max(passed_ns, SOONEST_LOOK_NS), LATEST_LOOK_NS))
        return machine.resume(Unknown(UNSEEN, ask=False), now)

    async def reconciled(self, machine: Machine) -> None:
        """Look whether somebody said what became of a call while its `reconcile` was asked, which
        counts for more. Then the call stays in doubt here, and the run goes on by that word once it
        is let go.

        Raises:
            ToolError: If so.
        """
        path, _, _ = machine.path.rpartition("/")
        if path in self.reconciling:
            self.keep(machine)
            await self.heard.look()
            if self.heard.found(("outcome", "resolve"), path) is not None:
                told = "somebody said meanwhile what became of the call"
                raise ToolError(told, retryable=False)

    def settled(self, machine: Machine, message: Message) -> Op:
        """The outcome that *message* says a call had: it came late, or a person says so."""
        body = message.body
        if "output" in body:
            return machine.resume(Value(body["output"]), machine.now)
        if "error" in body:
            return machine.resume(
                Failed(replace(StepError.from_dict(body["error"]), retryable=False)), machine.now
            )
        reason = body.get("reason") or "declared failed"
        return machine.resume(
            Failed(StepError("tool", "Resolved", str(reason), retryable=False)), machine.now
        )

    async def maker_gone(self, path: str) -> bool:
        """Whether the process that made the call at *path* has surely ended; until then the call
        may be under way.
        """
        call = self.rows.calls.get(path)
        owner = call.owner if call is not None else None
        if owner is None or owner == self.lease.owner:
            return not self.lease.makes(self.run.run_id, path)
        try:
            return await patiently(self.clock, lambda _: asyncio.to_thread(self.lease.gone, owner))
        except StoreError as error:
            raise Abandoned(error) from None

    def outlived(self, machine: Machine, op: ToolOp, call: Future[Any]) -> None:
        """See that nobody takes a *call* for gone that a thread is still making."""
        if op.unsafe:
            self.lease.note_call(self.run.run_id, machine.path, call)

    async def pause(self, machine: Machine, op: Op, path: str) -> Op:
        """The outcome of an approval or a wait, or that there is none yet."""
        now, request = machine.now, machine.request
        since_ns = self.rows.begun.get(path, [machine.reached_ns + self.base_ns])[0]
        timeout: int = op.timeout_ns  # type: ignore[attr-defined]
        own = since_ns + timeout if timeout else FOREVER
        nearest = min(own, machine.deadline + self.base_ns)  # its own, or that of what it stands in
        deadline_ns = nearest if nearest < FOREVER else None
        message = self.heard.word(op, path, request, deadline_ns)
        late = deadline_ns is not None and now + self.base_ns >= deadline_ns
        if message is None and late:
            self.keep(machine)
            await self.heard.look()  # for what was recorded in time, since the run was loaded
            message = self.heard.word(op, path, request, deadline_ns)
        if message is not None and op.asks:  # type: ignore[attr-defined]
            return machine.resume(
                Decided(message.kind == "approve", message.body.get("reason"), message.by), now
            )
        if message is not None:
            return machine.resume(Arrived(message.body.get("payload")), now)
        try:
            due = None if op.asks else due_at(request, since_ns - self.base_ns, self.base_ns)  # type: ignore[attr-defined]
        except ValueError as error:
            return machine.resume(
                Failed(StepError("value", "ExprError", str(error), retryable=False)), now
            )
        if due is not None and now >= due:
            return machine.resume(Arrived(), now)
        if late:
            return machine.resume(TimedOut(), now)
        if due is not None:
            self.wakes.append(due + self.base_ns)
        if deadline_ns is not None:
            self.wakes.append(deadline_ns)
            self.rows.deadlines[path] = deadline_ns
        rows = self.rows.new(machine)
        if path not in self.rows.begun:
            self.rows.begun[path] = [since_ns]
            rows.append(self.rows.intent(machine, op, path, since_ns))
        await self.append(rows)
        return machine.resume(Suspended(), now)

    def replayed(self, machine: Machine, number: int, path: str) -> bool:
        """Whether record *number* of *machine* was stored before, or taken from the run that this
        one was forked from.
        """
        return number < self.rows.stored.get(machine.frame_name, 0) or path in self.rows.taken

    def child(self, machine: Machine, number: int) -> Machine:
        """A child of the requested fork, with the name of its frame."""
        child = machine.child(number)
        frame = child.frame_name
        if frame in self.rows.first:  # its deadlines count from when it really began
            child.begun_ns = self.rows.first[frame] - self.base_ns
        return child

    async def append(
        self, rows: list[Row], update: dict[str, Any] | None = None, seen: Sequence[int] = ()
    ) -> None:
        """Make *rows*, and all that was handed over before, durable; `Abandoned` where that is not
        ours to do, or cannot be done.
        """
        rows, self.pile = [*self.pile, *rows], []
        if not rows and not self.heard.used and update is None and not self.pushing:
            return
        try:
            # which is written, whatever becomes of who waits for it
            await self.hand_over(rows, update, seen)
        except LeaseLost as error:
            self.free = True
            raise Abandoned(error) from None
        except StoreError as error:
            raise Abandoned(error) from None
        if update is not None and "owner" in update:
            self.free = True

    def keep(self, machine: Machine) -> None:
        """Hand over what *machine* recorded, before the store is asked for something: where it does
        not answer the run is left, and what a call gave would be forgotten.
        """
        rows, self.pile = [*self.pile, *self.rows.new(machine)], []
        if rows:
            self.hand_over(rows)

    def push(self) -> None:
        """See that what has accumulated is stored, without waiting for it."""
        if self.pile and not self.pushing and self.outbox.fault is None:
            self.pushing = True
            rows, self.pile = self.pile, []
            self.hand_over(rows).add_done_callback(self.pushed)

    def pushed(self, _: asyncio.Future[None]) -> None:
        """Store what has accumulated meanwhile; that it failed learns who waits for the next append,
        which is not stored either.
        """
        self.pushing = False
        self.push()

    def hand_over(
        self, rows: list[Row], update: dict[str, Any] | None = None, seen: Sequence[int] = ()
    ) -> asyncio.Future[None]:
        """Give *rows* to the store, which writes them after what was handed over before and never
        without it.
        """
        used = self.heard.used_up()
        waits = self.waits(update) if update is not None else None
        sealed = self.seal.after(rows, update, used)
        return self.outbox.give(rows, sealed, [message.id for message in used], seen, waits)

    def waits(self, update: Mapping[str, Any]) -> Waits | None:
        """What the run waited and waits for, of what is found by the values of an event; None where
        that stays as it is.
        """
        if "waiting" not in update:
            return None
        before = matched(self.run.waiting)
        now = matched(update["waiting"]) if update["status"] == SUSPENDED else []
        return (before, now) if before or now else None

    async def end(self, machine: Machine, trace: Trace, waiting: list[dict[str, Any]]) -> None:
        """Write how the run ended, or that it waits for *waiting*, and let it go."""
        suspended = trace.status is TraceStatus.SUSPENDED
        if self.interruption.stopping and not self.heard.cancelled:
            self.keep(machine)
            await self.heard.look()
        if not suspended:
            self.heard.used += self.heard.cancelled
        rows = [*self.pile, *self.rows.new(machine, ended=not suspended)]
        self.pile = []
        if suspended:
            rows += self.rows.paused(machine)
        update: dict[str, Any] = {
            "owner": None,
            "waiting": waiting,
            "wake_ns": min(self.wakes, default=None) if suspended else None,
            **columns_of(trace, self.ops, self.rows.count),
        }
        # what was heard on the way may have come too late to be used: it wakes the run once more
        useless = [message for message in self.heard.inbox if message.id in self.heard.first]
        seen = [message.id for message in (*useless, *self.heard.ignored)]
        await self.append(rows, update, seen if suspended else ())
        if not suspended and any(message.kind == "outcome" for message in self.heard.inbox):
            with suppress(StoreError):  # the run has ended, whether this can be said or not
                await self._warn_of_late()

    async def _warn_of_late(self) -> None:
        """That a call of the run, which has ended, came to something else."""
        stored = await patiently(
            self.clock, lambda _: asyncio.to_thread(self.store.load, self.run.run_id)
        )
        for message in late_outcomes(stored):
            logger.warning(LATE, stored.run_id, stored.status, message.name, stored.run_id)
