"""What is kept of a durable run: its header, rows in the order in which they were appended, and an
inbox of what people and the outside sent to it.

A row is either an *intent* (a call is about to be made) or a finished step as a trace shows it.
Rows are never changed. Control flow is not stored: a run that is resumed computes it from what its
calls gave. Nothing here reads or writes a database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from json.encoder import encode_basestring as _quoted
from struct import error as WrongNumber
from typing import Any

from ..errors import StoreError, VMError
from ..language.kinds import TYPES
from ..records.record import Attempt, Record, StepError, StepName, failures_of, step_of
from ..records.status import StepStatus
from ..records.usage import LLMUsage
from ..values import UNSET, canonical, parse_json, short

INTENT, STEP, PAUSED = 0, 1, 2

ROW_KINDS = (INTENT, STEP, PAUSED)

STATUSES = tuple(StepStatus)

PENDING, RUNNING, SUSPENDED = "pending", "running", "suspended"

ENDED = ("success", "failed", "cancelled")

UNENDED = (PENDING, RUNNING, SUSPENDED)

RUN_STATUSES = (*UNENDED, *ENDED)


ANSWERS = ("approve", "reject", "resolve")
"""Kinds of messages by which people decide what a run asks of them."""

DEFAULT_PROJECT = "default"
"""The project of runs whose caller names none."""

MAX_LABELS, LABEL_CHARS = 32, 200
"""Labels of a run, and characters of a value: they find a run and are no place for data."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}\Z")  # as Kubernetes has names of labels


_NO_CALL = "null,null"

_TYPE_JSON = {name: _quoted(name) for name in TYPES}

_STATUS_JSON: dict[StepStatus | None, str] = {
    None: "null",
    **{status: f'"{status.value}"' for status in STATUSES},
}


Bodies = tuple[bytes | None, bytes | None, bytes | None]

NO_BODIES: Bodies = (None, None, None)


