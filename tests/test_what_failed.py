"""`$step.error`, `$step.errors` and what a failed fork leaves: in the machine, in stores and
replays, and in what is proved.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from build import llm, mapped, parallel, program, step
from test_whole_run import Host

from nano_vm import ExecutionVM, Limits, Program, Trace, TraceStatus, tool
from nano_vm.errors import ProgramError
from nano_vm.language.expr import parse_template
from nano_vm.language.flow import Flow
from nano_vm.records.record import MAX_LISTED, MAX_MESSAGE, MAX_WORD, StepError
from nano_vm.replay import fork, replay, subject_of, verify
from nano_vm.testing import explore
from nano_vm.values import canonical
from nano_vm.verify.cost.ceiling import ceiling
from nano_vm.verify.cost.sizes import Sizes

ANY = {"errors": ["*"], "next": "after"}


def after(**values: Any) -> dict[str, Any]:
    return {"id": "after", "type": "set", "values": values}


def work(x: Any) -> Any:
    if x in ("bad", "worse"):
        raise ValueError(f"{x}: {'long ' * 5_000 if x == 'worse' else 'no'}")
    return f"{x} done"


def each(over: Any = "$list", **fields: Any) -> dict[str, Any]:
    return mapped(step("a", "work", args={"x": "$item"}), over=over, **fields)


def run(made: Program, inputs: dict[str, Any] | None = None, **options: Any) -> Trace:
    trace = ExecutionVM(tools={"work": work}, **options).run_sync(made, inputs or {})
    assert verify(subject_of(trace, made)), trace.error
    return trace


# --- the machine ----------------------------------------------------------------------------------


def test_a_long_message_is_cut() -> None:
    one = program(
        step("a", "work", args={"x": "worse"}, catch=[ANY], next="$end"),
        after(n={"expr": "len($a.error.message)"}),
    )
    assert run(one).output == {"n": MAX_MESSAGE + 3}
    many = program(
        each(on_item_error="continue"),
        after(n={"expr": "len($m.errors[0].message)"}, of="$m.errors[0].item"),
    )
    assert run(many, {"list": [1, "worse"]}).output == {"n": MAX_LISTED + 3, "of": 1}


def test_what_stands_in_a_handlers_error_is_bounded() -> None:
    told = StepError("k" * 1_000, "T" * 1_000, "m" * 20_000).told()
    assert (len(told["kind"]), len(told["type"]), len(told["message"])) == (
        MAX_WORD,
        MAX_WORD,
        MAX_MESSAGE + 3,
    )


def test_a_handler_may_change_what_it_read() -> None:
    """The value is its own: what a tool makes of it is not seen by the next reader."""
    seen: list[Any] = []

    def spoil(error: dict[str, Any]) -> None:
        seen.append(dict(error))
        error["message"] = "changed"

    one = program(
        step("a", "work", args={"x": "bad"}, catch=[{"errors": ["*"], "next": "s1"}], next="$end"),
        step("s1", "spoil", args={"error": "$a.error"}, next="s2"),
        step("s2", "spoil", args={"error": "$a.error"}),
    )
    assert ExecutionVM(tools={"work": work, "spoil": spoil}).run_sync(one).ok
    assert [error["message"] for error in seen] == ["bad: no", "bad: no"]


def test_a_fork_that_runs_again_and_never_begins_leaves_nothing_of_the_time_before() -> None:
    turns = iter([["x", "bad"], 7])
    one = program(
        {
            "id": "l",
            "type": "loop",
            "max_iterations": 2,
            "on_exhausted": "continue",
            "steps": [
                step("next", "next"),
                each("$next.output", catch=[{"errors": ["*"], "next": "after"}]),
                {**after(got="$m.output", kind="$m.error.kind"), "next": "last"},
                {"id": "last", "type": "set", "values": {"x": 1}},
            ],
        }
    )
    trace = ExecutionVM(tools={"work": work, "next": lambda: next(turns)}).run_sync(one)
    assert [s.output for s in trace.steps if s.step_id == "after"] == [
        {"got": ["x done", None], "kind": "tool"},
        {"got": [], "kind": "value"},
    ]


def test_what_is_too_large_together_is_null() -> None:
    made = program(each(catch=[ANY], next="$end"), after(got="$m.output", why="$m.error.message"))
    limits = Limits(value_bytes=4_000)
    inputs = {"list": ["a" * 1_500, "b" * 1_500, "bad"]}
    assert run(made, inputs).output["got"] == ["a" * 1_500 + " done", "b" * 1_500 + " done", None]
    tight = run(made, inputs, limits=Limits(value_bytes=4_000, state_bytes=3_000)).output
    assert tight == {"got": [None] * 3, "why": "item [2]: Step 'a' failed: ValueError: bad: no"}
    assert (
        run(made, {"list": ["a" * 1_500, "b" * 1_500, "c" * 1_500]}, limits=limits).output["got"]
        == [None] * 3
    )


@pytest.mark.parametrize("handled", ["catch", "skip"])
@pytest.mark.parametrize("kind", ["tool", "condition"])
def test_a_success_clears_the_error_of_the_time_before(kind: str, handled: str) -> None:
    how: dict[str, Any] = (
        {"on_error": "skip"} if handled == "skip" else {"catch": [{"errors": ["*"], "next": "b"}]}
    )
    body = [
        step("n", "next"),
        step("a", "work", args={"x": "$n.output"}, **how)
        if kind == "tool"
        else {
            "id": "a",
            "type": "condition",
            "condition": "$n.output < 5",
            "then": "$next",
            "otherwise": "$next",
            **how,
        },
        {
            "id": "b",
            "type": "set",
            "values": {"x": {"expr": "default($a.error.kind, 'none')"}},
            "next": "last",
        },
        {"id": "last", "type": "set", "values": {"y": 1}},
    ]
    turns = iter([1, "bad", 2])
    loop = {
        "id": "l",
        "type": "loop",
        "max_iterations": 3,
        "on_exhausted": "continue",
        "steps": body,
    }
    trace = ExecutionVM(tools={"work": work, "next": lambda: next(turns)}).run_sync(program(loop))
    assert [s.output["x"] for s in trace.steps if s.step_id == "b"] == [
        "none",
        "tool" if kind == "tool" else "value",
        "none",
    ]


# --- stores, replays, forks -----------------------------------------------------------------------

WITH_PAUSES = program(
    mapped(
        {
            "id": "ask",
            "type": "approval",
            "role": "boss",
            "show": {"n": "$item"},
            "then": "$next",
            "otherwise": "$fail",
        },
        step("call", "note", args={"q": "$item"}),
        over=[1, 2],
        on_item_error="continue",
    ),
    {
        "id": "ask2",
        "type": "approval",
        "role": "boss",
        "show": {"e": "$m.errors"},
        "then": "$next",
        "otherwise": "$end",
    },
    mapped(
        step("c", "fails", args={"x": "$item"}), id="n", over="$m.output", catch=[ANY], next="$end"
    ),
    after(first="$m.errors", got="$n.output", why="$n.error.type"),
)


@pytest.mark.slow
def test_a_run_that_goes_on_in_another_process_has_the_same_errors(tmp_path: Path) -> None:
    host = Host(tmp_path)

    async def go() -> Trace:
        vm = host.vm()
        vm.register_tool("fails", lambda x: x if x is None else 1 // 0)
        trace = await vm.run(WITH_PAUSES, run_id="r")
        while trace.status is TraceStatus.SUSPENDED:
            entry = trace.waiting[0]
            if entry["path"] == "m[0]/ask":
                vm.reject("r", entry["path"], by="ann", reason="no")
            else:
                vm.approve("r", entry["path"], shown=entry["shown"], by="ann")
            vm.close()
            vm = host.vm()
            vm.register_tool("fails", lambda x: x if x is None else 1 // 0)
            trace = await vm.resume("r")
        assert verify(subject_of("r", None, {}, vm.store))
        vm.close()
        return trace

    trace = asyncio.run(go())
    assert trace.output == {
        "first": [
            {
                "item": 0,
                "kind": "value",
                "type": "Failed",
                "message": "went to $fail after step 'ask'",
            }
        ],
        "got": [None, None],
        "why": "ZeroDivisionError",
    }
    assert replay(Trace.from_json(trace.to_json()), WITH_PAUSES).identical


def test_a_fork_of_a_run_with_another_answer_reads_another_error() -> None:
    made = program(each(catch=[ANY], next="$end"), after(got="$m.output", why="$m.error.message"))
    trace = run(made, {"list": ["x", "bad"]})
    vm = ExecutionVM(tools={"work": work})
    changed = asyncio.run(
        fork(vm, trace, made, edit={"inputs": {"list": ["bad", "x"]}}, effects=True)
    )
    assert changed.output == {
        "got": [None, "x done"],
        "why": "item [0]: Step 'a' failed: ValueError: bad: no",
    }


def test_the_digest_knows_what_failed() -> None:
    made = program(each(on_item_error="continue"), after(got="$m.output"))
    assert run(made, {"list": ["x", "bad"]}).digest != run(made, {"list": ["bad", "x"]}).digest
    assert program(each()).digest != program(each(on_item_error="continue")).digest


# --- where it is there ----------------------------------------------------------------------------


def places(*body: dict[str, Any]) -> list[str]:
    """The faults of reads in *body*, which runs twice."""
    loop = {
        "id": "l",
        "type": "loop",
        "max_iterations": 2,
        "on_exhausted": "continue",
        "steps": list(body),
    }
    vm = ExecutionVM(tools={"work": work})
    found = vm.check(
        program(loop, inputs={"properties": {"go": {}, "list": {}}, "required": ["go", "list"]})
    )
    return [d.code for d in found if d.code in ("V010", "V011")]


def reader(reference: str, id: str = "r", **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "set", "values": {id: reference}, **fields}


END = {"id": "end", "type": "set", "values": {"x": 1}}


def test_after_a_success_there_is_no_error() -> None:
    """Also where the iteration before has left one: it is gone then, in each run."""
    catch = [{"errors": ["*"], "next": "h"}]
    failing = step("a", "work", args={"x": "$go"}, catch=catch, next="r")
    assert places(
        failing, reader("$a.error", next="end"), reader("$a.error", "h", next="end"), END
    ) == ["V010"]
    assert places(failing, reader("x", next="end"), reader("$a.error", "h", next="end"), END) == []


def test_after_a_step_that_did_not_run_there_is_no_error() -> None:
    catch = [{"errors": ["*"], "next": "h"}]
    failing = step("a", "work", args={"x": 1}, when="$go", catch=catch, next="r")
    assert places(failing, reader("$a.error", next="end"), reader("x", "h", next="end"), END) == [
        "V010"
    ]


def test_after_a_failure_there_is_no_list_of_errors() -> None:
    many = each(on_item_error="continue", catch=[{"errors": ["*"], "next": "h"}], next="r")
    assert places(
        many, reader("$m.errors", next="end"), reader("$m.errors", "h", next="end"), END
    ) == ["V010"]


def test_in_the_undo_of_the_step_there_is_no_error() -> None:
    undone = step(
        "a",
        "work",
        args={"x": 1},
        on_error="skip",
        undo={"tool": "work", "args": {"x": "$a.error"}},
    )
    assert places(undone) == ["V010"]


# --- what is proved -------------------------------------------------------------------------------


def shown(made: Program, policy: Any, **tools: Any) -> list[str]:
    """What became of the policy's demands."""
    return [
        proof.status
        for proof in ExecutionVM(tools={"work": work, **tools}, policy=policy).verify(made).proofs
    ]


