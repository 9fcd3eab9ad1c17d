"""``nano-vm fork``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ...values import parse_json, short
from ...visible import safe_json
from .. import completion
from ..faults import UsageFault
from ..grammar import Options, command, flag, option, values
from ..output import emit, note, say, write_file
from ..parameters import (
    STORE,
    file_option,
    takes_host,
    takes_inputs,
    takes_recorded,
    takes_rules,
    takes_store,
)
from ..text import diagnostic_lines, safe, shown

if TYPE_CHECKING:
    from ...language.program import Program
    from ...records.trace import Trace

EXAMPLES = """\
nano-vm fork run.json --program refund.yaml --tools refund.py:tools --output judge=no
nano-vm fork 3f2a --store sqlite:///runs.db --tools refund.py:tools --model local \\
    --set judge.prompt='Is it broken?'
nano-vm fork refund-A7 --run-id refund-A8 --tools refund.py:tools -i order_id=A8
"""

CHANGES = "what changes"


@command(examples=EXAMPLES)
@takes_recorded
@takes_inputs("an input that changes", "such inputs in JSON or YAML (- is standard input)")
@values(
    "--output",
    metavar="STEP=VALUE",
    help="what a step gives instead; STEP:=JSON",
    section=CHANGES,
)
@values(
    "--set",
    metavar="STEP.FIELD=VALUE",
    help="a field of a step; STEP.FIELD:=JSON",
    section=CHANGES,
)
@option(
    "--to",
    metavar="FILE",
    help="the changed program",
    section=CHANGES,
    shell_complete=completion.programs,
)
@option(
    "--at",
    metavar="STEP",
    help="ask models and read anew from this step on: its path or id",
)
@flag("--effects", help="make calls that have an effect, too")
@file_option("--trace", help="write the fork's trace to FILE")
@takes_host
@takes_rules
@option(
    "--run-id",
    metavar="ID",
    help="keep the fork in the store under this id: it can wait, and go on",
    section=STORE,
)
@takes_store
def fork(options: Options) -> int:
    """
    Run a recorded run again with a change: an input, an output, a field of a step, or the whole
    program.

    Steps that are asked the same take their recorded outcome at no cost; live calls begin where
    what is asked differs, or at --at. A call of a tool with effect 'write' or 'irreversible' is not
    made without --effects: the fork stops before it. With --effects each approval is asked for
    anew, but one whose --output is given. With --run-id it is kept in the store, with its parent,
    and goes on when what it waits for has come; a call that it stopped before is for 'resolve' to
    decide. With --policy it runs only if that is proved of the changed program; what the run was
    labelled as stays so without one.
    """
    import asyncio

    from ...replay import fork as forked
    from .. import host, rules
    from ..recorded import load_run, subject_named
    from ..sources import load
    from ..stores import store_of
    from ..summary import exit_code

    subject = subject_named(load_run(options.run, options), options)
    edit = _edit(options, subject.program)
    programs = dict(subject.programs)
    if options.to is not None:
        changed = load(options.to)
        edit["program"] = changed.program
        programs |= changed.programs
    run = subject.trace
    subject.demand_values()
    with ExitStack() as stack:
        store = stack.enter_context(store_of(options)) if options.run_id is not None else None
        policy = rules.load_policy(options.policy)
        vm = host.vm_of(options, programs=programs, policy=policy, store=store)
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
        write_file(options.trace, made.to_json(indent=2) + "\n")
    if options.json:
        emit(safe_json(made.to_json(indent=2)) + "\n")
    else:
        _print_fork(made, run, options)
    return exit_code(made, None)


def _edit(options: Options, program: Program) -> dict[str, Any]:
    """What changes, as `nano_vm.replay.fork` takes it."""
    from ..inputs import read_inputs

    edit: dict[str, Any] = {}
    inputs = read_inputs(options.input, options.input_file, program)
    if inputs:
        edit["inputs"] = inputs
    for path, value in _pairs(options.output, "--output"):
        edit.setdefault(path, {})["output"] = value
    for place, value in _pairs(options.set, "--set"):
        step, dot, name = place.rpartition(".")
        if not dot:
            raise UsageFault(f"--set takes STEP.FIELD=VALUE, not {place!r}")
        edit.setdefault(step, {})[name] = value
    return edit


def _pairs(given: Sequence[str], flag: str) -> Iterator[tuple[str, Any]]:
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


def _print_fork(made: Trace, parent: Trace, options: Options) -> None:
    from ...records.secrecy import shown_to
    from ...replay import diff as between
    from ..decide import asked_lines, waiting_lines
    from ..stores import given_url
    from ..summary import print_steps, summary_lines

    made, parent = shown_to("show", made), shown_to("show", parent)
    print_steps(made)
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
