"""The one graph: edges of small programs as text, two states a step, and what leads nowhere."""

from __future__ import annotations

import gc
import weakref
from importlib import import_module
from typing import Any

import pytest

from nano_vm import ExecutionVM, Program
from nano_vm.language import flow as flows
from nano_vm.language.flow import Flow, Node
from nano_vm.verify import verify


def step(step_id: str, kind: str = "set", **fields: Any) -> dict[str, Any]:
    return {
        "id": step_id,
        "type": kind,
        **({"values": {"x": 1}} if kind == "set" else {}),
        **fields,
    }


def choice(step_id: str, then: Any, otherwise: Any = None, **fields: Any) -> dict[str, Any]:
    branches = {"then": then} if otherwise is None else {"then": then, "otherwise": otherwise}
    return step(step_id, "condition", condition="true", **branches, **fields)


def flow_of(*steps: dict[str, Any], **programs: dict[str, Any]) -> Flow:
    named = {name: Program.from_dict(data) for name, data in programs.items()}
    return Flow(Program.from_dict({"steps": list(steps)}), named)


def name(node: Node) -> str:
    """``a`` for a step reached in order, ``a!`` by jump; ``test a``, ``close a``, ``end``; inner
    frames in brackets.
    """
    frame = f"[{node.frame.name}]" if node.frame.index else ""
    if node.kind in ("end", "fail"):
        return node.kind + frame
    mark = "!" if node.mode == "jump" else ""
    return ("" if node.kind == "step" else f"{node.kind} ") + node.step.id + mark + frame


def edges(flow: Flow) -> list[str]:
    """``from label to`` for every edge that can be reached from the entry, errors to the frame's
    `fail` left out.
    """
    found, seen, work = [], set(), [flow.frames[0].entry]
    while work:
        index = work.pop(0)
        if index in seen:
            continue
        seen.add(index)
        node = flow.nodes[index]
        for edge in node.edges:
            if edge.label != "error":
                found.append(f"{name(node)} {edge.label} {name(flow.nodes[edge.target])}")
            work.append(edge.target)
    return found


