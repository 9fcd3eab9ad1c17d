"""Expressions of the language as text, drawn with every operator, method and function, over the
names ``$a`` and ``$b``."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from nano_vm.language.functions import FUNCTIONS

TEXTS = (
    "",
    "x",
    "A b",
    "1",
    " 2.5 ",
    "1e15",
    "a,b",
    "\0☃",
    '"',
    "\\",
    "ΐ",
    "[1, 1e15]",
    '{"k": [null]}',
    "$a",
)

texts = st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=("Cs",)), max_size=4)
numbers = st.integers(-3, 12) | st.sampled_from([0.5, 1.0, -0.0, 1e15, 1e300, 1 << 80])
plain_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["k", "l", "a b"]), inner, max_size=2)
    ),
    max_leaves=6,
)
names = st.sampled_from(["$a", "$b", "$a.k", "$b[0]", "$a['a b']", "$b[-1].k"])


def literal(value: Any) -> str:
    """A scalar as an expression spells it."""
    return json.dumps(value, ensure_ascii=False).replace("$", "$$")


literals = (st.none() | st.booleans() | numbers | texts).map(literal) | st.sampled_from(
    ["[]", "'<$a>'", "'$a$b'"]
)


def _called(name: str, inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    function = FUNCTIONS[name]
    counts = st.integers(function.least, function.most if function.most is not None else 3)
    args = counts.flatmap(lambda count: st.lists(inner, min_size=count, max_size=count))
    return args.map(lambda args: f"{name}({', '.join(args)})")


def _more(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    ops = st.sampled_from(
        ["==", "!=", "<", "<=", ">", ">=", "in", "not in", "+", "-", "*", "/", "%", "and", "or"]
    )
    binary = st.tuples(inner, ops, inner).map(lambda part: f"({part[0]} {part[1]} {part[2]})")
    method = st.tuples(
        inner, st.sampled_from([".lower()", ".upper()", ".strip()", ".startswith('x')"])
    ).map("".join)
    return st.one_of(
        st.sampled_from(sorted(FUNCTIONS)).flatmap(lambda name: _called(name, inner)),
        st.sampled_from(sorted(FUNCTIONS)).flatmap(lambda name: _called(name, inner)),
        binary.filter(lambda text: "[" not in text or not any(op in text for op in ("+", "-"))),
        inner.map(lambda text: f"(not {text})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.tuples(inner, st.sampled_from(["['k']", "[0]", "[-1]", "[$b]"])).map("".join),
        method,
    )


expressions = st.recursive(names | literals, _more, max_leaves=6).filter(
    lambda text: len(text) < 1500
)
"""Texts that mostly parse: a list beside ``+`` is refused where it is seen, and so are methods of
numbers."""
