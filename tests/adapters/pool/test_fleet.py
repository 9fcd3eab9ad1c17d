"""Pools over real HTTP on loopback ports: the scenarios of pools.md, with their figures."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from fleet import Provider, constant, fleet, mostly
from patience import HANGS_SECONDS

from nano_vm import ExecutionVM, Member, OpenAIAdapter, Pool, Program
from nano_vm.adapters.pool.breaker import Breaking
from nano_vm.adapters.pool.limits import SLACK_NS, Window

MESSAGES = [{"role": "user", "content": "x"}]


def member(provider: Provider, **options: Any) -> Member:
    adapter = OpenAIAdapter(provider.name, base_url=provider.url, api_key="none")
    return Member(adapter, name=provider.name, **options)


class Clock:
    """One that stands still until a test moves it, so that a busy machine makes nothing late."""

    def __init__(self) -> None:
        self.now = 10**15

    def monotonic_ns(self) -> int:
        self.now += 1_000  # whatever is measured takes a while
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)
        await asyncio.sleep(0)


async def calls(
    pool: Pool, count: int, at_once: int = 1, now: Callable[[], float] = time.monotonic
) -> list[tuple[float, Any]]:
    """So many calls, *at_once* at a time: how long each took, and its answer or its error."""
    found: list[tuple[float, Any]] = []
    numbers = iter(range(count))

    async def worker() -> None:
        for _ in numbers:
            begun = now()
            try:
                answer: Any = await pool.complete(MESSAGES)
            except Exception as error:  # noqa: BLE001 - counted below
                answer = error
            found.append((now() - begun, answer))

    await asyncio.gather(*[worker() for _ in range(at_once)])
    return found


def failed(found: list[tuple[float, Any]]) -> list[Any]:
    return [answer for _, answer in found if isinstance(answer, Exception)]


def percentile(found: list[tuple[float, Any]], share: float) -> float:
    times = sorted(seconds for seconds, _ in found)
    return times[min(int(len(times) * share), len(times) - 1)]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [503, "garbage", "drop", "hang", 429])
@pytest.mark.parametrize("strategy", ["ordered", "round_robin", "least_busy", "fastest"])
async def test_one_of_three_is_down(fault: Any, strategy: Any) -> None:
    """No call fails, and the one that is down costs at most two calls a second try."""
    providers = [Provider("a", fault=fault, retry_after=30), Provider("b"), Provider("c")]
    async with fleet(*providers):
        members = [member(p, timeout_seconds=0.25 if p.fault == "hang" else 60) for p in providers]
        found = await calls(Pool(members, strategy, clock=Clock()), 30)
    assert failed(found) == []
    assert providers[0].calls <= 2
    assert sum(p.calls for p in providers) <= 32


@pytest.mark.slow
async def test_recovery_is_noticed_within_the_half_open_interval() -> None:
    first, second = Provider("a", fault=503), Provider("b")
    async with fleet(first, second):
        members = [member(first, breaking=Breaking(open_seconds=30)), member(second)]
        clock = Clock()
        pool = Pool(members, clock=clock)
        assert failed(await calls(pool, 10)) == []
        assert first.calls == 2
        first.fault = None
        back = clock.now
        while first.calls == 2:
            assert failed(await calls(pool, 1)) == []
            clock.now += 10**9
        assert clock.now - back <= (30 * 1.5 + 1) * 10**9
        before = second.calls
        assert failed(await calls(pool, 10)) == []
        assert second.calls == before


@pytest.mark.slow
async def test_a_limited_member_is_left_alone_as_long_as_it_asks() -> None:
    first, second = Provider("a", fault=429, retry_after=40), Provider("b")
    clock, asked = Clock(), []
    async with fleet(first, second):
        pool = Pool([member(first), member(second)], clock=clock)
        for _ in range(100):
            before = first.calls
            assert failed(await calls(pool, 1)) == []
            if first.calls > before:
                asked.append(clock.now)
            clock.now += 10**9
    gaps = [b - a for a, b in itertools.pairwise(asked)]
    assert 2 <= first.calls <= 3
    assert min(gaps) >= 40 * 10**9


@pytest.mark.slow
async def test_no_window_sees_more_than_the_limit() -> None:
    """As the provider counts: in any second at most ten arrive, although thirty come at once."""
    under_way = 0

    class Counted(OpenAIAdapter):
        async def complete(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal under_way
            under_way += 1
            try:
                return await super().complete(*args, **kwargs)
            finally:
                under_way -= 1

    class BetweenCalls(Clock):
        """Time passes while no call is under way, and then to the next moment that is waited
        for.
        """

        def __init__(self) -> None:
            super().__init__()
            self.waited_for: list[int] = []

        def seconds(self) -> float:
            return self.now / 1e9

        async def sleep(self, seconds: float) -> None:
            until = self.now + int(seconds * 1e9)
            self.waited_for.append(until)
            try:
                while self.now < until:
                    await asyncio.sleep(0.001)
                    if not under_way and until == min(self.waited_for):
                        self.now = max(self.now, until)
            finally:
                self.waited_for.remove(until)

    clock = BetweenCalls()
    provider = Provider("a", now=clock.seconds)
    async with fleet(provider):
        adapter = Counted("a", base_url=provider.url, api_key="none")
        limited = Member(adapter, name="a", requests_per_minute=10)
        limited.requests = Window(10, 10**9 + SLACK_NS)  # a second in place of a minute
        found = await calls(Pool([limited], clock=clock), 30, at_once=30, now=clock.seconds)
    assert failed(found) == []
    assert provider.most_in(1.0) == 10
    assert percentile(found, 0.99) < 3 * 1.25, "and no more is waited than the limit demands"


@pytest.mark.slow
async def test_concurrency_as_the_provider_sees_it() -> None:
    provider = Provider("a", latency=constant(0.02))
    async with fleet(provider):
        pool = Pool([member(provider, concurrency=4)])
        found = await calls(pool, 40, at_once=20)
    assert failed(found) == []
    assert provider.most_under_way == 4


@pytest.mark.slow
async def test_hedging_cuts_the_tail_as_the_arithmetic_says() -> None:
    """Six calls of eighty hang: which, the seed says. A second call begins for these alone, and
    nobody waits for the first.
    """
    share, count, hedge_after = 0.1, 80, 0.75
    a, b = Provider("a", latency=mostly(0.0, HANGS_SECONDS, share), seed=7), Provider("b")
    rng = random.Random("7a")
    slow = sum(rng.random() < share for _ in range(count))
    assert slow == 6

    class UntilOneHangs(Clock):
        """The time after which a second call begins has passed where the first one hangs."""

        async def sleep(self, seconds: float) -> None:
            assert seconds == hedge_after
            while not a.hangs:  # noqa: ASYNC110 - it is on the other side of a socket
                await asyncio.sleep(0.001)
            a.hangs = False

    async with fleet(a, b):
        pool = Pool([member(a), member(b)], "hedge", hedge_after=hedge_after, clock=UntilOneHangs())
        found = await calls(pool, count)
    assert failed(found) == []
    assert (a.calls, b.calls) == (count, slow)
    assert [answer.model for _, answer in found].count("b") == slow


@pytest.mark.slow
async def test_cascade_spends_what_the_arithmetic_says() -> None:
    """The cheap model is right three times of four: the dear one is asked for the rest alone."""
    cheap = Provider("cheap", answer=lambda number: "yes" if number % 4 else "perhaps")
    dear = Provider("dear")
    step = {"id": "s", "type": "llm", "prompt": "x", "allowed_outputs": ["yes", "no"]}
    program = Program.from_dict({"steps": [step]})
    spent = Decimal(0)
    async with fleet(cheap, dear):
        pool = Pool([member(cheap), member(dear)], "cascade")
        vm = ExecutionVM(pool, prices={"cheap": ("0.1", "0.4"), "dear": (3, 15)})
        for _ in range(40):
            trace = await vm.run(program)
            assert trace.ok
            spent += trace.total_cost_usd() or 0
    assert (cheap.calls, dear.calls) == (40, 10)
    of_cheap = (100 * Decimal("0.1") + 10 * Decimal("0.4")) / 10**6
    of_dear = (100 * Decimal(3) + 10 * Decimal(15)) / 10**6
    assert spent == 40 * of_cheap + 10 * of_dear
