"""Which runs a request asks for: the parameters of every list of runs, and what is said of one that
no run can have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.concurrency import run_in_threadpool

from ..store.protocol import WAITED, RunFilter
from ..ui.asked_for import NoSuchFilter, asked_for
from .access import Caller, Who
from .problems import Problem
from .versions import program_of

MOST_DIGITS = 7
"""Of the number of a version: more are the beginning of a digest."""

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
    who: Who,
    status: Annotated[str, Query(description="one or several, with commas between")] = "",
    program: str = "",
    submitter: str = "",
    parent: str = "",
    labels: Annotated[str, Query(description="NAME=VALUE, one a line")] = "",
    since: Annotated[str, Query(description="in milliseconds since 1970")] = "",
    until: str = "",
    min_cost: str = "",
    version: Annotated[
        str, Query(description="of the program: its number, or the beginning of its digest")
    ] = "",
    waiting: Annotated[
        str, Query(description=f"for one of {', '.join(WAITED)}, approval:ROLE, event:NAME")
    ] = "",
) -> RunFilter:
    """The parameters stand here for the document of the API; they are read as pages read them."""
    query = dict(request.query_params)
    if version.isdecimal() and len(version) <= MOST_DIGITS:
        digests = await run_in_threadpool(digests_of, who, program, int(version))
        query["version"] = ",".join(digests)
    with understood():
        return asked_for(query)


def digests_of(who: Caller, name: str, version: int) -> list[str]:
    """The digests that runs of a version of a program have: its own, or with programs that it calls
    on a worker.

    Raises:
        Problem: If it is not said of which program, or there is no such version.
    """
    if not name:
        raise Problem(400, "no-such-filter", f"version {version} of which program? Say program")
    row, program = program_of(who.scope, name, version)
    return list(dict.fromkeys([row.digest, *who.state.hosts.digests(program)]))


Asked = Annotated[RunFilter, Depends(_asked)]
"""The runs that a list is of, as a parameter of a route."""
