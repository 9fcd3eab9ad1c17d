"""Text that can do nothing but be read, and the few forms of values that all commands share.

Values, names and messages come in from programs, models and tools; out goes text without control
sequences, line breaks or characters that reorder what is around them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from ..diagnostics import Diagnostic
from ..values import as_text
from ..visible import HIDDEN, escaped, safe_json

SHOWN_DIAGNOSTICS = 15
"""What fits one screen of 24 lines, with wrapped lines and the prompt."""

SHOWN_OUTPUT_CHARS = 10_000
"""A final output is shown in full up to here: two screens. `--json` has no limit."""


def safe(text: str) -> str:
    """*text* on one line, with every character escaped that a terminal acts on or that nobody
    sees.
    """
    return HIDDEN.sub(lambda match: escaped(match[0]), text)


def safe_lines(text: str) -> str:
    """As `safe`, but line breaks stay."""
    return "\n".join(safe(line) for line in text.split("\n"))


def shown(value: Any, length: int | None = None) -> str:
    """A value on one line: JSON, so that a string is distinguished from a number; cut to *length*."""
    if type(value) is str:
        cut = value if length is None else value[: length + 1]
        text = safe_json(json.dumps(cut, ensure_ascii=False))
    else:
        text = safe_json(as_text(value) if isinstance(value, (list, dict)) else json.dumps(value))
    return text if length is None else shorten(text, length)


def shorten(text: str, length: int) -> str:
    """*text* of at most *length* characters."""
    return text if len(text) <= length else text[: max(length - 1, 0)] + "…"


def seconds(ms: float | None) -> str:
    """A duration for people."""
    if ms is None:
        return "-"
    if ms < 1:
        return f"{ms * 1000:.0f} µs"
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s" if ms < 100_000 else f"{ms / 60_000:.1f} min"


def dollars(cost: Decimal | None) -> str:
    """A cost for people; two figures that count."""
    if cost is None:
        return "cost unknown"
    if not cost:
        return "no cost"
    places = 2 if cost >= 1 else min(2 - cost.adjusted(), 9)
    return f"${cost:.{places}f}"


def diagnostic_lines(diagnostics: Sequence[Diagnostic]) -> Iterable[str]:
    """One line each, errors first where not all are shown, and how many more there are."""
    chosen = list(diagnostics)
    if len(chosen) > SHOWN_DIAGNOSTICS:
        chosen.sort(key=lambda d: d.severity != "error")
    for d in chosen[:SHOWN_DIAGNOSTICS]:
        severity = "" if d.severity == "error" else f"{d.severity}: "
        hint = f"; {d.hint}" if d.hint else ""
        yield safe(f"{d.place}: {severity}{d.code}: {d.message}{hint}")
    if len(chosen) > SHOWN_DIAGNOSTICS:
        yield f"and {len(chosen) - SHOWN_DIAGNOSTICS} more"
