"""How runs stand: as a word in a list, as JSON, and as lines with the commands that answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..store.records import ANSWERS
from .decide import begun, waiting_lines
from .text import safe, shown
from .times import moment

if TYPE_CHECKING:
    from ..run.durable.facts import Brief, Facts, Said
    from .places import Place


def standing(run: Brief) -> str:
    """The status of a run, for people: also what it waits for, and whether its process is gone."""
    if run["status"] == "suspended":
        kinds = [_kind(entry) for entry in run["waiting"]]
        return ", ".join(dict.fromkeys(kinds)) or "suspended"
    if run["status"] == "running" and not run["driven"]:
        return "left behind"
    return run["status"]


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


_LISTED = (
    "run_id program program_digest status waiting driven created created_ns finished_ns due_ns "
    "steps tokens cost_usd error parent project submitter labels erased"
).split()


def listed(run: Brief) -> dict[str, Any]:
    """A run in a list, as JSON."""
    told = {**run, "created": moment(run["created_ns"])}
    return {name: told[name] for name in _LISTED}


def whole(run: Facts) -> dict[str, Any]:
    """A run with all that is known of it, as JSON."""
    return listed(run) | {
        "inbox": [_message(message) for message in run["inbox"]],
        "trace": None if run["erased"] else run["trace"],
        "seal": run["seal"],
    }


def _message(message: Said) -> dict[str, Any]:
    return {
        "kind": message["kind"],
        "name": message["name"],
        **message["body"],
        "by": message["by"],
        "at": moment(message["created_ns"]),
    }


def standing_lines(run: Facts, place: Place) -> Iterator[str]:
    """What an unfinished run waits for, and what was said to it meanwhile; also what came after it
    had ended.
    """
    if run["status"] == "pending":
        yield f"it has not begun: {place.begins()}"
    elif run["status"] == "running":
        if run["driven"]:
            yield safe(f"under way in {run['owner']}")
        else:
            yield safe(f"its process is gone: {place.left(run['run_id'])}")
        yield from _under_way(run)
    elif run["status"] == "suspended":
        answered = {m["name"] for m in run["inbox"] if m["kind"] in ANSWERS}
        entries = [entry for entry in run["waiting"] if entry["path"] not in answered]
        yield from waiting_lines(
            run["run_id"], entries, place.given, run["due_ns"], keyed=place.keyed
        )
    for late in run["late"]:
        yield safe(
            f"late: {late['path']} ended {moment(late['created_ns'])}, when its run had another "
            f"owner; it gave:"
        )
        yield f"  {shown(late['gave'])}"
    if run["late"]:
        yield "what the run says of these calls is not what happened"
    for message in run["inbox"]:
        if message["late"]:
            continue
        by = f" by {message['by']}" if message["by"] else ""
        name = f" {message['name']}" if message["name"] else ""
        at = moment(message["created_ns"])
        yield safe(f"recorded: {message['kind']}{name}{by}, {at}")
    if run["status"] == "suspended" and run["inbox"]:
        yield safe(place.goes_on(run["run_id"]))


def _under_way(run: Facts) -> Iterator[str]:
    """Calls that were begun and have no outcome yet."""
    for call in run["begun"]:
        at = begun(call["began_ns"], call["process"])
        yield safe(f"  {call['path']}: {at}; its outcome is not recorded")
