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
