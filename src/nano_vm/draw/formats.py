"""The writers of graphs, by name."""

from __future__ import annotations

from collections.abc import Callable

from ..language.flow import Flow
from .dot import dot
from .graph import Marks
from .mermaid import mermaid
from .svg import svg

FORMATS: dict[str, Callable[[Flow, Marks | None], str]] = {
    "mermaid": mermaid,
    "dot": dot,
    "svg": svg,
}
