"""Inputs that a run lacks: the step and the place that read each, and whether its ``$`` was meant
as a dollar sign.

Names of a program and what was given come in; a Diagnostic for each missing input goes out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from ...diagnostics import Diagnostic, format_loc
from ...language.expr import EXPR
from ...language.flow import Names
from ...language.program import Holds
from ...language.semantics import holds_at, written_at
from ...spelling import Hints

MAX_LOOKS = 15
"""Missing inputs whose surrounding text is looked at: one text may name thousands, and nobody reads
more."""

_MATH = re.compile(r"[^$\n]{0,80}?\$(?![\w{$])")  # up to a dollar sign that begins no name
_FORMULA = re.compile(r"[\\^_={}<>+*/-]|\A\$")


def missing_inputs(
    names: Names, missing: Collection[str], given: Collection[Any]
) -> Iterator[Diagnostic]:
    """What is reported of the inputs *missing* of a run that was *given* others."""
    steps = {at: step for step, at in names.steps}
    hints, looks = Hints(), MAX_LOOKS
    unread = [name for name in given if isinstance(name, str) and name not in names.keys]
    for name in missing:
        message = f"input {name!r} is needed and not given"
        hint = (
            hints.meant(name, unread)
            or "give it by vm.run(program, context={...}) or -i name=value"
        )
        loc = names.needed.get(name)
        if loc is not None:
            # the innermost
            at = next((loc[:end] for end in range(len(loc), 0, -1) if loc[:end] in steps), ())
            step = steps.get(at)
            reader = f"step {step.id!r}" if step is not None else "the program"
            message += f": {reader} reads it at {format_loc(loc)}"
            looks -= 1
            where = loc[len(at) :]
            written = written_at(step, where) if step is not None else names.program.output
            tested = step is not None and holds_at(step, where) is Holds.EXPRESSION
            like = _looks_like(written, name) if looks >= 0 and not tested else None
            if like is not None:
                hint += f"; or write $${name}: the text looks like {like}"
        yield Diagnostic("V040", ("context",), message, hint)


def _looks_like(value: Any, name: str) -> str | None:
    """What the text around ``$name`` in *value* is, where it is hardly a template."""
    written = re.compile(rf"\$(?:{re.escape(name)}\b|\{{\s*{re.escape(name)}\s*\}})")
    for text in _texts(value):
        found = written.search(text)
        if found is not None:
            return _like(
                text[max(found.start() - 1, 0) : found.start()], found[0], name, text[found.end() :]
            )
    return None


def _like(before: str, written: str, name: str, after: str) -> str | None:
    if re.match(r"\.?[/\\]\w", after) or (name.isupper() and (len(name) > 3 or after[:1] == ":")):
        return "a path"
    formula = _MATH.match(after) if not written.startswith("${") else None
    if formula is not None and _FORMULA.search(formula[0]):
        return "LaTeX"
    if before.isalnum() or name.isupper() or re.match(r"\s?\d", after):
        return "a price"
    return None


def _texts(value: Any) -> Iterator[str]:
    """The strings in *value* that are templates."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict) and EXPR not in value:
        for item in value.values():
            yield from _texts(item)
