"""Views of runs that have ended, as the bytes that were answered: who looks at a run looks again, and
shows it to others, and it does not change any more.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

MOST_BYTES = 32_000_000
"""Of all that is kept; a run of 20 steps has 10 KB."""

Key = tuple[str, str, bool]
"""The id of a run, its version, and whether what was said in it is shown."""


class Views:
    """The newest of them, up to `MOST_BYTES`."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def of(self, key: Key, make: Callable[[], bytes]) -> bytes:
        """What is kept by *key*, or what *make* gives, which is kept then."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = make()
        with self._lock:
            self._bytes += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._bytes > MOST_BYTES:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= len(dropped)
        return made
