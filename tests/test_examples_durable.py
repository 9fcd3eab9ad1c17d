"""The example of a refund that is approved: it is killed twice, and the bank pays once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from patience import HANGS_SECONDS

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["refund-approval.py", "refund-temporal.py"])
def test_a_refund_survives_its_worker(name: str) -> None:
    if name == "refund-temporal.py":
        pytest.importorskip("temporalio", reason="`make test` installs the extra temporal")
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(" ")] == [
        "analyze",
        "guardrail",
        "order",
        "manager",
        "refund/reconcile",
        "refund",
    ]
    assert lines[-1].startswith("The bank paid 1 time")
    workers = [word for line in lines for word in line.split() if word.isdigit()]
    assert len({*workers}) >= 3, "three workers"
