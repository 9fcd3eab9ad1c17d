"""Logging in by an OpenID Connect provider: to it, and back from it; and its word that somebody has
logged out.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qs

import sqlalchemy as sa
from fastapi import Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from ...errors import VMError
from ...values import parse_json
from ...visible import name as visible
from .. import attempts, audit, memberships
from ..access import approving, entry_of, ip_of
from ..addresses import account_name
from ..credentials import Principal
from ..entering import Entrance, drop_cookie, set_cookie
from ..flows import FLOW_SECONDS, Flow, Unproved, flow_of, new_flow
from ..problems import Problem
from ..providers import ProviderFile
from ..roles import PROVIDER, PUBLIC
from ..routing import Routes, route
from ..rows import Row, Rows
from ..state import State
from ..tables import members, projects, sessions, users

if TYPE_CHECKING:
    from ..oidc import Provider

ROUTES = Routes()

CALLBACK = "/api/v1/oidc/callback"
LOGOUT = "/api/v1/oidc/logout"

logger = logging.getLogger("nano_vm.server")

_REDIRECTS: dict[int | str, dict[str, Any]] = {303: {"description": "elsewhere"}}

Part = Annotated[str, Query(max_length=4000)]


@route(ROUTES, "GET", "/api/v1/oidc/login", PUBLIC, status=303, responses=_REDIRECTS)
def begin_login(request: Request) -> Response:
    """Begin to log in at the provider."""
    state, provider = _provider(request)
    flow = new_flow(state.pepper)
    try:
        answer = _elsewhere(provider.address(flow, _back(state, request)))
    except Unproved as error:
        return _refused(state, error)
    set_cookie(answer, state, state.flow_cookie, flow.cookie, FLOW_SECONDS)
    return answer


@route(ROUTES, "GET", CALLBACK, PUBLIC, status=303, responses=_REDIRECTS)
def end_login(request: Request, state: Part = "", code: Part = "", error: Part = "") -> Response:
    """Come back from the provider, with its code or its refusal."""
    server, provider = _provider(request)
    try:
        flow = flow_of(request.cookies.get(server.flow_cookie, ""), state, server.pepper)
    except Unproved as unproved:
        return _refused(server, unproved)
    try:
        if error or not code:
            raise Unproved("refused", f"the provider refuses: {visible(error)}")
        claims = provider.claims(code, flow, _back(server, request))
        entrance = Entrance(request, server)
        server.tables.write(lambda rows: _enter(rows, entrance, provider.known, claims))
    except Unproved as unproved:
        _note_failure(request, server, flow, unproved)
        return _refused(server, unproved)
    answer = _elsewhere("/")
    drop_cookie(answer, server, server.flow_cookie)
    entrance.give(answer)
    return answer


@route(ROUTES, "POST", LOGOUT, PROVIDER, include_in_schema=False)
async def end_sessions(request: Request) -> Response:
    """The provider says that somebody has logged out there: all their sessions here end."""
    form = parse_qs((await request.body()).decode("ascii", "replace"))
    return await run_in_threadpool(_log_out, request, form.get("logout_token", [""])[0])


def _log_out(request: Request, token: str) -> Response:
    server, provider = _provider(request)
    try:
        issuer, subject = provider.logged_out(token)
    except Unproved as error:
        logger.warning("a logout by the provider failed: %s", visible(str(error)))
        status = 400 if error.kind == "refused" else 503
        told = (
            "this is no logout token of the provider that names a subject; the log has the reason"
        )
        if status == 503:
            told = "the provider does not answer, so its token cannot be checked"
        raise Problem(status, error.kind, told) from error

    def job(rows: Rows) -> None:
        user = rows.one(_by_subject(issuer, subject))
        if user is None:
            return
        if rows.run(sa.delete(sessions).where(sessions.c.user_name == user.name)):
            _log(rows, request, user, "", "logout.everywhere")

    server.tables.write(job)
    return Response()


def _provider(request: Request) -> tuple[State, Provider]:
    state: State = request.app.state.server
    if state.provider is None:
        raise Problem(404, "not-found", "no provider is configured here; log in by name")
    return state, state.provider


def _back(state: State, request: Request) -> str:
    return f"{state.origin(request)}{CALLBACK}"


def _elsewhere(address: str) -> Response:
    return RedirectResponse(address, 303)


def _refused(state: State, error: Unproved) -> Response:
    """Back to the page, which says what it knows of that kind; the log has the reason."""
    logger.warning("a login by the provider failed: %s", visible(str(error)))
    answer = _elsewhere(f"/#/login/{error.kind}")
    drop_cookie(answer, state, state.flow_cookie)
    return answer


def _note_failure(request: Request, state: State, flow: Flow, error: Unproved) -> None:
    """Have the audit log tell of a login that had begun here, unless many have failed from there:
    anybody can begin one, and end it without the provider as often as they like.
    """
    attempt = attempts.return_of(flow.state, ip_of(request), state.pepper)
    detail = {"by": "provider", "kind": error.kind}
    entry = entry_of(request, None, "", "login.failed", "", detail)

    def job(rows: Rows) -> None:
        if not attempts.begin(rows, attempt).wait_ns:
            audit.add(rows, entry)

    state.tables.write(job)


def _enter(rows: Rows, entrance: Entrance, known: ProviderFile, claims: dict[str, Any]) -> None:
    """Somebody comes in, with the account and the roles that the provider's word gives them."""
    audit.hold(rows)  # of two that come at once for the first time, one makes the account
    user = _account(rows, entrance.request, known, claims)
    groups = _groups(claims.get(known.group_claim))
    owner = known.owns(groups)
    if (
        owner is not None
        and owner != bool(user.owner)
        and not memberships.is_last_owner(rows, user.name)
    ):
        rows.run(sa.update(users).where(users.c.name == user.name).values(owner=int(owner)))
        _log(rows, entrance.request, user, "", "user.changed", owner=owner)
        user["owner"] = int(owner)
    for project, membership in known.memberships(groups).items():
        if membership is None:
            if memberships.remove(rows, project, user.name):
                _log(rows, entrance.request, user, project, "member.removed")
        else:
            _join(rows, entrance.request, user, project, *membership)
    entrance.write(rows, Principal(user.name, bool(user.owner)))


