"""A store with a run of every kind, and ways to change what lies in it: with sqlite3, as somebody
would who has the file open.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from nano_vm import ExecutionVM, Program, tool
from nano_vm.store.protocol import open_store
from nano_vm.store.records import Message
from nano_vm.store.signing import SigningKey
from nano_vm.store.sql.cells import row_crc, run_crc
from nano_vm.store.sql.schema import ROW_CELLS, TABLES
from nano_vm.testing import ScriptedLLM
from nano_vm.values import canonical

LONG = "an order of something that has a long name and stands outside of its cell"

PROGRAM = {
    "name": "order",
    "steps": [
        {
            "id": "both",
            "type": "parallel",
            "parallel_steps": [
                {"id": "get", "type": "tool", "tool": "get", "args": {"n": "$n"}},
                {
                    "id": "judge",
                    "type": "llm",
                    "prompt": "Is $n much?",
                    "allowed_outputs": ["yes", "no"],
                    "max_retries": 2,
                },
            ],
        },
        {
            "id": "kind",
            "type": "condition",
            "condition": "$both.output.judge == 'yes'",
            "then": "ask",
            "otherwise": "ask",
        },
        {
            "id": "ask",
            "type": "approval",
            "role": "boss",
            "show": {"n": "$n", "what": LONG},
            "timeout_seconds": 8640000,
            "next": "pay",
        },
        {"id": "pay", "type": "tool", "tool": "pay", "args": {"n": "$n"}},
        {
            "id": "each",
            "type": "map",
            "over": "$both.output.get",
            "as": "x",
            "steps": [{"id": "m", "type": "tool", "tool": "get", "args": {"n": "$x"}}],
        },
    ],
}
WAITING = {
    "name": "parcel",
    "steps": [
        {"id": "w", "type": "wait", "event": "paid"},
        {"id": "t", "type": "wait", "seconds": 86400},
    ],
}
MATCHED = {
    "name": "matched",
    "steps": [{"id": "w", "type": "wait", "event": "shipped", "match": {"order": "$n"}}],
}
FAILING = {"name": "fails", "steps": [{"id": "f", "type": "tool", "tool": "fail", "args": {}}]}
DOUBT = {
    "name": "doubt",
    "steps": [{"id": "pay", "type": "tool", "tool": "slow", "args": {}, "timeout_seconds": 0.05}],
}


def tools() -> dict[str, Any]:
    @tool(effect="read")
    def get(n: Any) -> Any:
        return [n, n] if type(n) is int else [LONG]

    @tool(effect="write")
    def pay(n: int) -> str:
        return f"paid {n}"

    @tool(effect="read")
    def fail() -> None:
        raise ValueError("it is broken")

    @tool(effect="write")
    async def slow() -> None:
        await asyncio.sleep(10)

    return {"get": get, "pay": pay, "fail": fail, "slow": slow}


RUNS = {
    "ended": "success",
    "erased": "success",
    "failed": "failed",
    "suspended": "suspended",
    "sent": "suspended",
    "doubt": "suspended",
    "matched": "suspended",
    "pending": "pending",
    "running": "running",
}


SAID: Any = {"labels": {"team": "billing"}, "submitter": "ann", "project": "eu"}


def make(url: str, key: SigningKey | None = None) -> None:
    """A store with all of `RUNS`, which hold equal values."""
    llm = ScriptedLLM(["maybe", "yes"] * 9)
    vm = ExecutionVM(llm, tools(), store=url, signing_key=key, prices={"scripted": (1, 2)})
    order, waiting = Program.from_dict(PROGRAM), Program.from_dict(WAITING)
    for name in ("ended", "erased", "running"):
        vm.run_sync(order, {"n": 3}, run_id=name, **SAID)
        if name != "running":
            (request,) = vm.waiting(name)
            if name == "ended":  # nothing is in doubt there, and nothing will be
                vm.store.send(name, Message("resolve", "pay", {"retry": True}, "bob", 7))  # type: ignore[union-attr]
            vm.approve(name, request["path"], shown=request["shown"], by="ann", reason="because")
            trace = asyncio.run(vm.resume(name))
            assert trace.status.value == "success", trace.error
    vm.run_sync(Program.from_dict(FAILING), run_id="failed")
    vm.run_sync(order, {"n": 3}, run_id="suspended", **SAID)
    vm.run_sync(waiting, run_id="sent")
    vm.send_event("sent", "paid", {"amount": 30})
    vm.run_sync(Program.from_dict(DOUBT), run_id="doubt")
    vm.run_sync(Program.from_dict(MATCHED), {"n": 3}, run_id="matched")
    vm.send_event("shipped", {"order": 4}, id="e1")
    asyncio.run(vm.submit(order, {"n": 3}, run_id="pending"))
    store = vm.store
    assert store is not None
    assert store.claim(["running"], "host/boot/1/1/x", 5)
    store.erase("erased")  # type: ignore[attr-defined]
    vm.close()
    with open_store(url) as store:  # type: ignore[attr-defined]
        assert {run.run_id: run.status for run in store.runs()} == RUNS


CELLS = {
    "nano_runs": ("document", "inputs", "about", "labels", "output", "error", "waiting"),
    "nano_rows": ("request", "output", "rest"),
}

ROW = f"run, seq, {', '.join(ROW_CELLS)}"
RUN = (
    "run_id, program_name, program_digest, created_ns, seed, parent, project, submitter, document, "
    "inputs, about, labels, salt"
)


def opened(path: Path) -> closing[sqlite3.Connection]:
    """The database, each statement in a transaction of its own."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return closing(connection)


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """The names of a table's columns."""
    return [row["name"] for row in connection.execute(f"PRAGMA table_info({table})")]


