"""Members, keys, settings and the audit log of a project; projects and people of the instance."""

from __future__ import annotations

import time
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Query, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field

from ...errors import VMError
from ...values import canonical, parse_json
from .. import audit, memberships, secrets
from ..access import Caller, Who, approving
from ..addresses import account_name
from ..bodies import Body
from ..problems import Problem
from ..roles import OWNER, ROLES, Role
from ..routing import PROJECT, Routes, route
from ..rows import Row, Rows, everywhere
from ..shapes import (
    AuditFaults,
    AuditList,
    KeyList,
    MemberList,
    NewKey,
    ProjectList,
    Recorded,
    Settings,
    UserList,
)
from ..tables import audit as entries
from ..tables import keys, members, projects, sessions, users
from ..votes import MOST_APPROVERS
from .people import Name, Password

ROUTES = Routes()

PAGE_ENTRIES = 100

Number = Annotated[int, Query(ge=1, lt=2**63)]


# --- members ---


RoleName = Annotated[str, Field(min_length=1, max_length=200)]
"""Of a role that approvals ask for."""


class Member(Body):
    """What somebody may do in a project; *approves* are roles that approvals ask for, ``*`` all."""

    role: Role
    approves: list[Annotated[str, Field(max_length=200)]] = Field(
        default_factory=list, max_length=50
    )


@route(ROUTES, "GET", f"{PROJECT}/members", "member:manage", answers=MemberList)
def list_members(who: Who) -> JSONResponse:
    """Who may do what in the project."""
    with who.state.tables.reading() as rows:
        found = rows.all(who.scope.select(members).order_by(members.c.user_name))
    shown = [
        {"name": row.user_name, "role": row.role, "approves": parse_json(row.approves)}
        for row in found
    ]
    return JSONResponse({"members": shown})


@route(ROUTES, "PUT", f"{PROJECT}/members/{{name}}", "member:manage", answers=Recorded)
def put_member(name: str, given: Member, who: Who) -> JSONResponse:
    """Give somebody who can log in here a role in the project."""
    project, approves = who.scope.project, approving(given.approves)

    def job(rows: Rows) -> None:
        if rows.one(sa.select(users.c.name).where(users.c.name == name)) is None:
            raise missing_user(name)
        memberships.put(rows, project, name, given.role, approves)

    who.change(job, who.entry("member.put", name, **given.model_dump()))
    return JSONResponse({"recorded": True})


@route(ROUTES, "DELETE", f"{PROJECT}/members/{{name}}", "member:manage", status=204)
def remove_member(name: str, who: Who) -> Response:
    """Take somebody's role in the project away; their keys end with it."""
    project = who.scope.project

    def job(rows: Rows) -> None:
        if not memberships.remove(rows, project, name):
            raise missing_user(name)

    who.change(job, who.entry("member.removed", name))
    return Response(status_code=204)


def missing_user(name: str) -> VMError:
    """That nobody of this name is there."""
    return VMError(f"there is nobody called {name!r} here")


# --- keys ---


class KeyWanted(Body):
    """A key for a program that calls the API: it may do what *role* may, and no more than who makes
    it.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    role: Role
    days: int | None = Field(90, ge=1, le=3650, description="until it expires; null: never")


@route(ROUTES, "GET", f"{PROJECT}/keys", "key:manage", answers=KeyList)
def list_keys(who: Who) -> JSONResponse:
    """The project's keys, without their secrets."""
    with who.state.tables.reading() as rows:
        found = rows.all(who.scope.select(keys).order_by(keys.c.created_ns))
    return JSONResponse({"keys": [_key(row) for row in found]})


@route(ROUTES, "POST", f"{PROJECT}/keys", "key:manage", status=201, answers=NewKey)
def make_key(given: KeyWanted, who: Who) -> JSONResponse:
    """Make a key; its secret is shown this once."""
    if not ROLES[given.role] <= who.permissions:
        raise Problem(403, "not-permitted", "a key may do no more than who makes it")
    scope, made, now = who.scope, secrets.new_key(), time.time_ns()
    statement = scope.insert(
        keys,
        id=made.id,
        hash=secrets.keyed_hash(made.text, who.state.pepper),
        name=given.name,
        maker=who.name,
        role=given.role,
        created_ns=now,
        expires_ns=None if given.days is None else now + given.days * 86_400 * 10**9,
    )
    entry = who.entry("key.made", made.id, **given.model_dump())
    who.change(lambda rows: rows.run(statement), entry)
    return JSONResponse({"id": made.id, "key": made.text}, 201)


