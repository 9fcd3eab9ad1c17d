"""What people and the outside say to a stored run: recorded here, answered by who drives the run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from ..run.inbox import account
from ..values import parse_json, short
from .decide import asked_lines
from .faults import OK, Failure, UsageFault
from .grammar import Options
from .inputs import text_of
from .output import emit_json, on_terminal, say
from .text import safe

ANY_RUN = "the run that waits for its values, now or later"


def recorded(
    options: Options,
    run_id: str | None,
    what: str | None,
    name: str = "",
    *,
    how: str,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Say that a word was recorded, and *how* the run goes on: nothing where that is empty. *what*
    is None for an event that was recorded before, *run_id* for one that finds its run; the JSON has
    *more* besides.
    """
    if options.json:
        by = getattr(options, "by", None)
        emit_json(
            {
                **({"run_id": run_id} if run_id is not None else {}),
                "recorded": what,
                "name": name,
                **({"by": by} if by is not None else {}),
                **more,
            }
        )
        return OK
    if what is None:
        say(safe(f"event {name} of id {options.id} was recorded before; nothing was changed"))
        return OK
    at = f" {name}" if name else ""
    whom = f"run {run_id}" if run_id is not None else ANY_RUN
    say(safe(f"recorded: {what}{at}, for {whom}"))
    if how:
        say(safe(how))
    return OK


def principal(options: Options) -> str:
    """Who decides: whoever is named; on a terminal, the account of who sits there."""
    if options.by is not None:
        return str(options.by)
    if not on_terminal():
        raise UsageFault("the following arguments are required: --by NAME, who decides")
    return account()


def asks_here(options: Options, run_id: str, where: str) -> bool:
    """Whether an approval is asked about on this terminal, as nobody says what was seen; *where* are
    the options that name the run's place.

    Raises:
        UsageFault: If there is nobody to ask.
    """
    asks = options.shown is None and not options.json and on_terminal()
    if options.shown is None and not asks:
        raise UsageFault(
            f"the following arguments are required: --shown DIGEST, as nano-vm show {run_id}{where} "
            f"prints it; on a terminal it can be left out, and the request is shown and asked about"
        )
    return asks


def agreed(run_id: str, entry: Mapping[str, Any], by: str, where: str) -> bool:
    """Show what is asked, all of it, and ask whether it is approved."""
    if "kind" not in entry:
        raise Failure(
            f"run {run_id!r} asks no approval at {entry['path']!r}; nano-vm show {run_id}{where} "
            f"says how it stands"
        )
    lines, whole = asked_lines(entry)
    for line in lines:
        say(line)
    if not whole:
        raise Failure(
            f"it is too much for a screen: read all of it with nano-vm show {run_id} --json{where}, "
            f"and approve it by --shown"
        )
    print(f"approve it, as {safe(by)}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def asked_at(
    waiting: Iterable[dict[str, Any]], run_id: str, path: str | None, where: str
) -> dict[str, Any]:
    """What of *waiting* is asked at *path*, or the one thing that is; where nothing is, only the
    path: what is wrong is for the inbox to say.
    """
    asked = [entry for entry in waiting if entry["kind"] == "approval"]
    if path is not None:
        return next((entry for entry in asked if entry["path"] == path), {"path": path})
    if len(asked) == 1:
        return asked[0]
    if asked:
        paths = ", ".join(entry["path"] for entry in asked)
        raise UsageFault(f"run {run_id!r} asks at several places: {paths}; name one")
    raise Failure(
        f"run {run_id!r} asks no approval; nano-vm show {run_id}{where} says how it stands"
    )


def payload(text: str | None, what: str) -> Any:
    """JSON, or ``@FILE`` that holds it."""
    if text is None:
        return None
    if text.startswith("@"):
        text = text_of(text[1:], what)
    try:
        return parse_json(text)
    except ValueError as error:
        raise UsageFault(
            f"{what} is JSON, not {short(text)}: {error}; a string has quotes: '\"text\"'"
        ) from None
