"""The stress test alone: ``python benchmarks/stress_test.py [--programs N]``; no peers, no other
environment.

20 tool steps, a condition, one more tool step and 50 context keys, as the script of the same name
that llm-nano-vm 0.1 was published with, which ran 100 programs at a time; first one after another,
then as there.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from workload import Workload

from nano_vm import ExecutionVM, Program, TraceStatus

CONCURRENT = 100


async def main(programs: int) -> None:
    workload = Workload()
    vm = ExecutionVM(llm=None, tools=workload.tools)
    program, context = Program.from_dict(workload.program()), workload.context

    async def run() -> None:
        trace = await vm.run(program, context=context)
        if trace.status is not TraceStatus.SUCCESS or trace.final_output != workload.answer:
            raise SystemExit(f"the run ended {trace.status}: {trace.error or trace.final_output!r}")

    async def one_after_another() -> None:
        for _ in range(programs):
            await run()

    async def at_a_time() -> None:
        for _ in range(programs // CONCURRENT):
            await asyncio.gather(*[run() for _ in range(CONCURRENT)])

    await run()
    for name, block in (
        ("one after another", one_after_another),
        (f"{CONCURRENT} at a time", at_a_time),
    ):
        wall, cpu = time.perf_counter(), time.process_time()
        await block()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(
            f"{name:>17}: {programs / wall:>9,.0f} programs/s, {wall / programs * 1e6:>7,.1f} µs "
            f"a program "
            f"({cpu / programs * 1e6:,.1f} µs of CPU)"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--programs", type=int, default=10_000, help=f"how many of each, a multiple of {CONCURRENT}"
    )
    asyncio.run(main(parser.parse_args().programs))
