"""The accounts of budgets that many runs share.

Rule 1: before a call of a model the most that it can use is reserved in every account that it
counts in, all of them or none; what is not covered is not called. Rule 2: each reservation is
settled once: with what the call used, or by itself where nobody knows that. So what is spent and
reserved is never below zero, and never above a limit but by what a provider bills beyond its own
bound.

Here is what accounts are and how they are decided on; a store keeps them for all processes that
have it open, `Books` for one process. How budgets are written is in `shared_budget`. Amounts of
money are integers of picodollars, rounded up.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal, localcontext
from typing import Any, NamedTuple, Protocol

PICODOLLARS = 10**12
"""Of a dollar. The cheapest token today costs some 10,000 of them."""

DIGITS = 60
"""Of sums, as in `spending`."""


class Amount(NamedTuple):
    """What calls of models use, or may."""

    calls: int = 0
    tokens: int = 0
    picodollars: int = 0


def added(one: Amount, other: Amount) -> Amount:
    """Both together."""
    return Amount(*(a + b for a, b in zip(one, other, strict=True)))


def without(one: Amount, other: Amount) -> Amount:
    """The first without the second."""
    return Amount(*(a - b for a, b in zip(one, other, strict=True)))


def picodollars(dollars: Decimal) -> int:
    """*dollars* as an integer, rounded up: a limit is never passed by what was rounded."""
    with localcontext(prec=DIGITS):
        return int((dollars * PICODOLLARS).to_integral_value(ROUND_CEILING))


def in_dollars(amount: int) -> Decimal:
    """The inverse of `picodollars`, exactly."""
    with localcontext(prec=DIGITS):
        return Decimal(amount) / PICODOLLARS


LIMITS = ("max_llm_calls", "max_tokens", "max_cost_usd")
"""What the limits of an account are called by who writes them."""


@dataclass(frozen=True, slots=True)
class Account:
    """One sum of a budget: what is counted apart, and its limits, which are not kept with it."""

    budget: str
    of: tuple[tuple[str, str], ...]
    limits: tuple[int | None, int | None, int | None] = (None, None, None)

    @property
    def key(self) -> str:
        """By which it is kept."""
        return json.dumps([self.budget, dict(self.of)], separators=(",", ":"))

    @classmethod
    def of_key(cls, key: str) -> Account:
        """The inverse of `key`, without limits."""
        budget, of = json.loads(key)
        return cls(budget, tuple(of.items()))

    def __str__(self) -> str:
        of = ", ".join(f"{name} {value}" for name, value in self.of)
        return f"budget {self.budget!r}" + (f" ({of})" if of else "")


class Standing(NamedTuple):
    """How an account stands: what is spent, and what calls under way may use."""

    spent: Amount = Amount()
    reserved: Amount = Amount()


def account_json(account: Account, standing: Standing) -> dict[str, Any]:
    """How *account* stands, as JSON; amounts of money are strings of dollars."""
    calls, tokens, cost = account.limits
    return {
        "name": account.budget,
        "of": dict(account.of),
        "spent": _amount_json(standing.spent),
        "reserved": _amount_json(standing.reserved),
        "max_llm_calls": calls,
        "max_tokens": tokens,
        "max_cost_usd": None if cost is None else str(in_dollars(cost)),
    }


def account_of_json(told: Mapping[str, Any]) -> tuple[Account, Standing]:
    """The inverse of `account_json`."""
    cost = told["max_cost_usd"]
    limits = (
        told["max_llm_calls"],
        told["max_tokens"],
        None if cost is None else picodollars(Decimal(cost)),
    )
    account = Account(told["name"], tuple(told["of"].items()), limits)
    return account, Standing(_amount_of_json(told["spent"]), _amount_of_json(told["reserved"]))


def _amount_of_json(told: Mapping[str, Any]) -> Amount:
    return Amount(told["calls"], told["tokens"], picodollars(Decimal(told["cost_usd"])))


def _amount_json(amount: Amount) -> dict[str, Any]:
    calls, tokens, cost = amount
    return {"calls": calls, "tokens": tokens, "cost_usd": str(in_dollars(cost))}


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one call of a run may use, in the accounts in which it counts. The *id* is its own: one
    that is made again, because the answer to it was lost, is the same.
    """

    id: str
    run_id: str
    accounts: tuple[Account, ...]
    amount: Amount


