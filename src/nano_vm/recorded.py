"""Outcomes as they were recorded, handed to a machine again. No call is made, nothing is written.

Records come in; the requests of a machine are answered from them, so that it computes the same run once more: to check it
(`replay`), to go on from where it stopped (`durable`), or to do without calls what did not change (fork). Control flow is never taken
from a record: only what came back from outside is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .ledger import token_bound
from .machine import Machine
from .outcomes import UNKNOWN_OUTCOME
from .plan import END, FORK, MODEL, PAUSE, TOOL, Op
from .trace import Record, StepError, StepStatus
from .values import UNSET

_DOUBT = "; whether "
_SPOILED = frozenset({"ValueRefused", "LimitExceeded"})


def path_of(machine: Machine, op: Op) -> str:
    """The path of the requested call; on the short way from tool to tool a machine does not keep it."""
    return op.path if machine.static and op.path is not None else machine.path


class Recorded:
    """The records of a run by path; each answers its step once, attempt by attempt. *base_ns* is subtracted from their times."""

    def __init__(self, records: Iterable[Record], base_ns: int = 0) -> None:
        self.by_path: dict[str, Record] = {record[1]: record for record in records if record[0].type in _OUTSIDE}
        self.base_ns = base_ns
        self._attempt: dict[str, int] = {}
        self._used: set[str] = set()

    def feed(self, machine: Machine, op: Op) -> Op | None:
        """The request that follows what the record of the requested call says; None where there is no record of it."""
        path = path_of(machine, op)
        record = self.by_path.get(path)
        if record is None:
            return None
        base = self.base_ns
        attempts = record[8] or ()
        number = self._attempt.get(path, 0)
        if op.code == MODEL and machine.reserves:
            machine.reserve(token_bound(machine.messages))
        if number < len(attempts):
            self._attempt[path] = number + 1
            attempt = attempts[number]
            now = attempt.finished_ns - base
            if attempt.answer is not None:
                following = machine.answer(attempt.answer, attempt.usage, now)
            else:
                following = machine.fail(attempt.error, now)
            machine.delay_seconds = 0.0
            return following
        self._used.add(path)
        following = self._last(machine, op, record)
        machine.delay_seconds = 0.0
        return following

    def _last(self, machine: Machine, op: Op, record: Record) -> Op:
        """The outcome that decided the step."""
        _, path, status, output, error, request, _, finished, _, usage, extra = record
        now = finished - self.base_ns
        extra = extra if type(extra) is dict else {}
        if status is StepStatus.CANCELLED:
            return machine.cancel(now, called=op.code != TOOL or not op.unsafe)  # type: ignore[attr-defined]
        if op.code == PAUSE:
            return self._pause(machine, op, record, extra, now)
        if op.code == MODEL:
            if status is StepStatus.SUCCESS or (error is not None and error.kind == "invalid_answer"):
                text = str(extra.get("answer", output))
                told = {key: extra[key] for key in ("model", "finish_reason", "cost_source") if key in extra}
                return machine.answer(text, usage, now, told)
            assert error is not None
            refused = usage is not None and not usage.total_tokens
            return machine.fail(
                StepError(error.kind, error.type, error.message, error.kind == "model" and not refused), now
            )
        return self._tool(machine, op, path, status, output, error, request, now)

    def _tool(
        self,
        machine: Machine,
        op: Any,
        path: str,
        status: StepStatus,
        output: Any,
        error: StepError | None,
        request: Any,
        now: int,
    ) -> Op:
        asked = self._asked(op, path)
        if status is StepStatus.IN_DOUBT:
            assert error is not None
            if error.type == "CancelledError":
                return machine.cancel(now, called=True)
            message, _, rest = error.message.partition(_DOUBT)
            _, then, last = rest.partition("; then: ")
            if then:
                kind, _, text = last.partition("; its reconcile")[0].partition(": ")
                return machine.fail(StepError("tool", kind, text, False), now)
            return machine.fail(StepError("in_doubt", error.type, message, False), now)
        if asked:  # its outcome was not known, and its reconcile told it
            kind = error.kind if error is not None and error.kind in UNKNOWN_OUTCOME else "timeout"
            known = error or StepError("timeout", "TimeoutError", "")
            self._used.discard(path)
            return machine.fail(StepError(kind, known.type, known.message), now)
        if status is StepStatus.SUCCESS or (error is None and output is not UNSET):
            return machine.resume(output, now)
        assert error is not None
        if request is None:
            return machine.refuse(error, now)
        if error.type in _SPOILED:
            return machine.spoil(error, now)
        return machine.fail(StepError(error.kind, error.type, error.message, False), now)

    def _asked(self, op: Any, path: str) -> bool:
        """Whether a reconcile of the call is recorded that was not asked for yet."""
        if op.reconcile is None:
            return False
        base, number = f"{path}/reconcile", 1
        while True:
            name = base if number == 1 else f"{base}#{number}"
            if name not in self.by_path:
                return False
            if name not in self._used:
                return True
            number += 1

    @staticmethod
    def _pause(machine: Machine, op: Op, record: Record, extra: dict[str, Any], now: int) -> Op:
        _, _, status, output, error, *_ = record
        by = extra.get("by")
        if status is StepStatus.SUSPENDED:
            return machine.suspend(now)
        if error is not None:
            return machine.lapse(error, by, now)
        if op.asks:  # type: ignore[attr-defined]
            return machine.decide(output["approved"], output["reason"], by, now)
        return machine.arrive(output, now)


_OUTSIDE = frozenset({"tool", "llm", "approval", "wait"})


class Missing(Exception):
    """A machine asks for a call at ``path`` that is not recorded."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def play(machine: Machine, recorded: Recorded, forks: dict[str, Record], now: int) -> None:
    """Drive *machine* through all that is recorded; *forks* are the records of forks by path, where they ended.

    Raises:
        Missing: At the first call that is not recorded.
    """
    op = machine.start(now)
    while op.code != END:
        if op.code == FORK:
            path = path_of(machine, op)
            record = forks.get(path)
            count, finished = machine.fork_size, machine.now
            if record is not None:
                count, finished = min(count, len(record[10]["children"])), record[7] - recorded.base_ns
            for number in range(count):
                child = machine.child(number)
                play(child, recorded, forks, machine.now)
                machine.now = max(machine.now, child.now)
            stopped = record is not None and record[2] is StepStatus.CANCELLED
            op = machine.cancel(finished) if stopped else machine.join(max(finished, machine.now))
        else:
            following = recorded.feed(machine, op)
            if following is None:
                raise Missing(path_of(machine, op))
            op = following
