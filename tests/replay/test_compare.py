"""Values held against each other as records are: by type, value and order."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from nano_vm.replay.compare import same
from nano_vm.values import canonical

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "é", "1", "x" * 300])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "é"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=1000, deadline=None)
@given(VALUES, VALUES)
@example({"a": 1, "b": 2}, {"b": 2, "a": 1})
@example([1], [1.0])
@example([True], [1])
@example([0.0], [-0.0])
@example(0.0, -0.0)
@example({"a": "x" * 300}, {"a": "x" * 299 + "y"})
def test_two_values_are_the_same_where_their_canonical_bytes_are(a: Any, b: Any) -> None:
    assert same(a, b) == (canonical(a) == canonical(b))
    assert same(a, copy.deepcopy(a))
    held = [a, a]
    assert same(held, [copy.deepcopy(a), copy.deepcopy(a)])
