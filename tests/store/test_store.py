"""The store: the same tests for SQLite, in a file and in memory, and for a real PostgreSQL."""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import warm
from build import llm, program
from in_memory import folder_in_memory
from patience import HANGS_SECONDS
from postgres import PostgresServer, url_of

from nano_vm import Completion, ExecutionVM, LLMUsage
from nano_vm.errors import LeaseLost, MissingExtra, StoreError, UnknownRun
from nano_vm.records.status import StepStatus
from nano_vm.store import records, seals
from nano_vm.store.protocol import Append, RunFilter, open_store
from nano_vm.store.records import INTENT, PAUSED, STEP, Erased, Message, Row, StoredRun
from nano_vm.store.seals import RunSeal, seal_of
from nano_vm.store.sql import cells
from nano_vm.store.sql import store as stores
from nano_vm.store.sql import writer as writing
from nano_vm.store.sql.dialect import SCHEMES
from nano_vm.store.sql.sqlite import SQLite
from nano_vm.store.sql.store import SqlStore
from nano_vm.store.transfer import export, read_export
from nano_vm.values import UNSET, canonical

LONG = "a prompt that is longer than what stands in a cell " * 4
NUMBERS = count(1)
DATABASES = ("file", "memory", "postgres")


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


@pytest.fixture(params=("file", "postgres"))
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that several may open."""
    return url_of(request, tmp_path)


class Provider:
    """A model that says odd things of itself."""

    model = "m"

    async def complete(self, messages: Any, **options: Any) -> Completion:
        return Completion("hi", LLMUsage(1, 2, 3), "m\x00" + "n" * 100_000, "st\x00op")


def test_what_a_provider_says_of_itself_loses_no_run(shared: str) -> None:
    vm = ExecutionVM(Provider(), store=shared)
    assert vm.run_sync(program(llm()), run_id="r").ok
    vm.close()
    with SqlStore(shared) as store:
        stored = store.load("r")
        assert stored.status == "success"
        assert str(stored.rows[-1].model).startswith("m\ufffdnnn")


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    with SqlStore(url) as opened:
        yield opened
        assert damage(opened) == []


def new_run(**fields: Any) -> StoredRun:
    number = next(NUMBERS)
    given: dict[str, Any] = {
        "run_id": f"run-{number}",
        "program_name": "refund",
        "program_digest": "d" * 64,
        "created_ns": 1_000 + number,
        "document": {"program": {"name": "refund", "steps": [LONG]}, "programs": {}},
        "inputs": {"z": 1, "a": LONG},
        "about": {"tools": {}},
        "salt": b"0123456789abcdef",
        "status": "running",
        "owner": "me",
    }
    return StoredRun(**given | fields)


def step(number: int, output: Any = None, **fields: Any) -> Row:
    row = Row(
        STEP,
        "",
        f"s{number}",
        "tool",
        StepStatus.SUCCESS,
        10**18 + number,
        10**18 + number + 5,
        output=output,
    )
    return replace(row, **fields)


def intent(number: int) -> Row:
    return Row(INTENT, "", f"s{number}", "tool", None, 10**18 + number)


def append(store: SqlStore, *items: Append) -> list[BaseException | None]:
    async def all_of_them() -> list[BaseException | None]:
        return await asyncio.gather(*(store.append(item) for item in items), return_exceptions=True)

    return asyncio.run(all_of_them())


def damage(store: SqlStore) -> list[str]:
    """What `check` finds, but for seals and receipts of runs that a test here appended to without
    being their owner.
    """
    return [
        text
        for text in store.check()
        if "its seal does not fit its records" not in text
        and "no receipt with its seal" not in text
    ]


def must(store: SqlStore, *items: Append) -> None:
    for error in append(store, *items):
        if error is not None:
            raise error


def ended(store: SqlStore, rows: list[Row], finished_ns: int = 2_000, **fields: Any) -> StoredRun:
    """A run that was driven to its end."""
    run = new_run(**fields)
    assert store.create(run)
    seal = RunSeal(store.load(run.run_id))
    first = seal.after(rows)
    last = seal.after(
        (),
        {"status": "success", "owner": None, "output": {"said": LONG}, "finished_ns": finished_ns},
    )
    must(store, Append(run.key, run.fence, rows, first), Append(run.key, run.fence, (), last))
    run.rows = rows
    return run


ROWS = [
    intent(1),
    step(1, {"b": 1, "a": [LONG, None, 1.5, True]}, request={"text": LONG}),
    Row(
        STEP,
        "fork:0",
        "fork[0]/x",
        "llm",
        StepStatus.FAILED,
        5,
        9,
        [{"role": "user", "content": "é\u2028\0"}],
        UNSET,
        {"error": {"kind": "tool", "type": "E", "message": "no"}},
    ),
    Row(
        STEP,
        "",
        "c",
        "condition",
        StepStatus.SUCCESS,
        9,
        9,
        rest={"extra": {"branch": "then", "references": {"$a": "1"}}},
    ),
    step(2, None),
    intent(3),
]


def contents(store: SqlStore) -> dict[bytes, int]:
    with store.database.reading() as connection:
        return dict(connection.all("SELECT hash, refs FROM nano_contents"))


# --- what is put in comes out ---


def test_a_run_comes_back_as_it_was_put_in(store: SqlStore) -> None:
    run = new_run(seed=2**80, parent="run-0")
    assert store.create(run)
    assert run.key > 0
    assert run.fence > 0
    must(store, Append(run.key, run.fence, ROWS[:2]), Append(run.key, run.fence, ROWS[2:]))
    found = store.load(run.run_id)
    assert found.rows == ROWS
    run.rows = ROWS
    assert found == run
    assert list(found.inputs) == ["z", "a"], "the order of keys is part of a value"
    assert store.load(run.run_id, rows=False).rows == []


def held(store: SqlStore, run: StoredRun) -> list[int]:
    """The numbers under which rows of a run stand in the table."""
    with store.database.reading() as connection:
        found = connection.all("SELECT seq FROM nano_rows WHERE run = ? ORDER BY seq", run.key)
    return [seq for (seq,) in found]


def test_a_step_and_the_intent_after_it_are_one_row_of_the_table(store: SqlStore) -> None:
    run = new_run()
    assert store.create(run)
    rows = [intent(1), *(row for n in (1, 2, 3) for row in (step(n, LONG), intent(n + 1)))]
    must(store, Append(run.key, 1, rows[:1]), Append(run.key, 1, rows[1:3]))
    must(store, Append(run.key, 1, rows[3:]))
    assert held(store, run) == [0, 1, 3, 5]
    assert store.load(run.run_id).rows == rows
    for seq in range(-2, 9):
        for limit in (None, *range(9)):
            first = max(seq + 1, 0)
            expected = rows[first : None if limit is None else first + limit]
            assert store.rows_after(run.run_id, seq, limit=limit) == expected, (seq, limit)
    assert store.standings([run.run_id])[run.run_id].rows == 7


# Each is followed by an intent, or is one, that has a row of its own.
APART = {
    "of another frame": [step(1), replace(intent(2), frame="fork:0")],
    "with something to say": [step(1), replace(intent(2), rest={"owner": "me"})],
    "after an intent": [intent(1), intent(2)],
    "after a pause": [step(1, status=StepStatus.SUSPENDED, kind=PAUSED), intent(2)],
    "with a request": [step(1), replace(intent(2), request={"n": 1})],
    "that says when it ended": [step(1), replace(intent(2), finished_ns=10**18 + 9)],
}


@pytest.mark.parametrize("what", APART)
def test_what_is_no_plain_intent_after_its_step_has_a_row_of_its_own(
    store: SqlStore, what: str
) -> None:
    run = new_run()
    assert store.create(run)
    must(store, Append(run.key, 1, APART[what]))
    assert held(store, run) == [0, 1]
    assert store.load(run.run_id).rows == APART[what]


def test_a_step_and_its_intent_that_were_stored_are_recognised(store: SqlStore) -> None:
    """However much of them is given again, as after a lost answer."""
    run = new_run()
    assert store.create(run)
    rows = [step(1), intent(2), step(2), intent(3)]
    must(store, Append(run.key, 1, rows[:2], after=0))
    must(store, Append(run.key, 1, rows[:2], after=0), Append(run.key, 1, rows[1:2], after=1))
    must(store, Append(run.key, 1, rows, after=0))
    assert held(store, run) == [0, 2]
    other = [step(1), replace(intent(2), started_ns=5), *rows[2:]]
    for wrong in (Append(run.key, 1, other, after=0), Append(run.key, 1, other[1:], after=1)):
        (error,) = append(store, wrong)
        assert isinstance(error, StoreError)
    assert store.load(run.run_id).rows == rows


def test_an_id_is_taken_once(store: SqlStore) -> None:
    run = new_run()
    assert store.create(run)
    assert not store.create(new_run(run_id=run.run_id, inputs={"other": LONG * 2}))
    assert store.load(run.run_id).inputs == run.inputs


def test_runs_of_one_program_have_its_document_encoded_once(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of 10,000 steps takes longer than all else of creating a run."""
    first, second = ({"program": {"name": name, "steps": [LONG]}} for name in ("a", "b"))
    encoded: list[str] = []

    def counted(value: Any) -> bytes:
        encoded.extend(
            document["program"]["name"] for document in (first, second) if value is document
        )
        return canonical(value)

    for module in (records, seals, cells, stores):
        monkeypatch.setattr(module, "canonical", counted)
    made = [new_run(document=document) for document in (first, first, second, second, first)]
    assert all(store.create(run) for run in made)
    assert encoded == ["a", "b", "a"]
    assert [store.load(run.run_id).document for run in made] == [run.document for run in made]


