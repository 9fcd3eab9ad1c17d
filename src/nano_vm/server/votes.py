"""Approvals that need several people: each approves what was shown, and the last one decides.

A vote is for a request as it stands, by its digest, so what has changed since needs all of them
anew. It counts as long as whoever gave it may decide: by their role in the project, by the roles of
approvals that they are listed with, and where four eyes decide, not as who started the run. One
person is one vote, also with a key.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from ..values import parse_json
from . import audit
from .access import ANY_ROLE
from .roles import ROLES
from .rows import Rows
from .scope import Scope
from .tables import members, users, votes

MOST_APPROVERS = 20


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
    own = scope.select(votes).where(*_of(request), votes.c.user_name == entry.actor)
    if rows.one(own) is None:
        asked = {"run": request.run, "path": request.path, "shown": request.shown}
        vote = {**asked, "user_name": entry.actor, "key_id": entry.key_id, "reason": reason}
        rows.run(scope.insert(votes, **vote, at_ns=time.time_ns()))
        audit.add(rows, entry)
    return given(rows, scope, [request])[request]


def given(rows: Rows, scope: Scope, requests: Collection[Request]) -> dict[Request, list[str]]:
    """Who has approved each of *requests* and may still decide, in their order."""
    runs = {request.run for request in requests}
    found = rows.all(scope.select(votes).where(votes.c.run.in_(runs)).order_by(votes.c.at_ns))
    roles = _roles(rows, scope, {vote.user_name for vote in found})
    counted: dict[Request, list[str]] = {request: [] for request in requests}
    for request, names in counted.items():
        names += [
            vote.user_name
            for vote in found
            if (vote.run, vote.path, vote.shown) == request[:3]
            and vote.user_name != request.barred
            and {request.role, ANY_ROLE} & roles[vote.user_name]
        ]
    return counted


def _of(request: Request) -> tuple[Any, ...]:
    return (
        votes.c.run == request.run,
        votes.c.path == request.path,
        votes.c.shown == request.shown,
    )


def _roles(rows: Rows, scope: Scope, names: Iterable[str]) -> dict[str, set[str]]:
    """As what people decide now, by name; nothing for those who may log in or decide no longer."""
    known = rows.all(sa.select(users).where(users.c.name.in_(names), users.c.disabled == 0))
    joined = rows.all(scope.select(members).where(members.c.user_name.in_(names)))
    found: dict[str, set[str]] = {name: set() for name in names}
    for user in known:
        if user.owner:
            found[user.name].add(ANY_ROLE)
        for member in joined:
            if member.user_name == user.name and "step:approve" in ROLES[member.role]:
                found[user.name] |= set(parse_json(member.approves))
    return found
