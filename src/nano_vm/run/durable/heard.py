"""What was said to a run that is driven here: decisions, events, resolutions, cancellations, and
outcomes of calls that came late. Each is used once, with the append that records its use.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from ...adapters.protocol import Clock
from ...errors import StoreError
from ...machine.plan import Op
from ...store.protocol import Store
from ...store.records import Message, StoredRun
from ...store.seals import RunSeal
from ...store.waits import takes
from ..driver import Abandoned
from .outbox import patiently

logger = logging.getLogger("nano_vm")


class Heard:
    """The messages of *run*, and which of them it has used."""

    def __init__(self, store: Store, run: StoredRun, seal: RunSeal, clock: Clock) -> None:
        self.store, self.run, self.seal, self.clock = store, run, seal, clock
        self.messages: dict[int, Message] = {}  # that were sent to the run, by their number
        self.inbox: list[Message] = []
        self.ignored: list[Message] = []
        self.cancelled: list[int] = []
        self.used: list[int] = []  # since the last append
        self.hear(run.inbox)
        self.first = frozenset(self.messages)  # that were there when the run was loaded

    def hear(self, messages: Iterable[Message]) -> None:
        """Take note of messages that are new; one that no trusted key has signed is not used."""
        for message in messages:
            if message.id in self.messages:
                continue
            self.messages[message.id] = message
            if not self.seal.takes(message):
                self.ignored.append(message)
                text = (
                    "run %s: %r by %r is not signed by a key that this process trusts, and is "
                    "not used"
                )
                logger.warning(text, self.run.run_id, message.kind, message.by)
                continue
            self.inbox.append(message)
            if message.kind == "cancel":
                self.cancelled.append(message.id)

    async def look(self) -> None:
        """Hear what was said to the run since it was loaded; nobody who says something right now is
        missed.
        """
        try:
            told = await patiently(self.clock, lambda _: self.store.told(self.run.key))
        except StoreError as error:
            raise Abandoned(error) from None
        self.hear(told)

    def take(
        self, kinds: tuple[str, ...], name: str, deadline_ns: int | None = None
    ) -> Message | None:
        """What `found` gives, which is used up with the next append."""
        message = self.found(kinds, name, deadline_ns)
        if message is not None:
            self.use(message)
        return message

    def found(
        self, kinds: tuple[str, ...], name: str, deadline_ns: int | None = None
    ) -> Message | None:
        """The first unused message of one of these kinds for *name*, recorded before the
        deadline.
        """
        for message in self.inbox:
            if deadline_ns is not None and message.created_ns >= deadline_ns:
                continue
            if message.kind in kinds and message.name == name:
                return message
        return None

    def use(self, message: Message) -> None:
        """Use *message* up with the next append."""
        self.inbox.remove(message)
        self.used.append(message.id)

    def word(
        self, op: Op, path: str, request: dict[str, Any], deadline_ns: int | None
    ) -> Message | None:
        """What was said in time about the request at *path*; it is used up."""
        if op.asks:  # type: ignore[attr-defined]
            return self.take(("approve", "reject"), path, deadline_ns)
        asked = {**request, "deadline_ns": deadline_ns}
        message = next((message for message in self.inbox if takes(asked, message)), None)
        if message is not None:
            self.use(message)
        return message

    def used_up(self) -> list[Message]:
        """What was used since this was asked last."""
        used, self.used = self.used, []
        return [self.messages[number] for number in used]
