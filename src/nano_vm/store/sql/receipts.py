"""The table of receipts. A run gets one when it ends, in the transaction of its end or import, and
another when it is erased or deleted by `prune`. A run that was taken away without one is missed,
and who changes or takes away a receipt is found out by those that follow: with a key, each is
signed. Nothing in a database tells that its newest receipts were taken away together with their
runs: for that the newest is kept elsewhere (`Receipt.head`).

Processes that end runs at the same time do not wait for each other: a receipt follows the *tips*,
those that no other follows yet, of which each transaction takes the ones that no other has. So the
list may have branches, which the next receipt joins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import StoreError
from ..receipts import HAS_ENDED, PURPOSE, WAS_DELETED, WAS_ERASED, Entry, Receipt, signature_faults
from ..records import ENDED
from ..signing import SigningKey

if TYPE_CHECKING:
    from .database import Connection


_OVER = ", ".join(f"'{status}'" for status in ENDED)

CHECK_RECEIPTS = 1000
"""Receipts that are read at once."""

MOST_TIPS = 64
"""Receipts that one follows: far more than processes end runs at the same instant."""


def add(
    connection: Connection,
    entries: Sequence[Entry],
    signer: SigningKey | None,
    own: str | None = None,
) -> str | None:
    """Make a receipt for each of *entries*, of which each follows the one before; the hash of the
    last. *own* is that of the last which this process made before.
    """
    if not entries:
        return own
    database = connection.database
    store = database.identity = database.identity or identity(connection)
    taken = _tips(connection)
    before = set(taken) | ({own} if own is not None else set())
    if not before:  # others have all of them right now, or there is none yet
        newest_ = connection.one("SELECT hash FROM nano_receipts ORDER BY number DESC LIMIT 1")
        before = {newest_[0]} if newest_ is not None else set()
    previous = " ".join(sorted(before))
    made = []
    for entry in entries:
        receipt = Receipt(store, 0, entry, previous)
        signature = signer.sign(PURPOSE, receipt.content()) if signer is not None else None
        own = receipt.hash
        made.append((entry.kind, entry.run_id, entry.seal, entry.at_ns, previous, own, signature))
        previous = own
    connection.many(
        "INSERT INTO nano_receipts (kind, run_id, seal, at_ns, previous, hash, signature) VALUES "
        "(?, ?, ?, ?, ?, ?, ?)",
        made,
    )
    connection.many("DELETE FROM nano_tips WHERE hash = ?", [(tip,) for tip in taken])
    connection.run("INSERT INTO nano_tips (hash) VALUES (?)", previous)
    return previous


def _tips(connection: Connection) -> list[str]:
    """Receipts that no other follows yet, and that no other transaction has right now."""
    lock = connection.database.dialect.skip_locked
    return [
        tip
        for (tip,) in connection.all(
            f"SELECT hash FROM nano_tips ORDER BY hash LIMIT {MOST_TIPS}{lock}"
        )
    ]


def identity(connection: Connection) -> str:
    """What tells a store from others: drawn when its tables are made."""
    found = connection.one("SELECT value FROM nano_meta WHERE name = 'store'")
    if found is None:
        raise StoreError(
            f"{connection.database.name}: table nano_meta has no identity of the store; it was "
            f"changed"
        )
    return str(found[0])


_SELECT = "SELECT number, kind, run_id, seal, at_ns, previous, hash, signature FROM nano_receipts"


def receipts(connection: Connection) -> Iterator[tuple[Receipt, str]]:
    """All receipts in order, each with the hash that is stored with it."""
    store, after = identity(connection), -1
    while found := connection.all(
        f"{_SELECT} WHERE number > ? ORDER BY number LIMIT {CHECK_RECEIPTS}", after
    ):
        for fields in found:
            receipt = _receipt(store, fields)
            yield receipt, fields[6]
            after = receipt.number


def _receipt(store: str, fields: Sequence[Any]) -> Receipt:
    """A receipt of the columns of its row.

    Raises:
        StoreError: If they hold what no receipt has.
    """
    number, kind, run_id, seal, at_ns, previous, hash_, signature = fields
    texts = (kind, run_id, seal, previous, hash_, "" if signature is None else signature)
    if (
        type(number) is not int
        or type(at_ns) is not int
        or any(type(text) is not str for text in texts)
    ):
        raise StoreError(
            f"receipt {number!r} is not what was written; the database is damaged: restore a copy"
        )
    return Receipt(store, number, Entry(kind, run_id, seal, at_ns), previous, signature)


def of_run(connection: Connection, run_id: str) -> list[Receipt]:
    """The receipts of a run, oldest first."""
    store = identity(connection)
    return [
        _receipt(store, fields)
        for fields in connection.all(f"{_SELECT} WHERE run_id = ? ORDER BY number", run_id)
    ]


def newest(connection: Connection) -> Receipt | None:
    """The newest receipt, or None where there is none yet."""
    found = connection.one(f"{_SELECT} ORDER BY number DESC LIMIT 1")
    return _receipt(identity(connection), found) if found is not None else None


def check(
    connection: Connection, trusted: Collection[str] | None, head: str | None
) -> Iterator[str]:
    """What is wrong with the list, each in a sentence. *trusted* are public keys that must have
    signed all of it, *head* is a `Receipt.head` of before that must be in it.
    """
    there: set[str] = set()
    followed: dict[str, str] = {}  # each hash that a receipt follows, and which does
    for receipt, stored in receipts(connection):
        name = f"receipt {receipt.number} (run {receipt.entry.run_id!r})"
        if receipt.hash != stored:
            yield f"{name}: its hash does not fit: it was changed"
        yield from (f"{name}: {fault}" for fault in signature_faults(receipt, trusted))
        there.add(stored)
        followed.update(dict.fromkeys(receipt.previous.split(), name))
        if head is not None and head == f"{receipt.number}:{stored}":
            head = None
    if head is not None:
        number = head.partition(":")[0]
        yield (
            f"the receipt {number} that was kept is not there: receipts were taken away, or "
            f"this is an older copy"
        )
    missing = {name: None for hash_, name in followed.items() if hash_ not in there}
    yield from (
        f"{name} follows a receipt that is not there: it was taken away or changed"
        for name in missing
    )
    tips = {tip for (tip,) in connection.all("SELECT hash FROM nano_tips")}
    if not there - set(followed) <= tips <= there:
        yield "the list of receipts that none follows is not right: it was changed"
    yield from _lost(connection)
    yield from _without(connection)


def _lost(connection: Connection) -> Iterator[str]:
    """Runs that have ended and are not there any more, or not ended, though no receipt says that
    they were deleted.
    """
    lost = connection.all(
        "SELECT DISTINCT r.run_id, u.status FROM nano_receipts r LEFT JOIN nano_runs u ON "
        "u.run_id = r.run_id "
        f"WHERE r.kind IN ('{HAS_ENDED}', '{WAS_ERASED}') AND (u.status IS NULL OR u.status NOT IN "
        f"({_OVER})) "
        f"AND NOT EXISTS (SELECT 1 FROM nano_receipts d WHERE d.run_id = r.run_id AND d.kind = "
        f"'{WAS_DELETED}' "
        "AND d.number > r.number) ORDER BY r.run_id"
    )
    for run_id, status in lost:
        if status is None:
            yield (
                f"run {run_id!r} has a receipt and is not there: it was taken away, and not by "
                f"'store prune'"
            )
        else:
            yield f"run {run_id!r} has a receipt, so it has ended, and it is said to be {status}"


def _without(connection: Connection) -> Iterator[str]:
    """Runs that have ended, or were erased, without a receipt for it."""
    without = connection.all(
        f"SELECT u.run_id, u.status FROM nano_runs u WHERE u.status IN ({_OVER}) AND NOT EXISTS ("
        f"SELECT 1 FROM nano_receipts r WHERE r.run_id = u.run_id AND r.seal = u.seal AND r.kind "
        f"= '{HAS_ENDED}') ORDER BY u.key"
    )
    for run_id, status in without:
        yield (
            f"run {run_id!r} is {status} and has no receipt with its seal: it, or the receipts, "
            f"were put in or changed by hand"
        )
