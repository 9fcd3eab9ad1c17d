"""Short versions of what `make soak` does at length."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


def soak(module: str, *arguments: str) -> dict[str, Any]:
    """Run one of the campaigns in a process of its own, since it forks, and give what it counted."""
    command = [sys.executable, "-m", f"soak.{module}", *arguments]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["faults"] == []
    assert done.returncode == 0, done.stderr
    return result


def test_runs_survive_kills() -> None:
    result = soak("kill", "--kills", "25", "--seed", "3")
    assert result["kills"] >= 25
    assert result["at_points"] >= 3
    assert result["steps"] >= 50
