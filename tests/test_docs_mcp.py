"""mcp.md tells the truth: its examples run and print what they say, its tables name what is
there.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from pages import page, printed, shown

from nano_vm.mcp.server import OUTCOME
from nano_vm.mcp.tools import mcp_tools

TEXT, (SERVER, PROGRAM) = page("mcp.md")


@pytest.mark.slow
def test_its_example_runs(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    assert printed(PROGRAM, tmp_path) == shown(PROGRAM)


def test_every_argument_and_field_is_named() -> None:
    arguments = set(inspect.signature(mcp_tools).parameters) - {"source"}
    assert {name for name in arguments if f"| `{name}` |" not in TEXT} == set()
    assert {name for name in OUTCOME["properties"] if f"`{name}`" not in TEXT} == set()
