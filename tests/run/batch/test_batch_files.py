"""A batch between two files, without a terminal: what has no result is run, and nothing twice."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from build import program, step

from nano_vm import ExecutionVM, Trace
from nano_vm.run.batch.files import FileBatch
from nano_vm.run.batch.inputs import BatchFault, Input, Inputs
from nano_vm.run.batch.results import Results

DOUBLE = program(step("d", "double", args={"n": "$n"}))


class Calls:
    """A tool that fails for odd numbers until it is mended, and counts its calls."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.mended = False

    async def double(self, n: int) -> int:
        self.made.append(n)
        if n % 2 and not self.mended:
            raise ValueError("odd")
        return n * 2


def batch(calls: Calls, folder: Path, **options: Any) -> tuple[FileBatch, list[tuple[int, str]]]:
    """Run what has no result yet; the batch, and line and status of each new result."""
    seen: list[tuple[int, str]] = []

    def ended(given: Input, result: dict[str, Any], trace: Trace) -> None:
        assert result["status"] == trace.status.value
        seen.append((given.line, result["status"]))

    vm = ExecutionVM(tools={"double": calls.double})
    with (
        closing(Inputs(str(folder / "in.jsonl"))) as inputs,
        closing(
            Results(str(folder / "out.jsonl"), DOUBLE.digest, inputs, restart=False, ordered=True)
        ) as results,
    ):
        given = {"fresh": False, "retry_failed": False, **options}
        made = FileBatch(vm, DOUBLE, inputs, results, **given)
        asyncio.run(made.work(ended, concurrency=2))
        made.finish()
    return made, seen


def outputs(folder: Path) -> list[Any]:
    lines = (folder / "out.jsonl").read_text().splitlines()
    return [json.loads(line).get("output") for line in lines]


def test_another_start_runs_what_has_no_result_and_what_failed_if_it_is_wanted(
    tmp_path: Path,
) -> None:
    calls = Calls()
    file = tmp_path / "in.jsonl"
    file.write_text("".join(f'{{"n": {n}}}\n' for n in range(4)))
    made, seen = batch(calls, tmp_path)
    assert made.complete
    assert seen == [(1, "success"), (2, "failed"), (3, "success"), (4, "failed")]
    with file.open("a") as stream:
        stream.write('{"n": 4}\n')
    made, seen = batch(calls, tmp_path)
    assert (made.before, made.total, seen) == (4, 5, [(5, "success")])
    calls.mended = True
    made, seen = batch(calls, tmp_path, retry_failed=True)
    assert seen == [(2, "success"), (4, "success")]
    assert outputs(tmp_path) == [0, 2, 4, 6, 8]
    assert sorted(calls.made) == [0, 1, 1, 2, 3, 3, 4]


def test_inputs_that_were_changed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"n": 2}\n')
    batch(Calls(), tmp_path)
    (tmp_path / "in.jsonl").write_text('{"n": 4}\n')
    with pytest.raises(BatchFault, match="line 1 of the inputs is not what it was"):
        batch(Calls(), tmp_path)
    assert outputs(tmp_path) == [4]
