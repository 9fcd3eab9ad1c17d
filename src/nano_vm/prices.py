"""Prices of models: names in, dollars per million tokens out, as upper bounds.

The figures are those of `genai-prices` (extra ``prices``): data that ships in its wheel, so nothing
is fetched, and the same version gives the same table. A model that it does not know, or does not
price by tokens alone, is not in the table: the cost of a program that uses it is then not known,
which is never shown as zero.

Where a price depends on something that is not known beforehand, the highest counts: the length of
the prompt (tiers), the hour of the day, reasoning beside other output. Prompt that is read from a
provider's cache, or written to it, has its own price where the provider says one. Left out are
prices that only a request for something else has: batches, service tiers, caches that are kept for
an hour, searches, images and sound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from importlib import import_module
from importlib.metadata import version
from typing import Any

from .errors import MissingExtra, VMError
from .records.usage import LLMUsage

Price = tuple[Decimal, Decimal] | tuple[Decimal, Decimal, Decimal, Decimal]
"""Dollars per million tokens of prompt and of answer; and, where they have prices of their own, of
prompt that is read from the provider's cache, and of prompt that is written to it.
"""

MOST_DOLLARS = 10**9
"""The highest price of a million tokens: a sum of costs has no more digits than it can have."""

_DATED = re.compile(r"(.+?)(?:[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{3,4}|latest))\Z")
"""A model's name with what providers add to say which edition answered: ``-2025-04-14``,
``-20250219``, ``@20250219``, ``-0613``, ``-001``, ``-latest``.
"""


def cost_of(price: Price, usage: LLMUsage) -> Decimal:
    """Dollars for the tokens of *usage*."""
    prompt = usage.prompt_tokens
    cost = price[1] * usage.completion_tokens
    if len(price) == 4:
        _, _, cached, written = price
        prompt -= usage.cached_tokens + usage.cache_write_tokens
        cost += cached * usage.cached_tokens + written * usage.cache_write_tokens
    return (price[0] * prompt + cost) / 1_000_000


def bound_of(price: Price, prompt_tokens: int, completion_tokens: int) -> Decimal:
    """The most dollars that so many tokens can cost, whatever a cache does with them."""
    first, answer = highest_of(price)
    return (first * prompt_tokens + answer * completion_tokens) / 1_000_000


def highest_of(price: Price) -> tuple[Decimal, Decimal]:
    """The most of one token of prompt and of answer, as dollars per million."""
    return (max(price[0], *price[2:]) if len(price) == 4 else price[0]), price[1]


def priced_name(answered: str | None, asked: Iterable[str | None], known: Any) -> str | None:
    """The name in *known*, a table of prices, by which a call is priced: that of the model that
    *answered*, without its provider or edition if need be; else the first of those by which it was
    *asked* for. None where there is none.
    """
    names = [name for name in asked if name]
    if answered:
        bare = answered.rpartition("/")[2]
        for name in dict.fromkeys((answered, bare)):
            dated = _DATED.match(name)
            for form in (name, dated[1]) if dated else (name,):
                for full in (form, *(f"{own.rpartition('/')[0]}/{form}" for own in names)):
                    if full in known:
                        return full
    return next((name for name in names if name in known), None)


def checked_price(model: str, given: Any) -> Price:
    """A price as users write it: ``(input, output)``, ``(input, output, cached, cache_write)``, or
    a mapping of these names, of which the last two are the input's unless given.

    Raises:
        VMError: If it is none.
    """
    amounts: Any = given
    if isinstance(given, Mapping):
        known = ("input", "output", "cached", "cache_write")
        if not {"input", "output"} <= given.keys() <= set(known):
            raise _no_price(model, given)
        amounts = [given["input"], given["output"]]
        if len(given) > 2:
            amounts += [given.get(name, given["input"]) for name in known[2:]]
    try:
        price = tuple(Decimal(str(amount)) for amount in amounts)
        if all(a.is_finite() and 0 <= a <= MOST_DOLLARS for a in price):
            match price:
                case (sent, answered):
                    return sent, answered
                case (sent, answered, cached, cache_write):
                    return sent, answered, cached, cache_write
    except (ArithmeticError, TypeError, ValueError):
        pass
    raise _no_price(model, given)


def _no_price(model: str, given: Any) -> VMError:
    return VMError(
        f"the price of {model!r} is {given!r}; it is a pair of amounts: dollars per million tokens, "
        f"(input, output), or {{input: ..., output: ..., cached: ..., cache_write: ...}}"
    )


_OUTPUT = ("output_mtok", "output_reasoning_mtok", "output_citation_mtok")
_CACHED = ("cache_read_mtok", "cache_write_mtok")
_BY_CALL = ("requests_kcount", "input_text_messages_kcount")  # what a call costs beside its tokens


class PriceTable(dict[str, Price]):
    """Prices by name, and in ``sources`` where those come from that no user gave."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[str, str] = {}


def price_table(
    models: Iterable[str],
    overrides: Mapping[str, tuple[Any, Any]] | None = None,
    *,
    on: date | None = None,
) -> PriceTable:
    """The highest price of each of *models* that has one; those in *overrides* count as given.

    A name is looked up as it is, and ``provider/model`` at that provider. *on* is the day that
    prices are asked for; without it all that ever held and are announced count. The table can be
    given to `ExecutionVM(prices=...)` and to `verify`.

    Raises:
        MissingExtra: If a name has to be looked up and ``genai-prices`` is not installed.
        VMError: If an override is not a pair of amounts.
    """
    given = overrides or {}
    table = PriceTable()
    for model in dict.fromkeys(models):
        price = checked_price(model, given[model]) if model in given else _known(model, on)
        if price is not None:
            table[model] = price
            if model not in given:
                table.sources[model] = f"genai-prices {version('genai-prices')}"
    return table


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
    cached: list[list[Decimal]] = [[], []]  # read and written
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
        for amounts, name in zip(cached, _CACHED, strict=True):
            amounts += _amounts(price, (name,)) or ways[0]  # else it costs as any prompt
    if not inputs:
        return None
    plain = max(inputs), max(outputs)
    beside = max(cached[0]), max(cached[1])
    return plain if beside == (plain[0], plain[0]) else (*plain, *beside)


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
