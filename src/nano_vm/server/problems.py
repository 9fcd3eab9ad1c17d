"""What goes wrong, as RFC 9457 problem documents: what is the matter, and what to do."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import (
    AlreadyDecided,
    Changed,
    Expired,
    MissingExtra,
    NotPermitted,
    ProgramError,
    StoreError,
    UnknownRun,
    VMError,
)
from ..ui.page import NotBuilt
from ..visible import name

logger = logging.getLogger("nano_vm.server")

PROBLEM = "application/problem+json"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "description": "what kind of problem it is, as a URN"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is the matter here, and what to do"},
        "request_id": {"type": "string", "description": "by which the server's log knows it"},
        "diagnostics": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/DiagnosticView"},
            "description": "the faults of a program, each with its place",
        },
    },
}


class Problem(Exception):
    """A request that is answered with *status*; *kind* names the problem in a word or two."""

    def __init__(
        self, status: int, kind: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers


def missing() -> Problem:
    """That there is nothing, or nothing for who asks: which of the two is not said."""
    return Problem(404, "not-found", "there is nothing at this address, or not for you")


_OF_ERRORS: tuple[tuple[type[VMError], int, str], ...] = (
    (NotPermitted, 403, "not-permitted"),
    (AlreadyDecided, 409, "already-decided"),
    (Expired, 409, "expired"),
    (Changed, 409, "changed"),
    (ProgramError, 422, "refused"),
    (MissingExtra, 501, "not-installed"),
    (NotBuilt, 501, "not-built"),
    (StoreError, 409, "store"),
    (VMError, 422, "invalid"),
)


def document(problem: Problem, request_id: str, **more: Any) -> dict[str, Any]:
    """What `SCHEMA` describes."""
    return {
        "type": f"urn:nano-vm:problem:{problem.kind}",
        "title": problem.kind.replace("-", " "),
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
        **more,
    }


def answer(request: Request, problem: Problem, **more: Any) -> JSONResponse:
    """A problem document."""
    body = document(problem, getattr(request.state, "request_id", ""), **more)
    return JSONResponse(body, problem.status, problem.headers, media_type=PROBLEM)


def install(app: FastAPI) -> None:
    """Have every error of *app* answered with a problem document."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> JSONResponse:
        return answer(request, error)

    @app.exception_handler(VMError)
    async def _of_vm(request: Request, error: VMError) -> JSONResponse:
        if isinstance(error, UnknownRun):  # in the words that one of another project has too
            return answer(request, missing())
        if isinstance(error, StoreError) and (error.passing or error.__cause__ is not None):
            logger.warning("%s", name(str(error)))
            told = "the store could not do this; the server's log says why; try again later"
            return answer(request, Problem(503, "store", told))
        status, kind = next((s, k) for of, s, k in _OF_ERRORS if isinstance(error, of))
        more: dict[str, Any] = {}
        if isinstance(error, ProgramError):
            more["diagnostics"] = [found.to_dict() for found in error.diagnostics]
        return answer(request, Problem(status, kind, str(error)), **more)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        told = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        )
        return answer(request, Problem(422, "invalid", told))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        kind = {404: "not-found", 405: "method-not-allowed", 413: "too-long"}.get(
            error.status_code, "http"
        )
        detail = missing().detail if error.status_code == 404 else str(error.detail)
        headers = dict(error.headers) if error.headers else None
        return answer(request, Problem(error.status_code, kind, detail, headers))

    @app.exception_handler(Exception)
    async def _ours(request: Request, error: Exception) -> JSONResponse:
        told = f"an error in nano-vm itself: {type(error).__name__}; the server's log has more"
        return answer(request, Problem(500, "internal", told))
