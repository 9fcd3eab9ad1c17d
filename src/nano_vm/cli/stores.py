"""Stores that the command line names, the runs in them, and what runs wait for."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError, UnknownRun
from .faults import Failure, UsageFault
from .grammar import Options

if TYPE_CHECKING:
    from ..store.records import StoredRun
    from ..store.sql.store import SqlStore

VARIABLE = "NANO_VM_STORE"

SHOWN_IDS = 5
"""Runs that a short id could mean and that are named."""

# --- which store ----------------------------------------------------------------------------------


def named(url: str | None) -> str:
    """The URL that the command line or the environment gives."""
    url = url or os.environ.get(VARIABLE)
    if not url:
        raise UsageFault(
            f"which store? Give --store sqlite:///runs.db or --store postgresql://..., or set "
            f"{VARIABLE}"
        )
    return url


def opened(url: str, *, there: bool = False, read: bool = False, accept: bool = False) -> SqlStore:
    """The store at a URL; with *there* a file is not made, with *read* nothing is changed, with
    *accept* a missing log is no fault.

    Raises:
        UsageFault: If it can not be opened.
    """
    from ..store.protocol import open_store

    try:
        path = _path(url)
        if there and path is not None and not Path(path).exists():
            raise UsageFault(f"--store: there is no database {path}")
        return open_store(url, read_only=read, accept=accept)  # type: ignore[return-value]
    except StoreError as error:
        raise UsageFault(f"--store: {error}") from None


def _path(url: str) -> str | None:
    """The file that a URL names, or None where it is of a server.

    Raises:
        UsageFault: If it names no file: a database in memory begins empty and ends with the
        command.
    """
    if not url.startswith("sqlite:"):
        return None
    match = re.match(r"sqlite:///([^?]*)", url)
    path = match[1] if match else ""
    if path in ("", ":memory:"):
        raise UsageFault(
            f"--store: {url} is a database in memory: it begins empty and ends with this command; "
            f"name a file: sqlite:///runs.db"
        )
    return path


@contextmanager
def store_of(
    options: Options, *, there: bool = True, read: bool = False, accept: bool = False
) -> Iterator[SqlStore]:
    """The store that a command is about, closed afterwards; as `opened`."""
    from .keys import signing_key

    key = signing_key(options)
    store = opened(named(options.store), there=there, read=read, accept=accept)
    store.signer = key
    try:
        yield store
    finally:
        store.close()


def given_url(options: Options) -> str:
    """`` --store URL``, for a command that is shown; nothing where the environment says it."""
    return f" --store {shlex.quote(options.store)}" if options.store else ""


def on_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


# --- which run ------------------------------------------------------------------------------------


def run_id_of(store: SqlStore, text: str) -> str:
    """The id of the run that *text* is, or is the beginning of.

    Raises:
        Failure: If there is none, or are several.
    """
    found = [text] if _is_there(store, text) else ids_from(store, text, SHOWN_IDS + 1)
    if len(found) == 1:
        return found[0]
    if not found:
        raise Failure(
            f"there is no run {text!r} in this store{_gone(store, text)}; nano-vm runs lists them"
        )
    some = ", ".join(found[:SHOWN_IDS]) + (", ..." if len(found) > SHOWN_IDS else "")
    raise Failure(f"{text!r} begins the id of several runs: {some}")


def _gone(store: SqlStore, run_id: str) -> str:
    """What receipts say of a run that is not there."""
    found = store.receipts(run_id)
    if not found:
        return ""
    last = found[-1]
    when = f"receipt {last.number}, {moment(last.entry.at_ns)}"
    if last.entry.kind == "deleted":
        return f": it was deleted by 'store prune' ({when})"
    return (
        f", though it {'was erased' if last.entry.kind == 'erased' else 'has ended'} ({when}): "
        f"it was taken away"
    )


def _is_there(store: SqlStore, run_id: str) -> bool:
    try:
        store.key_of(run_id)
    except UnknownRun:
        return False
    return True


def ids_from(store: SqlStore, beginning: str, limit: int) -> list[str]:
    """Ids that begin with a text."""
    with store.database.reading() as connection:
        found = connection.all(
            "SELECT run_id FROM nano_runs WHERE substr(run_id, 1, ?) = ? ORDER BY run_id LIMIT ?",
            len(beginning),
            beginning,
            limit,
        )
    return [run_id for (run_id,) in found]


# --- how it stands --------------------------------------------------------------------------------


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


# --- times ----------------------------------------------------------------------------------------

FIRST_NS, LAST_NS = -62_135_596_800 * 10**9, 253_402_300_799 * 10**9
"""The years 1 and 9999, as nanoseconds since the epoch."""

_AGE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhdw])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def age_seconds(text: str) -> float:
    """``30d``, ``12h``, ``15m``, ``90s``, ``2w`` in seconds.

    Raises:
        ValueError: If it is none of these.
    """
    match = _AGE.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no time span; write 30d, 12h, 15m or 90s")
    return float(match[1]) * _UNITS[match[2]]


def time_ns(text: str) -> int:
    """A moment, as nanoseconds since the epoch: ``2h`` ago, or ``2027-01-31T12:00``, in UTC unless
    it says otherwise.

    Raises:
        ValueError: If it is neither.
    """
    if _AGE.match(text):
        return time.time_ns() - int(age_seconds(text) * 1e9)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time; write 2h (ago), 2027-01-31 or 2027-01-31T12:00"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1e9)


def moment(ns: int) -> str:
    """A time for people."""
    if not FIRST_NS <= ns <= LAST_NS:
        return "at no time that a calendar has"
    return f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def age(ns: int) -> str:
    """How long ago something was, for people."""
    passed = max(time.time_ns() - ns, 0) / 1e9
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if passed >= 2 * size:
            return f"{passed / size:.0f}{unit}"
    return f"{passed:.0f}s"
