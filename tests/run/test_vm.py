"""`ExecutionVM` as its users call it: retries, doubt, undo, budgets, identities, handles, streams,
many runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from build import NOW, llm, mapped, parallel, program, statuses, step
from patience import HANGS_SECONDS

from nano_vm import (
    Budget,
    Completion,
    ExecutionVM,
    Limits,
    LLMUsage,
    ModelError,
    OutcomeUnknown,
    Program,
    RateLimited,
    Trace,
    TraceStatus,
    VMError,
    tool,
)
from nano_vm.run.ids import run_ids
from nano_vm.run.live import LiveRuns, Run
from nano_vm.testing import ScriptedLLM


class Waits:
    """A clock whose waits are over at once, and are kept."""

    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def failing(*outcomes: Any) -> Callable[..., Any]:
    """A read that gives *outcomes* in turn, raising those that are exceptions; the last one again
    and again.
    """
    rest = list(outcomes)

    @tool(effect="read")
    async def call() -> Any:
        outcome = rest.pop(0) if len(rest) > 1 else rest[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return call


# --- retries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "attempts"),
    [
        ({}, 1),
        ({"on_error": "retry"}, 3),
        ({"max_retries": 2}, 2),
        ({"on_error": "retry", "max_retries": 5}, 5),
        ({"max_retries": 1}, 1),
    ],
)
async def test_max_retries_counts_all_attempts(fields: dict[str, Any], attempts: int) -> None:
    calls = itertools.count()

    async def fails() -> None:
        raise ValueError(f"number {next(calls)}")

    clock = Waits()
    trace = await ExecutionVM(tools={"t": fails}, clock=clock).run(program(step(**fields)))
    assert (next(calls), len(clock.seconds), trace.steps[0].retries) == (
        attempts,
        attempts - 1,
        attempts - 1,
    )
    assert trace.error == f"Step 'a' failed: ValueError: number {attempts - 1}"
    assert [a.error.message for a in trace.steps[0].attempts] == [
        f"number {i}" for i in range(attempts - 1)
    ]


async def test_the_attempt_that_succeeds_ends_the_retries() -> None:
    vm = ExecutionVM(tools={"t": failing(ValueError("1"), ValueError("2"), "ok")}, clock=Waits())
    trace = await vm.run(program(step(max_retries=10)))
    assert (trace.final_output, trace.steps[0].retries, trace.steps[0].error) == ("ok", 2, None)


@pytest.mark.slow
async def test_waits_grow_to_the_limit_and_are_drawn_from_the_seed() -> None:
    retry = {"delay_seconds": 1, "factor": 3, "max_delay_seconds": 20}
    one = program(step(max_retries=6, retry=retry), step("b", max_retries=2, retry=retry))
    waits: dict[int, list[float]] = {}
    for seed in range(40):
        clock = Waits()
        await ExecutionVM(tools={"t": failing(ValueError("x"))}, clock=clock).run(one, seed=seed)
        waits[seed] = clock.seconds
    highest = [1, 3, 9, 20, 20]
    for column, most in zip(zip(*waits.values(), strict=True), highest, strict=True):
        assert 0 <= min(column) < most / 4
        assert most * 3 / 4 < max(column) <= most
    again = Waits()
    await ExecutionVM(tools={"t": failing(ValueError("x"))}, clock=again).run(
        one, seed=7, run_id="another"
    )
    assert again.seconds == waits[7]
    assert len({tuple(w) for w in waits.values()}) == 40


async def test_a_stored_run_waits_between_its_attempts_as_another_does(tmp_path: Path) -> None:
    retry = {"delay_seconds": 3, "factor": 2}
    one = program(step(max_retries=3, retry=retry))
    waits = []
    for store in (None, f"sqlite:///{tmp_path / 'runs.db'}"):
        clock = Waits()
        vm = ExecutionVM(tools={"t": failing(ValueError("x"))}, clock=clock, store=store)
        await vm.run(one, seed=3)
        waits.append(clock.seconds)
        vm.close()
    assert waits[0] == waits[1]
    assert len(waits[0]) == 2


async def test_each_step_and_item_draws_waits_of_its_own() -> None:
    clock = Waits()
    one = program(
        mapped(
            step(max_retries=2, retry={"delay_seconds": 10}),
            over=[1, 2, 3],
            max_concurrency=1,
            on_error="skip",
        )
    )
    await ExecutionVM(tools={"t": failing(ValueError("x"))}, clock=clock).run(one, seed=1)
    assert len(set(clock.seconds)) == len(clock.seconds) == 3


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [(7.5, 7.5, 7.5), (0, 0, 0.5), (None, 0, 0.5), (1e9, 600, 600), (-5, 0, 0.5)],
)
async def test_retry_after_is_waited_for(asked: float | None, least: float, most: float) -> None:
    clock = Waits()
    model = ScriptedLLM([RateLimited("slow down", retry_after_seconds=asked), "ok"])
    trace = await ExecutionVM(model, clock=clock).run(program(llm(on_error="retry")))
    assert trace.final_output == "ok"
    assert least <= clock.seconds[0] <= most
    assert trace.steps[0].attempts[0].error.kind == "rate_limit"


@pytest.mark.parametrize("asked", ["5", float("nan"), [5]])
async def test_a_malformed_retry_after_does_no_harm(asked: Any) -> None:
    model = ScriptedLLM([RateLimited("slow down", retry_after_seconds=asked), "ok"])
    trace = await ExecutionVM(model, clock=Waits()).run(program(llm(on_error="retry")))
    assert trace.status in (TraceStatus.SUCCESS, TraceStatus.FAILED)


class CardDeclined(Exception):
    """A tool's own exception."""


@pytest.mark.parametrize(
    ("on", "calls"),
    [
        (["CardDeclined"], 3),
        (["tool"], 3),
        (["*"], 3),
        (["timeout", "rate_limit"], 1),
        (["Exception"], 3),
        (["LookupError"], 1),
        (["timeout", "tool"], 3),
    ],
)
async def test_retry_on_matches_a_kind_or_a_class_name(on: list[str], calls: int) -> None:
    count = itertools.count()

    async def declined() -> None:
        next(count)
        raise CardDeclined

    vm = ExecutionVM(tools={"t": declined}, clock=Waits())
    await vm.run(program(step(max_retries=3, retry={"on": on})))
    assert next(count) == calls


async def test_what_cannot_succeed_later_is_not_retried() -> None:
    model = ScriptedLLM([ModelError("bad key", status=401, retryable=False), "never"])
    trace = await ExecutionVM(model, clock=Waits()).run(program(llm(on_error="retry")))
    assert (trace.error_kind, len(model.calls)) == ("model", 1)


