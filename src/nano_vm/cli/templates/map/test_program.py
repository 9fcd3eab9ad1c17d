"""Tests of program.yaml, with a scripted model."""

from pathlib import Path

from tools import tools

from nano_vm import ExecutionVM, Program
from nano_vm.testing import ScriptedLLM

PROGRAM = Program.from_file(Path(__file__).parent / "program.yaml")


def test_every_line_is_counted(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("I love it\nIt broke\n\nThanks\n")
    script = ScriptedLLM({"love": "happy", "broke": "unhappy", "Thanks": "happy"})
    trace = ExecutionVM(script, tools).run_sync(PROGRAM, {"path": str(file)})
    assert trace.final_output == {"happy": 2, "unhappy": 1}
