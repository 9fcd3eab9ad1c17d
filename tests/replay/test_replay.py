"""Replay finds what was changed, diff tells two runs apart, and fork takes only what did not
change.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from build import NOW, llm, mapped, parallel, program, step
from test_fuzz import drawn_programs, ran
from test_recorded import chaotic

from nano_vm import ExecutionVM, Program, Trace, TraceStatus, VMError, tool
from nano_vm.cli import main
from nano_vm.errors import TraceError, UnknownRun
from nano_vm.records.trace import recording_of
from nano_vm.replay import Replayer, diff, fork, replay, same, subject_of, verify
from nano_vm.store.protocol import open_store
from nano_vm.testing import ScriptedLLM


@tool(effect="read")
async def get(id: Any = None) -> Any:
    return {"id": id, "amount": 30}


@tool(effect="irreversible")
async def pay(amount: Any = None) -> Any:
    return f"paid {amount}"


REFUND = program(
    step("order", "get", args={"id": "$order_id"}),
    llm("judge", "refund $order.output ? $text", allowed_outputs=["yes", "no"]),
    {
        "id": "ok",
        "type": "condition",
        "condition": "$judge.output == 'yes'",
        "then": "refund",
        "otherwise": "$end",
    },
    step("refund", "pay", args={"amount": "$order.output.amount"}),
)


def run(
    made: Program,
    inputs: dict[str, Any] | None = None,
    answers: list[str] | None = None,
    **options: Any,
) -> Trace:
    async def go() -> Trace:
        return await ExecutionVM(
            ScriptedLLM(answers or ["yes"]), {"get": get, "pay": pay}, **options
        ).run(made, inputs)

    return asyncio.run(go())


INPUTS = {"order_id": 7, "text": "broken"}


# --- replay ---------------------------------------------------------------------------------------


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
    return Trace(recording_of(data))


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
    difference = replay(
        changed(refused, lambda records: records.insert(4, paid)), REFUND
    ).difference
    assert difference is not None
    assert (difference.kind, difference.path) == ("extra", "refund")
    assert str(difference) == "step 'refund' is recorded, and the run does not reach it"


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
    assert not replay(
        changed(refused, lambda records: records[-1].update(error="all went well")), REFUND
    )
    made = changed(run(REFUND, INPUTS), lambda records: records.__delitem__(slice(1, -1)))
    assert not replay(made, REFUND)


OUTSIDE = ("tool", "llm", "approval", "wait")
# of a step outside: what it gave may have been anything
FREE = ("output", "error", "usage", "attempts")
STATUSES = ("success", "failed", "skipped", "cancelled", "suspended", "in_doubt")


def mutated(records: list[dict[str, Any]], rng: Random) -> tuple[str, str]:
    """Change one thing; what it was."""
    steps = [i for i, line in enumerate(records) if line["record"] == "step"]
    at = rng.choice(steps)
    line = records[at]
    kind = rng.choice(
        (
            "leave out",
            "double",
            "status",
            "output",
            "branch",
            "request",
            "path",
            "type",
            "error",
            "end",
        )
    )
    if kind == "leave out":
        records.pop(at)
    elif kind == "double":
        records.insert(at, copy.deepcopy(line))
    elif kind == "status":
        line["status"] = rng.choice([s for s in STATUSES if s != line["status"]])
    elif kind == "output":
        line["output"] = rng.choice(
            [
                v
                for v in ("forged", 1, 1.0, True, None, [], {"done": True})
                if not same(v, line["output"])
            ]
        )
    elif kind == "branch":
        branched = [i for i in steps if "branch" in records[i].get("extra", {})]
        if not branched:
            return "", ""
        line = records[rng.choice(branched)]
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
        end[field] = {"status": "success" if end["status"] != "success" else "failed"}.get(
            field, "forged"
        )
    return kind, "reconcile" if line["step"].endswith("/reconcile") else line["type"]


@pytest.mark.slow
def test_whatever_is_changed_is_found() -> None:
    """One field of one record, in runs of all kinds; only what a call gave, and nobody read, may be
    changed unseen.
    """
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
            found = replayer.replay(Trace(recording_of({**data, "records": records})))
            seen[kind] += 1
            if found.identical:
                stopped = any(line.get("status") == "cancelled" for line in data["records"])
                free = kind in ("output", "error") and step_type in (*OUTSIDE, "reconcile")
                # a child of a cancelled fork may not have begun, and a call may have told by itself what its
                # reconcile told
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


# --- diff -----------------------------------------------------------------------------------------


def test_two_runs_that_did_the_same() -> None:
    found = diff(run(REFUND, INPUTS), run(REFUND, INPUTS))
    assert found.same
    assert found.divergence is None
    assert str(found).splitlines()[0] == "the runs do the same"
    assert found.to_dict()["same"] is True


def test_the_first_step_that_differs_and_what_differs_in_it() -> None:
    found = diff(run(REFUND, INPUTS), run(REFUND, INPUTS, ["no"]))
    assert not found.same
    assert found.divergence == "judge"
    assert found.paths == (("order", "judge", "ok", "refund"), ("order", "judge", "ok"))
    by_path = {step.path: step for step in found.steps}
    assert by_path["judge"].fields["output"] == ("yes", "no")
    assert by_path["ok"].fields["branch"] == ("then", "otherwise")
    assert by_path["refund"].side == "a"
    assert not by_path["order"].differs
    text = str(found)
    assert "the runs differ first at 'judge'" in text
    assert "- refund" in text
    assert "output: 'yes' -> 'no'" in text
    assert json.loads(json.dumps(found.to_dict()))["divergence"] == "judge"


def test_steps_that_only_the_second_has_stand_where_they_are() -> None:
    one = program(step("a", "get"), step("c", "get"))
    two = program(
        step("a", "get"), step("b", "get"), step("c", "get", args={"id": 1}), step("d", "get")
    )
    found = diff(run(one), run(two))
    assert [(s.path, s.side) for s in found.steps] == [("a", ""), ("b", "b"), ("c", ""), ("d", "b")]
    assert found.divergence == "b"


def test_programs_by_step_and_field() -> None:
    inner = {"name": "inner", "steps": [step("x", "get")]}
    one = program(
        {
            "id": "c",
            "type": "condition",
            "condition": "$n > 1",
            "then": [step("a", "get")],
            "otherwise": [step("b", "get")],
        },
        {"id": "k", "type": "call", "program": inner},
        budget={"max_steps": 9},
    )
    two = program(
        {
            "id": "c",
            "type": "condition",
            "condition": "$n > 2",
            "then": [step("a", "pay")],
            "otherwise": [step("e", "get")],
        },
        {"id": "k", "type": "call", "program": {**inner, "steps": [step("x", "pay")]}},
    )
    found = diff(one, two)
    assert found.kind == "program"
    assert found.whole["budget"] == ({"max_steps": 9}, None)
    assert found.whole["digest"] == (one.digest, two.digest)
    by_path = {step.path: step for step in found.steps}
    assert by_path["c"].fields == {"condition": ("$n > 1", "$n > 2"), "otherwise": (["b"], ["e"])}
    assert by_path["a"].fields == {"tool": ("get", "pay")}
    assert by_path["k/x"].fields == {"tool": ("get", "pay")}
    assert (by_path["b"].side, by_path["e"].side) == ("a", "b")
    assert diff(one, one).same
    assert str(diff(one, one)) == "the programs are the same"
    with pytest.raises(VMError, match="two traces or two programs, not"):
        diff(one, run(REFUND, INPUTS))  # type: ignore[arg-type]


def test_values_are_the_same_by_type_and_order() -> None:
    assert same([1, {"a": [0.0, "x", None]}], [1, {"a": [0.0, "x", None]}])
    for a, b in (
        (1, 1.0), (1, True), ([1], [1.0]), ({"a": 0}, {"a": False}), (0.0, -0.0), ([0.0], [-0.0]), ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ):  # fmt: skip
        assert not same(a, b)


# --- fork -----------------------------------------------------------------------------------------


class Host:
    """Tools and a model that count their calls."""

    def __init__(self, answers: list[str] | None = None) -> None:
        self.calls: list[str] = []
        host = self

        @tool(effect="read")
        async def get(id: Any = None) -> Any:
            host.calls.append(f"get {id}")
            return {"id": id, "amount": 30}

        @tool(effect="read")
        async def see(id: Any = None) -> Any:
            host.calls.append(f"see {id}")
            return f"seen {id}"

        @tool(effect="irreversible")
        async def pay(amount: Any = None) -> Any:
            host.calls.append(f"pay {amount}")
            return f"paid {amount}"

        @tool(effect="write")
        async def mail(text: Any = None) -> Any:
            host.calls.append(f"mail {text}")
            return "sent"

        class Model:
            model = "counted"

            async def complete(self, messages: list[dict[str, str]]) -> str:
                host.calls.append(f"ask {messages[-1]['content']}")
                return host.answers.pop(0)

        self.answers = list(answers or [])
        self.vm = ExecutionVM(Model(), {"get": get, "see": see, "pay": pay, "mail": mail})

    def run(self, made: Program, inputs: dict[str, Any] | None = None) -> Trace:
        trace = asyncio.run(self.vm.run(made, inputs))
        self.calls.clear()
        return trace

    def fork(self, trace: Trace, **options: Any) -> Trace:
        made = asyncio.run(fork(self.vm, trace, **options))
        assert replay(made), replay(made)  # a fork is a run like any other
        return made


def test_without_a_change_nothing_is_called() -> None:
    host = Host(["yes"])
    trace = host.run(REFUND, INPUTS)
    forked = host.fork(trace)
    assert host.calls == []
    assert forked.digest == trace.digest
    assert forked.run_id != trace.run_id
    assert forked.about["parent"] == {"run_id": trace.run_id, "digest": trace.digest}


def test_a_changed_prompt_is_asked_and_what_comes_before_is_not() -> None:
    host = Host(["yes", "no"])
    trace = host.run(REFUND, INPUTS)
    forked = host.fork(trace, edit={"judge": {"prompt": "really? $text"}})
    assert host.calls == ["ask really? broken"]
    assert [s.step_id for s in forked.steps] == ["order", "judge", "ok"]
    assert diff(trace, forked).divergence == "judge"


def test_an_effect_with_the_same_request_is_taken_from_its_record() -> None:
    host = Host(["yes", "yes"])
    trace = host.run(REFUND, INPUTS)
    forked = host.fork(trace, edit={"judge": {"prompt": "really?"}})
    assert host.calls == ["ask really?"]
    assert forked.final_output == "paid 30"


def test_a_changed_effect_stops_the_fork_unless_it_may_be_made() -> None:
    host = Host(["yes", "yes"])
    trace = host.run(REFUND, INPUTS)
    edit = {"order": {"output": {"id": 7, "amount": 31}}}
    stopped = host.fork(trace, edit=edit)
    assert host.calls == ['ask refund {"id":7,"amount":31} ? broken']
    assert stopped.status is TraceStatus.SUSPENDED
    assert stopped.waiting == [
        {
            "path": "refund",
            "step_id": "refund",
            "kind": "effect",
            "tool": "pay",
            "request": {"amount": 31},
        }
    ]
    host.answers, host.calls = ["yes"], []
    made = host.fork(trace, edit=edit, effects=True)
    assert made.final_output == "paid 31"
    assert "pay 31" in host.calls
    host.answers, host.calls = ["yes"], []
    assert (
        host.fork(
            trace, edit=edit, tools={"pay": lambda amount: f"would pay {amount}"}
        ).final_output
        == "would pay 31"
    )
    assert host.calls == ['ask refund {"id":7,"amount":31} ? broken']


def test_an_answer_can_be_put_in_place_of_the_recorded_one() -> None:
    host = Host(["yes"])
    trace = host.run(REFUND, INPUTS)
    forked = host.fork(trace, edit={"judge": {"output": "no"}})
    assert host.calls == []
    assert [s.step_id for s in forked.steps] == ["order", "judge", "ok"]


def test_changed_inputs_begin_where_they_are_read() -> None:
    host = Host(["yes", "no"])
    trace = host.run(REFUND, INPUTS)
    host.fork(trace, edit={"inputs": {"text": "other"}})
    assert host.calls == ['ask refund {"id":7,"amount":30} ? other']


def test_at_begins_live_calls_there() -> None:
    host = Host(["yes", "yes"])
    trace = host.run(REFUND, INPUTS)
    forked = host.fork(trace, at="judge")
    assert host.calls == ['ask refund {"id":7,"amount":30} ? broken']
    assert forked.final_output == "paid 30"  # from its record: an effect is not repeated
    with pytest.raises(VMError, match="has no step 'jude': it never ran; did you mean 'judge'"):
        host.fork(trace, at="jude")


def test_a_live_effect_in_doubt_is_asked_of_its_reconcile_in_a_fork_too() -> None:
    lost: list[str] = []

    @tool(effect="irreversible")
    async def send(text: str) -> str:
        if text in lost:
            raise ConnectionError("lost")
        return text

    @tool(effect="read")
    async def find(text: str) -> dict[str, Any]:
        return {"done": True, "output": f"found {text}"}

    asking = {"tool": "find", "args": {"text": "$t"}}
    made = program(step("m", "send", args={"text": "$t"}, reconcile=asking))
    vm = ExecutionVM(tools={"send": send, "find": find})
    trace = vm.run_sync(made, {"t": "a"})
    lost.append("b")
    forked = asyncio.run(fork(vm, trace, edit={"inputs": {"t": "b"}}, effects=True))
    assert forked.final_output == "found b"


def test_after_a_live_effect_nothing_that_was_read_is_taken() -> None:
    made = program(
        step("m", "mail", args={"text": "$t"}), step("g", "get", args={"id": 1}), llm("l", "x")
    )
    host = Host(["answer"])
    trace = host.run(made, {"t": "a"})
    host.fork(trace, edit={"inputs": {"t": "b"}}, effects=True)
    assert host.calls == ["mail b", "get 1"]
    host.calls.clear()
    host.fork(trace, edit={"m": {"output": "lost"}})
    assert host.calls == []


def test_the_same_request_to_another_tool_is_another_call() -> None:
    host = Host()
    trace = host.run(program(step("a", "get", args={"id": 1})))
    other = program(step("a", "mail", args={"id": 1}))
    assert host.fork(
        trace, edit={"program": program(step("a", "get", args={"id": 1}), step("b", "get"))}
    ).ok
    assert host.calls == ["get None"]
    assert host.fork(trace, edit={"program": other}).diagnostics
    host.calls.clear()
    assert host.fork(trace, edit={"a": {"tool": "see"}}).final_output == "seen 1"
    assert host.calls == ["see 1"]


def test_attempts_are_taken_together_and_undo_is_held() -> None:
    calls: list[str] = []

    @tool(effect="read")
    async def shaky(n: Any = None) -> Any:
        calls.append("shaky")
        if len(calls) < 3:
            raise ValueError("not yet")
        return n

    @tool(effect="write")
    async def put(n: Any = None) -> Any:
        return n

    @tool(effect="write")
    async def remove(n: Any = None) -> Any:
        return n

    made = program(
        step("p", "put", args={"n": 1}, undo={"tool": "remove", "args": {"n": 1}}),
        step("s", "shaky", args={"n": "$n"}, max_retries=3, retry=NOW),
        {
            "id": "c",
            "type": "condition",
            "condition": "$ok == true",
            "then": "$end",
            "otherwise": "$fail",
        },
    )
    vm = ExecutionVM(tools={"shaky": shaky, "put": put, "remove": remove})
    trace = asyncio.run(vm.run(made, {"n": 1, "ok": True}))
    assert trace.ok
    calls.clear()
    again = asyncio.run(fork(vm, trace))
    assert (calls, again.digest) == ([], trace.digest)
    stopped = asyncio.run(fork(vm, trace, edit={"inputs": {"ok": False}}))
    assert calls == []
    assert (stopped.status, stopped.error_kind) == (TraceStatus.SUSPENDED, "value")
    assert [
        (entry["path"], entry["kind"], entry["tool"], entry["request"]) for entry in stopped.waiting
    ] == [("p/undo", "effect", "remove", {"n": 1})]
    assert replay(stopped)
    made_all = asyncio.run(fork(vm, trace, edit={"inputs": {"ok": False}}, effects=True))
    assert made_all.status is TraceStatus.FAILED


def test_children_of_a_fork_are_taken_one_by_one() -> None:
    made = program(
        mapped(step("g", "get", args={"id": "$it"}), over="$ids", **{"as": "it"}),
        parallel(step("x", "get"), step("y", "get")),
    )
    host = Host()
    trace = host.run(made, {"ids": [1, 2, 3]})
    forked = host.fork(trace, edit={"inputs": {"ids": [1, 5, 3, 4]}})
    assert host.calls == ["get 5", "get 4"]
    assert [item["id"] for item in forked.steps[4].output] == [1, 5, 3, 4]
    forked = host.fork(trace, edit={"m[1]/g": {"output": "edited"}})
    assert forked.steps[3].output == [{"id": 1, "amount": 30}, "edited", {"id": 3, "amount": 30}]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            {"judg": {"output": "no"}},
            "no step 'judg' in the run or its program; did you mean 'judge'",
        ),
        ({"judg": {"prompt": "no"}}, "no step 'judg' in the program"),
        ({"ok": {"output": "no"}}, "the output of step 'ok' is computed"),
        ({"judge": "no"}, "'judge' is an object with what changes, not str"),
        ({"program": {}}, "'program' is a Program, not dict"),
    ],
)
def test_an_edit_of_what_is_not_there(edit: dict[str, Any], message: str) -> None:
    host = Host(["yes"])
    trace = host.run(REFUND, INPUTS)
    with pytest.raises(VMError, match=message):
        host.fork(trace, edit=edit)
    assert host.calls == []


def test_a_trace_that_does_not_replay_is_not_forked() -> None:
    host = Host(["no"])
    trace = host.run(REFUND, INPUTS)
    forged = changed(trace, lambda records: records[2].update(output="yes"))
    with pytest.raises(VMError, match=r"cannot be forked: .* differs after"):
        host.fork(forged, program=REFUND)


# --- stored runs ----------------------------------------------------------------------------------


def stored_run(store: str) -> str:
    """A run that waited for a person and went on."""
    made = program(
        mapped(step("g", "get", args={"id": "$it"}), over="$ids", **{"as": "it"}),
        {
            "id": "a",
            "type": "approval",
            "role": "boss",
            "show": {"n": "$m.output"},
            "then": "p",
            "otherwise": "$end",
        },
        step("p", "pay", args={"amount": 3}),
    )

    async def go() -> str:
        vm = ExecutionVM(tools={"get": get, "pay": pay}, store=store)
        trace = await vm.run(made, {"ids": [1, 2]})
        assert trace.status is TraceStatus.SUSPENDED
        found = replay(trace.run_id, store=vm.store)
        assert found
        assert not found.complete
        assert found.steps == 3
        assert str(found).endswith("identical, as far as it went; 3 steps")
        vm.approve(
            trace.run_id, "a", shown=vm.waiting(trace.run_id)[0]["shown"], by="ann", reason="fine"
        )
        ended = await vm.resume(trace.run_id)
        assert ended.ok
        forked = await fork(vm, trace.run_id, edit={"a": {"output": False}})
        assert [s.path for s in forked.steps][-1] == "a"
        return trace.run_id

    return asyncio.run(go())


def test_a_stored_run_brings_its_program_and_is_verified(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    run_id = stored_run(url)
    store = open_store(url)
    assert replay(run_id, store=store)
    stored = store.load(run_id)
    found = verify(subject_of(stored))
    assert found
    assert [check.ok for check in found.checks] == [True, True, True]
    for row in stored.rows:
        if row.path == "p" and row.status is not None:
            row.output = "paid 4000"
    found = verify(subject_of(stored))
    assert not found
    assert {check.name for check in found.checks if check.ok is False} == {
        "seal",
        "steps",
    }  # the run's output was another
    assert "WRONG" in str(found)
    with pytest.raises(VMError, match="looked up in a store"):
        replay(run_id)
    with pytest.raises(UnknownRun):
        replay("nobody", store=store)
    store.close()


# --- the command line -----------------------------------------------------------------------------


def command(*arguments: str) -> int:
    return main(list(arguments))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NANO_VM_STORE", raising=False)
    Path("refund.json").write_text(json.dumps(REFUND.to_dict()))
    Path("other.json").write_text(json.dumps(program(step("order", "get")).to_dict()))
    for name, answer in (("yes", "yes"), ("no", "no")):
        Path(f"{name}.trace").write_text(run(REFUND, INPUTS, [answer]).to_json())
    Path("tools.py").write_text(
        "from nano_vm import tool\n@tool(effect='read')\ndef get(id=None): return {'id': id, "
        "'amount': 30}\n"
        "@tool(effect='irreversible')\ndef pay(amount=None): return f'paid {amount}'\n"
    )
    return tmp_path


def test_the_commands(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("replay", "yes.trace", "--program", "refund.json") == 0
    assert "identical; 4 steps" in capsys.readouterr().out
    assert command("verify", "yes.trace", "--program", "refund.json", "--json") == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True
    assert command("diff", "yes.trace", "no.trace") == 1
    assert "the runs differ first at 'judge'" in capsys.readouterr().out
    assert command("diff", "refund.json", "other.json", "--json") == 1
    assert json.loads(capsys.readouterr().out)["kind"] == "program"
    assert command("diff", "yes.trace", "yes.trace") == 0
    host = (
        "--program",
        "refund.json",
        "--tools",
        "tools.py",
        "--model",
        "openai/none",
        "--base-url",
        "http://127.0.0.1:9",
    )
    assert command("fork", "no.trace", *host, "--output", "judge=yes") == 3
    assert 'stopped before refund: pay {"amount":30} has an effect' in capsys.readouterr().out
    assert command("fork", "no.trace", *host, "--output", "judge=yes", "--effects", "--json") == 0
    assert json.loads(capsys.readouterr().out)["records"][-1]["output"] == "paid 30"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("replay", "yes.trace"), 2, "a trace does not hold its program; give it: --program FILE"),
        (
            ("replay", "gone.trace"),
            2,
            "there is no file 'gone.trace'; for a run of a store give --store URL",
        ),
        (("replay", "cut.trace", "--program", "refund.json"), 1, "cut.trace: not a trace"),
        (
            ("replay", "edited.trace", "--program", "refund.json"),
            1,
            "the trace was changed: its digest does not fit",
        ),
        (
            ("diff", "yes.trace", "refund.json"),
            2,
            "two runs or two programs, and these are one of each",
        ),
        (
            ("fork", "yes.trace", "--program", "refund.json", "--set", "judge=x"),
            2,
            "--set takes STEP.FIELD=VALUE",
        ),
        (
            ("fork", "yes.trace", "--program", "refund.json", "--output", "judge"),
            2,
            "--output takes NAME=text",
        ),
        (
            ("fork", "yes.trace", "--program", "refund.json", "--at", "jugde"),
            1,
            "it never ran; did you mean 'judge'?",
        ),
        (("verify", "export.jsonl"), 1, "export.jsonl: "),
    ],
)
def test_bad_input_is_one_line(
    files: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    text = (files / "yes.trace").read_text()
    (files / "cut.trace").write_text(text[: len(text) // 2])
    (files / "edited.trace").write_text(text.replace("paid 30", "paid 31"))
    (files / "export.jsonl").write_text('{"record": "export"}\n{"record": "run"}\n')
    assert command(*arguments) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_another_program_is_told_on_the_command_line(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("replay", "yes.trace", "--program", "other.json") == 1
    assert "the trace is of another program" in capsys.readouterr().out


@pytest.mark.slow
def test_runs_of_an_exported_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{files}/runs.db"
    ids = [stored_run(url), stored_run(url)]
    assert command("store", "export", "--store", url, "-o", "runs.jsonl") == 0
    capsys.readouterr()
    assert command("verify", "runs.jsonl") == 0
    assert "2 of 2 runs verified" in capsys.readouterr().out
    assert command("replay", "runs.jsonl") == 1
    assert "it has 2 runs" in capsys.readouterr().err
    assert command("replay", f"runs.jsonl#{ids[0]}") == 0
    assert command("replay", ids[1][:12], "--store", url) == 0
    assert command("replay", "runs.jsonl#none") == 1


# --- errors by class ------------------------------------------------------------------------------


def test_base_classes_are_recorded_so_that_a_replay_and_a_changed_program_take_their_handlers() -> (
    None
):
    calls = []

    async def read() -> None:
        calls.append(1)
        raise FileNotFoundError("gone")

    def made(errors: list[str]) -> Program:
        retry = {"max_retries": 2, "retry": {"delay_seconds": 0, "on": ["OSError"]}}
        call = {
            "id": "r",
            "type": "tool",
            "tool": "read",
            **retry,
            "catch": [{"errors": errors, "next": "s"}],
        }
        return Program.from_dict(
            {"steps": [{**call, "next": "$end"}, {"id": "s", "type": "set", "values": {"x": 1}}]}
        )

    vm = ExecutionVM(tools={"read": tool(effect="read")(read)})
    trace = vm.run_sync(made(["FileNotFoundError"]))
    assert (trace.status.value, len(calls)) == ("success", 2)
    line = json.loads(trace.to_json())["records"][1]
    assert line["error"]["bases"] == line["attempts"][0]["error"]["bases"] == ["OSError"]
    back = Trace.from_json(trace.to_json())
    assert replay(back, made(["FileNotFoundError"])).identical
    for errors, status in ((["OSError"], "success"), (["LookupError"], "failed")):
        changed = asyncio.run(
            fork(vm, back, made(["FileNotFoundError"]), edit={"program": made(errors)})
        )
        assert changed.status.value == status
    assert len(calls) == 2  # the records told all of it


# --- forks that are kept --------------------------------------------------------------------------

REFUNDED = program(
    step("look", "get", args={"id": "$order"}),
    {
        "id": "ask",
        "type": "approval",
        "role": "boss",
        "show": {"order": "$order"},
        "then": "p",
        "otherwise": "$end",
    },
    step("p", "pay", args={"amount": "$order"}),
)


class Kept:
    """A run of order 1 that was approved and paid, in a store."""

    def __init__(self, url: str) -> None:
        self.paid: list[Any] = []
        self.read: list[Any] = []

        @tool(effect="read")
        async def get(id: Any) -> Any:
            self.read.append(id)
            return {"id": id}

        @tool(effect="irreversible")
        async def pay(amount: Any) -> str:
            self.paid.append(amount)
            return f"paid {amount}"

        self.tools = {"get": get, "pay": pay}
        self.url = url
        self.vm = ExecutionVM(tools=self.tools, store=url)

    async def run(self) -> str:
        await self.vm.run(REFUNDED, {"order": 1}, run_id="one")
        self.approve("one")
        assert (await self.vm.resume("one")).ok
        self.paid.clear()
        self.read.clear()
        return "one"

    def approve(self, run_id: str) -> None:
        (asked,) = self.vm.waiting(run_id)
        self.vm.approve(run_id, "ask", shown=asked["shown"], by="ann")

    async def fork(self, **options: Any) -> Trace:
        return await fork(
            self.vm, await self.run(), run_id="two", edit={"inputs": {"order": 2}}, **options
        )


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(f"sqlite:///{tmp_path}/runs.db")
    yield made
    made.vm.close()


@pytest.mark.slow
@pytest.mark.parametrize("effects", [False, True])
async def test_a_fork_that_is_kept_waits_and_goes_on(kept: Kept, effects: bool) -> None:
    made = await kept.fork(effects=effects)
    assert (made.status, made.run_id, kept.read) == (TraceStatus.SUSPENDED, "two", [2])
    stored = kept.vm.require_store().load("two")
    assert (stored.parent, stored.status) == ("one", "suspended")
    assert stored.about["parent"]["run_id"] == "one"
    kept.approve("two")
    other = ExecutionVM(tools=kept.tools, store=kept.url)  # a worker that knows nothing of the fork
    (trace,) = await other.work(until_idle=True)
    if effects:
        assert (trace.status, kept.paid) == (TraceStatus.SUCCESS, [2])
    else:
        assert (trace.status, kept.paid) == (TraceStatus.SUSPENDED, [])
        (entry,) = other.waiting("two")
        assert (entry["kind"], entry["path"], entry["request"]) == ("effect", "p", {"amount": 2})
    other.close()


@pytest.mark.parametrize(
    ("said", "status", "output", "paid"),
    [
        ({"retry": True}, TraceStatus.SUCCESS, "paid 2", [2]),
        ({"done": "as if"}, TraceStatus.SUCCESS, "as if", []),
        ({"fail": "no"}, TraceStatus.FAILED, None, []),
    ],
)
async def test_a_person_says_what_becomes_of_a_call_that_it_stopped_before(
    kept: Kept, said: dict[str, Any], status: TraceStatus, output: Any, paid: list[Any]
) -> None:
    await kept.fork()
    kept.approve("two")
    assert (await kept.vm.resume("two")).waiting[0]["kind"] == "effect"
    assert (await kept.vm.resume("two")).status is TraceStatus.SUSPENDED  # nobody said anything
    kept.vm.resolve("two", "p", by="ann", **said)
    trace = await kept.vm.resume("two")
    assert (trace.status, trace.final_output, kept.paid) == (status, output, paid)
    found = verify(subject_of(kept.vm.require_store().load("two")))
    assert found, str(found)


async def test_what_did_not_change_is_taken_and_kept_as_its_own(kept: Kept) -> None:
    made = await fork(
        kept.vm, await kept.run(), run_id="two", edit={"p": {"output": "paid by hand"}}
    )
    assert (made.final_output, kept.read, kept.paid) == ("paid by hand", [], [])
    stored = kept.vm.require_store().load("two")
    assert [row.path for row in stored.rows if row.status is not None] == ["look", "ask", "p"]
    assert verify(subject_of(stored))
    again = await fork(kept.vm, "one", run_id="two", edit={"p": {"output": "paid by hand"}})
    assert again.digest == made.digest  # the id joins it


async def test_a_tool_that_stands_in_does_so_for_its_maker_only(kept: Kept) -> None:
    """Who goes on with the fork has the real one, and holds it back."""
    made = await kept.fork(tools={"pay": lambda amount: f"stand-in {amount}"})
    assert made.status is TraceStatus.SUSPENDED
    kept.approve("two")
    trace = await kept.vm.resume("two")
    assert (trace.status, kept.paid) == (TraceStatus.SUSPENDED, [])


@pytest.mark.slow
def test_with_effects_each_approval_is_asked_for_anew(kept: Kept) -> None:
    """It was given for the payment of that run. Whoever has the records may say what it is."""

    async def go() -> None:
        run_id = await kept.run()
        made = await fork(kept.vm, run_id, effects=True, run_id="two")
        assert ([entry["kind"] for entry in made.waiting], kept.paid) == (["approval"], [])
        assert (await kept.vm.resume("two")).status is TraceStatus.SUSPENDED
        kept.approve("two")
        assert (await kept.vm.resume("two")).ok
        assert kept.paid == [1]
        without = await fork(kept.vm, run_id)
        assert (without.ok, kept.paid) == (True, [1])
        edit = {"ask": {"output": True}, "p": {"args": {"amount": 5}}}
        told = await fork(kept.vm, run_id, effects=True, edit=edit)
        assert (told.ok, kept.paid) == (True, [1, 5])

    asyncio.run(go())


def test_the_output_of_another_step_decides_no_approval(kept: Kept) -> None:
    """Whoever refuses edits of approvals looks for those by what they were, or are by their id."""
    tool_in_a_frame = mapped(step("w", "get", args={"id": 1}), over="$ids", **{"as": "it"})
    asks = {"id": "w", "type": "approval", "role": "boss", "show": {"n": 1}}
    asked_there = mapped(asks, over="$ids", **{"as": "it"})
    trace = asyncio.run(kept.vm.run(program(tool_in_a_frame), {"ids": [1]}))
    for effects in (False, True):
        edit = {"program": program(asked_there), "m[0]/w": {"output": {"approved": True}}}
        made = asyncio.run(fork(kept.vm, trace, edit=edit, effects=effects))
        assert [entry["kind"] for entry in made.waiting] == ["approval"]


@pytest.mark.slow
def test_a_fork_on_the_command_line(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(kept.run())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("bank.py").write_text(
        "from nano_vm import tool\n"
        "@tool(effect='read')\ndef get(id): return {'id': id}\n"
        "@tool(effect='irreversible')\ndef pay(amount):\n"
        "    with open('paid', 'a') as file: file.write(str(amount))\n    return 'paid'\n"
        "tools = {'get': get, 'pay': pay}\n"
    )
    store = ["--store", kept.url]
    command = ["fork", "one", "--tools", "bank.py:tools", "-i", "order:=2", *store]
    assert main(command) == 3
    told = capsys.readouterr()
    assert "waits at ask for approval by boss:" in told.out
    assert "nano-vm approve" not in told.out
    assert told.err.splitlines() == [
        "it waits, and was not kept: only with --run-id NAME and --store URL can it go on"
    ]
    assert main([*command, "--run-id", "two"]) == 3
    told = capsys.readouterr()
    shown = next(line.split()[1] for line in told.out.splitlines() if line.startswith("  shown "))
    assert (
        f"  nano-vm approve two ask --shown {shown} --by NAME --store {kept.url}"
        in told.out.splitlines()
    )
    assert main(["runs", *store]) == 0
    assert "from one" in capsys.readouterr().out.splitlines()[0]
    assert main(["show", "two", *store]) == 0
    assert "made from run one" in capsys.readouterr().out
    assert main(["approve", "two", "ask", "--shown", shown, "--by", "ann", *store]) == 0
    assert main(["resume", "two", "--tools", "bank.py:tools", *store]) == 3
    assert (
        "stopped before p: the call has an effect, and this fork makes none by itself"
        in capsys.readouterr().out
    )
    assert main(["resolve", "two", "p", "--retry", "--by", "ann", *store]) == 0
    assert main(["resume", "two", "--tools", "bank.py:tools", *store]) == 0
    assert Path("paid").read_text() == "2"
    monkeypatch.delenv("NANO_VM_STORE", raising=False)
    assert main(["fork", "two.json", "--run-id", "x"]) == 2
