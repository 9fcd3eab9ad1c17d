"""The list of a cluster's runs: what finds them, and what it says of each."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from ..errors import VMError
from ..records.status import TraceStatus
from ..store.protocol import RunFilter
from ..store.records import DEFAULT_PROJECT
from .searching import LABELS, PROGRAM, PROJECT, STATUS, VERSION
from .terms import WORKFLOW

ENDED = "ended"
"""The status of a run that has ended and has no search attributes, which would say how."""

_KNOWN = frozenset("status program project labels since_ns until_ns".split())

UNFOUND = frozenset('\\"')
"""Marks that a server on SQLite does not find, or fails at."""

_RUNS = f"WorkflowType = '{WORKFLOW}' AND ExecutionStatus != 'ContinuedAsNew'"

# where the workflow itself could not say how the run ended
_OUTSIDE = {
    WorkflowExecutionStatus.FAILED: TraceStatus.FAILED.value,
    WorkflowExecutionStatus.CANCELED: TraceStatus.CANCELLED.value,
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.TIMED_OUT: "timed out",
}


@dataclass(frozen=True, slots=True)
class Listed:
    """A run in a list. Without search attributes nothing is known of its program, and of its status
    only whether it has ended. ``began_ns`` of a run that continued as new is when it did so last.
    """

    run_id: str
    program: str | None
    version: str | None
    status: str
    project: str | None
    labels: dict[str, str]
    began_ns: int
    finished_ns: int | None


async def listed(
    client: Client, filter: RunFilter, *, queue: str | None = None, limit: int | None = None
) -> list[Listed]:
    """The newest runs of the namespace of *client* that *filter* and the task *queue* let pass. A
    list lags behind its runs by a moment.

    Raises:
        VMError: If the server cannot list them, or *filter* asks what a cluster does not know.
    """
    query = query_of(filter, queue)
    try:
        return [_listed(one) async for one in client.list_workflows(query, limit=limit)]
    except RPCError as error:
        more = ""
        if error.status is RPCStatusCode.INVALID_ARGUMENT:
            more = "; runs are found by what they are once one was begun with --search-attributes"
        raise VMError(
            f"runs cannot be listed: the Temporal server says: {error.message}{more}"
        ) from None


def query_of(filter: RunFilter, queue: str | None = None) -> str:
    """The query that finds the runs of *filter*, as a list of a cluster takes it.

    Raises:
        VMError: If a cluster does not know what is asked.
    """
    for one in fields(filter):
        if one.name not in _KNOWN and getattr(filter, one.name) is not None:
            raise VMError(f"a cluster does not find runs by their {one.name}")
    terms = [_RUNS]
    if filter.status is not None:
        statuses = [filter.status] if isinstance(filter.status, str) else filter.status
        terms.append(f"{STATUS.name} IN ({', '.join(map(_quoted, statuses))})")
        # of those that the server ended itself the attribute says what it said before
        terms.append("ExecutionStatus IN ('Running', 'Completed', 'Failed')")
    if filter.program is not None:
        terms.append(f"{PROGRAM.name} = {_quoted(filter.program)}")
    if filter.project is not None:
        project = f"{PROJECT.name} = {_quoted(filter.project)}"
        none = f"({project} OR {PROJECT.name} IS NULL)"
        terms.append(none if filter.project == DEFAULT_PROJECT else project)
    terms += [f"{LABELS.name} = {_quoted(f'{k}={v}')}" for k, v in filter.labels.items()]
    if filter.since_ns is not None:
        terms.append(f"StartTime >= {_quoted(_time(filter.since_ns))}")
    if filter.until_ns is not None:
        terms.append(f"StartTime < {_quoted(_time(filter.until_ns))}")
    if queue is not None:
        terms.append(f"TaskQueue = {_quoted(queue)}")
    return " AND ".join(terms)


def _quoted(text: str) -> str:
    """*text* as a string of a query."""
    if not UNFOUND.isdisjoint(text):
        raise VMError(
            f'the list of a cluster cannot look for {text!r}: no \\ and no " can be in it'
        )
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat().replace("+00:00", "Z")


def _listed(found: WorkflowExecution) -> Listed:
    said: Any = found.typed_search_attributes
    status = said.get(STATUS)
    running = found.status is WorkflowExecutionStatus.RUNNING
    usual = TraceStatus.RUNNING.value if running else ENDED
    outside = _OUTSIDE.get(found.status) if found.status is not None else None
    labels = (label.partition("=") for label in said.get(LABELS) or ())
    return Listed(
        found.id,
        said.get(PROGRAM),
        said.get(VERSION),
        outside or status or usual,
        said.get(PROJECT),
        {name: value for name, _, value in labels},
        ns_of(found.start_time),
        None if found.close_time is None else ns_of(found.close_time),
    )


_EPOCH = datetime.fromtimestamp(0, UTC)


def ns_of(at: datetime) -> int:
    """A moment in nanoseconds since the epoch."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
