"""A run that a command begins elsewhere: its program, inputs and options, and the host that checks it
before it is sent, where tools or models are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..run.vm import ExecutionVM
from . import host, inputs, rules
from .grammar import Options
from .output import note
from .said import said_of
from .text import diagnostic_lines, safe

if TYPE_CHECKING:
    from ..language.program import Program
    from ..store.protocol import Store


@dataclass(frozen=True, slots=True)
class Submission:
    """What is sent; without a *vm* only workers verify it."""

    program: Program
    inputs: dict[str, Any]
    programs: Mapping[str, Program] | None
    options: dict[str, Any]
    vm: ExecutionVM | None


def submission_of(options: Options, store: Store | None = None) -> Submission:
    """The run that *options* describe; it goes to *store*, where there is one.

    Raises:
        UsageFault: If an option is wrong.
        ProgramError: If the program or the policy has faults.
    """
    budget = rules.read_budget(options.budget)
    loaded, policy = host.program_of(options)
    given = inputs.read_inputs(options.input, options.input_file, loaded.program)
    untrusted = inputs.untrusted_inputs(options.untrusted, loaded.program, loaded.programs)
    for line in diagnostic_lines(loaded.warnings()):
        note(line)
    for line in inputs.misread_inputs(options.input, loaded.program):
        note(safe(f"nano-vm: {line}"))
    vm = None
    if store is not None or not host.not_given(options):
        vm = host.vm_of(options, programs=loaded.programs, policy=policy, store=store)
    said = said_of(options, kept=True)
    chosen = {"run_id": options.run_id, "seed": options.seed, "budget": budget}
    return Submission(
        loaded.program,
        given,
        loaded.programs or None,
        {**chosen, "untrusted": untrusted, **said},
        vm,
    )
