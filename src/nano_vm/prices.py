"""Prices of models: names in, dollars per million tokens out, as upper bounds.

The figures are those of `genai-prices` (extra ``prices``): data that ships in its wheel, so nothing
is fetched, and the same version gives the same table. A model that it does not know, or does not
price by tokens alone, is not in the table: the cost of a program that uses it is then not known,
which is never told as zero.

Where a price depends on something that is not known beforehand, the highest counts: the length of
the prompt (tiers), the hour of the day, reasoning beside other output. Left out are prices that
only a request for something else has: batches, service tiers, caches that are written on demand,
searches, images and sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from importlib import import_module
from typing import Any

from .errors import MissingExtra, VMError

Price = tuple[Decimal, Decimal]
"""Dollars per million tokens of prompt and of answer."""


def cost_of(price: Price, prompt_tokens: int, completion_tokens: int) -> Decimal:
    """Dollars for so many tokens."""
    return (price[0] * prompt_tokens + price[1] * completion_tokens) / 1_000_000


_OUTPUT = ("output_mtok", "output_reasoning_mtok", "output_citation_mtok")
_BY_CALL = ("requests_kcount", "input_text_messages_kcount")  # what a call costs beside its tokens


def price_table(
    models: Iterable[str],
    overrides: Mapping[str, tuple[Any, Any]] | None = None,
    *,
    on: date | None = None,
) -> dict[str, Price]:
    """The highest price of each of *models* that has one; those in *overrides* count as given.

    A name is looked up as it is, and ``provider/model`` at that provider. *on* is the day that
    prices are asked for; without it all that ever held and are announced count. The table can be
    given to `ExecutionVM(prices=...)` and to `verify`.

    Raises:
        MissingExtra: If a name has to be looked up and ``genai-prices`` is not installed.
        VMError: If an override is not a pair of amounts.
    """
    given = overrides or {}
    table: dict[str, Price] = {}
    for model in dict.fromkeys(models):
        price = _given(model, given[model]) if model in given else _known(model, on)
        if price is not None:
            table[model] = price
    return table


def _given(model: str, pair: tuple[Any, Any]) -> Price:
    try:
        first, second = (Decimal(str(amount)) for amount in pair)
        if first.is_finite() and second.is_finite() and first >= 0 and second >= 0:
            return first, second
    except (ArithmeticError, TypeError, ValueError):
        pass
    hint = "dollars per million tokens, (input, output)"
    raise VMError(f"the price of {model!r} is {pair!r}; it is a pair of amounts: {hint}")


def _known(model: str, on: date | None) -> Price | None:
    try:
        # 0.2 s: only where a price is looked up
        data: Any = import_module("genai_prices.data_snapshot")
    except ImportError:
        raise MissingExtra("price_table", "prices") from None
    snapshot = data.get_snapshot()
    provider, slash, name = model.partition("/")
    ways = [(name, provider)] if slash else []
    for reference, at in [*ways, (model, None)]:
        try:
            _, found = snapshot.find_provider_model(reference, None, at, None)
        except LookupError:
            continue
        return _highest([*_holding(found.prices, on)])
    return None


def _holding(prices: Any, on: date | None) -> Iterable[dict[str, Any]]:
    """The prices that may hold on the day; the last one whose condition is met counts, else the
    first.
    """
    if not isinstance(prices, list):
        yield vars(prices)
        return
    for number, conditional in reversed(list(enumerate(prices))):
        start = getattr(conditional.constraint, "start_date", None)
        if on is not None and start is not None and start > on and number > 0:
            continue
        yield vars(conditional.prices)
        if on is not None and (start is not None or conditional.constraint is None):
            return  # those before it are superseded; a time of day is not


def _highest(prices: list[dict[str, Any]]) -> Price | None:
    inputs: list[Decimal] = []
    outputs: list[Decimal] = []
    for price in prices:
        ways = _amounts(price, ("input_mtok",)), _amounts(price, _OUTPUT)
        if (
            not all(ways)
            or price.get("output_mtok") is None
            or any(price.get(name) is not None for name in _BY_CALL)
        ):
            return None
        inputs += ways[0]
        outputs += ways[1]
    return (max(inputs), max(outputs)) if inputs else None


def _amounts(price: Mapping[str, Any], names: Iterable[str]) -> list[Decimal]:
    """The amounts under *names*, with those of each tier."""
    found: list[Decimal] = []
    for name in names:
        amount = price.get(name)
        if isinstance(amount, Decimal):
            found.append(amount)
        elif amount is not None:
            found += [amount.base, *(tier.price for tier in amount.tiers)]
    return found
