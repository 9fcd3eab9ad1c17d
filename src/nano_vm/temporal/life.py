"""A call while its activity is under way: signs of life, what the server says of it, how it is cut
off, and what came of it. A call that may have been given to another worker is not made.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from temporalio import activity
from temporalio.api.workflowservice.v1 import RecordActivityTaskHeartbeatRequest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from .terms import HEARTBEAT_SECONDS, NOT_MADE

logger = logging.getLogger("nano_vm")

BEATS = 3
"""Signs of life within the time after which a worker is taken for dead."""


class Pulse:
    """Whether the event loop of this process has stood still lately: then the server may have given
    up calls that arrived here before. No clock of another machine is asked.
    """

    def __init__(self) -> None:
        self.last, self.stood = time.monotonic(), -math.inf
        self.tick()

    def tick(self) -> None:
        """Note that the loop goes on, now and ever after."""
        now = time.monotonic()
        if now - self.last > STANDSTILL_SECONDS:
            self.stood = now
        self.last = now
        asyncio.get_running_loop().call_later(TICK_SECONDS, self.tick)

    @property
    def regular(self) -> bool:
        """Whether it did not, nor right before."""
        now = time.monotonic()
        return now - self.last <= STANDSTILL_SECONDS and now - self.stood > SETTLE_SECONDS

    async def settled(self) -> None:
        """Wait until it is so, or who waits is cancelled."""
        with suppress(asyncio.CancelledError):
            while not self.regular:  # noqa: ASYNC110 - only time makes it so
                await asyncio.sleep(TICK_SECONDS)


TICK_SECONDS, SETTLE_SECONDS = 0.2, 0.5
STANDSTILL_SECONDS = 2.0
"""Below the time after which a call that is not heard of is lost."""

CONFIRM_SECONDS = 1.5
"""How long the server may take to say that a call is still this worker's: half of the time after
which it gives it up, so that the other half is left to begin the call in.
"""

_PULSES: WeakKeyDictionary[asyncio.AbstractEventLoop, Pulse] = WeakKeyDictionary()


def pulse() -> Pulse:
    """That of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _PULSES.get(loop)
    if found is None:
        found = _PULSES[loop] = Pulse()
    return found


class Life:
    """When the server last heard of a call that this worker makes."""

    def __init__(self) -> None:
        self.pulse, self.heard = pulse(), time.monotonic()
        self.token, self.confirmed = activity.info().task_token, -math.inf
        self.is_local = activity.info().is_local

    def beat(self) -> None:
        """Say that this worker lives; of a call that it makes in a task of the run, the task does."""
        if not self.is_local:
            activity.heartbeat()
        self.heard = time.monotonic()

    def check(self) -> None:
        """Asked immediately before a call: this process may have stood still, and the server may
        have given the call to another by now.

        Raises:
            NotMade: If so.
        """
        if time.monotonic() - self.heard > HEARTBEAT_SECONDS or not self.pulse.regular:
            raise NotMade

    async def confirm(self, client: Client) -> None:
        """Have the server say that it hears this worker, and that the call is still its own. A sign
        of life that was sent may not have come, and the task of a call may have come late: where
        the network stood still meanwhile, the call is in doubt, and somebody decides on it.

        Raises:
            NotMade: If it is not, or no answer comes.
        """
        request = RecordActivityTaskHeartbeatRequest(
            namespace=client.namespace, task_token=self.token
        )
        limit = timedelta(seconds=CONFIRM_SECONDS)
        sent = time.monotonic()
        try:
            await client.workflow_service.record_activity_task_heartbeat(request, timeout=limit)
        except RPCError as error:
            logger.debug("the server does not confirm a call: %s", error)
            raise NotMade from None
        self.heard = self.confirmed = sent

    @property
    def is_confirmed(self) -> bool:
        """Whether the server has said so, and cannot have given the call up since."""
        return time.monotonic() - self.confirmed < HEARTBEAT_SECONDS - CONFIRM_SECONDS


class NotMade(Exception):
    """The call was not made; the message says why."""

    def __init__(self, why: str = "this worker was not heard of for too long") -> None:
        super().__init__(why)


@asynccontextmanager
async def alive() -> AsyncIterator[Life]:
    """Say that this worker lives, for as long as a call takes; a short one says nothing."""
    life = Life()

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS / BEATS)
            life.beat()

    beating = asyncio.create_task(beat())
    try:
        yield life
    except NotMade as error:
        await life.pulse.settled()  # the call is given again at once, and would not be made either
        told = f"{error}, so the call was not made"
        raise ApplicationError(told, type=NOT_MADE, non_retryable=True) from None
    finally:
        beating.cancel()


def cancel_requested() -> bool:
    """Whether the cancellation of this activity is that of its run."""
    details = activity.cancellation_details()
    return details is not None and details.cancel_requested


@dataclass(slots=True)
class Made:
    """What came of a call: a value, an error, that its time was up, or that it was cancelled."""

    value: Any = None
    error: BaseException | None = None
    expired: bool = False
    cancelled: bool = False
    called: bool = True
    stopped: BaseException | None = None  # with which it ended where it was cut off


class Beginning:
    """That a thread begins a call, or that the call is given up: whichever comes first."""

    def __init__(self) -> None:
        self.begun, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._first = Lock()

    def begin(self) -> None:
        """Asked in the thread, immediately before the call.

        Raises:
            NotMade: If it was given up.
        """
        if not self._first.acquire(blocking=False):
            raise NotMade
        self._loop.call_soon_threadsafe(self.begun.set)

    def give_up(self) -> bool:
        """Whether the call is not made, and will not be."""
        return self._first.acquire(blocking=False)


async def made(call: Callable[[], Any], seconds: float, beginning: Beginning | None = None) -> Made:
    """Make a call and wait for it, at most *seconds* from when it has begun, in a thread at its
    *beginning*; cancel it then, or when the activity is. One that answers its cancellation with a
    value has a value all the same.

    Raises:
        NotMade: If it is given up before it has begun, and not by its run.
    """
    task = asyncio.ensure_future(_result(call))
    cancelled = expired = given_up = False
    try:
        if beginning is not None:
            waiting = asyncio.ensure_future(beginning.begun.wait())
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        await asyncio.wait([task], timeout=seconds or None)
        expired = not task.done()
    except asyncio.CancelledError:
        given_up = beginning is not None and beginning.give_up()
        if not cancel_requested():
            task.cancel()
            if given_up:
                raise NotMade from None
            raise  # the worker stops, or the server has given the call up
        cancelled = True
    while not task.done():  # a call that swallows its cancellation is cancelled again
        task.cancel()
        await asyncio.wait([task], timeout=1.0)
    called = not given_up
    try:
        value, error = task.result()
    except asyncio.CancelledError as stopped:
        own = None if expired or cancelled else TimeoutError("the tool's own call was cancelled")
        return Made(None, own, expired, cancelled, called, stopped)
    return Made(value, error, expired, cancelled and error is not None, called, error)


async def _result(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What a call gives, or raises: an exit of a tool must not be one of the event loop."""
    try:
        value = call()
        return (await value if inspect.isawaitable(value) else value), None
    except (asyncio.CancelledError, KeyboardInterrupt, NotMade):
        raise
    except StopIteration as error:  # as Python says it of a coroutine function
        raised = RuntimeError("coroutine raised StopIteration")
        raised.__cause__ = error
        return None, raised
    except BaseException as error:  # noqa: BLE001 - whatever a tool raises is its outcome
        return None, error
