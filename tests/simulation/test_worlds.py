"""Simulated worlds keep every invariant; the same seed is the same history."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from campaigns import first

from nano_vm.simulation.world import Faults
from simulation.__main__ import smallest
from simulation.campaign import campaign, sound
from simulation.kinds import KINDS, kind_of
from simulation.life import Life
from simulation.mutants import kept, mutants

ROOT = Path(__file__).parent.parent.parent
CHUNK = 50
CHUNKS = first(1, range(10))
"""Worlds that are the same each time: `make test` tries one chunk of them, `make soak` all."""

FRESH = (("plain", 100), ("long", 20), ("served", 17), ("paired", 20))
"""How many of which kind are new in each: from the seed that ``NANO_VM_SEED`` names, which
`make test` takes from the commit and prints.
"""


def history(seed: int) -> str:
    """What happens in a world."""
    return "\n".join(map(str, Life(seed).live().world.history))


def demand(seeds: range) -> None:
    """That no world is broken, and that enough went wrong in them."""
    found = sound(seeds)
    assert found.faults.keys() >= {"death", "freeze", "partition", "refused", "lost_answer"}
    assert set(found.runs) == {"success", "failed", "cancelled"}


@pytest.mark.campaign
@pytest.mark.parametrize("chunk", CHUNKS)
def test_no_world_is_broken(chunk: int) -> None:
    demand(range(chunk * CHUNK, (chunk + 1) * CHUNK))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(len(FRESH)))
def test_no_world_that_nobody_has_seen_is_broken(part: int) -> None:
    worlds, count = FRESH[part]
    start = int(os.environ.get("NANO_VM_SEED", time.time_ns() // 10**9)) * 1000 + 100 * part
    assert sound(range(start, start + count), worlds).worlds == count


FOUND: dict[str, tuple[int, ...]] = {
    "plain": (
        11146,
        11106,
        12034,
        12054,
        12136,
        12214,
        12530,
        12609,
        125,
        180,
        897872581330,
        7000238,
        1795770718054,
        1795770130165,
        72000121,
        72000866,
        72000472,
        71001309,
        2768085423060,
        1795773287006,
        81000533,
    ),
    "long": (77340, 5000085, 14000342, 61000296, 61000305),
    "paired": (91200383, 91200491),
    "served": (63000111, 1795770949421, 91000253),
}
"""Worlds that were broken once, by their kind: by what docs/explanation/reliability.md says was
found, and by faults of the worlds themselves.
"""


@pytest.mark.slow
@pytest.mark.parametrize("worlds", KINDS)
def test_no_world_that_was_broken_once_is_broken_again(worlds: str) -> None:
    """Nor is one that shows a mutant."""
    known = kept()
    shown = [
        known[str(one)].seed for one in mutants() if one.worlds == worlds and str(one) in known
    ]
    seeds = {seed for seed in shown if seed is not None} | {*FOUND[worlds]}
    found = campaign(sorted(seeds), kind=kind_of(worlds))
    assert found.broken == {}, found.told(1.0)


@pytest.mark.slow
def test_the_same_seed_is_the_same_history() -> None:
    assert history(5) == history(5)


@pytest.mark.slow
def test_a_broken_world_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here one in which it is a fault that a process dies."""
    live = Life.live

    def lived(self: Life) -> Life:
        live(self)
        if any(fault.kind == "death" for fault in self.world.faults):
            self.broken.append("somebody died")
        return self

    monkeypatch.setattr(Life, "live", lived)
    faults = Faults(death=150, refused=60, lost_answer=60)
    broken = Life(4, runs=3, faults=faults).live()
    small = smallest(broken)
    assert [fault.kind for fault in small.world.faults].count("death") == 1
    assert len(small.world.faults) < len(broken.world.faults)


@pytest.mark.slow
def test_other_seeds_are_other_histories() -> None:
    assert history(5) != history(6)


SEEDS = (1, 3, 7)
TOLD = """
import hashlib
from simulation.life import Life
for seed in {seeds}:
    told = "\\n".join(map(str, Life(seed).live().world.history))
    print(hashlib.sha256(told.encode()).hexdigest())
"""
OTHERS = ROOT / ".venv" / "others"


def told_by(python: str | Path, hash_seed: str) -> list[str]:
    """The hashes of some histories, as another Python has them."""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
    }
    code = TOLD.format(seeds=SEEDS)
    done = subprocess.run(
        [str(python), "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def told_here() -> list[str]:
    return [hashlib.sha256(history(seed).encode()).hexdigest() for seed in SEEDS]


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_a_history_does_not_depend_on_the_order_of_sets(hash_seed: str) -> None:
    assert told_by(sys.executable, hash_seed) == told_here()


@pytest.mark.slow
@pytest.mark.elsewhere("another Python, which `make test` prepares where the machine has one")
@pytest.mark.parametrize(
    "version", [v for v in ("3.11", "3.12", "3.13") if v != "{}.{}".format(*sys.version_info)]
)
def test_a_history_is_the_same_under_any_python(version: str) -> None:
    python = OTHERS / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no Python {version} beside this one")
    assert told_by(python, "random") == told_here()
