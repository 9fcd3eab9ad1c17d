"""Amounts as a bar chart in SVG: names and numbers in, one text out."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from html import escape

from ..values import printable

WIDTH, ROW, LEFT, RIGHT = 720, 26, 220, 110
NAME_CHARS = 30


def bars(title: str, rows: Sequence[tuple[str, Decimal]]) -> str:
    """A bar for each of *rows*, as long as its amount."""
    most = max((amount for _, amount in rows), default=Decimal(0)) or Decimal(1)
    room = WIDTH - LEFT - RIGHT
    height = 50 + ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="26" font-weight="bold">{_text(title, 80)}</text>',
    ]
    for number, (name, amount) in enumerate(rows):
        y = 40 + ROW * number
        width = float(amount / most) * room
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{_text(name, NAME_CHARS)}</text>',
            f'<rect x="{LEFT}" y="{y + 3}" width="{width:.1f}" height="16" fill="#4878a8"/>',
            f'<text x="{LEFT + width + 6:.1f}" y="{y + 15}">{amount:f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _text(text: str, most: int) -> str:
    shown = text if len(text) <= most else text[: most - 1] + "…"
    return escape(printable(shown))
