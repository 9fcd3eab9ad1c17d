"""The budgets that runs share, as the driver of one run sees them: before a call of a model the most
that it can use is reserved where all runs count, and after it what it used is settled.

What a call may use and is charged with says the machine; accounts are kept in the run's store, or
without one in this process. A process that ends on the way leaves what it reserved: whoever claims
the run charges it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple

from pydantic import ValidationError

from ..adapters.protocol import Clock
from ..errors import BudgetExceeded, StoreError, VMError
from ..given import by_name, invalid
from ..machine.billing import Meter
from ..machine.machine import Machine
from ..machine.outcome import Failed
from ..machine.plan import ModelOp
from ..records.record import StepError
from ..records.recording import Recording
from ..spelling import meant
from ..store.accounts import (
    Account,
    Amount,
    Books,
    KeepsBudgets,
    Reservation,
    Standing,
    day_of,
    picodollars,
)
from ..store.records import DEFAULT_PROJECT
from ..store.shared_budget import SharedBudget
from ..values import kind_name
from .durable.later import Later
from .durable.outbox import patiently

NOTHING = Amount()

_REMEDY = "write budgets={'daily': {'per': 'day', 'max_cost_usd': 5}}"


def shared_budgets(given: Any) -> dict[str, SharedBudget]:
    """The budgets that a host gives, by name.

    Raises:
        VMError: If one cannot be one.
    """
    found: dict[str, SharedBudget] = {}
    for name, budget in by_name(given, "budgets", _REMEDY).items():
        at = f"budget {name!r}"
        if isinstance(budget, SharedBudget):
            found[name] = budget
            continue
        if not isinstance(budget, Mapping):
            raise VMError(f"{at} is a dict, not {kind_name(budget)}; {_REMEDY}")
        unknown = next((key for key in budget if key not in SharedBudget.model_fields), None)
        if unknown is not None:
            known = ", ".join(SharedBudget.model_fields)
            hint = meant(unknown, SharedBudget.model_fields, otherwise=f"known are {known}")
            raise VMError(f"{at} has no field {unknown!r}; {hint}")
        try:
            found[name] = SharedBudget.model_validate(dict(budget))
        except ValidationError as error:
            raise VMError(f"{at}: {invalid(error)}") from None
    return found


class Whose(NamedTuple):
    """The run in which calls count."""

    run_id: str
    program: str
    project: str

    @classmethod
    def of(cls, recording: Recording) -> Whose:
        """The run of *recording*."""
        project = str(recording.about.get("project", DEFAULT_PROJECT))
        return cls(recording.run_id, recording.program_name, project)


class Shared:
    """The accounts of one run while it is driven here; *id* is of this run in this process."""

    def __init__(
        self,
        budgets: Mapping[str, SharedBudget],
        kept: KeepsBudgets,
        whose: Whose,
        clock: Clock,
        id: str,
    ) -> None:
        self._kept, self._clock, self._id, self._whose = kept, clock, id, whose
        self._budgets = covering(budgets, whose.program, whose.project)
        self._numbers = itertools.count()
        self._open: dict[str, Amount] = {}
        self._later = Later(
            clock, "run %s: what a call used is not settled, and counts as reserved: %s"
        )

    async def reserve(self, machine: Machine, op: ModelOp) -> Failed | None:
        """Reserve the most that the requested call can use; the outcome of the call, where a budget
        does not cover it.

        Raises:
            StoreError: If the store does not answer.
        """
        tokens, cost = machine.most(op)
        taken = await self.take(tokens, cost, op.model or machine.terms.default_model)
        if isinstance(taken, Failed):
            return taken
        machine.meter = Meter(taken, tokens)
        return None

    async def take(self, tokens: int, cost: Decimal | None, model: str | None) -> str | Failed:
        """Reserve for a call of *model* that can use so much: by which name, or as `reserve`."""
        if cost is None and (name := costly(self._budgets)) is not None:
            message = f"no price is known for model {model!r}, and budget {name!r} limits cost"
            return Failed(StepError.of(BudgetExceeded(message)))
        amount = Amount(1, tokens, 0 if cost is None else picodollars(cost))
        day = day_of(self._clock.time_ns())
        accounts = tuple(
            budget.account(name, self._whose.program, self._whose.project, day)
            for name, budget in self._budgets.items()
        )
        call_id = f"{self._id}.{next(self._numbers)}"
        reservation = Reservation(call_id, self._whose.run_id, accounts, amount)
        try:
            await self.end()  # what was used before is not reserved any more
            short = await patiently(self._clock, lambda _: self._kept.reserve(reservation))
        except (asyncio.CancelledError, StoreError):
            self._settle(call_id, NOTHING)  # it may be reserved all the same, and no call is made
            raise
        if short is not None:
            error = StepError.of(BudgetExceeded(str(short)))
            return Failed(error, extra={"budget": short.to_dict()})
        self._open[call_id] = amount
        return call_id

    def release(self, machine: Machine) -> None:
        """Give back what was reserved for a call that is not made."""
        meter, machine.meter = machine.meter, None
        if meter is not None:
            self.give_back(meter.id)

    def give_back(self, call_id: str) -> None:
        """The same, by the name under which it was reserved."""
        del self._open[call_id]
        self._settle(call_id, NOTHING)

    def settle(self, machine: Machine) -> None:
        """Replace what was reserved for a call by what the machine charges, if it has ended."""
        meter = machine.meter
        if meter is None or meter.charged is None:
            return
        machine.meter = None
        self.charge(meter.id, *meter.charged)

    def charge(self, call_id: str, tokens: int, cost: Decimal | None) -> None:
        """Replace what was reserved under *call_id* by what the call is charged with; a cost that is
        not known is the one that was reserved.
        """
        reserved = self._open.pop(call_id)
        spent = reserved.picodollars if cost is None else picodollars(cost)
        self._settle(call_id, Amount(1, tokens, spent))

    async def end(self) -> None:
        """Wait until all that was settled is stored."""
        await self._later.done()

    def leave(self) -> None:
        """The run is not driven here any more, however that came. What nobody settled is charged in
        the accounts of this process; in a store whoever claims the run does.
        """
        if isinstance(self._kept, Books):
            for call_id in self._open:
                self._kept.settle(call_id, None)
        self._open.clear()

    def _settle(self, call_id: str, used: Amount) -> None:
        self._later.give(self._whose.run_id, lambda: self._kept.settle(call_id, used))


def covering(
    budgets: Mapping[str, SharedBudget], program: str, project: str
) -> dict[str, SharedBudget]:
    """Those of *budgets* in which runs of *program* in *project* count."""
    return {name: budget for name, budget in budgets.items() if budget.covers(program, project)}


def costly(budgets: Mapping[str, SharedBudget]) -> str | None:
    """The first of *budgets* that limits cost."""
    return next((name for name, one in budgets.items() if one.max_cost_usd is not None), None)


def standings(
    budgets: Mapping[str, SharedBudget], kept: Mapping[str, Standing]
) -> list[tuple[Account, Standing]]:
    """How accounts stand, each with its budget's limits of today, if there is such a budget."""
    found = []
    for key, standing in kept.items():
        account = Account.of_key(key)
        budget = budgets.get(account.budget)
        found.append(
            (account if budget is None else replace(account, limits=budget.limits), standing)
        )
    return found
