"""Logins that have begun at a provider.

What a browser has begun stands in its cookie: until when it lasts, and what nobody can guess. State,
nonce and verifier are derived from it by the server's secret, so that any server of the database
ends what another began, and nothing is kept of logins that nobody ends.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ..errors import VMError
from . import secrets

FLOW_SECONDS = 600
"""From the button to the answer of the provider: a password and a second factor."""


class Unproved(VMError):
    """Somebody who comes from a provider has not proved who they are; ``kind`` is a word for it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Flow(NamedTuple):
    """A login that has begun; *cookie* is what the browser keeps of it."""

    cookie: str
    state: str
    nonce: str
    verifier: str


def new_flow(pepper: bytes) -> Flow:
    """A login that begins now."""
    return _flow(f"{int(time.time()) + FLOW_SECONDS}.{secrets.new_cookie()}", pepper)


def flow_of(cookie: str, state: str, pepper: bytes) -> Flow:
    """The login that a browser began, to whose *state* the provider answers.

    Raises:
        Unproved: If this browser began none such, or too long ago.
    """
    flow = _flow(cookie, pepper)
    if not secrets.same(flow.state, state):  # which nobody else can make for a cookie
        raise Unproved("expired", "this browser has not begun that login")
    if int(cookie.partition(".")[0]) < time.time():
        raise Unproved("expired", "the login took too long")
    return flow


def _flow(cookie: str, pepper: bytes) -> Flow:
    def derived(what: str) -> str:
        return secrets.keyed_hash(f"{what} {cookie}", pepper)

    return Flow(cookie, derived("state"), derived("nonce"), derived("verifier"))
