"""docs/python.md tells the truth: its examples run and print what they say, and its tables name
what is there.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from patience import HANGS_SECONDS

from nano_vm.run.observers import Event
from nano_vm.run.options import RunOptions

TEXT = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_its_examples_run(text: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{line}\n" for line in re.findall(r"^# (.*)$", text, re.M))


def test_every_option_of_a_run_is_named() -> None:
    assert {name for name in RunOptions.__annotations__ if f"`{name}`" not in TEXT} == set()


def test_every_kind_of_event_is_named() -> None:
    kinds = set(re.findall(r"``(\w+_\w+|text)``", Event.__doc__ or ""))
    assert {"run_started", "attempt_failed", "text"} <= kinds
    assert {kind for kind in kinds if f"`{kind}`" not in TEXT} == set()