def codes(made: Program, policy: Any = None, **tools: Any) -> list[str]:
    vm = ExecutionVM(tools={"work": work, **tools}, policy=policy)
    return [d.code for d in vm.check(made)]


def gate(id: str = "g") -> dict[str, Any]:
    return {
        "id": id,
        "type": "condition",
        "condition": "$go",
        "then": [step(f"{id}1", "work", args={"x": 1})],
        "otherwise": "$fail",
    }


GUARDED = {"tools": {"pay": {"guarded_by": ["g.then"]}}}


def test_a_guard_in_a_branch_that_may_have_failed_is_none() -> None:
    """The branch passes its gate before it fails, or fails before it: nobody looks after the join
    which it was.
    """
    pay = step("p", "pay")
    inner = program(
        parallel([gate()], id="f"),
        pay,
        inputs={"properties": {"go": {"type": "boolean"}}, "required": ["go"]},
    )
    assert shown(inner, GUARDED, pay=lambda: 1) == ["proved"]
    going_on = program(
        parallel([gate()], id="f", on_item_error="continue"),
        pay,
        inputs={"properties": {"go": {"type": "boolean"}}, "required": ["go"]},
    )
    assert shown(going_on, GUARDED, pay=lambda: 1) == ["refuted"]


def test_errors_are_untrusted_each_way() -> None:
    policy = {"tools": {"pay": {"args": {"to": "trusted"}}, "work": {"returns": "trusted"}}}

    def pay(to: Any) -> None: ...

    def paying(to: Any, **fields: Any) -> list[str]:
        made = program(each(["x"], id="m", **fields), step("p", "pay", args={"to": to}))
        return shown(made, policy, pay=pay)

    assert paying("$m.output", on_item_error="continue") == ["proved"]
    assert paying("$m.errors", on_item_error="continue") == ["refuted"]
    assert paying({"expr": "default($m.error.kind, 'x')"}, on_error="skip") == ["refuted"]
    assert paying({"expr": "len($m.errors)"}, on_item_error="continue") == ["refuted"]


