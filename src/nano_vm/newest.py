"""What was made of something and is asked for again and again: the newest of it, up to a size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Newest(Generic[K, V]):
    """Values by their keys, together up to *most* of what *size* says of each: those that were not
    asked for longest go first. For many threads.
    """

    def __init__(self, most: int, size: Callable[[V], int] = lambda _: 1) -> None:
        self.most = most
        self.held = 0
        self._size = size
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    def get(self, key: K) -> V | None:
        """What is kept by *key*, if anything is."""
        found = self._found(key)
        return None if found is None else found[0]

    def _found(self, key: K) -> tuple[V, int] | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def of(self, key: K, make: Callable[[], V]) -> V:
        """What is kept by *key*, or what *make* gives, which is kept then unless it alone is too
        large. It may be made by several threads at once, and what one of them gave is kept.
        """
        found = self._found(key)
        if found is not None:
            return found[0]
        made = make()
        size = self._size(made)
        if size > self.most:
            return made
        with self._lock:
            kept = self._kept.setdefault(key, (made, size))
            if kept[0] is not made:
                return kept[0]
            self.held += size
            while self.held > self.most:
                _, (_, dropped) = self._kept.popitem(last=False)
                self.held -= dropped
        return made
