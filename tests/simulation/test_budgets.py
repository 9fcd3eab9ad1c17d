"""Budgets that runs share, in simulated worlds: processes die, stand still and lose answers, and
nothing stays reserved, nor is any call made that no budget has counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from nano_vm import Completion, LLMUsage, Program
from nano_vm.simulation.model import Model
from nano_vm.simulation.simulate import Outside, _One
from nano_vm.simulation.world import World
from nano_vm.store.accounts import Amount, Standing

PROGRAM = Program.from_yaml("""\
name: asks
steps:
  - {id: first, type: llm, prompt: "Well?", max_tokens: 10, max_retries: 3}
  - id: each
    type: map
    over: [1, 2, 3]
    as: n
    steps: [{id: ask, type: llm, prompt: "$n", max_tokens: 10}]
""")

MOST_TOKENS = 5 + 16 + 10
"""Of one call."""

LIMIT = 10**6


class Asked(Outside):
    """A model that counts its calls."""

    model = "m"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.calls = 0

    def host(self) -> dict[str, Any]:
        budget = {"max_llm_calls": LIMIT, "max_cost_usd": LIMIT}
        return {"llm": self, "prices": {"m": (1, 2)}, "budgets": {"all": budget}}

    async def complete(self, messages: Any, max_tokens: int | None = None) -> Completion:
        self.calls += 1
        await self.world.travel()
        await self.world.travel()
        return Completion("yes", LLMUsage(3, 2, 5))


def lived(seeds: Iterable[int]) -> list[tuple[int, Standing]]:
    """How many calls each world made, and how its account stands at the end."""
    found = []
    for seed in seeds:
        world = _One(PROGRAM, Asked, [{}, {}, {}], seed, 2, None)
        assert world.live() is None, seed
        (standing,) = world.database.model.accounts().values()
        assert isinstance(world.outside, Asked)
        found.append((world.outside.calls, standing))
    return found


@pytest.mark.slow
def test_in_no_world_anything_stays_reserved_or_is_not_counted() -> None:
    lost = 0
    for calls, (spent, reserved) in lived(range(30)):
        assert reserved == Amount(), "all runs have ended"
        assert spent.calls >= calls, "each call was reserved before it was made"
        assert 5 * spent.calls <= spent.tokens <= MOST_TOKENS * spent.calls
        lost += spent.tokens > 5 * spent.calls
    assert lost >= 5, "worlds in which a call was lost and charged in full"


@pytest.mark.slow
def test_a_store_that_forgets_what_was_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "charge", lambda self, run_ids: None)
    assert any(reserved != Amount() for _, (_, reserved) in lived(range(8)))
