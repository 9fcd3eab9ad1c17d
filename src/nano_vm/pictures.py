"""How a notebook shows what this package gives. What is shown asks here; who can draw says so once.

A result of a run knows nothing of drawing, and drawing is not imported before somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Drawing(Protocol):
    """What can draw: each gives None for what it cannot show so."""

    def html(self, thing: Any) -> str | None:
        """*thing* as HTML that needs nothing else, and in which all text is escaped."""
        ...

    def svg(self, thing: Any) -> str | None:
        """*thing* as one picture."""
        ...


_LOADERS: list[Callable[[], Drawing]] = []


def drawn_by(load: Callable[[], Drawing]) -> None:
    """Draw with what *load* gives, which is called at the first picture."""
    _LOADERS[:] = [load]


def html(thing: Any) -> str | None:
    """*thing* as HTML, where somebody can draw it."""
    return _LOADERS[0]().html(thing) if _LOADERS else None


def svg(thing: Any) -> str | None:
    """*thing* as SVG, where somebody can draw it."""
    return _LOADERS[0]().svg(thing) if _LOADERS else None
