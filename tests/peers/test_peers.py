"""What the tools of others make of a run: it is sent to a real Phoenix and a real MLflow, and read
back through their interfaces. ``make peers`` installs them, each in an environment of its own.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres import free_port

from nano_vm.telemetry import otlp

PEERS = os.environ.get("NANO_VM_PEERS")
EXAMPLE = Path(__file__).parents[2] / "examples" / "observability" / "refund.py"
NAMES = {
    "invoke_workflow customer_refund": None,
    "chat small": "invoke_workflow customer_refund",
    "assert guardrail": "invoke_workflow customer_refund",
    "execute_tool get_order": "invoke_workflow customer_refund",
    "attempt 1": "execute_tool get_order",
    "map delivery": "invoke_workflow customer_refund",
    "execute_tool carrier": "map delivery",
    "assert rules": "invoke_workflow customer_refund",
    "execute_tool issue_refund": "invoke_workflow customer_refund",
}
"""Each span of the example, and the one that it stands in."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.elsewhere("needs the servers that make peers installs"),
    pytest.mark.skipif(PEERS is None, reason="make peers runs it"),
]


def asked(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        text = response.read().decode()
    return json.loads(text) if text[:1] in ("{", "[") else text


class Peer:
    """A server in a process of its own."""

    def __init__(
        self, command: list[str], folder: Path, health: str, port: int, **env: str
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={"PATH": os.environ["PATH"], "HOME": str(folder), **env},
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 240
        while time.monotonic() < end:
            try:
                asked(f"{self.url}{health}")
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.5)
            else:
                return
        raise AssertionError(self.log.read_text())

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


@pytest.fixture
def phoenix(tmp_path: Path) -> Iterator[Peer]:
    port = free_port()
    peer = Peer(
        [f"{PEERS}/phoenix/bin/phoenix", "serve"],
        tmp_path,
        "/healthz",
        port,
        PHOENIX_WORKING_DIR=str(tmp_path),
        PHOENIX_HOST="127.0.0.1",
        PHOENIX_PORT=str(port),
        PHOENIX_GRPC_PORT=str(free_port()),
        PHOENIX_TELEMETRY_ENABLED="false",
    )
    yield peer
    peer.close()


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Peer]:
    port = free_port()
    command = [
        f"{PEERS}/mlflow/bin/mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--workers", "1",
    ]  # fmt: skip
    peer = Peer(command, tmp_path, "/health", port)
    yield peer
    peer.close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has just begun may take its time with the first request."""
    monkeypatch.setattr(otlp, "TIMEOUT_SECONDS", 120.0)


def sent(address: str) -> None:
    """The run of the example, sent to *address*."""
    assert runpy.run_path(str(EXAMPLE))["main"](address) == 0


def until(read: Any) -> Any:
    """What *read* gives, as soon as it gives something."""
    end = time.monotonic() + 60
    while not (found := read()):
        assert time.monotonic() < end
        time.sleep(0.3)
    return found


def test_phoenix_has_the_run_as_it_was(phoenix: Peer) -> None:
    sent(phoenix.url)
    spans = f"{phoenix.url}/v1/projects/default/spans?limit=100"

    def whole() -> Any:
        data = asked(spans)["data"]
        return data if len(data) == 10 else None

    found = until(whole)
    names = {span["context"]["span_id"]: span["name"] for span in found}
    assert {span["name"]: names.get(span["parent_id"]) for span in found} == NAMES
    by_name = {span["name"]: span for span in found}
    assert {name: span["span_kind"] for name, span in by_name.items()} == {
        "invoke_workflow customer_refund": "CHAIN",
        "chat small": "LLM",
        "assert guardrail": "GUARDRAIL",
        "assert rules": "GUARDRAIL",
        "map delivery": "CHAIN",
        "attempt 1": "CHAIN",
        "execute_tool get_order": "TOOL",
        "execute_tool carrier": "TOOL",
        "execute_tool issue_refund": "TOOL",
    }
    chat = by_name["chat small"]["attributes"]
    assert chat["llm.token_count.prompt"] == 62
    assert chat["llm.cost.total"] == 1.12e-05
    assert by_name["attempt 1"]["status_code"] == "ERROR"
    (trace,) = asked(f"{phoenix.url}/v1/projects/default/traces")["data"]
    assert (trace["token_count_prompt"], trace["token_count_completion"]) == (62, 3)
    run = by_name["invoke_workflow customer_refund"]["attributes"]
    assert "My card is [redacted]" in run["input.value"]
    assert run["output.value"] == "refunded $49.90 for A-1001"


def test_mlflow_has_the_run_as_it_was(mlflow: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    # the example has no option for what MLflow wants besides
    headers = {"x-mlflow-experiment-id": "0"}
    made = otlp.Otlp

    def with_headers(endpoint: str, **options: Any) -> otlp.Otlp:
        return made(endpoint, headers=headers, **options)

    monkeypatch.setattr(otlp, "Otlp", with_headers)
    sent(mlflow.url)
    api = f"{mlflow.url}/api/3.0/mlflow/traces"
    wanted = {
        "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}]
    }
    (info,) = until(lambda: asked(f"{api}/search", wanted).get("traces"))
    usage = json.loads(info["trace_metadata"]["mlflow.trace.tokenUsage"])
    assert (usage["input_tokens"], usage["output_tokens"]) == (62, 3)
    told = asked(f"{api}/get?trace_id={info['trace_id']}&allow_partial=true")
    spans = told["trace"]["spans"]
    names = {span["span_id"]: span["name"] for span in spans}
    assert {s["name"]: names.get(s.get("parent_span_id")) for s in spans} == NAMES
