"""What is wrong with a state machine itself: found before anything of it is converted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..diagnostics import Loc
from ..spelling import nearest
from ..values import short
from .choices import TESTS
from .report import Findings, NoCounterpart

TYPES = ("Task", "Choice", "Pass", "Wait", "Succeed", "Fail", "Parallel", "Map")
LEAVE = ("Succeed", "Fail")
"""The types of states that end the machine."""

_COMMON = ("Type", "Comment", "QueryLanguage", "InputPath", "OutputPath")
_ONWARD = (*_COMMON, "Next", "End")
_RESULT = (*_ONWARD, "Parameters", "ResultSelector", "ResultPath", "Retry", "Catch")
_TIMES = ("TimeoutSeconds", "TimeoutSecondsPath", "HeartbeatSeconds", "HeartbeatSecondsPath")
_INNER = ("Comment", "StartAt", "States")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "machine": (*_INNER, "Version", "QueryLanguage", "TimeoutSeconds"),
    "inner machine": (*_INNER, "ProcessorConfig"),
    "Retry": (
        *("Comment", "ErrorEquals", "IntervalSeconds", "MaxAttempts", "BackoffRate"),
        *("MaxDelaySeconds", "JitterStrategy"),
    ),
    "Catch": ("Comment", "ErrorEquals", "ResultPath", "Next"),
    "Choices": ("Comment", "Variable", *TESTS, "Next"),
    "inner rule": ("Comment", "Variable", *TESTS),
    "Task": (*_RESULT, *_TIMES, "Resource"),
    "Choice": (*_COMMON, "Choices", "Default"),
    "Pass": (*_ONWARD, "Parameters", "Result", "ResultPath"),
    "Wait": (*_ONWARD, "Seconds", "SecondsPath", "Timestamp", "TimestampPath"),
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
"""The fields of each part, as a state of a type or a rule of a list, that are converted, or found
to have no counterpart, where it is."""

_OBJECTS = "a list of objects", lambda one: _list_of(one, dict)
_PATH = "a path", lambda one: isinstance(one, str) and one[:1] == "$"
_PATH_OR_NULL = "a path, or null", lambda one: one is None or _PATH[1](one)
_WHOLE = "an integer from 0", lambda one: type(one) is int and one >= 0
_NUMBER = "a number from 0", lambda one: type(one) in (int, float) and one >= 0
_TEXT = "a string", lambda one: isinstance(one, str)
_SHAPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("Choices", "Retry", "Catch"), _OBJECTS),
    **dict.fromkeys(("InputPath", "OutputPath", "ResultPath"), _PATH_OR_NULL),
    **dict.fromkeys(("SecondsPath", "TimestampPath", "ItemsPath"), _PATH),
    **dict.fromkeys(("MaxAttempts", "MaxConcurrency"), _WHOLE),
    **dict.fromkeys(("Seconds", "TimeoutSeconds", "IntervalSeconds"), _NUMBER),
    **dict.fromkeys(("BackoffRate", "MaxDelaySeconds"), _NUMBER),
    **dict.fromkeys(("Timestamp", "ErrorPath", "CausePath", "Resource"), _TEXT),
    "End": ("true or false", lambda one: isinstance(one, bool)),
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
    what = "inner machine" if loc else "machine"
    _check_shapes(machine, loc, findings)
    _check_fields(f"the {what}", machine, what, loc, findings)
    _check_processor(machine, loc, findings)
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
    _check_fields(f"state {name!r}", state, kind, loc, findings)
    for rule, part, at in _rules(state, loc):
        _check_fields(f"a rule of state {name!r}", rule, part, at, findings)
    for field, one, at in transitions(state, loc):
        _target(one, field, at, states, findings)
    if kind not in (*LEAVE, "Choice"):
        _check_onward(name, state, loc, findings)
    for machine, at in inner_machines(state, loc):
        check_machine(machine, at, findings)


def _check_onward(name: str, state: dict[str, Any], loc: Loc, findings: Findings) -> None:
    """Note a state that goes on nowhere, or both goes on and ends."""
    ends = state.get("End") is True
    if ends and "Next" in state:
        message = f"state {name!r} has Next beside End: true"
        findings.add("fault", (*loc, "Next"), message, "leave out one of them")
    elif not ends and "Next" not in state:
        remedy = "name the next state, or write End: true"
        findings.add("fault", loc, f"state {name!r} has no Next", remedy)


def _check_fields(
    what: str, given: dict[str, Any], part: str, loc: Loc, findings: Findings
) -> None:
    """Note each field that *given*, a *part* of `_FIELDS`, has and that would be dropped."""
    for field in given:
        if field not in _FIELDS[part]:
            near = nearest(field, _FIELDS[part])
            hint = f"; did you mean {near!r}?" if near else ""
            gap = NoCounterpart(
                f"{what} has {field}, which is not converted", f"write by hand what it does{hint}"
            )
            findings.gap((*loc, field), gap)


def _check_processor(machine: dict[str, Any], loc: Loc, findings: Findings) -> None:
    """Note items that are to run in another way than inside the run."""
    config = machine.get("ProcessorConfig", {})
    if loc and config not in ({}, {"Mode": "INLINE"}):
        gap = NoCounterpart(
            f"the items run with ProcessorConfig {short(config)}, and here in the run itself",
            "write Mode: INLINE where that is right, or use 'nano-vm batch'",
        )
        findings.gap((*loc, "ProcessorConfig"), gap)


def _rules(state: dict[str, Any], loc: Loc) -> Iterator[tuple[dict[str, Any], str, Loc]]:
    """Each rule of a state, with the part of `_FIELDS` that it is, and its place."""
    for field in ("Retry", "Catch", "Choices"):
        for rule, at in _objects(state, field, loc):
            yield rule, field, at
            if field == "Choices":
                yield from _inner_rules(rule, at)


def _inner_rules(rule: dict[str, Any], loc: Loc) -> Iterator[tuple[dict[str, Any], str, Loc]]:
    """The rules that *rule* of a Choice combines."""
    inner = [found for field in ("And", "Or") for found in _objects(rule, field, loc)]
    if isinstance(negated := rule.get("Not"), dict):
        inner.append((negated, (*loc, "Not")))
    for one, at in inner:
        yield one, "inner rule", at
        yield from _inner_rules(one, at)


def _objects(holder: dict[str, Any], field: str, loc: Loc) -> list[tuple[dict[str, Any], Loc]]:
    """The objects in a list that *holder* can have, with their places."""
    given = holder.get(field)
    if not isinstance(given, list):
        return []
    return [(one, (*loc, field, i)) for i, one in enumerate(given) if isinstance(one, dict)]


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


def transitions(state: dict[str, Any], loc: Loc) -> Iterator[tuple[str, dict[str, Any], Loc]]:
    """Field, holder and place of each transition of a state; what its type has not leads nowhere."""
    has = [field for field in _FIELDS[state["Type"]] if field in state]
    if "Next" in has:
        yield "Next", state, loc
    for field in ("Choices", "Catch"):
        for rule, at in _objects(state, field, loc) if field in has else ():
            yield "Next", rule, at
    if "Default" in has:
        yield "Default", state, loc


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