def loop(step_id: str, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return step(step_id, "loop", max_iterations=3, until="$x == 1", steps=list(steps), **fields)


# --- the order that the passes share ---


def test_each_node_stands_behind_all_that_lead_to_it_but_from_the_end_of_a_loop() -> None:
    flow = flow_of(
        choice("c", [step("a")], [step("b")], when="$go == 1"),
        loop("l", step("d"), choice("e", "$end", "$next")),
        {"id": "p", "type": "parallel", "parallel_steps": [step("f"), [step("g"), step("h")]]},
    )
    place, seen = flow.order.place, set(flow.order.nodes)
    back = [
        (flow.nodes[index].kind, edge.label)
        for index in seen
        for edge in flow.nodes[index].edges
        if place[edge.target] <= place[index]
    ]
    assert back == [("test", "again")]
    assert [flow.order.nodes[place[index]] for index in seen] == list(seen)
    assert flow.order.nodes[0] == flow.frames[0].entry


def test_what_no_path_leads_to_has_no_place() -> None:
    flow = flow_of(step("a", next="$end"), choice("c", [step("b")]))
    flow.nodes.append(flow._node("step", flow.nodes[2].step, "jump", flow.frames[0], (), None))
    assert flow.order.place[-1] == -1


def test_a_sweep_takes_what_a_loop_queues_again_in_the_next_pass() -> None:
    flow = flow_of(step("a"), step("b"), step("c"), step("d"))
    queued = bytearray(len(flow.order.nodes))
    queued[0] = 1
    again = {2: [0, 1], 0: [2], 3: []}  # by place, what is queued there, once
    seen = []
    for index in flow.order.sweep(queued):
        at = flow.order.place[index]
        seen.append(at)
        for other in again.pop(at, []):
            queued[other] = 1
    assert seen == [0, 2, 0, 1]
    assert not any(queued)


def test_what_a_step_means_is_worked_out_once_for_all_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of each step what it reads, writes, calls, where it goes and what its output is made of."""
    asked: list[tuple[str, str]] = []

    def counted(word: str) -> None:
        meaning = getattr(flows, word)

        def told(of: Any) -> Any:
            asked.append((word, of.id))
            return meaning(of)

        monkeypatch.setattr(flows, word, told)

    words = ("control", "output", "reads", "tool_calls", "writes")
    for word in words:
        counted(word)
    program = Program.from_dict(
        {
            "steps": [
                choice("c", [step("s")], [step("t", "tool", tool="pay", args={"to": "$who"})]),
                loop("l", step("m", "llm", prompt="Is $who there?", output_key="x")),
                step("out", values={"x": "$m.output"}),
            ]
        }
    )
    policy = {
        "inputs": {"who": "untrusted"},
        "tools": {"pay": {"guarded_by": "c.otherwise", "args": {"to": "any"}}},
    }
    found = verify(program, tools={"pay": lambda to: to}, policy=policy)
    assert found.proofs
    assert {proof.status for proof in found.proofs} == {"proved"}
    assert {word for word, _ in asked} == set(words)
    assert len(asked) == len(set(asked))


def test_a_graph_goes_with_the_check_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is left for the cycle collector, or with the report."""
    nodes: list[weakref.ref[Node]] = []

    class Noted(Flow):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            nodes.extend(map(weakref.ref, self.nodes))

    monkeypatch.setattr(import_module("nano_vm.verify.examine"), "Flow", Noted)
    inner = {"name": "inner", "inputs": {"properties": {"y": {}}}, "steps": [step("in")]}
    program = Program.from_dict(
        {
            "steps": [
                {
                    "id": "p",
                    "type": "parallel",
                    "parallel_steps": [step("a", values={"u": 1}), step("b", values={"v": 1})],
                },
                step("l", "llm", prompt="Is $who there?", allowed_outputs=["yes", "no"]),
                choice("c", [step("s")], when="$l.output == 'yes' and $who != ''"),
                step("m", "map", over=[1, 2], **{"as": "it"}, steps=[step("i")]),
                step("call", "call", program=inner, **{"with": {"y": "$who"}}),
                loop("r", step("t", "tool", tool="pay", args={"to": "$who"}, output_key="x")),
            ]
        }
    )
    policy = {
        "secret": ["person"],
        "inputs": {"who": ["person"]},
        "models": {"*": {"accepts": "any"}},
        "tools": {"pay": {"after": "l", "args": {"to": "any"}}},
        "accepts": {"output": "any", "errors": "any"},
    }
    gc.collect()
    gc.disable()
    try:
        found = verify(program, tools={"pay": lambda to: to}, policy=policy)
        left = [node for node in nodes if node() is not None]
    finally:
        gc.enable()
    assert {proof.status for proof in found.proofs} == {"proved"}
    assert found.ceiling is not None
    assert found.ceiling.path[:3] == ("p", "a", "b")
    assert nodes
    assert not left


def test_in_order() -> None:
    assert edges(flow_of(step("a"), step("b"))) == ["a next b", "b next end"]


def test_next() -> None:
    assert edges(flow_of(step("a", next="c"), step("b"), step("c"))) == ["a next c", "c next end"]


def test_a_target_without_next_ends_its_frame() -> None:
    flow = flow_of(choice("c", "a", "b"), step("a"), step("b"), step("d"))
    assert edges(flow) == ["c then a!", "c otherwise b!", "a! next end", "b! next end"]


def test_a_target_with_next_goes_on_in_order() -> None:
    flow = flow_of(choice("c", "a", "b"), step("a", next="b"), step("b"), step("d"))
    assert edges(flow) == [
        "c then a",
        "c otherwise b!",
        "a next b",
        "b! next end",
        "b next d",
        "d next end",
    ]


def test_a_step_has_two_states() -> None:
    flow = flow_of(step("a"), choice("c", "a", "$next"), step("d"))
    assert edges(flow) == ["a next c", "c then a!", "c otherwise d", "a! next end", "d next end"]


def test_reached_by_jump_any_form_ends_its_frame_after_its_blocks() -> None:
    flow = flow_of(choice("c", "b", "$end"), choice("b", [step("i")], next=None), step("d"))
    assert edges(flow) == [
        "c then b!",
        "c otherwise end",
        "b! then i",
        "b! otherwise close b!",
        "i next close b!",
        "close b! next end",
        "close b! next end",  # each branch has its own
    ]


def test_a_block_returns_to_its_container() -> None:
    flow = flow_of(choice("c", [step("i"), step("j")], []), step("d"))
    assert edges(flow) == [
        "c then i",
        "c otherwise close c",
        "i next j",
        "close c next d",
        "j next close c",
        "d next end",
        "close c next d",
    ]


def test_a_missing_otherwise() -> None:
    """Beside a block an empty block; beside a jump a failure."""
    block = edges(flow_of(choice("c", [step("i")]), step("d")))
    assert [edge for edge in block if edge.startswith("c otherwise")] in (
        ["c otherwise d"],
        ["c otherwise close c"],
    )
    assert "c otherwise fail" in edges(flow_of(choice("c", "d"), step("d")))


def test_dollar_targets() -> None:
    flow = flow_of(
        step(
            "s", "switch", on="x", cases={"a": "$end", "b": "$fail", "c": "$next"}, default="$end"
        ),
        step("d"),
    )
    assert edges(flow) == [
        "s case:a end",
        "s case:b fail",
        "s case:c d",
        "s default end",
        "d next end",
    ]


def test_a_switch_without_default_fails() -> None:
    flow = flow_of(step("s", "switch", on="x", cases={"a": "$end"}))
    node = flow.nodes[flow.frames[0].entry]
    assert [edge.label for edge in node.edges] == ["case:a", "error", "error"] or [
        e.label for e in node.edges
    ] == [
        "case:a",
        "error",
    ]


def test_a_loop() -> None:
    flow = flow_of(
        step(
            "l", "loop", max_iterations=2, until="true", on_exhausted="continue", steps=[step("i")]
        ),
        step("d"),
    )
    assert edges(flow) == [
        "l next i",
        "i next test l",
        "test l until d",
        "test l again i",
        "test l exhausted d",
        "d next end",
    ]


def test_a_jump_out_of_a_loop() -> None:
    flow = flow_of(
        step(
            "l",
            "loop",
            max_iterations=2,
            until="true",
            steps=[choice("i", "d", "$next"), step("j")],
        ),
        step("m"),
        step("d"),
    )
    assert "i then d!" in edges(flow)
    assert "d! next end" in edges(flow)


def test_a_fork_has_an_edge_to_each_branch_and_one_round_them() -> None:
    flow = flow_of(
        step("p", "parallel", parallel_steps=[step("a"), [step("b"), step("c")]], on_error="skip"),
        step("d"),
    )
    assert edges(flow) == [
        "p fork a[a]",
        "p fork b[b]",
        "p next d",
        "p skip d",
        "a[a] next end[a]",
        "b[b] next c[b]",
        "d next end",
        "c[b] next end[b]",
    ]


def test_sibling_branches_are_not_before_each_other() -> None:
    flow = flow_of(step("p", "parallel", parallel_steps=[step("a"), step("b")]), step("d"))
    assert not [
        edge
        for edge in edges(flow)
        if (edge.startswith("a[") and "b[" in edge) or (edge.startswith("b[") and "a[" in edge)
    ]


def test_a_map() -> None:
    flow = flow_of(step("m", "map", over=[1], steps=[step("i", next="$end"), step("j")]), step("d"))
    assert edges(flow) == ["m fork i[item]", "m next d", "i[item] next end[item]", "d next end"]


def test_a_call() -> None:
    flow = flow_of(
        step("c", "call", program="sub"), step("d"), sub={"name": "sub", "steps": [step("i")]}
    )
    assert edges(flow) == ["c fork i[sub]", "c next d", "i[sub] next end[sub]", "d next end"]


def test_catch_is_a_jump_and_skip_is_not() -> None:
    catch = [{"errors": ["tool"], "next": "b"}]
    flow = flow_of(step("a", "tool", tool="f", catch=catch, on_error="skip"), step("b"), step("c"))
    assert edges(flow) == [
        "a next b",
        "a catch b!",
        "a skip b",
        "b next c",
        "b! next end",
        "c next end",
    ]


def test_a_condition_that_is_skipped_takes_otherwise() -> None:
    assert "c skip b!" in edges(
        flow_of(choice("c", "a", "b", on_error="skip"), step("a"), step("b"))
    )
    assert "c skip fail" in edges(flow_of(choice("c", "a", on_error="skip"), step("a")))
    blocks = edges(flow_of(choice("c", [step("a")], [step("b")], on_error="skip"), step("d")))
    assert "c skip b" in blocks
    switch = step("s", "switch", on="x", cases={"a": "a"}, default="b", on_error="skip")
    assert "s skip b!" in edges(flow_of(switch, step("a"), step("b")))
    switch = step("s", "switch", on="x", cases={"a": "a"}, on_error="skip")
    assert "s skip fail" in edges(flow_of(switch, step("a")))


def test_a_skipped_condition_never_falls_through() -> None:
    for otherwise in (None, "b"):
        found = edges(
            flow_of(
                choice("c", "a", otherwise, on_error="skip"), step("guarded"), step("a"), step("b")
            )
        )
        assert not [edge for edge in found if edge.startswith("c ") and edge.endswith(" guarded")]


def test_the_handlers_of_a_loop_take_what_fails_inside() -> None:
    body = [step("i", "tool", tool="f")]
    flow = flow_of(
        step("l", "loop", max_iterations=1, until="true", catch=[{"next": "d"}], steps=body),
        step("m"),
        step("d"),
    )
    assert "i catch d!" in edges(flow)
    assert "test l catch d!" in edges(flow)


def test_every_node_but_ends_leads_somewhere_and_can_fail() -> None:
    flow = flow_of(
        choice("c", "a", [step("b")]),
        step("a", "tool", tool="f"),
        step("p", "parallel", parallel_steps=[step("x")]),
        step("l", "loop", max_iterations=1, until="true", steps=[step("i")]),
    )
    for node in flow.nodes:
        if node.kind in ("end", "fail"):
            assert node.edges == []
        else:
            assert node.edges
            # a loop fails by its test
            if node.kind != "close" and not (node.kind == "step" and node.step.id == "l"):
                assert any(edge.label == "error" for edge in node.edges)


def test_no_edge_but_fork_enters_a_frame() -> None:
    flow = flow_of(
        step(
            "m",
            "map",
            over=[1],
            steps=[step("p", "parallel", parallel_steps=[step("x"), step("y")]), step("z")],
        ),
        step("c", "call", program={"steps": [step("m")]}),
    )
    for node in flow.nodes:
        for edge in node.edges:
            target = flow.nodes[edge.target]
            assert (target.frame is node.frame) != (edge.label == "fork")


# --- what leads nowhere ---------------------------------------------------------------------------


SUB = {"steps": [step("s")]}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([step("a", next="bb"), step("b")], [("V003", "steps[0].next"), ("V009", "steps[1]")]),
        ([choice("a", [step("b", next="d")], [step("d")])], [("V004", "steps[0].then[0].next")]),
        (
            [step("m", "map", over=[1], steps=[step("i", next="e")]), step("e")],
            [("V004", "steps[0].steps[0].next")],
        ),
        ([step("a"), step("b", next="a")], [("V005", "steps[1].next")]),
        ([step("a", "call", program="nope")], [("V006", "steps[0].program")]),
        ([step("a", next="c"), step("b"), step("c")], [("V009", "steps[1]")]),
        ([step("a", values={"y": "$b.output"}), step("b")], [("V010", "steps[0].values.y")]),
        (
            [step("a", "tool", tool="f", on_error="skip"), step("b", values={"y": "$a.output"})],
            [("V011", "steps[1].values.y")],
        ),
        ([step("a", "tool", tool="nope")], [("V020", "steps[0].tool")]),
        ([step("a", "tool", tool="g")], [("V021", "steps[0]")]),
        ([step("a", "tool", tool="g", args={"n": "x"})], [("V022", "steps[0].args.n")]),
        ([step("a", "llm", prompt="q")], [("V030", "steps[0]")]),
    ],
)
def test_codes(steps: list[dict[str, Any]], expected: list[tuple[str, str]]) -> None:
    def g(n: int) -> int:
        return n

    found = ExecutionVM(tools={"f": lambda: 1, "g": g}).check(Program.from_dict({"steps": steps}))
    assert [(d.code, d.place) for d in found] == expected


