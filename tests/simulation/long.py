"""Simulated worlds in which things take long: calls that take seconds, outages that take with them
what was stored and not answered yet, a deploy that is taken back, events that come before anybody
asks for them, senders that die before they know, and processes that live on when all is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from soak.programs import drawn, key_of

from nano_vm import ExecutionVM
from nano_vm.simulation.world import SECOND, WAY_NS
from nano_vm.store.records import ENDED

from .life import CHAOS_NS, Life

LONG_WAY_NS = SECOND // 20, SECOND
"""How long a call, or its answer, is on its way where calls take long."""

LINGER_NS = 6 * SECOND
"""How long a world goes on when all runs have ended: what is owed is given by then."""


@dataclass
class Long(Life):
    """A world in which things take long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        draw = Random(self.seed ^ 0x10D6)
        self.ledger.way_ns = draw.choice((WAY_NS, LONG_WAY_NS, LONG_WAY_NS))
        self.database.takes_answers = draw.random() < 0.7
        self.linger_ns = draw.choice((0, LINGER_NS))
        self.hastes = draw.choice((0.0, 0.2))
        if self.deploys and draw.random() < 0.5:
            self.deploys.append(draw.randrange(self.deploys[0], CHAOS_NS + 1))
        if draw.random() < 0.5:  # often enough that what is under way is met
            self.cancels = 0.3

    def is_paid(self, run_id: str) -> bool:
        """See `Life.is_paid`: who has sent it may be dead, and nobody knows better."""
        events = self.database.model._events.values()
        return super().is_paid(run_id) or any(e.body.get("id") == run_id for e, _ in events)

    def pay(self, vm: ExecutionVM, by: str) -> None:
        """See `Life.pay`; now and then an event is sent before anybody asks for it."""
        super().pay(vm, by)
        draw = self.world.draw
        hurries = [
            run.run_id
            for run_id, program in zip(self.ids, self.programs, strict=True)
            if program.name == "hurry" and self.database.model.has(run_id)
            for run in [self.database.model._runs[run_id].run]
            if run.status not in ENDED
        ]
        if hurries and draw.random() < self.hastes:
            run_id = draw.choice(hurries)
            key = key_of(run_id, "more")
            # it may come after the run has given up: then nobody has to use it
            if vm.send_event(run_id, f"more-{run_id}", {"way": "ab"[drawn(key, 2)]}, id=key):
                self.world.tell(by, f"sends more-{run_id} unasked")