def test_begin_is_create_in_an_event_loop(store: SqlStore) -> None:
    runs = [new_run() for _ in range(30)]

    async def main() -> list[bool]:
        return await asyncio.gather(*(store.begin(run) for run in [*runs, runs[0]]))

    before = store.writer.transactions
    assert asyncio.run(main()) == [True] * 30 + [False]
    assert store.writer.transactions - before <= 3
    assert {run.run_id for run in store.runs()} == {run.run_id for run in runs}


def test_no_such_run(store: SqlStore) -> None:
    for call in (
        lambda: store.load("nobody"),
        lambda: store.send("nobody", Message("cancel", "", {}, None, 1)),
        lambda: store.erase("nobody"),
        lambda: store.export(["nobody"], io.StringIO()),
    ):
        with pytest.raises(UnknownRun, match="there is no run 'nobody' in this store"):
            call()


def test_updates_and_what_they_name(store: SqlStore) -> None:
    run = new_run()
    store.create(run)
    before = contents(store)
    for output in ({"x": LONG}, {"y": LONG}, "short", {"x": LONG}):
        must(
            store,
            Append(
                run.key,
                run.fence,
                (),
                {
                    "output": output,
                    "waiting": [{"path": "a", "step_id": "a", "kind": "wait", "shown": LONG}],
                    "error": LONG + "!",
                },
            ),
        )
        assert store.load(run.run_id).output == output
        assert damage(store) == []
    assert len(contents(store)) == len(before) + 3
    both = [
        Append(run.key, run.fence, (), {"output": {"n": n, "x": LONG}, "tokens": n})
        for n in (1, 2, 3)
    ]
    must(
        store,
        *both,
        Append(run.key, run.fence, (), {"output": None, "waiting": [], "error": None, "steps": 7}),
    )
    assert contents(store) == before
    found = store.load(run.run_id)
    assert (found.tokens, found.steps, found.output) == (3, 7, None)
    with pytest.raises(StoreError, match="'fence' is not changed by an append"):
        must(store, Append(run.key, run.fence, (), {"fence": 9}))


def test_a_value_is_kept_once(store: SqlStore) -> None:
    runs = [new_run() for _ in range(3)]
    for run in runs:
        store.create(run)
    must(
        store,
        *(
            Append(run.key, run.fence, [step(n, LONG, request={"n": LONG})])
            for run in runs
            for n in range(100)
        ),
    )
    counts = sorted(contents(store).values())
    assert counts == [3, 3, 300, 300], "document, inputs, output and request"


# --- commits in groups ---


def test_appends_that_wait_share_a_transaction(store: SqlStore) -> None:
    runs = [new_run() for _ in range(50)]
    for run in runs:
        store.create(run)
    before = store.writer.transactions
    must(store, *(Append(run.key, run.fence, [intent(1), step(1)]) for run in runs))
    assert store.writer.transactions - before <= 3
    for run in runs:
        assert store.load(run.run_id).rows == [intent(1), step(1)]


