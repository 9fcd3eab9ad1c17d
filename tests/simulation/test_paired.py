"""Worlds of two kinds of faults, and what is looked at in all worlds because of them."""

from __future__ import annotations

from collections import Counter

import pytest
from campaigns import first

from nano_vm.simulation.world import Faults
from nano_vm.store.records import INTENT, Message, Row, StoredRun
from simulation.campaign import sound
from simulation.invariants import _budget, _ends_ns, _in_time
from simulation.life import Life
from simulation.mutants import found_by, mutants
from simulation.paired import AWAY_NS, OFTEN, Paired
from simulation.programs import FOCUSED, PROGRAMS

CHUNK = 20
CHUNKS = first(1, range(20))


@pytest.mark.campaign
@pytest.mark.parametrize("chunk", CHUNKS)
def test_no_world_of_two_kinds_of_faults_is_broken(chunk: int) -> None:
    found = sound(range(chunk * CHUNK, (chunk + 1) * CHUNK), "paired")
    assert set(found.runs) == {"success", "failed", "cancelled"}


def test_they_have_two_kinds_of_faults_each_and_every_kind_in_some() -> None:
    seen: Counter[str] = Counter()
    for seed in range(120):
        world = Paired(seed)
        kinds = [kind for kind in Faults.__dataclass_fields__ if getattr(world.faults, kind)]
        assert len(kinds) + bool(world.outages) == 2
        seen.update([*kinds, *(["outage"] if world.outages else [])])
        seen.update(program.name for program in world.programs if program in FOCUSED)
    assert seen.keys() >= {*OFTEN, "outage", "wired", "early", "survey"}


@pytest.mark.slow
def test_the_store_goes_away_right_after_it_took_something() -> None:
    world = next(world for world in map(Paired, range(40)) if world.outages)
    stored: list[int] = []
    world.database.appended.insert(0, lambda process, item: stored.append(world.world.now))
    world.live()
    (away_ns,) = world.outages
    assert away_ns in stored
    assert not any(away_ns < at < away_ns + AWAY_NS[0] for at in stored)
    assert world.broken == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("who waited at a call counts as who made it", "is in doubt, begun by"),
        ("what is owed is stored again though it is there", "a step is recorded twice"),
    ],
)
def test_what_takes_two_faults_is_found_soon(what: str, how: str) -> None:
    known = found_by(next(m for m in mutants() if m.what == what), range(40), seconds=120)
    assert how in known.how


# --- what is looked at ---


def intent(path: str, type: str = "wait", at_ns: int = 0) -> Row:
    return Row(INTENT, "", path, type, None, at_ns)


def test_what_came_in_time_and_was_not_used_is_seen() -> None:
    life = next(life for life in map(Life, range(20)) if life.database.one_machine)
    run = StoredRun("r0", "early", "", 0, rows=[intent("both/word", at_ns=5)])
    ends_ns = _ends_ns(run, "both/word")
    assert ends_ns == 3_000_000_005
    error = {"error": {"kind": "timeout"}}
    run.rows.append(Row(1, "", "both/word", "wait", None, 5, ends_ns, rest=error))
    run.inbox = [Message("event", "word-r0", {}, None, ends_ns - 1)]
    assert list(_in_time(life, run)) == ["event of both/word came in time, and is not used"]
    run.inbox = [Message("event", "word-r0", {}, None, ends_ns)]
    assert list(_in_time(life, run)) == []


def test_a_budget_that_is_used_up_too_soon_is_seen() -> None:
    life = Life(0)
    frugal = next(program for program in PROGRAMS if program.name == "frugal")
    run = StoredRun("r0", "frugal", "", 0, rows=[intent("mood", "llm")], error_kind="budget")
    (told,) = _budget(life, run, frugal)
    assert told.startswith("its budget is used up, and it began {'llm': 1}")
    run.rows.append(intent("both/judge", "llm"))
    assert list(_budget(life, run, frugal)) == []
    run.tokens = 8
    assert list(_budget(life, run, frugal)) == ["8 tokens, and its answers took 0"]
