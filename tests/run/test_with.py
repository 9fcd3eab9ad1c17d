"""`ExecutionVM.with_`: the same host with other tools or programs, or without its store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from build import program, step

from nano_vm import Event, ExecutionVM, Program, VMError
from nano_vm.store.protocol import RunFilter, open_store

ONE = program(step("a", "pay"))
CALLS = program({"id": "c", "type": "call", "program": "inner"})


def inner(value: int) -> Program:
    return program({"id": "s", "type": "set", "values": {"x": value}}, name="inner")


class Seen:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[ExecutionVM]:
    made = ExecutionVM(
        tools={"pay": lambda: "paid"},
        programs={"inner": inner(1)},
        store=f"sqlite:///{tmp_path / 'runs.db'}",
        observers=[Seen()],
    )
    yield made
    made.close()


async def test_tools_stand_in_and_the_host_keeps_its_own(vm: ExecutionVM) -> None:
    other = vm.with_(tools={"pay": lambda: "played", "new": lambda: 0})
    assert (await other.run(ONE)).final_output == "played"
    assert (await vm.run(ONE)).final_output == "paid"
    assert (set(vm.tools), set(other.tools)) == ({"pay"}, {"pay", "new"})
    other.register_tool("pay", lambda: "again")
    assert (await vm.run(ONE)).final_output == "paid"


async def test_programs_likewise(vm: ExecutionVM) -> None:
    other = vm.with_(programs={"inner": inner(2)})
    assert (await other.run(CALLS)).final_output == {"x": 2}
    assert (await vm.run(CALLS)).final_output == {"x": 1}


async def test_its_runs_are_stored_beside_the_others_and_told(vm: ExecutionVM) -> None:
    other = vm.with_(tools={"pay": lambda: "played"})
    await other.run(ONE, run_id="r")
    assert vm.load("r").final_output == "played"
    assert (await vm.run(ONE, run_id="r")).final_output == "played"  # the same run, and not another
    (seen,) = vm.observers
    assert isinstance(seen, Seen)
    assert [e.kind for e in seen.events if e.run_id == "r"].count("run_finished") == 1


async def test_without_the_store_nothing_is_stored(vm: ExecutionVM) -> None:
    await vm.run(ONE, run_id="r")
    other = vm.with_(tools={"pay": lambda: "played"}, store=None)
    trace = await other.run(ONE, run_id="r")
    assert trace.final_output == "played"
    assert await other.run(ONE, run_id="r") is trace  # it is remembered in memory
    await other.run(ONE, run_id="s")
    assert [run.run_id for run in vm.runs(RunFilter(program="p")).runs] == ["r"]
    assert vm.load("r").final_output == "paid"
    with pytest.raises(VMError, match="keeps no runs"):
        other.load("r")


async def test_what_runs_in_memory_is_not_joined_by_another_host() -> None:
    vm = ExecutionVM(tools={"pay": lambda: "paid"})
    await vm.run(ONE, run_id="r")
    other = vm.with_(tools={"pay": lambda: "played"})
    assert (await other.run(ONE, run_id="r")).final_output == "played"
    assert (await vm.run(ONE, run_id="r")).final_output == "paid"


async def test_the_same_host_over_another_store(vm: ExecutionVM, tmp_path: Path) -> None:
    plan = vm.plan(ONE)
    other = vm.with_(store=open_store(f"sqlite:///{tmp_path / 'others.db'}"))
    assert other.plan(ONE) is plan, "what is prepared is prepared once"
    await other.run(ONE, run_id="r")
    assert other.require_store().has("r")
    assert not vm.require_store().has("r")
    other.register_tool("pay", lambda: "paid otherwise")
    assert (await other.run(ONE, run_id="s")).output == "paid otherwise"
    assert (await vm.run(ONE, run_id="s")).output == "paid"
    other.close()
