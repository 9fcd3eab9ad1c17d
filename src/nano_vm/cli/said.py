"""What the command line says of runs beside their inputs: project, submitter and labels; and runs
that are asked for by these.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .faults import UsageFault
from .grammar import Options

if TYPE_CHECKING:
    from ..run.durable.facts import Brief
    from ..run.options import Said
    from ..store.protocol import RunFilter


def said_of(options: Options, *, kept: bool) -> Said:
    """What is said of the runs that a command begins. One that is *kept* has a submitter: whose
    account it is, unless another is named.

    Raises:
        UsageFault: If a run cannot have it.
    """
    from ..run.durable.stored import said_of as checked
    from ..run.inbox import account
    from ..store.records import Unfit

    said: Said = {
        "project": options.project,
        "submitter": options.submitter or (account() if kept else None),
        "labels": labels_of(options.label),
    }
    try:
        checked(**said)
    except Unfit as error:
        raise UsageFault(str(error)) from None
    return said


def labels_of(given: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE``, each name once."""
    found: dict[str, str] = {}
    for text in given:
        name, mark, value = text.partition("=")
        if not mark:
            raise UsageFault(f"--label takes NAME=VALUE, not {text!r}")
        if name in found:
            raise UsageFault(f"--label gives {name!r} twice")
        found[name] = value
    return found


def filter_of(options: Options) -> RunFilter:
    """The runs that a command is about, by the options of `takes_filter`.

    Raises:
        UsageFault: If no run can have what is asked for.
    """
    from ..store.protocol import RunFilter

    try:
        return RunFilter(
            status=options.status or None,
            program=options.program_name,
            project=options.project,
            submitter=options.submitter,
            parent=options.get("parent"),
            labels=labels_of(options.label),
            since_ns=options.since,
            until_ns=options.until,
            min_cost_usd=options.get("min_cost"),
            version=options.program_version,
            waiting=options.get("waiting_for"),
        )
    except ValueError as error:
        raise UsageFault(str(error)) from None


def said_words(run: Brief) -> str:
    """What was said of a run, in a line; empty where nothing was."""
    from ..store.records import DEFAULT_PROJECT

    words = [f"{name}={value}" for name, value in run["labels"].items()]
    if run["project"] != DEFAULT_PROJECT:
        words.insert(0, f"project {run['project']}")
    return ", ".join(words)
