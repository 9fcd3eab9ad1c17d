"""A fleet of providers on loopback ports: each speaks OpenAI's chat completions over real HTTP and
answers, fails, hangs and limits as its behaviour says, drawn from a seed.

It keeps when each request arrived, so that a test can hold limits against what a provider sees.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from patience import HANGS_SECONDS

Latency = Callable[[random.Random], float]


def constant(seconds: float) -> Latency:
    return lambda _: seconds


NONE = constant(0.0)


def mostly(fast: float, slow: float, share: float) -> Latency:
    """*fast*, but for a *share* of calls that are *slow*."""
    return lambda rng: slow if rng.random() < share else fast


@dataclass
class Provider:
    """How one provider behaves; a test changes it while it runs. *answer* is given the number of
    the request; *fault* is a status, ``hang``, ``garbage``, ``drop`` or None.
    """

    name: str
    latency: Latency = NONE
    fault: int | str | None = None
    retry_after: float | None = None
    answer: Callable[[int], str] = lambda number: "yes"
    seed: int = 0
    now: Callable[[], float] = time.monotonic
    arrivals: list[float] = field(default_factory=list)
    url: str = ""
    under_way: int = 0
    most_under_way: int = 0
    hangs: bool = False  # whether the newest request gets no answer
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed}{self.name}")

    @property
    def calls(self) -> int:
        return len(self.arrivals)

    def most_in(self, seconds: float) -> int:
        """The most requests that arrived in any window of so many seconds."""
        most = start = 0
        for end, time_ in enumerate(self.arrivals):
            while self.arrivals[start] <= time_ - seconds:
                start += 1
            most = max(most, end - start + 1)
        return most

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _request(reader)) is not None:
                self.arrivals.append(self.now())
                number = self.calls
                if self.fault == "hang":
                    await asyncio.sleep(60)
                if self.fault == "drop":
                    return
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                latency = self.latency(self.rng)
                self.hangs = latency >= HANGS_SECONDS
                await asyncio.sleep(latency)
                self.under_way -= 1
                writer.write(self._reply(request, number))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side has left, or the test is over
        finally:
            writer.close()

    def _reply(self, request: dict[str, Any], number: int) -> bytes:
        if type(self.fault) is int:
            after = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
            return _http(self.fault, {"error": {"message": f"{self.name} fails"}}, **after)
        if self.fault == "garbage":
            return _http(200, "<html>not what you think</html>")
        words = self.answer(number)
        body = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": self.name,
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": words},
                }
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
        return _http(200, body)


async def _request(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    length = next(
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    return json.loads(await reader.readexactly(length))  # type: ignore[no-any-return]


def _http(status: int, body: Any, **headers: str) -> bytes:
    sent = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    told = {"content-type": "application/json", "content-length": str(len(sent)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + sent


@asynccontextmanager
async def fleet(*providers: Provider) -> AsyncIterator[list[Provider]]:
    """*providers* on ports of their own, while the context lasts."""
    servers = []
    try:
        for provider in providers:
            server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
            servers.append(server)
            provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield list(providers)
    finally:
        for server in servers:
            server.close()
