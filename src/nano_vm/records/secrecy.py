"""What of a run may be shown to whom: the labels of its fields, which follow from its program and are
kept with it, and a run without what a receiver does not accept.

The facts that a run was begun with and a field of it come in; its labels, or a copy of the record
or trace without what is hidden, go out. Whoever shows, exports or sends what was said in a run asks
here. A value is hidden as a whole: labels are of names, and nothing is looked for in values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..diagnostics import Diagnostic, summary
from .record import Attempt, Record, StepError, step_of
from .recording import Recording
from .result import StepResult
from .status import StepStatus
from .trace import Trace

REDACTED = "[redacted]"

WAITED_FOR = frozenset({"request", "arguments", "until", "seconds"})
"""Of what a run waits for, what it asked of nobody: of a call in doubt, and of a time."""


def redacted(value: Any) -> str | None:
    """What is shown of *value* to whoever may not see it: that it is there."""
    return None if value is None else REDACTED


Labels = frozenset[str]
Field = Literal["output", "request", "error"]
FIELDS: tuple[Field, ...] = ("output", "request", "error")
"""Of a step: what it gave; what it asked, read and was decided by; what went wrong, with all that
was answered on the way.
"""

QUOTING = "V041"
"""The code of the faults that quote inputs."""

Receiver = Literal["output", "errors", "show", "export", "pages", "telemetry", "logs"]


@dataclass(frozen=True, slots=True)
class Levels:
    """The labels of a run's fields: of its inputs, of each step by its id, of its output and of what
    went wrong as that was computed; and who accepts which.
    """

    inputs: Mapping[str, Labels] = field(default_factory=dict)
    steps: Mapping[str, Mapping[str, Labels]] = field(default_factory=dict)
    output: Labels = frozenset()
    output_error: Labels = frozenset()
    accepts: Mapping[str, Labels] = field(default_factory=dict)

    @classmethod
    def of(cls, about: Any) -> Levels | None:
        """Those of a run that was begun with the facts *about*; None where nothing in it is
        secret, or these were erased.
        """
        found = about.get("secrecy") if isinstance(about, Mapping) else None
        if not isinstance(found, dict):
            return None
        return cls(
            _labels(found.get("inputs")),
            {step: _labels(fields) for step, fields in found.get("steps", {}).items()},
            frozenset(found.get("output", ())),
            frozenset(found.get("output_error", ())),
            _labels(found.get("accepts")),
        )

    @classmethod
    def all_hidden(cls, inputs: Iterable[str], step_ids: Iterable[str]) -> Levels:
        """Those by which nothing that was said in a run is shown to anybody."""
        hidden = frozenset({"withheld"})
        fields = dict.fromkeys(map(str, FIELDS), hidden)
        steps = dict.fromkeys(step_ids, fields)
        return cls(dict.fromkeys(inputs, hidden), steps, hidden, hidden)

    @property
    def known(self) -> Labels:
        """All labels that anything of the run has."""
        found = (self.of_run(field) for field in ("inputs", "output", "error", "waiting"))
        return frozenset().union(*found)

    def hides(self, receiver: Receiver, labels: Iterable[str]) -> bool:
        """Whether *receiver* does not accept all of *labels*."""
        return not self.accepts.get(receiver, frozenset()).issuperset(labels)

    def level(self, step_id: str, field: Field) -> Labels:
        """The labels of a *field* of a step. ``x/undo`` may be a step of that id inside x, too; a
        step that the run's program does not have may hold all that is secret in it.
        """
        ids = {step_id, step_id.rpartition("/")[2]}
        found = [self.steps[one] for one in ids if one in self.steps]
        if not found:
            return self.known
        return frozenset().union(*(one.get(field, frozenset()) for one in found))

    def _labelled(self, step_id: str) -> bool:
        """Whether anything of a step has a label."""
        return any(self.level(step_id, field) for field in FIELDS)

    def input(self, receiver: Receiver, name: str, value: Any) -> Any:
        """An input as *receiver* is shown it."""
        return REDACTED if self.hides(receiver, self.inputs.get(name, ())) else value

    def inputs_for(self, receiver: Receiver, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """All inputs as *receiver* is shown them."""
        return {name: self.input(receiver, name, value) for name, value in inputs.items()}

    def run_output(self, receiver: Receiver, value: Any) -> Any:
        """The output of the run as *receiver* is shown it."""
        return redacted(value) if self.hides(receiver, self.output) else value

    def shown(self, receiver: Receiver, step_id: str, field: Field, value: Any) -> Any:
        """A *field* of a step as *receiver* is shown it; what is not there stays so."""
        return redacted(value) if self.hides(receiver, self.level(step_id, field)) else value

    def error(self, receiver: Receiver, step_id: str, error: StepError) -> StepError:
        """What went wrong in a step, its message as *receiver* is shown it."""
        if not self.hides(receiver, self.level(step_id, "error")):
            return error
        return replace(error, message=REDACTED)

    def attempt(self, receiver: Receiver, step_id: str, attempt: Attempt) -> Attempt:
        """A failed attempt of a step, likewise."""
        if self is NOTHING_SECRET or not self.hides(receiver, self.level(step_id, "error")):
            return attempt
        error = replace(attempt.error, message=REDACTED)
        return replace(attempt, error=error, answer=redacted(attempt.answer), route=None)

    def record(self, receiver: Receiver, record: Record) -> Record:
        """*record* as *receiver* is shown it, with those of its children."""
        if self is NOTHING_SECRET:  # of most runs, each record of which telemetry asks about
            return record
        step_id = record.step.step_id
        extra = record.extra
        if type(extra) is dict and "children" in extra:
            children = [
                [self.record(receiver, one) for one in child] for child in extra["children"]
            ]
            extra = {**extra, "children": children}
        if not self._labelled(step_id):
            return record._replace(extra=extra)
        request = record.asked()
        if self.hides(receiver, self.level(step_id, "request")):
            request = redacted(request)
            extra = _beside(extra)
        attempts, error = record.attempts or (), record.error
        return record._replace(
            output=self.shown(receiver, step_id, "output", record.output),
            error=error if error is None else self.error(receiver, step_id, error),
            request=request,
            attempts=tuple(self.attempt(receiver, step_id, one) for one in attempts) or None,
            extra=extra,
        )

    def result(self, receiver: Receiver, step: StepResult) -> StepResult:
        """A finished step of the run as *receiver* is shown it."""
        if self is NOTHING_SECRET or not self._labelled(step.step_id):
            return step
        hidden = self.hides(receiver, self.level(step.step_id, "request"))
        error = self.shown(receiver, step.step_id, "error", step.error)
        attempts = tuple(self.attempt(receiver, step.step_id, one) for one in step.attempts)
        return replace(
            step,
            output=self.shown(receiver, step.step_id, "output", step.output),
            error=error,
            attempts=attempts,
            request=redacted(step.request) if hidden else step.request,
            references=None if hidden else step.references,
            extra=_beside(step.extra) if hidden else step.extra,
        )

    def waiting(self, receiver: Receiver, entry: Mapping[str, Any]) -> dict[str, Any]:
        """What a run waits for, without the arguments of a call in doubt, and the time, that *receiver*
        does not accept. What a person is shown, and what an event is found by, their own rules accept.
        """
        step_id = step_of(str(entry.get("path", "")))
        hidden = self.hides(receiver, self.level(step_id, "request"))
        return {
            name: REDACTED if hidden and name in WAITED_FOR else value
            for name, value in entry.items()
        }

    def run_error(self, receiver: Receiver, recording: Recording) -> str | None:
        """The error of a run as *receiver* is shown it: that of the step that failed it last, or is in
        doubt, or of its output; of one that was refused what is wrong with it.
        """
        if recording.error is None:
            return None
        faults = self.faults(receiver, recording.diagnostics)
        if faults != recording.diagnostics:
            return summary(faults)
        failed = [step for step in recording.results() if step.status in _WENT_WRONG]
        found = [self.level(step.step_id, "error") for step in failed]
        if not _by_step(recording):
            found.append(self.output_error)
        return REDACTED if any(self.hides(receiver, one) for one in found) else recording.error

    def faults(self, receiver: Receiver, found: tuple[Diagnostic, ...]) -> tuple[Diagnostic, ...]:
        """Why a run was refused as *receiver* is shown it: a fault of inputs quotes them."""
        if not self.hides(receiver, self.of_run("inputs")):
            return found
        return tuple(
            replace(fault, message=f"an input does not fit: {REDACTED}")
            if fault.code == QUOTING
            else fault
            for fault in found
        )

    def any_error(self, receiver: Receiver, error: Any) -> Any:
        """The error of a run whose steps are not at hand: hidden where that of any step is, or that
        of its output.
        """
        return REDACTED if self.hides(receiver, self.of_run("error")) else error

    def of_run(self, field: str) -> Labels:
        """The labels of a field of the run itself; what it waits for is a part of its steps."""
        steps = self.steps.values()
        match field:
            case "inputs":
                return frozenset().union(*self.inputs.values())
            case "output":
                return self.output
            case "error":
                errors = (fields.get("error", frozenset()) for fields in steps)
                return self.output_error.union(*errors)
            case "waiting":
                return frozenset().union(*(found for one in steps for found in one.values()))
        return frozenset()


NOTHING_SECRET = Levels()


_WENT_WRONG = frozenset({StepStatus.FAILED, StepStatus.IN_DOUBT})


def _by_step(recording: Recording) -> bool:
    """Whether a step failed the run, and nothing behind its last."""
    own = [record for record in recording.full() if not record.step.step_id.endswith(_BESIDE)]
    last = own[-1] if own else None
    return last is not None and last.status in _WENT_WRONG and "caught" not in last.beside


_BESIDE = ("/undo", "/reconcile")


def _labels(data: Any) -> dict[str, Labels]:
    if not isinstance(data, dict):
        return {}
    return {str(name): frozenset(map(str, labels)) for name, labels in data.items()}


_KEPT = frozenset(
    "branch children exhausted iterations default caught failed skipped forked lost settled by "
    "model finish_reason cost_source unmetered last_cost_usd".split()
)
"""What stands beside a record and follows from its way, not from values."""


def _beside(extra: Any) -> Any:
    """What stands beside a record, without what was read and answered."""
    if type(extra) is tuple:
        branch, _ = extra
        return {"branch": branch}
    if type(extra) is not dict:
        return extra
    return {name: value for name, value in extra.items() if name in _KEPT}


def levels_of(trace: Trace) -> Levels:
    """The labels of the fields of the run of *trace*."""
    return Levels.of(trace.recording.about) or NOTHING_SECRET


def error_of(receiver: Receiver, trace: Trace) -> str | None:
    """The error of the run of *trace* as *receiver* is shown it."""
    return levels_of(trace).run_error(receiver, trace.recording)


def shown_to(receiver: Receiver, trace: Trace, levels: Levels | None = None) -> Trace:
    """*trace* as *receiver* is shown it, by its own levels unless others are given; itself, where
    nothing in it is secret. Its digest and seal are those of the whole.
    """
    recording = trace.recording
    levels = levels or Levels.of(recording.about)
    if levels is None:
        return trace
    copy = Recording(
        recording.program_name,
        recording.program,
        recording.run_id,
        recording.given_seed,
        recording.started_ns,
        recording.base_ns,
        recording.salt,
        recording.about,
        None,
        [levels.record(receiver, record) for record in recording.full()],
    )
    copy.inputs = levels.inputs_for(receiver, recording.inputs)
    copy.status, copy.finished_ns = recording.status, recording.finished_ns
    copy.error, copy.error_kind = levels.run_error(receiver, recording), recording.error_kind
    copy.waiting = [levels.waiting(receiver, entry) for entry in recording.waiting]
    copy.diagnostics = levels.faults(receiver, recording.diagnostics)
    copy.erased, copy.given_signature = recording.erased, recording.given_signature
    copy.output = levels.run_output(receiver, recording.output)
    copy.whole = recording
    return Trace(copy)
