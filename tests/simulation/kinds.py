"""The kinds of simulated worlds, by name."""

from __future__ import annotations

from .life import Life

KINDS = ("plain", "long", "paired", "served")


def kind_of(name: str) -> type[Life]:
    """The worlds of that name, imported now: those with servers need what a server does."""
    if name == "long":
        from .long import Long

        return Long
    if name == "paired":
        from .paired import Paired

        return Paired
    if name == "served":
        from .served import Served

        return Served
    return Life
