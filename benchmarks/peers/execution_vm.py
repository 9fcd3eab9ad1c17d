"""``nano_vm.ExecutionVM``: this tree, and the published 0.1.4 and 0.8.9, whose programs and calls
are the same.
"""

from __future__ import annotations

import argparse

from workload import CONDITION, read_workload, serve

from nano_vm import ExecutionVM, Program

parser = argparse.ArgumentParser()
parser.add_argument("--condition", default=CONDITION)
workload, options = read_workload(parser)
vm = ExecutionVM(llm=None, tools=workload.tools)
program = Program.from_dict(workload.program(options.condition))
context = workload.context


async def run() -> object:
    return (await vm.run(program, context=context)).final_output


serve(workload, run)
