"""Roles of people in projects, as they are given and taken, whoever does it; and owners."""

from __future__ import annotations

import time

import sqlalchemy as sa

from . import audit
from .rows import Rows
from .tables import keys, members, users


def put(rows: Rows, project: str, name: str, role: str, approves: str) -> None:
    """Give somebody *role* in a project; *approves* as `access.approving` writes it."""
    audit.hold(rows)  # so that two who give one at once are one after the other
    own = (members.c.project == project, members.c.user_name == name)
    values = {"role": role, "approves": approves}
    if not rows.run(sa.update(members).where(*own).values(**values)):
        rows.run(sa.insert(members).values(project=project, user_name=name, **values))


def remove(rows: Rows, project: str, name: str) -> bool:
    """Take it away, with the keys that they have made there; False where they were no member."""
    own = (members.c.project == project, members.c.user_name == name)
    if not rows.run(sa.delete(members).where(*own)):
        return False
    made = (keys.c.project == project, keys.c.maker == name, keys.c.revoked_ns.is_(None))
    rows.run(sa.update(keys).where(*made).values(revoked_ns=time.time_ns()))
    return True


def is_last_owner(rows: Rows, name: str) -> bool:
    """Whether *name* owns the instance, and nobody else who can log in does."""
    owners = rows.all(sa.select(users.c.name).where(users.c.owner == 1, users.c.disabled == 0))
    return [row.name for row in owners] == [name]
