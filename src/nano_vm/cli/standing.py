"""How stored runs stand: as a word in a list, as JSON, and as lines with the commands that answer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..records.secrecy import NOTHING_SECRET, REDACTED, Levels
from .decide import begun, waiting_lines
from .grammar import Options
from .stores import given_url
from .text import safe, shown
from .times import moment

if TYPE_CHECKING:
    from ..records.secrecy import Field
    from ..store.records import StoredRun


def standing(run: StoredRun, owners: Collection[str]) -> str:
    """The status of a run, for people: also what it waits for, and whether its process is gone."""
    if run.status == "suspended":
        kinds = [_kind(entry) for entry in run.waiting]
        return ", ".join(dict.fromkeys(kinds)) or "suspended"
    if run.status == "running" and not is_driven(run, owners):
        return "left behind"
    return run.status


def is_driven(run: StoredRun, owners: Collection[str]) -> bool:
    """Whether one of *owners*, which are alive, drives the run."""
    return run.owner in owners


def _kind(entry: Mapping[str, Any]) -> str:
    match entry["kind"]:
        case "approval":
            return f"approval by {entry.get('role')}"
        case "in_doubt":
            return "in doubt"
        case "effect":
            return "stopped before an effect"
        case _:
            return f"event {entry['event']}" if entry.get("event") else "timer"


def header(run: StoredRun, owners: Any) -> dict[str, Any]:
    """A run in a list, as JSON."""
    levels = Levels.of(run.about) or NOTHING_SECRET
    return {
        "run_id": run.run_id,
        "program": run.program_name,
        "program_digest": run.program_digest,
        "status": run.status,
        "waiting": [
            {key: entry.get(key) for key in ("path", "kind", "role", "event") if key in entry}
            for entry in run.waiting
        ]
        if run.status == "suspended"
        else [],
        "driven": is_driven(run, owners),
        "created": moment(run.created_ns),
        "created_ns": run.created_ns,
        "finished_ns": run.finished_ns or None,
        "due_ns": run.wake_ns,
        "steps": run.steps,
        "tokens": run.tokens,
        "cost_usd": run.cost_usd,
        "error": levels.any_error("show", run.error) if type(run.error) is str else None,
        "parent": run.parent,
        "project": run.project,
        "submitter": run.submitter,
        "labels": run.labels if type(run.labels) is dict else {},
        "erased": run.salt is None,
    }


def message_json(message: Any, *, hidden: bool = False) -> dict[str, Any]:
    """What was sent to a run; *hidden*, without what it said."""
    return {
        "kind": message.kind,
        "name": message.name,
        **(dict.fromkeys(message.body, REDACTED) if hidden else message.body),
        "by": message.by,
        "at": moment(message.created_ns),
    }


def standing_lines(run: StoredRun, owners: Any, options: Options) -> Iterator[str]:
    """What an unfinished run waits for, and what was said to it meanwhile; also what came after it
    had ended.
    """
    from ..records.secrecy import step_of_path
    from ..run.inbox import presented
    from ..store.records import late_outcomes

    levels = Levels.of(run.about) or NOTHING_SECRET
    url = given_url(options)
    if run.status == "pending":
        yield f"it has not begun: nano-vm work --tools ... begins it{url and f', with{url}'}"
    elif run.status == "running":
        if is_driven(run, owners):
            yield safe(f"under way in {run.owner}")
        else:
            yield safe(f"its process is gone: nano-vm resume {run.run_id} --tools ...{url}")
        yield from _under_way(run)
    elif run.status == "suspended":
        answered = {m.name for m in run.inbox if m.kind in ("approve", "reject", "resolve")}
        open_ = [entry for entry in run.waiting if entry["path"] not in answered]
        entries = [levels.waiting("show", entry) for entry in presented(open_)]
        yield from waiting_lines(run.run_id, entries, url, run.wake_ns)
    late = late_outcomes(run)
    for message in late:
        field: Field = "output" if "output" in message.body else "error"
        gave = levels.shown("show", step_of_path(message.name), field, message.body.get(field))
        yield safe(
            f"late: {message.name} ended {moment(message.created_ns)}, when its run had another "
            f"owner; it gave:"
        )
        yield f"  {shown(gave)}"
    if late:
        yield "what the run says of these calls is not what happened"
    for message in run.inbox:
        if message in late:
            continue
        by = f" by {message.by}" if message.by else ""
        name = f" {message.name}" if message.name else ""
        yield safe(f"recorded: {message.kind}{name}{by}, {moment(message.created_ns)}")
    if run.status == "suspended" and run.inbox:
        yield safe(f"it goes on by nano-vm work, or nano-vm resume {run.run_id} --tools ...{url}")


def _under_way(run: StoredRun) -> Iterator[str]:
    """Calls that were begun and have no outcome yet."""
    from ..language.semantics import CALLS
    from ..run.durable.stored import begun_calls
    from ..run.inbox import process_of

    for path, call in begun_calls(run.rows).items():
        if call.type in CALLS:
            process = process_of(call.owner) if call.owner is not None else None
            yield safe(f"  {path}: {begun(call.began_ns, process)}; its outcome is not recorded")
