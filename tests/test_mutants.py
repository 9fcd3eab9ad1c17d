"""What `benchmarks/mutants.yaml` breaks still stands in the source, so that a change of the source
cannot silently take a mutant out of use.

Whether the campaign and the tests notice each one takes half an hour: `benchmarks/mutants.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from soundness.campaign import ATTACKS

import nano_vm

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
mutants = pytest.importorskip("mutants")

PACKAGE = Path(nano_vm.__file__).parent
PASSES = mutants.passes()
ALL = [(name, mutant) for name, one in PASSES.items() for mutant in one.mutants]


@pytest.mark.parametrize(
    "mutant", [pytest.param(mutant, id=f"{name}: {mutant.what}") for name, mutant in ALL]
)
def test_what_a_mutant_replaces_stands_once_in_its_file(mutant: mutants.Mutant) -> None:
    assert mutants.unfit(mutant, PACKAGE) is None


@pytest.mark.parametrize(
    "mutant", [pytest.param(mutant, id=f"{name}: {mutant.what}") for name, mutant in ALL]
)
def test_a_mutant_is_another_program_and_not_a_syntax_error(mutant: mutants.Mutant) -> None:
    """One that cannot be imported would be killed by anything."""
    source = (PACKAGE / mutant.file).read_text()
    mutated = mutants.broken(mutant, source)
    assert mutated != source
    compile(mutated, mutant.file, "exec")


@pytest.mark.parametrize("name", PASSES)
def test_what_is_to_notice_the_mutants_of_a_pass_exists(name: str) -> None:
    one = PASSES[name]
    assert one.mutants
    assert one.tests
    assert [file for file in one.tests if not (ROOT / file).is_file()] == []
    assert one.counterexamples or set(one.attacks.split(",")) <= ATTACKS.keys()


def test_no_two_mutants_of_a_pass_are_the_same() -> None:
    changes = [(name, mutant.file, mutant.old, mutant.new) for name, mutant in ALL]
    assert len(changes) == len(set(changes))
    assert len(ALL) == len({(name, mutant.what) for name, mutant in ALL})


@pytest.mark.parametrize("text", ["", "x = 1\n" * 2])
def test_a_text_that_is_gone_or_stands_twice_does_not_fit(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.py").write_text(text)
    mutant = mutants.Mutant("one.py", "what", "x = 1", "x = 2")
    assert "stands there" in mutants.unfit(mutant, tmp_path)


def test_a_file_that_is_gone_does_not_fit(tmp_path: Path) -> None:
    mutant = mutants.Mutant("one.py", "what", "x = 1", "x = 2")
    assert mutants.unfit(mutant, tmp_path) == "one.py: there is no such file"
