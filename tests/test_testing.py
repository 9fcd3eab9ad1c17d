"""`nano_vm.testing`: models that answer from a script or a recording."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from nano_vm import (
    Completion,
    ExecutionVM,
    LLMUsage,
    ModelError,
    Program,
    RateLimited,
    TraceStatus,
    VMError,
)
from nano_vm.testing import RecordedLLM, ScriptedLLM


def asks(*prompts: str, **fields: Any) -> Program:
    return Program.from_dict(
        {
            "steps": [
                {"id": f"m{i}", "type": "llm", "prompt": p, **fields} for i, p in enumerate(prompts)
            ]
        }
    )


def outputs(llm: Any, *prompts: str, **fields: Any) -> list[Any]:
    return [
        s.output
        for s in ExecutionVM(llm).run_sync(asks(*prompts, **fields)).raise_for_status().steps
    ]


# --- scripts --------------------------------------------------------------------------------------


def test_a_list_gives_its_answers_in_order() -> None:
    llm = ScriptedLLM(["one", "two words", Completion("three", LLMUsage(1, 2, 3), "big", "stop")])
    trace = ExecutionVM(llm).run_sync(asks("a b", "c", "d"))
    assert [s.output for s in trace.steps] == ["one", "two words", "three"]
    assert [s.usage.total_tokens for s in trace.steps if s.usage] == [3, 3, 3]
    assert trace.steps[2].extra == {"model": "big", "finish_reason": "stop"}
    assert [call["messages"][-1]["content"] for call in llm.calls] == ["a b", "c", "d"]


def test_a_script_that_is_used_up_says_so_and_is_not_retried() -> None:
    llm = ScriptedLLM(["one"])
    trace = ExecutionVM(llm).run_sync(asks("a", "b", on_error="retry"))
    assert trace.status is TraceStatus.FAILED
    assert "the script has 1 answers, and this is call 2" in (trace.error or "")
    assert len(llm.calls) == 2


def test_a_dict_answers_by_the_first_key_in_the_last_message() -> None:
    llm = ScriptedLLM({"refund": "yes", "re": "perhaps", "": "no"})
    assert outputs(llm, "a refund?", "really?", "hello") == ["yes", "perhaps", "no"]
    trace = ExecutionVM(ScriptedLLM({"refund": "yes"})).run_sync(asks("hello"))
    assert "the script has no answer for 'hello'" in (trace.error or "")


def test_a_function_gets_the_messages() -> None:
    llm = ScriptedLLM(lambda messages: messages[-1]["content"].upper())
    assert outputs(llm, "a", "b") == ["A", "B"]
    assert outputs(ScriptedLLM({"a": lambda messages: f"{len(messages)}"}), "a", system="s") == [
        "2"
    ]


def test_an_exception_is_raised() -> None:
    llm = ScriptedLLM([RateLimited("slow down"), ModelError("broken", retryable=False), "never"])
    trace = ExecutionVM(llm).run_sync(asks("a", max_retries=3, retry={"delay_seconds": 0}))
    assert (trace.error_kind, trace.steps[0].retries) == ("model", 1)


def test_what_was_asked_is_kept() -> None:
    llm = ScriptedLLM({"": "x"})
    outputs(llm, "a", max_tokens=5, temperature=0.5, seed=3)
    assert llm.calls == [
        {
            "messages": [{"role": "user", "content": "a"}],
            "max_tokens": 5,
            "temperature": 0.5,
            "seed": 3,
        }
    ]


@pytest.mark.parametrize("answer", [None, 5, ["x"], b"x"])
def test_an_answer_of_another_kind_is_a_clear_error(answer: Any) -> None:
    trace = ExecutionVM(ScriptedLLM([answer])).run_sync(asks("a"))
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "model")


def test_a_script_serves_many_runs_at_a_time() -> None:
    llm = ScriptedLLM(lambda messages: messages[-1]["content"])
    vm = ExecutionVM(llm)

    async def run() -> list[Any]:
        traces = await asyncio.gather(*(vm.run(asks("$x"), {"x": str(i)}) for i in range(50)))
        return [t.final_output for t in traces]

    assert asyncio.run(run()) == [str(i) for i in range(50)]


# --- recordings -----------------------------------------------------------------------------------


class Counting:
    """An adapter whose answers differ each time."""

    model = "counting"

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    async def complete(self, messages: list[dict[str, str]], **kwargs: Any) -> Any:
        self.calls.append({"messages": messages, **kwargs})
        return f"answer {len(self.calls)}", {
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "cost_usd": "0.5",
        }


class Constrained(Counting):
    async def complete(  # type: ignore[override]
        self,
        messages: list[dict[str, str]],
        allowed_outputs: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        self.calls.append({"messages": messages, "allowed_outputs": allowed_outputs, **kwargs})
        return "yes"


def test_a_recording_is_made_once_and_used_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    adapter = Counting()
    first = ExecutionVM(RecordedLLM(path, record=adapter)).run_sync(
        asks("a", "b", "a", temperature=0)
    )
    # equal requests, equal answers
    assert [s.output for s in first.steps] == ["answer 1", "answer 2", "answer 1"]
    assert len(adapter.calls) == 2
    again = ExecutionVM(RecordedLLM(path)).run_sync(asks("a", "b", "a", temperature=0))
    assert again.digest == first.digest
    assert again.total_cost_usd() == first.total_cost_usd()
    more = ExecutionVM(RecordedLLM(path, record=adapter)).run_sync(asks("b", "c", temperature=0))
    assert [s.output for s in more.steps] == ["answer 2", "answer 3"]
    assert len(path.read_text().splitlines()) == 3
    assert all(json.loads(line)["request"]["messages"] for line in path.read_text().splitlines())


def test_what_is_not_recorded_is_an_error_that_says_how(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    ExecutionVM(RecordedLLM(path, record=Counting())).run_sync(asks("a"))
    for program in (asks("b"), asks("a", temperature=1), asks("a", system="s")):
        trace = ExecutionVM(RecordedLLM(path)).run_sync(program)
        assert "not recorded" in (trace.error or "")
        assert "record=adapter" in (trace.error or "")


def test_constraints_are_part_of_the_request_and_go_to_adapters_that_take_them(
    tmp_path: Path,
) -> None:
    adapter = Constrained()
    llm = RecordedLLM(tmp_path / "asked.jsonl", record=adapter)
    assert outputs(llm, "a", allowed_outputs=["yes", "no"]) == ["yes"]
    assert outputs(llm, "a", allowed_outputs=["yes"]) == ["yes"]
    assert [call["allowed_outputs"] for call in adapter.calls] == [["yes", "no"], ["yes"]]
    plain = Counting()
    ExecutionVM(RecordedLLM(tmp_path / "other.jsonl", record=plain)).run_sync(
        asks("a", allowed_outputs=["yes"], max_retries=1)
    )
    assert "allowed_outputs" not in plain.calls[0]


def test_no_recording_and_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(VMError, match="no recording at"):
        RecordedLLM(tmp_path / "missing.jsonl")


GOOD = '{"key": "k", "text": "x", "usage": null, "model": null, "finish_reason": null}'


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"not JSON",
        b"5",
        b"[]",
        b"{}",
        b'{"key": "k", "text": 5, "usage": null, "model": null, "finish_reason": null}',
        b'{"key": "k", "text": "x", "usage": "many", "model": null, "finish_reason": null}',
        b'{"key": "k", "text": "x", "usage": {"prompt_tokens": -1}, "model": null, '
        b'"finish_reason": null}',
        f"{GOOD}\n{GOOD[:20]}".encode(),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_its_place(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(VMError, match=r"bad\.jsonl"):
        RecordedLLM(path)


def test_a_directory_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(VMError):
        RecordedLLM(tmp_path)


def test_the_example_of_the_docstring() -> None:
    assert outputs(ScriptedLLM(["yes", "Dear customer, ..."]), "a", "b") == [
        "yes",
        "Dear customer, ...",
    ]
    assert outputs(ScriptedLLM({"refund": "yes", "": "no"}), "my refund", "other") == ["yes", "no"]


def test_a_recording_keeps_what_the_model_thought(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    model = ScriptedLLM([Completion("yes", LLMUsage(1, 2, 3), "m", "stop", "it is plain")])
    for record in (model, None):
        trace = ExecutionVM(RecordedLLM(path, record=record)).run_sync(asks("a"))
        assert (trace.final_output, trace.steps[0].reasoning) == ("yes", "it is plain")


def test_a_recording_does_not_leave_options_out(tmp_path: Path) -> None:
    class Narrow:
        async def complete(self, messages: Any, **kwargs: Any) -> str:
            return "yes"

    llm = RecordedLLM(tmp_path / "r.jsonl", record=Narrow())
    trace = ExecutionVM(llm).run_sync(asks("a", options={"top_k": 1}))
    assert "Narrow takes no options: {'top_k': 1}" in (trace.error or "")
    assert ExecutionVM(llm).run_sync(asks("a")).final_output == "yes"
