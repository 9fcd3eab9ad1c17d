"""The all-paths test: what it reports is what the VM does, it reaches what can be reached, and it
finds what is broken.
"""

from __future__ import annotations

import asyncio
import builtins
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from build import llm, mapped, parallel, program, step
from campaigns import is_whole
from test_corpus import CORPUS, written
from virtual_time import VirtualClock, VirtualLoop

from nano_vm import Completion, ExecutionVM, Program, ProgramError, Trace, VMError, errors, tool
from nano_vm.explore.samples import Asked, returned, samples
from nano_vm.explore.tree import (
    INVALID_ANSWER,
    Choices,
    Edges,
    ExploredRun,
    Outcome,
    Runner,
    assumed,
)
from nano_vm.language.flow import Flow
from nano_vm.machine.compile import compile_flow
from nano_vm.machine.machine import Machine
from nano_vm.machine.plan import Plan
from nano_vm.testing import Exploration, at_most, explore, never, only_after
from nano_vm.tools.contract import contract
from nano_vm.verify.examine import examine

EVERY_TYPE = program(
    step("look", "look"),
    llm(
        "kind",
        "what is it? $look.output",
        allowed_outputs=["refund", "question", "other"],
        output_key="kind",
    ),
    {
        "id": "by",
        "type": "switch",
        "on": "$kind",
        "cases": {
            "refund": [
                step("book", "book", undo={"tool": "unbook"}),
                {
                    "id": "large",
                    "type": "condition",
                    "condition": "$look.output.amount > 100",
                    "then": [
                        step("ask", "ask"),
                        step("pay", "pay", catch=[{"errors": ["Declined"], "next": "sorry"}]),
                    ],
                    "otherwise": [step("gift", "gift", on_error="skip")],
                },
            ],
            "question": [
                {
                    "id": "search",
                    "type": "loop",
                    "max_iterations": 3,
                    "until": "$hits.output",
                    "on_exhausted": "continue",
                    "steps": [step("hits", "hits")],
                }
            ],
        },
        "default": "$next",
    },
    parallel(
        [step("one", "one"), step("two", "two")], step("three", "three"), id="both", on_error="skip"
    ),
    mapped(step("each", "each", args={"x": "$item"}), over="$look.output.tags", id="all"),
    {"id": "n", "type": "set", "values": {"count": {"expr": "len($look.output.tags) + 1"}}},
    {
        "id": "inner",
        "type": "call",
        "program": {"name": "sub", "steps": [step("mail", "mail")]},
        "on_error": "skip",
    },
    {
        "id": "done",
        "type": "condition",
        "condition": "$count > 2",
        "then": "$end",
        "otherwise": "last",
    },
    step("last", "last"),
    step("sorry", "sorry"),
)


# --- the same as the VM ---------------------------------------------------------------------------


def valid(outcome: Outcome) -> bool:
    return outcome.kind == "answer" and outcome.value != INVALID_ANSWER


class Host:
    """Tools and a model that give the outcomes of an explored run, each in the order in which it is
    asked.
    """

    def __init__(self, run: ExploredRun, names: Mapping[str, Any]) -> None:
        self.left: dict[str, list[Outcome]] = {}
        made = {
            record[1]: len(record[8] or ()) + 1
            for record in run.records
            if record[0].type in ("tool", "llm")
        }
        late = {
            record[1]
            for record in run.records
            if record[4] is not None and record[4].kind == "timeout"
        }
        # the last outcome of a call was that of all attempts that were left
        for given in reversed(run.given):
            if given.outcome.kind == "order":
                continue
            single = (
                given.outcome.kind == "value" or not given.outcome.every or valid(given.outcome)
            )
            waiting = (
                given.outcome.kind == "error" and given.path in late
            )  # its deadline came in the wait before another
            times = 1 if single else made[given.path] - waiting
            made[given.path] -= times
            self.left.setdefault(given.asked.partition("(")[0], [])[:0] = [given.outcome] * times
        self.tools = {
            name: tool(effect=known.effect)(self.tool(name)) for name, known in names.items()
        }

    def tool(self, name: str) -> Any:
        async def call(**_: Any) -> Any:
            return await self.play(name)

        return call

    images = True

    async def complete(self, messages: Any, options: Any = None, **_: Any) -> Completion:
        return Completion(await self.play("the model"))

    async def play(self, name: str) -> Any:
        outcome = self.left[name].pop(0)
        if outcome.kind == "timeout":
            await asyncio.Event().wait()
        if outcome.kind == "error":
            name = outcome.value.type
            kind = getattr(errors, name, None) or type(
                name,
                (getattr(builtins, name, Exception),),
                {"__str__": lambda error: error.args[0]},
            )
            raise kind(outcome.value.message)
        return outcome.value


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        yield runner


