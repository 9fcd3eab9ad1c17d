"""Random outcomes for the requests of a machine: values, answers, errors, timeouts, cancellation,
orders of children.

What a call gets follows from (seed of the run, path, attempt) alone, so that the order in which the
children of a fork run can be drawn too, and must not matter. A run has moods: how often calls fail,
whether it is cancelled, whether texts carry marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from random import Random
from typing import Any

from nano_vm.machine.faults import NOTHING_USED
from nano_vm.machine.machine import Machine
from nano_vm.machine.outcome import (
    Answer,
    Arrived,
    Cancelled,
    Decided,
    Failed,
    NotCalled,
    Suspended,
    TimedOut,
    Unknown,
    Value,
)
from nano_vm.machine.plan import MODEL, PAUSE, TOOL
from nano_vm.records.record import StepError
from nano_vm.records.usage import LLMUsage

from .programs import KINDS, WORDS, YES_NO

MARK = re.compile(r"~\w+~")
ERRORS = [
    ("tool", "Oops", True),
    ("tool", "ValueError", True),
    ("rate_limit", "RateLimitError", True),
    ("tool", "Oops", False),
    ("limit", "LimitExceeded", False),
    ("in_doubt", "ConnectionError", False),
    ("refused", "Refused", False),
]
MODEL_ERRORS = [
    ("model", "ModelError", True),
    ("rate_limit", "RateLimitError", True),
    ("model", "ModelError", False),
    ("truncated", "TruncatedAnswer", False),
    ("filtered", "FilteredAnswer", False),
]


class Outcomes:
    """A feed for `simulate`, and the order of children; keeps what was asked."""

    def __init__(
        self,
        seed: int,
        *,
        marks: frozenset[str] | None = None,
        pure: frozenset[str] = frozenset(),
        cancel: float = 0.12,
        most: int = 5_000,
    ) -> None:
        """*marks* are tools whose texts carry marks, *pure* those whose results are made of their
        arguments.
        """
        mood = Random(seed)
        self.seed = seed
        self.errors = mood.choice((0.0, 0.0, 0.08, 0.3))
        self.timeouts = mood.choice((0.0, 0.3, 1.0))
        self.cancel_at = mood.randint(1, 12) if mood.random() < cancel else -1
        self.reorder = mood.random() < 0.5
        self.marks, self.pure = marks, pure
        self.asked = 0
        self.most = most
        self.cancelled = False
        # path, kind, tool or model, keywords
        self.calls: list[tuple[str, str, str, dict[str, Any]]] = []
        self.uncalled: set[str] = set()
        self.chosen: list[tuple[str, str]] = []  # path, what it got, for people
        self.tokens = [0, 0]
        self.path = ""
        self.attempts: dict[str, int] = {}

    def order(self, machine: Machine, op: Any) -> Iterable[int]:
        """The children of a fork, in a drawn order; after a cancellation the rest is not started,
        or is and cancelled.
        """
        numbers = list(range(machine.fork.size))
        if self.reorder:
            Random(f"{self.seed}/{machine.path}").shuffle(numbers)
        for number in numbers:
            if self.cancelled and self.seed % 2:
                return
            yield number

    def __call__(self, machine: Machine, op: Any) -> Any:
        self.asked += 1
        if self.asked > self.most:
            raise AssertionError("the run does not end")
        aside = op.step_id.endswith(("/undo", "/reconcile"))
        path = self.path = machine.path
        attempt = self.attempts[path] = self.attempts.get(path, 0) + 1
        rng = Random(f"{self.seed}/{path}/{attempt}")
        if not aside and (self.cancelled or self.asked == self.cancel_at):
            self.cancelled = True
            called = rng.random() < 0.5
            if called:
                self.note(machine, op, "cancelled while under way")
            else:
                self.uncalled.add(path)
                self.chosen.append((path, "cancelled before it began"))
            return machine.resume(Cancelled(called=called), machine.now)
        if op.code == TOOL:
            return self.tool(machine, op, rng, op.step_id.endswith("/reconcile"))
        if op.code == MODEL:
            return self.model(machine, op, rng)
        assert op.code == PAUSE
        return self.pause(machine, op, rng)

    def note(self, machine: Machine, op: Any, what: str) -> None:
        self.chosen.append((self.path, what))
        if op.code == TOOL:
            self.calls.append((self.path, "tool", op.tool, dict(machine.keywords)))
        elif op.code == MODEL:
            self.calls.append(
                (self.path, "model", op.model or "default", {"messages": machine.messages})
            )

    def tool(self, machine: Machine, op: Any, rng: Random, reconcile: bool) -> Any:
        if rng.random() < self.errors:
            if rng.random() < 0.3 * self.timeouts:
                self.note(machine, op, "timeout")
                return machine.resume(TimedOut(), machine.now)
            if not reconcile and not op.step_id.endswith("/undo") and rng.random() < 0.15:
                if op.unsafe and rng.random() < 0.5:
                    self.note(machine, op, "begun by an owner that is gone")
                    return machine.resume(
                        Unknown(StepError("in_doubt", "Lost", "lost", False)), machine.now
                    )
                if self.attempts[self.path] == 1:
                    self.chosen.append((self.path, "not called"))
                    return machine.resume(
                        NotCalled(StepError("limit", "Refused", "not called", False)), machine.now
                    )
            kind, name, retryable = rng.choice(ERRORS)
            self.note(machine, op, f"error {kind} {name}")
            return machine.resume(
                Failed(StepError(kind, name, self.message(self.path), retryable)), machine.now
            )
        value: Any
        if reconcile and rng.random() < 0.85:
            done = rng.random() < 0.6
            value = (
                {"done": True, "output": self.value(rng, op.tool, machine)}
                if done
                else {"done": False}
            )
        else:
            value = self.value(rng, op.tool, machine)
        self.note(machine, op, f"returns {json.dumps(value)}")
        return machine.resume(Value(value), machine.now)

    def message(self, path: str) -> str:
        """What an error says: text from outside, whichever tool raises it."""
        return (
            "failed"
            if self.marks is None
            else f"failed ~{Random(f'{self.seed}/{path}/error').randrange(1 << 30)}~"
        )

    def value(self, rng: Random, tool: str, machine: Machine) -> Any:
        if tool == "look":
            return rng.random() < 0.5
        if tool == "sort":
            return rng.choice(KINDS)
        if tool in self.pure:
            marks = MARK.findall(
                json.dumps({k: v for k, v in machine.keywords.items() if k != "idempotency_key"})
            )
            return rng.choice(WORDS) + "".join(marks)
        plain = rng.choice((True, False, 0, 1, 2, 3, *WORDS, *WORDS))
        if self.marks is not None and tool in self.marks:
            mark = f"~{rng.randrange(1 << 30)}~"
            return rng.choice(
                (mark, f"yes{mark}", {"v": mark, "ok": True}, [mark, "yes"], [mark, mark], plain)
            )
        if rng.random() < 0.2:
            return rng.choice(([], ["yes"], ["no", 1], [1, 2, 3], {"v": plain, "ok": True}))
        return plain

    def model(self, machine: Machine, op: Any, rng: Random) -> Any:
        if rng.random() < self.errors * 0.7:
            if rng.random() < 0.3:
                self.note(machine, op, "timeout")
                return machine.resume(TimedOut(), machine.now)
            kind, name, retryable = rng.choice(MODEL_ERRORS)
            self.note(machine, op, f"error {kind}")
            billed = rng.choice((None, NOTHING_USED, LLMUsage(2, 1, 3)))
            self.tokens[0] += billed.prompt_tokens if billed is not None else 0
            self.tokens[1] += billed.completion_tokens if billed is not None else 0
            return machine.resume(
                Failed(StepError(kind, name, self.message(self.path), retryable), billed),
                machine.now,
            )
        invalid = rng.random() < self.errors
        echo = "".join(MARK.findall(json.dumps(machine.messages))) if self.marks is not None else ""
        if invalid and (op.allowed is not None or op.schema is not None):
            text = "{" + echo
        elif op.allowed is not None:
            text = rng.choice(op.allowed)
        elif op.schema is not None:
            text = json.dumps(
                {
                    "ok": rng.random() < 0.5,
                    "kind": rng.choice(KINDS),
                    "n": rng.randrange(4),
                    "text": rng.choice(WORDS) + echo,
                }
            )
        else:
            text = rng.choice((*YES_NO, *KINDS, "else")) + (echo if rng.random() < 0.8 else "")
        self.note(machine, op, f"answers {text!r}")
        prompt = sum(len(m["content"].encode()) + 16 for m in machine.messages)
        most = op.max_tokens or 1024
        usage = LLMUsage(prompt, most, prompt + most) if rng.random() < 0.8 else None
        self.tokens[0] += prompt if usage else 0
        self.tokens[1] += most if usage else 0
        return machine.resume(Answer(text, usage), machine.now)

    def pause(self, machine: Machine, op: Any, rng: Random) -> Any:
        roll = rng.random()
        mark = f"~{rng.randrange(1 << 30)}~" if self.marks is not None else ""
        if roll < 0.06:
            self.chosen.append((self.path, "nothing comes"))
            return machine.resume(Suspended(), machine.now)
        if op.timeout_ns and roll < 0.06 + 0.4 * (self.errors > 0):
            self.chosen.append((self.path, "timeout"))
            return machine.resume(TimedOut(), machine.now)
        if op.type == "approval":
            approved = rng.random() < 0.7
            self.chosen.append((self.path, "approved" if approved else "rejected"))
            return machine.resume(Decided(approved, f"so it is{mark}", "somebody"), machine.now)
        payload = rng.choice((None, "yes", {"v": f"paid{mark}"}, f"no{mark}", True))
        self.chosen.append((self.path, f"arrives {json.dumps(payload)}"))
        return machine.resume(Arrived(payload), machine.now)
