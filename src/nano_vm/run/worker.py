"""A worker claims stored runs that nobody drives, and drives them."""

from __future__ import annotations

from dataclasses import dataclass, field

RESTING_SECONDS = 60.0
"""How long a worker leaves a run that it could not go on with."""

REFILLED_PART = 0.25
"""The part of a worker's places that are free before it claims runs for them, or it would ask the
store more often than it works.
"""

LOOK_AHEAD = 8
"""How many runs a worker looks at for each that it claims: others claim of the same, and pass over
what it holds.
"""

PASSED_OVER_SECONDS = 0.02
"""How soon a worker looks again after others were quicker."""

GRACE_SECONDS = 10.0
"""How long a worker that stops waits for calls that are under way; what then has no outcome is in
doubt.
"""


@dataclass(slots=True)
class Shelf:
    """What a worker knows of runs that it did not drive: programs that this host can run, and until
    when it leaves the others.
    """

    now: float = 0.0
    known: set[str] = field(default_factory=set)
    programs: dict[str, float] = field(default_factory=dict)
    runs: dict[str, float] = field(default_factory=dict)

    def rests(self, run_id: str, digest: str) -> bool:
        """Whether a run is left alone for now."""
        return max(self.runs.get(run_id, 0.0), self.programs.get(digest, 0.0)) > self.now
