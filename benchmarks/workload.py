"""The work that every contestant does, and the loop in which it is timed.

In come lines on standard input, each a number of programs; out goes one line of JSON for each, with
the time that so many programs took. A contestant that does not reach the right answer never gets to
measure anything. This module runs in the environment of every peer and so imports nothing but the
standard library.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any

Tool = Callable[..., Awaitable[Any]]

CONDITION = "'ok' in '${output}'.lower()"
"""As programs for llm-nano-vm 0.1 spell it; ``{output}`` stands for the name of the last step's
output.
"""


KINDS = ("text", "number", "accents", "object", "template", "two")
"""What the context holds and what a step passes on; see `Workload.value` and `Workload.arguments`.
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """A chain of tool steps over a context; by default the stress test that llm-nano-vm 0.1 was
    published with.
    """

    steps: int = 20
    keys: int = 50
    branch: int = 1  # 1: a condition on the last output and one more step follow
    concurrent: int = 1  # runs in one gather; 1 awaits each run without a task of its own
    yielding: int = 0  # 1: the tool goes once through the event loop, as every real call does
    kind: str = "text"

    def value(self, number: int) -> Any:
        match self.kind:
            case "number":
                return number * 1000
            case "accents":
                return f"ok é {number}"
            case "object":
                return {"id": number, "name": f"ok {number}", "tags": ["new", "paid"]}
        return f"ok {number}"

    def arguments(self, key: str) -> dict[str, str]:
        """The arguments of a step, in the language of llm-nano-vm."""
        match self.kind:
            case "template":
                return {"x": f"got ${key}"}
            case "two":
                return {"x": f"${key}", "y": "$key_0"}
        return {"x": f"${key}"}

    @property
    def context(self) -> dict[str, Any]:
        return {f"key_{i}": self.value(i) for i in range(self.keys)}

    @property
    def tools(self) -> dict[str, Tool]:
        return {"work": yielding_work if self.yielding else TOOLS.get(self.kind, work)}

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """Step id, context key and output name of each step in the chain."""
        return [(f"step_{i}", f"key_{i % self.keys}", f"out_{i}") for i in range(self.steps)]

    @property
    def ends(self) -> tuple[str, str]:
        """The context keys of the two steps after the condition: the one that runs, and the one
        that must not.
        """
        return f"key_{self.steps % self.keys}", f"key_{(self.steps + 1) % self.keys}"

    @property
    def answer(self) -> Any:
        last = self.context[self.ends[0] if self.branch else self.calls[-1][1]]
        return f"got {last}" if self.kind == "template" else last

    def program(self, condition: str = CONDITION) -> dict[str, Any]:
        """The work in the language of llm-nano-vm."""

        def step(name: str, key: str) -> dict[str, Any]:
            return {"id": name, "type": "tool", "tool": "work", "args": self.arguments(key)}

        steps = [{**step(name, key), "output_key": output} for name, key, output in self.calls]
        if self.branch:
            test = condition.replace("{output}", self.calls[-1][2])
            steps += [
                {
                    "id": "check",
                    "type": "condition",
                    "condition": test,
                    "then": "finish",
                    "otherwise": "reject",
                },
                step("finish", self.ends[0]),
                step("reject", self.ends[1]),
            ]
        return {"name": "stress", "steps": steps}

    @property
    def options(self) -> list[str]:
        """What `read_workload` reads back."""
        return [f"--{field.name}={getattr(self, field.name)}" for field in fields(self)]


async def work(x: str) -> str:
    return x


async def yielding_work(x: str) -> str:
    await asyncio.sleep(0)
    return x


async def number_work(x: int) -> int:
    return x


async def object_work(x: dict[str, Any]) -> dict[str, Any]:
    return x


async def work_of_two(x: str, y: str) -> str:
    return x


TOOLS: dict[str, Tool] = {"number": number_work, "object": object_work, "two": work_of_two}


def read_workload(parser: argparse.ArgumentParser) -> tuple[Workload, argparse.Namespace]:
    """The workload named on the command line, and what else *parser* finds there."""
    for field in fields(Workload):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    options = parser.parse_args()
    return Workload(
        **{field.name: getattr(options, field.name) for field in fields(Workload)}
    ), options


def serve(workload: Workload, run: Callable[[], Awaitable[Any]]) -> None:
    """Time *run*, which gives a program's final output, as often as each line on standard input
    says.
    """
    asyncio.run(_serve(workload, run))


async def _serve(workload: Workload, run: Callable[[], Awaitable[Any]]) -> None:
    expected = workload.answer
    for line in iter(sys.stdin.readline, ""):
        batches = int(line) // workload.concurrent
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        if workload.concurrent == 1:
            for _ in range(batches):
                answer = await run()
        else:
            for _ in range(batches):
                answer = (await asyncio.gather(*[run() for _ in range(workload.concurrent)]))[-1]
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        if answer != expected:
            raise AssertionError(f"the final output is {answer!r}, not {expected!r}")
        print(
            json.dumps({"programs": batches * workload.concurrent, "cpu_ns": cpu, "wall_ns": wall}),
            flush=True,
        )
