"""A connection to an MCP server that is made anew where it breaks: calls go in, results come out.

The SDK's client lives in one task of one event loop, while tools are called from any: so it has a
loop of its own, in a thread. A call whose request may have reached the server is never repeated
here; what is to be done about it is a matter of the program.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import threading
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import MissingExtra, ToolError, VMError
from ..values import short

CONNECT_SECONDS = 30.0
"""To start a server and hear from it: ``npx`` and ``uvx`` may have to fetch it first."""

QUIET_SECONDS = 1.0
"""After so long without a word, a server is asked for its tools before it is called: it may have
died, or be another one now. A list takes a millisecond on one machine."""

CLOSE_SECONDS = 5.0

MAX_PAGES = 100
"""Of a list of tools; a server that goes on with ever another page is stopped here."""

Result = TypeVar("Result")


class Connection:
    """To the server that *source* names: a command, or a URL of streamable HTTP.

    Raises:
        MissingExtra: If the SDK is not installed.
        VMError: If *source* is neither.
    """

    def __init__(
        self,
        source: str,
        *,
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        try:
            import mcp  # noqa: F401 - whether it is there
        except ImportError:
            raise MissingExtra("MCP", "mcp") from None
        self.url, self.command = split_source(source)
        self.env, self.headers = dict(env or {}), dict(headers or {})
        self.connect_seconds = connect_seconds
        self.closed = False
        self.generation = 0  # how often it was connected
        self.changed = False  # whether the server said that its tools have
        self.listed: list[Any] = []  # what it said last that it has
        self._client: Any = None
        self._holder: asyncio.Task[None] | None = None
        self._stop: asyncio.Event | None = None
        self._heard = 0.0
        self._loop = asyncio.new_event_loop()
        self._connecting = asyncio.Lock()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="nano-vm-mcp", daemon=True
        )
        self._thread.start()

    def __str__(self) -> str:
        return self.url or shlex.join(self.command)

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of *work*, which runs in the connection's loop and is cancelled with us."""
        if self.closed:
            work.close()
            raise ToolError(f"the connection to {self} was closed", retryable=False)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """`run` for code without an event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """End the connection, and a server that was started for it."""
        if self.closed:
            return
        self.closed = True
        with suppress(Exception):  # whatever it answers, it is not needed any more
            left = asyncio.run_coroutine_threadsafe(self._leave(), self._loop)
            left.result(CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    # --- in the connection's loop ---

    async def tools(self) -> list[Any]:
        """The tools that the server has now, as the SDK has them."""
        client = await self._connected()
        return await self._listed(client)

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """The server's answer to a call.

        Raises:
            ConnectionError: If the connection was lost on the way: what came of it is not known.
            ToolError: If the server refused the call.
        """
        from mcp.shared.exceptions import MCPError
        from mcp_types import CONNECTION_CLOSED

        client = await self._connected()
        try:
            result = await client.call_tool(name, arguments)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                await self._leave()
                raise ConnectionError(f"{self} closed the connection during the call") from None
            raise ToolError(f"{self} refused the call: {error.message}") from None
        except asyncio.CancelledError:
            raise
        except (ValueError, TypeError) as error:  # an answer that is none
            raise ToolError(f"{self} gave no valid result: {error}", retryable=False) from error
        except Exception as error:
            await self._leave()
            raise ConnectionError(f"the connection to {self} was lost: {_why(error)}") from error
        self._heard = self._loop.time()
        return result

    async def alive(self) -> list[Any]:
        """Make sure that the server is there before a call is made, connecting anew where it is
        gone; its tools, in another list where they may be others than before.
        """
        if self._client is not None and not self.changed:
            if self._loop.time() - self._heard < QUIET_SECONDS:
                return self.listed
            client = self._client
            try:
                return await self._listed(client)
            except Exception:  # noqa: BLE001 - whatever it is, nothing was called yet
                await self._leave()
        return await self.tools()

    async def _listed(self, client: Any) -> list[Any]:
        tools: list[Any] = []
        cursor: str | None = None
        self.changed = False
        async with asyncio.timeout(self.connect_seconds):
            for _ in range(MAX_PAGES):
                page = await client.list_tools(cursor=cursor, cache_mode="refresh")
                tools += page.tools
                cursor = page.next_cursor
                if cursor is None:
                    self._heard, self.listed = self._loop.time(), tools
                    return tools
        raise ToolError(f"{self} lists its tools without end", retryable=False)

    async def _connected(self) -> Any:
        """A client; raises `ToolError` where there is none to be had: nothing was called."""
        async with self._connecting:
            if self._client is not None:
                return self._client
            ready: asyncio.Future[Any] = self._loop.create_future()
            self._stop = asyncio.Event()
            self._holder = self._loop.create_task(self._hold(ready, self._stop))
            try:
                async with asyncio.timeout(self.connect_seconds):
                    self._client = await asyncio.shield(ready)
            except TimeoutError:
                await self._leave()
                raise ToolError(
                    f"{self} did not answer within {self.connect_seconds:g} s"
                ) from None
            except asyncio.CancelledError:
                await self._leave()
                raise
            except Exception as error:
                raise ToolError(f"cannot reach {self}: {_why(error)}") from error
            self.generation += 1
            self._heard = self._loop.time()
            return self._client

    async def _hold(self, ready: asyncio.Future[Any], stop: asyncio.Event) -> None:
        """Keep a client open until it is asked to stop, in the one task that may close it."""
        from mcp import Client

        try:
            async with (
                self._http() as http,
                Client(self._target(http), message_handler=self._notified) as client,
            ):
                if not ready.done():
                    ready.set_result(client)
                await stop.wait()
        except BaseException as error:  # noqa: BLE001 - who waits for the client is told
            if not ready.done():
                ready.set_exception(_inner(error))
                ready.exception()  # it may be that nobody waits any more

    def _http(self) -> Any:
        """The HTTP client with the host's headers; nothing for a command."""
        if self.url is None or not self.headers:
            from contextlib import nullcontext

            return nullcontext()
        from mcp.shared._httpx_utils import create_mcp_http_client

        return create_mcp_http_client(headers=self.headers)

    def _target(self, http: Any) -> Any:
        if self.url is None:
            from mcp import StdioServerParameters
            from mcp.client.stdio import stdio_client

            command, *arguments = self.command
            # beside the few variables that the SDK hands on: a key of ours is none of its business
            server = StdioServerParameters(command=command, args=arguments, env=self.env)
            # what a server writes goes where this process's own errors went when it began: the SDK
            # would take what `sys.stderr` was at its import
            return stdio_client(server, errlog=sys.__stderr__ or sys.stderr)
        if http is None:
            return self.url
        from mcp.client.streamable_http import streamable_http_client

        return streamable_http_client(self.url, http_client=http)

    async def _notified(self, message: Any) -> None:
        if type(message).__name__ == "ToolListChangedNotification":
            self.changed = True

    async def _leave(self) -> None:
        """End the client; the next call connects anew."""
        holder, self._client, self._holder = self._holder, None, None
        if holder is None:
            return
        if self._stop is not None:
            self._stop.set()
        _, pending = await asyncio.wait([holder], timeout=CLOSE_SECONDS / 2)
        for task in pending:
            task.cancel()
            await asyncio.wait([task], timeout=CLOSE_SECONDS / 2)


def split_source(source: Any) -> tuple[str | None, list[str]]:
    """The URL, or the words of the command, that *source* is.

    Raises:
        VMError: If it is neither.
    """
    if isinstance(source, str) and "://" in source.split(" ", 1)[0]:
        try:
            parts = urlsplit(source)
            if parts.scheme in ("http", "https") and parts.hostname and " " not in source:
                return source, []
        except ValueError:
            pass
        raise VMError(f"{short(source)} is no URL of an MCP server; write http://HOST:PORT/mcp")
    try:
        words = shlex.split(source) if isinstance(source, str) else []
    except ValueError as error:
        raise VMError(f"{short(source)} is no command: {error}") from None
    if not words:
        raise VMError(
            f"an MCP server is a command or a URL, not {short(source)}; write for example "
            f"'uvx mcp-server-time'"
        )
    return None, words


def _inner(error: BaseException) -> Exception:
    """The first of what task groups gather, which says what happened."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else ConnectionError("the connection was ended")


def _why(error: BaseException) -> str:
    inner = _inner(error)
    return str(inner) or type(inner).__name__
