"""Runs in the log of the process: events come in, records of the logger ``nano_vm.runs`` go out.

Who configures no logging sees nothing of them but warnings. Each record has the ids of its run and
step, and so have, in `JsonFormatter` and by `Ids`, those that a tool writes while it is called.
"""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from ..errors import VMError
from ..records.secrecy import NOTHING_SECRET, Levels, shown_to
from ..records.status import StepStatus, TraceStatus
from ..run.observers import KINDS, Event
from ..values import short
from .redaction import Redaction, checked, content

LOGGER = "nano_vm.runs"

FIELDS = (
    "event run_id program path step_id step_type target status duration_ms retries replayed "
    "error_kind error_type error tokens cost_usd waiting_for"
).split()
"""What a record can have beside its message, in the order in which it is shown."""

_NOWHERE = ("", "")
_here: ContextVar[tuple[str, str]] = ContextVar("nano_vm_step", default=_NOWHERE)


class Logs:
    """Writes what runs do to a *logger*: their beginnings and ends at ``INFO``, their steps at
    ``DEBUG``, what fails at ``WARNING``.

    Of an error its kind and class are said; with *content* also its message, which may quote what
    was said, through *redaction*.

    Raises:
        VMError: If an argument is not of its kind.
    """

    event_kinds = KINDS - {"text"}

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        content: bool = False,
        redaction: Redaction | Any = None,
    ) -> None:
        if logger is not None and not isinstance(logger, logging.Logger):
            raise VMError(f"logger is {short(logger)}, which is no logging.Logger")
        if type(content) is not bool:
            raise VMError(f"content is true or false, not {short(content)}")
        self.logger = logger if logger is not None else logging.getLogger(LOGGER)
        self.content = content
        self.redaction = checked(redaction)
        self._levels: dict[str, Levels] = {}  # of runs in which something is secret
        self._callers: dict[str, tuple[str, str]] = {}  # a run can be begun by a tool of another

    def observe(self, event: Event) -> None:
        """Write an event of a run, if somebody wants it."""
        kind = event.kind
        if kind == "step_started":
            _here.set((event.run_id, event.path))
            self._write(logging.DEBUG, event, "step %s begins", event.path)
        elif kind in ("step_finished", "step_suspended"):
            _here.set((event.run_id, ""))
            self._step(event)
        elif kind == "attempt_failed":
            self._attempt(event)
        else:
            if kind in ("run_started", "run_resumed"):
                self._callers[event.run_id] = _here.get()
                levels = Levels.of(event.trace.recording.about)
                if levels is not None:
                    self._levels[event.run_id] = levels
                _here.set((event.run_id, ""))
            elif event.run_id in self._callers:  # one that was refused had no beginning
                _here.set(self._callers.pop(event.run_id))
            self._run(event)
            if kind in ("run_suspended", "run_finished", "run_released"):
                self._levels.pop(event.run_id, None)

    def _step(self, event: Event) -> None:
        record = event.record
        assert record is not None
        failed = record.status is StepStatus.FAILED and not event.replayed
        level = logging.WARNING if failed else logging.DEBUG
        if not self.logger.isEnabledFor(level):
            return
        told: dict[str, Any] = {
            "status": record.status.value,
            "duration_ms": (record.finished_ns - record.started_ns) / 1e6,
        }
        if record.attempts:
            told["retries"] = len(record.attempts)
        if event.replayed:
            told["replayed"] = True
        elif record.usage is not None:
            told["tokens"] = record.usage.total_tokens
            if record.usage.cost_usd is not None:
                told["cost_usd"] = str(record.usage.cost_usd)
        if record.error is not None:
            told |= self._error(event, record.error)
        self._write(level, event, "step %s: %s", event.path, record.status.value, **told)

    def _attempt(self, event: Event) -> None:
        attempt = event.attempt
        assert attempt is not None
        level = logging.DEBUG if event.replayed else logging.WARNING
        told = self._error(event, attempt.error)
        duration = (attempt.finished_ns - attempt.started_ns) / 1e6
        text = "step %s: an attempt failed (%s), another follows"
        kind = attempt.error.kind
        self._write(level, event, text, event.path, kind, duration_ms=duration, **told)

    def _run(self, event: Event) -> None:
        trace = event.trace
        if event.kind in ("run_started", "run_resumed"):
            verb = "begins" if event.kind == "run_started" else "is resumed"
            self._write(logging.INFO, event, "run %s of %s %s", event.run_id, event.program, verb)
            return
        told: dict[str, Any] = {"status": trace.status.value}
        if trace.duration_ms is not None:
            told["duration_ms"] = trace.duration_ms
        if event.kind == "run_suspended":
            told["waiting_for"] = [f"{w['kind']} at {w['path']}" for w in trace.waiting]
        if trace.error_kind is not None:
            told["error_kind"] = trace.error_kind
            if self.content and trace.error is not None:
                shown = shown_to("logs", trace)
                told["error"] = content(shown.error, self.redaction)
        level = logging.WARNING if trace.status is TraceStatus.FAILED else logging.INFO
        how = "is left to others" if event.kind == "run_released" else trace.status.value
        self._write(level, event, "run %s of %s: %s", event.run_id, event.program, how, **told)

    def _error(self, event: Event, error: Any) -> dict[str, Any]:
        told = {"error_kind": error.kind, "error_type": error.type}
        if self.content:
            levels = self._levels.get(event.run_id, NOTHING_SECRET)
            shown = levels.error("logs", event.step_id, error)
            told["error"] = content(shown.message, self.redaction)
        return told

    def _write(self, level: int, event: Event, text: str, *values: Any, **told: Any) -> None:
        if not self.logger.isEnabledFor(level):
            return
        told |= {"event": event.kind, "run_id": event.run_id, "program": event.program}
        if event.path:
            told |= {"path": event.path, "step_id": event.step_id, "step_type": event.type}
            if event.target:
                told["target"] = event.target
        self.logger.log(level, text, *values, extra=told)


class Ids(logging.Filter):
    """Gives each record ``run_id`` and ``path`` of the step whose call it is written in, where a VM
    has `Logs`; empty strings outside of calls. For a handler with a format of its own.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        run_id, path = _here.get()
        for name, value in (("run_id", run_id), ("path", path)):
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, and of `FIELDS` what it has."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        run_id, path = _here.get()
        given = {"run_id": run_id or None, "path": path or None, **vars(record)}
        for name in FIELDS:
            if given.get(name) is not None:
                line[name] = given[name]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=str)
