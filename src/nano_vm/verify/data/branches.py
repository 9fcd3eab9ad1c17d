"""Branches: what an author is shown of tests that decide nothing, switches that forget a value, and
fields that are not there.

A `Flow` comes in; Diagnostics go out. What names can hold is reported by `possible.Domains`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...diagnostics import Diagnostic, Loc, Severity
from ...errors import ExprError
from ...language.expr import (
    Arith,
    Bool,
    Call,
    Compare,
    Const,
    Index,
    Items,
    Not,
    Ref,
    Template,
    children,
    computed,
    path_text,
)
from ...language.expr import Node as Expression
from ...language.flow import Flow, Names, Node
from ...language.program import Holds
from ...language.semantics import Chooses, Test, holds_at, written_at
from ...spelling import Hints
from ...tools.contract import ToolContract
from .decide import Path, Reads, decide
from .domains import (
    ANYTHING,
    FAILS,
    LIST,
    NO,
    OBJECT,
    TEXT,
    YES,
    Domain,
    descend,
    described,
    joined,
    shown_value,
    spread,
)
from .names import Assigned
from .possible import Domains, barred_edges, case_of, infeasible_edges, possible, taken

__all__ = [
    "Domains",
    "barred_edges",
    "check_branches",
    "check_fields",
    "infeasible_edges",
    "possible",
]

# --- Diagnostics ----------------------------------------------------------------------------------


def check_branches(
    flow: Flow,
    contracts: Mapping[str, ToolContract] | None = None,
    solved: Assigned | None = None,
    domains: Domains | None = None,
) -> Iterator[Diagnostic]:
    """Tests that always come out the same way, comparisons that never match, switches that forget a
    value or know too many.

    All are warnings: a domain may hold values that never come about, what is reported never to happen
    costs nothing when it does not, and a switch without a case for a value fails closed. A test
    that reads no name is what somebody wrote on purpose.
    """
    if domains is None:
        domains = Domains(flow, contracts, solved)
    hints = Hints()
    found: dict[tuple[Loc, bool], list[Node]] = {}
    for node in flow.nodes:  # a step that is entered in two ways is judged by both
        if node.decides and domains.reached(node):
            found.setdefault((node.loc, node.kind == "when"), []).append(node)
    for (loc, _), nodes in found.items():
        test = nodes[0].test
        if test is None:
            yield from _switch(domains, loc, nodes, hints)
        else:
            yield from _test(domains, loc, nodes, test)


def _test(domains: Domains, loc: Loc, nodes: list[Node], test: Test) -> Iterator[Diagnostic]:
    step, field = nodes[0].step, test.field
    reads = domains.test_of(nodes[0])
    if reads is None or not reads.places or reads.node is None:
        return
    whole = 0
    for node in nodes:
        whole |= domains.masks[node.index]
    if whole & YES and whole & NO and not isinstance(reads.node, (Bool, Not)):
        return
    here = [domains.read_at(node, reads) for node in nodes]
    if any(domain.empty for read in here for domain in read):
        return  # never written: told as such
    wholes = [joined(read[place] for read in here) for place in range(len(reads.places))]
    leaves = list(_leaves(reads.node))
    told = False
    for leaf in leaves:
        part = Reads.of_test(leaf, reads.names)
        if part is None or not part.places:
            continue
        inside = [[read[reads.places[place]] for place in part.places] for read in here]
        mask = 0
        for read in inside:
            mask |= decide(part, read, domains.effort).mask
        known = all(domain.values is not None for read in inside for domain in read)
        if leaf is reads.node and known and mask != FAILS:
            continue  # told of the whole
        problem = _mismatch(leaf, mask)
        if problem is not None and ((whole & YES and whole & NO) or not known or mask == FAILS):
            told = True
            said = (
                f"{field} of {step.id!r}: {shown_test(leaf)} {problem}: "
                f"{_facts_text(reads, wholes, part)}"
            )
            yield Diagnostic("V062", (*loc, field), said, _remedy(problem), "warning")
    if told or (whole & YES and whole & NO) or not whole & (YES | NO):
        return
    word = "true" if not whole & YES else "false"
    if word == "false" and not test.false:
        return  # what is demanded holds
    said = f"{field} of {step.id!r} is never {word}: {_facts_text(reads, wholes, reads)}"
    yield Diagnostic("V060", (*loc, field), said, _way(test, word), "warning")


def _way(test: Test, word: str) -> str:
    match test.field:
        case "when":
            return "the step is never run" if word == "true" else "the step is never skipped"
        case "until":
            return "the loop runs until its bound" if word == "true" else "the loop runs once"
    if not test.false:
        return "the step always fails"
    return f"no run takes {(test.true if word == 'true' else test.false[0])!r}"


def _leaves(node: Expression) -> Iterator[Expression]:
    """The operands of `and`, `or` and `not` in *node*, or *node* itself."""
    if isinstance(node, (Bool, Not)):
        for child in children(node):
            yield from _leaves(child)
    else:
        yield node


def _mismatch(leaf: Expression, mask: int) -> str | None:
    """What is wrong with an operand that gives *mask*, or None."""
    if not mask & (YES | NO):
        return "is always an error" if isinstance(leaf, Compare) else "is never true or false"
    if isinstance(leaf, Compare):
        denies = len(leaf.rest) == 1 and leaf.rest[0][0] in ("!=", "not in")
        if denies and not mask & NO:
            return "is never false"
        if not denies and not mask & YES:
            return "is never true"
    return None


def _remedy(problem: str) -> str:
    if problem == "is never true or false":
        return "compare it, for example == 'yes'"
    return (
        "compare values of one type; see int(), float() and str()"
        if "error" in problem
        else "compare it with a value that it can have"
    )


def _facts_text(reads: Reads, domains: list[Domain], part: Reads) -> str:
    places = [reads.places[place] for place in part.places]
    told = [
        place for place in places if domains[place].kinds != ANYTHING.kinds or domains[place].fields
    ] or places
    return ", ".join(f"{reads.texts[place]} is {described(domains[place])}" for place in told)


def shown_test(node: Expression) -> str:
    """An expression as a program spells it."""
    match node:
        case Const(value):
            return (
                f"[{', '.join(map(shown_value, value))}]"
                if type(value) is list
                else shown_value(value)
            )
        case Ref():
            return str(node)
        case Template(parts):
            return repr("".join(map(str, parts)))
        case Compare(first, rest):
            return " ".join(
                [shown_test(first), *(f"{op} {shown_test(operand)}" for op, operand in rest)]
            )
        case Bool(op, operands):
            return f"({f' {op} '.join(map(shown_test, operands))})"
        case Not(operand):
            return f"not {shown_test(operand)}"
        case Arith(op, left, right):
            return f"({shown_test(left)} {op} {shown_test(right)})"
        case Index(box, key):
            return f"{shown_test(box)}[{shown_test(key)}]"
        case Items(items):
            return f"[{', '.join(map(shown_test, items))}]"
        case Call(name, args, method=True):
            return f"{shown_test(args[0])}.{name}({', '.join(map(shown_test, args[1:]))})"
        case Call(name, args):
            return f"{name}({', '.join(map(shown_test, args))})"


def _switch(domains: Domains, loc: Loc, nodes: list[Node], hints: Hints) -> Iterator[Diagnostic]:
    step = nodes[0].step
    switch = nodes[0].control
    assert isinstance(switch, Chooses)
    found = domains.switched(nodes[0])
    if found is None or not found[0].places:
        return  # it reads nothing
    domain = joined(domains.on_domain(node) for node in nodes)
    if domain.empty:
        return
    what = f"what {step.id!r} is on is {described(domain)}"
    default = switch.way("default") is not None
    if domain.values is not None and not default:
        lost = [value for value in domain.values.values() if case_of(switch, value) is None]
        if lost:
            shown = ", ".join(map(shown_value, lost))
            message = f"switch {step.id!r} has no case for {shown}, and no default"
            yield Diagnostic(
                "V061",
                (*loc, "cases"),
                message,
                "add a case or a default; without one the step fails",
                "warning",
            )
    elif domain.values is None and not default and not domain.kinds & ~(LIST | OBJECT):
        message = f"switch {step.id!r} always fails: {what}"
        yield Diagnostic(
            "V062",
            (*loc, "on"),
            message,
            "switch on a string, a number, true, false or null",
            "warning",
        )
    for label, values in taken(switch, domain).items():
        if values == [] and label != "default":
            message = f"switch {step.id!r}: no value takes the case {label[5:]!r}: {what}"
            near = None
            if domain.values is not None:
                texts = [value for value in domain.values.values() if type(value) is str]
                case = label[5:].strip().casefold()
                same = next((text for text in texts if text.strip().casefold() == case), None)
                near = (
                    f"did you mean {same!r}?" if same is not None else hints.meant(label[5:], texts)
                )
            yield Diagnostic(
                "V063", (*loc, "cases", label[5:]), message, near or "remove it", "warning"
            )


# --- fields ---------------------------------------------------------------------------------------


def check_fields(
    flow: Flow,
    contracts: Mapping[str, ToolContract] | None = None,
    solved: Assigned | None = None,
    domains: Domains | None = None,
) -> Iterator[Diagnostic]:
    """Reads of fields that are surely not there (errors), or not among those that are declared
    (warnings).

    What depends on a tool's return annotation, or stands in a test that may never look at it, is a
    warning; so is what looks like a field in the middle of text, behind a name of which nobody
    knows that it holds an object.
    """
    if domains is None:
        domains = Domains(flow, contracts, solved)
    hints = Hints()
    sure: Domains | None = None
    places: dict[tuple[Loc, int, Path], list[Node]] = {}
    texts: dict[tuple[Loc, int, Path], Ref] = {}
    for node in flow.nodes:
        if not domains.reached(node):
            continue
        for ref, where in node.reads:
            if not ref.path or ref.optional:
                continue
            try:
                slot, path = node.frame.names.load(ref)
            except ExprError:
                continue  # told elsewhere
            if path:
                key = ((*node.loc, *where), slot, path)
                places.setdefault(key, []).append(node)
                if key not in texts or ref.ambiguous:
                    texts[key] = ref
    for (loc, slot, path), nodes in places.items():
        lack = _lack(joined(domains.at(node, slot) for node in nodes), path)
        if lack is None:
            if texts[loc, slot, path].ambiguous:
                held = joined(domains.at(node, slot) for node in nodes)
                yield from _mistakable(texts[loc, slot, path], held, nodes[0].frame.names, loc)
            continue
        at, inside, surely = lack
        ref = texts[loc, slot, path]
        severity: Severity = "warning"
        if surely and not _evaluated(nodes[0], loc[len(nodes[0].loc) :]):
            if domains.contracts and sure is None:
                sure = Domains(flow, None, domains.solved)
            still = _lack(joined((sure or domains).at(node, slot) for node in nodes), path)
            severity = "error" if still is not None and still[2] else "warning"
        whole = Ref(ref.name, ref.path[: len(ref.path) - len(path) + at])
        message, hint = _field_text(path[at], inside, whole, hints)
        yield Diagnostic("V017", loc, f"{str(ref)!r}: {message}", hint, severity)


def _mistakable(ref: Ref, domain: Domain, names: Names, loc: Loc) -> Iterator[Diagnostic]:
    """A field in text that may have been meant as text: ``$name.json``, where the name may hold no
    object.
    """
    first = ref.path[0]
    if first == "output" or domain.kinds == OBJECT or domain.empty:
        return
    value = Ref(ref.name, () if ref.name in names.keys else ("output",), delimited=True)
    field = path_text(first)
    message = (
        f"{str(ref)!r} in text reads the field {first!r}, and nothing says that "
        f"'${ref.name}' holds an object"
    )
    hint = (
        f"write {replace(ref, delimited=True)} for the field, or {value}{field} for the text "
        f"{field!r} behind the value"
    )
    yield Diagnostic("V014", loc, message, hint, "warning")


def _evaluated(node: Node, where: Loc) -> bool:
    """Whether the place may be in an expression, whose `and`, `or` and `default` may leave it
    out.
    """
    if node.kind == "end":
        return _computes(node.frame.names.program.output)
    held, written = holds_at(node.step, where), written_at(node.step, where)
    if held is Holds.EXPRESSION:
        return True
    return any(map(_computes, written.values())) if held is Holds.TEMPLATES else _computes(written)


def _computes(value: Any) -> bool:
    """Whether there is an expression anywhere in *value*."""
    if type(value) is dict:
        return computed(value) is not None or any(map(_computes, value.values()))
    return type(value) is list and any(map(_computes, value))


def _lack(domain: Domain, path: Path) -> tuple[int, Domain, bool] | None:
    """Which part of *path* is not there, in what, and whether surely so."""
    for at, part in enumerate(path):
        if domain.empty:
            return None
        inner = descend(domain, (part,))
        if inner.empty:
            return at, domain, True
        fields = domain.fields
        if (
            type(part) is str
            and domain.kinds & OBJECT
            and fields
            and part not in fields
            and domain.values is None
        ):
            return at, domain, False
        domain = inner
    return None


def _field_text(part: str | int, domain: Domain, text: Ref, hints: Hints) -> tuple[str, str | None]:
    objects = spread(domain)
    if not domain.kinds & OBJECT or type(part) is int:
        hint = None
        if domain.kinds == TEXT and type(part) is str:
            behind = f"{replace(text, delimited=True)}{path_text(part)}"
            hint = (
                f"give the step an output_schema, or write {behind} where it is text behind "
                f"the value"
            )
        return (
            f"{text} is {described(objects)}, which has no "
            f"{f'field {part!r}' if type(part) is str else f'[{part}]'}",
            hint,
        )
    fields = list(objects.fields or ())
    known = f"it has {', '.join(map(repr, fields))}" if fields else "it has no fields"
    return f"no field {part!r} is known in {text}", hints.meant(part, fields, otherwise=known)
