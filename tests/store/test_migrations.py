"""Tables come up from every revision, on SQLite and on PostgreSQL, and are then as if made new."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from postgres import url_of

from nano_vm.errors import StoreError
from nano_vm.records.status import StepStatus
from nano_vm.server.tables import METADATA
from nano_vm.store.protocol import Append, open_tables
from nano_vm.store.records import INTENT, STEP, Row, StoredRun
from nano_vm.store.seals import RunSeal
from nano_vm.store.sql import cells, migrations, schema
from nano_vm.store.sql import database as database_module
from nano_vm.store.sql.store import SqlStore

LATER = """
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade():
    {what}
    op.execute("UPDATE nano_meta SET value = '{schema}' WHERE name = 'schema'")
"""


@pytest.fixture(params=["file", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


@pytest.fixture
def second(request: pytest.FixtureRequest, tmp_path: Path, url: str) -> str:
    """Another empty database of the same kind."""
    if url.startswith("postgresql"):
        return str(request.getfixturevalue("postgres").database())
    return f"sqlite:///{tmp_path}/second.db"


def engine_of(url: str) -> sa.Engine:
    return sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def shape(url: str) -> dict[str, Any]:
    """Everything that a database has: tables with columns, keys and indexes."""
    engine = engine_of(url)
    inspector = sa.inspect(engine)
    found: dict[str, Any] = {}
    for name in sorted(inspector.get_table_names()):
        if name == migrations.VERSION_TABLE:
            continue
        columns = [
            (c["name"], str(c["type"]), c["nullable"], c.get("default"))
            for c in inspector.get_columns(name)
        ]
        indexes = sorted(
            (i["name"], tuple(i["column_names"]), bool(i["unique"]), _told(i))
            for i in inspector.get_indexes(name)
        )
        key = inspector.get_pk_constraint(name)["constrained_columns"]
        unique = sorted(tuple(u["column_names"]) for u in inspector.get_unique_constraints(name))
        found[name] = columns, key, unique, indexes
    engine.dispose()
    return found


def _told(index: Any) -> str:
    return str({name: str(value) for name, value in index.get("dialect_options", {}).items()})


def brought_up_to(url: str, revision: str) -> None:
    """Make the tables of a revision in an empty database, by the revisions alone."""
    from nano_vm.store.sql.dialect import dialect_of

    dialect = dialect_of(url, synchronous="FULL", busy_timeout_seconds=5.0)
    driver, _ = dialect.connected(read_only=False)
    driver.execute("BEGIN")
    migrations.run(driver, type(dialect).__name__, at=None, to=revision)
    version = {known: number for number, known in schema.REVISIONS.items()}
    number = version.get(revision, schema.SCHEMA_VERSION)
    driver.execute(f"INSERT INTO nano_meta (name, value) VALUES ('schema', '{number}')")
    driver.execute("INSERT INTO nano_meta (name, value) VALUES ('store', 'x')")
    driver.execute("COMMIT")
    driver.close()


@pytest.mark.slow
def test_the_tables_of_runs_have_one_shape_however_they_were_made(url: str, second: str) -> None:
    SqlStore(url).close()
    brought_up_to(second, schema.REVISIONS[schema.SCHEMA_VERSION])
    assert shape(url) == shape(second)


@pytest.mark.slow
@pytest.mark.parametrize("revision", migrations.revisions())
def test_every_revision_comes_up(url: str, second: str, revision: str) -> None:
    brought_up_to(url, revision)
    SqlStore(url, upgrade=True).close()
    open_tables(url).close()
    open_tables(second).close()  # made new
    assert shape(url) == shape(second)
    SqlStore(url, upgrade=True).close()  # once more does nothing
    assert shape(url) == shape(second)


@pytest.mark.slow
def test_the_server_knows_the_tables_that_there_are(url: str) -> None:
    open_tables(url).close()
    engine = engine_of(url)
    known = sa.MetaData()
    known.reflect(engine, only=list(METADATA.tables))
    for name, table in METADATA.tables.items():
        there = known.tables[name]
        assert [c.name for c in table.columns] == [c.name for c in there.columns]
        for column in table.columns:
            other = there.columns[column.name]
            assert str(column.type) == str(other.type), (name, column.name)
            assert (column.nullable, column.primary_key) == (other.nullable, other.primary_key)
        indexes = {(i.name, tuple(c.name for c in i.columns), i.unique) for i in table.indexes}
        assert indexes == {
            (i.name, tuple(c.name for c in i.columns), bool(i.unique)) for i in there.indexes
        }
    engine.dispose()


def test_a_store_with_a_server_is_a_store(url: str) -> None:
    open_tables(url).close()
    with SqlStore(url) as store:
        assert store.check() == []
        assert list(store.runs()) == []


def test_rows_of_version_4_are_read_and_gone_on_with(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An intent had a row of its own there, also after a step."""
    step = Row(STEP, "", "a", "tool", StepStatus.SUCCESS, 5, 9, {"n": 1}, "done")
    rows = [replace(step, path=f"s{n // 2}") if n % 2 else begun(f"s{n // 2}") for n in range(5)]
    run = StoredRun("r", "refund", "d" * 64, 1, salt=b"0123456789abcdef", status="running")
    run.rows = rows
    with monkeypatch.context() as patch, SqlStore(url) as store:
        patch.setattr(cells, "_goes_with", lambda *_: False)
        assert store.create(run)
        with store.database.writing() as connection:
            for name in ("next_path", "next_type", "next_ns"):
                connection.run(f"ALTER TABLE nano_rows DROP COLUMN {name}")
            connection.run("UPDATE nano_meta SET value = '4' WHERE name = 'schema'")
    with pytest.raises(StoreError, match=r"of version 4, .* nano-vm store upgrade"):
        SqlStore(url)
    SqlStore(url, upgrade=True).close()
    with SqlStore(url) as store:
        assert store.check() == []
        assert store.load("r").rows == store.rows_after("r") == rows
        more = [replace(step, path="s2"), begun("s3")]
        sealed = RunSeal(store.load("r")).after(more)

        async def gone_on() -> None:
            await store.append(Append(run.key, 1, more, sealed, after=5))

        asyncio.run(gone_on())
        assert store.load("r").rows == [*rows, *more]
        assert store.check() == []
        with store.database.reading() as connection:
            assert connection.one("SELECT count(*), count(next_path) FROM nano_rows") == (6, 1)


