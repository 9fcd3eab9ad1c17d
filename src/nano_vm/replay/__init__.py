"""Replay, verify, diff and fork: what a recorded run was, computed once more and held against what
is recorded.

A trace or a stored run and its program come in. `rerun` gives the outcomes to a new machine and
tells the first record that the machine would not have made; `diffs` tells two runs or two programs
apart; `accepted` hides what a receiver may not see of either; `forks` runs with a change, and takes
what did not change from the records.
"""

from __future__ import annotations

from .accepted import accepted
from .compare import Difference, same
from .diffs import Diff, StepDiff, diff
from .forks import Ahead, Edits, Forked, ForkJournal, edits_of, fork, fork_ahead
from .rerun import (
    Check,
    Replay,
    Replayer,
    Subject,
    Verified,
    program_of,
    replay,
    subject_of,
    verify,
)

__all__ = [
    "Ahead",
    "Check",
    "Diff",
    "Difference",
    "Edits",
    "ForkJournal",
    "Forked",
    "Replay",
    "Replayer",
    "StepDiff",
    "Subject",
    "Verified",
    "accepted",
    "diff",
    "edits_of",
    "fork",
    "fork_ahead",
    "program_of",
    "replay",
    "same",
    "subject_of",
    "verify",
]
