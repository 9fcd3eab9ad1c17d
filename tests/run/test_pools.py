"""Pools that a program makes of its host's models: run, stored, replayed, verified."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nano_vm import (
    Completion,
    ExecutionVM,
    LLMUsage,
    Member,
    ModelError,
    Pool,
    Program,
    ProgramError,
    Trace,
)
from nano_vm.replay import replay
from nano_vm.store.protocol import open_store

PRICES = {"fast": (1, 2), "good": (10, 20)}


class Model:
    """Answers with *text*; counts its calls."""

    def __init__(self, text: str | Exception) -> None:
        self.text = text
        self.calls = 0

    async def complete(self, messages: list[dict[str, Any]], **kwargs: Any) -> Completion:
        self.calls += 1
        if isinstance(self.text, Exception):
            raise self.text
        return Completion(self.text, LLMUsage(10, 2, 12))


def judge(**pool: Any) -> Program:
    return Program.from_dict(
        {
            "models": {"judge": {"pool": ["fast", "good"], **pool}},
            "defaults": {"model": "judge"},
            "steps": [
                {
                    "id": "s",
                    "type": "llm",
                    "prompt": "x",
                    "max_tokens": 10,
                    "allowed_outputs": ["yes", "no"],
                }
            ],
        }
    )


def hosted(fast: Any = "maybe", good: Any = "yes", **options: Any) -> ExecutionVM:
    return ExecutionVM({"fast": Model(fast), "good": Model(good)}, prices=PRICES, **options)


def test_from_the_program_to_the_trace_and_back() -> None:
    program = judge(strategy="cascade")
    trace = hosted().run_sync(program)
    step = trace.steps[0]
    assert (trace.ok, step.output) == (True, "yes")
    route = step.extra["route"]
    assert (route["pool"], route["strategy"]) == ("judge", "cascade")
    assert [a["member"] for a in route["attempts"]] == ["fast", "good"]
    assert str(trace.total_cost_usd()) == "0.000154"
    assert replay(Trace.from_json(trace.to_json()), program)


def test_the_worst_case_and_the_budget() -> None:
    program = judge(strategy="cascade")
    report = hosted().verify(program)
    one = hosted().verify(Program.from_dict({**judge().to_dict(), "models": {"judge": "good"}}))
    assert report.ceiling is not None
    assert one.ceiling is not None
    assert report.ceiling.cost_usd == 2 * one.ceiling.cost_usd  # type: ignore[operator]
    limit = float(report.ceiling.cost_usd)  # type: ignore[arg-type]
    assert hosted(budget={"max_cost_usd": limit}).run_sync(program).ok
    trace = hosted(budget={"max_cost_usd": 0.0001}).run_sync(program)
    assert trace.error_kind == "budget"


def test_a_stored_run_knows_its_pool(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    program = Program.from_dict(
        {
            **judge(strategy="cascade").to_dict(),
            "budget": {"max_cost_usd": 1},
            "steps": [
                *judge().to_dict()["steps"],
                {"id": "gate", "type": "approval", "role": "boss"},
                {"id": "again", "type": "llm", "prompt": "y", "max_tokens": 10},
            ],
        }
    )
    vm = hosted(store=url)
    assert vm.run_sync(program, run_id="r").status.value == "suspended"
    vm.close()
    other = hosted(store=url, roles=lambda person: ["boss"])
    (asked,) = other.waiting("r")
    other.approve("r", "gate", shown=asked["shown"], by="ann")
    trace = asyncio.run(other.resume("r"))
    other.close()
    assert trace.ok, trace.error
    assert [s.extra["route"]["pool"] for s in trace.steps if s.type == "llm"] == ["judge"] * 2
    store = open_store(url)
    stored = store.load("r")
    assert stored.about["pools"][-1]["name"] == "judge"
    assert replay(stored)
    store.close()


def test_pools_share_a_models_standing() -> None:
    down = ModelError("HTTP 503", status=503)
    vm = hosted(fast=down)
    for _ in range(2):
        assert vm.run_sync(judge()).ok
    assert vm.run_sync(judge(strategy="cascade")).ok
    fast = vm.preparer.adapters["fast"].adapter
    assert fast.calls == 2, "its breaker is open in the other pool, too"


def test_the_host_overrides() -> None:
    mine = Model("no")
    vm = ExecutionVM({"fast": Model("yes"), "good": Model("yes"), "judge": mine})
    assert vm.run_sync(judge()).steps[0].output == "no"
    assert mine.calls == 1


def test_aliases_may_be_members() -> None:
    program = Program.from_dict(
        {
            **judge().to_dict(),
            "models": {"small": "fast", "judge": {"pool": ["small", "good"]}},
        }
    )
    trace = hosted(fast="no").run_sync(program)
    assert trace.steps[0].extra["route"]["attempts"][0]["member"] == "fast"


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"judge": {"pool": ["fast", "best"]}}, "has model 'best', which no adapter has"),
        ({"judge": {"pool": ["fast"], "require": ["eu"]}}, "no member has the tags"),
    ],
)
def test_pools_that_the_host_cannot_make(models: Any, message: str) -> None:
    program = Program.from_dict({**judge().to_dict(), "models": models})
    trace = hosted().run_sync(program)
    assert trace.diagnostics[0].code == "V035"
    assert message in trace.diagnostics[0].message
    assert trace.steps == []


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"a": {"pool": []}}, "models.a.pool"),
        ({"a": {"strategy": "ordered"}}, "a pool names its models"),
        ({"a": {"pool": ["x", "x"]}}, "'x' is in the pool twice"),
        ({"a": {"pool": ["a"]}}, "has itself in it"),
        ({"a": {"pool": ["b"]}, "b": {"pool": ["a"]}}, "has the pool 'b' in it"),
        ({"a": {"pool": ["x"], "strategy": "random"}}, "models.a"),
        ({"a": {"pool": ["x"], "strategy": "hedge"}}, "hedge_after_seconds belong together"),
        ({"a": {"pool": ["x"], "members": 3}}, "unknown field 'members'"),
        ({"a": 3}, "models.a"),
    ],
)
def test_what_is_no_pool(models: Any, message: str) -> None:
    with pytest.raises(ProgramError) as caught:
        Program.from_dict({**judge().to_dict(), "models": models})
    assert message in str(caught.value)


def test_an_adapter_with_many_models_serves_a_pool() -> None:
    asked: list[str] = []

    class Many:
        async def complete(self, messages: Any, *, model: str = "", **kwargs: Any) -> str:
            asked.append(model)
            if model == "fast":
                raise ModelError("HTTP 503", status=503)
            return "yes"

    trace = ExecutionVM(Many()).run_sync(judge())
    assert (trace.ok, asked) == (True, ["fast", "good"])
    assert [a["member"] for a in trace.steps[0].extra["route"]["attempts"]] == asked


POLICY = {"models": {"judge": {"tags": ["eu"]}}}


def tagged(*tags: tuple[str, ...], **options: Any) -> ExecutionVM:
    made = {
        name: Member(Model("yes"), name=name, tags=own)
        for name, own in zip(("fast", "good"), tags, strict=True)
    }
    return ExecutionVM(made, policy=POLICY, **options)


def test_a_policy_demands_tags_of_everyone_who_may_answer() -> None:
    report = tagged(("eu",), ("eu", "gold")).verify(judge())
    assert report.ok
    assert [(p.kind, p.status) for p in report.proofs] == [("model", "proved")]
    assert "model 'judge' are tagged eu" in report.proofs[0].statement
    assert tagged(("eu",), ("eu",)).run_sync(judge()).ok
    vm = tagged(("eu",), ())
    trace = vm.run_sync(judge())
    assert [d.code for d in trace.diagnostics] == ["V064"]
    assert not vm.verify(judge()).ok
    assert vm.run_sync(judge(require=["eu"])).ok, "the other is left out"


def test_a_policy_demands_tags_of_a_plain_model() -> None:
    program = Program.from_dict({"steps": [{"id": "s", "type": "llm", "prompt": "x"}]})
    policy = {"models": {"*": {"tags": ["eu"]}}}
    plain = ExecutionVM(Model("yes"), policy=policy).run_sync(program)
    assert [d.code for d in plain.diagnostics] == ["V064"]
    member = Member(Model("yes"), name="m", tags=["eu"])
    assert ExecutionVM(member, policy=policy).run_sync(program).ok
    assert ExecutionVM(Pool([member]), policy=policy).run_sync(program).ok


def test_called_programs_that_mean_another_pool() -> None:
    inner = judge(strategy="cascade").to_dict()
    outer = {
        **judge().to_dict(),
        "steps": [*judge().to_dict()["steps"], {"id": "c", "type": "call", "program": inner}],
    }
    found = hosted().check(Program.from_dict(outer))
    assert [d.code for d in found] == ["V035"]


USED = st.sampled_from([(17, 10), (17, 10), (3, 1)])
CALL = st.one_of(
    st.tuples(st.sampled_from(["answers", "billed"]), USED),
    st.tuples(st.sampled_from(["refused", "lost", "lost", "invalid", "cancelled"]), USED),
)
"""What a call of a provider comes to: mostly all that is reserved for it, a prompt of 17 tokens and
10 of answer.
"""


class Fated:
    """A provider that does as *calls* say, which all share; ``spent`` keeps what it billed."""

    def __init__(
        self, model: str, calls: list[tuple[str, tuple[int, int]]], spent: list[LLMUsage]
    ) -> None:
        self.model, self.calls, self.spent = model, calls, spent

    async def complete(self, messages: list[dict[str, Any]], **kwargs: Any) -> Completion:
        what, (prompt, answer) = self.calls.pop(0) if self.calls else ("answers", (17, 10))
        usage = LLMUsage(prompt, answer, prompt + answer)
        if what == "refused":
            raise ModelError("HTTP 503", status=503)
        if what == "cancelled":
            raise asyncio.CancelledError
        # of a lost call the provider bills all that there can be, and nobody is told
        self.spent.append(LLMUsage(17, 10, 27) if what == "lost" else usage)
        if what == "lost":
            raise OSError("connection reset")
        if what == "billed":
            raise ModelError("cut", usage=usage)
        return Completion("no" if what == "invalid" else "yes", usage, self.model)


class Hurried:
    """A clock on which waits take no time."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    time_ns = staticmethod(time.time_ns)

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.mark.slow
@settings(max_examples=80)
@given(
    calls=st.lists(CALL, max_size=24),
    tokens=st.integers(0, 14).map(lambda calls: 27 * calls),
    cents=st.none() | st.integers(0, 400),
    strategy=st.sampled_from([None, "ordered", "round_robin", "cascade"]),
    forked=st.booleans(),
)
@example(
    calls=[("lost", (17, 10)), ("answers", (3, 1))],
    tokens=135,
    cents=9,
    strategy=None,
    forked=False,
)
@example(  # the budget was charged by the last call's cost, which the sum does not tell
    calls=[("cancelled", (17, 10))], tokens=135, cents=148, strategy="ordered", forked=False
)
@example(
    calls=[("lost", (17, 10)), ("answers", (17, 10)), ("lost", (17, 10))],
    tokens=81,
    cents=None,
    strategy="ordered",
    forked=False,
)
def test_no_budget_is_exceeded_in_truth(
    calls: list[tuple[str, tuple[int, int]]],
    tokens: int,
    cents: int | None,
    strategy: Any,
    forked: bool,
) -> None:
    """Whatever providers answer, bill, lose and cancel, one alone or a pool's: what they bill is
    within the budget, no reservation is left where all that was spent is known, and a replay charges
    the same.
    """
    spent: list[LLMUsage] = []
    given_calls = list(calls)
    members = [Fated(name, given_calls, spent) for name in ("a", "b")]
    pool = members[0] if strategy is None else Pool(members, strategy)
    prices = {"a": (1, 2), "b": (10, 20)}
    steps: list[dict[str, Any]] = [
        {
            "id": f"s{i}",
            "type": "llm",
            "prompt": "x",
            "max_tokens": 10,
            "max_retries": 2,
            "retry": {"delay_seconds": 0},
            "on_error": "skip",
        }
        for i in range(3)
    ]
    if forked:
        steps = [{"id": "f", "type": "parallel", "parallel_steps": steps}]
    budget: dict[str, Any] = {"max_tokens": tokens}
    if cents is not None:
        budget["max_cost_usd"] = cents / 10**5
    program = Program.from_dict({"steps": steps, "budget": budget})
    trace = ExecutionVM(pool, prices=prices, clock=Hurried).run_sync(program)
    assert sum(usage.total_tokens for usage in spent) <= tokens
    assert replay(trace, program), str(replay(trace, program))
    for step in trace.steps:
        for attempt in (step.extra.get("route") or {"attempts": []})["attempts"]:
            assert attempt["outcome"] in ("answered", "transient", "cancelled", "bad_request")
    cost = trace.total_cost_usd()
    if cost is not None and cents is not None:
        assert cost <= Decimal(cents) / 10**5


