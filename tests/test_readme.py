"""The README tells the truth: its Python runs as printed, its commands exist, its console output is
what comes out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_example_runs_as_printed(tmp_path: Path) -> None:
    (code,) = [text for language, text in BLOCKS if language == "python"]
    file = tmp_path / "readme.py"
    file.write_text(code, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(file)], capture_output=True, text=True, check=False
    )
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("success refunded ")
    assert [line.split()[0] for line in lines[1:]] == ["analyze", "guardrail", "process_refund"]


@pytest.mark.slow
def test_the_console_block_is_what_the_command_prints(tmp_path: Path) -> None:
    (block,) = [text for _, text in BLOCKS if text.startswith("$ nano-vm check")]
    expected = block.splitlines()[1]
    yaml = re.search(r'from_yaml\("""\n(.*?)"""\)', README, re.DOTALL)
    assert yaml is not None
    program = yaml[1].replace("\\\\n", "\\n").replace("then: process_refund", "then: process_refnd")
    (tmp_path / "refund.yaml").write_text(program, encoding="utf-8")
    command = [sys.executable, "-m", "nano_vm", "check", "refund.yaml"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 1
    assert expected in (ran.stdout + ran.stderr).replace("\n  ", " ")


def test_it_fits_on_two_screens() -> None:
    assert len(README.splitlines()) <= 110


def test_the_commands_it_names_exist() -> None:
    targets = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    made = set(
        re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert targets == {"demo", "test"}
    assert targets <= made


def test_the_files_it_links_are_there() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
