"""The session of somebody who has proved who they are: begun, and given to the browser."""

from __future__ import annotations

import time

import sqlalchemy as sa
from fastapi import Request
from fastapi.responses import Response

from . import audit, secrets
from .access import entry_of, ip_of
from .credentials import ABSOLUTE_NS, Principal
from .rows import Rows
from .state import State
from .tables import sessions


class Entrance:
    """A new session, whatever cookie came with the request."""

    def __init__(self, request: Request, state: State) -> None:
        self.request = request
        self.state = state
        self.cookie = secrets.new_cookie()

    def write(self, rows: Rows, principal: Principal) -> None:
        """Begin it, in the transaction in which it is known who that is."""
        now = time.time_ns()
        before = self.request.cookies.get(self.state.cookie)
        if before:
            kept = secrets.hash_of_cookie(before)
            rows.run(sa.delete(sessions).where(sessions.c.hash == kept))
        rows.run(sa.delete(sessions).where(sessions.c.created_ns < now - ABSOLUTE_NS))
        rows.run(
            sa.insert(sessions).values(
                hash=secrets.hash_of_cookie(self.cookie),
                user_name=principal.name,
                created_ns=now,
                seen_ns=now,
                ip=ip_of(self.request),
            )
        )
        audit.add(rows, entry_of(self.request, principal, "", "login", principal.name, {}))

    def give(self, answer: Response) -> None:
        """Have the browser keep it."""
        set_cookie(answer, self.state, self.state.cookie, self.cookie, ABSOLUTE_NS // 10**9)


def set_cookie(answer: Response, state: State, name: str, value: str, seconds: int) -> None:
    """A cookie out of reach of scripts and of what other sites send."""
    answer.set_cookie(
        name,
        value,
        max_age=seconds,
        httponly=True,
        secure=state.secure,
        samesite="lax",
        path="/",
    )


def drop_cookie(answer: Response, state: State, name: str) -> None:
    """Have the browser forget it."""
    answer.delete_cookie(name, path="/", secure=state.secure, httponly=True)
