"""Recorded outcomes give the same run again, whatever happened in it.

Each case of the corpus, drawn programs under asyncio, and drawn programs under every outcome that a
machine can be given: the records alone, with no tool and no model, give a machine that makes the
same records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from random import Random
from typing import Any

import pytest
import test_corpus
from build import NOW, llm, program, step
from campaigns import is_whole
from soundness.outcomes import Outcomes
from soundness.programs import draw_inputs, draw_program
from test_fuzz import drawn_programs, ran

from nano_vm import LLMUsage, Program, Trace, TraceStatus, tool
from nano_vm.language.flow import Flow
from nano_vm.language.policy import Budget, tightest
from nano_vm.machine.compile import compile_flow
from nano_vm.machine.faults import WORDING
from nano_vm.machine.ledger import Limits, token_bound
from nano_vm.machine.machine import Machine, machine_of
from nano_vm.machine.outcome import (
    Answer,
    Arrived,
    Cancelled,
    Decided,
    Failed,
    Suspended,
    TimedOut,
    Unknown,
    Value,
)
from nano_vm.machine.plan import END, MODEL, PAUSE, TOOL
from nano_vm.machine.recorded import Recorded, last_usage
from nano_vm.machine.simulate import simulate
from nano_vm.machine.terms import RunTerms
from nano_vm.records.record import Attempt, StepError, flattened
from nano_vm.records.recording import Recording
from nano_vm.replay import Replay, Replayer
from nano_vm.tools.contract import contract
from nano_vm.verify.examine import check


def assert_same_again(trace: Trace, replayer: Replayer) -> Replay:
    """From the trace as it was made, and as it is read back."""
    found = replayer.replay(trace)
    assert found.identical, found
    back = replayer.replay(Trace.from_json(trace.to_json()))
    assert back.identical, back
    for replayed in (found, back):
        if replayed.trace is None:
            assert not trace.steps
        else:
            assert replayed.trace.digest == trace.digest
            assert [(s.path, s.status, s.usage) for s in replayed.trace.steps] == [
                (s.path, s.status, s.usage) for s in trace.steps
            ]
    if found.trace is not None:
        times = [
            [record[6:8] for record in flattened(t.recording.full())] for t in (trace, found.trace)
        ]
        assert times[0] == times[1]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in test_corpus.cases() if "load" not in c.values[0]])
def test_every_case_of_the_corpus_is_the_same_again(case: dict[str, Any]) -> None:
    trace = test_corpus.execute(case).trace
    programs = {
        name: Program.from_dict(data)
        for name, data in case.get("vm", {}).get("programs", {}).items()
    }
    assert_same_again(trace, Replayer(test_corpus.load(case), programs))


@pytest.mark.slow
def test_drawn_programs_are_the_same_again() -> None:
    seen: Counter[TraceStatus] = Counter()
    for seed, data in enumerate(drawn_programs(60)):
        drawn = Program.from_dict(data)
        trace = ran(drawn, seed, seed % 3)
        assert_same_again(trace, Replayer(drawn))
        seen[trace.status] += bool(trace.steps)
    assert (
        min(seen[s] for s in (TraceStatus.SUCCESS, TraceStatus.FAILED, TraceStatus.SUSPENDED)) > 5
    )


# --- every outcome --------------------------------------------------------------------------------


@tool(effect="irreversible")
def pay(to: Any = None, amount: int = 0) -> Any: ...


@tool(effect="write")
def mail(to: Any = None, text: Any = None) -> Any: ...


@tool(effect="read")
def fetch(q: Any = None) -> Any: ...


@tool(effect="read")
def look(q: Any = None) -> bool: ...


@tool(effect="read")
def sort(q: Any = None) -> str: ...


@tool(effect="idempotent")
def keep(v: Any = None) -> Any: ...


@tool(effect="write")
def keyed(v: Any = None, idempotency_key: str = "") -> Any: ...


@tool(effect="read")
def join(v: Any = None, w: Any = None) -> Any: ...


CONTRACTS = {
    f.__name__: contract(f.__name__, f) for f in (pay, mail, fetch, look, sort, keep, keyed, join)
}
TOOL_FACTS = {
    name: {"effect": c.effect, **({"key": True} if c.takes_key else {})}
    for name, c in sorted(CONTRACTS.items())
}
VALUES: list[Any] = [{1, 2}, b"raw", float("nan"), "x" * 5000, ["y" * 5000], {"a": [1.0, None]}]


def tools_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("type") == "tool":
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from tools_in(part)


def hardened(document: dict[str, Any], rng: Random) -> dict[str, Any]:
    """The same program with more of what is rare: keys, reconciles, undos, retries."""
    for at in tools_in(document):
        if rng.random() < 0.4:
            at["tool"], at["args"] = rng.choice(
                (
                    ("keyed", {"v": "$$"}),
                    ("keyed", {}),
                    ("mail", {"text": "t"}),
                    ("pay", {"to": "x", "amount": 3}),
                )
            )
        if rng.random() < 0.4:
            at["reconcile"] = rng.choice(
                (
                    {"tool": "fetch", "args": {"q": 1}},
                    {"tool": "pay", "args": {"amount": "none"}},
                    {"tool": "keyed"},
                )
            )
        if rng.random() < 0.3:
            at["undo"] = rng.choice(
                (
                    {"tool": "keep", "args": {"v": 1}},
                    {"tool": "pay", "args": {"amount": "x"}},
                    {"tool": "mail"},
                )
            )
        if rng.random() < 0.5:
            at |= {"max_retries": rng.randint(2, 4), "retry": {"delay_seconds": 0}}
    return document


def dense(rng: Random) -> dict[str, Any]:
    """A small program of nothing but calls that can be in doubt, retried, invalid, refused,
    undone.
    """

    def call(number: int) -> dict[str, Any]:
        if rng.random() < 0.3:
            at = {"id": f"s{number}", "type": "llm", "prompt": "x" * rng.randint(1, 90)}
            if rng.random() < 0.6:
                at["allowed_outputs"] = ["yes", "no"]
                at |= {"on_invalid": "no"} if rng.random() < 0.4 else {}
        elif rng.random() < 0.2:
            return {
                "id": f"s{number}",
                "type": "set",
                "values": {f"v{number}": "w" * rng.randint(1, 9_000)},
            }
        else:
            at = {"id": f"s{number}", "type": "tool"}
        if rng.random() < 0.7:
            at |= {"max_retries": rng.randint(2, 4), "retry": {"delay_seconds": 0}}
            if rng.random() < 0.2:
                at["retry"]["on"] = [
                    rng.choice(
                        (
                            "timeout",
                            "rate_limit",
                            "Oops",
                            "invalid_answer",
                            "tool",
                            "truncated",
                            "FilteredAnswer",
                        )
                    )
                ]
        if rng.random() < 0.4:
            at["on_error"] = "skip"
        return at

    calls = [call(number) for number in range(rng.randint(2, 8))]
    if rng.random() < 0.5:
        last = {
            "id": "p",
            "type": "parallel",
            "parallel_steps": [[call(number)] for number in range(20, 23)],
        }
        calls.insert(rng.randrange(len(calls)), last)
    for at in tools_in(calls):
        at["tool"], at["args"] = rng.choice(
            (
                ("keyed", {"v": 1}),
                ("keyed", {}),
                ("mail", {"to": 1}),
                ("pay", {"amount": rng.choice((1, "one"))}),
            )
        )
        if rng.random() < 0.7:
            at["reconcile"] = rng.choice(
                ({"tool": "fetch", "args": {}}, {"tool": "pay", "args": {"amount": "none"}})
            )
        if rng.random() < 0.4:
            at["undo"] = rng.choice(
                ({"tool": "keep", "args": {}}, {"tool": "pay", "args": {"amount": "x"}})
            )
    return {"name": "dense", "steps": calls}


class Chaos(Outcomes):
    """Outcomes of every kind, on a clock that goes on with each."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, cancel=0.3)
        mood = Random(f"chaos {seed}")
        self.errors = mood.choice((0.02, 0.1, 0.3, 0.5))
        self.timeouts = mood.choice((0.3, 1.0, 2.0))
        self.leap = mood.choice((1, 1, 1, 1_500_000_000))
        self.kinds: Counter[str] = Counter()
        # one for all machines: children that run one by one still end at times of their own
        self.clock = 0

    def __call__(self, machine: Machine, op: Any) -> Any:
        rng = Random(f"{self.seed}/{machine.path}/{self.asked}")
        self.clock = machine.now = max(self.clock, machine.now) + rng.randint(1, self.leap)
        machine.delay_seconds = 0.0
        aside = op.step_id.endswith(("/undo", "/reconcile"))
        if not aside and machine.now >= machine.deadline:
            self.asked += 1
            return machine.resume(TimedOut(called=rng.random() < 0.5), machine.now)
        if rng.random() < 0.4 * self.errors and not self.cancelled:
            found = self.rare(machine, op, aside, rng)
            if found is not None:
                self.asked += 1
                return found
        return super().__call__(machine, op)

    def rare(self, machine: Machine, op: Any, aside: bool, rng: Random) -> Any:
        now = machine.now
        path = machine.path
        self.attempts[path] = self.attempts.get(path, 0) + 1
        if op.code == TOOL:
            roll = rng.randrange(7)
            if roll == 0:
                return machine.resume(TimedOut(called=False), now)
            if roll == 1:
                return machine.resume(Value(rng.choice(VALUES)), now)
            if roll == 2:
                return machine.resume(
                    Value({"done": rng.random() < 0.5, "output": rng.choice(VALUES)}), now
                )
            if roll == 3:
                return machine.resume(
                    Failed(
                        StepError("tool", "BudgetExceeded", "is left for another attempt", False)
                    ),
                    now,
                )
            if roll == 4 and not aside:
                return machine.resume(
                    Failed(
                        StepError("in_doubt", "Lost", "; whether 'pay' took effect; then: x", False)
                    ),
                    now,
                )
            if roll == 5 and aside:
                return machine.resume(Cancelled(), now)
            return machine.resume(
                Failed(StepError("timeout", "TimeoutError", "the tool's own call was cancelled")),
                now,
            )
        if op.code == MODEL:
            usage = rng.choice(
                (
                    None,
                    LLMUsage(3, 2, 5),
                    LLMUsage(),
                    LLMUsage(1, 1, 2, rng.choice((None, Decimal(1)))),
                )
            )
            text = rng.choice(
                (
                    "{",
                    "?" * 9_999,
                    "?" * 10_000,
                    "?" * 20_000,
                    '{"a": 1}',
                    "<think>so</think>yes",
                    "yes",
                    "",
                )
            )
            reason = rng.choice(("stop", "length", "content_filter", "refusal", "max_tokens"))
            beside = {
                "model": "m",
                "finish_reason": reason,
                **rng.choice(({}, {"reasoning": "apart"})),
            }
            return machine.resume(Answer(text, usage, rng.choice((None, beside, beside))), now)
        assert op.code == PAUSE
        return rng.choice(
            (
                lambda: machine.resume(TimedOut(), now),
                lambda: machine.resume(Suspended(), now),
                lambda: machine.resume(
                    Failed(StepError("value", "ExprError", "no time", False)), now
                ),
                lambda: (
                    machine.resume(Decided(False), now)
                    if op.asks
                    else machine.resume(Arrived("z" * 5000), now)
                ),
            )
        )()