def test_two_groups_of_runs_become_one(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each waits for the commit of the other, and every step takes two."""
    monkeypatch.setattr(writing, "GATHER_SECONDS", 0.2)
    monkeypatch.setattr(writing, "GATHER_PART", 5.0)
    commit = writing.Connection.commit

    def slow(self: Any) -> None:
        time.sleep(0.02)
        commit(self)

    monkeypatch.setattr(writing.Connection, "commit", slow)
    runs = [new_run() for _ in range(10)]
    for run in runs:
        store.create(run)

    async def work(run: StoredRun, delay: float) -> None:
        await asyncio.sleep(delay)
        for number in range(20):
            await store.append(Append(run.key, run.fence, [step(number)]))

    async def main() -> None:
        await asyncio.gather(*(work(run, 0.01 * (at % 2)) for at, run in enumerate(runs)))

    before = store.writer.transactions
    asyncio.run(main())
    assert store.writer.transactions - before < 30


def test_one_that_cannot_be_written_does_not_take_the_others_with_it(store: SqlStore) -> None:
    runs = [new_run() for _ in range(3)]
    for run in runs:
        store.create(run)
    bad: list[Append] = [
        Append(runs[1].key, 1, [step(1, {1, 2})]),
        Append(runs[1].key, 1, [Row(STEP, "", "x", "dance", None, 1)]),
        Append(runs[1].key, 1, [Row(STEP, "", "x", "tool", None, 2**70)]),
        Append(runs[1].key, 1, (), {"tokens": 2**70}),
    ]
    for item in bad:
        errors = append(
            store, Append(runs[0].key, 1, [step(1)]), item, Append(runs[2].key, 1, [step(1)])
        )
        assert errors[0] is None
        assert isinstance(errors[1], StoreError)
        assert errors[2] is None
    assert [len(store.load(run.run_id).rows) for run in runs] == [4, 0, 4]


def test_a_cancelled_wait_does_not_hurt_the_others(store: SqlStore) -> None:
    run = new_run()
    store.create(run)

    async def main() -> None:
        first = store.append(Append(run.key, run.fence, [step(1)]))
        first.cancel()
        await store.append(Append(run.key, run.fence, [step(2)]))

    asyncio.run(main())
    assert [row.path for row in store.load(run.run_id).rows] == ["s1", "s2"]


def test_a_loop_that_is_gone_does_not_hurt_the_others(store: SqlStore) -> None:
    run = new_run()
    store.create(run)
    gate = threading.Event()
    store.writer.submit(lambda *_: gate.wait(HANGS_SECONDS))

    async def main() -> None:
        store.append(Append(run.key, run.fence, [step(1)]))

    asyncio.run(main())
    gate.set()
    must(store, Append(run.key, run.fence, [step(2)]))
    assert len(store.load(run.run_id).rows) == 2


def test_many_threads_with_loops_of_their_own(store: SqlStore) -> None:
    runs = [new_run() for _ in range(8)]
    for run in runs:
        store.create(run)

    def work(run: StoredRun) -> None:
        async def main() -> None:
            for n in range(20):
                await store.append(Append(run.key, run.fence, [step(n, LONG)]))

        asyncio.run(main())

    threads = [threading.Thread(target=work, args=[run]) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[row.path for row in store.load(run.run_id).rows] for run in runs] == [
        [f"s{n}" for n in range(20)]
    ] * 8


def test_what_was_put_before_close_is_written(shared: str) -> None:
    run = new_run()

    async def main(store: SqlStore) -> None:
        future = store.append(Append(run.key, run.fence, [step(1)]))
        store.close()
        await future
        with pytest.raises(StoreError, match="was closed"):
            await store.append(Append(run.key, run.fence, [step(2)]))

    store = SqlStore(shared)
    store.create(run)
    asyncio.run(main(store))
    with SqlStore(shared) as again:
        assert len(again.load(run.run_id).rows) == 1


# --- owners ---


def claim(store: SqlStore, run_id: str, owner: str, **options: Any) -> int | None:
    """The fence of a run that *owner* could claim."""
    found = store.claim([run_id], owner, 7, **options)
    return found[run_id].fence if found else None


def test_a_run_has_one_owner(store: SqlStore) -> None:
    run = new_run(owner=None, status="pending")
    store.create(run)
    store.heartbeat("me", 100)
    store.heartbeat("you", 200)
    assert {owner: round(left, -2) for owner, left in store.owners().items()} == {
        "me": 100,
        "you": 200,
    }
    fence = claim(store, run.run_id, "me")
    assert fence == run.fence + 1
    assert claim(store, run.run_id, "you") is None, "as long as it lives, it lives"
    assert claim(store, run.run_id, "me") == fence + 1, "what is one's own can be claimed again"
    fence += 1
    must(store, Append(run.key, fence, [step(1)]))
    store.heartbeat("me", -1)
    assert store.owners()["me"] < 0
    assert claim(store, run.run_id, "you", alive={"me"}.__contains__) is None, "it is seen alive"
    after = claim(store, run.run_id, "you")
    assert after == fence + 1
    errors = append(
        store, Append(run.key, fence, [step(2)], {"steps": 9}), Append(run.key, after, [step(3)])
    )
    assert isinstance(errors[0], LeaseLost)
    assert errors[1] is None
    assert [row.path for row in store.load(run.run_id).rows] == ["s1", "s3"]
    store.forget_owner("you")
    assert claim(store, run.run_id, "me") == after + 1
    found = store.load(run.run_id)
    assert (found.owner, found.fence, found.status, found.steps) == ("me", after + 1, "running", 0)


def test_a_claim_takes_the_oldest_and_tells_how_they_were_found(store: SqlStore) -> None:
    runs = [
        new_run(owner=None, status=status)
        for status in ("pending", "suspended", "running", "pending")
    ]
    for run in runs:
        store.create(run)
    found = store.claim([run.run_id for run in reversed(runs)], "me", 1234, most=3)
    assert {run_id: claim.status for run_id, claim in found.items()} == {
        run.run_id: run.status for run in runs[:3]
    }
    assert [store.load(run.run_id).started_ns for run in runs] == [1234, 1234, 1234, 0]
    assert store.claim([], "me", 1) == {}
    assert store.claim(["nobody"], "me", 1) == {}


def test_a_time_that_no_lease_can_have_counts_for_nothing(tmp_path: Path) -> None:
    """Of another boot, or from before the clock was set back."""
    now = 10**18
    with SqlStore(f"sqlite:///{tmp_path}/runs.db", clock=lambda: now) as store:
        run = new_run(owner="me")
        store.create(run)
        store.heartbeat("me", 30)
        assert claim(store, run.run_id, "you") is None
        now -= 2 * 24 * 3600 * 10**9
        assert store.owners()["me"] < 0
        assert claim(store, run.run_id, "you") == 2


def test_rows_are_numbered_on_after_a_takeover(shared: str) -> None:
    run = new_run()
    with SqlStore(shared) as mine, SqlStore(shared) as yours:
        mine.create(run)
        must(mine, Append(run.key, 1, [step(1), step(2)]))
        second = claim(yours, run.run_id, "you")
        assert second is not None
        must(yours, Append(run.key, second, [step(3)]))
        assert isinstance(append(mine, Append(run.key, 1, [step(9)]))[0], LeaseLost)
        third = claim(mine, run.run_id, "me")
        assert third is not None
        must(mine, Append(run.key, third, [step(4)]))
        assert [row.path for row in mine.load(run.run_id).rows] == ["s1", "s2", "s3", "s4"]
        assert damage(mine) == []


def test_nobody_claims_a_run_between_the_look_at_its_fence_and_the_commit(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In PostgreSQL who comes meanwhile passes it over, in SQLite it waits and then claims."""
    run = new_run()
    claims: list[int | None] = []
    waited: list[bool] = []
    insert = writing.Connection.many

    with SqlStore(shared) as mine, SqlStore(shared) as yours:
        mine.create(run)
        thread = threading.Thread(target=lambda: claims.append(claim(yours, run.run_id, "you")))

        def slowly(self: Any, statement: str, values: Any) -> None:
            if statement.startswith("INSERT INTO nano_rows") and not waited:
                thread.start()
                thread.join(0.5)
                waited.append(thread.is_alive())
            insert(self, statement, values)

        monkeypatch.setattr(writing.Connection, "many", slowly)
        must(mine, Append(run.key, 1, [step(1)]))
        thread.join(HANGS_SECONDS)
        assert waited == [mine.database.dialect.alone]
        assert claims == [2 if mine.database.dialect.alone else None]
        late = append(mine, Append(run.key, 1, [step(2)]))[0]
        assert isinstance(late, LeaseLost) is mine.database.dialect.alone
        assert [row.path for row in yours.load(run.run_id).rows] == (
            ["s1"] if mine.database.dialect.alone else ["s1", "s2"]
        )


def test_who_looks_during_another_s_claim_judges_the_run_by_the_state_after_it(
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between its two statements: the run was free in the first, and has an owner that was not
    known then.
    """
    import psycopg

    url = postgres.database()
    run = new_run(owner=None)
    every = writing.Connection.all
    with (
        SqlStore(url) as yours,
        SqlStore(url) as mine,
        psycopg.connect(url, autocommit=True) as other,
    ):
        yours.create(run)

        def then_claimed(self: Any, statement: str, *values: Any) -> Any:
            found = every(self, statement.replace(" FOR UPDATE SKIP LOCKED", ""), *values)
            if statement.startswith("SELECT key, status"):
                monkeypatch.setattr(writing.Connection, "all", every)
                mine.heartbeat("me", 100)
                other.execute("UPDATE nano_runs SET owner = 'me', fence = 2")
            return found

        monkeypatch.setattr(writing.Connection, "all", then_claimed)
        assert claim(yours, run.run_id, "you") is None


@pytest.mark.parametrize("status", ["success", "failed", "cancelled"])
def test_what_has_ended_is_not_claimed(store: SqlStore, status: str) -> None:
    run = new_run()
    store.create(run)
    must(store, Append(run.key, run.fence, (), {"status": status, "owner": None}))
    assert claim(store, run.run_id, "you") is None
    assert store.claimable(10**18, 10) == {}
    with pytest.raises(StoreError, match="has ended"):
        store.send(run.run_id, Message("approve", "x", {}, None, 1))
    store.send(run.run_id, Message("outcome", "x", {}, None, 1))  # of a call that came back late


def test_what_somebody_should_take_up(store: SqlStore) -> None:
    store.heartbeat("alive", 1_000)
    store.heartbeat("dead", -1)

    def kept(**fields: Any) -> str:
        run = new_run(**fields)
        store.create(run)
        return run.run_id

    pending = kept(status="pending", owner=None)
    kept(status="pending", owner="alive")
    kept(status="running", owner="alive")
    left = kept(status="running", owner="dead")
    unheard = kept(status="running", owner="never heard of")
    due = kept(status="suspended", owner=None, wake_ns=500)
    kept(status="suspended", owner=None, wake_ns=501)
    kept(status="suspended", owner="alive", wake_ns=1)
    waiting = kept(status="suspended", owner=None)
    early = kept(status="suspended", owner=None)
    store.send(early, Message("event", "mail", {"payload": 1}, None, 1))
    must(store, Append(store.load(early).key, 1, seen=[store.load(early).inbox[0].id]))
    assert list(store.claimable(500, 10)) == [pending, left, unheard, due]
    store.send(waiting, Message("approve", "ask", {"reason": "é\0"}, "bob", 3))
    store.send(waiting, Message("cancel", "", {}, None, 4))
    assert list(store.claimable(500, 10)) == [pending, left, unheard, due, waiting]
    assert list(store.claimable(500, 2)) == [pending, left]
    assert list(store.claimable(500, 9, "suspended")) == [due, waiting]
    assert list(store.claimable(500, 9, "running")) == [left, unheard]
    assert list(store.claimable(500, 9, "running", spare=["dead"])) == [unheard]
    assert set(store.claimable(500, 9).values()) == {"d" * 64}, "the digest of its program"
    inbox = store.load(waiting).inbox
    assert [(m.kind, m.name, m.body, m.by, m.created_ns) for m in inbox] == [
        ("approve", "ask", {"reason": "é\0"}, "bob", 3),
        ("cancel", "", {}, None, 4),
    ]
    assert [m.kind for m in store.load(early).inbox] == ["event"], "it was seen, and is kept"
    fence = claim(store, waiting, "alive")
    assert fence is not None
    must(
        store,
        Append(
            store.load(waiting).key,
            fence,
            (),
            {"status": "suspended", "owner": None},
            [inbox[0].id, inbox[1].id],
        ),
    )
    assert store.load(waiting).inbox == []
    assert waiting not in store.claimable(500, 10)


def test_a_message_of_another_run_is_not_used(store: SqlStore) -> None:
    mine, yours = new_run(), new_run()
    store.create(mine)
    store.create(yours)
    store.send(yours.run_id, Message("event", "mail", {}, None, 1))
    must(store, Append(mine.key, 1, (), None, [store.load(yours.run_id).inbox[0].id]))
    assert len(store.load(yours.run_id).inbox) == 1


def claim_all(url: str, owner: str, ids: list[str], ready: Any, results: Any) -> None:
    with SqlStore(url) as store:
        store.heartbeat(owner, 1_000)
        ready.wait(HANGS_SECONDS)
        claimed: list[str] = []
        while more := store.claim(
            [run_id for run_id in ids if run_id not in claimed], owner, 1, most=7
        ):
            claimed += more
        results.put((owner, claimed))


@pytest.mark.slow
def test_processes_that_race_for_runs(shared: str) -> None:
    runs = [new_run(owner=None, status="pending") for _ in range(60)]
    with SqlStore(shared) as store:
        for run in runs:
            store.create(run)
    spawn = multiprocessing.get_context("spawn")
    ready, results = spawn.Barrier(3), spawn.Queue()
    ids = [run.run_id for run in runs]
    workers = [
        spawn.Process(target=claim_all, args=(shared, f"w{n}", ids, ready, results))
        for n in range(3)
    ]
    for worker in workers:
        worker.start()
    won = dict(results.get(timeout=HANGS_SECONDS) for _ in workers)
    for worker in workers:
        worker.join(HANGS_SECONDS)
    assert sorted(run_id for claimed in won.values() for run_id in claimed) == sorted(ids), (
        "each by one, none by two"
    )
    with SqlStore(shared) as store:
        assert {run.run_id: (run.owner, run.fence) for run in store.runs()} == {
            run_id: (owner, 2) for owner, claimed in won.items() for run_id in claimed
        }


# --- lists ---


def test_headers_of_runs(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nano_vm.store.protocol.PAGE_RUNS", 3)
    ids = []
    for n in range(10):
        run = new_run(
            created_ns=n // 2,
            program_name=f"p{n % 2}",
            status="failed" if n % 3 else "success",
            cost_usd=f"{n}.5",
        )
        store.create(run)
        ids.append(run.run_id)

    def listed(*, limit: int | None = None, **wanted: Any) -> list[int]:
        found = store.runs(RunFilter(**wanted), limit=limit)
        return [ids.index(run.run_id) for run in found]

    assert listed() == list(range(9, -1, -1))
    assert listed(limit=4) == [9, 8, 7, 6]
    assert listed(limit=0) == []
    assert listed(status="success") == [9, 6, 3, 0]
    assert listed(status=("success", "failed"), limit=2) == [9, 8]
    assert listed(status=()) == []
    assert listed(program="p1") == [9, 7, 5, 3, 1]
    assert listed(since_ns=1, until_ns=3) == [5, 4, 3, 2]
    assert listed(min_cost_usd="7.5") == [9, 8, 7]
    assert listed(min_cost_usd=100) == []
    one = next(iter(store.runs(limit=1)))
    assert (one.inputs["a"], one.rows) == (LONG, [])
    with pytest.raises(ValueError, match="no run has status 'red'; choose of pending, running"):
        listed(status="red")


# --- keeping house ---


def test_erasing_a_run(store: SqlStore) -> None:
    secret = {"iban": "DE89 3704 0044 0532 0130 00, which is nobody's business but the owner's"}
    mine = ended(
        store,
        [*ROWS, step(3, secret, request=[secret]), step(4, "short secret")],
        inputs={"a": secret},
    )
    yours = ended(store, [step(1, secret)])
    store.send(mine.run_id, Message("outcome", "x", secret, None, 1))
    before = store.load(mine.run_id)
    assert store.erase(mine.run_id)
    assert damage(store) == []
    found = store.load(mine.run_id)
    assert found.salt is None
    assert found.seal == before.seal == seal_of(found), "the seal still verifies"
    assert (found.status, found.program_digest, found.document) == (
        "success",
        before.program_digest,
        before.document,
    )
    assert (found.output, found.error, found.waiting, found.inbox) == (None, None, [], [])
    assert [row.path for row in found.rows] == [row.path for row in before.rows]
    assert {type(row.output) for row in found.rows} <= {Erased, type(UNSET)}
    assert "DE89" not in repr(found)
    assert "short" not in repr(found)
    assert found.rows[1].record()[3:6] == (None, None, None)
    assert store.load(yours.run_id).rows[0].output == secret, "another run keeps its own"
    assert not store.erase(mine.run_id)
    store.erase(yours.run_id)
    assert len(contents(store)) == 1, "the document is left"
    unfinished = new_run()
    store.create(unfinished)
    with pytest.raises(StoreError, match="is running, and needs its values to go on"):
        store.erase(unfinished.run_id)


def test_erasing_what_ended_long_ago(store: SqlStore) -> None:
    old, new = ended(store, ROWS, finished_ns=10), ended(store, ROWS, finished_ns=30)
    store.create(new_run())
    with pytest.raises(ValueError, match="'running' has not ended; choose of success"):
        store.erase_ended(20, ["running"])
    found = store.prunable(20, ["success"], held=True)
    assert [run.run_id for run in found] == [old.run_id]
    assert store.erase_ended(20, ["success"]) == 1
    whole = [store.load(run.run_id).salt is not None for run in (old, new)]
    assert whole == [False, True]
    assert damage(store) == []
    assert store.erase_ended(20, ["success"]) == 0
    assert len(store.prunable(20, ["success"])) == 1, "it can still be deleted"
    assert store.erase_ended(40, ["failed"]) == 0
    assert store.erase_ended(40) == 1


def test_two_that_erase_the_same_run_at_once(postgres: PostgresServer) -> None:
    import psycopg

    url = postgres.database()
    done: list[bool] = []
    with SqlStore(url) as one, SqlStore(url) as two, psycopg.connect(url) as holding:
        run = ended(one, ROWS)
        ended(one, ROWS)
        holding.execute("SELECT key FROM nano_runs FOR UPDATE")

        def erase(store: SqlStore) -> None:
            done.append(store.erase(run.run_id))

        threads = [threading.Thread(target=erase, args=[store]) for store in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(0.5)
        holding.commit()
        for thread in threads:
            thread.join(HANGS_SECONDS)
        assert sorted(done) == [False, True]
        assert damage(one) == []


def test_what_is_erased_is_gone_from_the_file(tmp_path: Path) -> None:
    secret = "nobody may read this any more: 4711 0815"
    with SqlStore(f"sqlite:///{tmp_path}/runs.db") as store:
        run = ended(
            store,
            [step(n, {"n": n, "secret": secret * 9}) for n in range(200)],
            inputs={"s": secret},
        )
        assert secret.encode() in b"".join(path.read_bytes() for path in tmp_path.iterdir())
        store.erase(run.run_id)
        assert secret.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_pruning(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nano_vm.store.sql.upkeep.PRUNE_RUNS", 2)
    old = [ended(store, ROWS) for _ in range(5)]
    kept = ended(store, ROWS, finished_ns=3_000)
    running = new_run()
    store.create(running)
    store.heartbeat("just gone", -1)
    store.heartbeat("long gone", -8 * 24 * 3600)
    assert store.prune(2_500, ["failed"]) == 0
    assert store.prune(2_500) == 5
    assert damage(store) == []
    assert {run.run_id for run in store.runs()} == {kept.run_id, running.run_id}
    assert store.load(kept.run_id).rows == ROWS
    assert list(store.owners()) == ["just gone"]
    with pytest.raises(ValueError, match="'running' has not ended"):
        store.prune(1, ["running"])
    # a key is not given again: an owner that slept through all this finds no other run under it
    again = new_run()
    store.create(again)
    assert again.key > running.key > old[-1].key


# Each breaks what is stored, and `check` must tell it. A load that meets it must raise.
DAMAGE = {
    "a count too high": (
        "UPDATE nano_contents SET refs = refs + 1",
        "references are counted",
        False,
    ),
    "a lost value": ("DELETE FROM nano_contents", "is missing", True),
    "an edited value": ("UPDATE nano_contents SET body = ?", "does not fit its hash", True),
    "an edited path": (
        "UPDATE nano_rows SET path = 'other' WHERE seq = 1",
        "row 1 is not what was written",
        True,
    ),
    "an edited cell": (
        "UPDATE nano_rows SET output = ? WHERE seq = 1",
        "row 1 is not what was written",
        True,
    ),
    "an edited path of an intent": (
        "UPDATE nano_rows SET next_path = 'other' WHERE seq = 4",
        "row 4 is not what was written",
        True,
    ),
    "an intent that is lost": (
        "UPDATE nano_rows SET next_path = NULL, next_type = NULL, next_ns = NULL WHERE seq = 4",
        "5 rows of 6 is not what was written",
        True,
    ),
    "an intent without its type": (
        "UPDATE nano_rows SET next_path = NULL, next_ns = NULL WHERE seq = 4",
        "5 rows of 6 is not what was written",
        True,
    ),
    "a lost row": (
        "DELETE FROM nano_rows WHERE seq = 2",
        "5 rows of 6 is not what was written",
        True,
    ),
    "a lost last row": (
        "DELETE FROM nano_rows WHERE seq = 4",
        "4 rows of 6 is not what was written",
        True,
    ),
    "an edited header": (
        "UPDATE nano_runs SET program_digest = 'e'",
        "its header is not what was written",
        True,
    ),
    "an edited seal": ("UPDATE nano_runs SET seal = 'ab'", "seal does not fit", False),
    "rows of nobody": ("UPDATE nano_rows SET run = 99", "which is not there", False),
}


@pytest.mark.slow
def test_what_a_column_never_held(tmp_path: Path) -> None:
    """SQLite lets any column hold anything."""
    path = tmp_path / "runs.db"
    with SqlStore(f"sqlite:///{path}") as store:
        run = ended(store, ROWS)
        store.send(run.run_id, Message("outcome", "x", {}, None, 1))
    whole = path.read_bytes()
    keys = {"key", "run_id", "run", "seq", "id", "hash", "refs", "used"}
    tried = 0
    for table in ("nano_runs", "nano_rows", "nano_inbox", "nano_contents"):
        with sqlite3.connect(path) as connection:
            columns = [
                row[1]
                for row in connection.execute(f"PRAGMA table_info({table})")
                if row[1] not in keys
            ]
        connection.close()
        for column in columns:
            for value in ("x'80ff'", "'text'", "12345.5", "zeroblob(0)"):
                path.write_bytes(whole)
                with sqlite3.connect(path) as connection:
                    connection.execute(f"UPDATE {table} SET {column} = {value}")
                connection.close()
                with SqlStore(f"sqlite:///{path}") as store:
                    try:
                        store.load(run.run_id)
                        list(store.runs())
                    except StoreError:
                        tried += 1
                    assert isinstance(store.check(), list)
    assert tried > 90


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(url: str, name: str) -> None:
    statement, told, refused = DAMAGE[name]
    with SqlStore(url) as store:
        run = ended(store, ROWS)
        with store.database.writing() as connection:
            connection.run(statement, *([b'"forged"'] * statement.count("?")))
        assert told in "\n".join(store.check())
        if refused:
            with pytest.raises(StoreError, match="damaged"):
                store.load(run.run_id)


# --- export and import ---


def exported(store: SqlStore, *run_ids: str) -> str:
    stream = io.StringIO()
    assert store.export(run_ids, stream) == len(run_ids)
    return stream.getvalue()


def test_export_and_import(store: SqlStore, tmp_path: Path) -> None:
    runs = [
        ended(store, ROWS, seed=5),
        ended(store, [], salt=b""),
        ended(store, [step(1, LONG)], parent="run-1"),
    ]
    store.erase(runs[2].run_id)
    text = exported(store, *(run.run_id for run in runs))
    assert text.count('"record":"program"') == 1
    found = list(read_export(io.StringIO(text)))
    with SqlStore(f"sqlite:///{tmp_path}/other.db") as other:
        assert other.import_(io.StringIO(text)) == [run.run_id for run in runs]
        for run, read in zip(runs, found, strict=True):
            here, there = store.load(run.run_id), other.load(run.run_id)
            there.key, there.fence = here.key, here.fence
            read.key, read.fence = here.key, here.fence
            assert there == here == read
        assert damage(other) == []
        assert other.import_(io.StringIO(text)) == [], "what is there is there"
        assert exported(other, *(run.run_id for run in runs)) == text


def test_unfinished_runs_are_taken_in_only_when_that_is_said(
    store: SqlStore, tmp_path: Path
) -> None:
    run = new_run()
    store.create(run)
    waits = {
        "status": "suspended",
        "owner": None,
        "wake_ns": 5,
        "waiting": [{"path": "x", "step_id": "x", "kind": "wait"}],
    }
    must(store, Append(run.key, 1, ROWS, RunSeal(run).after(ROWS, waits)))
    store.send(run.run_id, Message("event", "mail", {"payload": LONG}, "bob", 3))
    text = exported(store, run.run_id)
    with SqlStore(f"sqlite:///{tmp_path}/other.db") as other:
        with pytest.raises(StoreError, match="two databases that both go on with it"):
            other.import_(io.StringIO(text))
        assert list(other.runs()) == []
        other.import_(io.StringIO(text), unfinished=True)
        assert list(other.claimable(5, 9)) == [run.run_id]
        assert [m.name for m in other.load(run.run_id).inbox] == ["mail"]
        assert other.load(run.run_id).rows == ROWS


@pytest.mark.slow
def test_a_file_that_is_not_whole_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with SqlStore("sqlite://") as store:
        text = exported(store, ended(store, ROWS).run_id, ended(store, ROWS[:1]).run_id)
    lines = [line + "\n" for line in text.split("\n")[:-1]]
    with SqlStore(f"sqlite:///{tmp_path}/other.db") as other:
        for cut in range(len(lines)):
            with pytest.raises(StoreError, match="cut short"):
                other.import_(io.StringIO("".join(lines[:cut])))
            with pytest.raises(StoreError, match=f"line {cut + 1}: "):
                other.import_(io.StringIO("".join(lines[:cut]) + lines[cut][:-5]))
            left_out = "".join(lines[:cut] + lines[cut + 1 :])
            with pytest.raises(StoreError):
                other.import_(io.StringIO(left_out))
            twice = "".join(lines[: cut + 1] + lines[cut:])
            if '"record":"program"' not in lines[cut]:  # said twice, it says nothing new
                with pytest.raises(StoreError):
                    other.import_(io.StringIO(twice))
        assert list(other.runs()) == []
        assert contents(other) == {}


@pytest.mark.slow
def test_an_edited_file_is_refused() -> None:
    with SqlStore("sqlite://") as store:
        text = exported(store, ended(store, ROWS).run_id)
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    changes = 0
    for at, line in enumerate(lines):
        for name, value in line.items():
            if name == "record":
                continue
            for other in ("edited", 12345, None):
                if other == value:
                    continue
                edited = [*lines[:at], {**line, name: other}, *lines[at + 1 :]]
                with pytest.raises(StoreError, match="line "):
                    list(
                        read_export(io.StringIO("".join(json.dumps(one) + "\n" for one in edited)))
                    )
                changes += 1
    assert changes > 100


def test_a_file_whose_hash_was_made_to_fit_still_has_its_seal() -> None:
    with SqlStore("sqlite://") as store:
        run = ended(store, ROWS)
        run = store.load(run.run_id)
    for edit in (
        lambda rows: rows[:-1],
        lambda rows: [*rows[:3], replace(rows[3], path="other"), *rows[4:]],
        lambda rows: [*rows[:1], replace(rows[1], output="forged"), *rows[2:]],
        lambda rows: [*rows, rows[-1]],
    ):
        stream = io.StringIO()
        export([replace(run, rows=edit(run.rows))], stream)
        with pytest.raises(StoreError, match="was edited: its seal does not fit"):
            list(read_export(io.StringIO(stream.getvalue())))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "cut short: it stops after line 0"),
        ("hello\n", "line 1: "),
        ("[1]\n", "line 1: not a record"),
        ('{"a":1}\n', "line 1: it is no export of runs"),
        (
            '{"record":"export","format":2}\n',
            "line 1: it is of format 2, this llm-nano-vm knows 3; install the one that wrote it",
        ),
        (
            '{"record":"export","format":3}\n{"record":"dance"}\n',
            "line 2: a record 'dance' has no place here",
        ),
        (
            '{"record":"export","format":3}\n{"record":"done","runs":0}\n{}\n',
            "line 3: there is more after the end",
        ),
        (
            '{"record":"export","format":3}\n{"record":"run","document":"x"}\n',
            "line 2: the run's program is not in the file",
        ),
        ("[" * 100_000, "line 1: the file was cut short here: nested too deep"),
    ],
)
def test_what_is_no_export(text: str, told: str) -> None:
    with pytest.raises(StoreError) as caught:
        list(read_export(io.StringIO(text)))
    assert told in str(caught.value)


def test_a_run_with_other_content_is_not_overwritten(tmp_path: Path) -> None:
    with SqlStore("sqlite://") as store, SqlStore(f"sqlite:///{tmp_path}/other.db") as other:
        new = ended(store, ROWS)
        old = ended(store, ROWS)
        text = exported(store, new.run_id, old.run_id)
        ended(other, ROWS[:1], run_id=old.run_id)
        with pytest.raises(
            StoreError,
            match=f"there is a run '{old.run_id}' with other content; nothing was changed",
        ):
            other.import_(io.StringIO(text))
        assert [run.run_id for run in other.runs()] == [old.run_id]
        assert damage(other) == []


# --- databases that are none, or fail ---


def test_a_newer_version_is_left_alone(shared: str) -> None:
    with SqlStore(shared) as store, store.database.writing() as connection:
        connection.run("UPDATE nano_meta SET value = '9' WHERE name = 'schema'")
    with pytest.raises(
        StoreError,
        match=r"made by a newer llm-nano-vm: its tables are of version 9, this one knows \d; "
        "install that version or a newer one; nothing was changed",
    ):
        SqlStore(shared)


def test_tables_that_are_not_ours(shared: str) -> None:
    with SqlStore(shared) as store, store.database.writing() as connection:
        connection.run("DELETE FROM nano_meta")
    with pytest.raises(StoreError, match="has no version"):
        SqlStore(shared)


def test_many_that_make_the_tables_at_once(shared: str) -> None:
    errors: list[BaseException] = []

    def make() -> None:
        try:
            SqlStore(shared).close()
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("runs.db", "not the URL of a store: 'runs.db'; write sqlite:///runs.db"),
        ("mysql://host/db", "no store is kept in 'mysql'"),
        (
            "sqlite:////nowhere/at/all/runs.db",
            "could not open sqlite:////nowhere/at/all/runs.db: unable to open database file; see "
            "that",
        ),
        ("sqlite:////proc/runs.db", "could not open sqlite:////proc/runs.db: unable to open"),
    ],
)
def test_where_nothing_can_be_kept(url: str, told: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert told in str(caught.value)


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(
            StoreError, match=r"nano:\*\*\*@.*refused.*see that the server runs"
        ) as caught:
            open_store(f"postgresql://nano:secret@127.0.0.1:{taken.getsockname()[1]}/x")
    assert "secret" not in str(caught.value)


def test_a_server_that_takes_nothing_says_what_to_do(postgres: PostgresServer) -> None:
    url = postgres.database()
    name = url.rpartition("/")[2]
    with SqlStore(url) as store:
        database = store.database
        crowded = "connection failed: FATAL: sorry, too many clients already"
        told = str(database.failure(database.dialect.api.OperationalError(crowded), "open"))
        assert told.endswith("; end sessions that nobody needs, or raise its max_connections")
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with (
        SqlStore(url) as store,
        pytest.raises(StoreError, match=r"read-only transaction; .* write to the primary"),
    ):
        store.create(new_run())


def test_a_folder_and_a_file_that_are_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        SqlStore(f"sqlite:///{tmp_path}")
    text = tmp_path / "text.db"
    text.write_text("This is a letter and no database. " * 50)
    with pytest.raises(StoreError, match="file is not a database; the file is something else"):
        SqlStore(f"sqlite:///{text}")
    assert text.read_text() == "This is a letter and no database. " * 50


def test_a_database_that_may_only_be_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    SqlStore(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    # root may write what is marked read-only, so SQLite itself is told
    with (
        SqlStore(f"sqlite:///file:{path}?immutable=1&mode=ro") as store,
        pytest.raises(StoreError, match="readonly"),
    ):
        store.create(new_run())


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"llm-nano-vm\[postgres\]"):
        open_store("postgresql://localhost/x")


def test_synchronous(tmp_path: Path) -> None:
    for name, number in (("FULL", 2), ("NORMAL", 1)):
        with SqlStore(f"sqlite:///{tmp_path}/{name}.db", synchronous=name) as store:
            assert store.written(lambda connection, _: connection.one("PRAGMA synchronous")) == (
                number,
            )
            assert store.written(lambda connection, _: connection.one("PRAGMA journal_mode")) == (
                "wal",
            )
    with pytest.raises(ValueError, match="synchronous is one of FULL, NORMAL, not 'OFF'"):
        SqlStore("sqlite://", synchronous="OFF")


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    run, other = new_run(), new_run()
    with SqlStore(f"sqlite:///{tmp_path}/runs.db") as store:
        store.create(run)
        store.create(other)
        must(store, Append(run.key, 1, [step(1, "kept")]))
        pages = store.written(lambda connection, _: connection.one("PRAGMA page_count"))[0]
        store.written(lambda connection, _: connection.all(f"PRAGMA max_page_count = {pages + 20}"))
        errors = append(
            store,
            Append(run.key, 1, [step(2, LONG)]),
            Append(other.key, 1, [step(3, "x" * 200_000)]),
        )
        for error in errors:
            assert isinstance(error, StoreError)
            assert (
                "database or disk is full; make room on its disk; what was acknowledged is there"
                in str(error)
            )
        assert store.load(run.run_id).rows == [step(1, "kept")]
        assert store.load(other.run_id).rows == []
        must(store, Append(run.key, 1, [step(2, LONG)]))  # on a new connection, which has room
        assert damage(store) == []


@pytest.mark.slow
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The limit of the process is that of a full disk: writes fail in the middle."""
    script = """
import asyncio, resource, signal, sys
sys.path[:0] = sys.argv[2:]
from test_store import *
async def main():
    store = SqlStore(sys.argv[1])
    run = new_run(run_id="full")
    store.create(run)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    done = 0
    try:
        for n in range(1000):
            await store.append(Append(run.key, run.fence, [step(n, str(n) * 1000)]))
            done += 1
    except StoreError as error:
        print(error, file=sys.stderr)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.append(Append(run.key, run.fence, [step(done, "after")]))
    print(done)
    store.close()
asyncio.run(main())
"""
    url = f"sqlite:///{tmp_path}/runs.db"
    ran = warm.run(
        [sys.executable, "-c", script, url, *sys.path],
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr
    assert "what was acknowledged is there" in ran.stderr
    done = int(ran.stdout)
    assert 0 < done < 1000
    with SqlStore(url) as store:
        assert damage(store) == []
        assert [row.path for row in store.load("full").rows] == [f"s{n}" for n in range(done + 1)]


def test_a_locked_database(tmp_path: Path) -> None:
    run = new_run()
    with SqlStore(f"sqlite:///{tmp_path}/runs.db", busy_timeout_seconds=0.05) as store:
        store.create(run)
        other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        error = append(store, Append(run.key, 1, [step(1)]))[0]
        assert isinstance(error, StoreError)
        assert (
            "database is locked; another process held it for longer than busy_timeout_seconds"
            in str(error)
        )
        other.execute("ROLLBACK")
        other.close()
        must(store, Append(run.key, 1, [step(1)]))
        assert len(store.load(run.run_id).rows) == 1


def test_a_lock_in_postgresql_that_is_not_given_back(postgres: PostgresServer) -> None:
    import psycopg

    url = postgres.database()
    run = new_run()
    with SqlStore(url, busy_timeout_seconds=0.05) as store, psycopg.connect(url) as other:
        store.create(run)
        other.execute("SELECT * FROM nano_runs FOR UPDATE")
        error = append(store, Append(run.key, 1, [step(1)]))[0]
        assert isinstance(error, StoreError)
        assert "was locked for" in str(error)
        other.rollback()
        must(store, Append(run.key, 1, [step(1)]))


@pytest.mark.slow
def test_a_corrupted_page_is_an_error_and_never_another_value(tmp_path: Path) -> None:
    run = new_run(inputs={"n": 1})
    rows = [step(n, {"n": n, "text": f"{n} " * 30}, request=n) for n in range(800)]
    with SqlStore(f"sqlite:///{tmp_path}/runs.db") as store:
        store.create(run)
        must(store, Append(run.key, 1, rows))
        store.database.flush()
        whole = store.load(run.run_id)
    data = (tmp_path / "runs.db").read_bytes()
    told = harmless = 0
    for offset in range(100, len(data), len(data) // 150):
        copy = tmp_path / "copy.db"
        copy.write_bytes(
            data[:offset]
            + bytes(b ^ 0x15 for b in data[offset : offset + 16])
            + data[offset + 16 :]
        )
        try:
            with SqlStore(f"sqlite:///{copy}") as store:
                found = store.load(run.run_id)
        except StoreError:
            told += 1
        else:
            found.key = whole.key
            assert found == whole
            harmless += 1
        for leftover in tmp_path.glob("copy.db-*"):
            leftover.unlink()
    assert told > 60
    assert harmless > 0, "of what lies in free space or indexes"


def test_a_torn_last_write_takes_only_what_was_never_acknowledged(tmp_path: Path) -> None:
    run = new_run()
    sizes = []
    store = SqlStore(f"sqlite:///{tmp_path}/runs.db")
    store.create(run)
    log = tmp_path / "runs.db-wal"
    for n in range(20):
        must(store, Append(run.key, 1, [step(n, f"{n} " * 50)]))
        sizes.append(log.stat().st_size)
    copies = {name: (tmp_path / name).read_bytes() for name in ("runs.db", "runs.db-wal")}
    store.close()
    for cut in range(sizes[9], sizes[12], 777):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / "runs.db").write_bytes(copies["runs.db"])
        (folder / "runs.db-wal").write_bytes(copies["runs.db-wal"][:cut])
        with SqlStore(f"sqlite:///{folder}/runs.db") as torn:
            whole = sum(size <= cut for size in sizes)
            assert [row.path for row in torn.load(run.run_id).rows] == [
                f"s{n}" for n in range(whole)
            ]
            assert damage(torn) == []


APPENDER = """
import asyncio, os, sys
sys.path[:0] = sys.argv[2:]
from test_store import *
async def main():
    store = SqlStore(sys.argv[1])
    runs = [new_run(run_id=f"k{n}") for n in range(5)]
    for run in runs:
        store.create(run)
    async def work(run):
        for n in range(100_000):
            await store.append(Append(run.key, run.fence, [intent(n), step(n, f"{run.run_id} {n} " * 20)]))
            os.write(1, f"{run.run_id} {n}\\n".encode())
    await asyncio.gather(*map(work, runs))
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.35])
def test_what_was_acknowledged_survives_a_killed_process(shared: str, seconds: float) -> None:
    child = warm.Popen(
        [sys.executable, "-c", APPENDER, shared, *sys.path], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child.stdout as lines:
        first = lines.readline()
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        acknowledged = [first, *lines]
    child.wait(HANGS_SECONDS)
    last: dict[str, int] = {}
    for line in acknowledged:
        name, number = line.split()
        last[name] = int(number)
    with SqlStore(shared) as store:
        assert damage(store) == []
        for name, number in last.items():
            rows = store.load(name).rows
            assert number + 1 <= len(rows) // 2 <= number + 2, (
                "all that was told, and at most what was under way"
            )
            assert [row.path for row in rows] == [f"s{n // 2}" for n in range(len(rows))]
            fence = claim(store, name, "another")
            assert fence is not None


# --- a server that goes away ---


class Proxy:
    """Stands between a store and its server, and can lose what goes through it."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.on_commit: Callable[[socket.socket, socket.socket, bytes], bool] | None = None
        self.sockets: list[socket.socket] = []
        self.mute: list[socket.socket] = []  # servers whose answers are lost
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            self.sockets += [client, server]
            threading.Thread(target=self.pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, False), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        try:
            while data := source.recv(65536):
                if (
                    asks
                    and b"COMMIT" in data
                    and self.on_commit is not None
                    and self.on_commit(source, sink, data)
                ):
                    return
                if source not in self.mute:
                    sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self) -> None:
        self.listener.close()
        for one in self.sockets:
            one.close()


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    between = Proxy(postgres.port)
    yield between
    between.close()


def hang_up(*sockets: socket.socket) -> None:
    for end in sockets:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def test_a_connection_lost_before_the_commit_arrives(
    postgres: PostgresServer, proxy: Proxy
) -> None:
    name = postgres.database().rpartition("/")[2]
    run = new_run()
    with SqlStore(postgres.url(name, proxy.port)) as store:
        store.create(run)

        def lose(client: socket.socket, server: socket.socket, data: bytes) -> bool:
            proxy.on_commit = None
            hang_up(client, server)
            return True

        proxy.on_commit = lose
        error = append(store, Append(run.key, 1, [step(1)]))[0]
        assert isinstance(error, StoreError), "nothing was written, and nothing else is told"
        assert store.load(run.run_id).rows == []
        must(store, Append(run.key, 1, [step(1)]))
        assert store.load(run.run_id).rows == [step(1)]


def test_a_connection_lost_while_the_answer_is_on_its_way(
    postgres: PostgresServer, proxy: Proxy
) -> None:
    name = postgres.database().rpartition("/")[2]
    run = new_run()
    with SqlStore(postgres.url(name, proxy.port)) as store:
        store.create(run)

        def lose(client: socket.socket, server: socket.socket, data: bytes) -> bool:
            proxy.on_commit = None
            proxy.mute.append(server)
            server.sendall(data)
            while postgres.execute("SELECT count(*) FROM nano_rows", name) == [(0,)]:
                time.sleep(0.01)  # the server commits, and nobody hears of it
            hang_up(client, server)
            return True

        proxy.on_commit = lose
        must(store, Append(run.key, 1, [step(1)]))
        must(store, Append(run.key, 1, [step(2)]))
        assert store.load(run.run_id).rows == [step(1), step(2)], "neither lost nor twice"
        assert damage(store) == []


def test_a_connection_that_was_lost_while_nobody_used_it(
    postgres: PostgresServer, proxy: Proxy
) -> None:
    name = postgres.database().rpartition("/")[2]
    run = new_run()
    with SqlStore(postgres.url(name, proxy.port)) as store:
        store.create(run)
        store.load(run.run_id)
        hang_up(*proxy.sockets)
        must(store, Append(run.key, 1, [step(1)]))
        assert store.load(run.run_id).rows == [step(1)]


@pytest.mark.slow
def test_a_server_that_crashes_and_comes_back(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path, home=folder_in_memory())
    try:
        run = new_run()
        with SqlStore(server.database()) as store:
            store.create(run)
            must(store, Append(run.key, 1, [step(1)]))
            server.stop(signal.SIGQUIT)
            error = append(store, Append(run.key, 1, [step(2)]))[0]
            assert isinstance(error, StoreError)
            assert "see" in str(error)
            with pytest.raises(StoreError):
                store.load(run.run_id)
            server.start()
            must(store, Append(run.key, 1, [step(2)]))
            assert [row.path for row in store.load(run.run_id).rows] == ["s1", "s2"]
    finally:
        server.stop()


def test_a_process_that_stops_in_the_middle_does_not_hold_up_the_others(
    postgres: PostgresServer,
) -> None:
    url = postgres.database()
    run, begun, gate = new_run(), threading.Event(), threading.Event()
    with SqlStore(url, busy_timeout_seconds=1) as frozen, SqlStore(url) as awake:
        awake.create(run)

        def job(connection: Any, _: Any) -> None:
            connection.run("UPDATE nano_contents SET refs = refs")
            begun.set()
            gate.wait(HANGS_SECONDS)

        stopped = frozen.writer.submit(job)
        begun.wait(HANGS_SECONDS)
        must(awake, Append(run.key, 1, [step(1, {"a": LONG}), step(2, run.document)]))
        gate.set()
        with pytest.raises(StoreError, match="idle-in-transaction timeout"):
            stopped.result(30)
        frozen.heartbeat("frozen", 1)
        assert damage(awake) == []


def test_a_deadlock_is_tried_again(postgres: PostgresServer) -> None:
    url = postgres.database()
    with SqlStore(url) as store:
        run = new_run()
        store.create(run)
        tries = []

        def job(connection: Any, _: Any) -> int:
            tries.append(1)
            if len(tries) < 3:
                connection.run(
                    "DO $$ BEGIN RAISE EXCEPTION 'chosen' USING ERRCODE = '40P01'; END $$"
                )
            return len(tries)

        assert store.written(job) == 3


# --- how much it takes ---


@pytest.mark.slow
def test_bytes_of_a_step(tmp_path: Path) -> None:
    """The bar is 450 beside distinct values, indexes included; a step is an intent and its
    outcome.
    """
    run = new_run()
    with SqlStore(f"sqlite:///{tmp_path}/runs.db") as store:
        store.create(run)

        def pages() -> int:
            return int(store.written(lambda connection, _: connection.one("PRAGMA page_count"))[0])

        before = pages()
        must(
            store,
            Append(
                run.key,
                1,
                [
                    row
                    for n in range(3000)
                    for row in (intent(n), step(n, n, request={"prompt": LONG}))
                ],
            ),
        )
        assert (pages() - before) * 4096 / 3000 <= 200
        assert sorted(contents(store).values())[-1] == 3000, "the prompt is stored once"


def test_what_is_asked_for_often_is_found_by_an_index(tmp_path: Path) -> None:
    with SqlStore(f"sqlite:///{tmp_path}/runs.db") as store:
        seen: list[str] = []
        monitored = store.database.reading

        def explained() -> Any:
            manager = monitored()

            class Explaining:
                def __enter__(self) -> Any:
                    self.connection = connection = manager.__enter__()
                    ask = connection.all

                    def all_(statement: str, *values: Any) -> Any:
                        seen.extend(
                            row[3] for row in ask(f"EXPLAIN QUERY PLAN {statement}", *values)
                        )
                        return ask(statement, *values)

                    connection.all = all_
                    return connection

                def __exit__(self, *error: Any) -> Any:
                    del self.connection.all  # it is used again
                    return manager.__exit__(*error)

            return Explaining()

        store.database.reading = explained  # type: ignore[method-assign]
        store.claimable(1, 10)
        list(store.runs(limit=50))
        list(store.runs(RunFilter(status="suspended"), limit=50))
        store.database.reading = monitored  # type: ignore[method-assign]
    assert any("nano_runs_wake (status=? AND wake_ns>? AND wake_ns<?)" in line for line in seen)
    assert [line for line in seen if line.startswith(("SCAN nano_", "SCAN r "))] == [
        "SCAN nano_inbox USING INDEX nano_inbox_telling",
        "SCAN r USING COVERING INDEX nano_runs_created",
    ]


def test_figures_of_the_writer() -> None:
    """Named so that a change of them is seen."""
    assert (writing.BATCH_ITEMS, writing.BATCH_BYTES) == (1000, 32_000_000)


@pytest.mark.slow
def test_sqlite_needs_nothing_but_python() -> None:
    code = (
        "import sys; before = set(sys.modules); import nano_vm.store.sql.store; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - "
        "set(sys.stdlib_module_names)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['nano_vm']"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://ann:s3cret@127.0.0.1:1/x", "postgresql://ann:***@127.0.0.1:1/x"),
        (
            "postgres://127.0.0.1:1/x?connect_timeout=1",
            "postgresql://127.0.0.1:1/x?connect_timeout=1",
        ),
        ("postgresql+psycopg://127.0.0.1:1/x", "postgresql://127.0.0.1:1/x"),
    ],
)
def test_a_password_is_not_told(url: str, name: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert str(caught.value).startswith(f"could not open {name}: ")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "runs.db",
        "sqlite:runs.db",
        "sqlite://host/runs.db",
        "sqlite:///runs.db?mode=ro",
        "mysql://x/y",
    ],
)
def test_what_is_no_url_of_a_store(url: str) -> None:
    with pytest.raises(StoreError, match=r"write sqlite:///runs\.db|a file is sqlite:///runs\.db"):
        open_store(url)