def test_a_program_that_calls_itself() -> None:
    data = {"steps": [step("c", "call", program="other")]}
    programs = {
        "main": Program.from_dict(data),
        "other": Program.from_dict({"steps": [step("d", "call", program="main")]}),
    }
    found = ExecutionVM(programs=programs).check(programs["main"])
    assert [d.code for d in found if d.severity == "error"] == ["V007"]
    assert "'loop' and 'map' only" in str(found[0])


@pytest.mark.slow
def test_calls_of_calls_are_bounded() -> None:
    """Ten programs, each calling the next one ten times, would be ten thousand million steps."""
    programs = {
        f"p{i}": Program.from_dict(
            {
                "name": f"p{i}",
                "steps": [step(f"c{j}", "call", program=f"p{i + 1}") for j in range(10)],
            }
        )
        for i in range(10)
    }
    programs["p10"] = Program.from_dict({"steps": [step("s")]})
    found = ExecutionVM(programs=programs).check(programs["p0"])
    assert "V008" in [d.code for d in found]


@pytest.mark.slow
def test_nested_doubles_are_bounded() -> None:
    """A block in a block in a block, each entered both ways, doubles its nodes at each level."""
    inner: list[dict[str, Any]] = [step("s")]
    for i in range(40):
        inner = [
            step(f"x{i}"),
            choice(f"c{i}", inner, next=None),
            choice(f"j{i}", f"c{i}", "$next"),
        ]
    flow = flow_of(*inner)
    assert len(flow.nodes) <= 110_000
    assert not flow.diagnostics or [d.code for d in flow.diagnostics] == ["V008"]


