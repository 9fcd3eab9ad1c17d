"""The terms under which a run goes: what bounds it, and what its models cost.

A host or a record gives them; plan, inputs and terms give the machine (`machine.machine_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import VMError
from ..language.policy import Budget, tightest
from ..prices import Price, checked_price
from .billing import Served
from .ledger import DEFAULT_LIMITS, Ledger, Limits


@dataclass(frozen=True, slots=True)
class RunTerms:
    """What bounds a run, and what its models cost: one value for all runs of a program on a host.

    ``budget`` is the tightest of program, host, policies and run, ``default_model`` the name by
    which calls without a model are priced.
    """

    limits: Limits = DEFAULT_LIMITS
    budget: Budget | None = None
    prices: Mapping[str, Price] | None = None
    default_model: str | None = None
    # the most tokens that messages to a model can have; no record keeps it, but what it gave
    count_tokens: Callable[[str | None, list[dict[str, Any]]], int] | None = field(
        default=None, compare=False
    )
    # who may answer for a name of models, where that is a pool; None is the default one's
    served: Mapping[str | None, Served] | None = None
    # where prices come from that no user gave: a table and its version
    price_sources: Mapping[str, str] | None = None
    # what a run may use, to be copied
    ledger: Ledger = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ledger", Ledger.of(self.limits, self.budget))

    def within(self, budget: Budget | None) -> RunTerms:
        """The same terms under *budget* too."""
        known = [one for one in (self.budget, budget) if one is not None]
        return replace(self, budget=tightest(known))

    def to_dict(self) -> dict[str, Any]:
        """As a record of a run keeps them, with what differs from the defaults."""
        told: dict[str, Any] = {}
        if self.budget is not None:
            told["budget"] = self.budget.model_dump(exclude_none=True)
        if self.limits != DEFAULT_LIMITS:
            told["limits"] = asdict(self.limits)
        if self.default_model is not None:
            told["default_model"] = self.default_model
        if self.prices:
            told["prices"] = {
                name: [str(amount) for amount in price]
                for name, price in sorted(self.prices.items())
            }
        if self.price_sources:
            told["price_sources"] = dict(sorted(self.price_sources.items()))
        if self.served:
            told["pools"] = [{"name": name, **pool.to_dict()} for name, pool in self.served.items()]
        return told

    @classmethod
    def of_record(cls, about: Mapping[str, Any], program: Budget | None) -> RunTerms:
        """Those that a record keeps in *about*; the *program*'s own budget bounds a run whatever
        that says.

        Raises:
            ValueError: If *about* is not as `to_dict` gives it.
        """
        try:
            told = Budget.model_validate(about["budget"]) if "budget" in about else None
            known = [budget for budget in (told, program) if budget is not None]
            prices = {
                name: checked_price(name, price) for name, price in about.get("prices", {}).items()
            }
            sources = {str(name): str(of) for name, of in about.get("price_sources", {}).items()}
            served = {pool["name"]: Served.from_dict(pool) for pool in about.get("pools", ())}
            limits = Limits(**{name: int(value) for name, value in about.get("limits", {}).items()})
        except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, VMError) as error:
            raise ValueError(f"not the terms of a run: {error}") from None
        model = about.get("default_model")
        default = model if type(model) is str else None
        return cls(
            limits,
            tightest(known),
            prices or None,
            default,
            served=served or None,
            price_sources=sources or None,
        )


DEFAULT_TERMS = RunTerms()
