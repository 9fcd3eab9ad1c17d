"""docs/mcp.md tells the truth: its examples run and print what they say, its tables name what is
there.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from patience import HANGS_SECONDS

from nano_vm.mcp.server import OUTCOME
from nano_vm.mcp.tools import mcp_tools

TEXT = (Path(__file__).parents[1] / "docs" / "mcp.md").read_text(encoding="utf-8")
SERVER, PROGRAM = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_its_example_runs(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{line}\n" for line in re.findall(r"^# (.*)$", PROGRAM, re.M))


def test_every_argument_and_field_is_named() -> None:
    arguments = set(inspect.signature(mcp_tools).parameters) - {"source"}
    assert {name for name in arguments if f"| `{name}` |" not in TEXT} == set()
    assert {name for name in OUTCOME["properties"] if f"`{name}`" not in TEXT} == set()
