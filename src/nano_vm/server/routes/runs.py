"""Runs of a project: started, listed, read, cancelled, recomputed, compared; and what they ask."""

from __future__ import annotations

import hashlib
import re
import time
from typing import Annotated, Any

from fastapi import Header, Query
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import Field

from ...draw.view import view_of
from ...records.secrecy import NOTHING_SECRET, Levels, redacted
from ...run.inbox import Inbox
from ...ui.library import (
    Comparison,
    Current,
    FoundList,
    Graph,
    Programs,
    RunList,
    compared,
    is_final,
    recomputed,
    shown,
)
from ...ui.page import page
from ..access import Who
from ..addresses import addressed
from ..bodies import Body
from ..filters import After, Asked, understood
from ..problems import Problem
from ..routing import PROJECT, Json, Routes, route
from ..shapes import Recorded, Started, Verified, json_bytes
from ..versions import program_in
from .policies import demanded_in

ROUTES = Routes()

RunId = Annotated[str, Field(pattern=r"^[!-.0-~]{1,200}$")]
"""Of a run that is started here: what has a slash in it would have no address."""


class Start(Body):
    """A run that is wanted: the *program* of the project by its name, in a *version* of it or the
    newest.
    """

    program: str
    version: int | None = Field(None, ge=1, lt=2**63)
    inputs: dict[str, Any] = Field(default_factory=dict)
    run_id: RunId | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    seed: int | None = None


@route(ROUTES, "GET", f"{PROJECT}/runs", "run:read", answers=RunList)
def list_runs(who: Who, asked: Asked, after: After = None) -> Json:
    """Runs of the project, newest first, a page at a time."""
    with understood():
        found = who.scope.page(asked, after)
    if not who.may("run:content"):
        for row in found["runs"]:
            row["error"] = redacted(row["error"])
    return Json(json_bytes(found))


@route(ROUTES, "GET", f"{PROJECT}/search", "run:content", answers=FoundList)
def search_runs(who: Who, asked: Asked, text: str, after: After = None) -> Json:
    """Runs of the project in which *text* was said, newest first: in inputs, outputs, requests,
    answers and errors, of what pages show of them. So many are ``searched`` as two seconds allow;
    ``after`` goes on with those before.
    """
    with understood():
        return Json(json_bytes(who.scope.search(asked, text, after)))


