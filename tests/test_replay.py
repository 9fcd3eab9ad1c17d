"""Replay finds what was changed, diff tells two runs apart, and fork takes only what did not change."""

from __future__ import annotations

import asyncio
import copy
import json
from collections import Counter
from random import Random
from typing import Any

import pytest
from build import llm, program, step
from test_fuzz import drawn_programs, ran
from test_recorded import chaotic

from nano_vm import ExecutionVM, Program, Trace, VMError, tool
from nano_vm.replay import Replayer, replay, same
from nano_vm.testing import ScriptedLLM
from nano_vm.trace import TraceError, _read


@tool(effect="read")
async def get(id: Any = None) -> Any:
    return {"id": id, "amount": 30}


@tool(effect="irreversible")
async def pay(amount: Any = None) -> Any:
    return f"paid {amount}"


REFUND = program(
    step("order", "get", args={"id": "$order_id"}),
    llm("judge", "refund $order.output ? $text", allowed_outputs=["yes", "no"]),
    {"id": "ok", "type": "condition", "condition": "$judge.output == 'yes'", "then": "refund", "otherwise": "$end"},
    step("refund", "pay", args={"amount": "$order.output.amount"}),
)


def run(made: Program, inputs: dict[str, Any] | None = None, answers: list[str] | None = None, **options: Any) -> Trace:
    async def go() -> Trace:
        return await ExecutionVM(ScriptedLLM(answers or ["yes"]), {"get": get, "pay": pay}, **options).run(made, inputs)

    return asyncio.run(go())


INPUTS = {"order_id": 7, "text": "broken"}


# --- replay ----------------------------------------------------------------------------------------------------------


def test_a_trace_that_holds_its_program_needs_no_other() -> None:
    trace = run(REFUND, INPUTS)
    found = replay(trace)
    assert found.identical
    assert found.steps == 4
    assert bool(found)
    assert str(found).endswith("identical; 4 steps")
    assert found.to_dict() == {
        "run_id": trace.run_id, "program_name": "p", "identical": True, "complete": True, "steps": 4, "difference": None
    }  # fmt: skip
    back = Trace.from_json(trace.to_json())
    with pytest.raises(VMError, match="does not hold its program; give the program too"):
        replay(back)
    assert replay(back, REFUND)


def test_another_program_is_told() -> None:
    trace = run(REFUND, INPUTS)
    other = program(*REFUND.to_dict()["steps"][:3], step("refund", "pay", args={"amount": 1}))
    found = replay(trace, other)
    assert found.difference is not None
    assert found.difference.kind == "program"
    assert trace.program_digest in str(found)
    assert other.digest in str(found)


def changed(trace: Trace, change: Any) -> Trace:
    """The trace as one who can compute digest and seal would change it."""
    data = copy.deepcopy(trace.to_dict())
    change(data["records"])
    return _read(data)


def test_a_changed_branch_is_told_side_by_side() -> None:
    trace = run(REFUND, INPUTS, ["no"])

    def forge(records: list[dict[str, Any]]) -> None:
        records[3]["output"], records[3]["extra"]["branch"] = "refund", "then"

    forged = changed(trace, forge)
    with pytest.raises(TraceError, match="does not fit"):
        Trace.from_json(json.dumps({**forged.to_dict(), "digest": trace.digest}))
    assert Trace.from_json(forged.to_json()).digest == forged.digest  # as a forger would write it
    difference = replay(forged, REFUND).difference
    assert difference is not None
    assert (difference.kind, difference.path, difference.field) == ("changed", "ok", "output")
    assert (difference.recorded, difference.computed, difference.index) == ("refund", "$end", 2)
    assert str(difference) == "step 'ok': output: recorded 'refund', computed '$end'"


def test_a_guarded_step_that_was_slipped_in_is_told() -> None:
    refused = run(REFUND, INPUTS, ["no"])
    paid = run(REFUND, INPUTS, ["yes"]).to_dict()["records"][4]
    difference = replay(changed(refused, lambda records: records.insert(4, paid)), REFUND).difference
    assert difference is not None
    assert (difference.kind, difference.path) == ("extra", "refund")
    assert str(difference) == "step 'refund' is recorded, and the run does not come to it"


def test_missing_steps_and_another_order_are_told() -> None:
    trace = run(REFUND, INPUTS)
    difference = replay(changed(trace, lambda records: records.pop(4)), REFUND).difference
    assert difference is not None
    assert (difference.kind, difference.path, difference.index) == ("missing", "refund", 3)
    straight = program(step("a", "get"), step("b", "get"))

    def swap(records: list[dict[str, Any]]) -> None:
        records[1], records[2] = records[2], records[1]

    difference = replay(changed(run(straight), swap), straight).difference
    assert difference is not None
    assert (difference.kind, difference.path, difference.computed) == ("order", "b", "a")


