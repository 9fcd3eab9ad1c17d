"""``nano-vm replay``, ``verify``, ``diff`` and ``fork``: recorded runs, from a trace file, an
exported file or a store.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError
from ..language.program import Program
from ..records.trace import Trace, TraceError
from ..values import parse_json, short
from .faults import Failure, UsageFault
from .grammar import Options
from .text import FAILED, OK, emit, emit_json, note, safe, safe_json, say

if TYPE_CHECKING:
    from ..replay import Diff, Subject
    from ..store.records import StoredRun
    from .sources import Loaded


# --- where runs come from -------------------------------------------------------------------------


def load_runs(name: str, options: Options) -> list[Trace | StoredRun]:
    """The runs that *name* is: those of a file (a trace, or an export), or one of the store.

    Raises:
        UsageFault: If there is nothing of that name.
        Failure: If it is no run, or was changed.
    """
    if name != "-" and not Path(name).exists():
        return [_from_store(name, options)]
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UsageFault(f"can not read {name}: {error.strerror}") from None
    return _exported(name, data) if _is_export(data) else [_trace(name, data)]


def load_run(name: str, options: Options) -> Trace | StoredRun:
    """As `load_runs`, where it must be one; ``FILE#RUN`` names one of an exported file."""
    file, mark, run_id = name.rpartition("#")
    if mark and not Path(name).exists() and Path(file).exists():
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
    from .stores import VARIABLE, named, run_id_of, store_of

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
    from ..store.transfer import read_export

    try:
        return list(read_export(io.StringIO(data.decode())))
    except (StoreError, UnicodeDecodeError) as error:
        raise Failure(f"{name}: {error}") from None


def _trace(name: str, data: bytes) -> Trace:
    try:
        return Trace.from_json(data)
    except (TraceError, ValueError, RecursionError) as error:
        raise Failure(f"{name}: {error}") from None


def _subject(run: Trace | StoredRun, options: Options) -> Subject:
    """A run with its program: that of ``--program``, or the one that is stored with it."""
    from ..replay import subject_of

    loaded = _program(options)
    if loaded is None and isinstance(run, Trace):
        raise UsageFault("a trace does not hold its program; give it: --program FILE")
    if loaded is None:
        return subject_of(run)
    return subject_of(run, loaded.program, loaded.programs)


_NAMED = re.compile(r"[A-Za-z_][\w.-]*=")


