"""Tables and the plot: measured figures come in, Markdown and SVG go out. Nothing is measured
here.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, log10
from pathlib import Path
from typing import Any, NoReturn


def put(page: Path, begin: str, end: str, text: str) -> None:
    """Write *text* into *page*, in place of what stands between the marks *begin* and *end*.

    Raises:
        ValueError: If it lacks one of them.
    """
    before, begins, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ends, after = rest.partition(end)
    if not (begins and ends):
        raise ValueError(f"{page} has no place between {begin!r} and {end!r}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def finish(page: Path, begin: str, end: str, text: str, *, write: bool) -> NoReturn:
    """Print *text*, `put` it into *page* if it is to be written, and end this process."""
    print(text)
    if write:
        put(page, begin, end, text)
    sys.stdout.flush()
    os._exit(0)  # threads of Temporal's SDK now and then abort one that ends the usual way


@dataclass(frozen=True, slots=True)
class Bar:
    """What the project wants of a figure. A missed bar is shown, it never fails anything."""

    what: str
    value: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def demand(self) -> str:
        """What is wanted, without the figure."""
        return f"{'at least' if self.at_least else 'at most'} {round(self.limit, 2):,g}"

    def __str__(self) -> str:
        return f"{'✓' if self.met else '✗'} {number(self.value)} {self.unit}, {self.demand}"


@dataclass(slots=True)
class Table:
    """One section of the page: figures as text, with the bars that they have, and when they were
    measured where that is another time than the page's.
    """

    title: str
    text: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    plot: dict[str, tuple[float, float]] = field(default_factory=dict)
    measured: str = ""

    def add(self, *cells: str, bars: Sequence[Bar] = ()) -> None:
        self.bars += bars
        told = "; ".join(map(str, bars))
        if len(bars) == 1 and bars[0].met and number(bars[0].value) in cells:
            told = f"✓ {bars[0].demand}"  # the figure stands in the row
        self.rows.append([*cells, told])

    def markdown(self) -> str:
        own = [self.columns[0] or "what", *self.columns[1:]]
        columns = [*own, "bar"] if self.bars else own
        rows = [row[: len(columns)] for row in self.rows]
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]

        def line(cells: Sequence[str]) -> str:
            padded = [
                cell.ljust(width) if i in (0, len(self.columns)) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            return f"| {' | '.join(padded)} |"

        rule = [
            "-" * width if i in (0, len(self.columns)) else "-" * (width - 1) + ":"
            for i, width in enumerate(widths)
        ]
        head = [f"## {self.title}", "", self.text, ""]
        foot = ["", f"*{self.measured}*"] if self.measured else []
        return "\n".join([*head, line(columns), line(rule), *map(line, rows), *foot])


def number(value: float) -> str:
    """Three significant digits, thousands parted: 0.295, 4.34, 12,300."""
    if value == 0:
        return "0"
    digits = max(0, 2 - int(log10(abs(value)) // 1))
    rounded = round(value, 2 - int(log10(abs(value)) // 1))
    return f"{rounded:,.{digits}f}"


def machine() -> str:
    """The machine in one line: processor, cores, system, Python and load."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1]
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0].strip() if names else cpu
    load = (
        ", ".join(f"{part:.1f}" for part in os.getloadavg())
        if hasattr(os, "getloadavg")
        else "unknown"
    )
    return (
        f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"{platform.python_implementation()} {platform.python_version()}, load average {load}"
    )


# --- the plot -------------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT, ROW, BAR_HEIGHT, TOP = 860, 220, 160, 34, 20, 62
INK, FAINT, GRID, OURS, OTHERS, LIMIT = (
    "#1f2430",
    "#667085",
    "#e4e7ec",
    "#0f766e",
    "#a8b3c4",
    "#475467",
)


def chart(
    title: str, subtitle: str, bars: dict[str, tuple[float, float]], *, ours: str, limit: str
) -> str:
    """Horizontal bars on a logarithmic axis, each of microseconds and the ratio to *limit*, which
    stand beside it.
    """
    decades = ceil(log10(max(us for us, _ in bars.values())))
    scale = (WIDTH - LEFT - RIGHT) / decades
    height = TOP + ROW * len(bars) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="20" y="26" font-size="16" font-weight="600" fill="{INK}">{escape(title)}</text>',
        f'<text x="20" y="45" fill="{FAINT}">{escape(subtitle)}</text>',
    ]
    bottom = TOP + ROW * len(bars)
    for decade in range(decades + 1):
        x = LEFT + decade * scale
        tick = f"{10**decade:,} µs" if decade < 3 else f"{10 ** (decade - 3):,} ms"
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="{GRID}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="{FAINT}">{tick}</text>'
        )
    for i, (name, (us, over)) in enumerate(bars.items()):
        y = TOP + ROW * i + (ROW - BAR_HEIGHT) / 2
        length = max(2.0, log10(us) * scale)
        colour = {ours: OURS, limit: LIMIT}.get(name, OTHERS)
        weight = ' font-weight="600"' if name == ours else ""
        middle = y + BAR_HEIGHT / 2 + 4.5
        ratio = "" if name == limit else f" ({number(over)} ×)"
        parts += [
            f'<text x="{LEFT - 12}" y="{middle:.1f}" text-anchor="end" '
            f'fill="{INK}"{weight}>{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y:.1f}" width="{length:.1f}" height="{BAR_HEIGHT}" rx="2" '
            f'fill="{colour}"/>',
            f'<text x="{LEFT + length + 8:.1f}" y="{middle:.1f}" '
            f'fill="{INK}"{weight}>{number(us)} µs{ratio}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
