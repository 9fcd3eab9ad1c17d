"""Runs on a Temporal cluster, as a client sees them: begun, looked at, decided, ended."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Unpack

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.converter import PayloadCodec
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from ..errors import Expired, ProgramError, UnknownRun, VMError
from ..language.program import Program
from ..language.programs import program_given, programs_given
from ..machine.pending import shown_digest
from ..records.status import TraceStatus
from ..records.trace import Trace
from ..run.durable.stored import said_of
from ..run.host import budget_of
from ..run.ids import run_ids
from ..run.inbox import Roles, account, principal, require_reason, require_role, resolution
from ..run.inputs import is_run_id, names_of
from ..run.options import RUN_OPTIONS, RunOptions, unknown_options
from ..run.vm import ExecutionVM
from ..values import UNSET, admit, canonical, kind_name
from .conversion import decoding, excess, most_bytes
from .failures import SAME_FOR_ALL, TOO_LARGE, UNDECODED, chain_of, too_large
from .histories import ENDS
from .plans import PLAN_NOT_READY
from .schedules import Schedules
from .searching import attributes_of, register
from .storage import converter_of
from .terms import (
    DECIDE,
    ENDED,
    EVENT,
    INTERPRETER,
    RESOLVE,
    SETTLED,
    STANDING,
    TRACE,
    WAITS,
    WORKFLOW,
    Start,
)
from .words import refused
from .worker import TASK_QUEUE

IDENTITY = "nano-vm-identity"
"""The memo that says which program and inputs a run has: the same id joins only the same run."""

ANSWER_SECONDS = 10.0
"""How long a query waits for a worker that answers it: one that has the run not in memory computes
it again first, in a second and a half. Without a limit the SDK waits for half a minute.
"""

TAKEN_SECONDS = 30.0
"""How long who decides or sends an event waits for a worker that takes it: the SDK waits for ever,
and the run may be computed again first, on a worker that has much to do.
"""

LATEST_EVENTS = 20
"""Of a history, what is looked at to see whether its latest task failed: more than a task takes with
the updates that came meanwhile.
"""

ENDED_MEANWHILE = "AcceptedUpdateCompletedWorkflow"
"""The type of the failure of an update whose execution has ended before it was answered."""


async def connect(
    address: str = "127.0.0.1:7233",
    *,
    namespace: str = "default",
    tls: bool | TLSConfig = False,
    api_key: str | None = None,
    payloads: str | None = None,
    encryption: PayloadCodec | None = None,
    **options: Any,
) -> Client:
    """A client whose payloads are those of the workers here; *options* are those of the SDK's
    `Client.connect`. *payloads* is the URL of a database for large ones, *encryption* an
    `Encryption`; all clients and workers of a cluster have the same.

    Raises:
        VMError: If no server answers, or it has no such namespace.
    """
    if "data_converter" not in options:
        options["data_converter"] = converter_of(payloads, encryption)
    try:
        client = await Client.connect(
            address, namespace=namespace, tls=tls, api_key=api_key, **options
        )
        await client.count_workflows("WorkflowType = 'none'")
    except (RuntimeError, RPCError) as error:
        if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
            raise VMError(
                f"the Temporal server at {address} has no namespace {namespace!r}; create it, or "
                f"name another"
            ) from error
        raise VMError(f"no Temporal server answers at {address}: {error}") from error
    except ValueError as error:
        raise VMError(f"cannot connect to {address!r}: {error}") from error
    return client


# the SDK says of its own limit that the query was cancelled
_UNANSWERED = (
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.FAILED_PRECONDITION,
)

_TIME_OF_RUN = "-2026-11-27T06:16:17Z"
"""As the server writes it behind the name of a schedule."""


class TemporalRuns:
    """Runs programs on a Temporal cluster; as `ExecutionVM`, but that the runs are the cluster's.

    With *vm* a program is verified here before it is sent; the workers verify it again in any case.
    *roles* tells which roles a person has who decides an approval. With *search_attributes* the
    lists of the cluster find runs by program, version, status, project and labels. ``schedules``
    are what begins runs at times.
    """

    def __init__(
        self,
        client: Client,
        task_queue: str = TASK_QUEUE,
        *,
        vm: ExecutionVM | None = None,
        roles: Roles | None = None,
        search_attributes: bool = False,
    ) -> None:
        self.client, self.task_queue, self.vm, self.roles = client, task_queue, vm, roles
        self.search_attributes, self._registered = search_attributes, False
        self.schedules = Schedules(client)

    # --- begin and end ---

    async def run(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        *,
        programs: Mapping[str, Program] | None = None,
        **options: Unpack[RunOptions],
    ) -> Trace:
        """Run *program* until it has ended or waits, and give its trace; options as
        `ExecutionVM.run`.
        """
        refusal = self._refusal(program, context, programs, options)
        if refusal is not None:
            return refusal
        return await self.settled(await self._submitted(program, context, programs, options))

    async def submit(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        *,
        programs: Mapping[str, Program] | None = None,
        **options: Unpack[RunOptions],
    ) -> str:
        """Begin a run and give its id; the same id joins a run that is there.

        Raises:
            ProgramError: If it would be refused, as far as that is known here.
        """
        refusal = self._refusal(program, context, programs, options)
        if refusal is not None:
            raise ProgramError(refusal.diagnostics)
        return await self._submitted(program, context, programs, options)

    def _refusal(
        self,
        program: Program,
        context: Mapping[str, Any] | None,
        programs: Mapping[str, Program] | None,
        options: Mapping[str, Any],
    ) -> Trace | None:
        """The trace of a run that this host's own tools, models or policy refuse."""
        program_given(program)
        if not options.keys() <= RUN_OPTIONS:
            raise unknown_options(options)
        if self.vm is None:
            return None
        vm = self.vm if programs is None else self.vm.with_(programs=programs)
        begun = vm.with_(store=None).begin(program, context, **options)
        return begun.trace if begun.machine is None else None

    async def _submitted(
        self,
        program: Program,
        context: Mapping[str, Any] | None,
        programs: Mapping[str, Program] | None,
        options: RunOptions,
    ) -> str:
        run_id = options.get("run_id")
        if run_id is not None and not is_run_id(run_id):
            raise VMError(
                f"a run id is a string of 1 to 200 visible ASCII characters, not {run_id!r}"
            )
        start = self._start(program, context, programs, options)
        identity, attributes = _identity_of(start), await self._attributes(program, start)
        named, run_id = run_id is not None, run_ids.drawn() if run_id is None else run_id
        self._require_sendable(run_id, "what it is begun with", start.to_dict())
        try:
            await self.client.start_workflow(
                WORKFLOW,
                start.to_dict(),
                id=run_id,
                task_queue=self.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={IDENTITY: identity},
                search_attributes=attributes,
                static_summary=program.name,
            )
        except WorkflowAlreadyStartedError:
            if not named or await self._identity(run_id) != identity:
                raise VMError(
                    f"run {run_id!r} exists, with another program or other inputs"
                ) from None
        except RPCError as error:
            raise _refused(run_id, error) from None
        return run_id

    async def _attributes(self, program: Program, start: Start) -> TypedSearchAttributes:
        """The search attributes of a run, which the namespace knows."""
        if not self.search_attributes:
            return TypedSearchAttributes.empty
        if not self._registered:
            await register(self.client)
            self._registered = True
        return attributes_of(program, start.said)

    # --- schedules ---

    async def schedule(
        self,
        name: str,
        program: Program,
        context: Mapping[str, Any] | None = None,
        *,
        cron: str,
        time_zone: str | None = None,
        programs: Mapping[str, Program] | None = None,
        **options: Unpack[RunOptions],
    ) -> None:
        """Have the cluster begin a run at each time that *cron* says, in UTC or a *time_zone* like
        ``Europe/Berlin``; one that would overlap the run before it is left out. The runs have the
        *name* with their time as ids.

        Raises:
            ProgramError: If they would be refused, as far as that is known here.
            VMError: If there is a schedule of this name, or *cron* says no times.
        """
        if options.get("run_id") is not None:
            raise VMError("the runs of a schedule have their ids of its name; leave out run_id")
        if not is_run_id(name + _TIME_OF_RUN):
            raise VMError(f"the name of a schedule begins ids of runs, and {name!r} cannot")
        refusal = self._refusal(program, context, programs, options)
        if refusal is not None:
            raise ProgramError(refusal.diagnostics)
        start = self._start(program, context, programs, options)
        action = ScheduleActionStartWorkflow(
            WORKFLOW,
            start.to_dict(),
            id=name,
            task_queue=self.task_queue,
            memo={IDENTITY: _identity_of(start)},
            typed_search_attributes=await self._attributes(program, start),
            static_summary=program.name,
        )
        await self.schedules.make(
            name, action, program=program.name, cron=cron, time_zone=time_zone
        )

    async def _identity(self, run_id: str) -> Any:
        """Which program and inputs a run has that is there."""
        try:
            about = await self._handle(run_id).describe()
        except RPCError as error:
            raise _unknown(run_id, error) from None
        with decoding(f"run {run_id!r}"):
            return await about.memo_value(IDENTITY, "")

    def _start(
        self,
        program: Program,
        context: Mapping[str, Any] | None,
        programs: Mapping[str, Program] | None,
        options: RunOptions,
    ) -> Start:
        if context is not None and not isinstance(context, Mapping):
            raise VMError(f"context is a dict, not {kind_name(context)}")
        inputs = {str(name): admit(value)[0] for name, value in (context or {}).items()}
        budget = budget_of(options.get("budget"))
        untrusted = options.get("untrusted")
        return Start(
            program.to_dict(),
            inputs,
            {name: one.to_dict() for name, one in programs_given(programs).items()},
            options.get("seed"),
            budget.model_dump(exclude_none=True, mode="json") if budget is not None else None,
            list(names_of(untrusted)) if untrusted is not None else [],
            said_of(options.get("project"), options.get("submitter"), options.get("labels")),
            interpreter=INTERPRETER,
            indexed=self.search_attributes,
        )

    async def result(self, run_id: str) -> Trace:
        """The trace of a run, once it has ended.

        Raises:
            UnknownRun: If there is none.
            VMError: If it was terminated, or ended by a fault.
        """
        try:
            with decoding(f"the trace of run {run_id!r}"):
                told = await self._handle(run_id).result()
            return Trace.from_dict(told)
        except WorkflowFailureError as error:
            raise VMError(f"run {run_id!r} did not end by itself: {error.cause}") from error
        except RPCError as error:
            raise _unknown(run_id, error) from None

    async def settled(self, run_id: str) -> Trace:
        """The trace of a run, once it has ended or goes on only if something comes from outside, or
        a time.
        """
        ending = asyncio.ensure_future(self.result(run_id))
        settling = asyncio.ensure_future(self._settle(run_id))
        try:
            while True:
                await asyncio.wait([ending, settling], return_when=asyncio.FIRST_COMPLETED)
                if ending.done() or settling.result() == ENDED:
                    return await ending
                if settling.result() == WAITS:
                    trace = await self.trace(run_id)
                    if trace is not None and trace.status is TraceStatus.SUSPENDED:
                        return trace  # else it goes on already
                settling = asyncio.ensure_future(self._settle(run_id))
        finally:
            ending.cancel()
            settling.cancel()
            await asyncio.gather(ending, settling, return_exceptions=True)

    async def _settle(self, run_id: str) -> str:
        """How the run stands once it stands still, as `SETTLED` answers; nothing where it is to be
        asked again.
        """
        try:
            with decoding(f"how run {run_id!r} stands"):
                return str(await self._handle(run_id).execute_update(SETTLED))
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            return ""
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError) and cause.type == ENDED_MEANWHILE:
                return ""
            raise VMError(f"run {run_id!r}: {cause}") from error
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise _unknown(run_id, error) from None
            return ENDED

    # --- look ---

    async def trace(self, run_id: str) -> Trace | None:
        """The trace of a run as far as it has come; None before a worker has admitted it."""
        told = await self._query(run_id, TRACE)
        return None if told is None else Trace.from_dict(told)

    async def fault(self, run_id: str) -> str | None:
        """Why no worker can go on with a run, which stands where it stood until one can; None where
        one can, none has tried, or the run has ended. It is what the worker said that tried first
        since anything happened: a history has no further attempts.
        """
        request = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self.client.namespace,
            execution=WorkflowExecution(workflow_id=run_id),
            maximum_page_size=LATEST_EVENTS,
        )
        service = self.client.workflow_service
        try:
            answer = await service.get_workflow_execution_history_reverse(request)
        except RPCError as error:
            raise _unknown(run_id, error) from None
        for event in answer.history.events:
            if event.event_type in ENDS or event.HasField(
                "workflow_task_completed_event_attributes"
            ):
                return None
            if event.HasField("workflow_task_failed_event_attributes"):
                failure = event.workflow_task_failed_event_attributes.failure
                making = failure.application_failure_info.type == PLAN_NOT_READY
                return None if making else _messages(failure)
        return None

    async def waiting(self, run_id: str) -> list[dict[str, Any]]:
        """What a run waits for; ``shown`` identifies each request as it stands."""
        standing = await self._query(run_id, STANDING)
        entries = standing["waiting"] if standing is not None else []
        return [{**entry, "shown": shown_digest(entry)} for entry in entries]

    async def _query(self, run_id: str, name: str) -> Any:
        """The answer to a query; None where the run cannot answer yet."""
        try:
            with decoding(f"what run {run_id!r} says of itself"):
                limit = timedelta(seconds=ANSWER_SECONDS)
                told = await self._handle(run_id).query(name, rpc_timeout=limit)
        except WorkflowQueryFailedError:
            return None
        except RPCError as error:
            if error.status in _UNANSWERED:
                return None
            raise _unknown(run_id, error) from None
        if told is not None and TOO_LARGE in told:
            raise VMError(f"run {run_id!r}: {told[TOO_LARGE]}")
        return told

    # --- decide ---

    async def approve(
        self, run_id: str, path: str, *, shown: str, by: str, reason: str | None = None
    ) -> None:
        """Approve what the run asks at *path*, as identified by *shown*; errors as
        `ExecutionVM.approve`.
        """
        await self._decide(run_id, path, True, by, shown, reason)

    async def reject(
        self,
        run_id: str,
        path: str,
        *,
        by: str,
        shown: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Reject; as `approve`."""
        await self._decide(run_id, path, False, by, shown, reason)

    async def _decide(
        self,
        run_id: str,
        path: str,
        approved: bool,
        by: str,
        shown: str | None,
        reason: str | None,
    ) -> None:
        principal(by)
        require_reason(reason)
        told = {"path": path, "approved": approved, "reason": reason, "by": by, "shown": shown}
        if self.roles is not None:
            told["roles"] = await self._permitted(run_id, path, by)
        await self._update(run_id, DECIDE, told)

    async def _permitted(self, run_id: str, path: str, by: str) -> list[Any]:
        """The role that is asked at *path*, which *by* has; nothing where none is found. The run
        takes the decision only if it asks that role still.
        """
        asked = [
            entry["role"]
            for entry in await self.waiting(run_id)
            if entry["path"] == path and entry["kind"] == "approval"
        ]
        for role in asked:
            require_role(self.roles, by, role, path)
        return asked

    async def resolve(
        self,
        run_id: str,
        path: str,
        *,
        done: Any = UNSET,
        retry: bool = False,
        fail: str | None = None,
        by: str = UNSET,
        shown: str | None = None,
    ) -> None:
        """Say what became of a call in doubt; as `ExecutionVM.resolve`."""
        told = {"path": path, **resolution(done, retry, fail)}
        told["by"] = principal(account() if by is UNSET else by)
        if shown is not None:
            told["shown"] = shown
        await self._update(run_id, RESOLVE, told)

    async def send_event(
        self, run_id: str, name: str, payload: Any = None, *, id: str | None = None
    ) -> bool:
        """Record an event for a `wait` that the run stands at, or the next that asks for it; whether
        it was recorded, since one of this name and *id* may have been before.
        """
        told = {"name": name, "payload": admit(payload)[0], "id": id}
        return bool(await self._update(run_id, EVENT, told))

    async def cancel(self, run_id: str) -> Trace:
        """Cancel a run, and give its trace once what was done is undone."""
        try:
            await self._handle(run_id).cancel()
        except RPCError as error:
            raise _unknown(run_id, error) from None
        return await self.result(run_id)

    def _require_sendable(self, run_id: str, what: str, told: dict[str, Any]) -> None:
        """Refuse what the server would not take."""
        most = most_bytes(self.client.data_converter)
        size = excess([told], most)
        if size:
            raise VMError(f"run {run_id!r}: {too_large(what, size, most)}")

    async def _update(self, run_id: str, name: str, told: dict[str, Any]) -> Any:
        self._require_sendable(run_id, f"the {name}", told)
        try:
            with decoding(f"the answer of run {run_id!r}, which may have taken it,"):
                async with asyncio.timeout(TAKEN_SECONDS) as limit:
                    return await self._handle(run_id).execute_update(name, told)
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
            if not limit.expired():  # whoever waits was cancelled
                raise
            raise VMError(
                f"run {run_id!r}: no worker has taken this within {TAKEN_SECONDS:g} s; the server "
                f"may still give it to one that comes: start one, and see with nano-vm show"
            ) from None
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError) and cause.message == UNDECODED:
                raise VMError(
                    f"run {run_id!r} has not taken it, since its worker cannot decode what was "
                    f"sent: {chain_of(cause.cause or cause)}; {SAME_FOR_ALL}"
                ) from None
            if isinstance(cause, ApplicationError) and cause.type:
                about = cause.details[0] if cause.details else {}
                raise refused(cause.type, cause.message, about) from None
            raise VMError(f"run {run_id!r}: {cause}") from error
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND and await self._has_ended(run_id):
                raise Expired(f"run {run_id!r} has ended") from None
            raise _unknown(run_id, error) from None

    async def _has_ended(self, run_id: str) -> bool:
        try:
            about = await self._handle(run_id).describe()
        except RPCError:
            return False
        return about.status is not WorkflowExecutionStatus.RUNNING

    def _handle(self, run_id: str) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(run_id)


def _messages(failure: Failure) -> str:
    """What a failure says, with its causes."""
    if not failure.HasField("cause"):
        return failure.message
    return f"{failure.message}: {_messages(failure.cause)}"


def _identity_of(start: Start) -> str:
    document = canonical([start.program, start.programs, start.inputs])
    return hashlib.sha256(document).hexdigest()


def _unknown(run_id: str, error: RPCError) -> VMError:
    if error.status is RPCStatusCode.NOT_FOUND:
        return UnknownRun(f"no run {run_id!r} on this cluster")
    return _refused(run_id, error)


def _refused(run_id: str, error: RPCError) -> VMError:
    return VMError(f"run {run_id!r}: the Temporal server says: {error.message}")