async def test_an_invalid_answer_is_asked_again_with_the_error_shown_and_without_a_wait() -> None:
    clock = Waits()
    model = ScriptedLLM(["maybe", "perhaps so", "yes"])
    trace = await ExecutionVM(model, clock=clock).run(
        program(llm(prompt="yes or no?", allowed_outputs=["yes", "no"], max_retries=3))
    )
    assert (trace.final_output, trace.steps[0].retries, clock.seconds) == ("yes", 2, [])
    second = model.calls[1]["messages"]
    assert second[0] == {"role": "user", "content": "yes or no?"}
    assert second[1] == {"role": "assistant", "content": "maybe"}
    assert "yes" in second[2]["content"]
    # only the last answer is shown
    assert "maybe" not in [m["content"] for m in model.calls[2]["messages"]]
    assert [a.answer for a in trace.steps[0].attempts] == ["maybe", "perhaps so"]


async def test_the_usage_of_failed_attempts_counts() -> None:
    def answer(text: str, tokens: int) -> Completion:
        return Completion(text, LLMUsage(tokens, 1, tokens + 1), "scripted")

    model = ScriptedLLM([answer("maybe", 10), answer("hm", 20), answer("yes", 30)])
    vm = ExecutionVM(model, prices={"scripted": ("1", "2")})
    trace = await vm.run(program(llm(allowed_outputs=["yes"], max_retries=3)))
    assert trace.total_tokens() == 63
    assert trace.total_cost_usd() == Decimal("0.000066")
    assert trace.steps[0].usage == trace.usage()


async def test_on_invalid_is_taken_when_attempts_are_used_up() -> None:
    model = ScriptedLLM(["a", "b", "c", "d"])
    trace = await ExecutionVM(model).run(
        program(llm(allowed_outputs=["yes", "no"], on_invalid="no"))
    )
    assert (trace.final_output, len(model.calls)) == ("no", 2)
    failed = await ExecutionVM(ScriptedLLM(["a"])).run(
        program(llm(allowed_outputs=["yes", "no"], max_retries=1))
    )
    assert (failed.status, failed.error_kind) == (TraceStatus.FAILED, "invalid_answer")


# --- in doubt -------------------------------------------------------------------------------------


def lost(*outcomes: Any) -> Any:
    """A write whose first outcomes are as given."""
    rest = list(outcomes)
    calls: list[dict[str, Any]] = []

    async def write(**keywords: Any) -> Any:
        calls.append(keywords)
        outcome = rest.pop(0) if rest else "done"
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return write, calls


async def test_in_doubt_is_never_skipped_caught_or_passed() -> None:
    write, calls = lost(OutcomeUnknown("no answer"))
    later, made = lost()
    undone: list[int] = []
    vm = ExecutionVM(
        tools={"t": write, "later": later, "undo": lambda: undone.append(1)}, clock=Waits()
    )
    doubtful = step(
        on_error="skip", default="x", max_retries=3, retry={**NOW, "on": ["*", "timeout"]},
        catch=[{"errors": ["*", "timeout", "OutcomeUnknown"], "next": "b"}], undo={"tool": "undo"},
    )  # fmt: skip
    trace = await vm.run(
        program(step("z", "later", undo={"tool": "undo"}), doubtful, step("b", "later")), run_id="r"
    )
    assert (trace.status, trace.error_kind, len(calls), len(made)) == (
        TraceStatus.SUSPENDED,
        "in_doubt",
        1,
        1,
    )
    assert undone == []
    assert statuses(trace) == {"z": "success", "a": "in_doubt"}
    (entry,) = trace.waiting
    assert {key: entry[key] for key in ("path", "step_id", "kind", "tool")} == {
        "path": "a",
        "step_id": "a",
        "kind": "in_doubt",
        "tool": "t",
    }
    assert len(entry["effect_key"]) == 32
    assert "whether 't' took effect is not known" in (trace.error or "")
    with pytest.raises(VMError, match="not known"):
        trace.raise_for_status()


async def test_an_idempotency_key_allows_the_retry() -> None:
    keys: list[str] = []

    async def send(idempotency_key: str) -> str:
        keys.append(idempotency_key)
        if len(keys) < 3:
            raise ConnectionResetError("gone")
        return "sent"

    trace = await ExecutionVM(tools={"t": send}, clock=Waits()).run(program(step(max_retries=3)))
    assert (trace.final_output, len(keys), len(set(keys))) == ("sent", 3, 1)
    keys.clear()
    trace = await ExecutionVM(tools={"t": send}, clock=Waits()).run(program(step(max_retries=2)))
    assert (trace.status, len(keys)) == (TraceStatus.SUSPENDED, 2)


async def test_an_unknown_outcome_stays_unknown_when_no_call_is_left() -> None:
    async def send(idempotency_key: str) -> str:
        raise ConnectionResetError("gone")

    vm = ExecutionVM(tools={"t": send}, clock=Waits())
    trace = await vm.run(program(step(max_retries=3), budget={"max_tool_calls": 1}))
    assert (trace.status, statuses(trace)) == (TraceStatus.SUSPENDED, {"a": "in_doubt"})


RECONCILED: list[tuple[Any, TraceStatus, str, int]] = [
    ({"done": True, "output": [1]}, TraceStatus.SUCCESS, "success", 1),
    ({"done": True}, TraceStatus.SUCCESS, "success", 1),
    ({"done": False}, TraceStatus.SUCCESS, "success", 2),
    ({"done": "yes"}, TraceStatus.SUSPENDED, "in_doubt", 1),
    ({"done": 1}, TraceStatus.SUSPENDED, "in_doubt", 1),
    (True, TraceStatus.SUSPENDED, "in_doubt", 1),
    (None, TraceStatus.SUSPENDED, "in_doubt", 1),
    (b"x", TraceStatus.SUSPENDED, "in_doubt", 1),
    (ValueError("unreachable"), TraceStatus.SUSPENDED, "in_doubt", 1),
    (TimeoutError("slow"), TraceStatus.SUSPENDED, "in_doubt", 1),
]


@pytest.mark.parametrize(
    ("told", "status", "outcome", "count"), RECONCILED, ids=[repr(r[0]) for r in RECONCILED]
)
async def test_reconcile_decides(told: Any, status: TraceStatus, outcome: str, count: int) -> None:
    write, calls = lost(TimeoutError("slow"))
    asked: list[Any] = []

    @tool(effect="read")
    async def find(ref: str) -> Any:
        asked.append(ref)
        if isinstance(told, BaseException):
            raise told
        return told

    vm = ExecutionVM(tools={"t": write, "find": find}, clock=Waits())
    one = program(
        step(
            args={"n": "$n"},
            max_retries=2,
            on_error="skip",
            reconcile={"tool": "find", "args": {"ref": "r-$n"}},
        )
    )
    trace = await vm.run(one, {"n": 7})
    assert (trace.status, statuses(trace)["a"]) == (status, outcome), trace.error
    assert asked == ["r-7"]
    assert calls == [{"n": 7}] * count
    assert trace.steps[-1].request == {"n": 7}
    if isinstance(told, dict) and told.get("done") is True:
        assert trace.final_output == told.get("output")
    assert {s.path for s in trace.steps} == {"a", "a/reconcile"}


