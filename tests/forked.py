"""The process that `warm` forks: it imports what is to be there before, and waits for requests.

Its arguments are the number of a socket, the folder with the sources, and the modules. Each request comes with
three streams, and is answered by the id of the new process, and once more when whoever asked is its
parent: the process between the two, whose child it was, has ended.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import sys
import time
import types
from typing import Any

MOST_BYTES = 2**17
"""Of a request: the code or the arguments, and the environment. What is longer would be cut."""


def _request(client: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """What a fork of this process, in which it returns, is to do, and its streams; in the process
    itself None, once nothing more is requested.
    """
    while True:
        data, streams, *_ = socket.recv_fds(client, MOST_BYTES, 3)
        if not data:
            return None
        adopted, adopt = os.pipe()
        if (middle := os.fork()) == 0:
            os.close(adopt)
            if (child := os.fork()) == 0:
                client.close()
                os.read(adopted, 1)
                return json.loads(data), streams
            client.send(str(child).encode())
            os._exit(0)  # an orphan is adopted by whoever asked
        os.waitpid(middle, 0)
        for one in (*streams, adopted, adopt):
            os.close(one)
        client.send(b"adopted")


def _become(request: dict[str, Any], streams: list[int], path: list[str]) -> None:
    """Make this process like one that has just been started."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if request["session"]:
        os.setsid()
    if request["group"] >= 0:
        os.setpgid(0, request["group"])
    os.chdir(request["folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    given = os.environ.get("PYTHONPATH", "")
    first = "" if request["arguments"][0] == "-c" else os.getcwd()
    sys.path[:] = [first, *(given.split(os.pathsep) if given else ()), *path]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _renew(number, name)


def _renew(number: int, name: str) -> None:
    """Open a standard stream over what its number is now, as Python does at its start."""
    before = getattr(sys, name)
    mode = "w" if number else "r"
    raw = io.FileIO(number, mode, closefd=False)
    raw.name = f"<{name}>"
    plain = before.write_through  # as PYTHONUNBUFFERED has it
    lines = not plain and (raw.isatty() or name == "stderr")
    buffer: Any = raw
    if not number:
        buffer = io.BufferedReader(raw)
    elif not plain:
        buffer = io.BufferedWriter(raw)
    stream = io.TextIOWrapper(buffer, before.encoding, before.errors, "\n", lines, plain)
    stream.mode = mode
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def _do(arguments: list[str]) -> None:
    """What Python does with these *arguments*."""
    sys.orig_argv[:] = [sys.executable, *arguments]
    kind, what, *more = arguments
    sys.argv[:] = [kind, *more]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec", dont_inherit=True), vars(main))


def _main() -> None:
    number, source, *modules = sys.argv[1:]
    client = socket.socket(fileno=int(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    path = sys.path[1:]
    sys.path[:] = [source, *path]
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    assert len(os.listdir("/proc/self/task")) == 1, "a fork has none of the threads"
    found = _request(client)
    if found is not None:
        request, streams = found
        _become(request, streams, path)
        _do(request["arguments"])


if __name__ == "__main__":
    _main()
