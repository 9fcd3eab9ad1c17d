"""Worlds in which things take long, and what is looked at in all worlds because of them."""

from __future__ import annotations

import pytest
from campaigns import first

from nano_vm.records.status import StepStatus
from nano_vm.store.records import STEP, Message, Row, StoredRun
from simulation.campaign import sound
from simulation.invariants import _after_cancel, _times
from simulation.long import LONG_WAY_NS, Long
from simulation.mutants import found_by, mutants

CHUNK = 20
CHUNKS = first(1, range(20))


@pytest.mark.campaign
@pytest.mark.parametrize("chunk", CHUNKS)
def test_no_world_in_which_things_take_long_is_broken(chunk: int) -> None:
    found = sound(range(chunk * CHUNK, (chunk + 1) * CHUNK), "long")
    assert set(found.runs) == {"success", "failed", "cancelled"}


def test_they_have_in_them_what_they_are_for() -> None:
    worlds = [Long(seed) for seed in range(40)]
    assert any(len(world.deploys) == 2 for world in worlds), "a deploy that is taken back"
    assert any(world.database.takes_answers and world.outages for world in worlds)
    assert any(world.ledger.way_ns == LONG_WAY_NS for world in worlds)
    assert {bool(world.linger_ns) for world in worlds} == {True, False}


@pytest.mark.slow
def test_an_event_is_sent_before_anybody_asks_for_it() -> None:
    for seed in range(40):
        world = Long(seed)
        if world.hastes and any(program.name == "hurry" for program in world.programs):
            world.hastes = 1.0
            world.live()
            told = [happening.what for happening in world.world.history]
            assert any(what.startswith("sends more-") for what in told)
            assert world.broken == []
            return
    raise AssertionError("no such world")


@pytest.mark.slow
def test_a_cancellation_that_stops_nothing_is_found() -> None:
    mutant = next(m for m in mutants() if m.what.endswith("(F6)"))
    known = found_by(mutant, range(60), seconds=120)
    assert known.how.partition(": ")[2].startswith(("r", "worker"))
    assert "cancelled, and" in known.how


# --- what is looked at ---


def run_with(*rows: Row, messages: tuple[Message, ...] = ()) -> StoredRun:
    return StoredRun("r0", "hurry", "", 0, rows=list(rows), inbox=list(messages))


def step(path: str, begun: int, ended: int, frame: str = "") -> Row:
    return Row(STEP, frame, path, "tool", StepStatus.SUCCESS, begun, ended)


def test_a_time_that_goes_back_is_seen() -> None:
    assert list(_times(run_with(step("a", 5, 6), step("b", 4, 5)))) == ["its time goes back at b"]
    assert list(_times(run_with(step("a", 5, 4)))) == ["its time goes back at a"]
    loop = step("round#0/a", 2, 3), step("round", 1, 4)  # which ends after what is in it
    assert list(_times(run_with(*loop, step("c", 1, 2, frame="both:1")))) == []


def test_a_decision_after_a_cancellation_is_seen() -> None:
    cancel = Message("cancel", "", {}, "ann", 0, id=2)
    before, after = (Message("approve", "ask", {}, "bob", 0, id=number) for number in (1, 3))
    assert list(_after_cancel(run_with(messages=(before, cancel)))) == []
    assert list(_after_cancel(run_with(messages=(cancel, after)))) == [
        "approve of ask was recorded after it was cancelled"
    ]
