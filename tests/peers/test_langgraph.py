"""The examples for LangGraph on the page for those who come from it print what they say, on the
real LangGraph. ``make peers`` installs it, in an environment of its own.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from pages import find, shown
from patience import HANGS_SECONDS
from stories import Block, blocks

PEERS = os.environ.get("NANO_VM_PEERS")
PAGE = find("from-langgraph.md").read_text(encoding="utf-8")


def examples() -> list[Block]:
    """Those of LangGraph, in order."""
    return [block for block in blocks(PAGE) if block.reason and "LangGraph" in block.reason]


def test_each_tab_of_langgraph_has_an_example_that_prints() -> None:
    found = examples()
    assert len(found) == PAGE.count('=== "LangGraph"') == PAGE.count('=== "llm-nano-vm"')
    assert all(block.kind == "python" and shown(block.text) for block in found)


@pytest.mark.slow
@pytest.mark.elsewhere("needs the LangGraph that make peers installs")
@pytest.mark.skipif(PEERS is None, reason="make peers runs it")
def test_the_examples_print_what_they_say(tmp_path: Path) -> None:
    text = "\n".join(block.text for block in examples())  # one goes on where another ended
    done = subprocess.run(
        [Path(PEERS or "") / "langgraph" / "bin" / "python", "-c", text],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [line.strip() for line in shown(text).splitlines()]
    assert [line.strip() for line in done.stdout.splitlines()] == said
