"""What people and the outside say to a stored run: recorded here, answered by who drives the run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..run.inbox import Inbox, account
from ..values import parse_json, short
from .faults import OK, Failure, UsageFault
from .grammar import Options
from .inputs import text_of
from .output import emit_json, on_terminal, say
from .stores import given_url, run_id_of, store_of
from .text import safe

if TYPE_CHECKING:
    from ..store.protocol import Archive


@contextmanager
def speaking(options: Options) -> Iterator[tuple[Inbox, Archive, str]]:
    """Where words are recorded, the store, and the id of the run that they are about."""
    with store_of(options) as store:
        yield Inbox(store, None, time), store, run_id_of(store, options.run)


def recorded(
    options: Options, run_id: str, what: str, name: str = "", how: str | None = None
) -> int:
    if options.json:
        by = getattr(options, "by", None)
        emit_json(
            {
                "run_id": run_id,
                "recorded": what,
                "name": name,
                **({"by": by} if by is not None else {}),
            }
        )
        return OK
    at = f" {name}" if name else ""
    say(safe(f"recorded: {what}{at}, for run {run_id}"))
    say(
        safe(
            how
            or f"it goes on by nano-vm work, or nano-vm resume {run_id} --tools "
            f"...{given_url(options)}"
        )
    )
    return OK


def principal(options: Options) -> str:
    """Who decides: whoever is named; on a terminal, the account of who sits there."""
    if options.by is not None:
        return str(options.by)
    if not on_terminal():
        raise UsageFault("the following arguments are required: --by NAME, who decides")
    return account()


def asked_at(inbox: Inbox, run_id: str, path: str | None) -> dict[str, Any]:
    """What is asked at *path*, or the one thing that is; where nothing is, only the path: what is
    wrong is for the inbox to say.
    """
    asked = [entry for entry in inbox.waiting(run_id) if entry["kind"] == "approval"]
    if path is not None:
        return next((entry for entry in asked if entry["path"] == path), {"path": path})
    if len(asked) == 1:
        return asked[0]
    if asked:
        paths = ", ".join(entry["path"] for entry in asked)
        raise UsageFault(f"run {run_id!r} asks at several places: {paths}; name one")
    raise Failure(f"run {run_id!r} asks no approval; nano-vm show {run_id} says how it stands")


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
