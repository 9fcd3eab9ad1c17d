"""What is wrong with a state machine itself: found before anything of it is converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..diagnostics import Loc
from ..spelling import nearest
from ..values import short
from .report import Findings, NoCounterpart

TYPES = ("Task", "Choice", "Pass", "Wait", "Succeed", "Fail", "Parallel", "Map")
LEAVE = ("Succeed", "Fail")
"""The types of states that end the machine."""

_COMMON = ("Type", "Comment", "QueryLanguage", "InputPath", "OutputPath", "Next", "End")
_RESULT = (*_COMMON, "Parameters", "ResultSelector", "ResultPath", "Retry", "Catch")
_TIMES = ("TimeoutSeconds", "TimeoutSecondsPath", "HeartbeatSeconds", "HeartbeatSecondsPath")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "Task": (*_RESULT, *_TIMES, "Resource"),
    "Choice": (*_COMMON, "Choices", "Default"),
    "Pass": (*_COMMON, "Parameters", "Result", "ResultPath"),
    "Wait": (*_COMMON, "Seconds", "SecondsPath", "Timestamp", "TimestampPath"),
    "Succeed": _COMMON,
    "Fail": (*_COMMON, "Error", "ErrorPath", "Cause", "CausePath"),
    "Parallel": (*_RESULT, "Branches"),
    "Map": (
        *(*_RESULT, "ItemProcessor", "Iterator", "ItemsPath", "ItemSelector", "MaxConcurrency"),
        *("ItemReader", "ItemBatcher", "ResultWriter", "ToleratedFailureCount"),
        *("ToleratedFailureCountPath", "ToleratedFailurePercentage"),
        "ToleratedFailurePercentagePath",
    ),
}
"""The fields of each type that are converted, or found to have no counterpart, where it is."""

_OBJECTS = "a list of objects", lambda one: _list_of(one, dict)
_PATH = "a path, or null", lambda one: one is None or (isinstance(one, str) and one[:1] == "$")
_WHOLE = "an integer from 0", lambda one: type(one) is int and one >= 0
_NUMBER = "a number from 0", lambda one: type(one) in (int, float) and one >= 0
_TEXT = "a string", lambda one: isinstance(one, str)
_SHAPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("Choices", "Retry", "Catch"), _OBJECTS),
    **dict.fromkeys(("InputPath", "OutputPath", "ResultPath", "ItemsPath"), _PATH),
    **dict.fromkeys(("SecondsPath", "TimestampPath"), _PATH),
    **dict.fromkeys(("MaxAttempts", "MaxConcurrency"), _WHOLE),
    **dict.fromkeys(("Seconds", "TimeoutSeconds", "IntervalSeconds"), _NUMBER),
    **dict.fromkeys(("BackoffRate", "MaxDelaySeconds"), _NUMBER),
    **dict.fromkeys(("Timestamp", "ErrorPath", "CausePath", "Resource"), _TEXT),
    "ErrorEquals": ("a list of strings", lambda one: _list_of(one, str)),
    "ResultSelector": ("an object", lambda one: isinstance(one, dict)),
    "Parameters": ("an object", lambda one: isinstance(one, dict)),
    "ItemSelector": ("an object", lambda one: isinstance(one, dict)),
}
"""What a field has to be, wherever it stands."""


def _list_of(given: Any, kind: type) -> bool:
    return isinstance(given, list) and bool(given) and all(isinstance(one, kind) for one in given)


def check_machine(machine: Any, loc: Loc, findings: Findings) -> None:
    """Note each fault of a state machine, and of those inside it."""
    states = machine.get("States") if isinstance(machine, dict) else None
    if not isinstance(states, dict) or not states:
        findings.add("fault", loc, "has no States", "write the states as an object by their names")
        return
    _target(machine, "StartAt", loc, states, findings)
    for name, state in states.items():
        at = (*loc, "States", name)
        if not isinstance(state, dict):
            findings.add("fault", at, f"state {name!r} is no object", "write its Type and fields")
        else:
            _check_state(name, state, at, states, findings)


def _check_state(
    name: str, state: dict[str, Any], loc: Loc, states: dict[str, Any], findings: Findings
) -> None:
    kind = state.get("Type")
    if kind not in TYPES:
        near = nearest(str(kind), TYPES)
        findings.add(
            "fault",
            (*loc, "Type") if "Type" in state else loc,
            f"state {name!r} has the type {kind!r}",
            f"did you mean {near!r}?" if near else f"the types are {', '.join(TYPES)}",
        )
        return
    _check_shapes(state, loc, findings)
    for field in state:
        if field not in _FIELDS[kind]:
            findings.gap(
                (*loc, field),
                NoCounterpart(
                    f"state {name!r} has {field}, which is not converted",
                    "write by hand what it does",
                ),
            )
    for field, one, at in _transitions(state, loc):
        _target(one, field, at, states, findings)
    if kind not in (*LEAVE, "Choice") and "Next" not in state and state.get("End") is not True:
        findings.add(
            "fault", loc, f"state {name!r} has no Next", "name the next state, or write End: true"
        )
    for machine, at in inner_machines(state, loc):
        check_machine(machine, at, findings)


def _check_shapes(part: dict[str, Any], loc: Loc, findings: Findings) -> None:
    """Note each field of a state, or of a rule in it, that is of the wrong type."""
    for field, given in part.items():
        what, fits = _SHAPES.get(field, ("", lambda _: True))
        if not fits(given):
            findings.add(
                "fault", (*loc, field), f"{field} is {what}, not {short(given)}", "correct it"
            )
        elif field in ("Retry", "Catch"):
            for i, rule in enumerate(given):
                _check_shapes(rule, (*loc, field, i), findings)
                if "ErrorEquals" not in rule:
                    findings.add("fault", (*loc, field, i), "has no ErrorEquals", "name the errors")


def _transitions(state: dict[str, Any], loc: Loc) -> list[tuple[str, dict[str, Any], Loc]]:
    """Field, holder and place of each transition that a state names."""
    found: list[tuple[str, dict[str, Any], Loc]]
    found = [(field, state, loc) for field in ("Next", "Default") if field in state]
    for field in ("Choices", "Catch"):
        rules = state.get(field, [])
        if isinstance(rules, list):
            found += [
                ("Next", rule, (*loc, field, i))
                for i, rule in enumerate(rules)
                if isinstance(rule, dict)
            ]
    return found


def _target(
    holder: dict[str, Any], field: str, loc: Loc, states: dict[str, Any], findings: Findings
) -> None:
    name = holder.get(field)
    if name in states if isinstance(name, str) else False:
        return
    near = nearest(str(name), list(states))
    findings.add(
        "fault",
        (*loc, field) if field in holder else loc,
        f"{field} names the state {name!r}, which is not there"
        if field in holder
        else f"has no {field}",
        f"did you mean {near!r}?" if near else "name a state of the same States",
    )


def inner_machines(state: dict[str, Any], loc: Loc) -> list[tuple[Any, Loc]]:
    """The state machines inside a Parallel or Map state, with their places."""
    if state["Type"] == "Parallel":
        branches = state.get("Branches")
        if isinstance(branches, list) and branches:
            return [(one, (*loc, "Branches", i)) for i, one in enumerate(branches)]
        return [(None, loc)]
    if state["Type"] == "Map":
        field = "ItemProcessor" if "ItemProcessor" in state else "Iterator"
        return [(state.get(field), (*loc, field) if field in state else loc)]
    return []
