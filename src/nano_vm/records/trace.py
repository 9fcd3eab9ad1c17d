"""The record of a run: what the machine appends, and `Trace`, the view of it that users see.

While a program runs, a finished step is one tuple (`Record`), made in C and never changed;
`StepResult` is built when somebody looks. The *digest* says what happened and is equal for equal
runs; the *seal* covers every stored byte and holds salted hashes in place of values. JSON only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, NamedTuple, cast

from ..diagnostics import Diagnostic
from ..errors import RunFailed, VMError
from ..values import as_text, canonical, copied, kind_name, parse_json, writable

TRACE_FORMAT = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StepStatus(str, Enum):
    """How a step stands or ended."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    SUSPENDED = "suspended"
    IN_DOUBT = "in_doubt"


class TraceStatus(str, Enum):
    """How a run stands or ended. ``SUSPENDED`` waits for a person, a time or an event; see
    `Trace.waiting`.
    """

    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class LLMUsage:
    """What model calls consumed. ``cost_usd`` is None where it is not known, never 0 for that."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cost_usd: Decimal | None = None

    def __str__(self) -> str:
        cost = f", cost=${self.cost_usd:.6f}" if self.cost_usd is not None else ""
        return f"tokens={self.total_tokens}{cost}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; cost is a decimal text."""
        counts = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }
        return counts if self.cost_usd is None else {**counts, "cost_usd": str(self.cost_usd)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LLMUsage:
        """From an adapter's or a trace's dict; missing counts are 0, the total is their sum unless
        given.

        Raises:
            ValueError: If a count is not a whole number of at least 0, or the cost is not a finite
            amount.
        """
        prompt, completion, total = map(data.get, _COUNTS)
        for count in (prompt, completion, total):
            if (type(count) is not int or count < 0) and count is not None:
                raise ValueError(f"a token count is a whole number of at least 0, not {count!r}")
        prompt, completion = prompt or 0, completion or 0
        cost = data.get("cost_usd")
        if cost is not None:
            try:
                amount = Decimal(str(cost))
            except InvalidOperation:
                raise ValueError(f"cost_usd is an amount in dollars, not {cost!r}") from None
            if not amount.is_finite() or amount < 0:
                raise ValueError(f"cost_usd is an amount of at least 0, not {cost!r}")
            cost = amount
        return cls(prompt, completion, total if total is not None else prompt + completion, cost)

    def __add__(self, other: LLMUsage) -> LLMUsage:
        known = self.cost_usd is not None and other.cost_usd is not None
        return LLMUsage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.cost_usd + other.cost_usd if known else None,  # type: ignore[operator]
        )


_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")

MAX_BASES = 32
"""Base classes of an exception that are recorded; those in use have at most a dozen."""

MAX_MESSAGE = 10_000
"""Characters of an error's message that are kept: a compiler's report, and not what was compiled.
"""

MAX_LISTED = 1_000
"""Characters of a message where errors are listed: of ten thousand items they are together less
than one value may have.
"""

MAX_WORD = 200
"""Characters of an error's kind and class name in a value that programs read."""

_ROOTS = frozenset({"Exception", "BaseException", "object"})
"""Bases that nearly every exception has, so that nothing is recorded of them; see
`faults.matches`.
"""