def begun(path: str) -> Row:
    return Row(INTENT, "", path, "tool", None, 5)


def revisions(folder: Path, monkeypatch: pytest.MonkeyPatch, *whats: str) -> None:
    """Have newer revisions, each of which raises the version of the tables of runs."""
    known = schema.SCHEMA_VERSION
    before = migrations.head()
    for number, what in enumerate(whats, 1):
        text = LATER.format(
            revision=f"late{number}", before=before, what=what, schema=known + number
        )
        (folder / f"late{number}.py").write_text(text)
        before = f"late{number}"
        monkeypatch.setitem(schema.REVISIONS, known + number, before)
    monkeypatch.setattr(migrations, "PLACES", [*migrations.PLACES, folder])
    for module in (schema, database_module):
        monkeypatch.setattr(module, "SCHEMA_VERSION", known + len(whats))


@pytest.mark.slow
def test_an_older_version_comes_up_or_nothing_is_changed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqlStore(url).close()
    before = shape(url)
    add = 'op.add_column("nano_runs", __import__("sqlalchemy").Column("colour", __import__("sqlalchemy").Text))'
    folder = tmp_path / "later"
    folder.mkdir()
    with monkeypatch.context() as patch:
        revisions(folder, patch, add, 'op.execute("CREATE DANCE")')
        refused = "made by an older llm-nano-vm: .*; nano-vm store upgrade; nothing was changed"
        with pytest.raises(StoreError, match=refused):
            SqlStore(url)
        with pytest.raises(StoreError, match="DANCE"):
            SqlStore(url, upgrade=True)
        assert shape(url) == before  # also without the first revision
    for file in folder.iterdir():
        if file.is_file():
            file.unlink()
    revisions(folder, monkeypatch, add)
    SqlStore(url, upgrade=True).close()
    with SqlStore(url) as store, store.database.reading() as connection:
        assert connection.one("SELECT count(colour) FROM nano_runs") == (0,)


def test_what_no_revision_leads_from_is_refused(url: str) -> None:
    with SqlStore(url) as store, store.database.writing() as connection:
        connection.run("UPDATE nano_meta SET value = '2' WHERE name = 'schema'")
    for upgrade in (False, True):
        with pytest.raises(StoreError, match=r"older .*; use another file or database; nothing"):
            SqlStore(url, upgrade=upgrade)


def test_the_tables_of_a_newer_server_are_refused_in_a_line(url: str) -> None:
    with SqlStore(url, upgrade=True) as store, store.database.writing() as connection:
        connection.run("UPDATE nano_alembic SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"made by a newer llm-nano-vm: .*revision 9999"):
        open_tables(url)
    with pytest.raises(
        StoreError, match=r"made by a newer llm-nano-vm .*9999.*nothing was changed"
    ):
        SqlStore(url, upgrade=True)


def test_the_tables_of_an_older_server_are_upgraded_by_a_command(url: str) -> None:
    brought_up_to(url, "0003")
    with pytest.raises(StoreError, match="tables of an older server; nano-vm store upgrade"):
        open_tables(url)
    SqlStore(url, upgrade=True).close()
    open_tables(url).close()


def test_without_what_runs_revisions_a_store_that_needs_none_is_fine(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "alembic", None)
    SqlStore(url, upgrade=True).close()
    monkeypatch.setattr(database_module, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    with pytest.raises(ImportError, match=r"pip install 'llm-nano-vm\[server\]'"):
        SqlStore(url, upgrade=True)


def test_revisions_are_one_line() -> None:
    known = migrations.revisions()
    assert known == sorted(known)
    assert all(int(b) == int(a) + 1 for a, b in itertools.pairwise(known))


@pytest.mark.slow
def test_a_server_of_before_version_5_comes_up(url: str, second: str) -> None:
    """Its tables were revision 0003 then, which is another's number now."""
    brought_up_to(url, "0002")
    engine = engine_of(url)
    METADATA.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0003'"))
        connection.execute(sa.text("INSERT INTO nano_projects VALUES ('shop', '{}', 1)"))
        connection.execute(sa.text("INSERT INTO nano_audit_head VALUES (1, 7, 'h')"))
    with pytest.raises(StoreError, match="nano-vm store upgrade"):
        SqlStore(url)
    SqlStore(url, upgrade=True).close()
    open_tables(url).close()
    open_tables(second).close()
    assert shape(url) == shape(second)
    with engine.begin() as connection:
        stamp = connection.execute(sa.text(f"SELECT * FROM {migrations.VERSION_TABLE}")).all()
        assert [tuple(row) for row in stamp] == [(migrations.head(),)]
        kept = connection.execute(
            sa.text("SELECT name, number FROM nano_projects, nano_audit_head")
        )
        assert [tuple(row) for row in kept] == [("shop", 7)]
    engine.dispose()
