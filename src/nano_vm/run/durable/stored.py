"""A stored run as it is read: its trace, the calls that it began, the steps at which it waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from ...errors import StoreError
from ...machine.plan import Op
from ...machine.recorded import Recorded
from ...records.recording import Recording
from ...records.status import StepStatus, TraceStatus
from ...records.trace import Trace
from ...records.usage import LLMUsage
from ...store.records import (
    DEFAULT_PROJECT,
    INTENT,
    PAUSED,
    STEP,
    SUSPENDED,
    Erased,
    Row,
    StoredRun,
    checked_labels,
    checked_name,
    checked_text,
)
from ...values import UNSET
from ..inbox import presented
from ..system import SYSTEM, System

SUCCESS = StepStatus.SUCCESS


class Unfinished(NamedTuple):
    """A call or a pause that has no outcome yet: when it was begun last, by which owner."""

    type: str
    began_ns: int
    owner: str | None


def begun_calls(rows: Iterable[Row]) -> dict[str, Unfinished]:
    """What was begun and has no outcome among *rows*, by path. Each process names itself with the
    first that it begins; one that only waited at a call has not made it.
    """
    found: dict[str, Unfinished] = {}
    owner: str | None = None
    for row in rows:
        if row.kind == STEP:
            found.pop(row.path, None)
        elif row.kind == INTENT:
            if type(row.rest) is dict:  # else it says nothing, or was erased
                owner = row.rest.get("owner", owner)
            found[row.path] = Unfinished(row.type, row.started_ns, owner)
    return found


def said_of(
    project: str | None = None,
    submitter: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a caller says of a run, of what is said, as `Trace.about` has it.

    Raises:
        VMError: If it is none that a run has.
    """
    said: dict[str, Any] = {}
    if project is not None and checked_name("a project", project) != DEFAULT_PROJECT:
        said["project"] = project
    if submitter is not None:
        said["submitter"] = checked_text("a submitter", submitter)
    if labels is not None and (checked := checked_labels(labels)):
        said["labels"] = checked
    return said


def recorded_in(run: StoredRun, base_ns: int) -> Recorded:
    """The outcomes of a stored run, which has its rows, for a machine at its beginning."""
    steps = [row for row in run.rows if row.kind == STEP]
    # no record is made of those of which a machine takes only what they gave
    plain = {
        row.path: row
        for row in steps
        if row.rest is None and row.type == "tool" and row.status is SUCCESS
        if row.output is not UNSET and type(row.output) is not Erased
    }
    records = (row.record() for row in steps if row.path not in plain)
    return Recorded(records, base_ns, reword=True, plain=plain)


SAID = ("project", "submitter", "labels")


def parted(about: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`Trace.about` without what the caller said of the run, and that: so runs that differ in their
    labels only have the rest of it once in a store.
    """
    said = {name: about[name] for name in SAID if name in about}
    return {name: value for name, value in about.items() if name not in said}, said


def about_of(run: StoredRun) -> dict[str, Any]:
    """`Trace.about` of a stored run: the inverse of `parted`."""
    return {**run.about, **said_of(run.project, run.submitter, run.labels)}


def new_run(trace: Trace, document: dict[str, Any], created_ns: int) -> StoredRun:
    """A run that *trace* is of as it begins, as it is stored."""
    about, said = parted(trace.about)
    return StoredRun(
        trace.run_id,
        trace.program_name,
        trace.program_digest,
        created_ns,
        document,
        trace.inputs,
        about,
        trace.recording.given_seed,
        bytes.fromhex(trace.salt),
        parent=about.get("parent", {}).get("run_id"),
        **said,
    )


def columns_of(trace: Trace, ops: Iterable[Op], steps: int) -> dict[str, Any]:
    """How a run stands that *trace* is of, as it is stored beside its rows, which are *steps*; with
    its output where it has ended.
    """
    # to look at 10,000 records takes a tenth of what resuming them does
    asks = any(op.type == "llm" for op in ops)
    usage = trace.usage() if asks else LLMUsage(cost_usd=Decimal(0))
    columns: dict[str, Any] = {
        "status": trace.status.value,
        "steps": steps,
        "tokens": usage.total_tokens,
        "cost_usd": str(usage.cost_usd) if usage.cost_usd is not None else None,
        "error": trace.error,
        "error_kind": trace.error_kind,
    }
    if trace.status is not TraceStatus.SUSPENDED:
        finished_ns = trace.finished_ns + trace.recording.base_ns
        columns |= {"output": trace.output, "finished_ns": finished_ns}
    return columns


def trace_of(run: StoredRun, system: System = SYSTEM) -> Trace:
    """A stored run as a trace; *run* has its rows."""
    frames: dict[str, list[Any]] = {"": []}
    steps = (row for row in run.rows if row.kind == STEP)
    for row in (*steps, *(paused_rows(run) if run.status == SUSPENDED else ())):
        try:
            record = row.record()
        except StoreError as error:
            raise StoreError(f"run {run.run_id!r}: {error}") from error
        if record.extra is not None and record.extra.get("forked"):
            children = _children(frames, row.path, (row.rest or {}).get("size", 0))
            record = record._replace(extra={**record.extra, "children": children})
        frames.setdefault(row.frame, []).append(record)
    recording = Recording(
        run.program_name,
        run.program_digest,
        run.run_id,
        run.seed,
        run.started_ns,
        records=frames[""],
        salt=(run.salt or b"").hex(),
    )
    if run.salt is not None:
        recording.inputs, recording.about = run.inputs, about_of(run)
    recording.erased = run.salt is None
    recording.status = (
        TraceStatus.RUNNING if run.status in ("pending", "running") else TraceStatus(run.status)
    )
    recording.output, recording.error, recording.error_kind = run.output, run.error, run.error_kind
    recording.finished_ns = run.finished_ns
    recording.waiting = presented(run.waiting, system)
    return Trace(recording)


def paused_rows(run: StoredRun) -> list[Row]:
    """Those of the steps at which the run waited last; the last of them says how many they are."""
    rows = [row for row in run.rows if row.kind == PAUSED]
    count = (rows[-1].rest or {}).get("paused", 0) if rows else 0
    return rows[len(rows) - count :]


def timeless(row: Row) -> tuple[Any, ...]:
    return row.frame, row.path, row.type, row.status, row.request, row.output, row.rest


def _children(frames: dict[str, list[Any]], path: str, size: int) -> list[list[Any]]:
    """The records of the *size* frames of the fork at *path*, in declared order."""
    return [frames.get(f"{path}:{number}", []) for number in range(size)]


def reconciles(row: Row) -> bool:
    """Whether *row* is what a reconcile tool said."""
    return "/" in row.path and row.path.rpartition("/")[2].partition("#")[0] == "reconcile"
