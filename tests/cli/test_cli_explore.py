"""``nano-vm explore``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nano_vm.cli import main

PROGRAM = """\
name: demo
steps:
  - {id: ask, type: llm, prompt: "$text", output_key: said}
  - {id: guard, type: condition, condition: "'yes' in $said", then: pay, otherwise: mail}
  - {id: pay, type: tool, tool: pay, args: {to: $text}, next: mail}
  - {id: mail, type: tool, tool: mail, args: {text: $said}}
"""

TOOLS = """\
from nano_vm import tool

@tool(effect="read")
async def mail(text: str) -> None:
    raise AssertionError("nothing is called")

async def pay(to: str) -> str:
    raise AssertionError("nothing is called")

tools = [mail, pay]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "demo.yaml").write_text(PROGRAM)
    (tmp_path / "explored_tools.py").write_text(TOOLS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_coverage_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "demo.yaml", "--tools", "explored_tools.py", "--no-errors"]) == 0
    assert capsys.readouterr().out == (
        "demo: 2 runs, all there are; 4 of 4 steps, 2 of 2 branches\nended: 2 success\n"
    )


def test_what_is_broken_is_shown_with_its_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["explore", "demo.yaml", "--only-after", "pay=guard.otherwise", "--at-most", "mail=1"])
        == 1
    )
    out = capsys.readouterr().out
    assert "mail is called at most" not in out
    assert "pay is called only after guard.otherwise: broken by" in out
    assert "  ask: the model answers 'yes'\n" in out
    assert "  guard -> then ($said = 'yes')\n" in out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "demo.yaml", "--never", "pay", "-i", "text=hello", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert not data["ok"]
    assert data["complete"]
    assert data["coverage"]["missed"] == []
    run = data["failures"][0]["run"]
    assert run["inputs"] == {"text": "hello"}
    assert run["outcomes"][0] == {
        "path": "ask",
        "asked": "the model",
        "kind": "answer",
        "value": "yes",
    }
    branch = {"path": "guard", "branch": "then", "references": {"$said": "yes"}, "after": 1}
    assert run["branches"] == [branch]


def test_a_bound_says_that_it_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "demo.yaml", "--max-runs", "1", "--cancel"]) == 0
    out = capsys.readouterr().out
    assert "demo: 1 runs, not all there are" in out
    assert "never reached: guard: " in out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--never", "pya"], 2, "the program calls no tool 'pya'; it calls mail, pay"),
        (["--at-most", "pay"], 2, "--at-most takes TOOL=N, not 'pay'"),
        (["--at-most", "pay=-1"], 2, "--at-most takes TOOL=N, not 'pay=-1'"),
        (["--only-after", "pay=guard"], 2, "--only-after takes TOOL=STEP.BRANCH, not 'pay=guard'"),
        (["--only-after", "pay=gaurd.then"], 2, "the program has no step 'gaurd'"),
        (["--max-runs", "0"], 2, "--max-runs takes a whole number of at least 1, not 0"),
        (["--tools", "explored_tools.py:TOOLS"], 2, "has no 'TOOLS'"),
    ],
)
def test_a_wrong_command_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    assert main(["explore", "demo.yaml", *arguments]) == code
    assert text in capsys.readouterr().err


def test_a_faulty_program_is_not_explored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "demo.yaml").write_text(PROGRAM.replace("then: pay", "then: pya"))
    assert main(["explore", "demo.yaml"]) == 1
    assert "demo.yaml:4" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--at-most TOOL=N" in out
    assert "exit codes:" in out
