"""Answers of models and tools that are kept for steps with `cache`: what shaped one goes in by its
hash, the answer comes out, if it is known and not too old.

A store keeps them for all processes that have it open, `KeptHere` for one process.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol

from ..values import canonical

MOST = 10_000
"""Answers that a process keeps where it has no store: some ten megabytes of short ones."""

FORMAT = 1
"""Of what is kept: answers of another are not found."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What is kept under *key*: *body* is JSON, *run_id* the run that it is of, whose erasure drops
    it; both times are since the epoch.
    """

    key: str
    run_id: str
    body: str
    at_ns: int
    until_ns: int


class KeepsAnswers(Protocol):
    """What keeps answers: a store, or `KeptHere`."""

    def kept(self, key: str, since_ns: int) -> Awaitable[str | None]:
        """The body under *key*, of an answer that is not from before *since_ns*."""
        ...

    def keep(self, answer: KeptAnswer) -> Awaitable[None] | None:
        """Keep *answer* in the place of any under its key. Begun when this returns; None where it
        is done.
        """
        ...


def key_of(kind: str, project: str, *parts: Any) -> str:
    """By which an answer is kept: what shaped it, and the project, which has its answers apart."""
    return hashlib.sha256(canonical([FORMAT, kind, project, *parts])).hexdigest()


class KeptHere:
    """Answers of this process; the one that was not asked for longest is forgotten first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._answers: OrderedDict[str, KeptAnswer] = OrderedDict()
        self._lock = threading.Lock()

    async def kept(self, key: str, since_ns: int) -> str | None:
        """See `KeepsAnswers.kept`."""
        return self.find(key, since_ns)

    def find(self, key: str, since_ns: int) -> str | None:
        """The same, at once."""
        with self._lock:
            answer = self._answers.get(key)
            if answer is None or answer.at_ns < since_ns:
                return None
            self._answers.move_to_end(key)
            return answer.body

    def keep(self, answer: KeptAnswer) -> None:
        """See `KeepsAnswers.keep`."""
        with self._lock:
            self._answers[answer.key] = answer
            self._answers.move_to_end(answer.key)
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)
