"""Policies of a project: what its programs must provably keep to, whatever a worker's own policy
says. The newest is in force.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Annotated

import sqlalchemy as sa
from fastapi import Path
from fastapi.responses import JSONResponse
from pydantic import Field

from ...language.policy import Policy
from .. import audit
from ..access import Who
from ..bodies import Body
from ..problems import Problem
from ..routing import PROJECT, Routes, route
from ..rows import Prepared, Row, Rows
from ..scope import Scope
from ..shapes import PolicyList, PolicyVersion
from ..tables import policies

ROUTES = Routes()

Number = Annotated[int, Path(ge=1, lt=2**63)]

KEPT_POLICIES = 64
"""Policies that are not read anew at each check."""

MAX_SOURCE_CHARS = 1_000_000


class PutPolicy(Body):
    """A policy as text, YAML or JSON."""

    source: str = Field(max_length=MAX_SOURCE_CHARS)


_LISTED = (policies.c.version, policies.c.digest, policies.c.put_by, policies.c.put_ns)

_NEWEST = Prepared(
    sa.select(policies.c.version, policies.c.source)
    .where(policies.c.project == sa.bindparam("project"))
    .order_by(policies.c.version.desc())
    .limit(1)
)


def in_force(scope: Scope) -> tuple[int, Policy] | None:
    """The policy that is in force in a project, with its version."""
    with scope.tables.reading() as rows:
        return force_in(rows, scope.project)


def demanded(scope: Scope) -> Policy | None:
    """What the project demands of programs."""
    with scope.tables.reading() as rows:
        return demanded_in(rows, scope.project)


def force_in(rows: Rows, project: str) -> tuple[int, Policy] | None:
    """As `in_force`, in a transaction that is open."""
    row = rows.one(_NEWEST, project=project)
    return None if row is None else (row.version, _policy(row.source))


def demanded_in(rows: Rows, project: str) -> Policy | None:
    """As `demanded`, in a transaction that is open."""
    found = force_in(rows, project)
    return None if found is None else found[1]


@lru_cache(maxsize=KEPT_POLICIES)
def _policy(source: str) -> Policy:
    return Policy.from_yaml(source)


@route(ROUTES, "GET", f"{PROJECT}/policies", "program:read", answers=PolicyList)
def list_policies(who: Who) -> JSONResponse:
    """All versions of the project's policy, newest first: the first is in force."""
    statement = who.scope.select(policies, *_LISTED).order_by(policies.c.version.desc())
    with who.scope.tables.reading() as rows:
        found = rows.all(statement)
    return JSONResponse({"policies": [_row(row) for row in found]})


@route(ROUTES, "POST", f"{PROJECT}/policies", "settings:write", status=201, answers=PolicyVersion)
def put_policy(given: PutPolicy, who: Who) -> JSONResponse:
    """Put a version of the policy, which is in force from now on: a program that does not provably
    keep to it is neither put nor started. One that is in force already is not put again.
    """
    scope, digest = who.scope, Policy.from_yaml(given.source).digest
    entry = who.entry("policy.put", scope.project, digest=digest)

    def job(rows: Rows) -> Row:
        last = rows.one(scope.select(policies).order_by(policies.c.version.desc()).limit(1))
        if last is not None and last.source == given.source:
            return last
        row = Row(
            version=1 if last is None else last.version + 1,
            digest=digest,
            source=given.source,
            put_by=who.name,
            put_ns=time.time_ns(),
        )
        rows.run(scope.insert(policies, **row))
        audit.add(rows, entry)
        return row

    row = scope.tables.write(job)
    return JSONResponse(_version(row), 201)


@route(
    ROUTES,
    "GET",
    f"{PROJECT}/policies/{{version}}",
    "program:read",
    answers=PolicyVersion,
)
def read_policy(version: Number, who: Who) -> JSONResponse:
    """A version of the policy."""
    statement = who.scope.select(policies).where(policies.c.version == version)
    with who.scope.tables.reading() as rows:
        row = rows.one(statement)
    if row is None:
        raise Problem(404, "not-found", f"this project's policy has no version {version}")
    return JSONResponse(_version(row))


def _row(row: Row) -> dict[str, object]:
    shown = {name: row[name] for name in ("version", "digest", "put_by")}
    return {**shown, "put": row.put_ns / 1e6}


def _version(row: Row) -> dict[str, object]:
    return {**_row(row), "source": row.source}
