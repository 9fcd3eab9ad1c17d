"""How far a test goes that draws its cases at random.

Such a test is marked `campaign`. `make test` tries a part of its cases, always the same; with
``NANO_VM_CAMPAIGNS=whole``, as `make soak` sets it, it tries all. What must hold of each case, and
of which share of them, is the same in both.
"""

from __future__ import annotations

import os

VARIABLE, WHOLE = "NANO_VM_CAMPAIGNS", "whole"

PART = 6
"""`make test` tries one case of so many. All of them take a processor 7 minutes, and the rest of
the suite takes it 8; so the part takes a little more than one.
"""


def cases(whole: int) -> int:
    """How many of the *whole* number of cases are tried now."""
    return whole if os.environ.get(VARIABLE) == WHOLE else whole // PART
