"""The parts of a pool by themselves: windows, orders, ranks."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nano_vm import Member
from nano_vm.adapters.pool import choice
from nano_vm.adapters.pool.breaker import Breaker, Breaking
from nano_vm.adapters.pool.limits import Window


class Plain:
    def __init__(self, model: str) -> None:
        self.model = model

    async def complete(self, messages: Any) -> str:
        return self.model


class Asked:
    """A call as a strategy sees it."""

    def __init__(self, number: int = 0, key: str = "", tokens: tuple[int, int] = (1, 1)) -> None:
        self.number, self.key, self.tokens = number, key, tokens

    def place(self) -> str:
        return self.key

    def expected(self) -> tuple[int, int]:
        return self.tokens


@pytest.mark.slow
@given(
    limit=st.integers(1, 12),
    calls=st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 12), st.integers(0, 12)), max_size=60
    ),
)
def test_no_window_lets_more_through(limit: int, calls: list[tuple[int, int, int]]) -> None:
    """Whatever comes when: what begins in any window of the length, is at most the limit; what is
    refused may begin after the wait that was told.
    """
    length = 100
    window = Window(limit, length)
    now, begun = 0, []
    for pause, amount, used in calls:
        now += pause
        amount = min(amount, limit)
        wait = window.wait_ns(amount, now)
        if wait:
            assert 0 < wait <= length
            now += wait
            assert window.wait_ns(amount, now) == 0
        entry = window.take(amount, now)
        begun.append((now, min(used, amount)))
        window.settle(entry, min(used, amount))
    for start, _ in begun:
        assert sum(a for time, a in begun if start <= time < start + length) <= limit


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60)), max_size=40))
def test_a_breaker_lets_one_probe_through(events: list[tuple[int, int]]) -> None:
    breaker = Breaker(Breaking(failures=2, open_seconds=30))
    now = under_way = 0
    for event, seconds in events:
        now += seconds * 10**9
        if event == 0 and breaker.admits(now):
            opened = bool(breaker.opened)
            breaker.begin()
            under_way = under_way + 1 if not opened else 1
            if opened:
                assert not breaker.admits(now), "a second probe"
        elif event == 1 and under_way:
            under_way -= 1
            breaker.fail(now)
        elif event == 2 and under_way:
            under_way -= 1
            breaker.succeed()
            assert breaker.state(now) == "closed"
    assert breaker.state(now) in ("closed", "open", "half_open")


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=8),
    st.integers(0, 500),
    st.integers(0, 500),
)
def test_cheapest_is_the_lowest_cost(
    prices: list[tuple[int, int]], prompt: int, answer: int
) -> None:
    members = [Member(Plain(f"m{i}")) for i in range(len(prices))]
    priced = [(Decimal(a), Decimal(b)) for a, b in prices]
    order = list(choice.cheapest(members, priced)(Asked(tokens=(prompt, answer))))
    assert sorted(order) == list(range(len(prices)))
    costs = [a * prompt + b * answer for a, b in prices]
    assert costs[order[0]] == min(costs)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=60))
def test_ranked_gives_the_lowest_rank(changes: list[tuple[int, int]]) -> None:
    members = [Member(Plain(f"m{i}")) for i in range(5)]
    ranked = choice.Ranked(members, choice.busyness)
    for number, busy in changes:
        members[number].busy = busy
        if busy % 2:  # else it was changed by another pool
            ranked.touch(number)
        first = next(ranked.choose(Asked()))
        shown = [member.busy for member in members]
        # one that fell elsewhere is noticed when it comes up, not before
        assert shown[first] <= max(shown)
    for number in range(5):
        ranked.touch(number)
    order = list(ranked.choose(Asked()))
    assert [members[n].busy for n in order] == sorted(m.busy for m in members)


@pytest.mark.slow
@given(st.integers(1, 9), st.integers(0, 10**6), st.text())
def test_every_order_has_every_member_once(count: int, number: int, key: str) -> None:
    members = [Member(Plain(f"m{i}"), weight=i + 1) for i in range(count)]
    asked = Asked(number, key)
    for order in (
        choice.ordered(members),
        choice.round_robin(members),
        choice.weighted(members, 7),
        choice.hashed(members),
        choice.Ranked(members, choice.slowness).choose,
    ):
        assert sorted(order(asked)) == list(range(count))
        assert list(order(asked)) == list(order(asked))
