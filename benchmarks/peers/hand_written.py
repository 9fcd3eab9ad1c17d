"""The limit: a coroutine that does the work and nothing else, and keeps no trace.

It is written out one line a step with every name in place, as the fastest plain Python is (the
source is generated, since there are workloads of 10,000 steps); with ``--loop`` it is the loop over
names that most people would write, and with ``--records`` that loop keeps (name, value, start, end)
of each step, which is the least that a trace needs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from workload import Tool, Workload, read_workload, serve

Coroutine = Callable[[Mapping[str, Tool], Mapping[str, str]], Awaitable[object]]


def written_out(workload: Workload) -> Coroutine:
    """The coroutine with one line for each step."""
    lines = ["async def run(tools, context):", "    outputs = {}"]
    arguments = {
        "template": "x='got ' + context[{!r}]",
        "two": "x=context[{!r}], y=context['key_0']",
    }
    argument = arguments.get(workload.kind, "x=context[{!r}]")
    for _, key, output in workload.calls:
        lines.append(f"    outputs[{output!r}] = await tools['work']({argument.format(key)})")
    last = workload.calls[-1][2]
    if workload.branch:
        finish, reject = workload.ends
        lines += [
            f"    if 'ok' in outputs[{last!r}].lower():",
            f"        outputs['end'] = await tools['work'](x=context[{finish!r}])",
            "    else:",
            f"        outputs['end'] = await tools['work'](x=context[{reject!r}])",
        ]
        last = "end"
    lines.append(f"    return outputs[{last!r}]")
    namespace: dict[str, Any] = {}
    exec("\n".join(lines), namespace)
    run: Coroutine = namespace["run"]
    return run


def loop(workload: Workload) -> Coroutine:
    """The coroutine as a loop that makes its names as it goes."""
    steps, keys, branch = workload.steps, workload.keys, workload.branch

    async def run(tools: Mapping[str, Tool], context: Mapping[str, str]) -> object:
        outputs = {}
        for i in range(steps):
            outputs[f"out_{i}"] = await tools["work"](x=context[f"key_{i % keys}"])
        if not branch:
            return outputs[f"out_{steps - 1}"]
        i = steps if "ok" in outputs[f"out_{steps - 1}"].lower() else steps + 1
        outputs["end"] = await tools["work"](x=context[f"key_{i % keys}"])
        return outputs["end"]

    return run


def recording_loop(workload: Workload) -> Coroutine:
    """The loop, which keeps what each step gave, and when."""
    steps, keys, branch = workload.steps, workload.keys, workload.branch
    now = time.monotonic_ns

    async def run(tools: Mapping[str, Tool], context: Mapping[str, str]) -> object:
        outputs, records = {}, []
        for i in range(steps):
            name = f"out_{i}"
            started = now()
            value = outputs[name] = await tools["work"](x=context[f"key_{i % keys}"])
            records.append((name, value, started, now()))
        if not branch:
            return value
        started = now()
        found = "ok" in outputs[f"out_{steps - 1}"].lower()
        records.append(("check", found, started, now()))
        i = steps if found else steps + 1
        started = now()
        value = outputs["end"] = await tools["work"](x=context[f"key_{i % keys}"])
        records.append(("end", value, started, now()))
        return value

    return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--records", action="store_true")
    workload, options = read_workload(parser)
    make = recording_loop if options.records else loop if options.loop else written_out
    run = make(workload)
    tools, context = workload.tools, workload.context
    serve(workload, lambda: run(tools, context))
