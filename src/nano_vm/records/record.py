"""A finished step as it is kept: `Record`, with its JSON form, which is read and written here only.

The machine appends plain tuples, made in C and never changed: of the fields of a `Record`, or of
`BRIEF` of them. `full` makes a Record of either; the few readers that meet each record of very many
runs read the tuples by index. JSON only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

from ..errors import VMError
from ..values import as_text, writable
from .status import StepStatus
from .usage import LLMUsage

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
        return f"{self.type}: {self.message}" if self.message else self.type

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
    route: dict[str, Any] | None = None
    """Of a pool, the attempts that this one was made of."""

    def outcome(self) -> dict[str, Any]:
        """What belongs into the digest."""
        result: dict[str, Any] = {"error": self.error.outcome()}
        if self.answer is not None:
            result["answer"] = self.answer
        if self.usage is not None:
            result["usage"] = self.usage.counts()
        return result

    def to_dict(self, base_ns: int = 0) -> dict[str, Any]:
        """The JSON form, as exports and stores have it; *base_ns* is added to its times."""
        usage = {} if self.usage is None else {"usage": self.usage.to_dict()}
        route = {} if self.route is None else {"route": self.route}
        return {
            **self.outcome(),
            "error": self.error.to_dict(),
            "started_ns": self.started_ns + base_ns,
            "finished_ns": self.finished_ns + base_ns,
            **usage,
            **route,
        }

    def dated(self, base_ns: int) -> Attempt:
        """The same with *base_ns* added to its times."""
        started, finished = self.started_ns + base_ns, self.finished_ns + base_ns
        return replace(self, started_ns=started, finished_ns=finished)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Attempt:
        """The inverse of `to_dict`."""
        return cls(
            StepError.from_dict(data["error"]),
            int(data["started_ns"]),
            int(data["finished_ns"]),
            LLMUsage.from_dict(data["usage"]) if "usage" in data else None,
            data.get("answer"),
            data.get("route"),
        )


class StepName(NamedTuple):
    """What a record says of its step; the machine's ops have the same attributes."""

    step_id: str
    type: str
    names: tuple[str, ...] = ()


