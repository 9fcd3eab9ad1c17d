"""Receipts: a store's list of what became of its runs, of which each holds the hash of the one before.

A run gets one when it ends, in the transaction of its end or import, and another when it is erased or deleted by `prune`. So a run that was
taken away without one is missed, and who changes a receipt changes all that follow: with a key, each is signed. Nothing in a database
tells that its newest receipts were taken away together with their runs: for that the newest is kept elsewhere (`Receipt.head`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..errors import StoreError
from ..signing import SigningKey, holds, signer_of
from ..values import canonical
from . import ENDED as STATUSES_OF_ENDED

if TYPE_CHECKING:
    from .database import Connection

ENDED, ERASED, DELETED = "ended", "erased", "deleted"

_OVER = ", ".join(f"'{status}'" for status in STATUSES_OF_ENDED)

CHECK_RECEIPTS = 1000
"""Receipts that are read at once."""

_CHAIN_LOCK = 0x6E616E70  # any number that others are not likely to lock
_PURPOSE = "receipt"
_NONE = "0" * 64  # the hash before the first


@dataclass(frozen=True, slots=True)
class Entry:
    """What a receipt is made for: that a run with this seal has ended (here, or before it was imported), was erased or deleted."""

    kind: str
    run_id: str
    seal: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """An entry in a store's list. ``store`` is the store's identity, ``number`` counts from 1, ``previous`` is the hash of the one
    before."""

    store: str
    number: int
    entry: Entry
    previous: str
    signature: str | None = None

    def content(self) -> bytes:
        """What is hashed and signed."""
        entry = self.entry
        return canonical([self.store, self.number, entry.kind, entry.run_id, entry.seal, entry.at_ns, self.previous])

    @property
    def hash(self) -> str:
        """SHA-256, in hex."""
        return sha256(self.content()).hexdigest()

    @property
    def head(self) -> str:
        """What is kept elsewhere, to find out later that receipts were taken away."""
        return f"{self.number}:{self.hash}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        entry = self.entry
        told = {"store": self.store, "number": self.number, "kind": entry.kind, "run_id": entry.run_id}
        told |= {"seal": entry.seal, "at_ns": entry.at_ns, "previous": self.previous, "hash": self.hash}
        return told | {"signature": self.signature}


def add(connection: Connection, entries: Sequence[Entry], signer: SigningKey | None) -> None:
    """Make a receipt for each of *entries*; the last thing that a transaction does, since those of other processes wait for its end."""
    if not entries:
        return
    if not connection.database.lite:
        connection.one("SELECT pg_advisory_xact_lock(?)", _CHAIN_LOCK)
    store = identity(connection)
    last = connection.one("SELECT number, hash FROM nano_receipts ORDER BY number DESC LIMIT 1")
    number, previous = last if last is not None else (0, _NONE)
    made = []
    for entry in entries:
        number += 1
        receipt = Receipt(store, number, entry, previous)
        signature = signer.sign(_PURPOSE, receipt.content()) if signer is not None else None
        previous = receipt.hash
        made.append((number, entry.kind, entry.run_id, entry.seal, entry.at_ns, previous, signature))
    connection.many(
        "INSERT INTO nano_receipts (number, kind, run_id, seal, at_ns, hash, signature) VALUES (?, ?, ?, ?, ?, ?, ?)",
        made,
    )


def identity(connection: Connection) -> str:
    """What tells a store from others: drawn when its tables are made."""
    found = connection.one("SELECT value FROM nano_meta WHERE name = 'store'")
    if found is None:
        raise StoreError(f"{connection.database.name}: table nano_meta has no identity of the store; it was changed")
    return str(found[0])


_SELECT = "SELECT number, kind, run_id, seal, at_ns, hash, signature FROM nano_receipts"


def receipts(connection: Connection) -> Iterator[tuple[Receipt, str]]:
    """All receipts in order, each with the hash that is stored with it."""
    store, after, previous = identity(connection), 0, _NONE
    while found := connection.all(f"{_SELECT} WHERE number > ? ORDER BY number LIMIT {CHECK_RECEIPTS}", after):
        for *fields, stored, signature in found:
            receipt = _receipt(store, fields, previous, signature)
            yield receipt, stored
            after, previous = receipt.number, stored


def _receipt(store: str, fields: Sequence[Any], previous: Any, signature: Any) -> Receipt:
    """A receipt of the columns of its row.

    Raises:
        StoreError: If they hold what no receipt has.
    """
    number, kind, run_id, seal, at_ns = fields
    texts = (kind, run_id, seal, previous, "" if signature is None else signature)
    if type(number) is not int or type(at_ns) is not int or any(type(text) is not str for text in texts):
        raise StoreError(f"receipt {number!r} is not what was written; the database is damaged: restore a copy")
    return Receipt(store, number, Entry(kind, run_id, seal, at_ns), previous, signature)


def of_run(connection: Connection, run_id: str) -> list[Receipt]:
    """The receipts of a run, oldest first."""
    store = identity(connection)
    made = []
    for *fields, _, signature in connection.all(f"{_SELECT} WHERE run_id = ? ORDER BY number", run_id):
        receipt = _receipt(store, fields, _NONE, signature)
        before = connection.one("SELECT hash FROM nano_receipts WHERE number = ?", receipt.number - 1)
        made.append(_receipt(store, fields, before[0], signature) if before is not None else receipt)
    return made


def newest(connection: Connection) -> Receipt | None:
    """The newest receipt, or None where there is none yet."""
    last = connection.one("SELECT run_id FROM nano_receipts ORDER BY number DESC LIMIT 1")
    return of_run(connection, last[0])[-1] if last is not None else None


def check(connection: Connection, trusted: Collection[str] | None, head: str | None) -> Iterator[str]:
    """What is wrong with the list, each in a sentence. *trusted* are public keys that must have signed all of it, *head* is a
    `Receipt.head` of before that must be in it."""
    expected, found = 1, None
    for receipt, stored in receipts(connection):
        name = f"receipt {receipt.number} (run {receipt.entry.run_id!r})"
        if receipt.number != expected:
            yield f"receipts {expected} to {receipt.number - 1} are missing"
        elif receipt.hash != stored:
            yield f"{name}: its hash does not fit: it was changed, or the one before was"
        yield from (f"{name}: {fault}" for fault in _signature_faults(receipt, trusted))
        expected = receipt.number + 1
        if head is not None and head.partition(":")[0] == str(receipt.number):
            found = f"{receipt.number}:{stored}"
    if head is not None and found != head:
        what = "is another one" if found is not None else "is not there"
        yield f"the receipt {head.partition(':')[0]} that was kept {what}: receipts were taken away, or this is an older copy"
    yield from _lost(connection)
    yield from _without(connection)


def _signature_faults(receipt: Receipt, trusted: Collection[str] | None) -> Iterator[str]:
    signature = receipt.signature
    if signature is None:
        if trusted is not None:
            yield "it is not signed"
    elif trusted is not None and signer_of(signature) not in trusted:
        yield f"it is signed by another key: {signer_of(signature)}"
    elif not holds(signature, _PURPOSE, receipt.content()):
        yield "its signature does not fit: it was changed"


def _lost(connection: Connection) -> Iterator[str]:
    """Runs that have ended and are not there any more, or not ended, though no receipt says that they were deleted."""
    lost = connection.all(
        "SELECT DISTINCT r.run_id, u.status FROM nano_receipts r LEFT JOIN nano_runs u ON u.run_id = r.run_id "
        f"WHERE r.kind IN ('{ENDED}', '{ERASED}') AND (u.status IS NULL OR u.status NOT IN ({_OVER})) "
        f"AND NOT EXISTS (SELECT 1 FROM nano_receipts d WHERE d.run_id = r.run_id AND d.kind = '{DELETED}' "
        "AND d.number > r.number) ORDER BY r.run_id"
    )
    for run_id, status in lost:
        if status is None:
            yield f"run {run_id!r} has a receipt and is not there: it was taken away, and not by 'store prune'"
        else:
            yield f"run {run_id!r} has a receipt, so it has ended, and it is said to be {status}"


def _without(connection: Connection) -> Iterator[str]:
    """Runs that have ended, or were erased, without a receipt for it."""
    without = connection.all(
        f"SELECT u.run_id, u.status FROM nano_runs u WHERE u.status IN ({_OVER}) AND NOT EXISTS ("
        f"SELECT 1 FROM nano_receipts r WHERE r.run_id = u.run_id AND r.seal = u.seal AND r.kind = '{ENDED}') ORDER BY u.key"
    )
    for run_id, status in without:
        yield f"run {run_id!r} is {status} and has no receipt with its seal: it, or the receipts, were put in or changed by hand"
