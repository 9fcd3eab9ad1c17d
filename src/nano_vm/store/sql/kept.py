"""Kept answers in the tables of a store. Each function is part of a transaction."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import replace

from ..encryption import MARK, opened
from ..kept import KeptAnswer
from .database import Connection

_SEALED = MARK.decode()
_FIELDS = ("run_id", "body", "at_ns", "until_ns")


def find(connection: Connection, key: str, since_ns: int) -> str | None:
    """See `KeepsAnswers.kept`."""
    row = connection.one("SELECT body FROM nano_kept WHERE key = ? AND at_ns >= ?", key, since_ns)
    if row is None or not str(row[0]).startswith(_SEALED):
        return None if row is None else str(row[0])
    sealed = b64decode(str(row[0]).removeprefix(_SEALED))
    return opened(sealed, connection.database.keys, connection.database.name).decode()


def keep(connection: Connection, answer: KeptAnswer) -> None:
    """See `KeepsAnswers.keep`."""
    keys = connection.database.keys
    if keys is not None:
        sealed = b64encode(keys.seal(answer.body.encode())).decode()
        answer = replace(answer, body=f"{_SEALED}{sealed}")
    connection.run(
        f"INSERT INTO nano_kept (key, {', '.join(_FIELDS)}) VALUES (?, ?, ?, ?, ?) "
        f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{f} = excluded.{f}' for f in _FIELDS)}",
        answer.key,
        *(getattr(answer, field) for field in _FIELDS),
    )


def drop(connection: Connection, run_ids: Sequence[str]) -> None:
    """Drop the answers that these runs were given."""
    connection.many("DELETE FROM nano_kept WHERE run_id = ?", [(run_id,) for run_id in run_ids])


def forget(connection: Connection, now_ns: int) -> None:
    """Drop the answers whose time is over."""
    connection.run("DELETE FROM nano_kept WHERE until_ns < ?", now_ns)
