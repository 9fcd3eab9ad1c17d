"""A server in its process: uvicorn on a socket that listens, and a worker beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator

import uvicorn

from .app import application
from .state import State

logger = logging.getLogger("nano_vm.server")

SHUTDOWN_SECONDS = 5
"""How long requests under way have to end; streams are cut then, and resume elsewhere."""


class _Server(uvicorn.Server):
    """One that leaves signals to its process: uvicorn's own raises them again at its end, and would
    interrupt the worker that lets its calls end.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: they are handled by the event loop."""
        yield


def serve(state: State, listening: socket.socket, concurrency: int | None = None) -> None:
    """Serve until a signal says to stop; with *concurrency*, drive so many runs at a time too."""
    asyncio.run(_serve(state, listening, concurrency))


async def _serve(state: State, listening: socket.socket, concurrency: int | None) -> None:
    config = uvicorn.Config(
        application(state),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        proxy_headers=state.public_url is not None,
        forwarded_allow_ips="127.0.0.1",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # on Windows: Ctrl-C is a KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
    worker = None
    if concurrency is not None and state.vm is not None:
        worker = asyncio.create_task(
            state.vm.work(concurrency=concurrency, ended=lambda _: None, name="server")
        )
        worker.add_done_callback(_said)
    try:
        await server.serve(sockets=[listening])
    finally:
        if worker is not None:
            worker.cancel()
            await asyncio.wait([worker])


def _said(worker: asyncio.Task[object]) -> None:
    if not worker.cancelled() and worker.exception() is not None:
        logger.error("the worker in this process has stopped: %s", worker.exception())
