"""What a person is asked, on a screen: all of it, or nothing that could be decided by it.

What a run waits for comes in; out go lines in which nothing hides (`nano_vm.visible`), and the
commands that answer. The commands stand only below what was shown whole. On a terminal a line is
broken here and not by the terminal, so that no value can be as long as to make what looks like a
line of its own.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..machine.pending import shown_digest
from ..records.secrecy import REDACTED
from ..values import canonical
from ..visible import exact, name, written
from ..visible import lines as value_lines
from .text import safe
from .times import moment

WHOLE_CHARS = 20_000
"""What is asked is shown whole up to here, some ten screens. Nobody reads more in a terminal and
decides by it.
"""

PART_CHARS = 1_000
"""What is shown of each value where it is too much."""

CONTINUED = "  | "
"""What a broken line goes on with; no line of ours begins so."""


def waiting_lines(
    run_id: str,
    waiting: Sequence[Mapping[str, Any]],
    url: str,
    wake_ns: int | None = None,
    *,
    keyed: bool = False,
) -> Iterator[str]:
    """What a run waits for, and the commands that answer it: *url* is the option that names where
    it is kept. Who decides is named in them, but where a key says it (*keyed*).
    """
    for entry in waiting:
        asked, whole = asked_lines(entry)
        yield from asked
        if whole:
            if entry["kind"] == "approval" and entry.get("shown") != REDACTED:
                yield f"  shown {shown_digest(entry)}"
            yield from (f"  {command}{url}" for command in _commands(run_id, entry, keyed))
        else:
            yield "  it is too much for a screen, and nothing is to be decided by a part of it;"
            yield f"  to see all of it, with its digest: nano-vm show {run_id} --json{url}"
    if wake_ns is not None:
        yield f"due {moment(wake_ns)}"


def asked_lines(entry: Mapping[str, Any]) -> tuple[list[str], bool]:
    """What is asked, as lines, and whether they say all of it."""
    heading, values = _asked(entry)
    if sum(len(label) + _length(value) for label, value in values) <= WHOLE_CHARS:
        found = [line for label, value in values for line in value_lines(f"  {label}", value)]
        if sum(map(len, found)) <= WHOLE_CHARS:
            return [
                line for text in (heading, *found, *_times(entry)) for line in broken(text)
            ], True
    found = [f"  {safe(label[:PART_CHARS])}{_part(value)}" for label, value in values]
    return [line for text in (heading, *found, *_times(entry)) for line in broken(text)], False


def _asked(entry: Mapping[str, Any]) -> tuple[str, list[tuple[str, Any]]]:
    """A heading, and labels with values."""
    path = _place(entry["path"])
    match entry["kind"]:
        case "approval":
            return f"waits at {path} for approval by {name(str(entry.get('role')))}:", _entries(
                entry.get("show")
            )
        case "effect":
            heading = (
                f"stopped before {path}: the call has an effect, and this fork makes none by itself"
            )
            return heading, [("tool: ", entry.get("tool")), *_arguments(entry.get("request"))]
        case "in_doubt":
            heading = f"in doubt at {path}: the call was begun, and what became of it is unknown"
            return heading, [
                ("tool: ", entry.get("tool")),
                *_arguments(entry.get("arguments")),
                ("effect key: ", entry.get("effect_key")),
            ]
        case _ if entry.get("event"):
            values = [
                (f"with {name(str(key))} = ", value)
                for key, value in (entry.get("match") or {}).items()
            ]
            if entry.get("output_schema") is not None:
                values.append(("whose payload fits ", entry["output_schema"]))
            return f"waits at {path} for event {name(str(entry['event']))}", values
        case _:
            rest = {
                key: value
                for key, value in entry.items()
                if key not in ("path", "step_id", "kind", "shown")
            }
            return f"waits at {path} for a time:", _entries(rest)


def _arguments(found: Any) -> list[tuple[str, Any]]:
    """The arguments of a call; what stands in their place where they are hidden."""
    if isinstance(found, Mapping):
        return [(f"argument {name(str(key))}: ", value) for key, value in found.items()]
    return [] if found is None else [("arguments: ", found)]


def _entries(shown: Any) -> list[tuple[str, Any]]:
    """What an approval shows, by its parts. Items of a list have a number, which is no name that a
    key can have.
    """
    if isinstance(shown, Mapping) and shown:
        return [(f"{name(str(key))}: ", value) for key, value in shown.items()]
    if isinstance(shown, list) and shown:
        return [(f"[{number}]: ", value) for number, value in enumerate(shown)]
    return [("", shown)]


def _times(entry: Mapping[str, Any]) -> Iterator[str]:
    """Until when it can be decided, and when the call in doubt was begun and by whom, where that is
    known.
    """
    if entry.get("began_ns") is not None:
        yield f"  {begun(entry['began_ns'], entry.get('process'))}"
    if entry.get("deadline_ns") is not None:
        yield f"  until {moment(entry['deadline_ns'])}"


def begun(began_ns: int, process: Mapping[str, Any] | None) -> str:
    """When a call was begun, by which process, and whether that lives."""
    if process is None:
        return f"begun {moment(began_ns)}"
    lives = {True: "which is alive", False: "which is gone"}.get(
        process["alive"], "which cannot be seen from here"
    )
    return (
        f"begun {moment(began_ns)} by process {process['pid']} on "
        f"{safe(str(process['host']))}, {lives}"
    )


def _commands(run_id: str, entry: Mapping[str, Any], keyed: bool) -> Iterator[str]:
    path = _word(entry["path"], "PATH")
    by = "" if keyed else " --by NAME"
    match entry["kind"]:
        case "approval" if entry.get("shown") != REDACTED:  # for who may decide it
            yield f"nano-vm approve {run_id} {path} --shown {shown_digest(entry)}{by}"
            yield f"nano-vm reject {run_id} {path}{by} --reason TEXT"
        case "in_doubt" | "effect":
            yield f"nano-vm resolve {run_id} {path} --done JSON | --retry | --fail REASON"
        case _ if entry.get("event"):
            yield f"nano-vm event {run_id} {_word(str(entry['event']), 'EVENT')} JSON"


def _word(text: str, otherwise: str) -> str:
    """*text* as a word of a command; *otherwise* where it holds what is not plainly seen."""
    return shlex.quote(text) if _is_plain(text) else otherwise


def _is_plain(text: str) -> bool:
    return written(text) == f'"{text}"' and exact(text) is None


def _place(path: str) -> str:
    """A path; in quotes where it could be taken for more than one word."""
    return path if _is_plain(path) and " " not in path else written(path)


def _length(value: Any) -> int:
    return len(value) if type(value) is str else len(canonical(value))


def _part(value: Any) -> str:
    text = written(
        value[:PART_CHARS]
        if type(value) is str
        else canonical(value)[:PART_CHARS].decode(errors="ignore")
    )
    return f"{text[:-1]}…"


def broken(line: str) -> Iterator[str]:
    """*line* in as many as the terminal's width makes of it; as it is where stdout is none."""
    if not sys.stdout.isatty():
        yield line
        return
    width = max(shutil.get_terminal_size().columns, 20)
    part, used = "", 0
    for char in line:
        cells = _cells(char)
        if used + cells > width:
            yield part
            part, used = CONTINUED, len(CONTINUED)
        part += char
        used += cells
    yield part


def _cells(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
