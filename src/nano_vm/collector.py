"""The cycle collector, out of the way of what allocates much and leaves no cycles.

There is one collector in a process, and several threads may want it paused at the same time: the
first of them pauses it, the last one lets it go on, as it was.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (50_000, 20, 100)
"""Where a process has thousands of runs at a time: with Python's own thresholds the collector looks
at all of them again and again, and 10,000 runs at a time cost half as much more each than 10 do.
"""

PYTHONS_OWN = (700, 10, 10)
"""Of CPython 3.11 to 3.13. Whoever has set others has chosen them."""


class _Pauses:
    """How many want the collector paused, and whether it was on before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.enabled = False

    def begin(self) -> None:
        with self.lock:
            if self.count == 0:
                self.enabled = gc.isenabled()
                gc.disable()
            self.count += 1

    def end(self) -> None:
        with self.lock:
            self.count -= 1
            if self.count == 0 and self.enabled:
                gc.enable()


_pauses = _Pauses()


class _Eased:
    """How many want the collector to look less often."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0

    def begin(self) -> None:
        with self.lock:
            if self.count == 0 and gc.get_threshold() == PYTHONS_OWN:
                gc.set_threshold(*THRESHOLDS)
            self.count += 1

    def end(self) -> None:
        with self.lock:
            self.count -= 1
            if self.count == 0 and gc.get_threshold() == THRESHOLDS:
                gc.set_threshold(*PYTHONS_OWN)


_eased = _Eased()


def _begin_anew() -> None:
    """In the child of a fork there is one thread, and it may be in a pause of its own."""
    global _pauses
    before, _pauses = _pauses, _Pauses()
    if before.count and before.enabled:
        gc.enable()


os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without the cycle collector: its looks at a large program's graph cost as much as the passes
    that made it.
    """
    pauses = _pauses  # those of a fork's parent end there
    pauses.begin()
    try:
        yield
    finally:
        pauses.end()


@contextmanager
def collector_eased() -> Iterator[None]:
    """With thresholds for many runs at a time, unless somebody has set some. It is for who owns the
    process, or knows that many runs come: a library leaves the collector as it is.
    """
    _eased.begin()
    try:
        yield
    finally:
        _eased.end()
