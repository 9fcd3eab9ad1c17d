"""What is to be stored without anybody waiting for it: given in order, and again where the store
fails for the moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ...adapters.protocol import Clock
from ...errors import StoreError
from .outbox import patiently

logger = logging.getLogger("nano_vm")

Write = Callable[[], Awaitable[None] | None]
"""Begins to write when it is called; None where that is done at once."""


class Later:
    """Writes under way. *warning* is logged where one fails for good, with its subject and why."""

    def __init__(self, clock: Clock, warning: str) -> None:
        self._clock, self._warning = clock, warning
        self._under_way: set[asyncio.Future[None]] = set()

    def give(self, subject: str, write: Write) -> None:
        """Begin *write*, before all that is given to the store after this."""
        try:
            begun = write()
        except StoreError as error:
            logger.warning(self._warning, subject, error)
            return
        if begun is not None:
            task = asyncio.ensure_future(self._written(subject, begun, write))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _written(self, subject: str, begun: Awaitable[None], write: Write) -> None:
        def attempt(again: bool) -> Awaitable[None]:
            made = write() if again else begun
            assert made is not None
            return made

        try:
            await patiently(self._clock, attempt)
        except StoreError as error:
            logger.warning(self._warning, subject, error)

    async def done(self) -> None:
        """Wait until all that was given is stored."""
        while self._under_way:
            await asyncio.wait(self._under_way)
