"""``nano-vm diff``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .. import completion
from ..faults import FAILED, OK, UsageFault
from ..grammar import Options, argument, command
from ..output import emit_json, say
from ..parameters import takes_store
from ..text import safe

if TYPE_CHECKING:
    from ...language.program import Program
    from ...records.trace import Trace
    from ...replay import Diff
    from ...store.records import StoredRun

EXAMPLES = """\
nano-vm diff monday.json tuesday.json
nano-vm diff refund.yaml refund-2.yaml --json | jq .divergence
"""


@command(examples=EXAMPLES)
@argument("a", help="a run or a program", shell_complete=completion.recorded)
@argument("b", help="another", shell_complete=completion.recorded)
@takes_store
def diff(options: Options) -> int:
    """
    Compare two runs or two programs: where they differ first, and what differs in each step.

    A and B are traces, runs of an exported file (FILE#RUN), runs of a store, or two programs. Cost
    and duration are shown, and do not count as differences.

    The exit code is 0 where they are the same and 1 where they differ, as with diff(1).
    """
    from ...language.program import Program
    from ...records.trace import Trace
    from ...replay import accepted
    from ...replay import diff as between
    from ...run.durable.stored import trace_of

    sides = [_side(name, options) for name in (options.a, options.b)]
    a, b = (side if isinstance(side, Trace | Program) else trace_of(side) for side in sides)
    if isinstance(a, Program) != isinstance(b, Program):
        raise UsageFault("diff takes two runs or two programs, and these are one of each")
    found = accepted("show", between(a, b))
    if options.json:
        emit_json(found.to_dict())
    else:
        _print_diff(found)
    return OK if found.same else FAILED


def _side(name: str, options: Options) -> Trace | StoredRun | Program:
    from ..recorded import load_run
    from ..sources import load

    if name.endswith((".yaml", ".yml")):
        return load(name, follow=False).program
    if name.endswith(".json") and _is_program(name):
        return load(name, follow=False).program
    return load_run(name, options)


def _is_program(file: str) -> bool:
    try:
        found = json.loads(Path(file).read_bytes())
    except (OSError, ValueError, RecursionError):  # what it is instead is told where it is read
        return False
    return isinstance(found, dict) and "steps" in found and "records" not in found


STYLES = {"a": "red", "b": "green", "field": "yellow", "measure": "dim", "head": ""}


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