@pytest.mark.slow
def test_the_flow_is_linear_in_the_program() -> None:
    steps = [choice(f"c{i}", [step(f"a{i}")], [step(f"b{i}")]) for i in range(1000)]
    flow = flow_of(*steps)
    assert len(flow.nodes) <= 6 * 1000


# --- LANGUAGE 5 by running ------------------------------------------------------------------------


def paths(*steps: dict[str, Any]) -> list[str]:
    trace = ExecutionVM().run_sync(Program.from_dict({"steps": list(steps)}))
    assert trace.ok, trace.error
    return [s.path for s in trace.steps]


def test_the_second_run_of_a_step_has_its_own_path() -> None:
    assert paths(step("a"), choice("c", "a", "$next"), step("d")) == ["a", "c", "a#2"]


def test_the_second_run_of_a_step_with_blocks() -> None:
    assert paths(choice("a", [step("b")]), choice("c", "a", "$next")) == [
        "a",
        "a/b",
        "c",
        "a#2",
        "a#2/b",
    ]


def test_the_second_run_of_a_loop() -> None:
    loop = step("l", "loop", max_iterations=2, on_exhausted="continue", steps=[step("i")])
    assert paths(loop, choice("c", "l", "$next")) == [
        "l#1/i",
        "l#2/i",
        "l",
        "c",
        "l#2#1/i",
        "l#2#2/i",
        "l#2",
    ]


def test_the_second_run_inside_an_iteration() -> None:
    body = [step("i"), choice("c", "i", "$next")]
    found = paths(step("l", "loop", max_iterations=1, on_exhausted="continue", steps=body))
    assert len(set(found)) == len(found)


def test_the_second_run_of_a_fork() -> None:
    fork = step("p", "parallel", parallel_steps=[step("x")])
    found = paths(fork, choice("c", "p", "$next"))
    assert found == ["p/x", "p", "c", "p#2/x", "p#2"]
