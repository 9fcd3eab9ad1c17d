"""durable.md tells the truth: its files work, its Python runs, and its commands print what it
shows.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import find
from patience import HANGS_SECONDS

ROOT = Path(__file__).parents[1]
TEXT = find("durable.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)

PARCEL = "tools = {'ship': lambda amount: f'shipped for {amount}'}\n"
PRICE = "name: price\nsteps:\n  - {id: price, type: tool, tool: ship, args: {amount: $kg}}\n"
DOUBT = "name: pay\nsteps:\n  - {id: pay, type: tool, tool: pay, args: {}}\n"
DOUBT_TOOLS = """\
import os, signal

def pay():
    return "paid"

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

tools, killed = {"pay": pay}, {"pay": kill}
"""


def of(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the document, and those that it leaves to the reader."""
    path = tmp_path_factory.mktemp("durable")
    refund, parcel = of("yaml")
    tools, program = of("python")
    inputs = "".join(json.dumps({"kg": kg}) + "\n" for kg in (1, 2, 5))
    for name, text in (
        ("refund.yaml", refund),
        ("parcel.yaml", parcel),
        ("refund.py", tools),
        ("program.py", program),
        ("parcel.py", PARCEL),
        ("parcel-price.yaml", PRICE),
        ("parcels.jsonl", inputs),
        ("doubt.yaml", DOUBT),
        ("doubt.py", DOUBT_TOOLS),
    ):
        (path / name).write_text(text, encoding="utf-8")
    return path


@pytest.mark.slow
def test_commands_print_what_is_shown(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NANO_VM_DEBUG": ""}
    digests: dict[str, str] = {}
    for command, expected in sessions():
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            env[name] = value
            continue
        for shown, digest in digests.items():
            command = command.replace(shown, digest)
        args = [sys.executable, "-m", "nano_vm", *shlex.split(command, comments=True)[1:]]
        ran = subprocess.run(
            args,
            cwd=folder,
            env=env,
            capture_output=True,
            encoding="utf-8",
            timeout=HANGS_SECONDS,
            check=False,
        )
        if expected == ["Killed"]:
            assert ran.returncode == -9
            continue
        printed = (ran.stdout + ran.stderr).splitlines()
        for line in printed:
            if match := re.fullmatch(r"  shown ([0-9a-f]{64})", line):
                shown = next(line.split()[1] for line in expected if line.startswith("  shown "))
                digests[shown] = match[1]
        assert fits([plain(line) for line in expected], [plain(line) for line in printed]), (
            "\n".join(["$ " + command, *printed])
        )


def sessions() -> Iterator[tuple[str, list[str]]]:
    """Each command and the lines below it."""
    for block in of("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            yield command, lines


def plain(line: str) -> str:
    """A line without what differs from run to run: digests, times, widths, accounts."""
    line = re.sub(
        r"\b[0-9a-f]{4,64}(?:…|\b)", lambda m: "H" if "…" in m[0] or len(m[0]) >= 32 else m[0], line
    )
    line = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "WHEN", line)
    line = re.sub(r"\b[\d.]+ (?:µs|ms|s|min)\b|\b\d+[smhd]\b", "TIME", line)
    line = re.sub(r"[\d,.]+/s", "RATE", line)
    line = re.sub(r"^submitted by .+", "submitted by ACCOUNT", line)
    return " ".join(line.split())


def fits(expected: list[str], printed: list[str]) -> bool:
    """Whether they are equal, where a line ``...`` stands for any number of lines."""
    pattern = "".join(
        "(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in expected
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


@pytest.mark.slow
def test_its_python_runs(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{folder}"}
    args = [sys.executable, "-W", "error", "program.py"]
    ran = subprocess.run(
        args,
        cwd=folder,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=HANGS_SECONDS,
        check=False,
    )
    assert ran.stderr == ""
    assert ran.stdout == "refunded 49.9 for B8\n"


def test_every_command_about_runs_is_named() -> None:
    for name in (
        "runs",
        "show",
        "work",
        "resume",
        "approve",
        "reject",
        "event",
        "resolve",
        "cancel",
        "batch",
        "store",
    ):
        assert re.search(rf"nano-vm {name}\b|`{name}`", TEXT), name
