"""What tools receive: drawn types of parameters, drawn value checks and approvals, and values that
conversions could carry over a line.

The attack asks what is proved of each argument with a check or an approval, and holds against it
what the tool got, as the driver of the run saw it. The judge counts in fractions and knows nothing
of the package's numbers, conversions or JSON forms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random
from typing import Annotated, Any

import pydantic

from nano_vm.tools.contract import Parameter, ToolContract
from nano_vm.tools.conversion import converter

from .history import Document, Steps
from .outcomes import Outcomes
from .programs import PARAMETERS

LOWER = Annotated[str, pydantic.StringConstraints(to_lower=True, strip_whitespace=True)]
HINTS: list[Any] = [
    Any,
    int,
    float,
    str,
    bool,
    int | float,
    float | str,
    int | None,
    list[float],
    LOWER,
]
PROTECTED = ("pay", "mail", "keep", "keyed")


def exact(value: Any) -> Fraction | None:
    """The number that *value* is, or is the text of; None if it is none."""
    if isinstance(value, str) and re.fullmatch(
        r"\s*-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?\s*", value
    ):
        return Fraction(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


def equal(one: Any, other: Any) -> bool:
    """Equal by type and value; a string equals a number if it is that number, and no text does."""
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    number = exact(one)
    if number is not None or exact(other) is not None:
        return number == exact(other)
    return type(one) is type(other) and bool(one == other)


def alike(shown: Any, received: Any) -> bool:
    """Whether a tool got what a person saw: the same, item by item."""
    if isinstance(shown, list) and isinstance(received, list):
        return len(shown) == len(received) and all(map(alike, shown, received))
    if isinstance(shown, dict) and isinstance(received, dict):
        return shown.keys() == received.keys() and all(
            alike(shown[key], received[key]) for key in shown
        )
    return equal(shown, received)


def _below(value: Any) -> bool:
    number = exact(value)
    return number is not None and number < 100


def _above(value: Any) -> bool:
    number = exact(value)
    return number is not None and number > 0


BLOCKED = [666, "evil", "true", 1.5]
CHECKS: dict[str, Callable[[Any], bool]] = {
    "$value < 100": _below,
    "$value > 0": _above,
    "$value > 0 and $value < 100": lambda value: _above(value) and _below(value),
    "$value not in $blocked": lambda value: not any(equal(value, one) for one in BLOCKED),
    "$value in [1, 'evil', 99.5]": lambda value: any(
        equal(value, one) for one in (1, "evil", 99.5)
    ),
    "$value != 'evil'": lambda value: not equal(value, "evil"),
}


class Digits(Outcomes):
    """Outcomes with numbers near the lines that checks draw, spelled in many ways."""

    def value(self, rng: Random, tool: str, machine: Any) -> Any:
        """As `Outcomes`, or a number or text near a line."""
        if tool in ("look", "sort") or tool in self.pure or rng.random() < 0.3:
            return super().value(rng, tool, machine)
        one = drawn(rng)
        return rng.choice((one, one, one, [one], {"v": one, "ok": True}))


def drawn(rng: Random) -> Any:
    """A value near a line."""
    digits = rng.randint(1, 30)
    whole = rng.choice((0, 1, 99, 100, 666))
    return rng.choice(
        (
            f"{whole}.{'0' * digits}1",
            f"{whole}.{'0' * digits}",
            f"99.{'9' * digits}",
            f"{whole}e{rng.choice((-400, -2, 0, 2, 400))}",
            f" {whole} ",
            whole,
            float(whole),
            2**53 + rng.randint(0, 3),
            1.5,
            "1.50",
            rng.choice((True, False)),
            rng.choice(("EVIL", "evil", " Evil", "true", "True")),
        )
    )


def draw_payments(rng: Random) -> Document:
    """A program that hands what it fetches to the protected tools, mostly as it is, and goes on
    where that is refused.
    """
    names: list[str] = []
    steps: list[Document] = []
    for number in range(rng.randint(4, 9)):
        step_id = f"s{number}"
        kind = rng.choice(("fetch", "fetch", "set", "ask", *["pay"] * 5)) if names else "fetch"
        if kind == "fetch":
            steps.append(
                {
                    "id": step_id,
                    "type": "tool",
                    "tool": "fetch",
                    "args": {},
                    "output_key": f"n{number}",
                }
            )
            names.append(f"n{number}")
        elif kind == "set":
            ref = f"${rng.choice(names)}"
            value = rng.choice((ref, ref, [ref], {"expr": ref}, f" {ref}"))
            steps.append({"id": step_id, "type": "set", "values": {f"v{number}": value}})
            names.append(f"v{number}")
        elif kind == "ask":
            shown = [f"${name}" for name in names[-3:]]
            steps.append(
                {"id": step_id, "type": "approval", "role": "boss", "show": {"what": shown}}
            )
        else:
            steps.append(_payment(rng, step_id, names))
    for step, following in zip(steps, [*(step["id"] for step in steps[1:]), "$end"], strict=True):
        step["next"] = following
        if step["type"] in ("tool", "map"):
            step["catch"] = [{"errors": ["*", "refused"], "next": following}]
    return {"name": "payments", "steps": steps}


def _payment(rng: Random, step_id: str, names: list[str]) -> Document:
    tool = rng.choice(PROTECTED)
    refs = [f"${name}" for name in names]
    step: Document = {"id": step_id, "type": "tool", "tool": tool, "args": _given(rng, tool, refs)}
    if rng.random() < 0.2:
        other = rng.choice(PROTECTED)
        step["undo"] = {"tool": other, "args": _given(rng, other, refs)}
    if rng.random() < 0.2:
        other = rng.choice(PROTECTED)
        step["reconcile"] = {"tool": other, "args": _given(rng, other, refs)}
    if rng.random() < 0.2:
        inner = {
            **step,
            "id": f"{step_id}i",
            "args": _given(rng, tool, [*refs, "$item", "$item", "$item"]),
        }
        return {
            "id": step_id,
            "type": "map",
            "over": [rng.choice(refs), rng.choice(refs)],
            "steps": [inner],
        }
    return step


def _given(rng: Random, tool: str, refs: list[str]) -> Document:
    return {name: rng.choice(refs[-3:]) for name in PARAMETERS[tool] if rng.random() < 0.9}


@dataclass(frozen=True)
class Typed:
    """Contracts with drawn types, and a policy for their arguments."""

    contracts: dict[str, ToolContract]
    rules: dict[str, dict[str, Any]]

    def policy(self) -> Document:
        """The policy as a host writes it."""
        return {
            "values": {"blocked": BLOCKED},
            "tools": {tool: {"args": args} for tool, args in self.rules.items()},
        }


def typed(rng: Random, contracts: dict[str, ToolContract], steps: Steps) -> Typed:
    """*contracts* with other types where the literals of the program allow it, and rules for their
    arguments.
    """
    literals = _literals(steps)
    changed, rules = dict(contracts), {}
    for tool in PROTECTED:
        parameters = dict(contracts[tool].parameters)
        for name in PARAMETERS[tool]:
            fitting = [
                hint for hint in HINTS if all(map(_takes(hint), literals.get((tool, name), ())))
            ]
            hint = rng.choice(fitting)
            parameters[name] = Parameter(name, False, hint, converter(hint))
            rule: Any = (
                {"approval": "boss", "trusted": False}
                if rng.random() < 0.3
                else rng.choice(list(CHECKS))
            )
            if rng.random() < 0.8:
                rules.setdefault(tool, {})[name] = rule
        changed[tool] = replace(contracts[tool], parameters=parameters)
    return Typed(changed, rules)


def _takes(hint: Any) -> Callable[[Any], bool]:
    convert = converter(hint)

    def takes(value: Any) -> bool:
        try:
            return convert is None or convert(value) is not ...
        except ValueError:
            return False

    return takes


def _literals(steps: Steps) -> dict[tuple[str, str], list[Any]]:
    """By tool and argument what the program spells out."""
    found: dict[tuple[str, str], list[Any]] = {}
    for step in steps.by_id.values():
        for call in _calls(step):
            for name, value in call["args"].items():
                if "$" not in str(value):
                    found.setdefault((call["tool"], name), []).append(value)
    return found


def _calls(step: Document) -> Iterator[Document]:
    if "tool" in step:
        yield {"tool": step["tool"], "args": step.get("args", {})}
    for word in ("undo", "reconcile"):
        if isinstance(step.get(word), dict):
            yield {"tool": step[word]["tool"], "args": step[word].get("args", step.get("args", {}))}
