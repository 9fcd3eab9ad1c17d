"""Prices from the bundled data: upper bounds, no network, nothing made up."""

from __future__ import annotations

import sys
from datetime import date, time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from nano_vm import VMError
from nano_vm.errors import MissingExtra
from nano_vm.prices import _highest, _holding, cost_of, highest_of, price_table
from nano_vm.records.usage import LLMUsage

D = Decimal


@pytest.mark.slow
def test_a_known_model() -> None:
    """The figures are the provider's list prices, which have held since these models came out."""
    table = price_table(["gpt-4o-mini", "openai/gpt-4o-mini", "gpt-4o-mini"])
    price = (D("0.15"), D("0.6"), D("0.075"), D("0.15"))
    assert table == {"gpt-4o-mini": price, "openai/gpt-4o-mini": price}


def test_a_prompt_in_a_cache_has_a_price_of_its_own() -> None:
    """Read at a tenth, written at a quarter more; that is the most that a token can cost."""
    price = price_table(["anthropic/claude-sonnet-4-5"])["anthropic/claude-sonnet-4-5"]
    assert price == (D(6), D("22.5"), D("0.6"), D("7.5"))
    assert highest_of(price) == (D("7.5"), D("22.5"))
    read = LLMUsage(1_000_000, 0, 1_000_000, cached_tokens=1_000_000)
    assert cost_of(price, read) == D("0.6")
    one_of_two = [
        {"input_mtok": D(2), "output_mtok": D(3), "cache_read_mtok": D(1)},
        {"input_mtok": D(1), "output_mtok": D(3)},
    ]
    assert _highest(one_of_two) == (D(2), D(3), D(1), D(2))
    same = {"input_mtok": D(2), "output_mtok": D(3), "cache_read_mtok": D(2)}
    assert _highest([same]) == (D(2), D(3))


def test_what_is_not_known_is_not_in_the_table() -> None:
    assert price_table(["no-such-model", "nobody/gpt-0"]) == {}


def test_overrides_count_as_given_and_need_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    assert price_table(["own"], {"own": (0.1, "2"), "other": (1, 1)}) == {"own": (D("0.1"), D(2))}
    with pytest.raises(MissingExtra, match=r"llm-nano-vm\[prices\]"):
        price_table(["gpt-4o-mini"])


@pytest.mark.parametrize("pair", [(1,), (1, -1), ("x", 1), (1, "nan"), None, 5])
def test_an_override_that_is_no_price(pair: Any) -> None:
    with pytest.raises(VMError, match="the price of 'm' is"):
        price_table(["m"], {"m": pair})


def test_the_price_of_a_day() -> None:
    """o3 cost five times as much before 10 June 2025."""
    assert price_table(["o3"], on=date(2025, 6, 9))["o3"][:2] == (D(10), D(40))
    assert price_table(["o3"], on=date(2025, 6, 10))["o3"][:2] == (D(2), D(8))
    assert price_table(["o3"])["o3"][:2] == (D(10), D(40))


def conditional(price: int, **constraint: Any) -> Any:
    held = SimpleNamespace(**constraint) if constraint else None
    return SimpleNamespace(constraint=held, prices=SimpleNamespace(p=price))


def test_every_hour_of_the_day_counts_and_what_is_superseded_does_not() -> None:
    prices = [
        conditional(1),
        conditional(2, start_date=date(2025, 1, 1)),
        conditional(3, start_time=time(1), end_time=time(2)),
        conditional(4, start_date=date(2026, 1, 1)),
    ]

    def held(on: date | None) -> list[int]:
        return [price["p"] for price in _holding(prices, on)]

    assert held(None) == [4, 3, 2, 1]
    assert held(date(2024, 1, 1)) == [3, 1]
    assert held(date(2025, 5, 5)) == [3, 2]
    assert held(date(2026, 5, 5)) == [4]
    assert [
        price["p"]
        for price in _holding([conditional(7, start_date=date(2030, 1, 1))], date(2025, 1, 1))
    ] == [7]


def test_the_highest_tier_and_every_price_must_be_by_tokens() -> None:
    tiered = SimpleNamespace(
        base=D(1), tiers=[SimpleNamespace(price=D(3)), SimpleNamespace(price=D(2))]
    )
    assert _highest(
        [{"input_mtok": tiered, "output_mtok": D(4), "output_reasoning_mtok": D(5)}]
    ) == (D(3), D(5))
    assert _highest(
        [{"input_mtok": D(1), "output_mtok": D(2)}, {"input_mtok": D(0), "output_mtok": D(9)}]
    ) == (
        D(1),
        D(9),
    )
    assert _highest([{"input_mtok": D(1), "output_mtok": D(2)}, {"input_mtok": D(1)}]) is None
    assert _highest([{"input_mtok": D(1), "output_mtok": None}]) is None
    assert _highest([{"input_mtok": D(1), "output_mtok": D(2), "requests_kcount": D(1)}]) is None
    assert _highest([{}]) is None
    assert _highest([]) is None


@pytest.mark.slow
def test_most_models_of_the_data_have_a_price() -> None:
    from genai_prices.data_snapshot import get_snapshot

    names = [f"{p.id}/{m.id}" for p in get_snapshot().providers for m in p.models]
    table = price_table(names)
    assert len(table) > 0.8 * len(set(names))
    assert all(price >= 0 for pair in table.values() for price in pair)
