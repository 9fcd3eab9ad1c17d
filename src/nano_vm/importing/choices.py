"""The rules of a Choice state, as conditions."""

from __future__ import annotations

import json
from typing import Any

from .documents import Given, expression
from .json_path import Read
from .report import NoCounterpart

_COMPARISONS = {
    "Equals": "==",
    "LessThan": "<",
    "LessThanEquals": "<=",
    "GreaterThan": ">",
    "GreaterThanEquals": ">=",
}
_TYPES = ("String", "Numeric", "Boolean")
_OPERATORS = {f"{kind}{name}": sign for kind in _TYPES for name, sign in _COMPARISONS.items()}
_JOINED = {"And": " and ", "Or": " or "}
TESTS = (
    *(*_JOINED, "Not", "IsPresent", "IsNull", "IsString", "IsNumeric", "IsBoolean", "IsTimestamp"),
    *("StringMatches", "Condition"),
    *(
        f"{kind}{name}{of}"
        for kind in (*_TYPES, "Timestamp")
        for name in _COMPARISONS
        for of in ("", "Path")
    ),
)
"""What a rule can test by in Amazon's States Language; not all of it can be converted."""


def condition(rule: dict[str, Any], read: Read) -> str:
    """The condition of a rule.

    Raises:
        NoCounterpart: If it has none here.
    """
    tests = [name for name in rule if name in TESTS]
    test = tests[0] if len(tests) == 1 else None
    combines = test == "Not" or test in _JOINED
    if test is None or combines == isinstance(rule.get("Variable"), str):
        raise NoCounterpart(
            "has a rule that is no Variable with one comparison, and no And, Or or Not alone",
            "write the condition by hand",
        )
    given = rule[test]
    if test in _JOINED:
        return _JOINED[test].join(f"({condition(one, read)})" for one in _rules(given, test))
    if test == "Not":
        (inner,) = _rules([given], test)
        return f"not ({condition(inner, read)})"
    return _comparison(expression(read(rule["Variable"])), test, given, read)


def _rules(given: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not given or not all(isinstance(one, dict) for one in given):
        raise NoCounterpart(f"has {name} without rules", "write the condition by hand")
    return given


def _comparison(left: str, test: str, right: Any, read: Read) -> str:
    if test == "IsPresent":
        return f"default({left}, null) {'!=' if right else '=='} null"
    if test == "IsNull":
        return f"{left} {'==' if right else '!='} null"
    if test == "StringMatches" and isinstance(right, str):
        return _matches(left, right)
    sign = _OPERATORS.get(test.removesuffix("Path"))
    if sign is None:
        raise NoCounterpart(
            f"compares by {test}", "write the condition by hand, or let a tool decide it"
        )
    compared = read(str(right)) if test.endswith("Path") else Given(right)
    return f"{left} {sign} {expression(compared)}"


def _matches(left: str, pattern: str) -> str:
    fixed = pattern.strip("*")
    if "*" in fixed or "\\" in fixed or not fixed:
        raise NoCounterpart(
            f"has the pattern {pattern!r}", "write it with startswith(), endswith() and 'in'"
        )
    quoted = json.dumps(fixed.replace("$", "$$"), ensure_ascii=False)
    before, after = pattern.startswith("*"), pattern.endswith("*")
    if before and after:
        return f"{quoted} in {left}"
    if before:
        return f"{left}.endswith({quoted})"
    return f"{left}.startswith({quoted})" if after else f"{left} == {quoted}"