def test_null_for_what_failed_is_trusted_in_a_run() -> None:
    """Nothing is refuted by a run in which null stood where the untrusted text would have been."""
    policy = {"tools": {"pay": {"args": {"to": "trusted"}}, "ours": {"returns": "trusted"}}}
    failing = [
        step("b", "work", args={"x": 1}),
        {"id": "f", "type": "condition", "condition": "true", "then": "$fail"},
    ]

    def told(how: dict[str, Any]) -> list[str]:
        fork = parallel(step("c", "ours"), failing, id="p", **how)
        made = program(fork, step("t", "pay", args={"to": "$p.output.b"}))
        return shown(made, policy, pay=lambda to: None, ours=lambda: 1)

    assert told({"on_item_error": "continue"}) == ["unproved"]
    assert told({"catch": [{"errors": ["*"], "next": "t"}]}) == ["unproved"]


def in_a_loop(most: int, policy: dict[str, Any], *steps: dict[str, Any]) -> list[str]:
    """What is proved of *steps*, which are made at most *most* times."""
    loop = {
        "id": "l",
        "type": "loop",
        "max_iterations": most,
        "on_exhausted": "continue",
        "steps": list(steps),
    }
    made = program(loop, inputs={"properties": {"go": {}}, "required": ["go"]})
    return shown(made, policy, pay=lambda to: None)


