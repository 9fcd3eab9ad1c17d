"""The terms under which a run goes, and the machine at its beginning.

A host or a record gives the terms; a plan, inputs and terms give the machine, here and nowhere else:
so a run that is driven, resumed, replayed, explored or moved to another program is bounded alike.
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
from .machine import Facts, Machine, loaded
from .plan import Plan


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


def machine_of(
    plan: Plan,
    inputs: Mapping[str, Any],
    terms: RunTerms = DEFAULT_TERMS,
    started: int = 0,
    *,
    run_id: str = "",
    seed: int | None = None,
    frame: list[Any] | None = None,
) -> Machine:
    """The machine of a run of *plan*, before its first step; *started* is when the run began.

    *inputs* have every name that the plan needs. *frame* is the root frame where a caller in a
    hurry has loaded it already; the inputs are then only asked for what value checks read.
    """
    root = plan.frames[0]
    facts = Facts(run_id, seed, terms.limits, terms.prices, terms.default_model, terms.served)
    if plan.given:
        facts.given = {name: inputs[name] for name in plan.given if name in inputs}
    facts.count_tokens = terms.count_tokens
    if frame is None:
        frame = loaded(root, inputs)
    machine = Machine(root, frame, facts, terms.ledger.copy())
    if terms.budget is not None and terms.budget.max_seconds is not None:
        machine.end_by_budget(started + int(terms.budget.max_seconds * 1e9))
    return machine
