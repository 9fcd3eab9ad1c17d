"""`StepResult`: a finished step as users see it, made of its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ..values import copied
from .record import Attempt, Record
from .status import StepStatus
from .usage import LLMUsage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StepResult:
    """One finished step of a run.

    ``path`` is its identity in the run (``items[3]/classify``), ``request`` what was asked of a
    tool or model, ``references`` what a condition read and ``branch`` where it went (``unless`` for
    a step that its `when` skipped; what a `when` read that held is ``extra["when"]``), ``retries``
    the number of failed attempts before the last, ``duration_ms`` the time from being reached to
    its end, with waits between attempts.

    Examples:
        >>> from nano_vm import ExecutionVM, Program
        >>> program = Program.from_yaml("{name: hello, steps: [{id: a, type: set, values: {x: 1}}]}")
        >>> result = ExecutionVM().run_sync(program).steps[0]
        >>> result.path, result.type, result.output
        ('a', 'set', {'x': 1})
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
        shown = shown_as(mode)
        usage = None if self.usage is None else self.usage.to_dict()
        return {
            "step_id": self.step_id,
            "status": self.status.value,
            "output": copied(self.output),
            "error": self.error,
            "retries": self.retries,
            "usage": usage,
            "started_at": shown(self.started_at),
            "finished_at": shown(self.finished_at),
            "duration_ms": self.duration_ms,
        }

    @property
    def reasoning(self) -> str | None:
        """What the model thought before its answer, where the provider or the answer showed it."""
        return self.extra.get("reasoning")

    @property
    def cost_source(self) -> str | None:
        """Where ``usage.cost_usd`` comes from: ``prices`` of the host, or the ``adapter``."""
        return self.extra.get("cost_source")


def result_of(record: Record, base_ns: int) -> StepResult:
    """*record* as users see it; *base_ns* added to its times gives nanoseconds since the epoch."""
    step, path, status, output, error, _, started, finished, attempts, usage, _ = record
    beside = record.beside
    return StepResult(
        step_id=step.step_id,
        status=status,
        output=copied(output),
        error=str(error) if error is not None else None,
        retries=len(attempts) if attempts else 0,
        usage=usage,
        started_at=moment(started + base_ns),
        finished_at=moment(finished + base_ns),
        duration_ms=(finished - started) / 1e6,
        path=path,
        type=step.type,
        error_kind=error.kind if error is not None else None,
        request=copied(record.asked()),
        attempts=record.dated_attempts(base_ns),
        references=beside.get("references"),
        branch=beside.get("branch"),
        extra=beside,
    )


def moment(ns: int) -> datetime:
    """Nanoseconds since the epoch, as UTC."""
    return _EPOCH + timedelta(microseconds=ns // 1000)


def shown_as(mode: str) -> Callable[[datetime | None], Any]:
    """What `model_dump` makes of a time: for JSON a string."""
    return _iso if mode == "json" else _same


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _same(moment: datetime | None) -> datetime | None:
    return moment
