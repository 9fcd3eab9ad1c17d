"""What an author wants to hear of a program that runs: tests that decide nothing, fields that are
not there, what nobody reads.

A `Flow` without faults comes in; Diagnostics go out. What is known of names and values is worked
out once for all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ..diagnostics import Diagnostic
from ..language.flow import Flow, Node
from ..language.program import LLMStep, Step
from ..language.rules import Rules
from ..language.semantics import WHEN, Chooses, Repeats
from ..tools.contract import ToolContract
from .data.branches import check_branches, check_fields
from .data.domains import FAILS
from .data.names import Assigned, assigned, check_unused
from .data.possible import Domains
from .order.proof import Index
from .order.statement import statements
from .shape import check_entries


def advise(
    flow: Flow,
    contracts: Mapping[str, ToolContract],
    solved: Assigned | None = None,
    domains: Domains | None = None,
) -> Iterator[Diagnostic]:
    """Warnings and hints of *flow*, and errors where a field is read that surely is not there."""
    if solved is None:
        solved = assigned(flow)
    if domains is None:
        domains = Domains(flow, contracts, solved)
    yield from check_entries(flow)
    yield from check_branches(flow, contracts, solved, domains)
    yield from check_fields(flow, contracts, solved, domains)
    yield from check_unused(flow, contracts)
    yield from check_braces(flow)


_BRACES = re.compile(r"\{\{\s*([A-Za-z_]\w*)[^{}]*\}\}|(?<![$\\\w])\{([A-Za-z_]\w*)\}")


def check_braces(flow: Flow) -> Iterator[Diagnostic]:
    """Warnings: ``{{ name }}`` and ``{name}`` in what a model is sent, where another template
    language would put a value.
    """
    for names in flow.spaces:
        steps = {step.id for step, _ in names.steps}
        known = steps.union(
            names.needed,
            names.optional,
            names.written,
            (names.program.inputs or {}).get("properties", ()),
        )
        for step, at in names.steps:
            for field, text in _sent(step):
                for found in _BRACES.finditer(text):
                    name = found[1] or found[2]
                    if found[1] or name in known:
                        right = f"${name}.output" if name in steps else f"${name}"
                        message = f"{found[0]!r} is sent as it stands: braces are text"
                        hint = f"write {right} for a value"
                        yield Diagnostic(
                            "V025", (*names.loc, *at, *field), message, hint, "warning"
                        )
                        break


def _sent(step: Step) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The strings of a model step, each with its place in it."""
    if not isinstance(step, LLMStep):
        return
    for field in ("prompt", "system"):
        text = getattr(step, field)
        if isinstance(text, str):
            yield (field,), text
    for i, message in enumerate(step.messages if isinstance(step.messages, list) else ()):
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, str):
            yield ("messages", i, "content"), content


def empty_guards(index: Index, rules: Iterable[Rules], domains: Domains) -> dict[str, str]:
    """Of each guard that a run cannot help crossing what is to be said beside its proof, by its
    statement; *index* is that of the flow.
    """
    found: dict[str, str] = {}
    for rule in rules:
        for statement in statements(rule):
            always = [
                name
                for name in statement.names
                if statement.kind == "guard" and _always(index, name, domains)
            ]
            if always:
                edges = " and ".join(always)
                are = "is the only way" if len(always) == 1 else "are the only ways"
                found[str(statement)] = (
                    f"{edges} {are} that its step goes on, so it decides nothing"
                )
    return found


def _always(index: Index, name: str, domains: Domains) -> bool:
    """Whether each step that the edge *name* belongs to takes no other way, not even that of an
    error, where it is reached.
    """
    nodes = domains.flow.nodes
    taken = [
        set(_ways(node)) - domains.barred.get(node.index, frozenset()) == {label}
        and not domains.masks.get(node.index, 0) & FAILS
        for names, step, label in index.places.named_edges(name)
        for node in (nodes[at] for at, _ in index.crossed(names, step, label))
        if label in _ways(node) and domains.reached(node)
    ]
    return bool(taken) and all(taken)


def _ways(node: Node) -> tuple[str, ...]:
    """The labels of all ways that a test can come out; none where an error is one of them."""
    match node.kind, node.control:
        case "when", _:
            return WHEN
        case "step", Chooses() as chooses if chooses.skipped is not None and chooses.way(
            chooses.skipped
        ):
            return tuple(way.label for way in chooses.ways)
        case "test", Repeats():
            return "until", "exhausted"
    return ()