async def test_a_branch_in_doubt_suspends_the_run_after_its_siblings() -> None:
    write, _ = lost(TimeoutError("slow"))
    done, made = lost()
    vm = ExecutionVM(tools={"t": write, "u": done})
    trace = await vm.run(
        program(
            parallel([step("x"), step("never", "u")], [step("y", "u"), step("z", "u")]),
            step("after", "u"),
        )
    )
    assert (trace.status, len(made)) == (TraceStatus.SUSPENDED, 2)
    assert statuses(trace) == {
        "p/x": "in_doubt",
        "p/y": "success",
        "p/z": "success",
        "p": "suspended",
    }
    assert [entry["path"] for entry in trace.waiting] == ["p/x"]


@pytest.mark.parametrize(
    "fields", [{"type": "approval", "role": "boss", "show": "$x"}, {"type": "wait", "seconds": 5}]
)
async def test_a_pause_suspends_the_run_with_what_it_waits_for(fields: dict[str, Any]) -> None:
    later, made = lost()
    trace = await ExecutionVM(tools={"t": later}).run(
        program({"id": "w", **fields}, step()), {"x": 5}
    )
    assert (trace.status, made) == (TraceStatus.SUSPENDED, [])
    assert (trace.waiting[0]["kind"], trace.waiting[0]["path"]) == (fields["type"], "w")
    assert Trace.from_json(trace.to_json()).waiting == trace.waiting


# --- undo -----------------------------------------------------------------------------------------


class Books:
    """Tools that do and undo by name, and the order in which they did."""

    def __init__(self) -> None:
        self.done: list[str] = []

    @property
    def tools(self) -> dict[str, Any]:
        async def do(name: str, turns: int = 0) -> str:
            for _ in range(turns):
                await asyncio.sleep(0)
            self.done.append(name)
            return name

        async def undo(name: str) -> None:
            self.done.append(f"-{name}")
            if name.startswith("bad"):
                raise ValueError(f"cannot undo {name}")

        async def fail() -> None:
            raise CardDeclined("no")

        return {"do": do, "undo": undo, "fail": fail}

    @staticmethod
    def step(name: str, turns: int = 0) -> dict[str, Any]:
        args = {"name": name, "turns": turns}
        return step(
            name, "do", args=args, undo={"tool": "undo", "args": {"name": f"${name}.output"}}
        )


async def test_undo_runs_in_reverse_order() -> None:
    books = Books()
    trace = await ExecutionVM(tools=books.tools).run(
        program(*map(books.step, "abc"), step("f", "fail"))
    )
    assert books.done == ["a", "b", "c", "-c", "-b", "-a"]
    assert [s.path for s in trace.steps] == ["a", "b", "c", "f", "c/undo", "b/undo", "a/undo"]
    assert trace.status is TraceStatus.FAILED


@pytest.mark.parametrize("turns", [(0, 3, 6), (6, 3, 0), (3, 0, 6)])
async def test_undo_is_in_reverse_declared_order_whoever_finished_first(
    turns: tuple[int, int, int],
) -> None:
    books = Books()
    branches = [
        [books.step(f"{name}1", n), books.step(f"{name}2", n)]
        for name, n in zip("abc", turns, strict=True)
    ]
    steps = [books.step("first"), parallel(*branches), books.step("last"), step("f", "fail")]
    trace = await ExecutionVM(tools=books.tools).run(program(*steps))
    assert [name for name in books.done if name[0] == "-"] == [
        "-last",
        "-c2",
        "-c1",
        "-b2",
        "-b1",
        "-a2",
        "-a1",
        "-first",
    ]
    assert trace.status is TraceStatus.FAILED


async def test_undo_covers_items_iterations_and_called_programs() -> None:
    books = Books()
    item = step(
        "i", "do", args={"name": "item$item"}, undo={"tool": "undo", "args": {"name": "$i.output"}}
    )
    turn = step(
        "t", "do", args={"name": "turn$n"}, undo={"tool": "undo", "args": {"name": "$t.output"}}
    )
    count = {"id": "s", "type": "set", "values": {"n": {"expr": "$n + 1"}}}
    steps = [
        mapped(item, over=[1, 2]),
        {"id": "zero", "type": "set", "values": {"n": 0}},
        {
            "id": "l",
            "type": "loop",
            "max_iterations": 2,
            "on_exhausted": "continue",
            "steps": [count, turn],
        },
        {"id": "c", "type": "call", "program": {"steps": [books.step("called")]}},
        step("f", "fail"),
    ]
    trace = await ExecutionVM(tools=books.tools).run(program(*steps))
    # arguments fixed when each finished
    assert books.done[-5:] == ["-called", "-turn2", "-turn1", "-item2", "-item1"]
    paths = [s.path for s in trace.steps if s.path.endswith("undo")]
    assert paths == ["c/called/undo", "l#2/t/undo", "l#1/t/undo", "m[1]/i/undo", "m[0]/i/undo"]


async def test_what_failed_itself_or_was_skipped_is_not_undone() -> None:
    books = Books()
    failing_step = step("s", "fail", on_error="skip", undo={"tool": "undo", "args": {"name": "s"}})
    await ExecutionVM(tools=books.tools).run(
        program(failing_step, books.step("a"), step("f", "fail"))
    )
    assert books.done == ["a", "-a"]


async def test_a_caught_failure_undoes_nothing() -> None:
    books = Books()
    caught = step("f", "fail", catch=[{"errors": ["CardDeclined"], "next": "b"}])
    trace = await ExecutionVM(tools=books.tools).run(
        program(books.step("a"), caught, books.step("b"))
    )
    assert (books.done, trace.status) == (["a", "b"], TraceStatus.SUCCESS)
    branch = parallel([books.step("c"), step("g", "fail")], on_error="skip")
    books.done.clear()
    assert (await ExecutionVM(tools=books.tools).run(program(branch, books.step("b")))).ok
    assert books.done == ["c", "b"]


async def test_an_undo_that_fails_is_told_and_the_others_run() -> None:
    books = Books()
    trace = await ExecutionVM(tools=books.tools).run(
        program(
            books.step("a"),
            books.step("bad1"),
            books.step("bad2"),
            books.step("z"),
            step("f", "fail"),
        )
    )
    assert books.done[-4:] == ["-z", "-bad2", "-bad1", "-a"]
    assert trace.error == (
        "Step 'f' failed: CardDeclined: no; undo of 'bad2' failed: ValueError: cannot undo bad2; "
        "undo of 'bad1' failed: ValueError: cannot undo bad1"
    )
    assert statuses(trace)["bad1/undo"] == "failed"


async def test_undo_runs_when_the_budget_is_used_up() -> None:
    books = Books()
    one = program(books.step("a"), books.step("b"), books.step("c"))
    for budget in ({"max_tool_calls": 2}, {"max_steps": 2}):
        books.done.clear()
        trace = await ExecutionVM(tools=books.tools).run(one, budget=budget)
        assert (trace.error_kind, books.done) == ("budget", ["a", "b", "-b", "-a"])


