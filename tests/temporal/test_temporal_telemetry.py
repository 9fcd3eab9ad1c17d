"""One trace over client, workflow and activities, and the SDK's metrics at a port."""

from __future__ import annotations

import re
import socket
import sys
import urllib.request
from pathlib import Path

import pytest
import warm
from build import program, step
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from postgres import free_port
from receiver import Receiver
from temporalio.contrib.opentelemetry import TracingInterceptor

from nano_vm import ExecutionVM, tool
from nano_vm.cli import main
from nano_vm.temporal import TemporalRuns, connect, worker
from temporal.cluster import Server


async def test_a_trace_goes_over_client_workflow_and_activity(temporal_server: Server) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")

    @tool(effect="read")
    async def look(x: int) -> int:
        with tracer.start_as_current_span("in the tool"):
            return x

    client = await connect(temporal_server.address, interceptors=[TracingInterceptor(tracer)])
    async with worker(client, ExecutionVM(None, {"look": look}), "traced"):
        with tracer.start_as_current_span("the caller"):
            await TemporalRuns(client, "traced").run(program(step(tool="look", args={"x": 1})))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    names = {span.context.span_id: name for name, span in spans.items()}

    def above(name: str) -> list[str]:
        found = []
        parent = spans[name].parent
        while parent is not None:
            found.append(names[parent.span_id])
            parent = spans[found[-1]].parent
        return found

    assert above("in the tool") == [
        "RunActivity:nano.tool",
        "StartActivity:nano.tool",
        "StartWorkflow:NanoProgram",
        "the caller",
    ]
    assert above("RunWorkflow:NanoProgram") == ["StartWorkflow:NanoProgram", "the caller"]
    assert len({span.context.trace_id for span in spans.values()}) == 1
    assert otel.get_current_span().get_span_context().is_valid is False


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text("name: p\nsteps:\n- {id: a, type: tool, tool: look}\n")
    (tmp_path / "t.py").write_text("def look() -> int:\n    return 1\n\n\ntools = {'look': look}\n")
    return tmp_path


def test_a_worker_and_a_run_of_the_command_line_tell_of_themselves(
    folder: Path, temporal_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver, port = Receiver(), free_port()
    on = ["--engine", "temporal", "--address", temporal_server.address, "--queue", "telemetry"]
    command = [sys.executable, "-m", "nano_vm", "work", *on, "--tools", "t.py:tools"]
    process = warm.Popen([*command, "--metrics-port", str(port), "--otlp", receiver.url])
    try:
        assert main(["run", "p.yaml", *on, "--otlp", receiver.url]) == 0
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        process.terminate()
        assert process.wait(30) == 0
        names = {span.name for span in receiver.spans}
    finally:
        process.kill()
        process.wait()
        receiver.close()
    capsys.readouterr()
    assert re.search(r"temporal_activity_execution_latency_count\{[^}]*nano\.tool", metrics)
    assert {
        "StartWorkflow:NanoProgram",
        "RunWorkflow:NanoProgram",
        "RunActivity:nano.tool",
    } <= names
    (trace_id,) = {
        bytes(span.trace_id)
        for span in receiver.spans
        if "Query" not in span.name and "Update" not in span.name
    }
    assert trace_id


def test_a_port_that_is_taken_is_told(
    folder: Path, temporal_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    on = ["--engine", "temporal", "--address", temporal_server.address]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["work", *on, "--metrics-port", str(port)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"nano-vm: --metrics-port: cannot listen on 127.0.0.1:{port}: ")
    assert err.count("\n") == 1
