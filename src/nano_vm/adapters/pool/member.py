"""One member of a pool: an adapter, what it may be asked, and how it stands."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from typing import Any

from ...errors import VMError
from ...prices import Price, checked_price
from ...store.limits import CallLimits
from ...values import kind_name
from ..contract import Adapter
from .breaker import SECOND, Breaker, Breaking
from .limits import SHARED_SLACK_NS, WINDOW_NS, Window

LATENCY_HALF_LIFE_NS = 60 * SECOND
"""After this time half of what is known of a member's latency is forgotten, so that one that was
slow is tried again.
"""

FIRST_LATENCY_NS = 1
"""Of a member that was never called: it is tried before those that are known."""

SMOOTHING = 0.3
"""The weight of the latest call in the average of latencies."""


BESIDE = ("allowed_outputs", "output_schema", "step_id", "idempotency_key")
"""What a call of a pool says beside its options; a member receives what it takes of it."""


class Member:
    """An adapter in a pool; *adapter* is one, or a model's name.

    *name* tells it apart in traces, prices and limits; the adapter's model without one. *weight* is
    its share in ``weighted``. *concurrency*, *requests_per_minute* and *tokens_per_minute* are never
    exceeded; a member may stand in several pools, and has its limits once. *context* is the most
    tokens of prompt and answer. *tags* are words that a program or a policy may demand (a region, a
    class of data). *lacks* are options that the model does not take although its adapter does
    (``seed``, ``output_schema``, ...). *timeout_seconds* bounds one attempt. *price* is as in
    ``ExecutionVM(prices=...)``.

    Raises:
        VMError: If an argument cannot be one.

    Examples:
        >>> from nano_vm import ExecutionVM, Member, Pool, Program
        >>> from nano_vm.testing import ScriptedLLM
        >>> first = Member(ScriptedLLM(["yes"]), name="first", requests_per_minute=50, tags=["eu"])
        >>> program = Program.from_yaml("steps: [{id: a, type: llm, prompt: Is it so?}]")
        >>> ExecutionVM(Pool([first], require=["eu"])).run_sync(program).output
        'yes'
    """

    def __init__(
        self,
        adapter: Any,
        *,
        name: str | None = None,
        weight: float = 1,
        concurrency: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        context: int | None = None,
        tags: Iterable[str] = (),
        lacks: Iterable[str] = (),
        timeout_seconds: float | None = None,
        price: Any = None,
        breaking: Breaking | None = None,
    ) -> None:
        if isinstance(adapter, str):
            from ..names import adapter_named

            adapter = adapter_named(adapter)
        if not callable(getattr(adapter, "complete", None)):
            raise VMError(
                f"{kind_name(adapter)} is no adapter: it has no method complete(messages, **kwargs)"
            )
        self.adapter = Adapter(adapter)
        named = name or self.adapter.model
        if not named:
            raise VMError(f"a member of a pool needs a name, and {kind_name(adapter)} has no model")
        self.name = named
        _check_limits(
            named,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            context=context,
        )
        _check_amounts(named, weight=weight, timeout_seconds=timeout_seconds)
        if isinstance(tags, str) or isinstance(lacks, str):
            raise VMError(f"member {named!r}: tags and lacks are lists of words")
        self.weight = weight
        self.concurrency = concurrency
        self.requests = Window(requests_per_minute) if requests_per_minute else None
        self.tokens = Window(tokens_per_minute) if tokens_per_minute else None
        self.context = context
        self.tags = frozenset(tags)
        self.lacks = frozenset(lacks)
        self.beside = tuple(
            (at, option)
            for at, option in enumerate(BESIDE)
            if option in self.adapter.named and option not in self.lacks
        )
        """What it takes of `BESIDE`, by number."""
        self.timeout_seconds = timeout_seconds
        own = price if price is not None else self.adapter.price
        self.price: Price | None = None if own is None else checked_price(named, own)
        self.price_source: str | None = None
        """The table that the price is from, and its version; None where a user gave it."""
        self.breaker = Breaker(breaking or Breaking())
        model = self.adapter.model
        self.asked = None if model == named else model
        """The model's name, where it is another than the member's."""
        self.names = (named,) if self.asked is None else (named, self.asked)
        """The names by which it is priced."""
        self.awaited = inspect.iscoroutinefunction(adapter.complete)
        self.free = concurrency is None and self.requests is None and self.tokens is None
        """Whether nothing limits it."""
        self.shared = CallLimits(
            named,
            WINDOW_NS + SHARED_SLACK_NS,
            requests_per_minute,
            tokens_per_minute,
            concurrency,
        )
        """Its limits, where processes share them."""
        self.resting_until = 0
        self.taken_until = 0
        """When to ask again whether calls in other processes leave room for one."""
        self.busy = 0
        self.waiters: list[asyncio.Future[None]] = []
        """Of calls that wait for one of its calls to end, in any pool."""
        self.latency_ns: float = FIRST_LATENCY_NS
        self.latency_at = 0

    def takes(self, option: str) -> bool:
        """Whether an option of a step may be passed to it."""
        return option not in self.lacks and self.adapter.takes(option)

    def wait_ns(self, tokens: int, now: int) -> int:
        """How long until its limits let a call of *tokens* begin; -1 where that depends on the end of
        another call.
        """
        if self.resting_until > now:
            return self.resting_until - now
        if self.free:
            return 0
        if self.taken_until > now:
            return self.taken_until - now
        if self.concurrency is not None and self.busy >= self.concurrency:
            return -1
        wait = 0
        if self.requests is not None:
            wait = self.requests.wait_ns(1, now)
        if self.tokens is not None:
            wait = max(wait, self.tokens.wait_ns(tokens, now))
        return wait

    def answered_in(self, taken_ns: int, now: int) -> None:
        """Learn from a call that took so long."""
        known = self.latency_ns
        first = known <= FIRST_LATENCY_NS
        self.latency_ns = taken_ns if first else known + SMOOTHING * (taken_ns - known)
        self.latency_at = now

    def wake(self) -> None:
        """Let those look again who wait for it."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        return f"Member({self.name!r})"


def _check_limits(member: str, **limits: Any) -> None:
    for what, limit in limits.items():
        if limit is not None and (type(limit) is not int or limit < 1):
            raise VMError(
                f"member {member!r}: {what} is a whole number of at least 1, not {limit!r}"
            )


def _check_amounts(member: str, **amounts: Any) -> None:
    for what, amount in amounts.items():
        if amount is not None and (isinstance(amount, bool) or not 0 < amount < float("inf")):
            raise VMError(f"member {member!r}: {what} is a number above 0, not {amount!r}")
