"""What an edit of the database comes to: each way is tried, and the table of reliability.md is
what was found.

Who edits has the database and knows all that this package knows, but no signing key. Checksums,
hashes of values and counts of references are always mended, as they are no secret. "found" means
that `nano-vm store check` says so; files are refused when read.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import damage
import pytest
from campaigns import cases
from pages import find

from nano_vm import ExecutionVM, Program, Trace, VMError
from nano_vm.errors import StoreError
from nano_vm.replay import subject_of, verify
from nano_vm.store.protocol import open_store
from nano_vm.store.seals import seal_of
from nano_vm.store.signing import SigningKey
from nano_vm.store.sql.receipts import receipts
from nano_vm.store.sql.schema import ROW_CELLS
from nano_vm.store.transfer import export, read_export
from nano_vm.values import canonical

KEY = SigningKey.generate()
DOCUMENT = find("reliability.md")

Edit = Callable[[sqlite3.Connection], None]

HEADER = (
    "run_id program_name program_digest created_ns document inputs about seed salt parent "
    "project submitter labels".split()
)
STANDING = (
    "status started_ns finished_ns output error error_kind waiting wake_ns steps tokens cost_usd"
).split()
ROW = list(ROW_CELLS)
ENDED = ("ended", "erased", "failed")
UNFINISHED = ("suspended", "sent", "doubt", "matched", "pending", "running")


@dataclass(frozen=True)
class Way:
    """A kind of edit: each of *edits* is found or not, with and without a key; where not, *reason*
    says why that is so.
    """

    name: str
    edits: Callable[[sqlite3.Connection], Iterator[Edit]]
    plain: bool = True
    signed: bool = True
    reason: str = ""

    def line(self) -> str:
        """The row of the table."""
        words = {True: "found", False: "**not**"}
        return f"| {self.name} | {words[self.plain]} | {words[self.signed]} | {self.reason} |"


# --- edits of columns -----------------------------------------------------------------------------


def columns(
    table: str,
    names: list[str],
    runs: tuple[str, ...] | None = None,
    skip: tuple[tuple[str, str], ...] = (),
) -> Callable[[sqlite3.Connection], Iterator[Edit]]:
    """Each of these columns in each row, one at a time; of these runs only, but for *skip* (run,
    column).
    """

    def edits(connection: sqlite3.Connection) -> Iterator[Edit]:
        ids = dict(connection.execute("SELECT key, run_id FROM nano_runs").fetchall())
        for row in connection.execute(f"SELECT {damage.identity(table)} FROM {table}").fetchall():
            run = ids.get(row[0]) if table in ("nano_runs", "nano_rows") else None
            for name in names:
                if (runs is None or run in runs) and (run, name) not in skip:
                    yield changing(table, name, tuple(row))

    return edits


def changing(table: str, column: str, row: tuple[Any, ...]) -> Edit:
    return lambda connection: damage.change(connection, table, column, row)


def statements(*texts: str) -> Callable[[sqlite3.Connection], Iterator[Edit]]:
    """Edits of one statement each, or of several joined by semicolons."""

    def edits(_: sqlite3.Connection) -> Iterator[Edit]:
        for text in texts:
            yield lambda connection, text=text: connection.executescript(text)  # type: ignore[misc]

    return edits


def both(*ways: Callable[[sqlite3.Connection], Iterator[Edit]]) -> Any:
    """The edits of several."""
    return lambda connection: (edit for way in ways for edit in way(connection))


def messages(used: bool) -> Callable[[sqlite3.Connection], Iterator[Edit]]:
    """Messages of runs, each said by somebody else, sent at another time, or with another body."""

    def edits(connection: sqlite3.Connection) -> Iterator[Edit]:
        found = connection.execute(
            f"SELECT id, message FROM nano_inbox WHERE used {'=' if used else '<>'} 1"
        ).fetchall()
        assert found
        for number, cell in found:
            kind, name, body, by, created = json.loads(cell)
            for other in (
                [kind, name, body, "mallory", created],
                [kind, name, body, by, created + 1],
                [kind, name, {**body, "reason": "x"}, by, created],
                [kind, f"{name}x", body, by, created],
            ):
                yield lambda c, n=number, o=other: c.execute(
                    "UPDATE nano_inbox SET message = ? WHERE id = ?", (canonical(o), n)
                )  # type: ignore[misc]

    return edits


# --- rows -----------------------------------------------------------------------------------------


def row_edits(runs: tuple[str, ...]) -> Callable[[sqlite3.Connection], Iterator[Edit]]:
    """Rows dropped, doubled, swapped, and given to another run, with the count of rows mended; and
    the intent dropped that stands with a step.
    """

    def edits(connection: sqlite3.Connection) -> Iterator[Edit]:
        for key, run_id in connection.execute("SELECT key, run_id FROM nano_runs").fetchall():
            if run_id not in runs:
                continue
            before: int | None = None
            for (seq,) in connection.execute(
                "SELECT seq FROM nano_rows WHERE run = ? ORDER BY seq", (key,)
            ).fetchall():
                yield lambda c, k=key, s=seq: _drop(c, k, s)  # type: ignore[misc]
                yield lambda c, k=key, s=seq: _double(c, k, s)  # type: ignore[misc]
                if before is not None:
                    yield lambda c, k=key, b=before, s=seq: _swap(c, k, b, s)  # type: ignore[misc]
                if _count(connection, key, seq) > 1:
                    yield lambda c, k=key, s=seq: _drop_next(c, k, s)  # type: ignore[misc]
                before = seq

    return edits


def _count(connection: sqlite3.Connection, key: int, seq: int) -> int:
    """How many rows of a run are stored as the row *seq*."""
    (count,) = connection.execute(
        "SELECT 1 + (next_path IS NOT NULL) FROM nano_rows WHERE run = ? AND seq = ?", (key, seq)
    ).fetchone()
    return int(count)


def _drop(connection: sqlite3.Connection, key: int, seq: int) -> None:
    count = _count(connection, key, seq)
    connection.execute("DELETE FROM nano_rows WHERE run = ? AND seq = ?", (key, seq))
    _shift(connection, key, seq, -count)


def _drop_next(connection: sqlite3.Connection, key: int, seq: int) -> None:
    connection.execute(
        "UPDATE nano_rows SET next_path = NULL, next_type = NULL, next_ns = NULL "
        "WHERE run = ? AND seq = ?",
        (key, seq),
    )
    _shift(connection, key, seq, -1)


def _double(connection: sqlite3.Connection, key: int, seq: int) -> None:
    count = _count(connection, key, seq)
    _shift(connection, key, seq, count)
    names = ", ".join(
        name for name in damage.columns(connection, "nano_rows") if name not in ("run", "seq")
    )
    connection.execute(
        f"INSERT INTO nano_rows (run, seq, {names}) SELECT run, seq + ?, {names} FROM nano_rows "
        f"WHERE run = ? AND seq = ?",
        (count, key, seq),
    )


def _swap(connection: sqlite3.Connection, key: int, before: int, seq: int) -> None:
    after = before + _count(connection, key, seq)
    for old, new in ((seq, -1), (before, after), (-1, before)):
        connection.execute(
            "UPDATE nano_rows SET seq = ? WHERE run = ? AND seq = ?", (new, key, old)
        )


def _shift(connection: sqlite3.Connection, key: int, after: int, by: int) -> None:
    connection.execute(
        "UPDATE nano_rows SET seq = -seq - 1000 WHERE run = ? AND seq > ?", (key, after)
    )
    connection.execute(
        "UPDATE nano_rows SET seq = -seq - 1000 + ? WHERE run = ? AND seq < 0", (by, key)
    )
    connection.execute("UPDATE nano_runs SET row_count = row_count + ? WHERE key = ?", (by, key))


def deleted(runs: tuple[str, ...]) -> Callable[[sqlite3.Connection], Iterator[Edit]]:
    """Each of these runs with all that belongs to it, but not its receipts."""

    def edits(connection: sqlite3.Connection) -> Iterator[Edit]:
        for key, run_id in connection.execute("SELECT key, run_id FROM nano_runs").fetchall():
            if run_id in runs:
                yield lambda c, k=key: _delete(c, k)  # type: ignore[misc]

    return edits


def _delete(connection: sqlite3.Connection, key: int) -> None:
    for table in ("nano_rows", "nano_inbox", "nano_labels"):
        connection.execute(f"DELETE FROM {table} WHERE run = ?", (key,))
    connection.execute("DELETE FROM nano_runs WHERE key = ?", (key,))


def _copied(connection: sqlite3.Connection, run_id: str) -> None:
    """Put in a run that nobody made: a copy under another name, with its seal made anew."""
    names = [
        name for name in damage.columns(connection, "nano_runs") if name not in ("key", "run_id")
    ]
    key = connection.execute(
        f"INSERT INTO nano_runs (run_id, {', '.join(names)}) SELECT 'made-up', {', '.join(names)} "
        f"FROM nano_runs WHERE run_id = ?",
        (run_id,),
    ).lastrowid
    rows = ", ".join(name for name in damage.columns(connection, "nano_rows") if name != "run")
    connection.execute(
        f"INSERT INTO nano_rows (run, {rows}) SELECT ?, {rows} FROM nano_rows WHERE run = (SELECT "
        f"key FROM nano_runs WHERE run_id = ?)",
        (key, run_id),
    )
    inbox = ", ".join(
        name for name in damage.columns(connection, "nano_inbox") if name not in ("id", "run")
    )
    connection.execute(
        f"INSERT INTO nano_inbox (run, {inbox}) SELECT ?, {inbox} FROM nano_inbox WHERE run = "
        f"(SELECT key FROM nano_runs WHERE run_id = ?)",
        (key, run_id),
    )
    connection.execute(
        "INSERT INTO nano_labels (name, value, created_ns, run) SELECT name, value, created_ns, ? "
        "FROM nano_labels WHERE run = (SELECT key FROM nano_runs WHERE run_id = ?)",
        (key, run_id),
    )
    damage.mend(connection)
    reseal(connection, "made-up")


def made_up(run_id: str) -> Callable[[sqlite3.Connection], Iterator[Edit]]:
    def edits(_: sqlite3.Connection) -> Iterator[Edit]:
        yield lambda connection: _copied(connection, run_id)

    return edits


# --- seals and receipts made anew -----------------------------------------------------------------


def path_of(connection: sqlite3.Connection) -> Path:
    return Path(connection.execute("PRAGMA database_list").fetchone()["file"])


def reseal(connection: sqlite3.Connection, run_id: str) -> None:
    """Compute a run's seal anew, as everybody can."""
    with open_store(f"sqlite:///{path_of(connection)}", read_only=True) as store:  # type: ignore[attr-defined]
        seal = seal_of(store.load(run_id))
    connection.execute("UPDATE nano_runs SET seal = ? WHERE run_id = ?", (seal, run_id))


