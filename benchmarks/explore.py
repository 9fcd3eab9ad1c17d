"""How many runs a second the all-paths test makes: ``python benchmarks/explore.py [SECONDS]``.

Prints a line for each workload, in process CPU time. The bar of 20,000 runs a second is for a
program of 20 steps.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from nano_vm import Program
from nano_vm.explore.search import Property, at_most, explore_plan
from nano_vm.explore.tree import assumed
from nano_vm.language.flow import Flow
from nano_vm.machine.compile import compile_flow


def chain(steps: int, every: int) -> Program:
    """A chain of tool steps, with a condition instead of each *every*-th: its value is yes or not,
    and a step follows if it is.
    """
    made: list[dict[str, Any]] = []
    while len(made) < steps:
        number = len(made)
        if number % every == every - 1:
            made.append(
                {
                    "id": f"c{number}",
                    "type": "condition",
                    "condition": f"$k{number} == 'yes'",
                    "then": [{"id": f"t{number}", "type": "set", "values": {"x": 1}}],
                }
            )
            made.append(
                {
                    "id": f"s{number}",
                    "type": "tool",
                    "tool": "f",
                    "args": {"x": "$k0"},
                    "output_key": f"k{number + 2}",
                }
            )
        else:
            made.append(
                {
                    "id": f"s{number}",
                    "type": "tool",
                    "tool": "f",
                    "args": {"x": "$k0"},
                    "output_key": f"k{number + 1}",
                }
            )
    return Program.from_dict({"name": f"chain of {steps}", "steps": made[:steps]})


def forked() -> Program:
    """Branches and items: every child is a machine of its own."""
    branches = [[{"id": f"{b}{i}", "type": "tool", "tool": "f"} for i in range(3)] for b in "abc"]
    return Program.from_dict(
        {
            "name": "parallel and map",
            "steps": [
                {"id": "list", "type": "tool", "tool": "g"},
                {"id": "p", "type": "parallel", "parallel_steps": branches},
                {
                    "id": "m",
                    "type": "map",
                    "over": "$list.output",
                    "steps": [{"id": "i", "type": "tool", "tool": "f"}],
                },
            ],
        }
    )


def measure(
    name: str, program: Program, seconds: float, properties: dict[str, Property] | None = None
) -> None:
    """Explore again and again for *seconds*, and print the runs a second."""
    flow = Flow(program)
    contracts = assumed(flow, {})
    plan = compile_flow(flow, contracts)
    runs, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        runs += explore_plan(plan, flow, contracts, properties=properties, max_runs=5_000).runs
    print(f"{name:<50} {runs / spent:>10,.0f} runs/s {spent / runs * 1e6:>8.1f} µs a run")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    measure("20 tool steps, 41 runs, plan and samples anew", chain(20, 100), seconds)
    measure("20 steps, 5 of them conditions", chain(20, 4), seconds)
    measure("20 steps, 8 of them conditions", chain(20, 2), seconds)
    measure("20 steps, 5 of them conditions, a property", chain(20, 4), seconds, at_most("f", 3))
    measure("parallel and map, 10 to 12 tool steps", forked(), seconds)


if __name__ == "__main__":
    main()
