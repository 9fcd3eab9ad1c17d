"""What is told of a run while it goes on: one kind of event, for observers of a VM and for streams.

Events go out in the order in which things happen in this process, from the event loop that drives
the run. What an observer does or raises never reaches the run.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import VMError
from ..machine.machine import Machine
from ..machine.plan import Op
from ..records.trace import Attempt, Record, StepResult, StepStatus, Trace, TraceStatus
from ..values import kind_name

logger = logging.getLogger("nano_vm")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run, as its ``kind`` says.

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

    ``replayed`` marks what is computed again from records when a run is resumed or forked: it was
    told when it happened, and no call is made for it.
    """

    kind: str
    path: str = ""
    step_id: str = ""
    type: str = ""
    text: str | None = None
    result: Any = None
    trace: Any = None
    run_id: str = ""
    attempt: Attempt | None = None
    replayed: bool = False


class Observer(Protocol):
    """Sees every run of a VM: give it by ``ExecutionVM(observers=[...])``."""

    def observe(self, event: Event) -> None:
        """Take an event, quickly: the run waits until this returns. One that raises is logged and
        told nothing more of that run.
        """
        ...


def observers_of(given: Iterable[Observer]) -> tuple[Observer, ...]:
    """What a host gave, if they can be observers."""
    observers = tuple(given)
    for observer in observers:
        observe = getattr(observer, "observe", None)
        if not callable(observe):
            raise VMError(
                f"{kind_name(observer)} is not an observer: it has no method observe(event)"
            )
        if inspect.iscoroutinefunction(observe):
            raise VMError(
                f"{kind_name(observer)}.observe() is a coroutine function, which nobody would "
                f"await; make it a plain one, for example one that puts the event into a queue"
            )
    return observers


class Notifier:
    """Tells *observers* of one run; with *text*, also the answers of models while they come."""

    __slots__ = ("observers", "text", "trace")

    def __init__(self, trace: Trace, observers: Iterable[Observer], *, text: bool = False) -> None:
        self.trace = trace
        self.observers = list(observers)
        self.text = text

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
        self._tell(
            Event("step_started", machine.path, op.step_id, op.type, run_id=self.trace.run_id)
        )

    def result(self, record: Record) -> StepResult:
        """A record of this run as it is told."""
        return self.trace._result(record)

    def step_recorded(self, result: StepResult, *, replayed: bool) -> None:
        """A step has ended, or the run waits at it."""
        self._tell(
            Event(
                "step_suspended" if result.status in _WAITING else "step_finished",
                result.path,
                result.step_id,
                result.type,
                result=result,
                run_id=self.trace.run_id,
                replayed=replayed,
            )
        )

    def attempt_failed(self, machine: Machine, op: Op, attempt: Attempt, *, replayed: bool) -> None:
        """An attempt at the requested call failed, and another follows."""
        self._tell(
            Event(
                "attempt_failed",
                machine.path,
                op.step_id,
                op.type,
                run_id=self.trace.run_id,
                attempt=self.trace._dated((attempt,))[0],
                replayed=replayed,
            )
        )

    def said(self, machine: Machine, op: Op, text: str) -> None:
        """A model said a piece of its answer."""
        self._tell(Event("text", machine.path, op.step_id, "llm", text, run_id=self.trace.run_id))

    def _tell(self, event: Event) -> None:
        for observer in tuple(self.observers):
            try:
                observer.observe(event)
            except Exception:  # a fault of the observer, and not of the run
                self.observers.remove(observer)
                logger.exception(
                    "observer %s raised at %s of run %s, and is told nothing more of it",
                    kind_name(observer),
                    event.kind,
                    event.run_id,
                )


_WAITING = frozenset({StepStatus.SUSPENDED, StepStatus.IN_DOUBT})
_LEFT = {TraceStatus.SUSPENDED: "run_suspended", TraceStatus.RUNNING: "run_released"}
