"""May a run in flight go on with a changed program? Runs are real, in a store on disk; nothing is
called to answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from build import program, step

from nano_vm import ExecutionVM, Program
from nano_vm.replay.migrate import migrations
from nano_vm.testing import ScriptedLLM

CALLS: list[str] = []


async def look(x: Any = None) -> Any:
    CALLS.append("look")
    return {"n": 3}


async def pay(n: int) -> str:
    CALLS.append("pay")
    return "paid"


LOOK = step("look", "look", args={"x": "$x"})
CHECK = {
    "id": "check",
    "type": "condition",
    "condition": "$look.output.n > 2",
    "then": [step("pay", "pay", args={"n": "$look.output.n"})],
}
ASK = {"id": "ask", "type": "approval", "role": "boss", "show": {"n": "$look.output.n"}}
LAST = {"id": "last", "type": "set", "values": {"y": 1}}


def vm_of(path: Path) -> ExecutionVM:
    return ExecutionVM(
        tools={"look": look, "peek": look, "pay": pay}, store=f"sqlite:///{path / 'runs.db'}"
    )


async def reason(path: Path, new: Program) -> str | None:
    """Why a run that waits after look, check and pay may not move to *new*."""
    vm = vm_of(path)
    try:
        trace = await vm.run(program(LOOK, CHECK, ASK, LAST), {"x": 1}, run_id="r")
        assert trace.status.value == "suspended"
        before = list(CALLS)
        (found,) = migrations(vm, new)
        assert before == CALLS
        assert found.run_id == "r"
        return found.reason
    finally:
        vm.close()


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([LOOK, CHECK, ASK, LAST], None),
        ([LOOK, CHECK, ASK, {**LAST, "values": {"y": 2}}], None),
        ([LOOK, CHECK, ASK, step("more", "pay", args={"n": "$look.output.n"}), LAST], None),
        ([LOOK, {**CHECK, "condition": "$look.output.n > 1"}, ASK], None),
        (
            [LOOK, {**CHECK, "condition": "$look.output.n > 5"}, ASK],
            "step 'check': its output was 'then', and with the new program it is 'otherwise'",
        ),
        ([LOOK, CHECK, LAST], "call 'ask' was begun and has no outcome yet"),
        ([{**LOOK, "args": {"x": "other"}}, CHECK, ASK], "step 'look': its request was {'x': 1}"),
        (
            [step("first", "look"), LOOK, CHECK, ASK],
            "step 'look' ran, and the new program does not run it there",
        ),
        ([LOOK, CHECK, {**ASK, "id": "other"}], "call 'ask' was begun"),
        (
            [{**LOOK, "tool": "peek"}, CHECK, ASK],
            "step 'look': it called tool 'look', and with the new program it calls 'peek'",
        ),
    ],
)
async def test_a_run_moves_only_along_what_it_did(
    tmp_path: Path, steps: list[Any], why: str | None
) -> None:
    found = await reason(tmp_path, program(*steps))
    assert (found is None) if why is None else (found is not None and why in found), found


async def test_inputs_that_the_new_program_needs(tmp_path: Path) -> None:
    more = await reason(tmp_path, program(LOOK, CHECK, ASK, {**LAST, "values": {"y": "$other"}}))
    assert more == "the new program needs input 'other', which the run was not given"


# --- the terms of the run -------------------------------------------------------------------------

FEW = {"n": 5, "limit": 10, "x": 1}
CHECKED = {
    "inputs": {"n": "untrusted", "limit": "trusted", "x": "trusted"},
    "tools": {"pay": {"args": {"n": "trusted or $value <= $limit"}}},
}
PAY = step("pay", "pay", args={"n": "$n"})
WAIT = {"id": "ask", "type": "approval", "role": "boss", "show": {}}


async def moved(
    path: Path,
    begun: dict[str, Any],
    now: dict[str, Any] | None,
    *steps: Any,
    inputs: Any = None,
    **run: Any,
) -> str | None:
    """Why a run that waits, begun on a host with these options, may not move to a new version of
    its program.
    """
    llm = ScriptedLLM({"": "yes"})

    def host(options: dict[str, Any]) -> ExecutionVM:
        return ExecutionVM(
            llm, {"look": look, "pay": pay}, store=f"sqlite:///{path / 'runs.db'}", **options
        )

    first, second = host(begun), host(begun if now is None else now)
    try:
        trace = await first.run(program(*steps), inputs or FEW, run_id="r", **run)
        assert trace.status.value == "suspended", trace.error
        (found,) = migrations(second, program(*steps, version="2"))
        return found.reason
    finally:
        first.close()
        second.close()


async def test_values_that_the_policys_checks_read(tmp_path: Path) -> None:
    assert await moved(tmp_path, {"policy": CHECKED}, None, PAY, WAIT) is None


async def test_what_a_check_refused_is_refused_again(tmp_path: Path) -> None:
    refused = {**PAY, "catch": [{"errors": ["refused"], "next": "ask"}]}
    assert (
        await moved(tmp_path, {"policy": CHECKED}, None, refused, WAIT, inputs={**FEW, "n": 50})
        is None
    )


async def test_inputs_that_the_run_itself_called_untrusted(tmp_path: Path) -> None:
    policy = {"tools": {"pay": {"args": {"n": "trusted or $value <= 10"}}}}
    refused = {**PAY, "catch": [{"errors": ["refused"], "next": "ask"}]}
    inputs = {**FEW, "n": 50}
    assert (
        await moved(
            tmp_path, {"policy": policy}, None, refused, WAIT, inputs=inputs, untrusted=["n"]
        )
        is None
    )


@pytest.mark.parametrize("whose", ["host", "policy", "run"])
async def test_a_budget_of_the_host_of_its_policy_and_of_the_run(
    whose: str, tmp_path: Path
) -> None:
    budget = {"max_tool_calls": 1}
    host = {
        "host": {"budget": budget},
        "policy": {"policy": {"budget": {"max_tool_calls": 2}}},
        "run": {},
    }[whose]
    run = {"budget": budget} if whose != "host" else {}
    over = {**PAY, "catch": [{"errors": ["budget"], "next": "ask"}]}
    assert (
        await moved(tmp_path, host, None, step("look", "look", args={"x": "$x"}), over, WAIT, **run)
        is None
    )


async def test_the_default_model_and_its_price(tmp_path: Path) -> None:
    host = {"prices": {"scripted": ("1000000", "1000000")}, "budget": {"max_cost_usd": 300.0}}
    asked = {"id": "m", "type": "llm", "prompt": "x", "max_tokens": 100}
    over = {
        **asked,
        "id": "n",
        "max_tokens": 1000,
        "catch": [{"errors": ["budget"], "next": "ask"}],
    }
    vm = ExecutionVM(ScriptedLLM({"": "yes"}), store=f"sqlite:///{tmp_path / 'runs.db'}", **host)
    try:
        trace = await vm.run(program(asked, over, WAIT), {}, run_id="r")
        assert [step.status.value for step in trace.steps][:2] == ["success", "failed"]
        (found,) = migrations(vm, program(asked, over, WAIT, version="2"))
        assert found.reason is None
    finally:
        vm.close()


async def test_a_loop_with_a_deadline(tmp_path: Path) -> None:
    loop = {
        "id": "l",
        "type": "loop",
        "max_iterations": 1,
        "on_exhausted": "continue",
        "timeout_seconds": 60,
    }
    again = {**loop, "steps": [step("look", "look", args={"x": "$x"})]}
    assert await moved(tmp_path, {}, None, again, WAIT) is None


async def test_a_host_that_could_not_go_on_with_the_run(tmp_path: Path) -> None:
    found = await moved(tmp_path, {"policy": CHECKED}, {}, PAY, WAIT)
    assert (
        found
        == "this host cannot go on with it: run 'r' was begun under a policy, and this VM has "
        "none; give it one"
    )


async def test_a_policy_that_reads_what_the_run_was_not_given(tmp_path: Path) -> None:
    now = {"policy": {**CHECKED, "inputs": {**CHECKED["inputs"], "n": "untrusted"}}}
    found = await moved(tmp_path, {}, now, PAY, WAIT, inputs={"n": 5})
    assert found is not None
    assert "the policy's checks read input 'limit', which the run was not given" in found