def rechain(connection: sqlite3.Connection) -> None:
    """Compute all receipts anew, each following the one before, with the seals that their runs have
    now.
    """
    connection.execute(
        "UPDATE nano_receipts SET seal = COALESCE((SELECT seal FROM nano_runs WHERE "
        "nano_runs.run_id = nano_receipts.run_id), seal)"
    )
    store = open_store(f"sqlite:///{path_of(connection)}", read_only=True)
    with store.database.reading() as reading:  # type: ignore[attr-defined]
        made = [receipt for receipt, _ in receipts(reading)]
    store.close()
    previous = ""
    for receipt in made:
        receipt = replace(receipt, previous=previous)
        connection.execute(
            "UPDATE nano_receipts SET previous = ?, hash = ? WHERE number = ?",
            (previous, receipt.hash, receipt.number),
        )
        previous = receipt.hash
    connection.execute("DELETE FROM nano_tips")
    connection.execute("INSERT INTO nano_tips (hash) VALUES (?)", (previous,))


def remade(*texts: str) -> Callable[[sqlite3.Connection], Iterator[Edit]]:
    """Statements, after which every seal and receipt is made anew."""

    def edits(_: sqlite3.Connection) -> Iterator[Edit]:
        for text in texts:
            yield lambda connection, text=text: _remake(connection, text)  # type: ignore[misc]

    return edits


