"""Retry and Catch of a state, as the fields that they are here."""

from __future__ import annotations

from typing import Any

from ..language.program import ATTEMPTS_LIMIT
from .report import NoCounterpart

Differences = list[tuple[str, str]]

_KINDS = {"States.ALL": "*", "States.Timeout": "timeout", "States.TaskFailed": "*"}
_DEFAULT_ATTEMPTS, _DEFAULT_INTERVAL, _DEFAULT_FACTOR = 3, 1, 2.0
_LONGEST_DELAY = 24 * 3600


def caught(names: list[str]) -> tuple[list[str], Differences]:
    """The errors that a rule is for, and what is different about them here."""
    errors: list[str] = []
    differences: Differences = []
    for name in names:
        if name == "States.TaskFailed":
            differences.append(
                ("handles States.TaskFailed, here '*', which is also a timeout", "write the kinds")
            )
        elif name.startswith("States.") and name not in _KINDS:
            differences.append(
                (f"handles {name}, which no step raises here", "leave it out, or write a kind")
            )
        elif "." in name and name not in _KINDS:
            differences.append(
                (
                    f"handles {name}, here {name.rpartition('.')[2]!r}",
                    "errors are matched by the name of the exception's class",
                )
            )
        errors.append(_KINDS.get(name) or name.rpartition(".")[2])
    return list(dict.fromkeys(errors)), differences


def retry_of(rules: list[dict[str, Any]], *, calls: bool) -> tuple[dict[str, Any], Differences]:
    """The fields of a step that retry it.

    Raises:
        NoCounterpart: If the rules differ by error, or retry what makes no call itself.
    """
    if not rules:
        return {}, []
    if not calls:
        raise NoCounterpart(
            "retries all of its branches or items", "retry the steps inside, each for itself"
        )
    terms = [
        {key: one for key, one in rule.items() if key not in ("ErrorEquals", "Comment")}
        for rule in rules
    ]
    if any(one != terms[0] for one in terms):
        raise NoCounterpart(
            "retries different errors in different ways", "write one 'retry' for all of them"
        )
    errors, differences = caught([name for rule in rules for name in rule.get("ErrorEquals", [])])
    first = terms[0]
    attempts = first.get("MaxAttempts", _DEFAULT_ATTEMPTS) + 1
    if attempts > ATTEMPTS_LIMIT:
        differences.append(
            (f"makes {attempts} attempts, here {ATTEMPTS_LIMIT}", "that is the most that there are")
        )
    if first.get("JitterStrategy") == "NONE":
        differences.append(
            ("waits exactly as long as it says, here with jitter", "nothing is to be done")
        )
    retry = {
        "delay_seconds": first.get("IntervalSeconds", _DEFAULT_INTERVAL),
        "factor": first.get("BackoffRate", _DEFAULT_FACTOR),
        "max_delay_seconds": min(first.get("MaxDelaySeconds", _LONGEST_DELAY), _LONGEST_DELAY),
        "on": errors,
    }
    return {"max_retries": min(attempts, ATTEMPTS_LIMIT), "retry": retry}, differences
