"""Who asks, and whether they may: the one gate before every route.

A request comes with a session's cookie or an API key. Each route declares the permission that it
needs, as ``x-permission`` of its operation; `authorize` finds who asks, holds that against their
role in the project of the address, and gives the route a `Caller`. Who has no role in a project is
answered as if it were not there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, cast

import sqlalchemy as sa
from fastapi import Depends, Request

from ..values import canonical, parse_json
from . import audit, secrets
from .credentials import Credential, Identity, Principal, Right, identified
from .problems import Problem, missing
from .roles import METRICS, OWNER, PROVIDER, PUBLIC, SIGNED_IN
from .rows import Rows, Unscoped, everywhere
from .scope import Scope
from .tables import keys, sessions

if TYPE_CHECKING:
    from ..store.protocol import Archive
    from .state import State

SEEN_NS = 60 * 10**9
"""How often it is noted that a session or a key is used: a write each time would be dear."""

MOST_TOUCHED = 10_000
"""Sessions and keys of which it is known when that was noted last."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

ANY_ROLE = "*"
"""Among the roles of approvals that a member has: all of them."""


class Caller:
    """Who makes a request, in the project of its address, if that has one."""

    def __init__(
        self,
        state: State,
        request: Request,
        credential: Credential,
        identity: Identity,
        project: str | None,
        approves: Iterable[str],
    ) -> None:
        self.state = state
        self.principal = identity.principal
        self.permissions = identity.permissions
        self.approves = frozenset(approves)
        self._credential = credential
        self._project = project
        self._request = request

    @property
    def name(self) -> str:
        """Who decides, submits and is in the log."""
        return self.principal.name

    @property
    def ip(self) -> str:
        """Where the request comes from, as far as is known."""
        return ip_of(self._request)

    @property
    def scope(self) -> Scope:
        """The project of the address.

        Raises:
            Unscoped: If it has none: the route would reach what is of all projects.
        """
        if self._project is None:
            raise Unscoped("a route without a project asked for a scope")
        return Scope(self.state.store, self._project)

    def may(self, permission: str) -> bool:
        """Whether they may do that in this project."""
        return permission in self.permissions

    def right(self, permission: str) -> Right:
        """That they may do that in this project, for who asks again later."""
        return Right(self._credential, self.scope.project, permission)

    def entry(self, action: str, target: str, **detail: Any) -> audit.Entry:
        """That they did something, for the audit log."""
        return entry_of(self._request, self.principal, self._project or "", action, target, detail)

    def change(self, job: Callable[[Rows], Any], *entries: audit.Entry) -> Any:
        """What *job* gave, once it is durable with its entries in the log."""

        def both(rows: Rows) -> Any:
            found = job(rows)
            for entry in entries:
                audit.add(rows, entry)
            return found

        return self.state.tables.write(both)

    def along(self, entry: audit.Entry) -> Archive:
        """The store, where what is recorded through it has *entry* in the log beside it."""
        return self.state.store.along(lambda transaction: audit.add(Rows(transaction), entry))


def entry_of(
    request: Request,
    principal: Principal | None,
    project: str,
    action: str,
    target: str,
    detail: dict[str, Any],
) -> audit.Entry:
    """An entry of the log for what a request does."""
    return audit.Entry(
        at_ns=time.time_ns(),
        project=project,
        actor=principal.name if principal is not None else "",
        action=action,
        target=target,
        detail=detail,
        key_id=principal.key_id if principal is not None else None,
        ip=ip_of(request),
        request_id=request.state.request_id,
    )


def ip_of(request: Request) -> str:
    """Where a request comes from, as far as is known."""
    return request.client.host if request.client is not None else ""