@dataclass(frozen=True, slots=True)
class Shortage:
    """The budget that does not cover a call: which, its limit, and how it stands."""

    account: Account
    limit: str
    asked: int
    most: int
    spent: int
    reserved: int

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form; amounts of money are strings of dollars."""
        amounts = (self.asked, self.most, self.spent, self.reserved)
        cost = self.limit == "max_cost_usd"
        told: list[int | str] = [str(in_dollars(a)) if cost else a for a in amounts]
        return {
            "name": self.account.budget,
            "of": dict(self.account.of),
            "limit": self.limit,
            **dict(zip(("asked", "most", "spent", "reserved"), told, strict=True)),
        }

    def __str__(self) -> str:
        asked, most, spent, reserved = map(
            self._written, (self.asked, self.most, self.spent, self.reserved)
        )
        verb = "cost" if self.limit == "max_cost_usd" else "use"
        return (
            f"{self.account}: the call may {verb} {asked}; of {most} ({self.limit}) {spent} are "
            f"spent and {reserved} reserved"
        )

    def _written(self, amount: int) -> str:
        match self.limit:
            case "max_cost_usd":
                return f"${in_dollars(amount):f}"
            case "max_tokens":
                return f"{amount:,} tokens"
        return f"{amount:,} call{'s' * (amount != 1)}"


def shortage(reservation: Reservation, standings: Mapping[str, Standing]) -> Shortage | None:
    """The first account that does not cover *reservation*, by how accounts stand (by their keys)."""
    for account in reservation.accounts:
        spent, reserved = standings[account.key]
        for i, (limit, most) in enumerate(zip(LIMITS, account.limits, strict=True)):
            asked = reservation.amount[i]
            if most is not None and asked > most - spent[i] - reserved[i]:
                return Shortage(account, limit, asked, most, spent[i], reserved[i])
    return None


def day_of(time_ns: int) -> str:
    """The day of a moment since the epoch, in UTC."""
    return datetime.fromtimestamp(time_ns // 10**9, UTC).date().isoformat()


class KeepsBudgets(Protocol):
    """What keeps accounts: a store, or `Books`."""

    def reserve(self, reservation: Reservation) -> Awaitable[Shortage | None]:
        """Reserve in all accounts of *reservation*, or in none: then the budget that binds."""
        ...

    def settle(self, id: str, used: Amount | None) -> Awaitable[None] | None:
        """Replace what was reserved under *id* by what was *used*, or where that is not known by
        itself; nothing where it was settled before. Begun when this returns, and before every
        reservation that is made later; None where it is done.
        """
        ...

    def accounts(self) -> dict[str, Standing]:
        """How all accounts stand, by their keys, in the order of these."""
        ...


class Books:
    """The accounts of one process."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}
        self._open: dict[str, Reservation] = {}
        self._lock = threading.Lock()

    async def reserve(self, reservation: Reservation) -> Shortage | None:
        """See `KeepsBudgets.reserve`."""
        return self.reserved(reservation)

    def reserved(self, reservation: Reservation) -> Shortage | None:
        """The same, at once."""
        with self._lock:
            if reservation.id in self._open:
                return None
            keys = [account.key for account in reservation.accounts]
            standings = {key: self._standings.setdefault(key, Standing()) for key in keys}
            found = shortage(reservation, standings)
            if found is None:
                self._open[reservation.id] = reservation
                for key, (spent, held) in standings.items():
                    self._standings[key] = Standing(spent, added(held, reservation.amount))
            return found

    def settle(self, id: str, used: Amount | None) -> None:
        """See `KeepsBudgets.settle`."""
        with self._lock:
            reservation = self._open.pop(id, None)
            if reservation is None:
                return
            reserved = reservation.amount
            for account in reservation.accounts:
                spent, held = self._standings[account.key]
                charge = reserved if used is None else used
                self._standings[account.key] = Standing(
                    added(spent, charge), without(held, reserved)
                )

    def charge(self, run_ids: Iterable[str]) -> None:
        """Settle what is open of runs by what was reserved: their calls were lost."""
        runs = frozenset(run_ids)
        lost = [known.id for known in self._open.values() if known.run_id in runs]
        for call_id in lost:
            self.settle(call_id, None)

    def accounts(self) -> dict[str, Standing]:
        """See `KeepsBudgets.accounts`."""
        with self._lock:
            return dict(sorted(self._standings.items()))
