"""What labels follow from the program's and the host's text alone: what a tool's result is worth,
what a schema restricts, what a literal spells, whose approval is enough.

Steps, schemas, rules and contracts come in; a word on each goes out. The proof over all runs
(`proof`) and the judge of one run (`of_run`) both build on these definitions, and on nothing else
of each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...language.expr import Ref, computed, parse_template
from ...language.policy import ArgRule, Returns
from ...language.rules import Rules
from ...language.semantics import External, Literals, Term
from ...tools.contract import ToolContract
from ...values import short

Path = tuple[str | int, ...]


def returns_of(
    tool: str, contracts: Mapping[str, ToolContract], rules: Mapping[str, Rules]
) -> Returns | None:
    """What may be said of what *tool* returns; nothing for a tool that nobody knows."""
    if tool in rules and rules[tool].returns is not None:
        return rules[tool].returns
    return contracts[tool].options.returns if tool in contracts else None


def known_names(
    contracts: Mapping[str, ToolContract], rules: Mapping[str, Rules]
) -> frozenset[str]:
    """The names of arguments that the host spells, in signatures and rules. Any other name in a
    call of a tool that takes any keyword is the program's own text, and reaches the tool with the
    value.
    """
    declared = (contract.parameters for contract in contracts.values())
    ruled = ([pattern for pattern, _ in rule.args] for rule in rules.values())
    return frozenset().union(*declared, *ruled)


def roles(rule: ArgRule) -> Iterator[str]:
    """Whose approval is enough: that which the rule names, and where trust is enough, that which
    the same policy demands for the tool.
    """
    if rule.approval is not None:
        yield rule.approval
    if rule.trusted:
        yield from rule.accepts


def shape(terms: Iterable[Term]) -> dict[str, Any] | None:
    """The schema of all that a step writes under its output, which is made of *terms*, beside
    literals: of a model's answer or a person's decision. What an event carries is untrusted as a
    whole.
    """
    others = [term for term in terms if not isinstance(term, Literals)]
    if len(others) == 1 and isinstance(others[0], External):
        return others[0].schema if others[0].by in ("model", "person") else None
    return None


def spells(value: Any) -> bool:
    """Whether a literal with templates inside has anything of its own: not so for references, and
    lists of them.

    What is computed counts as its own: any number can be made of another.
    """
    if type(value) is str:
        return not parse_template(value).typed
    node = computed(value)
    if node is not None:
        return not isinstance(node, Ref)
    return not (type(value) is list and value) or any(map(spells, value))


MAX_SCHEMA_HOPS = 64
"""References and members followed from one place; a hand-written schema has a handful, and a cyclic
one no end.
"""

_LOCAL = re.compile(r"#/(\$defs|definitions)/([A-Za-z0-9_.-]+)\Z")


Choice = tuple[str, int]
"""What a value is one of, in words, and how many there are."""


def restricted(schema: dict[str, Any], path: Path) -> str | None:
    """What a valid value has at *path*, if that is a choice among literals of the schema or a
    boolean; else None.
    """
    found = _restricted(schema, path, schema, [MAX_SCHEMA_HOPS])
    return found[0] if found is not None else None


def choices(schema: dict[str, Any], path: Path) -> int | None:
    """Of how many values that which a valid value has at *path* is one; None where `restricted`
    knows none.
    """
    found = _restricted(schema, path, schema, [MAX_SCHEMA_HOPS])
    return found[1] if found is not None else None


def _restricted(schema: Any, path: Path, root: dict[str, Any], hops: list[int]) -> Choice | None:
    hops[0] -= 1
    if type(schema) is not dict or hops[0] < 0:
        return None
    if "const" in schema:
        return f"always {short(schema['const'])}", 1
    if type(schema.get("enum")) is list:
        return f"one of {', '.join(map(short, schema['enum']))}", len(schema["enum"])
    kinds = schema.get("type")
    if kinds is not None and all(
        kind in ("boolean", "null") for kind in ([kinds] if type(kinds) is str else kinds)
    ):
        return "true or false", 2 if type(kinds) is str else 3
    found = None
    reference = _LOCAL.match(schema["$ref"]) if type(schema.get("$ref")) is str else None
    if reference is not None and not _rebased(root):
        found = _restricted(root.get(reference[1], {}).get(reference[2]), path, root, hops)
    for member in schema["allOf"] if found is None and type(schema.get("allOf")) is list else ():
        found = found or _restricted(member, path, root, hops)
    for name in ("anyOf", "oneOf"):
        if found is None and type(schema.get(name)) is list:
            found = _either(schema[name], path, root, hops)
    if found is not None or not path:
        return found
    head, rest = path[0], path[1:]
    if isinstance(head, str):
        # `properties` says nothing of what is no object, and a field can be taken of nothing else
        properties = schema.get("properties")
        return (
            _restricted(properties.get(head), rest, root, hops)
            if type(properties) is dict
            else None
        )
    if kinds != "array":  # `items` says nothing of a text, and `[0]` of a text is a part of it
        return None
    first, other = schema.get("prefixItems", []), schema.get("items")
    if head < 0:  # counted from an end that is wherever the model ends its list
        return _either([*first, other], rest, root, hops)
    return _restricted(first[head] if head < len(first) else other, rest, root, hops)


def _either(members: list[Any], path: Path, root: dict[str, Any], hops: list[int]) -> Choice | None:
    """What a value has at *path* that fits one of *members*, nobody knows which; none fits `false`,
    as in the ``items`` of a list that has no more than its ``prefixItems``.
    """
    possible = [member for member in members if member is not False]
    found = [_restricted(member, path, root, hops) for member in possible]
    every = [choice for choice in found if choice is not None]
    if not every or len(every) < len(found):
        return None
    return " or ".join(dict.fromkeys(text for text, _ in every)), sum(n for _, n in every)


def _rebased(schema: Any) -> bool:
    """Whether an ``$id`` anywhere gives references another meaning."""
    if type(schema) is dict:
        return "$id" in schema or any(map(_rebased, schema.values()))
    return type(schema) is list and any(map(_rebased, schema))
