"""A run as a timeline in SVG: a bar for each step, from when it was reached to its end."""

from __future__ import annotations

from html import escape

from ..records.result import StepResult
from ..records.trace import Trace
from .graph import label

WIDTH, ROW, LEFT, RIGHT, TOP = 900, 20, 260, 90, 56
MAX_ROWS = 500
"""Steps that are drawn: a taller picture is read by nobody."""

NAME_CHARS = 36
COLOURS = {
    "success": "#4878a8",
    "failed": "#c0392b",
    "skipped": "#bbbbbb",
    "suspended": "#b7791f",
    "cancelled": "#8e44ad",
}


def timeline(trace: Trace) -> str:
    """The steps of *trace* in time, those that began first above."""
    steps = [step for step in trace.steps if step.started_at is not None]
    steps.sort(key=lambda step: (step.started_at, step.path))
    shown, left = steps[:MAX_ROWS], len(steps) - MAX_ROWS
    begun = min((_seconds(step)[0] for step in shown), default=0.0)
    whole = max((_seconds(step)[1] for step in shown), default=0.0) - begun
    height = TOP + ROW * (len(shown) + (left > 0)) + 12
    title = f"{trace.program_name}: {trace.status.value}, {_text_of(whole)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, sans-serif" '
        f'font-size="12" role="img">',
        f"<title>{_escaped(title, 200)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="24" font-weight="bold">{_escaped(title, 110)}</text>',
        *_ticks(whole, height),
    ]
    room = WIDTH - LEFT - RIGHT
    for number, step in enumerate(shown):
        first, last = _seconds(step)
        y = TOP + ROW * number
        x = LEFT + room * ((first - begun) / whole if whole else 0.0)
        width = max(room * ((last - first) / whole) if whole else 0.0, 1.5)
        colour = COLOURS.get(step.status.value, "#4878a8")
        told = f"{step.path}: {step.status.value}, {_text_of(last - first)}"
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">'
            f"{_escaped(step.path, NAME_CHARS)}</text>",
            f'<rect x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="12" rx="2" '
            f'fill="{colour}"><title>{_escaped(told, 300)}</title></rect>',
            f'<text x="{x + width + 5:.1f}" y="{y + 14}" fill="#555">{_text_of(last - first)}</text>',
        ]
    if left > 0:
        y = TOP + ROW * len(shown) + 14
        parts.append(f'<text x="{LEFT}" y="{y}" fill="#555">and {left:,} more steps</text>')
    return "\n".join([*parts, "</svg>", ""])


def _ticks(whole: float, height: float) -> list[str]:
    found = []
    for part in range(5):
        x = LEFT + (WIDTH - LEFT - RIGHT) * part / 4
        found += [
            f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height - 8}" stroke="#e4e4e4"/>',
            f'<text x="{x:.1f}" y="{TOP - 10}" text-anchor="middle" fill="#777" font-size="10">'
            f"{_text_of(whole * part / 4)}</text>",
        ]
    return found


def _seconds(step: StepResult) -> tuple[float, float]:
    assert step.started_at is not None
    first = step.started_at.timestamp()
    return first, first + (step.duration_ms or 0.0) / 1000


def _text_of(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _escaped(text: str, most: int) -> str:
    return escape(label(text, most))
