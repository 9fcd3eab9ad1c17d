"""Receipts: a store's list of what became of its runs, in which each holds the hashes of those
before it. `store.sql.receipts` keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ..values import canonical
from .signing import holds, signer_of

HAS_ENDED, WAS_ERASED, WAS_DELETED = "ended", "erased", "deleted"
"""What became of a run: the kinds of receipts."""

PURPOSE = "receipt"
"""What a signature is one of; see `signing`."""

HAS_ENDED, WAS_ERASED, WAS_DELETED = "ended", "erased", "deleted"
"""What became of a run: the kinds of receipts."""

PURPOSE = "receipt"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a receipt is made for: that a run with this seal has ended (here, or before it was
    imported), was erased or deleted.
    """

    kind: str
    run_id: str
    seal: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """An entry in a store's list. ``store`` is the store's identity, ``number`` the place in the
    list, ``previous`` the hashes of those that it follows, separated by a space.
    """

    store: str
    number: int
    entry: Entry
    previous: str
    signature: str | None = None

    def content(self) -> bytes:
        """What is hashed and signed."""
        entry = self.entry
        return canonical(
            [self.store, entry.kind, entry.run_id, entry.seal, entry.at_ns, self.previous]
        )

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
        told = {
            "store": self.store,
            "number": self.number,
            "kind": entry.kind,
            "run_id": entry.run_id,
        }
        told |= {
            "seal": entry.seal,
            "at_ns": entry.at_ns,
            "previous": self.previous.split(),
            "hash": self.hash,
        }
        return told | {"signature": self.signature}


def signature_faults(receipt: Receipt, trusted: Collection[str] | None) -> Iterator[str]:
    """What is wrong with the signature of *receipt*, which one of *trusted* must have made."""
    signature = receipt.signature
    if signature is None:
        if trusted is not None:
            yield "it is not signed"
    elif trusted is not None and signer_of(signature) not in trusted:
        yield f"it is signed by another key: {signer_of(signature)}"
    elif not holds(signature, PURPOSE, receipt.content()):
        yield "its signature does not fit: it was changed"
