"""What hears that runs under way here are to be cancelled: one thread of a process, which asks the
store twice a second.

A run that waits hears what was said to it when it is claimed; only a cancellation cannot wait for
that. One question is for all runs of the process, and none is asked where there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ... import forking
from ...errors import StoreError
from ...store.protocol import Store
from ..system import SYSTEM, System, Thread

NOTICED_SECONDS = 0.5
"""How long a cancellation that another process recorded may go unnoticed: no longer than a person
waits for an answer.
"""


class Listener(forking.Begins):
    """Calls ``hear`` of each run that was cancelled, from a thread of its own, and again until the
    run is discarded: what was recorded first may be nobody's who is trusted.
    """

    def __init__(self, store: Store, system: System = SYSTEM) -> None:
        self.store, self.system = store, system
        self.after_fork_in_child()
        forking.join(self)

    def after_fork_in_child(self) -> None:
        """Begin without runs: those that are under way are the parent's."""
        self._runs: dict[int, Callable[[], None]] = {}  # by the store's number of the run
        self._lock = self.system.lock()
        self._none = self.system.event()  # set while there are no runs
        self._thread: Thread | None = None

    def add(self, key: int, hear: Callable[[], None]) -> None:
        """Listen for the run *key* from now on."""
        with self._lock:
            self._runs[key] = hear
            self._none.clear()
            if self._thread is None:
                self._thread = self.system.thread(self._listen, "nano-vm-listener")

    def discard(self, key: int) -> None:
        """Listen for the run no more."""
        with self._lock:
            self._runs.pop(key, None)
            if not self._runs:
                self._none.set()

    def _listen(self) -> None:
        while True:
            self._none.wait(NOTICED_SECONDS)
            with self._lock:
                if not self._runs:
                    self._thread = None
                    return
                keys = list(self._runs)
            found: list[int] = []
            with suppress(StoreError):  # the store may answer next time
                found = self.store.cancelled(keys)
            for key in found:
                with self._lock:
                    hear = self._runs.get(key)
                if hear is not None:
                    hear()
