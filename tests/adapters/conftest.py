"""What the adapters' tests share: the servers they talk to, and how the real one's answers are
recorded.

To record the cassettes anew: ``pytest tests/adapters/test_cassettes.py --record-mode=rewrite``.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from canned import FaultyServer
from real_llm import MODEL_NAME, llm_server


@pytest.fixture(scope="session")
def llm_url() -> Iterator[str]:
    with llm_server() as base_url:
        yield base_url


@pytest.fixture(scope="session")
def wire_url(request: pytest.FixtureRequest, record_mode: str) -> str:
    """Where the recorded calls go: to the real server while recording, else nowhere."""
    return "http://127.0.0.1:9/v1" if record_mode == "none" else request.getfixturevalue("llm_url")


def _plain(request: Any) -> Any:
    """A request as it would be from any machine: no port that was free by chance, no versions, no
    key.
    """
    request.uri = "http://llm.test/v1" + request.uri.partition("/v1")[2]
    request.headers = {
        key: value
        for key, value in request.headers.items()
        if key.lower() in ("accept", "content-type")
    }
    return request


@pytest.fixture(scope="module")
def vcr_config() -> dict[str, Any]:
    return {
        "before_record_request": _plain,
        "decode_compressed_response": True,
        # every call has the same address: without the body any answer would do
        "match_on": ["method", "scheme", "host", "port", "path", "body"],
    }


@pytest.fixture(scope="session")
def model_name() -> str:
    return MODEL_NAME


@pytest.fixture
def faulty_server() -> Iterator[FaultyServer]:
    faulty = FaultyServer()
    with faulty.server as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield faulty
        faulty.released.set()
        server.shutdown()


@pytest.fixture
def http_server(faulty_server: FaultyServer) -> str:
    return faulty_server.url
