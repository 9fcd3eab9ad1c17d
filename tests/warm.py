"""Processes of Python that start soon: `Popen` and `run` are as those of `subprocess`, for
``[sys.executable, "-m", MODULE, ...]`` and ``[sys.executable, "-c", CODE, ...]``.

To start Python and import what nearly every command needs takes half a second of a processor. Here
one process for each process of the tests does so and begins nothing, and what starts is a fork of
it: a child of the test that can be killed and waited for, with its own folder, environment,
streams, signals and times, which ends as Python does. Only what was imported is there before, and
hashes have the same seed. Its umask, its limits and the signals that it ignores are those of the
first start. So what is about a start, imports, another Python or an installed package starts by
`subprocess`.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import forked

COMMANDS = (
    *("pydantic.plugin._loader", "pydantic.type_adapter", "rich.live", "tomllib"),
    *("concurrent.futures.thread", "nano_vm.cli.main", "nano_vm.cli.host", "nano_vm.cli.models"),
    *("nano_vm.cli.telemetry", "nano_vm.cli.said", "nano_vm.cli.commands.batch"),
    *("nano_vm.cli.commands.run", "nano_vm.cli.commands.work", "nano_vm.records.secrecy"),
    *("nano_vm.store.sql.store", "nano_vm.store.transfer"),
)
"""What is imported before the fork, with all that these import."""

SERVERS = (
    *(*COMMANDS, "alembic.command", "prometheus_client", "psycopg", "uvicorn.protocols.http.auto"),
    *("nano_vm.cli.commands.serve", "nano_vm.server.serving"),
)

_ENVIRONMENT = dict(os.environ)
_ADOPTS_ORPHANS = 36
"""``PR_SET_CHILD_SUBREAPER`` of Linux."""

_starting = threading.Lock()


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that Python reads before anything of ours runs."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(("PYTHON", "LC_")) or name == "LANG"
        if name != "PYTHONPATH"
    }


class _Forked:
    """The process that is forked, and the socket to it."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        found = find_spec("nano_vm")
        assert found is not None
        assert found.origin is not None
        source = os.path.dirname(os.path.dirname(found.origin))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, forked.__file__, str(theirs.fileno()), source, *modules],
                stdin=subprocess.DEVNULL,
                cwd="/",
                env={**_ENVIRONMENT, "PYTHONPATH": ""},
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.end)

    def end(self) -> None:
        """Let it end, and start no other process."""
        atexit.unregister(self.end)
        self.socket.shutdown(socket.SHUT_RDWR)  # for a fork of this process that has it, too
        self.socket.close()
        self.process.wait()

    def start(self, request: dict[str, Any], streams: list[int]) -> int:
        """The id of a new process, a child of this one, that does what is requested."""
        data = json.dumps(request).encode()
        assert len(data) <= forked.MOST_BYTES, f"{len(data)} bytes are too much to start warm"
        control = ctypes.CDLL(None).prctl
        answers: list[bytes] = []
        control(_ADOPTS_ORPHANS, 1, 0, 0, 0)
        try:
            socket.send_fds(self.socket, [data], streams)
            answers.append(self.socket.recv(forked.MOST_BYTES))
            assert answers[0], "the process that is forked has ended"
            # and that the new process is a child of this one
            answers.append(self.socket.recv(forked.MOST_BYTES))
        except BaseException:
            self.abandon(answers)
            raise
        finally:
            control(_ADOPTS_ORPHANS, 0, 0, 0, 0)
        return int(answers[0])

    def abandon(self, answers: list[bytes]) -> None:
        """End it, and what it started for a request to which it has given these *answers*, or is
        about to: the next request would be given the others.
        """
        _forked.cache_clear()
        self.socket.shutdown(socket.SHUT_WR)
        while answer := self.socket.recv(forked.MOST_BYTES):
            answers.append(answer)
        for answer in filter(bytes.isdigit, answers):
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(int(answer), signal.SIGKILL)
                os.waitpid(int(answer), 0)
        self.end()


@functools.cache
def _forked(modules: tuple[str, ...]) -> _Forked:
    return _Forked(modules)


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """As that of `subprocess`, for what can start warm."""

    modules = COMMANDS

    def _execute_child(self, *given: Any) -> None:
        asked = inspect.signature(super()._execute_child).bind(*given).arguments
        command, environment = asked["args"], asked["env"]
        environment = dict(os.environ if environment is None else environment)
        wanted = (
            command[0] == sys.executable
            and command[1] in ("-m", "-c")
            and read_at_start(environment) == read_at_start(_ENVIRONMENT)
            and not any(asked[name] for name in ("preexec_fn", "pass_fds", "shell", "executable"))
            and all(asked[name] in (None, -1) for name in ("uid", "gid", "gids", "umask"))
        )
        if not wanted:
            raise ValueError(f"{command[:2]} cannot start warm; start it by subprocess")
        request = {
            "arguments": command[1:],
            "environment": environment,
            "folder": os.fspath(asked["cwd"] or os.getcwd()),
            "session": asked["start_new_session"],
            "group": asked["process_group"],
        }
        ends = (asked[name] for name in ("p2cread", "c2pwrite", "errwrite"))
        streams = [own if end == -1 else end for own, end in enumerate(ends)]
        with _starting:
            self.pid = _forked(self.modules).start(request, streams)
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in pipes))


class ServerPopen(Popen):
    """The same for servers, which import three times as much."""

    modules = SERVERS


def run(
    command: list[str],
    *,
    input: str | None = None,
    timeout: float | None = None,
    capture_output: bool = False,
    check: bool = False,
    **given: Any,
) -> subprocess.CompletedProcess[Any]:
    """As that of `subprocess`, for what can start warm."""
    if input is not None:
        given["stdin"] = subprocess.PIPE
    if capture_output:
        given["stdout"] = given["stderr"] = subprocess.PIPE
    with Popen(command, **given) as process:
        try:
            written = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, *written)
    if check:
        done.check_returncode()
    return done
