"""Durable records: what is kept of a run, and what a store must do. `sql` keeps it in SQLite or
PostgreSQL.

A run is a header, rows in the order in which they were appended, and an inbox of what people and
the outside sent to it. A row is either an *intent* (a call is about to be made) or a finished step
as a trace shows it. Rows are never changed. Control flow is not stored: a run that is taken up
again computes it from what its calls gave.

Rule 1: what `append` has acknowledged survives any crash. Rule 2: a run has one owner at a time.
Each claim raises its *fence*; an append with an older fence is refused. Rule 3: a run has its seal
from the beginning, and each append brings the next; see `seal_of`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from json.encoder import encode_basestring as _quoted
from typing import Any, Protocol

from ..errors import StoreError
from ..records.trace import Attempt, LLMUsage, Record, StepError, StepName, StepStatus
from ..values import UNSET, canonical
from .signing import SigningKey

INTENT, STEP, PAUSED = 0, 1, 2
ROW_KINDS = (INTENT, STEP, PAUSED)

STATUSES = tuple(StepStatus)
TYPES = (
    "tool",
    "llm",
    "condition",
    "switch",
    "parallel",
    "map",
    "loop",
    "call",
    "set",
    "approval",
    "wait",
)

PENDING, RUNNING, SUSPENDED = "pending", "running", "suspended"
ENDED = ("success", "failed", "cancelled")
RUN_STATUSES = (PENDING, RUNNING, SUSPENDED, *ENDED)


@dataclass(slots=True)
class Row:
    """A stored record of a run; times are nanoseconds since the epoch. An intent has only frame,
    path, type and ``started_ns``. One that is paused is of a step at which the run waited, for a
    trace to show: the run computes it anew when it goes on.

    ``frame`` names the frame of the step: empty for the run, ``fork path:number`` for a child.
    ``rest`` holds error, attempts, usage and extra, as the JSON form of a trace has them.
    """

    kind: int
    frame: str
    path: str
    type: str
    status: StepStatus | None
    started_ns: int
    finished_ns: int = 0
    request: Any = UNSET
    output: Any = UNSET
    rest: dict[str, Any] | None = None

    def sealed(self, salt: bytes, known: dict[int, Any]) -> bytes:
        """What the seal covers: everything, values by salted hash, as a canonical JSON list;
        *known* are hashes by identity.
        """
        request, output, rest, status = self.request, self.output, self.rest, self.status
        hidden = (
            "null" if request is UNSET else _hidden(salt, request, known),
            "null" if output is UNSET else _hidden(salt, output, known),
            "null" if rest is None else _hidden(salt, rest, known),
        )
        return (
            f"[{self.kind},{_quoted(self.frame)},{_quoted(self.path)},{_quoted(self.type)},"
            f"{'null' if status is None else _quoted(status._value_)},{self.started_ns},{self.finished_ns},{','.join(hidden)}]"
        ).encode()

    def record(self) -> Record:
        """As a trace's record; that of a fork has no children yet.

        Raises:
            StoreError: If it says what no step says.
        """
        assert self.status is not None
        output = None if self.output is UNSET or type(self.output) is Erased else self.output
        request = None if self.request is UNSET or type(self.request) is Erased else self.request
        name = StepName(step_of(self.path), self.type)
        begun, ended = self.started_ns, self.finished_ns
        if self.rest is None:
            return (
                name,
                self.path,
                self.status,
                output,
                None,
                request,
                begun,
                ended,
                None,
                None,
                None,
            )
        # what was erased is told as if it had never been
        rest = self.rest if type(self.rest) is dict else {}
        try:
            error, attempts, usage, extra = _beside(rest)
        except (TypeError, ValueError, LookupError, AttributeError) as fault:
            raise StoreError(
                f"row {self.path!r} says what no step says; it was damaged: restore a copy"
            ) from fault
        return (
            name,
            self.path,
            self.status,
            output,
            error,
            request,
            begun,
            ended,
            attempts,
            usage,
            extra,
        )


def _beside(
    rest: dict[str, Any],
) -> tuple[StepError | None, tuple[Attempt, ...] | None, LLMUsage | None, Any]:
    """What a row says beside output and request: error, attempts, usage, extra."""
    if any(
        type(n) is not int
        for n in (rest.get("size", 0), rest.get("paused", 0), *rest.get("lost", ()))
    ):
        raise ValueError("a number is none")
    attempts = tuple(
        Attempt(
            StepError.from_dict(a["error"]),
            a["started_ns"],
            a["finished_ns"],
            LLMUsage.from_dict(a["usage"]) if "usage" in a else None,
            a.get("answer"),
        )
        for a in rest.get("attempts", ())
    )
    error = StepError.from_dict(rest["error"]) if "error" in rest else None
    usage = LLMUsage.from_dict(rest["usage"]) if "usage" in rest else None
    extra = {
        **rest.get("extra", {}),
        **{name: rest[name] for name in ("lost", "settled") if name in rest},
    }
    return error, attempts or None, usage, extra or None


def step_of(path: str) -> str:
    """The id of the step that *path* leads to; ``x/undo`` and ``x/reconcile`` where it is a call
    beside step x.
    """
    *before, last = path.split("/")
    name = last.partition("#")[0].partition("[")[0]
    if name in ("undo", "reconcile") and before:
        return f"{before[-1].partition('#')[0]}/{name}"
    return name


class Erased(str):
    """What an erased value has left: its salted hash, in hex, by which the seal still covers it."""

    __slots__ = ()


def salted(salt: bytes, value: Any) -> str | None:
    """The salted hash of a value, by which the seal holds it."""
    if type(value) is Erased:
        return str(value)
    return None if value is UNSET else sha256(salt + canonical(value)).hexdigest()


def _hidden(salt: bytes, value: Any, known: dict[int, Any]) -> str:
    found = known.get(id(value))
    if found is None:
        # the value, so that its identity stays its own
        found = known[id(value)] = f'"{salted(salt, value)}"', value
    return found[0]


def chained(head: bytes, salt: bytes, rows: Iterable[Row]) -> bytes:
    """The seal's chain after *rows*."""
    known: dict[int, Any] = {}  # equal cells of a loaded run have one value between them
    for row in rows:
        head = sha256(head + row.sealed(salt, known)).digest()
    return head


