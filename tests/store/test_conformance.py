"""Every store does the same: SQLite in a file and in memory, and PostgreSQL, under one history."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from campaigns import first
from conformance import ANSWERS, LENGTH, Operation, Subject, answers, differences, history, hold
from postgres import PostgresServer

from nano_vm.store.protocol import open_store
from nano_vm.store.sql.store import SqlStore

TRIED = first(3, (0, 1, 6, 2, 3, 4, 5, 7))
"""Seeds of histories; the first three together do all there is to do."""


@pytest.fixture
def subjects(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, Subject]]:
    server: PostgresServer = request.getfixturevalue("postgres")
    urls = {
        "a file": f"sqlite:///{tmp_path}/runs.db",
        "memory": "sqlite://",
        "PostgreSQL": server.database(),
    }
    made = {
        name: Subject(lambda url=url: open_store(url), kept=name != "memory")  # type: ignore[misc]
        for name, url in urls.items()
    }
    yield made
    for subject in made.values():
        subject.store.close()


@pytest.mark.campaign
@pytest.mark.parametrize("seed", TRIED)
def test_stores_that_are_told_the_same_hold_the_same(
    subjects: dict[str, Subject], seed: int
) -> None:
    hold(subjects, list(history(seed, LENGTH)), each=10)


@pytest.mark.slow
def test_what_one_exports_the_others_take_in(subjects: dict[str, Subject]) -> None:
    operations = list(history(101, LENGTH))
    source = subjects["a file"]
    for operation in operations:
        source.do(operation)
    text = source.exported()
    for name in ("memory", "PostgreSQL"):
        subjects[name].store.import_(io.StringIO(text), unfinished=True)
        assert subjects[name].exported() == text
        assert subjects[name].view()["check"] == []
    views = {name: subjects[name].view() for name in ("memory", "PostgreSQL")}
    assert differences(views) == []


@pytest.mark.slow
def test_histories_do_all_there_is_to_do() -> None:
    """Each operation is done, with each of its answers, by those that are tried now together."""
    found = answers(lambda: open_store("sqlite://"), TRIED)
    assert found >= ANSWERS, ANSWERS - found


class Forgetful(SqlStore):
    """A store with a fault: it gives a claim to somebody else's run."""

    def claim(self, run_ids: Any, owner: str, now_ns: int, **options: Any) -> Any:
        claimed = super().claim(run_ids, owner, now_ns, **options)
        return {run_id: replace(claim, fence=claim.fence + 1) for run_id, claim in claimed.items()}


def test_a_store_that_differs_is_found() -> None:
    right = Subject(lambda: open_store("sqlite://"), kept=False)
    wrong = Subject(lambda: Forgetful("sqlite://"), kept=False)
    with pytest.raises(AssertionError, match="answer of wrong"):
        hold({"right": right, "wrong": wrong}, list(history(1, LENGTH)), each=10)


def test_a_history_can_be_read() -> None:
    assert str(Operation("erase", {"run_id": "run-1"})) == "erase(run_id='run-1')"
    assert list(history(3, 9)) == list(history(3, 9))
