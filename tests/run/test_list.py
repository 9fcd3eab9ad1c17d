"""`ExecutionVM.runs`: pages of what is stored, by the filter of the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from build import program

from nano_vm import ExecutionVM, VMError
from nano_vm.replay import fork
from nano_vm.store.protocol import ALL_RUNS, RunFilter

DONE = program({"id": "a", "type": "set", "values": {"x": 1}})
WAITS = program({"id": "w", "type": "wait", "event": "e"}, name="waits")


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[ExecutionVM]:
    made = ExecutionVM(store=f"sqlite:///{tmp_path / 'runs.db'}")
    yield made
    made.close()


def ids(vm: ExecutionVM, *arguments: Any, **options: Any) -> list[str]:
    return [run.run_id for run in vm.runs(*arguments, **options).runs]


async def test_pages_follow_each_other_and_end(vm: ExecutionVM) -> None:
    for number in range(5):
        await vm.run(DONE, run_id=str(number))
    found, after = [], None
    for expected in (2, 2, 1):
        page = await vm.aio.runs(size=2, after=after)
        assert len(page.runs) == expected
        found += [run.run_id for run in page.runs]
        after = page.after
    assert (found, after) == (["4", "3", "2", "1", "0"], None)
    assert ids(vm) == found


async def test_what_a_filter_says_holds_of_each(vm: ExecutionVM) -> None:
    await vm.run(DONE, run_id="done")
    await vm.run(WAITS, run_id="waits")
    await vm.submit(DONE, run_id="pending")
    assert ids(vm, RunFilter(status="suspended")) == ["waits"]
    assert ids(vm, RunFilter(status=["pending", "success"])) == ["pending", "done"]
    assert ids(vm, RunFilter(program="waits")) == ["waits"]
    assert ids(vm, RunFilter(status="failed")) == []


async def test_a_fork_is_found_by_the_run_that_it_was_made_from(vm: ExecutionVM) -> None:
    await vm.run(DONE, run_id="r")
    made = await fork(vm, "r", run_id="f")
    (header,) = vm.runs(RunFilter(parent="r")).runs
    assert (header.run_id, header.parent) == ("f", "r")
    assert made.about["parent"]["run_id"] == vm.load("f").about["parent"]["run_id"] == "r"
    second = await fork(vm, "f", run_id="g")
    assert second.about["parent"]["run_id"] == "f"
    assert ids(vm, RunFilter(parent="f")) == ["g"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be a positive integer"),
        ({"size": True}, "size"),
        ({"after": "?"}, "where a page of runs ended"),
    ],
)
def test_a_page_that_there_is_not_is_refused(
    vm: ExecutionVM, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(VMError, match=message):
        vm.runs(ALL_RUNS, **options)


def test_without_a_store_there_is_no_list() -> None:
    with pytest.raises(VMError, match="give it a store"):
        ExecutionVM().runs()