@dataclass(slots=True)
class Message:
    """Something sent to a run: ``approve`` and ``reject`` (``name`` is the path), ``event`` (its
    name), ``resolve`` (a path in doubt), ``cancel``, ``outcome`` (of a call whose owner had lost
    the run).
    """

    kind: str
    name: str
    body: dict[str, Any]
    by: str | None
    created_ns: int
    id: int = 0
    signature: str | None = None  # by who sent it, if that had a key

    def content(self) -> bytes:
        """What is stored of it, and what the seal of a run that used it covers."""
        return canonical([self.kind, self.name, self.body, self.by, self.created_ns])


@dataclass(slots=True)
class StoredRun:
    """A run as it stands in a store. ``rows``, ``inbox`` (messages that are not used yet) and
    ``decided`` (those that were used) are there where they were asked for.
    """

    run_id: str
    program_name: str
    program_digest: str
    created_ns: int
    # {"program": ..., "programs": {name: ...}}, plain
    document: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    # as `Trace.about`, with the run's own options
    about: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    salt: bytes | None = b""  # None: erased
    status: str = PENDING
    started_ns: int = 0
    finished_ns: int = 0
    output: Any = None
    error: str | None = None
    error_kind: str | None = None
    waiting: list[dict[str, Any]] = field(default_factory=list)
    wake_ns: int | None = None  # when something that it waits for is due
    owner: str | None = None
    fence: int = 0
    parent: str | None = None  # of a fork: the run that it was made from
    seal: str | None = None  # hex; see `seal_of`
    signature: str | None = None  # of the seal, by the process that wrote it, if that has a key
    hidden: str | None = (
        # of an erased run: what its seal still needs of the values that are gone, see `hidden_of`
        None
    )
    steps: int = 0
    tokens: int = 0
    cost_usd: str | None = None
    key: int = 0  # the store's own
    rows: list[Row] = field(default_factory=list)
    inbox: list[Message] = field(default_factory=list)
    decided: list[Message] = field(default_factory=list)

    def header(self) -> list[Any]:
        """What the seal covers before the first row."""
        salt = self.salt or b""
        shown = [
            self.run_id,
            self.program_name,
            self.program_digest,
            self.created_ns,
            self.seed,
            self.parent,
        ]
        document = sha256(canonical(self.document)).hexdigest()
        return [*shown, document, salted(salt, self.inputs), salted(salt, self.about)]