def test_an_approval_of_an_error_is_for_that_error() -> None:
    """Once the step has run again, what was shown is another error, or none."""
    text = {"expr": "default($a.error.message, 'none')"}
    ask = {"id": "ask", "type": "approval", "role": "boss", "show": {"to": text}}
    failing = step("a", "work", args={"x": "$go"}, on_error="skip")
    pay = step("p", "pay", args={"to": text})
    policy = {"tools": {"pay": {"args": {"to": {"approval": "boss"}}}}}

    assert in_a_loop(2, policy, failing, ask, pay) == ["proved"]
    assert in_a_loop(2, policy, ask, failing, pay) == ["refuted"]


def test_a_decision_about_an_error_is_for_that_error() -> None:
    """As for other names: of what guard and call both read, nothing is written in between."""
    guard = {
        "id": "g",
        "type": "condition",
        "condition": "default($a.error.kind, 'tool') != 'timeout'",
        "then": "$next",
    }
    failing = step("a", "work", args={"x": "$go"}, on_error="skip")
    pay = step("p", "pay", args={"to": {"expr": "default($a.error.message, 'none')"}})

    assert in_a_loop(1, GUARDED, failing, guard, pay) == ["proved"]
    assert in_a_loop(1, GUARDED, guard, failing, pay) == ["refuted"]


