"""The model of a store that simulations use keeps what SQLite and PostgreSQL keep, under the same
histories.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from campaigns import first
from conformance import ANSWERS, ARCHIVE, LENGTH, Subject, answers, history, hold
from postgres import PostgresServer

from nano_vm.simulation.model import Model
from nano_vm.store.accounts import Amount, Reservation, Shortage
from nano_vm.store.protocol import Append, open_store
from nano_vm.store.records import Message, StoredRun

OVER_SQLITE = first(14, range(40))
OVER_POSTGRES = first(2, (41, 42, 40, 43))
"""Seeds of histories; those that come first together do all there is to do."""


class Direct(Model):
    """The model, awaited where a store is."""

    def __init__(self) -> None:
        super().__init__(lambda: 10**18)

    async def begin(self, run: StoredRun, *, again: bool = False) -> bool:
        return self.create(run, again=again)

    async def append(self, item: Append) -> None:  # type: ignore[override]
        super().append(item)

    async def told(self, key: int) -> list[Message]:  # type: ignore[override]
        return super().told(key)

    async def reserve(self, reservation: Reservation) -> Shortage | None:  # type: ignore[override]
        return super().reserve(reservation)

    async def settle(self, id: str, used: Amount | None) -> None:  # type: ignore[override]
        super().settle(id, used)

    def runs(self) -> Iterator[StoredRun]:
        yield from self.page(size=10**6).runs

    def close(self) -> None:
        """Nothing is open."""


def subjects(*urls: str) -> dict[str, Subject]:
    made: dict[str, Subject] = {
        url: Subject(lambda url=url: open_store(url), kept=True)  # type: ignore[misc]
        for url in urls
    }
    made["the model"] = Subject(Direct, kept=False)  # type: ignore[arg-type]
    return made


@pytest.mark.campaign
@pytest.mark.parametrize("seed", OVER_SQLITE)
def test_the_model_holds_what_sqlite_holds(tmp_path: Path, seed: int) -> None:
    both = subjects(f"sqlite:///{tmp_path}/runs.db")
    hold(both, list(history(seed, LENGTH, ARCHIVE)), each=10, archives=False)
    for subject in both.values():
        subject.store.close()


@pytest.mark.campaign
@pytest.mark.parametrize("seed", OVER_POSTGRES)
def test_the_model_holds_what_postgres_holds(seed: int, request: pytest.FixtureRequest) -> None:
    server: PostgresServer = request.getfixturevalue("postgres")
    both = subjects(server.database())
    hold(both, list(history(seed, LENGTH, ARCHIVE)), each=20, archives=False)
    for subject in both.values():
        subject.store.close()


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [OVER_SQLITE, OVER_POSTGRES])
def test_histories_do_to_the_model_all_there_is_to_do(seeds: Sequence[int]) -> None:
    expected = {answer for answer in ANSWERS if answer[0] not in ARCHIVE}
    found = answers(Direct, seeds, ARCHIVE)
    assert found >= expected, expected - found


class Lenient(Direct):
    """A model with a fault: it lets an owner append that has lost the run."""

    async def append(self, item: Append) -> None:  # type: ignore[override]
        kept = self._by_key.get(item.key)
        if kept is not None:
            item.fence = kept.run.fence
        await super().append(item)


def test_a_model_that_differs_is_found() -> None:
    both: Any = {
        "right": Subject(Direct, kept=False),  # type: ignore[arg-type]
        "wrong": Subject(Lenient, kept=False),  # type: ignore[arg-type]
    }
    with pytest.raises(AssertionError, match="answer of wrong"):
        hold(both, list(history(1, 200, ARCHIVE)), each=10, archives=False)
