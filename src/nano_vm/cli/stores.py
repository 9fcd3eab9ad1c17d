"""The store that the command line names, and the runs in it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import StoreError
from .faults import Failure, NoRun, UsageFault
from .grammar import Options
from .times import moment

if TYPE_CHECKING:
    from ..store.protocol import Archive

VARIABLE = "NANO_VM_STORE"

SHOWN_IDS = 5
"""Runs that a short id could mean and that are named."""


def named(url: str | None) -> str:
    """The URL that the command line or the environment gives."""
    url = url or os.environ.get(VARIABLE)
    if not url:
        raise UsageFault(
            f"which store? Give --store sqlite:///runs.db or --store postgresql://..., or set "
            f"{VARIABLE}"
        )
    return url


def opened(
    url: str,
    *,
    there: bool = False,
    read: bool = False,
    accept: bool = False,
    upgrade: bool = False,
) -> Archive:
    """The store at a URL; with *there* a file is not made, with *read* nothing is changed, with
    *accept* a missing log is no fault, with *upgrade* tables of an older version are made those of
    this one.

    Raises:
        UsageFault: If it cannot be opened.
    """
    from ..store.protocol import open_store

    try:
        if there:
            existing(url)
        _path(url)
        return open_store(url, read_only=read, accept=accept, upgrade=upgrade)
    except StoreError as error:
        raise UsageFault(f"--store: {error}") from None


def existing(url: str) -> None:
    """Raises `UsageFault` where the file that a URL names is not there."""
    path = _path(url)
    if path is not None and not os.path.exists(path):
        raise UsageFault(f"--store: there is no database {path}")


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
    options: Options,
    *,
    there: bool = True,
    read: bool = False,
    accept: bool = False,
    upgrade: bool = False,
) -> Iterator[Archive]:
    """The store that a command is about, closed afterwards; as `opened`."""
    from .keys import signing_key

    key = signing_key(options)
    store = opened(named(options.store), there=there, read=read, accept=accept, upgrade=upgrade)
    store.signer = key
    try:
        yield store
    finally:
        store.close()


def store_if_named(options: Options) -> Archive | None:
    """The store of a command that works without one, too; the caller closes it.

    Raises:
        UsageFault: If it cannot be opened.
    """
    url = options.store or os.environ.get(VARIABLE)
    return opened(url) if url else None


def given_url(options: Options) -> str:
    """`` --store URL``, for a command that is shown; nothing where the environment says it."""
    return f" --store {shlex.quote(options.store)}" if options.store else ""


def run_id_of(store: Archive, text: str) -> str:
    """The id of the run that *text* is, or is the beginning of.

    Raises:
        NoRun: If there is none.
        Failure: If there are several.
    """
    found = [text] if store.has(text) else store.ids_starting_with(text, SHOWN_IDS + 1)
    if len(found) == 1:
        return found[0]
    if not found:
        raise NoRun(
            f"there is no run {text!r} in this store{_gone(store, text)}; nano-vm runs lists them"
        )
    some = ", ".join(found[:SHOWN_IDS]) + (", ..." if len(found) > SHOWN_IDS else "")
    raise Failure(f"{text!r} begins the id of several runs: {some}")


def _gone(store: Archive, run_id: str) -> str:
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