def chaotic(seed: int) -> tuple[Trace, Program] | None:
    """A run of the program of *seed* under bounds of its own; None where the program has errors."""
    rng = Random(f"recorded {seed}")
    drawn_from = (
        dense
        if seed % 2
        else lambda rng: hardened(draw_program(rng, pauses=rng.random() < 0.5, most=24), rng)
    )
    document = drawn_from(rng)
    drawn = Program.from_dict(document)
    flow = Flow(drawn)
    # arguments of a wrong type stay: they fail at run time, which the contracts of a replay do not know
    if any(d.severity == "error" and not d.code.startswith("V02") for d in check(flow, CONTRACTS)):
        return None
    limits = rng.choice(
        (Limits(), Limits(), Limits(state_bytes=20_000), Limits(value_bytes=4_000), Limits(steps=9))
    )
    budget = rng.choice(
        (
            None,
            None,
            Budget(max_tool_calls=rng.randint(2, 6)),
            Budget(max_llm_calls=2),
            Budget(max_tokens=6000),
            Budget(max_seconds=9),
        )
    )
    prices = {"m": (Decimal(1), Decimal(2))} if rng.random() < 0.3 else None
    if prices is not None:
        budget = Budget(max_cost_usd=0.004)
    inputs = draw_inputs(rng, document)

    def counted(model: str | None, messages: list[dict[str, Any]]) -> int:
        """As tokenizers do: otherwise in each process, and never more than the bytes say."""
        return rng.randint(1, token_bound(messages))

    count = counted if rng.random() < 0.7 else None
    plan = compile_flow(flow, CONTRACTS)
    bound = tightest([b for b in (drawn.budget, budget) if b is not None])
    terms = RunTerms(limits, bound, prices, "m", count)
    root = plan.frames[0]
    recording = Recording("drawn", drawn.digest, "run", seed, 5, 1_000_000, salt="00")
    recording.inputs = {name: inputs[name] for name, _ in root.inputs if name in inputs}
    about: dict[str, Any] = {"tools": {name: TOOL_FACTS[name] for name in sorted(plan.tools)}}
    about["wording"] = WORDING
    about["limits"] = {
        "steps": limits.steps,
        "value_bytes": limits.value_bytes,
        "state_bytes": limits.state_bytes,
    }
    if bound is not None:
        about["budget"] = bound.model_dump(exclude_none=True)
    if prices is not None:
        about |= {"prices": {"m": ["1", "2"]}, "default_model": "m"}
    recording.about = about
    machine = machine_of(plan, recording.inputs, terms, 5, run_id="run", seed=seed)
    machine.now = 5
    feed = Chaos(seed)
    simulate(machine, feed, feed.order)
    recording.records, recording.ops = machine.records, plan.ops
    machine.fill(recording)
    recording.finished_ns = feed.clock + 1
    return Trace(recording), drawn


