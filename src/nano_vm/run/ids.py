"""Ids of runs that are given none."""

from __future__ import annotations

import itertools
import os

from .. import forking

_NUMBERS = 2**48 - 1
_SPREAD = 0x9E3779B97F4B
"""The golden ratio of `_NUMBERS`, odd: each number has another place, far from that before it."""


class RunIds(forking.Begins):
    """Ids for runs that are given none: a number, and a random part of the process's own. To draw
    all of each would take a call of the system a run.

    The number comes first and is spread, so that runs of one process differ in their first digits,
    by which people name them.
    """

    def __init__(self) -> None:
        self.after_fork_in_child()
        forking.join(self)

    def after_fork_in_child(self) -> None:
        """Begin with a random part of its own."""
        self._process = os.urandom(10).hex()
        self._numbers = itertools.count(int.from_bytes(os.urandom(6), "big"))

    def drawn(self) -> str:
        """A new id, 32 hexadecimal digits."""
        number = next(self._numbers) * _SPREAD & _NUMBERS
        return number.to_bytes(6, "big").hex() + self._process  # half the time of a format


run_ids = RunIds()
