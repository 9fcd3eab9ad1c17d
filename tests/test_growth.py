"""The work of loading, checking, refusing and compiling a program grows with its size: lines of
this package's code that are run for a program and for one four times as large, by its family.

No clock is read, so the test says the same on every machine. The families are the benchmark's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import nano_vm
from nano_vm import ExecutionVM, Program, ProgramError

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
growth = pytest.importorskip("growth")

HERE = str(Path(nano_vm.__file__).parent)

MOST = 5.5
"""How many times the work of a program is that of one a quarter as large: 4, and what grows by
n log n. What grows by the square has 16.
"""

SIZES = {
    "wide parallel": 40,
    "many small parallels": 60,
    "many maps": 40,
    "parallel guarded inside": 40,
    "calls under one guard": 60,
    "calls without their guards": 60,
    "last call without guard": 60,
    "calls with own guards": 60,
    "many guarded tools": 30,
    "many rules of order": 40,
    "many patterns": 40,
    "many bounds of calls": 40,
    "one approval of many": 40,
    "values of checks": 40,
    "policy of many inputs": 60,
    "own policy": 40,
    "jumps back to a tool": 40,
    "jumps everywhere": 40,
    "misspelled targets": 100,
    "misspelled names": 100,
    "many arguments": 70,
    "many inputs": 60,
    "line of tools": 40,
    "line that skips": 40,
    "errors that are read": 40,
    "loop of many": 40,
    "inline programs": 30,
    "chain of calls": 30,
}


def work(name: str, size: int) -> int:
    """Lines of this package that are run until the program of a family is prepared or refused."""
    case = growth.FAMILIES[name].make(size)
    text = json.dumps(case.document)
    programs = {key: Program.from_dict(other) for key, other in case.programs.items()}
    vm = ExecutionVM(tools=dict(case.tools), policy=case.policy, programs=programs)
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return line

    def called(frame: FrameType, event: str, argument: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(HERE) else None

    before = sys.gettrace()
    sys.settrace(called)
    try:
        str(vm.check(Program.from_json(text)))
        vm.plan(Program.from_json(text))
    except ProgramError as error:
        str(error)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SIZES))
def test_work_grows_with_the_size(name: str) -> None:
    small, large = work(name, SIZES[name]), work(name, 4 * SIZES[name])
    assert small > 100
    assert large / small < MOST