SEEDS = range(8_000) if is_whole() else range(250, 667)  # in no fewer each kind comes up


@pytest.mark.campaign
def test_every_outcome_of_a_machine_is_the_same_again() -> None:
    statuses: Counter[str] = Counter()
    errors_seen: Counter[str] = Counter()
    for seed in SEEDS:
        made = chaotic(seed)
        if made is None:
            continue
        trace, drawn = made
        try:
            assert_same_again(trace, Replayer(drawn))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        statuses[f"run {trace.status.value}"] += 1
        for record in flattened(trace.recording.full()):
            statuses[f"{record[0].type} {record[2].value}"] += 1
            statuses["reconcile"] += record[0].step_id.endswith("/reconcile")
            statuses["undo"] += record[0].step_id.endswith("/undo")
            statuses["attempts"] += bool(record[8])
            statuses["counted"] += "counted" in (record[10] or ())
            if record[4] is not None:
                errors_seen[record[4].type] += 1
    for kind in (
        "run success", "run failed", "run cancelled", "run suspended", "tool in_doubt", "tool cancelled", "tool skipped",
        "llm failed", "llm cancelled", "parallel cancelled", "map failed", "loop failed", "approval failed", "wait suspended",
        "reconcile", "undo", "attempts", "counted",
    ):  # fmt: skip
        assert statuses[kind] > 0, (kind, statuses)
    for kind in (
        "ArgumentError", "BudgetExceeded", "LimitExceeded", "ValueRefused", "InvalidAnswer", "TimeoutError", "TruncatedAnswer",
        "FilteredAnswer",
    ):  # fmt: skip
        assert errors_seen[kind] > 3, (kind, errors_seen)