def test_a_third_database_is_a_class_and_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else knows which databases there are."""
    asked: list[str] = []

    class Third(SQLite):
        """One that marks parameters in its own way."""

        alone = False

        def text(self, statement: str) -> str:
            asked.append(statement)
            numbers = count(1)
            return re.sub(r"\?", lambda _: f"?{next(numbers)}", statement)

    module = types.ModuleType("third")
    module.Third = Third  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nano_vm.store.sql.third", module)
    with pytest.raises(StoreError, match="no store is kept in 'third'"):
        open_store(f"third:///{tmp_path}/runs.db")
    monkeypatch.setitem(SCHEMES, "third", "third:Third")
    with SqlStore(f"third:///{tmp_path}/runs.db") as store:
        run = ended(store, ROWS, labels={"team": "billing"})
        assert store.load(run.run_id).rows == ROWS
        assert [r.run_id for r in store.runs(RunFilter(labels={"team": "billing"}))] == [run.run_id]
        assert damage(store) == []
    assert any("nano_labels" in statement for statement in asked)


def test_a_run_that_has_ended_does_not_change_any_more(store: SqlStore) -> None:
    """Nor does an append that is given again, as its answer was lost, undo what was erased since."""
    run = new_run(started_ns=5)
    assert store.create(run)
    seal = RunSeal(store.load(run.run_id))
    first = Append(run.key, 1, ROWS, seal.after(ROWS), after=0)
    end = {"status": "success", "finished_ns": 9, "owner": None, "output": {"said": LONG}}
    last = Append(run.key, 1, (), seal.after((), end), after=len(ROWS))
    must(store, first, last)
    kept = store.load(run.run_id)
    must(store, last, first)
    assert store.load(run.run_id) == kept
    late = [Append(run.key, 1, [step(7)], after=len(ROWS)), Append(run.key, 1, (), {"steps": 7})]
    for item in late:
        (error,) = append(store, item)
        assert isinstance(error, LeaseLost)
        assert "has ended" in str(error)
    assert store.load(run.run_id) == kept
    assert store.erase(run.run_id)
    erased = store.load(run.run_id)
    must(store, last)
    assert store.load(run.run_id) == erased
    assert contents(store).keys() & {sha256(canonical({"said": LONG})).digest()} == set()
    assert len(store.receipts(run.run_id)) == 2
    assert store.check() == []
