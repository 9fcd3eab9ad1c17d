"""Pools against a fleet of faulty providers on loopback HTTP, beside LiteLLM's Router over the same
fleet; and the cost of a pool by itself.

    python benchmarks/pool.py              # the tables of pools.md
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

from fleet import Provider, constant, fleet

from nano_vm import Completion, LLMUsage, Member, OpenAIAdapter, Pool

CALLS = 200
AT_ONCE = 4
MESSAGES = [{"role": "user", "content": "x"}]
LATENCY = constant(0.01)

Call = Callable[[], Awaitable[Any]]
SCENARIOS: dict[str, dict[str, Any]] = {
    "all are well": {},
    "one answers 503": {"fault": 503},
    "one answers 429, Retry-After 30": {"fault": 429, "retry_after": 30},
    "one answers what is no JSON": {"fault": "garbage"},
    "one drops connections": {"fault": "drop"},
    "one hangs (0.5 s for an attempt)": {"fault": "hang"},
}


def pool_of(providers: list[Provider]) -> Call:
    members = [
        Member(
            OpenAIAdapter(p.name, base_url=p.url, api_key="none"), name=p.name, timeout_seconds=0.5
        )
        for p in providers
    ]
    pool = Pool(members, "round_robin")
    return lambda: pool.complete(MESSAGES)


def router_of(providers: list[Provider]) -> Call:
    import litellm

    litellm.suppress_debug_info = True
    deployments = [
        {
            "model_name": "judge",
            "litellm_params": {
                "model": f"openai/{p.name}",
                "api_base": p.url,
                "api_key": "none",
                "timeout": 0.5,
            },
        }
        for p in providers
    ]
    router = litellm.Router(
        model_list=deployments,
        num_retries=2,
        retry_after=0,
        allowed_fails=1,
        cooldown_time=30,
        routing_strategy="simple-shuffle",
    )
    return lambda: router.acompletion(model="judge", messages=MESSAGES)  # type: ignore[no-any-return]


async def measured(make: Callable[[list[Provider]], Call], **fault: Any) -> dict[str, Any]:
    """What CALLS calls came to over three providers, of which the first has the *fault*."""
    providers = [
        Provider("a", latency=LATENCY, **fault),
        Provider("b", latency=LATENCY),
        Provider("c", latency=LATENCY),
    ]
    async with fleet(*providers):
        call = make(providers)
        well = make(providers[1:])
        for _ in range(6):  # connections, and what is imported at the first call
            await well()
        for provider in providers:
            provider.arrivals.clear()
        times: list[float] = []
        failed = 0
        numbers = iter(range(CALLS))

        async def worker() -> None:
            nonlocal failed
            for _ in numbers:
                begun = time.perf_counter()
                try:
                    await call()
                except Exception:  # noqa: BLE001 - a call that failed is what is counted
                    failed += 1
                times.append(time.perf_counter() - begun)

        cpu = time.process_time()
        await asyncio.gather(*[worker() for _ in range(AT_ONCE)])
        cpu = time.process_time() - cpu
    times.sort()
    return {
        "answered": f"{100 * (CALLS - failed) / CALLS:.1f} %",
        "extra": sum(p.calls for p in providers) - CALLS,
        "p50": f"{times[CALLS // 2] * 1000:.0f}",
        "p99": f"{times[CALLS * 99 // 100] * 1000:.0f}",
        "cpu": f"{cpu / CALLS * 1000:.1f}",
    }


def table(title: str, rows: dict[str, dict[str, Any]]) -> None:
    print(f"\n{title}\n")
    print("| scenario | answered | extra attempts | p50 ms | p99 ms | CPU ms a call |")
    print("|---|---|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(str(value) for value in row.values())} |")


class Bare:
    """A model that answers at once."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.answer = Completion("yes", LLMUsage(100, 10, 110), model, "stop")

    async def complete(self, messages: Any, **kwargs: Any) -> Completion:
        return self.answer


async def overhead() -> None:
    """Microseconds of CPU that a pool adds to a call, the best of five rounds."""
    limits = {"concurrency": 10**6, "requests_per_minute": 10**8, "tokens_per_minute": 10**12}
    pools = {
        "ordered": Pool([Bare("a"), Bare("b")]),
        "ordered, 64 members": Pool([Bare(f"m{i}") for i in range(64)]),
        "ordered, with limits": Pool([Member(Bare("a"), **limits), Member(Bare("b"), **limits)]),
        "weighted": Pool([Bare("a"), Bare("b")], "weighted"),
        "round_robin": Pool([Bare("a"), Bare("b")], "round_robin"),
        "least_busy, 64 members": Pool([Bare(f"m{i}") for i in range(64)], "least_busy"),
        "fastest, 64 members": Pool([Bare(f"m{i}") for i in range(64)], "fastest"),
        "hash, 64 members": Pool([Bare(f"m{i}") for i in range(64)], "hash"),
        "cascade": Pool([Bare("a"), Bare("b")], "cascade"),
    }
    bare = await _spent(Bare("a"))
    print("\n| pool | us a call |\n|---|---|")
    for name, pool in pools.items():
        print(f"| {name} | {await _spent(pool) - bare:.1f} |")


async def _spent(adapter: Any, count: int = 20_000) -> float:
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        for _ in range(count):
            await adapter.complete(MESSAGES)
        best = min(best, time.process_time() - begun)
    return best / count * 1e6


IN_FLIGHT = 10_000


class Held(Bare):
    """A model that answers when all calls have begun."""

    gate: asyncio.Event

    async def complete(self, messages: Any, **kwargs: Any) -> Completion:
        await self.gate.wait()
        return self.answer


async def in_flight() -> None:
    """The same with so many calls under way at a time."""
    limits = {"concurrency": 10**6, "requests_per_minute": 10**8, "tokens_per_minute": 10**12}
    one, other = Held("a"), Held("b")
    pools = {
        "ordered": Pool([one, other]),
        "ordered, with limits": Pool([Member(one, **limits), Member(other, **limits)]),
        "least_busy": Pool([one, other], "least_busy"),
    }
    bare = await _spent_at_once(one)
    print(f"\n| pool, {IN_FLIGHT:,} calls in flight | us a call |\n|---|---|")
    for name, pool in pools.items():
        print(f"| {name} | {await _spent_at_once(pool) - bare:.1f} |")


async def _spent_at_once(adapter: Any) -> float:
    best = float("inf")
    for _ in range(7):
        Held.gate = asyncio.Event()
        begun = time.process_time()
        calls = [asyncio.ensure_future(adapter.complete(MESSAGES)) for _ in range(IN_FLIGHT)]
        await asyncio.sleep(0)
        Held.gate.set()
        await asyncio.gather(*calls)
        best = min(best, time.process_time() - begun)
    return best / IN_FLIGHT * 1e6


async def main() -> None:
    import_module("openai")  # a second of CPU, which the first call would wait for
    logging.disable(logging.CRITICAL)
    await overhead()
    await in_flight()
    for title, make in (("Pool, round_robin", pool_of), ("litellm.Router", router_of)):
        rows = {name: await measured(make, **fault) for name, fault in SCENARIOS.items()}
        table(title, rows)


if __name__ == "__main__":
    asyncio.run(main())
