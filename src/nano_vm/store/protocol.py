"""What a store does. `sql` keeps runs in SQLite or PostgreSQL; another implementation is another
class with these methods.

Rule 1: what `append` has acknowledged survives any crash. Rule 2: a run has one owner at a time.
Each claim raises its *fence*; an append with an older fence is refused. Rule 3: a run has its seal
from the beginning, and each append brings the next; see `seals.seal_of`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .records import Message, Row, StoredRun
from .signing import SigningKey


@dataclass(slots=True)
class Append:
    """What is written at once: all of it or nothing. ``update`` are fields of `StoredRun`; ``used``
    ids of messages that were taken, ``seen`` of those that the run has no use for yet: they stay,
    and no longer make it claimable. ``after`` is how many rows the run must have: with it, nothing
    is written where an earlier append of the run was not, and what an attempt before has stored
    already, whose answer was lost, is not written again. ``waits`` are what the run waited for
    before and what it waits for now, of what is found by the values of an event.
    """

    key: int
    fence: int
    rows: Sequence[Row] = ()
    update: Mapping[str, Any] | None = None
    used: Sequence[int] = ()
    seen: Sequence[int] = ()
    after: int | None = None
    waits: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]] | None = None


Judge = Callable[[StoredRun, bool], Message]


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that an owner has now: the fence of its appends, and the status in which it was
    found.
    """

    fence: int
    status: str


class Store(Protocol):
    """Keeps runs. Every method but `append` blocks, and is quick; all may be called from any
    thread. With a ``signer``, what is written through this object is signed.

    Errors are `StoreError` (nothing was changed), `LeaseLost` (another owner has the run) and
    `UnknownRun`.
    """

    signer: SigningKey | None

    def create(self, run: StoredRun) -> bool:
        """Keep a new run, with its ``owner`` or none, and set ``key`` and ``fence``; False where
        its id is taken, and then nothing is changed.
        """
        ...

    def begin(self, run: StoredRun, *, again: bool = False) -> Awaitable[bool]:
        """As `create`, in an event loop and in one transaction with what others write; with *again*
        also True where an attempt before, whose answer was lost, made the run.
        """
        ...

    def append(self, item: Append) -> Awaitable[None]:
        """Write *item*, after those of the same run that were given before; appends of many runs
        share a transaction. Done when it is durable; called in an event loop.
        """
        ...

    def load(self, run_id: str, *, rows: bool = True) -> StoredRun:
        """A run, with its rows in order and its unused messages."""
        ...

    @property
    def one_machine(self) -> bool:
        """Whether only processes of one machine can have it open."""
        ...

    def claim(
        self,
        run_ids: Sequence[str],
        owner: str,
        now_ns: int,
        *,
        most: int = 1,
        alive: Callable[[str], bool] = lambda _: False,
    ) -> dict[str, Claim]:
        """Make *owner* the owner of up to *most* of these runs; what was claimed, by run id.

        A run can be claimed that has not ended and whose owner is none, is *owner* itself, or lives
        no more by the store's clock. Of one that was not forgotten it is asked in the transaction
        whether it is *alive* all the same: its lease may have ended after any look before. A run
        that another transaction holds right now is passed over. *now_ns* is when those begin that
        have not yet.
        """
        ...

    def heartbeat(self, owner: str, seconds: float) -> None:
        """Say that *owner* lives, and for how long from now, by the store's clock."""
        ...

    def forget_owner(self, owner: str) -> None:
        """Say that *owner* is gone: its runs can be claimed at once."""
        ...

    def owned(self, owner: str) -> dict[str, tuple[int, int]]:
        """The runs that *owner* has: the key and the fence of each, by run id."""
        ...

    def owners(self) -> Mapping[str, float]:
        """Each owner and for how many seconds it still lives by the store's clock; less than 0
        where its time is over.
        """
        ...

    def claimable(
        self, now_ns: int, limit: int, only: str | None = None, *, spare: Collection[str] = ()
    ) -> dict[str, str]:
        """Runs that somebody should take up, oldest first, each with the digest of its program:
        pending, left by their owner (none of *spare*), due (`wake_ns` against *now_ns*), or with a
        message that they have not seen. *only* is one status.
        """
        ...

    def send(self, run_id: str, message: Message) -> None:
        """Put *message* into the inbox of a run."""
        ...

    def decide(self, run_id: str, judge: Judge, path: str | None = None) -> Message:
        """Put the message into the inbox of a run that *judge* gives for it, or nothing where that
        raises a `VMError`; the message.

        *judge* is called in the transaction, with the run as it stands, its messages, and whether
        the approval at *path* has ended. Nobody else says anything to the run, or goes on with it,
        until it is recorded. *judge* may be called again, and does not block.
        """
        ...

    def cancelled(self, keys: Sequence[int]) -> list[int]:
        """Those of the runs *keys* to which a cancellation was said that nobody has seen yet."""
        ...

    def told(self, key: int) -> Awaitable[list[Message]]:
        """The unused messages of a run by its ``key``, with those that are being recorded right
        now; called in an event loop.
        """
        ...

    def post(
        self,
        name: str,
        payload: Mapping[str, Any],
        write: Callable[[list[Mapping[str, Any]]], Message],
    ) -> bool:
        """Keep an event that is addressed to no run, as *write* gives it for what runs wait for and
        it may fit; False where one of the same name and id was kept before. *write* is called in
        the transaction, and may raise a `VMError`.
        """
        ...

    def deliver(self, trusted: frozenset[str] | None = None) -> list[str]:
        """Give events to the runs that wait for their values, of those that were not looked at yet;
        the ids of these runs. Where there are *trusted* keys, events that none of them has signed
        count for nothing.
        """
        ...

    def runs(self, **filters: Any) -> Iterator[StoredRun]:
        """Headers of runs, newest first: ``status``, ``program`` (name), ``since_ns``,
        ``until_ns``, ``min_cost_usd``, ``limit``.
        """
        ...

    def close(self) -> None:
        """Finish what was begun, and let go of the database."""
        ...


def open_store(url: str, **options: Any) -> Store:
    """The store at a database's URL: ``sqlite:///runs.db`` or ``postgresql://...``.

    ``signing_key`` (the path of a key's file) signs what is written through it; see `signing`.

    Raises:
        MissingExtra: If it is in PostgreSQL, whose driver is not installed.
        StoreError: If it can not be opened.
    """
    from .sql.store import SqlStore

    return SqlStore(url, **options)
