"""The campaign in the suite: what the passes prove, no run contradicts; what they refute, a run
breaks.

The seeds are fixed, so that a failure is the same on every machine; `benchmarks/soundness.py` runs
others, and more of them. A contradiction that was found and mended is a case in
`tests/corpus_soundness`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from campaigns import cases

from nano_vm.language.reader import read_text

from .campaign import ATTACKS, Case, Figures, campaign, counterexamples, run
from .oracles import Statement
from .outcomes import Outcomes
from .policies import Demands

CORPUS = Path(__file__).parent.parent / "corpus_soundness"
FEWEST_SHARE = 0.2
"""Of statements that are proved, and of those that are not: below it a campaign asks questions that
answer themselves.
"""


def sound(figures: dict[str, Figures]) -> None:
    found = [text for figure in figures.values() for text in figure.contradictions]
    assert not found, "\n\n".join(found[:3])


def balanced(figures: dict[str, Figures]) -> None:
    for name, figure in figures.items():
        assert figure.proved >= FEWEST_SHARE * figure.statements, figure.line(name)
        assert figure.other >= FEWEST_SHARE * figure.statements, figure.line(name)


@pytest.mark.slow
def test_no_run_contradicts_a_proof() -> None:
    figures = campaign(range(300), 8)
    sound(figures)
    assert sum(figure.runs for figure in figures.values()) > 3_000


@pytest.mark.campaign
def test_no_run_of_many_contradicts_a_proof() -> None:
    """The whole is 100,000 runs of the machine and more, most held against several passes."""
    programs = cases(12_000)
    figures = campaign(range(1_000, 1_000 + programs), 8)
    sound(figures)
    balanced(figures)
    runs = figures["names"].runs + figures["trust"].runs + figures["literals"].runs
    assert runs > 10 * programs


@pytest.mark.slow
def test_counterexamples_are_runs_that_break_the_statement() -> None:
    shown = counterexamples(range(25))
    assert not shown.wrong, "\n\n".join(shown.wrong[:3])
    assert shown.refuted


@pytest.mark.campaign
def test_many_counterexamples() -> None:
    programs = cases(1_500, fewest=75)  # of fewer, shares of a kind are by chance
    shown = counterexamples(range(1_000, 1_000 + programs))
    assert not shown.wrong, "\n\n".join(shown.wrong[:3])
    for kind, proved in shown.proved.items():
        total = proved + shown.refuted[kind] + shown.unproved[kind]
        assert proved >= FEWEST_SHARE * total, (kind, "\n".join(shown.lines()))
        assert shown.refuted[kind] >= FEWEST_SHARE * total, (kind, "\n".join(shown.lines()))


@pytest.mark.slow
def test_the_order_of_children_does_not_matter() -> None:
    """The outcomes of a run follow from paths, so the order in which children run must not show."""
    looked_at = 0
    for seed in range(120):
        case = _case(seed)
        if case is None:
            continue
        for number in range(4):
            outcomes = [_in_order(case, seed * 100 + number, reorder) for reorder in (False, True)]
            assert outcomes[0] == outcomes[1], (seed, number)
            looked_at += 1
    assert looked_at > 200


def _case(seed: int) -> Case | None:
    from .campaign import drawn

    return drawn(seed)


def _in_order(case: Case, seed: int, reorder: bool) -> str:
    class Ordered(Outcomes):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "cancel": 0.0})
            self.reorder = reorder

    return run(case, seed, feed_class=Ordered).trace.digest


@pytest.mark.slow
def test_every_call_of_a_run_is_in_its_trace() -> None:
    """The oracles read the trace alone; the driver of the run saw what was really asked."""
    for seed in range(150):
        case = _case(seed)
        for number in range(4) if case is not None else ():
            assert case is not None
            seen = run(case, seed * 100 + number)
            asked: dict[str, int] = {}
            for _, kind, name, _ in seen.feed.calls:
                if kind == "tool":
                    asked[name] = asked.get(name, 0) + 1
            assert asked == seen.history.tried, (seed, number)


# --- found contradictions -------------------------------------------------------------------------


def corpus() -> list[Any]:
    cases = []
    for path in sorted(CORPUS.glob("*.yaml")):
        for case in read_text(path.read_text(), file=str(path), format="yaml"):
            cases.append(pytest.param(case, id=f"{path.stem}: {case['case']}"))
    return cases


# CI takes a test without cases for a skipped one
@pytest.mark.parametrize("case", corpus() or [None])
def test_what_was_found(case: dict[str, Any]) -> None:
    """``pass``, ``statement`` and its expected ``proved``; a program that was proved wrongly once
    is held against runs, too.
    """
    if case is None:
        return
    statement = case.get("statement")
    statements = (
        [Statement(**{**statement, "names": tuple(statement.get("names", ()))})]
        if statement
        else []
    )
    untrusted = tuple(case.get("untrusted", ()))
    demands = Demands(statements, case.get("protected", {}), case.get("returns", {}), untrusted)
    whole = Case.of(case["program"], demands)
    assert whole is not None, "the program has errors"
    claims = ATTACKS[case["pass"]](whole)
    assert claims is not None
    assert bool(claims.proved) is case["proved"], json.dumps(claims.proved + claims.other)
    for number in range(200):
        for text, why in claims.judge(run(whole, number, marked=claims.marked, plan=claims.plan)):
            assert text not in claims.proved, why