class Record(NamedTuple):
    """A finished step; its times are monotonic.

    The request of a tool is the tuple of its argument values (their names are those of ``step``),
    that of a model its messages and options. ``extra`` of a condition is the tuple (branch, values
    read), so that a run makes no dict for it; that of a fork has the records of its frames in
    ``children``.
    """

    step: Any  # the op, or a `StepName`
    path: str
    status: StepStatus
    output: Any
    error: StepError | None
    request: Any
    started_ns: int
    finished_ns: int
    attempts: tuple[Attempt, ...] | None
    usage: LLMUsage | None
    extra: Any

    @property
    def children(self) -> list[list[Record]] | None:
        """Of a fork, the records of each of its frames in declared order."""
        extra = self.extra
        return extra.get("children") if type(extra) is dict else None

    @property
    def called(self) -> bool:
        """Of a model step, whether a model was called."""
        error, usage = self.error, self.usage
        if usage is not None or self.request is None:
            return usage is not None
        return error is None or error.kind not in _NOT_CALLED or "unmetered" in (self.extra or ())

    @property
    def beside(self) -> dict[str, Any]:
        """What is recorded beside, as JSON, without the records of children."""
        return beside_json(self.step, self.extra)

    def asked(self) -> Any:
        """The request, as JSON."""
        return request_json(self.step, self.request)

    def dated_attempts(self, base_ns: int) -> tuple[Attempt, ...]:
        """Its failed attempts, *base_ns* added to their times."""
        return tuple(attempt.dated(base_ns) for attempt in self.attempts or ())

    def to_dict(self, base_ns: int = 0, level: int = 0) -> dict[str, Any]:
        """The JSON form, without children; *base_ns* is added to its times, and *level* is how many
        frames are around its own.
        """
        line: dict[str, Any] = {
            "path": self.path,
            "step": self.step.step_id,
            "type": self.step.type,
            "status": self.status.value,
            "started_ns": self.started_ns + base_ns,
            "finished_ns": self.finished_ns + base_ns,
            "output": self.output,
        }
        if level:
            line["level"] = level
        if self.request is not None:
            line["request"] = self.asked()
        line |= self.failures(base_ns)
        if self.usage is not None:
            line["usage"] = self.usage.to_dict()
        if self.extra is not None:
            line["extra"] = self.beside
        return line

    def failures(self, base_ns: int = 0) -> dict[str, Any]:
        """Its error and its failed attempts, as JSON, where there are any."""
        told: dict[str, Any] = {}
        if self.error is not None:
            told["error"] = self.error.to_dict()
        if self.attempts:
            told["attempts"] = [attempt.to_dict(base_ns) for attempt in self.attempts]
        return told

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of `to_dict`; that of a fork has no children yet."""
        error, attempts = failures_of(data)
        return cls(
            StepName(data["step"], data["type"]),
            data["path"],
            StepStatus(data["status"]),
            data["output"],
            error,
            data.get("request"),
            int(data["started_ns"]),
            int(data["finished_ns"]),
            attempts,
            LLMUsage.from_dict(data["usage"]) if "usage" in data else None,
            dict(data["extra"]) if "extra" in data else None,
        )


def failures_of(
    data: Mapping[str, Any],
) -> tuple[StepError | None, tuple[Attempt, ...] | None]:
    """The inverse of `Record.failures`."""
    attempts = tuple(Attempt.from_dict(attempt) for attempt in data.get("attempts", ()))
    error = StepError.from_dict(data["error"]) if "error" in data else None
    return error, attempts or None


BRIEF = 6
"""Fields of the tuple of a tool's first success: index of the op, output, request, ``started_ns``,
``finished_ns``, and the path, None where it is the op's own. An index and not the op, so that it
holds nothing that the garbage collector tracks, and is soon not tracked itself.
"""

_SUCCESS = StepStatus.SUCCESS  # asked of the class it takes five times as long
_record = tuple.__new__  # of a tuple of all fields, at half the price of a call of `Record`


def full(record: Any, ops: Sequence[Any]) -> Record:
    """A tuple of the machine, or a Record, as a Record, and so those of its children; *ops* are
    those of the plan.
    """
    if len(record) == BRIEF:
        at, output, request, started, finished, path = record
        op = ops[at]
        if path is None:
            path = op.path
        fields = (op, path, _SUCCESS, output, None, request, started, finished, None, None, None)
        return _record(Record, fields)
    extra = record[10]
    if type(extra) is dict and "children" in extra:
        children = [[full(inner, ops) for inner in child] for child in extra["children"]]
        return _record(Record, (*record[:10], {**extra, "children": children}))
    return record if type(record) is Record else _record(Record, record)


def request_json(step: Any, request: Any) -> Any:
    """What was asked of *step*, as JSON."""
    return dict(zip(step.names, request, strict=False)) if type(request) is tuple else request


def beside_json(step: Any, extra: Any) -> dict[str, Any]:
    """What is recorded beside *step*, as JSON, without the records of children."""
    if extra is None:
        return {}
    if type(extra) is tuple:
        branch, values = extra
        return {"branch": branch, "references": step.show(values)}
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


_NOT_CALLED = frozenset({"budget", "refused"})


def levels(records: Iterable[Record], level: int = 0) -> Iterator[tuple[Record | None, int]]:
    """Each record with how many frames are around its own; those of a child frame before the record
    that joined it, child by child, with None behind the last of each.
    """
    for record in records:
        extra = record.extra
        if type(extra) is dict and "children" in extra:
            for child in extra["children"]:
                yield from levels(child, level + 1)
                yield None, level + 1
        yield record, level


def flattened(records: Iterable[Record]) -> list[Record]:
    """Each record, those of child frames before the record that joined them."""
    found: list[Record] = []
    for record in records:
        extra = record.extra
        if type(extra) is dict and "children" in extra:
            for child in extra["children"]:
                found += flattened(child)
        found.append(record)
    return found


def error_text(step_id: str, error: StepError) -> str:
    """What `Trace.error` says of the step that failed the run."""
    return f"Step '{step_id}' failed: {as_text(str(error))}"


def step_of(path: str) -> str:
    """The id of the step that *path* leads to; ``x/undo`` and ``x/reconcile`` where it is a call
    beside step x. A path alone does not tell that from a step of that id inside x, but in an item.
    """
    if path.isidentifier():  # as most: it is nested in nothing
        return path
    *before, last = path.split("/")
    name = last.partition("#")[0].partition("[")[0]
    if name in ("undo", "reconcile") and before and not before[-1].endswith("]"):
        return f"{before[-1].partition('#')[0]}/{name}"
    return name
