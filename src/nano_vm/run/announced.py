"""What a host can do, as data that others read: its tools' contracts, its models, its rules; said in
the store as long as it works there. `elsewhere` makes a host of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from ..adapters.contract import Adapter
from ..errors import StoreError
from ..machine.terms import RunTerms
from ..store.protocol import Announced, Noticeboard
from ..tools.contract import ToolContract
from ..values import canonical
from .durable.resume import Durable
from .host import served_of
from .prepare import Preparer

FORMAT = 1

AGAIN_SECONDS = 20.0
"""How often a host says again what it can do: a server that was started later hears of it then."""


@contextlib.asynccontextmanager
async def announced(durable: Durable, name: str, concurrency: int) -> AsyncIterator[None]:
    """Say in the store, as long as this lasts, what a host that is called *name* can do; where the
    store has no place for it, nothing is said.
    """
    store = durable.store
    if not isinstance(store, Noticeboard):
        yield
        return
    lease = await durable.leased()
    clock = durable.preparer.clock
    document = canonical({**announcement(durable.preparer), "concurrency": concurrency}).decode()
    since = clock.time_ns()

    async def say() -> None:
        while True:
            host = Announced(lease.owner, name, document, since, clock.time_ns())
            with contextlib.suppress(StoreError):  # who works says that the store does not answer
                await asyncio.to_thread(store.announce, host)
            await clock.sleep(AGAIN_SECONDS)

    saying = asyncio.create_task(say())
    try:
        yield
    finally:
        saying.cancel()
        await asyncio.wait([saying])
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(store.withdraw, lease.owner)


def announcement(known: Preparer) -> dict[str, Any]:
    """What a host can do, as plain data."""
    return {
        "format": FORMAT,
        "version": version("llm-nano-vm"),
        "tools": [_told(contract) for _, contract in sorted(known.contracts.items())],
        "models": [_model(name, adapter) for name, adapter in known.adapters.items()],
        "programs": {name: program.to_dict() for name, program in known.programs.items()},
        "policy": known.policy.to_dict() if known.policy is not None else None,
        "approved": sorted(known.approved),
        "terms": _terms(known),
        "budgets": {
            name: budget.model_dump(mode="json", exclude_none=True)
            for name, budget in known.budgets.items()
        },
    }


def _terms(known: Preparer) -> dict[str, Any]:
    default = known.adapters.get(None)
    terms = RunTerms(
        known.limits,
        known.budget,
        known.prices,
        default.model if default is not None else None,
        None,
        served_of(known.adapters),
        known.price_sources,
    )
    return terms.to_dict()


def _told(contract: ToolContract) -> dict[str, Any]:
    told = contract.to_dict()
    return {
        **told,
        "declared": contract.declared,
        "takes_key": contract.takes_key,
        "how": contract.how,
        "timeout_seconds": contract.timeout_seconds,
        "result": contract.result_schema(),
    }


def _model(name: str | None, adapter: Adapter) -> dict[str, Any]:
    return {
        "name": name,
        "model": adapter.model,
        "named": sorted(adapter.named),
        "open": adapter.open,
        "images": adapter.images,
        "files": adapter.files,
        "options": None if adapter.option_names is None else sorted(adapter.option_names),
        "tags": sorted(adapter.tags),
        "pool": None if adapter.served is None else adapter.served.to_dict(),
    }
