"""Ids of runs that are given none."""

from __future__ import annotations

import os

from .. import forking

_DRAWN = 256
"""Ids that are drawn at a time: one call of the system gives 4 KB of random bytes."""

_DIGITS = 32


class RunIds(forking.Begins):
    """Ids for runs that are given none: 16 random bytes each, drawn for many at a time."""

    def __init__(self) -> None:
        self.after_fork_in_child()
        forking.join(self)

    def after_fork_in_child(self) -> None:
        """Begin with random bytes of its own."""
        self._ready: list[str] = []

    def drawn(self) -> str:
        """A new id, 32 hexadecimal digits."""
        try:
            return self._ready.pop()
        except IndexError:
            digits = os.urandom(_DRAWN * _DIGITS // 2).hex()
            more = [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]
            run_id = more.pop()
            self._ready.extend(more)  # another thread may have drawn meanwhile
            return run_id


run_ids = RunIds()
