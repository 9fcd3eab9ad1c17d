"""The asyncio driver: takes requests from a `Machine`, calls tools and models, hands the outcomes
back.

What an outcome means is the machine's matter; here are tasks, threads, deadlines and cancellation.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from ..adapters.contract import Adapter, answer_parts, completed, plain_answer
from ..adapters.protocol import Completion
from ..errors import LeaseLost, ModelError, StoreError
from ..language.answers import Spoken, ending
from ..machine.faults import consumed, effect_key, model_error, route_of, tool_error
from ..machine.forks import Light
from ..machine.machine import Machine
from ..machine.outcome import Answer, Cancelled, Failed, Joined, Suspended, TimedOut, Value
from ..machine.plan import (
    ASKED,
    AWAITED,
    DOUBT,
    END,
    FOREVER,
    FORK,
    INLINE,
    MODEL,
    PAUSE,
    TOOL,
    ForkOp,
    ModelOp,
    Op,
    ToolOp,
)
from ..records.record import full
from ..records.recording import Recording
from ..records.usage import LLMUsage
from ..values import CONTAINERS, SCALARS, error_named, kind_name
from .host import Host
from .kept import Kept, known_answer
from .observers import Notifier
from .shared import Shared
from .watchdog import Lane, watchdog

logger = logging.getLogger("nano_vm")


PLAIN = SCALARS | CONTAINERS
"""Types of values that nobody has to await."""


_STRAIGHT: tuple[int, ...] = (AWAITED, INLINE, ASKED)
_APART: tuple[int, ...] = (AWAITED, INLINE)
"""What a call may be to be made at once: in a plain run, and in one where something comes before a
call of a model.
"""


_WAITS = nullcontext(True)
"""Around a wait that nothing but its own run can cut off."""


class Abandoned(BaseException):
    """The run is no longer this process's to drive. Not an `Exception`: no handler of a tool's
    failure may take it.
    """

    def __init__(self, cause: StoreError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Journal(Protocol):
    """What makes a run durable: it sees every request before it is made."""

    async def before(self, machine: Machine, op: Op, now: int) -> Op | None:
        """The request that follows, where the outcome of *op* is known already; None where it is to
        be made.
        """
        ...

    def rest(self, machine: Machine) -> AbstractContextManager[bool]:
        """Entered for the wait before another attempt, which may be cut off: whether to wait."""
        ...

    async def reconciled(self, machine: Machine) -> None:
        """Asked when a `reconcile` tool has returned: raises `ToolError` where that does not count."""
        ...

    def check(self) -> None:
        """Asked immediately before a call: raises `Abandoned` where it may not be made."""
        ...

    def outlived(self, machine: Machine, op: ToolOp, call: Future[Any]) -> None:
        """Takes note of a *call* that nobody waits for any more, and that a thread is still making."""
        ...

    def child(self, machine: Machine, number: int) -> Machine:
        """The machine of one child of the requested fork."""
        ...

    def replayed(self, machine: Machine, number: int, path: str) -> bool:
        """Whether record *number* of *machine*, of the step at *path*, is taken from a record."""
        ...

    @property
    def leaving(self) -> bool:
        """Whether a cancellation means that this process stops, and not the run."""
        ...


class Driver:
    """Runs machines in one event loop."""

    __slots__ = (
        "clock",
        "dog",
        "functions",
        "host",
        "journal",
        "kept",
        "notifier",
        "now",
        "shared",
    )

    def __init__(
        self,
        host: Host,
        notifier: Notifier | None = None,
        journal: Journal | None = None,
        shared: Shared | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.host, self.functions = host, host.functions
        self.journal, self.shared, self.kept = journal, shared, kept
        self.clock = host.clock
        self.now: Callable[[], int] = host.clock.monotonic_ns
        self.dog = watchdog(asyncio.get_running_loop(), self.now)
        self.notifier = notifier

    @classmethod
    def of(cls, host: Host) -> Driver:
        """The driver without a notifier: it knows nothing of any run, so all runs in one event loop
        share it.
        """
        driver = host.driver
        if driver is None or driver.dog.loop() is not asyncio.get_running_loop():
            driver = host.driver = cls(host)
        return driver

    def lane(self, machine: Machine | None, now: int) -> Lane:
        """A lane of the current task; it is watched until it is taken out of ``dog.lanes``."""
        shortest = self.host.shortest
        dog = self.dog
        # told its loop, `current_task` does not ask the system for the process's id
        lane = Lane(asyncio.current_task(dog.loop()), machine, shortest)  # type: ignore[arg-type]
        dog.lanes[lane] = None
        if now + shortest < dog.wake_at:
            dog.arm(now + shortest)
        if machine is not None and machine.base_deadline < dog.wake_at:
            dog.arm(machine.base_deadline)
        return lane

    def left(self, machine: Machine, lane: Lane, recording: Recording) -> None:
        """Watch *lane* no longer, and say in *recording* how *machine* stands."""
        self.dog.lanes.pop(lane, None)
        machine.fill(recording)
        recording.finished_ns = self.now()

    async def drive(self, machine: Machine, lane: Lane, now: int, begun: Op | None = None) -> bool:
        """Drive *machine* to its end, from its request *begun* if any; whether others cancelled it."""
        read, notifier, journal, shared = self.now, self.notifier, self.journal, self.shared
        seen_to = notifier is not None or journal is not None  # between two calls
        apart = seen_to or shared is not None or self.host.asleep  # before a model call
        ways = _APART if apart else _STRAIGHT
        again = -1 if seen_to else AWAITED  # the way that is gone on with at once
        seen = 0
        lane.machine = machine
        task, asking, functions = lane.task, self.host.asking, self.functions
        # an adapter that is given a call's key has to have its path
        machine.watched = apart or self.host.keyed
        op: Any = machine.start(now) if begun is None else begun
        while True:
            if notifier is not None:
                seen = self.tell(notifier, machine, op, seen)
            if shared is not None:
                shared.settle(machine)
            called = False
            try:
                if machine.delay_seconds:
                    await self.wait(machine, lane)
                if journal is not None:
                    lane.op, lane.until = None, FOREVER
                    following = await journal.before(machine, op, read())
                    if following is not None:
                        op = following
                        continue
                if notifier is not None and notifier.begins and self.begins(machine, op):
                    notifier.step_started(machine, op)
                way = op.straight
                if way in ways and (way != ASKED or machine.handed is not None):
                    if journal is not None:
                        journal.check()  # it may have stood still since the intent was stored
                    called = True
                    steps, before = machine.steps, lane.before
                    # from tool to tool: all that a step costs here stands in these lines
                    while True:
                        lane.op = op
                        if way == AWAITED:
                            value = await functions[op.number](*machine.given)
                        elif way == ASKED:
                            complete, keywords = asking.get(op.index) or self.asking(machine, op)
                            value = complete(machine.handed, **keywords)
                            if type(value) is not str and inspect.isawaitable(value):
                                value = await value
                            machine.now = read()
                            if (
                                type(value) is str
                                and not lane.expired
                                and task.cancelling() <= before
                            ):
                                op = steps.send(value)
                            else:
                                op = self.answered(machine, op, lane, value)
                            way = op.straight
                            if not way or (way == ASKED and machine.handed is None):
                                break
                            continue
                        else:
                            value = functions[op.number](*machine.given)
                            if type(value) not in PLAIN and inspect.isawaitable(value):
                                value = await value
                        machine.now = read()
                        if lane.expired or task.cancelling() > before:
                            op = self.stopped(machine, lane, value)
                            break
                        op = steps.send(value)
                        way = op.straight
                        if way != again and (
                            seen_to or way not in ways or (way == ASKED and machine.handed is None)
                        ):
                            break
                    continue
                lane.op = None
                code = op.code
                if code == END:
                    return lane.stopped
                if code == TOOL:
                    called = True
                    value = await self.call(machine, op, lane)
                    machine.now = read()
                    if lane.expired or task.cancelling() > lane.before:
                        op = self.stopped(machine, lane, value)
                    else:
                        op = machine.steps.send(value)
                    value = None
                elif code == FORK:
                    lane.until = FOREVER
                    await self.fork(machine, op, lane)
                    lane.machine, lane.op = machine, None
                    op = machine.resume(Cancelled() if lane.stopped else Joined(), read())
                elif code == MODEL:
                    called = True
                    op = await self.ask(machine, op, lane)
                else:
                    assert code in (PAUSE, DOUBT)
                    op = machine.resume(Suspended(), read())
            except BaseException as error:  # noqa: BLE001 - whatever a tool raises is its outcome
                op = self.raised(machine, lane, op, error, called)

    def raised(
        self, machine: Machine, lane: Lane, op: Any, error: BaseException, called: bool
    ) -> Op:
        """The request after one whose call raised *error*, which is raised again where it is no
        outcome: a fault of ours, a run that is left to others, or the end of the process.
        """
        journal, now = self.journal, self.now()
        if isinstance(error, StopIteration):  # as Python says it of a coroutine function
            ended, error = error, RuntimeError("coroutine raised StopIteration")
            error.__cause__ = ended
        if isinstance(error, asyncio.CancelledError):
            if isinstance(error, _NotCalled):
                called = False
            machine.delay_seconds = 0.0
            expired = lane.forgive()
            if self.leaving:
                raise _left() from None
            if lane.cancelled():
                return machine.resume(Cancelled(called=called), now)
            if expired:
                return machine.resume(TimedOut(called=called, extra=route_of(error)), now)
            # not ours: the tool itself was cancelled somewhere inside
            inner = TimeoutError("the tool's own call was cancelled")
            fault = tool_error(op, inner) if op.code == TOOL else model_error(error)
            return machine.resume(Failed(fault), now)
        if isinstance(error, Abandoned):
            raise error
        # nothing more can be awaited; and an exit that no call raised is that of an observer
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and not called):
            if not machine.broken:
                machine.resume(Cancelled(called=called), now)
            raise error
        closing = isinstance(error, GeneratorExit) and _current_task() is not lane.task
        if (
            machine.broken
            or closing
            or op.code not in (TOOL, MODEL)
            or (journal is not None and not called)
        ):
            raise error  # a fault of ours, or this coroutine is being closed
        machine.now, machine.raised = now, error
        logger.debug("step %r raised", op.step_id, exc_info=error)
        if lane.expired:
            return self.stopped(machine, lane, None)
        if self.leaving and lane.task.cancelling() > lane.before:
            raise _left() from None
        if lane.cancelled():  # it answered its cancellation with an error
            return machine.resume(Cancelled(called=True), now)
        if op.code == MODEL:
            failed = Failed(model_error(error), consumed(error), extra=route_of(error))
            return machine.resume(failed, now)
        return machine.resume(Failed(tool_error(op, error)), now)

    async def wait(self, machine: Machine, lane: Lane) -> None:
        """The wait before another attempt."""
        lane.op, lane.until = None, machine.deadline
        self.dog.arm(lane.until)
        seconds, machine.delay_seconds = machine.delay_seconds, 0.0
        with self.journal.rest(machine) if self.journal is not None else _WAITS as waits:
            if waits:
                await self.clock.sleep(seconds)
        machine.now = self.now()

    def stopped(
        self, machine: Machine, lane: Lane, value: Any, usage: LLMUsage | None = None
    ) -> Op:
        """A call that answered its cancellation with a value: after its deadline it is late all the
        same; if the run was cancelled, the outcome is taken, and the run stops there.
        """
        if lane.forgive():
            op = machine.resume(TimedOut(usage=usage), machine.now)
        else:
            op = machine.resume(Value(value), machine.now)
        if self.cancelled(lane):
            machine.delay_seconds = 0.0
            op = machine.resume(Cancelled(called=False), machine.now)
        return op

    @property
    def leaving(self) -> bool:
        """Whether a cancellation means that this process stops, and not the run."""
        return self.journal is not None and self.journal.leaving

    def cancelled(self, lane: Lane) -> bool:
        """Whether the run was cancelled since. Where this process stops, what a call answered is
        taken, and the run goes on elsewhere.
        """
        return not self.leaving and lane.cancelled()

    def tell(self, notifier: Notifier, machine: Machine, op: Op, seen: int) -> int:
        """Tell what was recorded since *seen* records, and that an attempt failed; the number of
        records now.
        """
        journal, count = self.journal, len(machine.records)
        for number in range(seen, count):
            record = full(machine.records[number], notifier.recording.ops)
            replayed = journal is not None and journal.replayed(machine, number, record.path)
            notifier.step_recorded(record, replayed=replayed)
        attempt = machine.failed_attempt if op.code in (TOOL, MODEL) else None
        if attempt is not None:
            replayed = journal is not None and journal.replayed(machine, count, machine.path)
            notifier.attempt_failed(machine, op, attempt, replayed=replayed)
        return count

    def begins(self, machine: Machine, op: Op) -> bool:
        """Whether a step begins with the request that is met now."""
        if op.code == FORK:  # its children are asked for again where their outcomes are recorded
            number = len(machine.records)
            return self.journal is None or not self.journal.replayed(machine, number, machine.path)
        return op.code in (TOOL, MODEL) and not machine.retrying

    # --- tools ---

    async def call(self, machine: Machine, op: ToolOp, lane: Lane) -> Any:
        """A tool that takes more than one await of a coroutine function."""
        kept = self.kept
        if kept is None or op.kept_ns is None:
            return await self.called(machine, op, lane)
        machine.cached = False
        key = kept.of_tool(machine, op)
        found = await self.known(kept, key, machine, op, lane)
        if found is not None:
            machine.cached = True
            return found["value"]
        try:
            value = await self.called(machine, op, lane)
            kept.keep_value(key, op.kept_ns, value)
        finally:
            kept.landed(key)
        return value

    async def called(self, machine: Machine, op: ToolOp, lane: Lane) -> Any:
        """What a tool gives that is called."""
        lane.op = op
        if self.journal is not None:
            self.journal.check()  # as in `drive`
        if self.host.how[op.number] != "thread":
            value = self.functions[op.number](*machine.given)
        else:
            value = await self.threaded(machine, op, lane)
        if inspect.isawaitable(value):
            value = await value
        if self.journal is not None and machine.side_call == "reconcile":
            lane.op, lane.until = None, FOREVER
            await self.journal.reconciled(machine)
        return value

    async def known(
        self, kept: Kept, key: str, machine: Machine, op: ToolOp | ModelOp, lane: Lane
    ) -> Any:
        """What is kept under *key*; None where the call is to be made."""
        assert op.kept_ns is not None
        lane.op, lane.until = None, machine.deadline
        self.dog.arm(lane.until)
        try:
            found = await kept.find(key, op.kept_ns)
        except asyncio.CancelledError:
            raise _NotCalled from None
        machine.now = self.now()
        return found

    async def threaded(self, machine: Machine, op: ToolOp, lane: Lane) -> Any:
        """A sync tool, in a thread of the pool; its deadline starts when a thread takes it."""
        loop = asyncio.get_running_loop()
        function, given = self.functions[op.number], machine.given
        context = contextvars.copy_context()
        lane.op, lane.until = None, machine.deadline  # while it waits for a thread
        started = False

        def begin() -> None:
            nonlocal started
            started = True
            machine.now = self.now()
            lane.op = op

        def work() -> Any:
            try:
                loop.call_soon_threadsafe(begin)
            except RuntimeError:  # the loop was closed while this waited
                raise asyncio.CancelledError from None
            try:
                if self.journal is not None:  # it may have waited long for this thread
                    self.journal.check()
                return context.run(function, *given)
            except (StopIteration, GeneratorExit) as error:  # a future cannot carry them
                raise RuntimeError(f"the tool raised {error_named(error)}") from error

        future = self.host.threads.submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.cancelled() and not started:
                raise _NotCalled from None
            if self.journal is not None and not future.done():
                self.journal.outlived(machine, op, future)
            raise

    # --- models ---

    async def ask(self, machine: Machine, op: ModelOp, lane: Lane) -> Op:
        """One model call, and the machine's request after it."""
        kept = self.kept
        if kept is None or op.kept_ns is None:
            answer = await self.asked(machine, op, lane)
        else:
            answer = await self.asked_once(kept, machine, op, lane)
        machine.now = self.now()
        if type(answer) is Failed:
            return machine.resume(answer, machine.now)
        return self.answered(machine, op, lane, answer)

    async def asked_once(self, kept: Kept, machine: Machine, op: ModelOp, lane: Lane) -> Any:
        """What was answered before, or is now; as `asked`."""
        assert op.kept_ns is not None
        machine.handed = None
        key = kept.of_model(self.adapter(op), machine, op)
        found = await self.known(kept, key, machine, op, lane)
        if found is not None:
            return known_answer(found)
        try:
            answer = await self.asked(machine, op, lane)
            if type(answer) is not Failed:
                answer = completed(answer)
                kept.keep_answer(key, op.kept_ns, op, answer)
        finally:
            kept.landed(key)
        return answer

    async def asked(self, machine: Machine, op: ModelOp, lane: Lane) -> Any:
        """What a model answers that is asked, as its adapter returns it; or the outcome, where it
        may not be asked.
        """
        adapter = self.adapter(op)
        if self.shared is not None or adapter.ready is not None:
            refused = await self.before_call(adapter, machine, op, lane)
            if refused is not None:
                return refused
        if self.host.asleep:
            self.host.look()
        lane.op = op
        keywords = self.options(adapter, machine, op)
        messages = adapter.fitting(machine.messages)
        if self.journal is not None:
            try:
                self.journal.check()
            except Abandoned:
                if self.shared is not None:
                    self.shared.release(machine)
                raise
        notifier = self.notifier
        if notifier is not None and notifier.text and adapter.stream is not None:
            return await self.streamed(notifier, adapter, machine, op, messages, keywords)
        answer = adapter.complete(messages, **keywords)
        return await answer if inspect.isawaitable(answer) else answer

    async def before_call(
        self, adapter: Adapter, machine: Machine, op: ModelOp, lane: Lane
    ) -> Failed | None:
        """What comes before the time of a call begins: its adapter's first call, and a reservation
        in the budgets that runs share; the outcome where these do not cover it.
        """
        machine.handed = None  # its outcome is to be settled
        lane.op, lane.until = None, machine.deadline
        self.dog.arm(lane.until)
        refused = None
        try:
            await adapter.wake()
            if self.shared is not None:
                refused = await self.shared.reserve(machine, op)
        except asyncio.CancelledError:
            raise _NotCalled from None
        except StoreError as error:
            raise Abandoned(error) from None
        machine.now = self.now()
        return refused

    def asking(self, machine: Machine, op: ModelOp) -> tuple[Callable[..., Any], dict[str, Any]]:
        """What is called for *op*, and with what beside the messages, where no budget counts."""
        adapter = self.adapter(op)
        found = adapter.complete, self.options(adapter, machine, op)
        if not self.host.keyed:
            self.host.asking[op.index] = found
        return found

    def answered(self, machine: Machine, op: ModelOp, lane: Lane, answer: Any) -> Op:
        """The request after a model call that gave *answer*, as its adapter returns it."""
        now = machine.now
        text, usage, told = plain_answer(answer) or answer_parts(completed(answer))
        if lane.expired:
            return self.stopped(machine, lane, None, usage)
        if machine.handed is not None:
            following = machine.steps.send((text, usage, told))
        else:
            following = machine.resume(Answer(text, usage, told), now)
        return machine.resume(Cancelled(called=False), now) if self.cancelled(lane) else following

    def adapter(self, op: ModelOp) -> Adapter:
        """The one that has the model of *op*."""
        return self.host.adapters.get(op.model) or self.host.adapters[None]

    async def streamed(
        self,
        notifier: Notifier,
        adapter: Adapter,
        machine: Machine,
        op: ModelOp,
        messages: list[dict[str, Any]],
        keywords: dict[str, Any],
    ) -> Any:
        assert adapter.stream is not None
        pieces: list[str] = []
        spoken = Spoken()
        last: Completion | None = None
        stream = adapter.stream(messages, **keywords)
        try:
            async for piece in stream:
                if isinstance(piece, str):
                    pieces.append(piece)
                    if text := spoken.piece(piece):
                        notifier.said(machine, op, text)
                elif isinstance(piece, Completion):
                    last = piece
                else:
                    raise ModelError(
                        f"the adapter's stream gave {kind_name(piece)}; it yields strings and one "
                        f"Completion",
                        retryable=False,
                        answered=True,
                    )
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
        cut = last is not None and ending(last.finish_reason) == "truncated"
        if text := spoken.rest(cut=cut):
            notifier.said(machine, op, text)
        return last if last is not None else "".join(pieces)

    def options(self, adapter: Adapter, machine: Machine, op: ModelOp) -> dict[str, Any]:
        """The keywords of ``complete``."""
        key = effect_key(machine.run_id, machine.path) if self.host.keyed else ""
        bounded = machine.reserves or machine.meter is not None
        return adapter.keywords(op, key, named=op.model in self.host.adapters, bounded=bounded)

    # --- forks ---

    def child(self, machine: Machine, number: int) -> Machine:
        """One child of the requested fork."""
        return (
            machine.child(number) if self.journal is None else self.journal.child(machine, number)
        )

    def begun(self, child: Machine) -> int:
        """When *child* begins: now, unless it began in another process."""
        return self.now() if child.begun_ns is None else child.begun_ns

    async def call_lightly(self, machine: Machine, number: int, child: Light, lane: Lane) -> bool:
        """Run a child that is one call; where it does not end well at once, it has a machine that
        is given what came of the call, and goes on from there. As `drive`.
        """
        op = child.op
        started = child.now = self.now()
        lane.machine, lane.op = child, op
        value: Any = None
        raised: BaseException | None = None
        try:
            value = self.functions[op.number](*child.given)
            if op.straight == AWAITED or (type(value) not in PLAIN and inspect.isawaitable(value)):
                value = await value
            child.now = self.now()
            good = not lane.expired and lane.task.cancelling() <= lane.before
            if good and machine.fork.lit(number, child, started, value):
                return False
        except BaseException as error:  # noqa: BLE001 - as in `drive`
            raised = error
        full = self.child(machine, number)
        lane.machine, full.watched = full, False
        request = full.start(started)
        full.now = child.now
        if raised is None:
            following = self.stopped(full, lane, value)
        else:
            following = self.raised(full, lane, request, raised, called=True)
            raised = None  # it holds this frame
        return await self.drive(full, lane, started, following)

    async def fork(self, machine: Machine, op: ForkOp, lane: Lane) -> None:
        """Run the children to their ends; if the run is cancelled meanwhile, each of them is, and
        no further one begins.

        One worker begins, and the others when it has to wait for the first time, or has ended and
        left some: children that need no wait cost no task.
        """
        count, lanes = machine.fork.size, machine.fork.lanes
        limit = op.at_once(count)
        if limit <= 1:
            for number in range(count):
                if not machine.fork.ready(number):
                    return
                child = self.child(machine, number)
                if await self.drive(child, lane, self.begun(child)):
                    return
            return
        numbers = iter(range(count))

        async def worker(numbers: Iterable[int]) -> None:
            own = self.lane(None, self.now())
            try:
                for number in numbers:
                    if not machine.fork.ready(number):
                        return
                    light = machine.fork.light(number)
                    if light is not None:
                        stopped = await self.call_lightly(machine, number, light, own)
                    else:
                        child = self.child(machine, number)
                        stopped = await self.drive(child, own, self.begun(child))
                    if stopped or lane.stopped:
                        return
            finally:
                self.dog.lanes.pop(own, None)

        work = [range(lane, count, lanes) if lanes < count else numbers for lane in range(limit)]
        tasks: list[asyncio.Task[None]] = []
        context = contextvars.copy_context()  # what the first of them sets is not the others'

        def begin_others() -> None:
            if len(tasks) == 1 and not lane.stopped:
                tasks.extend(
                    asyncio.create_task(worker(part), context=context.copy()) for part in work[1:]
                )

        tasks.append(asyncio.create_task(_Until(worker(work[0]), begin_others).run()))
        while pending := [task for task in tasks if not task.done()]:
            try:
                await asyncio.wait(pending)
                if lanes < count:
                    begin_others()
            except asyncio.CancelledError:
                self.cancelled(lane)
                for task in tasks:  # more of them may have begun meanwhile
                    task.cancel()
        # one that was cancelled before its first step has none: its child never began
        errors = [task.exception() for task in tasks if not task.cancelled()]
        for error in errors:
            if error is not None:
                raise error


class _Until:
    """Runs a coroutine as if it were awaited, and calls *waits* when it first has to wait."""

    __slots__ = ("coroutine", "waits")

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits: Callable[[], None]) -> None:
        self.coroutine = coroutine
        self.waits = waits

    async def run(self) -> None:
        """To the end of the coroutine."""
        await self

    def __await__(self) -> Generator[Any, Any, None]:
        coroutine = self.coroutine
        try:
            wanted = coroutine.send(None)
        except StopIteration:
            return
        self.waits()
        while True:
            try:
                try:
                    sent = yield wanted
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - the coroutine's, whatever it is
                    wanted = coroutine.throw(error)
                else:
                    wanted = coroutine.send(sent)
            except StopIteration:
                return


def _left() -> Abandoned:
    return Abandoned(LeaseLost("the run is left to others"))


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class _NotCalled(asyncio.CancelledError):
    """Cancelled before the tool was called."""