def test_null_is_among_what_a_fork_gives() -> None:
    """What is never null without failures may be null with them: no branch on it is told as never
    taken.
    """
    asked = llm("a", allowed_outputs=["yes", "no"])
    branch = {
        "id": "c",
        "type": "condition",
        "condition": "$p.output.a == null",
        "then": [{"id": "t", "type": "set", "values": {"x": 1}}],
        "otherwise": "$end",
    }

    def told(**fields: Any) -> list[str]:
        made = program(parallel(asked, id="p", **fields), {**branch})
        return [
            d.code for d in ExecutionVM("local", tools={}).check(made) if d.code.startswith("V06")
        ]

    assert told() == ["V060"]
    assert told(on_item_error="continue") == []
    assert told(catch=[{"errors": ["*"], "next": "c"}]) == []


def test_fields_of_an_error_are_known() -> None:
    made = program(
        step("a", "work", args={"x": 1}, catch=[ANY], next="$end"),
        after(x="$a.error.reason", y="$a.error.message.z"),
    )
    assert codes(made) == ["V017", "V017"]


def test_a_prompt_that_tells_an_error_has_a_bound() -> None:
    made = program(
        step("a", "t", catch=[{"errors": ["*"], "next": "m"}], next="$end"),
        llm("m", prompt="why: ${a.error.message}"),
    )
    vm = ExecutionVM(tools={"t": lambda: 1})
    most = ceiling(Flow(made), vm.preparer.contracts)
    assert most.prompt_tokens is not None


@pytest.mark.parametrize("char", ["x", "\x01", "é", "\U0001f600", '"'])
def test_sizes_hold_for_the_largest_errors(char: str) -> None:
    made = program(
        each([1, 2], on_error="skip", on_item_error="continue"),
        parallel(
            step("b", "work", args={"x": 1}),
            step(char if char == "é" else "c", "work", args={"x": 1}),
            on_item_error="continue",
        ),
        after(x="$m.error", y="$m.errors", z="$p.errors"),
    )
    flow = Flow(made)
    names = flow.frames[0].names
    sizes = Sizes(flow, 10, lambda step, names: None)
    error = StepError(char * 300, char * 300, char * 20_000)
    listed = {
        "kind": error.kind[:MAX_WORD],
        "type": error.type[:MAX_WORD],
        "message": error.told(MAX_LISTED)["message"],
    }
    branches = [{"branch": name, **listed} for name, _, _ in made.steps[1].branches()]  # type: ignore[attr-defined]
    for reference, value in (
        ("$m.error", error.told()),
        ("$m.errors", [{"item": n, **listed} for n in range(2)]),
        ("$p.errors", branches),
    ):
        assert parse_template(reference).typed
        bound = sizes.json(reference, names)
        assert (bound or 0) >= len(canonical(value))


# --- exploring ------------------------------------------------------------------------------------


def test_an_exploration_raises_the_errors_that_a_handler_asks_for() -> None:
    handler = {
        "id": "after",
        "type": "switch",
        "on": "$a.error.type",
        "cases": {"CardDeclined": [{"id": "x", "type": "set", "values": {"x": 1}}]},
        "default": [
            {
                "id": "y",
                "type": "condition",
                "condition": "$a.error.message.startswith('try again')",
                "then": [{"id": "z", "type": "set", "values": {"x": 2}}],
            }
        ],
    }
    found = explore(
        program(step("a", "t", catch=[ANY], next="$end"), handler), tools={"t": lambda: 1}
    )
    assert found.complete
    assert found.coverage.missed == ()


def test_an_exploration_of_items_that_fail() -> None:
    reader = {
        "id": "c",
        "type": "condition",
        "condition": "len($m.errors) > 0",
        "then": [{"id": "some", "type": "set", "values": {"x": "$m.errors[0].item"}}],
        "otherwise": [{"id": "none", "type": "set", "values": {"x": 1}}],
    }
    made = program(each([1, 2], on_item_error="continue"), reader)
    found = explore(
        made,
        tools={"work": tool(effect="read")(work)},
        properties={"ends": lambda run: run.status == "success"},
    )
    assert found.coverage.missed == ()
    assert found.check().ok


# --- as it is written -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["skip", True, ["continue"]])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ProgramError, match="on_item_error"):
        program(each([1], on_item_error=value))


def test_the_plan_tells_it() -> None:
    made = program(each([1], on_item_error="continue"), after(x="$m.errors"))
    text = ExecutionVM(tools={"work": work}).plan(made).explain()
    assert "goes on after failed ones -> $m.output, $m.errors" in text
