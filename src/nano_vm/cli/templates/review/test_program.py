"""Tests of program.yaml, with a scripted model."""

from pathlib import Path

from tools import tools

from nano_vm import ExecutionVM, Program, Trace
from nano_vm.testing import ScriptedLLM, at_most, explore

PROGRAM = Program.from_file(Path(__file__).parent / "program.yaml")


def run(*verdicts: str) -> Trace:
    steps = {"write": "a draft", "review": "shorter", "verdict": list(verdicts)}
    return ExecutionVM(ScriptedLLM(steps=steps), tools).run_sync(PROGRAM, {"topic": "lamps"})


def test_it_ends_when_the_reviewer_approves():
    trace = run("revise", "approve")
    assert trace.final_output == "published: a draft"
    assert sum(step.step_id == "write" for step in trace.steps) == 2


def test_it_ends_after_three_rounds():
    trace = run("revise", "revise", "revise")
    assert sum(step.step_id == "write" for step in trace.steps) == 3


def test_every_run_publishes_at_most_once():
    explore(PROGRAM, tools=tools, properties=at_most("publish", 1), max_runs=500).check()
