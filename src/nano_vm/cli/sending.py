"""A run that a command begins on a server: its program is put there, its inputs are sent, and what
happens in it is shown as if it happened here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ProgramError, UnknownRun, VMError
from ..language.program import Program
from ..run.durable.facts import shown
from ..run.observers import Event
from ..values import canonical
from .faults import UsageFault
from .grammar import Options
from .inputs import misread_inputs, read_inputs
from .output import note
from .places import only_honoured
from .remote import ServerPlace, connected
from .said import labels_of
from .sources import FILE_ENDINGS, Loaded, load, readable
from .stdin import STDIN
from .text import diagnostic_lines, safe
from .view import open_view

if TYPE_CHECKING:
    from ..records.trace import Trace

HONOURED = frozenset("input input_file label run_id seed trace".split())

_NAME = re.compile(r"([^/\0]+?)(?:@([1-9][0-9]{0,17}))?\Z")


class Begun(NamedTuple):
    """A run that was begun on a server, and its program."""

    place: ServerPlace
    run_id: str
    loaded: Loaded


@contextmanager
def begun_on(url: str, options: Options) -> Iterator[Begun]:
    """The run that *options* describe, begun on the server at *url*.

    Raises:
        UsageFault: If the server would not honour an option, or one is wrong.
        ProgramError: If the program has faults, or no worker of the server can drive it.
        Failure: If the server refuses otherwise.
    """
    only_honoured(HONOURED)
    labels = labels_of(options.label)
    with connected(url, options) as place:
        loaded, version = _program(options.program, place)
        given = read_inputs(options.input, options.input_file, loaded.program)
        for line in misread_inputs(options.input, loaded.program):
            note(safe(f"nano-vm: {line}"))
        if options.run_id is not None:
            _joined(options.run_id, place)
        with _placed(loaded):
            version = version or _put(options.program, loaded, place)
            run_id = place.client.start(
                loaded.program.name,
                given,
                version=version,
                run_id=options.run_id,
                labels=labels,
                seed=options.seed,
            )
        yield Begun(place, run_id, loaded)


def _program(path: str, place: ServerPlace) -> tuple[Loaded, int | None]:
    """A program of the server by its name, with its version; or that of a file, which has none."""
    named = _named(path)
    if named is None:
        loaded = load(path, follow=False)
        for line in diagnostic_lines(loaded.warnings()):
            note(line)
        return loaded, None
    name, number = named
    try:
        found = place.client.program(name, None if number is None else int(number))
    except UnknownRun:
        raise UsageFault(f"there is no file {path!r}, and no such program on the server") from None
    return Loaded(Program.from_yaml(found["source"])), int(found["version"])


def _named(path: str) -> tuple[str, str | None] | None:
    """The name of a program of a server, and the version; None for what can only be a file."""
    if path == STDIN or path.endswith(FILE_ENDINGS) or os.path.exists(path):
        return None
    found = _NAME.match(path)
    return None if found is None else (found[1], found[2])


def _put(path: str, loaded: Loaded, place: ServerPlace) -> int:
    """The version that a file's program is on the server, put there if it is none."""
    program = loaded.program
    try:
        newest = place.client.program(program.name)
        if newest["digest"] == program.digest:
            return int(newest["version"])
    except UnknownRun:
        pass
    return int(place.client.put_program(_text(path, program))["version"])


def _text(path: str, program: Program) -> str:
    """A program as it was written; that of standard input, which is read by now, as it is."""
    if path == STDIN:
        return canonical(program.to_dict()).decode()
    readable(path)
    return Path(path).read_text(encoding="utf-8-sig")


@contextmanager
def _placed(loaded: Loaded) -> Iterator[None]:
    """Faults that the server finds, at their place in the file."""
    try:
        yield
    except ProgramError as error:
        found = [d.at(d.loc) for d in error.diagnostics]
        raise ProgramError(loaded.program.place(found)) from None


def _joined(run_id: str, place: ServerPlace) -> None:
    """Say that a run is there already: its steps are not made again."""
    try:
        known = place.client.standing(run_id)["run"]
    except VMError:  # none, or several that only begin so
        return
    if known["run_id"] == run_id:
        note(f"nano-vm: run {run_id} is there already ({known['status']})")


def followed(begun: Begun, *, silent: bool) -> Trace:
    """The trace of a run once it has ended, or waits; its steps are shown as they end."""
    known: set[str] = set()
    trace = None
    with closing(open_view(silent=silent)) as view:
        try:
            for facts in begun.place.followed(begun.run_id):
                trace = shown(facts)
                for step in trace.steps:
                    if step.path not in known:
                        known.add(step.path)
                        event = Event(
                            "step_finished", step.path, step.step_id, step.type, result=step
                        )
                        view.event(event)
        except (KeyboardInterrupt, VMError):
            note(
                safe(
                    f"run {begun.run_id} goes on at the server; to stop it: nano-vm cancel "
                    f"{begun.run_id}{begun.place.given}"
                )
            )
            raise
    assert trace is not None
    return trace