def test_inputs_and_bounds_are_held_against_the_program() -> None:
    trace = run(REFUND, INPUTS)
    found = replay(changed(trace, lambda records: records[0]["inputs"].pop("text")), REFUND)
    assert "input 'text' is needed and not there" in str(found)
    found = replay(changed(trace, lambda records: records[0]["host"]["tools"].pop("pay")), REFUND)
    assert "tool 'pay' is none of those that the run had" in str(found)
    bounded = Program.from_dict({**REFUND.to_dict(), "budget": {"max_tool_calls": 1}})
    trace = run(bounded, INPUTS)
    assert trace.error_kind == "budget"
    assert replay(trace)

    def unbound(
        records: list[dict[str, Any]],
    ) -> None:  # what the trace says of its budget does not widen the program's
        records[0]["host"].pop("budget")

    assert replay(changed(trace, unbound), bounded)


def test_a_run_that_never_began() -> None:
    refused = run(REFUND, {"order_id": 7})
    assert refused.diagnostics
    assert replay(refused)
    assert not replay(changed(refused, lambda records: records[-1].update(error="all went well")), REFUND)
    made = changed(run(REFUND, INPUTS), lambda records: records.__delitem__(slice(1, -1)))
    assert not replay(made, REFUND)


OUTSIDE = ("tool", "llm", "approval", "wait")
FREE = ("output", "error", "usage", "attempts")  # of a step outside: what it gave may have been anything
STATUSES = ("success", "failed", "skipped", "cancelled", "suspended", "in_doubt")


def mutated(records: list[dict[str, Any]], rng: Random) -> tuple[str, str]:
    """Change one thing; what it was."""
    steps = [i for i, line in enumerate(records) if line["record"] == "step"]
    at = rng.choice(steps)
    line = records[at]
    kind = rng.choice(("leave out", "double", "status", "output", "branch", "request", "path", "type", "error", "end"))
    if kind == "leave out":
        records.pop(at)
    elif kind == "double":
        records.insert(at, copy.deepcopy(line))
    elif kind == "status":
        line["status"] = rng.choice([s for s in STATUSES if s != line["status"]])
    elif kind == "output":
        line["output"] = rng.choice(
            [v for v in ("forged", 1, 1.0, True, None, [], {"done": True}) if not same(v, line["output"])]
        )
    elif kind == "branch":
        if "branch" not in line.get("extra", {}):
            return "", ""
        line["extra"]["branch"] = "then" if line["extra"]["branch"] != "then" else "otherwise"
    elif kind == "request":
        if type(line.get("request")) is not dict:
            return "", ""
        line["request"]["forged"] = 1
    elif kind == "path":
        line["path"] += "x"
    elif kind == "type":
        line["type"] = "tool" if line["type"] != "tool" else "set"
    elif kind == "error":
        if "error" in line:
            line["error"][rng.choice(("kind", "type", "message"))] = "forged"
        else:
            line["error"] = {"kind": "tool", "type": "Forged", "message": "forged"}
    else:
        end = records[-1]
        field = rng.choice(("status", "output", "error"))
        end[field] = {"status": "success" if end["status"] != "success" else "failed"}.get(field, "forged")
    return kind, "reconcile" if line["step"].endswith("/reconcile") else line["type"]


def test_whatever_is_changed_is_found() -> None:
    """One field of one record, in runs of all kinds; only what a call gave, and nobody read, may be changed unseen."""
    seen: Counter[str] = Counter()
    unseen: Counter[str] = Counter()
    for seed in range(360):
        if seed % 2:
            made = chaotic(seed)
            if made is None:
                continue
            trace, drawn = made
        else:
            drawn = Program.from_dict(DRAWN[seed % len(DRAWN)])
            trace = ran(drawn, seed, 0)
        if not trace.steps:
            continue
        replayer = Replayer(drawn)
        data = trace.to_dict()
        for number in range(3):
            rng = Random(f"{seed} {number}")
            records = copy.deepcopy(data["records"])
            kind, step_type = mutated(records, rng)
            if not kind:
                continue
            found = replayer.replay(_read({**data, "records": records}))
            seen[kind] += 1
            if found.identical:
                stopped = any(line.get("status") == "cancelled" for line in data["records"])
                free = kind in ("output", "error") and step_type in (*OUTSIDE, "reconcile")
                # a child of a cancelled fork may not have begun, and a call may have told by itself what its reconcile told
                unsaid = kind == "leave out" and (stopped or step_type == "reconcile")
                assert free or unsaid, (seed, number, kind, step_type)
                unseen[kind] += 1
            else:
                assert str(found)
                assert json.dumps(found.to_dict())
    assert min(seen.values()) > 9
    assert len(seen) == 10
    assert unseen["output"] < seen["output"] / 2


DRAWN = drawn_programs(60)
