"""Who may do what: each role's permissions, in one table that a test enumerates."""

from __future__ import annotations

from typing import Literal

Permission = Literal[
    "run:read",
    "run:content",
    "run:start",
    "run:cancel",
    "run:fork",
    "step:approve",
    "program:read",
    "program:write",
    "cost:read",
    "host:read",
    "key:manage",
    "member:manage",
    "audit:read",
    "settings:write",
]

Role = Literal["admin", "developer", "operator", "viewer"]

PUBLIC = "public"
"""Of a route that answers without a login."""

SIGNED_IN = "signed-in"
"""Of a route that answers every person that is logged in, of what is theirs."""

OWNER = "owner"
"""Of a route for owners of the instance."""

METRICS = "metrics"
"""Of a route that answers who has the token of metrics, and owners of the instance."""

PROVIDER = "provider"
"""Of a route that answers a token which the provider has signed. It comes from the provider itself
and not from a page, and with nobody's cookie.
"""

_VIEWER: frozenset[str] = frozenset({"run:read", "program:read", "cost:read", "host:read"})
_OPERATOR = _VIEWER | {"run:start", "run:cancel", "step:approve"}
_DEVELOPER = _VIEWER | {"run:content", "run:start", "run:cancel", "run:fork", "program:write"}

ROLES: dict[Role, frozenset[str]] = {
    "viewer": _VIEWER,
    "operator": _OPERATOR,
    "developer": _DEVELOPER,
    "admin": _OPERATOR
    | _DEVELOPER
    | {"key:manage", "member:manage", "audit:read", "settings:write"},
}
"""The permissions of each role in its project. An owner of the instance has them all, in every
project.
"""

ALL: frozenset[str] = ROLES["admin"]

DECLARED = frozenset({*ALL, PUBLIC, SIGNED_IN, OWNER, METRICS, PROVIDER})
"""What a route can declare."""
