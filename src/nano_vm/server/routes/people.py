"""Logging in and out, and the first owner of an instance."""

from __future__ import annotations

import time
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from ...errors import VMError
from ...run.inbox import principal as checked_principal
from .. import audit, secrets
from ..access import ABSOLUTE_NS, Caller, Principal, caller, entry_of, ip_of
from ..bodies import Body
from ..problems import Problem
from ..roles import PUBLIC, SIGNED_IN
from ..routing import Routes, route
from ..rows import Rows, everywhere
from ..state import State
from ..tables import attempts, members, projects, sessions, users

ROUTES = Routes()

FREE_ATTEMPTS = 5
"""To log in, that fail, before one has to wait; each further one waits twice as long."""

FIRST_WAIT_NS, LONGEST_WAIT_NS = 2 * 10**9, 15 * 60 * 10**9

FORGIVEN_NS = 3600 * 10**9
"""How long after the last attempt that failed they are forgotten."""

DEFAULT_PROJECT = "default"

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
    """What a page needs to know before anybody is logged in."""

    setup: bool
    local: bool
    oidc: str | None


@route(ROUTES, "GET", "/api/v1/standing", PUBLIC, answers=Standing)
def standing(request: Request) -> Standing:
    """How one logs in here."""
    state: State = request.app.state.server
    return Standing(setup=state.setup_token is not None, local=True, oidc=None)


@route(ROUTES, "POST", "/api/v1/setup", PUBLIC, status=201, answers=Me)
def setup(request: Request, given: Setup) -> JSONResponse:
    """Make the first owner of the instance, once, by the token that the server has printed."""
    state: State = request.app.state.server
    expected = state.setup_token
    if expected is None or not secrets.same(given.token, expected):
        raise Problem(403, "not-permitted", "this is not the token that the server has printed")
    name = checked_principal(given.name)
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
    who = (f"name {given.name}", f"ip {ip_of(request)}")
    with state.tables.reading() as rows:
        wait_ns = _wait_ns(rows, who)
        user = rows.one(sa.select(users).where(users.c.name == given.name))
    if wait_ns > 0:
        raise _too_many(wait_ns)
    right = secrets.is_password(user.password if user is not None else None, given.password)
    if user is None or not right or user.disabled:
        entry = entry_of(request, None, "", "login.failed", given.name, {})
        state.tables.write(lambda rows: _failed(rows, who, entry))
        raise Problem(401, "not-signed-in", "the name or the password is wrong")
    state.tables.write(lambda rows: rows.run(sa.delete(attempts).where(attempts.c.who.in_(who))))
    return _logged_in(request, state, Principal(user.name, bool(user.owner)))


@route(ROUTES, "POST", "/api/v1/logout", SIGNED_IN, status=204)
def logout(who: Annotated[Caller, Depends(caller)]) -> Response:
    """End this session."""
    return _logged_out(who, sessions.c.hash == who.principal.session, "logout")


@route(ROUTES, "POST", "/api/v1/logout-everywhere", SIGNED_IN, status=204)
def logout_everywhere(who: Annotated[Caller, Depends(caller)]) -> Response:
    """End all sessions of who asks."""
    _require_person(who, "sessions are ended")
    return _logged_out(who, sessions.c.user_name == who.name, "logout.everywhere")


@route(ROUTES, "POST", "/api/v1/password", SIGNED_IN, status=204)
def change_password(given: NewPassword, who: Annotated[Caller, Depends(caller)]) -> Response:
    """Change one's password; all sessions end, this one too."""
    _require_person(who, "a password is changed")
    with who.state.tables.reading() as rows:
        user = rows.one(sa.select(users).where(users.c.name == who.name))
    if not secrets.is_password(user.password if user is not None else None, given.old):
        raise Problem(403, "not-permitted", "the old password is wrong")
    kept = secrets.hash_of_password(given.new)

    def job(rows: Rows) -> None:
        rows.run(sa.update(users).where(users.c.name == who.name).values(password=kept))
        rows.run(sa.delete(sessions).where(sessions.c.user_name == who.name))

    who.change(job, who.entry("password.changed", who.name))
    return _gone(who.state)


