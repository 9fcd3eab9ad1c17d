"""Simulated worlds keep every invariant; the same seed is the same history."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.campaign import campaign
from simulation.life import Life

ROOT = Path(__file__).parent.parent.parent
WORLDS = 60


def history(seed: int) -> str:
    return "\n".join(map(str, Life(seed).live().world.history))


@pytest.mark.slow
def test_no_world_is_broken() -> None:
    found = campaign(range(WORLDS))
    assert found.broken == {}, found.told(1.0)
    assert found.faults.keys() >= {"death", "freeze", "partition", "refused", "lost_answer"}
    assert set(found.runs) == {"success", "failed", "cancelled"}


def test_the_same_seed_is_the_same_history() -> None:
    assert history(5) == history(5)


def test_other_seeds_are_other_histories() -> None:
    assert history(5) != history(6)


def test_a_history_does_not_depend_on_the_order_of_sets() -> None:
    code = (
        "import hashlib, simulation.test_worlds as t;"
        "print(hashlib.sha256(t.history(1).encode()).hexdigest())"
    )
    told = set()
    for hash_seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        told.add(done.stdout.strip())
    assert told == {hashlib.sha256(history(1).encode()).hexdigest()}
