"""Large values of an engine that keeps its own records, each once by its hash, in a table beside
those of runs that is made at its first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

from ...errors import StoreError
from .store import SqlStore

_TABLE = (
    "CREATE TABLE IF NOT EXISTS nano_payloads (hash {bytes} PRIMARY KEY, body {bytes} NOT NULL)"
)
_INSERT = "INSERT INTO nano_payloads (hash, body) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING"


class Payloads:
    """The values at a database's URL. Its methods block, and may be called from any thread."""

    def __init__(self, url: str) -> None:
        self._store = SqlStore(url)
        database = self._store.database
        with database.writing() as connection:
            connection.run(_TABLE.format_map(database.dialect.words))

    def put(self, bodies: Sequence[bytes]) -> list[str]:
        """Keep *bodies*; the hash of each, in hex. They are durable when this returns."""
        hashes = [sha256(body).digest() for body in bodies]
        with self._store.database.writing() as connection:
            connection.many(_INSERT, list(zip(hashes, bodies, strict=True)))
        return [known.hex() for known in hashes]

    def get(self, hashes: Sequence[str]) -> list[bytes]:
        """The bodies with these hashes.

        Raises:
            StoreError: If one is not there, or was changed.
        """
        found: Mapping[bytes, bytes]
        with self._store.database.reading() as connection:
            text = "SELECT hash, body FROM nano_payloads WHERE hash IN (*)"
            rows = connection.among(text, [bytes.fromhex(known) for known in hashes])
            found = {bytes(known): bytes(body) for known, body in rows}
        for known in hashes:
            body = found.get(bytes.fromhex(known))
            if body is None:
                raise StoreError(f"{self._store.database.name} has no payload {known}")
            if sha256(body).hexdigest() != known:
                raise StoreError(f"payload {known} of {self._store.database.name} was changed")
        return [found[bytes.fromhex(known)] for known in hashes]

    def count(self) -> tuple[int, int]:
        """How many values there are, and how many bytes they take."""
        with self._store.database.reading() as connection:
            row = connection.one(
                "SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM nano_payloads"
            )
        return int(row[0]), int(row[1])

    def close(self) -> None:
        """Close the database."""
        self._store.close()
