"""What `mutants.yaml` breaks still stands in the source. Whether simulated worlds notice each one
takes hours: ``python -m simulation.mutants``, with figures in reliability.md.
"""

from __future__ import annotations

import pytest

from simulation.mutants import PACKAGE, Mutant, broken, found_by, mutants, unfit

ALL = mutants()


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: f"{mutant.file}: {mutant.what}")
def test_what_a_mutant_replaces_stands_once_in_its_file(mutant: Mutant) -> None:
    assert unfit(mutant, PACKAGE) is None
    for file, source in broken(mutant, PACKAGE).items():
        assert source != (PACKAGE / file).read_text(encoding="utf-8")
        compile(source, file, "exec")


def test_no_two_mutants_are_the_same() -> None:
    assert len(ALL) == len({tuple((c.file, c.old, c.new) for c in m.changes) for m in ALL})
    assert len(ALL) == len({(mutant.file, mutant.what) for mutant in ALL})
    assert len(ALL) >= 40


@pytest.mark.slow
def test_a_call_before_its_intent_is_found_in_a_few_worlds() -> None:
    mutant = next(m for m in ALL if m.what == "a call is made before its intent is durable")
    known = found_by(mutant, range(5), seconds=120)
    assert known.seed is not None
    assert "called before its intent was stored" in known.how
