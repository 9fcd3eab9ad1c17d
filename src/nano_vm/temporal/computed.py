"""The machine of a run and its recording, from what the run was begun with: in the workflow, and in
whoever computes the run again from its tape.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..machine.machine import Machine, machine_of
from ..machine.terms import RunTerms
from ..records.recording import Recording
from .plans import Planned
from .terms import Admission, Start

BEGAN = 1
"""The machine's time at which a run begins; nanoseconds since the epoch are this much behind."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A run that was admitted."""

    run_id: str
    start: Start
    admission: Admission
    planned: Planned

    @property
    def base_ns(self) -> int:
        """Added to the machine's time it gives nanoseconds since the epoch."""
        return self.start.began_ns - BEGAN

    def machine(self) -> Machine:
        """The machine of the run, before its first step."""
        terms = RunTerms.of_record(self.admission.about, self.planned.flow.program.budget)
        inputs = {name: self.start.inputs[name] for name in self.admission.inputs}
        return machine_of(
            self.planned.plan, inputs, terms, BEGAN, run_id=self.run_id, seed=self.start.seed
        )

    def recording(self, machine: Machine, now: int) -> Recording:
        """The run as *machine* stands, whose time is *now*."""
        recording = Recording(
            self.planned.flow.program.name,
            self.planned.digest,
            self.run_id,
            self.start.seed,
            BEGAN,
            self.base_ns,
            self.start.salt,
            self.admission.about,
            None,
            machine.records,
            self.planned.plan.ops,
        )
        recording.inputs = {name: self.start.inputs[name] for name in self.admission.inputs}
        machine.fill(recording)
        recording.finished_ns = now
        return recording
