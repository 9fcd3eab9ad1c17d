"""What runs of a project ask of people, and what people answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import Field

from ...errors import StoreError, VMError
from ...machine.pending import shown_digest
from ...run.inbox import Inbox
from ...ui.asking import Answers, AskedList, Asking
from .. import votes
from ..access import ANY_ROLE, Caller, Who
from ..bodies import Body
from ..problems import Problem
from ..routing import PROJECT, Json, Routes, route
from ..shapes import Decided, json_bytes

ROUTES = Routes()

_ACTIONS = {"approve": "step.approved", "reject": "step.rejected", "resolve": "step.resolved"}


@route(ROUTES, "GET", f"{PROJECT}/inbox", "step:approve", answers=AskedList)
def inbox(who: Who) -> Json:
    """What runs of the project ask of people: what the program shows them, and no more."""
    asked, damaged = who.scope.asked()
    _count(who, asked)
    found: AskedList = {
        "asked": asked,
        "damaged": damaged,
        "by": who.name,
        "now": time.time_ns() / 1e6,
    }
    return Json(json_bytes(found))


def _count(who: Caller, asked: list[Asking]) -> None:
    """Say of what is asked how many approve it, and who has."""
    settings = who.scope.settings()
    for one in asked:
        one["needed"] = votes.needed(settings, one["role"])
    voted = [one for one in asked if one["needed"] > 1]
    # whoever is not kept from deciding is not looked up
    submitters = _submitters(who, voted) if settings.get("four_eyes") else {}
    several = {}
    for one in voted:
        if one["role"] is not None:
            barred = _barred(settings, submitters.get(one["run"]))
            request = votes.Request(one["run"], one["path"], one["shown"], one["role"], barred)
            several[request] = one
    if several:
        with who.scope.tables.reading() as rows:
            for request, names in votes.given(rows, who.scope, several).items():
                several[request]["approved"] = names


def _submitters(who: Caller, asked: list[Asking]) -> dict[str, str | None]:
    """Who started each run that asks; nothing of one that was deleted meanwhile."""
    found = {}
    for run in {one["run"] for one in asked}:
        with suppress(StoreError):
            found[run] = who.scope.header(run).submitter
    return found


def _barred(settings: Mapping[str, Any], submitter: str | None) -> str | None:
    """Who may not decide what a run asks: where four eyes decide, who started it."""
    return submitter if settings.get("four_eyes") else None


class Answer(Body):
    """What somebody says to a request, as it was *shown*."""

    run: str
    path: str
    shown: str
    answer: str = Field(
        description="approve, reject or resolve", json_schema_extra={"enum": [*_ACTIONS]}
    )
    reason: str = ""
    how: str = Field(
        "",
        description="of what is in doubt: done, retry or fail",
        json_schema_extra={"enum": ["", "done", "retry", "fail"]},
    )
    output: str = Field("null", description="what a call gave that is done, as JSON")


@route(ROUTES, "POST", f"{PROJECT}/inbox", "step:approve", answers=Decided)
def decide(given: Answer, who: Who) -> JSONResponse:
    """Approve, reject or resolve what a run asks, as whoever is logged in. Where the project wants
    several people to approve, the last one's word is the decision; one who rejects is enough.
    """
    scope = who.scope
    run = scope.header(given.run)
    if given.answer not in _ACTIONS:
        raise VMError(f"an answer is one of {', '.join(_ACTIONS)}, not {given.answer!r}")
    settings = scope.settings()
    barred = _barred(settings, run.submitter)
    if barred == who.name:
        raise Problem(
            403, "not-permitted", "in this project a run is decided by another than who started it"
        )
    asked = next((e for e in run.waiting if e["path"] == given.path), {})
    roles = [str(asked.get("role"))] if ANY_ROLE in who.approves else sorted(who.approves)
    several = votes.needed(settings, asked.get("role"))
    body = given.model_dump()
    if given.answer == "approve" and several > 1:
        names = _voted(who, given, roles, barred)
        if len(names) < several:
            return JSONResponse({"recorded": True, "missing": several - len(names)})
        others = ", ".join(name for name in names if name != who.name)
        body["reason"] = f"{given.reason}{'; ' if given.reason else ''}with {others}"
    entry = who.entry(
        _ACTIONS[given.answer],
        given.run,
        path=given.path,
        shown=given.shown,
        reason=body["reason"],
    )
    Answers(who.along(entry), who.name, time, lambda _: roles).record(body)
    return JSONResponse({"recorded": True, "missing": 0})


def _voted(who: Caller, given: Answer, roles: list[str], barred: str | None) -> list[str]:
    """Who has approved, once it is recorded that who asks has."""
    scope: Any = who.scope
    inbox = Inbox(scope.store, lambda _: roles, time)
    asked = inbox.require_open(given.run, given.path, shown=given.shown, by=who.name)
    request = votes.Request(given.run, given.path, shown_digest(asked), asked["role"], barred)
    detail = {"path": given.path, "shown": request.shown, "reason": given.reason}
    entry = who.entry("step.voted", given.run, **detail)
    found: list[str] = who.state.tables.write(
        lambda rows: votes.cast(rows, scope, request, given.reason, entry)
    )
    return found