@dataclass(frozen=True, slots=True)
class StepError:
    """Why an attempt or a step failed.

    ``catch`` and ``retry.on`` match its ``kind``, its ``type`` (the exception's class name) and
    ``bases``, the names of the classes that it is derived from. They are recorded, so that a replay
    takes the same handler and a changed program can take another; in the digest they are not, since
    they follow from the class.
    """

    kind: str
    type: str
    message: str
    # What the machine needs of it, and no record keeps:
    retryable: bool = field(default=True, compare=False)
    retry_after_seconds: float | None = field(default=None, compare=False)
    bases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"

    @classmethod
    def of(cls, error: BaseException, kind: str = "value") -> StepError:
        """From an exception; one that declares its own ``kind`` has it."""
        try:
            message = str.__str__(str(error))
            message.encode()  # a lone surrogate could not be written
        except UnicodeEncodeError:
            message = message.encode("ascii", "backslashreplace").decode()
        except BaseException:  # noqa: BLE001 - a hostile __str__ may raise anything, and is no outcome
            message = "<no message>"
        wait: Any = getattr(error, "retry_after_seconds", None)
        if type(wait) not in (int, float) or not 0 <= wait < float("inf"):
            wait = None
        own = isinstance(error, VMError)
        return cls(
            getattr(error, "kind", kind) if own else kind,
            _class_name(type(error)),
            message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "...",
            getattr(error, "retryable", True) if own else True,
            wait if own else None,
            bases_of(type(error)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        body: dict[str, Any] = self.outcome()
        return {**body, "bases": list(self.bases)} if self.bases else body

    def outcome(self) -> dict[str, Any]:
        """What belongs into the digest."""
        return {"kind": self.kind, "type": self.type, "message": self.message}

    def told(self, most: int = MAX_MESSAGE) -> dict[str, Any]:
        """What ``$step.error`` is in a handler, with at most so many characters of the message."""
        message = self.message if len(self.message) <= most else self.message[:most] + "..."
        return {"kind": self.kind[:MAX_WORD], "type": self.type[:MAX_WORD], "message": message}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StepError:
        """The inverse of `to_dict`."""
        return cls(data["kind"], data["type"], data["message"], bases=tuple(data.get("bases", ())))


def bases_of(kind: type) -> tuple[str, ...]:
    """The names of the classes that the class of an exception is derived from, the nearest
    first.
    """
    names = dict.fromkeys(_class_name(base) for base in kind.__mro__[1:])
    return tuple([name for name in names if name not in _ROOTS][:MAX_BASES])


def _class_name(kind: type) -> str:
    return writable(kind.__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that failed before the one that decided."""

    error: StepError
    started_ns: int
    finished_ns: int
    usage: LLMUsage | None = None
    answer: str | None = None

    def outcome(self) -> dict[str, Any]:
        """What belongs into the digest."""
        result: dict[str, Any] = {"error": self.error.outcome()}
        if self.answer is not None:
            result["answer"] = self.answer
        if self.usage is not None:
            result["usage"] = _counts(self.usage)
        return result

    def to_dict(self, base_ns: int = 0) -> dict[str, Any]:
        """The JSON form, as exports and stores have it; *base_ns* is added to its times."""
        usage = {} if self.usage is None else {"usage": self.usage.to_dict()}
        return {
            **self.outcome(),
            "error": self.error.to_dict(),
            "started_ns": self.started_ns + base_ns,
            "finished_ns": self.finished_ns + base_ns,
            **usage,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Attempt:
        """The inverse of `to_dict`."""
        return cls(
            StepError.from_dict(data["error"]),
            int(data["started_ns"]),
            int(data["finished_ns"]),
            LLMUsage.from_dict(data["usage"]) if "usage" in data else None,
            data.get("answer"),
        )


class StepName(NamedTuple):
    """What a record says of its step; the machine's ops have the same attributes."""

    step_id: str
    type: str
    names: tuple[str, ...] = ()


# A finished step: op, path, status, output, error, request, started_ns, finished_ns (monotonic),
# attempts, usage, extra. The request of a tool is the tuple of its argument values (names are the
# op's), that of a model its messages and options. A tool's first success in `BRIEF` fields: index of
# the op, output, request, started_ns, finished_ns, and the path, None where it is the op's own. An
# index and not the op, so that it holds nothing that the garbage collector tracks, and is soon not
# tracked itself.
Record = tuple[
    Any,
    str,
    StepStatus,
    Any,
    StepError | None,
    Any,
    int,
    int,
    "tuple[Attempt, ...] | None",
    LLMUsage | None,
    Any,
]


BRIEF = 6


def success(
    op: Any,
    path: str,
    output: Any,
    request: Any,
    started_ns: int,
    finished_ns: int,
    extra: dict[str, Any] | None = None,
) -> Record:
    """The record of a step that succeeded at its first attempt and consumed nothing."""
    return (
        op,
        path,
        StepStatus.SUCCESS,
        output,
        None,
        request,
        started_ns,
        finished_ns,
        None,
        None,
        extra,
    )


def full(record: Any, ops: Sequence[Any]) -> Record:
    """A record in its eleven fields, and so those of its children; *ops* are those of the plan."""
    if len(record) == BRIEF:
        index, output, request, started, finished, path = record
        op = ops[index]
        return success(op, op.path if path is None else path, output, request, started, finished)
    extra = record[10]
    if type(extra) is dict and "children" in extra:
        children = [[full(inner, ops) for inner in child] for child in extra["children"]]
        return (*record[:10], {**extra, "children": children})
    return record  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class StepResult:
    """One finished step of a run.

    ``path`` is its identity in the run (``items[3]/classify``), ``request`` what was asked of a
    tool or model, ``references`` what a condition read and ``branch`` where it went (``unless`` for
    a step that its `when` skipped; what a `when` read that held is ``extra["when"]``), ``retries``
    the number of failed attempts before the last, ``duration_ms`` the time from being reached to
    its end, with waits between attempts.
    """

    step_id: str
    status: StepStatus
    output: Any = None
    error: str | None = None
    retries: int = 0
    usage: LLMUsage | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: float | None = None
    path: str = ""
    type: str = ""
    error_kind: str | None = None
    request: Any = None
    attempts: tuple[Attempt, ...] = ()
    references: dict[str, Any] | None = None
    branch: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """The fields that a step of 0.1 had; *mode* ``json`` makes strings of times and cost."""
        moment = _iso if mode == "json" else _same
        usage = None if self.usage is None else self.usage.to_dict()
        return {
            "step_id": self.step_id,
            "status": self.status.value,
            "output": copied(self.output),
            "error": self.error,
            "retries": self.retries,
            "usage": usage,
            "started_at": moment(self.started_at),
            "finished_at": moment(self.finished_at),
            "duration_ms": self.duration_ms,
        }

    @property
    def reasoning(self) -> str | None:
        """What the model thought before its answer, where the provider or the answer told it."""
        return self.extra.get("reasoning")

    @property
    def cost_source(self) -> str | None:
        """Where ``usage.cost_usd`` comes from: ``prices`` of the host, or the ``adapter``."""
        return self.extra.get("cost_source")


class Trace:
    """What happened in one run. Made by the VM; `from_json` reads one back."""

    # No __slots__: what a run changes late or never has its default here.
    status = TraceStatus.RUNNING
    output: Any = None  # of the run, as recorded: `final_output` gives a copy
    error: str | None = None
    error_kind: str | None = None
    finished_ns = 0
    waiting: Sequence[dict[str, Any]] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    _salt: str | Callable[[], str] = ""
    _inputs: Any = None
    _host: Any = None  # where a run's calls go, while it runs
    _about: Any = None  # what `about` gives, or a function that makes it
    _steps: list[StepResult] | None = None
    _program: Any = None  # as it was given in place of its digest
    _digest: str | None = None
    _erased = False  # whether its values were erased from the store that it comes from
    _sign: Callable[[str], str] | None = None  # signs the seal, where the process has a key
    _signature: str | None = None
    # what made the run fail, if that was an exception of a call in this process
    _raised: BaseException | None = None

    def __init__(
        self,
        program_name: str,
        program_digest: Any,
        run_id: str,
        seed: int | None,
        started_ns: int,
        base_ns: int = 0,
        records: list[Any] | None = None,
        ops: Sequence[Any] = (),
    ) -> None:
        self.program_name = program_name
        # or the program, which is asked for it when somebody looks
        self._program_digest = program_digest
        self.run_id = run_id
        self._seed = seed
        self.started_ns = started_ns
        # added to a record's monotonic time it gives nanoseconds since the epoch
        self._base_ns = base_ns
        self._records = records if records is not None else []
        self._ops = ops  # of the plan: short records name theirs by index

    # --- what it says ---

    @property
    def inputs(self) -> dict[str, Any]:
        """What the run was given, of what the program can read."""
        if type(self._inputs) is tuple:
            self._inputs = dict(zip(*self._inputs, strict=True))
        return copied(self._inputs or {})  # type: ignore[no-any-return]

    @inputs.setter
    def inputs(self, value: dict[str, Any]) -> None:
        self._inputs = value

    @property
    def final_output(self) -> Any:
        """The run's output: the program's declared one, or that of its last step."""
        return copied(self.output)

    def set_inputs(self, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
        """As names and values, of which a dict is made when somebody looks."""
        self._inputs = names, values

    @property
    def ok(self) -> bool:
        """Whether the run ended well."""
        return self.status is TraceStatus.SUCCESS

    @property
    def steps(self) -> list[StepResult]:
        """The finished steps in order; those of branches and items before the step that joined
        them.
        """
        if self._steps is None:
            self._steps = [self._result(record) for record in flattened(self._full())]
        return self._steps

    @property
    def program_digest(self) -> str:
        """The digest of the program that ran."""
        if not isinstance(self._program_digest, str):
            self._program, self._program_digest = self._program_digest, self._program_digest.digest
        return self._program_digest

    @property
    def about(self) -> dict[str, Any]:
        """The host of the run, as far as it decides what a run does: tools with effect and key,
        budget, limits; digests of policy, tool contracts, prices and proofs; untrusted inputs.
        """
        if callable(self._about):
            self._about = self._about()
        return copied(self._about or {})  # type: ignore[no-any-return]

    @property
    def started_at(self) -> datetime:
        """When the run began, UTC."""
        return _moment(self.started_ns + self._base_ns)

    @property
    def finished_at(self) -> datetime | None:
        """When the run ended, UTC."""
        return _moment(self.finished_ns + self._base_ns) if self.finished_ns else None

    @property
    def duration_ms(self) -> float | None:
        """Milliseconds from start to end."""
        return (self.finished_ns - self.started_ns) / 1e6 if self.finished_ns else None

    def usage(self) -> LLMUsage:
        """What all model calls consumed, failed attempts included; the cost is None if that of any
        is unknown.
        """
        total = LLMUsage(cost_usd=Decimal(0))
        for record in flattened(self._full()):
            if record[0].type != "llm":
                continue
            usage = record[9]
            if usage is None and called(record):
                usage = LLMUsage()  # nobody knows what it consumed
            if usage is not None:
                total = total + usage
        return total

    def total_tokens(self) -> int:
        """Tokens of all model calls, failed attempts included."""
        return self.usage().total_tokens

    def total_cost_usd(self) -> Decimal | None:
        """Dollars for all model calls; 0 without one, None if the cost of any is not known."""
        return self.usage().cost_usd

    def last_output(self) -> Any:
        """The output of the last step that succeeded."""
        return next(
            (step.output for step in reversed(self.steps) if step.status is StepStatus.SUCCESS),
            None,
        )

    def raise_for_status(self) -> Trace:
        """Itself, if the run ended well.

        Raises:
            RunFailed: If it failed, was cancelled, or is suspended. If a call in this process made
            it fail, its
                ``__cause__`` is the exception of the tool or adapter, with its traceback.
        """
        if self.ok:
            return self
        what = self.error or f"run is waiting for {', '.join(w['kind'] for w in self.waiting)}"
        raise RunFailed(f"{self.program_name}: {self.status.value}: {what}", self) from self._raised

    def __repr__(self) -> str:
        return (
            f"Trace(program_name={self.program_name!r}, run_id={self.run_id!r}, "
            f"status={self.status.value!r})"
        )

    # --- identity ---

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what happened: equal for equal program, inputs and outcomes.

        Raises:
            TraceError: If the values of the run were erased.
        """
        if self._erased:
            raise TraceError(
                f"the values of run {self.run_id!r} were erased, so its digest can no longer be "
                f"computed"
            )
        if self._digest is None:
            chain = Chain.of_run(self.program_digest, self.inputs)
            for record in self._full():
                chain.add(record)
            self._digest = chain.ended(self.status, self.output, self.error, self.waiting)
        return self._digest

    @property
    def seed(self) -> int:
        """What the waits between attempts were drawn from: as given, or by the run's id."""
        return seed_of(self.run_id) if self._seed is None else self._seed

    @property
    def salt(self) -> str:
        """The run's own random bytes, in hex: without them the seal's hashes of values tell
        nothing. Drawn at first need.
        """
        if not isinstance(self._salt, str):
            self._salt = self._salt()
        return self._salt

    @property
    def seal(self) -> str:
        """SHA-256 chain, in hex, over every line of `lines` in order, values by salted hash."""
        head = b""
        salt = bytes.fromhex(self.salt)
        for line in self.lines():
            hidden = {
                k: _salted(salt, v) if k in _HIDDEN and v is not None else v
                for k, v in line.items()
            }
            head = hashlib.sha256(head + canonical(hidden)).digest()
        return head.hex()

    @property
    def signature(self) -> str | None:
        """Of the seal, by the process that ran it, if that has a signing key: ``PUBLIC:SIGNATURE``,
        in hex.
        """
        if self._sign is not None and self.status is not TraceStatus.RUNNING:
            return self._sign(self.seal)
        return self._signature

    # --- JSON ---

    def lines(self) -> Iterator[dict[str, Any]]:
        """The records as JSON objects: a header, each step, an end."""
        yield {
            "record": "run",
            "format": TRACE_FORMAT,
            "run_id": self.run_id,
            "program_name": self.program_name,
            "program_digest": self.program_digest,
            "seed": self.seed,
            "started_ns": self.started_ns + self._base_ns,
            "inputs": self.inputs,
            **({"host": about} if (about := self.about) else {}),
        }
        for record, level in _levels(self._full(), 0):
            yield (
                self._line(record, level)
                if record is not _BOUNDARY
                else {"record": "joined", "level": level}
            )
        end: dict[str, Any] = {
            "record": "end",
            "status": self.status.value,
            "finished_ns": self.finished_ns + self._base_ns,
            "output": self.output,
        }
        if self.error is not None:
            end |= {"error": self.error, "error_kind": self.error_kind}
        if self.waiting:
            end["waiting"] = list(self.waiting)
        if self.diagnostics:
            end["diagnostics"] = [d.to_dict() for d in self.diagnostics]
        yield end

    def _line(self, record: Record, level: int) -> dict[str, Any]:
        op, path, status, output, error, request, started, finished, attempts, usage, extra = record
        line: dict[str, Any] = {
            "record": "step",
            "path": path,
            "step": op.step_id,
            "type": op.type,
            "status": status.value,
            "started_ns": started + self._base_ns,
            "finished_ns": finished + self._base_ns,
            "output": output,
        }
        if level:
            line["level"] = level
        if request is not None:
            line["request"] = request_json(op, request)
        if error is not None:
            line["error"] = error.to_dict()
        if attempts:
            line["attempts"] = [attempt.to_dict(self._base_ns) for attempt in attempts]
        if usage is not None:
            line["usage"] = usage.to_dict()
        if extra is not None:
            line["extra"] = extra_json(op, extra)
        return line

    def _dated(self, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
        """*attempts* with times since the epoch."""
        base = self._base_ns
        return tuple(
            replace(a, started_ns=a.started_ns + base, finished_ns=a.finished_ns + base)
            for a in attempts
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: the records, with digest, seal and salt."""
        signature = self.signature
        return {
            "format": TRACE_FORMAT,
            "digest": self.digest,
            "seal": self.seal,
            **({"signature": signature} if signature is not None else {}),
            "salt": self.salt,
            "records": list(self.lines()),
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)

    def summary(self) -> dict[str, Any]:
        """How the run ended, as a JSON object: status, output, error, what it waits for, and what
        it used.

        ``cost_usd`` is a decimal string, or None where the cost of a call is not known;
        ``duration_ms`` is milliseconds.
        """
        usage = self.usage()
        return {
            "run_id": self.run_id,
            "program": self.program_name,
            "status": self.status.value,
            "output": copied(self.output),
            "error": self.error,
            "error_kind": self.error_kind,
            "diagnostics": [d.to_dict() for d in self.diagnostics],
            "waiting": copied(list(self.waiting)),
            "steps": len(self.steps),
            "tokens": usage.total_tokens,
            "cost_usd": None if usage.cost_usd is None else str(usage.cost_usd),
            "duration_ms": self.duration_ms,
            "digest": self.digest,
        }

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """The fields that a trace of 0.1 had, as its `model_dump` gave them; *mode* ``json`` makes
        strings of the times.

        To store a trace and read it back, use `to_dict` and `from_dict`.
        """
        moment = _iso if mode == "json" else _same
        return {
            "program_name": self.program_name,
            "status": self.status.value,
            "steps": [step.model_dump(mode=mode) for step in self.steps],
            "final_output": copied(self.output),
            "error": self.error,
            "started_at": moment(self.started_at),
            "finished_at": moment(self.finished_at),
            "duration_ms": self.duration_ms,
        }

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """`model_dump` as JSON text."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Trace:
        """The inverse of `to_json`; reads what ``nano-vm run --json`` prints, too.

        Raises:
            TraceError: If it is not a trace, or its digest or seal does not fit what it says.
        """
        try:
            data = parse_json(text if isinstance(text, str) else text.decode())
        except ValueError as error:
            raise TraceError(f"not a trace: {error}") from None
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Any) -> Trace:
        """The inverse of `to_dict`; raises as `from_json`."""
        if isinstance(data, dict) and "trace" in data and "records" not in data:
            trace = cls.from_dict(data["trace"])
            if canonical({**trace.summary(), "trace": data["trace"]}) != canonical(data):
                raise TraceError("the summary was changed: it does not fit the trace in it")
            return trace
        if not isinstance(data, dict) or not {"format", "records", "digest", "seal"} <= data.keys():
            raise TraceError("not a trace: it has no 'format', 'records', 'digest' and 'seal'")
        try:
            trace = _read(data)
            whole = canonical(trace.to_dict()) == canonical(data)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, VMError) as error:
            raise TraceError(
                f"not a trace of format {TRACE_FORMAT}: {kind_name(error)}: {error}"
            ) from None
        for name in ("digest", "seal"):
            if data.get(name) != getattr(trace, name):
                raise TraceError(f"the trace was changed: its {name} does not fit its records")
        if not whole:
            raise TraceError("the trace was changed: it holds what no run writes")
        return trace

    def _full(self) -> list[Record]:
        return [full(record, self._ops) for record in self._records]

    def _result(self, record: Record) -> StepResult:
        op, path, status, output, error, request, started, finished, attempts, usage, extra = full(
            record, self._ops
        )
        shown = extra_json(op, extra) if extra is not None else {}
        return StepResult(
            step_id=op.step_id,
            status=status,
            output=copied(output),
            error=str(error) if error is not None else None,
            retries=len(attempts) if attempts else 0,
            usage=usage,
            started_at=_moment(started + self._base_ns),
            finished_at=_moment(finished + self._base_ns),
            duration_ms=(finished - started) / 1e6,
            path=path,
            type=op.type,
            error_kind=error.kind if error is not None else None,
            request=copied(request_json(op, request)),
            attempts=self._dated(attempts or ()),
            references=shown.get("references"),
            branch=shown.get("branch"),
            extra=shown,
        )


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _same(moment: datetime | None) -> datetime | None:
    return moment


def seed_of(run_id: str) -> int:
    """The seed of a run that was given none: 63 bits of its id's hash, so that a run that is taken
    up again has the same.
    """
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "big") >> 1


class TraceError(VMError, ValueError):
    """A text that is not a trace, or one that was changed."""


UNDIGESTED = frozenset(
    {"effect_key", "arguments", "shown", "deadline_ns", "began_ns", "owner", "process"}
)
"""Fields of what a run waits for that its digest leaves out: they are times, or said by the record
of the step.
"""

_HIDDEN = frozenset({"inputs", "output", "request", "error", "attempts", "extra", "waiting"})


def _salted(salt: bytes, value: Any) -> str:
    return hashlib.sha256(salt + canonical(value)).hexdigest()


def _moment(ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=ns // 1000)


def _counts(usage: LLMUsage) -> list[int]:
    return [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens]


def request_json(op: Any, request: Any) -> Any:
    return dict(zip(op.names, request, strict=False)) if type(request) is tuple else request


def extra_json(op: Any, extra: Any) -> dict[str, Any]:
    """``extra`` as JSON: that of a condition is the tuple (branch, values read), so that a run
    makes no dict for it.
    """
    if type(extra) is tuple:
        branch, values = extra
        return {"branch": branch, "references": op.show(values)}
    return {key: value for key, value in extra.items() if key != "children"}


def branch_of(extra: Any) -> str | None:
    """The branch that a record says its step took, in either form of ``extra``; None where it took
    none.
    """
    if type(extra) is tuple:
        return cast(str, extra[0])
    return extra.get("branch") if type(extra) is dict else None


def edge_of(extra: Any) -> str | None:
    """The same, and of a loop how it ended: the label of the edge that the step took."""
    if type(extra) is dict and "exhausted" in extra:
        return "exhausted" if extra["exhausted"] else "until"
    return branch_of(extra)


def called(record: Record) -> bool:
    """Whether a record of a model step says that a model was called."""
    error, request, usage, extra = record[4], record[5], record[9], record[10]
    if usage is not None or request is None:
        return usage is not None
    return error is None or error.kind not in _NOT_CALLED or "unmetered" in (extra or ())


_NOT_CALLED = frozenset({"budget", "refused"})
_BESIDE = frozenset(
    "children cost_source by lost settled unmetered outcome reconcile ends counted".split()
)
"""What stands beside a record and is no part of what happened: prices, people, calls that a crash
lost, and what tells how it came about.
"""


class Chain:
    """The digest of one frame as it grows: who adds each record as it is made need not keep them."""

    __slots__ = ("head",)

    def __init__(self, head: bytes = b"") -> None:
        self.head = head

    @classmethod
    def of_run(cls, program_digest: str, inputs: dict[str, Any]) -> Chain:
        """That of a run before its first step."""
        start = {"trace": TRACE_FORMAT, "program": program_digest, "inputs": inputs}
        return cls(hashlib.sha256(canonical(start)).digest())

    def add(self, record: Record, children: Sequence[bytes] | None = None) -> None:
        """Add a record in its eleven fields; *children* are the heads of a fork's frames in declared
        order, where its record does not have their records.
        """
        op, path, status, output, error, request, _, _, attempts, usage, extra = record
        body: dict[str, Any] = {
            "path": path,
            "type": op.type,
            "status": status.value,
            "output": output,
        }
        if request is not None:
            body["request"] = request_json(op, request)
        if error is not None:
            body["error"] = error.outcome()
        if attempts:
            body["attempts"] = [attempt.outcome() for attempt in attempts]
        if usage is not None:
            body["usage"] = _counts(usage)
        if extra is not None:
            told = {k: v for k, v in extra_json(op, extra).items() if k not in _BESIDE}
            if told:
                body["extra"] = told
            if children is None and type(extra) is dict and "children" in extra:
                children = [_head_of(child) for child in extra["children"]]
        if children is not None:
            body["children"] = [head.hex() for head in children]
        self.head = hashlib.sha256(self.head + canonical(body)).digest()

    def ended(
        self, status: TraceStatus, output: Any, error: str | None, waiting: Iterable[dict[str, Any]]
    ) -> str:
        """The digest of a run that ended, or waits, so."""
        known = [{k: v for k, v in entry.items() if k not in UNDIGESTED} for entry in waiting]
        last = {"status": status.value, "output": output, "error": error, "waiting": known}
        return hashlib.sha256(self.head + canonical(last)).hexdigest()


def _head_of(records: list[Any]) -> bytes:
    chain = Chain()
    for record in records:
        chain.add(record)
    return chain.head


def _levels(records: list[Any], level: int) -> Iterator[tuple[Record, int]]:
    """Each record with its depth; those of a child frame before the record that joined it, child by
    child.
    """
    for record in records:
        extra = record[10]
        if type(extra) is dict and "children" in extra:
            for child in extra["children"]:
                yield from _levels(child, level + 1)
                yield _BOUNDARY, level + 1
        yield record, level


_BOUNDARY = success(StepName("", "frame"), "", None, None, 0, 0)


def flattened(records: list[Any]) -> Iterator[Record]:
    """Each record, those of child frames before the record that joined them."""
    return (record for record, _ in _levels(records, 0) if record is not _BOUNDARY)


def _read(data: Any) -> Trace:
    """The trace that the JSON form *data* says."""
    if data["format"] != TRACE_FORMAT:
        raise ValueError(f"format {data['format']!r} is not {TRACE_FORMAT}")
    head, *middle, end = data["records"]
    if head["record"] != "run" or end["record"] != "end":
        raise ValueError("cut short")
    open_frames: dict[int, list[list[Record]]] = {}  # by level: child frames that are complete
    current: dict[int, list[Record]] = {0: []}
    for line in middle:
        level = line.get("level", 0)
        if line["record"] == "joined":
            open_frames.setdefault(level, []).append(current.pop(level, []))
            continue
        record = _read_step(line)
        if line.get("extra", {}).get("forked"):
            record[10]["children"] = open_frames.pop(level + 1, [])
        current.setdefault(level, []).append(record)
    trace = Trace(
        head["program_name"],
        str(head["program_digest"]),
        head["run_id"],
        head["seed"],
        int(head["started_ns"]),
        records=current[0],
    )
    trace._salt = bytes.fromhex(data["salt"]).hex()
    trace._signature = str(data["signature"]) if "signature" in data else None
    trace.inputs = dict(head["inputs"])
    trace._about = head.get("host")
    trace.status = TraceStatus(end["status"])
    trace.output = end["output"]
    trace.error, trace.error_kind = end.get("error"), end.get("error_kind")
    trace.finished_ns = int(end["finished_ns"])
    trace.waiting = end.get("waiting", [])
    trace.diagnostics = tuple(Diagnostic.from_dict(d) for d in end.get("diagnostics", []))
    return trace


def _read_step(line: dict[str, Any]) -> Record:
    request = line.get("request")
    return (
        StepName(line["step"], line["type"]),
        line["path"],
        StepStatus(line["status"]),
        line["output"],
        StepError.from_dict(line["error"]) if "error" in line else None,
        request,
        int(line["started_ns"]),
        int(line["finished_ns"]),
        tuple(Attempt.from_dict(attempt) for attempt in line["attempts"])
        if line.get("attempts")
        else None,
        LLMUsage.from_dict(line["usage"]) if "usage" in line else None,
        dict(line["extra"]) if "extra" in line else None,
    )


def error_text(step_id: str, error: StepError) -> str:
    """What `Trace.error` says of the step that failed the run."""
    return f"Step '{step_id}' failed: {as_text(str(error))}"
