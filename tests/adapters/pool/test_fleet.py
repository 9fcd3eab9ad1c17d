"""Pools over real HTTP on loopback ports: the scenarios of docs/pools.md, with their figures."""

from __future__ import annotations

import asyncio
import random
import time
from decimal import Decimal
from typing import Any

import pytest
from fleet import Provider, constant, fleet, mostly

from nano_vm import ExecutionVM, Member, OpenAIAdapter, Pool, Program
from nano_vm.adapters.pool.breaker import Breaking
from nano_vm.adapters.pool.limits import SLACK_NS, Window

MESSAGES = [{"role": "user", "content": "x"}]


def member(provider: Provider, **options: Any) -> Member:
    adapter = OpenAIAdapter(provider.name, base_url=provider.url, api_key="none")
    return Member(adapter, name=provider.name, **options)


async def calls(pool: Pool, count: int, at_once: int = 1) -> list[tuple[float, Any]]:
    """So many calls, *at_once* at a time: how long each took, and its answer or its error."""
    found: list[tuple[float, Any]] = []
    numbers = iter(range(count))

    async def worker() -> None:
        for _ in numbers:
            begun = time.monotonic()
            try:
                answer: Any = await pool.complete(MESSAGES)
            except Exception as error:  # noqa: BLE001 - counted below
                answer = error
            found.append((time.monotonic() - begun, answer))

    await asyncio.gather(*[worker() for _ in range(at_once)])
    return found


def failed(found: list[tuple[float, Any]]) -> list[Any]:
    return [answer for _, answer in found if isinstance(answer, Exception)]


def percentile(found: list[tuple[float, Any]], share: float) -> float:
    times = sorted(seconds for seconds, _ in found)
    return times[min(int(len(times) * share), len(times) - 1)]


@pytest.mark.parametrize("fault", [503, "garbage", "drop", "hang", 429])
@pytest.mark.parametrize("strategy", ["ordered", "round_robin", "least_busy", "fastest"])
async def test_one_of_three_is_down(fault: Any, strategy: Any) -> None:
    """No call fails, and the one that is down costs at most two calls a second try."""
    providers = [Provider("a", fault=fault, retry_after=30), Provider("b"), Provider("c")]
    async with fleet(*providers):
        pool = Pool([member(p, timeout_seconds=0.25) for p in providers], strategy)
        found = await calls(pool, 60)
    assert failed(found) == []
    assert providers[0].calls <= 2
    assert sum(p.calls for p in providers) <= 62


async def test_recovery_is_noticed_within_the_half_open_interval() -> None:
    first, second = Provider("a", fault=503), Provider("b")
    async with fleet(first, second):
        pool = Pool([member(first, breaking=Breaking(open_seconds=0.3)), member(second)])
        assert failed(await calls(pool, 10)) == []
        assert first.calls == 2
        first.fault = None
        back = time.monotonic()
        while first.calls == 2:
            assert failed(await calls(pool, 1)) == []
            await asyncio.sleep(0.01)
        assert time.monotonic() - back < 0.3 + 0.15
        before = second.calls
        assert failed(await calls(pool, 10)) == []
        assert second.calls == before


async def test_a_limited_member_is_left_alone_as_long_as_it_asks() -> None:
    first, second = Provider("a", fault=429, retry_after=0.4), Provider("b")
    async with fleet(first, second):
        pool = Pool([member(first), member(second)])
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert failed(await calls(pool, 1)) == []
            await asyncio.sleep(0.01)
    gaps = [b - a for a, b in zip(first.arrivals, first.arrivals[1:], strict=False)]
    assert 2 <= first.calls <= 3
    assert min(gaps) >= 0.4


async def test_no_window_sees_more_than_the_limit() -> None:
    """As the provider counts: in any second at most ten arrive, although thirty come at once."""
    provider = Provider("a", latency=mostly(0.0, 0.05, 0.3))
    async with fleet(provider):
        limited = member(provider, requests_per_minute=10)
        limited.requests = Window(10, 10**9 + SLACK_NS)  # a second in place of a minute
        found = await calls(Pool([limited]), 30, at_once=30)
    assert failed(found) == []
    assert provider.most_in(1.0) <= 10
    assert percentile(found, 0.99) < 3 * 1.25 + 0.5, "and no more is waited than the limit demands"


async def test_concurrency_as_the_provider_sees_it() -> None:
    provider = Provider("a", latency=constant(0.02))
    async with fleet(provider):
        pool = Pool([member(provider, concurrency=4)])
        found = await calls(pool, 40, at_once=20)
    assert failed(found) == []
    assert provider.most_under_way == 4


async def test_hedging_cuts_the_tail_as_the_arithmetic_says() -> None:
    """Six calls of eighty take three seconds, else 10 ms: which, the seeds say. A second call begins
    after 750 ms, for these alone, and only where both are slow three seconds are waited for.
    """
    share, count = 0.1, 80
    a, b = [
        Provider(name, latency=mostly(0.01, 3.0, share), seed=seed)
        for name, seed in (("a", 7), ("b", 7))
    ]
    slow = [
        sum(rng.random() < share for _ in range(most))
        for rng, most in ((random.Random("7a"), count), (random.Random("7b"), 16))
    ]
    assert slow == [6, 0], "six are slow, and no second call is"
    async with fleet(a, b):
        pool = Pool([member(a), member(b)], "hedge", hedge_after=0.75)
        await pool.members[1].adapter.complete(MESSAGES)  # what the first call has to import
        b.rng = random.Random("7b")
        found = await calls(pool, count, at_once=20)
    assert failed(found) == []
    assert a.calls == count
    assert slow[0] <= b.calls - 1 <= slow[0] + 8, "a busy machine may be late itself"
    assert percentile(found, 0.99) < 3.0
    assert sum(seconds >= 0.75 for seconds, _ in found) >= slow[0]


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