@dataclass(slots=True)
class Row:
    """A stored record of a run; times are nanoseconds since the epoch. An intent has only frame,
    path, type and ``started_ns``. One that is paused is of a step at which the run waited, for a
    trace to show: the run computes it anew when it goes on.

    ``frame`` names the frame of the step: empty for the run, ``fork path:number`` for a child.
    ``rest`` holds error, attempts and extra, as the JSON form of a trace has them. ``model`` is the
    model whose calls ``usage`` counts, empty where it has no name; None where this run called none,
    also where a fork took the answer from the run that it was made from.

    ``bodies`` are the canonical bytes of request, output and rest on the way into a store, so that
    the seal and the store do not both encode them.
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
    model: str | None = None
    usage: LLMUsage | None = None
    bodies: Bodies = field(default=NO_BODIES, init=False, compare=False, repr=False)

    def encode(self) -> None:
        """Make the ``bodies``; no value of the row is changed any more."""
        request, output, rest = self.request, self.output, self.rest
        self.bodies = (
            None if request is UNSET else canonical(request),
            None if output is UNSET else canonical(output),
            None if rest is None else canonical(rest),
        )

    def sealed(self, salt: bytes, known: dict[int, Any]) -> bytes:
        """What the seal covers: everything, values by salted hash, as a canonical JSON list;
        *known* are hashes by the identity of their values, none at first.
        """
        asked = _hidden(salt, self.request, self.bodies[0], known)
        gave = _hidden(salt, self.output, self.bodies[1], known)
        beside = "null" if self.rest is None else _hidden(salt, self.rest, self.bodies[2], known)
        call = _NO_CALL if self.model is None and self.usage is None else self._call()
        frame = _quoted(self.frame) if self.frame else '""'
        kind = _TYPE_JSON.get(self.type) or _quoted(self.type)
        return (
            f"[{self.kind},{frame},{_quoted(self.path)},{kind},"
            f"{_STATUS_JSON[self.status]},{self.started_ns},{self.finished_ns},"
            f"{asked},{gave},{beside},{call}]"
        ).encode()

    def _call(self) -> str:
        usage = None if self.usage is None else self.usage.to_dict()
        return f"{canonical(self.model).decode()},{canonical(usage).decode()}"

    def record(self) -> Record:
        """As a trace's record; that of a fork has no children yet.

        Raises:
            StoreError: If it says what no step says.
        """
        assert self.status is not None
        output = None if self.output is UNSET or type(self.output) is Erased else self.output
        request = None if self.request is UNSET or type(self.request) is Erased else self.request
        name = _tuple(StepName, (step_of(self.path), self.type, ()))
        begun, ended = self.started_ns, self.finished_ns
        told = (None, None, None, self.usage) if self.rest is None else self._beside()
        error, attempts, extra, usage = told
        fields = (name, self.path, self.status, output, error, request, begun, ended,
                  attempts, usage, extra)  # fmt: skip
        return _tuple(Record, fields)

    def _beside(self) -> tuple[StepError | None, tuple[Attempt, ...] | None, Any, LLMUsage | None]:
        """What it says beside output and request: error, attempts, extra, and the usage with those
        of its tokens that are distinguished, which have no columns of their own.
        """
        rest: Any = self.rest
        if type(rest) is not dict:  # what was erased is told as if it had never been
            return None, None, None, self.usage
        try:
            if any(
                type(n) is not int
                for n in (rest.get("size", 0), rest.get("paused", 0), *rest.get("lost", ()))
            ):
                raise ValueError("a number is none")
            error, attempts = failures_of(rest)
            extra = {
                **rest.get("extra", {}),
                **{name: rest[name] for name in ("lost", "settled") if name in rest},
            }
            usage = self.usage
            if usage is not None and "tokens" in rest:
                usage = LLMUsage.from_dict({**usage.to_dict(), **rest["tokens"]})
        except (TypeError, ValueError, LookupError, AttributeError) as fault:
            raise StoreError(
                f"row {self.path!r} says what no step says; it was damaged: restore a copy"
            ) from fault
        return error, attempts, extra or None, usage


_tuple = tuple.__new__  # a named tuple of all its fields, at half the price of a call of its class


class Erased(str):
    """What an erased value has left: its salted hash, in hex, by which the seal still covers it."""

    __slots__ = ()


def salted(salt: bytes, value: Any, body: bytes | None = None) -> str | None:
    """The salted hash of a value, by which the seal holds it; *body* are its canonical bytes, where
    they are known.
    """
    if type(value) is Erased:
        return str(value)
    if value is UNSET:
        return None
    return sha256(salt + (canonical(value) if body is None else body)).hexdigest()


def _hidden(salt: bytes, value: Any, body: bytes | None, known: dict[int, Any]) -> str:
    """The salted hash of *value* as JSON, kept in *known* beside the value, so that its identity
    stays its own.
    """
    if value is UNSET:
        return "null"
    found = known.get(id(value))
    if found is None:
        found = known[id(value)] = f'"{salted(salt, value, body)}"', value
    return found[0]


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
    # whether the run stood before it and had no use for it yet
    seen: bool = field(default=False, compare=False)

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
    project: str = DEFAULT_PROJECT
    submitter: str | None = None  # who asked for the run
    labels: dict[str, str] = field(default_factory=dict)  # what the run is found by
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
    # a document, and the hash in hex of its canonical bytes: as it was read and held against that,
    # or as many runs have it
    read: tuple[Any, str] | None = field(default=None, compare=False, repr=False)

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
            self.project,
            self.submitter,
        ]
        if self.read is not None and self.read[0] is self.document:
            document = self.read[1]  # that of 10,000 steps takes a tenth of resuming them
        else:
            document = sha256(canonical(self.document)).hexdigest()
        hidden = (self.inputs, self.about, self.labels)
        return [*shown, document, *(salted(salt, value) for value in hidden)]


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


UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, WrongNumber)
"""What comes of a column that holds something else than was put there."""


def message_of(number: int, kind: str, cell: bytes, signature: str | None) -> Message:
    """The inverse of `Message.content`; *kind* is that by which the database knows it."""
    told, name, body, by, created = parse_json(bytes(cell).decode())
    right = (
        told == kind and type(name) is str and type(body) is dict and type(by) in (str, type(None))
    )
    if not right or type(created) is not int or type(signature) not in (str, type(None)):
        raise ValueError("not a message")
    return Message(kind, name, body, by, created, number, signature)


def checked_row(row: Row) -> Row:
    """*row*, if it is one that a run can have.

    Raises:
        ValueError: If it is none; LookupError, TypeError or AttributeError likewise.
    """
    right = (
        (row.status is None) == (row.kind == INTENT)
        and row.kind in ROW_KINDS
        and row.type
        and row.path
    )
    if not right or type(row.rest) not in _RESTS or row.started_ns < 0:
        raise ValueError("it is a row of no kind")
    if type(row.model) not in _TEXTS:
        raise ValueError(f"its model is {short(row.model)}")
    return row


_RESTS = (type(None), dict, Erased)
_TEXTS = (type(None), str)


def used(counts: Sequence[Any]) -> LLMUsage | None:
    """The usage that *counts* say: tokens of prompt and completion, all tokens, cost as a decimal;
    all None where there is none.

    Raises:
        ValueError: If they say what no usage says.
    """
    *tokens, cost = counts
    if all(count is None for count in counts):
        return None
    if any(type(count) is not int for count in tokens) or type(cost) not in _TEXTS:
        raise ValueError("its usage is none that a call has")
    names = ("prompt_tokens", "completion_tokens", "total_tokens", "cost_usd")
    usage = LLMUsage.from_dict(dict(zip(names, counts, strict=True)))
    if cost is not None and str(usage.cost_usd) != cost:
        raise ValueError(f"its cost {cost!r} is not as it is written")
    return usage


def counts_of(usage: LLMUsage | None) -> tuple[int | None, int | None, int | None, str | None]:
    """The inverse of `used`."""
    if usage is None:
        return None, None, None, None
    cost = None if usage.cost_usd is None else str(usage.cost_usd)
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, cost


class Unfit(VMError, ValueError):
    """A label, project or submitter that no run has."""


def checked_labels(labels: Any) -> dict[str, str]:
    """*labels* as a run has them.

    Raises:
        Unfit: If a name or a value is none that a label has, or they are too many.
    """
    if not isinstance(labels, Mapping):
        raise Unfit(f"labels are an object of names and strings, not {short(labels)}")
    if len(labels) > MAX_LABELS:
        raise Unfit(f"a run has at most {MAX_LABELS} labels, not {len(labels)}")
    for name, value in labels.items():
        checked_name("the name of a label", name)
        checked_text(f"label {name!r}", value)
    return dict(labels)


def checked_name(what: str, name: Any) -> str:
    """*name*, if a label or a project can be called that.

    Raises:
        Unfit: If not.
    """
    if type(name) is not str or not _NAME.match(name):
        raise Unfit(
            f"{what} is 1 to 63 letters, digits and '.', '_', '-', '/', beginning with a letter or "
            f"digit, not {short(name)}"
        )
    return name


def checked_text(what: str, text: Any) -> str:
    """*text*, if a label or a submitter can be that: short, on one line, with nothing hidden.

    Raises:
        Unfit: If not.
    """
    if type(text) is not str or not 0 < len(text) <= LABEL_CHARS or not text.isprintable():
        raise Unfit(
            f"{what} is a string of 1 to {LABEL_CHARS} printable characters, not {short(text)}"
        )
    return text


def checked_run(run: StoredRun) -> StoredRun:
    """*run*, if its header is one that a run can have.

    Raises:
        ValueError: If it is none.
    """
    for name, kinds in _KINDS.items():
        if type(getattr(run, name)) not in kinds:
            raise ValueError(f"its {name} is {short(getattr(run, name))}")
    if run.status not in RUN_STATUSES:
        raise ValueError(f"its status {run.status!r} is none that a run has")
    if run.output is UNSET or not all(map(_is_entry, run.waiting)):
        raise ValueError(
            f"its {'output' if run.output is UNSET else 'waiting'} is none that a run has"
        )
    if (run.salt is None) != (run.hidden is not None) or (
        run.salt is None and (run.output or run.error or run.waiting)
    ):
        raise ValueError("it is half erased")
    if type(run.labels) is dict:
        checked_labels(run.labels)
    checked_name("its project", run.project)
    if run.submitter is not None:
        checked_text("its submitter", run.submitter)
    if run.cost_usd is not None and not _is_amount(run.cost_usd):
        raise ValueError(f"its cost {run.cost_usd!r} is no amount")
    return run


def _is_amount(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except ArithmeticError:
        return False


def _is_entry(entry: Any) -> bool:
    """Whether *entry* says what a run waits for."""
    if type(entry) is not dict or any(
        type(entry.get(name)) is not str for name in ("path", "kind")
    ):
        return False
    return entry.get("match") is None or (
        type(entry["match"]) is dict and type(entry.get("event")) is str
    )


_NONE = type(None)

_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys("run_id program_name program_digest status seal project".split(), (str,)),
    **dict.fromkeys("key created_ns started_ns finished_ns fence steps tokens".split(), (int,)),
    **dict.fromkeys(
        "parent submitter owner error error_kind signature hidden cost_usd".split(), (str, _NONE)
    ),
    **dict.fromkeys(("inputs", "about", "labels"), (dict, Erased)),
    "document": (dict,),
    "salt": (bytes, _NONE),
    "waiting": (list,),
    "wake_ns": (int, _NONE),
}
"""What the fields of a header are."""