def by_the_vm(
    loop: asyncio.Runner,
    program: Program,
    run: ExploredRun,
    programs: Mapping[str, Program],
    names: Mapping[str, Any],
) -> Trace:
    """The trace of the VM for the inputs and outcomes of an explored run; every outcome is asked
    for.
    """
    host = Host(run, names)

    async def execute() -> Trace:
        vm = ExecutionVM(host, host.tools, programs=programs, clock=VirtualClock)
        return await vm.run(program, run.inputs, seed=0)

    trace = loop.run(execute())
    assert not any(host.left.values()), host.left
    return trace


def explored(
    program: Program, max_runs: int, programs: Mapping[str, Program] = {}
) -> Iterator[ExploredRun]:
    """Runs of an exploration, each of them."""
    runs: list[ExploredRun] = []
    explore(
        program,
        programs=programs,
        max_runs=max_runs,
        properties={"seen": lambda run: runs.append(run)},
    )
    return iter(runs)


def forks(program: Program) -> bool:
    return any(s.type.value in ("parallel", "map") for s, _ in program.walk())


@pytest.mark.slow
def test_every_run_is_what_the_vm_does_with_these_outcomes(loop: asyncio.Runner) -> None:
    seen = set()
    names = assumed(Flow(EVERY_TYPE), {})
    for run in explored(EVERY_TYPE, 150):
        trace = by_the_vm(loop, EVERY_TYPE, run, {}, names)
        assert (trace.status.value, trace.error) == (run.status, run.trace.error), run.text()
        assert trace.digest == run.trace.digest, run.text()
        seen |= {s.type for s in trace.steps}
    assert seen == {"tool", "llm", "switch", "condition", "loop", "parallel", "map", "set", "call"}


def corpus(path: Path) -> Iterator[tuple[Program, dict[str, Program]]]:
    """The programs of a corpus file that have no faults, with those that they call."""
    for case in written(path):
        if "program" not in case:
            continue
        try:
            loaded = Program.from_dict(case["program"])
            programs = {
                name: Program.from_dict(data)
                for name, data in case.get("vm", {}).get("programs", {}).items()
            }
        except ProgramError:
            continue
        flow = Flow(loaded, programs)
        found = examine(flow, assumed(flow, {}), thorough=False).report
        if not any(d.severity == "error" for d in found.diagnostics):
            yield loaded, programs


RUNS = 8 if is_whole() else 4
"""Of each program."""


@pytest.mark.campaign
@pytest.mark.parametrize("file", sorted(path.name for path in CORPUS.glob("*.yaml")))
def test_the_programs_of_the_corpus(loop: asyncio.Runner, file: str) -> None:
    for case, programs in corpus(CORPUS / file):
        names = assumed(Flow(case, programs), {})
        for run in explored(case, RUNS, programs):
            again = run.replay()
            assert (again.status, again.output, again.error) == (
                run.machine.status,
                run.machine.output,
                run.machine.error,
            )
            assert repr(again.records) == repr(run.machine.records)
            timed_out = any(given.outcome.kind == "timeout" for given in run.given)
            # usage is not told here
            budgeted = case.budget is not None or any(p.budget for p in programs.values())
            decided = any(
                record[0].type in ("approval", "wait") for record in run.records
            )  # by whom, the VM cannot ask
            # siblings go on while one waits
            if not (forks(case) and timed_out) and not budgeted and not decided:
                assert by_the_vm(loop, case, run, programs, names).digest == run.trace.digest, (
                    run.text()
                )


# --- what is reached ------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_branch_of_every_type_of_step_is_reached() -> None:
    found = explore(EVERY_TYPE, max_runs=2_000)
    assert found.coverage.missed == ()
    assert found.coverage.steps_reached == found.coverage.steps == 22
    assert not found.complete
    assert found.runs == 2_000 == sum(found.statuses.values())
    assert set(found.statuses) == {"success", "failed", "suspended"}