def _remake(connection: sqlite3.Connection, text: str) -> None:
    connection.executescript(text)
    damage.mend(connection)
    for (run_id,) in connection.execute(
        "SELECT run_id FROM nano_runs WHERE hidden IS NULL"
    ).fetchall():
        reseal(connection, run_id)
    rechain(connection)


def _newest(connection: sqlite3.Connection) -> None:
    """Take away the run that ended last, with its receipts."""
    (run_id,) = connection.execute(
        "SELECT run_id FROM nano_receipts ORDER BY number DESC LIMIT 1"
    ).fetchone()
    (first,) = connection.execute(
        "SELECT min(number) FROM nano_receipts WHERE run_id = ?", (run_id,)
    ).fetchone()
    for (name,) in connection.execute(
        "SELECT DISTINCT run_id FROM nano_receipts WHERE number >= ?", (first,)
    ).fetchall():
        (key,) = connection.execute(
            "SELECT key FROM nano_runs WHERE run_id = ?", (name,)
        ).fetchone()
        _delete(connection, key)
        connection.execute("DELETE FROM nano_receipts WHERE run_id = ?", (name,))
    (last,) = connection.execute(
        "SELECT hash FROM nano_receipts ORDER BY number DESC LIMIT 1"
    ).fetchone()
    connection.execute("UPDATE nano_tips SET hash = ?", (last,))


