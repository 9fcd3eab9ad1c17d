"""What each kind of step costs: ``python -m kinds rows ROUNDS BLOCK_MS`` prints one JSON
object, ``python -m kinds growth ROUNDS`` what many runs at a time cost.

Everything is measured in one process and in turns: a round times one block of each row, so that
what slows the machine down slows every row down. Times are process CPU time in microseconds, the
medians of the rounds. A row is a run of twenty equal units (steps, iterations, items) and nothing
is stored; a unit's share of the run's start is part of its cost. Ratios are the medians of those
within the rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from nano_vm import ExecutionVM, LLMUsage, Program, TraceStatus, tool
from nano_vm.collector import collector_eased
from nano_vm.language.policy import Budget

UNITS = 20

Step = dict[str, Any]


# --- tools ----------------------------------------------------------------------------------------


async def text(x: str) -> str:
    return x


async def anything(x: Any) -> Any:
    return x


async def nothing() -> str:
    return "ok"


async def number(x: int) -> int:
    return x


async def two(x: str, y: str) -> str:
    return x


async def four(a: str, b: int, c: float, d: bool) -> str:
    return a


async def nested(a: str, b: int, c: dict[str, Any]) -> str:
    return a


RECORD = {"id": 7, "name": "ok", "tags": ["new", "paid"]}


async def record(x: str) -> dict[str, Any]:
    return RECORD


@tool(inline=True)
def inline(x: str) -> str:
    return x


async def turning(x: str) -> str:
    await asyncio.sleep(0)
    return x


TOOLS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        text, anything, nothing, number, two, four, nested, record, inline, turning,
    )
}  # fmt: skip


class Model:
    """An adapter that answers at once."""

    def __init__(self, usage: LLMUsage | None = None) -> None:
        self.usage = usage

    async def complete(self, messages: list[dict[str, Any]], **_: Any) -> Any:
        if self.usage is None:
            return "fine"
        return "fine", {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


CONTEXT: dict[str, Any] = {
    "key": "ok",
    "other": "also ok",
    "n": 3,
    "flag": True,
    "items": ["ok"] * UNITS,
    "long": "x" * 5_000,
}


# --- programs -------------------------------------------------------------------------------------


def named(steps: list[Step]) -> Program:
    return Program.from_dict({"name": "row", "steps": steps})


def straight(step: Step, count: int = UNITS) -> Program:
    """*count* such steps in a row."""
    return named([{"id": f"s{i}", **step} for i in range(count)])


def call(tool: str, count: int = UNITS, **args: Any) -> Program:
    return straight({"type": "tool", "tool": tool, "args": args}, count)


def looped() -> Program:
    body = [{"id": "t", "type": "tool", "tool": "text", "args": {"x": "$key"}}]
    return named(
        [{"id": "l", "type": "loop", "max_iterations": UNITS, "on_exhausted": "continue",
          "steps": body}]
    )  # fmt: skip


def mapped() -> Program:
    body = [{"id": "t", "type": "tool", "tool": "text", "args": {"x": "$item"}}]
    return named([{"id": "m", "type": "map", "over": "$items", "as": "item", "steps": body}])


def parallel() -> Program:
    branch = {"type": "tool", "tool": "text", "args": {"x": "$key"}}
    branches = [{"id": f"t{i}", **branch} for i in range(UNITS)]
    return named([{"id": "p", "type": "parallel", "parallel_steps": branches}])


def conditions() -> Program:
    return named(
        [{"id": f"s{i}", "type": "condition", "condition": "$key == 'ok'", "then": f"s{i + 1}",
          "otherwise": "last"} for i in range(UNITS - 1)]
        + [{"id": f"s{UNITS - 1}", "type": "condition", "condition": "$key == 'ok'",
            "then": "last", "otherwise": "last"},
           {"id": "last", "type": "set", "values": {"done": True}}]
    )  # fmt: skip


def switches() -> Program:
    return named(
        [{"id": f"s{i}", "type": "switch", "on": "$key",
          "cases": {"no": "last", "ok": f"s{i + 1}" if i < UNITS - 1 else "last"},
          "default": "last"} for i in range(UNITS)]
        + [{"id": "last", "type": "set", "values": {"done": True}}]
    )  # fmt: skip


def stress() -> Program:
    """The stress test as llm-nano-vm 0.1 was published with it: literal arguments, 50 keys in the
    context, a condition on the first output that may jump back.
    """

    def work(name: str) -> Step:
        return {"id": name, "type": "tool", "tool": "text", "args": {"x": "ok"}}

    return named([
        *[work(f"step_{i}") for i in range(UNITS)],
        {"id": "check", "type": "condition", "condition": "'o' in '$step_0.output'",
         "then": "finish", "otherwise": f"step_{UNITS - 1}"},
        work("finish"),
    ])  # fmt: skip


# --- rows -----------------------------------------------------------------------------------------

Run = Callable[[], Awaitable[Any]]


@dataclass(slots=True)
class Row:
    """One kind of step: what runs *units* of it."""

    name: str
    run: Run
    units: int = UNITS
    shown: bool = True
    us: list[float] = field(default_factory=list)  # of one unit, a figure a round
    count: int = 1

    async def block(self) -> None:
        run = self.run
        start = time.process_time_ns()
        for _ in range(self.count):
            await run()
        self.us.append((time.process_time_ns() - start) / 1000 / self.count / self.units)


def of(
    program: Program, llm: Any = None, context: Mapping[str, Any] = CONTEXT, **given: Any
) -> Run:
    """What runs *program* in a VM of its own and checks that it ended well."""
    vm = ExecutionVM(llm, TOOLS)
    context = dict(context)
    ids = itertools.count()
    fresh = given.pop("fresh_id", False)

    async def run() -> Any:
        if fresh:
            given["run_id"] = f"run-{next(ids)}"
        trace = await vm.run(program, context, **given)
        if trace.status is not TraceStatus.SUCCESS:
            raise SystemExit(f"the run ended {trace.status}: {trace.error}")
        return trace

    return run


async def plain_loop() -> Any:
    """The stress test by hand: the loop that most people would write."""
    outputs = {}
    for i in range(UNITS):
        outputs[f"step_{i}"] = await TOOLS["text"](x="ok")
    if "o" in outputs["step_0"]:
        outputs["finish"] = await TOOLS["text"](x="ok")
    return outputs["finish"]


async def recording_loop() -> Any:
    """The same, which keeps (name, value, start, end) of each step."""
    now = time.monotonic_ns
    outputs, kept = {}, []
    for i in range(UNITS):
        name = f"step_{i}"
        started = now()
        value = outputs[name] = await TOOLS["text"](x="ok")
        kept.append((name, value, started, now()))
    started = now()
    found = "o" in outputs["step_0"]
    kept.append(("check", found, started, now()))
    if found:
        started = now()
        value = outputs["finish"] = await TOOLS["text"](x="ok")
        kept.append(("finish", value, started, now()))
    return outputs["finish"], kept


async def gathered() -> Any:
    return await asyncio.gather(*[text("ok") for _ in range(UNITS)])


def rows() -> list[Row]:
    key = {"x": "$key"}
    fifty = {f"key_{i}": f"ok {i}" for i in range(50)}
    return [
        Row("tool, `x: $key`", of(call("text", **key))),
        Row("tool, `x: $key`, untyped", of(call("anything", **key))),
        Row("tool, no argument", of(call("nothing"))),
        Row("tool, literal text", of(call("text", x="hello"))),
        Row("tool, literal number", of(call("number", x=3))),
        Row("tool, `got $key`", of(call("text", x="got $key"))),
        Row("tool, two references", of(call("two", x="$key", y="$other"))),
        Row("tool, four scalars", of(call("four", a="$key", b="$n", c="$n", d="$flag"))),
        Row("tool, the output before",
            of(named([{"id": "s0", "type": "tool", "tool": "text", "args": {"x": "$key"}},
                      *[{"id": f"s{i}", "type": "tool", "tool": "text",
                         "args": {"x": f"$s{i - 1}.output"}} for i in range(1, UNITS)]]))),
        Row("tool, a nested object in",
            of(call("nested", a="$key", b="$n",
                    c={"id": "$n", "name": "$key", "tags": ["new", "paid"]}))),
        Row("tool, a small object out", of(call("record", **key))),
        Row("tool, 5,000 characters", of(call("text", x="$long"))),
        Row("tool, sync inline", of(call("inline", **key))),
        Row("tool, under a budget", of(call("text", **key), budget=Budget(max_tool_calls=500))),
        Row("tool, under a deadline", of(call("text", **key), budget=Budget(max_seconds=900))),
        Row("`set`, one expression",
            of(straight({"type": "set", "values": {"total": {"expr": "$n + 1"}}}))),
        Row("`condition`", of(conditions())),
        Row("`switch`", of(switches())),
        Row("a loop's iteration, tool included", of(looped())),
        Row("model step", of(straight({"type": "llm", "prompt": "Is $key fine?"}), Model())),
        Row("model step with usage",
            of(straight({"type": "llm", "prompt": "Is $key fine?"}), Model(LLMUsage()))),
        Row("an item of a `map`", of(mapped())),
        Row("a branch of a `parallel`", of(parallel())),
        Row("`asyncio.gather`, a task", gathered),
        Row("stress test", of(stress(), context=fifty), 1),
        Row("stress test, by hand", plain_loop, 1),
        Row("stress test, by hand with records", recording_loop, 1),
        Row("one step", of(call("text", 1, **key)), 1, shown=False),
        Row("one step, run_id", of(call("text", 1, **key), fresh_id=True), 1, shown=False),
        Row("one step, budget",
            of(call("text", 1, **key), budget=Budget(max_tool_calls=500)), 1, shown=False),
    ]  # fmt: skip


BARS: dict[str, float] = {
    **dict.fromkeys(
        ("tool, `x: $key`", "tool, `x: $key`, untyped", "tool, no argument", "tool, literal text",
         "tool, literal number", "tool, `got $key`", "tool, two references", "tool, four scalars",
         "tool, the output before", "tool, sync inline"), 1.6),
    "tool, a nested object in": 1.6,  # and 0.12 µs for each of its six values
    "tool, a small object out": 2.6,
    "tool, 5,000 characters": 2,
    "tool, under a budget": 1.9,
    "tool, under a deadline": 1.9,
    **dict.fromkeys(("`set`, one expression", "`condition`", "`switch`"), 1.3),
    "a loop's iteration beside its tool": 1.5,
    "model step": 3,
    "model step with usage": 5,
    "an item of a `map`": 7,
    "a branch of a `parallel`": 7,
}  # fmt: skip
"""The most that a row may be, as a multiple of the quickest."""

NESTED_VALUES, VALUE_US = 6, 0.12


def ratio(a: list[float], b: list[float]) -> float:
    """The median of the ratios within each round."""
    return median(x / y for x, y in zip(a, b, strict=True))


async def measure(rounds: int, block_ms: float) -> dict[str, Any]:
    """The figures of every row, and what follows from them."""
    table = {row.name: row for row in rows()}
    for row in table.values():  # how many runs fill a block
        await row.block()
        row.us.clear()
        row.count = 5
        await row.block()
        row.count = max(1, int(block_ms * 1000 / (row.us.pop() * row.units)))
    order = list(table.values())
    for number in range(rounds):
        for row in order[number % len(order) :] + order[: number % len(order)]:
            await row.block()
    return told(table)


def told(table: dict[str, Row]) -> dict[str, Any]:
    us = {name: row.us for name, row in table.items()}
    straight_line, loop = us["tool, `x: $key`"], us["a loop's iteration, tool included"]
    us["a loop's iteration beside its tool"] = [
        a - b for a, b in zip(loop, straight_line, strict=True)
    ]
    barred = {name: us[name] for name in BARS}
    bars: dict[str, float] = dict(BARS)
    # an iteration beside its tool is a difference, and no row of its own
    quickest = min(
        (name for name in barred if "beside" not in name), key=lambda name: median(barred[name])
    )

    bars["tool, a nested object in"] += NESTED_VALUES * VALUE_US / median(us[quickest])

    def start(one: list[float]) -> float:
        """Of a run with one step, what is not the step."""
        steps = [(20 * a - b) / 19 for a, b in zip(straight_line, us["one step"], strict=True)]
        return median(a - b for a, b in zip(one, steps, strict=True))

    hand, kept, ours = (
        us[name]
        for name in ("stress test, by hand", "stress test, by hand with records", "stress test")
    )
    return {
        "quickest": quickest,
        "rows": {
            name: {"us": median(values), "over": ratio(values, us[quickest]),
                   "bar": bars.get(name)}
            for name, values in us.items() if name not in table or table[name].shown
        },
        "stress": {"over_plain": ratio(ours, hand), "over_recording": ratio(ours, kept)},
        "start": {
            "a run": start(us["one step"]),
            "with run_id": start(us["one step, run_id"]),
            "with a ready-made budget": start(us["one step, budget"]),
        },
    }  # fmt: skip


async def at_a_time(run: Run, count: int, least_ms: float = 150) -> float:
    """Microseconds of one run, *count* at a time."""
    done, start = 0, time.process_time_ns()
    while done < count or time.process_time_ns() - start < least_ms * 1e6:
        await asyncio.gather(*[run() for _ in range(count)])
        done += count
    return (time.process_time_ns() - start) / 1000 / done


async def growth(rounds: int) -> dict[str, Any]:
    """What a run of five steps that go through the event loop costs, 10,000 of them at a time over
    10 at a time: with the collector as Python sets it, and as a process's owner does.
    """
    run = of(call("turning", 5, x="$key"))
    await run()
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for setting in ("as Python sets it", "as the owner of a process sets it"):
            owned = setting.startswith("as the owner")
            with collector_eased() if owned else contextlib.nullcontext():
                for count in (10, 10_000):
                    gc.collect()
                    found.setdefault((setting, count), []).append(await at_a_time(run, count))
    return {
        setting: {
            "us": {str(count): median(found[setting, count]) for count in (10, 10_000)},
            "over": ratio(found[setting, 10_000], found[setting, 10]),
        }
        for setting, _ in found
    }


def main() -> None:
    what, rounds = sys.argv[1], int(sys.argv[2])
    if what == "growth":
        figures = asyncio.run(growth(rounds))
    else:
        figures = asyncio.run(measure(rounds, float(sys.argv[3])))
    print(json.dumps(figures, ensure_ascii=False))


if __name__ == "__main__":
    main()
