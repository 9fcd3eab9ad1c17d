"""What observers cost a step: ``python benchmarks/telemetry.py``.

A program of 50 tool steps that do nothing, in process CPU time a step, beside a VM without
observers. The variants take turns, and of each the fastest round counts: what slows a round is the
machine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from timeit import repeat
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry

from nano_vm import Event, ExecutionVM, Program, tool
from nano_vm.telemetry.logs import Logs
from nano_vm.telemetry.otel import OpenTelemetry
from nano_vm.telemetry.prometheus import Prometheus

STEPS, RUNS, ROUNDS = 50, 40, 15


@tool(effect="read")
async def increment(x: int = 0) -> int:
    return x + 1


PROGRAM = Program.from_dict(
    {
        "name": "counts",
        "inputs": {"type": "object", "properties": {"n": {"type": "integer"}}},
        "steps": [
            {"id": f"s{i}", "type": "tool", "tool": "increment", "args": {"x": "$n"}}
            for i in range(STEPS)
        ],
    }
)


class Nothing:
    """Is told of everything."""

    def observe(self, event: Event) -> None:
        pass


class Nowhere(SpanExporter):
    """Takes spans; what sending them costs is another thread's and another machine's."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def spans(*, light: bool) -> OpenTelemetry:
    """With and without spans of our own making."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=1_000_000))
    observer = OpenTelemetry(provider)
    if not light:
        observer._light = None
    return observer


def variants() -> dict[str, tuple[Callable[[], list[Any]], float | None]]:
    """Observers by name, and the microseconds that they may cost a step."""
    logger = logging.getLogger("nowhere")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return {
        "no observer": (list, None),
        "an observer that does nothing": (lambda: [Nothing()], None),
        "Prometheus": (lambda: [Prometheus(CollectorRegistry())], 3.0),
        "Logs, at INFO": (lambda: [Logs(logger)], None),
        "OpenTelemetry": (lambda: [spans(light=True)], 15.0),
        "OpenTelemetry, spans of the SDK's making": (lambda: [spans(light=False)], None),
    }


async def step_us(vm: ExecutionVM) -> float:
    began = time.process_time_ns()
    for _ in range(RUNS):
        await vm.run(PROGRAM, {"n": 1})
    return (time.process_time_ns() - began) / RUNS / STEPS / 1000


async def measured() -> dict[str, float]:
    vms = {
        name: ExecutionVM(tools={"increment": increment}, observers=make())
        for name, (make, _) in variants().items()
    }
    best = dict.fromkeys(vms, float("inf"))
    for _ in range(ROUNDS):
        for name, vm in vms.items():
            best[name] = min(best[name], await step_us(vm))
    return best


def main() -> None:
    best = asyncio.run(measured())
    off = best["no observer"]
    print("| observer | us a step | beside none | bar |")
    print("|---|---:|---:|---:|")
    for name, (_, bar) in variants().items():
        shown = "" if bar is None else f"{bar:g}"
        print(f"| {name} | {best[name]:.2f} | {best[name] - off:.2f} | {shown} |")
    rounds = 1_000_000
    asked = min(repeat("n is not None", "n = None", number=rounds)) * 1e9 / rounds
    print(f"\nWithout observers a step asks at most three times for them, {asked:.0f} ns each.")


if __name__ == "__main__":
    main()