def _one(edit: Edit) -> Callable[[sqlite3.Connection], Iterator[Edit]]:
    def edits(_: sqlite3.Connection) -> Iterator[Edit]:
        yield edit

    return edits


APPROVAL = canonical(["approve", "ask", {"reason": None}, "mallory", 5]).hex()
WAYS = [
    Way(
        "header of a run: id, program, document, inputs, host, seed, salt, parent, project, "
        "submitter, labels, when it was made",
        columns("nano_runs", HEADER),
    ),
    Way(
        "how a run stands: status, times, output, error, what it waits for and shows, when it is "
        "due, steps, tokens, cost",
        columns("nano_runs", STANDING, skip=(("running", "status"),)),
    ),
    Way(
        "seal, signature, or what an erased run's seal still needs",
        columns("nano_runs", ["seal", "signature", "hidden"]),
    ),
    Way(
        "labels by which a run is found: any column, taken away, or put in",
        both(
            columns("nano_labels", ["name", "value", "created_ns", "run"]),
            statements(
                "DELETE FROM nano_labels WHERE run = 1",
                "INSERT INTO nano_labels VALUES ('team', 'other', 1, 1)",
                "INSERT INTO nano_labels VALUES ('team', 'billing', 1, 77)",
            ),
        ),
    ),
    Way("any column of a row of a run that has ended", columns("nano_rows", ROW, ENDED)),
    Way("any column of a row of an unfinished run", columns("nano_rows", ROW, UNFINISHED)),
    Way("rows dropped, doubled, swapped", row_edits((*ENDED, *UNFINISHED))),
    Way(
        "rows of another run",
        statements(
            "DELETE FROM nano_rows WHERE run = 1; UPDATE nano_rows SET run = 1 WHERE run = 2",
            "UPDATE nano_rows SET run = run + 100; UPDATE nano_rows SET run = 2 WHERE run = 101; "
            "UPDATE nano_rows SET run = 1 WHERE run = 102",
        ),
    ),
    Way("a value by its hash", columns("nano_contents", ["body", "hash"])),
    Way("a message that was used: what was decided, who did, when", messages(used=True)),
    Way(
        "a message that was used, taken away or made unused",
        statements(
            "DELETE FROM nano_inbox WHERE used = 1", "UPDATE nano_inbox SET used = 0 WHERE used = 1"
        ),
    ),
    Way(
        "a message that is not used yet",
        messages(used=False),
        plain=False,
        reason="it is no part of the run yet; who may write to the database may say what they "
        "like, unless messages are signed",
    ),
    Way(
        "an approval put in by hand",
        statements(
            f"INSERT INTO nano_inbox (run, kind, message, used) SELECT key, 'approve', "
            f"x'{APPROVAL}', 0 FROM nano_runs "
            "WHERE run_id = 'suspended'"
        ),
        plain=False,
        reason="the same",
    ),
    Way(
        "an event that is addressed to no run",
        statements(
            "UPDATE nano_events SET message = CAST(replace(CAST(message AS TEXT), '4', '3') AS "
            "BLOB)"
        ),
        plain=False,
        reason="the same",
    ),
    Way(
        "a receipt: any column",
        columns("nano_receipts", ["kind", "run_id", "seal", "at_ns", "previous", "hash"]),
    ),
    Way(
        "a receipt taken away",
        statements(*(f"DELETE FROM nano_receipts WHERE number = {n}" for n in (1, 2, 3))),
    ),
    Way("a run that has ended, deleted with all that belongs to it", deleted(ENDED)),
    Way("a run that has ended, put in by hand, sealed", made_up("ended")),
    Way(
        "a run that has ended, set back to an earlier state",
        statements(
            "UPDATE nano_runs SET status = 'running' WHERE run_id = 'ended'",
            "UPDATE nano_runs SET status = 'suspended' WHERE run_id = 'failed'",
        ),
    ),
    Way(
        "identity of the store",
        statements("UPDATE nano_meta SET value = '00' WHERE name = 'store'"),
    ),
    Way(
        "an unfinished run put in by hand, sealed",
        made_up("suspended"),
        plain=False,
        reason="who may write to the database may submit runs; policies hold for them all the same",
    ),
    Way(
        "anything, with every seal and receipt made anew",
        remade(
            "UPDATE nano_runs SET tokens = 7 WHERE run_id = 'ended'",
            "UPDATE nano_rows SET started_ns = started_ns - 1 WHERE run = 1",
            "UPDATE nano_runs SET wake_ns = 5 WHERE run_id = 'suspended'",
            "DELETE FROM nano_rows WHERE run IN (SELECT key FROM nano_runs WHERE run_id = "
            "'failed'); "
            "DELETE FROM nano_receipts WHERE run_id = 'failed'; DELETE FROM nano_runs WHERE "
            "run_id = 'failed'",
        ),
        plain=False,
        reason="hashes can be computed by everybody: sign (`--signing-key`)",
    ),
    Way(
        "the newest runs, taken away with their receipts; an older copy in place of the store",
        _one(_newest),
        plain=False,
        signed=False,
        reason="nothing in a store tells that it was newer: keep what `store head` prints "
        "elsewhere, `store check --head` finds it",
    ),
    Way(
        "an unfinished run, deleted with all that belongs to it",
        deleted(("sent", "pending")),
        plain=False,
        signed=False,
        reason="it has no receipt before it ends; whoever waits for it misses it",
    ),
    Way(
        "a run that was claimed and not begun, shown as before",
        statements("UPDATE nano_runs SET status = 'suspended' WHERE run_id = 'running'"),
        plain=False,
        signed=False,
        reason="both are true: who claims has not recorded anything yet",
    ),
    Way(
        "owner and fence of a run, leases",
        columns("nano_runs", ["owner", "fence"]),
        plain=False,
        signed=False,
        reason="they say who drives a run, not what it did; other processes write them too. A "
        "wrong one can delay a run, or "
        "let two processes claim it",
    ),
    Way(
        "whether a message that is not used was looked at; the marks by which events are found",
        statements("UPDATE nano_inbox SET used = 2 WHERE used = 0", "DELETE FROM nano_marks"),
        plain=False,
        signed=False,
        reason="they say what a worker looks at next, not what it finds; a wrong one can delay a "
        "run",
    ),
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, bytes]:
    """The store without and with signatures."""
    found = {}
    for key in (None, KEY):
        path = tmp_path_factory.mktemp("store") / "runs.db"
        damage.make(f"sqlite:///{path}", key)
        found[key is not None] = path.read_bytes()
    return found


