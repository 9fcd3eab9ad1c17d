"""Static passes: a `Flow` in, Diagnostics out. They run nothing.

Each pass is a function of its own module; `check` runs those that a run needs to be safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import Diagnostic, Loc
from ..flow import Flow
from ..tools import ToolContract
from .names import check_names
from .shape import check_shape
from .tools import check_tools

__all__ = ["check", "check_names", "check_shape", "check_tools"]


def check(flow: Flow, contracts: Mapping[str, ToolContract], given: Iterable[str] = ()) -> list[Diagnostic]:
    """Every fault of *flow* for a host with these tools, in document order; *given* are names that the inputs hold."""
    if any(d.code == "V008" for d in flow.diagnostics):  # too large, and not all of it is there
        return list(flow.diagnostics)
    found = [*flow.diagnostics, *check_shape(flow), *check_tools(flow, contracts)]
    if not any(d.severity == "error" for d in flow.diagnostics):  # data flow over a broken graph says nonsense
        found += check_names(flow, frozenset(given))
    return sorted(found, key=lambda d: _step_place(d.loc))


def _step_place(loc: Loc) -> list[tuple[int, int, str]]:
    """A key that orders places by their step; within a step they stay as they were found."""
    last = max((i for i, part in enumerate(loc) if isinstance(part, int)), default=-1)
    return [(0, part, "") if isinstance(part, int) else (1, 0, part) for part in loc[: last + 1]]
