"""The activities: a worker's verdict on a program, calls of its tools and models.

Each call has an outcome, which the activity returns: the exception of a tool is looked at here,
where it is. Only that a worker dies or stops is left to Temporal to say.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, cast

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ..adapters.contract import Adapter, answer_parts, completed, plain_answer
from ..diagnostics import summary
from ..errors import StepFault, StoreError, VMError
from ..language.program import Program
from ..machine.arguments import order
from ..machine.faults import NOTHING_USED, consumed, effect_key, model_error, route_of, tool_error
from ..machine.outcome import (
    Answer,
    BadResult,
    Cancelled,
    Failed,
    NotCalled,
    Outcome,
    TimedOut,
    Value,
)
from ..machine.plan import Calling, ModelOp, Plan
from ..records.record import StepError
from ..run.counting import Counted, Counting
from ..run.prepare import Prepared
from ..run.shared import Whose
from ..run.vm import ExecutionVM
from ..store.protocol import Archive
from ..store.records import DEFAULT_PROJECT
from ..tools.contract import IDEMPOTENCY_KEY, Parameter, ToolContract, checked
from ..values import admit, canonical, error_named
from .conversion import excess, most_bytes
from .failures import TOO_LARGE, too_large
from .keeping import keep
from .life import Beginning, Life, Made, NotMade, alive, cancel_requested, made
from .plans import PLANS, calls_of, facts_of
from .terms import (
    ADMIT,
    ADMIT_SECONDS,
    CALL_MODEL,
    CALL_TOOL,
    FAULT,
    KEEP,
    QUEUE_SECONDS,
    UNKNOWN_PROGRAM,
    Admission,
    ModelCall,
    Start,
    ToolCall,
)

logger = logging.getLogger("nano_vm")

KEPT_PROGRAMS = 256
"""Programs whose `Program` is kept, so that what the host knows of each is found again."""


@dataclass(slots=True)
class Known:
    """A program that a run of this worker has, and the host that has those that it calls."""

    program: Program
    vm: ExecutionVM


class Unprepared(Exception):
    """This worker cannot run the program of a call, by its own tools, models and policy."""


def distrusted(untrusted: Iterable[str]) -> tuple[str, ...]:
    """The inputs that a run calls untrusted, in the one order by which its plan is kept."""
    return tuple(sorted(set(untrusted)))


@dataclass(slots=True)
class Activities:
    """The activities of one worker, whose tools, models and policy are those of *vm*. *queues* are
    the task queues of tools and models that run on other workers, by name, before what these say
    of themselves; *queue_seconds* is how long a call waits there for a worker.
    """

    vm: ExecutionVM
    queues: Mapping[str, str] = field(default_factory=dict)
    queue_seconds: float = QUEUE_SECONDS
    _known: OrderedDict[bytes, Known] = field(default_factory=OrderedDict, init=False)
    # by the digest of a program and the inputs that a run calls untrusted: its checks depend on both
    _prepared: dict[tuple[str, tuple[str, ...]], Prepared] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)  # the host's own knowledge of programs
    _counting: Counting = field(init=False)

    def __post_init__(self) -> None:
        self._counting = self.vm.counting
        self._counting.require()

    def all(self) -> list[Callable[..., Any]]:
        """Each of them, as a worker takes them."""
        return [self.admit, self.call_tool, self.call_model, self.keep]

    # --- admission ---

    @activity.defn(name=ADMIT)
    async def admit(self, told: dict[str, Any]) -> dict[str, Any]:
        """Whether a program may run on these inputs, by this worker's tools, models and policy."""
        async with alive():
            run_id = activity.info().workflow_id
            most = most_bytes(activity.client().data_converter)
            try:
                admission = await asyncio.to_thread(self.verdict, told, run_id, most)
            except VMError as error:
                raise ApplicationError(str(error), type=FAULT, non_retryable=True) from error
            size = excess([admission], most)
            if size:  # the server would have the task of the run tried for ever
                why = too_large("the program, with those that it calls,", size, most)
                raise ApplicationError(why, type=TOO_LARGE, non_retryable=True)
            return admission

    def verdict(self, told: Mapping[str, Any], run_id: str | None, most: int = 0) -> dict[str, Any]:
        """As `admit`: the JSON form of an `Admission`; payloads have *most* bytes."""
        start = Start.of(told)
        with self._lock:
            known = self.known({"program": start.program, "programs": start.programs})
            vm = known.vm
            begun = vm.begin(
                known.program,
                start.inputs,
                run_id=run_id,
                seed=start.seed,
                budget=start.budget,
                untrusted=start.untrusted,
                **start.said,
            )
            recording = begun.trace.recording
            digest = recording.program_digest
            if begun.machine is None:
                refused = begun.trace.to_dict()
                return Admission(digest, [], {}, refused=refused).to_dict()
            untrusted = distrusted(start.untrusted)
            prepared = vm.preparer.prepare(known.program, untrusted)
            self.remember(digest, prepared)
        plan, host = prepared.plan, prepared.host
        assert plan is not None
        assert host is not None
        contracts = vm.tools
        facts = {name: facts_of(contracts[name]) for name in sorted(plan.tools)}
        programs = prepared.document()["programs"]
        PLANS.of(start.program, programs, facts, seconds=ADMIT_SECONDS)
        return Admission(
            digest,
            list(recording.inputs),
            recording.about,
            programs,
            facts,
            [op.index for op in plan.ops if any(call.checks for call in calls_of(op))],
            list(plan.given),
            self.queues_of(plan, host.adapters),
            self.queue_seconds,
            hasattr(self.vm.store, "import_"),
            most,
        ).to_dict()

    def queues_of(self, plan: Plan, adapters: Mapping[str | None, Adapter]) -> dict[str, str]:
        """The task queues of what a plan calls, by name; the default model has the empty one."""
        told: dict[str, str | None] = {}
        for name in sorted(plan.tools):
            told[name] = self.queues.get(name) or self.vm.preparer.contracts[name].options.queue
        for model in plan.models:
            adapter = adapters.get(model) or adapters.get(None)
            own = adapter.queue if adapter is not None else None
            told[model or ""] = self.queues.get(model or "") or own
        return {name: queue for name, queue in told.items() if queue is not None}

    def known(self, document: Mapping[str, Any]) -> Known:
        """The program of a document, made once."""
        key = canonical([document["program"], document["programs"]])
        known = self._known.get(key)
        if known is None:
            programs = {
                name: Program.from_dict(other) for name, other in document["programs"].items()
            }
            vm = self.vm.with_(programs=programs) if programs else self.vm
            known = self._known[key] = Known(Program.from_dict(document["program"]), vm)
            if len(self._known) > KEPT_PROGRAMS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return known

    def remember(self, digest: str, prepared: Prepared) -> None:
        """Keep a program as this worker runs it, for the calls of its runs."""
        key = digest, prepared.untrusted
        self._prepared.pop(key, None)
        self._prepared[key] = prepared
        if len(self._prepared) > KEPT_PROGRAMS:
            del self._prepared[next(iter(self._prepared))]

    async def prepared(self, call: ToolCall | ModelCall) -> Prepared | None:
        """The program of *call* as this worker runs it; None where it does not know it. Where it
        does, it waits for no proof of another.

        Raises:
            Unprepared: If it cannot run it.
        """
        if call.document is not None:
            return await asyncio.to_thread(self.learn, call, call.document)
        return self._prepared.get((call.program, distrusted(call.untrusted)))

    def learn(self, call: ToolCall | ModelCall, document: Mapping[str, Any]) -> Prepared:
        """The program of *call*, which is sent along. Called in a thread: it takes the time of a
        plan, and waits where another program is proved.

        Raises:
            Unprepared: If this worker cannot run it.
        """
        with self._lock:
            try:
                known = self.known(document)
                untrusted = distrusted(call.untrusted)
                prepared = known.vm.preparer.prepare(known.program, untrusted)
            except VMError as error:
                raise Unprepared(str(error)) from error
            if prepared.plan is None:
                raise Unprepared(summary(prepared.errors))
            self.remember(call.program, prepared)
            return prepared

    # --- tools ---

    @activity.defn(name=CALL_TOOL)
    async def call_tool(self, told: dict[str, Any], *large: Any) -> Any:
        """Call a tool: the outcome."""
        call = ToolCall.of(told)
        call.arguments.update(zip(call.large, large, strict=True))
        contract = self.vm.preparer.contracts.get(call.tool)
        if contract is None:
            return _refused("NoTool", f"no worker that took the call has a tool {call.tool!r}")
        if (contract.effect, contract.takes_key) != (call.effect, call.takes_key):
            return _refused(
                "ContractChanged",
                f"the run was admitted with tool {call.tool!r} as {call.effect!r}, and this worker "
                f"has it as {contract.effect!r}",
            )
        async with alive() as life:
            try:
                given = converted(contract, call)
                if call.program:
                    prepared = await self.prepared(call)
                    if prepared is None:
                        return UNKNOWN_PROGRAM
                    hold(prepared, call, given)
            except Unprepared as error:
                return NotCalled(unprepared(error))
            except StepFault as error:
                return NotCalled(StepError.of(error))
            except asyncio.CancelledError:
                if not cancel_requested():
                    raise NotMade from None  # the worker stops, or the server has given the call up
                return Cancelled(called=False)
            names = order(contract, list(call.arguments))
            values = [given[name] for name in names]
            if call.takes_key:
                names, values = (*names, IDEMPOTENCY_KEY), [*values, call.key or key_of(call.path)]
            calling = Calling(call.tool, names, contract.positional[: len(names)] == names)
            function = calling.bound(self.vm.preparer.functions[call.tool])
            came = await self.made(contract, function, values, call.seconds, life)
        outcome = self.outcome(contract, call, came)
        most = most_bytes(activity.client().data_converter) if activity.info().is_local else 0
        size = excess([outcome], most)
        if size:  # another call fails by itself then
            told_why = too_large("the value of the tool", size, most)
            return BadResult(StepError("tool", TOO_LARGE, told_why, retryable=False))
        return outcome

    async def made(
        self,
        contract: ToolContract,
        function: Callable[..., Any],
        values: list[Any],
        seconds: float,
        life: Life,
    ) -> Made:
        """Call a tool the way its contract says. That the call is still this worker's is confirmed
        where it must not be made twice, immediately before it is made.
        """

        def checked_call() -> Any:
            life.check()
            return function(*values)

        client = activity.client() if contract.unsafe else None
        if client is not None:
            try:
                await life.confirm(client)
            except asyncio.CancelledError:
                if not cancel_requested():
                    raise NotMade from None
                return Made(cancelled=True, called=False)
        if contract.how == "thread":
            beginning, loop = Beginning(), asyncio.get_running_loop()
            context = contextvars.copy_context()

            def work() -> Any:
                if client is not None and not life.is_confirmed:  # it has waited for this thread
                    asyncio.run_coroutine_threadsafe(life.confirm(client), loop).result()
                beginning.begin()
                try:
                    return context.run(checked_call)
                except (StopIteration, GeneratorExit) as error:  # a future cannot carry them
                    told = f"the tool raised {error_named(error)}"
                    raise RuntimeError(told) from error

            future = asyncio.wrap_future(self.vm.preparer.threads.submit(work))
            return await made(lambda: future, seconds, beginning)
        return await made(checked_call, seconds)

    def outcome(self, contract: ToolContract, call: ToolCall, came: Made) -> Outcome:
        """What came of a call of a tool, as an outcome."""
        if came.expired:
            return TimedOut(called=came.called)
        if came.cancelled:
            return Cancelled(called=came.called)
        if came.error is not None:
            logger.debug("tool %r raised", call.tool, exc_info=came.error)
            return Failed(tool_error(contract, came.error))
        try:
            return Value(admit(came.value, self.vm.preparer.limits.value_bytes)[0])
        except VMError as error:
            fault = StepError.of(error)
            return BadResult(fault) if call.side is None else Failed(fault)

    # --- models ---

    @activity.defn(name=CALL_MODEL)
    async def call_model(self, told: dict[str, Any]) -> Any:
        """Call a model: the outcome."""
        call = ModelCall.of(told)
        async with alive() as life, AsyncExitStack() as stack:
            try:
                own_pools = call.program != ""
                await stack.enter_async_context(self._counting.limits(own_pools=own_pools))
                adapters = await self.adapters(call)
                if adapters is None:
                    return UNKNOWN_PROGRAM
                adapter = adapters.get(call.model) or adapters.get(None)
                if adapter is None:
                    told_why = "this worker has no models"
                    return Failed(StepError("refused", "NoModel", told_why, retryable=False))
                await adapter.wake()
                counted = await self.counted(call, adapters)
            except Unprepared as error:
                return Failed(unprepared(error), NOTHING_USED)
            except asyncio.CancelledError:
                if not cancel_requested():
                    raise NotMade from None  # the worker stops, or the server has given the call up
                return Cancelled(called=False)
            except StoreError as error:
                logger.warning("a call of step %r is not made: %s", call.step_id, error)
                raise NotMade(str(error)) from None
            if isinstance(counted, Failed):
                return counted
            outcome = await self.asked(call, adapter, call.model in adapters, counted, life)
        return outcome

    async def asked(
        self,
        call: ModelCall,
        adapter: Adapter,
        named: bool,
        counted: Counted | None,
        life: Life,
    ) -> Outcome:
        """What came of asking a model, which is charged where a budget counts it."""
        op = ModelOp(
            options=call.options,
            model=call.model,
            allowed=None if call.allowed is None else tuple(call.allowed),
            schema=call.schema,
            step_id=call.step_id,
        )
        bounded = call.bounded or counted is not None
        keywords = adapter.keywords(op, key_of(call.path), named=named, bounded=bounded)

        async def ask() -> tuple[Any, ...]:
            life.check()
            answer = adapter.complete(adapter.fitting(call.messages), **keywords)
            if inspect.isawaitable(answer):
                answer = await answer
            return plain_answer(answer) or answer_parts(completed(answer))

        try:
            outcome = _answered(call, await made(ask, call.seconds))
        except NotMade:
            if counted is not None:
                await counted.give_back()
            raise
        if counted is not None:
            usage = getattr(outcome, "usage", None)
            await counted.end(usage, getattr(outcome, "extra", None))
        return outcome

    async def adapters(self, call: ModelCall) -> Mapping[str | None, Adapter] | None:
        """The models that *call* can mean; None where they are pools of a program that this worker
        does not know.

        Raises:
            Unprepared: If it cannot run that program.
        """
        if not call.program:
            return self.vm.preparer.adapters
        prepared = await self.prepared(call)
        return None if prepared is None or prepared.host is None else prepared.host.adapters

    async def counted(
        self, call: ModelCall, adapters: Mapping[str | None, Adapter]
    ) -> Counted | Failed | None:
        """The call in the budgets that runs share."""
        info = activity.info()
        project = call.project or DEFAULT_PROJECT
        whose = Whose(info.workflow_id or "", call.program_name, project)
        name = f"{info.workflow_run_id}.{info.activity_id}"
        most = call.options.get("max_tokens")
        return await self._counting.begin(whose, name, adapters, call.model, call.messages, most)

    # --- the store ---

    @activity.defn(name=KEEP)
    async def keep(self, start: dict[str, Any], *tape: Any) -> str | None:
        """Put a run that has ended into this worker's store, once."""
        store, run_id = self.vm.store, activity.info().workflow_id
        if store is None or run_id is None:
            return None
        async with alive():
            try:
                archive = cast(Archive, store)
                return await asyncio.to_thread(keep, archive, run_id, start, tape)
            except StoreError as error:
                if error.passing:
                    raise
                raise ApplicationError(str(error), type=FAULT, non_retryable=True) from error