def branched(condition: str, **fields: Any) -> Program:
    return program(
        step("a", "f", output_key="v"),
        {
            "id": "c",
            "type": "condition",
            "condition": condition,
            "then": [step("yes", "g")],
            "otherwise": [step("no", "g")],
        },
        **fields,
    )


@pytest.mark.parametrize(
    "condition",
    [
        "$v == 'ok'",
        "$v != 'ok'",
        "'ok' in $v",
        "'ok' in '$v'.lower()",
        "'ok' not in $v",
        "$v in ['a', 'b']",
        "$v > 3",
        "$v <= 3.5",
        "3 < $v < 5",
        "$v",
        "not $v",
        "$a.output.paid",
        "$v.amount > 100 and $v.country == 'DE'",
        "$v.items[0].price == 5",
        "len($v) > 2",
        "len($v) == 0",
        "int($v) > 10",
        "$v.lower().startswith('re')",
        "'$v'.endswith('!')",
        "$v + 1 > 10",
        "$v == null",
        "$v == true",
        "$v.a == $v.b",
        "$v.a < $v.b",
        "$v[0] == 'x'",
        "'x' in $v.tags",
        "$v == 'a' or $v == 'b' or $v == 'c'",
        "default($v.nick, 'nobody') == 'nobody'",
        "default($v, 3) > 5",
        "get($v, 'amount', 0) > 100",
        "get($v, 0, 'x') == 'x'",
        "max($v) > 3",
        "sum($v) > 3",
        "'a' in append($v, 'b')",
        "'x' in join($v, ',')",
        "len(split($v, ',')) > 1",
        "round($v) == 3",
        "abs($v) > 3",
        "sorted($v) == []",
        "len(keys($v)) > 0",
        "len(json($v)) == 0",
        "'ok' in concat('$v', '!')",
    ],
)
def test_a_condition_is_forced_both_ways(condition: str) -> None:
    found = explore(branched(condition), errors=False)
    assert found.coverage.missed == (), found.text()
    assert found.complete


def test_what_is_computed_in_arguments_is_asked() -> None:
    """An argument that is computed asks for what its expression takes, and a map over a computed
    list for its items.
    """
    whole = program(
        step("get", "f", output_key="v"),
        step(
            "use",
            "g",
            args={"n": {"expr": "$v.amount + 1"}, "deep": [{"expr": "append($v.rows, 1)"}]},
        ),
        mapped(
            {
                "id": "each",
                "type": "condition",
                "condition": "$item == 'a'",
                "then": [step("p", "g")],
            },
            over={"expr": "concat($v.rows, ['b'])"},
        ),
    )
    seen: list[Any] = []
    found = explore(
        whole, errors=False, properties={"seen": lambda run: seen.append(run.trace.status.value)}
    )
    assert found.coverage.missed == (), found.text()
    assert "success" in seen


def test_an_input_that_only_default_reads_is_given_and_left_out() -> None:
    seen: set[str] = set()
    steps = [
        {
            "id": "c",
            "type": "condition",
            "condition": "default($tone, 'kind') == 'kind'",
            "then": [step("a", "f")],
            "otherwise": [step("b", "f")],
        }
    ]
    found = explore(
        program(*steps),
        properties={"seen": lambda run: seen.add(json.dumps(run.inputs))},
        errors=False,
    )
    assert found.coverage.missed == ()
    assert "{}" in seen
    assert len(seen) > 1


def test_a_field_that_is_read_is_also_left_out() -> None:
    asked = Asked()
    asked.part("a").equal[b"1"] = 1
    asked.part("b")
    found = samples(asked)
    assert {"a": 1, "b": "text"} in found
    assert {"b": "text"} in found
    assert {"a": 1} in found
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
        "required": ["b"],
    }
    assert {"b": "text"} in samples(asked, schema)
    assert all("b" in value for value in samples(asked, schema))


