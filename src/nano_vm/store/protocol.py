"""What a store does. `sql` keeps runs in SQLite or PostgreSQL; another implementation is another
class with these methods.

Rule 1: what `append` has acknowledged survives any crash. Rule 2: a run has one owner at a time.
Each claim raises its *fence*; an append with an older fence is refused. Rule 3: a run has its seal
from the beginning, and each append brings the next; see `seals.seal_of`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import IO, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from ..errors import StoreError
from .accounts import Amount, Reservation, Shortage, Standing
from .kept import KeptAnswer
from .limits import CallLimits, Entered
from .receipts import Receipt
from .records import (
    ENDED,
    MAX_LABELS,
    RUN_STATUSES,
    SUSPENDED,
    UNENDED,
    Message,
    Row,
    StoredRun,
    checked_labels,
    checked_name,
)
from .signing import SigningKey


@dataclass(slots=True)
class Append:
    """What is written at once: all of it or nothing. ``update`` are fields of `StoredRun`; ``used``
    ids of messages that were taken, ``seen`` of those that the run has no use for yet: they stay,
    and no longer make it claimable. ``after`` is how many rows the run must have: with it, nothing
    is written where an earlier append of the run was not, and what an attempt before has stored
    already, whose answer was lost, is not written again. ``waits`` are what the run waited for
    before and what it waits for now, of what is found by the values of an event. ``project`` is that
    of the run, by whose key its values are encrypted.
    """

    key: int
    fence: int
    rows: Sequence[Row] = ()
    update: Mapping[str, Any] | None = None
    used: Sequence[int] = ()
    seen: Sequence[int] = ()
    after: int | None = None
    waits: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]] | None = None
    project: str = ""


class Told(Protocol):
    """Who learns what became of something given to a store; an `asyncio.Future` is one."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """It is durable."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """It is not stored."""
        ...


Judge = Callable[[StoredRun, bool], Message]


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that an owner has now: the fence of its appends, and the status in which it was
    found.
    """

    fence: int
    status: str


WAITED = ("approval", "event", "time", "in_doubt", "effect")
"""What a suspended run can wait for: a person's yes, an event, a time; what became of a call, or
whether one may be made.
"""

_NAMED = {"approval": "role", "event": "event"}
"""Of these, those that have a name, with the field of it."""

_DIGEST = re.compile(r"[0-9a-f]{8,64}\Z")

MOST_VERSIONS = 200
"""Digests that a filter can have: databases limit what a statement says."""