# --- budgets --------------------------------------------------------------------------------------


async def do() -> int:
    return 1


def four() -> Program:
    return program(step("a"), llm("m"), step("b"), llm("n"))


@pytest.mark.parametrize(
    ("budget", "made", "failed"),
    [
        ({"max_steps": 3}, (2, 1), "n"),
        ({"max_llm_calls": 1}, (2, 1), "n"),
        ({"max_llm_calls": 0}, (1, 0), "m"),
        ({"max_tool_calls": 1}, (1, 1), "b"),
        ({"max_tool_calls": 0}, (0, 0), "a"),
        ({"max_tokens": 100}, (1, 0), "m"),
        ({"max_tokens": 1 + 16 + 1024}, (2, 1), "n"),
        ({"max_cost_usd": 0.001}, (1, 0), "m"),
        ({"max_cost_usd": "0.0010419"}, (2, 1), "n"),
    ],
)
@pytest.mark.parametrize("where", ["program", "vm", "run", "dict"])
async def test_a_budget_refuses_the_call_before_it_is_made(
    budget: dict[str, Any], made: tuple[int, int], failed: str, where: str
) -> None:
    calls = itertools.count()

    async def counted() -> int:
        return next(calls)

    model = ScriptedLLM({"": "ok"})
    if "max_cost_usd" in budget:
        budget = {"max_cost_usd": float(budget["max_cost_usd"])}
    wide = {
        "max_steps": 1000,
        "max_llm_calls": 1000,
        "max_tool_calls": 1000,
        "max_tokens": 10**9,
        "max_cost_usd": 10**6,
    }
    given: dict[str, Any] = {"program": wide, "vm": Budget(**wide), "run": wide}
    given["run" if where == "dict" else where] = Budget(**budget) if where == "vm" else budget
    vm = ExecutionVM(
        model, tools={"t": counted}, budget=given["vm"], prices={"scripted": ("1", "1")}
    )
    # a budget is never skipped
    steps = [{**s, "on_error": "skip"} for s in four().to_dict()["steps"]]
    trace = await vm.run(program(*steps, budget=given["program"]), budget=given["run"])
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "budget"), trace.error
    assert (next(calls), len(model.calls)) == made
    assert trace.steps[-1].path == failed
    assert next(iter(budget)) in (trace.error or "")


async def test_retries_and_corrections_are_calls() -> None:
    one = program(step(max_retries=5, retry=NOW))
    trace = await ExecutionVM(tools={"t": failing(ValueError("x"))}).run(
        one, budget={"max_tool_calls": 3}
    )
    assert (trace.error_kind, trace.steps[0].retries) == ("budget", 2)
    model = ScriptedLLM(["bad"] * 9)
    trace = await ExecutionVM(model).run(
        program(llm(allowed_outputs=["a"], max_retries=5)), budget={"max_llm_calls": 2}
    )
    assert (trace.error_kind, len(model.calls)) == ("budget", 2)


class Metered:
    """An adapter that counts tokens itself and reports as it is told."""

    model = "metered"

    def __init__(self, bound: Any = 10, usage: Any = None) -> None:
        self.bound, self.usage = bound, usage
        self.options: list[dict[str, Any]] = []

    def count_tokens(self, messages: list[dict[str, str]]) -> Any:
        return self.bound

    async def complete(self, messages: list[dict[str, str]], **kwargs: Any) -> Any:
        self.options.append(kwargs)
        return "ok", self.usage


async def test_a_call_is_settled_with_its_usage_and_without_usage_the_reservation_is_the_charge() -> (
    None
):
    steps = [llm(f"m{i}", max_tokens=90) for i in range(10)]
    known = Metered(usage={"prompt_tokens": 5, "completion_tokens": 5})
    trace = await ExecutionVM(known).run(program(*steps), budget={"max_tokens": 190})
    # 9 * 10 + 100 = 190
    assert (trace.status, len(known.options)) == (TraceStatus.SUCCESS, 10), trace.error
    trace = await ExecutionVM(known).run(program(*steps), budget={"max_tokens": 189})
    assert (trace.error_kind, trace.steps[-1].path) == ("budget", "m9")
    unknown = Metered()
    trace = await ExecutionVM(unknown).run(program(*steps), budget={"max_tokens": 399})
    assert (trace.error_kind, len(unknown.options)) == ("budget", 3)


async def test_without_max_tokens_the_default_is_reserved_and_asked_of_the_adapter() -> None:
    model = Metered()
    assert (await ExecutionVM(model).run(program(llm()), budget={"max_tokens": 1034})).ok
    assert (
        await ExecutionVM(model).run(program(llm()), budget={"max_tokens": 1033})
    ).error_kind == "budget"
    assert (await ExecutionVM(model).run(program(llm()))).ok
    assert [options.get("max_tokens") for options in model.options] == [1024, None]


@pytest.mark.parametrize("bound", [None, "5", -1, 2.5])
async def test_a_count_that_is_none_falls_back_to_the_bytes(bound: Any) -> None:
    model = Metered(bound=bound)
    one = program(llm(prompt="ä" * 10, max_tokens=4))
    assert (await ExecutionVM(model).run(one, budget={"max_tokens": 40})).ok
    assert not (await ExecutionVM(model).run(one, budget={"max_tokens": 39})).ok


async def test_a_refused_call_gives_its_reservation_back_and_a_lost_one_does_not() -> None:
    def script(error: BaseException) -> ScriptedLLM:
        return ScriptedLLM([error, Completion("ok", LLMUsage(1, 1, 2))])

    one = program(llm(prompt="x", max_tokens=83, max_retries=2, retry=NOW))  # 100 a call
    for error in (RateLimited("wait"),):
        assert (
            await ExecutionVM(script(error), clock=Waits()).run(one, budget={"max_tokens": 150})
        ).ok
    for error in (ModelError("server error"), ConnectionResetError("gone"), TimeoutError("slow")):
        trace = await ExecutionVM(script(error), clock=Waits()).run(one, budget={"max_tokens": 150})
        assert trace.error_kind == "budget", error


async def test_prices_are_exact_decimals() -> None:
    def usage(n: int) -> Completion:
        return Completion("ok", LLMUsage(n, n, 2 * n))

    vm = ExecutionVM(ScriptedLLM([usage(1)] * 3), prices={"scripted": (0.1, "0.2")})
    trace = await vm.run(program(llm("a"), llm("b"), llm("c")))
    assert trace.total_cost_usd() == Decimal("0.0000009")
    assert str(trace.steps[0].usage.cost_usd) == "3E-7"  # type: ignore[union-attr]
    assert trace.steps[0].cost_source == "prices"
    assert Trace.from_json(trace.to_json()).total_cost_usd() == trace.total_cost_usd()


