"""Runs by what they are found by, a page at a time; rows from where one stands; and costs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from postgres import url_of

from nano_vm.errors import StoreError, UnknownRun
from nano_vm.records.status import StepStatus
from nano_vm.records.usage import LLMUsage
from nano_vm.store.protocol import (
    MOST_VERSIONS,
    Append,
    Cost,
    RunFilter,
    RunPage,
    open_store,
)
from nano_vm.store.records import MAX_LABELS, PAUSED, STEP, Erased, Row, StoredRun
from nano_vm.store.seals import RunSeal
from nano_vm.store.sql.store import SqlStore

DAY = 86_400 * 10**9


@pytest.fixture(params=("file", "postgres"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    with SqlStore(url_of(request, tmp_path)) as opened:
        yield opened
        assert opened.check() == []


def kept(store: SqlStore, run_id: str, rows: list[Row] | None = None, **fields: Any) -> StoredRun:
    """A run that has ended."""
    given: dict[str, Any] = {
        "program_name": "refund",
        "program_digest": "d" * 64,
        "created_ns": 1,
        "document": {"program": {}, "programs": {}},
        "salt": b"0123456789abcdef",
        "status": "running",
        "started_ns": 5,
    }
    run = StoredRun(run_id=run_id, **given | fields)
    assert store.create(run)
    end = {"status": "success", "finished_ns": 9, "owner": None}
    sealed = RunSeal(store.load(run_id)).after(rows or [], end)

    async def append() -> None:
        await store.append(Append(run.key, run.fence, rows or [], sealed))

    asyncio.run(append())
    return store.load(run_id)


def call(
    path: str, model: str | None, cost: str | None, day: int = 0, tokens: tuple[int, int] = (10, 1)
) -> Row:
    amount = None if cost is None else Decimal(cost)
    usage = LLMUsage(*tokens, sum(tokens), amount)
    at = day * DAY + 5
    return Row(STEP, "", path, "llm", StepStatus.SUCCESS, at, at + 1, "?", "!", {}, model, usage)


def ids(found: Any) -> list[str]:
    return [run.run_id for run in found]


# --- lists ---


def test_runs_are_found_by_what_is_said_of_them(store: SqlStore) -> None:
    kept(store, "a", created_ns=1, labels={"team": "x", "tier": "1"}, project="eu")
    kept(store, "b", created_ns=2, labels={"team": "x", "tier": "2"}, submitter="ann")
    kept(store, "c", created_ns=3, labels={"team": "y", "tier": "1"}, parent="a")
    kept(store, "d", created_ns=3)

    def found(**wanted: Any) -> list[str]:
        return ids(store.runs(RunFilter(**wanted)))

    assert found(labels={"team": "x"}) == ["b", "a"]
    assert found(labels={"tier": "1", "team": "x"}) == ["a"]
    assert found(labels={"team": "x"}, status="success", since_ns=2) == ["b"]
    assert found(labels={"team": "X"}) == found(labels={"x": "team"}) == []
    assert found(project="eu") == ["a"]
    assert found(project="default") == ["d", "c", "b"]
    assert found(submitter="ann") == ["b"]
    assert found(parent="a") == ["c"]
    assert found(program="refund", project="default", until_ns=3) == ["b"]


def waits(store: SqlStore, run_id: str, *entries: dict[str, Any], **fields: Any) -> None:
    """A run that is suspended, and waits for *entries*."""
    run = StoredRun(
        run_id,
        "refund",
        "d" * 64,
        fields.pop("created_ns", 1),
        document={"program": {}, "programs": {}},
        salt=b"0123456789abcdef",
        **fields,
    )
    assert store.create(run)
    waiting = [{"path": f"p{number}", **entry} for number, entry in enumerate(entries)]
    asyncio.run(suspend(store, run, waiting))


async def suspend(store: SqlStore, run: StoredRun, waiting: list[dict[str, Any]]) -> None:
    given = {"status": "suspended", "waiting": waiting, "owner": None}
    sealed = RunSeal(store.load(run.run_id)).after([], given)
    await store.append(Append(run.key, run.fence, [], sealed))


APPROVAL = {"kind": "approval", "role": "manager"}
EVENT = {"kind": "wait", "event": "paid"}


def test_runs_are_found_by_what_they_wait_for(store: SqlStore) -> None:
    waits(store, "a", APPROVAL)
    waits(store, "b", EVENT, {"kind": "in_doubt"}, project="eu")
    waits(store, "c", {"kind": "wait", "deadline_ns": 5})
    waits(store, "d", {**APPROVAL, "role": "boss"}, {"kind": "effect"})
    kept(store, "e")

    def found(waiting: str, **wanted: Any) -> str:
        return "".join(ids(store.runs(RunFilter(waiting=waiting, **wanted))))

    assert [found(what) for what in ("approval", "event", "time")] == ["da", "b", "c"]
    assert [found(what) for what in ("in_doubt", "effect")] == ["b", "d"]
    assert [found(f"approval:{role}") for role in ("boss", "manager", "Boss")] == ["d", "a", ""]
    assert [found(f"event:{name}") for name in ("paid", "approval")] == ["b", ""]
    assert (found("event", project="eu"), found("event", project="default")) == ("b", "")
    assert found("approval", status="success") == ""
    for asked in (store.costs, store.per_day):
        with pytest.raises(ValueError, match="of a list of them alone"):
            asked(filter=RunFilter(waiting="event"))  # type: ignore[operator]


def test_a_page_of_runs_that_wait_looks_at_so_many(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        waits(store, f"r{number}", APPROVAL if number in (0, 1, 4, 7) else EVENT, created_ns=number)
    asked = RunFilter(waiting="approval")
    first = store.page(asked, size=2)
    assert ids(first.runs) == ["r7", "r4"]
    second = store.page(asked, size=2, after=first.after)
    assert ids(second.runs) == ["r1", "r0"]
    assert store.page(asked, size=2, after=second.after) == RunPage([], None, [])
    monkeypatch.setattr("nano_vm.store.sql.store.PAGE_RUNS", 2)
    monkeypatch.setattr("nano_vm.store.sql.store.MOST_LOOKED_AT", 4)
    pages, after = [], None
    while True:
        page = store.page(asked, size=2, after=after)
        pages.append(ids(page.runs))
        after = page.after
        if after is None:
            break
    assert pages == [["r7"], ["r4"], ["r1", "r0"], []]
    for limit in range(6):
        assert ids(store.runs(asked, limit=limit)) == ["r7", "r4", "r1", "r0"][:limit]


def test_runs_are_found_by_version(store: SqlStore) -> None:
    kept(store, "a", program_digest="ab" * 32)
    kept(store, "b", [call("ask", "m", "1")], program_digest="ab" * 16 + "cd" * 16)
    kept(store, "c")

    def found(*version: str) -> str:
        return "".join(ids(store.runs(RunFilter(version=version))))

    assert [found("ab" * 4), found("ab" * 32), found("ab" * 17)] == ["ba", "a", "a"]
    assert [found("ab" * 32, "d" * 9), found("e" * 64), found()] == ["ca", "", ""]
    assert [cost.calls for cost in store.costs((), RunFilter(version="abababab"))] == [1]


def test_a_page_goes_on_where_the_last_one_ended(store: SqlStore) -> None:
    for n in range(7):
        kept(store, f"r{n}", created_ns=n // 3)
    first = store.page(size=3)
    assert (ids(first.runs), first.damaged) == (["r6", "r5", "r4"], [])
    kept(store, "new", created_ns=9)  # it came since, and is on no page that follows
    second = store.page(size=3, after=first.after)
    assert ids(second.runs) == ["r3", "r2", "r1"]
    third = store.page(size=3, after=second.after)
    assert (ids(third.runs), third.after) == (["r0"], None)
    whole = store.page(size=8)
    assert store.page(size=8, after=whole.after).runs == []
    for wrong in ("", "x", "1", "1.x", "1.2.3", "-1.2", "١.١"):
        with pytest.raises(ValueError, match="not where a page of runs ended"):
            store.page(after=wrong)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"status": "done"}, "no run has status 'done'; choose of pending, running, suspended"),
        ({"status": ("failed", "done")}, "no run has status 'done'"),
        ({"labels": {"a b": "c"}}, "the name of a label is 1 to 63 letters"),
        ({"labels": {"a": 5}}, "label 'a' is a string of 1 to 200 printable characters, not 5"),
        ({"version": "abc"}, "a version is the digest of a program, or the first 8 of its"),
        ({"version": ("d" * 64, "D" * 64)}, "a version is the digest of a program"),
        ({"version": "%" * 8}, "a version is the digest of a program"),
        ({"waiting": "money"}, "no run waits for 'money'; choose of approval, event, time"),
        ({"waiting": "approval:"}, "no run waits for 'approval:'"),
        ({"waiting": "time:x"}, "no run waits for 'time:x'"),
        ({"min_cost_usd": "much"}, "min_cost_usd is an amount of dollars, not 'much'"),
        ({"min_cost_usd": float("nan")}, "min_cost_usd is an amount of dollars, not nan"),
    ],
)
def test_what_no_run_can_be_asked_for(wanted: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RunFilter(**wanted)


def test_a_page_has_a_run_at_least(store: SqlStore) -> None:
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"a page has at least one run, not {size}"):
            store.page(size=size)


def test_ids_by_their_beginning(store: SqlStore) -> None:
    for run_id in ("order-1", "order-10", "order-2", "Order-1", "order_1", "order-1~", "p%"):
        kept(store, run_id)
    assert store.ids_starting_with("order-1", 9) == ["order-1", "order-10", "order-1~"]
    assert store.ids_starting_with("order-1", 2) == ["order-1", "order-10"]
    assert store.ids_starting_with("p%", 9) == ["p%"]
    assert store.ids_starting_with("order%", 9) == store.ids_starting_with("é", 9) == []
    assert len(store.ids_starting_with("", 99)) == 7
    assert (store.has("order-1"), store.has("order")) == (True, False)
    kept(store, "order-3", project="shop")
    assert store.ids_starting_with("order", 9, project="shop") == ["order-3"]
    assert store.ids_starting_with("order-1", 2, project="default") == ["order-1", "order-10"]


def test_rows_from_where_one_stands(store: SqlStore) -> None:
    rows = [call(f"s{n}", "m", "0.1") for n in range(5)]
    kept(store, "r", rows)
    assert store.rows_after("r") == rows
    assert store.rows_after("r", 2) == rows[3:]
    assert store.rows_after("r", 0, limit=2) == rows[1:3]
    assert (
        store.rows_after("r", 4)
        == store.rows_after("r", 99)
        == store.rows_after("r", limit=0)
        == []
    )
    with pytest.raises(UnknownRun):
        store.rows_after("nobody")


# --- costs ---


def test_costs_are_exact_and_told_apart(store: SqlStore) -> None:
    rows = [
        call("ask", "small", "0.1"),
        call("each[0]/ask", "small", "0.2", day=1),
        call("l#2/judge", "large", "1E-7", day=1),
        call("judge", "large", None, day=1, tokens=(7, 3)),
        call("again", None, "5"),  # taken from another run
    ]
    kept(store, "a", rows)
    kept(store, "b", [call("ask", "", "0.3")], program_name="parcel", labels={"team": "x"})
    waiting = call("ask", "small", "9")
    waiting.kind, waiting.model = PAUSED, None
    kept(store, "c", [waiting])
    assert store.costs() == [
        Cost({"model": ""}, 1, 10, 1, 11, Decimal("0.3"), 0),
        Cost({"model": "large"}, 2, 17, 4, 21, Decimal("1E-7"), 1),
        Cost({"model": "small"}, 2, 20, 2, 22, Decimal("0.3"), 0),
    ]
    assert store.costs(()) == [Cost({}, 5, 47, 7, 54, Decimal("0.6000001"), 1)]
    assert [(cost.of, cost.calls) for cost in store.costs(("program", "step"))] == [
        ({"program": "parcel", "step": "ask"}, 1),
        ({"program": "refund", "step": "ask"}, 2),
        ({"program": "refund", "step": "judge"}, 2),
    ]
    assert [(cost.of["day"], cost.calls) for cost in store.costs(("day",))] == [
        ("1970-01-01", 2),
        ("1970-01-02", 3),
    ]
    assert [cost.calls for cost in store.costs((), RunFilter(labels={"team": "x"}))] == [1]
    assert store.costs(("project",), RunFilter(status="failed")) == []
    assert store.costs((), RunFilter(program="nothing")) == []
    with pytest.raises(ValueError, match="costs are not summed by 'hour'; choose of project, prog"):
        store.costs(("hour",))


def test_costs_by_version_and_by_label(store: SqlStore) -> None:
    kept(store, "a", [call("ask", "m", "1")], labels={"team": "x", "tier": "1"})
    kept(store, "b", [call("ask", "m", "2")], labels={"team": "y"}, program_digest="e" * 64)
    kept(store, "c", [call("ask", "m", "4"), call("x", "m", "8")])

    def sums(*by: str, **wanted: Any) -> list[tuple[list[str], str]]:
        found = store.costs(by, RunFilter(**wanted))
        return [(list(cost.of.values()), str(cost.cost_usd)) for cost in found]

    assert sums("version") == [(["d" * 64], "13"), (["e" * 64], "2")]
    assert sums("label:team") == [([""], "12"), (["x"], "1"), (["y"], "2")]
    assert sums("label:tier", "model", "label:team") == [
        (["", "m", ""], "12"),
        (["", "m", "y"], "2"),
        (["1", "m", "x"], "1"),
    ]
    assert sums("label:tier", labels={"team": "x"}) == [(["1"], "1")]
    with pytest.raises(ValueError, match="the name of a label is 1 to 63 letters"):
        store.costs(("label:",))


def test_costs_are_summed_by_as_many_labels_as_a_run_can_have(store: SqlStore) -> None:
    labels = {f"l{n}": str(n) for n in range(MAX_LABELS)}
    kept(store, "r", [call("ask", "m", "1")], labels=labels)
    groups = [f"label:{name}" for name in labels]
    (cost,) = store.costs((*groups, *groups, "model"))
    assert cost.of == {**{f"label:{name}": value for name, value in labels.items()}, "model": "m"}
    for sums in (store.costs, lambda by: store.costs_of_newest(by, RunFilter(), 1)):
        with pytest.raises(ValueError, match="by at most 32 labels at once, not 33"):
            sums((*groups, "label:more"))


def test_runs_are_listed_of_as_many_versions_as_a_statement_says(store: SqlStore) -> None:
    digests = [f"{n:064x}" for n in range(MOST_VERSIONS)]
    kept(store, "r", [call("ask", "m", "1")], program_digest=digests[-1])
    wanted = RunFilter(version=digests * 2)
    assert ids(store.runs(wanted)) == ["r"]
    assert len(store.costs((), wanted)) == 1
    assert store.costs_of_newest((), wanted, 1).runs == 1
    with pytest.raises(ValueError, match="of at most 200 versions at once, not 201"):
        RunFilter(version=[*digests, "f" * 64])


def test_costs_of_the_newest_runs_read_no_others(store: SqlStore) -> None:
    for n in range(6):
        kept(store, f"r{n}", [call("ask", "m", str(2**n))], created_ns=n // 2)

    def newest(most: int, **wanted: Any) -> tuple[list[str], int, int | None, bool]:
        found = store.costs_of_newest((), RunFilter(**wanted), most)
        return [str(one.cost_usd) for one in found.costs], *found[1:4]

    assert newest(6) == newest(99) == (["63"], 6, 0, True)
    assert newest(5) == (["62"], 5, 0, False)  # of two that were made at once, the newer
    assert newest(1) == (["32"], 1, 2, False)
    assert newest(3, status=("success", "failed"), project="default") == (["56"], 3, 1, False)
    assert newest(3, until_ns=1) == (["3"], 2, 0, True)
    assert newest(3, program="none") == ([], 0, None, True)
    assert newest(2, since_ns=1, labels={"a": "b"}) == ([], 0, None, True)


@pytest.mark.slow
def test_many_small_amounts_have_their_exact_sum(store: SqlStore) -> None:
    rows = [call(f"s{n}", "m", "0.1") for n in range(1000)]
    rows.append(call("large", "m", "123456789012345678901234567890"))
    kept(store, "r", rows)
    (cost,) = store.costs(())
    assert cost.cost_usd == Decimal("123456789012345678901234567990")


def test_an_erased_run_has_its_costs_and_not_its_labels(store: SqlStore) -> None:
    run = kept(store, "r", [call("ask", "m", "0.1")], labels={"customer": "77, Main Street"})
    assert store.erase("r")
    erased = store.load("r")
    assert (erased.seal, erased.project) == (run.seal, "default")
    assert type(erased.labels) is Erased
    assert ids(store.runs(RunFilter(labels={"customer": "77, Main Street"}))) == []
    (cost,) = store.costs(("model", "step"))
    assert (cost.of, cost.cost_usd) == ({"model": "m", "step": "ask"}, Decimal("0.1"))
    assert erased.rows[0].usage == run.rows[0].usage


def test_a_pruned_run_is_found_by_nothing(store: SqlStore) -> None:
    kept(store, "r", [call("ask", "m", "0.1")], labels={"team": "x"})
    assert store.prune(10) == 1
    assert ids(store.runs(RunFilter(labels={"team": "x"}))) == []
    assert store.costs() == []
    assert store.ids_starting_with("r", 9) == []


# --- what it is read by ---


ALONG = {
    "nano_runs_created": ({}, {"since_ns": 3}),
    "nano_runs_status": ({"status": "failed"}, {"status": ("failed", "success")}),
    "nano_runs_program": ({"program": "p"}, {"program": "p", "status": "failed"}),
    "nano_runs_project": ({"project": "eu"}, {"project": "eu", "status": ("failed", "pending")}),
    "nano_runs_submitter": ({"submitter": "ann"},),
    "nano_runs_parent": ({"parent": "r"},),
    "PRIMARY KEY": ({"labels": {"a": "b"}}, {"labels": {"a": "b", "c": "d"}, "program": "p"}),
}


@pytest.mark.parametrize("index", ALONG)
@pytest.mark.parametrize("after", [None, "5.5"])
def test_no_list_is_sorted_or_read_whole(tmp_path: Path, index: str, after: str | None) -> None:
    """What is asked for goes along an index in its order, from where the last page ended."""
    with SqlStore(f"sqlite:///{tmp_path}/runs.db") as store:
        for wanted in ALONG[index]:
            plans = explained(store, lambda w=wanted: store.page(RunFilter(**w), after=after))  # type: ignore[misc]
            ways = [line for line in plans if " r " in f"{line} " or " l " in f"{line} "]
            assert any(index in line for line in ways), (wanted, plans)
            assert not any("TEMP B-TREE" in line for line in plans), (wanted, plans)
            whole = [line for line in ways if line.startswith("SCAN")]
            assert len(whole) == (index == "nano_runs_created" and not wanted and not after)


def test_costs_are_read_from_an_index_alone(tmp_path: Path) -> None:
    with SqlStore(f"sqlite:///{tmp_path}/runs.db") as store:
        whole = explained(store, lambda: store.costs(("day", "model")))
        some = explained(store, lambda: store.costs((), RunFilter(labels={"a": "b"})))
    assert whole[0] == "SCAN c USING COVERING INDEX nano_rows_calls"
    assert [line.partition(" (")[0] for line in some] == [
        "SEARCH l USING PRIMARY KEY",
        "SEARCH r USING INTEGER PRIMARY KEY",
        "SEARCH c USING COVERING INDEX nano_rows_calls",
    ]


def explained(store: SqlStore, ask: Any) -> list[str]:
    """The plan of each statement that *ask* makes."""
    seen: list[str] = []
    with store.database.reading() as connection:
        original = type(connection).all

        def all_(self: Any, statement: str, *values: Any) -> list[Any]:
            plan = original(self, f"EXPLAIN QUERY PLAN {statement}", *values)
            seen.extend(row[3] for row in plan)
            return original(self, statement, *values)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(connection), "all", all_)
            ask()
    return seen


def test_an_index_that_says_something_else_is_damage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    with SqlStore(url) as store:
        for n in range(3):
            kept(store, f"r{n}", created_ns=n)
    with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = 1")
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'nano_runs_created'"
        ).fetchone()
        # the table loses a row that its index keeps
        connection.execute("UPDATE sqlite_master SET sql = NULL WHERE name = 'nano_runs_created'")
        assert root
        connection.execute("DELETE FROM sqlite_master WHERE name = 'nano_runs_created'")
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("DELETE FROM nano_runs WHERE run_id = 'r1'")
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute(
            "INSERT INTO sqlite_master VALUES ('index', 'nano_runs_created', 'nano_runs', ?, "
            "'CREATE INDEX nano_runs_created ON nano_runs (created_ns)')",
            (root,),
        )
    with open_store(url, read_only=True) as store:  # type: ignore[attr-defined]
        page = store.page()
        assert ids(page.runs) == ["r2", "r0"]
        assert page.damaged == [
            "run number 2 is in an index and not there; the database is damaged: restore a copy"
        ]
        with pytest.raises(StoreError, match="in an index and not there"):
            list(store.runs())
