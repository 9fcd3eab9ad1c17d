"""A Temporal development server on loopback, and workers on it whose hosts are chosen by the run: one
server and one worker serve all tests of a process.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from postgres import free_port
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from nano_vm import ExecutionVM
from nano_vm.errors import VMError
from nano_vm.temporal import NanoProgram, connect
from nano_vm.temporal.activities import Activities
from nano_vm.temporal.terms import ADMIT, CALL_MODEL, CALL_TOOL

BINARY = Path(sys.executable).with_name("temporal")
TEST_SERVER = BINARY.with_name("temporal-test-server")
"""The development server, and the one whose time can be skipped; `make test` installs both."""


class Server:
    """A development server; *database* is its file, without which it forgets all when it ends, and
    *ip* what it listens on.
    """

    def __init__(self, database: Path | None = None, ip: str = "127.0.0.1") -> None:
        self.port = free_port()
        self.database, self.ip = database, ip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [str(BINARY), "server", "start-dev", "--ip", self.ip, "--headless"]
        command += ["--port", str(self.port), "--log-level", "never"]
        if self.database is not None:
            command += ["--db-filename", str(self.database), "--sqlite-pragma", "journal_mode=wal"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def client(self) -> Client:
        """A client, as soon as the server answers."""
        for _ in range(200):
            try:
                return await connect(self.address)
            except VMError:
                await asyncio.sleep(0.05)
        raise TimeoutError(f"no server at {self.address}")


class Hosts:
    """The activities of one worker, each made by the host of its run."""

    def __init__(self) -> None:
        self.by_run: dict[str, Activities] = {}

    def host(self, run_id: str, vm: ExecutionVM) -> None:
        self.by_run[run_id] = Activities(vm)

    @property
    def _own(self) -> Activities:
        return self.by_run[activity.info().workflow_id or ""]

    @activity.defn(name=ADMIT)
    async def admit(self, told: dict[str, Any]) -> dict[str, Any]:
        return await self._own.admit(told)

    @activity.defn(name=CALL_TOOL)
    async def call_tool(self, told: dict[str, Any], *large: Any) -> Any:
        return await self._own.call_tool(told, *large)

    @activity.defn(name=CALL_MODEL)
    async def call_model(self, told: dict[str, Any]) -> Any:
        return await self._own.call_model(told)

    def worker(self, client: Client, task_queue: str) -> Worker:
        activities: list[Callable[..., Any]] = [self.admit, self.call_tool, self.call_model]
        return Worker(client, task_queue=task_queue, workflows=[NanoProgram], activities=activities)


@asynccontextmanager
async def serving(client: Client, task_queue: str) -> AsyncIterator[Hosts]:
    """A worker whose hosts are added as runs begin."""
    hosts = Hosts()
    async with hosts.worker(client, task_queue):
        yield hosts
