"""Tests of program.yaml: two runs with a scripted model, and every run there is."""

from pathlib import Path

from tools import tools

from nano_vm import ExecutionVM, Program
from nano_vm.testing import ScriptedLLM, explore, only_after

HERE = Path(__file__).parent
PROGRAM = Program.from_file(HERE / "program.yaml")


def output(answer: str, order_id: str) -> object:
    vm = ExecutionVM(ScriptedLLM([answer]), tools, policy=HERE / "policy.yaml")
    trace = vm.run_sync(PROGRAM, {"message": "My money back!", "order_id": order_id})
    trace.raise_for_status()
    return trace.final_output


def test_a_returned_order_is_refunded():
    assert output("yes", "A-1") == "refunded $49.90 for A-1"


def test_no_answer_of_the_model_moves_money_for_an_order_that_did_not_come_back():
    assert output("yes", "A-2") == "a colleague looks at A-2"


def test_every_run_refunds_only_behind_the_guard():
    explore(PROGRAM, tools=tools, properties=only_after("issue_refund", "guard.then")).check()
