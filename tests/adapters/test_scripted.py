"""Models by name and models that answer from a script: from Python, from files, from the command
line.
"""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nano_vm import (
    Completion,
    ExecutionVM,
    LLMUsage,
    ModelError,
    Program,
    TraceStatus,
    VMError,
    adapters,
)
from nano_vm.adapters.names import adapter_named
from nano_vm.adapters.scripted import Overlaid, read_script, script_of
from nano_vm.cli import main
from nano_vm.testing import ScriptedLLM


def program(*names: str, **fields: Any) -> Program:
    steps = [{"id": name, "type": "llm", "prompt": f"about {name}", **fields} for name in names]
    return Program.from_dict({"steps": steps})


def outputs(llm: Any, *ids: str, **fields: Any) -> list[Any]:
    trace = ExecutionVM(llm).run_sync(program(*ids, **fields))
    assert trace.ok, trace.error
    return [step.output for step in trace.steps]


# --- names ----------------------------------------------------------------------------------------


def test_a_vm_takes_the_names_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.yaml"
    path.write_text("[one, two]")
    assert outputs(f"scripted:{path}", "a", "b") == ["one", "two"]
    fast = {"fast": f"scripted:{path}", "slow": ScriptedLLM(["three"])}
    assert outputs(fast, "a", model="fast") == ["one"]
    assert outputs(fast, "a", model="slow") == ["three"]


def test_names_make_the_adapters_that_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for kind in ("OpenAIAdapter", "LiteLLMAdapter", "LocalAdapter"):
        monkeypatch.setattr(
            adapters, kind, lambda *a, kind=kind, **k: made.append((kind, *a, k)) or ScriptedLLM()
        )
    for name in ("openai/gpt-4", "litellm:x/y", "local", "local:a/b.gguf"):
        ExecutionVM(llm=name)
    assert made == [
        ("OpenAIAdapter", "openai/gpt-4", {}),
        ("LiteLLMAdapter", "x/y", {}),
        ("LocalAdapter", None, {}),
        ("LocalAdapter", "a/b.gguf", {}),
    ]


@pytest.mark.parametrize(
    "name", ["gpt-4", "", "openai/", "meta/llama", "scripted:", "litellm:", "openai"]
)
def test_an_unknown_name_says_which_are_known(name: str) -> None:
    with pytest.raises(
        VMError,
        match=r"unknown model .*; write local, local:FILE\.gguf, openai/NAME, .*scripted:FILE",
    ):
        ExecutionVM(llm=name)
    with pytest.raises(VMError, match="unknown model"):
        adapter_named(name)


def test_a_name_whose_file_is_not_there() -> None:
    with pytest.raises(VMError, match=r"cannot read the script nowhere\.yaml: No such file"):
        ExecutionVM(llm="scripted:nowhere.yaml")


# --- scripts by step ------------------------------------------------------------------------------


def test_answers_by_step() -> None:
    llm = ScriptedLLM(["first"], steps={"b": "always", "c": ["once", "twice"]})
    assert outputs(llm, "a", "b", "c") == ["first", "always", "once"]
    assert outputs(llm, "b", "c") == ["always", "twice"]
    trace = ExecutionVM(llm).run_sync(program("c"))
    assert "the script has 2 answers for step 'c', and this is call 3" in (trace.error or "")
    trace = ExecutionVM(ScriptedLLM(steps={"a": "x"})).run_sync(program("z"))
    assert "the script has no answer for step 'z'; it has 'a'" in (trace.error or "")


def test_an_invalid_answer_of_a_step_is_corrected_by_its_next() -> None:
    llm = ScriptedLLM(steps={"a": ["maybe", "yes"]})
    assert outputs(llm, "a", allowed_outputs=["yes", "no"]) == ["yes"]


def test_what_was_asked_does_not_hold_the_step() -> None:
    llm = ScriptedLLM(steps={"a": "x"})
    outputs(llm, "a")
    assert llm.calls == [{"messages": [{"role": "user", "content": "about a"}]}]


