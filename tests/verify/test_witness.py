"""The search for a run along a path of the graph: it is found where there is one, executed, and the
same when it is made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from build import llm, mapped, parallel, program, step

from nano_vm import Program, VMError
from nano_vm.explore.tree import Given, assumed, replay
from nano_vm.language.flow import Flow
from nano_vm.machine.compile import compile_flow
from nano_vm.machine.machine import Machine
from nano_vm.machine.plan import Plan
from nano_vm.records.record import flattened, full
from nano_vm.verify.witness import Search, Witness, find_run


def compiled(program: Program) -> tuple[Plan, Flow]:
    flow = Flow(program)
    return compile_flow(flow, assumed(flow, {})), flow


def records(plan: Plan, machine: Machine) -> Iterator[Any]:
    return flattened([full(record, plan.ops) for record in machine.records])


def calls(plan: Plan, *tools: str) -> Callable[[Machine], bool]:
    """Whether a run calls all of *tools*, in this order."""

    def made(machine: Machine) -> bool:
        rest = list(tools)
        for record in records(plan, machine):
            if rest and getattr(record[0], "tool", None) == rest[0] and record[5] is not None:
                del rest[0]
        return not rest

    return made


def path(flow: Flow, *moves: str) -> list[tuple[int, str]]:
    """``step.label`` as nodes and labels; of a step with several nodes the first that has the
    edge.
    """
    found = []
    for move in moves:
        step_id, _, label = move.partition(".")
        nodes = [n for n in flow.nodes if n.step.id == step_id and n.kind in ("step", "test")]
        node = next((n for n in nodes if n.follow(label) is not None), nodes[0])
        found.append((node.index, label))
    return found


def found(
    program: Program, breaks: Sequence[str], *moves: str, budget_runs: int = 300
) -> tuple[Witness | None, Plan, Flow]:
    plan, flow = compiled(program)
    witness = find_run(
        plan,
        flow,
        "a statement",
        breaks=calls(plan, *breaks),
        prefer=path(flow, *moves),
        budget_runs=budget_runs,
    )
    if witness is not None:
        check(witness, plan, program)
    return witness, plan, flow


def check(witness: Witness, plan: Plan, program: Program) -> None:
    """A witness is the same run when it is made again: from itself, and from its JSON form on
    another plan.
    """
    again = witness.replay(plan)
    assert repr(again.records) == repr(witness.run.machine.records)
    data = json.loads(json.dumps(witness.to_dict()))
    other, _ = compiled(program)
    made = replay(
        other,
        data["inputs"],
        [Given.from_dict(entry) for entry in data["outcomes"]],
        program.budget,
    )
    assert (made.status, made.output) == (again.status, again.output)
    assert [r[1:3] for r in records(other, made)] == [r[1:3] for r in records(plan, again)]
    assert [b.to_dict() for b in witness.branches] == data["branches"]
    assert witness.text().splitlines()[-1].startswith(f"run: {made.status.value}")


def condition(id: str, text: str, then: Any, otherwise: Any = None) -> dict[str, Any]:
    branches = {"then": then} if otherwise is None else {"then": then, "otherwise": otherwise}
    return {"id": id, "type": "condition", "condition": text, **branches}


DEEP = [step(f"s{i}", "ask", output_key=f"k{i}") for i in range(8)]


def test_values_that_several_conditions_read_are_found_together() -> None:
    """Eight answers of 32 by 2 each, and one combination: without the path this is a needle among
    256.
    """
    wanted = [condition(f"c{i}", f"$k{i} == 'v{i}'", "$next", "$end") for i in range(8)]
    witness, _, _ = found(
        program(*DEEP, *wanted, step("pay", "pay")),
        ["pay"],
        *(f"c{i}.then" for i in range(8)),
        budget_runs=12,
    )
    assert witness is not None
    flow_less = [condition(f"c{i}", f"$k{i} != 'v{i}'", "$next", "$end") for i in range(8)]
    unlike = program(*DEEP, *flow_less, step("pay", "pay"))
    witness, _, _ = found(unlike, ["pay"], *(f"c{i}.then" for i in range(8)), budget_runs=12)
    assert witness is not None
    assert [b.branch for b in witness.branches] == ["then"] * 8
    assert {k: v for b in witness.branches for k, v in b.references.items()} == {
        f"$k{i}": "something else" for i in range(8)
    }


def test_a_condition_over_several_values() -> None:
    guard = condition("c", "$k0 > 10 and $k1 == 'yes' and 'no' not in $k2", [step("pay", "pay")])
    assert found(program(*DEEP[:3], guard), ["pay"], "c.then", budget_runs=60)[0] is not None


@pytest.mark.parametrize(
    ("steps", "breaks", "moves"),
    [
        pytest.param(
            [
                step("a", "f", catch=[{"errors": ["Declined"], "next": "pay"}], next="$end"),
                step("pay", "pay"),
            ],
            ["pay"],
            ["a.catch"],
            id="catch-by-class",
        ),
        pytest.param(
            [
                step("a", "f", catch=[{"errors": ["timeout"], "next": "pay"}], next="$end"),
                step("pay", "pay"),
            ],
            None,
            ["a.catch"],
            id="catch-timeout-of-a-write-never",
        ),
        pytest.param(
            [
                llm("a", catch=[{"errors": ["timeout"], "next": "pay"}], next="$end"),
                step("pay", "pay"),
            ],
            ["pay"],
            ["a.catch"],
            id="catch-timeout-of-a-model",
        ),
        pytest.param(
            [
                llm("a", catch=[{"errors": ["rate_limit"], "next": "pay"}], next="$end"),
                step("pay", "pay"),
            ],
            ["pay"],
            ["a.catch"],
            id="catch-rate-limit",
        ),
        pytest.param(
            [
                llm(
                    "a",
                    allowed_outputs=["yes", "no"],
                    catch=[{"errors": ["invalid_answer"], "next": "pay"}],
                    next="$end",
                ),
                step("pay", "pay"),
            ],
            ["pay"],
            ["a.catch"],
            id="catch-invalid-answer",
        ),
        pytest.param(
            [
                step("a", "f", on_error="skip", output_key="k", default="skipped"),
                condition("c", "$k == 'skipped'", [step("pay", "pay")]),
            ],
            ["pay"],
            ["a.skip", "c.then"],
            id="skip-with-a-default",
        ),
        pytest.param(
            [
                step("a", "f"),
                {
                    "id": "w",
                    "type": "switch",
                    "on": "$a.output",
                    "cases": {"x": "$end", "y": [step("pay", "pay")]},
                    "default": "$end",
                },
            ],
            ["pay"],
            ["w.case:y"],
            id="case",
        ),
        pytest.param(
            [step("a", "f"), mapped(step("pay", "pay"), over="$a.output", id="m")],
            ["pay", "pay"],
            ["m.fork"],
            id="two-items",
        ),
        pytest.param(
            [
                step("a", "f"),
                mapped(
                    condition("c", "$item.kind == 'x'", [step("pay", "pay")]),
                    over="$a.output.list",
                    id="m",
                ),
            ],
            ["pay"],
            ["c.then"],
            id="an-item-of-a-kind",
        ),
        pytest.param(
            [
                {
                    "id": "l",
                    "type": "loop",
                    "max_iterations": 5,
                    "until": "$b.output == 'stop'",
                    "steps": [
                        step("b", "f"),
                        condition("c", "$b.output == 'go'", [step("pay", "pay")]),
                    ],
                }
            ],
            ["pay", "pay", "pay"],
            ["c.then", "l.again", "c.then", "l.again", "c.then"],
            id="the-third-iteration",
        ),
        pytest.param(
            [
                {
                    "id": "l",
                    "type": "loop",
                    "max_iterations": 2,
                    "until": "$b.output == 'stop'",
                    "on_exhausted": "continue",
                    "steps": [step("b", "f")],
                },
                condition("c", "$b.output == 'on'", [step("pay", "pay")]),
            ],
            ["pay"],
            ["l.exhausted", "c.then"],
            id="exhausted",
        ),
        pytest.param(
            [
                {
                    "id": "l",
                    "type": "loop",
                    "max_iterations": 2,
                    "until": "$b.output == 'stop'",
                    "steps": [step("b", "f")],
                    "catch": [{"errors": ["limit"], "next": "pay"}],
                    "next": "$end",
                },
                step("pay", "pay"),
            ],
            ["pay"],
            ["l.catch"],
            id="a-loops-own-failure",
        ),
        pytest.param(
            [
                parallel(
                    [step("x", "f"), condition("c", "$x.output == 'a'", [step("y", "g")])],
                    step("z", "h"),
                    id="p",
                    catch=[{"errors": ["*"], "next": "pay"}],
                    next="$end",
                ),
                step("pay", "pay"),
            ],
            ["g", "pay"],
            ["c.then", "p.catch"],
            id="a-fork-that-fails",
        ),
        pytest.param(
            [
                {
                    "id": "i",
                    "type": "call",
                    "with": {"n": "$a.output"},
                    "program": {
                        "name": "sub",
                        "steps": [condition("c", "$n > 5", [step("pay", "pay")])],
                    },
                }
            ],
            ["pay"],
            ["c.then"],
            id="in-a-called-program",
        ),
        pytest.param(
            [condition("c", "$who == 'ann'", "pay", "$end"), step("pay", "pay")],
            ["pay"],
            ["c.then"],
            id="an-input",
        ),
        pytest.param(
            [step("a", "f", undo={"tool": "pay"}), step("b", "g")],
            ["f", "pay"],
            ["b.error"],
            id="undo-after-a-failure",
        ),
        pytest.param(
            [step("a", "f", undo={"tool": "pay"}), step("b", "g", on_error="skip")],
            ["f", "pay"],
            ["b.cancel"],
            id="undo-after-a-cancellation",
        ),
        pytest.param([step("a", "f", reconcile={"tool": "pay"})], ["pay"], [], id="reconcile"),
        pytest.param(
            [
                step(
                    "a", "f", max_retries=2, catch=[{"errors": ["*"], "next": "pay"}], next="$end"
                ),
                step("pay", "pay"),
            ],
            ["pay"],
            ["a.catch"],
            id="every-attempt-fails",
        ),
        pytest.param(
            [
                {"id": "s", "type": "set", "values": {"n": {"expr": "len($a.output) + 1"}}},
                condition("c", "$n > 3", [step("pay", "pay")]),
            ],
            ["pay"],
            ["c.then"],
            id="through-an-expression",
        ),
        pytest.param(
            [{"id": "ok", "type": "approval", "role": "boss", "otherwise": [step("pay", "pay")]}],
            ["pay"],
            ["ok.otherwise"],
            id="an-approval-that-is-refused",
        ),
        pytest.param(
            [
                {"id": "w", "type": "wait", "event": "mail"},
                condition("c", "$w.output.text == 'go'", [step("pay", "pay")]),
            ],
            ["pay"],
            ["c.then"],
            id="an-event",
        ),
        pytest.param(
            [
                condition(
                    "o",
                    "$a.output == 'x'",
                    [condition("i", "$b.output == 'y'", "pay", "$end")],
                    "$end",
                ),
                step("n", "f"),
                step("pay", "pay"),
            ],
            ["pay"],
            ["o.then", "i.then"],
            id="a-jump-out-of-a-block",
        ),
    ],
)
def test_a_path_is_followed(
    steps: list[dict[str, Any]], breaks: list[str] | None, moves: list[str]
) -> None:
    read = [
        s
        for s in (step("a", "ask"), step("b", "ask"))
        if not any(s["id"] == other["id"] for other in _all(steps))
    ]
    whole = program(*read, *steps)
    witness, _, _ = found(whole, breaks or ["pay"], *moves, budget_runs=150)
    assert (witness is not None) is (breaks is not None)


def _all(steps: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The steps, and those in their blocks, as written."""
    for one in steps:
        if isinstance(one, list):
            yield from _all(one)
        elif isinstance(one, dict):
            if "id" in one:
                yield one
            for value in one.values():
                if isinstance(value, (list, dict)):
                    yield from _all(value if isinstance(value, list) else [value])


