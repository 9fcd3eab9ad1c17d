"""A server of the tests, and of benchmarks and scripts, on a port of its own."""

from __future__ import annotations

import copy
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import uvicorn
from starlette.datastructures import State as Attributes

from nano_vm.server.app import Application, application
from nano_vm.server.state import State


@cache
def _prototype() -> Application:
    return application(None)  # type: ignore[arg-type] # each of its copies has a state


def over(state: State) -> Application:
    """`application`, whose routes are made once: it takes a sixth of a second, and they are the
    same for every state.
    """
    made = copy.copy(_prototype())
    made.state = Attributes({"server": state})
    return made


@contextmanager
def served(state: State) -> Iterator[str]:
    """The address at which a server answers."""
    with answering(over(state)) as address:
        yield address


@contextmanager
def answering(app: Any) -> Iterator[str]:
    """The address at which *app* answers."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        server: Any = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