def test_values_are_followed_through_set_map_call_and_parallel() -> None:
    sub = {
        "name": "sub",
        "inputs": {"type": "object", "properties": {"n": {}}, "required": ["n"]},
        "steps": [
            {
                "id": "big",
                "type": "condition",
                "condition": "$n > 5",
                "then": [step("x", "g")],
                "otherwise": [step("y", "g")],
            },
        ],
    }
    whole = program(
        step("get", "f"),
        {
            "id": "s",
            "type": "set",
            "values": {"amount": "$get.output.amount", "list": "$get.output.list"},
        },
        {"id": "call", "type": "call", "program": sub, "with": {"n": "$amount"}},
        mapped(
            {
                "id": "each",
                "type": "condition",
                "condition": "$item.kind == 'a'",
                "then": [step("p", "g")],
                "otherwise": [step("q", "g")],
            },
            over="$list",
        ),
        parallel(step("one", "f1"), step("two", "f2"), id="both"),
        {
            "id": "c",
            "type": "condition",
            "condition": "$both.output.two == 7",
            "then": [step("seven", "g")],
        },
    )
    assert explore(whole, errors=False).coverage.missed == ()


def test_inputs_are_made_up_by_their_schema_and_by_what_is_asked_of_them() -> None:
    inputs = {
        "type": "object",
        "properties": {
            "tier": {"enum": ["gold", "silver"]},
            "amount": {"type": "integer", "minimum": 0, "maximum": 500},
            "note": {"type": "string", "pattern": "^[a-z]{3}$", "default": "abc"},
        },
        "required": ["tier", "amount"],
    }
    seen: list[dict[str, Any]] = []
    steps = [
        {
            "id": "t",
            "type": "switch",
            "on": "$tier",
            "cases": {"gold": [step("g", "f")], "silver": [step("s", "f")]},
        },
        {
            "id": "c",
            "type": "condition",
            "condition": "$amount > 100",
            "then": [step("m", "f")],
            "otherwise": [step("l", "f")],
        },
    ]
    found = explore(
        program(*steps, inputs=inputs),
        properties={"seen": lambda run: seen.append(run.inputs)},
        errors=False,
    )
    assert found.coverage.missed == ("t: error",) or found.coverage.missed == ()
    assert {(i["tier"], i["amount"] > 100) for i in seen} == {
        (t, b) for t in ("gold", "silver") for b in (True, False)
    }
    assert all(0 <= i["amount"] <= 500 for i in seen)
    given = explore(
        program(*steps, inputs=inputs), inputs={"tier": "gold", "amount": 3}, errors=False
    )
    assert given.runs == 1
    assert "c: then" in given.coverage.missed


def test_answers_fit_the_schema_and_enums_are_enumerated() -> None:
    schema = {
        "type": "object",
        "properties": {
            "verdict": {"enum": ["yes", "no", "unsure"]},
            "sure": {"type": "boolean"},
            "why": {"type": "string", "minLength": 10},
        },
        "required": ["verdict", "sure", "why"],
        "additionalProperties": False,
    }
    asked = program(
        llm("m", output_schema=schema),
        {
            "id": "c",
            "type": "switch",
            "on": "$m.output.verdict",
            "cases": {v: [step(v, "f")] for v in ("yes", "no")},
            "default": "$next",
        },
        {
            "id": "d",
            "type": "condition",
            "condition": "$m.output.sure",
            "then": [step("sure", "f")],
        },
    )
    answers: set[tuple[Any, Any]] = set()

    def note(run: ExploredRun) -> None:
        first = run.trace.steps[0]
        answers.add(
            (first.output["verdict"], first.output["sure"])
            if first.output
            else ("failed", first.error_kind)
        )

    found = explore(asked, properties={"note": note})
    assert {(v, s) for v in ("yes", "no", "unsure") for s in (True, False)} < answers
    assert ("failed", "invalid_answer") in answers
    assert found.coverage.missed == ()


def test_a_tools_annotations_say_what_it_returns() -> None:
    class Order:
        pass

    async def approved() -> bool:
        raise AssertionError("nothing is called")

    async def colour() -> Literal["red", "blue"]:
        raise AssertionError("nothing is called")

    assert samples(Asked(), returned(contract("approved", approved))) == [True, False]
    assert samples(Asked(), returned(contract("colour", colour))) == ["red", "blue"]
    assert returned(contract("any", lambda: 1)) is None
    guarded = program(
        step("ok", "approved"),
        {
            "id": "c",
            "type": "condition",
            "condition": "$ok.output",
            "then": [step("pay", "colour")],
        },
    )
    found = explore(guarded, tools={"approved": approved, "colour": colour}, errors=False)
    assert (found.runs, found.complete, found.coverage.missed) == (3, True, ())


