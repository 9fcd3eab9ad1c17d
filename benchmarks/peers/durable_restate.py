"""Restate: a service whose handler makes 20 durable runs, served by Hypercorn in this process; its
server in the default configuration, which syncs the log of each batch. Called over HTTP connections
that are kept open.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import restate
from durable_peer import IN_FLIGHT, STEPS, folder, free_port, options, serve, server
from hypercorn.asyncio import serve as listen
from hypercorn.config import Config

service = restate.Service("durable")


async def noop(x: str) -> str:
    return x


@service.handler()
async def program(ctx: restate.Context, x: str) -> str:
    for number in range(STEPS):
        x = await ctx.run_typed(f"s{number}", noop, x=x)
    return x


async def post(connection: Any, path: str, body: Any) -> Any:
    """A request over a connection that stays open, and its JSON answer."""
    reader, writer = connection
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: "
        f"application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    status = int((await reader.readline()).split()[1])
    length = 0
    while (line := await reader.readline()).strip():
        name, _, value = line.decode().partition(":")
        if name.lower() == "content-length":
            length = int(value)
    answer = await reader.readexactly(length)
    if status >= 300:
        raise RuntimeError(f"{path}: {status} {answer!r}")
    return json.loads(answer)


async def main() -> None:
    ingress, admin, node, own = (free_port() for _ in range(4))
    environment = {
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "error",
        "DO_NOT_TRACK": "1",
    }
    command = [options().server, "--base-dir", str(folder() / "restate"), "--no-logo"]
    config = Config()
    config.bind = [f"127.0.0.1:{own}"]
    config.loglevel = "ERROR"
    ended = asyncio.Event()
    listening = asyncio.create_task(
        listen(restate.app([service]), config, shutdown_trigger=ended.wait)
    )
    with server(command, admin, **environment) as process:
        for attempt in range(100):
            try:
                connection = await asyncio.open_connection("127.0.0.1", admin)
                await post(connection, "/deployments", {"uri": f"http://127.0.0.1:{own}"})
                break
            except Exception:
                if attempt == 99:
                    raise
                await asyncio.sleep(0.2)
        connections: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(IN_FLIGHT):
            connections.put_nowait(await asyncio.open_connection("127.0.0.1", ingress))

        async def run(text: str) -> Any:
            connection = await connections.get()
            try:
                return await post(connection, "/durable/program", text)
            finally:
                connections.put_nowait(connection)

        await serve(run, [process.pid])
    ended.set()
    await listening


asyncio.run(main())
