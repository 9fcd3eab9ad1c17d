"""Logging in and out, and the first owner of an instance."""

from __future__ import annotations

import time
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from ...errors import VMError
from ...store.records import DEFAULT_PROJECT
from .. import attempts, audit, secrets
from ..access import Caller, Who, entry_of, ip_of
from ..addresses import account_name
from ..attempts import Attempt, attempt_of
from ..bodies import Body
from ..credentials import Principal
from ..entering import Entrance, drop_cookie
from ..problems import Problem
from ..roles import PUBLIC, SIGNED_IN
from ..routing import Routes, route
from ..rows import Rows, everywhere
from ..state import State
from ..tables import members, projects, sessions, users

ROUTES = Routes()

Name = Annotated[str, Field(min_length=1, max_length=200)]
Password = Annotated[str, Field(max_length=1000)]


class Setup(Body):
    """The first owner: *token* is what the server has printed."""

    token: str
    name: Name
    password: Password


class Login(Body):
    """Who logs in."""

    name: Name
    password: Password


class NewPassword(Body):
    """A password in place of another."""

    old: Password
    new: Password


class Membership(BaseModel):
    """A project of somebody, and what they may do in it."""

    project: str
    role: str | None
    permissions: list[str]


class Me(BaseModel):
    """Who is logged in."""

    name: str
    owner: bool
    key: str | None
    projects: list[Membership]


class Standing(BaseModel):
    """What a page needs to know before anybody is logged in: whether the first owner is to be made,
    whether passwords are taken, and what the provider is called.
    """

    setup: bool
    local: bool
    oidc: str | None


@route(ROUTES, "GET", "/api/v1/standing", PUBLIC, answers=Standing)
def standing(request: Request) -> Standing:
    """How one logs in here."""
    state: State = request.app.state.server
    known = state.provider.known if state.provider is not None else None
    return Standing(
        setup=state.wants_owner(),
        local=known is None or known.passwords,
        oidc=known.label if known is not None else None,
    )


@route(ROUTES, "POST", "/api/v1/setup", PUBLIC, status=201, answers=Me)
def setup(request: Request, given: Setup) -> JSONResponse:
    """Make the first owner of the instance, once, by the token that the server has printed."""
    state: State = request.app.state.server
    expected = state.setup_token
    if expected is None or not secrets.same(given.token, expected):
        raise Problem(403, "not-permitted", "this is not the token that the server has printed")
    name = account_name(given.name)
    kept = secrets.hash_of_password(given.password)
    now = time.time_ns()
    owner = Principal(name, True)

    def job(rows: Rows) -> None:
        if rows.one(sa.select(users.c.name).limit(1)) is not None:
            raise VMError("the instance has an owner already; log in")
        rows.run(
            sa.insert(users).values(name=name, password=kept, owner=1, disabled=0, created_ns=now)
        )
        rows.run(sa.insert(projects).values(name=DEFAULT_PROJECT, settings="{}", created_ns=now))
        audit.add(rows, entry_of(request, owner, "", "instance.setup", name, {}))

    state.tables.write(job)
    state.setup_token = None
    return _logged_in(request, state, owner, 201)


@route(ROUTES, "POST", "/api/v1/login", PUBLIC, answers=Me)
def login(request: Request, given: Login) -> JSONResponse:
    """Log in with a name and a password."""
    state: State = request.app.state.server
    if state.provider is not None and not state.provider.known.passwords:
        told = f"here one logs in by {state.provider.known.label}"
        raise Problem(403, "not-permitted", told)
    attempt = attempt_of(given.name, ip_of(request), state.pepper)
    begun = _begun(state, attempt)
    with state.tables.reading() as rows:
        user = rows.one(sa.select(users).where(users.c.name == given.name))
    right = secrets.is_password(user.password if user is not None else None, given.password)
    if user is None or not right or user.disabled:
        # who is not known may have typed a password in the place of a name
        name, detail = (user.name, {}) if user else ("", {"unknown_name_chars": len(given.name)})
        entry = entry_of(request, None, "", "login.failed", name, detail)
        state.tables.write(lambda rows: audit.add(rows, entry))
        raise Problem(401, "not-signed-in", "the name or the password is wrong")
    state.tables.write(lambda rows: attempts.succeeded(rows, attempt, begun))
    return _logged_in(request, state, Principal(user.name, bool(user.owner)))


