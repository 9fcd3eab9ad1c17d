"""Some runs of a list whose rows will be read: few enough that all of these can be in memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from .protocol import RunFilter, RunPage, Store
from .records import RUNNING, StoredRun


def few_runs(
    store: Store, filter: RunFilter, after: str | None, most: int, most_steps: int
) -> RunPage:
    """The next runs of a list, up to *most* with together up to *most_steps*; or one alone that has
    more, or whose steps are not counted yet.
    """
    page = store.page(filter, size=most, after=after)
    size = fit_together(page.runs, most_steps)
    return page if size == len(page.runs) else store.page(filter, size=size, after=after)


def fit_together(runs: Sequence[StoredRun], most_steps: int) -> int:
    """How many of *runs*, from the first, have together up to *most_steps*; the first alone may have
    more, or steps that are not counted yet.
    """
    # they are counted where a run ends or waits
    steps = accumulate(most_steps if run.status == RUNNING else run.steps for run in runs)
    return max(sum(1 for count in steps if count <= most_steps), min(len(runs), 1))
