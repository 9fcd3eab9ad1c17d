"""What holds for every request before a route is looked for: the host that is asked, the size of
the body, an id; and for every answer: what browsers may do with it. Plain ASGI, so that streams
are not held back.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from ..ui.local import POLICY
from .problems import PROBLEM, Problem, document
from .shapes import json_bytes

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 17_000_000
"""A value of a run may have 16 MB (`values.MAX_VALUE_BYTES`)."""

MAX_PUBLIC_BODY_BYTES = 16_000
"""Of a body that anybody may send: a name and a password of 1000 characters each, with escapes."""

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""What a supervisor or Prometheus asks, by the address of the process and not by the name of the server."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")

_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?\Z")

_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)

_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")


class Guards:
    """The application *app* behind them; *host* is the only one that it answers for, None for this
    machine's loopback names; at *public* paths anybody is answered.
    """

    def __init__(self, app: Any, *, host: str | None, secure: bool, public: frozenset[str]) -> None:
        self.app = app
        self.host = host
        self.public = public
        self.headers = [*_HEADERS, *([_TRANSPORT] if secure else [])]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"])
        request_id = _id_of(given.get(b"x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [*self.headers, (b"x-request-id", request_id.encode())]
                names = {name.lower() for name, _ in message.get("headers", ())}
                if b"cache-control" not in names:
                    own.append((b"cache-control", b"no-store"))
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        async def refused(problem: Problem) -> None:
            body = json_bytes(document(problem, request_id))
            head = [
                (b"content-type", PROBLEM.encode()),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            start = {"type": "http.response.start", "status": problem.status, "headers": head}
            await sending(start)
            await sending({"type": "http.response.body", "body": body})

        host = given.get(b"host", b"").decode("latin-1")
        if scope["path"] not in PROBES and not self._answers_for(host):
            told = "this server does not answer for this host name"
            await refused(Problem(421, "another-host", told))
            return
        most = MAX_PUBLIC_BODY_BYTES if scope["path"] in self.public else MAX_BODY_BYTES
        too_long = f"a body has at most {most} bytes here"
        length = given.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            await refused(Problem(413, "too-long", too_long))
            return
        received = 0

        async def receiving() -> MutableMapping[str, Any]:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, too_long)
            return message

        await self.app(scope, receiving, sending)

    def _answers_for(self, host: str) -> bool:
        return host == self.host if self.host is not None else bool(_LOOPBACK.match(host))


def _id_of(given: bytes | None) -> str:
    """The id of a request: the proxy's own, if it is a plain one."""
    if given is not None and _REQUEST_ID.match(given):
        return given.decode()
    return secrets.token_hex(8)