def test_errors_are_injected_for_good_and_for_the_first_attempt() -> None:
    seen: dict[str, int] = {}

    def note(run: ExploredRun) -> None:
        for call in run.calls:
            key = f"{call.step_id} {call.status} {call.attempts} {call.error_kind}"
            seen[key] = seen.get(key, 0) + 1

    retried = program(
        step(
            "a",
            "f",
            max_retries=3,
            catch=[{"errors": ["KeyError"], "next": "b"}, {"errors": ["timeout"], "next": "b"}],
        ),
        step("b", "g"),
    )

    @tool(effect="read")
    async def f() -> str:
        return ""

    found = explore(retried, tools={"f": f, "g": f}, properties={"note": note})
    assert set(seen) >= {
        "a success 1 None",
        "a success 2 None",
        "a failed 3 tool",
        "a failed 3 timeout",
        "b failed 1 timeout",
    }
    assert found.coverage.missed == ()
    assert explore(retried, errors=False).runs == 1


def test_an_unsafe_timeout_is_in_doubt_and_reconcile_answers_each_way() -> None:
    ends: set[tuple[str, str]] = set()
    doubtful = program(step("a", "f", reconcile={"tool": "ask"}, max_retries=2), step("b", "g"))

    def note(run: ExploredRun) -> None:
        ends.update((s.path, s.status.value) for s in run.trace.steps)

    explore(doubtful, properties={"note": note})
    assert {
        ("a", "success"),
        ("a", "failed"),
        ("a", "in_doubt"),
        ("a/reconcile", "success"),
        ("a/reconcile", "failed"),
    } <= ends


def test_approvals_and_waits_go_every_way() -> None:
    waiting = program(
        {
            "id": "ok",
            "type": "approval",
            "role": "boss",
            "timeout_seconds": 60,
            "otherwise": [step("no", "f")],
        },
        {"id": "w", "type": "wait", "event": "mail", "timeout_seconds": 60, "on_error": "skip"},
        {
            "id": "c",
            "type": "condition",
            "condition": "$w.output.text == 'go'",
            "then": [step("x", "f")],
            "on_error": "skip",
        },
    )
    found = explore(waiting)
    assert found.complete
    assert found.coverage.missed == ()


def test_the_deadline_of_an_approval_is_none_of_its_blocks() -> None:
    """What waits behind it has no deadline: no run is made in which one passes."""
    wait = {"id": "w", "type": "wait", "event": "mail", "catch": [{"next": "$end"}]}
    asked = program(
        {
            "id": "ask",
            "type": "approval",
            "role": "boss",
            "timeout_seconds": 60,
            "then": [wait],
            "otherwise": "$end",
        }
    )
    found = explore(asked)
    assert found.complete
    # approved, and mail came; rejected; nobody came in time
    assert found.statuses == {"success": 3}


def test_cancellation_between_and_during_calls_runs_what_undoes() -> None:
    booked = program(step("a", "book", undo={"tool": "unbook"}), step("b", "g"))
    found = explore(booked, cancels=True, properties=never("unbook"))
    assert found.statuses["cancelled"] >= 3
    assert any(
        "cancelled before" in failure.text() or "cancelled during" in failure.text()
        for failure in found.failures
    ) or (found.broken["unbook is never called"] > 2)


def test_children_in_other_orders_leave_the_same_records() -> None:
    forked = program(parallel(step("one", "f"), step("two", "g"), step("three", "h")))
    one, two = explore(forked), explore(forked, orders=True)
    # declared, reversed, the second first; the third first is another one
    assert two.runs == 4 * one.runs
    assert two.coverage == one.coverage


def test_children_of_a_fork_run_at_the_same_time() -> None:
    """Two timeouts of 60 s beside each other pass within 100 s; one after the other they do not."""

    @tool(effect="read")
    async def f() -> str:
        return ""

    def ends(**fields: Any) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        late = program(
            parallel(
                *(step(name, "f", timeout_seconds=60, on_error="skip") for name in ("one", "two")),
                timeout_seconds=100,
                **fields,
            )
        )
        explore(
            late,
            tools={"f": f},
            properties={
                "note": lambda run: found.add((run.status, *(str(g.outcome) for g in run.given)))
            },
        )
        return found

    assert ("success", "times out", "times out") in ends()
    assert ("failed", "times out", "times out") in ends(max_concurrency=1)


