"""Two pools over the small model of this machine and a stand-in that fails: one that falls back, one
that asks the dearer model only where the cheaper one gives no answer that fits.

    python examples/pools.py        # pip install 'llm-nano-vm[local]', and its weights; see README
"""

from __future__ import annotations

import asyncio
from typing import Any

from nano_vm import (
    Completion,
    ExecutionVM,
    LLMUsage,
    LocalAdapter,
    Member,
    ModelError,
    Program,
    Trace,
)

PROGRAM = Program.from_dict(
    {
        "name": "pools",
        "models": {
            "steady": {"pool": ["flaky", "local"]},
            "judge": {"pool": ["vague", "local"], "strategy": "cascade"},
        },
        "defaults": {"max_tokens": 16},
        "budget": {"max_cost_usd": 0.01},
        "steps": [
            {
                "id": "reply",
                "type": "llm",
                "model": "steady",
                "prompt": "Thank the customer for: $mail",
            },
            {
                "id": "angry",
                "type": "llm",
                "model": "judge",
                "prompt": "Is this customer angry? $mail",
                "allowed_outputs": ["yes", "no"],
            },
        ],
        "output": {"reply": "$reply.output", "angry": "$angry.output"},
    }
)


class Flaky:
    """A provider whose every second answer is an error."""

    model = "flaky"

    def __init__(self) -> None:
        self.calls = 0

    async def complete(self, messages: list[dict[str, Any]], **kwargs: Any) -> Completion:
        self.calls += 1
        if self.calls % 2:
            raise ModelError("HTTP 503: overloaded", status=503)
        return Completion("Thank you for writing.", LLMUsage(40, 5, 45))


class Vague:
    """A cheap model that does not keep to what it is asked."""

    model = "vague"

    async def complete(self, messages: list[dict[str, Any]], **kwargs: Any) -> Completion:
        return Completion("It depends on how you look at it.", LLMUsage(40, 9, 49))


PRICES = {"flaky": ("0.10", "0.40"), "vague": ("0.05", "0.08")}


def host(local: Any) -> ExecutionVM:
    """A VM with the two stand-ins and *local*."""
    members = {
        "flaky": Member(Flaky(), requests_per_minute=100),
        "vague": Member(Vague()),
        "local": Member(local, name="local", concurrency=1, price=(0, 0)),
    }
    return ExecutionVM(members, prices=PRICES)


def told(trace: Trace) -> list[str]:
    """Each model step with the way that its call took."""
    lines = []
    for step in trace.steps:
        way = ", ".join(
            f"{attempt['member']} {attempt['outcome']}"
            for attempt in step.extra["route"]["attempts"]
        )
        cost = step.usage.cost_usd if step.usage is not None else None
        lines.append(f"{step.step_id}: {step.output!r} by {way}; ${cost:f}")
    return lines


async def main() -> None:
    """Run the program twice: the second time the flaky one answers."""
    vm = host(LocalAdapter())
    most = vm.verify(PROGRAM).ceiling
    print(f"at most ${most.cost_usd if most is not None else None} a run")
    for _ in range(2):
        trace = await vm.run(PROGRAM, {"mail": "The blender arrived broken!"})
        print("\n".join(told(trace)))


if __name__ == "__main__":
    asyncio.run(main())
