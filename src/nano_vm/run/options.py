"""What a run takes beside its program and inputs: one list for everything that begins runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from ..language.policy import Budget
from ..spelling import meant


class Said(TypedDict, total=False):
    """What the caller says of a run, for whoever looks for it later."""

    project: str | None
    """What the run belongs to; `default` unless it is said."""

    submitter: str | None
    """Who asked for the run."""

    labels: Mapping[str, str] | None
    """What the run is found by, and its costs are grouped by: at most 32 names with short
    strings. They are no inputs: a program does not see them."""


class SharedOptions(Said, total=False):
    """Options that many runs can share."""

    budget: Budget | Mapping[str, Any] | None
    """What the run may use, beside the budgets of the program and the VM; the tightest counts. A
    `Budget` is taken as it is, a mapping is validated at each start."""

    untrusted: Iterable[str]
    """Inputs whose values come from outside: what a policy protects, they must not reach."""


class RunOptions(SharedOptions, total=False):
    """Options of one run, as `ExecutionVM.run`, ``start``, ``stream`` and ``submit`` take them."""

    run_id: str | None
    """The run's identity: the same id with the same program and inputs joins the existing run."""

    seed: int | None
    """Decides the waits between attempts; without one they follow from the run's id."""


RUN_OPTIONS = frozenset(RunOptions.__annotations__)


def unknown_options(given: Iterable[str]) -> TypeError:
    """That something is no option, in the words of Python, and what may be meant."""
    name = next(name for name in given if name not in RUN_OPTIONS)
    hint = meant(name, sorted(RUN_OPTIONS))
    return TypeError(f"a run has no option {name!r}" + (f"; {hint}" if hint else ""))