@route(ROUTES, "DELETE", f"{PROJECT}/keys/{{key_id}}", "key:manage", status=204)
def revoke_key(key_id: str, who: Who) -> Response:
    """Revoke a key: it is refused from now on."""
    scope, now = who.scope, time.time_ns()
    own = keys.c.id == key_id
    entry = who.entry("key.revoked", key_id)

    def job(rows: Rows) -> None:
        if rows.one(scope.select(keys).where(own)) is None:
            raise VMError(f"there is no key {key_id!r} in this project")
        valid = scope.update(keys).where(own, keys.c.revoked_ns.is_(None))
        if rows.run(valid.values(revoked_ns=now)):
            audit.add(rows, entry)

    who.state.tables.write(job)
    return Response(status_code=204)


def _key(row: Row) -> dict[str, Any]:
    times = {
        name: None if row[f"{name}_ns"] is None else row[f"{name}_ns"] / 1e6
        for name in ("created", "expires", "used", "revoked")
    }
    return {**{name: row[name] for name in ("id", "name", "maker", "role")}, **times}


# --- settings ---


@route(ROUTES, "GET", f"{PROJECT}/settings", "program:read", answers=Settings)
def read_settings(who: Who) -> JSONResponse:
    """Settings of the project."""
    return JSONResponse(_settings(who))


def _settings(who: Caller) -> dict[str, Any]:
    found = who.scope.settings()
    return {"four_eyes": bool(found.get("four_eyes")), "approvers": found.get("approvers", {})}


class NewSettings(Body):
    """*four_eyes*: a run is decided by another than who started it. *approvers*: by the role that an
    approval asks for, how many people approve, where that is more than one. What is left out stays.
    """

    four_eyes: bool | None = None
    approvers: dict[RoleName, Annotated[int, Field(ge=1, le=MOST_APPROVERS)]] | None = Field(
        None, max_length=100
    )


@route(ROUTES, "PUT", f"{PROJECT}/settings", "settings:write", answers=Recorded)
def write_settings(given: NewSettings, who: Who) -> JSONResponse:
    """Change the settings of the project."""
    changed = given.model_dump(exclude_none=True)
    before = _settings(who)
    document = canonical({**before, **changed}).decode()
    statement = (
        sa.update(projects).where(projects.c.name == who.scope.project).values(settings=document)
    )
    entry = who.entry("settings.written", who.scope.project, before=before, **changed)
    who.change(lambda rows: rows.run(statement), entry)
    return JSONResponse({"recorded": True})


# --- the log ---


@route(ROUTES, "GET", f"{PROJECT}/audit", "audit:read", answers=AuditList)
def read_audit(who: Who, before: Number | None = None) -> JSONResponse:
    """The project's entries in the audit log, newest first."""
    statement = who.scope.select(entries).order_by(entries.c.number.desc()).limit(PAGE_ENTRIES)
    return _entries(who, statement, before)


@route(ROUTES, "GET", "/api/v1/audit", OWNER, answers=AuditList)
def read_whole_audit(who: Who, before: Number | None = None) -> JSONResponse:
    """All entries of the audit log, newest first."""
    statement = sa.select(entries).order_by(entries.c.number.desc()).limit(PAGE_ENTRIES)
    return _entries(who, everywhere(statement), before)


@route(ROUTES, "GET", "/api/v1/audit/verify", OWNER, answers=AuditFaults)
def verify_audit(who: Who) -> JSONResponse:
    """Hold the whole log against its hashes."""
    with who.state.tables.reading() as rows:
        return JSONResponse({"faults": list(audit.faults(rows))})


@route(
    ROUTES,
    "GET",
    "/api/v1/audit/export",
    OWNER,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "JSON Lines"}},
)
def export_audit(who: Who) -> StreamingResponse:
    """The whole log, oldest first, an entry a line."""

    lines = (line + b"\n" for line in audit.lines(who.state.tables))
    return StreamingResponse(lines, media_type="application/x-ndjson")


