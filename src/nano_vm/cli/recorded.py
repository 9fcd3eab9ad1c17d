"""Recorded runs that the command line names: a trace, a run of an exported file, a run of a store."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StoreError, TraceError
from ..records.trace import Trace
from ..replay import subject_of
from ..store.transfer import read_export
from .faults import Failure, UsageFault
from .grammar import Options
from .sources import load
from .stdin import STDIN, standard_input
from .stores import VARIABLE, named, run_id_of, store_of

if TYPE_CHECKING:
    from ..replay import Subject
    from ..store.records import StoredRun
    from .sources import Loaded


def load_runs(name: str, options: Options) -> list[Trace | StoredRun]:
    """The runs that *name* is: those of a file (a trace, or an export), or one of the store.

    Raises:
        UsageFault: If there is nothing of that name.
        Failure: If it is no run, or was changed.
    """
    if name != STDIN and not os.path.exists(name):
        return [_from_store(name, options)]
    try:
        data = standard_input("the run").read() if name == STDIN else Path(name).read_bytes()
    except OSError as error:
        raise UsageFault(f"cannot read {name}: {error.strerror}") from None
    return _exported(name, data) if _is_export(data) else [_trace(name, data)]


def load_run(name: str, options: Options) -> Trace | StoredRun:
    """As `load_runs`, where it must be one; ``FILE#RUN`` names one of an exported file."""
    file, mark, run_id = name.rpartition("#")
    if mark and not os.path.exists(name) and os.path.exists(file):
        found = [run for run in load_runs(file, options) if run.run_id == run_id]
        if not found:
            raise Failure(f"{file}: it has no run {run_id!r}")
        return found[0]
    runs = load_runs(name, options)
    if len(runs) != 1:
        some = ", ".join(run.run_id for run in runs[:5])
        raise Failure(
            f"{name}: it has {len(runs)} runs ({some}{', ...' * (len(runs) > 5)}); name one: "
            f"{name}#RUN"
        )
    return runs[0]


def _from_store(run_id: str, options: Options) -> StoredRun:
    try:
        named(options.store)
    except UsageFault:
        raise UsageFault(
            f"there is no file {run_id!r}; for a run of a store give --store URL or set {VARIABLE}"
        ) from None
    with store_of(options, read=True) as store:
        return store.load(run_id_of(store, run_id))


def _is_export(data: bytes) -> bool:
    first, _, _ = data.partition(b"\n")
    try:
        line = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(line, dict) and line.get("record") == "export"


def _exported(name: str, data: bytes) -> list[Trace | StoredRun]:
    try:
        return list(read_export(io.StringIO(data.decode())))
    except (StoreError, UnicodeDecodeError) as error:
        raise Failure(f"{name}: {error}") from None


def _trace(name: str, data: bytes) -> Trace:
    try:
        return Trace.from_json(data)
    except (TraceError, ValueError, RecursionError) as error:
        raise Failure(f"{name}: {error}") from None


def subject_named(run: Trace | StoredRun, options: Options) -> Subject:
    """A run with its program: that of ``--program``, or the one that is stored with it."""
    loaded = program_named(options)
    if loaded is None and isinstance(run, Trace):
        raise UsageFault("a trace does not hold its program; give it: --program FILE")
    if loaded is None:
        return subject_of(run)
    return subject_of(run, loaded.program, loaded.programs)


_NAMED = re.compile(r"[A-Za-z_][\w.-]*=")


def program_named(options: Options) -> Loaded | None:
    """What ``--program FILE`` and ``--program NAME=FILE`` give."""
    plain = [
        entry for entry in options.program_file if not _NAMED.match(entry) or os.path.exists(entry)
    ]
    named = [entry for entry in options.program_file if entry not in plain]
    if len(plain) > 1:
        raise UsageFault(
            f"--program names the program twice: {plain[0]!r} and {plain[1]!r}; those that it "
            f"calls are NAME=FILE"
        )
    if not plain:
        if named:
            raise UsageFault(
                "--program NAME=FILE is a called program; the program itself is --program FILE"
            )
        return None
    return load(plain[0], named)
