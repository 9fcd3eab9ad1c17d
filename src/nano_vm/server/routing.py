"""How routes are declared: each with the permission that it needs and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from fastapi.routing import APIRoute

from ..errors import VMError
from .access import authorize, declared
from .problems import PROBLEM, SCHEMA
from .roles import ALL, DECLARED, PROVIDER, PUBLIC

Handler = TypeVar("Handler", bound=Callable[..., Any])

PROJECT = "/api/v1/projects/{project}"

_PROBLEM = {"content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
_STATUSES = {
    400: "not understood",
    401: "nobody is logged in",
    403: "not permitted",
    404: "nothing there, or not for who asks",
    409: "it stands otherwise by now",
    413: "the body is too long",
    415: "the body is no JSON",
    421: "for another host",
    422: "refused",
    429: "too many attempts",
    501: "an extra is not installed, or the pages are not built",
    503: "the store does not answer",
}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": told, **_PROBLEM} for status, told in _STATUSES.items()
}
"""What any route may answer beside what it is for."""


class Json(Response):
    """Bytes that are JSON already."""

    media_type = "application/json"


class Gated(APIRoute):
    """A route behind the gate: nothing of a body is read before it is known who asks and that they
    may. A dependency would be asked after the body was read and parsed.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        handle = super().get_route_handler()

        async def gated(request: Request) -> Response:
            await run_in_threadpool(authorize, request)
            return await handle(request)

        return gated


class Routes(list[tuple[str, str, Callable[..., Any], dict[str, Any]]]):
    """Routes that are declared, for an application to take: method, path, handler, and the rest."""

    def into(self, app: FastAPI) -> None:
        """Have *app* serve them."""
        for method, path, handler, more in self:
            app.router.add_api_route(
                path,
                handler,
                methods=[method],
                response_model=None,
                route_class_override=Gated,
                **more,
            )


def route(
    routes: Routes,
    method: str,
    path: str,
    needs: str,
    *,
    answers: Any = None,
    status: int = 200,
    **more: Any,
) -> Callable[[Handler], Handler]:
    """Declare one of *routes*: who has the permission *needs* may call it. *answers* is the type of
    its JSON, for the OpenAPI document; what it answers is checked by tests.
    """
    responses: dict[int | str, dict[str, Any]] = {**PROBLEMS, **more.pop("responses", {})}
    if answers is not None:
        responses[status] = {"model": answers, **responses.get(status, {})}

    def declare(handler: Handler) -> Handler:
        told = {
            "status_code": status,
            "responses": responses,
            "operation_id": handler.__name__,
            "openapi_extra": {"x-permission": needs},
            "tags": [path.removeprefix(PROJECT).removeprefix("/api/v1").split("/")[1]],
            **more,
        }
        routes.append((method, path, handler, told))
        return handler

    return declare


def describe(app: FastAPI) -> None:
    """Have the OpenAPI document of *app* say once what a problem is."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        document["components"]["schemas"]["Problem"] = SCHEMA
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def require_permissions(app: FastAPI) -> None:
    """Keep a server from starting that has a route without a permission, or one that nobody holds
    requests against.

    Raises:
        VMError: If a route declares none, or one that no role has; if it is not behind the gate; if
            it declares what a role permits in a project, and is of none.
    """
    for found in app.routes:
        needs = (getattr(found, "openapi_extra", None) or {}).get("x-permission")
        if needs not in DECLARED:
            told = (
                "no permission" if needs is None else f"the permission {needs!r}, which no role has"
            )
            raise VMError(
                f"the route {getattr(found, 'path', found)} declares {told}; the server does not "
                f"start"
            )
        if not isinstance(found, Gated):
            raise VMError(
                f"the route {getattr(found, 'path', found)} is not behind the gate; declare it by "
                f"`route`"
            )
        if needs in ALL and "{project}" not in found.path:
            raise VMError(
                f"the route {found.path} needs {needs} of a project, and has none; the server does "
                f"not start"
            )


def public_paths(app: FastAPI) -> frozenset[str]:
    """Where anybody is answered."""
    return frozenset(
        found.path
        for found in app.routes
        if isinstance(found, Gated) and declared(found) in (PUBLIC, PROVIDER)
    )
