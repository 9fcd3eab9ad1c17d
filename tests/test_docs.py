"""language.md tells the truth: each program in it loads, and passes the check of a VM that has
its tools.
"""

from __future__ import annotations

import re

import pytest
from pages import find

from nano_vm import ExecutionVM, Program
from nano_vm.language.functions import FUNCTIONS
from nano_vm.language.program import ToolStep
from nano_vm.testing import ScriptedLLM

TEXT = find("language.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


async def anything(**_: object) -> None:
    return None


def tools_of(program: Program) -> set[str]:
    found = set()
    for step, _ in program.walk():
        if isinstance(step, ToolStep):
            found |= {step.tool, *(call.tool for call in (step.undo, step.reconcile) if call)}
        if isinstance(inner := getattr(step, "program", None), Program):
            found |= tools_of(inner)
    return found


@pytest.mark.parametrize("text", BLOCKS, ids=lambda text: text.split("\n", 1)[0][:30])
def test_each_program_passes(text: str) -> None:
    program = Program.from_yaml(text)
    assert program.warnings == ()
    vm = ExecutionVM(ScriptedLLM([]), dict.fromkeys(tools_of(program), anything))
    assert [d for d in vm.check(program) if d.severity == "error"] == []


def test_every_function_is_in_the_table() -> None:
    shown = re.findall(
        r"`(\w+)\(",
        "".join(line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")),
    )
    assert set(shown) == set(FUNCTIONS)


def test_every_step_type_is_shown() -> None:
    shown = set(re.findall(r"type: (\w+)", "".join(BLOCKS)))
    assert {"llm", "tool", "condition", "switch", "parallel", "map", "loop", "call", "set"} <= shown
