"""A failing world made small: as few faults as it takes, and its history as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .world import SECOND, Happening

TRIES = 80
"""How often a world is tried with fewer faults: what is left then is short enough to read."""


def without_needless(
    faults: Sequence[int], fails: Callable[[frozenset[int]], Sequence[int] | None]
) -> frozenset[int]:
    """The faults to leave out of a world so that it still fails and no more can be left out, as far
    as `TRIES` go.

    *faults* are the numbers of those that happen in it; *fails* gives those that happen when some
    are left out, or None where the world does not fail any more.
    """
    left_out: frozenset[int] = frozenset()
    happening = list(faults)
    size, tries = max(len(happening) // 2, 1), 0
    while happening and tries < TRIES:
        smaller = False
        for at in range(0, len(happening), size):
            part = frozenset(happening[at : at + size])
            tries += 1
            still = fails(left_out | part)
            if still is not None:
                # those that come instead of what was left out have numbers of their own
                left_out |= part
                happening = [number for number in still if number not in left_out]
                smaller = True
                break
            if tries >= TRIES:
                break
        if not smaller:
            if size == 1:
                break
            size = max(size // 2, 1)
        else:
            size = min(size, max(len(happening), 1))
    return left_out


WIDTH = 24
"""Columns of a lane: what is longer goes on to the right, over lanes that say nothing there."""


def diagram(history: Sequence[Happening]) -> str:
    """A history as a sequence diagram: time goes down, and each who says something has a lane, in
    the order in which they first do.
    """
    lanes = list(dict.fromkeys(happening.who for happening in history))
    lines = [" " * 13 + "".join(f"{who:<{WIDTH}}" for who in lanes).rstrip()]
    for happening in history:
        place = lanes.index(happening.who)
        before = "".join(f"{'|':<{WIDTH}}" for _ in lanes[:place])
        after = lanes[place + 1 :]
        rest = "".join(f"{'|':<{WIDTH}}" for _ in after)
        told = f"* {happening.what}"
        beyond = max(len(told) + 1 - WIDTH, 0)
        line = f"{happening.at_ns / SECOND:11.6f}  {before}{told:<{WIDTH}}"
        lines.append((line + rest[beyond:]).rstrip())
    return "\n".join(lines)
