"""May a run in flight go on with a changed program? Runs are real, in a store on disk; nothing is called to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from build import program, step

from nano_vm import ExecutionVM, Program
from nano_vm.migrate import migrations

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
    return ExecutionVM(tools={"look": look, "peek": look, "pay": pay}, store=f"sqlite:///{path / 'runs.db'}")


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
        ([step("first", "look"), LOOK, CHECK, ASK], "step 'look' ran, and the new program does not run it there"),
        ([LOOK, CHECK, {**ASK, "id": "other"}], "call 'ask' was begun"),
        (
            [{**LOOK, "tool": "peek"}, CHECK, ASK],
            "step 'look': it called tool 'look', and with the new program it calls 'peek'",
        ),
    ],
)
async def test_a_run_moves_only_along_what_it_did(tmp_path: Path, steps: list[Any], why: str | None) -> None:
    found = await reason(tmp_path, program(*steps))
    assert (found is None) if why is None else (found is not None and why in found), found


async def test_inputs_that_the_new_program_needs(tmp_path: Path) -> None:
    more = await reason(tmp_path, program(LOOK, CHECK, ASK, {**LAST, "values": {"y": "$other"}}))
    assert more == "the new program needs input 'other', which the run was not given"