async def test_an_unknown_cost_is_none() -> None:
    trace = await ExecutionVM(ScriptedLLM(["ok"])).run(program(llm()))
    assert trace.total_cost_usd() is None
    assert (await ExecutionVM(tools={"t": do}).run(program(step()))).total_cost_usd() == 0
    own = ScriptedLLM([Completion("ok", LLMUsage(1, 1, 2, Decimal("0.5")))])
    trace = await ExecutionVM(own).run(program(llm()))
    assert (trace.total_cost_usd(), trace.steps[0].cost_source) == (Decimal("0.5"), "adapter")
    mixed = ScriptedLLM([Completion("ok", LLMUsage(1, 1, 2, Decimal("0.5"))), "ok"])
    assert (await ExecutionVM(mixed).run(program(llm("a"), llm("b")))).total_cost_usd() is None
    late = ScriptedLLM([TimeoutError("slow")])
    assert (
        await ExecutionVM(late, prices={"scripted": (1, 1)}).run(program(llm()))
    ).total_cost_usd() is None


async def test_a_cost_budget_with_an_unpriced_model_is_refused_before_the_start() -> None:
    calls: list[int] = []
    model = ScriptedLLM({"": "ok"})
    one = program(step(), llm(), budget={"max_cost_usd": 1})
    for prices in (None, {}, {"other": (1, 1)}):
        trace = await ExecutionVM(model, tools={"t": lambda: calls.append(1)}, prices=prices).run(
            one
        )
        assert (trace.status, trace.steps, [d.code for d in trace.diagnostics]) == (
            TraceStatus.FAILED,
            [],
            ["V033"],
        )
        assert "scripted" in (trace.error or "")
    assert (calls, model.calls) == ([], [])


async def test_a_default_model_among_named_adapters_has_the_price_of_its_name() -> None:
    vm = ExecutionVM(
        {"small": ScriptedLLM({"": "ok"}), "large": ScriptedLLM({"": "ok"})},
        prices={"small": (1, 1), "large": (2, 2)},
    )
    trace = await vm.run(program(llm("a"), llm("b", model="large"), budget={"max_cost_usd": 1}))
    assert trace.ok, trace.error
    assert trace.total_cost_usd() == Decimal("0.000006")


@pytest.mark.parametrize(
    "prices",
    [{"m": 5}, {"m": (1,)}, {"m": (1, -1)}, {"m": ("x", 1)}, {"m": (float("nan"), 1)}, {"m": None}],
)
def test_a_malformed_price_is_refused(prices: Any) -> None:
    with pytest.raises(VMError, match="the price of 'm'"):
        ExecutionVM(prices=prices)


@pytest.mark.parametrize(
    "budget",
    [
        5,
        {"max_stps": 1},
        {"max_steps": 0},
        {"max_tokens": -1},
        {"max_seconds": "x"},
        {"max_steps": True},
    ],
)
def test_a_malformed_budget_is_refused(budget: Any) -> None:
    with pytest.raises(VMError, match="budget"):
        ExecutionVM(budget=budget)
    with pytest.raises(VMError, match="budget"):
        ExecutionVM(tools={"t": do}).run_sync(program(step()), budget=budget)


