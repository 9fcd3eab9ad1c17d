"""What a list of runs has beside the runs: views that somebody keeps, the last days, and what is done
to several runs at once.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from ...errors import StoreError, VMError
from ...run.inbox import Inbox
from ...store.records import ENDED
from ...ui.asked_for import asked_for
from .. import audit
from ..access import Caller, Who
from ..bodies import Body
from ..filters import understood
from ..problems import Problem
from ..routing import PROJECT, Routes, route
from ..rows import Rows
from ..shapes import Cancelled, CancelledList, DayList, Recorded, ViewList
from ..tables import views

ROUTES = Routes()

Name = Annotated[str, Path(min_length=1, max_length=100)]

MOST_VIEWS = 100
"""Views of a person in a project: more than a menu shows."""

MOST_AT_ONCE = 200
"""Runs that are cancelled by one request: what a person has looked at and picked."""

DAYS = 14

DAY_MS = 86_400_000


class NewView(Body):
    """A filter, as the field of the list has it."""

    query: str = Field(max_length=2_000)


class Several(Body):
    """Runs, by their ids."""

    ids: list[Annotated[str, Field(max_length=200)]] = Field(max_length=MOST_AT_ONCE)


@route(ROUTES, "GET", f"{PROJECT}/views", "run:read", answers=ViewList)
def list_views(who: Who) -> JSONResponse:
    """The views that whoever asks keeps in this project."""
    with who.scope.tables.reading() as rows:
        found = rows.all(_own(who, who.scope.select(views)).order_by(views.c.name))
    return JSONResponse({"views": [{"name": row.name, "query": row.query} for row in found]})


@route(ROUTES, "PUT", f"{PROJECT}/views/{{name}}", "run:read", answers=Recorded)
def put_view(name: Name, given: NewView, who: Who) -> JSONResponse:
    """Keep a view under a name, in place of one that has it."""
    scope = who.scope

    def job(rows: Rows) -> bool:
        audit.hold(rows)  # so that those that come at once are kept one after another
        kept = rows.all(_own(who, scope.select(views)).where(views.c.name != name))
        if len(kept) >= MOST_VIEWS:
            return False
        rows.run(_own(who, scope.delete(views)).where(views.c.name == name))
        rows.run(scope.insert(views, user_name=who.name, name=name, query=given.query))
        return True

    if not who.change(job):
        raise Problem(409, "too-many", f"you keep {MOST_VIEWS} views here; remove one first")
    return JSONResponse({"recorded": True})


@route(ROUTES, "DELETE", f"{PROJECT}/views/{{name}}", "run:read", status=204)
def remove_view(name: Name, who: Who) -> Response:
    """Keep a view no longer."""
    statement = _own(who, who.scope.delete(views)).where(views.c.name == name)
    who.change(lambda rows: rows.run(statement))
    return Response(status_code=204)


def _own(who: Caller, statement: Any) -> Any:
    """*statement*, on the views of whoever asks."""
    return statement.where(views.c.user_name == who.name)


@route(ROUTES, "GET", f"{PROJECT}/days", "run:read", answers=DayList)
def count_days(
    request: Request, who: Who, program: str = "", submitter: str = "", labels: str = ""
) -> JSONResponse:
    """How many runs began on each of the last days, and how they stand now."""
    today = time.time_ns() // (DAY_MS * 10**6)
    first = today - DAYS + 1
    asked = {**request.query_params, "since": str(first * DAY_MS), "until": ""}
    with understood():
        found = who.state.store.per_day(who.scope.within(asked_for(asked)))
    days: dict[int, dict[str, int]] = {day: {} for day in range(first, today + 1)}
    for (day, status), count in sorted(found.items()):
        if day in days:  # a clock elsewhere may be ahead
            days[day][status] = count
    return JSONResponse(
        {"days": [{"day": day * DAY_MS, "statuses": told} for day, told in days.items()]}
    )


@route(ROUTES, "POST", f"{PROJECT}/runs/cancel", "run:cancel", answers=CancelledList)
def cancel_runs(given: Several, who: Who) -> JSONResponse:
    """Have several runs cancelled, each for itself: what came of each is answered."""
    return JSONResponse({"runs": [_cancelled(who, run_id) for run_id in given.ids]})


def _cancelled(who: Caller, run_id: str) -> Cancelled:
    try:
        status = who.scope.header(run_id).status
        if status in ENDED:
            return {"id": run_id, "recorded": False, "fault": f"it has ended: {status}"}
        store = who.along(who.entry("run.cancelled", run_id))
        Inbox(store, None, time).cancel(run_id, by=who.name)
    except StoreError as error:
        if error.passing:
            raise
        return {"id": run_id, "recorded": False, "fault": str(error)}
    except VMError as error:
        return {"id": run_id, "recorded": False, "fault": str(error)}
    return {"id": run_id, "recorded": True, "fault": None}