class Hangs:
    def __init__(self, model: str) -> None:
        self.model = model

    async def complete(self, messages: Any) -> str:
        await asyncio.sleep(60)
        return "late"


class Fails:
    def __init__(self, model: str) -> None:
        self.model = model

    async def complete(self, messages: Any) -> str:
        raise ModelError("down", status=503)


@pytest.mark.parametrize("store", [None, "sqlite://"], ids=["process", "store"])
@pytest.mark.parametrize("strategy", ["ordered", "hedge"])
def test_a_deadline_of_the_step_leaves_the_route_of_its_pool(
    strategy: Any, store: str | None
) -> None:
    """What was tried until then is recorded, of each attempt, and a replay gives it again."""
    more: dict[str, Any] = {"hedge_after": 0.01} if strategy == "hedge" else {}
    pool = Pool([Fails("a"), Hangs("b")], strategy, name="judge", **more)
    step = {"id": "s", "type": "llm", "prompt": "Well?", "timeout_seconds": 0.1, "max_retries": 2}
    program = Program.from_dict({"steps": [step]})
    vm = ExecutionVM(pool, store=store)
    trace = vm.run_sync(program)
    assert trace.error_kind == "timeout"
    (first,) = trace.steps[0].attempts
    for route in (first.route, trace.steps[0].extra["route"]):
        told = [(each["member"], each["outcome"]) for each in route["attempts"]]
        assert told[-1] == ("b", "cancelled")
    assert [each["member"] for each in first.route["attempts"]] == ["a", "b"]
    assert replay(trace, program).identical
    vm.close()
