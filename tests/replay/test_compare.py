"""Values held against each other as records are: by type, value and order."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nano_vm.machine.plan import ForkOp, ToolOp
from nano_vm.records.record import Record, StepName
from nano_vm.records.status import StepStatus
from nano_vm.replay.compare import PAIRS, compare, same
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


@pytest.mark.slow
@settings(max_examples=1000)
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


OPS = [ToolOp(index=0, step_id="look", type="tool", path="look", names=("x", "y"))]
STEP = StepName("look", "tool")


def recorded(number: int, output: Any, x: Any = 1, extra: Any = None) -> Record:
    """As it is read back from JSON."""
    request = {"x": x, "y": [number]}
    return Record(STEP, f"look#{number}", StepStatus.SUCCESS, output, None, request, 0, 0,
                  None, None, extra)  # fmt: skip


def computed(number: int, output: Any, x: Any = 1) -> tuple[Any, ...]:
    """As a machine makes it, in its short form."""
    return 0, output, (x, [number]), 0, 0, f"look#{number}"


@pytest.mark.parametrize("at", [0, 1, PAIRS // 3, PAIRS, 2 * PAIRS, 3 * PAIRS - 1])
@pytest.mark.parametrize("changed", [{"output": {"n": 1.0}}, {"x": True}, {"extra": {"by": "ann"}}])
def test_one_difference_among_many_records_is_found_where_it_is(
    at: int, changed: dict[str, Any]
) -> None:
    old = [recorded(n, {"n": 1}) for n in range(3 * PAIRS)]
    new = [computed(n, {"n": 1}) for n in range(3 * PAIRS)]
    assert compare(old, new, OPS) == (3 * PAIRS, None)
    old[at] = recorded(at, **{"output": {"n": 1}, **changed})
    done, found = compare(old, new, OPS)
    assert found is None if "extra" in changed else found is not None, (
        "who decided is no part of what happened"
    )
    assert (done, found and found.path) == (
        (3 * PAIRS, None) if found is None else (at, f"look#{at}")
    )


def test_frames_of_other_lengths_differ_where_the_shorter_ends() -> None:
    old, new = ([make(n, "x") for n in range(4)] for make in (recorded, computed))
    for fewer, more, kind in ((old, new[:3], "extra"), (old[:3], new, "missing")):
        done, found = compare(fewer, more, OPS)
        assert found is not None
        assert (done, found.kind, found.path) == (3, kind, "look#3")


FORK = ForkOp(index=1, step_id="both", type="parallel", path="both")


def joined(*children: list[Any], **beside: Any) -> Record:
    """The record of a fork with these records of its frames."""
    extra = {"forked": True, "children": list(children), **beside}
    return Record(FORK, "both", StepStatus.SUCCESS, {}, None, None, 0, 0, None, None, extra)


def held(children: list[list[Any]], others: list[list[Any]]) -> tuple[int, str, str] | int:
    """How many records agree; with the kind and the path of what differs, where something does."""
    done, found = compare([joined(*children)], [joined(*others)], [*OPS, FORK])
    return done if found is None else (done, found.kind, found.path)


def test_the_records_of_child_frames_are_those_of_the_same_frames() -> None:
    """All frames of a level are held against each other as one row, which hides no border."""
    a, b, c = (recorded(n, "x") for n in range(3))
    new = [computed(n, "x") for n in range(3)]
    assert held([[a], [b, c]], [new[:1], new[1:]]) == 4
    assert held([[a, b], [c]], [new[:1], new[1:]]) == (1, "extra", "look#1")
    assert held([[a], [b, c]], [new[:2], new[2:]]) == (1, "missing", "look#1")
    assert held([[a], [b], [c]], [new[:1], new[1:]]) == (2, "missing", "look#2")


def test_a_difference_two_levels_down_is_found_where_it_is() -> None:
    deep = [computed(n, {"n": n}) for n in range(2)]
    same_below = [recorded(n, {"n": n}) for n in range(2)]
    assert held([[joined(same_below)], []], [[joined(deep)], []]) == 4
    other_below = [same_below[0], recorded(1, {"n": 1.0})]
    assert held([[joined(other_below)], []], [[joined(deep)], []]) == (1, "changed", "look#1")


def test_what_stands_beside_a_fork_is_held_against_the_other_side() -> None:
    old, new = [recorded(0, "x")], [computed(0, "x")]
    done, found = compare([joined(old, failed=["a"])], [joined(new)], [*OPS, FORK])
    assert (done, found and found.field) == (1, "failed")