def is_found(path: Path, keys: list[str] | None) -> bool:
    try:
        with open_store(f"sqlite:///{path}", read_only=True) as store:  # type: ignore[attr-defined]
            return bool(store.check(keys=keys))
    except StoreError:
        return True


FEW = 12
"""Edits of one way that `make test` tries at least."""


@pytest.mark.campaign
@pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name[:40])
def test_what_is_edited_is_found_or_named(
    tmp_path: Path, stores: dict[bool, bytes], way: Way, signed: bool
) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(stores[signed])
    keys = [KEY.public] if signed else None
    assert not is_found(path, keys), "as it was written"
    with damage.opened(path) as connection:
        edits = list(way.edits(connection))
    assert edits
    tried = 0
    every = max(1, len(edits) // cases(len(edits), FEW))
    for number, edit in list(enumerate(edits))[::every]:
        path.write_bytes(stores[signed])
        with damage.opened(path) as connection:
            before = connection.total_changes
            try:
                edit(connection)
            except sqlite3.IntegrityError:
                continue  # the database does not take it
            if connection.total_changes == before:
                continue
            damage.mend(connection)
        tried += 1
        assert is_found(path, keys) is (way.signed if signed else way.plain), (
            f"edit {number} of {len(edits)}"
        )
    assert tried


def test_a_head_that_was_kept_finds_what_a_store_cannot_tell(
    tmp_path: Path, stores: dict[bool, bytes]
) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(stores[True])
    with open_store(f"sqlite:///{path}", read_only=True) as store:  # type: ignore[attr-defined]
        head = store.head()
    with damage.opened(path) as connection:
        _newest(connection)
        damage.mend(connection)
    with open_store(f"sqlite:///{path}", read_only=True) as store:  # type: ignore[attr-defined]
        assert store.check(keys=[KEY.public]) == []
        assert len(store.check(head=head)) == 1


# --- files ----------------------------------------------------------------------------------------


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, (*path, number))
    else:
        yield path


