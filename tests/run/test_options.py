"""What a run takes beside its program and inputs, by every way that begins one."""

from __future__ import annotations

from typing import Any

import pytest
from build import program, step

from nano_vm import Budget, ExecutionVM, Program, Trace
from nano_vm.run.options import RunOptions
from nano_vm.testing import ScriptedLLM

ONE = program(step())
BEGINNINGS = ("run", "run_sync", "start", "stream", "submit", "run_many")


def host(store: str | None = None) -> ExecutionVM:
    return ExecutionVM(ScriptedLLM(["yes"]), {"t": lambda: 1}, store=store)


async def begun(vm: ExecutionVM, how: str, program: Program = ONE, **options: Any) -> Trace | None:
    """The trace of a run that is begun in one of the ways."""
    if how == "run":
        return await vm.run(program, **options)
    if how == "run_sync":
        return vm.run_sync(program, **options)
    if how == "start":
        return await vm.start(program, **options)
    if how == "stream":
        return [event async for event in vm.stream(program, **options)][-1].trace
    if how == "submit":
        run_id = await vm.submit(program, **options)
        (trace,) = await vm.work(until_idle=True)
        assert trace.run_id == run_id
        return trace
    (result,) = [result async for result in vm.run_many(program, [{}], **options)]
    return result.trace


@pytest.mark.parametrize("how", [how for how in BEGINNINGS if how != "run_sync"])
async def test_an_unknown_option_is_refused_with_what_may_be_meant(how: str) -> None:
    with pytest.raises(TypeError, match=r"a run has no option 'buget'; did you mean 'budget'\?"):
        await begun(host("sqlite:///:memory:"), how, buget={"max_steps": 1})


def test_without_an_event_loop_likewise() -> None:
    with pytest.raises(TypeError, match=r"a run has no option 'anything'$"):
        host().run_sync(ONE, anything=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("how", ["run", "start", "stream", "run_many"])
async def test_a_ready_made_budget_counts_and_is_not_validated_again(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm, budget = host("sqlite:///:memory:"), Budget(max_tool_calls=1)
    two = program(step("a"), step("b"))
    assert vm.check(two) == []

    def validated(*_: Any, **__: Any) -> Any:
        raise AssertionError("validated again")

    monkeypatch.setattr(Budget, "model_validate", validated)
    monkeypatch.setattr(Budget, "__init__", validated)
    trace = await begun(vm, how, two, budget=budget)
    assert trace is not None
    assert trace.error_kind == "budget"
    assert trace.about["budget"] == {"max_tool_calls": 1}


async def test_each_run_has_the_budget_that_it_was_given() -> None:
    vm, two = host(), program(step("a"), step("b"))
    small, large = Budget(max_tool_calls=1), Budget(max_tool_calls=2)
    for budget, kind in [(small, "budget"), (large, None), (small, "budget"), (None, None)] * 2:
        assert (await vm.run(two, budget=budget)).error_kind == kind
    limits = {"max_tool_calls": 1}
    assert (await vm.run(two, budget=limits)).error_kind == "budget"
    limits["max_tool_calls"] = 2  # a dict may change between runs
    assert (await vm.run(two, budget=limits)).error_kind is None


async def test_options_can_be_passed_on() -> None:
    options: RunOptions = {"run_id": "r", "seed": 7, "untrusted": ["x"]}
    vm, one = ExecutionVM(tools={"t": lambda x: x}), program(step(args={"x": "$x"}))
    first, second = await vm.run(one, {"x": 1}, **options), await vm.run(one, {"x": 1}, **options)
    assert first.ok
    assert first is second
    assert first.about["untrusted_here"] == ["x"]