# --- one by one -----------------------------------------------------------------------------------


def scripted(made: Program, *outcomes: Any, limits: Limits | None = None) -> Trace:
    """The run of *made* in which each request gets the next of *outcomes*, a second after the one
    before.
    """
    plan = compile_flow(Flow(made), CONTRACTS)
    limits = limits or Limits()
    machine = machine_of(plan, {}, RunTerms(limits), run_id="run", seed=1)
    machine.now = 5
    left = list(outcomes)

    def feed(at: Machine, op: Any) -> Any:
        at.now += 1_000_000_000
        at.delay_seconds = 0.0
        return left.pop(0)(at)

    simulate(machine, feed)
    assert not left
    recording = Recording(
        "p", made.digest, "run", 1, 5, 0, "00", records=machine.records, ops=plan.ops
    )
    recording.about = {
        "tools": TOOL_FACTS,
        "limits": {"state_bytes": limits.state_bytes},
        "wording": WORDING,
    }
    recording.finished_ns = 10**12
    machine.fill(recording)
    return Trace(recording)


def gives(value: Any) -> Any:
    return lambda machine: machine.resume(Value(value), machine.now)


def fails(kind: str, message: str = "gone", retryable: bool = True) -> Any:
    return lambda machine: machine.resume(
        Failed(StepError(kind, "Gone", message, retryable)), machine.now
    )