@route(
    ROUTES,
    "POST",
    f"{PROJECT}/runs",
    "run:start",
    status=201,
    answers=Started,
    responses={200: {"model": Started, "description": "it was started before"}},
)
def start_run(
    given: Start,
    who: Who,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> JSONResponse:
    """Start a run, for a worker to drive. The same ``run_id`` or ``Idempotency-Key`` with the same
    program and inputs gives the run that is there; that of somebody else only to who may read what
    was said.
    """
    scope = who.scope
    run_id = given.run_id
    if run_id is not None:
        addressed("the id of a run", run_id)
    elif idempotency_key is not None:
        told = f"{scope.project}\n{who.name}\n{idempotency_key}".encode("utf-8", "surrogatepass")
        run_id = f"key-{hashlib.sha256(told).hexdigest()[:32]}"
    with scope.tables.reading() as rows:
        row, program = program_in(rows, scope.project, given.program, given.version)
        policy = demanded_in(rows, scope.project)
    vm = who.state.hosts.for_program(program, policy)
    run = vm.pending(
        program,
        given.inputs,
        run_id=run_id,
        project=scope.project,
        submitter=who.name,
        labels=given.labels,
        seed=given.seed,
    )
    entry = who.entry(
        "run.started", run.run_id, program=row.name, version=row.version, digest=row.digest
    )
    created = who.along(entry).create(run)
    if not created:
        known = scope.store.load(run.run_id, rows=False)
        # else the answer tells whoever guesses the inputs of a run that the guess is right
        may_compare = who.may("run:content") or known.submitter == who.name
        same = (known.project, known.program_digest, known.inputs) == (
            scope.project,
            run.program_digest,
            run.inputs,
        )
        if not (may_compare and same):
            raise Problem(
                409,
                "taken",
                f"run id {run.run_id!r} is taken, by another member or with another program or "
                "inputs",
            )
    answer = {"id": run.run_id, "program": row.name, "version": row.version, "created": created}
    return JSONResponse(answer, 201 if created else 200)


@route(ROUTES, "GET", f"{PROJECT}/runs/{{run_id}}", "run:read", answers=Current)
def read_run(
    run_id: str,
    who: Who,
    seen: Annotated[str | None, Query(description="the version that is known")] = None,
    graph: Annotated[
        Graph, Query(description="later: not at first, where it takes long to make")
    ] = "now",
) -> Json:
    """A run with its steps on the graph of its program; what was said only for who may read it.

    With ``graph=later`` a run of a large program whose graph is not made yet comes without it, and
    with a version of its own: ask again, and say that this was seen.
    """
    scope = who.scope
    version, content = scope.version(run_id), who.may("run:content")
    if seen == version:
        return Json(json_bytes({"version": version, "run": None}))

    views, key = who.state.views, (run_id, version, content)
    kept = views.get(key)
    if kept is not None:
        return Json(kept)
    found = shown(scope, run_id, Programs(), version, seen, graph, content=content)
    body = json_bytes(found)
    return Json(views.of(key, lambda: body) if is_final(found, version) else body)


@route(
    ROUTES,
    "GET",
    f"{PROJECT}/runs/{{run_id}}/events",
    "run:read",
    responses={200: {"content": {"text/event-stream": {}}, "description": "server-sent events"}},
)
def follow_run(
    run_id: str,
    who: Who,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> StreamingResponse:
    """What happens in a run, as it happens: ``record`` for each record, with its number as the id of
    the event, ``standing`` when the run stands otherwise, ``end``. With ``Last-Event-ID`` those that
    follow it.
    """
    scope = who.scope
    levels = Levels.of(scope.header(run_id).about) or NOTHING_SECRET
    after = int(last_event_id) if last_event_id and last_event_id.isdecimal() else -1
    content = who.may("run:content")
    right = who.right("run:content" if content else "run:read")
    parts = who.state.events.stream(run_id, after, right, content=content, levels=levels)
    headers = {"X-Accel-Buffering": "no"}  # which nginx would do
    return StreamingResponse(parts, media_type="text/event-stream", headers=headers)


@route(ROUTES, "POST", f"{PROJECT}/runs/{{run_id}}/cancel", "run:cancel", answers=Recorded)
def cancel_run(run_id: str, who: Who) -> JSONResponse:
    """Have a run cancelled, and undone: whoever drives it stops before its next step."""
    who.scope.header(run_id)
    store = who.along(who.entry("run.cancelled", run_id))
    Inbox(store, None, time).cancel(run_id, by=who.name)
    return JSONResponse({"recorded": True})


@route(ROUTES, "GET", f"{PROJECT}/runs/{{run_id}}/verify", "run:read", answers=Verified)
def verify_run(run_id: str, who: Who) -> JSONResponse:
    """Recompute a run from its records, and say whether each is what the program makes of it."""
    found = recomputed(who.scope, run_id, Programs())
    text = str(found) if who.may("run:content") or found.identical else "a record differs"
    return JSONResponse({"identical": found.identical, "complete": found.complete, "text": text})


@route(
    ROUTES,
    "GET",
    f"{PROJECT}/runs/{{run_id}}/export",
    "run:read",
    responses={200: {"content": {"text/html": {}}, "description": "one HTML file"}},
)
def export_run(run_id: str, who: Who, redact: bool = False) -> Response:
    """A run as one HTML file that needs no server; with *redact*, and for who may not read what was
    said, without that.
    """
    content = who.may("run:content") and not redact
    view = view_of(who.scope.recorded(run_id), content=content, receiver="export")
    text = page(f"{view['program']} {view['id']}", {"runs": [view]})
    name = re.sub(r"[^A-Za-z0-9._-]", "_", run_id)
    headers = {"Content-Disposition": f'attachment; filename="{name}.html"'}
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)


@route(ROUTES, "GET", f"{PROJECT}/compare/{{a}}/{{b}}", "run:content", answers=Comparison)
def compare_runs(a: str, b: str, who: Who) -> Json:
    """Two runs, and what differs between them."""
    return Json(json_bytes(compared(who.scope, a, b, Programs())))


class Sent(Body):
    """An event for a run."""

    name: str = Field(min_length=1, max_length=200)
    payload: Any = None
    id: str | None = Field(None, min_length=1, max_length=200)


@route(ROUTES, "POST", f"{PROJECT}/runs/{{run_id}}/events", "run:start", answers=Recorded)
def send_event(run_id: str, given: Sent, who: Who) -> JSONResponse:
    """Send an event to a run; one of the same name and id is recorded once."""
    who.scope.header(run_id)
    store = who.along(who.entry("run.event", run_id, name=given.name, id=given.id))
    recorded = Inbox(store, None, time).send_event(
        given.name, given.payload, run_id=run_id, id=given.id
    )
    return JSONResponse({"recorded": recorded})
