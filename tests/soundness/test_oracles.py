"""The oracles by themselves: what they call broken is broken, what they call kept is kept, by
programs judged by hand.
"""

from __future__ import annotations

from typing import Any

import pytest

from nano_vm.language.flow import Flow
from nano_vm.language.program import Program
from nano_vm.machine.compile import compile_flow
from nano_vm.machine.machine import Machine, machine_of
from nano_vm.machine.outcome import Answer, Cancelled, Failed, TimedOut, Value
from nano_vm.machine.plan import MODEL
from nano_vm.machine.simulate import simulate
from nano_vm.records.record import StepError
from nano_vm.records.recording import Recording
from nano_vm.records.trace import Trace

from .campaign import ATTACKS, CONTRACTS, Attack, Case, Claims, Seen, campaign
from .history import History, Steps, before, names_in
from .oracles import Statement, broken

Step = dict[str, Any]


def ask(id: str = "ask", **fields: Any) -> Step:
    return {
        "id": id,
        "type": "llm",
        "prompt": "may we?",
        "allowed_outputs": ["yes", "no"],
        "output_key": id,
        **fields,
    }


def pay(id: str = "pay", **fields: Any) -> Step:
    return {"id": id, "type": "tool", "tool": "pay", "args": {"to": "$who"}, **fields}


def mail(id: str = "mail", **fields: Any) -> Step:
    return {"id": id, "type": "tool", "tool": "mail", "args": {"text": "hello"}, **fields}


def guard(*then: Step, id: str = "g", name: str = "ask", **fields: Any) -> Step:
    return {
        "id": id,
        "type": "condition",
        "condition": f"${name} == 'yes'",
        "then": list(then),
        **fields,
    }


def parallel(*branches: Any, id: str = "p", **fields: Any) -> Step:
    return {"id": id, "type": "parallel", "parallel_steps": list(branches), **fields}


def told(steps: list[Step], outcomes: dict[str, Any] | None = None, cancel: str = "") -> History:
    """The run in which calls end as *outcomes* say by path; a text for an error is ``!kind``.
    Models answer yes.
    """
    outcomes = outcomes or {}
    document = {"name": "p", "steps": steps}
    plan = compile_flow(Flow(Program.from_dict(document)), CONTRACTS)
    machine = machine_of(plan, {"who": "me", "items": [1, 2]}, run_id="r")
    machine.now = 0

    def feed(machine: Machine, op: Any) -> Any:
        path = machine.path
        if path == cancel:
            return machine.resume(Cancelled(), 0)
        value = outcomes.get(path, "yes")
        if isinstance(value, str) and value.startswith("!"):
            return (
                machine.resume(TimedOut(), 0)
                if value == "!timeout"
                else machine.resume(Failed(StepError(value[1:], "E", "no", False)), 0)
            )
        return (
            machine.resume(Answer(value), 0)
            if op.code == MODEL
            else machine.resume(Value(value), 0)
        )

    simulate(machine, feed)
    recording = Recording("p", "d", "r", 1, 0, 0, records=machine.records, ops=plan.ops)
    machine.fill(recording)
    return History(Steps(document), list(Trace(recording).lines()))


THEN = Statement("guard", "pay", ("g.then",))
TWICE = {"id": "again", "type": "loop", "max_iterations": 2, "on_exhausted": "continue"}


@pytest.mark.parametrize(
    ("steps", "outcomes", "word"),
    [
        pytest.param([ask(), guard(pay())], {}, None, id="behind the guard"),
        pytest.param([ask(), guard(mail()), pay()], {}, None, id="after the guard's block"),
        pytest.param([ask(), guard(mail()), pay()], {"ask": "no"}, "no guard", id="round the guard"),
        pytest.param([ask(), pay(), guard(mail())], {}, "no guard", id="before the guard"),
        pytest.param([ask(), guard(pay(), pay("more"))], {}, "used up by", id="one decision, two calls"),
        pytest.param([ask(), guard(pay()), guard(pay("more"), id="g2")], {}, "used up", id="a "
                                                                                           "second "
                                                                                           "call by another decision"),
        pytest.param([ask(), {**TWICE, "steps": [guard(pay())]}], {}, None, id="asked again in each turn"),
        pytest.param([ask(), guard({**TWICE, "steps": [pay()]})], {}, "used up", id="a loop behind the guard"),
        pytest.param([ask(), parallel([guard(mail())], [pay()])], {}, "no guard", id="siblings do not guard"),
        pytest.param([ask(), parallel([guard(mail())], [mail("m2")]), pay()], {}, None, id="a branch that was joined"),
        pytest.param([ask(), guard(parallel(pay(), mail()))], {}, None, id="one branch behind the guard"),
        pytest.param([ask(), guard(parallel(pay(), pay("more")))], {}, "used up", id="two "
                                                                                     "branches behind the guard"),
        pytest.param(
            [ask(), guard({"id": "m", "type": "map", "over": "$items", "steps": [pay()]})], {}, "used up", id="items behind it"
        ),
        pytest.param(
            [ask(), guard(mail()), {"id": "w", "type": "set", "values": {"ask": "no"}}, pay(args={"to": "$ask"})],
            {},
            "written after",
            id="what both read is written between",
        ),
        pytest.param(
            [ask(), guard(mail()), {"id": "w", "type": "set", "values": {"who": "you"}}, pay()],
            {},
            None,
            id="what only the call reads is written between",
        ),
        pytest.param(
            [ask(), guard(mail()), {"id": "m", "type": "map", "as": "ask", "over": ["x"], "steps": [pay(args={"to": "$ask"})]}],
            {},
            "written after",
            id="an item of the name that the guard read",
        ),
        pytest.param(
            [ask(), guard(mail()), parallel([{"id": "w", "type": "set", "values": {"ask": "n"}}]), pay(args={"to": "$ask"})],
            {},
            None,
            id="a branch writes to its own copy",
        ),
        pytest.param([ask(), guard(pay(on_error="skip")), guard(pay("b"), id="g2")], {"g/pay": "!tool"}, "used up", id="a failed call"),
        pytest.param(
            [ask(), guard(mail(undo={"tool": "pay", "args": {}})), mail("last")], {"last": "!tool"}, None, id="an undo behind the guard"
        ),
        pytest.param(
            [ask(), guard(pay(undo={"tool": "pay", "args": {}})), mail("last")], {"last": "!tool"}, "used up", id="undo by the same tool"
        ),
        pytest.param(
            [ask(), guard(pay(reconcile={"tool": "pay", "args": {}}))],
            {"g/pay": "!timeout", "g/pay/reconcile": {"done": True}},
            "used up",
            id="reconcile by the same tool",
        ),
        pytest.param(
            [{"id": "c", "type": "call", "program": {"steps": [ask(), guard(pay(args={}))]}}], {}, "no guard", id="of a called program"
        ),
    ],
)  # fmt: skip
def test_guards(steps: list[Step], outcomes: dict[str, Any], word: str | None) -> None:
    why = broken(THEN, told(steps, outcomes))
    assert (why is None) if word is None else (why is not None and word in why), why