def answers(text: str) -> Any:
    return lambda machine: machine.resume(Answer(text, LLMUsage(1, 2, 3)), machine.now)


def cancels(machine: Machine) -> Any:
    return machine.resume(Cancelled(), machine.now)


ASK = {"tool": "fetch", "args": {}}
KEYED = step("k", "keyed", max_retries=3, retry=NOW, reconcile=ASK)
TYPED = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def test_a_reconcile_call_that_was_cancelled_ends_the_run_as_cancelled() -> None:
    made = program(step("p", "pay", reconcile=ASK))
    trace = scripted(made, fails("timeout"), cancels)
    assert trace.status is TraceStatus.CANCELLED
    assert_same_again(trace, Replayer(made))


def test_after_a_value_for_which_there_was_no_room_there_is_none_for_others() -> None:
    made = program(
        step("a", "fetch", on_error="skip"),
        {"id": "s", "type": "set", "values": {"v": "x"}, "on_error": "skip"},
    )
    trace = scripted(made, gives("y" * 9_000), limits=Limits(state_bytes=5_000))
    assert [s.error_kind for s in trace.steps] == ["limit", "limit"]
    assert_same_again(trace, Replayer(made))


def test_an_attempt_that_a_reconcile_tool_told_to_have_done_nothing() -> None:
    made = program(KEYED)
    # twice in doubt: tried again at once by its key; then an error of its own, and the reconcile tool is
    # asked about the doubt
    trace = scripted(
        made,
        fails("timeout"),
        fails("tool", "own", retryable=False),
        gives({"done": False}),
        gives("at last"),
    )
    assert [s.path for s in trace.steps] == ["k/reconcile", "k"]
    assert trace.ok
    assert_same_again(trace, Replayer(made))


def test_a_long_answer_is_judged_by_what_was_recorded_of_it() -> None:
    made = program(llm("m", output_schema=TYPED, max_retries=2))
    text = '{"a": "' + "x" * 20_000 + '"}'
    trace = scripted(made, answers(text), answers(text))
    assert "a" in str(trace.error)
    assert_same_again(trace, Replayer(made))
    taken = program(llm("m", output_schema=TYPED, max_retries=2, on_invalid={"a": 0}))
    trace = scripted(taken, answers(text), answers(text))
    assert trace.ok
    assert_same_again(trace, Replayer(taken))


def test_a_held_call_waits() -> None:
    made = program(step("p", "pay", args={"amount": 3}))
    trace = scripted(made, lambda machine: machine.resume(Suspended(), machine.now))
    assert trace.waiting == [
        {"path": "p", "step_id": "p", "kind": "effect", "tool": "pay", "request": {"amount": 3}}
    ]
    assert_same_again(trace, Replayer(made))