async def test_a_script_streams() -> None:
    text = " Dear Sir,\n\nwe  refund. "
    events = [event async for event in ExecutionVM(ScriptedLLM([text])).stream(program("a"))]
    pieces = [event.text for event in events if event.kind == "text"]
    assert pieces == [" Dear", " Sir,", "\n\nwe", "  refund.", " "]
    assert events[-1].trace.final_output == text
    assert events[-1].trace.steps[0].usage == LLMUsage(2, 4, 6)
    for answer in ("", "  ", "one"):
        events = [event async for event in ExecutionVM(ScriptedLLM([answer])).stream(program("a"))]
        assert "".join(event.text for event in events if event.kind == "text") == answer


async def test_a_script_of_your_own_streams_too() -> None:
    class Mine(ScriptedLLM):
        async def complete(self, messages: Any, **kwargs: Any) -> Any:
            return "made here"

    events = [event async for event in ExecutionVM(Mine()).stream(program("a"))]
    assert [event.text for event in events if event.kind == "text"] == ["made", " here"]
    failing = ScriptedLLM([ModelError("busy", retryable=False)])
    events = [event async for event in ExecutionVM(failing).stream(program("a"))]
    assert events[-1].trace.error == "Step 'a' failed: ModelError: busy"


# --- scripts in files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("s.yaml", "[one, two, three]", ["one", "two", "three"]),
        ("s.json", '["one", "two", "three"]', ["one", "two", "three"]),
        ("s.yaml", "{a: yes, b: 5, c: true}", ["yes", "5", "true"]),
        ("s.yaml", "{a: {json: {x: [1, null]}}, b: no, c: null}", ['{"x":[1,null]}', "no", "null"]),
        ("s.yaml", "{steps: {b: mine}, answers: [one, two]}", ["one", "mine", "two"]),
        (
            "s.yaml",
            '{steps: {b: mine}, patterns: {"about a": first, "": rest}}',
            ["first", "mine", "rest"],
        ),
        ("s.yaml", "{a: {text: <b>, finish_reason: stop}, b: [x], c: y}", ["<b>", "x", "y"]),
    ],
)
def test_forms(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    (tmp_path / name).write_text(text)
    assert outputs(read_script(str(tmp_path / name)), "a", "b", "c") == expected


def test_failures_in_a_script() -> None:
    script = script_of(
        {
            "a": [{"error": "rate_limit"}, {"error": "filtered", "message": "never"}],
            "b": {
                "text": "half",
                "finish_reason": "length",
                "usage": {"prompt_tokens": 3, "completion_tokens": 2},
            },
            "c": {"text": "yes", "reasoning": "plain"},
        }
    )
    steps = [
        {
            "id": "a",
            "type": "llm",
            "prompt": "x",
            "on_error": "skip",
            "max_retries": 3,
            "retry": {"delay_seconds": 0},
        },
        {"id": "b", "type": "llm", "prompt": "x", "on_error": "skip"},
        {"id": "c", "type": "llm", "prompt": "x"},
    ]
    trace = ExecutionVM(script).run_sync(Program.from_dict({"steps": steps}))
    assert [step.error_kind for step in trace.steps] == ["filtered", "truncated", None]
    assert [attempt.error.kind for attempt in trace.steps[0].attempts] == ["rate_limit"]
    assert trace.steps[1].usage == LLMUsage(3, 2, 5, Decimal(0))
    assert trace.steps[2].extra["reasoning"] == "plain"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "a script is a list of answers in order"),
        ({}, "a script is a list"),
        ("yes", "a script is a list"),
        ({"a": {"tekst": 1}}, "steps.a: an answer is a string"),
        ({"a": ["x", ["y"]]}, r"steps.a\[1\]: an answer is a string"),
        ({"steps": ["x"]}, "steps: an object of answers, not"),
        ({"answers": "x"}, "answers: a list of answers in order, not 'x'"),
        ({"patterns": {"x": ["a", "b"]}}, "patterns.x: one answer, not a list"),
        ({"patterns": {}, "answers": []}, "exclude each other"),
        (
            [{"error": "fire"}],
            r"answers\[0\].error: one of model, rate_limit, timeout, truncated, filtered, not "
            r"'fire'",
        ),
        ([{"text": "x", "usage": {"prompt_tokens": -1}}], r"answers\[0\].usage: a token count"),
        ([{"text": "x", "usage": "many"}], r"answers\[0\].usage"),
    ],
)
def test_what_is_no_script(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        script_of(data)


def test_files_that_hold_no_script(tmp_path: Path) -> None:
    for content, message in (
        (b"\xff\xfe", "is not UTF-8: byte 0"),
        (b"a: [", r"s\.yaml:2:1: program: P001"),
        (b"a: 1\na: 2", "P002|twice"),
        (b"x" * 1_100_000, "P005"),
        (b"just words", r"s\.yaml: a script is a list"),
    ):
        (tmp_path / "s.yaml").write_bytes(content)
        with pytest.raises(VMError, match=message):
            read_script(str(tmp_path / "s.yaml"))
    with pytest.raises(VMError, match="cannot read the script"):
        read_script(str(tmp_path))


# --- cost -----------------------------------------------------------------------------------------


def test_what_an_adapter_says_of_its_price_holds_unless_the_host_knows_better() -> None:
    llm = ScriptedLLM({"": "ok"}, price=(Decimal(0), Decimal(0)))
    one = program("a")
    trace = ExecutionVM(llm).run_sync(one, budget={"max_cost_usd": 1})
    assert (trace.status, trace.total_cost_usd()) == (TraceStatus.SUCCESS, 0)
    assert trace.steps[0].cost_source == "prices"
    assert ExecutionVM(llm, prices={"scripted": (1, 1)}).run_sync(one).total_cost_usd() == Decimal(
        "0.000003"
    )
    assert (
        ExecutionVM({"small": llm}).run_sync(one, budget={"max_cost_usd": 1}).total_cost_usd() == 0
    )
    assert ExecutionVM(ScriptedLLM({"": "ok"})).run_sync(one).total_cost_usd() is None
    with pytest.raises(VMError, match="the price of 'scripted' is"):
        ExecutionVM(ScriptedLLM({"": "ok"}, price=5))  # type: ignore[arg-type]


# --- answers in place of a model's ----------------------------------------------------------------


class Named:
    """An adapter that names what it takes, and takes nothing else."""

    model = "named"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def complete(
        self, messages: Any, allowed_outputs: Any = None, max_tokens: int | None = None
    ) -> str:
        self.asked.append({"allowed_outputs": allowed_outputs, "max_tokens": max_tokens})
        return "no"

    def count_tokens(self, messages: Any) -> int:
        return 7


class Plain:
    """An adapter as 0.1 had them."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def complete(self, messages: Any, **kwargs: Any) -> str:
        self.asked.append(kwargs)
        return "no"


@pytest.mark.parametrize("kind", [Named, Plain])
def test_other_steps_ask_the_adapter_as_before(kind: Any) -> None:
    adapter = kind()
    overlaid = Overlaid(ScriptedLLM(steps={"a": "yes"}), adapter)
    assert outputs(overlaid, "a", "b", allowed_outputs=["yes", "no"], max_tokens=3) == ["yes", "no"]
    alone = kind()
    outputs(alone, "b", allowed_outputs=["yes", "no"], max_tokens=3)
    assert adapter.asked == alone.asked
    assert getattr(overlaid, "model", None) == getattr(adapter, "model", None)
    assert ExecutionVM(overlaid).check(program("b", temperature=1)) == [
        *ExecutionVM(alone).check(program("b", temperature=1))
    ]


async def test_what_is_overlaid_streams_as_the_adapter_does() -> None:
    class Streaming(Plain):
        async def stream(self, messages: Any, **kwargs: Any) -> Any:
            yield "n"
            yield "o"
            yield Completion("no")

    overlaid = Overlaid(ScriptedLLM(steps={"a": "yes sir"}), Streaming())
    events = [event async for event in ExecutionVM(overlaid).stream(program("a", "b"))]
    assert [event.text for event in events if event.kind == "text"] == ["yes", " sir", "n", "o"]
    plain = Overlaid(ScriptedLLM(steps={"a": "yes"}), Plain())
    events = [event async for event in ExecutionVM(plain).stream(program("a", "b"))]
    assert [event.result.output for event in events if event.kind == "step_finished"] == [
        "yes",
        "no",
    ]


# --- the command line -----------------------------------------------------------------------------

ASK = """\
name: asking
steps:
  - {id: judge, type: llm, prompt: "Broken? $message", allowed_outputs: [yes, no]}
  - {id: reply, type: llm, prompt: "Answer: $judge.output"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ask.yaml").write_text(ASK)
    (tmp_path / "answers.yaml").write_text("judge: yes\nreply: [Dear Sir, Dear Madam]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_run_with_a_script(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "ask.yaml", "-i", "message=x", "--model", "scripted:answers.yaml"]) == 0
    out = capsys.readouterr().out
    assert 'output: "Dear Sir"' in out
    assert ", no cost, " in out


def test_run_with_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "letter.txt").write_text("Dear all")
    assert (
        main(
            [
                "run",
                "ask.yaml",
                "-i",
                "message=x",
                "--answer",
                "judge=no",
                "--answer",
                "reply=@letter.txt",
            ]
        )
        == 0
    )
    assert 'output: "Dear all"' in capsys.readouterr().out
    model = ["--model", "scripted:answers.yaml"]
    assert (
        main(
            [
                "run",
                "ask.yaml",
                "-i",
                "message=x",
                *model,
                "--answer",
                "judge=maybe",
                "--answer",
                "judge=no",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert '"no" (attempt 2)' in out
    assert 'output: "Dear Sir"' in out
    assert main(["run", "ask.yaml", "-i", "message=x", "--answer", "judge=yes"]) == 1
    assert "the script has no answer for step 'reply'; it has 'judge'" in capsys.readouterr().err
    assert main(["run", "ask.yaml", "--answer", "judge"]) == 2
    assert "--answer takes STEP=TEXT or STEP=@FILE, not 'judge'" in capsys.readouterr().err
    assert main(["run", "ask.yaml", "--model", "scripted:nowhere.yaml"]) == 2
    assert (
        "--model scripted:nowhere.yaml: cannot read the script nowhere.yaml"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("command", ["run", "submit", "batch"])
def test_an_answer_of_no_step_is_refused_before_anything_is_called(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = {"steps": [{"id": "mood", "type": "llm", "prompt": "Glad?"}]}
    steps = [
        {"id": "look", "type": "tool", "tool": "look"},
        {"id": "told", "type": "call", "program": inner},
    ]
    (folder / "calls.json").write_text(json.dumps({"steps": steps}))
    (folder / "tools.py").write_text(
        "from pathlib import Path\ntools = {'look': lambda: Path('called').touch()}\n"
    )
    (folder / "in.jsonl").write_text("{}\n")
    more = {
        "run": [],
        "submit": ["--store", f"sqlite:///{folder}/runs.db"],
        "batch": ["in.jsonl", "-o", "out.jsonl"],
    }
    base = [command, "calls.json", *more[command], "--tools", "tools.py"]
    for wrong, hint in (("moood", "did you mean 'mood'?"), ("look", "these do: mood")):
        assert main([*base, "--answer", f"{wrong}=x"]) == 2
        said = f"--answer: no step '{wrong}' of the program asks a model; {hint}"
        assert said in capsys.readouterr().err
        assert not (folder / "called").exists()
    assert main([*base, "--answer", "mood=x"]) == 0


def test_batch_and_work_with_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "in.jsonl").write_text('{"message": "a"}\n{"message": "b"}\n')
    answers = ["--answer", "judge=yes", "--answer", "reply=fine"]
    assert main(["batch", "ask.yaml", "in.jsonl", "-o", "out.jsonl", *answers]) == 0
    assert (folder / "out.jsonl").read_text().count('"fine"') == 2
    capsys.readouterr()
    store = f"sqlite:///{folder}/runs.db"
    vm = ExecutionVM(llm=ScriptedLLM(["never"]), store=store)
    run_id = asyncio.run(vm.submit(Program.from_file("ask.yaml"), {"message": "c"}))
    assert main(["work", "--store", store, "--until-idle", *answers]) == 0
    assert vm.load(run_id).final_output == "fine"


@pytest.mark.parametrize("answer", [5, None, b"yes", ["yes"], {"text": "yes"}, ValueError])
def test_what_is_no_answer_is_told_with_what_is(answer: Any) -> None:
    program = Program.from_yaml("steps: [{id: a, type: llm, prompt: Is it so?, max_retries: 2}]")
    script = ScriptedLLM([answer, "yes"])
    trace = ExecutionVM(script).run_sync(program)
    assert trace.error_kind == "model"
    assert "an answer is a string" in str(trace.error)
    assert len(script.calls) == 1
