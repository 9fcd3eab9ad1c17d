"""Which runs a request asks for: the parameters of every list of runs, and what is said of one that
no run can have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Query, Request

from ..store.protocol import RunFilter
from ..ui.asked_for import NoSuchFilter, asked_for
from .problems import Problem

After = Annotated[str | None, Query(description="what the page before gave")]
"""Where a page of a list begins, as a parameter of a route."""


@contextmanager
def understood() -> Iterator[None]:
    """Answer that a filter, a group or a place in a list is none, where that is found inside."""
    try:
        yield
    except (NoSuchFilter, ValueError) as error:
        raise Problem(400, "no-such-filter", str(error)) from None


async def _asked(
    request: Request,
    status: Annotated[str, Query(description="one or several, with commas between")] = "",
    program: str = "",
    submitter: str = "",
    parent: str = "",
    labels: Annotated[str, Query(description="NAME=VALUE, one a line")] = "",
    since: Annotated[str, Query(description="in milliseconds since 1970")] = "",
    until: str = "",
    min_cost: str = "",
) -> RunFilter:
    """The parameters stand here for the document of the API; they are read as pages read them."""
    with understood():
        return asked_for(request.query_params)


Asked = Annotated[RunFilter, Depends(_asked)]
"""The runs that a list is of, as a parameter of a route."""