def _answered(call: ModelCall, came: Made) -> Outcome:
    """What came of a call of a model, as an outcome."""
    usage = came.value[1] if came.value is not None else None
    if came.expired:
        route = None if came.stopped is None else route_of(came.stopped)
        return TimedOut(called=True, usage=usage, extra=route)
    if came.cancelled:
        return Cancelled(called=True)
    if came.error is not None:
        logger.debug("step %r raised", call.step_id, exc_info=came.error)
        return Failed(model_error(came.error), consumed(came.error), extra=route_of(came.error))
    text, usage, extra = came.value
    return Answer(text, usage, extra)


def key_of(path: str) -> str:
    """The effect key of the step at *path* of the run that this activity belongs to."""
    return effect_key(activity.info().workflow_id or "", path)


def converted(contract: ToolContract, call: ToolCall) -> dict[str, Any]:
    """What the tool receives, by name.

    Raises:
        ArgumentError: If a value is of the wrong type.
    """
    return {
        name: checked(
            contract.name,
            contract.parameters.get(name, Parameter(name, False)),
            value,
            call.written.get(name),
        )
        for name, value in call.arguments.items()
    }


def hold(prepared: Prepared, call: ToolCall, given: Mapping[str, Any]) -> None:
    """Hold the arguments of *call* against this worker's policy.

    Raises:
        PolicyRefused: If one does not keep to it.
    """
    assert prepared.plan is not None
    own = calls_of(prepared.plan.ops[call.op])[0]
    op = own if call.side is None else getattr(own, call.side)
    for position, name, _, enforce in op.checks:
        enforce(list(call.arguments.values())[position], given[name], call.given)


def unprepared(error: Unprepared) -> StepError:
    """Why a call is not made whose program this worker cannot run."""
    told = f"the worker that took the call cannot run its program: {error}"
    return StepError("refused", "ProgramRefused", told, retryable=False)


def _refused(name: str, message: str) -> NotCalled:
    return NotCalled(StepError("refused", name, message, retryable=False))