def identity(table: str) -> str:
    """The columns that identify a row."""
    return {
        "nano_meta": "name",
        "nano_contents": "hash",
        "nano_runs": "key",
        "nano_rows": "run, seq",
        "nano_labels": "name, value, created_ns, run",
        "nano_inbox": "id",
        "nano_events": "id",
        "nano_marks": "mark, kind, subject, path",
        "nano_owners": "owner",
        "nano_receipts": "number",
        "nano_tips": "hash",
        "nano_accounts": "account",
        "nano_reserved": "id, account",
        "nano_limits": "member",
        "nano_windows": "member, part",
        "nano_calls": "id",
        "nano_kept": "key",
    }[table]


def mend(connection: sqlite3.Connection) -> None:
    """Compute anew what is not secret and not a seal: checksums, hashes of values, counts of
    references.
    """
    for row in connection.execute(f"SELECT {ROW} FROM nano_rows").fetchall():
        try:
            crc = row_crc(row["run"], row["seq"], tuple(row)[2:])
        except Exception:  # noqa: BLE001 - what can have none keeps the old one
            continue
        connection.execute(
            "UPDATE nano_rows SET crc = ? WHERE run = ? AND seq = ?", (crc, row["run"], row["seq"])
        )
    for row in connection.execute(f"SELECT {RUN} FROM nano_runs").fetchall():
        try:
            crc = run_crc(dict(row))
        except Exception:  # noqa: BLE001 - likewise
            continue
        connection.execute("UPDATE nano_runs SET crc = ? WHERE run_id = ?", (crc, row["run_id"]))
    counts: dict[bytes, int] = {}
    for table, names in CELLS.items():
        for name in names:
            for (cell,) in connection.execute(
                f"SELECT {name} FROM {table} WHERE typeof({name}) = 'blob'"
            ).fetchall():
                if cell[:1] == b"#":
                    counts[cell[1:]] = counts.get(cell[1:], 0) + 1
    for (digest,) in connection.execute("SELECT hash FROM nano_contents").fetchall():
        count = counts.get(digest, 0)
        connection.execute("UPDATE nano_contents SET refs = ? WHERE hash = ?", (count, digest))
    connection.execute("DELETE FROM nano_contents WHERE refs = 0")


