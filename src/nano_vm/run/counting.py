"""Calls of models that a worker of another engine makes for the runs of that: in the budgets that
runs share, and within the limits of pools. A store keeps both for all workers that have it.

The machine of such a run is elsewhere, so what a call may use and is charged with is computed here,
by the functions that the machine has it from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ..adapters.contract import Adapter
from ..adapters.pool.sharing import SHARING
from ..errors import VMError
from ..machine.billing import Served, charge_of, most_of, priced, serving, tokens_of
from ..machine.ledger import DEFAULT_MAX_TOKENS
from ..machine.outcome import Failed
from ..prices import Price
from ..records.usage import LLMUsage
from .durable.limits import StoredLimits
from .durable.resume import Durable
from .host import served_of
from .prepare import Preparer
from .shared import Shared, Whose


@dataclass(slots=True)
class Counted:
    """One call, while it is made."""

    shared: Shared
    call_id: str
    tokens: int
    served: Served | None
    model: str | None
    prices: Mapping[str, Price] | None

    async def end(self, usage: LLMUsage | None, extra: dict[str, Any] | None) -> None:
        """Charge it with what it used; where nobody knows that, with all that was reserved."""
        if usage is not None:
            usage, extra = priced(usage, extra, (self.model,), self.prices)
        self.shared.charge(self.call_id, *charge_of(self.tokens, usage, extra, self.served))
        await self.shared.end()

    async def give_back(self) -> None:
        """It was not made."""
        self.shared.give_back(self.call_id)
        await self.shared.end()


class Counting:
    """Counts the calls of a host; *durable* has the store that is shared."""

    def __init__(self, preparer: Preparer, durable: Durable | None) -> None:
        self._preparer, self._durable = preparer, durable

    def require(self) -> None:
        """Refuse a host whose budgets nobody keeps for all workers.

        Raises:
            VMError: If so.
        """
        if self._preparer.budgets and self._durable is None:
            names = ", ".join(map(repr, self._preparer.budgets))
            raise VMError(
                f"budgets that runs share ({names}) are kept in a store for all workers of a "
                f"cluster, and this one has none; give ExecutionVM(store=URL), or nano-vm work "
                f"--store URL, the same for all of them"
            )

    @asynccontextmanager
    async def limits(self, *, own_pools: bool = False) -> AsyncIterator[None]:
        """Let pools that are called meanwhile keep their limits in the store, those of the host or,
        with *own_pools*, of a program; without a store each worker has them for itself.

        Raises:
            StoreError: If the store does not answer.
        """
        durable, preparer = self._durable, self._preparer
        if durable is None or not (own_pools or served_of(preparer.adapters)):
            yield
            return
        lease = await durable.leased()
        calls = durable.system.run_id()
        token = SHARING.set(StoredLimits(durable.store, lease.owner, preparer.clock, calls))
        try:
            yield
        finally:
            SHARING.reset(token)

    async def begin(
        self,
        whose: Whose,
        call_id: str,
        adapters: Mapping[str | None, Adapter],
        model: str | None,
        messages: list[dict[str, Any]],
        max_tokens: int | None,
    ) -> Counted | Failed | None:
        """Reserve the most that a call can use; the outcome where a budget does not cover it, None
        where no budget counts it.

        Raises:
            StoreError: If the store does not answer.
        """
        preparer = self._preparer
        if not preparer.budgets:
            return None
        assert self._durable is not None
        adapter = adapters.get(model) or adapters[None]
        served = serving(served_of(adapters), model)
        name, prompt = model or adapter.model, adapter.tokens(messages)
        answer = max_tokens or DEFAULT_MAX_TOKENS
        tokens = tokens_of(served, prompt, answer)
        cost = most_of(name, served, preparer.prices, prompt, answer)
        clock, store = preparer.clock, self._durable.store
        shared = Shared(preparer.budgets, store, whose, clock, call_id)
        taken = await shared.take(tokens, cost, name)
        if isinstance(taken, Failed):
            return taken
        return Counted(shared, taken, tokens, served, name, preparer.prices)
