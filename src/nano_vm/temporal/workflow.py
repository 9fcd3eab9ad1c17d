"""`NanoProgram`: the one workflow, which runs any program.

It imports the language, the machine and the records, and nothing of what runs on one host: no
asyncio driver, no store, no tool. Time, ids and random numbers come from Temporal. Unsandboxed: the
sandbox would import the package anew for each run and protect these few modules only; that they
touch nothing of the world is held by `tests/temporal/test_purity.py`.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from ..errors import VMError
from ..records.status import TraceStatus
from ..records.trace import Trace
from ..values import error_named
from .computed import Computed
from .conversion import excess
from .driver import Driver, MadeAgain
from .failures import TOO_LARGE, too_large
from .plans import PLANS, PlanNotReady
from .searching import STATUS
from .snapshot import snapshot
from .terms import (
    ADMIT,
    ADMIT_SECONDS,
    ADMITS_HERE,
    DECIDE,
    ENDED,
    EVENT,
    FAULT,
    HEARTBEAT_SECONDS,
    INTERPRETER,
    KEEP,
    RESOLVE,
    SETTLED,
    STANDING,
    TELLS_WAITS,
    TRACE,
    WAITS,
    WORKFLOW,
    Admission,
    Start,
)
from .words import Words, refusal

MAX_CALLS = 500
"""Calls of one execution: replaying it after a failover takes a second and a half."""

MAX_EVENTS, MAX_BYTES = 3_000, 5_000_000
"""Events and bytes of one history, far below the 51,200 and 50 MB at which a server ends a run."""

MESSAGE_PAYLOADS = 2
"""How many of the largest payloads fit into a message to the server, which has 4 MiB."""

KEEP_SECONDS, KEEP_LATEST_SECONDS = 120.0, 3600.0
"""How long a worker may take to put a run into a store, and how long that is tried."""


class TooOld(Exception):
    """This worker is older than the run; the task is left to another."""


@workflow.defn(name=WORKFLOW, sandboxed=False)
class NanoProgram:
    """One run of a program."""

    @workflow.init
    def __init__(self, start: dict[str, Any], *tape: Any) -> None:
        self.start = Start.of(start)
        self.tape = self.start.tape(tape)
        self.words = Words(self.start.events, self.start.decided, self.start.used)
        self.driver: Driver | None = None
        self.ended: dict[str, Any] | None = None
        self.cancelled = self.start.cancelled
        self.computed: Computed | None = None
        self.telling: asyncio.Future[None] | None = None  # of whether the run waits

    @workflow.run
    async def run(self, start: dict[str, Any], *tape: Any) -> dict[str, Any]:
        """The JSON form of the run's trace."""
        if self.start.interpreter > INTERPRETER:
            raise TooOld(
                f"the run was begun by version {self.start.interpreter} of the interpreter, and this "
                f"worker has {INTERPRETER}: upgrade it, or leave the run to one that is newer"
            )
        work = asyncio.ensure_future(self._whole())
        while True:
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                if work.cancelled():
                    raise
                self.cancelled = True
                if self.driver is not None:
                    self.driver.stop()
            except (PlanNotReady, workflow.ContinueAsNewError):
                raise
            except FailureError:
                self._tell_end(TraceStatus.FAILED)
                raise
            except Exception as error:
                self._tell_end(TraceStatus.FAILED)
                # any other exception would have the task tried for ever
                raise ApplicationError(
                    error_named(error), type=FAULT, non_retryable=True
                ) from error

    async def _whole(self) -> dict[str, Any]:
        if self.start.admission is None:
            told = await self._admitted()
        else:
            told = self.start.admission
        admission = Admission.of(told)
        if admission.refused is not None:
            self.ended = admission.refused
            self._tell_end(Trace.from_dict(self.ended).status)
            return self.ended
        planned = PLANS.of(self.start.program, admission.programs, admission.contracts)
        began = self.start.began_ns or workflow.time_ns()
        salt = self.start.salt or f"{workflow.random().getrandbits(128):032x}"
        self.start = self.start.continued(told, began, salt)
        computed = Computed(workflow.info().workflow_id, self.start, admission, planned)
        self.computed = computed
        driver = self.driver = Driver(
            planned,
            admission,
            self.tape,
            self.words,
            computed.base_ns,
            {name: self.start.inputs[name] for name in admission.given},
            self.start.untrusted,
        )
        driver.cancelled = self.cancelled
        driver.full = self._full
        if self.start.indexed and self.start.interpreter >= TELLS_WAITS:
            self.telling = asyncio.ensure_future(self._tell_waits(driver))
        while True:
            machine = computed.machine()
            try:
                ended = await driver.drive(machine)
                break
            except MadeAgain:
                continue
        if not ended:
            await workflow.wait_condition(workflow.all_handlers_finished)
            self._continue_as_new()
        trace = Trace(computed.recording(machine, driver.now()))
        self.ended = trace.to_dict()
        size = excess([self.ended], admission.payload_bytes)
        if not size:
            self._tell_end(trace.status)
        if admission.keeps:
            await self._keep(computed)
        await workflow.wait_condition(workflow.all_handlers_finished)
        if size:
            raise self._too_large("the trace of the run", size)
        return self.ended

    def _tell_end(self, status: TraceStatus) -> None:
        """Have the lists of the cluster say how the run ended: to them all that end are alike."""
        if self.telling is not None:
            self.telling.cancel()
        if self.start.indexed:
            _tell(status)

    async def _tell_waits(self, driver: Driver) -> None:
        """Have the lists of the cluster say of the run that it waits for long, and that it goes on.
        Each costs an event: none is said twice, nor of a run that goes on to its next wait, or its
        end, without a call.
        """
        told = workflow.info().typed_search_attributes.get(STATUS)
        waits = told == TraceStatus.SUSPENDED.value  # so the execution before this one said
        while True:
            if not waits:
                await workflow.wait_condition(lambda: driver.stands)
                _tell(TraceStatus.SUSPENDED)
            await workflow.wait_condition(lambda: not driver.calls.quiet)
            _tell(TraceStatus.RUNNING)
            waits = False

    async def _admitted(self) -> dict[str, Any]:
        """What a worker says of program and inputs: this one, which costs an event in place of six,
        and no second copy of the program.
        """
        common: dict[str, Any] = {
            "start_to_close_timeout": timedelta(seconds=ADMIT_SECONDS),
            "retry_policy": RetryPolicy(non_retryable_error_types=[FAULT]),
        }
        start = self.start.to_dict()
        admission: dict[str, Any]
        if self.start.interpreter >= ADMITS_HERE:
            admission = await workflow.execute_local_activity(ADMIT, start, **common)
        else:
            beats = timedelta(seconds=HEARTBEAT_SECONDS)
            admission = await workflow.execute_activity(
                ADMIT, start, heartbeat_timeout=beats, **common
            )
        return admission

    async def _keep(self, computed: Computed) -> None:
        """Have a worker put the run into its store; that it cannot for an hour is no fault of the
        run's.
        """
        parts = self.start.with_tape(self.tape)
        if self._excess(parts):
            workflow.logger.warning("run %s is not in a store: it is too large", computed.run_id)
            return
        try:
            await workflow.execute_activity(
                KEEP,
                args=parts,
                start_to_close_timeout=timedelta(seconds=KEEP_SECONDS),
                schedule_to_close_timeout=timedelta(seconds=KEEP_LATEST_SECONDS),
                heartbeat_timeout=timedelta(seconds=HEARTBEAT_SECONDS),
                retry_policy=RetryPolicy(non_retryable_error_types=[FAULT]),
            )
        except ActivityError as error:
            workflow.logger.warning("run %s is not in a store: %s", computed.run_id, error.cause)

    # --- continuing as new ---

    def _full(self) -> bool:
        """Whether this execution has come to the end of what one should hold."""
        info = workflow.info()
        assert self.driver is not None
        return (
            self.driver.calls.made >= MAX_CALLS
            or info.get_current_history_length() >= MAX_EVENTS
            or info.get_current_history_size() >= MAX_BYTES
            or info.is_continue_as_new_suggested()
        )

    def _continue_as_new(self) -> None:
        """Go on in a new execution, which is given the tape: the segments that this one was given,
        as they are, and what came since.
        """
        start = self.start.left(self.words, cancelled=self.cancelled)
        parts = start.with_tape(self.tape)
        size = self._excess(parts)
        if size:
            raise self._too_large("what the run was given so far", size)
        workflow.continue_as_new(args=parts)

    def _excess(self, parts: list[Any]) -> int:
        """How many bytes *parts* have that the server does not take together; 0 where it does."""
        assert self.computed is not None
        most = self.computed.admission.payload_bytes
        return excess(parts, most) or excess([parts], most * MESSAGE_PAYLOADS)

    def _too_large(self, what: str, size: int) -> ApplicationError:
        """The end of a run that no server takes: without it the task would be tried for ever."""
        assert self.computed is not None
        most = self.computed.admission.payload_bytes
        return ApplicationError(too_large(what, size, most), type=TOO_LARGE, non_retryable=True)

    # --- what is said, and asked ---

    @workflow.query(name=STANDING)
    def standing(self) -> dict[str, Any]:
        """How the run stands: what it waits for, and whether it goes on only if something comes from
        outside, or a time.
        """
        standing = {"quiet": self._quiet, "waiting": list(self.words.waiting.values())}
        return self._answer("what it waits for", standing)

    @workflow.query(name=TRACE)
    def trace(self) -> dict[str, Any] | None:
        """The JSON form of the trace so far; None before the run is admitted."""
        if self.ended is not None:
            return self._answer("its trace", self.ended)
        if self.computed is None:
            return None
        machine = self.computed.machine()
        now = snapshot(machine, self.tape)
        trace = Trace(self.computed.recording(machine, now))
        return self._answer("its trace so far", trace.to_dict())

    def _answer(self, what: str, told: dict[str, Any]) -> dict[str, Any]:
        """*told*, or why it cannot be sent: the SDK would say only that the query failed."""
        most = 0 if self.computed is None else self.computed.admission.payload_bytes
        size = excess([told], most)
        return {TOO_LARGE: too_large(what, size, most)} if size else told

    def _look(self, kind: str, told: dict[str, Any]) -> None:
        try:
            self.words.look(
                kind, told["path"], told.get("shown"), workflow.time_ns(), told.get("roles")
            )
        except VMError as error:
            raise _refused(error) from None

    @workflow.update(name=DECIDE)
    def decide(self, told: dict[str, Any]) -> None:
        """Take a person's decision on an approval."""
        word: dict[str, Any] = {
            name: told[name] for name in ("approved", "reason", "by") if name in told
        }
        self.words.say(told["path"], {**word, "at_ns": workflow.time_ns()})

    @decide.validator
    def _may_decide(self, told: dict[str, Any]) -> None:
        self._look("approval", told)

    @workflow.update(name=RESOLVE)
    def resolve(self, told: dict[str, Any]) -> None:
        """Take what somebody says became of a call in doubt."""
        word: dict[str, Any] = {
            name: told[name] for name in ("output", "retry", "reason", "by") if name in told
        }
        self.words.say(told["path"], {**word, "at_ns": workflow.time_ns()})

    @resolve.validator
    def _may_resolve(self, told: dict[str, Any]) -> None:
        self._look("in_doubt", told)

    @workflow.update(name=SETTLED)
    async def settled(self) -> str:
        """Wait until the run has ended (`ended`), or goes on only if something comes from outside,
        or a time (`waits`); nothing where this execution ends before.
        """
        await workflow.wait_condition(lambda: self._quiet or self._leaving)
        if self.ended is not None:
            return ENDED
        return WAITS if self._quiet else ""

    @property
    def _quiet(self) -> bool:
        driver = self.driver
        if self.ended is not None or driver is None or driver.leaving:
            return self.ended is not None
        return driver.calls.quiet and bool(self.words.waiting)

    @property
    def _leaving(self) -> bool:
        return self.driver is not None and self.driver.leaving

    @workflow.update(name=EVENT)
    def event(self, told: dict[str, Any]) -> bool:
        """Take an event; whether it was recorded, since one with its name and id may have been
        before.
        """
        return self.words.event(told["name"], told.get("payload"), told.get("id"))

    @event.validator
    def _may_send(self, told: dict[str, Any]) -> None:
        now = workflow.time_ns()
        fault = self.words.fault_of_event(told["name"], told.get("payload"), now)
        if fault is not None:
            raise _refused(VMError(f"event {told['name']!r} is not recorded: {fault}"))


def _tell(status: TraceStatus) -> None:
    """Have the lists of the cluster say how the run stands."""
    workflow.upsert_search_attributes([STATUS.value_set(status.value)])


def _refused(error: VMError) -> ApplicationError:
    name, about = refusal(error)
    return ApplicationError(str(error), about, type=name, non_retryable=True)
