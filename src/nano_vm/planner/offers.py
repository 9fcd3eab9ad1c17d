"""What there is to plan with: tools and programs as the model may use them, and kinds of inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any

from ..errors import PlannerError
from ..language.rules import Rules
from ..values import kind_name


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool, or a program to call, as the model may use it."""

    name: str
    about: Mapping[str, Any]  # the contract's JSON form
    rules: Rules
    # the inputs that a protected argument takes
    sources: Mapping[str, list[str]] = field(default_factory=dict)
    literals: bool = True  # whether a protected argument takes what the model writes
    kind: str = "tool"

    @property
    def arguments(self) -> dict[str, Any]:
        """The schema of each argument."""
        return dict(self.about["arguments"].get("properties", {}))

    @property
    def required(self) -> list[str]:
        """The arguments that must be given."""
        return list(self.about["arguments"].get("required", []))

    @property
    def free(self) -> bool:
        """Whether it may stand anywhere: no guard and no approval comes before it."""
        return not self.guards and not self.rules.approvals

    @property
    def guards(self) -> list[tuple[str, str]]:
        """Step and edge of each guard."""
        pairs = [edge.rpartition(".") for edges in self.rules.guards for edge in edges[:1]]
        return [(step, edge) for step, _, edge in pairs]


def fits(kind: str | None, schema: Any) -> bool:
    """Whether an input of *kind* may be what an argument takes; an output may be anything."""
    wanted = schema.get("type") if isinstance(schema, Mapping) else None
    if kind in (None, "any") or not isinstance(wanted, str):
        return True
    return kind in _FITTING.get(wanted, ())


_FITTING = {
    "string": ("text", "number", "boolean"),
    "integer": ("number", "text"),
    "number": ("number", "text"),
    "boolean": ("boolean",),
    "array": ("list",),
    "object": ("object",),
}


def kinds_of(context: Any) -> dict[str, str]:
    """The names of the context that a program can read, and the kind of value of each; no value is
    looked into.
    """
    if context is None:
        return {}
    if not isinstance(context, Mapping):
        raise PlannerError(f"a context is a dict of inputs, not {kind_name(context)}")
    return {
        name: _kind(type(value))
        for name, value in context.items()
        if type(name) is str and name.isidentifier()
    }


_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool,), "boolean"),
    ((int, float, Decimal), "number"),
    ((str, date, time), "text"),
    ((list, tuple), "list"),
    ((Mapping,), "object"),
)


def _kind(kind: type) -> str:
    if issubclass(kind, Enum) and not issubclass(kind, (str, int)):
        return "any"
    for kinds, name in _KINDS:
        if issubclass(kind, kinds):
            return name
    return "object" if dataclasses.is_dataclass(kind) or hasattr(kind, "model_dump") else "any"