def test_a_guard_in_a_called_program_is_named_with_the_call() -> None:
    steps = [{"id": "c", "type": "call", "program": {"steps": [ask(), guard(pay(args={}))]}}]
    assert broken(Statement("guard", "pay", ("c/g.then",)), told(steps)) is None


def test_a_cancelled_run_undoes_after_everything() -> None:
    steps = [mail(undo={"tool": "pay", "args": {}}), ask(), guard(pay()), mail("last")]
    assert broken(THEN, told(steps)) is None
    why = broken(THEN, told(steps, cancel="last"))
    assert why is not None
    assert "undo" in why


@pytest.mark.parametrize(
    ("kind", "names", "steps", "outcomes", "kept"),
    [
        ("after", ("mail",), [mail(), pay()], {}, True),
        ("after", ("mail",), [pay(), mail()], {}, False),
        ("after", ("mail",), [mail(on_error="skip"), pay()], {"mail": "!tool"}, False),
        ("after", ("mail",), [parallel(mail(), pay())], {}, False),
        ("after", ("mail",), [parallel([mail()], [mail("m2")]), pay(), pay("more")], {}, True),
        ("after", ("g.then",), [ask(), guard(mail()), pay()], {}, True),
        ("after", ("g.then",), [ask(), guard(mail()), pay()], {"ask": "no"}, False),
        ("before", ("mail",), [pay(), mail()], {}, True),
        ("before", ("mail",), [mail(), pay()], {}, False),
        ("before", ("mail",), [pay(on_error="skip"), mail()], {"pay": "!tool"}, False),
        ("before", ("ask",), [pay(), ask()], {}, True),
        ("before", ("ask",), [ask(), pay()], {}, False),
    ],
)
def test_order(
    kind: str, names: tuple[str, ...], steps: list[Step], outcomes: dict[str, Any], kept: bool
) -> None:
    assert (broken(Statement(kind, "pay", names), told(steps, outcomes)) is None) is kept


def test_calls_are_counted_with_their_attempts() -> None:
    steps = [pay(max_retries=3, retry={"delay_seconds": 0}, on_error="skip"), pay("more")]
    run = told(steps, {"pay": "!tool"})
    assert broken(Statement("max_calls", "pay", most=2), run) is None
    assert broken(Statement("max_calls", "pay", most=1), run) == "2 calls of pay"


def test_happens_before() -> None:
    assert before((1,), (2,))
    assert not before((2,), (1,))
    assert before((1,), (2, 0, 1))  # before the fork
    assert before((2, 0, 9), (3,))  # joined
    assert not before((2, 0, 1), (2, 1, 9))  # siblings
    assert before((2, 0, 1), (2, 0, 2))
    assert not before((1,), (1,))


def test_names_are_read_from_the_text() -> None:
    assert names_in({"a": ["$x ${y} and $s.output.field", "plain"]}) == {"x", "y", "s.output"}


def everything_proved(attack: Attack) -> Attack:
    def wrong(case: Case) -> Claims | None:
        claims = attack(case)
        if claims is None:
            return None
        return Claims(claims.proved + claims.other, [], claims.judge, claims.marked)

    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "branches"])
def test_a_wrong_proof_is_contradicted(name: str) -> None:
    figures = campaign(range(400), 5, {name: everything_proved(ATTACKS[name])})
    assert len(figures[name].contradictions) >= 10


@pytest.mark.slow
def test_an_edge_called_impossible_is_contradicted() -> None:
    def wrong(case: Case) -> Claims:
        every = [f"{n.index} {e.label}" for n in case.flow.nodes for e in n.edges]

        def judge(seen: Seen) -> Any:
            yield from ((f"{index} {label}", "taken") for index, label in seen.branches())

        return Claims(every, [], judge)

    assert campaign(range(100), 3, {"branches": wrong})["branches"].contradictions
