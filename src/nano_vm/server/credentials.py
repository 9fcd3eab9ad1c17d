"""Who somebody is and what they may do in a project, by what they prove it with: the cookie of a
session, or an API key. One statement finds all of it, for one request or for many who are asked
about at once.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from . import secrets
from .roles import ALL, ROLES, Role
from .rows import Prepared, Row, Rows, everywhere
from .tables import keys, members, projects, sessions, users

IDLE_NS = 8 * 3600 * 10**9
"""A session that nobody used for a working day is over."""

ABSOLUTE_NS = 7 * 24 * 3600 * 10**9
"""After a week one logs in again."""


class Credential(NamedTuple):
    """What somebody proves who they are by, as far as it is kept: the hash of the session's cookie,
    or a key by its id and with its keyed hash.
    """

    session: str | None = None
    key_id: str | None = None
    key_hash: str = ""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has proved who they are: a person by a session, or a program by a key, which is
    bound to a project and a role.
    """

    name: str
    owner: bool
    session: str | None = None
    key_id: str | None = None
    key_project: str | None = None
    key_role: Role | None = None

    def permissions(self, role: Role | None) -> frozenset[str]:
        """What they may do in a project that they have *role* in."""
        if self.owner:
            own = ALL
        else:
            own = ROLES[role] if role is not None else frozenset()
        if self.key_role is not None:
            return own & ROLES[self.key_role]
        return own


class Right(NamedTuple):
    """That whoever has *credential* may do something in a project, as long as that is so."""

    credential: Credential
    project: str
    permission: str


class Identity(NamedTuple):
    """Who somebody is; what they may do in the project that was asked about, which is nothing where
    it is not there or none of theirs; and the roles of approvals that they have in it, as they
    are kept.
    """

    principal: Principal
    permissions: frozenset[str]
    approves: str


def _beside(table: sa.Table, person: Any) -> sa.Select[Any]:
    """Rows of *table* with the account of the *person* whose they are, and their membership of the
    project that is asked about.
    """
    project: sa.BindParameter[Any] = sa.bindparam("asked")
    return sa.select(
        *table.c,
        users.c.owner,
        users.c.disabled,
        members.c.role.label("member_role"),
        members.c.approves,
        projects.c.name.label("known"),
    ).select_from(
        table.join(users, users.c.name == person)
        .outerjoin(members, sa.and_(members.c.user_name == person, members.c.project == project))
        .outerjoin(projects, projects.c.name == project)
    )


_ALL_SESSIONS = _beside(sessions, sessions.c.user_name)
_ALL_KEYS = everywhere(_beside(keys, keys.c.maker))
_SESSION = Prepared(_ALL_SESSIONS.where(sessions.c.hash == sa.bindparam("session")))
_KEY = Prepared(_ALL_KEYS.where(keys.c.id == sa.bindparam("key_id")))
_WHICH: sa.BindParameter[Any] = sa.bindparam("which", expanding=True)
_SESSIONS = Prepared(_ALL_SESSIONS.where(sessions.c.hash.in_(_WHICH)))
_KEYS = Prepared(_ALL_KEYS.where(keys.c.id.in_(_WHICH)))


def identified(rows: Rows, credential: Credential, project: str | None) -> Identity | None:
    """Who has *credential*; None where it proves nothing, or nothing any more."""
    if credential.session is not None:
        row = rows.one(_SESSION, asked=project, session=credential.session)
    else:
        row = rows.one(_KEY, asked=project, key_id=credential.key_id)
    return None if row is None else _identity(row, credential, project)


def holding(rows: Rows, rights: Collection[Right]) -> set[Right]:
    """Those of *rights* that are still so, by one statement for the sessions of each project, and
    one for the keys.
    """
    found = set()
    for project in {right.project for right in rights}:
        wanted = [right for right in rights if right.project == project]
        permitted = _permitted(rows, {right.credential for right in wanted}, project)
        found |= {one for one in wanted if one.permission in permitted.get(one.credential, ())}
    return found


def _permitted(
    rows: Rows, credentials: Collection[Credential], project: str
) -> dict[Credential, frozenset[str]]:
    by_session = {one.session: one for one in credentials if one.session is not None}
    by_key = {one.key_id: one for one in credentials if one.session is None}
    proved: list[tuple[Credential, Row]] = []
    if by_session:
        found_sessions = rows.all(_SESSIONS, asked=project, which=list(by_session))
        proved += [(by_session[row.hash], row) for row in found_sessions]
    if by_key:
        found_keys = rows.all(_KEYS, asked=project, which=list(by_key))
        proved += [(by_key[row.id], row) for row in found_keys]
    found = {one: _identity(row, one, project) for one, row in proved}
    return {one: identity.permissions for one, identity in found.items() if identity is not None}


def _identity(row: Row, credential: Credential, project: str | None) -> Identity | None:
    principal = _of_session(row) if credential.session is not None else _of_key(row, credential)
    if principal is None or row.disabled:
        return None
    permissions: frozenset[str] = frozenset()
    if row.known is not None and principal.key_project in (None, project):
        permissions = principal.permissions(row.member_role)
    return Identity(principal, permissions, row.approves or "[]")


def _of_session(row: Row) -> Principal | None:
    if time.time_ns() > min(row.seen_ns + IDLE_NS, row.created_ns + ABSOLUTE_NS):
        return None
    return Principal(row.user_name, bool(row.owner), session=row.hash)


def _of_key(row: Row, credential: Credential) -> Principal | None:
    over = row.expires_ns is not None and time.time_ns() > row.expires_ns
    if over or row.revoked_ns is not None or not secrets.same(row.hash, credential.key_hash):
        return None
    return Principal(
        row.maker,
        bool(row.owner),
        key_id=row.id,
        key_project=row.project,
        key_role=row.role,
    )
