"""A report in few words: counts, and the worst case in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..diagnostics import Diagnostic
from .report import Proof, Report

SHOWN_CALLS = 6
"""Tools and models of the worst case that are named."""

SHOWN_REASONS = 8
"""Why an amount has no bound: as many reasons are given."""


def counts(found: Sequence[Diagnostic]) -> list[str]:
    """How many errors, warnings and hints there are, as far as there are any."""
    graded = [
        (sum(d.severity == name for d in found), name) for name in ("error", "warning", "hint")
    ]
    return [f"{count} {name}{'s' * (count != 1)}" for count, name in graded if count]


def statuses(proofs: Sequence[Proof]) -> list[str]:
    """How many proofs have each status, as far as there are any."""
    named = [
        (sum(p.status == name for p in proofs), name) for name in ("refuted", "unproved", "proved")
    ]
    return [f"{count} {name}" for count, name in named if count]


def worst_case(report: Report) -> Iterator[str]:
    """The worst case in one line, and which costs are not known."""
    most = report.ceiling
    if most is None or any(
        d.severity == "error" and d.code[:3] != "V07" for d in report.diagnostics
    ):
        return
    parts = [f"{most.steps:,} step{'s' * (most.steps != 1)}"]
    for count, what, calls in (
        (most.llm_calls, "model call", most.models),
        (most.tool_calls, "tool call", most.tools),
    ):
        if count:
            known = [
                (name, number)
                for name, number in calls.items()
                if (name, len(calls)) != ("default", 1)
            ]
            names = ", ".join(f"{name} {number:,}" for name, number in known[:SHOWN_CALLS])
            names += ", ..." if len(known) > SHOWN_CALLS else ""
            parts.append(f"{count:,} {what}{'s' * (count != 1)}{f' ({names})' if names else ''}")
    if most.llm_calls:
        parts.append(
            f"{most.tokens:,} tokens" if most.tokens is not None else "tokens without bound"
        )
        if most.cost_usd is not None:
            parts.append(f"${most.cost_usd:f}")
        elif most.cost.low:
            parts.append(f"${most.cost.low:f} and what is not known")
    yield f"at most: {', '.join(parts)}"
    if most.llm_calls and (most.tokens is None or most.cost.low):
        reasons = [
            reason for reason in most.open if most.cost.low or ": no price is known" not in reason
        ]
        yield from (f"  {reason}" for reason in reasons[:SHOWN_REASONS])
