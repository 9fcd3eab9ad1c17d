"""How far a test goes that draws its cases at random.

Such a test is marked `campaign`. `make test` tries a part of its cases, always the same; with
``NANO_VM_CAMPAIGNS=whole``, as `make soak` sets it, it tries all. What must hold of each case, and
of which share of them, is the same in both: a test whose shares are by chance in few cases says
how many it tries at least.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

VARIABLE, WHOLE = "NANO_VM_CAMPAIGNS", "whole"

PART = 40
"""`make test` tries one case of so many. All take a processor 15 minutes, these 27 seconds, measured
on 2026-11-27 on a busy machine. They find less: of 19 mutants drawn from `benchmarks/mutants.yaml`,
8 contradict a proof in the 300 programs of `tests/soundness/test_campaign.py`.
"""


def is_whole() -> bool:
    """Whether all cases are tried."""
    return os.environ.get(VARIABLE) == WHOLE


def cases(whole: int, fewest: int = 0) -> int:
    """How many of the *whole* number of cases are tried now: at least *fewest*."""
    return max(whole if is_whole() else whole // PART, fewest)


def first(few: int, of: Sequence[T]) -> Sequence[T]:
    """Those *of* the cases that are tried now, where they are few and each takes seconds."""
    return of if is_whole() else of[:few]