def _require_person(who: Caller, what: str) -> None:
    """Refuse a key: a program that holds one is not the person who made it."""
    if who.principal.key_id is not None:
        raise Problem(403, "not-permitted", f"{what} by the person, logged in, and not by a key")


@route(ROUTES, "GET", "/api/v1/me", SIGNED_IN, answers=Me)
def me(who: Annotated[Caller, Depends(caller)]) -> Me:
    """Who is logged in, and what they may do where."""
    return _me(who.state, who.principal)


def _me(state: State, principal: Principal) -> Me:
    with state.tables.reading() as rows:
        own = rows.all(everywhere(sa.select(members).where(members.c.user_name == principal.name)))
        known = rows.all(sa.select(projects.c.name).order_by(projects.c.name))
    roles = {row.project: row for row in own}
    found = []
    for project in known:
        member = roles.get(project.name)
        if principal.key_project not in (None, project.name):
            continue
        permissions = principal.permissions(member)
        if permissions:
            role = member.role if member is not None else None
            found.append(
                Membership(project=project.name, role=role, permissions=sorted(permissions))
            )
    return Me(name=principal.name, owner=principal.owner, key=principal.key_id, projects=found)


def _logged_in(
    request: Request, state: State, principal: Principal, status: int = 200
) -> JSONResponse:
    """The answer to who has proved who they are: a new session, whatever cookie came with it."""
    cookie, now = secrets.new_cookie(), time.time_ns()
    before = request.cookies.get(state.cookie)

    def job(rows: Rows) -> None:
        if before:
            kept = secrets.hash_of_cookie(before)
            rows.run(sa.delete(sessions).where(sessions.c.hash == kept))
        rows.run(sa.delete(sessions).where(sessions.c.created_ns < now - ABSOLUTE_NS))
        rows.run(
            sa.insert(sessions).values(
                hash=secrets.hash_of_cookie(cookie),
                user_name=principal.name,
                created_ns=now,
                seen_ns=now,
                ip=ip_of(request),
            )
        )
        audit.add(rows, entry_of(request, principal, "", "login", principal.name, {}))

    state.tables.write(job)
    answer = JSONResponse(_me(state, principal).model_dump(), status)
    answer.set_cookie(
        state.cookie,
        cookie,
        max_age=ABSOLUTE_NS // 10**9,
        httponly=True,
        secure=state.secure,
        samesite="lax",
        path="/",
    )
    return answer


def _logged_out(who: Caller, which: Any, action: str) -> Response:
    statement = sa.delete(sessions).where(which)
    who.change(lambda rows: rows.run(statement), who.entry(action, who.name))
    return _gone(who.state)


def _gone(state: State) -> Response:
    answer = Response(status_code=204)
    answer.delete_cookie(state.cookie, path="/", secure=state.secure, httponly=True)
    return answer


def _wait_ns(rows: Rows, who: tuple[str, ...]) -> int:
    found = rows.all(sa.select(attempts).where(attempts.c.who.in_(who)))
    return max((row.until_ns - time.time_ns() for row in found), default=0)


def _too_many(wait_ns: int) -> Problem:
    seconds = wait_ns // 10**9 + 1
    return Problem(
        429,
        "too-many-attempts",
        f"too many attempts to log in have failed; try again in {seconds} s",
        {"Retry-After": str(seconds)},
    )


def _failed(rows: Rows, who: tuple[str, ...], entry: audit.Entry) -> None:
    audit.add(rows, entry)  # first: whoever else fails waits for its head
    now = time.time_ns()
    rows.run(sa.delete(attempts).where(attempts.c.until_ns < now - FORGIVEN_NS))
    for one in who:
        found = rows.one(sa.select(attempts).where(attempts.c.who == one).with_for_update())
        failures = 1 + (found.failures if found is not None else 0)
        late = failures - FREE_ATTEMPTS
        wait = min(FIRST_WAIT_NS * 2 ** min(late, 20), LONGEST_WAIT_NS) if late >= 0 else 0
        values = {"failures": failures, "until_ns": now + wait}
        if found is None:
            rows.run(sa.insert(attempts).values(who=one, **values))
        else:
            rows.run(sa.update(attempts).where(attempts.c.who == one).values(**values))
