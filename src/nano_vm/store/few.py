"""Some runs of a list whose rows will be read: few enough that all of these can be in memory."""

from __future__ import annotations

from itertools import accumulate

from .protocol import RunFilter, RunPage, Store
from .records import RUNNING


def few_runs(
    store: Store, filter: RunFilter, after: str | None, most: int, most_steps: int
) -> RunPage:
    """The next runs of a list, up to *most* with together up to *most_steps*; or one alone that has
    more, or whose steps are not counted yet.
    """
    page = store.page(filter, size=most, after=after)
    # they are counted where a run ends or waits
    steps = accumulate(most_steps if run.status == RUNNING else run.steps for run in page.runs)
    size = sum(1 for count in steps if count <= most_steps)
    if size == len(page.runs):
        return page
    return store.page(filter, size=max(size, 1), after=after)