# --- bounds and determinism -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_bounded_exploration_sees_the_breadth_first() -> None:
    steps: list[dict[str, Any]] = []
    for i in range(12):
        steps += [
            step(f"s{i}", f"f{i}"),
            {
                "id": f"c{i}",
                "type": "condition",
                "condition": f"$s{i}.output == 'a'",
                "then": [step(f"t{i}", "g")],
            },
        ]
    found = explore(program(*steps), max_runs=60)
    assert not found.complete
    assert found.runs == 60
    assert found.coverage.missed == ()
    assert explore(program(*steps), errors=False, max_runs=5_000).complete


@pytest.mark.slow
def test_twice_the_same() -> None:
    one, two = (explore(EVERY_TYPE, max_runs=300, properties=at_most("pay", 0)) for _ in range(2))
    assert one.to_dict() == two.to_dict()


def test_a_loop_of_many_iterations_ends() -> None:
    long = program(
        {
            "id": "l",
            "type": "loop",
            "max_iterations": 2_000,
            "until": "$a.output == 'stop'",
            "steps": [step("a", "f")],
        }
    )
    found = explore(long, max_runs=20)
    assert not found.complete
    assert found.coverage.missed == ()


def test_what_cannot_be_made_up_is_told() -> None:
    asked = program(llm("m", output_schema={"type": "string", "pattern": "^[0-9]{7}[A-Z]$"}))
    found = explore(asked)
    assert "step 'm'" in found.notes[0]
    assert "note: no answer could be made up" in found.text()


# --- properties -----------------------------------------------------------------------------------

REFUND = program(
    llm("ask", "$text", output_key="said"),
    {
        "id": "guard",
        "type": "condition",
        "condition": "'yes' in $said.lower()",
        "then": "refund",
        "otherwise": "reply",
    },
    step("refund", "refund", next="again"),
    {
        "id": "again",
        "type": "condition",
        "condition": "'twice' in $said",
        "then": "more",
        "otherwise": "reply",
    },
    step("more", "refund"),
    step("reply", "mail"),
)


def test_a_broken_property_shows_its_shortest_run() -> None:
    found = explore(
        REFUND,
        properties=at_most("refund", 1) | only_after("refund", "guard.then") | never("nothing"),
    )
    assert [name for name, count in found.broken.items() if count] == [
        "refund is called at most 1 time",
        "refund is called only after guard.then",
    ]
    with pytest.raises(AssertionError, match="refund is called at most 1 time") as caught:
        found.check()
    text = str(caught.value)
    assert "the model answers 'yes twice'" in text
    assert "guard -> then ($said = 'yes twice')" in text
    shortest = found.failures[0].run
    assert shortest.replay().status is shortest.machine.status
    assert [call.tool for call in shortest.calls] == ["refund", "refund"]
    holds, breaks = explore(
        REFUND, properties=at_most("refund", 2) | only_after("mail", "guard.then")
    ).broken.values()
    assert holds == 0 < breaks


def test_a_property_may_assert() -> None:
    def mailed(run: ExploredRun) -> None:
        assert any(s.step_id == "reply" for s in run.trace.steps), "no mail"

    found = explore(REFUND, properties={"somebody is told": mailed})
    assert found.failures[0].reason == "no mail"
    assert "broken: somebody is told (no mail)" in found.text()
    assert (
        explore(REFUND, properties={"true": lambda run: True, "none": lambda run: None}).check().ok
    )


def test_retried_attempts_are_calls() -> None:
    retried = program(step("a", "pay", max_retries=2))
    assert not explore(retried, properties=at_most("pay", 1)).ok
    assert explore(retried, properties=at_most("pay", 2)).ok


