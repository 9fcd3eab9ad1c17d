"""Shape: circles, steps that no path reaches, and steps that are entered in two ways."""

from __future__ import annotations

from typing import Any

import pytest
from build import mapped, parallel, program

from nano_vm.language.flow import Flow
from nano_vm.verify.shape import check_entries, check_shape


def noted(step_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "set", "values": {"x": 1}, **fields}


def choice(step_id: str, then: Any, otherwise: Any = None, **fields: Any) -> dict[str, Any]:
    branches = {"then": then} if otherwise is None else {"then": then, "otherwise": otherwise}
    return {"id": step_id, "type": "condition", "condition": "$q == 1", **branches, **fields}


def entries(*steps: dict[str, Any]) -> list[str]:
    flow = Flow(program(*steps))
    assert not flow.diagnostics, flow.diagnostics
    found = list(check_entries(flow))
    assert all((d.code, d.severity) == ("V015", "hint") for d in found)
    return [d.message for d in found]


BOTH = "step 'b' is reached in order and by jump, from 'c': by jump the run ends after it"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([choice("c", "b", "$next"), noted("a"), noted("b"), noted("d")], [BOTH]),
        ([choice("c", "b", "$next"), noted("a"), noted("b", next="d"), noted("d")], []),
        # it is the last: the run ends either way
        ([choice("c", "b", "$next"), noted("a"), noted("b")], []),
        ([choice("c", "b", "a"), noted("a"), noted("b"), noted("d")], []),  # by jump only
        ([choice("c", [noted("b")]), noted("d")], []),
        (
            [noted("t", on_error="skip", catch=[{"next": "b"}]), noted("b"), noted("d")],
            ["step 'b' is reached in order and by jump, from 't': by jump the run ends after it"],
        ),
        (
            [parallel([choice("c", "b", "$next"), noted("a"), noted("b"), noted("d")])],
            [
                "step 'b' is reached in order and by jump, from 'c': by jump the branch ends "
                "after it"
            ],
        ),
        (
            [mapped(choice("c", "b", "$next"), noted("a"), noted("b"), noted("d"), over=[1])],
            ["step 'b' is reached in order and by jump, from 'c': by jump the item ends after it"],
        ),
    ],
)
def test_steps_entered_in_two_ways(steps: list[dict[str, Any]], expected: list[str]) -> None:
    assert entries(*steps) == expected


def test_a_block_that_is_itself_entered_twice_says_it_once() -> None:
    inner = choice("b", [noted("i"), noted("j")])
    assert entries(choice("c", "b", "$next"), inner, noted("d")) == [BOTH]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([noted("a", next="a")], ["V005 steps run in a circle: a -> a"]),
        # reached by jump it ends the run: no circle
        (
            [noted("a"), choice("b", "a", "$end")],
            [
                "V023 step 'b' jumps back to 'a', which also runs in order: the run ends after "
                "it, nothing is repeated"
            ],
        ),
        (
            [noted("a"), choice("b", [noted("i", next="a")])],
            ["V005 steps run in a circle: a -> b -> i -> a"],
        ),
        ([noted("a", next="$end"), noted("b", next="b")], ["V009 no path reaches step 'b'"]),
        ([noted("a", next="$end", catch=[{"next": "b"}]), noted("b")], []),
        (
            [choice("a", "$end", "$end"), choice("b", [noted("i")])],
            ["V009 no path reaches step 'b'"],
        ),
    ],
)
def test_circles_and_what_no_path_reaches(steps: list[dict[str, Any]], expected: list[str]) -> None:
    assert [f"{d.code} {d.message}" for d in check_shape(Flow(program(*steps)))] == expected