def other_cell(connection: sqlite3.Connection, cell: bytes | None) -> bytes:
    """A cell with another value than *cell*, of the same kind."""
    if cell is None:
        return b"4"
    if cell[:1] == b"!":
        return b"!" + bytes([cell[1] ^ 1]) + cell[2:]
    if cell[:1] == b"#":
        (body,) = connection.execute(
            "SELECT body FROM nano_contents WHERE hash = ?", (cell[1:],)
        ).fetchone()
        changed = json.dumps(
            _other(json.loads(body)), ensure_ascii=False, separators=(",", ":")
        ).encode()
        digest = sha256(changed).digest()
        connection.execute(
            "INSERT OR IGNORE INTO nano_contents (hash, body, refs) VALUES (?, ?, 0)",
            (digest, changed),
        )
        return b"#" + digest
    return json.dumps(_other(json.loads(cell)), ensure_ascii=False, separators=(",", ":")).encode()


def _other(value: Any) -> Any:
    """Another value of the same kind: its first leaf is changed."""
    match value:
        case bool() | None:
            return not value
        case int() | float():
            return value + 1
        case str():
            return value[:-1] + ("x" if value[-1:] != "x" else "y")
        case list() if value:
            return [_other(value[0]), *value[1:]]
        case dict() if value:
            first = next(iter(value))
            return {**value, first: _other(value[first])}
        case _:
            return [1] if value == [] else {"x": 1}


def edits(connection: sqlite3.Connection) -> Iterator[tuple[str, str, Any]]:
    """Each column of each row, once: table, column, and what identifies the row."""
    for table in TABLES:
        names = identity(table)
        for row in connection.execute(f"SELECT {names} FROM {table} ORDER BY {names}").fetchall():
            for column in columns(connection, table):
                yield table, column, tuple(row)


def where(table: str) -> str:
    """A clause for one row of a table."""
    return " AND ".join(f"{name} = ?" for name in identity(table).split(", "))


# A value for what is empty, by column.
_FILLED = {
    "wake_ns": 5,
    "parent": "x",
    "owner": "me",
    "error_kind": "tool",
    "signature": "aa:bb",
    "hidden": "0" * 64,
    "salt": b"0" * 16,
    "cost_usd": "1",
    "seed": "7",
    "status": 1,
    "lasted_ns": 3,
    "next_path": "x",
    "next_type": 1,
    "next_ns": 3,
    "event_id": "x",
    "run": 1,
    "submitter": "x",
    "model": "x",
    "step": "x",
    "prompt_tokens": 1,
    "completion_tokens": 1,
    "total_tokens": 1,
}
_STATUSES = {
    "success": "failed",
    "failed": "success",
    "suspended": "pending",
    "pending": "suspended",
    "running": "suspended",
}


def change(connection: sqlite3.Connection, table: str, column: str, row: tuple[Any, ...]) -> None:
    """Give a column of a row another value, of the kind that it has."""
    (old,) = connection.execute(
        f"SELECT {column} FROM {table} WHERE {where(table)}", row
    ).fetchone()
    new: Any
    if column in CELLS.get(table, ()):
        new = other_cell(connection, old)
    elif old is None:
        new = _FILLED[column]
    elif column == "message":
        new = changed_message(old)
    elif column == "status" and type(old) is str:
        new = _STATUSES[old]
    elif type(old) is int:
        new = old + 1
    elif type(old) is bytes:
        new = bytes([old[0] ^ 1]) + old[1:] if old else b"x"
    else:
        new = old[:-1] + ("1" if old[-1:] != "1" else "2")
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where(table)}", (new, *row))


def changed_message(cell: bytes, by: str = "mallory") -> bytes:
    """A message said by somebody else."""
    kind, name, body, _, created = json.loads(cell)
    return canonical([kind, name, body, by, created])


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """Files of at most *size* bytes: what is over that cannot be written, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
