"""Seals: what covers all that is stored of a run, and what is signed. The seal of a run that grows
is kept by the run's owner, who writes the next with each append.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from ..records.trace import Trace
from ..values import canonical
from .records import PENDING, RUNNING, SUSPENDED, Message, Row, StoredRun, salted
from .signing import SigningKey, holds, signer_of

SEAL, MESSAGE = "seal", "message"
"""What a signature is one of."""

NO_RUN = ""
"""In the place of a run's id, what an event is addressed to that goes to whichever run waits for
its values.
"""

_HIDDEN = frozenset({"output", "error", "waiting"})


class Chain:
    """The chain of hashes over the header of *run* and each of its rows in order, which grows with
    them; see `seal_of`.
    """

    __slots__ = ("_head", "_salt")

    def __init__(self, run: StoredRun) -> None:
        self._head, self._salt = sha256(canonical(run.header())).digest(), run.salt or b""
        self.add(run.rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Cover *rows* too."""
        head, salt = self._head, self._salt
        known: dict[int, Any] = {}  # equal cells of a loaded run have one value between them
        for row in rows:
            head = sha256(head + row.sealed(salt, known)).digest()
        self._head = head

    def closed(self, standing: bytes) -> str:
        """The seal of a run that has these rows and stands as *standing* says."""
        return sha256(self._head + standing).hexdigest()


def hidden_of(run: StoredRun) -> str:
    """What the seal holds of values that are part of how a run stands: output, error, what it waits
    for, and the messages it used.
    """
    if run.hidden is not None:
        return run.hidden
    salt = run.salt or b""
    values = [
        None if v is None else salted(salt, v) for v in (run.output, run.error, run.waiting or None)
    ]
    used = [sha256(salt + message.content()).hexdigest() for message in run.decided]
    return sha256(canonical([*values, *used])).hexdigest()


def standing(run: StoredRun, hidden: str, status: str, started_ns: int) -> bytes:
    """What the seal covers of how *run* stands, but for its status and when it began."""
    numbers = [
        started_ns,
        run.finished_ns,
        run.steps,
        run.tokens,
        run.cost_usd,
        run.wake_ns,
        run.error_kind,
    ]
    return canonical([status, *numbers, hidden])


def seal_of(run: StoredRun) -> str:
    """The seal of *run*, which has its rows, as it is computed now; that it was given stands in
    ``run.seal``.

    It covers the header, every row in order, and how the run stands: status, times, counts, cost,
    output, error, what it waits for and the messages that it used. It does not cover owner, fence
    and messages that are not used yet: others than the run's owner write them.
    """
    return Chain(run).closed(standing(run, hidden_of(run), run.status, run.started_ns))


def sealed_as(run: StoredRun, chain: Chain | None = None) -> str | None:
    """The status under which the seal of *run*, which has its rows, covers what is stored of it;
    None where it does not.

    That is its status, or that of before: who claims a run makes it *running*, begun now if it had
    not, and appends to it later. *chain* is that of its rows, where it is known.
    """
    chain, hidden = chain or Chain(run), hidden_of(run)
    stood = {run.status: run.started_ns}
    if run.status == RUNNING:
        stood |= {SUSPENDED: run.started_ns, PENDING: 0}
    return next(
        (
            status
            for status, began in stood.items()
            if chain.closed(standing(run, hidden, status, began)) == run.seal
        ),
        None,
    )


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
        self._chain, self._hidden = Chain(run), hidden_of(run)
        self._standing = standing(run, self._hidden, run.status, run.started_ns)

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
        for row in rows:
            row.encode()
        self._chain.add(rows)
        changes = dict(update or {})
        used = list(used)
        if changes or used:
            self._change(changes, used)
        run.seal = self._chain.closed(self._standing)
        run.signature = signed(run.seal, self.signer) if self.signer is not None else None
        return {**changes, "seal": run.seal, "signature": run.signature}

    def _change(self, changes: Mapping[str, Any], used: list[Message]) -> None:
        """Have the run stand as *changes* say, with *used* messages."""
        run = self.run
        for name, value in changes.items():
            setattr(run, name, value)
        if used:
            run.decided = sorted([*run.decided, *used], key=lambda message: message.id)
        if used or not _HIDDEN.isdisjoint(changes):
            self._hidden = hidden_of(run)
        self._standing = standing(run, self._hidden, run.status, run.started_ns)

    def takes(self, message: Message) -> bool:
        """Whether the run may use a message."""
        return message_holds(self.run.run_id, message, self.trusted)

    def fault(self, found: str) -> str | None:
        """Why the run, as it was loaded, is not to be resumed; None where it is. *found* is its
        status before it was claimed. One that was only submitted may be unsigned: nothing was done
        in it.
        """
        run, trusted = self.run, self.trusted
        status = sealed_as(run, self._chain)
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
