"""The machine, driven by hand: no event loop, no clock, and the same digest as under asyncio."""

from __future__ import annotations

import ast
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from build import NOW, llm, program, step

import nano_vm.machine.machine
from nano_vm import ExecutionVM, LLMUsage, Program, Trace, TraceStatus, tool
from nano_vm.errors import RateLimited, StepFault
from nano_vm.language.policy import Budget
from nano_vm.language.program import Retry
from nano_vm.machine.faults import backoff, effect_key, matches, model_error, tool_error
from nano_vm.machine.ledger import Ledger, Limits, Shares, token_bound
from nano_vm.machine.machine import Machine, machine_of
from nano_vm.machine.outcome import Answer, Cancelled, Failed, Joined, Suspended, TimedOut, Value
from nano_vm.machine.plan import DOUBT, END, FOREVER, FORK, MODEL, PAUSE, TOOL, ToolOp
from nano_vm.machine.simulate import in_lanes
from nano_vm.machine.terms import RunTerms
from nano_vm.records.record import BRIEF, StepError
from nano_vm.records.recording import Recording
from nano_vm.testing import ScriptedLLM


class ByHand:
    """A driver of forty lines: calls functions one after the other; children in the order that
    *order* gives.
    """

    def __init__(
        self,
        tools: dict[str, Callable[..., Any]],
        answer: Callable[[list[Any]], Any],
        order: Callable[[list[int]], list[int]],
    ) -> None:
        self.tools, self.answer, self.order = tools, answer, order
        self.now = 1000
        self.waits: list[float] = []

    def tick(self) -> int:
        self.now += 7
        return self.now

    def drive(self, machine: Machine) -> None:
        op: Any = machine.start(self.tick())
        while op.code != END:
            if machine.delay_seconds:
                self.waits.append(machine.delay_seconds)
                machine.delay_seconds = 0.0
            if op.code == TOOL:
                assert isinstance(op, ToolOp)
                try:
                    value = self.tools[op.tool](**machine.keywords)
                except BaseException as error:  # noqa: BLE001 - its outcome, whatever it is
                    op = machine.resume(Failed(tool_error(op, error)), self.tick())
                else:
                    op = machine.resume(Value(value), self.tick())
            elif op.code == MODEL:
                try:
                    text = self.answer(machine.messages)
                except Exception as error:  # noqa: BLE001 - its outcome, whatever it is
                    op = machine.resume(Failed(model_error(error)), self.tick())
                else:
                    words = sum(len(m["content"].split()) for m in machine.messages)
                    usage = LLMUsage(words, len(text.split()), words + len(text.split()))
                    extra = {"model": "scripted", "finish_reason": "stop"}
                    op = machine.resume(Answer(text, usage, extra), self.tick())
            elif op.code in (PAUSE, DOUBT):
                op = machine.resume(Suspended(), self.tick())
            else:
                assert op.code == FORK
                for number in in_lanes(machine, self.order(list(range(machine.fork.size)))):
                    self.drive(machine.child(number))
                op = machine.resume(Joined(), self.tick())

    def run(self, one: Program, inputs: dict[str, Any], vm: ExecutionVM) -> Trace:
        root = vm.plan(one).frames[0]
        terms = RunTerms(budget=one.budget, default_model="scripted")
        machine = machine_of(vm.plan(one), inputs, terms, run_id="by hand", seed=3)
        recording = Recording(
            one.name,
            one.digest,
            "by hand",
            3,
            started_ns=self.now,
            records=machine.records,
            ops=vm.plan(one).ops,
        )
        recording.inputs = {name: inputs[name] for name, _ in root.inputs if name in inputs}
        self.drive(machine)
        machine.fill(recording)
        return Trace(recording)


def flaky(*outcomes: Any) -> Callable[[], Callable[..., Any]]:
    """A function that makes a tool with these outcomes, the last one for ever."""

    def make() -> Callable[..., Any]:
        rest = list(outcomes)

        @tool(effect="read", inline=True)
        def call(**given: Any) -> Any:
            outcome = rest.pop(0) if len(rest) > 1 else rest[0]
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        return call

    return make


def lost() -> Callable[..., Any]:
    @tool(inline=True)
    def write(**given: Any) -> Any:
        raise ConnectionResetError("gone")

    return write


def echo() -> Callable[..., Any]:
    @tool(effect="read", inline=True)
    def call(x: Any = None) -> Any:
        return x

    return call


def count(n: str) -> dict[str, Any]:
    return {"id": "count", "type": "set", "values": {"n": {"expr": f"${n} + 1"}}}


