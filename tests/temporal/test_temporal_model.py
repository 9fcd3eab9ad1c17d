"""The model of a cluster: what a part carries, and how long steps wait for it."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import cluster_model
from cluster_model import Part, Step, fullest, parts_of, told, wait_ms, wrapped

CORES = Part("cores", 5.0, 40, False, "measured")
STEP = Step(4.0, 6.0, 1000.0)


def test_a_part_carries_what_its_units_do_in_a_second() -> None:
    assert CORES.carries == 8000
    assert CORES.needs(8000, full=1.0) == 40
    assert CORES.needs(8000, full=0.7) == 58
    assert CORES.needs(1) == 1


def test_steps_wait_where_a_part_is_fuller_and_longest_where_it_is_too_full() -> None:
    waits = [
        wait_ms(part, rate, 2.0, random.Random(1))
        for part in (CORES, replace(CORES, drawn=True))
        for rate in (800.0, 7600.0, 16_000.0)
    ]
    free, busy, over, drawn_free, drawn_busy, drawn_over = waits
    assert free == 0
    assert 0 < drawn_free < drawn_busy < drawn_over
    assert free < busy < over
    assert busy < drawn_busy  # one that is drawn cannot go to another unit
    assert over > 800  # twice what it carries: half of two seconds is left over at the end


def test_runs_are_not_even_on_shards() -> None:
    few, many = (fullest(runs, 64, random.Random(2)) for runs in (640, 64_000))
    assert few > many > 1


def test_the_first_part_that_is_full_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_model, "SIMULATED_SECONDS", 0.1)
    monkeypatch.setattr(cluster_model, "TARGET_RUNS", 10_000)
    text = wrapped(told(STEP))
    slowest = min(parts_of(STEP), key=lambda part: part.carries)
    assert f'"{slowest.name}", at {slowest.carries:,.0f} steps' in text.replace("\n  ", " ")
    assert all(len(line) <= 100 for line in text.split("\n") if not line.startswith("|"))
    cores = next(line for line in text.split("\n") if line.startswith("| core of a worker"))
    assert "10,000 | 58, wait" in cores
