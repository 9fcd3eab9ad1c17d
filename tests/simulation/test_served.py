"""Worlds whose people decide through two servers: each decision counts once, by who may, on what was
shown, and the log tells of it.
"""

from __future__ import annotations

import pytest
from campaigns import first

from simulation.campaign import sound
from simulation.mutants import found_by, mutants
from simulation.served import Served

CHUNK = 25
CHUNKS = first(1, range(20))


@pytest.mark.campaign
@pytest.mark.parametrize("chunk", CHUNKS)
def test_no_decision_through_servers_is_one_that_must_not_be(chunk: int) -> None:
    found = sound(range(chunk * CHUNK, (chunk + 1) * CHUNK), "served")
    assert found.faults.keys() >= {"death", "lost", "refused", "lost_answer"}


@pytest.mark.slow
def test_people_decide_together_leave_and_are_refused() -> None:
    """The worlds have in them what they are for."""
    worlds = [Served(seed).live() for seed in range(12)]
    refused = [h.what for world in worlds for h in world.world.history if "is refused" in h.what]
    assert sum(len(world.decisions) for world in worlds) >= 6
    assert {world.approvers for world in worlds} == {1, 2, 3}
    assert any(world.left_ns for world in worlds)
    for why in ("NotPermitted", "AlreadyDecided", "Changed", "Problem"):
        assert any(f"is refused ({why})" in what for what in refused), why


@pytest.mark.slow
def test_the_same_seed_is_the_same_history_with_servers() -> None:
    def told() -> list[str]:
        return list(map(str, Served(3).live().world.history))

    assert told() == told()


@pytest.mark.slow
def test_an_approval_that_nobody_held_against_what_was_shown_is_found() -> None:
    mutant = next(m for m in mutants() if "held against what was shown" in m.what)
    known = found_by(mutant, range(40), seconds=120)
    assert "is of something else than was shown" in known.how
