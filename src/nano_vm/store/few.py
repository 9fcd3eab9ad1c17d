"""Some runs of a list whose rows will be read: few enough that all of these can be in memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from .protocol import RunFilter, RunPage, Store
from .records import RUNNING, StoredRun

STEPS_AT_ONCE = 2_000
"""Of runs whose rows are in memory together, unless one alone has more."""


def few_runs(store: Store, filter: RunFilter, after: str | None, most: int) -> RunPage:
    """The next runs of a list, up to *most* with together up to `STEPS_AT_ONCE`; or one alone that
    has more, or whose steps are not counted yet.
    """
    page = store.page(filter, size=most, after=after)
    size = fit_together(page.runs)
    return page if size == len(page.runs) else store.page(filter, size=size, after=after)


def fit_together(runs: Sequence[StoredRun]) -> int:
    """How many of *runs*, from the first, have together up to `STEPS_AT_ONCE`; the first alone may
    have more, or steps that are not counted yet.
    """
    # they are counted where a run ends or waits
    steps = accumulate(STEPS_AT_ONCE if run.status == RUNNING else run.steps for run in runs)
    return max(sum(1 for count in steps if count <= STEPS_AT_ONCE), min(len(runs), 1))
