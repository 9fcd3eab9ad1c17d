"""Metrics of a server, for Prometheus: its requests, streams and workers, beside what is counted of
runs and of their store. Labels are names of operations, of which there are as many as routes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra, StoreError
from ..store.protocol import TableStore
from ..telemetry.prometheus import Histogram, Prometheus
from .hosts import announced
from .watch import Watch

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_OPERATION = "none"
"""Of a request that came to no route."""


def observer_of(store: TableStore) -> Prometheus | None:
    """What counts the runs of this process and of *store*; None where the extra is missing."""
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector
    except ImportError:
        return None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return Prometheus(registry, store=store)


class Requests:
    """Counts requests by operation and status, and how long each took to begin its answer."""

    def __init__(self, store: TableStore, watch: Watch) -> None:
        self._store = store
        self._watch = watch
        self._lock = threading.Lock()  # a scrape is read in a thread of its own
        self._ended: dict[tuple[str, str], int] = {}
        self._took: dict[str, Histogram] = {}

    def add(self, operation: str, status: int, took_ns: int) -> None:
        """Count one."""
        with self._lock:
            ended = operation, str(status)
            self._ended[ended] = self._ended.get(ended, 0) + 1
            self._took.setdefault(operation, Histogram()).add(took_ns)

    def describe(self) -> Iterator[Metric]:
        """What `collect` gives, without samples."""
        return iter(self._requests({}, {}))

    def collect(self) -> Iterator[Metric]:
        """All metrics as they stand."""
        from prometheus_client.core import GaugeMetricFamily

        with self._lock:
            families = self._requests(self._ended, self._took)
        yield from families
        streams = GaugeMetricFamily("nano_vm_streams", "Streams of events that are open here")
        streams.add_metric([], self._watch.listeners())
        yield streams
        yield from self._workers()

    def _requests(
        self, ended: dict[tuple[str, str], int], took: dict[str, Histogram]
    ) -> list[Metric]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily(
            "nano_vm_http_requests", "Requests answered here", labels=["operation", "status"]
        )
        for key, count in ended.items():
            requests.add_metric(list(key), count)
        durations = HistogramMetricFamily(
            "nano_vm_http_request_duration_seconds",
            "Until the answer began",
            labels=["operation"],
        )
        for operation, histogram in took.items():
            durations.add_metric([operation], histogram.buckets(), histogram.sum_ns / 1e9)
        return [requests, durations]

    def _workers(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily("nano_vm_workers", "Workers of the store that are alive")
        try:
            alive = sum(alive for _, alive in announced(self._store))
        except StoreError:
            return  # which nano_vm_store_up says
        family.add_metric([], alive)
        yield family


class Counted:
    """The application *app*, whose requests are counted."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self.app = app
        self.requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter_ns()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                operation = getattr(scope.get("route"), "operation_id", None) or NO_OPERATION
                took = time.perf_counter_ns() - began
                self.requests.add(operation, message["status"], took)
            await send(message)

        await self.app(scope, receive, counted)


def exposed(observer: Prometheus | None, accept: str) -> tuple[bytes, str]:
    """All metrics in a form that a scraper takes, and the type of it.

    Raises:
        MissingExtra: If the library is not installed.
    """
    if observer is None:
        raise MissingExtra("metrics of the server", "prometheus")
    from prometheus_client.exposition import choose_encoder

    encode: Any
    encode, media_type = choose_encoder(accept)
    return encode(observer.registry), media_type
