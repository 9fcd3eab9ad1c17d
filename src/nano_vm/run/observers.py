"""What is reported of a run while it goes on: one kind of event, for observers of a VM and for streams.

Events go out in the order in which things happen in this process, from the event loop that drives
the run. What an observer does or raises never reaches the run.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from typing import Any, Protocol

from ..errors import VMError
from ..machine.machine import Machine
from ..machine.plan import Op
from ..records.record import Attempt, Record
from ..records.result import StepResult
from ..records.status import StepStatus, TraceStatus
from ..records.trace import Trace
from ..values import kind_name, short
from .host import Host

logger = logging.getLogger("nano_vm")


KINDS = frozenset(
    "run_started run_resumed run_suspended run_finished run_released step_started step_suspended "
    "step_finished attempt_failed text".split()
)
"""Of events."""


class Event:
    """Something that happened in a run, as its ``kind`` says. All observers are given the same one,
    so none may change it.

    - ``run_started``, ``run_resumed``: this process drives the run from now on; its ``trace`` names
      the program and fills while it runs.
    - ``step_started``: a call is made, or a step with others inside begins; the latter again where
      it is resumed before its end.
    - ``attempt_failed``: and another follows; ``attempt`` says when, why and what it consumed.
    - ``text``: a piece of a model's answer as the adapter streams it, without the reasoning before
      it; in a `stream` only.
    - ``step_finished``, with its ``result``; ``step_suspended``: the run waits at the step.
    - ``run_suspended``: the run waits, ``trace.waiting`` says for what; ``run_finished``;
      ``run_released``: this process drives it no longer, and others may.

    ``replayed`` marks what is computed again from records when a run is resumed or forked: the observer
    got it when it happened, and no call is made for it. ``record`` is what ``result`` is made of, at
    its first reading: that takes longer than a step.

    Examples:
        >>> from nano_vm import ExecutionVM, Program
        >>> class Printer:
        ...     def observe(self, event):
        ...         print(event.kind, event.path or "-")
        >>> program = Program.from_yaml("{name: hello, steps: [{id: a, type: set, values: {x: 1}}]}")
        >>> trace = ExecutionVM(observers=[Printer()]).run_sync(program)
        run_started -
        step_finished a
        run_finished -
    """

    # Not a frozen dataclass: the two events of a step would cost 2 us more.
    __slots__ = (
        "_notifier",
        "_op",
        "_result",
        "attempt",
        "kind",
        "path",
        "record",
        "replayed",
        "run_id",
        "step_id",
        "text",
        "trace",
        "type",
    )

    def __init__(
        self,
        kind: str,
        path: str = "",
        step_id: str = "",
        type: str = "",
        text: str | None = None,
        result: StepResult | None = None,
        trace: Any = None,
        run_id: str = "",
        attempt: Attempt | None = None,
        replayed: bool = False,
        record: Record | None = None,
        op: Any = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.kind = kind
        self.path = path
        self.step_id = step_id
        self.type = type
        self.text = text
        self.trace = trace
        self.run_id = run_id
        self.attempt = attempt
        self.replayed = replayed
        self.record = record
        self._result = result
        self._op = op
        self._notifier = notifier

    @property
    def result(self) -> Any:
        """What came of the step, of a ``step_finished`` or ``step_suspended``: a `StepResult`."""
        if self._result is None and self.record is not None:
            assert self._notifier is not None
            self._result = self._notifier.trace.recording.result(self.record)
        return self._result

    @property
    def about(self) -> dict[str, Any]:
        """The facts that the run was begun with, as `Trace.about`; not to be changed."""
        trace = self.trace if self._notifier is None else self._notifier.trace
        return trace.recording.about if trace is not None else {}

    @property
    def target(self) -> str:
        """The name of the tool or model that the step calls; empty for other steps, and for the
        default model of a host that does not name it.
        """
        if self.type != "llm":
            return getattr(self._op, "tool", "")
        model: str | None = getattr(self._op, "model", None)
        if model is None and self._notifier is not None:
            model = self._notifier.default_model
        return model or ""

    @property
    def program(self) -> str:
        """The name of the run's program."""
        trace = self.trace if self._notifier is None else self._notifier.trace
        return trace.program_name if trace is not None else ""

    @property
    def started_ns(self) -> int:
        """When the step of ``record`` was reached, in nanoseconds since the epoch."""
        assert self.record is not None
        assert self._notifier is not None
        return self.record.started_ns + self._notifier.trace.recording.base_ns

    @property
    def finished_ns(self) -> int:
        """When it ended."""
        assert self.record is not None
        assert self._notifier is not None
        return self.record.finished_ns + self._notifier.trace.recording.base_ns

    def __repr__(self) -> str:
        return f"Event({self.kind!r}, {self.path!r}, run_id={self.run_id!r})"


class Observer(Protocol):
    """Sees every run of a VM: give it by ``ExecutionVM(observers=[...])``.

    One that has an attribute ``event_kinds``, a set, receives events of those kinds only.

    Examples:
        >>> from nano_vm import ExecutionVM, Program
        >>> class Ends:
        ...     event_kinds = {"run_finished"}
        ...     def observe(self, event):
        ...         print(event.run_id, event.trace.status.value)
        >>> program = Program.from_yaml("{name: hello, steps: [{id: a, type: set, values: {x: 1}}]}")
        >>> trace = ExecutionVM(observers=[Ends()]).run_sync(program, run_id="hello-1")
        hello-1 success
    """

    def observe(self, event: Event) -> None:
        """Take an event, quickly: the run waits until this returns. One that raises is logged and
        receives nothing more of that run.
        """
        ...


