"""How fast a loaded trace is replayed: steps a second, of one long run and of many short ones.
Prints JSON.

python benchmarks/replay.py
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from nano_vm import ExecutionVM, Program, Trace, tool
from nano_vm.replay import Replayer
from nano_vm.testing import ScriptedLLM

ROUNDS = 5
"""The best of these counts: the machine is shared."""


@tool(effect="read")
async def look(value: Any) -> Any:
    return {"seen": value, "ok": True} if isinstance(value, list) else value


def straight(steps: int) -> Program:
    """Tool steps in a row, as a long import has them."""
    first = [{"id": "s0", "type": "tool", "tool": "look", "args": {"value": "$n"}}]
    rest = [
        {"id": f"s{i}", "type": "tool", "tool": "look", "args": {"value": f"$s{i - 1}.output"}}
        for i in range(1, steps)
    ]
    return Program.from_dict({"name": "straight", "steps": first + rest})


def looped(rounds: int) -> Program:
    """A loop with a tool step, a condition, a set and a model step."""
    body: list[dict[str, Any]] = [
        {"id": "count", "type": "set", "values": {"n": {"expr": "$n + 1"}}},
        {"id": "ask", "type": "llm", "prompt": "is $n enough?", "allowed_outputs": ["yes", "no"]},
        {"id": "two", "type": "condition", "condition": "$ask.output == 'no'", "then": [
            {"id": "see", "type": "tool", "tool": "look", "args": {"value": ["$n", "x"]}}
        ]},
    ]  # fmt: skip
    loop = {
        "id": "l",
        "type": "loop",
        "max_iterations": rounds,
        "on_exhausted": "continue",
        "steps": body,
    }
    return Program.from_dict({"name": "looped", "steps": [loop]})


def mapped(items: int) -> Program:
    """Items with three steps each."""
    steps = [
        {"id": "a", "type": "tool", "tool": "look", "args": {"value": "$it"}},
        {"id": "b", "type": "condition", "condition": "$it > 3", "then": "c", "otherwise": "c"},
        {"id": "c", "type": "tool", "tool": "look", "args": {"value": ["$it"]}},
    ]
    return Program.from_dict(
        {
            "name": "mapped",
            "steps": [
                {"id": "m", "type": "map", "over": list(range(items)), "as": "it", "steps": steps}
            ],
        }
    )


def loaded(program: Program, runs: int) -> list[Trace]:
    """Traces as they are read back."""
    vm = ExecutionVM(ScriptedLLM(["no"] * 100_000), {"look": look})

    async def make() -> Trace:
        return (await vm.run(program, {"n": 1})).raise_for_status()

    return [Trace.from_json(asyncio.run(make()).to_json()) for _ in range(runs)]


def measured(program: Program, traces: list[Trace]) -> dict[str, Any]:
    """Steps a second, the plan made once."""
    replayer = Replayer(program)
    best, steps = 0.0, 0
    for _ in range(ROUNDS):
        began = time.process_time()
        found = [replayer.replay(trace) for trace in traces]
        took = time.process_time() - began
        assert all(found)
        steps = sum(replay.steps for replay in found)
        best = max(best, steps / took)
    return {"steps": steps, "runs": len(traces), "steps_per_second": round(best)}


def main() -> None:
    """Measure and print."""
    cases = {
        "20 steps": (straight(20), 500),
        "9,000 steps": (straight(9_000), 1),
        "loop, model, condition": (looped(1_500), 1),
        "map of 1,000 items": (mapped(1_000), 1),
    }
    print(
        json.dumps(
            {name: measured(p, loaded(p, runs)) for name, (p, runs) in cases.items()}, indent=2
        )
    )


if __name__ == "__main__":
    main()
