"""A picture as lines of text, in the notation of a format: areas stand inside their forks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from .graph import Area, Dot, Line


class Notation(Protocol):
    """How a format writes the parts of a picture. Dots are named ``n1``, joins ``j1``."""

    closing: str
    """What ends an area."""

    def dot(self, dot: Dot) -> str: ...
    def opening(self, area: Area) -> Sequence[str]: ...
    def join(self, name: str) -> str: ...
    def edge(self, source: str, target: str, line: Line | None = None) -> str: ...


def written(
    area: Area, notation: Notation, pad: str = "  ", *, inside: bool = False
) -> Iterator[str]:
    """*area*, line by line. *Inside* a fork its end is the fork's join."""
    for dot in area.dots:
        if dot is area.end and inside:
            continue
        yield pad + notation.dot(dot)
        if dot.frames:
            yield from _forked(dot, notation, pad)
    for line in area.lines:
        if line.target is not area.end or not inside:
            yield pad + notation.edge(_start(line), f"n{line.target.number}", line)


def _forked(fork: Dot, notation: Notation, pad: str) -> Iterator[str]:
    join = f"j{fork.number}"
    for frame in fork.frames:
        yield from (pad + text for text in notation.opening(frame))
        yield from written(frame, notation, pad + "  ", inside=True)
        yield pad + notation.closing
    yield pad + notation.join(join)
    for frame in fork.frames:
        if frame.dots:
            yield pad + notation.edge(f"n{fork.number}", f"n{frame.dots[0].number}")
        for line in frame.lines:
            if line.target is frame.end:
                yield pad + notation.edge(_start(line), join, line)


def _start(line: Line) -> str:
    forked = line.source.frames and not line.handled
    return f"{'j' if forked else 'n'}{line.source.number}"
