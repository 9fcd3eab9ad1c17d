"""What a run may still use, and how it is shared at a fork."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nano_vm.machine.ledger import UNLIMITED, Ledger, Shares

CEILINGS = st.lists(
    st.tuples(st.just(1), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8
)


@pytest.mark.slow
@given(CEILINGS, st.integers(0, 100), st.integers(0, 100))
def test_shares_give_no_more_than_there_is_and_no_less_than_a_ceiling_that_fits(
    ceilings: list[tuple[int, int, int]], llm_calls: int, tool_calls: int
) -> None:
    given = Shares(Ledger(1_000, llm_calls, tool_calls), ceilings, len(ceilings))
    shares = [given.granted(number, None) for number in range(len(ceilings))]
    for at, have, granted in (
        (1, llm_calls, [share.llm_calls for share in shares]),
        (2, tool_calls, [share.tool_calls for share in shares]),
    ):
        wanted = [ceiling[at] for ceiling in ceilings]
        if sum(wanted) <= have:
            assert all(share >= ceiling for share, ceiling in zip(granted, wanted, strict=True))
            assert [
                share for share, ceiling in zip(granted, wanted, strict=True) if not ceiling
            ] == [0] * wanted.count(0)
            assert sum(granted) == (have if any(wanted) else 0), (
                "what is left goes to those who call"
            )
        else:
            assert sum(granted) == have


@pytest.mark.slow
@given(CEILINGS, st.integers(0, 60), st.integers(0, 60), st.integers(1, 8), st.data())
def test_lanes_use_no_more_than_there_is(
    ceilings: list[tuple[int, int, int]],
    tokens: int,
    tool_calls: int,
    at_once: int,
    data: st.DataObject,
) -> None:
    """Each child uses any part of what it is granted: first ones of lanes have more than their own
    share, all have no more together.
    """
    ledger = Ledger(1_000, tool_calls=tool_calls, tokens=tokens)
    given = Shares(ledger, ceilings, at_once)
    assert given.lanes in (at_once, len(ceilings))
    left: dict[int, Ledger] = {}
    for number, (_, calls_models, _) in enumerate(ceilings):
        granted = given.granted(number, left.get(number - given.lanes))
        rest = left[number] = granted.copy()
        rest.tokens -= data.draw(st.integers(0, granted.tokens)) if calls_models else 0
        assert rest.take_tool_calls(data.draw(st.integers(0, granted.tool_calls)))
        ledger.settle(granted, rest)
    assert min(ledger.tokens, ledger.tool_calls) >= 0
    if at_once == 1 and any(ceiling[1] for ceiling in ceilings):
        assert given.granted(0, None).tokens == tokens


def test_what_is_not_bounded_stays_so() -> None:
    ledger = Ledger(1_000)
    assert ledger.take_tool_calls(5)
    assert ledger.take_llm_calls()
    given = Shares(ledger, [(1, 2, 3), (1, 0, 0)], 2)
    shares = [given.granted(number, None) for number in range(2)]
    for share in shares:
        share.take_tool_calls(2)
        ledger.settle(share, share)
    assert {ledger.tool_calls, ledger.llm_calls, *(share.tool_calls for share in shares)} == {
        UNLIMITED
    }


def test_what_is_bounded_is_taken_to_its_end() -> None:
    ledger = Ledger(1_000, llm_calls=3, tool_calls=1)
    assert ledger.take_llm_calls(2)
    assert not ledger.take_llm_calls(2)
    assert ledger.llm_calls == 0
    assert ledger.take_tool_calls()
    assert not ledger.take_tool_calls()


@pytest.mark.parametrize(
    ("ledger", "ceilings", "one"),
    [
        (Ledger(100), [(3, 0, 1), (3, 0, 1)], True),
        (Ledger(100, tool_calls=8), [(3, 0, 1), (3, 0, 1)], True),
        (Ledger(100, tool_calls=9), [(3, 0, 1), (3, 0, 1)], False),  # one more has the first
        (Ledger(100), [(3, 0, 1), (4, 0, 1)], False),
        (Ledger(4), [(3, 0, 1), (3, 0, 1)], False),  # scarce
        (Ledger(100, tokens=10), [(3, 1, 0), (3, 1, 0)], False),
    ],
)
def test_children_that_may_use_the_same_have_one_ledger_between_them(
    ledger: Ledger, ceilings: list[tuple[int, int, int]], one: bool
) -> None:
    given = Shares(ledger, ceilings, len(ceilings))
    second, first = given.granted(1, None), given.granted(0, None)
    assert (first is second) == one
    assert first.steps == (ceilings[0][0] if ledger.steps == 100 else 2)
