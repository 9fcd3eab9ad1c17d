"""``nano-vm plan``: what it prints, writes and refuses. The model is scripted; `test_planner_real`
has a real one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nano_vm import Program
from nano_vm.cli import main, models
from nano_vm.testing import ScriptedLLM

TOOLS = '''\
async def get_order(order_id: str) -> dict:
    """The order."""
    raise AssertionError("nothing is called")

async def refund(order_id: str, amount: float) -> str:
    raise AssertionError("nothing is called")

tools = {"get_order": get_order, "refund": refund}
'''
PLAN = {
    "name": "refund_order",
    "steps": [
        {"id": "s1", "type": "llm", "prompt": "Is it broken? ${note}", "allowed_outputs": ["yes", "no"]},
        {"id": "s2", "type": "tool", "tool": "get_order", "args": {"order_id": "$order_id"}},
        {
            "id": "s3",
            "type": "condition",
            "condition": "$s1.output == 'yes'",
            "then": [
                {"id": "pay", "type": "tool", "tool": "refund", "args": {"order_id": "$order_id", "amount": "$s2.output.amount"}}
            ],
        },
    ],
}  # fmt: skip
Say = Callable[[Any], ScriptedLLM]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "shop.py").write_text(TOOLS)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("tools_file_shop", None)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Say:
    """Gives the model that the command uses an answer."""

    def say(answer: Any) -> ScriptedLLM:
        scripted = ScriptedLLM(
            [answer if isinstance(answer, (str, Exception)) else json.dumps(answer)]
        )
        monkeypatch.setattr(models, "load_models", lambda *_, **__: scripted)
        return scripted

    return say


COMMON = [
    "--tools",
    "shop.py:tools",
    "--model",
    "local",
    "-i",
    "note=it smokes",
    "-i",
    "order_id=A1",
]


def test_a_plan_is_written_and_passes_the_check(
    folder: Path, model: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted = model(PLAN)
    assert main(["plan", "Refund it", *COMMON, "-o", "plan.yaml"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "refund_order: 4 steps" in told.out
    assert '  s1: llm "Is it broken? ${note}" -> yes | no' in told.out
    assert "    pay: tool refund(order_id=$order_id, amount=$s2.output.amount)" in told.out
    plan = Program.from_file("plan.yaml")
    assert f"plan.yaml: written, digest {plan.digest}" in told.out
    assert plan.inputs is not None
    assert list(plan.inputs["properties"]) == ["note", "order_id"]
    assert len(scripted.calls) == 1
    assert "it smokes" not in json.dumps(scripted.calls)
    assert main(["check", "plan.yaml", "--tools", "shop.py:tools", "--model", "local"]) == 0


def test_without_a_file_the_program_is_all_that_goes_to_stdout(
    folder: Path, model: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    model(PLAN)
    assert main(["plan", "Refund it", *COMMON]) == 0
    told = capsys.readouterr()
    assert Program.from_yaml(told.out).name == "refund_order"
    assert "refund_order: 4 steps" in told.err


def test_json_files_and_json_output(
    folder: Path, model: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    model(PLAN)
    assert main(["plan", "Refund it", *COMMON, "--json", "--untrusted", "-o", "plan.json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["program"] == json.loads(Path("plan.json").read_text())
    assert told["program"]["untrusted"] is True
    assert told["report"]["ok"] is True


def test_a_plan_is_held_to_policy_and_budget(
    folder: Path, model: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("policy.yaml").write_text("tools: {refund: {allow: false}}\n")
    model(PLAN)
    assert main(["plan", "Refund it", *COMMON, "--policy", "policy.yaml", "-o", "plan.yaml"]) == 1
    told = capsys.readouterr()
    assert "refund" in told.err
    assert not Path("plan.yaml").exists()
    model(PLAN)
    assert main(["plan", "Refund it", *COMMON, "--budget", "max_steps=9", "-o", "plan.yaml"]) == 0
    budget = Program.from_file("plan.yaml").budget
    assert budget is not None
    assert budget.max_steps == 9


def test_a_reply_that_is_no_program_is_told_with_its_faults(
    folder: Path, model: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    model(
        {
            "steps": [
                {"id": "s1", "type": "tool", "tool": "__import__", "args": {"name": "os\x1b[2J\n"}}
            ]
        }
    )
    assert main(["plan", "Refund it", *COMMON, "-o", "plan.yaml"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert (
        "steps[0].tool: V020: tool '__import__' is not registered; step 's1' calls it" in told.err
    )
    assert "the model wrote: " in told.err
    assert "\x1b" not in told.err
    assert not Path("plan.yaml").exists()


def test_without_inputs_the_program_may_name_its_own(
    folder: Path, model: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    model(PLAN)
    assert main(["plan", "Refund it", *COMMON[:4]]) == 0
    assert Program.from_yaml(capsys.readouterr().out).inputs is None


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["plan"], 2, "INTENT"),
        (["plan", "x"], 2, "plan needs a model that writes the program"),
        (["plan", "x", "--model", "nonsense"], 2, "unknown model 'nonsense'"),
        (["plan", "x", "--model", "groq/x", "--tools", "nowhere.py"], 2, "no file nowhere.py"),
        (["plan", "x", "--model", "groq/x", "--program", "y"], 2, "--program takes name=FILE"),
        (["plan", "x", "--model", "groq/x", "-i", "y"], 2, "-i takes key=text"),
    ],
)
def test_a_command_line_that_is_wrong(
    folder: Path,
    arguments: list[str],
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "none")
    assert main(arguments) == code
    assert told in capsys.readouterr().err


def test_an_empty_intent_and_a_bad_policy(
    folder: Path, model: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted = model(PLAN)
    assert main(["plan", " ", *COMMON]) == 1
    assert "the intent is empty" in capsys.readouterr().err
    assert main(["plan", "x", *COMMON, "--policy", "nowhere.yaml"]) == 1
    assert "cannot read the policy" in capsys.readouterr().err
    assert scripted.calls == []


def test_the_models_of_a_host_file_count_beside_the_one_that_plans(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program may name them, and the price of the planner stays its own."""
    (folder / "planner.json").write_text(json.dumps([json.dumps(NAMES_JUDGE)]))
    (folder / "judge.yaml").write_text("judge: yes")
    (folder / "host.toml").write_text('[models.judge]\nmodel = "scripted:judge.yaml"\n')
    arguments = ["plan", "Judge it", "--tools", "shop.py:tools", "-i", "note=it smokes"]
    arguments += ["--model", "scripted:planner.json", "--host", "host.toml"]
    assert main(arguments) == 0, capsys.readouterr().err
    assert "model: judge" in capsys.readouterr().out


NAMES_JUDGE = {
    "name": "judging",
    "steps": [{"id": "judge", "type": "llm", "prompt": "Well? $note", "model": "judge"}],
}
