"""Everything at once, for a while: kills, freezes, a clock that is set, a store that does not
answer; then all runs must end well.

    python -m soak.storm --seconds 60 --url postgres

Workers and a person live on one machine, as in `kill`, with a lease of a second. Some process is
frozen for up to three leases, the machine's clock is set by an hour to and fro, a file is locked by
another process, a server is killed and started again. Prints what was counted as JSON; the exit
code is 1 where anything is not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from postgres import PostgresServer

from nano_vm import ExecutionVM
from nano_vm.store.sql.store import SqlStore

from .checks import examine
from .kill import MOST_FAULTS, Campaign
from .life import Place, concluded, server_in, warm
from .points import Points
from .sabotage import SABOTAGE

LEASE_SECONDS = 1.0
HOUR_NS = 3_600 * 10**9
FREEZES, JUMPS, OUTAGES = (0.1, 1.2), (0.5, 3.0), (2.0, 6.0)
"""Seconds between two of a kind."""

BUSY_SECONDS = 0.5
FROZEN_SECONDS = (0.1, 3.0)
LOCKED_SECONDS = (0.2, 3.0)
DOWN_SECONDS = (0.0, 1.5)


class MachineClock:
    """The time of day of a machine, which all of its processes share and somebody sets."""

    def __init__(self) -> None:
        self._ahead = memoryview(mmap.mmap(-1, 8)).cast("q")
        self._true = time.time_ns

    monotonic_ns = staticmethod(time.monotonic_ns)
    sleep = staticmethod(asyncio.sleep)

    def time_ns(self) -> int:
        return self._true() + self._ahead[0]

    def set(self, ahead_ns: int) -> None:
        """Make it run ahead by so much."""
        self._ahead[0] = ahead_ns


class Coast(Place):
    """A place on a machine whose clock is set."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, url)
        self.clock = MachineClock()
        self.options = {"clock": self.clock, "lease_seconds": LEASE_SECONDS}

    def vm(self, points: Points, **options: Any) -> ExecutionVM:
        """A VM whose database is soon tired of waiting, so that runs have to."""
        return super().vm(
            points, **{"store": SqlStore(self.url, busy_timeout_seconds=BUSY_SECONDS), **options}
        )


class Storm(Campaign):
    """Disturbs for *seconds* in all ways that there are; *server* is that of the store, if it has
    one.
    """

    random_ms, point_ms = (300, 4_000), 4_000
    place: Coast

    def __init__(
        self,
        place: Coast,
        seed: int,
        workers: int,
        broken: str | None,
        seconds: float,
        server: PostgresServer | None,
    ) -> None:
        super().__init__(place, seed, workers, broken)
        self.server, self.until = server, time.monotonic() + seconds
        self.counted: Counter[str] = Counter()
        self.frozen: dict[int, float] = {}  # by process: when it is woken
        self.locker: int | None = None
        now = time.monotonic()
        self.due = {what: now + self.draw.uniform(*every) for what, every in self.kinds().items()}

    @staticmethod
    def kinds() -> dict[str, tuple[float, float]]:
        return {"freezes": FREEZES, "clock set": JUMPS, "outages": OUTAGES}

    def lasts(self) -> bool:
        return time.monotonic() < self.until

    def disturb(self) -> None:
        now = time.monotonic()
        self.wake(now)
        if self.locker is not None and os.waitpid(self.locker, os.WNOHANG)[0]:
            self.locker = None
        for what, every in self.kinds().items():
            if now < self.due[what]:
                continue
            self.due[what] = now + self.draw.uniform(*every)
            {"freezes": self.freeze, "clock set": self.set_clock, "outages": self.fail}[what]()

    def calm(self) -> None:
        self.wake(float("inf"))
        self.place.clock.set(3 * HOUR_NS)  # what was to come at any time has come

    def wake(self, now: float) -> None:
        for process, at in list(self.frozen.items()):
            if now >= at:
                del self.frozen[process]
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    def freeze(self) -> None:
        awake = [process for process in self.lives if process not in self.frozen]
        if len(awake) > 1:
            process = self.draw.choice(awake)
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
            self.frozen[process] = time.monotonic() + self.draw.uniform(*FROZEN_SECONDS)
            self.counted["freezes"] += 1

    def set_clock(self) -> None:
        self.place.clock.set(self.draw.choice((-HOUR_NS, 0, HOUR_NS, HOUR_NS // 60)))
        self.counted["clock set"] += 1

    def fail(self) -> None:
        """The store does not answer for a while."""
        if self.server is not None:
            self.server.stop(signal.SIGQUIT)
            time.sleep(self.draw.uniform(*DOWN_SECONDS))
            self.server.start()
            self.counted["server killed and started"] += 1
        elif self.locker is None:
            seconds = self.draw.uniform(*LOCKED_SECONDS)
            self.locker = os.fork()
            if self.locker == 0:
                _lock(self.place.url.removeprefix("sqlite:///"), seconds)
            self.counted["file locked"] += 1


def _lock(path: str, seconds: float) -> None:
    """The whole life of a process that holds a file."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.rollback()
    finally:
        os._exit(0)


def campaign(
    folder: Path, kind: str, seconds: float, *, seed: int, workers: int, broken: str | None = None
) -> dict[str, Any]:
    """The storm, and what is left behind it; ``faults`` is all that is not as it must be."""
    server = None
    url = f"sqlite:///{folder / 'runs.db'}"
    if kind == "postgres":
        server = server_in(folder)
        url = server.database()
    try:
        place = Coast(folder, url)
        warm(place)
        storm = Storm(place, seed, workers, broken, seconds, server)
        killing = storm.run()
        findings = examine(place)
    finally:
        if server is not None:
            server.stop(signal.SIGQUIT)
    crashes = place.faults.read_text() if place.faults.exists() else ""
    found = ([crashes[:5_000]] if crashes else []) + findings.pop("faults")
    counted = {"kills": killing.kills, **storm.counted, "seconds": round(killing.seconds, 1)}
    return {**counted, **findings, "faults": found[:MOST_FAULTS]}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--url", default="sqlite", choices=["sqlite", "postgres"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--sabotage", choices=list(SABOTAGE), help="break this on purpose")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nano-vm-storm-"))
    result = campaign(
        folder,
        given.url,
        given.seconds,
        seed=given.seed,
        workers=given.workers,
        broken=given.sabotage,
    )
    return concluded(result, folder, keep=given.keep, broken=given.sabotage)


if __name__ == "__main__":
    sys.exit(main())
