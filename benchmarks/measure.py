"""What is measured of this tree alone, in a fresh process each: ``python -m measure NAME`` prints
one JSON object.

Memory, conditions, loading and imports. Times are process CPU time; sizes are bytes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from peers.hand_written import written_out
from workload import Workload

STEPS = 10_000
RUNS = 10_000

Figures = dict[str, float]


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def cpu_us(call: Callable[[], object]) -> float:
    start = time.process_time_ns()
    call()
    return (time.process_time_ns() - start) / 1000


# --- memory ---------------------------------------------------------------------------------------


def kept_steps() -> Figures:
    """Bytes that each step of a finished 10,000-step trace keeps, beside its values.

    The values are 50 texts of the context, which exist before; what the hand-written coroutine
    keeps is its dict.
    """
    from nano_vm import ExecutionVM, Program

    workload = Workload(steps=STEPS, branch=0)
    vm, program = ExecutionVM(llm=None, tools=workload.tools), Program.from_dict(workload.program())
    context = workload.context

    async def kept(run: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
        await run()  # whatever is made once is made
        gc.collect()
        tracemalloc.start()
        result = await run()
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size / STEPS, result

    async def outputs() -> dict[str, str]:
        return {
            output: await workload.tools["work"](x=context[key])
            for _, key, output in workload.calls
        }

    async def main() -> Figures:
        by_hand, _ = await kept(outputs)
        kept_bytes, trace = await kept(lambda: vm.run(program, context=context))
        gc.collect()
        tracemalloc.start()
        assert len(list(trace.steps)) == STEPS
        gc.collect()
        looked_at = tracemalloc.get_traced_memory()[0] / STEPS
        return {"by_hand": by_hand, "trace": kept_bytes, "looked_at": looked_at}

    return asyncio.run(main())


def waiting_runs(who: str, how: str, after: int) -> Figures:
    """Bytes for each of 10,000 runs of the stress test that wait in a tool *after* so many finished
    steps.
    """
    workload = Workload()
    context = workload.context
    waits_at = context[workload.calls[after][1]]
    gates: list[asyncio.Future[None]] = []

    async def work(x: str) -> str:
        if x == waits_at:
            gates.append(gate := asyncio.get_running_loop().create_future())
            await gate
        return x

    tools = {"work": work}
    if who == "by_hand":
        coroutine = written_out(workload)

        async def run() -> object:
            return await coroutine(tools, context)
    else:
        from nano_vm import ExecutionVM, Program

        vm, program = ExecutionVM(llm=None, tools=tools), Program.from_dict(workload.program())

        async def run() -> object:
            return (await vm.run(program, context=context)).final_output

    async def waiting(count: int) -> list[asyncio.Task[object]]:
        tasks = [asyncio.create_task(run()) for _ in range(count)]
        while len(gates) < count:  # noqa: ASYNC110 (an event would be one more object per run)
            await asyncio.sleep(0)
        return tasks

    async def finished(tasks: list[asyncio.Task[object]]) -> None:
        while gates:
            gates.pop().set_result(None)
        assert set(await asyncio.gather(*tasks)) == {workload.answer}

    async def main() -> float:
        await finished(await waiting(10))  # whatever is made once is made
        gc.collect()
        if how == "traced":
            tracemalloc.start()
        before = resident()
        tasks = await waiting(RUNS)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] if how == "traced" else resident() - before
        tracemalloc.stop()
        await finished(tasks)
        return size / RUNS

    return {"bytes": asyncio.run(main())}


# --- conditions -----------------------------------------------------------------------------------

CONDITIONS = (
    "'yes' in '$decision'.lower()",
    "$decision == 'yes'",
    "$amount <= 100",
    "$amount > 20 and $decision == 'yes'",
    "'${first} ${second}' == 'ok 1 ok 2'",
)


def conditions() -> Figures:
    """Microseconds to evaluate each condition, by the closure that a run calls; the call of the
    closure included.
    """
    from nano_vm.language.closures import compile_condition
    from nano_vm.language.expr import Ref, parse_expr

    frame: list[Any] = ["yes", 42, "ok 1", "ok 2"]
    names = ["decision", "amount", "first", "second"]

    class Scope:
        def load(self, ref: Ref) -> tuple[int, tuple[str | int, ...]]:
            return names.index(ref.name), ()

    times: Figures = {}
    for text in CONDITIONS:
        test = compile_condition(parse_expr(text), Scope())
        assert test(frame) is True, text

        def block(test: Callable[[list[Any]], Any] = test) -> None:
            for _ in range(20_000):
                test(frame)

        times[text] = median(cpu_us(block) for _ in range(15)) / 20_000
    return times


# --- loading --------------------------------------------------------------------------------------


def loading(steps: int) -> Figures:
    """Milliseconds to load, check and compile a program of so many tool steps and a condition."""
    import yaml

    from nano_vm import ExecutionVM, Program

    workload = Workload(steps=steps - 3)
    data = workload.program()
    text = yaml.safe_dump(data, sort_keys=False, width=200)

    def ready(load: Callable[[], Program]) -> Figures:
        vm = ExecutionVM(llm=None, tools=workload.tools)
        gc.collect()
        start = time.process_time_ns()
        program = load()
        loaded = time.process_time_ns()
        diagnostics = vm.check(program)
        done = time.process_time_ns()
        assert not list(diagnostics), diagnostics
        return {
            "load": (loaded - start) / 1e6,
            "check": (done - loaded) / 1e6,
            "all": (done - start) / 1e6,
        }

    def best(load: Callable[[], Program]) -> Figures:
        rounds = [ready(load) for _ in range(max(3, 5_000 // steps))]
        return {part: median(figures[part] for figures in rounds) for part in rounds[0]}

    ready(lambda: Program.from_dict(data))  # whatever is made once is made
    from_dict, from_yaml = (
        best(lambda: Program.from_dict(data)),
        best(lambda: Program.from_yaml(text)),
    )
    return {f"dict_{part}": ms for part, ms in from_dict.items()} | {
        f"yaml_{part}": ms for part, ms in from_yaml.items()
    }


# --- imports --------------------------------------------------------------------------------------

FIRST_PROGRAM = {
    "steps": [{"id": "ask", "type": "llm", "prompt": "Is $text a refund?", "output_key": "answer"}]
}
IMPORTS = {
    "nothing": "pass",
    "import asyncio": "import asyncio",
    "import pydantic": "import pydantic",
    "from pydantic import BaseModel": "from pydantic import BaseModel",
    "import nano_vm": "import nano_vm",
    "from nano_vm import ExecutionVM, Program": "from nano_vm import ExecutionVM, Program",
    "import nano_vm, first "
    "from_dict": f"import nano_vm; nano_vm.Program.from_dict({FIRST_PROGRAM!r})",
}


def imports(rounds: int) -> Figures:
    """Milliseconds of CPU time for each statement, in fresh processes in turns, all with their
    bytecode at hand.
    """
    samples: dict[str, list[float]] = {name: [] for name in IMPORTS}
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(rounds + 1):
            for name, statement in IMPORTS.items():
                code = (
                    f"import time; start = time.process_time_ns(); {statement}; "
                    f"print(time.process_time_ns() - start)"
                )
                command = [sys.executable, "-c", code]
                printed = subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=True
                ).stdout
                samples[name].append(int(printed) / 1e6)
    # the first round writes the bytecode
    return {name: median(times[1:]) for name, times in samples.items()}


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    measures: dict[str, Callable[..., Figures]] = {
        "kept_steps": kept_steps,
        "waiting_runs": lambda who, how, after: waiting_runs(who, how, int(after)),
        "conditions": conditions,
        "loading": lambda steps: loading(int(steps)),
        "imports": lambda rounds: imports(int(rounds)),
    }
    print(json.dumps(measures[name](*arguments)))