def test_a_recorded_value_is_kept_as_it_is_and_that_of_a_call_is_copied() -> None:
    """What a live tool returned it may change later, also behind a recorded one."""
    made = program(step("a", "look"), step("b", "look"))
    trace = scripted(made, gives({"n": [1]}), gives({"n": [2]}))
    first, _ = trace.recording.full()
    recorded = Recorded([first])
    machine = machine_of(compile_flow(Flow(made), CONTRACTS), {}, run_id="run")
    op = recorded.along(machine, machine.start(5))
    assert op is not None
    assert recorded.along(machine, op) is None, "the second is not recorded"
    value = {"n": [3]}
    assert machine.resume(Value(value), 6).code == END
    value["n"].append(4)
    kept = [record[1] for record in machine.records]
    assert kept == [{"n": [1]}, {"n": [3]}]
    assert kept[0] is first.output


def test_what_a_reconcile_tool_said_before_a_crash_is_not_taken() -> None:
    """Its step has no record: another attempt may have been begun since."""
    made = program(KEYED)
    lost = StepError("in_doubt", "LostCall", "gone", False)
    trace = scripted(
        made, lambda m: m.resume(Unknown(lost), m.now), gives({"done": False}), gives("at last")
    )
    before, last = trace.recording.full()
    plan = compile_flow(Flow(made), CONTRACTS)
    machine = machine_of(plan, {}, run_id="run")
    op = machine.start(5)
    recorded = Recorded([before])
    assert recorded.feed(machine, op) is None
    op = machine.resume(Unknown(lost), 6)
    assert op.step_id == "k/reconcile"
    assert recorded.feed(machine, op) is None
    assert Recorded([before, last]).feed(machine, op) is not None


@pytest.mark.parametrize(
    ("total", "attempts", "last"),
    [
        (None, [None], None),
        (LLMUsage(5, 5, 10), [LLMUsage(2, 2, 4)], LLMUsage(3, 3, 6)),
        # its cost was not known
        (LLMUsage(2, 2, 4), [LLMUsage(2, 2, 4, Decimal(1))], LLMUsage(0, 0, 0)),
        (LLMUsage(0, 0, 0), [None], LLMUsage(0, 0, 0)),
        (
            LLMUsage(3, 3, 6, Decimal("0.3")),
            [LLMUsage(2, 2, 4, Decimal("0.1"))],
            LLMUsage(1, 1, 2, Decimal("0.2")),
        ),
    ],
)
def test_what_the_last_attempt_consumed(total: Any, attempts: list[Any], last: Any) -> None:
    tried = [Attempt(StepError("model", "E", "e"), 1, 2, usage) for usage in attempts]
    assert last_usage(total, tried) == last


def test_a_reservation_that_was_spent_is_not_given_back() -> None:
    """An answer without usage is charged in full, also where its next attempt is refused for want
    of tokens.
    """
    made = program(llm("m", "x", allowed_outputs=["yes"], max_tokens=100))
    plan = compile_flow(Flow(made), CONTRACTS)
    terms = RunTerms(budget=Budget(max_tokens=150), count_tokens=lambda *_: 20)
    machine = machine_of(plan, {}, terms, run_id="run")
    machine.start(5)
    assert machine.ledger.tokens == 30
    assert machine.resume(Answer("perhaps"), 6).code == END
    assert machine.error is not None
    assert "the call may use 120 tokens, 30 are left" in machine.error.message
    assert machine.ledger.tokens == 30


def test_a_tool_call_that_was_not_begun_in_time_is_no_charge_of_a_model() -> None:
    """Under a budget of tokens, beside which nothing of a tool's call is settled."""
    plan = compile_flow(Flow(program(step("a", "fetch", timeout_seconds=1))), CONTRACTS)
    terms = RunTerms(budget=Budget(max_tokens=150))
    machine = machine_of(plan, {}, terms, run_id="run")
    machine.start(5)
    assert machine.resume(TimedOut(called=False), 6).code == END
    assert machine.status is TraceStatus.FAILED
    assert machine.ledger.tokens == 150
