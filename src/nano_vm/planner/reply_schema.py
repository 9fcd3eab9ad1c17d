"""The JSON Schema to which a model that can be constrained is held: it writes nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..language.expr import value_references
from .offers import Offer, fits

PLANNED_STEPS = 6
"""Steps that the schema offers, not counting those in blocks. Each place has its own schema of
every tool: with sixty tools they are some 300 kB, which llama.cpp still takes.
"""


_CHAR = r'[^$"\\\x00-\x1f]'
"""What may stand in a string without an escape in JSON, and without a reference."""

_QUOTED = r"""[^$"'\\\x00-\x1f]"""

_GUESSED = ("input", "query", "text", "name", "id")
"""Arguments of a tool of which only the name is known: left free, a small model writes keys until
its tokens are used up.
"""


def program_schema(offers: Sequence[Offer], kinds: Mapping[str, str]) -> dict[str, Any]:
    """The JSON Schema of the programs that can be written with *offers* over inputs of these
    *kinds*.

    Each place in the list of steps has a schema of its own, in which ids are fixed and references
    lead back: whatever fits is well formed. The root is open, which keeps it out of OpenAI's strict
    mode, whose subset has no fixed places; llama.cpp closes it all the same.
    """
    shapes = _Shapes(offers, kinds)
    for number in range(1, PLANNED_STEPS + 1):
        shapes.place(number)
    lists = [
        {
            "type": "array",
            "prefixItems": [{"$ref": f"#/$defs/s{i}"} for i in range(1, n + 1)],
            "minItems": n,
            "maxItems": n,
        }
        for n in range(1, PLANNED_STEPS + 1)
    ]
    name = {"type": "string", "pattern": "^[a-z][a-z0-9_]{2,30}$"}
    return {
        "type": "object",
        "properties": {"name": name, "steps": {"anyOf": lists}},
        "required": ["name", "steps"],
        "$defs": shapes.definitions,
    }


class _Shapes:
    """The definitions of a schema, each made once."""

    def __init__(self, offers: Sequence[Offer], kinds: Mapping[str, str]) -> None:
        self.offers = offers
        self.free = [offer for offer in offers if offer.free]
        self.kinds = kinds
        self.definitions: dict[str, Any] = {}
        self.known: dict[str, str] = {}  # the key of each definition by its text

    def shared(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A reference to *schema*, which is defined once however often it is needed: without, five
        tools make 77 kB.
        """
        key = self.known.setdefault(json.dumps(schema), f"d{len(self.known)}")
        self.definitions[key] = schema
        return _ref(key)

    def place(self, number: int) -> None:
        """What may stand as step *number*."""
        outputs = [f"s{i}.output" for i in range(1, number)]
        choices = [
            *self.calls(f"s{number}", self.free, outputs),
            *self.conditions(number, outputs),
            *self.approvals(number, outputs),
            *self.maps(number, outputs),
        ]
        self.definitions[f"s{number}"] = {"anyOf": choices}

    def calls(
        self,
        id: str,
        offers: Sequence[Offer],
        outputs: list[str],
        *,
        item: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Calls of tools and of the model."""
        names = [*self.kinds, *outputs, *(["item"] if item else [])]
        alike: dict[tuple[str, str], list[str]] = {}  # names of tools that take the same
        for offer in offers:
            arguments = self.arguments(offer, names, literals=True)
            if arguments is not None:
                alike.setdefault((offer.kind, arguments["$ref"]), []).append(offer.name)
        for (kind, reference), called in alike.items():
            fields = ("tool", "args") if kind == "tool" else ("program", "with")
            what = dict(zip(fields, ({"enum": called}, {"$ref": reference}), strict=True))
            yield _object({"id": _const(id), "type": _const(kind), **what})
        prompt = {
            "type": "string",
            "pattern": f"^{_CHAR}{{4,120}}{_inserted(names, needed=bool(outputs or item))}$",
        }
        label = {"type": "string", "pattern": "^[a-z][a-z_]{1,15}$"}
        labels = {"type": "array", "items": label, "minItems": 2, "maxItems": 4}
        asks = {"prompt": self.shared(prompt), "allowed_outputs": self.shared(labels)}
        yield _object({"id": _const(id), "type": _const("llm"), **asks}, optional=1)

    def conditions(self, number: int, outputs: list[str]) -> Iterator[dict[str, Any]]:
        """Branches; a tool that is guarded stands only behind its guard."""
        names = [
            *(name for name in self.kinds if self.kinds[name] not in ("list", "object")),
            *outputs,
        ]
        if not names:
            return
        any_name = "|".join(map(_escaped, names))
        tests = [
            rf"\$({any_name}) (==|!=) ('{_QUOTED}{{1,24}}'|true|false)",
            rf"\$({any_name}) (<|<=|>|>=|==) [0-9]{{1,6}}",
            rf"'{_QUOTED}{{1,24}}' in '\$({any_name})'",
        ]
        flags = [name for name in self.kinds if self.kinds[name] == "boolean"]
        tests += [rf"\$({'|'.join(map(_escaped, flags))})"] if flags else []
        condition = self.shared({"type": "string", "pattern": f"^({'|'.join(tests)})$"})
        guards = list(dict.fromkeys(step for offer in self.offers for step, _ in offer.guards))
        for name in (f"s{number}", *guards):
            branches = {}
            for edge in ("then", "otherwise"):
                inside = [
                    *self.free,
                    *(o for o in self.offers if (name, edge) in o.guards and not o.rules.approvals),
                ]
                branches[edge] = _block(self.calls(f"s{number}_{edge}", inside, outputs))
            yield _object(
                {
                    "id": _const(name),
                    "type": _const("condition"),
                    "condition": condition,
                    **branches,
                },
                optional=1,
            )

    def approvals(self, number: int, outputs: list[str]) -> Iterator[dict[str, Any]]:
        """A person's consent to calls that need it. They take references alone, and all of these
        are shown.
        """
        names = [*self.kinds, *outputs]
        roles = dict.fromkeys(role for offer in self.offers for role in offer.rules.approvals)
        for role in roles if names else ():
            behind = [o for o in self.offers if o.rules.approvals == (role,) and not o.guards]
            calls = [
                _object(
                    {
                        "id": _const(f"s{number}_then"),
                        "type": _const("tool"),
                        "tool": _const(o.name),
                        "args": arguments,
                    }
                )
                for o in behind
                if (arguments := self.arguments(o, names, literals=False)) is not None
            ]
            if calls:
                show = {"enum": [[f"${name}" for name in names]]}
                what = {"role": _const(role), "show": show, "then": _block(calls)}
                yield _object({"id": _const(f"s{number}"), "type": _const("approval"), **what})

    def maps(self, number: int, outputs: list[str]) -> Iterator[dict[str, Any]]:
        """The same step for each item of a list."""
        lists = [*(name for name in self.kinds if self.kinds[name] in ("list", "any")), *outputs]
        if lists:
            steps = _block(self.calls(f"s{number}_item", self.free, outputs, item=True))
            over = {"enum": [f"${name}" for name in lists]}
            yield _object(
                {"id": _const(f"s{number}"), "type": _const("map"), "over": over, "steps": steps}
            )

    def arguments(
        self, offer: Offer, names: Sequence[str], *, literals: bool
    ) -> dict[str, Any] | None:
        """The arguments of a call; None where one that is needed has nothing to take. Without
        *literals* only references are taken.
        """
        properties: dict[str, Any] = {}
        for name, schema in offer.arguments.items():
            members = self.argument(offer, name, schema, names, literals=literals)
            if members:
                properties[name] = {"anyOf": members} if len(members) > 1 else members[0]
            elif name in offer.required:
                return None
        if not properties and offer.about["arguments"].get("additionalProperties"):
            return self.guessed(names)
        closed = _object(properties)
        closed["required"] = [name for name in offer.required if name in properties]
        return self.shared(closed)

    def argument(
        self, offer: Offer, name: str, schema: Any, names: Sequence[str], *, literals: bool
    ) -> list[dict[str, Any]]:
        """What one argument takes: references, and what the model writes."""
        protected = offer.sources.get(name)
        sources = names if protected is None else protected
        fitting = [n for n in names if n in sources and fits(self.kinds.get(n), schema)]
        members: list[dict[str, Any]] = (
            [self.shared({"enum": [f"${n}" for n in fitting]})] if fitting else []
        )
        if literals and (offer.literals or protected is None):
            members += self.literal(schema, names if protected is None else [])
        return members

    def guessed(self, names: Sequence[str]) -> dict[str, Any]:
        """Arguments of a tool that says nothing of them."""
        return self.shared(
            _object(dict.fromkeys(_GUESSED, self.text(names)), optional=len(_GUESSED))
        )

    def text(self, names: Sequence[str]) -> dict[str, Any]:
        """A string, with references in it."""
        return self.shared({"type": "string", "pattern": f"^{_CHAR}{{1,80}}{_inserted(names)}$"})

    def literal(self, schema: Any, names: Sequence[str], depth: int = 0) -> list[dict[str, Any]]:
        """What a value of *schema* may be written as; nothing for what is too involved to write."""
        kind = schema.get("type") if isinstance(schema, Mapping) else None
        if not isinstance(schema, Mapping) or depth > 3 or "$ref" in schema:
            return []
        if isinstance(members := schema.get("anyOf"), list):
            return [
                written for member in members for written in self.literal(member, names, depth + 1)
            ]
        if "const" in schema or isinstance(schema.get("enum"), list):
            choices = schema["enum"] if "enum" in schema else [schema["const"]]
            return [{"enum": [c.replace("$", "$$") if value_references(c) else c for c in choices]}]
        match kind:
            case "string" if schema.get("format") in ("date", "date-time", "time", "uuid"):
                return [{"type": "string", "format": schema["format"]}]
            case "string":
                return [self.text(names)]
            case "integer":
                bounds = {key: schema[key] for key in ("minimum", "maximum") if key in schema}
                return [
                    {"type": "integer", **(bounds or {"minimum": -999_999, "maximum": 999_999})}
                ]
            case "number" | "boolean" | "null":
                return [{"type": kind}]
            case "array":
                items = self.literal(schema.get("items", {}), names, depth + 1)
                return (
                    [{"type": "array", "items": {"anyOf": items}, "minItems": 1, "maxItems": 6}]
                    if items
                    else []
                )
            case "object":
                return []
        return [
            self.text(names),
            {"type": "boolean"},
            {"type": "integer", "minimum": -999_999, "maximum": 999_999},
        ]


def _const(value: str) -> dict[str, Any]:
    return {"const": value}


def _ref(key: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{key}"}


def _object(properties: dict[str, Any], optional: int = 0) -> dict[str, Any]:
    """A closed object that needs all its fields but the last *optional* ones."""
    required = list(properties)[: len(properties) - optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _block(choices: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A list of one step."""
    return {"type": "array", "items": {"anyOf": list(choices)}, "minItems": 1, "maxItems": 1}


def _inserted(names: Sequence[str], *, needed: bool = False) -> str:
    """A pattern for references inside a string, with text behind them."""
    if not names:
        return ""
    reference = rf"\$\{{({'|'.join(map(_escaped, names))})\}}"
    return f"({reference}{_CHAR}{{0,60}}){{{int(needed)},2}}"


def _escaped(name: str) -> str:
    return name.replace(".", r"\.")