def test_the_failure_of_a_fork_is_sought_inside_it() -> None:
    branches = [[step(f"{b}{i}", "f") for i in range(6)] for b in "xyz"]
    whole = program(
        *DEEP,
        parallel(*branches, id="p", catch=[{"errors": ["*"], "next": "pay"}], next="$end"),
        step("pay", "pay"),
    )
    plan, flow = compiled(whole)
    tried = 0

    def breaks(machine: Machine) -> bool:
        nonlocal tried
        tried += 1
        return calls(plan, "pay")(machine)

    assert find_run(plan, flow, "", breaks=breaks, prefer=path(flow, "p.catch")) is not None
    assert tried <= 8  # an order of the branches, a timeout that is in doubt


def test_without_a_path_the_nearest_runs_come_first() -> None:
    witness, _, _ = found(
        program(*DEEP, condition("c", "$k7 == 'v'", [step("pay", "pay")])), ["pay"]
    )
    assert witness is not None


def test_what_no_run_does_is_not_found_and_the_search_ends() -> None:
    whole = program(
        llm("m", allowed_outputs=["yes", "no"]),
        condition("c", "$m.output == 'maybe'", [step("pay", "pay")]),
    )
    plan, flow = compiled(whole)
    asked = 0

    def breaks(machine: Machine) -> bool:
        nonlocal asked
        asked += 1
        return calls(plan, "pay")(machine)

    assert find_run(plan, flow, "", breaks=breaks, prefer=path(flow, "c.then")) is None
    assert asked < 20  # all that there are, and not the budget
    long = program(
        {
            "id": "l",
            "type": "loop",
            "max_iterations": 9,
            "until": "$b.output == 'x'",
            "steps": [step("b", "f")],
        }
    )
    plan, flow = compiled(long)
    asked = 0
    assert find_run(plan, flow, "", breaks=breaks, budget_runs=20) is None
    assert asked == 20


