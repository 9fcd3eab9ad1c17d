"""A run that is cancelled while it is driven here: which of its calls are cut off, and when.

What only reads is cut off at once, and so is the wait before another attempt. A call with an effect
would be in doubt, so it has a while to end by itself; what undoes is never cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ...machine.machine import Machine
from ...machine.plan import TOOL, Op
from ..driver import Abandoned
from .heard import Heard

EFFECT_GRACE_SECONDS = 5.0
"""How long a call with an effect may go on after its run was cancelled by another process: most are
over by then, and one that is cut off is in doubt, and costs a person's time.
"""


class Interruption:
    """Stops the calls of one run, once it *heard* that it is to be cancelled."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.task: asyncio.Task[Any] | None = None  # that drives the run right now
        self.calling: dict[str, tuple[Machine, Op]] = {}  # calls under way, by frame
        self.waiting: dict[str, Machine] = {}  # for another attempt, by frame
        self.looking: asyncio.Future[None] | None = None
        self.stopping = False  # whether the run was cancelled while it is driven here
        self.interrupts = 0

    @contextmanager
    def driven(self) -> Iterator[None]:
        """While the current task drives the run, `stop` may interrupt it; afterwards the task is as
        it was.
        """
        self.task = asyncio.current_task()
        try:
            yield
        finally:
            task, self.task = self.task, None
            for _ in range(self.interrupts if task is not None else 0):
                task.uncancel()  # type: ignore[union-attr]

    @contextmanager
    def resting(self, machine: Machine) -> Iterator[bool]:
        """While *machine* waits before another attempt, none of its calls is under way."""
        frame = machine.frame_name
        self.calling.pop(frame, None)
        self.waiting[frame] = machine
        try:
            yield True
        finally:
            del self.waiting[frame]

    def stop(self) -> None:
        """Take that the run is to be cancelled: at once, but for calls with an effect, which have a
        while to end by themselves.
        """
        if self.task is None or self.stopping:
            return
        # it may be of nobody who is trusted
        if self.heard.seal.trusted is not None and not self.heard.cancelled:
            if self.looking is None or self.looking.done():
                self.looking = asyncio.ensure_future(self.believe())
            return
        self.stopping = True
        if self.affecting():
            self.task.get_loop().call_later(EFFECT_GRACE_SECONDS, self.interrupt)
        else:
            self.interrupt()

    async def believe(self) -> None:
        """`stop`, if a message that may be used says so."""
        with suppress(Abandoned):  # who drives the run meets the same fault
            await self.heard.look()
            if self.heard.cancelled:
                self.stop()

    def affecting(self) -> bool:
        """Whether a call is under way that would be in doubt if it was cut off."""
        return any(op.code == TOOL and op.unsafe for _, op in self.calling.values())  # type: ignore[attr-defined]

    def interrupt(self) -> None:
        """Cancel the calls that are under way, but those that undo what was done, and the waits
        before others.
        """
        undoing = any(machine.side_call == "undo" for machine, _ in self.calling.values())
        if (self.calling or self.waiting) and not undoing:
            self._cut_off()

    def leave(self) -> None:
        """Take that this process stops: calls under way have a while to end, waits have not."""
        if self.waiting and not self.calling:
            self._cut_off()

    def _cut_off(self) -> None:
        if self.task is not None:
            self.interrupts += 1
            self.task.cancel()

    async def hear_out(self) -> None:
        """Hear the cancellation; and if only reading is under way now, stop that too."""
        if not self.heard.cancelled:
            await self.heard.look()
        if not self.affecting():
            self.interrupt()
