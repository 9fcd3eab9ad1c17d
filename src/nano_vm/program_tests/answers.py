"""What a test says comes back: the answers of models, tools, people and events, by step.

An entry stands under the path of a step (``moods[2]/label``), or under its id, which holds for each
path of it; the path comes first. A list has one answer for each call. In go entries as they are
written, out come answers in the order of the calls.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import errors
from ..adapters.scripted import Answer, answer_of
from ..values import short
from .document import Case, aside, step_of


class Unanswered(Exception):
    """The run asks for what the test does not give. It ends there: no handler of the program takes
    it.
    """


@dataclass(frozen=True, slots=True)
class Returns:
    """A tool returns *value*."""

    value: Any


@dataclass(frozen=True, slots=True)
class TimesOut:
    """What is asked for does not come in time."""


@dataclass(frozen=True, slots=True)
class Decides:
    """A person decides."""

    approved: bool
    reason: str | None = None
    by: str = "tester"


@dataclass(slots=True)
class Answers:
    """The answers of one test, and how many of each were given."""

    sections: Mapping[str, Mapping[str, Any]]
    given: dict[tuple[str, str], int] = field(default_factory=dict)

    def next(self, section: str, path: str) -> Any:
        """The next answer for the step at *path*; None where there is no entry.

        Raises:
            Unanswered: If its list has ended.
        """
        entries = self.sections[section]
        name = path if path in entries else _id(path)
        if name not in entries:
            return None
        number = self.given[section, name] = self.given.get((section, name), 0) + 1
        entry = entries[name]
        if not isinstance(entry, list):
            return entry
        if number > len(entry):
            raise Unanswered(
                f"{section}.{name} has {len(entry)} answers, and this is call {number}"
            )
        return entry[number - 1]

    def left(self) -> list[str]:
        """Lists that have more answers than were asked for."""
        return [
            f"{section}.{name} has {len(entry)} answers, and {number} were asked for"
            for section, entries in self.sections.items()
            for name, entry in entries.items()
            if isinstance(entry, list)
            and (number := self.given.get((section, name), 0)) < len(entry)
        ]


def _id(path: str) -> str:
    """The id of the step at *path*; a call beside its own has that behind it: ``pay/undo``."""
    own = aside(path)
    return step_of(own) + path[len(own) :].partition("#")[0]


def answers_of(case: Case) -> Answers:
    """The answers of a test.

    Raises:
        ValueError: If an entry is none, with the place.
    """
    readers: dict[str, Callable[[Any, str], Any]] = {
        "models": _model,
        "tools": _tool,
        "approvals": _approval,
        "events": _event,
    }
    return Answers(
        {
            section: {
                name: [read(one, f"{section}.{name}[{i}]") for i, one in enumerate(entry)]
                if isinstance(entry, list)
                else read(entry, f"{section}.{name}")
                for name, entry in getattr(case, section).items()
            }
            for section, read in readers.items()
        }
    )


def _times_out(entry: Any) -> bool:
    return isinstance(entry, dict) and entry == {"times_out": True}


def _model(entry: Any, where: str) -> Answer | TimesOut:
    return TimesOut() if _times_out(entry) else answer_of(entry, where)


def _tool(entry: Any, where: str) -> Returns | TimesOut | BaseException:
    if not isinstance(entry, dict):
        return Returns(entry)
    if entry.keys() == {"returns"}:
        return Returns(entry["returns"])
    if _times_out(entry):
        return TimesOut()
    if "raises" in entry and entry.keys() <= {"raises", "message"}:
        return _raised(entry["raises"], str(entry.get("message", "as the test says")), where)
    raise ValueError(
        f"{where}: a tool's answer is {{returns: ...}}, {{raises: ValueError, message: ...}}, "
        f"{{times_out: true}} or a plain scalar, not {short(entry)}"
    )


def _raised(name: Any, message: str, where: str) -> BaseException:
    """The exception that is called *name*: one of Python's or ours, else a new class of that name."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{where}.raises: the name of an exception, not {short(name)}")
    known = getattr(errors, name, None) or getattr(builtins, name, None)
    kind: type[Exception] = Exception
    if isinstance(known, type) and issubclass(known, Exception):
        kind = known
    if kind.__name__ != name:
        kind = type(name, (Exception,), {})
    said = {"__init__": lambda self: None, "__str__": lambda _: message}
    for made in (
        lambda: kind(message),
        lambda: type(name, (kind,), said)(),  # one that wants more than a message
    ):
        try:
            error: BaseException = made()
            str(error)
        except Exception:  # noqa: BLE001, S112 - a constructor may raise whatever it likes
            continue
        return error
    named: type[Exception] = type(name, (Exception,), {})
    return named(message)  # not even so: of that name at least


_DECISIONS = {"approve": True, "approved": True, "reject": False, "rejected": False}


def _approval(entry: Any, where: str) -> Decides | TimesOut:
    if isinstance(entry, str) and entry in _DECISIONS:
        return Decides(_DECISIONS[entry])
    if entry == "times_out" or _times_out(entry):
        return TimesOut()
    if isinstance(entry, dict) and entry.keys() <= {"approved", "reason", "by"}:
        approved, reason, by = entry.get("approved"), entry.get("reason"), entry.get("by", "tester")
        if isinstance(approved, bool) and isinstance(reason, str | None) and isinstance(by, str):
            return Decides(approved, reason, by)
    raise ValueError(
        f"{where}: approve, reject, times_out or {{approved: true, reason: ..., by: ...}}, not "
        f"{short(entry)}"
    )


def _event(entry: Any, where: str) -> Returns | TimesOut:
    if entry == "times_out" or _times_out(entry):
        return TimesOut()
    if isinstance(entry, dict) and entry.keys() == {"payload"}:
        return Returns(entry["payload"])
    raise ValueError(f"{where}: {{payload: ...}} or times_out, not {short(entry)}")