PROGRAMS: dict[str, tuple[Program, dict[str, Callable[[], Callable[..., Any]]]]] = {
    "straight": (
        program(
            step("a", args={"x": "$x"}),
            step("b", args={"x": ["$a.output", 1.5]}),
            llm("m", "$b.output"),
        ),
        {},
    ),
    "condition": (
        program(
            {
                "id": "c",
                "type": "condition",
                "condition": "$x == 'v'",
                "then": "b",
                "otherwise": "d",
            },
            step("b"),
            step("d"),
        ),
        {},
    ),
    "parallel": (
        program(
            {
                "id": "p",
                "type": "parallel",
                "parallel_steps": [[step("a"), step("b")], llm("m"), step("d", args={"x": "$x"})],
            },
            step("e"),
        ),
        {},
    ),
    "map of map": (
        program(
            {
                "id": "m",
                "type": "map",
                "over": [[1, 2], [], [3]],
                "steps": [
                    {
                        "id": "n",
                        "type": "map",
                        "over": "$item",
                        "as": "each",
                        "steps": [step("a", args={"x": "$each"})],
                    }
                ],
            }
        ),
        {},
    ),
    "loop": (
        program(
            {"id": "z", "type": "set", "values": {"n": 0}},
            {
                "id": "l",
                "type": "loop",
                "max_iterations": 5,
                "until": "$n >= 3",
                "steps": [count("n"), step("a", args={"x": "$n"})],
            },
        ),
        {},
    ),
    "call": (
        program(
            {
                "id": "c",
                "type": "call",
                "program": {"steps": [step("a", args={"x": "$y"})]},
                "with": {"y": "$x"},
            }
        ),
        {},
    ),
    "retry": (
        program(step("a", "flaky", max_retries=3, retry=NOW)),
        {"flaky": flaky(ValueError("1"), ValueError("2"), "ok")},
    ),
    "skip and default": (
        program(step("a", "flaky", on_error="skip", default=1), step("b", args={"x": "$a.output"})),
        {"flaky": flaky(ValueError("1"))},
    ),
    "catch": (
        program(
            step("a", "flaky", catch=[{"errors": ["ValueError"], "next": "c"}]),
            step("b"),
            step("c"),
        ),
        {"flaky": flaky(ValueError("1"))},
    ),
    "failing branch": (
        program(
            {
                "id": "p",
                "type": "parallel",
                "parallel_steps": [step("a"), step("b", "flaky"), step("d", "flaky")],
            }
        ),
        {"flaky": flaky(ValueError("1"))},
    ),
    "undo": (
        program(
            step("a", undo={"tool": "t", "args": {"x": "$a.output"}}),
            step("b", undo={"tool": "t"}),
            step("c", "flaky"),
        ),
        {"flaky": flaky(ValueError("1"))},
    ),
    "in doubt": (
        program(step("a"), step("b", "lost"), step("c")),
        {"lost": lost},
    ),
    "in doubt in a branch": (
        program({"id": "p", "type": "parallel", "parallel_steps": [step("b", "lost"), step("c")]}),
        {"lost": lost},
    ),
    "reconciled": (
        program(step("b", "lost", reconcile={"tool": "find"}), step("c")),
        {"lost": lost, "find": flaky({"done": True, "output": 5})},
    ),
    "invalid answers": (
        program(llm("m", allowed_outputs=["no"], max_retries=2, on_invalid="no")),
        {},
    ),
    "schema": (
        program(llm("m", output_schema={"type": "object"}, on_error="skip")),
        {},
    ),
    "budget": (
        program(step("a"), step("b"), budget={"max_tool_calls": 1}),
        {},
    ),
    "token budget": (
        program(llm("m"), llm("n"), budget={"max_tokens": 1100}),
        {},
    ),
    "budget at a fork": (
        program(
            {"id": "m", "type": "map", "over": [1, 2, 3], "steps": [step("a"), step("b")]},
            budget={"max_tool_calls": 5},
        ),
        {},
    ),
    "limit": (
        program(
            {
                "id": "l",
                "type": "loop",
                "max_iterations": 2,
                "until": "1 == 2",
                "steps": [step("a")],
            }
        ),
        {},
    ),
    "error in a condition": (
        program({"id": "c", "type": "condition", "condition": "$x < 5", "then": [step("a")]}),
        {},
    ),
    "a refused value": (
        program(step("a", "flaky")),
        {"flaky": flaky(b"x")},
    ),
    "pause": (
        program(step("a"), {"id": "w", "type": "approval", "role": "boss", "show": "$x"}),
        {},
    ),
    "fail": (
        program(step("a", next="$fail")),
        {},
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_driven_by_hand_it_gives_the_same_digest(name: str) -> None:
    one, more = PROGRAMS[name]

    def tools() -> dict[str, Any]:
        return {"t": echo(), **{key: make() for key, make in more.items()}}

    vm = ExecutionVM(ScriptedLLM({"": "yes and no"}), tools())
    inputs = {"x": "v", "unread": 1}
    expected = await vm.run(one, inputs, seed=3)
    assert expected.diagnostics == () or all(d.severity != "error" for d in expected.diagnostics), (
        expected.error
    )
    for order in (list, lambda numbers: numbers[::-1]):
        hand = ByHand(tools(), lambda messages: "yes and no", order)
        trace = hand.run(one, inputs, vm)
        assert (trace.status, trace.error) == (expected.status, expected.error)
        assert [(s.path, s.status, s.output) for s in trace.steps] == [
            (s.path, s.status, s.output) for s in expected.steps
        ]
        if (
            not any(op.code == FORK for op in vm.plan(one).ops) or not more
        ):  # scripts of outcomes depend on the order of calls
            assert trace.digest == expected.digest
        assert Trace.from_json(trace.to_json()).digest == trace.digest


async def test_the_programs_end_in_every_way() -> None:
    ends = set()
    for one, more in PROGRAMS.values():
        tools = {"t": echo(), **{key: make() for key, make in more.items()}}
        trace = await ExecutionVM(ScriptedLLM({"": "yes and no"}), tools).run(one, {"x": "v"})
        ends.add((trace.status, trace.error_kind))
    assert {status for status, _ in ends} == {
        TraceStatus.SUCCESS,
        TraceStatus.FAILED,
        TraceStatus.SUSPENDED,
    }
    assert {"value", "tool", "budget", "in_doubt", "limit"} <= {kind for _, kind in ends if kind}


def begun(one: Program, tools: dict[str, Any], **terms: Any) -> tuple[Machine, Any]:
    plan = ExecutionVM(ScriptedLLM({"": "x"}), tools).plan(one)
    machine = machine_of(plan, {}, RunTerms(budget=one.budget, **terms), run_id="r")
    return machine, machine.start(0)


def test_cancelled_between_two_outcomes() -> None:
    machine, op = begun(program(step("a", undo={"tool": "t"}), step("b")), {"t": echo()})
    assert op.step_id == "a"
    op = machine.resume(Value(1), 10)
    assert op.step_id == "b"
    op = machine.resume(Cancelled(called=False), 20)
    assert op.step_id == "a/undo"
    assert machine.status is TraceStatus.CANCELLED
    op = machine.resume(Value(None), 30)
    assert op.code == END
    assert [r[2].value if len(r) > BRIEF else "success" for r in machine.records] == [
        "success",
        "cancelled",
        "success",
    ]
    assert machine.resume(Cancelled(), 40).code == END  # once ended it stays as it is


def test_an_interrupted_write_is_in_doubt_and_a_read_is_not() -> None:
    for effect, called, outcome in (
        ("write", True, "in_doubt"),
        ("write", False, "cancelled"),
        ("read", True, "cancelled"),
    ):
        machine, _ = begun(program(step()), {"t": tool(effect=effect)(lambda: 1)})  # type: ignore[call-overload]
        machine.resume(Cancelled(called=called), 1)
        assert machine.records[-1][2].value == outcome
        machine, _ = begun(program(step()), {"t": tool(effect=effect)(lambda: 1)})  # type: ignore[call-overload]
        op = machine.resume(TimedOut(called=called), 1)
        if outcome == "in_doubt":
            assert op.code == DOUBT
            op = machine.resume(Suspended(), 1)
        assert op.code == END
        assert machine.records[-1][2].value == ("in_doubt" if outcome == "in_doubt" else "failed")


def test_a_machine_tells_deadlines_and_never_reads_a_clock() -> None:
    one = program(
        {
            "id": "l",
            "type": "loop",
            "max_iterations": 3,
            "timeout_seconds": 2,
            "until": "1 == 2",
            "steps": [step()],
        }
    )
    machine, op = begun(one, {"t": echo()})
    assert machine.deadline == 2 * 10**9
    op = machine.resume(Value(1), 10**9)
    assert (op.step_id, machine.path) == ("a", "l#2/a")
    op = machine.resume(Value(1), 2 * 10**9)
    assert op.code == END
    assert machine.error is not None
    assert machine.error.kind == "timeout"
    straight, _ = begun(program(step()), {"t": echo()})
    assert straight.deadline == FOREVER


def test_one_plan_serves_many_machines() -> None:
    vm = ExecutionVM(tools={"t": echo()})
    one = program(step("a", args={"x": "$x"}), step("b", args={"x": "$a.output"}))
    plan = vm.plan(one)
    machines = [machine_of(plan, {"x": i}, run_id=str(i)) for i in range(50)]
    for machine in machines:
        machine.start(0)
    for machine in reversed(machines):
        machine.resume(Value(machine.keywords["x"]), 1)
    for machine in machines:
        assert machine.resume(Value(machine.keywords["x"]), 2).code == END
    assert [machine.output for machine in machines] == list(range(50))


@pytest.mark.parametrize("watched", [False, True])
def test_a_machine_of_quick_steps_keeps_nothing_in_a_dict(watched: bool) -> None:
    """A name that is no slot costs its instance a dict, and each look at it eight times as much."""
    vm = ExecutionVM(tools={"t": echo()})
    body = [step("t", args={"x": "$a.output"}), {"id": "n", "type": "set", "values": {"y": 1}}]
    one = program(
        step("a", args={"x": "$x"}),
        {"id": "l", "type": "loop", "until": "$y == 1", "max_iterations": 3, "steps": body},
        {"id": "c", "type": "condition", "condition": "$y == 1", "then": "z", "otherwise": "l"},
        step("z", args={"x": [1]}),
    )
    machine = machine_of(vm.plan(one), {"x": "o"}, run_id="r")
    machine.watched = watched
    op = machine.start(0)
    while op.code != END:
        assert vars(machine) == {}
        op = machine.resume(Value(machine.given[0]), 1)
    assert vars(machine) == {}
    assert machine.status is TraceStatus.SUCCESS


@pytest.mark.slow
def test_pure_rooms_import_nothing_that_waits_or_draws() -> None:
    source = Path(nano_vm.machine.machine.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source)
    imported = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {
        alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
    }
    assert imported.isdisjoint(
        {"asyncio", "time", "random", "os", "threading", "socket", "secrets", "datetime", "uuid"}
    )
    assert not any(isinstance(n, ast.Await | ast.AsyncFunctionDef) for n in ast.walk(tree))


# --- small parts ----------------------------------------------------------------------------------


def test_effect_keys() -> None:
    assert effect_key("r", "a") == effect_key("r", "a")
    assert (
        len(
            {
                effect_key("r", "a"),
                effect_key("r", "b"),
                effect_key("s", "a"),
                effect_key("ra", ""),
                effect_key("", "ra"),
            }
        )
        == 5
    )
    assert len(effect_key("r", "a")) == 32


def test_backoff_has_full_jitter_a_limit_and_no_overflow() -> None:
    op = ToolOp(retry=Retry(delay_seconds=1, factor=2, max_delay_seconds=10))
    error = StepError("tool", "E", "x")
    drawn = [backoff(op, 2, seed, "a", error) for seed in range(300)]
    assert 0 <= min(drawn) < 0.1
    assert 1.9 < max(drawn) < 2
    assert 0.8 < sum(drawn) / 300 < 1.2
    assert backoff(op, 2, 1, "a", error) == backoff(op, 2, 1, "a", error)
    assert all(
        backoff(op, n, seed, "a", error) <= 10 for n in (5, 100, 10_000) for seed in range(20)
    )
    wide = ToolOp(retry=Retry(delay_seconds=3600, factor=100, max_delay_seconds=86400))
    assert backoff(wide, 10, 1, "a", error) <= 86400
    wait = StepError.of(RateLimited("x", retry_after_seconds=10_000))
    assert backoff(op, 1, 1, "a", wait) == 600


@pytest.mark.parametrize(
    ("kind", "patterns", "expected"),
    [
        ("tool", ("*",), True),
        ("tool", ("tool",), True),
        ("tool", ("CardDeclined",), True),
        ("tool", ("carddeclined",), False),
        ("tool", ("PaymentError",), True),
        ("tool", ("OSError",), False),
        ("tool", ("Exception",), True),
        ("timeout", ("tool",), False),
        ("cancelled", ("*", "cancelled"), False),
        ("in_doubt", ("*", "in_doubt", "CardDeclined"), False),
        ("budget", ("budget",), True),
        ("budget", ("*",), True),
        ("refused", ("*",), False),
        ("refused", ("*", "Exception", "BaseException", "PaymentError"), False),
        ("refused", ("tool", "refused"), True),
        ("refused", ("CardDeclined",), True),
        ("tool", (), False),
    ],
)
def test_matches(kind: str, patterns: tuple[str, ...], expected: bool) -> None:
    error = StepError(kind, "CardDeclined", "x", bases=("PaymentError",))
    assert matches(error, patterns) is expected


def test_token_bound_counts_bytes_and_a_constant_for_each_message() -> None:
    assert token_bound([]) == 0
    assert (
        token_bound([{"role": "user", "content": "ä"}, {"role": "user", "content": ""}])
        == 2 + 16 + 16
    )


def test_a_ledger_gives_ceilings_where_they_fit_and_equal_shares_where_not() -> None:
    ledger = Ledger.of(
        Limits(steps=100), Budget(max_llm_calls=7, max_tool_calls=10, max_tokens=10, max_cost_usd=1)
    )
    given = Shares(ledger, [(10, 1, 8), (10, 9, 1), (10, 1, 1)], at_once=3)
    shares = [given.granted(number, None) for number in range(3)]
    assert given.lanes == 3
    assert [s.steps for s in shares] == [10, 10, 10]
    assert [s.llm_calls for s in shares] == [3, 2, 2]  # 11 exceed 7; the rest goes to the first
    assert [s.tool_calls for s in shares] == [8, 1, 1]
    assert [s.tokens for s in shares] == [4, 3, 3]
    assert sum(s.cost for s in shares if s.cost is not None) <= 1
    left = shares[0].copy()
    left.tool_calls -= 2
    left.tokens -= 4
    ledger.settle(shares[0], left)
    assert (ledger.tool_calls, ledger.tokens, ledger.llm_calls) == (8, 6, 7)
    free = Shares(Ledger.of(Limits(), None), [(1, 1, 1)] * 2, at_once=1)
    assert free.lanes == 2  # nothing is scarce, and none waits for another's share
    assert all(
        free.granted(n, None).tokens > 10**15 and free.granted(n, None).cost is None
        for n in range(2)
    )


def test_children_of_one_lane_have_their_shares_in_common() -> None:
    budget = Budget(max_llm_calls=7, max_tool_calls=5, max_tokens=10, max_cost_usd=1)
    ledger = Ledger.of(Limits(steps=100), budget)
    ceilings = [(10, 1, 1), (10, 9, 1), (10, 0, 1), (10, 1, 1), (10, 1, 1)]
    given = Shares(ledger, ceilings, at_once=2)
    assert given.lanes == 2
    first, second = given.granted(0, None), given.granted(1, None)
    assert (first.llm_calls, second.llm_calls) == (2 + 1 + 1, 2 + 1)  # 12 exceed 7
    assert (first.tool_calls, second.tool_calls) == (1, 1)  # these suffice: nothing is in common
    assert (first.tokens, second.tokens) == (3 + 0 + 2, 3 + 2)  # the third child calls no model
    assert (first.cost, second.cost) == (Decimal("0.5"), Decimal("0.5"))
    left = first.copy()
    left.tokens, left.llm_calls, left.cost, left.tool_calls = 1, 2, Decimal("0.1"), 0
    third = given.granted(2, left)
    assert (third.tokens, third.llm_calls, third.cost, third.tool_calls) == (
        1,
        2,
        Decimal("0.1"),
        1,
    )
    alone = Shares(ledger, ceilings[1:], at_once=1).granted(0, None)
    assert (alone.llm_calls, alone.tokens, alone.cost) == (
        7,
        10,
        1,
    )  # of money too, where thirds of it do not make a whole


def test_the_tightest_of_two_ledgers() -> None:
    first = Ledger.of(Limits(steps=5), Budget(max_tokens=9))
    first.tighten(Ledger.of(Limits(), Budget(max_tokens=5, max_cost_usd=2, max_tool_calls=1)))
    assert (first.steps, first.tokens, first.tool_calls, first.cost) == (5, 5, 1, 2)


def test_errors_of_our_own_keep_their_kind() -> None:
    class Custom(StepFault):
        kind = "limit"
        retryable = False

    op = ToolOp(tool="t", effect="write")
    assert (tool_error(op, Custom("x")).kind, tool_error(op, Custom("x")).retryable) == (
        "limit",
        False,
    )
    assert tool_error(op, ConnectionResetError("x")).kind == "in_doubt"
    assert tool_error(op, ConnectionRefusedError("x")).kind == "tool"
    assert tool_error(op, TimeoutError("x")).kind == "timeout"
    assert tool_error(ToolOp(tool="t", effect="read"), ConnectionResetError("x")).kind == "tool"
    assert model_error(TimeoutError("x")).kind == "timeout"
    assert model_error(ValueError("x")).kind == "model"
    assert model_error(RateLimited("x", retry_after_seconds=3)).retry_after_seconds == 3
