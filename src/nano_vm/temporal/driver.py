"""Drives the machines of one run in workflow code: each call is an activity, each wait a timer or a
word from outside.

What an outcome means is the machine's matter, as for every driver. All that comes in is kept on the
tape before the machine is given it, so that the run can be computed again from there. Nothing here
looks at a clock, draws a number or makes a call but through Temporal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityCancellationType, ActivityHandle

from ..language.semantics import Use
from ..machine.faults import LOST, effect_key
from ..machine.machine import Machine
from ..machine.outcome import (
    Arrived,
    Cancelled,
    Decided,
    Failed,
    Joined,
    Outcome,
    TimedOut,
    Unknown,
    Value,
)
from ..machine.pending import due_at
from ..machine.plan import (
    DOUBT,
    END,
    FOREVER,
    FORK,
    INLINE,
    ForkOp,
    ModelOp,
    Op,
    PauseOp,
    ToolOp,
)
from ..records.record import StepError
from ..records.status import TraceStatus
from ..values import CONTAINERS
from .conversion import excess
from .failures import (
    TOO_LARGE,
    is_lost,
    is_not_made,
    is_untaken,
    outcome_of_failure,
    too_large,
    unmade,
)
from .plans import Planned
from .tape import Begun, Entry, Lost, Tape, Timed, fed, is_large
from .terms import (
    CALL_MODEL,
    CALL_TOOL,
    HEARTBEAT_SECONDS,
    UNKNOWN_PROGRAM,
    Admission,
    ModelCall,
    ToolCall,
)
from .words import Words

SUCCESS = TraceStatus.SUCCESS

ONCE = RetryPolicy(maximum_attempts=1)
"""Whether a call is made again is for the machine to say."""

GRACE_SECONDS = 10.0
"""How much longer than a call's own deadline the server waits for the worker to say that it passed.
"""

LOAD_SECONDS = 600.0
"""The same of calls of models, before which an adapter may load one, and whose time begins then."""

LONGEST_CALL = timedelta(days=366)
"""Of calls without a deadline: a worker that dies meanwhile is noticed by its heartbeat."""

BRIEF_SECONDS = 60.0
"""Of a wait that ends by itself within so long the lists of a cluster say nothing: that would cost
two events of the history.
"""

MAX_LOST = 10
"""How often a call that may be made again is made again because its worker died: one that kills its
workers must not kill them for ever.
"""


class MadeAgain(Exception):
    """A call in doubt is to be made again: its frame is computed anew from its tape."""


def key_of(machine: Machine, op: ToolOp) -> str:
    """The effect key that the requested tool is given, where that is not the one of its path: a
    reconcile has that of the call that it is asked about.
    """
    given = str(machine.given[-1]) if op.takes_key else ""
    return "" if given == effect_key(machine.run_id, machine.path) else given


def is_local(op: ToolOp | ModelOp) -> bool:
    """Whether a call is made in the worker that drives the run, with one event in its history: of a
    tool that only reads, and is cheap by its own word (``inline``). It is made again where that
    worker dies.
    """
    return isinstance(op, ToolOp) and op.effect == "read" and op.straight == INLINE


def target_of(op: ToolOp | ModelOp) -> str | None:
    """The tool that is called, or the model, where one is named."""
    return op.tool if isinstance(op, ToolOp) else op.model


def kind_of(op: ToolOp | ModelOp) -> str:
    """What an error of the call is called by."""
    return "tool" if isinstance(op, ToolOp) else "model"


@dataclass(slots=True)
class Calls:
    """Calls under way, and how many this execution of the workflow has made."""

    under_way: dict[ActivityHandle[Any], Machine] = field(default_factory=dict)
    made: int = 0
    resting: int = 0  # machines that wait before another attempt

    @property
    def quiet(self) -> bool:
        """Whether the run goes on only if something comes from outside, or a time."""
        return not self.under_way and not self.resting


class Driver:
    """Drives one run; *base_ns* added to the machine's time gives nanoseconds since the epoch."""

    def __init__(
        self,
        planned: Planned,
        admission: Admission,
        tape: Tape,
        words: Words,
        base_ns: int,
        given: Mapping[str, Any],
        untrusted: Iterable[str],
    ) -> None:
        self.planned, self.admission, self.tape, self.words = planned, admission, tape, words
        self.base_ns, self.given = base_ns, given  # inputs that the policy's checks read
        self.untrusted = sorted(set(untrusted))  # on which it depends what is checked
        self.calls = Calls()
        self.leaving = False  # whether this execution ends before the run does
        self.full: Callable[[], bool] = lambda: False  # whether it should
        self.cancelled = False
        self._latest = 0
        # by frame: where on its tape the outcome of the last call stands, and when that was begun
        self._called: dict[str, tuple[int, int]] = {}
        self._crashed: set[str] = set()  # paths of calls in doubt because their worker died

    def now(self) -> int:
        """The machine's time; it never goes back, whichever worker tells it."""
        self._latest = max(self._latest, workflow.time_ns() - self.base_ns)
        return self._latest

    @property
    def stands(self) -> bool:
        """Whether each branch of the run waits, and for long: for people, an event or a time."""
        return self.calls.quiet and not self.leaving and self.words.stand

    # --- machines ---

    async def drive(self, machine: Machine) -> bool:
        """Drive *machine* to its end, from its tape first; False where this execution ends before.

        Raises:
            MadeAgain: If the frame is to be computed anew.
        """
        tape = self.tape.of(machine.frame_name)
        if not tape:
            tape.append((self.now(), Begun()))
        at, op = 1, machine.start(tape[0][0])
        while True:
            if isinstance(op, ForkOp) and not await self.fork(machine, op):
                return False
            if at == len(tape) and op.code == END:
                if not self.cancelled or machine.frame_name or machine.status is not SUCCESS:
                    return True
                tape.append((self.now(), Cancelled(called=False)))
            elif at == len(tape):
                entries = await self.entries(machine, op)
                if not entries:
                    return False
                tape.extend((self.now(), entry) for entry in entries)
            op = self.feed(machine, op, tape[at])
            at += 1

    def feed(self, machine: Machine, op: Op, entry: Timed) -> Op:
        """The request of *machine* after an *entry* of its tape."""
        now, what = entry
        if isinstance(what, Unknown) and what.crashed:
            self._crashed.add(machine.path)
        self._latest = max(self._latest, now)
        machine.delay_seconds = 0.0
        return fed(machine, op, entry)

    async def fork(self, machine: Machine, op: ForkOp) -> bool:
        """Drive the children of the requested fork; False where this execution ends before they
        do. If the run is cancelled no further child begins.
        """
        count, lanes = machine.fork.size, machine.fork.lanes
        limit = op.at_once(count)
        numbers = iter(range(count))

        async def lane(numbers: Iterable[int]) -> bool:
            for number in numbers:
                known = f"{machine.path}:{number}" in self.tape.frames
                if self.leaving and not known:
                    return False
                if not machine.fork.ready(number) or (self.cancelled and not known):
                    return True
                if not await self.child(machine, number):
                    return False
            return True

        work = [range(one, count, lanes) if lanes < count else numbers for one in range(limit)]
        return all(await asyncio.gather(*map(lane, work)))

    async def child(self, machine: Machine, number: int) -> bool:
        """Drive one child of the requested fork."""
        while True:
            try:
                return await self.drive(machine.child(number))
            except MadeAgain:
                continue

    async def entries(self, machine: Machine, op: Op) -> list[Entry]:
        """What goes on the tape for the requested *op*; nothing where this execution ends first."""
        if op.code == FORK:
            return [Joined()]
        if op.code == DOUBT:
            return await self.resolved(machine)
        if self.cancelled and machine.side_call is None and not machine.cancelling:
            return [Cancelled(called=False)]
        if isinstance(op, PauseOp):
            return await self.pause(machine, op)
        if machine.delay_seconds:
            waited = await self.rest(machine)
            if waited is not True:
                return [] if waited is None else [cast(Outcome, waited)]
        if self.now() >= machine.deadline and machine.side_call is None:
            return [TimedOut(called=False)]
        if self.full():
            self.leaving = True
        if self.leaving:
            return []
        if isinstance(op, ToolOp):
            return await self.call_tool(machine, op)
        assert isinstance(op, ModelOp)
        return await self.call_model(machine, op)

    # --- waiting ---

    async def until(self, come: Callable[[], bool], due_ns: int) -> bool:
        """Wait for what *come* tells of, until *due_ns*; whether the time is up."""
        left = (due_ns - self.now()) / 1e9
        if left <= 0:
            return not come()
        timeout = timedelta(seconds=left) if due_ns < FOREVER else None
        try:
            await workflow.wait_condition(come, timeout=timeout)
        except TimeoutError:
            return not come()
        return False

    async def rest(self, machine: Machine) -> Outcome | bool | None:
        """The wait before another attempt: True once it is over, its outcome where it is cut short,
        None where this execution ends first.
        """
        due = machine.now + int(machine.delay_seconds * 1e9)
        self.calls.resting += 1
        try:
            over = await self.until(
                lambda: self.cancelled or self.leaving, min(due, machine.deadline)
            )
        finally:
            self.calls.resting -= 1
        if self.cancelled and machine.side_call is None:
            machine.delay_seconds = 0.0
            return Cancelled(called=False)
        if not over:
            return None
        machine.delay_seconds = 0.0
        return True if due <= machine.deadline else TimedOut(called=False)

    async def pause(self, machine: Machine, op: PauseOp) -> list[Entry]:
        """The outcome of an approval or a wait, whenever it comes."""
        path, request, since = machine.path, machine.request, machine.reached_ns
        deadline = min(since + op.timeout_ns if op.timeout_ns else FOREVER, machine.deadline)
        try:
            due = None if op.asks else due_at(request, since, self.base_ns)
        except ValueError as error:
            return [Failed(StepError("value", "ExprError", str(error), retryable=False))]
        first = min(deadline, FOREVER if due is None else due)
        entry = {"path": path, "step_id": op.step_id, **request}
        if deadline < FOREVER:
            entry["deadline_ns"] = deadline + self.base_ns
        self.words.ask(entry, op.validate, brief=first < self.now() + int(BRIEF_SECONDS * 1e9))
        over = await self.until(
            lambda: self.cancelled or self.leaving or self.words.came(path), first
        )
        word = self.words.taken(path)
        if word is not None and op.asks:
            return [Decided(word["approved"], word.get("reason"), word["by"])]
        if word is not None:
            return [Arrived(word.get("payload"))]
        if not over and not self.cancelled:
            return []
        self.words.over(path)
        if self.cancelled:
            return [Cancelled(called=False)]
        return [Arrived() if due is not None and due <= deadline else TimedOut()]

    async def resolved(self, machine: Machine) -> list[Entry]:
        """What somebody says became of a call in doubt.

        Raises:
            MadeAgain: If it is to be made again.
        """
        path, request, frame = machine.path, machine.request, machine.frame_name
        self.words.ask({"path": path, "step_id": path.rpartition("/")[2], **request})
        crashed = path in self._crashed
        await workflow.wait_condition(
            lambda: self.leaving or self.words.came(path) or (self.cancelled and not crashed)
        )
        word = self.words.taken(path)
        if word is None and not (self.cancelled and not crashed):
            return []
        if word is None:
            self.words.over(path)
            return [Cancelled()]
        if word.get("retry"):
            length, begun = self._called.get(frame, (0, 0))
            self.tape.cut(frame, length)
            self.tape.of(frame).append((self.now(), Lost((begun,))))
            raise MadeAgain
        if "output" in word:
            return [Value(word["output"])]
        reason = str(word.get("reason") or "declared failed")
        return [Failed(StepError("tool", "Resolved", reason, retryable=False))]

    # --- calls ---

    async def call_tool(self, machine: Machine, op: ToolOp) -> list[Entry]:
        """Call a tool: the outcome, or that the call was lost."""
        facts = self.tool_call(machine, op)
        arguments = facts["arguments"]
        large = [name for name, value in arguments.items() if is_large(value)]
        values = [arguments[name] for name in large]
        if large:
            facts["large"] = large
            arguments.update(dict.fromkeys(large))
        return await self.known(machine, op, facts, values)

    def tool_call(self, machine: Machine, op: ToolOp) -> dict[str, Any]:
        """The message to the activity that calls the tool of *op*."""
        arguments = dict(zip(op.names, machine.request, strict=True))
        place = self.planned.places[id(op)]
        checked = place in self.admission.checked
        return ToolCall(
            op.tool,
            arguments,
            op.effect,
            machine.path,
            op.timeout_ns / 1e9,
            key_of(machine, op),
            op.takes_key,
            machine.side_call,
            self.written(place, machine.side_call, arguments),
            self.planned.digest if checked else "",
            place if checked else -1,
            dict(self.given) if checked else {},
            untrusted=self.untrusted if checked else [],
        ).to_dict()

    def written(self, place: int, side: Use | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """How the program writes the arguments that are containers: an error may say how to write
        them as text.
        """
        large = [name for name, value in arguments.items() if type(value) in CONTAINERS]
        if not large:
            return {}
        call = self.planned.flow.nodes[place].call(side or "step")
        return {name: call.args[name] for name in large}

    async def call_model(self, machine: Machine, op: ModelOp) -> list[Entry]:
        """Call a model: the outcome, or that the call was lost."""
        own_pool = op.model in self.planned.pools
        facts = ModelCall(
            machine.messages,
            op.step_id,
            machine.path,
            op.timeout_ns / 1e9,
            op.model,
            op.options,
            None if op.allowed is None else list(op.allowed),
            op.schema,
            machine.reserves,
            self.planned.flow.program.name,
            self.admission.about.get("project", ""),
            self.planned.digest if own_pool else "",
            untrusted=self.untrusted if own_pool else [],
        ).to_dict()
        return await self.known(machine, op, facts)

    def queue(self, machine: Machine, op: ToolOp | ModelOp) -> str | None:
        """The task queue of a call, where it has one of its own: that of its step, else that of its
        tool or model. Of an undo or a reconcile, which may be elsewhere, that of its tool first.
        """
        place = self.planned.places[id(op)]
        of_step = getattr(self.planned.flow.nodes[place].step, "queue", None)
        of_call = self.admission.queues.get(target_of(op) or "")
        return (of_call or of_step) if machine.side_call else (of_step or of_call)

    async def known(
        self,
        machine: Machine,
        op: ToolOp | ModelOp,
        facts: dict[str, Any],
        values: Iterable[Any] = (),
    ) -> list[Any]:
        """As `call`; again with the program, where the worker does not know it. That it was sent
        and is unknown still is an answer of an older worker, which cannot run it.
        """
        entries = await self.call(machine, op, facts, values)
        if entries == [UNKNOWN_PROGRAM]:
            facts["document"] = self.planned.flow.document()
            entries = await self.call(machine, op, facts, values)
        if entries == [UNKNOWN_PROGRAM]:
            told = "the worker that took the call cannot run its program"
            fault = StepError("refused", "ProgramRefused", told, retryable=False)
            return [unmade(fault, kind_of(op))]
        return entries

    async def call(
        self,
        machine: Machine,
        op: ToolOp | ModelOp,
        facts: dict[str, Any],
        values: Iterable[Any] = (),
    ) -> list[Any]:
        """Make a call as an activity; *values* are sent by themselves."""
        queue = self.queue(machine, op)
        local = queue is None and is_local(op)
        most = self.admission.payload_bytes
        size = 0 if local else excess([facts, *values], most)
        if size:  # the server would have the task tried for ever
            told, kind = too_large("what the call is given", size, most), kind_of(op)
            return [unmade(StepError(kind, TOO_LARGE, told, retryable=False), kind)]
        tape, begun = self.tape.of(machine.frame_name), self.now()
        self._called[machine.frame_name] = len(tape), begun
        self.calls.made += 1
        activity, grace = (
            (CALL_TOOL, GRACE_SECONDS) if isinstance(op, ToolOp) else (CALL_MODEL, LOAD_SECONDS)
        )
        common: dict[str, Any] = {
            "args": [facts, *values],
            "start_to_close_timeout": (
                timedelta(seconds=op.timeout_ns / 1e9 + grace) if op.timeout_ns else LONGEST_CALL
            ),
            "retry_policy": ONCE,
            "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            "activity_id": f"{machine.path}!{len(tape)}.{self.calls.made}",
            "summary": target_of(op),
        }
        if machine.deadline < FOREVER and machine.side_call is None:
            left = max((machine.deadline - begun) // 1000, 1)
            common["schedule_to_close_timeout"] = timedelta(microseconds=left)
        patience = self.admission.queue_seconds
        if queue is not None and (begun + patience * 1e9 < machine.deadline or machine.side_call):
            common["schedule_to_start_timeout"] = timedelta(seconds=patience)
        handle: ActivityHandle[Any]
        if local:
            handle = workflow.start_local_activity(activity, **common)
        else:
            handle = workflow.start_activity(
                activity,
                task_queue=queue,
                heartbeat_timeout=timedelta(seconds=HEARTBEAT_SECONDS),
                **common,
            )
        self.calls.under_way[handle] = machine
        try:
            outcome = await handle
        except ActivityError as error:
            return self.failed(machine, op, error, begun)
        finally:
            del self.calls.under_way[handle]
        return [outcome]

    def failed(
        self, machine: Machine, op: ToolOp | ModelOp, error: ActivityError, begun: int
    ) -> list[Entry]:
        """The entries of a call that ended with a failure of Temporal's own."""
        unsafe = isinstance(op, ToolOp) and op.unsafe
        kind = kind_of(op)
        # the server shortens that limit to the run's own deadline
        if is_untaken(error) and (machine.side_call or self.now() < machine.deadline):
            queue = self.queue(machine, op)
            told = (
                f"no worker has taken the call from task queue {queue!r} within "
                f"{self.admission.queue_seconds:g} s; start one: nano-vm work --queue {queue}"
            )
            return [unmade(StepError(kind, "NoWorker", told, retryable=False), kind)]
        if not is_lost(error) and not is_not_made(error):
            return [outcome_of_failure(error, unsafe=unsafe, kind=kind)]
        if self.cancelled and machine.side_call != "undo":
            return [Cancelled(called=True)]
        began = begun + self.base_ns
        if unsafe and not is_not_made(error):
            return [Lost((began,), settled=True), Unknown(LOST)]
        tape = self.tape.of(machine.frame_name)
        if sum(isinstance(entry, Lost) for _, entry in tape[-MAX_LOST:]) >= MAX_LOST:
            told = f"it was lost or could not be begun {MAX_LOST} times in a row"
            return [Failed(StepError(kind, "LostCall", told, retryable=False))]
        return [Lost((began,))]

    def stop(self) -> None:
        """Cancel the run: what can be cut off is, and what was done is undone."""
        self.cancelled = True
        for handle, machine in list(self.calls.under_way.items()):
            if machine.side_call != "undo":
                handle.cancel()