def replaced(value: Any, path: tuple[Any, ...]) -> Any:
    copy = json.loads(json.dumps(value))
    at = copy
    for key in path[:-1]:
        at = at[key]
    old = at[path[-1]]
    at[path[-1]] = damage._other(old) if type(old) is not str or old else "x"
    return copy


def exported(path: Path) -> str:
    stream = io.StringIO()
    with open_store(f"sqlite:///{path}", read_only=True) as store:  # type: ignore[attr-defined]
        store.export(list(damage.RUNS), stream)
    return stream.getvalue()


@pytest.mark.slow
def test_an_export_that_was_edited_is_refused(tmp_path: Path, stores: dict[bool, bytes]) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(stores[True])
    lines = exported(path).splitlines(keepends=True)
    assert len(list(read_export(lines))) == len(damage.RUNS)
    tried = 0
    for number, line in enumerate(lines):
        data = json.loads(line)
        edits = [[canonical(replaced(data, leaf)).decode() + "\n"] for leaf in leaves(data)]
        for other in (*edits, [], [line, line]):
            if data["record"] == "program" and other == [line, line]:
                continue  # the same program twice
            with pytest.raises(StoreError):
                list(read_export([*lines[:number], *other, *lines[number + 1 :]]))
            tried += 1
    assert tried > 500


def _new(name: str, old: Any) -> Any:
    if name == "status":
        return "failed"
    if name == "cost_usd":
        return "0.5"  # an amount: any other text is refused before the seal is looked at
    return (
        {**damage._FILLED, "seed": 7}.get(name, "x")
        if old is None or name == "seed"
        else damage._other(old)
    )


EXPORTED = (
    "started_ns finished_ns steps tokens cost_usd status output error error_kind wake_ns "
    "seed created_ns parent"
).split()


@pytest.mark.parametrize("name", EXPORTED)
def test_an_export_whose_own_hash_was_made_anew_is_refused_by_its_seal(
    tmp_path: Path, stores: dict[bool, bytes], name: str
) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(stores[True])
    with open_store(f"sqlite:///{path}", read_only=True) as store:  # type: ignore[attr-defined]
        run = store.load("ended")
        old = getattr(run, name)
        setattr(run, name, _new(name, old))
        stream = io.StringIO()
        export([run], stream)
        with pytest.raises(StoreError, match="its seal does not fit its records"):
            list(read_export(stream.getvalue().splitlines(keepends=True)))
        run.seal = seal_of(run)
        stream = io.StringIO()
        export([run], stream)
        (again,) = read_export(stream.getvalue().splitlines(keepends=True))
        assert not verify(subject_of(again), keys=[KEY.public]), "its signature does not fit"


@pytest.mark.slow
def test_a_trace_that_was_edited_is_refused(tmp_path: Path) -> None:
    vm = ExecutionVM(damage.ScriptedLLM(["maybe", "yes"]), damage.tools(), signing_key=KEY)
    trace = vm.run_sync(Program.from_dict(damage.PROGRAM), {"n": 3})
    data = json.loads(trace.to_json())
    tried = 0
    for leaf in leaves(data):
        other = replaced(data, leaf)
        if leaf == ("signature",):
            assert not verify(
                subject_of(Trace.from_dict(other), Program.from_dict(damage.PROGRAM)),
                keys=[KEY.public],
            )
            continue
        with pytest.raises(VMError):
            Trace.from_dict(other)
        tried += 1
    for number in range(len(data["records"])):
        for records in (
            data["records"][:number] + data["records"][number + 1 :],
            data["records"][: number + 1] + data["records"][number:],
        ):
            with pytest.raises(VMError):
                Trace.from_dict({**data, "records": records})
            tried += 1
    assert tried > 100


# --- the document ---------------------------------------------------------------------------------

FILES = [
    "| an exported file: any field, a line dropped or doubled | found | found | |",
    "| the same, its own hash made anew | found | found | |",
    "| the same, its seal made anew | **not** | found | hashes can be computed by everybody |",
    "| a trace file: any field, a record dropped or doubled | found | found | |",
    "| the same, digest and seal made anew | **not** | found | hashes can be computed by "
    "everybody |",
]


def test_the_table_is_what_was_found() -> None:
    text = DOCUMENT.read_text()
    start = text.index("| what is edited | without a key | with a key | why not |")
    lines = text[start:].split("\n\n")[0].splitlines()[2:]
    assert lines == [*(way.line() for way in WAYS), *FILES]