@pytest.mark.parametrize("turns", [(0, 4), (4, 0)])
async def test_equal_shares_at_a_fork_do_not_hang_on_who_finishes_first(
    turns: tuple[int, int],
) -> None:
    calls: list[str] = []

    async def slow(name: str, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        calls.append(name)

    def branch(name: str, count: int, turns: int) -> list[dict[str, Any]]:
        return [step(f"{name}{i}", args={"name": name, "turns": turns}) for i in range(count)]

    one = program(parallel(branch("x", 4, turns[0]), branch("y", 2, turns[1]), on_error="fail"))
    trace = await ExecutionVM(tools={"t": slow}).run(one, budget={"max_tool_calls": 5})
    assert trace.error_kind == "budget"
    # 4 + 2 exceed 5: shares of 3 and 2, in declared order; y may not have what x lacks
    assert sorted(calls) == ["x", "x", "x", "y", "y"]
    assert statuses(trace) == {
        "p/x0": "success", "p/x1": "success", "p/x2": "success", "p/x3": "failed",
        "p/y0": "success", "p/y1": "success", "p": "failed",
    }  # fmt: skip


async def test_ceilings_that_fit_are_given_and_what_is_unspent_returns() -> None:
    jump = {
        "id": "c",
        "type": "condition",
        "condition": "true",
        "then": [step("x0")],
        "otherwise": [step(f"x{i}") for i in range(1, 4)],
    }
    vm = ExecutionVM(tools={"t": do})
    one = program(parallel([jump], step("y")), step("a"), step("b"), step("d"))
    assert (await vm.run(one, budget={"max_tool_calls": 5})).ok  # the fork reserves 5 and uses 2
    assert (await vm.run(one, budget={"max_tool_calls": 4})).error_kind == "budget"
    asks = program(parallel(llm("x", max_retries=2), llm("y", max_retries=2)), llm("z"))
    model = ExecutionVM(ScriptedLLM({"": "ok"}))
    assert (await model.run(asks, budget={"max_llm_calls": 4})).ok
    assert (await model.run(asks, budget={"max_llm_calls": 3})).ok
    assert (await model.run(asks, budget={"max_llm_calls": 2})).error_kind == "budget"
    wide = program(parallel([step(f"x{i}") for i in range(3)], step("y")))
    assert (await vm.run(wide, budget={"max_tool_calls": 4})).ok  # unequal ceilings, where all fit


async def test_tokens_are_shared_at_a_fork() -> None:
    model = Metered(usage={"prompt_tokens": 1, "completion_tokens": 1})
    one = program(
        parallel(llm("x", max_tokens=40), llm("y", max_tokens=40)), llm("z", max_tokens=40)
    )
    assert (await ExecutionVM(model).run(one, budget={"max_tokens": 100})).ok
    trace = await ExecutionVM(model).run(one, budget={"max_tokens": 99})
    assert statuses(trace) == {"p/x": "success", "p/y": "failed", "p": "failed"}
    items = program(mapped(llm("x", max_tokens=40), over=list(range(4)), id="i"))
    trace = await ExecutionVM(model).run(items, budget={"max_tokens": 199})
    assert [s.status.value for s in trace.steps[:-1]] == ["success", "success", "success", "failed"]


async def test_a_called_programs_budget_holds_within_it() -> None:
    inner = {"steps": [step("x"), step("y")], "budget": {"max_tool_calls": 1}}
    one = program({"id": "c", "type": "call", "program": inner}, step("z"))
    trace = await ExecutionVM(tools={"t": do}).run(one)
    assert (trace.error_kind, statuses(trace)) == (
        "budget",
        {"c/x": "success", "c/y": "failed", "c": "failed"},
    )


async def test_limits_of_the_host() -> None:
    vm = ExecutionVM(
        tools={"t": lambda: "x" * 50}, limits=Limits(steps=3, value_bytes=100, state_bytes=250)
    )
    assert (await vm.run(program(*(step(f"s{i}") for i in range(3))))).ok
    assert (await vm.run(program(*(step(f"s{i}") for i in range(4))))).error_kind == "budget"
    full = program(mapped(step("x"), over=[1, 2]), mapped(step("y"), over=[1, 2], id="n"))
    vm = ExecutionVM(
        tools={"t": lambda: "x" * 50}, limits=Limits(value_bytes=1000, state_bytes=200)
    )
    assert (await vm.run(full)).error_kind == "limit"
    large = ExecutionVM(tools={"t": lambda: "x" * 101}, limits=Limits(value_bytes=100))
    trace = await large.run(program(step(on_error="skip", default="small")))
    assert (trace.status, trace.final_output) == (TraceStatus.SUCCESS, "small")


# --- identities -----------------------------------------------------------------------------------


async def test_the_same_run_id_joins() -> None:
    calls: list[int] = []
    go = asyncio.Event()

    async def wait(x: str) -> str:
        calls.append(1)
        await go.wait()
        return x

    vm = ExecutionVM(tools={"t": wait})
    one = program(step(args={"x": "$x"}))
    first = vm.start(one, {"x": "a"}, run_id="r")
    assert vm.start(one, {"x": "a"}, run_id="r") is first
    assert vm.start(Program.from_dict(one.to_dict()), {"x": "a", "unread": 1}, run_id="r") is first
    waiting = asyncio.create_task(vm.run(one, {"x": "a"}, run_id="r"))
    await asyncio.sleep(0)
    go.set()
    assert await waiting is await first
    assert await vm.run(one, {"x": "a"}, run_id="r") is first.trace  # also when it has ended
    assert (len(calls), first.run_id) == (1, "r")


async def test_the_same_run_id_with_other_inputs_or_another_program_is_an_error() -> None:
    vm = ExecutionVM(tools={"t": do, "u": lambda x: x})
    await vm.run(program(step("a", "u", args={"x": "$x"})), {"x": 1}, run_id="r")
    for other, inputs in (
        (program(step("a", "u", args={"x": "$x"})), {"x": "1"}),
        (program(step()), {}),
        (program(step()), {"x": 1}),
    ):
        with pytest.raises(VMError, match="run 'r' exists, with another program or other inputs"):
            await vm.run(other, inputs, run_id="r")
    # another VM knows nothing of it
    assert (await ExecutionVM(tools={"t": do}).run(program(step()), run_id="r")).ok


def test_the_same_run_id_joins_from_another_event_loop() -> None:
    calls: list[int] = []
    vm = ExecutionVM(tools={"t": lambda: calls.append(1)})
    one = program(step())
    first, second = (vm.run_sync(one, run_id="r") for _ in range(2))
    assert first is second
    assert calls == [1]


async def test_a_run_that_is_under_way_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nano_vm.run.live.REMEMBERED_RUNS", 2)
    calls: list[str] = []
    go = asyncio.Event()

    async def wait(name: str) -> None:
        calls.append(name)
        await go.wait()

    vm = ExecutionVM(tools={"t": wait})
    one = program(step(args={"name": "$name"}))
    runs = [vm.start(one, {"name": str(i)}, run_id=str(i)) for i in range(5)]
    assert vm.start(one, {"name": "0"}, run_id="0") is runs[0]
    go.set()
    for run in runs:
        await run
    assert calls == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("begun", [True, False])
async def test_who_waits_for_a_run_is_cancelled_also_in_the_turn_in_which_it_ends(
    begun: bool,
) -> None:
    """Also where the run's own task was cancelled before its first step, which alone is told by
    the trace.
    """
    go = asyncio.Event()

    async def wait() -> Trace:
        return await run.result()

    # both wait before the run's own task has its first turn
    waiter, other = asyncio.create_task(wait()), asyncio.create_task(wait())
    run = ExecutionVM(tools={"t": go.wait}).start(program(step()), run_id="r")
    assert run.task is not None
    run.task.add_done_callback(lambda _: waiter.cancel())  # before the waiter is told
    if begun:
        await asyncio.sleep(0)
        go.set()
    else:
        run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert waiter.cancelled()
    assert (await other).status is (TraceStatus.SUCCESS if begun else TraceStatus.CANCELLED)


def test_a_run_under_way_in_another_event_loop_is_not_waited_for() -> None:
    go = asyncio.Event()
    vm, one = ExecutionVM(tools={"t": go.wait}), program(step())

    async def begun() -> Run:
        run = vm.start(one, run_id="r")
        await asyncio.sleep(0)  # until it waits in its tool
        return run

    async def ended() -> Trace:
        go.set()
        return await run.result()

    loop = asyncio.new_event_loop()
    run = loop.run_until_complete(begun())
    for wait in (run.result, run.joined, partial(vm.run, one, run_id="r")):
        with pytest.raises(VMError, match="run 'r' is under way in another event loop"):
            asyncio.run(wait())
    assert loop.run_until_complete(ended()).ok
    loop.close()


@pytest.mark.parametrize("stored", [True, False])
async def test_a_run_of_a_store_is_known_as_long_as_it_runs(stored: bool) -> None:
    vm, known = ExecutionVM(tools={"t": do}), LiveRuns(stored=stored)
    begun = vm.begin(program(step()), run_id="r")
    run = Run(begun.trace, vm.execution(begun))
    known.remember(run)
    assert known.get("r") is run
    task = run.task
    assert (await run.joined()).ok  # in the turn in which it ends
    assert known.get("r") is (None if stored else run)
    if stored:  # another of the same id, before the end of the first is noticed
        go = asyncio.Event()
        vm = ExecutionVM(tools={"t": go.wait})
        again = vm.begin(program(step()), run_id="r")
        second = Run(again.trace, vm.execution(again))
        known.remember(second)
        assert task is not None
        await asyncio.sleep(0)
        assert task.done()
        assert known.get("r") is second
        go.set()
        assert (await second.joined()).ok


@pytest.mark.parametrize("run_id", [5, b"x", "\ud800", ""])
async def test_a_run_id_is_a_text(run_id: Any) -> None:
    with pytest.raises(VMError, match="run id"):
        await ExecutionVM(tools={"t": do}).run(program(step()), run_id=run_id)


async def test_a_run_has_an_id_of_its_own() -> None:
    vm = ExecutionVM(tools={"t": do})
    traces = [await vm.run(program(step())) for _ in range(20)]
    assert (
        len({t.run_id for t in traces})
        == len({t.seed for t in traces})
        == len({t.salt for t in traces})
        == 20
    )


# --- what is refused ------------------------------------------------------------------------------


async def test_a_refused_run_has_its_diagnostics_and_no_step() -> None:
    calls: list[int] = []
    vm = ExecutionVM(tools={"t": lambda: calls.append(1)})
    one = program(step("a"), step("b", "unknown"), llm("m"), step("c", args={"x": 1}))
    trace = await vm.run(one)
    assert (trace.status, trace.error_kind, trace.steps, calls) == (
        TraceStatus.FAILED,
        "refused",
        [],
        [],
    )
    assert list(trace.diagnostics) == vm.check(one)
    assert {d.loc[:2] for d in trace.diagnostics} == {("steps", 1), ("steps", 2), ("steps", 3)}
    assert all(str(d) in (trace.error or "") for d in trace.diagnostics)
    back = Trace.from_json(trace.to_json())
    assert back.diagnostics == trace.diagnostics
    assert (await vm.start(one)).digest == trace.digest
    assert [event.kind async for event in vm.stream(one)] == ["run_finished"]


async def test_missing_and_malformed_inputs_are_diagnostics() -> None:
    vm = ExecutionVM(tools={"t": lambda x, y: 1})
    one = program(step(args={"x": "$x", "y": "$y"}))
    trace = await vm.run(one, {"x": 1})
    assert [(d.code, d.loc) for d in trace.diagnostics] == [("V040", ("context",))]
    assert "'y'" in (trace.error or "")
    trace = await vm.run(one, {"x": float("nan"), "y": b"x"})
    assert [d.loc for d in trace.diagnostics] == [("context", "x"), ("context", "y")]
    trace = await vm.run(one, [("x", 1)])  # type: ignore[arg-type]
    assert "context is a dict, not list" in (trace.error or "")


async def test_inputs_are_taken_when_the_run_begins() -> None:
    inputs: dict[str, Any] = {"x": [1]}
    vm = ExecutionVM(tools={"t": do, "u": lambda x: x})
    handle = vm.start(program(step(), step("b", "u", args={"x": "$x"})), inputs)
    inputs["x"].append(2)
    inputs["x"] = None
    trace = await handle
    assert (trace.final_output, trace.inputs) == ([1], {"x": [1]})


@pytest.mark.parametrize("given", [None, {}, "x", 5])
async def test_a_program_is_a_program(given: Any) -> None:
    with pytest.raises(VMError, match="a program is a Program"):
        await ExecutionVM().run(given)


@pytest.mark.parametrize("llm", [5, {}, {"a": 5}, object()])
def test_an_adapter_has_complete(llm: Any) -> None:
    with pytest.raises(VMError, match=r"complete|empty"):
        ExecutionVM(llm)


# --- handles, sync, streams -----------------------------------------------------------------------


async def test_a_handle() -> None:
    go = asyncio.Event()

    async def wait() -> str:
        await go.wait()
        return "done"

    handle = ExecutionVM(tools={"t": wait}).start(program(step()))
    assert handle.status is TraceStatus.RUNNING
    assert handle.trace.finished_at is None
    waiters = [asyncio.create_task(handle.result()) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()  # one that waits is not the run
    go.set()
    assert {t.final_output for t in await asyncio.gather(*waiters[1:])} == {"done"}
    assert (handle.status, (await handle).run_id) == (TraceStatus.SUCCESS, handle.run_id)
    with contextlib.suppress(asyncio.CancelledError):
        await waiters[0]


async def test_run_sync_inside_an_event_loop_says_what_to_write() -> None:
    with pytest.raises(VMError, match=r"await vm\.run"):
        ExecutionVM(tools={"t": do}).run_sync(program(step()))


class Streaming:
    """An adapter that streams word by word."""

    model = "streaming"

    def __init__(self, *pieces: Any) -> None:
        self.pieces = pieces
        self.closed = 0

    async def complete(self, messages: list[dict[str, str]], **kwargs: Any) -> str:
        return "".join(p for p in self.pieces if isinstance(p, str))

    async def stream(self, messages: list[dict[str, str]], **kwargs: Any) -> AsyncIterator[Any]:
        try:
            for piece in self.pieces:
                await asyncio.sleep(0)
                yield piece
        finally:
            self.closed += 1


async def events(
    vm: ExecutionVM, one: Program, inputs: Any = None
) -> list[tuple[str, str, str | None]]:
    return [(e.kind, e.path, e.text) async for e in vm.stream(one, inputs)]


async def test_events_tell_a_run_in_order() -> None:
    done = Completion("a b", LLMUsage(1, 2, 3), "m", "stop")
    vm = ExecutionVM(Streaming("a", " b", done), tools={"t": do})
    one = program(
        step(), llm(), {"id": "c", "type": "condition", "condition": "true", "then": [step("d")]}
    )
    assert await events(vm, one) == [
        ("step_started", "a", None),
        ("step_finished", "a", None),
        ("step_started", "m", None),
        ("text", "m", "a"),
        ("text", "m", " b"),
        ("step_finished", "m", None),
        ("step_finished", "c", None),
        ("step_started", "c/d", None),
        ("step_finished", "c/d", None),
        ("run_finished", "", None),
    ]
    found = [event async for event in vm.stream(one)]
    trace = found[-1].trace
    assert trace.ok
    assert trace.total_tokens() == 3
    assert [e.result for e in found if e.kind == "step_finished"] == trace.steps
    assert {(e.step_id, e.type) for e in found if e.kind == "text"} == {("m", "llm")}


async def test_the_trace_of_a_stream_is_that_of_a_run() -> None:
    vm = ExecutionVM(Streaming("a", " b"), tools={"t": do})
    one = program(
        step(), llm(), parallel(step("x"), llm("y")), mapped(step("z"), over=[1, 2], id="i")
    )
    streamed = [e async for e in vm.stream(one)][-1].trace
    assert streamed.digest == (await vm.run(one)).digest


async def test_events_of_branches_come_as_they_happen() -> None:
    first = asyncio.Event()

    async def wait(name: str) -> None:
        if name == "x":
            await first.wait()
        else:
            first.set()

    vm = ExecutionVM(tools={"t": wait})
    one = program(parallel(step("x", args={"name": "x"}), step("y", args={"name": "y"})))
    found = [e for e in await events(vm, one) if e[0] == "step_finished"]
    assert [path for _, path, _ in found] == ["p/y", "p/x", "p"]


async def test_a_step_starts_once_and_finishes_under_the_path_of_its_start() -> None:
    write, _ = lost(TimeoutError("slow"))
    tools = {
        "t": failing(ValueError("x"), "ok"),
        "w": write,
        "find": lambda: {"done": True},
        "undo": do,
        "fail": failing(ValueError("x")),
    }
    steps = [
        step(max_retries=2, retry=NOW, undo={"tool": "undo"}),
        step("w", "w", reconcile={"tool": "find"}),
        step("f", "fail"),
    ]
    found = await events(ExecutionVM(tools=tools), program(*steps))
    begun = [path for kind, path, _ in found if kind == "step_started"]
    ended = [path for kind, path, _ in found if kind == "step_finished"]
    assert sorted(begun) == sorted(ended) == ["a", "a/undo", "f", "w", "w/reconcile"]


async def test_a_stream_that_breaks_is_an_error_of_its_step() -> None:
    model = Streaming("a", 5, "b")
    found = [e async for e in ExecutionVM(model).stream(program(llm()))]
    assert (found[-1].trace.error_kind, model.closed) == ("model", 1)


async def test_steps_can_be_read_while_the_run_goes_on() -> None:
    vm = ExecutionVM(tools={"t": do})
    handle = vm.start(program(*(step(f"s{i}") for i in range(3))))
    assert handle.trace.steps == []
    trace = await handle
    assert len(trace.steps) == 3


# --- many at a time -------------------------------------------------------------------------------


@pytest.mark.slow
async def test_two_thousand_runs_at_a_time_share_nothing() -> None:
    async def echo(x: Any) -> Any:
        await asyncio.sleep(0)
        return x

    vm = ExecutionVM(ScriptedLLM(lambda messages: messages[-1]["content"]), tools={"t": echo})
    one = program(
        step("a", args={"x": "$x"}, output_key="y"),
        llm("m", "$y"),
        parallel(step("b", args={"x": ["$y"]}), step("c", args={"x": "$m.output"})),
        step("d", args={"x": "$p.output"}),
    )
    traces = await asyncio.gather(*(vm.run(one, {"x": f"run {i}"}) for i in range(2000)))
    assert all(t.ok for t in traces)
    assert [t.final_output for t in traces] == [
        {"b": [f"run {i}"], "c": f"run {i}"} for i in range(2000)
    ]


def test_one_vm_serves_several_threads_and_event_loops() -> None:
    async def echo(x: str) -> str:
        await asyncio.sleep(0)
        return x

    def plain(x: str) -> str:
        return x

    @tool(effect="read", timeout_seconds=0.02)
    async def hang() -> None:
        await asyncio.sleep(2 * HANGS_SECONDS)

    vm = ExecutionVM(tools={"t": echo, "u": plain, "h": hang}, threads=2)
    one = program(
        step("a", args={"x": "$x"}),
        step("b", "u", args={"x": "$a.output"}),
        step("h", "h", on_error="skip", default=0),
    )
    found: list[Any] = []

    async def several(name: str) -> list[Any]:
        traces = await asyncio.gather(*(vm.run(one, {"x": f"{name}{i}"}) for i in range(10)))
        return [(t.steps[1].output, t.steps[2].error_kind) for t in traces] == [
            (f"{name}{i}", "timeout") for i in range(10)
        ]  # type: ignore[return-value]

    threads = [
        threading.Thread(target=lambda name=name: found.append(asyncio.run(several(name))))
        for name in "abcd"
    ]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGS_SECONDS)
    assert found == [True] * 4


async def test_one_program_in_two_vms() -> None:
    one = program(step())
    first, second = ExecutionVM(tools={"t": lambda: 1}), ExecutionVM(tools={"t": lambda: 2})
    assert [(await vm.run(one)).final_output for vm in (first, second, first)] == [1, 2, 1]


async def test_a_run_inside_a_tool_of_a_run() -> None:
    vm = ExecutionVM(tools={"t": do})

    async def inner(n: int) -> Any:
        return (await vm.run(program(step(), step("b")))).final_output + n

    vm.register_tool("inner", inner)
    assert (
        await vm.run(program(mapped(step("x", "inner", args={"n": "$item"}), over=[1, 2])))
    ).final_output == [2, 3]


@pytest.mark.parametrize("how", ["cause", "context", "reason"])
async def test_a_lost_connection_under_another_error_is_in_doubt(how: str) -> None:
    calls = []

    async def pay() -> None:
        calls.append(1)
        lost = ConnectionResetError("gone")
        if how == "cause":
            raise RuntimeError("sdk") from lost
        if how == "reason":
            error = OSError("urllib")
            error.reason = lost  # type: ignore[attr-defined]
            raise error
        try:
            raise lost
        except ConnectionResetError:
            raise RuntimeError("sdk")  # noqa: B904 - as a careless tool does

    trace = await ExecutionVM(tools={"t": pay}).run(program(step(on_error="retry", retry=NOW)))
    assert (trace.status, len(calls)) == (TraceStatus.SUSPENDED, 1)


async def test_a_refused_value_does_not_lose_the_undo() -> None:
    """The call was made: what it did is undone when the run fails, whatever it returned."""
    undone = []

    async def pay() -> object:
        return object()

    async def refund(order: str) -> None:
        undone.append(order)

    one = program(step(tool="pay", undo={"tool": "refund", "args": {"order": "o1"}}))
    trace = await ExecutionVM(tools={"pay": pay, "refund": refund}).run(one)
    assert (trace.status, undone) == (TraceStatus.FAILED, ["o1"])


async def test_a_misspelled_input_is_told() -> None:
    inputs = {"type": "object", "properties": {"order_id": {"type": "string", "default": "A"}}}
    one = program(step(args={"x": "$order_id"}), inputs=inputs)
    trace = await ExecutionVM(tools={"t": lambda x: x}).run(one, {"order_di": "B"})
    assert [(d.code, d.hint) for d in trace.diagnostics] == [("V042", "did you mean 'order_id'?")]


@pytest.mark.parametrize("stops", ["no budget", "no value"])
async def test_a_call_that_was_never_made_has_no_request(stops: str) -> None:
    """The record of a refused step does not show what the step before it asked."""
    second = {"x": "two", "y": 3} if stops == "no budget" else {"x": "$a.output.nope"}
    one = program(step("a", args={"x": "one", "y": 2}), step("b", args=second))
    vm = ExecutionVM(tools={"t": lambda x=None, y=None: x})
    trace = await vm.run(one, budget={"max_tool_calls": 1} if stops == "no budget" else None)
    assert [(s.step_id, s.request) for s in trace.steps] == [
        ("a", {"x": "one", "y": 2}),
        ("b", None),
    ]


async def test_a_failed_attempt_does_not_change_the_arguments_of_the_next() -> None:
    seen = []

    async def takes(items: list[int], more: dict[str, int]) -> int:
        seen.append((list(items), dict(more)))
        items.clear()
        more["b"] = 2
        if len(seen) < 3:
            raise ValueError("again")
        return len(seen)

    one = program(step(args={"items": "$items", "more": {"a": 1}}, max_retries=3, retry=NOW))
    trace = await ExecutionVM(tools={"t": takes}).run(one, {"items": [1, 2]})
    assert trace.ok, trace.error
    assert seen == [([1, 2], {"a": 1})] * 3
    assert trace.steps[0].request == {"items": [1, 2], "more": {"a": 1}}


def test_ids_of_one_process_differ_in_their_first_digits() -> None:
    """By these a table shows a run, and people name it."""
    ids = [run_ids.drawn() for _ in range(10_000)]
    assert {len(run_id) for run_id in ids} == {32}
    assert len({run_id[:12] for run_id in ids}) == len(ids)
    assert len({run_id[:4] for run_id in ids[:100]}) > 90


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_is_forked_draws_other_ids() -> None:
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writes, run_ids.drawn().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs, mine = os.read(reads, 100).decode(), run_ids.drawn()
    assert theirs != mine
    assert theirs[12:] != mine[12:]
