"""`when`, seen by everything that reads the graph: proofs, trust, values, the worst case, pictures,
exploration, replay.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from build import llm, mapped, program, step

from nano_vm import ExecutionVM, Program, Trace, TraceStatus, tool
from nano_vm.cli import main
from nano_vm.draw.dot import dot
from nano_vm.draw.mermaid import mermaid
from nano_vm.draw.svg import svg
from nano_vm.language.flow import Flow
from nano_vm.replay import replay
from nano_vm.replay import verify as verified
from nano_vm.testing import ScriptedLLM, explore
from nano_vm.verify.data.names import check_names
from nano_vm.verify.data.possible import infeasible_edges
from nano_vm.verify.report import Report


@tool(effect="irreversible")
async def pay(to: Any = None) -> str:
    return f"paid {to}"


@tool(effect="read")
async def look(q: Any = None) -> Any:
    return q


TOOLS = {"pay": pay, "look": look}


def noted(id: str = "n", **values: Any) -> dict[str, Any]:
    return {"id": id, "type": "set", "values": values or {"z": 1}}


def report(made: Program, rules: dict[str, Any], **policy: Any) -> Report:
    vm = ExecutionVM(ScriptedLLM(["yes"]), TOOLS, policy={"tools": {"pay": rules}, **policy})
    return vm.verify(made)


def statuses(made: Program, rules: dict[str, Any], **policy: Any) -> list[str]:
    return [proof.status for proof in report(made, rules, **policy).proofs]


# --- guards ---------------------------------------------------------------------------------------

ASK = llm("ask", allowed_outputs=["yes", "no"], output_key="ok")
SEND = step("send", "pay", args={"to": "$ok"}, when="$ok == 'yes'")
MAIL = noted("mail", to="x")

GUARDED: list[tuple[str, list[dict[str, Any]], str]] = [
    ("proved", [ASK, SEND], "send.when"),
    ("refuted", [ASK, SEND], "send.unless"),
    # one decision, one call
    ("refuted", [ASK, SEND, step("again", "pay")], "send.when"),
    ("proved", [ASK, SEND, step("again", "pay", when="$ok == 'yes'")], ("send.when", "again.when")),
    # a step around the call decides
    ("proved", [ASK, {**mapped(step("send", "pay"), over=[1]), "when": "$ok == 'yes'"}], "m.when"),
    (
        "refuted",
        [ASK, {**mapped(step("send", "pay"), over=[1, 2]), "when": "$ok == 'yes'"}],
        "m.when",
    ),
    # a loop's decision is made once, before its first iteration
    (
        "refuted",
        [
            ASK,
            {
                "id": "l",
                "type": "loop",
                "when": "$ok == 'yes'",
                "max_iterations": 2,
                "on_exhausted": "continue",
            }
            | {"steps": [step("send", "pay")]},
        ],
        "l.when",
    ),
    (
        "proved",
        [
            ASK,
            {"id": "l", "type": "loop", "max_iterations": 2, "on_exhausted": "continue"}
            | {"steps": [step("send", "pay", when="$ok == 'yes'")]},
        ],
        "send.when",
    ),
    # what it read is written before the call is made
    (
        "refuted",
        [
            ASK,
            {"id": "c", "type": "condition", "when": "$ok == 'yes'", "condition": "true"}
            | {"then": [noted("w", ok="other"), step("send", "pay", args={"to": "$ok"})]},
        ],
        "c.when",
    ),
    # where the step is skipped, its guard was not crossed
    ("refuted", [ASK, noted("g") | {"when": "$ok == 'yes'"}, step("send", "pay")], "g.when"),
    (
        "proved",
        [ASK, noted("g") | {"when": "$ok == 'yes'", "next": "send"}, step("send", "pay")],
        ("g.when", "g.unless"),
    ),
    # a condition that is not asked takes its `otherwise`, and so that is no `otherwise` that was decided
    (
        "refuted",
        [
            ASK,
            {"id": "c", "type": "condition", "when": "$ok == 'yes'", "condition": "$ok == 'no'"}
            | {"then": "$end", "otherwise": "send"},
            step("send", "pay"),
        ],
        "c.otherwise",
    ),
]


@pytest.mark.parametrize(("status", "steps", "edges"), GUARDED)
def test_guards(status: str, steps: list[dict[str, Any]], edges: str | tuple[str, ...]) -> None:
    named = [edges] if isinstance(edges, str) else list(edges)
    found = report(program(*steps), {"guarded_by": named})
    assert [proof.status for proof in found.proofs] == [status], str(found)
    assert not any(d.code == "V054" for d in found.diagnostics)


def test_a_skip_is_no_run_of_the_step() -> None:
    skipped = step("first", "look", when="$ok == 'yes'")
    assert statuses(program(ASK, skipped, step("send", "pay")), {"after": ["first"]}) == ["refuted"]
    assert statuses(program(ASK, skipped, step("send", "pay")), {"after": ["look"]}) == ["refuted"]
    assert statuses(
        program(ASK, skipped, step("send", "pay", when="$ok == 'yes'")), {"after": ["send.when"]}
    ) == ["proved"]


def test_a_guard_that_decides_nothing_says_so() -> None:
    (proof,) = report(
        program(step("send", "pay", when="true")), {"guarded_by": ["send.when"]}
    ).proofs
    assert proof.status == "proved"
    assert "decides nothing" in str(proof)
    (proof,) = report(program(ASK, SEND), {"guarded_by": ["send.when"]}).proofs
    assert "decides nothing" not in str(proof)


def test_what_comes_before_its_edges_comes_before_it() -> None:
    first, held = step("send", "pay"), step("x", "look", when="$ok == 'yes'")
    for edge in ("x.when", "x.unless"):
        assert statuses(program(ASK, first, held), {"before": [edge]}) == ["proved"]
        assert statuses(program(ASK, held, first), {"before": [edge]}) == ["refuted"]


def test_a_name_with_two_readings_names_no_edge() -> None:
    switch = {
        "id": "s",
        "type": "switch",
        "on": "$ok",
        "cases": {"when": "$end", "no": "$next"},
        "default": "$next",
    }
    found = report(
        program(ASK, {**switch, "when": "$ok == 'yes'"}, step("send", "pay")),
        {"guarded_by": ["s.when"]},
    )
    assert [d.code for d in found.diagnostics if d.severity == "error"] == ["V054"]
    assert "s has" not in str(found)


def test_a_skip_ends_an_approval_of_what_it_clears() -> None:
    ask = {"id": "boss", "type": "approval", "role": "boss", "show": {"to": "$k"}}
    first = [noted("w", k="a"), ask]
    rules = {"args": {"to": {"approval": "boss", "trusted": False}}}
    call = step("send", "pay", args={"to": "$k"})
    held = step("g", "look", args={"q": 1}, when="$go", output_key="k", default="b")
    inputs = {"type": "object", "properties": {"go": {"type": "boolean"}}, "required": ["go"]}
    assert statuses(program(*first, call, inputs=inputs), rules) == ["proved"]
    assert statuses(program(*first, held, call, inputs=inputs), rules) == ["refuted"]
    beside = noted("n") | {"when": "$go"}
    assert statuses(program(*first, beside, call, inputs=inputs), rules) == ["proved"]


# --- trust, values, names, the worst case ---------------------------------------------------------


def test_what_it_reads_decides_and_does_not_flow() -> None:
    inputs = {"type": "object", "properties": {"mail": {"type": "string"}}, "required": ["mail"]}
    made = program(step("send", "pay", args={"to": "me"}, when="$mail == 'pay'"), inputs=inputs)
    found = report(made, {"args": {"to": "trusted"}}, inputs={"mail": "untrusted"})
    assert found.ok
    branches = [flow for flow in found.flows if flow.kind == "branch"]
    assert [(flow.step_id, flow.loc) for flow in branches] == [("send", ("steps", 0, "when"))]
    asked = program(
        llm("ask", "hi", when="$mail == 'pay'"),
        step("send", "pay", args={"to": "$ask.output"}),
        inputs=inputs,
    )
    assert (
        report(asked, {"args": {"to": "trusted"}}, inputs={"mail": "untrusted"}).proofs[0].status
        == "proved"
    )


def said(*steps: dict[str, Any], **fields: Any) -> list[str]:
    found = ExecutionVM(ScriptedLLM(["yes"]), TOOLS).verify(program(*steps, **fields)).diagnostics
    return [f"{d.severity} {d.code} {d.place}" for d in found if d.severity != "hint"]


def test_tests_that_decide_nothing_are_told() -> None:
    first = llm("ask", allowed_outputs=["yes", "no"], output_key="ok")
    assert said(first, step("a", "look", when="$ok == 'maybe'"), noted()) == [
        "warning V060 steps[1].when"
    ]
    assert said(first, step("a", "look", when="$ok in ['yes', 'no']"), noted()) == [
        "warning V060 steps[1].when"
    ]
    assert said(first, step("a", "look", when="$ok == 'yes'"), noted()) == []
    assert said(first, step("a", "look", when="true"), noted()) == []


def test_no_run_takes_what_its_values_rule_out() -> None:
    made = program(
        llm("ask", allowed_outputs=["a", "b"], output_key="k"),
        llm("b", allowed_outputs=["c"], output_key="k", when="$k == 'a'", default="d"),
        {
            "id": "s",
            "type": "switch",
            "on": "$k",
            "cases": dict.fromkeys("abcd", "$next"),
            "default": "$fail",
        },
        noted("x", y="$k") | {"when": "$k == 'a'"},
    )
    flow = Flow(made)
    labels = {(flow.nodes[node].step.id, label) for node, label in infeasible_edges(flow)}
    # what is skipped has its default and not what was there before it, whatever its `when` read
    assert labels == {("s", "case:a"), ("s", "case:b"), ("s", "default"), ("x", "when")}


def test_what_a_skip_leaves_unset() -> None:
    def codes(*steps: dict[str, Any]) -> list[str]:
        return [f"{d.severity} {d.code} {d.place}" for d in check_names(Flow(program(*steps)))]

    read = noted("r", y="$a.output")
    held = step("a", "look", when="$go", output_key="k")
    assert codes(held, read) == ["warning V011 steps[1].values.y"]
    assert codes({**held, "default": None}, read) == []
    # by value, not by condition
    assert codes(held, {**read, "when": "$go"}) == ["warning V011 steps[1].values.y"]
    # its own `when` reads what was there before, and what the step would have written is cleared
    assert codes(noted("b", k=1), {**held, "when": "$k == 1"}, noted("r", y="$k")) == [
        "warning V011 steps[2].values.y"
    ]
    assert codes({**held, "when": "$a.output == 1"})[0].startswith("error V010 steps[0].when")
    assert codes(noted("b", k=1) | {"when": "$go"}, noted("r", y="$k")) == [
        "warning V011 steps[1].values.y"
    ]


def test_the_worst_case_counts_a_step_once() -> None:
    vm = ExecutionVM(ScriptedLLM(["yes"]), TOOLS)
    loop = {
        "id": "l",
        "type": "loop",
        "max_iterations": 3,
        "on_exhausted": "continue",
        "when": "$go",
    }
    made = program(
        step("a", "look", when="$go", max_retries=2),
        {**loop, "steps": [step("b", "look", when="$go"), noted()]},
        llm("q", when="$go"),
    )
    most = vm.verify(made).ceiling
    assert most is not None
    assert (most.steps, most.tool_calls, most.llm_calls) == (1 + 1 + 3 * 2 + 1, 2 + 3, 1)
    bound = {"max_steps": most.steps}
    for go in (True, False):
        trace = vm.run_sync(made, {"go": go}, budget=bound)
        assert trace.ok
    assert vm.run_sync(made, {"go": False}, budget={"max_steps": 2}).error_kind == "budget"


# --- pictures, plans, exploration -----------------------------------------------------------------

PICTURED = program(step("a", "look", when="$x == 'yes'", on_error="skip"), noted("b"), name="p")


def test_it_is_drawn() -> None:
    text = mermaid(Flow(PICTURED))
    assert "when $x == 'yes'" in text
    assert '-->|"when"|' in text
    assert '-->|"unless"|' in text
    assert "unless" in dot(Flow(PICTURED))
    assert "unless" in svg(Flow(PICTURED))


def test_the_plan_says_it() -> None:
    lines = ExecutionVM(None, TOOLS).plan(PICTURED).explain().splitlines()
    assert "     2 when a $x == 'yes' -> $a.output  [when 3, unless 4, skip 4]" in lines
    assert "     3 tool a look() read -> $a.output  [next 4, skip 4]" in lines


def test_every_way_is_explored() -> None:
    loop = {
        "id": "l",
        "type": "loop",
        "max_iterations": 9,
        "until": "$n > 1",
        "when": "$go == 'yes'",
    }
    made = program(
        step("get", "look", output_key="go"),
        noted("z", n=0),
        {**loop, "steps": [noted("n", n={"expr": "$n + 1"}), step("send", "pay", when="$n < 2")]},
        {
            "id": "s",
            "type": "switch",
            "on": "$go",
            "cases": {"a": "$next"},
            "default": "$next",
            "when": "$n == 0",
        },
        noted("b"),
    )
    found = explore(made, tools=TOOLS)
    assert found.coverage.missed == ()
    assert found.coverage.steps_reached == found.coverage.steps


def test_the_properties_of_an_exploration_know_it() -> None:
    from nano_vm.testing import only_after

    loop = {
        "id": "l",
        "type": "loop",
        "max_iterations": 1,
        "on_exhausted": "continue",
        "when": "$go",
    }
    made = program(step("get", "look", output_key="go"), {**loop, "steps": [step("send", "pay")]})
    assert explore(made, tools=TOOLS, properties=only_after("pay", "l.when")).ok
    held = program(step("get", "look", output_key="go"), step("send", "pay", when="$go"))
    assert explore(held, tools=TOOLS, properties=only_after("pay", "send.when")).ok
    assert not explore(held, tools=TOOLS, properties=only_after("pay", "send.unless")).ok
    other = program(
        step("get", "look", output_key="go"), noted("g") | {"when": "$go"}, step("send", "pay")
    )
    assert not explore(other, tools=TOOLS, properties=only_after("pay", "g.when")).ok


# --- runs -----------------------------------------------------------------------------------------

PAID = program(
    llm("ask", "$mail", allowed_outputs=["yes", "no"], output_key="ok"), SEND, noted("end")
)


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_a_run_is_replayed_and_verified(answer: str) -> None:
    trace = ExecutionVM(ScriptedLLM([answer]), TOOLS).run_sync(PAID, {"mail": "x"})
    back = Trace.from_json(trace.to_json())
    assert replay(back, PAID).identical
    assert back.steps[1].branch == (None if answer == "yes" else "unless")
    changed = json.loads(trace.to_json())
    changed["records"][2]["extra"]["when" if answer == "yes" else "references"]["$ok"] = "other"
    assert not verified(_unchecked(changed, PAID))


def _unchecked(data: dict[str, Any], made: Program) -> Any:
    from nano_vm.records.trace import recording_of
    from nano_vm.replay import subject_of

    return subject_of(Trace(recording_of(data)), made)


def test_a_stored_run_goes_on_behind_a_skip(tmp_path: Path) -> None:
    made = program(
        noted("s", k="no"),
        step("send", "pay", when="$k == 'yes'", default="none"),
        {"id": "boss", "type": "approval", "role": "boss", "when": "$k == 'no'"},
        step("more", "pay", args={"to": "$send.output"}, when="$boss.output.approved"),
    )

    async def go() -> None:
        vm = ExecutionVM(
            None, TOOLS, store=f"sqlite:///{tmp_path / 'runs.db'}", roles=lambda who: ["boss"]
        )
        trace = await vm.run(made, run_id="r")
        assert trace.status is TraceStatus.SUSPENDED
        (entry,) = vm.waiting("r")
        vm.approve("r", entry["path"], shown=entry["shown"], by="ann")
        trace = await vm.resume("r")
        assert (trace.status, trace.final_output) == (TraceStatus.SUCCESS, "paid none")
        assert [(s.path, s.status.value) for s in trace.steps] == [
            ("s", "success"),
            ("send", "skipped"),
            ("boss", "success"),
            ("more", "success"),
        ]
        assert verified(_stored(vm, "r"))
        vm.close()

    asyncio.run(go())


def _stored(vm: ExecutionVM, run_id: str) -> Any:
    from nano_vm.replay import subject_of

    return subject_of(run_id, None, {}, vm.store)


@pytest.mark.slow
def test_the_command_line_says_why_a_step_was_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text("steps: [{id: a, type: set, values: {x: 1}, when: \"$go == 'yes'\"}]")
    assert main(["run", "p.yaml", "-i", "go=no"]) == 0
    assert "when is false: $go = no" in capsys.readouterr().out.replace('"', "").replace("'", "")
