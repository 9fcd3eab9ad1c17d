"""``nano-vm import``: where the program and the findings go, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nano_vm.cli import main

PAY = """\
{
  "StartAt": "Pay",
  "States": {
    "Pay": {
      "Type": "Task",
      "Resource": "arn:aws:lambda:eu-west-1:123456789012:function:pay",
      "Parameters": {"id.$": "$.id"},
      "HeartbeatSeconds": 5,
      "End": true
    }
  }
}
"""

TOOLS = """\
def pay(id: str) -> str:
    return f"paid for {id}"


tools = {"pay": pay}
"""

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("pay.asl.json").write_text(PAY)
    Path("tools.py").write_text(TOOLS)
    return tmp_path


def test_the_program_goes_to_stdout_and_what_to_look_at_to_stderr(capsys: Captured) -> None:
    assert main(["import", "pay.asl.json"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("name: pay\n")
    difference, tool = err.splitlines()
    assert difference.startswith("pay.asl.json:8:7: States.Pay.HeartbeatSeconds: difference: ")
    assert tool == "tool to write: pay(id)"


def test_the_program_that_is_written_passes_check_and_runs(capsys: Captured) -> None:
    assert main(["import", "pay.asl.json", "-o", "pay.yaml"]) == 0
    assert main(["check", "pay.yaml", "--tools", "tools.py"]) == 0
    capsys.readouterr()
    run = ["run", "pay.yaml", "--tools", "tools.py", "-i", 'input:={"id": "A7"}']
    assert main(run) == 0
    assert 'output: "paid for A7"' in capsys.readouterr().out


def test_json_has_the_program_the_findings_and_the_tools(capsys: Captured) -> None:
    assert main(["import", "pay.asl.json", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    made = json.loads(out)
    assert (made["format"], made["complete"]) == ("step-functions", True)
    assert made["tools"] == {"pay": ["id"]}
    assert [(one["kind"], one["line"]) for one in made["findings"]] == [("difference", 8)]
    assert made["program"]["steps"][0]["args"] == {"id": "$input.id"}


def test_a_gap_is_exit_code_1_with_the_program_beside_it(capsys: Captured) -> None:
    Path("pay.asl.json").write_text(PAY.replace('"$.id"', '"$..id"'))
    assert main(["import", "pay.asl.json", "-o", "pay.yaml"]) == 1
    err = capsys.readouterr().err
    assert "pay.asl.json:4:5: States.Pay: gap: state 'Pay' has the path '$..id'" in err
    assert "not complete: 1 gap" in err
    assert main(["check", "pay.yaml"]) == 0
    assert main(["run", "pay.yaml", "-i", "input:={}"]) == 1
    assert "not imported" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('{"StartAt": ', 1, "not JSON"),
        ("a: [", 1, "P001"),
        ('{"StartAt": "Pay", "StartAt": "Pay"}', 1, "duplicate key 'StartAt'"),
        ("steps: []", 1, "no workflow that can be imported"),
        ("", 1, "no workflow that can be imported"),
        (PAY.replace('"Pay": {', '"Pau": {'), 1, "did you mean 'Pau'?"),
        (PAY.replace("Task", "Tusk"), 1, "did you mean 'Task'?"),
        (PAY.replace('"End": true', '"End": false'), 1, "state 'Pay' has no Next"),
    ],
)
def test_a_wrong_file_is_a_line_with_its_place_and_writes_nothing(
    text: str, code: int, message: str, capsys: Captured
) -> None:
    Path("pay.asl.json").write_text(text)
    assert main(["import", "pay.asl.json", "-o", "pay.yaml"]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("pay.asl.json:")
    assert not Path("pay.yaml").exists()


def test_a_file_that_cannot_be_read_is_exit_code_2(capsys: Captured) -> None:
    assert main(["import", "none.json"]) == 2
    assert "cannot read none.json" in capsys.readouterr().err
    Path("bytes.json").write_bytes(b"\xff\xfe\x00")
    assert main(["import", "bytes.json"]) == 1
    assert "not UTF-8" in capsys.readouterr().err