def _program(options: Options) -> Loaded | None:
    """What ``--program FILE`` and ``--program NAME=FILE`` give."""
    from .sources import load

    plain = [
        entry for entry in options.program_file if not _NAMED.match(entry) or Path(entry).exists()
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


# --- replay and verify ----------------------------------------------------------------------------


def replay(options: Options) -> int:
    """Compute a run once more from its records; 0 where it is identical."""
    from ..replay import replay as again

    subject = _subject(load_run(options.run, options), options)
    found = again(subject.stored or subject.trace, subject.program, programs=subject.programs)
    if options.json:
        emit_json(found.to_dict())
    else:
        say(safe(str(found)))
    return OK if found else FAILED


def verify(options: Options) -> int:
    """Check hash chain, program and every transition of each run that is named; 0 where all
    hold.
    """
    from ..replay import verify as verified
    from .keys import public_keys

    keys = public_keys(options.key, "--key") if options.key else None
    found = [verified(_subject(run, options), keys=keys) for run in load_runs(options.run, options)]
    if options.json:
        emit_json([one.to_dict() for one in found] if len(found) != 1 else found[0].to_dict())
    else:
        for one in found:
            for line in str(one).splitlines():
                say(safe(line))
        if len(found) != 1:
            say(f"{sum(map(bool, found))} of {len(found)} runs verified")
    return OK if found and all(found) else FAILED


# --- diff -----------------------------------------------------------------------------------------

STYLES = {"a": "red", "b": "green", "field": "yellow", "measure": "dim", "head": ""}


def diff(options: Options) -> int:
    """Tell two runs or two programs apart; 0 where they are the same."""
    from ..replay import diff as between
    from ..run.stored import trace_of

    sides = [_side(name, options) for name in (options.a, options.b)]
    a, b = (side if isinstance(side, Trace | Program) else trace_of(side) for side in sides)
    if isinstance(a, Program) != isinstance(b, Program):
        raise UsageFault("diff takes two runs or two programs, and these are one of each")
    found = between(a, b)
    if options.json:
        emit_json(found.to_dict())
    else:
        _print_diff(found)
    return OK if found.same else FAILED


def _side(name: str, options: Options) -> Trace | StoredRun | Program:
    from .sources import load

    if name.endswith((".yaml", ".yml")):
        return load(name, follow=False).program
    if name.endswith(".json") and Path(name).exists() and _is_program(Path(name).read_bytes()):
        return load(name, follow=False).program
    return load_run(name, options)


def _is_program(data: bytes) -> bool:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "steps" in found and "records" not in found


def _print_diff(found: Diff) -> None:
    if not sys.stdout.isatty():
        for _, text in found.lines():
            say(safe(text))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for kind, text in found.lines():
        console.print(Text(safe(text), style=STYLES[kind]), soft_wrap=True)


# --- fork -----------------------------------------------------------------------------------------


def fork(options: Options) -> int:
    """Run a recorded run once more with a change; the exit code says how it ended."""
    from ..cli import host
    from ..replay import fork as forked
    from ..run.vm import ExecutionVM
    from .run import exit_code
    from .sources import load
    from .stores import store_of

    edit: dict[str, Any] = {}
    inputs = host.read_inputs(options.input, options.input_file)
    if inputs:
        edit["inputs"] = inputs
    for path, value in _pairs(options.output, "--output"):
        edit.setdefault(path, {})["output"] = value
    for place, value in _pairs(options.set, "--set"):
        step, dot, name = place.rpartition(".")
        if not dot:
            raise UsageFault(f"--set takes STEP.FIELD=VALUE, not {place!r}")
        edit.setdefault(step, {})[name] = value
    subject = _subject(load_run(options.run, options), options)
    programs = dict(subject.programs)
    if options.to is not None:
        changed = load(options.to)
        edit["program"] = changed.program
        programs |= changed.programs
    tools = host.load_tools(options.tools) if options.tools is not None else {}
    llm = host.load_models(options.model, options.base_url, options.answer)
    run = subject.trace
    subject.demand_values()
    with ExitStack() as stack:
        store = stack.enter_context(store_of(options)) if options.run_id is not None else None
        vm = ExecutionVM(llm=llm, tools=tools, programs=programs, store=store)
        stack.callback(vm.close)
        making = forked(
            vm,
            run,
            subject.program,
            at=options.at,
            edit=edit,
            effects=options.effects,
            run_id=options.run_id,
            programs=programs,
        )
        made = asyncio.run(making)
    if options.trace is not None:
        _write(options.trace, made)
    if options.json:
        emit(safe_json(made.to_json(indent=2)) + "\n")
    else:
        _print_fork(made, run, options)
    return exit_code(made, None)


def _pairs(given: list[str], flag: str) -> Iterator[tuple[str, Any]]:
    """``name=text`` and ``name:=json``; a name may have brackets and slashes."""
    for entry in given:
        name, mark, text = entry.partition("=")
        if not mark or not name.rstrip(":"):
            raise UsageFault(f"{flag} takes NAME=text or NAME:=json, not {entry!r}")
        if not name.endswith(":"):
            yield name, text
            continue
        try:
            yield name[:-1], parse_json(text)
        except ValueError as error:
            raise UsageFault(f"{flag} {name}= takes JSON, not {short(text)}: {error}") from None


def _write(path: str, trace: Trace) -> None:
    try:
        Path(path).write_text(trace.to_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageFault(f"can not write {path}: {error.strerror}") from None


def _print_fork(made: Trace, parent: Trace, options: Options) -> None:
    from ..replay import diff as between
    from .decide import asked_lines, waiting_lines
    from .run import summary_lines
    from .stores import given_url
    from .text import diagnostic_lines, shown
    from .traces import _table

    _table(made)
    for line in diagnostic_lines(made.diagnostics):
        say(line)
    if made.error is not None and not made.diagnostics:
        say(f"error: {safe(made.error)}")
    if options.run_id is not None and not made.diagnostics:
        say(safe(f"run {made.run_id}"))
        for line in waiting_lines(made.run_id, made.waiting, given_url(options)):
            say(line)
    for entry in made.waiting if options.run_id is None else ():
        if entry["kind"] == "effect":
            told = (
                f"{entry['tool']} {shown(entry['request'], 300)} has an effect (--effects makes it)"
            )
            say(safe(f"stopped before {entry['path']}: {told}"))
        else:
            for line in asked_lines(entry)[0]:
                say(line)
    if options.run_id is None and any(entry["kind"] != "effect" for entry in made.waiting):
        note("it waits, and was not kept: only with --run-id NAME and --store URL can it go on")
    at = between(parent, made).divergence
    say(
        safe(
            f"forked from run {parent.run_id}: "
            + (f"it differs from {at} on" if at is not None else "nothing differs")
        )
    )
    for line in summary_lines(made):
        say(line)
