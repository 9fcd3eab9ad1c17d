"""The seal of a run that grows: kept by the run's owner, who writes the next with each append."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from ..records.trace import Trace
from ..values import canonical
from .protocol import (
    PENDING,
    RUNNING,
    Message,
    Row,
    StoredRun,
    chain_of,
    chained,
    closed,
    hidden_of,
    sealed_as,
)
from .signing import SigningKey, holds, signer_of

SEAL, MESSAGE = "seal", "message"
"""What a signature is one of."""

NO_RUN = ""
"""In the place of a run's id, what an event is addressed to that goes to whichever run waits for
its values.
"""

_HIDDEN = frozenset({"output", "error", "waiting"})


class RunSeal:
    """Keeps the seal of *run*, as it stands in the store, in step with what is appended to it;
    *run* changes with it.

    Where *trusted* keys are given, what none of them has signed is not gone on with, and messages
    are not used.
    """

    def __init__(
        self,
        run: StoredRun,
        signer: SigningKey | None = None,
        trusted: frozenset[str] | None = None,
    ) -> None:
        self.run, self.signer, self.trusted = run, signer, trusted
        self._head, self._hidden = chain_of(run), hidden_of(run)

    def after(
        self,
        rows: Sequence[Row],
        update: Mapping[str, Any] | None = None,
        used: Iterable[Message] = (),
    ) -> dict[str, Any]:
        """*update* with the seal that the run has once *rows*, *update* and that *used* are used
        are stored.
        """
        run = self.run
        self._head = chained(self._head, run.salt or b"", rows)
        changes = dict(update or {})
        for name, value in changes.items():
            setattr(run, name, value)
        used = list(used)
        if used:
            run.decided = sorted([*run.decided, *used], key=lambda message: message.id)
        if used or not _HIDDEN.isdisjoint(changes):
            self._hidden = hidden_of(run)
        run.seal = closed(self._head, run, self._hidden, run.status, run.started_ns)
        run.signature = signed(run.seal, self.signer) if self.signer is not None else None
        return {**changes, "seal": run.seal, "signature": run.signature}

    def takes(self, message: Message) -> bool:
        """Whether the run may use a message."""
        return message_holds(self.run.run_id, message, self.trusted)

    def fault(self, found: str) -> str | None:
        """Why the run, as it was loaded, is not to be resumed; None where it is. *found* is its
        status before it was claimed. One that was only submitted may be unsigned: nothing was done
        in it.
        """
        run, trusted = self.run, self.trusted
        status = sealed_as(run, self._head)
        if status is None or (status != found and found != RUNNING):
            return "its seal does not fit its records: they were changed in the database"
        if trusted is None or (run.signature is None and status == PENDING):
            return None
        if run.signature is None:
            return (
                "it is not signed, as this process demands: who began it had no key, or the "
                "signature was removed"
            )
        if signer_of(run.signature) not in trusted:
            return (
                f"it is signed by the key {signer_of(run.signature)}, which this process does "
                f"not trust"
            )
        return (
            None
            if signature_holds(run)
            else "its signature does not fit its seal: it was changed in the database"
        )


def signed(seal: str, signer: SigningKey) -> str:
    """The signature of a seal."""
    return signer.sign(SEAL, bytes.fromhex(seal))


def signed_message(run_id: str, message: Message, signer: SigningKey | None) -> str | None:
    """The signature of a message to a run, where there is a key."""
    return signer.sign(MESSAGE, _addressed(run_id, message)) if signer is not None else None


def message_holds(run_id: str, message: Message, trusted: frozenset[str] | None) -> bool:
    """Whether one of *trusted* keys, where there are such, has signed a message to a run; an event
    may be addressed to none.
    """
    if trusted is None:
        return True
    signature = message.signature
    if signature is None or signer_of(signature) not in trusted:
        return False
    to = (run_id, NO_RUN) if message.kind == "event" else (run_id,)
    return any(holds(signature, MESSAGE, _addressed(name, message)) for name in to)


def _addressed(run_id: str, message: Message) -> bytes:
    return canonical(run_id) + message.content()


def signature_holds(run: StoredRun | Trace) -> bool:
    """Whether the signature of *run*, which has one, is of its seal."""
    assert run.signature is not None
    seal = run.seal or ""
    return len(seal) == sha256().digest_size * 2 and holds(run.signature, SEAL, bytes.fromhex(seal))