def _entries(who: Caller, statement: Any, before: int | None) -> JSONResponse:
    if before is not None:
        statement = statement.where(entries.c.number < before)
    with who.state.tables.reading() as rows:
        found = rows.all(statement)
    more = found[-1].number if len(found) == PAGE_ENTRIES else None
    return JSONResponse({"entries": [audit.shown(row) for row in found], "before": more})


# --- the instance ---


class NewProject(Body):
    """A project, by its name."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


@route(ROUTES, "GET", "/api/v1/projects", OWNER, answers=ProjectList)
def list_projects(who: Who) -> JSONResponse:
    """All projects of the instance."""
    with who.state.tables.reading() as rows:
        found = rows.all(sa.select(projects).order_by(projects.c.name))
    shown = [{"name": row.name, "created": row.created_ns / 1e6} for row in found]
    return JSONResponse({"projects": shown})


@route(ROUTES, "POST", "/api/v1/projects", OWNER, status=201, answers=Recorded)
def make_project(given: NewProject, who: Who) -> JSONResponse:
    """Make a project."""
    name = given.name
    statement = sa.insert(projects).values(name=name, settings="{}", created_ns=time.time_ns())

    def job(rows: Rows) -> None:
        if rows.one(sa.select(projects.c.name).where(projects.c.name == name)) is not None:
            raise VMError(f"there is a project {name!r} already")
        rows.run(statement)

    who.change(job, who.entry("project.made", name))
    return JSONResponse({"recorded": True}, 201)


class NewUser(Body):
    """A person who logs in with a password."""

    name: Name
    password: Password
    owner: bool = False


class UserChange(Body):
    """What is changed of a person; what is left out stays."""

    disabled: bool | None = None
    owner: bool | None = None
    password: Password | None = None


@route(ROUTES, "GET", "/api/v1/users", OWNER, answers=UserList)
def list_users(who: Who) -> JSONResponse:
    """All people who may log in."""
    with who.state.tables.reading() as rows:
        found = rows.all(sa.select(users).order_by(users.c.name))
    shown = [
        {
            "name": row.name,
            "owner": bool(row.owner),
            "disabled": bool(row.disabled),
            "local": row.password is not None,
            "created": row.created_ns / 1e6,
        }
        for row in found
    ]
    return JSONResponse({"users": shown})


@route(ROUTES, "POST", "/api/v1/users", OWNER, status=201, answers=Recorded)
def make_user(given: NewUser, who: Who) -> JSONResponse:
    """Make a local account."""
    name = account_name(given.name)
    values = {
        "name": name,
        "password": secrets.hash_of_password(given.password),
        "owner": int(given.owner),
        "disabled": 0,
        "created_ns": time.time_ns(),
    }

    def job(rows: Rows) -> None:
        if rows.one(sa.select(users.c.name).where(users.c.name == name)) is not None:
            raise VMError(f"somebody is called {name!r} already")
        rows.run(sa.insert(users).values(**values))

    who.change(job, who.entry("user.made", name, owner=given.owner))
    return JSONResponse({"recorded": True}, 201)


@route(ROUTES, "PATCH", "/api/v1/users/{name}", OWNER, answers=Recorded)
def change_user(name: str, given: UserChange, who: Who) -> JSONResponse:
    """Change a person; who is disabled, or gets another password, is logged out everywhere."""
    values: dict[str, Any] = {
        key: int(value)
        for key, value in (("disabled", given.disabled), ("owner", given.owner))
        if value is not None
    }
    if given.password is not None:
        values["password"] = secrets.hash_of_password(given.password)
    if not values:
        raise VMError("say what is to be changed: disabled, owner or password")

    def job(rows: Rows) -> None:
        audit.hold(rows)  # of two owners who take it from each other, one is the last
        found = rows.one(sa.select(users).where(users.c.name == name))
        if found is None:
            raise missing_user(name)
        after = {**found, **values}
        stays = after["owner"] and not after["disabled"]
        if not stays and memberships.is_last_owner(rows, name):
            raise VMError(f"{name!r} is the only owner; make another one first")
        rows.run(sa.update(users).where(users.c.name == name).values(**values))
        if given.disabled or given.password is not None:
            rows.run(sa.delete(sessions).where(sessions.c.user_name == name))

    told = given.model_dump(exclude={"password"}, exclude_none=True)
    who.change(job, who.entry("user.changed", name, **told))
    return JSONResponse({"recorded": True})
