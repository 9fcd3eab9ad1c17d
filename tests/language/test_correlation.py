"""Whether an event has the values that a wait matches, and marks by which a database finds those
that may.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nano_vm.language.correlation import fits, fitted, mark_of_wait, marks_of_event
from nano_vm.language.operators import equal

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-3, 3).map(float)
    | st.text()
    | st.integers(-3, 3).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(str)
    | st.sampled_from(
        [
            "1e400",
            "-0",
            "0.0",
            " 7 ",
            "7.0",
            "1E2",
            "100",
            1e23,
            10**23,
            int(1e23),
            10**400,
            "1" + "0" * 400,
            "true",
        ]
    )
)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=2)
    | st.dictionaries(st.text(max_size=1), SCALARS, max_size=2)
)


@pytest.mark.slow
@given(VALUES, VALUES)
@example(7, "7.0")
@example(10**400, "1" + "0" * 400)
@example(int(1e23), 1e23)
@example(-0.0, "0")
@example({"a": 1}, {"a": 1.0})
def test_what_is_equal_has_a_mark_in_common(a: Any, b: Any) -> None:
    if equal(a, b):
        assert mark_of_wait("e", {"f": a}) in marks_of_event("e", {"x": 1, "f": b})
    assert fits({"f": b}, {"f": a}) == equal(a, b)


@pytest.mark.slow
@given(st.dictionaries(st.text(max_size=2), SCALARS, min_size=1, max_size=5), st.data())
def test_an_event_that_fits_is_found_by_any_of_its_fields(
    payload: dict[str, Any], data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(payload)), min_size=1, unique=True))
    match = {name: payload[name] for name in names}
    assert fits(payload, match)
    assert mark_of_wait("e", match) in marks_of_event("e", payload)
    assert mark_of_wait("other", match) not in marks_of_event("e", payload)


@pytest.mark.parametrize(
    ("payload", "match", "does"),
    [
        ({"order": 7, "sum": 5}, {"order": 7}, True),
        ({"order": "7"}, {"order": 7}, True),
        ({"order": "7"}, {"order": "7.0"}, False),  # two texts are compared as texts
        ({"order": True}, {"order": 1}, False),
        ({"order": None}, {"order": None}, True),
        ({}, {"order": None}, False),
        ({"order": 7}, {"order": 7, "room": 1}, False),
        ({"order": {"id": 7}}, {"order": {"id": 7}}, True),
        ({"order": {"id": 7, "x": 1}}, {"order": {"id": 7}}, False),
        ([7], {"order": 7}, False),
        ("7", {"order": 7}, False),
        (None, None, True),
        ([1], None, True),
    ],
)
def test_values_are_compared_as_the_language_does(payload: Any, match: Any, does: bool) -> None:
    assert fits(payload, match) is does
    assert fits(fitted(payload, match), match)