class LoggedOut(BaseModel):
    """Where one logs out at the provider too, for who logged in there."""

    next: str | None


@route(ROUTES, "POST", "/api/v1/logout", SIGNED_IN, answers=LoggedOut)
def logout(request: Request, who: Who) -> Response:
    """End this session."""
    _require_person(who, "a session is ended")
    state = who.state
    with state.tables.reading() as rows:
        user = rows.one(sa.select(users).where(users.c.name == who.name))
    _end_sessions(who, sessions.c.hash == who.principal.session, "logout")
    next_ = None
    if state.provider is not None and user is not None and user.issuer is not None:
        next_ = state.provider.goodbye(f"{state.origin(request)}/")
    answer = JSONResponse({"next": next_})
    drop_cookie(answer, state, state.cookie)
    return answer


@route(ROUTES, "POST", "/api/v1/logout-everywhere", SIGNED_IN, status=204)
def logout_everywhere(who: Who) -> Response:
    """End all sessions of who asks."""
    _require_person(who, "sessions are ended")
    _end_sessions(who, sessions.c.user_name == who.name, "logout.everywhere")
    return _gone(who.state)


@route(ROUTES, "POST", "/api/v1/password", SIGNED_IN, status=204)
def change_password(given: NewPassword, who: Who) -> Response:
    """Change one's password; all sessions end, this one too."""
    _require_person(who, "a password is changed")
    attempt = attempt_of(who.name, who.ip, who.state.pepper)
    begun = _begun(who.state, attempt)
    with who.state.tables.reading() as rows:
        user = rows.one(sa.select(users).where(users.c.name == who.name))
    if not secrets.is_password(user.password if user is not None else None, given.old):
        raise Problem(403, "not-permitted", "the old password is wrong")
    kept = secrets.hash_of_password(given.new)

    def job(rows: Rows) -> None:
        rows.run(sa.update(users).where(users.c.name == who.name).values(password=kept))
        rows.run(sa.delete(sessions).where(sessions.c.user_name == who.name))
        attempts.succeeded(rows, attempt, begun)

    who.change(job, who.entry("password.changed", who.name))
    return _gone(who.state)


def _require_person(who: Caller, what: str) -> None:
    """Refuse a key: a program that holds one is not the person who made it."""
    if who.principal.key_id is not None:
        raise Problem(403, "not-permitted", f"{what} by the person, logged in, and not by a key")


@route(ROUTES, "GET", "/api/v1/me", SIGNED_IN, answers=Me)
def me(who: Who) -> Me:
    """Who is logged in, and what they may do where."""
    return _me(who.state, who.principal)


def _me(state: State, principal: Principal) -> Me:
    with state.tables.reading() as rows:
        own = rows.all(everywhere(sa.select(members).where(members.c.user_name == principal.name)))
        known = rows.all(sa.select(projects.c.name).order_by(projects.c.name))
    roles = {row.project: row.role for row in own}
    found = []
    for project in known:
        role = roles.get(project.name)
        if principal.key_project not in (None, project.name):
            continue
        permissions = principal.permissions(role)
        if permissions:
            found.append(
                Membership(project=project.name, role=role, permissions=sorted(permissions))
            )
    return Me(name=principal.name, owner=principal.owner, key=principal.key_id, projects=found)


def _logged_in(
    request: Request, state: State, principal: Principal, status: int = 200
) -> JSONResponse:
    """The answer to who has proved who they are."""
    entrance = Entrance(request, state)
    state.tables.write(lambda rows: entrance.write(rows, principal))
    answer = JSONResponse(_me(state, principal).model_dump(), status)
    entrance.give(answer)
    return answer


def _begun(state: State, attempt: Attempt) -> attempts.Begun:
    """That an attempt is counted.

    Raises:
        Problem: If too many have failed.
    """
    begun: attempts.Begun = state.tables.write(lambda rows: attempts.begin(rows, attempt))
    if begun.wait_ns > 0:
        raise attempts.too_many(begun.wait_ns)
    return begun


def _end_sessions(who: Caller, which: Any, action: str) -> None:
    statement = sa.delete(sessions).where(which)
    who.change(lambda rows: rows.run(statement), who.entry(action, who.name))


def _gone(state: State) -> Response:
    answer = Response(status_code=204)
    drop_cookie(answer, state, state.cookie)
    return answer
