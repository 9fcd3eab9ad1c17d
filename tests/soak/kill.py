"""The kill test: workers and a person are killed at random instants and at chosen points; then all
runs must end well.

    python -m soak.kill --kills 500 --url sqlite

Every life is a fork of this process, which has all imported and nothing opened: so a life begins
within milliseconds. Prints what was counted as JSON; the exit code is 1 where anything is not as it
must be.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .checks import examine
from .life import Place, concluded, database, decide, live, warm, work
from .points import NAMES, Points, Shared
from .sabotage import SABOTAGE

RANDOM_MS = (20, 250)
"""When a process dies that is not to die at a point."""

POINT_MS = 1_000
"""When it dies all the same, where it never came to its point so often."""

STILL_SECONDS = 120
"""How long nothing may be done while runs are left that have not ended. How long they take depends
on what else the machine does; a run that hangs does nothing for ever.
"""

PROGRESS = ("call", "model", "outcome", "end", "send", "submit")
"""Points that are passed by who does something, and not by who only looks."""

NEVER = float("inf")

MOST_FAULTS = 20
"""Faults that are told; more only hide the first."""


@dataclass
class Killing:
    """What a campaign counted."""

    random: int = 0
    at_points: int = 0
    early: int = 0  # before the point they were to die at
    workers: int = 0
    seconds: float = 0.0
    passed: dict[str, int] = field(default_factory=dict)
    died: dict[str, int] = field(default_factory=dict)

    @property
    def kills(self) -> int:
        """All that died by SIGKILL."""
        return self.random + self.at_points + self.early


class Campaign:
    """Keeps *workers* workers and a person alive, and kills them."""

    random_ms, point_ms = RANDOM_MS, POINT_MS

    def __init__(
        self, place: Place, seed: int, workers: int, broken: str | None, kills: int = 0
    ) -> None:
        self.broken, self.kills = broken, kills
        self.place, self.draw, self.workers = place, random.Random(seed), workers
        self.shared = Shared()
        self.killing = Killing()
        self.lives: dict[
            int, tuple[str, float, bool]
        ] = {}  # by process: what it is, when it dies, whether it has a point
        self.number = 0

    def lasts(self) -> bool:
        """Whether there is more to disturb."""
        return self.killing.kills < self.kills

    def disturb(self) -> None:
        """What happens besides kills."""

    def calm(self) -> None:
        """Nothing is disturbed any more."""

    def run(self) -> Killing:
        """As long as it lasts, and then until all runs have ended."""
        started = time.monotonic()
        self.place.more.touch()
        while self.lasts() and not self.place.faults.exists():
            self.fill(mortal=True)
            self.disturb()
            self.step()
        self.place.more.unlink()
        self.calm()
        # these end the runs undisturbed; who was to die at a point may still do so
        for process in list(self.lives):
            role, _, point = self.lives[process]
            self.lives[process] = role, NEVER, point
        done, until = -1, 0.0
        # all of them may have died at once, and left runs that others are to end
        while not self.place.faults.exists() and (self.lives or self.unfinished()):
            if self.progress() != done:
                done, until = self.progress(), time.monotonic() + STILL_SECONDS
            if time.monotonic() > until:
                break
            self.step()
            if Counter(self.roles())["person"] == 0 or Counter(self.roles())["worker"] == 0:
                if self.unfinished():
                    self.fill(mortal=False)
        for process in list(self.lives):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        self.killing.seconds = time.monotonic() - started
        self.killing.passed, self.killing.died = self.shared.passed(), self.shared.died()
        return self.killing

    def progress(self) -> int:
        """A number that grows with all that is done."""
        passed = self.shared.passed()
        return sum(count for name, count in passed.items() if name.startswith(PROGRESS))

    def roles(self) -> list[str]:
        return [role for role, _, _ in self.lives.values()]

    def unfinished(self) -> bool:
        """Whether some run has not ended; asked in a process of its own, since this one must not
        open the database.
        """
        process = os.fork()
        if process == 0:
            code = 2
            try:
                from nano_vm.store.sql.store import SqlStore

                from .life import count_unfinished

                code = 1 if count_unfinished(SqlStore(self.place.url)) else 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0

    def fill(self, *, mortal: bool) -> None:
        """Begin the lives that are missing."""
        roles = Counter(self.roles())
        for role, wanted in (("worker", self.workers), ("person", 1)):
            for _ in range(wanted - roles[role]):
                self.begin(role, mortal)

    def begin(self, role: str, mortal: bool) -> None:
        self.number += 1
        point, number = None, 0
        if mortal and self.draw.random() < (0.7 if role == "worker" else 0.2):
            died = self.shared.died()
            mine = [name for name in NAMES if name.startswith("send") == (role == "person")]
            few = min(died[name] for name in mine)
            # so that each gets its share
            point = self.draw.choice([name for name in mine if died[name] <= few + 2])
            number = (
                1 + int(self.draw.expovariate(1 / 6))
                if role == "worker"
                else 1 + int(self.draw.expovariate(1))
            )
        process = os.fork()
        if process == 0:
            if self.broken:
                SABOTAGE[self.broken]()
            points = Points(self.shared, point, number)
            points.patch(self.place.keep)
            name = f"r{self.number}"
            main = work if role == "worker" else decide
            live(lambda: main(self.place, points, name), self.place)
        wait = self.point_ms if point is not None else self.draw.randint(*self.random_ms)
        dies = time.monotonic() + wait / 1000 if mortal else NEVER
        self.lives[process] = role, dies, point is not None

    def step(self) -> None:
        """Reap who died, kill whose time has come."""
        for process, (role, dies, point) in list(self.lives.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended and time.monotonic() >= dies:
                os.kill(process, signal.SIGKILL)
                ended, status = os.waitpid(process, 0)
                if os.WIFSIGNALED(status):
                    if point:
                        self.killing.early += 1
                    else:
                        self.killing.random += 1
                del self.lives[process]
            elif ended:
                del self.lives[process]
                if os.WIFSIGNALED(status):
                    self.killing.at_points += 1
                else:
                    continue
            else:
                continue
            self.killing.workers += role == "worker"
        time.sleep(0.001)


def campaign(
    folder: Path,
    url: str,
    kills: int,
    *,
    seed: int = 0,
    workers: int = 2,
    broken: str | None = None,
) -> dict[str, Any]:
    """Kill, and examine; what was counted, with ``faults``: all that is not as it must be."""
    place = Place(folder, url)
    warm(place)
    killing = Campaign(place, seed, workers, broken, kills).run()
    findings = examine(place)
    crashes = place.faults.read_text() if place.faults.exists() else ""
    found = ([crashes[:5_000]] if crashes else []) + findings.pop("faults")
    faults = found[:MOST_FAULTS] + (
        [f"and {len(found) - MOST_FAULTS} more"] if len(found) > MOST_FAULTS else []
    )
    counted = {
        "kills": killing.kills,
        "random": killing.random + killing.early,
        "at_points": killing.at_points,
        "of_workers": killing.workers,
        "seconds": round(killing.seconds, 1),
    }
    return {**counted, **findings, "passed": killing.passed, "died": killing.died, "faults": faults}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument(
        "--url", default="sqlite", help="sqlite, postgres, or the URL of an empty database"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sabotage", choices=list(SABOTAGE), help="break this on purpose")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nano-vm-kill-"))
    with database(folder, given.url) as url:
        result = campaign(
            folder, url, given.kills, seed=given.seed, workers=given.workers, broken=given.sabotage
        )
    return concluded(result, folder, keep=given.keep, broken=given.sabotage)


if __name__ == "__main__":
    sys.exit(main())