def _account(rows: Rows, request: Request, known: ProviderFile, claims: dict[str, Any]) -> Row:
    """The account of who the provider says it is, made where there is none.

    Raises:
        Unproved: If it is disabled, or nobody can be called what the provider says.
    """
    issuer, subject = str(claims["iss"]), str(claims["sub"])
    found = rows.one(_by_subject(issuer, subject))
    if found is not None:
        if found.disabled:
            raise Unproved("disabled", f"{found.name} is disabled")
        return found
    name = _name(known, claims)
    if rows.one(sa.select(users.c.name).where(users.c.name == name)) is not None:
        # never joined by name: who may choose theirs at the provider would become somebody else
        raise Unproved("name", f"somebody else is called {name} here")
    made = Row(
        name=name,
        password=None,
        issuer=issuer,
        subject=subject,
        owner=0,
        disabled=0,
        created_ns=time.time_ns(),
    )
    rows.run(sa.insert(users).values(**made))
    _log(rows, request, made, "", "user.made", issuer=issuer)
    return made


def _by_subject(issuer: str, subject: str) -> sa.Select[Any]:
    return sa.select(users).where(users.c.issuer == issuer, users.c.subject == subject)


def _name(known: ProviderFile, claims: dict[str, Any]) -> str:
    claim = known.name_claim
    if claim == "email" and claims.get("email_verified") is not True:
        raise Unproved("name", "the provider has not verified the e-mail address")
    try:
        return account_name(claims.get(claim))  # type: ignore[arg-type]
    except VMError as error:
        raise Unproved("name", f"the claim {claim!r}: {error}") from error


def _groups(claim: Any) -> frozenset[str]:
    given = claim if isinstance(claim, list) else [claim]
    return frozenset(group for group in given if isinstance(group, str))


def _join(
    rows: Rows, request: Request, user: Row, project: str, role: str, approves: frozenset[str]
) -> None:
    """Have somebody be a member, with an entry in the log where that is a change."""
    if rows.one(sa.select(projects.c.name).where(projects.c.name == project)) is None:
        return
    kept = approving(approves)
    before = rows.one(
        sa.select(members).where(members.c.project == project, members.c.user_name == user.name)
    )
    if before is None or (before.role, before.approves) != (role, kept):
        memberships.put(rows, project, user.name, role, kept)
        _log(rows, request, user, project, "member.put", role=role, approves=parse_json(kept))


def _log(rows: Rows, request: Request, user: Row, project: str, action: str, **detail: Any) -> None:
    who = Principal(user.name, bool(user.owner))
    told = {"by": "provider", **detail}
    audit.add(rows, entry_of(request, who, project, action, user.name, told))
