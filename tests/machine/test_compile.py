"""Plans, as the text of `Plan.explain`: what follows what, and which name is which slot."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from nano_vm import ExecutionVM, Program, ProgramError, tool
from nano_vm.testing import ScriptedLLM


@tool(effect="read")
async def find(q: str) -> str:
    return q


async def pay(order_id: str, amount: float, idempotency_key: str) -> None: ...


async def unpay(order_id: str) -> None: ...


VM = ExecutionVM(ScriptedLLM([]), {"find": find, "pay": pay, "unpay": unpay})


def plan_of(*steps: dict[str, Any], **fields: Any) -> Any:
    return VM.plan(Program.from_dict({"name": "p", "steps": list(steps), **fields}))


def step(id: str, tool: str = "find", **fields: Any) -> dict[str, Any]:
    args = {"q": "$q"} if tool == "find" else {}
    return {"id": id, "type": "tool", "tool": tool, "args": args, **fields}


CASES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a straight run; a skip and a catch are edges, a jump's target is a node of its own": (
        [
            step("f", output_key="hit"),
            step(
                "g",
                args={"q": "$hit"},
                on_error="skip",
                catch=[{"errors": ["timeout", "tool"], "next": "h"}],
            ),
            step(
                "h",
                "pay",
                args={"order_id": "$q", "amount": 5},
                undo={"tool": "unpay", "args": {"order_id": "$q"}},
            ),
        ],
        """
        program 'p': 6 ops, 3 slots, 1 frames
        slots: 0=$q, 1=$hit, 2=(unread)
        frame 0 'run': begins at 2
             2 tool f find(q) read -> $f.output, $hit  [next 3]
             3 tool g find(q) read -> $g.output  [next 4, catch timeout|tool 5, skip 4]
             4 tool h pay(order_id, amount) write undo unpay -> $h.output  [next 0]
             5 tool h pay(order_id, amount) write undo unpay -> $h.output  [next 0]
             0 end
             1 fail
        """,
    ),
    "a jump ends its frame": (
        [
            {
                "id": "ask",
                "type": "llm",
                "prompt": "$q?",
                "allowed_outputs": ["yes", "no"],
                "output_key": "a",
            },
            {
                "id": "c",
                "type": "condition",
                "condition": "$a == 'yes'",
                "then": "y",
                "otherwise": "n",
            },
            step("y"),
            step("n"),
        ],
        """
        program 'p': 6 ops, 3 slots, 1 frames
        slots: 0=$q, 1=$a, 2=(unread)
        frame 0 'run': begins at 2
             2 model ask default model one of ['yes', 'no'] -> $ask.output, $a  [next 3]
             3 branch c $a == 'yes' -> $c.output  [then 4, otherwise 5]
             4 tool y find(q) read -> $y.output  [next 0]
             5 tool n find(q) read -> $n.output  [next 0]
             0 end
             1 fail
        """,
    ),
    "a block returns": (
        [
            {
                "id": "c",
                "type": "condition",
                "condition": "$q == 'yes'",
                "then": [step("y")],
                "otherwise": [step("n")],
            },
            step("z", args={"q": "$c.output"}),
        ],
        """
        program 'p': 8 ops, 3 slots, 1 frames
        slots: 0=$q, 1=$c.output, 2=(unread)
        frame 0 'run': begins at 2
             2 branch c $q == 'yes' -> $c.output  [then 5, otherwise 7]
             3 close c  [next 4]
             4 tool z find(q) read -> $z.output  [next 0]
             5 tool y find(q) read -> $y.output  [next 3]
             6 close c  [next 4]
             7 tool n find(q) read -> $n.output  [next 6]
             0 end
             1 fail
        """,
    ),
    "a loop is its entry and the test at its end": (
        [
            {
                "id": "l",
                "type": "loop",
                "max_iterations": 3,
                "until": "$x.output == 'x'",
                "steps": [step("x")],
            }
        ],
        """
        program 'p': 5 ops, 3 slots, 1 frames
        slots: 0=$q, 1=$x.output, 2=(unread)
        frame 0 'run': begins at 2
             2 loop l at most 3 times -> $l.output  [next 4]
             3 test l until $x.output == 'x'  [until 0, again 4]
             4 tool x find(q) read -> $x.output  [next 3]
             0 end
             1 fail
        """,
    ),
    "branches and items are frames": (
        [
            {"id": "p", "type": "parallel", "parallel_steps": [[step("x"), step("y")], step("z")]},
            {
                "id": "m",
                "type": "map",
                "over": "$p.output",
                "as": "it",
                "steps": [step("w", args={"q": "$it"})],
            },
        ],
        """
        program 'p': 14 ops, 4 slots, 4 frames
        slots: 0=$q, 1=$p.output, 2=$it, 3=(unread)
        frame 0 'run': begins at 2
             2 fork p parallel frame 1 'x', frame 2 'z' -> $p.output  [next 9]
             9 fork m map frame 3 'it' -> $m.output  [next 0]
             0 end
             1 fail
        frame 1 'x': begins at 5
             5 tool x find(q) read -> $x.output  [next 10]
            10 tool y find(q) read -> $y.output  [next 3]
             3 end
             4 fail
        frame 2 'z': begins at 8
             8 tool z find(q) read -> $z.output  [next 6]
             6 end
             7 fail
        frame 3 'it': begins at 13
            13 tool w find(q) read -> $w.output  [next 11]
            11 end
            12 fail
        """,
    ),
    "a switch": (
        [
            {
                "id": "s",
                "type": "switch",
                "on": "$q",
                "cases": {"a": "x", "b": [step("y")]},
                "default": "$end",
            },
            step("x"),
        ],
        """
        program 'p': 7 ops, 2 slots, 1 frames
        slots: 0=$q, 1=(unread)
        frame 0 'run': begins at 2
             2 switch s -> $s.output  [case a 3, case b 6, default 0]
             3 tool x find(q) read -> $x.output  [next 0]
             4 close s  [next 5]
             5 tool x find(q) read -> $x.output  [next 0]
             6 tool y find(q) read -> $y.output  [next 4]
             0 end
             1 fail
        """,
    ),
    "a pause": (
        [
            {
                "id": "w",
                "type": "approval",
                "role": "boss",
                "show": "$q",
                "then": "x",
                "otherwise": "$fail",
            },
            step("x"),
        ],
        """
        program 'p': 4 ops, 2 slots, 1 frames
        slots: 0=$q, 1=(unread)
        frame 0 'run': begins at 2
             2 pause w -> $w.output  [then 3, otherwise 1]
             3 tool x find(q) read -> $x.output  [next 0]
             0 end
             1 fail
        """,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str) -> None:
    steps, expected = CASES[case]
    assert plan_of(*steps).explain() == textwrap.dedent(expected).strip()


def test_a_called_program_has_names_of_its_own() -> None:
    inner = {
        "name": "inner",
        "inputs": {"properties": {"v": {}}},
        "steps": [step("x", args={"q": "$v"})],
    }
    plan = plan_of({"id": "k", "type": "call", "program": inner, "with": {"v": "$q"}})
    lines = plan.explain().splitlines()
    assert "frame 1 'inner': begins at 5" in lines
    assert any("tool x find(q) read -> $x.output" in line for line in lines)
    assert any("fork k call frame 1 'inner' -> $k.output" in line for line in lines)


def test_a_plan_is_the_same_each_time() -> None:
    for steps, _ in CASES.values():
        assert plan_of(*steps).explain() == plan_of(*steps).explain()


def test_a_plan_of_a_program_with_faults_is_refused_with_all_of_them() -> None:
    with pytest.raises(ProgramError) as caught:
        plan_of(step("a", "unknown"), step("b", next="nowhere"))
    assert len(caught.value.diagnostics) == 2


def test_a_plan_knows_its_tools_models_and_shortest_deadline() -> None:
    plan = plan_of(
        step("a", timeout_seconds=5), {"id": "m", "type": "llm", "prompt": "x"}, step("b")
    )
    assert (plan.tools, plan.models, plan.shortest_ns()) == (["find"], [None], 5 * 10**9)


def test_the_shortest_deadline_is_that_of_any_call_or_program() -> None:
    @tool(timeout_seconds=2)
    async def quick() -> None: ...

    host = ExecutionVM(tools={"find": find, "quick": quick})

    def shortest(*steps: dict[str, Any]) -> int:
        plan: Any = host.plan(Program.from_dict({"steps": list(steps)}))
        return int(plan.shortest_ns())

    assert shortest(step("a", args={"q": "x"}, undo={"tool": "quick"})) == 2 * 10**9
    assert (
        shortest(step("a", args={"q": "x"}, reconcile={"tool": "quick", "args": {}})) == 2 * 10**9
    )
    called = {"steps": [step("a", args={"q": "x"})], "budget": {"max_seconds": 3}}
    assert shortest({"id": "c", "type": "call", "program": called}) == 3 * 10**9
    assert (
        shortest(
            {
                "id": "p",
                "type": "parallel",
                "timeout_seconds": 1,
                "parallel_steps": [step("a", args={"q": "x"})],
            }
        )
        == 10**9
    )


def test_paths_that_are_known_beforehand() -> None:
    block = {"id": "c", "type": "condition", "condition": "true", "then": [step("y")]}
    ops = {
        op.step_id: op.path
        for op in plan_of(
            step("a"),
            block,
            {"id": "l", "type": "loop", "max_iterations": 2, "until": "true", "steps": [step("x")]},
        ).ops
        if op.step_id
    }
    assert (ops["a"], ops["y"], ops["x"]) == ("a", "c/y", None)
