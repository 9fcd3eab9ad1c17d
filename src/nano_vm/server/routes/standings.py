"""Runs of a project as the command line shows them, so that it prints the same of a server as of the
store itself.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from ...records.secrecy import redacted
from ...run.durable.facts import brief, facts_of
from ...run.durable.lease import living
from ..access import Who
from ..filters import After, Asked, understood
from ..routing import PROJECT, Json, Routes, route
from ..shapes import BriefList, CurrentFacts, json_bytes

ROUTES = Routes()

MOST_RUNS = 200
"""Runs of one answer; who wants more asks for the next page."""


@route(ROUTES, "GET", f"{PROJECT}/standings", "run:read", answers=BriefList)
def list_standings(
    who: Who,
    asked: Asked,
    limit: Annotated[int, Query(ge=1, le=MOST_RUNS)] = 50,
    after: After = None,
) -> Json:
    """Runs of the project, newest first, a page at a time: how each stands."""
    scope = who.scope
    with understood():
        page = scope.store.page(scope.within(asked), size=limit, after=after)
    owners = living(scope.store)
    found = [brief(run, owners, "pages") for run in page.runs]
    if not who.may("run:content"):
        for run in found:
            run["error"] = redacted(run["error"])
    answer: BriefList = {"runs": found, "after": page.after, "damaged": page.damaged}
    return Json(json_bytes(answer))


@route(ROUTES, "GET", f"{PROJECT}/standings/{{run_id}}", "run:read", answers=CurrentFacts)
def read_standing(
    run_id: str,
    who: Who,
    seen: Annotated[str | None, Query(description="the version that is known")] = None,
) -> Json:
    """A run, by its id or the beginning of it: what it did, what it waits for, what was said to it;
    what was said in it only for who may read it.
    """
    scope = who.scope
    found = scope.find(run_id)
    version = scope.version(found)
    answer: CurrentFacts = {"version": version, "run": None}
    if seen != version:
        answer["run"] = facts_of(
            scope.recorded(found),
            living(scope.store),
            "pages",
            content=who.may("run:content"),
            asked=who.may("step:approve"),
        )
    return Json(json_bytes(answer))
