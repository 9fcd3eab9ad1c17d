"""The audit log: its chain, and what is done to it, each of which is found."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from nano_vm.server import audit
from nano_vm.server.rows import Prepared, Row, Rows, Tables, Unscoped, everywhere
from nano_vm.server.tables import audit as entries
from nano_vm.server.tables import audit_head, keys, members, programs, users
from nano_vm.store.protocol import open_tables
from nano_vm.store.sql.store import SqlStore


@pytest.fixture
def tables(database: str) -> Any:
    store = open_tables(database)
    yield Tables(store)
    store.close()


def entry(number: int, project: str = "shop") -> audit.Entry:
    return audit.Entry(number, project, "mia", "run.started", f"run-{number}", {"n": number})


def filled(tables: Tables, count: int = 5) -> None:
    for number in range(1, count + 1):
        tables.write(lambda rows, number=number: audit.add(rows, entry(number)))


def faults(tables: Tables) -> list[str]:
    with tables.reading() as rows:
        return list(audit.faults(rows))


def test_a_log_that_nobody_touched(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults(tables) == []
    filled(tables)
    assert faults(tables) == []
    monkeypatch.setattr(audit, "READ_AT_ONCE", 2)
    assert faults(tables) == []


@pytest.mark.parametrize("number", range(1, 6))
def test_what_is_wrong_with_an_entry_of_any_page_is_found(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Each page is read, and as many entries at once as are to be."""
    monkeypatch.setattr(audit, "READ_AT_ONCE", 2)
    filled(tables)
    pages: list[int] = []
    following = audit._following

    def noted(rows: Rows, number: int) -> list[Row]:
        pages.append(len(found := following(rows, number)))
        return found

    monkeypatch.setattr(audit, "_following", noted)
    change = sa.update(entries).where(entries.c.number == number).values(target="x")
    tables.write(lambda rows: rows.run(everywhere(change)))
    assert faults(tables) == [f"entry {number} was changed"]
    assert pages == [2, 2, 1]
    pages.clear()
    assert [json.loads(line)["number"] for line in audit.lines(tables)] == [1, 2, 3, 4, 5]
    assert pages == [2, 2, 1]


@pytest.mark.parametrize("column", [c.name for c in entries.columns if c.name != "number"])
def test_an_entry_that_was_edited_is_found(tables: Tables, column: str) -> None:
    filled(tables)
    value: Any = 7 if column == "at_ns" else "x"
    change = sa.update(entries).where(entries.c.number == 3).values({column: value})
    tables.write(lambda rows: rows.run(everywhere(change)))
    assert any("entry 3" in fault for fault in faults(tables))


def test_an_entry_that_was_dropped_is_found(tables: Tables) -> None:
    filled(tables)
    for number, told in (
        (3, "entries 3 to 3 are missing"),
        (5, "ends with entry 4"),
        (1, "1 to 1"),
    ):
        drop = sa.delete(entries).where(entries.c.number == number)
        tables.write(lambda rows, drop=drop: rows.run(everywhere(drop)))
        assert any(told in fault for fault in faults(tables)), number


def test_entries_that_changed_places_are_found(tables: Tables) -> None:
    filled(tables)

    def swap(rows: Any) -> None:
        for old, new in ((2, 99), (4, 2), (99, 4)):
            move = sa.update(entries).where(entries.c.number == old).values(number=new)
            rows.run(everywhere(move))

    tables.write(swap)
    assert len(faults(tables)) >= 3


def test_a_head_that_is_gone_is_found(tables: Tables) -> None:
    filled(tables)
    tables.write(lambda rows: rows.run(sa.delete(audit_head)))
    assert faults(tables) == ["the head of the log is missing"]


def test_an_entry_is_one_line(tables: Tables) -> None:
    said = "a\u2028b\u2029c\x85d"
    tables.write(
        lambda rows: audit.add(rows, audit.Entry(1, "shop", said, "x", said, {"said": said}))
    )
    [line] = b"\n".join(audit.lines(tables)).decode().splitlines()
    assert json.loads(line)["detail"] == {"said": said}


def test_many_write_one_chain(tables: Tables, database: str) -> None:
    """Of several processes, as several stores are."""
    stores = [SqlStore(database) for _ in range(3)]

    def write(store: SqlStore, first: int) -> None:
        for number in range(first, first + 8):
            Tables(store).write(lambda rows, number=number: audit.add(rows, entry(number)))

    threads = [
        threading.Thread(target=write, args=(store, 100 * index))
        for index, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for store in stores:
        store.close()
    assert faults(tables) == []
    with tables.reading() as rows:
        head = rows.one(sa.select(audit_head))
    assert head is not None
    assert head.number == 24


UNSCOPED: tuple[Callable[[], Any], ...] = (
    lambda: sa.select(keys),
    lambda: sa.select(keys).where(keys.c.id == "x"),
    lambda: sa.select(users.c.name).join(members, members.c.user_name == users.c.name),
    lambda: sa.update(keys).where(keys.c.id == "x").values(role="admin"),
    lambda: sa.delete(members),
    lambda: sa.insert(keys).values(id="x"),
    lambda: sa.select(sa.func.count()).select_from(members),
    lambda: sa.select(users).where(
        users.c.name.in_(sa.select(members.c.user_name).where(members.c.role == "admin"))
    ),
)


@pytest.mark.parametrize("make", UNSCOPED)
def test_a_statement_without_a_project_is_not_executed(
    tables: Tables, make: Callable[[], Any]
) -> None:
    statement = make()
    with tables.reading() as rows:
        execute = rows.all if isinstance(statement, sa.Select) else rows.run
        with pytest.raises(Unscoped, match="of all projects"):
            execute(statement)


def test_a_statement_of_a_project_is(tables: Tables) -> None:
    with tables.reading() as rows:
        assert rows.all(sa.select(keys).where(keys.c.project == "shop")) == []
        assert rows.all(everywhere(sa.select(keys))) == []
        assert rows.all(sa.select(users)) == []


def test_what_is_compiled_once_is_scoped_too() -> None:
    with pytest.raises(Unscoped, match="of all projects"):
        Prepared(sa.select(programs))
    Prepared(everywhere(sa.select(programs)))
    Prepared(sa.select(programs).where(programs.c.project == sa.bindparam("project")))


def test_what_is_compiled_once_takes_lists_of_any_length(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = entries.c.target.in_(sa.bindparam("of", expanding=True))
    found = Prepared(
        everywhere(
            sa.select(entries.c.target)
            .where(entries.c.number > sa.bindparam("after"), wanted)
            .order_by(entries.c.number)
        )
    )
    filled(tables, 4)
    with tables.reading() as rows:
        for count in (0, 1, 3, 3, 200):
            asked = [f"run-{number}" for number in range(count, 0, -1)]
            given = [row.target for row in rows.all(found, after=1, of=asked)]
            assert given == [f"run-{number}" for number in range(2, min(count, 4) + 1)]
            monkeypatch.setattr(sa.Select, "compile", None)  # which is not asked again