def authorize(request: Request) -> None:
    """Let a request through to its route, with its `Caller`.

    Raises:
        Problem: If it may not.
    """
    state: State = request.app.state.server
    needs = declared(request.scope["route"])
    if "\x00" in request.url.path or b"%00" in request.scope["query_string"]:
        raise Problem(400, "not-understood", "an address holds a NUL, which no text has")
    if needs == PROVIDER:
        return
    check_origin(state, request)
    if needs == PUBLIC or (needs == METRICS and _has_metrics_token(state, request)):
        return
    project = request.path_params.get("project")
    credential = credential_of(state, request)
    with state.tables.reading() as rows:
        identity = identified(rows, credential, project) if credential is not None else None
    if credential is None or identity is None:
        raise Problem(
            401,
            "not-signed-in",
            "log in, or send an API key as 'Authorization: Bearer nvm_...'",
            {"WWW-Authenticate": "Bearer"},
        )
    principal, permissions = identity.principal, identity.permissions
    touch(state, principal)
    if project is not None and not permissions:
        raise missing()
    if needs in (OWNER, METRICS):
        if not principal.owner or principal.key_id is not None:
            raise Problem(403, "not-permitted", "an owner of the instance may do this, logged in")
    elif needs != SIGNED_IN and needs not in permissions:
        raise Problem(403, "not-permitted", f"this needs the permission {needs}; ask an admin")
    approves = parse_json(identity.approves)
    if principal.owner and principal.key_id is None:  # a key decides as its maker is listed
        approves = [ANY_ROLE]
    request.state.caller = Caller(state, request, credential, identity, project, approves)


def _has_metrics_token(state: State, request: Request) -> bool:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    expected = state.metrics_token
    return expected is not None and kind.lower() == "bearer" and secrets.same(given, expected)


async def caller(request: Request) -> Caller:
    """Who asks, for a route that is not public; async, so that no thread is asked for it."""
    return cast(Caller, request.state.caller)


Who = Annotated[Caller, Depends(caller)]
"""Who asks, as a parameter of a route."""


def declared(route: Any) -> str:
    """The permission that a route declares."""
    return str((route.openapi_extra or {})["x-permission"])


def check_origin(state: State, request: Request) -> None:
    """Refuse what changes something and comes from another page.

    Raises:
        Problem: If a browser says that it is from elsewhere, or does not say where from.
    """
    if request.method in SAFE_METHODS or request.headers.get("authorization"):
        return
    origin = request.headers.get("origin")
    if origin is None or origin != state.origin(request):
        raise Problem(
            403,
            "cross-origin",
            "a change is sent by the pages of this server, with their Origin, or with an API key",
        )


def credential_of(state: State, request: Request) -> Credential | None:
    """What a request comes with to prove who asks; None where that is nothing."""
    given = request.headers.get("authorization")
    if given is None:
        cookie = request.cookies.get(state.cookie)
        return Credential(session=secrets.hash_of_cookie(cookie)) if cookie else None
    kind, _, text = given.partition(" ")
    text = text.strip()
    key_id = secrets.id_of_key(text)
    if kind.lower() != "bearer" or key_id is None:
        return None
    return Credential(key_id=key_id, key_hash=secrets.keyed_hash(text, state.pepper))


def touch(state: State, principal: Principal) -> None:
    """Note that a session or a key is used, now and then."""
    now = time.time_ns()
    who = principal.session or principal.key_id or ""
    if now - state.touched.get(who, 0) < SEEN_NS:
        return
    state.touched[who] = now
    if len(state.touched) > MOST_TOUCHED:
        state.touched.pop(next(iter(state.touched)), None)
    if principal.session is not None:
        statement: Any = (
            sa.update(sessions).where(sessions.c.hash == principal.session).values(seen_ns=now)
        )
    else:
        statement = everywhere(
            sa.update(keys).where(keys.c.id == principal.key_id).values(used_ns=now)
        )
    state.tables.write(lambda rows: rows.run(statement))


def approving(names: Iterable[str]) -> str:
    """The roles of approvals that a member has, as they are kept."""
    return canonical(sorted(set(names))).decode()
