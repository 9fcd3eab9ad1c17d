"""Approvals that need several people: each approves what was shown, and the last one decides.

A vote is for a request as it stands, by its digest, so what has changed since needs all of them
anew. It counts as long as whoever gave it may decide: by their role in the project, by the roles of
approvals that they are listed with, and where four eyes decide, not as who started the run. One
person is one vote, also with a key.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from ..values import parse_json
from . import audit
from .access import ANY_ROLE
from .roles import ROLES
from .rows import Prepared, Row, Rows
from .scope import Scope
from .tables import members, users, votes

MOST_APPROVERS = 20

_OWN = Prepared(
    sa.select(votes.c.at_ns).where(
        *(
            votes.c[name] == sa.bindparam(name)
            for name in ("project", "run", "path", "shown", "user_name")
        )
    )
)
_VOTE = Prepared(sa.insert(votes))
_OF_RUNS = Prepared(
    sa.select(
        *(votes.c.run, votes.c.path, votes.c.shown, votes.c.user_name),
        *(users.c.owner, members.c.role, members.c.approves),
    )
    .select_from(
        votes.join(users, users.c.name == votes.c.user_name).outerjoin(
            members,
            sa.and_(members.c.user_name == users.c.name, members.c.project == votes.c.project),
        )
    )
    .where(
        votes.c.project == sa.bindparam("project"),
        votes.c.run.in_(sa.bindparam("runs", expanding=True)),
        users.c.disabled == 0,
    )
    .order_by(votes.c.at_ns)
)
"""What people say of some runs who may log in, as what they may decide now."""


class Request(NamedTuple):
    """What a run asks, as it was shown, the role that it asks for, and who may not decide it."""

    run: str
    path: str
    shown: str
    role: str
    barred: str | None


def needed(settings: Mapping[str, Any], role: str | None) -> int:
    """How many people approve what asks for *role*."""
    return int(settings.get("approvers", {}).get(role, 1))


def cast(rows: Rows, scope: Scope, request: Request, reason: str, entry: audit.Entry) -> list[str]:
    """Who has approved *request*, in their order, with the one of *entry*, whose vote is recorded."""
    audit.hold(rows)  # so that two of one person at once are one after the other, and one vote
    vote = {
        "project": scope.project,
        "run": request.run,
        "path": request.path,
        "shown": request.shown,
        "user_name": entry.actor,
    }
    own = rows.one(_OWN, **vote)
    if own is None:
        rows.run(_VOTE, **vote, key_id=entry.key_id, reason=reason, at_ns=time.time_ns())
        audit.add(rows, entry)
    return given(rows, scope, [request])[request]


def given(rows: Rows, scope: Scope, requests: Collection[Request]) -> dict[Request, list[str]]:
    """Who has approved each of *requests* and may still decide, in their order."""
    runs = sorted({request.run for request in requests})
    found = rows.all(_OF_RUNS, project=scope.project, runs=runs)
    roles = {vote.user_name: _roles(vote) for vote in found}
    said: dict[tuple[str, ...], list[Row]] = {}
    for vote in found:
        said.setdefault((vote.run, vote.path, vote.shown), []).append(vote)
    counted: dict[Request, list[str]] = {request: [] for request in requests}
    for request, names in counted.items():
        names += [
            vote.user_name
            for vote in said.get(request[:3], ())
            if vote.user_name != request.barred and {request.role, ANY_ROLE} & roles[vote.user_name]
        ]
    return counted


def _roles(vote: Row) -> set[str]:
    """As what the person whose *vote* it is decides now."""
    roles: set[str] = {ANY_ROLE} if vote.owner else set()
    if vote.role is not None and "step:approve" in ROLES[vote.role]:
        roles |= set(parse_json(vote.approves))
    return roles
