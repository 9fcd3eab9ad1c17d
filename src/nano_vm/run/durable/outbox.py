"""What a run appends on its way into the store: in order, and again where the store does not take
it for the moment.

A lock, a full disk or a server that is started again says nothing about the run: what was given is
kept here and given again until the store answers, or patience ends. An append that was stored
although its answer was lost is recognised by the store, by its place among the rows of the run; so
giving it again writes nothing twice.

Rule: what was given after something that failed is written after it, or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from ...adapters.protocol import Clock
from ...errors import StoreError
from ...store.protocol import Append, Store
from ...store.records import Row, StoredRun
from ...store.waits import Waits
from ...values import error_named

PATIENCE_SECONDS = 15.0
"""How long to try again before a run is given up: longer than a server takes to start, shorter than
a caller waits for an answer.
"""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0

T = TypeVar("T")


class Patience:
    """How much longer a failing store is tried, and the wait before each attempt."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.began_ns = clock.monotonic_ns()
        self.waited = 0.0  # a clock of tests may stand still
        self.pause_seconds = FIRST_PAUSE_SECONDS

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return (
            max(self.waited, (self.clock.monotonic_ns() - self.began_ns) / 1e9) >= PATIENCE_SECONDS
        )

    async def pause(self) -> None:
        """Wait; a little longer each time."""
        seconds, self.pause_seconds = (
            self.pause_seconds,
            min(self.pause_seconds * 2, LONGEST_PAUSE_SECONDS),
        )
        self.waited += seconds
        await self.clock.sleep(seconds)


async def patiently(clock: Clock, attempt: Callable[[bool], Awaitable[T]]) -> T:
    """What *attempt* gives, made again where the store fails for the moment; it gets whether it was
    made before.

    Raises:
        StoreError: If it fails for good, or for too long.
    """
    patience: Patience | None = None
    while True:
        try:
            return await attempt(patience is not None)
        except StoreError as error:
            patience = patience or Patience(clock)
            if not error.passing or patience.over:
                raise
        await patience.pause()


class _Given(NamedTuple):
    """What was given at once, and who waits until it is stored."""

    append: Append
    stored: asyncio.Future[None]


class Outbox:
    """What *run* appends while it is driven here: one append at a time, and what is given meanwhile
    goes with the next.
    """

    def __init__(self, store: Store, run: StoredRun, clock: Clock) -> None:
        self.store, self.run, self.clock = store, run, clock
        self.count = len(run.rows)  # with those that were given
        self.fault: StoreError | None = None  # why nothing is written any more
        self._given: list[_Given] = []  # what is not acknowledged
        self._under_way = 0  # how many of them were given to the store
        self._patience: Patience | None = None  # since the store failed
        self._again: asyncio.Task[None] | None = None

    def give(
        self,
        rows: list[Row],
        update: dict[str, Any] | None = None,
        used: Sequence[int] = (),
        seen: Sequence[int] = (),
        waits: Waits | None = None,
    ) -> asyncio.Future[None]:
        """Have *rows* and the rest stored after what was given before; done when they are."""
        run = self.run
        append = Append(
            run.key, run.fence, rows, update, used, seen, self.count, waits, run.project
        )
        self.count += len(rows)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._given.append(_Given(append, future))
        if self.fault is not None:
            _fail(future, self.fault)
        elif not self._under_way and self._patience is None:
            self._send()
        return future

    def left(self) -> Append:
        """All that is not acknowledged."""
        if not self._given:
            return Append(self.run.key, self.run.fence, after=self.count, project=self.run.project)
        return self._whole()

    def _whole(self) -> Append:
        first = self._given[0].append
        return first if len(self._given) == 1 else _joined([one.append for one in self._given])

    def _send(self) -> None:
        self._under_way = len(self._given)
        try:
            self.store.give(self._whole(), self)
        except Exception as error:  # noqa: BLE001 - who answers this answers other runs too
            self.set_exception(error)

    def done(self) -> bool:
        """See `Told`: an answer is always waited for."""
        return False

    def set_result(self, _: None) -> None:
        """See `Told`."""
        count, self._under_way = self._under_way, 0
        self._patience = None
        done, self._given = self._given[:count], self._given[count:]
        for given in done:
            if not given.stored.done():
                given.stored.set_result(None)
        if self._given:
            self._send()

    def set_exception(self, error: BaseException) -> None:
        """See `Told`."""
        self._under_way = 0
        if not isinstance(error, StoreError):
            error = StoreError(f"could not be stored: {error_named(error)}")
        self._patience = self._patience or Patience(self.clock)
        if not error.passing or self._patience.over:
            self._end(error)
        else:
            self._again = asyncio.get_running_loop().create_task(self._later(self._patience))

    async def _later(self, patience: Patience) -> None:
        await patience.pause()
        self._send()

    def _end(self, error: StoreError) -> None:
        """Nothing more is written: those who wait get the reason."""
        self.fault = error
        for given in self._given:
            if not given.stored.done():
                _fail(given.stored, error)


def _joined(appends: Sequence[Append]) -> Append:
    """All as one, each of which follows the one before it."""
    update: dict[str, Any] = {}
    for one in appends:
        update.update(one.update or {})
    return replace(
        appends[0],
        rows=[row for one in appends for row in one.rows],
        update=update,
        used=[number for one in appends for number in one.used],
        seen=[number for one in appends for number in one.seen],
        waits=next((one.waits for one in appends if one.waits is not None), None),
    )


def _fail(stored: asyncio.Future[None], error: StoreError) -> None:
    """Say that an append is not stored. That nobody waits for it is no error that nobody looked at:
    it is in the fault of its outbox.
    """
    stored.set_exception(error)
    stored.exception()
