"""What failed calls used is part of the record: stored, sealed, replayed, taken over by a fork,
told of late answers.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nano_vm import Completion, ExecutionVM, LLMUsage, ModelError, Program, Trace, TraceStatus
from nano_vm.replay import fork, replay, subject_of, verify
from nano_vm.store.protocol import open_store
from nano_vm.testing import ScriptedLLM

PRICES = {"scripted": ("1", "2")}
PROGRAM = Program.from_dict(
    {
        "budget": {"max_tokens": 4000},
        "steps": [
            {"id": "cut", "type": "llm", "prompt": "a", "max_tokens": 100, "on_error": "skip"},
            {
                "id": "tried",
                "type": "llm",
                "prompt": "b",
                "max_tokens": 100,
                "max_retries": 5,
                "retry": {
                    "delay_seconds": 0,
                    "on": ["model", "rate_limit", "truncated", "filtered"],
                },
            },
            {
                "id": "last",
                "type": "llm",
                "prompt": "c",
                "max_tokens": 100,
                "allowed_outputs": ["yes", "no"],
            },
        ],
    }
)


def usage(prompt: int, completion: int) -> LLMUsage:
    return LLMUsage(prompt, completion, prompt + completion)


def script() -> ScriptedLLM:
    return ScriptedLLM(
        [
            Completion("half", usage(5, 100), "m", "length"),
            ModelError("a tool call", usage=usage(5, 3)),
            ModelError("down", status=503),
            Completion("", usage(5, 100), "m", "length", "so it is"),
            Completion("no", usage(5, 1), "m", "refusal"),
            Completion("fine", usage(5, 2), "m", "stop"),
            Completion("<think>hm</think>maybe", usage(6, 9), "m", "stop"),
            Completion("<think>well</think> Yes.", usage(7, 9), "m", "stop", "apart"),
        ]
    )


TOTAL = 105 + 8 + 0 + 105 + 6 + 7 + 15 + 16
COST = Decimal(5 * 5 + 13 + 2 * (100 + 3 + 100 + 1 + 2 + 9 + 9)) / 1_000_000


def assert_billed(trace: Trace) -> None:
    assert trace.status is TraceStatus.SUCCESS, trace.error
    assert (trace.total_tokens(), trace.total_cost_usd()) == (TOTAL, COST)
    tried = next(step for step in trace.steps if step.step_id == "tried")
    assert [(a.error.kind, a.usage and a.usage.total_tokens) for a in tried.attempts] == [
        ("model", 8),
        ("model", 0),
        ("truncated", 105),
        ("filtered", 6),
    ]


async def test_a_run_and_its_replay() -> None:
    trace = await ExecutionVM(script(), prices=PRICES).run(PROGRAM)
    assert_billed(trace)
    assert replay(trace).identical
    back = Trace.from_json(trace.to_json())
    assert_billed(back)
    assert (back.digest, back.seal) == (trace.digest, trace.seal)
    assert replay(back, PROGRAM).identical


async def test_a_stored_run_with_its_seal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    vm = ExecutionVM(script(), prices=PRICES, store=url)
    trace = await vm.run(PROGRAM, run_id="r")
    assert_billed(trace)
    store = open_store(url)
    checked = verify(subject_of("r", store=store))
    assert checked, str(checked)
    stored = store.load("r")
    assert (stored.tokens, stored.cost_usd) == (TOTAL, str(COST))
    again = await fork(
        ExecutionVM(ScriptedLLM(["no"]), prices=PRICES), stored, edit={"last": {"prompt": "d"}}
    )
    assert [step.output for step in again.steps] == [None, "fine", "no"]


async def test_another_usage_of_a_failed_attempt_is_another_digest() -> None:
    def answers(tokens: int) -> ScriptedLLM:
        return ScriptedLLM([ModelError("no", usage=usage(1, tokens)), "ok"])

    one = Program.from_dict(
        {
            "steps": [
                {
                    "id": "a",
                    "type": "llm",
                    "prompt": "x",
                    "max_retries": 2,
                    "retry": {"delay_seconds": 0},
                }
            ]
        }
    )
    digests = {(await ExecutionVM(answers(tokens)).run(one)).digest for tokens in (1, 2, 1)}
    assert len(digests) == 2


async def test_an_answer_that_comes_too_late_is_billed() -> None:
    class Late:
        model = "scripted"

        async def complete(self, messages: Any, **kwargs: Any) -> Completion:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                pass
            return Completion("late", usage(3, 4))

    one = Program.from_dict(
        {"steps": [{"id": "a", "type": "llm", "prompt": "x", "timeout_seconds": 0.05}]}
    )
    trace = await ExecutionVM(Late(), prices=PRICES).run(one)
    assert (trace.error_kind, trace.total_tokens(), trace.total_cost_usd()) == (
        "timeout",
        7,
        Decimal("0.000011"),
    )
    assert replay(trace).identical


@pytest.mark.parametrize("usage", [{"prompt_tokens": -1}, {"prompt_tokens": "many"}, "much", 5])
async def test_a_usage_that_is_none_is_unknown(usage: Any) -> None:
    llm = ScriptedLLM([ModelError("no", retryable=False, usage=usage, answered=True)])
    trace = await ExecutionVM(llm, prices=PRICES).run(
        Program.from_dict({"steps": [{"id": "a", "type": "llm", "prompt": "x"}]})
    )
    assert (trace.error_kind, trace.total_cost_usd()) == ("model", None)


async def test_an_exception_of_a_library_that_says_its_status_was_refused() -> None:
    class Overloaded(Exception):
        status_code = 529

    class Strange(Exception):
        @property
        def status_code(self) -> int:
            raise RuntimeError

    one = Program.from_dict({"steps": [{"id": "a", "type": "llm", "prompt": "x"}]})
    for error, cost in ((Overloaded("busy"), 0), (ValueError("?"), None), (Strange("?"), None)):
        trace = await ExecutionVM(ScriptedLLM([error]), prices=PRICES).run(one)
        assert (trace.error_kind, trace.total_cost_usd()) == ("model", cost), error