@dataclass(frozen=True)
class RunFilter:
    """Which runs: those that have all that is said here. ``status`` are one or several, a run has
    each of ``labels``, ``since_ns`` and ``until_ns`` (which is no more in it) are when it was made.
    ``version`` are one or several digests of programs, or the beginnings of them. Runs that are
    ``waiting`` are suspended, and wait for one of `WAITED`; for an ``approval:ROLE`` or an
    ``event:NAME`` alone.

    Raises:
        ValueError: If no run has such a status, label or version, or waits for such a thing, or
            ``min_cost_usd`` is no amount; or if there are more than `MOST_VERSIONS`.

    Examples:
        >>> from nano_vm.store.protocol import RunFilter
        >>> RunFilter(status="suspended", labels={"team": "billing"}).labels
        {'team': 'billing'}
    """

    status: str | Sequence[str] | None = None
    program: str | None = None
    project: str | None = None
    submitter: str | None = None
    parent: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    since_ns: int | None = None
    until_ns: int | None = None
    min_cost_usd: Decimal | float | str | None = None
    version: str | Sequence[str] | None = None
    waiting: str | None = None

    def __post_init__(self) -> None:
        checked_labels(self.labels)
        if self.version is not None:
            given = (self.version,) if isinstance(self.version, str) else self.version
            versions = tuple(dict.fromkeys(given))
            if len(versions) > MOST_VERSIONS:
                raise ValueError(
                    f"runs are listed of at most {MOST_VERSIONS} versions at once, not "
                    f"{len(versions)}"
                )
            for version in versions:
                if not _DIGEST.match(version):
                    raise ValueError(
                        f"a version is the digest of a program, or the first 8 of its characters or "
                        f"more, not {version!r}"
                    )
            object.__setattr__(self, "version", versions)
        if self.waiting is not None:
            kind, mark, name = self.waiting.partition(":")
            if kind not in WAITED or (mark and (kind not in _NAMED or not name)):
                raise ValueError(
                    f"no run waits for {self.waiting!r}; choose of {', '.join(WAITED)}, "
                    f"approval:ROLE, event:NAME"
                )
            if self.status is None:
                object.__setattr__(self, "status", (SUSPENDED,))
        if self.min_cost_usd is not None:
            try:
                amount = Decimal(str(self.min_cost_usd))
            except ArithmeticError:
                amount = Decimal("NaN")
            if not amount.is_finite():
                raise ValueError(f"min_cost_usd is an amount of dollars, not {self.min_cost_usd!r}")
            object.__setattr__(self, "min_cost_usd", amount)
        if self.status is None:
            return
        statuses = (self.status,) if isinstance(self.status, str) else tuple(self.status)
        for status in statuses:
            if status not in RUN_STATUSES:
                raise ValueError(
                    f"no run has status {status!r}; choose of {', '.join(RUN_STATUSES)}"
                )
        object.__setattr__(self, "status", tuple(dict.fromkeys(statuses)))

    def is_waited_by(self, status: str, waiting: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a run that waits for these entries is one of those that are ``waiting``."""
        if self.waiting is None:
            return True
        return status == SUSPENDED and any(self._is_entry(entry) for entry in waiting)

    def _is_entry(self, entry: Mapping[str, Any]) -> bool:
        kind, _, name = str(self.waiting).partition(":")
        of_entry = str(entry["kind"])
        if of_entry == "wait":
            of_entry = "time" if entry.get("event") is None else "event"
        return of_entry == kind and name in ("", entry.get(_NAMED.get(kind, "")))


ALL_RUNS = RunFilter()


def refuse_waiting(filter: RunFilter) -> None:
    """Refuse what only a page of runs looks at, where runs are counted or their costs summed.

    Raises:
        ValueError: If *filter* asks for runs that wait for something.
    """
    if filter.waiting is not None:
        raise ValueError("what runs wait for can be asked of a list of them alone")


@dataclass(frozen=True)
class RunPage:
    """Some runs of a list, newest first, without rows and inbox. ``after`` is what the next page is
    asked for with, None after the last; ``damaged`` says of each run that cannot be shown why.
    """

    runs: list[StoredRun]
    after: str | None
    damaged: list[str]


COST_GROUPS = ("project", "program", "version", "model", "step", "day")
"""What costs can be summed by, beside labels. A version is the digest of a run's program, a day that
of a call, in UTC.
"""

LABEL_GROUP = "label:"
"""What stands before the name of a label by whose values costs are summed; runs without it have an
empty one.
"""


def checked_groups(by: Iterable[str], known: Sequence[str] = COST_GROUPS) -> tuple[str, ...]:
    """What costs are summed by, each once.

    Raises:
        ValueError: If costs are not summed by one of *by*; or if there are more labels than a run
            can have.
    """
    groups = tuple(dict.fromkeys(by))
    labels = sum(1 for name in groups if name.startswith(LABEL_GROUP))
    if labels > MAX_LABELS:
        raise ValueError(f"costs are summed by at most {MAX_LABELS} labels at once, not {labels}")
    for name in groups:
        if name.startswith(LABEL_GROUP):
            checked_name("the name of a label", name.removeprefix(LABEL_GROUP))
        elif name not in known:
            raise ValueError(
                f"costs are not summed by {name!r}; choose of {', '.join(known)}, {LABEL_GROUP}NAME"
            )
    return groups


@dataclass(frozen=True)
class Cost:
    """What model calls of runs consumed. ``of`` says which, by the names that were asked for, as
    `checked_groups` knows them. ``calls`` counts steps, attempts that failed included in their sums; ``cost_usd`` is
    the sum of the costs that are known, ``unpriced`` the number of calls whose cost is not.
    """

    of: Mapping[str, str]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: Decimal
    unpriced: int

    def consumed(self) -> dict[str, Any]:
        """What was consumed, as JSON."""
        return {
            "calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
            "cost_usd": str(self.cost_usd),
            "unpriced": self.unpriced,
        }


class Sums(NamedTuple):
    """Costs of the newest runs of a list: of how many, when the first of these was made, whether
    there are no others, and which could not be read.
    """

    costs: list[Cost]
    runs: int
    since_ns: int | None
    whole: bool
    damaged: Sequence[str] = ()


class Ended(NamedTuple):
    """A run that has ended, in a list."""

    run_id: str
    program_name: str
    status: str
    finished_ns: int


PAGE_RUNS = 200
"""Runs that `Store.runs` reads at once; between pages it holds nothing, so a slow reader keeps
nobody waiting.
"""


class Store(Protocol):
    """Keeps runs. Every method but `append` and `give` blocks, and is quick; all may be called from
    any thread. With a ``signer``, what is written through this object is signed.

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

    def give(self, item: Append, told: Told) -> None:
        """As `append`; *told* hears of it in that event loop, in the turn in which the answer
        comes, which saves each step of a run one turn.
        """
        ...

    def load(self, run_id: str, *, rows: bool = True) -> StoredRun:
        """A run, with its rows in order and its unused messages."""
        ...

    def load_each(self, run_ids: Sequence[str]) -> Mapping[str, StoredRun | StoreError]:
        """As `load`, of several runs at once; in the place of a run what `load` would raise."""
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
        have not yet. What an owner before reserved for calls of the run and did not settle is
        spent: those calls were lost.
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
        """Runs that a worker should claim, oldest first, each with the digest of its program:
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

    def has(self, run_id: str) -> bool:
        """Whether there is a run of this id."""
        ...

    def ids_starting_with(
        self, beginning: str, limit: int, *, project: str | None = None
    ) -> list[str]:
        """Ids of runs, of all or of one project, that begin with a string, in their order."""
        ...

    def counts(self, statuses: Sequence[str] = UNENDED) -> dict[str, int]:
        """How many runs have each of *statuses*; those that none has are left out."""
        ...

    def oldest(self, statuses: Sequence[str] = UNENDED) -> dict[str, int]:
        """When the oldest run of each of *statuses* was made, in nanoseconds since 1970; those that
        none has are left out.
        """
        ...

    def rows_after(self, run_id: str, seq: int = -1, *, limit: int | None = None) -> list[Row]:
        """The rows of a run that follow row number *seq*; the first has number 0. They are never
        changed, so who has some asks for the others.
        """
        ...

    def page(
        self, filter: RunFilter = ALL_RUNS, *, size: int = PAGE_RUNS, after: str | None = None
    ) -> RunPage:
        """Up to *size* runs, newest first, that follow *after*, the ``after`` of the page before.
        Of runs that wait for something it may be fewer, however many follow: what they wait for is
        read in each.

        Raises:
            ValueError: If *after* is none, or *size* is less than 1.
        """
        ...

    def runs(
        self,
        filter: RunFilter = ALL_RUNS,
        *,
        limit: int | None = None,
        damaged: list[str] | None = None,
    ) -> Iterator[StoredRun]:
        """Runs, newest first, page by page.

        A run that was damaged where it lies raises `StoreError`; with *damaged*, that takes the
        message and the others follow.
        """
        after: str | None = None
        while limit is None or limit > 0:
            size = PAGE_RUNS if limit is None else min(limit, PAGE_RUNS)
            page = self.page(filter, size=size, after=after)
            if page.damaged and damaged is None:
                raise StoreError(page.damaged[0])
            if damaged is not None:
                damaged += page.damaged
            yield from page.runs
            if page.after is None:
                return
            given = len(page.runs) + len(page.damaged)
            limit, after = None if limit is None else limit - given, page.after

    def costs(self, by: Sequence[str] = ("model",), filter: RunFilter = ALL_RUNS) -> list[Cost]:
        """What the model calls of runs consumed, summed for each value of *by*, as `checked_groups`
        knows it, in its order. A call counts in the run that made it: not in forks that took its answer.

        Raises:
            ValueError: If costs are not summed by one of *by*.
        """
        ...

    def reserve(self, reservation: Reservation) -> Awaitable[Shortage | None]:
        """See `accounts.KeepsBudgets.reserve`; called in an event loop."""
        ...

    def settle(self, id: str, used: Amount | None) -> Awaitable[None]:
        """See `accounts.KeepsBudgets.settle`; called in an event loop, and done when it is
        durable.
        """
        ...

    def enter(
        self, call_id: str, owner: str, limits: CallLimits, tokens: int
    ) -> Awaitable[Entered]:
        """See `limits.SharesLimits.enter`; called in an event loop."""
        ...

    def leave(self, call_id: str, limits: CallLimits, part: int, change: int) -> Awaitable[None]:
        """See `limits.SharesLimits.leave`; called in an event loop."""
        ...

    def kept(self, key: str, since_ns: int) -> Awaitable[str | None]:
        """See `kept.KeepsAnswers.kept`; called in an event loop."""
        ...

    def keep(self, answer: KeptAnswer) -> Awaitable[None]:
        """See `kept.KeepsAnswers.keep`; called in an event loop."""
        ...

    def accounts(self) -> dict[str, Standing]:
        """See `accounts.KeepsBudgets.accounts`."""
        ...

    def close(self) -> None:
        """Finish what was begun, and let go of the database."""
        ...


class Archive(Store, Protocol):
    """A store that also looks after what it keeps."""

    @property
    def version(self) -> int:
        """The version of the form in which runs are kept."""
        ...

    def erase(self, run_id: str) -> bool:
        """Drop all values of a run that has ended, its labels and its salt, for good; False where
        that was done before. What happened when stays, and the seal still verifies; other runs with
        equal values keep theirs.

        Raises:
            StoreError: If the run has not ended.
            UnknownRun: If there is none.
        """
        ...

    def erase_ended(self, older_than_ns: int, statuses: Sequence[str] = ENDED) -> int:
        """`erase` the runs that ended before *older_than_ns* in one of *statuses*, each in a
        transaction of its own; of how many the values were there.
        """
        ...

    def prunable(
        self, older_than_ns: int, statuses: Sequence[str] = ENDED, *, held: bool = False
    ) -> list[Ended]:
        """What `prune` would delete, oldest first; *held*: what `erase_ended` would erase."""
        ...

    def prune(self, older_than_ns: int, statuses: Sequence[str] = ENDED) -> int:
        """Delete the runs that ended before *older_than_ns* in one of *statuses*; how many there
        were. Their receipts stay.
        """
        ...

    def check(self, *, keys: Iterable[str] | None = None, head: str | None = None) -> list[str]:
        """What is wrong with what is stored, each in a sentence: damage, seals and receipts that do
        not fit; empty if nothing is. *keys* are public keys of which one must have signed every
        seal and receipt; *head* is what `head` gave before: its receipt must still be there.
        """
        ...

    def unused(self) -> list[str]:
        """Decisions that runs which have ended did not use, each in a sentence: who decided was
        promised that it is recorded.
        """
        ...

    def head(self) -> str | None:
        """Number and hash of the newest receipt, to be kept elsewhere; None where no run has
        ended.
        """
        ...

    def signers(self) -> list[tuple[str | None, int, int, int]]:
        """The public keys that signed receipts (None: not signed), each with their number and the
        times of the first and last run.
        """
        ...

    def receipts(self, run_id: str) -> list[Receipt]:
        """The receipts of a run, oldest first; those of one that was deleted are still there."""
        ...

    def export(self, run_ids: Iterable[str], stream: IO[str]) -> int:
        """Write runs to *stream* as JSON Lines, one snapshot each; how many. `transfer` tells the
        format.

        Raises:
            UnknownRun: If there is none of an id.
        """
        ...

    def import_(self, stream: Iterable[str], *, unfinished: bool = False) -> list[str]:
        """Take in what `export` wrote, all or nothing; the ids of the runs that were not there
        before.

        A run that has not ended is refused unless *unfinished*: two databases that both go on with
        it would make its calls twice.

        Raises:
            StoreError: If it was cut short or edited, is from another version, or a run of that id
            with other content is there.
        """
        ...


@dataclass(frozen=True)
class Announced:
    """What an owner of runs says that it can do, as JSON text; ``name`` is its own, for people."""

    owner: str
    name: str
    document: str
    since_ns: int
    seen_ns: int


class RunState(NamedTuple):
    """How a run stands: whatever a page shows of it changes one of these."""

    status: str
    fence: int
    rows: int
    seal: str
    messages: int


@runtime_checkable
class Noticeboard(Protocol):
    """Where hosts say what they can do."""

    def announce(self, host: Announced) -> bool:
        """Keep what a host says of itself, in place of what it said before; False where nobody reads
        it: no server has been at this database.
        """
        ...

    def withdraw(self, owner: str) -> None:
        """Forget what a host said of itself."""
        ...


class Ear(Protocol):
    """Hears notices of other processes that write to a store; used by one thread."""

    def fileno(self) -> int:
        """What an event loop looks at: it can be read where there is a notice."""
        ...

    def heard(self) -> bool:
        """Whether notices have come since.

        Raises:
            Exception: If the connection is lost.
        """
        ...

    def close(self) -> None:
        """Hear no more."""
        ...


class Transaction(Protocol):
    """Statements of one transaction. Each is text with ``?`` for values, in the words of ``dialect``
    (``SQLite`` or ``PostgreSQL``).
    """

    @property
    def dialect(self) -> str:
        """Whose words its statements are in."""
        ...

    def all(self, statement: str, *values: Any) -> list[Any]:
        """All rows."""
        ...

    def run(self, statement: str, *values: Any) -> int:
        """Execute; the number of rows that it changed."""
        ...


T = TypeVar("T")


class TableStore(Archive, Noticeboard, Protocol):
    """A store in a database that has other tables beside those of runs: they are read and written in
    the same transactions.
    """

    def standings(self, run_ids: Sequence[str]) -> dict[str, RunState]:
        """How runs stand, by id, in one question however many there are; those that are not there
        are left out.
        """
        ...

    def per_day(self, filter: RunFilter) -> dict[tuple[int, str], int]:
        """How many runs began on each day (UTC, as a number since 1970) and stand at each status;
        days and statuses without runs are left out.
        """
        ...

    def costs_of_newest(self, by: Sequence[str], filter: RunFilter, most: int) -> Sums:
        """As `Store.costs`, of up to *most* runs, the newest: however many there are, no more are
        read.
        """
        ...

    def listened(self) -> Ear | None:
        """What hears that another process has written; None where nothing tells it. A notice may be
        lost, so who listens looks now and then himself.

        Raises:
            StoreError: If the store does not answer.
        """
        ...

    def announced(self) -> list[Announced]:
        """What hosts have said of themselves, those that are gone too, the oldest first."""
        ...

    def reading(self) -> AbstractContextManager[Transaction]:
        """A transaction on which everything read belongs to one state of the database."""
        ...

    def transact(self, job: Callable[[Transaction], T]) -> T:
        """What *job* gave, once what it wrote is durable. It may be called again, and raises a
        `VMError` only before it writes.
        """
        ...

    def along(self, also: Callable[[Transaction], None]) -> Archive:
        """The same store, where *also* is called in the transaction of each run that is created and
        each word that is recorded through it: what it writes is there with it, or neither is. It
        raises no `VMError`, and may be called again.
        """
        ...


def open_tables(url: str, **options: Any) -> TableStore:
    """As `open_store`, with the tables of a server, which the first that is opened makes.

    Raises:
        MissingExtra: If what a server needs is not installed.
        StoreError: If it cannot be opened, or the tables are of another version.
    """
    from .sql.beside import opened

    return opened(url, **options)


def open_store(url: str, **options: Any) -> Archive:
    """The store at a database's URL: ``sqlite:///runs.db`` or ``postgresql://...``.

    ``signing_key`` (the path of a key's file) signs what is written through it; see `signing`.

    Raises:
        MissingExtra: If it is in PostgreSQL, whose driver is not installed.
        StoreError: If it cannot be opened.

    Examples:
        >>> from nano_vm import ExecutionVM, Program
        >>> from nano_vm.store.protocol import open_store
        >>> store = open_store("sqlite:///runs.db")
        >>> program = Program.from_yaml("steps: [{id: a, type: set, values: {x: 1}}]")
        >>> trace = ExecutionVM(store=store).run_sync(program, run_id="a-1")
        >>> [run.run_id for run in store.page().runs]
        ['a-1']
        >>> store.close()
    """
    from .sql.store import SqlStore

    return SqlStore(url, **options)


class PayloadStore(Protocol):
    """Keeps values of any size by the hash of their content, each once."""

    def put(self, bodies: Sequence[bytes]) -> list[str]:
        """Keep *bodies*; the SHA-256 of each, in hex. They are durable when this returns."""
        ...

    def get(self, hashes: Sequence[str]) -> list[bytes]:
        """The bodies with these hashes.

        Raises:
            StoreError: If one is not there, or was changed.
        """
        ...

    def count(self) -> tuple[int, int]:
        """How many values there are, and how many bytes they take."""
        ...

    def close(self) -> None:
        """Let the database go."""
        ...


def open_payloads(url: str) -> PayloadStore:
    """Where large values are kept, at a database's URL.

    Raises:
        StoreError: If it cannot be opened.
    """
    from .sql.payloads import Payloads

    return Payloads(url)
