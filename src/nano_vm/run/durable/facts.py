"""How a stored run stands, as plain data: what commands print of it, and what a server answers that
has the run for them.

A stored run and the owners that are alive come in; facts go out, of what was said in the run those
alone that a receiver accepts. Times are nanoseconds since 1970. Whether a process is alive is
looked at here, so this runs where the store is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from typing_extensions import TypedDict  # of typing, pydantic reads it from Python 3.12 on

from ...language.semantics import CALLS
from ...records.digest import TRACE_FORMAT
from ...records.record import flattened, step_of
from ...records.secrecy import (
    NOTHING_SECRET,
    REDACTED,
    WAITED_FOR,
    Field,
    Levels,
    Receiver,
    shown_to,
)
from ...records.trace import Trace, shown_trace
from ...store.records import RUNNING, SUSPENDED, Message, StoredRun, late_outcomes
from ..inbox import DECIDED, presented, process_of
from .stored import begun_calls, trace_of

_BRIEF = ("path", "kind", "role", "event")
"""Of what a run waits for, what stands in a list."""

_SAID = WAITED_FOR | {"show", "args", "error", "match", "output_schema", "shown"}
"""Of what a run waits for, what comes from inputs, models and tools, or is a digest of that."""


class Brief(TypedDict):
    """A run in a list. ``driven`` says whether the process that runs it is alive."""

    run_id: str
    program: str
    program_digest: str
    status: str
    waiting: list[dict[str, Any]]
    driven: bool
    created_ns: int
    finished_ns: int | None
    due_ns: int | None
    steps: int
    tokens: int
    cost_usd: str | None
    error: str | None
    parent: str | None
    project: str
    submitter: str | None
    labels: dict[str, str]
    erased: bool


class Said(TypedDict):
    """A word of a person or from outside that the run has not used."""

    kind: str
    name: str
    body: dict[str, Any]
    by: str | None
    created_ns: int
    late: bool


class Begun(TypedDict):
    """A call that was begun and has no outcome yet; ``process`` is that which began it."""

    path: str
    began_ns: int
    process: dict[str, Any] | None


class Late(TypedDict):
    """What a call gave whose run had another owner by then, so that the run says something else."""

    path: str
    created_ns: int
    gave: Any


class Header(Brief):
    """A run without its steps. ``waiting`` is all that it waits for; ``document`` has its program
    and those that it calls.
    """

    owner: str | None
    document: dict[str, Any]


class Facts(Header):
    """A run with all that is known of how it stands. ``trace`` is the JSON form of its trace, with
    the records alone where its values were erased.
    """

    inbox: list[Said]
    late: list[Late]
    begun: list[Begun]
    trace: dict[str, Any]
    seal: str | None


def brief(run: StoredRun, owners: Collection[str], receiver: Receiver) -> Brief:
    """*run* in a list, as *receiver* is shown it."""
    levels = Levels.of(run.about) or NOTHING_SECRET
    waiting = run.waiting if run.status == SUSPENDED else []
    return {
        "run_id": run.run_id,
        "program": run.program_name,
        "program_digest": run.program_digest,
        "status": run.status,
        "waiting": [{key: entry[key] for key in _BRIEF if key in entry} for entry in waiting],
        "driven": run.owner in owners,
        "created_ns": run.created_ns,
        "finished_ns": run.finished_ns or None,
        "due_ns": run.wake_ns,
        "steps": run.steps,
        "tokens": run.tokens,
        "cost_usd": run.cost_usd,
        "error": levels.any_error(receiver, run.error) if type(run.error) is str else None,
        "parent": run.parent,
        "project": run.project,
        "submitter": run.submitter,
        "labels": run.labels if type(run.labels) is dict else {},
        "erased": run.salt is None,
    }


def header_of(run: StoredRun, owners: Collection[str], receiver: Receiver) -> Header:
    """*run*, which needs no rows, as *receiver* is shown it."""
    levels = Levels.of(run.about) or NOTHING_SECRET
    waiting = presented(run.waiting) if run.status == SUSPENDED else []
    return {
        **brief(run, owners, receiver),
        "waiting": [levels.waiting(receiver, entry) for entry in waiting],
        "owner": run.owner,
        "document": run.document,
    }


def facts_of(
    run: StoredRun,
    owners: Collection[str],
    receiver: Receiver,
    *,
    content: bool = True,
    asked: bool = True,
) -> Facts:
    """*run*, which has its rows, as *receiver* is shown it. Without *content* nothing of what was
    said in it goes out, but, with *asked*, what it asks of people.
    """
    erased = run.salt is None
    if erased:
        run.inputs, run.about = {}, {}
    header = header_of(run, owners, receiver)
    whole = trace_of(run)
    levels = Levels.of(run.about)
    if not content:
        levels = _withheld(run, whole)
        header["waiting"] = [
            entry if asked and entry["kind"] in DECIDED else _unsaid(entry)
            for entry in header["waiting"]
        ]
    trace = shown_to(receiver, whole, levels)
    if not content:
        trace.recording.waiting = header["waiting"]
    late = late_outcomes(run)
    levels = levels or NOTHING_SECRET
    hidden = levels.hides(receiver, levels.known)
    facts: Facts = {
        **header,
        "inbox": [_said(message, message in late, hidden) for message in run.inbox],
        "late": [_late(message, levels, receiver) for message in late],
        "begun": list(_begun(run)),
        "trace": {"records": list(trace.lines())} if erased else trace.to_dict(),
        "seal": run.seal,
    }
    if not content:
        facts["error"] = trace.error
        for name in ("digest", "salt"):  # by it, or the seal with it, a guess is seen to be right
            facts["trace"].pop(name, None)
    return facts


def _withheld(run: StoredRun, trace: Trace) -> Levels:
    step_ids = {record.step.step_id for record in flattened(trace.recording.full())}
    step_ids |= {step_of(message.name) for message in run.inbox}
    return Levels.all_hidden(run.inputs, [*step_ids, ""])


def _unsaid(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: REDACTED if name in _SAID else value for name, value in entry.items()}


def _said(message: Message, late: bool, hidden: bool) -> Said:
    return {
        "kind": message.kind,
        "name": message.name,
        "body": dict.fromkeys(message.body, REDACTED) if hidden else message.body,
        "by": message.by,
        "created_ns": message.created_ns,
        "late": late,
    }


def _late(message: Message, levels: Levels, receiver: Receiver) -> Late:
    field: Field = "output" if "output" in message.body else "error"
    gave = levels.shown(receiver, step_of(message.name), field, message.body.get(field))
    return {"path": message.name, "created_ns": message.created_ns, "gave": gave}


def _begun(run: StoredRun) -> Iterator[Begun]:
    """Calls of a run under way that have no outcome yet."""
    if run.status != RUNNING:
        return
    for path, call in begun_calls(run.rows).items():
        if call.type in CALLS:
            process = process_of(call.owner) if call.owner is not None else None
            yield {"path": path, "began_ns": call.began_ns, "process": process}


def shown(facts: Facts) -> Trace:
    """The run of *facts* as a trace."""
    data = {"format": TRACE_FORMAT, "salt": "", "digest": "", "seal": "", **facts["trace"]}
    trace = shown_trace(data)
    trace.recording.erased = facts["erased"]
    return trace
