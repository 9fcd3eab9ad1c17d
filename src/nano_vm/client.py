"""A client of `nano-vm serve`, for programs: `Client`, and `AsyncClient` with the same methods to be
awaited. Needs the extra ``client``.

It has an API key, which is of one project. What the server refuses is raised as the error that the
store itself would raise: `AlreadyDecided`, `NotPermitted`, `ProgramError` with its diagnostics. A
request that fails on its way is made again where that repeats nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

from .diagnostics import Diagnostic
from .errors import (
    AlreadyDecided,
    Changed,
    Expired,
    MissingExtra,
    NotPermitted,
    ProgramError,
    StoreError,
    UnknownRun,
    VMError,
)
from .store.records import ENDED, SUSPENDED
from .values import admit, canonical

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "NANO_VM_KEY"

TIMEOUT_SECONDS = 30.0

ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.2
"""Before a request that failed on its way is made again; each further time twice as long."""

STREAM_ATTEMPTS = 8
"""In a row without an event, before a stream is given up: 25 s, in which a server starts again."""

_ERRORS: dict[str, type[VMError]] = {
    "not-permitted": NotPermitted,
    "already-decided": AlreadyDecided,
    "expired": Expired,
    "changed": Changed,
    "not-found": UnknownRun,
}


class ServerError(VMError):
    """The server refused a request; ``status`` is HTTP's, ``request_id`` what its log knows it by."""

    def __init__(self, message: str, status: int, request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class Happened(NamedTuple):
    """Something in a run: ``kind`` is ``record``, ``standing`` or ``end``; ``seq`` the number of a
    record, by which a stream goes on.
    """

    kind: str
    data: dict[str, Any]
    seq: int | None


class _Call(NamedTuple):
    """A request; a *path* without a slash before it is below the project's."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = {}
    again: bool = True  # whether making it twice does what making it once does


class _Project:
    """The project of a client, and what is sent to it."""

    project: str | None

    def _address(self, path: str) -> str:
        if path.startswith("/"):
            return path
        assert self.project is not None
        return f"/api/v1/projects/{quote(self.project, safe='')}/{path}"

    def _sent(self, call: _Call) -> dict[str, Any]:
        """What httpx is given."""
        content = None if call.body is None else canonical(call.body)
        kind = {} if content is None else {"Content-Type": "application/json"}
        url = self._address(call.path)
        headers = {**call.headers, **kind}
        return {"method": call.method, "url": url, "content": content, "headers": headers}


class Client(_Project):
    """A server at *url*, with an API *key* (default: the environment's ``NANO_VM_KEY``). *project* is
    that of the key unless it is given.

    Raises:
        MissingExtra: If httpx is not installed.
        VMError: If there is no key.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        project: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        transport: Any = None,
    ) -> None:
        self.project = project
        self._http = _httpx().Client(**_options(url, key, timeout_seconds, transport))

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: _Call) -> dict[str, Any]:
        if not call.path.startswith("/"):
            self._locate()
        wait = FIRST_WAIT_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._http.request(**self._sent(call))
            except _httpx().TransportError as error:
                if attempt == ATTEMPTS or not call.again:
                    raise _unreached(error) from error
            else:
                if answer.status_code != 503 or attempt == ATTEMPTS or not call.again:
                    return _read(answer)
            time.sleep(wait)
            wait *= 2
        raise AssertionError("unreachable")

    def _locate(self) -> None:
        if self.project is None:
            self.project = _project_of(self.me())

    def start(
        self,
        program: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        run_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        seed: int | None = None,
    ) -> str:
        """Start a run of the project's *program*, and give its id; the same *run_id* joins a run that
        is there.
        """
        call = _start(program, inputs, version, run_id, labels, seed)
        return str(self._send(call)["id"])

    def run(
        self,
        program: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        run_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Start a run and wait for it, as `start` and `wait`."""
        started = self.start(program, inputs, version=version, run_id=run_id, labels=labels)
        return self.wait(started, timeout_seconds=timeout_seconds)

    def show(self, run_id: str) -> dict[str, Any]:
        """A run, as its page shows it."""
        run: dict[str, Any] = self._send(_get(_run(run_id)))["run"]
        return run

    def runs(self, **query: str) -> Iterator[dict[str, Any]]:
        """Runs, newest first; *query* are those of the list: ``status``, ``program``, ..."""
        return self._paged("runs", query)

    def search(self, text: str, **query: str) -> Iterator[dict[str, Any]]:
        """Runs in which *text* was said, newest first, each with its ``hits``; *query* as of `runs`.
        All runs are searched, some at a time: stop where it is enough.
        """
        return self._paged("search", {"text": text, **query})

    def _paged(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """The runs of all pages of what *path* gives for *query*."""
        while True:
            page = self._send(_get(f"{path}?{_query(query)}"))
            yield from page["runs"]
            if page["after"] is None:
                return
            query = {**query, "after": page["after"]}

    def events(self, run_id: str, after: int = -1) -> Iterator[Happened]:
        """What happens in a run, until it has ended; a stream that is cut goes on where it was.

        Raises:
            StoreError: If it is cut time and again before anything comes of it.
        """
        self._locate()
        following = _Following(self._address(_run(run_id, "/events")), after)
        while True:
            cut = _ended_early()
            try:
                with self._http.stream("GET", **following.request()) as answer:
                    if answer.status_code != 200:
                        answer.read()
                        _read(answer)
                    for text in answer.iter_text():
                        for happened in following.read(text):
                            yield happened
                            if happened.kind == "end":
                                return
            except _httpx().TransportError as error:
                cut = _unreached(error)
            except StoreError as error:
                cut = error
            time.sleep(following.wait_seconds(cut))

    def me(self) -> dict[str, Any]:
        """Who this client is: their name, and what they may do."""
        return self._send(_get("/api/v1/me"))

    def api(self) -> dict[str, Any]:
        """The server's API, as an OpenAPI document."""
        return self._send(_get("/api/v1/openapi.json"))

    def program(self, name: str, version: int | None = None) -> dict[str, Any]:
        """A version of a program of the project, or the newest: ``source``, ``version``, ``digest``."""
        return self._send(_program(name, version))

    def put_program(self, source: str) -> dict[str, Any]:
        """Put a program, as YAML or JSON; one that is the newest version already stays so."""
        return self._send(_Call("POST", "programs", {"source": source}))

    def standings(self, **query: str) -> dict[str, Any]:
        """How runs stand, newest first, with times in nanoseconds: a page of them, and in ``after``
        what the next is asked for with. *query* as of `runs`, with ``limit``, how many.
        """
        return self._send(_get(f"standings?{_query(query)}"))

    def standing(self, run_id: str, seen: str = "") -> dict[str, Any]:
        """How a run stands, by its id or the beginning of it: ``run``, all that is known of it, and
        its ``version``; None in place of the run where it is as it was in version *seen*.
        """
        return self._send(_standing(run_id, seen))

    def wait(
        self, run_id: str, *, timeout_seconds: float | None = None, until: str = "ended"
    ) -> dict[str, Any]:
        """The run, once it has ended; with ``until="waiting"`` also once it waits for somebody.

        Raises:
            TimeoutError: If that takes longer.
        """
        statuses = _awaited(until)
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        wait = FIRST_WAIT_SECONDS / 4
        view: dict[str, Any] = {}
        version = ""
        while True:
            found = self._send(_get(_run(run_id, f"?{_query({'seen': version})}")))
            version, view = found["version"], found["run"] or view
            if view["status"] in statuses:
                return view
            if end is not None and time.monotonic() > end:
                raise _late(run_id, view)
            time.sleep(wait)
            wait = min(wait * 1.5, 2.0)

    def inbox(self) -> list[dict[str, Any]]:
        """What runs of the project ask of people; ``shown`` identifies each request."""
        asked: list[dict[str, Any]] = self._send(_get("inbox"))["asked"]
        return asked

    def approve(self, run_id: str, path: str, *, shown: str, reason: str = "") -> int:
        """Approve what a run asks, as it was shown; how many more people have to before it counts."""
        call = _decide(run_id, path, shown, "approve", reason=reason)
        return int(self._send(call)["missing"])

    def reject(self, run_id: str, path: str, *, shown: str, reason: str) -> None:
        """Reject what a run asks, as it was shown."""
        self._send(_decide(run_id, path, shown, "reject", reason=reason))

    def resolve(
        self,
        run_id: str,
        path: str,
        *,
        shown: str,
        done: Any = None,
        retry: bool = False,
        fail: str | None = None,
    ) -> None:
        """Say what became of a call in doubt: that it is *done* and gave this, that it may be made
        again, or why it failed.
        """
        self._send(_resolve(run_id, path, shown, done, retry, fail))

    def send_event(
        self, run_id: str, name: str, payload: Any = None, *, id: str | None = None
    ) -> bool:
        """Send an event to a run; one of the same name and *id* is recorded once."""
        return bool(self._send(_event(run_id, name, payload, id))["recorded"])

    def cancel(self, run_id: str) -> None:
        """Have a run cancelled, and undone."""
        self._send(_Call("POST", _run(run_id, "/cancel"), again=False))

    def verify(self, run_id: str) -> dict[str, Any]:
        """Whether recomputing a run from its records gives them."""
        return self._send(_get(_run(run_id, "/verify")))

    def costs(self, by: str = "model", **query: str) -> list[dict[str, Any]]:
        """What model calls have cost, summed for each value of *by*."""
        costs: list[dict[str, Any]] = self._send(_sums(by, None, query))["costs"]
        return costs

    def budgets(self) -> dict[str, Any]:
        """The ``budgets`` of workers that count runs of the project, and how their ``accounts``
        stand.
        """
        return self._send(_get("budgets"))

    def sums(
        self, by: str = "model", *, prices: Mapping[str, Any] | None = None, **query: str
    ) -> dict[str, Any]:
        """As `costs`, with how many ``runs``, the newest, were summed and whether these are the
        ``whole``; and what the same calls would have cost by *prices*: dollars per million tokens
        by the names of models, as `ExecutionVM` takes them.
        """
        return self._send(_sums(by, prices, query))


class AsyncClient(_Project):
    """As `Client`, for code in an event loop."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        project: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        transport: Any = None,
    ) -> None:
        self.project = project
        self._http = _httpx().AsyncClient(**_options(url, key, timeout_seconds, transport))

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, call: _Call) -> dict[str, Any]:
        if not call.path.startswith("/"):
            await self._locate()
        wait = FIRST_WAIT_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await self._http.request(**self._sent(call))
            except _httpx().TransportError as error:
                if attempt == ATTEMPTS or not call.again:
                    raise _unreached(error) from error
            else:
                if answer.status_code != 503 or attempt == ATTEMPTS or not call.again:
                    return _read(answer)
            await asyncio.sleep(wait)
            wait *= 2
        raise AssertionError("unreachable")

    async def _locate(self) -> None:
        if self.project is None:
            self.project = _project_of(await self.me())

    async def start(
        self,
        program: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        run_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        seed: int | None = None,
    ) -> str:
        """As `Client.start`."""
        call = _start(program, inputs, version, run_id, labels, seed)
        return str((await self._send(call))["id"])

    async def run(
        self,
        program: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        run_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        """As `Client.run`."""
        started = await self.start(program, inputs, version=version, run_id=run_id, labels=labels)
        return await self.wait(started, timeout_seconds=timeout_seconds)

    async def show(self, run_id: str) -> dict[str, Any]:
        """As `Client.show`."""
        run: dict[str, Any] = (await self._send(_get(_run(run_id))))["run"]
        return run

    def runs(self, **query: str) -> AsyncIterator[dict[str, Any]]:
        """As `Client.runs`."""
        return self._paged("runs", query)

    def search(self, text: str, **query: str) -> AsyncIterator[dict[str, Any]]:
        """As `Client.search`."""
        return self._paged("search", {"text": text, **query})

    async def _paged(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """As `Client._paged`."""
        while True:
            page = await self._send(_get(f"{path}?{_query(query)}"))
            for row in page["runs"]:
                yield row
            if page["after"] is None:
                return
            query = {**query, "after": page["after"]}

    async def events(self, run_id: str, after: int = -1) -> AsyncIterator[Happened]:
        """As `Client.events`."""
        await self._locate()
        following = _Following(self._address(_run(run_id, "/events")), after)
        while True:
            cut = _ended_early()
            try:
                async with self._http.stream("GET", **following.request()) as answer:
                    if answer.status_code != 200:
                        await answer.aread()
                        _read(answer)
                    async for text in answer.aiter_text():
                        for happened in following.read(text):
                            yield happened
                            if happened.kind == "end":
                                return
            except _httpx().TransportError as error:
                cut = _unreached(error)
            except StoreError as error:
                cut = error
            await asyncio.sleep(following.wait_seconds(cut))

    async def me(self) -> dict[str, Any]:
        """As `Client.me`."""
        return await self._send(_get("/api/v1/me"))

    async def api(self) -> dict[str, Any]:
        """As `Client.api`."""
        return await self._send(_get("/api/v1/openapi.json"))

    async def program(self, name: str, version: int | None = None) -> dict[str, Any]:
        """As `Client.program`."""
        return await self._send(_program(name, version))

    async def put_program(self, source: str) -> dict[str, Any]:
        """As `Client.put_program`."""
        return await self._send(_Call("POST", "programs", {"source": source}))

    async def standings(self, **query: str) -> dict[str, Any]:
        """As `Client.standings`."""
        return await self._send(_get(f"standings?{_query(query)}"))

    async def standing(self, run_id: str, seen: str = "") -> dict[str, Any]:
        """As `Client.standing`."""
        return await self._send(_standing(run_id, seen))

    async def wait(
        self, run_id: str, *, timeout_seconds: float | None = None, until: str = "ended"
    ) -> dict[str, Any]:
        """As `Client.wait`."""
        statuses = _awaited(until)
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        wait = FIRST_WAIT_SECONDS / 4
        view: dict[str, Any] = {}
        version = ""
        while True:
            found = await self._send(_get(_run(run_id, f"?{_query({'seen': version})}")))
            version, view = found["version"], found["run"] or view
            if view["status"] in statuses:
                return view
            if end is not None and time.monotonic() > end:
                raise _late(run_id, view)
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, 2.0)

    async def inbox(self) -> list[dict[str, Any]]:
        """As `Client.inbox`."""
        asked: list[dict[str, Any]] = (await self._send(_get("inbox")))["asked"]
        return asked

    async def approve(self, run_id: str, path: str, *, shown: str, reason: str = "") -> int:
        """As `Client.approve`."""
        call = _decide(run_id, path, shown, "approve", reason=reason)
        return int((await self._send(call))["missing"])

    async def reject(self, run_id: str, path: str, *, shown: str, reason: str) -> None:
        """As `Client.reject`."""
        await self._send(_decide(run_id, path, shown, "reject", reason=reason))

    async def resolve(
        self,
        run_id: str,
        path: str,
        *,
        shown: str,
        done: Any = None,
        retry: bool = False,
        fail: str | None = None,
    ) -> None:
        """As `Client.resolve`."""
        await self._send(_resolve(run_id, path, shown, done, retry, fail))

    async def send_event(
        self, run_id: str, name: str, payload: Any = None, *, id: str | None = None
    ) -> bool:
        """As `Client.send_event`."""
        return bool((await self._send(_event(run_id, name, payload, id)))["recorded"])

    async def cancel(self, run_id: str) -> None:
        """As `Client.cancel`."""
        await self._send(_Call("POST", _run(run_id, "/cancel"), again=False))

    async def verify(self, run_id: str) -> dict[str, Any]:
        """As `Client.verify`."""
        return await self._send(_get(_run(run_id, "/verify")))

    async def costs(self, by: str = "model", **query: str) -> list[dict[str, Any]]:
        """As `Client.costs`."""
        costs: list[dict[str, Any]] = (await self._send(_sums(by, None, query)))["costs"]
        return costs

    async def budgets(self) -> dict[str, Any]:
        """As `Client.budgets`."""
        return await self._send(_get("budgets"))

    async def sums(
        self, by: str = "model", *, prices: Mapping[str, Any] | None = None, **query: str
    ) -> dict[str, Any]:
        """As `Client.sums`."""
        return await self._send(_sums(by, prices, query))


class _Following:
    """A stream of events at *path*, which is asked for again where it was cut: what came of it, and
    how often in a row nothing did.
    """

    def __init__(self, path: str, after: int) -> None:
        self._path = path
        self._after = after
        self._failures = 0
        self._begin()

    def _begin(self) -> None:
        self._rest = self._kind = self._data = ""
        self._seq: int | None = None

    def request(self) -> dict[str, Any]:
        """What httpx is given for the events that follow those that came."""
        self._begin()
        headers = {"Last-Event-ID": str(self._after)} if self._after >= 0 else {}
        return {"url": self._path, "headers": headers, "timeout": _patient()}

    def read(self, text: str) -> Iterator[Happened]:
        """The events that *text* completes. Lines end with a line feed alone: `str.splitlines`, and
        so httpx's `iter_lines`, end them at U+2028 and others too, which are in what models say.
        """
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            happened = self._line(line)
            if happened is not None:
                self._failures = 0
                if happened.seq is not None:
                    self._after = happened.seq
                yield happened

    def wait_seconds(self, cut: StoreError) -> float:
        """How long to wait before the stream is asked for again.

        Raises:
            StoreError: If nothing came of it too often, or *cut* is there to stay.
        """
        self._failures += 1
        if self._failures == STREAM_ATTEMPTS or not cut.passing:
            raise cut
        return float(FIRST_WAIT_SECONDS * 2 ** (self._failures - 1))

    def _line(self, text: str) -> Happened | None:
        name, _, value = text.partition(": ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data = value
        elif name == "id" and value.isdecimal():
            self._seq = int(value)
        elif not text and self._data:
            happened = Happened(self._kind, json.loads(self._data), self._seq)
            self._kind, self._data, self._seq = "", "", None
            return happened
        return None


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise MissingExtra("a client of nano-vm serve", "client") from None
    return httpx


def _options(url: str, key: str | None, timeout_seconds: float, transport: Any) -> dict[str, Any]:
    key = key or os.environ.get(KEY_VARIABLE)
    if not key:
        raise VMError(
            f"which key? Give one, or set {KEY_VARIABLE}; an admin of the project makes it"
        )
    if not url.startswith(("http://", "https://")):
        raise VMError(f"a server is http://... or https://..., not {url!r}")
    try:
        headers = {"Authorization": f"Bearer {key.encode('ascii').decode()}"}
    except UnicodeEncodeError:
        raise VMError("that is no key: keys are nvm_..., in ASCII") from None
    return {
        "base_url": url.rstrip("/"),
        "headers": headers,
        "timeout": timeout_seconds,
        "transport": transport,
        "follow_redirects": False,  # where a key is sent is not for a server to say
    }


def _patient() -> Any:
    """Of a stream, which says something every quarter of a minute."""
    return _httpx().Timeout(TIMEOUT_SECONDS, read=60.0)


def _get(path: str) -> _Call:
    return _Call("GET", path)


def _run(run_id: str, path: str = "") -> str:
    return f"runs/{quote(run_id, safe='')}{path}"


def _standing(run_id: str, seen: str) -> _Call:
    query = f"?{_query({'seen': seen})}" if seen else ""
    return _get(f"standings/{quote(run_id, safe='')}{query}")


def _program(name: str, version: int | None) -> _Call:
    rest = "" if version is None else f"/versions/{version}"
    return _get(f"programs/{quote(name, safe='')}{rest}")


def _start(
    program: str,
    inputs: Mapping[str, Any] | None,
    version: int | None,
    run_id: str | None,
    labels: Mapping[str, str] | None,
    seed: int | None,
) -> _Call:
    body = {
        "program": program,
        "version": version,
        "inputs": admit(dict(inputs or {}))[0],
        "run_id": run_id,
        "labels": dict(labels or {}),
        "seed": seed,
    }
    # so that the same run is joined where the answer to the first attempt was lost
    headers = {} if run_id is not None else {"Idempotency-Key": str(uuid4())}
    return _Call("POST", "runs", body, headers)


def _decide(run_id: str, path: str, shown: str, answer: str, **more: Any) -> _Call:
    body = {"run": run_id, "path": path, "shown": shown, "answer": answer, **more}
    return _Call("POST", "inbox", body, again=False)


def _resolve(run_id: str, path: str, shown: str, done: Any, retry: bool, fail: str | None) -> _Call:
    if retry:
        return _decide(run_id, path, shown, "resolve", how="retry")
    if fail is not None:
        return _decide(run_id, path, shown, "resolve", how="fail", reason=fail)
    output = canonical(admit(done)[0]).decode()
    return _decide(run_id, path, shown, "resolve", how="done", output=output)


def _sums(by: str, prices: Mapping[str, Any] | None, query: Mapping[str, str]) -> _Call:
    asked = _query({"by": by, **query})
    if prices is None:
        return _get(f"costs?{asked}")
    told = {
        name: {part: str(amount) for part, amount in price.items()}
        if isinstance(price, Mapping)
        else [str(amount) for amount in price]
        for name, price in prices.items()
    }
    return _Call("POST", f"costs/what-if?{asked}", {"prices": told})


def _event(run_id: str, name: str, payload: Any, id: str | None) -> _Call:
    body = {"name": name, "payload": admit(payload)[0], "id": id}
    return _Call("POST", _run(run_id, "/events"), body, again=id is not None)


def _query(query: Mapping[str, str]) -> str:
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())


def _awaited(until: str) -> tuple[str, ...]:
    if until not in ("ended", "waiting"):
        raise VMError(f"until is 'ended' or 'waiting', not {until!r}")
    return (*ENDED, SUSPENDED) if until == "waiting" else ENDED


def _late(run_id: str, view: Mapping[str, Any]) -> TimeoutError:
    return TimeoutError(f"run {run_id!r} is {view['status']} still; it goes on")


def _project_of(me: Mapping[str, Any]) -> str:
    known = [found["project"] for found in me["projects"]]
    if len(known) != 1:
        raise VMError(f"which project? Give one of {', '.join(known) or 'yours: there is none'}")
    return str(known[0])


def _read(answer: httpx.Response) -> dict[str, Any]:
    """What a server answered; nothing is an object without fields.

    Raises:
        VMError: If it refused.
    """
    if answer.is_success:
        try:
            found: dict[str, Any] = json.loads(answer.content) if answer.content else {}
            return found
        except ValueError:
            told = "what answered is no server of nano-vm: it sent no JSON"
            raise ServerError(told, answer.status_code) from None
    try:
        problem = json.loads(answer.content)
        kind = str(problem["type"]).rpartition(":")[2]
        detail, request_id = str(problem["detail"]), str(problem.get("request_id", ""))
    except (ValueError, KeyError, TypeError):
        told = f"the server, or a proxy before it, answered {answer.status_code}"
        raise ServerError(told, answer.status_code) from None
    if "diagnostics" in problem:
        raise ProgramError(Diagnostic.from_dict(found) for found in problem["diagnostics"])
    if answer.status_code == 503:
        raise StoreError(detail, passing=True)
    if kind in _ERRORS:
        raise _ERRORS[kind](detail)
    raise ServerError(detail, answer.status_code, request_id)


def _ended_early() -> StoreError:
    return StoreError("the server ended the stream before the run has ended", passing=True)


def _unreached(error: Exception) -> StoreError:
    told = str(error) or type(error).__name__
    return StoreError(f"the server cannot be reached: {told}", passing=True)
