"""Durable runs: a journal beside the driver, so that a run killed at any instant goes on from its
records.

Before a call is made, what finished since and the *intent* of the call are committed together; a
call that only reads does not wait for the records of others that do. A run that is taken up again
computes its control flow anew; each call that is recorded is answered from its record, and the
first that is not is live again. A call with an effect that was begun and has no outcome is in
doubt: it is never repeated here.

Rule 1: no call with an effect is made before its intent is durable and the lease was looked at.
Rule 2: a row, once appended, never changes; who lost the lease appends nothing more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from ..adapters.protocol import Clock
from ..errors import LeaseLost, StoreError
from ..language.operators import described, number_in
from ..language.semantics import CALLS, OUTSIDE
from ..machine.ledger import UNLIMITED, token_bound
from ..machine.machine import FOREVER, Machine
from ..machine.outcome import (
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
from ..machine.plan import END, FORK, MODEL, PAUSE, TOOL, Op
from ..machine.recorded import HELD, Recorded
from ..records.trace import (
    LLMUsage,
    Record,
    StepError,
    StepStatus,
    Trace,
    TraceStatus,
    called,
    full,
)
from ..store.protocol import Store
from ..store.records import INTENT, PAUSED, STEP, SUSPENDED, Message, Row, StoredRun, late_outcomes
from ..store.seals import RunSeal
from ..store.waits import Waits, matched, takes
from ..values import UNSET
from ..verify.examine import collector_paused
from .driver import Abandoned
from .lease import LATE, Debt, Lease, outcomes_of
from .outbox import Outbox, patiently
from .stored import Begun, begun_calls, extra_json, paused_rows, reconciles, timeless

logger = logging.getLogger("nano_vm")

EFFECT_GRACE_SECONDS = 5.0
"""How long a call with an effect may go on after its run was cancelled by another process: most are
over by then, and one that is cut off is in doubt, and costs a person's time.
"""

MAX_WAIT_SECONDS = 100 * 366 * 24 * 3600
"""A century; what is longer is a mistake, and its nanoseconds would not fit."""

PILE_ROWS = 32
"""How many records of tools that only read may pile up while others of them are stored. What a
crash loses of them is read again; nothing was done that hangs on them, since every other call waits
for all of them.
"""

LOST = StepError("in_doubt", "LostCall", "the process that made the call is gone", retryable=False)
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

    @property
    def reused(self) -> Mapping[str, bool]:
        """By path: whether the step's outcome is taken from that run."""
        ...

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

    @collector_paused()
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
        self.lapses = lapses  # of the lease, before the run was claimed
        self.origin = origin
        self.taken: set[str] = set()  # steps whose outcome a fork takes from its origin
        # whether calls with an effect are left to a person's word
        self.holds = run.about.get("effects") is False
        steps = [row for row in run.rows if row.kind == STEP]
        self.recorded = Recorded((row.record() for row in steps), base_ns)
        self.first: dict[str, int] = {}  # when each frame began, as far as its rows tell
        self.kept: dict[str, int] = {}  # rows of each frame that are stored
        for row in run.rows:
            self.first[row.frame] = min(self.first.get(row.frame, FOREVER), row.started_ns)
        for row in steps:
            self.kept[row.frame] = self.kept.get(row.frame, 0) + 1
        self.stored = dict(self.kept)  # the same, before anything was appended here
        done = {row.path for row in steps}
        self.begun: dict[str, list[int]] = {}  # calls without outcome: when each was begun
        for row in run.rows:
            if row.kind == INTENT and row.path not in done:
                self.begun.setdefault(row.path, []).append(row.started_ns)
        self.calls = begun_calls(run.rows)
        self.named = False  # whether a row says which process drives the run now
        self.arguments: dict[str, tuple[Sequence[str], Any]] = {}
        self.unsafe: set[str] = set()  # of calls that another owner does not make again
        self.deadlines: dict[str, int] = {}  # of what is waited for, since the epoch
        self.seal = seal
        self.messages: dict[int, Message] = {}  # that were sent to the run, by their number
        self.inbox: list[Message] = []
        self.ignored: list[Message] = []
        self.cancelled: list[int] = []
        self.hear(run.inbox)
        self.used: list[int] = []
        self.resolved: dict[str, str] = {}  # by path: who said what became of a call in doubt
        self.wakes: list[int] = []
        self.task: asyncio.Task[Any] | None = None  # that drives the run right now
        self.calling: dict[str, tuple[Machine, Op]] = {}  # calls under way, by frame
        self.looking: asyncio.Future[None] | None = None
        self.stopping = False  # whether the run was cancelled while it is driven here
        self.interrupts = 0
        self.leaving = False  # whether this process stops: no further call is begun
        self.repeatable = True  # whether what was recorded last had no effect and no cost
        self.pile: list[Row] = []  # what was only read, and is not handed over yet
        self.pushing = False
        self.free = False  # whether the run is no longer this process's, with its own word for it
        self.count = len(steps)

    # --- what the driver asks ---

    async def before(self, machine: Machine, op: Op, now: int) -> Op | None:
        """Called with every request: the request that follows where its outcome is known already,
        else None when it may be made.
        """
        self.calling.pop(machine.frame_name, None)
        if self.stopping:
            await self.stopped()
        if op.code == FORK:  # what came before it is stored before what is in it
            rows = self.rows(machine)
            if rows:
                await self.append(rows)
            return None
        if op.code == END:
            if machine.frame_name:  # the run's own last rows go with its end
                await self.append(self.rows(machine))
            return None
        following = self.recorded.feed(machine, op)
        if following is None and self.origin is not None:
            following = self.known(self.origin, machine, op)
        if following is not None:
            return following
        path = machine.path
        machine.now = max(machine.now, now)
        if op.code == TOOL and op.unsafe:  # type: ignore[attr-defined]
            self.arguments[path] = op.names, machine.request
            self.unsafe.add(path)
        if path in self.begun and not machine.retrying and op.code != PAUSE:
            following = await self.lost(machine, op, path)
            if following is not None:
                return following
        if self.cancelled and machine.side_call is None and not machine.cancelling:
            return machine.resume(Cancelled(called=False), machine.now)
        if op.code == PAUSE:
            return await self.pause(machine, op, path)
        if now >= machine.deadline and machine.side_call is None:
            return machine.resume(TimedOut(called=False), machine.now)
        if self.holds and op.code == TOOL and op.unsafe:  # type: ignore[attr-defined]
            following = await self.held(machine, op, path)
            if following is not None:
                return following
        rows = self.rows(machine)
        if self.leaving:
            await self.append(rows)
            raise Abandoned(LeaseLost(f"run {self.run.run_id!r} is left to others"))
        if op.code == TOOL and op.effect == "read" and machine.ledger.tool_calls >= UNLIMITED:  # type: ignore[attr-defined]
            if self.repeatable and not self.used and len(self.pile) < PILE_ROWS:
                self.pile += rows
                self.push()
            else:
                await self.append(rows)
        else:
            await self.append([*rows, self.intent(machine, op, path, machine.now + self.base_ns)])
        self.check()
        if self.stopping and machine.side_call is None:
            await self.stopped()
            return machine.resume(Cancelled(called=False), machine.now)
        self.calling[machine.frame_name] = machine, op
        return None

    def known(self, origin: Origin, machine: Machine, op: Op) -> Op | None:
        """The request that follows, where a fork takes the outcome of *op* from its origin."""
        path = machine.path
        following = origin.known(machine, op)
        if following is None:
            self.taken.discard(path)
        else:
            self.taken.add(path)
        return following

    async def held(self, machine: Machine, op: Op, path: str) -> Op | None:
        """What becomes of a call with an effect in a fork that makes none; None where it may be
        made.
        """
        if self.origin is not None and self.origin.makes(op):
            return None
        message = self.take(("resolve",), path)
        if message is not None and message.by is not None:
            self.resolved[path] = message.by
        if message is not None:
            return None if message.body.get("retry") else self.settled(machine, message)
        if machine.side_call == "reconcile":
            return machine.resume(NotCalled(HELD), machine.now)
        await self.append(self.rows(machine))
        return machine.resume(Suspended(), machine.now)

    # --- cancelled from elsewhere ---

    @contextmanager
    def driven(self) -> Iterator[None]:
        """While the current task drives the run, `stop` may interrupt it; afterwards the task is as
        it was.
        """
        self.task = asyncio.current_task()
        try:
            yield
        finally:
            task, self.task = self.task, None
            for _ in range(self.interrupts if task is not None else 0):
                task.uncancel()  # type: ignore[union-attr]

    def stop(self) -> None:
        """Take that the run is to be cancelled: at once, but for calls with an effect, which have a
        while to end by themselves.
        """
        if self.task is None or self.stopping:
            return
        # it may be of nobody who is trusted
        if self.seal.trusted is not None and not self.cancelled:
            if self.looking is None or self.looking.done():
                self.looking = asyncio.ensure_future(self.believe())
            return
        self.stopping = True
        if self.affecting():
            self.task.get_loop().call_later(EFFECT_GRACE_SECONDS, self.interrupt)
        else:
            self.interrupt()

    async def believe(self) -> None:
        """`stop`, if a message that may be used says so."""
        with suppress(Abandoned):  # who drives the run meets the same fault
            await self.look()
            if self.cancelled:
                self.stop()

    def affecting(self) -> bool:
        """Whether a call is under way that would be in doubt if it was cut off."""
        return any(op.code == TOOL and op.unsafe for _, op in self.calling.values())  # type: ignore[attr-defined]

    def interrupt(self) -> None:
        """Cancel the calls that are under way, but those that undo what was done."""
        undoing = any(machine.side_call == "undo" for machine, _ in self.calling.values())
        if self.task is not None and self.calling and not undoing:
            self.interrupts += 1
            self.task.cancel()

    async def stopped(self) -> None:
        """Hear the cancellation; and if only reading is under way now, stop that too."""
        if not self.cancelled:
            await self.look()
        if self.calling and not self.affecting():
            self.interrupt()

    def intent(self, machine: Machine, op: Op, path: str, began_ns: int) -> Row:
        """That a call or a pause begins; the first also says in which process, for those after
        it.
        """
        row = Row(INTENT, machine.frame_name, path, op.type, None, began_ns)
        if not self.named:
            self.named, row.rest = True, {"owner": self.lease.owner}
        self.calls[path] = Begun(op.type, began_ns, self.lease.owner)
        return row

    def check(self) -> None:
        """Asked immediately before a call: raises `Abandoned` where this process may have lost the
        run.
        """
        if not self.lease.holds() or self.lease.lapses != self.lapses:
            message = (
                f"run {self.run.run_id!r}: this process was not heard of for too long, and "
                f"may have lost the run"
            )
            raise Abandoned(LeaseLost(message))

    async def leave_run(self) -> None:
        """Let the run go as it is, if it is still ours, for others to take up at once; a call that
        was cut off has no outcome.
        """
        with suppress(Abandoned):
            await self.append([], {"owner": None})

    def debt(self) -> Debt | None:
        """What the store does not have of the run, where this process stopped driving it and could
        not say so.
        """
        if self.free:
            return None
        return Debt(self.run.run_id, self.outbox.left(), unsafe=self.unsafe)

    async def lost(self, machine: Machine, op: Op, path: str) -> Op | None:
        """What becomes of a call that was begun before and has no outcome; None where it may be
        made (again).
        """
        now, begun = machine.now, self.begun[path]
        unsafe = op.code == TOOL and op.unsafe  # type: ignore[attr-defined]
        message = self.take(("outcome", "resolve"), path) if unsafe else None
        again = not unsafe or (message is not None and bool(message.body.get("retry")))
        bound = token_bound(machine.messages) if op.code == MODEL else 0
        gone = again or message is not None or await self.maker_gone(path)
        refusal = machine.lose(op, begun, bound, settled=not again)
        if message is not None and message.by is not None:
            self.resolved[path] = message.by
        if refusal is not None:
            return machine.resume(Failed(refusal), now)
        if again:
            return None
        if message is not None:
            return self.settled(machine, message)
        if gone:
            return machine.resume(Unknown(LOST), now)
        # later and later, for hours: whoever can tell that the process is gone may be on another machine
        passed_ns = max(now + self.base_ns - begun[-1], 0)
        self.wakes.append(now + self.base_ns + min(max(passed_ns, SOONEST_LOOK_NS), LATEST_LOOK_NS))
        return machine.resume(Unknown(UNSEEN, ask=False), now)

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
        call = self.calls.get(path)
        owner = call.owner if call is not None else None
        if owner is None or owner == self.lease.owner:
            return True
        try:
            return await patiently(self.clock, lambda _: asyncio.to_thread(self.lease.gone, owner))
        except StoreError as error:
            raise Abandoned(error) from None

    async def pause(self, machine: Machine, op: Op, path: str) -> Op:
        """The outcome of an approval or a wait, or that there is none yet."""
        now, request = machine.now, machine.request
        since_ns = self.begun.get(path, [now + self.base_ns])[0]
        timeout: int = op.timeout_ns  # type: ignore[attr-defined]
        own = since_ns + timeout if timeout else FOREVER
        nearest = min(own, machine.deadline + self.base_ns)  # its own, or that of what it stands in
        deadline_ns = nearest if nearest < FOREVER else None
        message = self.word(op, path, request, deadline_ns)
        late = deadline_ns is not None and now + self.base_ns >= deadline_ns
        if message is None and late:
            await self.look()  # for what was recorded in time, since the run was loaded
            message = self.word(op, path, request, deadline_ns)
        if message is not None and op.asks:  # type: ignore[attr-defined]
            return machine.resume(
                Decided(message.kind == "approve", message.body.get("reason"), message.by), now
            )
        if message is not None:
            return machine.resume(Arrived(message.body.get("payload")), now)
        try:
            due = None if op.asks else self.due(request, since_ns - self.base_ns)  # type: ignore[attr-defined]
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
            self.deadlines[path] = deadline_ns
        rows = self.rows(machine)
        if path not in self.begun:
            self.begun[path] = [since_ns]
            rows.append(self.intent(machine, op, path, since_ns))
        await self.append(rows)
        return machine.resume(Suspended(), now)

    def word(
        self, op: Op, path: str, request: dict[str, Any], deadline_ns: int | None
    ) -> Message | None:
        """What was said in time about the request at *path*; it is used up."""
        if op.asks:  # type: ignore[attr-defined]
            return self.take(("approve", "reject"), path, deadline_ns)
        asked = {**request, "deadline_ns": deadline_ns}
        message = next((message for message in self.inbox if takes(asked, message)), None)
        if message is not None:
            self.use(message)
        return message

    async def look(self) -> None:
        """Hear what was said to the run since it was loaded; nobody who says something right now is
        missed.
        """
        try:
            told = await patiently(self.clock, lambda _: self.store.told(self.run.key))
        except StoreError as error:
            raise Abandoned(error) from None
        self.hear(told)

    def hear(self, messages: Iterable[Message]) -> None:
        """Take note of messages that are new; one that no trusted key has signed is not used."""
        for message in messages:
            if message.id in self.messages:
                continue
            self.messages[message.id] = message
            if not self.seal.takes(message):
                self.ignored.append(message)
                text = (
                    "run %s: %r by %r is not signed by a key that this process trusts, and is "
                    "not used"
                )
                logger.warning(text, self.run.run_id, message.kind, message.by)
                continue
            self.inbox.append(message)
            if message.kind == "cancel":
                self.cancelled.append(message.id)

    def entries(self, waiting: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What the run waits for, with what a person needs to decide it and the machine does not
        know: deadlines, and of a call in doubt when it was begun, and by which process.
        """
        return [{**entry, **self.beside(entry)} for entry in waiting]

    def beside(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        path = entry["path"]
        if path in self.deadlines:
            return {"deadline_ns": self.deadlines[path]}
        if entry["kind"] != "in_doubt" or path not in self.calls:
            return {}
        call, (names, values) = self.calls[path], self.arguments.get(path, ((), ()))
        arguments = dict(zip(names, values, strict=False))
        return {
            "arguments": arguments,
            "began_ns": call.began_ns,
            **({"owner": call.owner} if call.owner else {}),
        }

    def due(self, request: dict[str, Any], since: int) -> int | None:
        """When a timer is due, monotonic; None for an event."""
        if "seconds" in request:
            seconds = request["seconds"]
            number = number_in(seconds) if type(seconds) is str else seconds
            if number is None or type(number) is bool or not 0 <= number <= MAX_WAIT_SECONDS:
                raise ValueError(f"'seconds' is {described(seconds)}; it is a number of at least 0")
            return since + int(number * 1e9)
        if "until" in request:
            try:
                moment = datetime.fromisoformat(request["until"])
            except (TypeError, ValueError):
                raise ValueError(
                    f"'until' is {described(request['until'])}; it is a time like "
                    f"2027-01-31T12:00:00Z"
                ) from None
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return int(moment.timestamp() * 1e9) - self.base_ns
        return None

    def take(
        self, kinds: tuple[str, ...], name: str, deadline_ns: int | None = None
    ) -> Message | None:
        """The first unused message of one of these kinds for *name*, recorded before the deadline;
        it is used up with the next append.
        """
        for message in self.inbox:
            if deadline_ns is not None and message.created_ns >= deadline_ns:
                continue
            if message.kind in kinds and message.name == name:
                self.use(message)
                return message
        return None

    def use(self, message: Message) -> None:
        """Use *message* up with the next append."""
        self.inbox.remove(message)
        self.used.append(message.id)

    def replayed(self, machine: Machine, number: int, path: str) -> bool:
        """Whether record *number* of *machine* was stored before, or taken from the run that this
        one was forked from.
        """
        if number < self.stored.get(machine.frame_name, 0):
            return True
        return self.origin is not None and self.origin.reused.get(path, False)

    def child(self, machine: Machine, number: int) -> Machine:
        """A child of the requested fork, with the name of its frame."""
        child = machine.child(number)
        child.worded = self.recorded.worded
        frame = child.frame_name
        if frame in self.first:  # its deadlines count from when it really began
            child.begun_ns = self.first[frame] - self.base_ns
        return child

    # --- rows ---

    def rows(self, machine: Machine, *, ended: bool = False) -> list[Row]:
        """What the machine recorded since; that it waits is not kept unless the run has *ended*
        so.
        """
        frame = machine.frame_name
        kept = self.kept.get(frame, 0)
        rows = []
        self.repeatable = True
        for record in machine.records[kept:]:
            whole = full(record, self.ops)
            if whole[2] in _WAITING and not ended:
                break
            op = whole[0]
            if op.type in OUTSIDE and not (
                op.type == "tool" and getattr(op, "effect", None) == "read"
            ):
                self.repeatable = False
            rows.append(self.row(frame, whole))
        while (
            rows and not ended and reconciles(rows[-1])
        ):  # it counts with its step: what was said before a crash may be untrue
            rows.pop()
        self.kept[frame] = kept + len(rows)
        self.count += len(rows)
        return rows

    def row(self, frame: str, record: Record) -> Row:
        """A record as it is stored."""
        op, path, status, output, error, request, started, finished, attempts, usage, extra = record
        self.calls.pop(path, None)
        self.arguments.pop(path, None)
        base = self.base_ns
        rest: dict[str, Any] = {}
        if error is not None:
            rest["error"] = error.to_dict()
        if attempts:
            rest["attempts"] = [
                {
                    **attempt.outcome(),
                    "error": attempt.error.to_dict(),
                    "started_ns": attempt.started_ns + base,
                    "finished_ns": attempt.finished_ns + base,
                    **({"usage": attempt.usage.to_dict()} if attempt.usage is not None else {}),
                }
                for attempt in attempts
            ]
        lost = self.begun.get(path)
        if lost and op.type in CALLS:
            rest["lost"] = lost
        if extra is not None:
            told = extra_json(op, extra)
            rest |= {name: told.pop(name) for name in ("lost", "settled") if name in told}
            if told:
                rest["extra"] = told
        if path in self.resolved:
            rest["extra"] = {**rest.get("extra", {}), "by": self.resolved[path]}
        if type(extra) is dict and "children" in extra:
            rest["size"] = len(extra["children"])
        if type(request) is tuple:
            request = dict(zip(op.names, request, strict=False))
        return Row(
            STEP,
            frame,
            path,
            op.type,
            status,
            started + base,
            finished + base,
            UNSET if request is None else request,
            UNSET if output is None else output,
            rest or None,
            self.model_of(record),
            usage,
        )

    def model_of(self, record: Record) -> str | None:
        """The model that a step called in this run, as it named itself or as it was asked for;
        empty where it has no name, None where none was called.
        """
        op, path, extra = record[0], record[1], record[10]
        if op.type != "llm" or path in self.taken or not called(record):
            return None
        answered = extra.get("model") if type(extra) is dict else None
        return str(answered or op.model or self.run.about.get("default_model") or "")

    async def append(
        self, rows: list[Row], update: dict[str, Any] | None = None, seen: Sequence[int] = ()
    ) -> None:
        """Make *rows*, and all that was handed over before, durable; `Abandoned` where that is not
        ours to do, or can not be done.
        """
        rows, self.pile = [*self.pile, *rows], []
        if not rows and not self.used and update is None and not self.pushing:
            return
        try:
            # which is written, whatever becomes of who waits for it
            await self.hand_over(rows, update, seen)
        except LeaseLost as error:
            self.free = True
            self.lease.owe(Debt(self.run.run_id, outcomes=outcomes_of(rows, self.unsafe)))
            raise Abandoned(error) from None
        except StoreError as error:
            raise Abandoned(error) from None
        if update is not None and "owner" in update:
            self.free = True

    def push(self) -> None:
        """See that the pile is stored, without waiting for it."""
        if self.pile and not self.pushing and self.outbox.fault is None:
            self.pushing = True
            rows, self.pile = self.pile, []
            self.hand_over(rows).add_done_callback(self.pushed)

    def pushed(self, _: asyncio.Future[None]) -> None:
        """Store what has piled up meanwhile; that it failed learns who waits for the next append,
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
        used, self.used = self.used, []
        waits = self.waits(update) if update is not None else None
        sealed = self.seal.after(rows, update, [self.messages[number] for number in used])
        return self.outbox.give(rows, sealed, used, seen, waits)

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
        if self.stopping and not self.cancelled:
            await self.look()
        if not suspended:
            self.used += self.cancelled
        rows = [*self.pile, *self.rows(machine, ended=not suspended)]
        self.pile = []
        if suspended:
            rows += self.paused(machine)
        # to look at 10,000 records takes a tenth of what resuming them does
        asks = any(op.type == "llm" for op in self.ops)
        usage = trace.usage() if asks else LLMUsage(cost_usd=Decimal(0))
        update: dict[str, Any] = {
            "status": trace.status.value,
            "owner": None,
            "waiting": waiting,
            "wake_ns": min(self.wakes, default=None) if suspended else None,
            "steps": self.count,
            "tokens": usage.total_tokens,
            "cost_usd": str(usage.cost_usd) if usage.cost_usd is not None else None,
            "error": trace.error,
            "error_kind": trace.error_kind,
        }
        if not suspended:
            update |= {"output": trace.output, "finished_ns": trace.finished_ns + self.base_ns}
        unused = [message.id for message in (*self.inbox, *self.ignored)]
        await self.append(rows, update, unused if suspended else ())
        if not suspended and any(message.kind == "outcome" for message in self.inbox):
            stored = await patiently(
                self.clock, lambda _: asyncio.to_thread(self.store.load, self.run.run_id)
            )
            for message in late_outcomes(stored):
                logger.warning(LATE, stored.run_id, stored.status, message.name, stored.run_id)

    def paused(self, machine: Machine) -> list[Row]:
        """What the trace shows of the steps at which the run waits, children before their fork;
        nothing where that stands there already.
        """
        rows = list(self.standing(machine.records, machine.frame_name))
        if not rows:
            return []
        rows[-1].rest = {**(rows[-1].rest or {}), "paused": len(rows)}
        return (
            rows
            if [timeless(row) for row in rows] != [timeless(row) for row in paused_rows(self.run)]
            else []
        )

    def standing(self, records: Sequence[Any], frame: str) -> Iterator[Row]:
        """A row for each of *records* that is not stored."""
        for record in records[self.kept.get(frame, 0) :]:
            whole = full(record, self.ops)
            extra = whole[10]
            if type(extra) is dict:
                for number, child in enumerate(extra.get("children", ())):
                    yield from self.standing(child, f"{whole[1]}:{number}")
            row = self.row(frame, whole)
            row.kind, row.model = PAUSED, None
            yield row


_WAITING = frozenset({StepStatus.SUSPENDED, StepStatus.IN_DOUBT})
