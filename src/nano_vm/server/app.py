"""The application: all routes behind one gate."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Annotated, Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp

from ..errors import StoreError
from ..ui.page import EDITOR, SCRIPT, STYLE, asset
from . import problems
from .access import Caller, caller
from .guards import Guards
from .metrics import Counted, exposed
from .problems import Problem, missing
from .roles import METRICS, PUBLIC, SIGNED_IN
from .routes import (
    admin,
    budgets,
    costs,
    forks,
    hosts,
    inbox,
    lists,
    oidc,
    people,
    policies,
    programs,
    runs,
    standings,
)
from .routing import Routes, describe, public_paths, require_permissions, route
from .state import State
from .tables import projects

API_VERSION = "1"

ROUTES = Routes()

_MARK = b'<meta name="nano-vm-server" content="v1">'


class Application(FastAPI):
    """FastAPI's, with `Guards` and what counts requests outermost: FastAPI answers an error of ours
    outside of every middleware that is added to it.
    """

    def build_middleware_stack(self) -> ASGIApp:
        """The whole stack, from outside in."""
        state: State = self.state.server
        host = urlsplit(state.public_url).netloc if state.public_url is not None else None
        guards = Guards(
            super().build_middleware_stack(),
            host=host,
            secure=state.secure,
            public=public_paths(self),
        )
        return Counted(guards, state.requests)


def application(state: State) -> FastAPI:
    """The application of a server.

    Raises:
        VMError: If a route declares no permission.
    """
    app = Application(
        title="llm-nano-vm",
        version=API_VERSION,
        summary="Runs, what they ask, and who may do what",
        docs_url=None,  # their pages fetch scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
    )
    app.state.server = state
    parts = (
        runs,
        inbox,
        standings,
        costs,
        budgets,
        lists,
        forks,
        programs,
        policies,
        hosts,
        admin,
        people,
        oidc,
    )
    for routes in (*(part.ROUTES for part in parts), ROUTES):
        routes.into(app)
    require_permissions(app)
    describe(app)
    problems.install(app)
    return app


@route(ROUTES, "GET", "/healthz", PUBLIC, include_in_schema=False)
def healthz() -> JSONResponse:
    """Whether the process answers."""
    return JSONResponse({"ok": True})


@route(ROUTES, "GET", "/readyz", PUBLIC, include_in_schema=False)
def readyz(request: Request) -> JSONResponse:
    """Whether the store answers; 503 where it does not."""
    state: State = request.app.state.server
    try:
        with state.tables.reading() as rows:
            rows.one(sa.select(projects.c.name).limit(1))
    except StoreError as error:
        raise Problem(503, "store", "the store does not answer") from error
    return JSONResponse({"ok": True})


@route(ROUTES, "GET", "/metrics", METRICS, include_in_schema=False)
def metrics(request: Request) -> Response:
    """Metrics of this process and of the store, for Prometheus."""
    state: State = request.app.state.server
    body, media_type = exposed(state.observer, request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": media_type})


@route(ROUTES, "GET", "/api/v1/openapi.json", SIGNED_IN, answers=dict[str, Any])
def openapi(request: Request) -> JSONResponse:
    """This API as an OpenAPI document."""
    return JSONResponse(request.app.openapi())


@route(ROUTES, "GET", "/", PUBLIC, include_in_schema=False)
@route(ROUTES, "GET", "/projects/{project}/", PUBLIC, include_in_schema=False)
def index(request: Request) -> Response:
    """The page, which is the same for all projects: what it shows it asks for."""
    return _page(request, "index.html", "text/html")


@route(ROUTES, "GET", f"/{EDITOR}", PUBLIC, include_in_schema=False)
def editor() -> Response:
    """The editor of programs."""
    return Response(asset(EDITOR), media_type="text/javascript; charset=utf-8")


@route(ROUTES, "GET", f"/{SCRIPT}", PUBLIC, include_in_schema=False)
def script(request: Request) -> Response:
    """The page's program."""
    return _page(request, SCRIPT, "text/javascript")


@route(ROUTES, "GET", f"/{STYLE}", PUBLIC, include_in_schema=False)
def style(request: Request) -> Response:
    """The page's style sheet."""
    return _page(request, STYLE, "text/css")


def _page(request: Request, name: str, media_type: str) -> Response:
    """A part of the pages, which a browser has again only where it is another by now."""
    body, tag = part(name)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=f"{media_type}; charset=utf-8", headers=headers)


@cache
def part(name: str) -> tuple[bytes, str]:
    """The bytes of a part of the pages, and what tells them from others."""
    body = asset(name)
    if name == "index.html":
        body = body.replace(b"<head>", b"<head>" + _MARK, 1)
        body = body.replace(b'"./assets/', b'"/assets/')
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'


for _method in ("GET", "POST", "PUT", "PATCH", "DELETE"):

    @route(ROUTES, _method, "/api/{rest:path}", SIGNED_IN, include_in_schema=False)
    def nothing(who: Annotated[Caller, Depends(caller)]) -> Response:
        """What is not there, for who is logged in; anybody else is asked to log in first."""
        raise missing()
