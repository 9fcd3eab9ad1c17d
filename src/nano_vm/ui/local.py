"""A server for one person on one machine: the pages, and what they ask for, on the loopback address.

Rule 1: it only reads, unless it was started for somebody who decides: then it records answers of
that person, and stores their forks where it has a host for them. Rule 2: every address begins with
a token that is drawn at its start, and nothing is answered without it, nor for a host name that is
not this machine's: no other page that the browser has open can read a run through it. Rule 3: what
goes out is the page's own script, or JSON that is never taken for a page.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ..errors import ProgramError, StoreError, UnknownRun, VMError
from ..newest import Newest
from ..values import error_named, parse_json
from .asked_for import NoSuchFilter, Query, asked_for
from .asking import Answers
from .forks import Forks, ForkTree, fork_tree
from .library import (
    MOST_VIEWS_BYTES,
    Graph,
    Library,
    Programs,
    StoreLibrary,
    compared,
    is_final,
    recomputed,
    shown,
)
from .page import SCRIPT, STYLE, NotBuilt, asset

LOOPBACK = "127.0.0.1"
MAX_BODY_BYTES = 1024 * 1024
"""Of an answer: a reason, or what a call gave."""

MAX_IGNORED_BYTES = 16 * MAX_BODY_BYTES
"""What is read of a body that is too long, before its sender is refused."""

TOKEN_BYTES = 24  # as many as nobody guesses

NO_FORKS = (
    "this nano-vm ui makes no fork: start it with --as NAME and the tools and model that the run had "
    "(--tools MODULE:OBJECT --model MODEL), of a store; or use nano-vm fork"
)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_TYPES = {
    "": "text/html; charset=utf-8",
    SCRIPT: "text/javascript; charset=utf-8",
    STYLE: "text/css; charset=utf-8",
}
_JSON = "application/json; charset=utf-8"
_PROBLEM = "application/problem+json"
_TEXT = "text/plain; charset=utf-8"


class Refused(Exception):
    """A request that is answered with *status* and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LocalServer(ThreadingHTTPServer):
    """Serves *library* at ``address`` until `shutdown`; *port* 0 takes one that is free.

    Raises:
        NotBuilt: If the pages were not built.
        OSError: If the port is in use.
    """

    daemon_threads = True

    def __init__(
        self,
        library: Library,
        programs: Programs,
        port: int = 0,
        answers: Answers | None = None,
        forks: Forks | None = None,
    ) -> None:
        for name in _TYPES:
            asset(name or "index.html")
        self.library = library
        self.programs = programs
        self.answers = answers
        self.forks = forks
        self.views: Newest[tuple[str, str], bytes] = Newest(MOST_VIEWS_BYTES, len)
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def address(self) -> str:
        """Where the pages are."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing of a browser that has gone away: it is nobody's fault."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def answer(self, path: list[str], query: Query) -> Any:
        """What is asked for below ``api/``, as JSON or the bytes of it.

        Raises:
            Refused: If it is nothing that is there.
        """
        library, programs = self.library, self.programs
        match path:
            case ["runs"]:
                return library.page(asked_for(query), query.get("after"))
            case ["search"]:
                text, after = query.get("text", ""), query.get("after")
                return library.search(asked_for(query), text, after)
            case ["run", run_id]:
                return self._run(run_id, query)
            case ["verify", run_id]:
                found = recomputed(library, run_id, programs)
                return {
                    "identical": found.identical,
                    "complete": found.complete,
                    "text": str(found),
                }
            case ["compare", a, b]:
                return compared(library, a, b, programs)
            case ["run", run_id, "forks"]:
                if isinstance(library, StoreLibrary):
                    return fork_tree(library, run_id)
                return ForkTree(runs=[], whole=True)  # files tell nothing of each other
            case ["asked"]:
                asked, damaged = library.asked()
                by = self.answers.by if self.answers is not None else None
                return {"asked": asked, "damaged": damaged, "by": by, "now": time.time_ns() / 1e6}
        raise Refused(404, "there is nothing at this address")

    def _run(self, run_id: str, query: Query) -> bytes:
        """A run; of one that has ended what was answered is kept."""
        version, seen = self.library.version(run_id), query.get("seen")
        if seen == version:
            return _bytes({"version": version, "run": None})
        kept = self.views.get((run_id, version))
        if kept is not None:
            return kept
        graph: Graph = "later" if query.get("graph") == "later" else "now"
        found = shown(self.library, run_id, self.programs, version, seen, graph)
        body = _bytes(found)
        if is_final(found, version):
            return self.views.of((run_id, version), lambda: body)
        return body

    def take(self, path: list[str], body: Callable[[], Any]) -> Any:
        """What comes of something that is sent below ``api/``, as JSON.

        Raises:
            Refused: If nothing is taken there, or not by this server.
            VMError: If it cannot be done.
        """
        match path:
            case ["answer"]:
                sent = body()
                if self.answers is None:
                    raise Refused(
                        403, "this nano-vm ui only reads: start it with --as NAME to decide as NAME"
                    )
                self.answers.record(sent)
                return {"recorded": True}
            case ["run", run_id, "fork"]:
                sent = body()
                return self._forks().make(run_id, sent)
            case ["run", run_id, "fork", "preview"]:
                sent = body()
                return self._forks().preview(run_id, sent)
        raise Refused(404, "there is nothing at this address")

    def _forks(self) -> Forks:
        """Who makes forks.

        Raises:
            Refused: If nobody does.
        """
        if self.forks is None:
            raise Refused(403, NO_FORKS)
        return self.forks


def _bytes(answer: Any) -> bytes:
    return json.dumps(answer, ensure_ascii=False).encode()


class _Handler(BaseHTTPRequestHandler):
    server: LocalServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "nano-vm", ""

    def do_GET(self) -> None:
        """One request."""
        try:
            path, query = self._asked()
            if path[:1] == ["api"]:
                found = self.server.answer(path[1:], query)
                self._send(200, _JSON, found if isinstance(found, bytes) else _bytes(found))
                return
            name = "/".join(path)
            if name not in _TYPES:
                raise Refused(404, "there is nothing at this address")
            self._send(200, _TYPES[name], asset(name or "index.html"))
        except Refused as refused:
            self._say(refused.status, str(refused))
        except NoSuchFilter as error:
            self._say(400, str(error))
        except UnknownRun as error:
            self._say(404, str(error))
        except (StoreError, NotBuilt) as error:
            self._say(503, str(error))
        except VMError as error:
            self._say(409, str(error))
        except Exception as error:  # noqa: BLE001 - one line, and the others are still served
            self._say(500, f"an error in nano-vm itself: {error_named(error)}")

    def do_POST(self) -> None:
        """An answer to what a run asks, or a fork."""
        received = self._received()
        try:
            path, _ = self._asked()
            if path[:1] != ["api"]:
                raise Refused(404, "there is nothing at this address")
            given = self.server.take(path[1:], lambda: self._sent(received))
            self._send(200, _JSON, _bytes(given))
        except Refused as refused:
            self.close_connection = True  # not all of a body that is too long was read
            self._say(refused.status, str(refused))
        except ProgramError as error:
            found = [one.to_dict() for one in error.diagnostics]
            body = json.dumps({"detail": str(error), "diagnostics": found})
            self._send(422, _PROBLEM, body.encode())
        except StoreError as error:
            self._say(404 if isinstance(error, UnknownRun) else 503, str(error))
        except VMError as error:
            self._say(409, str(error))
        except Exception as error:  # noqa: BLE001 - as above
            self._say(500, f"an error in nano-vm itself: {error_named(error)}")

    def _received(self) -> bytes | None:
        """The body of a request, or None if it is too long.

        What is too long is read too, within bounds: who still sends when the connection is closed
        finds it broken, and not why.
        """
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            return None
        if int(length) <= MAX_BODY_BYTES:
            return self.rfile.read(int(length))
        left = min(int(length), MAX_IGNORED_BYTES)
        while left and (ignored := self.rfile.read(min(left, 65_536))):
            left -= len(ignored)
        return None

    def _sent(self, received: bytes | None) -> Any:
        """The JSON that this page has sent.

        Raises:
            Refused: If it is from another page, too long, or no JSON.
        """
        port = self.server.server_port
        if self.headers.get("Origin") not in (
            f"http://{LOOPBACK}:{port}",
            f"http://localhost:{port}",
        ):
            raise Refused(403, "an answer is sent by the page of this server only")
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "an answer is JSON")
        if received is None:
            raise Refused(413, f"an answer has at most {MAX_BODY_BYTES} bytes")
        try:
            return parse_json(received.decode())
        except ValueError as error:
            raise Refused(400, f"an answer is JSON: {error}") from None

    def _asked(self) -> tuple[list[str], Query]:
        """The path behind the token, and the query.

        Raises:
            Refused: If it is not for this server, or has not its token.
        """
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{LOOPBACK}:{port}", f"localhost:{port}"):
            raise Refused(421, f"this server answers for {LOOPBACK}:{port} only")
        address = urlsplit(self.path)
        _, _, rest = address.path.partition("/")
        token, slash, inside = rest.partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(404, "use the whole address that nano-vm ui has printed")
        path = [unquote(part) for part in inside.split("/")] if inside else []
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        return path, query

    def _say(self, status: int, message: str) -> None:
        self._send(status, _TEXT, message.encode("utf-8", "backslashreplace"))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the token is in every address."""
