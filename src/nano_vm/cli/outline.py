"""A program for people: its text, or a line for each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..language.program import CallStep, ConditionStep, LLMStep, MapStep, Program, Step, ToolStep
from .decide import WHOLE_CHARS, broken
from .text import safe, shorten, shown


def whole_lines(text: str) -> Iterator[str]:
    """A program's text, all of it; the beginning, where it is too long for a screen."""
    for line in text[:WHOLE_CHARS].splitlines():
        yield from broken(safe(line))
    if len(text) > WHOLE_CHARS:
        yield "..."


def summary(program: Program) -> Iterator[str]:
    """What the program is called, and a line for each step."""
    count = sum(1 for _ in program.walk())
    yield safe(f"{program.name}: {count} step{'s' * (count != 1)}")
    for step, loc in program.walk():
        indent = "  " * sum(isinstance(part, int) for part in loc)
        when = f", when {shorten(step.when, 80)}" if step.when is not None else ""
        yield safe(f"{indent}{step.id}: {_line(step)}{when}")


def _line(step: Step) -> str:
    match step:
        case ToolStep():
            return f"tool {step.tool}({_arguments(step.args)})"
        case CallStep():
            name = step.program if isinstance(step.program, str) else step.program.name
            return f"call {name}({_arguments(step.arguments)})"
        case LLMStep():
            written = step.messages[-1] if isinstance(step.messages, list) else step.messages
            asked = step.prompt or (written["content"] if isinstance(written, dict) else written)
            labels = f" -> {' | '.join(step.allowed_outputs)}" if step.allowed_outputs else ""
            return f"llm {shown(asked, 80)}{labels}"
        case ConditionStep():
            return f"condition {shorten(step.condition, 80)}"
        case MapStep():
            return f"map over {shown(step.over, 80)}"
    return step.type.value


def _arguments(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={shown(value, 60)}" for name, value in arguments.items())
