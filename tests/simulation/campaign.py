"""Many worlds, one after the other, and what they came to."""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nano_vm.simulation.world import SECOND

from .kinds import kind_of
from .life import Life

COLLECTED_WORLDS = 3
"""After how many worlds what they left is collected: their objects all know each other."""


POINTS = {
    "_transaction": "before a commit",
    "_answer": "after a commit, before its answer",
    "ask": "before a question to the store",
    "wake": "before its answer, or before a thread goes on",
    "begin": "before a thread begins",
    "answer": "before the answer of a call or a thread",
    "leave": "between the last look at the lease and the call",
    "_turn": "between two turns of the event loop",
    "due": "before a timer",
}
"""Where a process died or stood still, by the event that it was about to have."""


@dataclass
class Found:
    """What some worlds came to."""

    worlds: int = 0
    simulated_ns: int = 0
    events: int = 0
    calls: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)  # at which a process died or stood still
    broken: dict[int, list[str]] = field(default_factory=dict)  # by seed

    def add(self, life: Life) -> None:
        """Count a world."""
        world = life.world
        self.worlds += 1
        self.simulated_ns += world.now
        self.events += world.events
        self.calls += life.ledger.count
        self.runs.update(kept.run.status for kept in life.database.model._runs.values())
        self.faults.update(fault.kind for fault in world.faults)
        self.faults["deploy"] += len(life.deploys)
        self.faults["outage"] += len(life.outages)
        self.points.update(
            f"{fault.kind} {POINTS.get(fault.where, 'elsewhere')}"
            for fault in world.faults
            if fault.kind in ("death", "freeze")
        )
        if life.broken:
            self.broken[life.seed] = life.broken

    def told(self, seconds: float) -> str:
        """A few lines for a person; those that are broken first, each with its seed."""
        counted = ", ".join(f"{kind} {count:,}" for kind, count in sorted(self.faults.items()))
        ended = ", ".join(f"{status} {count:,}" for status, count in sorted(self.runs.items()))
        return "\n".join(
            [
                f"{self.worlds:,} worlds in {seconds:.1f} s ({self.worlds / seconds:.1f}/s), "
                f"{self.simulated_ns / SECOND / 3600:.1f} simulated hours, {self.events:,} events, "
                f"{self.calls:,} calls",
                f"runs: {ended}",
                f"faults: {counted}",
                *(f"  {count:,} x {point}" for point, count in sorted(self.points.items())),
                f"broken: {len(self.broken)} {list(self.broken)}",
            ]
        )


def campaign(
    seeds: Iterable[int],
    *,
    kind: type[Life] = Life,
    stop_at: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Found:
    """Let the worlds of *seeds* live, all of one *kind*; no more once *stop_at* of them are broken.
    *tell* is told of each that is.
    """
    with warnings.catch_warnings():  # what a process that died was about to await is never awaited
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        return _campaign(seeds, kind, stop_at, tell)


def sound(seeds: Iterable[int], worlds: str = "plain") -> Found:
    """Let the worlds of *seeds* live, of one of `KINDS`.

    Raises:
        AssertionError: If any is broken: with the command that shows it.
    """
    found = campaign(seeds, kind=kind_of(worlds))
    more = "" if worlds == "plain" else f" ARGS='--worlds {worlds}'"
    told = [
        f"make simulate SEED={seed}{more}: {broken[0]}" for seed, broken in found.broken.items()
    ]
    assert not told, "\n".join(told)
    return found


def _campaign(
    seeds: Iterable[int], kind: type[Life], stop_at: int | None, tell: Callable[[str], None]
) -> Found:
    found = Found()
    enabled = gc.isenabled()
    gc.disable()
    frozen = gc.get_freeze_count() > 0
    gc.freeze()  # what is there already is not looked at again and again
    try:
        for seed in seeds:
            life = kind(seed).live()
            found.add(life)
            for fault in life.broken[:3]:
                tell(f"seed {seed}: {fault}")
            if found.worlds % COLLECTED_WORLDS == 0:
                gc.collect()
            if stop_at is not None and len(found.broken) >= stop_at:
                break
    finally:
        if not frozen:  # as what runs the tests has them
            gc.unfreeze()
        gc.collect()
        if enabled:
            gc.enable()
    return found
