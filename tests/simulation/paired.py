"""Simulated worlds in which two kinds of faults meet: only these two happen, and often. So what
takes both at once, and is rare where there are many kinds, is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from soak.programs import drawn, key_of

from nano_vm import ExecutionVM
from nano_vm.simulation.world import SECOND, Faults, Process, here
from nano_vm.store.protocol import Append
from nano_vm.store.records import ENDED

from .life import CHAOS_NS, HOSTS
from .long import Long
from .programs import FOCUSED, PROGRAMS

OFTEN = {
    "death": (60, 400),
    "freeze": (30, 300),
    "clock": (60, 400),
    "partition": (60, 400),
    "refused": (3, 20),
    "lost_answer": (3, 20),
    "slow": (4, 20),
    "failed": (4, 20),
    "hung": (8, 40),
    "lost": (4, 20),
}
"""How often, at most and at least, a kind happens in the worlds that have it."""

AWAY_NS = 16 * SECOND, 30 * SECOND
"""How long the store is away in the worlds that have that and one kind more: longer than who writes
has patience. It goes right after it took something, which it has not answered.
"""

LAST_NS = SECOND
"""How long before its end what is asked is answered at the last moment."""

LINGER_NS = 25 * SECOND
"""How long some of them go on when all runs have ended: what the store is to forget it has forgotten
by then.
"""


@dataclass
class Paired(Long):
    """A world of two kinds of faults."""

    def __post_init__(self) -> None:
        draw = Random(self.seed ^ 0x2FA17)
        goes_away = draw.random() < 0.3
        kinds = draw.sample(list(OFTEN), 1 if goes_away else 2)
        rates = {kind: draw.randint(*OFTEN[kind]) for kind in kinds}
        self.faults = self.faults or Faults(**rates)
        super().__post_init__()
        self.hosts = draw.choice(HOSTS[1:])  # none of which stands still besides
        self.right_clocks = not self.faults.clock
        if self.right_clocks:
            for computer in self.computers:
                computer.offset_ns = computer.drift_ppm = 0
        self.poll_seconds = 0.5
        self.dawdles = draw.random() < 0.5
        self.outages = [draw.randrange(CHAOS_NS)] if goes_away else []
        self.outage, self.outage_ns = "away", draw.randrange(*AWAY_NS)
        self.database.takes_answers = True
        self.database.answers_slowly = True
        self.linger_ns = draw.choice((0, 0, 0, LINGER_NS))
        self.deploys = [at for at in self.deploys if draw.random() < 0.3]
        self.programs = [
            draw.choice(FOCUSED if draw.random() < 0.5 else PROGRAMS) for _ in self.ids
        ]
        self.database.appended.append(self.has_stored)
        self.goes_away = False

    def fail_store(self) -> None:
        """See `Life.fail_store`: soon."""
        self.goes_away = True

    def has_stored(self, process: Process, item: Append) -> None:
        """Go away if it is time: who gave *item* is not to hear that it was stored."""
        if self.goes_away:
            self.goes_away, self.outages = False, [self.world.now]
            super().fail_store()

    def settle(self, vm: ExecutionVM, process: Process, run_id: str, entry: Any) -> None:
        """See `Life.settle`; in half of the worlds people answer at the last moment."""
        if not self.dawdles or self.is_urgent(process, entry):
            super().settle(vm, process, run_id, entry)

    def is_urgent(self, process: Process, entry: Any) -> bool:
        """Whether what is asked has to be answered now, by the clock of *process*."""
        return process.computer.time_ns(self.world.now) > entry.get("deadline_ns", 0) - LAST_NS

    def pay(self, vm: ExecutionVM, by: str) -> None:
        """See `Life.pay`; what `EARLY` asks for is sent at any time of its run."""
        super().pay(vm, by)
        draw = self.world.draw
        for run_id, program in zip(self.ids, self.programs, strict=True):
            kept = self.database.model._runs.get(run_id)
            if program.name != "early" or kept is None or kept.run.status in ENDED:
                continue
            asked = [e for e in kept.run.waiting if e["path"] == "both/word"]
            urgent = any(self.is_urgent(here(), entry) for entry in asked)
            if urgent if self.dawdles else draw.random() < 0.2:
                key = key_of(run_id, "both/word")
                if vm.send_event(run_id, f"word-{run_id}", {"way": "ab"[drawn(key, 2)]}, id=key):
                    self.world.tell(by, f"sends word-{run_id} unasked")
