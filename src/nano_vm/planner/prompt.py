"""What the model is shown: offers and inputs come in, the system message goes out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .offers import Offer, fits

_FORM = """\
Write a program in JSON for the user's task. Its steps run in order and have the ids s1, s2, s3. Types of steps:
{"id": "s1", "type": "tool", "tool": NAME, "args": {...}} calls a tool.
{"id": "s2", "type": "llm", "prompt": TEXT} asks a language model. "allowed_outputs": ["yes", "no"] limits its answer.
{"id": "s3", "type": "condition", "condition": "$s2.output == 'yes'", "then": [STEP], "otherwise": [STEP]} chooses.
{"id": "s4", "type": "map", "over": "$s1.output", "steps": [STEP]} does a step for each $item of a list.
$s1.output is what s1 gave, $name an input; inside a string write ${s1.output}. Use few steps."""


def instructions(offers: Sequence[Offer], kinds: Mapping[str, str]) -> str:
    """The system message: the language in short, the tools, the names and types of the inputs, an
    example.
    """
    lines = [_FORM]
    for kind, title in (
        ("tool", "Tools:"),
        ("call", 'Programs, called by {"type": "call", "program": NAME, "with": {...}}:'),
    ):
        some = [_line_on(offer) for offer in offers if offer.kind == kind]
        lines += [title, *some] if some else ["There are no tools."] if kind == "tool" else []
    lines.append(
        "Inputs: " + (", ".join(f"${name} ({kind})" for name, kind in kinds.items()) or "none")
    )
    lines.append(
        f"Answer with the JSON alone, like "
        f"{json.dumps(_example(offers, kinds), ensure_ascii=False)}"
    )
    return "\n".join(lines)


def _example(offers: Sequence[Offer], kinds: Mapping[str, str]) -> dict[str, Any]:
    """A small program with a tool and an input of this host: what a small model is shown, it can
    copy.
    """
    steps: list[dict[str, Any]] = []
    for offer in [o for o in offers if o.kind == "tool" and o.free][:1]:
        arguments = {}
        for name in offer.required:
            schema, taken = offer.arguments[name], offer.sources.get(name, kinds)
            fitting = sorted(
                (n for n in kinds if n in taken and fits(kinds[n], schema)),
                key=lambda n: n != name,
            )
            arguments[name] = f"${fitting[0]}" if fitting else "..."
        steps.append({"id": "s1", "type": "tool", "tool": offer.name, "args": arguments})
    subject = "s1.output" if steps else next(iter(kinds), None)
    prompt = f"Sum this up: ${{{subject}}}" if subject is not None else "Write a short poem"
    return {
        "name": "example",
        "steps": [*steps, {"id": f"s{len(steps) + 1}", "type": "llm", "prompt": prompt}],
    }


MAX_DESCRIPTION_CHARS = 120


def _line_on(offer: Offer) -> str:
    """One line on a tool: its arguments, effect, description, and what the policy demands."""
    required = offer.required
    arguments = ", ".join(
        f"{name}: {_type_name(schema)}{'' if name in required else '?'}"
        for name, schema in offer.arguments.items()
    )
    text = " ".join(str(offer.about.get("description", "")).split("\n\n", 1)[0].split())
    parts = [f"{offer.name}({arguments})"]
    if offer.about.get("effect") == "irreversible":
        parts.append("[irreversible]")
    if text:
        parts.append(text[:MAX_DESCRIPTION_CHARS])
    rules = offer.rules
    for step, edge in offer.guards:
        parts.append(f'Only inside "{edge}" of the step with the id "{step}".')
    for role in rules.approvals:
        parts.append(
            f'Only inside "then" of {{"type": "approval", "role": "{role}", "show": {{its '
            f"arguments}}}}."
        )
    if rules.max_calls is not None:
        parts.append(f"At most {rules.max_calls} {'call' if rules.max_calls == 1 else 'calls'}.")
    for name, inputs in offer.sources.items():
        own = ["your own words"] if offer.literals else []
        parts.append(
            f"{name} takes only {' or '.join([*own, *(f'${i}' for i in inputs)]) or 'nothing'}."
        )
    return "- " + " ".join(parts)


def _type_name(schema: Any) -> str:
    """A schema in one word."""
    if not isinstance(schema, Mapping):
        return "any"
    if isinstance(choices := schema.get("enum"), list) and len(choices) <= 8:
        return "|".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    if isinstance(members := schema.get("anyOf"), list):
        return "|".join(dict.fromkeys(_type_name(member) for member in members))
    return _TYPE_NAMES.get(str(schema.get("type")), "any")


_TYPE_NAMES = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "array": "list",
    "object": "object",
    "null": "null",
}