def test_children_run_in_the_order_that_breaks() -> None:
    whole = program(parallel(step("x", "f"), step("y", "g"), step("z", "h"), id="p"))
    plan, flow = compiled(whole)

    def breaks(machine: Machine) -> bool:
        ended = {r[1]: r[7] % 1_000_000 for r in records(plan, machine)}
        return ended.get("p/z", 9) < ended.get("p/x", 0)

    witness = find_run(plan, flow, "z before x", breaks=breaks)
    assert witness is not None
    assert "p: parallel children run in the order [2, 1, 0]" in witness.text()
    check(witness, plan, whole)


def test_a_search_is_deterministic_and_serves_several_statements() -> None:
    whole = program(
        *DEEP,
        condition("c", "$k3 == 'a' and $k5 == 'b'", [step("pay", "pay")]),
        step("mail", "mail", undo={"tool": "unmail"}),
        step("e", "f"),
    )
    plan, flow = compiled(whole)
    search = Search(plan, flow, assumed(flow, {}))
    one = search.find("one", breaks=calls(plan, "pay"), prefer=path(flow, "c.then"))
    two = search.find("two", breaks=calls(plan, "unmail"), prefer=path(flow, "e.cancel"))
    three = search.find("one", breaks=calls(plan, "pay"), prefer=path(flow, "c.then"))
    assert one is not None
    assert two is not None
    assert three is not None
    assert one.to_dict() == three.to_dict()
    for witness in (one, two):
        check(witness, plan, whole)


def test_a_witness_of_another_program_is_refused() -> None:
    witness, _, _ = found(program(step("a", "f"), step("b", "pay")), ["pay"])
    other, _ = compiled(program(step("a", "f"), step("c", "pay")))
    assert witness is not None
    with pytest.raises(VMError, match="the run asks at 'c', and the next outcome is for 'b'"):
        witness.replay(other)


def test_the_text_of_a_witness() -> None:
    whole = program(
        llm("m", "$q", output_key="said"),
        condition("c", "'yes' in $said", [step("pay", "pay", args={"to": "$q"})]),
    )
    witness, _, _ = found(whole, ["pay"], "c.then")
    assert witness is not None
    assert witness.text() == (
        "input q = 'text'\n"
        "m: the model answers 'yes'\n"
        "c -> then ($said = 'yes')\n"
        "c/pay: pay(to='text') returns 'text'\n"
        "run: success"
    )
