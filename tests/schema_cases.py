"""Random JSON Schemas and values, valid and malformed, and of any size: what strangers send."""

from __future__ import annotations

import random
from typing import Any

KEYS = [f"k{i}" for i in range(12)]
FORMATS = [
    "date",
    "email",
    "uri",
    "idn-hostname",
    "uuid4",
    "ipv4network",
    "int32",
    "regex",
    "base64",
]
PATTERNS = ["^[a-z]+$", "^(a|b)*c", r"(\w{3}x){2}", "k[0-9]", ".*.*=.*"]
SCALARS: list[Any] = [
    None,
    True,
    0,
    7,
    -1.5,
    0.1,
    1e300,
    5e-324,
    2**70,
    -(2**3000),
    "",
    "k1",
    "2026-01-02",
    "é" * 40,
]


class Cases:
    """Schemas and values, drawn from *rng*."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names = [f"d{i}" for i in range(rng.choice([0, 0, 1, 3, 6]))]

    def schema(self) -> dict[str, Any]:
        """A schema, perhaps with definitions that refer to each other."""
        schema = self.node(self.rng.randint(1, 5))
        if self.names:
            schema["$defs"] = {name: self.node(self.rng.randint(1, 3)) for name in self.names}
        return schema

    def node(self, depth: int) -> dict[str, Any]:
        rng = self.rng
        node: dict[str, Any] = {}
        for _ in range(rng.randint(1, 3)):
            self.keyword(node, depth - 1)
        return node

    def sub(self, depth: int) -> Any:
        return self.rng.choice([True, True, False]) if depth < 0 else self.node(depth)

    def keyword(self, node: dict[str, Any], depth: int) -> None:
        rng = self.rng
        some = rng.choice([1, 2, 2, 3, 8])
        match rng.randint(0, 27):
            case 0 | 1:
                kinds = ["string", "number", "integer", "object", "array", "boolean", "null"]
                node["type"] = rng.sample(kinds, rng.randint(1, 4))
            case 2:
                node["enum"] = [self.value(2) for _ in range(rng.choice([1, 5, 60]))]
            case 3:
                node["const"] = self.value(2)
            case 4:
                node[rng.choice(["minimum", "exclusiveMaximum"])] = rng.choice(
                    [0, 0.5, 1e300, 2**70]
                )
            case 5:
                node["multipleOf"] = rng.choice([1, 3, 0.01, 1e-300, 2.5])
            case 6:
                node[rng.choice(["minLength", "maxLength"])] = rng.choice([0, 3, 100])
            case 7:
                node["pattern"] = rng.choice(PATTERNS)
            case 8:
                node["format"] = rng.choice(FORMATS)
            case 9:
                node["uniqueItems"] = True
            case 10 | 11:
                node["items"] = self.sub(depth)
            case 12:
                node["prefixItems"] = [self.sub(depth) for _ in range(some)]
            case 13:
                node["contains"] = self.sub(depth)
            case 14 | 15:
                node["properties"] = {key: self.sub(depth) for key in rng.sample(KEYS, some)}
            case 16:
                node["patternProperties"] = {
                    pattern: self.sub(depth) for pattern in PATTERNS[:some]
                }
            case 17:
                node["additionalProperties"] = self.sub(depth)
            case 18:
                node["propertyNames"] = self.sub(depth)
            case 19:
                node["required"] = rng.sample(KEYS, some)
            case 20:
                node["dependentSchemas"] = {key: self.sub(depth) for key in rng.sample(KEYS, some)}
            case 21 | 22 | 23:
                node[rng.choice(["allOf", "anyOf", "oneOf"])] = [
                    self.sub(depth) for _ in range(some)
                ]
            case 24:
                node["not"] = self.sub(depth)
            case 25:
                node |= {"if": self.sub(depth), "then": self.sub(depth), "else": self.sub(depth)}
            case 26:
                node[rng.choice(["unevaluatedProperties", "unevaluatedItems"])] = self.sub(depth)
            case _:
                target = rng.choice([*self.names, ""])
                node["$ref"] = f"#/$defs/{target}" if target else "#"

    def value(self, depth: int, width: int = 4) -> Any:
        """A value of at most so many levels, of about so many entries at each."""
        rng = self.rng
        kind = rng.random()
        if depth == 0 or kind < 0.3:
            return rng.choice(SCALARS)
        if kind < 0.65:
            return [self.value(depth - 1, width) for _ in range(rng.randint(0, width))]
        return {
            rng.choice(KEYS): self.value(depth - 1, width) for _ in range(rng.randint(0, width))
        }

    def large(self, entries: int) -> Any:
        """A value of about so many entries: long, wide, deep, or all of it."""
        rng = self.rng
        match rng.randint(0, 5):
            case 0:
                item = self.value(1)
                return [item] * entries
            case 1:
                return [self.value(2) for _ in range(entries // 4)]
            case 2:
                return {f"k{i}": rng.choice(SCALARS) for i in range(entries)}
            case 3:
                return "k1" * entries
            case 4:
                deep: Any = rng.choice(SCALARS)
                for _ in range(90):
                    deep = {rng.choice(KEYS): deep} if rng.random() < 0.5 else [deep]
                return [deep] * (entries // 100 + 1)
            case _:
                return [
                    rng.choice([i, i / 3, 2**60 + i, str(i), [i], {"k1": i}])
                    for i in range(entries // 2)
                ]