def open_store(url: str, **options: Any) -> Store:
    """The store at a database's URL: ``sqlite:///runs.db`` or ``postgresql://...``.

    ``signing_key`` (the path of a key's file) signs what is written through it; see `signing`.

    Raises:
        MissingExtra: If it is in PostgreSQL, whose driver is not installed.
        StoreError: If it can not be opened.
    """
    from .sql.store import SqlStore

    return SqlStore(url, **options)


def seal_start(run: StoredRun) -> bytes:
    """Where the chain of a run's seal begins."""
    return sha256(canonical(run.header())).digest()


def chain_of(run: StoredRun) -> bytes:
    """The chain of the seal after the rows of *run*, which it has."""
    return chained(seal_start(run), run.salt or b"", run.rows)


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


def closed(head: bytes, run: StoredRun, hidden: str, status: str, started_ns: int) -> str:
    """The seal of a run whose rows chain to *head*, standing as *run* says, but for its status and
    when it began.
    """
    numbers = [
        started_ns,
        run.finished_ns,
        run.steps,
        run.tokens,
        run.cost_usd,
        run.wake_ns,
        run.error_kind,
    ]
    return sha256(head + canonical([status, *numbers, hidden])).hexdigest()


def seal_of(run: StoredRun) -> str:
    """The seal of *run*, which has its rows, as it is computed now; that it was given stands in
    ``run.seal``.

    It covers the header, every row in order, and how the run stands: status, times, counts, cost,
    output, error, what it waits for and the messages that it used. It does not cover owner, fence
    and messages that are not used yet: others than the run's owner write them.
    """
    return closed(chain_of(run), run, hidden_of(run), run.status, run.started_ns)


def sealed_as(run: StoredRun, head: bytes | None = None) -> str | None:
    """The status under which the seal of *run*, which has its rows, covers what is stored of it;
    None where it does not.

    That is its status, or that of before: who claims a run makes it *running*, begun now if it had
    not, and appends to it later. *head* is its `chain_of`, where that is known.
    """
    head, hidden = head or chain_of(run), hidden_of(run)
    stood = {run.status: run.started_ns}
    if run.status == RUNNING:
        stood |= {SUSPENDED: run.started_ns, PENDING: 0}
    return next(
        (
            status
            for status, began in stood.items()
            if closed(head, run, hidden, status, began) == run.seal
        ),
        None,
    )


def late_outcomes(run: StoredRun) -> list[Message]:
    """Outcomes of calls that came when *run*, which has its rows, had ended, and of which it says
    something else.
    """
    if run.status not in ENDED:
        return []
    said = {row.path: row for row in run.rows if row.kind == STEP}
    found = []
    for message in run.inbox:
        row = said.get(message.name)
        if message.kind != "outcome":
            continue
        success = row is not None and row.status is StepStatus.SUCCESS
        output = None if row is None or row.output is UNSET else row.output
        if success != ("output" in message.body) or (success and output != message.body["output"]):
            found.append(message)
    return found


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
        spare: Collection[str] = (),
    ) -> dict[str, Claim]:
        """Make *owner* the owner of up to *most* of these runs; what was claimed, by run id.

        A run can be claimed that has not ended and whose owner is none, is *owner* itself, or lives
        no more by the store's clock and is not among *spare*. One that another transaction holds
        right now is passed over. *now_ns* is when those begin that have not yet.
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
