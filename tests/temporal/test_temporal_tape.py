"""The tape of a run computes it again, and words are used once; no server is needed here."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from build import llm, mapped, parallel, program, step

from nano_vm.errors import AlreadyDecided, Changed, Expired
from nano_vm.language.flow import Flow
from nano_vm.language.policy import Budget
from nano_vm.machine.compile import plan_of
from nano_vm.machine.machine import Machine, machine_of
from nano_vm.machine.outcome import Answer, Arrived, Failed, Joined, TimedOut, Value
from nano_vm.machine.pending import shown_digest
from nano_vm.machine.plan import END, FORK, Plan
from nano_vm.machine.terms import RunTerms
from nano_vm.records.record import StepError
from nano_vm.temporal import life
from nano_vm.temporal.conversion import json_bytes
from nano_vm.temporal.plans import contract_of
from nano_vm.temporal.snapshot import snapshot
from nano_vm.temporal.tape import Begun, Lost, Tape, fed
from nano_vm.temporal.words import Words, refusal, refused

EFFECTS = {"t": "read", "w": "write"}


def plan(*steps: dict[str, Any], **fields: Any) -> Plan:
    flow = Flow(program(*steps, **fields))
    return plan_of(flow, {name: contract_of(name, {"effect": e}) for name, e in EFFECTS.items()})


def recorded(machine: Machine) -> list[Any]:
    return [(record[1] if type(record) is tuple else record) for record in machine.records]


# --- tapes ----------------------------------------------------------------------------------------


def test_the_json_form_of_a_tape_is_the_tape() -> None:
    tape = Tape()
    error = StepError("tool", "X", "no", True, 2.5)
    entries = [
        (1, Begun()),
        (5, Value({"b": 1, "a": [2]})),
        (7, Lost((6,), settled=True)),
        (9, Failed(error)),
    ]
    tape.of("").extend(entries)
    tape.of("p:0").append((8, Begun()))
    back = Tape(json.loads(json.dumps(tape.parts()[0])))
    assert back.frames == tape.frames
    assert list(back.frames[""][1][1].value) == ["b", "a"]


def test_segments_that_were_given_stay_as_they_are() -> None:
    first = {"": [[1], [2, {"kind": "value", "value": 3}]]}
    tape = Tape([first])
    assert tape.parts()[0] == [first]
    tape.of("").append((4, Joined()))
    assert tape.parts()[0] == [first, {"": [[4, {"kind": "joined"}]]}]


def test_a_cut_into_a_segment_writes_one_of_all() -> None:
    tape = Tape([{"": [[1], [2, {"kind": "value", "value": 3}]], "p:0": [[1]]}])
    tape.cut("", 1)
    assert tape.parts()[0] == [{"": [[1]], "p:0": [[1]]}]


@pytest.mark.parametrize("told", [[], [1, 2, 3, 4], [1, {"kind": "nothing"}]])
def test_what_is_no_entry_is_refused(told: list[Any]) -> None:
    with pytest.raises(ValueError, match="no"):
        Tape([{"": [told]}])


def test_a_large_value_stands_by_itself() -> None:
    tape, large = Tape(), ["x" * 40_000]
    tape.of("").extend([(1, Begun()), (2, Value(large)), (3, Value("small"))])
    segments, values = tape.parts()
    assert segments == [{"": [[1], [2, 0], [3, {"kind": "value", "value": "small"}]]}]
    assert values == [large]
    later = Tape(segments, values)
    assert later.frames == tape.frames
    later.of("").append((4, Value("y" * 40_000)))
    segments, values = later.parts()
    assert segments[1] == {"": [[4, 1]]}
    assert values == [large, "y" * 40_000]


def test_an_outcome_takes_seventy_bytes_beside_its_value() -> None:
    tape = Tape()
    hours = 3_600_000_000_000
    tape.of("").extend([(1, Begun()), *((hours + n, Value("x" * 10)) for n in range(1000))])
    assert len(json.dumps(tape.parts()[0], separators=(",", ":"))) / 1000 <= 10 + 70


def test_a_lost_call_counts_each_time_it_is_lost() -> None:
    machine = machine_of(plan(step("a")), {}, RunTerms(budget=Budget(max_tool_calls=3)))
    op = machine.start(1)
    op = fed(machine, op, (2, Lost((1,))))
    op = fed(machine, op, (3, Lost((2,))))
    assert op.code != END
    assert machine.ledger.tool_calls == 0
    following = fed(machine, op, (4, Lost((3,))))
    assert following.code == END
    assert machine.error is not None
    assert machine.error.kind == "budget"


def test_all_lost_attempts_stand_in_the_record() -> None:
    machine = machine_of(plan(step("a")), {})
    op = machine.start(1)
    for entry in [(2, Lost((1,))), (3, Lost((2,))), (4, Value("v"))]:
        op = fed(machine, op, entry)
    assert op.code == END
    assert machine.records[0][10]["lost"] == [1, 2]


# --- snapshots ------------------------------------------------------------------------------------


def test_a_snapshot_of_a_run_that_waits_is_suspended() -> None:
    made = plan(step("a"), {"id": "w", "type": "wait", "event": "go"}, step("b"))
    tape = Tape()
    tape.of("").extend([(1, Begun()), (2, Value("x"))])
    machine = machine_of(made, {})
    assert snapshot(machine, tape) == 2
    assert machine.status.value == "suspended"
    assert [entry["path"] for entry in machine.waiting] == ["w"]
    assert machine.output is None
    tape.of("").extend([(5, Arrived({"k": 1})), (6, Value("y"))])
    machine = machine_of(made, {})
    assert snapshot(machine, tape) == 6
    assert (machine.status.value, machine.output) == ("success", "y")


def test_a_snapshot_with_a_call_under_way_is_running() -> None:
    wait = {"id": "w", "type": "wait", "event": "go"}
    made = plan(parallel(wait, step("b")), step("c"))
    tape = Tape()
    for frame in ("", "p:0", "p:1"):
        tape.of(frame).append((1, Begun()))
    machine = machine_of(made, {})
    snapshot(machine, tape)
    assert machine.status.value == "running"
    tape.of("p:1").append((3, Value(1)))
    machine = machine_of(made, {})
    snapshot(machine, tape)
    assert machine.status.value == "suspended"


def test_a_tape_computes_forks_again() -> None:
    made = plan(mapped(step("b", args={"x": "$item"}), over={"expr": "[1, 2, 3]"}), llm("q"))
    tape = Tape()
    tape.of("").append((1, Begun()))
    for number in range(3):
        tape.of(f"m:{number}").extend([(2, Begun()), (3 + number, Value(number * 10))])
    machine = machine_of(made, {})
    snapshot(machine, tape)
    assert machine.status.value == "running"
    assert machine.records[0][3] == [0, 10, 20]
    tape.of("").extend([(9, Joined()), (11, Answer("done"))])
    machine = machine_of(made, {})
    assert snapshot(machine, tape) == 11
    assert machine.output == "done"
    assert machine.records[0][7] == 9


@pytest.mark.parametrize("frames", [1, 500], ids=["steps", "items of a map"])
def test_what_is_carried_beside_a_value_is_small(frames: int) -> None:
    """By outcome, with the name of its frame and when that began."""
    count, tape, hour = 500, Tape(), 3_600_000_000_000
    for number in range(count):
        name = "" if frames == 1 else f"each:{number}"
        tape.of(name).append((hour + number * 1_234_567_891, Value("x")))
    segments, _ = tape.parts()
    assert len(json_bytes(segments)) <= 70 * count


# --- words ----------------------------------------------------------------------------------------

APPROVAL = {"path": "w", "step_id": "w", "kind": "approval", "role": "boss", "show": {"x": 1}}
WAIT = {"path": "e", "step_id": "e", "kind": "wait", "event": "paid", "match": {"id": 7}}


def test_a_decision_is_used_once() -> None:
    words = Words()
    with pytest.raises(Changed, match="asks no approval at 'w'"):
        words.look("approval", "w", None, 0)
    words.ask(dict(APPROVAL))
    words.look("approval", "w", shown_digest(APPROVAL), 0)
    words.look("approval", "w", shown_digest(APPROVAL)[:12], 0)
    for wrong in ("0" * 64, shown_digest(APPROVAL)[:12] + "x"):
        with pytest.raises(Changed, match="is not the digest"):
            words.look("approval", "w", wrong, 0)
    with pytest.raises(Changed, match="is too short for a digest"):
        words.look("approval", "w", shown_digest(APPROVAL)[:11], 0)
    words.say("w", {"approved": True, "by": "ann", "at_ns": 5})
    with pytest.raises(AlreadyDecided, match="by 'ann'"):
        words.look("approval", "w", None, 0)
    word = words.taken("w")
    assert word is not None
    assert word["approved"] is True
    assert words.taken("w") is None
    with pytest.raises(AlreadyDecided):
        words.look("approval", "w", None, 0)


def test_a_decision_after_the_deadline_is_too_late() -> None:
    words = Words()
    words.ask({**APPROVAL, "deadline_ns": 100})
    words.look("approval", "w", None, 99)
    with pytest.raises(Expired) as late:
        words.look("approval", "w", None, 170)
    assert late.value.deadline_ns == 100


def test_a_decision_is_of_the_role_that_is_asked_when_it_comes() -> None:
    words = Words()
    words.ask(dict(APPROVAL))
    words.look("approval", "w", None, 0, ["boss"])
    for looked_up in (["clerk"], []):
        with pytest.raises(Changed, match="asks another role at 'w' by now"):
            words.look("approval", "w", None, 0, looked_up)


def test_an_event_that_comes_early_is_kept_for_the_step_that_it_fits() -> None:
    words = Words()
    assert words.event("paid", {"id": 8}, None)
    assert words.event("paid", {"id": 7, "sum": 1}, "e-1")
    assert not words.event("paid", {"id": 7, "sum": 2}, "e-1")
    words.ask(dict(WAIT))
    assert words.came("e")
    word = words.taken("e")
    assert word is not None
    assert word["payload"] == {"id": 7, "sum": 1}
    assert [event["payload"] for event in words.events] == [{"id": 8}]


def test_an_event_is_for_the_step_that_waits_for_it() -> None:
    words = Words()
    words.ask(dict(WAIT), lambda payload: None if "sum" in payload else "'sum' is missing")
    assert "'sum' is missing" in (words.fault_of_event("paid", {"id": 7}, 0) or "")
    assert words.fault_of_event("paid", {"id": 8}, 0) is None
    assert words.event("paid", {"id": 8}, None)
    assert not words.came("e")
    assert words.event("paid", {"id": 7, "sum": 3}, None)
    assert words.came("e")


def test_requests_stand_while_none_is_brief_or_has_its_answer() -> None:
    words = Words()
    assert not words.stand
    words.ask(dict(APPROVAL))
    assert words.stand
    words.ask({**WAIT, "event": "tick"}, brief=True)
    assert not words.stand
    words.ask(dict(WAIT))  # the next wait at this path is a long one
    assert words.stand
    words.say("w", {"approved": True, "by": "ann", "at_ns": 5})
    assert not words.stand
    words.taken("w")
    assert words.stand
    words.over("e")
    assert not words.stand


def test_what_was_said_and_not_used_goes_along() -> None:
    words = Words()
    words.ask(dict(APPROVAL))
    words.say("w", {"approved": False, "by": "ann", "at_ns": 5})
    words.event("paid", {"id": 7}, "e-1")
    later = Words(words.events, words.decided, sorted(map(list, words.known)))
    later.ask(dict(APPROVAL))
    assert later.came("w")
    assert not later.event("paid", {}, "e-1")


@pytest.mark.parametrize(
    "error",
    [
        Changed("no"),
        Expired("late", deadline_ns=4),
        AlreadyDecided("was", decision="approve", by="ann", decided_ns=3),
    ],
)
def test_a_refusal_travels(error: Any) -> None:
    name, about = refusal(error)
    back = refused(name, str(error), about)
    assert type(back) is type(error)
    assert (str(back), vars(back)) == (str(error), vars(error))


def test_a_timer_that_passed_is_no_outcome_of_a_fork() -> None:
    """An outcome that a request cannot have is a fault of the driver, not of the tape."""
    made = plan(parallel(step("a"), step("b")))
    machine = machine_of(made, {})
    op = machine.start(1)
    assert op.code == FORK
    with pytest.raises(Exception, match="cannot have the outcome"):
        fed(machine, op, (2, TimedOut()))


# --- a worker that stood still --------------------------------------------------------------------


async def test_a_process_that_stood_still_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    # of the module alone: event loops of other threads live by the same clock
    monkeypatch.setattr(life, "time", SimpleNamespace(monotonic=lambda: now))
    pulse = life.Pulse()
    assert pulse.regular
    now += 3.0  # before the loop has gone on
    assert not pulse.regular
    pulse.tick()
    assert not pulse.regular
    now += 0.6
    assert pulse.regular
