"""A worker claims stored runs that have no owner, and drives them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...errors import ProgramError, StoreError, VMError
from ...records.trace import Trace
from .outbox import Patience
from .resume import Claimed, Durable

logger = logging.getLogger("nano_vm")

RESTING_SECONDS = 60.0
"""How long a worker leaves a run that it could not resume."""

REFILLED_PART = 0.25
"""The part of a worker's places that are free before it claims runs for them, or it would ask the
store more often than it works.
"""

LOOK_AHEAD = 8
"""How many runs a worker looks at for each that it claims: others claim of the same, and pass over
what it holds.
"""

PASSED_OVER_SECONDS = 0.02
"""How soon a worker looks again after others were quicker; each time twice as late, until it polls.
"""

SPREAD = 0.5
"""The part of a wait that is drawn, so that workers which began together do not ask together."""

GRACE_SECONDS = 10.0
"""How long a worker that stops waits for calls that are under way; what then has no outcome is in
doubt.
"""


@dataclass(slots=True)
class Shelf:
    """What a worker knows of runs that it did not drive: programs that this host can run, and until
    when it leaves the others.
    """

    now: float = 0.0
    known: set[str] = field(default_factory=set)
    programs: dict[str, float] = field(default_factory=dict)
    runs: dict[str, float] = field(default_factory=dict)

    def rests(self, run_id: str, digest: str) -> bool:
        """Whether a run is left alone for now."""
        return max(self.runs.get(run_id, 0.0), self.programs.get(digest, 0.0)) > self.now


class Worker:
    """Claims runs that have no owner and drives up to *concurrency* of them; *only* is a status.

    Runs that this host cannot resume are left, and tried again after a minute.
    """

    def __init__(
        self, durable: Durable, *, concurrency: int, poll_seconds: float, only: str | None
    ) -> None:
        self.durable, self.clock = durable, durable.preparer.clock
        self.concurrency, self.poll_seconds, self.only = concurrency, poll_seconds, only
        self.tasks: dict[str, asyncio.Task[Trace | None]] = {}
        self.shelf = Shelf()
        self.looked, self.idle = -poll_seconds, False
        self.surveyed = -poll_seconds  # when it looked at the other owners, and at events
        self.spare: Sequence[str] = ()  # owners whose runs it does not try for
        self.plenty = False  # whether more runs were there than it claimed
        self.passed_over = 0  # how often in a row others were quicker
        self.outage: Patience | None = None  # since the store does not answer
        self.leaving = False

    async def work(self, ended: Callable[[Trace], None], *, until_idle: bool) -> None:
        """Work for ever, or until there is nothing to do; *ended* is called with each trace."""
        try:
            while True:
                now = self.clock.monotonic_ns() / 1e9
                await self._fill(now, until_idle=until_idle)
                if self.tasks:
                    await asyncio.wait(
                        self.tasks.values(),
                        return_when=asyncio.FIRST_COMPLETED,
                        timeout=self._pause(),
                    )
                    self._collect(now, ended)
                elif until_idle and self.idle and not self.durable.lease.owes:
                    return
                else:
                    await self.clock.sleep(self._pause())
        finally:
            if self.tasks:
                await self._leave()

    async def _fill(self, now: float, *, until_idle: bool) -> None:
        """Claim runs for the places that are free, if it is time to ask the store."""
        free = self.concurrency - len(self.tasks)
        wanted = free >= max(self.concurrency * REFILLED_PART, 1) and not (self.tasks and self.idle)
        if not wanted and not (free and now >= self.looked + self.poll_seconds):
            return
        self.looked = self.shelf.now = now
        try:
            claimed, self.idle = await self._claim_some(free, self.only)
            self.outage = None
        except StoreError as error:
            self._meet_outage(error, raises=until_idle and not self.tasks)
            claimed, self.idle = {}, False
        self.passed_over = 0 if claimed or self.idle else self.passed_over + 1
        for run_id, run in claimed.items():
            self.tasks[run_id] = asyncio.create_task(
                self.durable.drive_claimed(run, lambda: self.leaving)
            )

    def _pause(self) -> float:
        """Seconds until the store is asked again."""
        longest = self.poll_seconds
        if self.passed_over and not self.outage:
            longest = min(longest, PASSED_OVER_SECONDS * 2 ** min(self.passed_over, 10))
        return longest * (1 - SPREAD * self.durable.system.random())

    def _collect(self, now: float, ended: Callable[[Trace], None]) -> None:
        """Hand over the traces of runs that have ended or wait."""
        for run_id in [run_id for run_id, task in self.tasks.items() if task.done()]:
            trace, fit = self._result_of(run_id, self.tasks.pop(run_id))
            if trace is not None:
                ended(trace)
            if not fit:
                self.shelf.runs[run_id] = now + RESTING_SECONDS

    def _meet_outage(self, error: StoreError, *, raises: bool) -> None:
        """Note that the store does not answer, which is said once; with *raises* patience ends."""
        since = self.outage
        if not error.passing or (raises and since is not None and since.over):
            raise error
        if since is None:
            logger.warning("no run is claimed; the store is asked again: %s", error)
        self.outage = since or Patience(self.clock)

    async def _claim_some(self, most: int, only: str | None) -> tuple[dict[str, Claimed], bool]:
        """Claim up to *most* runs that this host can resume; whether there was none to claim,
        here or elsewhere.

        As long as there are more than it can drive, it looks for what others left behind no more
        often than an idle one.
        """
        await self.durable.leased()
        fit: list[str] = []
        if self.plenty and self.shelf.now < self.surveyed + self.poll_seconds:
            fit = await self._claimable(most, only)
        if not fit:
            await self._survey()
            fit = await self._claimable(most, only)
        claimed = await self.durable.claim(fit, most)
        self.plenty = len(fit) > len(claimed)
        return claimed, not fit

    async def _survey(self) -> None:
        """See to what processes that are gone have left: their runs, and events that were on their
        way.
        """
        self.surveyed = self.shelf.now
        self.spare = await asyncio.to_thread(self.durable.lease.spared)
        await asyncio.to_thread(self.durable.store.deliver, self.durable.trusted)

    async def _claimable(self, most: int, only: str | None) -> list[str]:
        """Some of the runs that a worker should claim, and this host can resume."""
        found = await asyncio.to_thread(
            self.durable.store.claimable,
            self.clock.time_ns(),
            most * LOOK_AHEAD,
            only,
            spare=self.spare,
        )
        return [run_id for run_id, digest in found.items() if await self._may_try(run_id, digest)]

    async def _may_try(self, run_id: str, digest: str) -> bool:
        """Whether this host may try to resume a run now; the first run of a program answers for
        all.
        """
        if self.shelf.rests(run_id, digest):
            return False
        if digest not in self.shelf.known:
            try:
                self.durable.preparer.fitting(
                    await asyncio.to_thread(self.durable.store.load, run_id, rows=False)
                )
            except VMError as error:
                if isinstance(error, StoreError) and error.passing:
                    raise
                logger.warning("run %s cannot be resumed here: %s", run_id, error)
                resting = (
                    self.shelf.programs if isinstance(error, ProgramError) else self.shelf.runs
                )
                resting[digest if isinstance(error, ProgramError) else run_id] = (
                    self.shelf.now + RESTING_SECONDS
                )
                return False
            self.shelf.known.add(digest)
        return True

    async def _leave(self) -> None:
        """Stop driving: calls under way have `GRACE_SECONDS` to end, no further one is begun, and
        the runs are left to others.
        """
        self.leaving = True  # which those learn that drive a run later, after another owner
        for journal in self.durable.journals:
            if journal.run.run_id in self.tasks:
                journal.leave()
        await asyncio.wait(self.tasks.values(), timeout=GRACE_SECONDS)
        # in their order, which the set that `wait` gives does not have
        pending = [task for task in self.tasks.values() if not task.done()]
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        for run_id, task in self.tasks.items():
            self._result_of(run_id, task)

    def _result_of(
        self, run_id: str, task: asyncio.Task[Trace | None]
    ) -> tuple[Trace | None, bool]:
        """A task's result, and whether this host can resume the run; that it cannot is logged."""
        try:
            return task.result(), True
        except asyncio.CancelledError:
            return None, True
        except VMError as error:
            if isinstance(error, StoreError) and error.passing:
                logger.warning(
                    "run %s is given back as soon as the store answers: %s", run_id, error
                )
                return None, True
            logger.warning("run %s cannot be resumed here: %s", run_id, error)
        except Exception:  # a fault of ours stops one run, and not the worker
            logger.exception("run %s cannot be resumed here", run_id)
        return None, False