def test_siblings_do_not_guard_each_other() -> None:
    guard = {"id": "g", "type": "condition", "condition": "$x == 'a'", "then": [step("y", "note")]}
    beside = program(parallel([guard], step("pay", "pay")))
    behind = program(
        parallel([guard], step("z", "note")),
        {
            "id": "c",
            "type": "condition",
            "condition": "$x == 'a'",
            "then": "pay",
            "otherwise": "$end",
        },
        step("pay", "pay"),
    )
    assert not explore(beside, properties=only_after("pay", "g.then"), errors=False).ok
    assert explore(behind, properties=only_after("pay", "g.then"), errors=False).ok
    first = {
        "id": "g",
        "type": "condition",
        "condition": "$x == 'a'",
        "then": "$next",
        "otherwise": "$end",
    }
    again = program(first, parallel(step("one", "pay"), step("z", "note")), step("two", "pay"))
    assert not explore(again, properties=only_after("pay", "g.then"), errors=False).ok


def test_a_policys_value_checks_hold_in_every_run() -> None:
    """Its literals and its values are tried, and so are inputs that its check reads."""
    paid = program(step("who", "f"), step("pay", "send", args={"to": "$who.output"}))

    def ends(check: str, **policy: Any) -> Exploration:
        rule = {"tools": {"send": {"args": {"to": check}}}, **policy}
        return explore(paid, policy=rule, properties=never("send"), errors=False)

    plain = explore(paid, properties=never("send"), errors=False)
    assert plain.broken["send is never called"] == plain.runs == 1
    listed = ends("trusted or $value in $payees", values={"payees": ["DE1", "DE2"]})
    assert (listed.statuses, listed.broken["send is never called"]) == (
        {"failed": 1, "success": 2},
        2,
    )
    literal = ends("trusted or $value == 'DE1'")
    assert (literal.statuses, literal.broken["send is never called"]) == (
        {"failed": 1, "success": 1},
        1,
    )
    given = ends("trusted or $value in $known", inputs={"known": "trusted"})
    assert set(given.statuses) == {"failed", "success"}
    with pytest.raises(ProgramError, match="does not allow tool 'send'"):
        explore(paid, policy={"tools": {"send": {"allow": False}}})


# --- what is refused ------------------------------------------------------------------------------


def test_what_cannot_be_explored_is_refused() -> None:
    with pytest.raises(ProgramError, match="not registered"):
        explore(program(step("a", "f")), tools={})
    with pytest.raises(ProgramError, match="jumps to unknown step"):
        explore(program(step("a", "f", next="nowhere")))
    with pytest.raises(VMError, match="a program is a Program"):
        explore({"steps": []})  # type: ignore[arg-type]
    with pytest.raises(VMError, match="max_runs is a whole number"):
        explore(program(step("a", "f")), max_runs=0)


@pytest.mark.slow
def test_edges_are_those_of_the_flow() -> None:
    """Along every run each edge begins where the one before it ended, within its frame."""
    flow = Flow(EVERY_TYPE)
    contracts = assumed(flow, {})
    plan: Plan = compile_flow(flow, contracts)
    edges = Edges(plan, flow)

    def follow(machine: Machine) -> None:
        at: dict[int, int] = {}
        for took in edges.of(machine):
            frame = flow.nodes[took.node].frame.index
            if took.label == "fork":
                target = flow.nodes[flow.nodes[took.node].edges[took.edge].target]
                at[target.frame.index] = target.index
                continue
            assert at.get(frame, flow.frames[frame].entry) == took.node
            if took.edge >= 0:
                at[frame] = flow.nodes[took.node].edges[took.edge].target

    runner = Runner(Choices(plan, flow, contracts))
    for run in explored(EVERY_TYPE, 300):
        follow(runner.run(run._taken))


@pytest.mark.slow
def test_a_run_is_told_in_the_order_in_which_it_happened() -> None:
    """Outcomes and branches stand as their records do; children of a fork have no order."""
    told = 0

    def in_order(run: ExploredRun) -> bool:
        nonlocal told
        events = [line.partition(":")[0].partition(" ->")[0] for line in run.lines()]
        last = {path: number for number, path in enumerate(events)}
        recorded = [record[1] for record in run.records if record[1] in last]
        places = [last[path] for path in recorded if not path.startswith(("both/", "all["))]
        told += len(places)
        return places == sorted(places)

    explore(EVERY_TYPE, properties={"in order": in_order}, max_runs=400).check()
    assert told > 1_000
