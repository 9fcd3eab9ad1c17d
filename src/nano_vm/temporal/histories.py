"""Histories of a cluster, as it has them or as they were downloaded: what this interpreter decides
beside what they say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.json_format import ParseError
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import (
    ExecuteWorkflowInput,
    Interceptor,
    Replayer,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from ..errors import UnknownRun, VMError
from ..records.trace import Trace
from .conversion import decoding
from .plans import PLAN_NOT_READY
from .terms import WORKFLOW
from .workflow import NanoProgram

PLAN_TRIES = 40
"""How often a replay is begun anew because the plan of a large program is still being made, which a
worker is given a task again for; each waits for a second and a half.
"""

_CLOSED = "COMPLETED FAILED TIMED_OUT TERMINATED CANCELED CONTINUED_AS_NEW".split()
ENDS = {
    EventType.Value(f"EVENT_TYPE_WORKFLOW_EXECUTION_{name}"): name.lower().replace("_", " ")
    for name in _CLOSED
}
"""How an execution ended, by the type of its last event."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """An execution that was replayed. ``end`` is how it ended: None where its run was under way, or
    the history is cut short behind its beginning. ``trace`` is the one that both gave.
    """

    run_id: str
    events: int
    end: str | None
    trace: Trace | None = None


def history_of(text: str, name: str) -> WorkflowHistory:
    """The history that *text* is, as ``temporal workflow show --output json`` writes it.

    Raises:
        VMError: If it is none.
    """
    try:
        history = WorkflowHistory.from_json(name, text)
    except (ValueError, TypeError, AttributeError, ParseError, RecursionError) as error:
        raise VMError(f"{name} is no history of a workflow: {error}") from None
    if not history.events:
        return history
    begun = history.events[0].workflow_execution_started_event_attributes
    return WorkflowHistory(begun.workflow_id or name, history.events)


async def histories_of(client: Client, run_id: str) -> list[WorkflowHistory]:
    """The histories of a run on the cluster, one of each execution, the first first. Those that the
    cluster no longer keeps are left out.

    Raises:
        UnknownRun: If there is no such run.
    """
    found: list[WorkflowHistory] = []
    execution: str | None = None
    while True:
        handle = client.get_workflow_handle(run_id, run_id=execution)
        try:
            history = await handle.fetch_history()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND and found:
                return found
            if error.status is RPCStatusCode.NOT_FOUND:
                raise UnknownRun(f"no run {run_id!r} on this cluster") from None
            raise VMError(f"run {run_id!r}: the Temporal server says: {error.message}") from None
        found.insert(0, history)
        begun = history.events[0].workflow_execution_started_event_attributes
        execution = begun.continued_execution_run_id
        if not execution:
            return found


async def replayed(history: WorkflowHistory, converter: DataConverter) -> Replayed:
    """Replay *history* without a call: each command that this interpreter gives is held against the
    history, and the trace against the one that it ended with.

    Raises:
        VMError: If events are missing, they are of another workflow, or they differ.
    """
    name, events = history.workflow_id, history.events
    _require_whole(name, events)
    last = events[-1]
    found = Replayed(name, len(events), ENDS.get(last.event_type))
    if not any(one.HasField("workflow_task_completed_event_attributes") for one in events):
        return found  # the interpreter has decided nothing yet
    traces: list[dict[str, Any]] = []
    replayer = Replayer(
        workflows=[NanoProgram],
        data_converter=converter,
        interceptors=[_Listening(traces)],
        debug_mode=True,  # else a task of two seconds is taken for a deadlock
    )
    for _ in range(PLAN_TRIES):
        result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
        if PLAN_NOT_READY not in str(result.replay_failure):
            break
    if result.replay_failure is not None:
        raise VMError(
            f"{name}: this interpreter decides otherwise: {result.replay_failure}"
        ) from result.replay_failure
    if not last.HasField("workflow_execution_completed_event_attributes"):
        return found
    attributes = last.workflow_execution_completed_event_attributes
    with decoding(f"the trace of {name}"):
        (recorded,) = await converter.decode(attributes.result.payloads)
    if traces[-1:] != [recorded]:
        raise VMError(f"{name}: the trace of this interpreter is not the recorded one")
    return replace(found, trace=Trace.from_dict(recorded))


def _require_whole(name: str, events: Any) -> None:
    """Refuse a history that lacks events before its end, or is that of another workflow."""
    started = "workflow_execution_started_event_attributes"
    if not events or not events[0].HasField(started):
        raise VMError(f"{name}: the history is cut short: it does not begin where a run begins")
    kind = events[0].workflow_execution_started_event_attributes.workflow_type.name
    if kind != WORKFLOW:
        raise VMError(f"{name} is the history of a workflow {kind!r}, and not of a program")
    for number, event in enumerate(events, start=1):
        if event.event_id != number:
            raise VMError(
                f"{name}: the history is cut short: event {event.event_id} comes where "
                f"event {number} is missing"
            )


class _Listening(Interceptor):
    """Keeps what workflows give."""

    def __init__(self, traces: list[dict[str, Any]]) -> None:
        self.traces = traces

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor]:
        traces = self.traces

        class Inbound(WorkflowInboundInterceptor):
            async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
                found = await super().execute_workflow(input)
                traces.append(found)
                return found

        return Inbound
