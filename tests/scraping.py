"""A real Prometheus that scrapes what a test serves."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from postgres import free_port

UNPACKED = Path(__file__).parents[1] / ".venv" / "prometheus" / "usr" / "bin"
"""Where `make test` puts Debian's, on a machine that has none."""


def found(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path=UNPACKED)
    if path is None:
        pytest.skip(f"{name} is not on this machine, and `make test` could not fetch it")
    return path


@contextmanager
def prometheus_over(target: str, folder: Path, token: str | None = None) -> Iterator[str]:
    """A Prometheus that scrapes *target* twice a second, with a *token* if it needs one; its
    address.
    """
    prometheus = found("prometheus")
    config = folder / "prometheus.yml"
    proof = f"authorization: {{credentials: '{token}'}}, " if token is not None else ""
    config.write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
        f"scrape_configs: [{{job_name: vm, {proof}static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            prometheus,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def asked(url: str, query: str, seconds: float = 60) -> list[Any]:
    """The answer to a query, as soon as there is one."""
    end = time.monotonic() + seconds
    address = f"{url}/api/v1/query?query={urllib.parse.quote(query)}"
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=10) as response:
                result: list[Any] = json.load(response)["data"]["result"]
        except OSError:  # it is not up yet
            result = []
        if result and result[0]["value"][1] != "NaN":
            return result
        time.sleep(0.2)
    raise AssertionError(f"no answer to {query}")
