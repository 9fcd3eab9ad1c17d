"""What users simulate: their own program and tools, with faults that they planted themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from loading import loaded
from pages import find

import nano_vm.testing
from nano_vm import ProgramError, Trace, VMError
from nano_vm.simulation.shrink import diagram, without_needless
from nano_vm.simulation.world import CALM, SECOND, Faults, Happening, here
from nano_vm.testing import Outside, simulate

simulated: Any = loaded("examples/simulated.py")

ROUGH = Faults(death=60, freeze=200, refused=30, lost_answer=30)


@pytest.mark.slow
def test_a_planted_fault_is_found_and_told() -> None:
    found = simulate(simulated.PROGRAM, simulated.Shop, simulated.ORDERS, faults=ROUGH)
    assert found.broken is not None
    assert "was paid 2 times" in found.broken.what
    with pytest.raises(AssertionError, match=rf"seed {found.broken.seed}: A-\d was paid 2 times"):
        found.check()
    told = [happening.what for happening in found.broken.history]
    assert sum(line.startswith("pays") for line in told) >= 2
    assert len(found.broken.history) < 120


@pytest.mark.slow
def test_the_same_seed_breaks_in_the_same_way() -> None:
    def told() -> str:
        return str(
            simulate(simulated.PROGRAM, simulated.Shop, simulated.ORDERS, faults=ROUGH).broken
        )

    assert told() == told()


@pytest.mark.slow
def test_what_is_declared_as_it_is_holds() -> None:
    found = simulate(
        simulated.PROGRAM, simulated.Honest, simulated.ORDERS, seeds=range(25), faults=ROUGH
    )
    found.check()
    assert found.worlds == 25
    assert found.faults.keys() >= {"death", "refused"}
    assert found.runs.keys() <= {"success", "failed"}
    assert found.simulated_seconds > 25


@pytest.mark.slow
def test_a_run_that_nobody_answers_is_told() -> None:
    class Silent(simulated.Shop):  # type: ignore[misc,name-defined]
        def person(self, vm: Any, run_id: str, entry: Mapping[str, Any]) -> None:
            """Says nothing."""

    found = simulate(simulated.PROGRAM, Silent, simulated.ORDERS[:1], seeds=[1], faults=CALM)
    assert found.broken is not None
    assert found.broken.what == (
        "not all runs have ended: run-0 is suspended, and waits for ['boss']"
    )


def test_a_sync_tool_runs_in_a_simulated_thread() -> None:
    class Sync(simulated.Shop):  # type: ignore[misc,name-defined]
        def host(self) -> Mapping[str, Any]:
            def look(order: str) -> str:
                here().sleep(0.5)
                return order

            return {"tools": {"look": look, "pay": self.pay}}

        def check(self, runs: Mapping[str, Trace]) -> None:
            looked = runs["run-0"].steps[0]
            assert looked.output == "A-0"
            assert looked.duration_ms == pytest.approx(500, rel=0.1)

    simulate(simulated.PROGRAM, Sync, simulated.ORDERS[:1], seeds=[1], faults=CALM).check()


def test_a_program_that_is_refused_is_refused_at_once() -> None:
    with pytest.raises(ProgramError, match="pay"):
        simulate(simulated.PROGRAM, Outside, simulated.ORDERS)


def test_what_is_simulated_is_only_there_in_a_world() -> None:
    with pytest.raises(RuntimeError, match="inside of a simulated process"):
        here()


@pytest.mark.slow
def test_what_a_simulation_needs_is_imported_when_it_is_asked_for() -> None:
    code = "import sys, nano_vm.testing; print('greenlet' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nano_vm.testing.nothing


@pytest.mark.slow
def test_without_greenlet_the_extra_is_named() -> None:
    code = "import sys; sys.modules['greenlet'] = None\nfrom nano_vm.testing import simulate"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'llm-nano-vm[simulation]'" in done.stderr


# --- what is made small ---


@pytest.mark.parametrize("needed", [set(), {3}, {1, 8}, {4, 5, 6}])
def test_only_the_faults_that_are_needed_are_left(needed: set[int]) -> None:
    faults = list(range(1, 11))

    def fails(left_out: frozenset[int]) -> list[int] | None:
        return [n for n in faults if n not in left_out] if needed.isdisjoint(left_out) else None

    left_out = without_needless(faults, fails)
    assert set(faults) - left_out == needed


def test_a_history_is_drawn_with_a_lane_for_each() -> None:
    history = [
        Happening(0, "worker", "begins"),
        Happening(2 * SECOND, "bank", "pays, and says so at such length that it needs room"),
        Happening(3 * SECOND, "worker", "ends"),
    ]
    assert diagram(history).splitlines() == [
        "             worker                  bank",
        "   0.000000  * begins                |",
        "   2.000000  |                       * pays, and says so at such length that it needs room",
        "   3.000000  * ends                  |",
    ]


def test_an_error_of_the_store_is_the_persons_to_bear() -> None:
    """One that a person gets does not end their process."""

    class Rude(simulated.Honest):  # type: ignore[misc,name-defined]
        def person(self, vm: Any, run_id: str, entry: Mapping[str, Any]) -> None:
            super().person(vm, run_id, entry)
            raise VMError("somebody was first")

    simulate(simulated.PROGRAM, Rude, simulated.ORDERS, seeds=[3], faults=CALM).check()


def test_the_page_names_every_kind_of_fault() -> None:
    page = find("simulation.md").read_text(encoding="utf-8")
    assert [kind for kind in Faults.__dataclass_fields__ if f"`{kind}`" not in page] == []
