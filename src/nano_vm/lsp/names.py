"""The names that a program's text can read, each with what it holds and where it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..language.reader import NULLS
from ..tools.contract import ToolContract
from .index import Index, Span, StepNode
from .project import Known
from .tree import Node

SHOWN_WORDS = 5
"""Allowed answers that a type names."""


@dataclass(frozen=True, slots=True)
class Named:
    """A name: what it holds in a few words, what writes it, and where."""

    name: str
    holds: str
    by: str
    span: Span | None


def names_of(index: Index, known: Known, scope: int = 0) -> dict[str, Named]:
    """Every name of the program that *scope* is, the first writer of each: inputs, what steps write,
    and steps by their ids.
    """
    found: dict[str, Named] = {}
    steps = {}
    for step in index.steps():
        if step.id and step.id not in steps:
            steps[step.id] = step
    by_key = {step.node.text("output_key"): step for step in steps.values()}
    for use in index.uses():
        if use.kind == "name" and use.scope == scope and use.name not in found:
            writer = by_key.get(use.name) if use.how == "output_key" else None
            holds = "any"
            if use.how == "input":
                holds = _input_type(index, use.name)
            elif writer is not None:
                holds = output_of(writer, known)
            by = {
                "input": "an input",
                "output_key": f"written by step {writer.id!r}" if writer is not None else "written",
                "set": "written by a set step",
                "item": "the item of a map",
            }[use.how]
            found[use.name] = Named(use.name, holds, by, use.span)
    for name, step in steps.items():
        if step.scope == 0 or scope:
            by = f"step {name!r} ({step.type or 'no type'})"
            found.setdefault(name, Named(name, output_of(step, known), by, step.span))
    return found


def output_of(step: StepNode, known: Known) -> str:
    """What a step gives, in a few words."""
    node, kind = step.node, step.type
    if kind == "llm":
        allowed = node.get("allowed_outputs")
        if allowed is not None and allowed.kind == "list":
            words = [item.value for item in allowed.items if item.kind == "text"]
            more = ", ..." if len(words) > SHOWN_WORDS else ""
            return f"one of {', '.join(map(repr, words[:SHOWN_WORDS]))}{more}"
        schema = node.get("output_schema")
        return schema_type(schema) if schema is not None else "string"
    if kind == "tool":
        tool = known.contracts.get(node.text("tool") or "") if known.contracts else None
        return hint_text(tool.result) if tool is not None else "any"
    if kind in ("condition", "switch"):
        return "the branch that was taken"
    fixed = {"parallel": "object", "map": "list", "approval": "{approved, reason}"}
    return fixed.get(kind or "", "any")


def read_by(index: Index, path: str, scope: int = 0) -> Node | None:
    """The schema, or the step, that says what ``$path`` holds; None where the text does not say."""
    name, _, rest = path.partition(".")
    found = _declared(index, name) if scope == 0 else None
    if found is None:
        steps = [step for step in index.steps() if step.scope == scope]
        writers = [step for step in steps if step.node.text("output_key") == name]
        by_id = [step for step in steps if step.id == name]
        output, _, inner = rest.partition(".")
        if by_id and output == "output":
            found, rest = by_id[0].node, inner
        else:
            found = next((step.node for step in writers or by_id), None)
        schema = found.get("output_schema") if found is not None else None
        found = schema if schema is not None else found
    for part in rest.split(".") if rest else ():
        found = dict(fields_of(found)).get(part)
    return found


def fields_of(node: Node | None) -> Iterator[tuple[str, Node]]:
    """The fields of an object by its schema."""
    properties = node.get("properties") if node is not None and node.kind == "map" else None
    for name, value in properties.pairs if properties is not None else ():
        yield name.value, value


def answers_of(node: Node | None) -> list[str]:
    """The words that a value is one of: by its schema, or as the answer of a step."""
    for field in ("enum", "allowed_outputs"):
        listed = node.get(field) if node is not None and node.kind == "map" else None
        if listed is not None:
            return [item.value for item in listed.items if item.kind == "text"]
    return []


def edges_of(index: Index) -> list[str]:
    """The branches of steps that can guard a call. A word that would name two of a step names none,
    see `language.semantics.edge_words`, which says the same of a step that is whole.
    """
    found = []
    for step in index.steps():
        if step.id and step.scope == 0:
            words = _branches(step) + (["when", "unless"] if _says(step, "when") else [])
            times = Counter(words)
            found += [f"{step.id}.{word}" for word in words if times[word] == 1]
    return found


def _branches(step: StepNode) -> list[str]:
    """The words for the branches of a step by its type."""
    match step.type:
        case "condition":
            return ["then", "otherwise"]
        case "approval":  # with a deadline `otherwise` is taken also where nobody has decided
            return ["then"] if _says(step, "timeout_seconds") else ["then", "otherwise"]
        case "switch":
            cases = step.node.get("cases")
            found = [key.value for key, _ in cases.pairs] if cases is not None else []
            return [*found, "default"] if _says(step, "default") else found
        case "loop":
            goes_on = step.node.text("on_exhausted") == "continue"
            return ["until", "exhausted"] if goes_on else ["until"]
        case "assert":
            return ["holds"]
    return []


def _says(step: StepNode, key: str) -> bool:
    """Whether a step has a value for a field, which null is not."""
    value = step.node.get(key)
    return value is not None and not (value.plain and value.value in NULLS)


def schema_type(node: Node) -> str:
    """The type that a JSON Schema in the text names."""
    found = node.text("type") if node.kind == "map" else None
    choice = node.get("enum") if node.kind == "map" else None
    if choice is not None and choice.kind == "list":
        words = [item.value for item in choice.items if item.kind == "text"]
        return f"one of {', '.join(map(repr, words[:SHOWN_WORDS]))}"
    return found or "any"


def _input_type(index: Index, name: str) -> str:
    node = _declared(index, name)
    return schema_type(node) if node is not None else "any"


def _declared(index: Index, name: str) -> Node | None:
    """The schema of an input."""
    found = index.program_node("inputs")
    return dict(fields_of(found[0])).get(name) if found is not None else None


def hint_text(hint: Any) -> str:
    """A type hint as it is written."""
    if hint is Any or hint is None:
        return "any"
    return str(getattr(hint, "__name__", hint) if isinstance(hint, type) else hint).replace(
        "typing.", ""
    )


def signature(tool: ToolContract) -> str:
    """A tool as a call: ``issue_refund(order_id: str, amount: float) -> str``."""
    shown = [
        f"{one.name}{': ' + hint_text(one.hint) if one.hint is not Any else ''}"
        f"{'' if one.required else ' = ...'}"
        for one in tool.parameters.values()
    ]
    if tool.open:
        shown.append("**rest")
    return f"{tool.name}({', '.join(shown)}) -> {hint_text(tool.result)}"
