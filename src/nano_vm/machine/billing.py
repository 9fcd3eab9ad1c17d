"""What a model call may cost and has cost: prices and usage in, dollars out, with their source.

A call is priced by the model that answered. Where one call of a program was several of providers (a
pool that tried the next member, or two at once), each of them is priced by itself. What is not
known makes the sum unknown; it never counts as nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from ..prices import Price, bound_of, cost_of, priced_name
from ..records.usage import LLMUsage

Prices = Mapping[str, Price]


@dataclass(frozen=True, slots=True)
class Served:
    """Who may answer for a name of models: the members of a pool, and how many calls of providers
    one call may become. Each member is the names by which it is priced.
    """

    members: tuple[tuple[str, ...], ...]
    attempts: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"members": [list(names) for names in self.members], "attempts": self.attempts}

    @classmethod
    def from_dict(cls, data: Any) -> Served:
        """The inverse of `to_dict`."""
        return cls(
            tuple(tuple(map(str, names)) for names in data["members"]), int(data["attempts"])
        )

    def unpriced(self, prices: Prices | None) -> list[str]:
        """The members that *prices* do not have."""
        return [
            names[0] for names in self.members if priced_name(None, names, prices or {}) is None
        ]

    def prices_in(self, prices: Prices | None) -> list[Price] | None:
        """The price of each member; None where that of any is not known."""
        if prices is None or self.unpriced(prices):
            return None
        return [prices[str(priced_name(None, names, prices))] for names in self.members]


ONE_MODEL = Served((), 1)
"""Of an adapter that is no pool."""


@dataclass(slots=True)
class Meter:
    """What one call of a model may use, by a name of whoever keeps budgets outside of the machine;
    and, once the call has ended, what it is charged with: tokens, and dollars where these are known.
    """

    id: str
    tokens: int
    charged: tuple[int, Decimal | None] | None = None


def most_of(
    name: str | None, served: Served | None, prices: Prices | None, prompt: int, answer: int
) -> Decimal | None:
    """The most that one call of a program can cost: of a pool, every attempt at the dearest member;
    None where a price is not known.
    """
    if served is None:
        price = None if prices is None or name is None else prices.get(name)
        return None if price is None else bound_of(price, prompt, answer)
    known = served.prices_in(prices)
    if known is None:
        return None
    return max(bound_of(price, prompt, answer) for price in known) * served.attempts


def serving(served: Mapping[str | None, Served] | None, model: str | None) -> Served | None:
    """The pool that serves a *model*, if one of *served* does."""
    if served is None:
        return None
    pool = served.get(model) or served.get(None)
    return pool if pool is not None and pool.members else None


def tokens_of(served: Served | None, prompt: int, answer: int) -> int:
    """The most tokens that a call can use: of a pool, in each of its attempts."""
    return (prompt + answer) * (1 if served is None else served.attempts)


def charge_of(
    reserved: int,
    usage: LLMUsage | None,
    extra: Mapping[str, Any] | None,
    served: Served | None,
) -> tuple[int, Decimal | None]:
    """What a call is charged with for which *reserved* tokens were set aside, and dollars where
    these are known; without usage, which nobody knows then, all of it.
    """
    if usage is None:
        return reserved, None
    return usage.total_tokens + unmetered(reserved, extra, served), usage.cost_usd


def unmetered(reserved: int, extra: Mapping[str, Any] | None, served: Served | None) -> int:
    """The tokens *reserved* for those attempts of a pool of which nobody knows what they used."""
    route = (extra or {}).get("route")
    if route is None or served is None:
        return 0
    lost = sum("usage" not in attempt for attempt in route["attempts"])
    return min(lost, served.attempts) * (reserved // served.attempts)


def unpriced(name: str | None, served: Served | None, prices: Prices | None) -> str:
    """What of the model *name* has no price, in words."""
    missing = served.unpriced(prices) if served is not None else []
    return f"member {missing[0]!r} of pool {name!r}" if missing else f"model {name!r}"


def priced(
    usage: LLMUsage, told: dict[str, Any] | None, asked: Sequence[str | None], prices: Prices | None
) -> tuple[LLMUsage, dict[str, Any] | None]:
    """*usage* with its cost, and *told*, what is recorded beside it, with the cost's source:
    ``prices`` of the host or the ``adapter``; and ``priced_as``, if that is not the name of the
    model that answered. *asked* are the names by which the model was asked for.
    """
    answered = told.get("model") if told else None
    route = told.get("route") if told else None
    if route is not None:
        return _priced_route(usage, dict(told or {}), route, prices or {})
    name = (
        priced_name(answered, asked, prices) if prices is not None and usage.total_tokens else None
    )
    if name is not None and prices is not None:
        usage = replace(usage, cost_usd=cost_of(prices[name], usage))
        beside = {"cost_source": "prices"}
        if answered and name != answered:
            beside["priced_as"] = name
        return usage, {**(told or {}), **beside}
    if usage.cost_usd is not None:
        return usage, {**(told or {}), "cost_source": "adapter"}
    return usage, told


def _priced_route(
    usage: LLMUsage, told: dict[str, Any], route: Mapping[str, Any], prices: Prices
) -> tuple[LLMUsage, dict[str, Any]]:
    """The same for a call that was several: each attempt has its own cost in the route."""
    attempts, costs = [], []
    for attempt in route["attempts"]:
        spent = _spent(attempt, prices)
        costs.append(spent)
        attempts.append(attempt if spent is None else {**attempt, "usage": spent.to_dict()})
    total = _sum(cost.cost_usd if cost is not None else None for cost in costs)
    told["route"] = {**route, "attempts": attempts}
    if total is not None:
        told["cost_source"] = "prices"
    return replace(usage, cost_usd=total), told


def _spent(attempt: Mapping[str, Any], prices: Prices) -> LLMUsage | None:
    """What one attempt of a route consumed, with its cost; None where nobody knows."""
    if "usage" not in attempt:
        return None
    usage = LLMUsage.from_dict(attempt["usage"])
    names = (attempt["member"], attempt.get("asked"))
    name = priced_name(attempt.get("model"), names, prices) if usage.total_tokens else None
    return usage if name is None else replace(usage, cost_usd=cost_of(prices[name], usage))


def _sum(costs: Iterable[Decimal | None]) -> Decimal | None:
    total = Decimal(0)
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total
