"""What a run did, as a file that a test keeps: written once, compared from then on.

A `Ran` comes in; its text goes out, and where it differs from a kept one, the lines that do. No
times, ids or prices are in it: equal programs, inputs and answers give equal text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import unified_diff
from typing import Any

from ..records.result import StepResult
from .execute import Ran
from .expect import status_of

SHOWN_LINES = 20
"""Of a difference: what fits a screen."""


def golden_text(ran: Ran) -> str:
    """What *ran* did, as indented JSON."""
    trace = ran.trace
    told = {
        "program": trace.program_name,
        "status": status_of(ran),
        "output": trace.final_output,
        "error": trace.error,
        "waiting": [entry["path"] for entry in trace.waiting],
        "steps": [_step(step) for step in trace.steps],
        "digest": trace.digest,
    }
    return json.dumps(told, ensure_ascii=False, indent=2) + "\n"


def _step(step: StepResult) -> dict[str, Any]:
    told = {
        "path": step.path,
        "status": step.status.value,
        "branch": step.branch,
        "request": step.request,
        "output": step.output,
        "error": step.error,
        "attempts": step.retries + 1 if step.retries else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def changed_lines(kept: str, new: str) -> Iterator[str]:
    """The lines in which *new* differs from what is *kept*."""
    lines = unified_diff(kept.splitlines(), new.splitlines(), "kept", "now", n=1, lineterm="")
    shown = list(lines)[2:]
    yield from shown[:SHOWN_LINES]
    if len(shown) > SHOWN_LINES:
        yield f"and {len(shown) - SHOWN_LINES} more lines"