def observers_of(given: Iterable[Observer]) -> tuple[Observer, ...]:
    """What a host gave, if they can be observers."""
    if not isinstance(given, Iterable):
        raise VMError(
            f"observers is a list of observers, not {short(given)}; write observers=[...]"
        )
    observers = tuple(given)
    for observer in observers:
        fault = _fault(observer)
        if fault is not None:
            raise VMError(fault)
    return observers


def _fault(observer: Any) -> str | None:
    """Why *observer* cannot be one."""
    if isinstance(observer, type):
        name = observer.__name__
        return f"observer {name} is a class; give an instance of it: observers=[{name}(...)]"
    name, observe = type(observer).__name__, getattr(observer, "observe", None)
    if not callable(observe):
        return f"{short(observer)} is not an observer: it has no method observe(event)"
    function = observe if inspect.isroutine(observe) else type(observe).__call__
    if inspect.iscoroutinefunction(observe) or inspect.iscoroutinefunction(function):
        return (
            f"{name}.observe() is a coroutine function, which nobody would await; make it a plain "
            f"one, for example one that puts the event into a queue"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return f"{name}.observe() is a generator, which nobody would iterate; remove its yield"
    kinds = getattr(observer, "event_kinds", KINDS)
    if not isinstance(kinds, (set, frozenset)) or not kinds <= KINDS:
        return f"{name}.event_kinds is {kinds!r}; it is a set of some of {sorted(KINDS)}"
    try:
        inspect.signature(observe).bind(None)
    except TypeError as error:
        return f"{name}.observe() cannot be called as observe(event): {error}"
    except ValueError:  # some builtins have no signature
        return None
    return None


def kinds_of(observer: Any) -> frozenset[str]:
    """The kinds of events that *observer* receives."""
    return getattr(observer, "event_kinds", KINDS)


class Notifier:
    """Tells *observers* of one run; with *text*, also the answers of models while they come."""

    __slots__ = ("begins", "default_model", "observers", "recording", "run_id", "text", "trace")

    def __init__(
        self,
        trace: Trace,
        observers: Iterable[Observer],
        host: Host | None = None,
        *,
        text: bool = False,
    ) -> None:
        self.trace = trace
        self.recording, self.run_id = trace.recording, trace.run_id
        self.observers = tuple((one.observe, kinds_of(one), one) for one in observers)
        self.text = text
        default = host.adapters.get(None) if host is not None else None
        self.default_model: str | None = default.model if default is not None else None
        # whether anybody wants to know that a step begins
        self.begins = any("step_started" in kinds for _, kinds, _ in self.observers)

    def run_started(self, *, resumed: bool = False) -> None:
        """This process drives the run from now on."""
        kind = "run_resumed" if resumed else "run_started"
        self._tell(Event(kind, trace=self.trace, run_id=self.trace.run_id))

    def run_left(self) -> None:
        """The run has ended, waits, or goes on elsewhere, as its trace says."""
        kind = _LEFT.get(self.trace.status, "run_finished")
        self._tell(Event(kind, trace=self.trace, run_id=self.trace.run_id))

    def run_released(self) -> None:
        """This process drives the run no longer, whatever its trace says."""
        self._tell(Event("run_released", trace=self.trace, run_id=self.trace.run_id))

    def step_started(self, machine: Machine, op: Op) -> None:
        """A call is made, or children begin."""
        self._tell(self._event("step_started", op, machine.path))

    def step_recorded(self, record: Record, *, replayed: bool) -> None:
        """A step has ended, or the run waits at it."""
        op, status = record[0], record[2]
        # hashing a member of an enum takes longer than the comparison
        waits = status is not StepStatus.SUCCESS and status in _WAITING
        kind = "step_suspended" if waits else "step_finished"
        # as `_event`, a call less for each step
        self._tell(Event(
            kind, record[1], op.step_id, op.type, None, None, None, self.run_id, None, replayed, record,
            op, self,
        ))  # fmt: skip

    def attempt_failed(self, machine: Machine, op: Op, attempt: Attempt, *, replayed: bool) -> None:
        """An attempt at the requested call failed, and another follows."""
        dated = attempt.dated(self.trace.recording.base_ns)
        self._tell(self._event("attempt_failed", op, machine.path, replayed, dated))

    def _event(
        self,
        kind: str,
        op: Any,
        path: str,
        replayed: bool = False,
        attempt: Attempt | None = None,
    ) -> Event:
        """What happened at the step of *op*. Arguments by position: by keyword they cost a third
        of a microsecond more.
        """
        return Event(
            kind, path, op.step_id, op.type, None, None, None, self.run_id, attempt, replayed, None, op,
            self,
        )  # fmt: skip

    def said(self, machine: Machine, op: Op, text: str) -> None:
        """A model said a piece of its answer."""
        run_id = self.trace.run_id
        event = Event("text", machine.path, op.step_id, "llm", text, run_id=run_id, notifier=self)
        self._tell(event)

    def _tell(self, event: Event) -> None:
        kind = event.kind
        for observe, kinds, observer in self.observers:
            if kind not in kinds:
                continue
            try:
                observe(event)
            except (KeyboardInterrupt, SystemExit):  # of the process, whoever noticed it
                raise
            except BaseException:  # a fault of the observer, and not of the run
                self.observers = tuple(one for one in self.observers if one[2] is not observer)
                logger.exception(
                    "observer %s raised at %s of run %s, and receives nothing more of it",
                    kind_name(observer),
                    kind,
                    event.run_id,
                )


_WAITING = frozenset({StepStatus.SUSPENDED, StepStatus.IN_DOUBT})
_LEFT = {TraceStatus.SUSPENDED: "run_suspended", TraceStatus.RUNNING: "run_released"}
