"""Tests of program.yaml: a run that waits in a store, is approved, and goes on."""

import asyncio
from contextlib import closing
from pathlib import Path

from tools import tools

from nano_vm import ExecutionVM, Program

HERE = Path(__file__).parent
PROGRAM = Program.from_file(HERE / "program.yaml")
INPUTS = {"recipient": "ACME", "amount": 30}


def host(folder: Path) -> ExecutionVM:
    store = f"sqlite:///{folder}/runs.db"
    return ExecutionVM(tools=tools, policy=HERE / "policy.yaml", store=store)


def test_nothing_is_paid_before_it_is_approved(tmp_path):
    with closing(host(tmp_path)) as vm:
        assert vm.run_sync(PROGRAM, INPUTS, run_id="r").status.value == "suspended"
    with closing(host(tmp_path)) as vm:  # another process, some days later
        (asked,) = vm.waiting("r")
        assert asked["show"] == INPUTS
        vm.approve("r", asked["path"], shown=asked["shown"], by="ann")
        assert asyncio.run(vm.resume("r")).final_output == "paid $30.00 to ACME"
