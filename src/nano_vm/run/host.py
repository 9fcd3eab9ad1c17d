"""What calls go to: functions, models, threads and the clock of a host.

What a user gives is made fit for calls once. What a call means for the run is never decided here.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from .. import forking
from ..adapters.contract import Adapter
from ..adapters.pool import Member, Pool
from ..errors import VMError
from ..given import by_name, invalid
from ..language.fields import free, remedy
from ..language.policy import Budget
from ..machine.billing import ONE_MODEL, Served
from ..prices import Price, PriceTable, checked_price
from ..store.shared_budget import SharedBudget
from ..values import kind_name

if TYPE_CHECKING:
    from .driver import Driver

logger = logging.getLogger("nano_vm")


class SystemClock:
    """The machine's own time."""

    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)
    sleep = staticmethod(asyncio.sleep)


class Threads(forking.Begins):
    """Daemon threads for sync tools, at most *size*. A tool that never returns holds its thread,
    and not the interpreter's exit.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.after_fork_in_child()
        forking.join(self)

    def after_fork_in_child(self) -> None:
        """Begin without threads: those of the parent are not here, and what waits for them is the
        parent's.
        """
        self.work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.count = 0
        self.idle = 0

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Run *call* in a thread as soon as one is free."""
        future: Future[Any] = Future()
        with self.lock:
            if self.idle > 0:
                self.idle -= 1
            elif self.count < self.size:
                self.count += 1
                threading.Thread(
                    target=self.serve, name=f"nano-vm-tool-{self.count}", daemon=True
                ).start()
            self.work.put((future, call))
        return future

    def serve(self) -> None:
        while True:
            future, call = self.work.get()
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:  # noqa: BLE001 - handed to the waiter, whatever it is
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del future, call
            with self.lock:
                # threads that wait for work minus work that waits for threads
                self.idle += 1 if self.work.empty() else 0


@dataclass(slots=True)
class Host:
    """What calls go to: by `ToolOp.number` what calls the tool and how, adapters by model name (None
    is the default).
    """

    functions: list[Callable[..., Any]]
    how: list[str]
    adapters: dict[str | None, Adapter]
    threads: Threads
    clock: Any
    shortest: int  # nanoseconds: the shortest deadline in the plan
    keeps: bool = False  # whether the plan has calls whose answers are kept
    driver: Driver | None = None  # of the event loop that was used last
    # by `ModelOp.index`: what is called, and with what beside the messages, where no budget counts
    asking: dict[int, tuple[Callable[..., Any], dict[str, Any]]] = field(default_factory=dict)
    keyed: bool = field(init=False)  # whether an adapter is told of each call's effect key
    # whether the first call of an adapter has something to wait for, as far as was looked
    asleep: bool = field(init=False)

    def __post_init__(self) -> None:
        adapters = self.adapters.values()
        self.keyed = any("idempotency_key" in adapter.named for adapter in adapters)
        self.look()

    def look(self) -> None:
        """Look whether an adapter is asleep: each run asks, and few ever are."""
        self.asleep = any(adapter.ready is not None for adapter in self.adapters.values())


TOOL_THREADS = 32
"""Threads for sync tools; the number that Python's own default executor has on most machines."""


def adapters_of(llm: Any) -> dict[str | None, Adapter]:
    if llm is None:
        return {}
    named = llm if isinstance(llm, dict) else {None: llm}
    if not named:
        raise VMError(
            "llm is an adapter or a dict of adapters by model name, and the dict is empty"
        )
    result: dict[str | None, Adapter] = {}
    for name, given in named.items():
        adapter = _by_name(given) if isinstance(given, str) else given
        if isinstance(adapter, Member):
            adapter = Pool([adapter], name=name or adapter.name)
        if not callable(getattr(adapter, "complete", None)):
            raise VMError(
                f"{kind_name(adapter)} is no adapter: it has no method complete(messages, **kwargs)"
            )
        result[name] = Adapter(adapter, name)
    result.setdefault(None, next(iter(result.values())))
    return result


def sources_of(
    prices: Mapping[str, Any] | None, adapters: Mapping[str | None, Adapter]
) -> dict[str, str] | None:
    """Where those of a host's prices come from that no user gave."""
    found = dict(prices.sources) if isinstance(prices, PriceTable) else {}
    given = prices or {}
    for adapter in adapters.values():
        for member in adapter.adapter.members if isinstance(adapter.adapter, Pool) else ():
            if member.price_source is not None and member.name not in given:
                found[member.name] = member.price_source
    return found or None


def served_of(adapters: Mapping[str | None, Adapter]) -> dict[str | None, Served] | None:
    """Who may answer for each name of a model, where any of them is a pool."""
    if not any(adapter.served for adapter in adapters.values()):
        return None
    return {name: adapter.served or ONE_MODEL for name, adapter in adapters.items()}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a host file says runs may use: each of them, and all together."""

    budget: Budget | None = None
    budgets: Mapping[str, SharedBudget] = field(default_factory=dict)


def host_of(llm: Any) -> tuple[Any, Bounds]:
    """The models of a host, and what runs may use where *llm* is the name of a host file."""
    if not isinstance(llm, str) or not llm.endswith(".toml"):
        return llm, Bounds()
    from ..adapters.hostfile import read_host  # late, as below

    found = read_host(llm)
    return found.models, Bounds(found.budget, found.budgets)


def _by_name(name: str) -> Any:
    from ..adapters.names import adapter_named  # late: most hosts bring their own adapter

    try:
        return adapter_named(name)
    except (ValueError, OSError) as error:
        raise VMError(f"model {name!r}: {error}") from None


def prices_of(
    prices: Mapping[str, Any] | None, adapters: Mapping[str | None, Adapter]
) -> dict[str, Price] | None:
    """The host's prices, and over those that adapters say themselves."""
    own: dict[str, Any] = {}
    for adapter in adapters.values():
        if adapter.served is not None:
            own |= adapter.adapter.prices
        elif adapter.model is not None and adapter.price is not None:
            own[adapter.model] = adapter.price
    if prices is None and not own:
        return None
    given = by_name(prices, "prices", "write prices={'model': (input, output)}, in dollars")
    table = {name: checked_price(name, price) for name, price in {**own, **given}.items()}
    for adapter in adapters.values():
        if isinstance(adapter.adapter, Pool):
            adapter.adapter.use_prices(table)
    return table


def budget_of(budget: Any) -> Budget | None:
    if budget is None or isinstance(budget, Budget):
        return budget
    if not isinstance(budget, Mapping):
        raise VMError(f"a budget is a Budget or a dict, not {kind_name(budget)}")
    for key in budget:
        if key not in Budget.model_fields and not (isinstance(key, str) and free(key)):
            raise VMError(f"a budget has no field {key!r}; {remedy(str(key), Budget.model_fields)}")
    try:
        return Budget.model_validate(dict(budget))
    except ValidationError as error:
        raise VMError(f"budget.{invalid(error)}") from None
