"""Metrics for Prometheus: events of runs are counted, and given when a server scrapes.

Numbers are kept here and made into samples at a scrape, since the library's own counters take 3 us
a step. Labels have bounded values: programs, tools, models and kinds of errors beyond the first
`MAX_VALUES` of each label count as ``other``. Needs the extra ``prometheus``.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra, StoreError, VMError
from ..records.status import StepStatus
from ..records.usage import LLMUsage
from ..run.observers import Event
from ..store.protocol import RunFilter, Store
from ..values import short

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

MAX_VALUES = 100
"""Values of one label that are distinguished. Each may be a time series of a dozen buckets, and a
Prometheus server of a small installation holds a million."""

OTHER = "other"

MAX_SERIES = 10_000
"""Programs by targets whose counts are found at once; a few hundred bytes each."""

BUCKETS_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""From a fast tool to a model that thinks; a run that waits for people is over all of them."""

WAITING_LOOKED_AT = 1_000
"""Suspended runs of a store whose waits are looked at for a scrape; it is done every few seconds."""

_BOUNDS = (*(str(float(seconds)) for seconds in BUCKETS_SECONDS), "+Inf")
_BOUNDS_NS = tuple(int(seconds * 1e9) for seconds in BUCKETS_SECONDS)


class Count:
    """How often something was seen."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Histogram:
    """Durations: how many fell into each bucket, and their sum."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_NS) + 1)
        self.sum_ns = 0

    def add(self, duration_ns: int) -> None:
        self.counts[bisect_left(_BOUNDS_NS, duration_ns)] += 1
        self.sum_ns += duration_ns

    def buckets(self) -> list[tuple[str, float]]:
        """Bounds, and how many were at most as long."""
        total, found = 0, []
        for bound, count in zip(_BOUNDS, self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Tokens:
    """What the model calls of one program and model consumed."""

    __slots__ = ("cached", "cost_usd", "input", "output", "unpriced")

    def __init__(self) -> None:
        self.input = self.output = self.unpriced = self.cached = 0
        self.cost_usd = Decimal(0)

    def add(self, usage: LLMUsage) -> None:
        self.input += usage.prompt_tokens
        self.output += usage.completion_tokens
        if usage.cost_usd is None:
            self.unpriced += 1
        else:
            self.cost_usd += usage.cost_usd


class Label:
    """The values of one label, the first `MAX_VALUES` of them."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: set[str] = set()

    def bounded(self, value: str) -> str:
        if value not in self.values:
            if len(self.values) >= MAX_VALUES:
                return OTHER
            self.values.add(value)
        return value


_FAMILIES = (
    ("counter", "runs_started", "Runs that began here", "program"),
    ("counter", "runs", "Runs that ended", "program status"),
    ("counter", "runs_suspended", "Times that runs began to wait, by what for", "program kind"),
    ("gauge", "runs_in_flight", "Runs that this process drives", "program"),
    ("histogram", "run_duration_seconds", "From start to end", "program"),
    ("counter", "steps", "Steps that ended", "program type status"),
    (
        "histogram",
        "step_duration_seconds",
        "From being reached to the end, waits between attempts included",
        "type target",
    ),
    (
        "counter",
        "retries",
        "Attempts that failed and were followed by another",
        "program type error_kind",
    ),
    ("counter", "tokens", "Tokens of model calls", "program model direction"),
    (
        "counter",
        "cached_answers",
        "Model steps whose answer was known, so that no model was asked",
        "program model",
    ),
    (
        "counter",
        "pool_attempts",
        "Calls of the members of pools, by how they ended",
        "pool member outcome",
    ),
    ("counter", "cost_usd", "Known cost of model calls in dollars", "program model"),
    ("counter", "unpriced_calls", "Model steps whose cost is not known", "program model"),
)
"""Kind, name after ``nano_vm_``, help and labels of each metric of runs."""


class Prometheus:
    """Counts what runs do, for a *registry*: the library's own, unless the host gives another.

    With a *store*, a scrape also tells how many of its runs are pending, running and suspended, and
    what they wait for; with *pools*, how their members stand.

    Raises:
        MissingExtra: If ``prometheus_client`` is not installed.
        VMError: If *registry*, *store* or one of *pools* is none, or the registry has these metrics already.
    """

    event_kinds = frozenset(
        "run_started run_resumed run_suspended run_finished run_released step_finished "
        "attempt_failed".split()
    )

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        store: Store | None = None,
        pools: Iterable[Any] = (),
    ) -> None:
        try:
            import prometheus_client
        except ImportError:
            raise MissingExtra("metrics for Prometheus", "prometheus") from None
        if registry is None:
            registry = prometheus_client.REGISTRY
        if not callable(getattr(registry, "register", None)):
            raise VMError(f"registry is {short(registry)}, which is no CollectorRegistry")
        if store is not None and not callable(getattr(store, "counts", None)):
            raise VMError(f"store is {short(store)}, which is no store; give open_store(URL)")
        self._pools: tuple[Any, ...] = ()
        self.watch(pools)
        self.registry = registry
        self._store = store
        self._lock = threading.Lock()  # loops in several threads may have this one
        self._labels = {
            name: Label() for name in ("program", "target", "model", "error_kind", "member")
        }
        self._running: dict[str, str] = {}
        self._started: dict[str, int] = {}
        self._ended: dict[tuple[str, str], int] = {}
        self._suspended: dict[tuple[str, str], int] = {}
        self._runs: dict[str, Histogram] = {}
        self._steps: dict[tuple[str, str, str], Count] = {}
        self._durations: dict[tuple[str, str], Histogram] = {}
        self._retries: dict[tuple[str, str, str], int] = {}
        self._tokens: dict[tuple[str, str], Tokens] = {}
        self._pooled: dict[tuple[str, str, str], int] = {}
        self._series: dict[tuple[str, str, str, str], tuple[Count, Histogram]] = {}
        try:
            registry.register(self)
        except ValueError as error:
            raise VMError(
                f"the registry has these metrics already ({error}); one Prometheus() serves any "
                f"number of VMs"
            ) from None

    # --- counting ---

    def observe(self, event: Event) -> None:
        """Count an event of a run."""
        if event.kind != "step_finished":
            self._count(event)
            return
        record = event.record
        if event.replayed or record is None:
            return
        op, _, status, _, _, _, started, finished, _, _, _ = record
        kind = op.type
        target = op.tool if kind == "tool" else event.target if kind == "llm" else ""
        # a member of an enum is hashed by a function of Python's: the usual one is tried first
        ended = "success" if status is StepStatus.SUCCESS else status.value
        with self._lock:
            known = self._running.get(event.run_id, ""), kind, target, ended
            series = self._series.get(known)
            if series is None:
                series = self._new_series(known)
            steps, histogram = series
            steps.count += 1
            histogram.counts[bisect_left(_BOUNDS_NS, finished - started)] += 1
            histogram.sum_ns += finished - started
            if kind == "llm":
                self._model_step(event)

    def _count(self, event: Event) -> None:
        if event.kind == "attempt_failed":
            if not event.replayed:
                self._attempt(event)
        elif event.kind in ("run_started", "run_resumed"):
            self._run_begun(event)
        else:
            self._run_left(event)

    def _new_series(self, known: tuple[str, str, str, str]) -> tuple[Count, Histogram]:
        """Where steps of a program, type, target and status are counted."""
        program, kind, target, status = known
        timed = kind, self._labels["target"].bounded(target)
        series = (
            self._steps.setdefault((program, kind, status), Count()),
            self._durations.setdefault(timed, Histogram()),
        )
        if len(self._series) < MAX_SERIES:
            self._series[known] = series
        return series

    def _model_step(self, event: Event) -> None:
        record = event.record
        assert record is not None
        extra = record.extra if type(record.extra) is dict else {}
        self._route(extra.get("route"))
        if not record.called:
            return
        model = extra.get("model")
        key = (
            self._labels["program"].bounded(event.program),
            self._labels["model"].bounded(model or event.target),
        )
        tokens = self._tokens.get(key)
        if tokens is None:
            tokens = self._tokens[key] = Tokens()
        tokens.add(record.usage or LLMUsage())
        tokens.cached += "cached" in extra

    def _route(self, route: Any) -> None:
        """Count the attempts of a pool."""
        if type(route) is not dict:
            return
        for attempt in route["attempts"]:
            member = self._labels["member"].bounded(str(attempt["member"]))
            key = route["pool"], member, str(attempt.get("outcome", "lost"))
            self._pooled[key] = self._pooled.get(key, 0) + 1

    def _attempt(self, event: Event) -> None:
        assert event.attempt is not None
        with self._lock:
            self._route(event.attempt.route)
            key = (
                self._labels["program"].bounded(event.program),
                event.type,
                self._labels["error_kind"].bounded(event.attempt.error.kind),
            )
            self._retries[key] = self._retries.get(key, 0) + 1

    def _run_begun(self, event: Event) -> None:
        with self._lock:
            program = self._labels["program"].bounded(event.program)
            self._running[event.run_id] = program
            if event.kind == "run_started":
                self._started[program] = self._started.get(program, 0) + 1

    def _run_left(self, event: Event) -> None:
        trace = event.trace
        with self._lock:
            self._running.pop(event.run_id, None)
            program = self._labels["program"].bounded(event.program)
            if event.kind == "run_suspended":
                for kind in sorted({entry["kind"] for entry in trace.waiting}):
                    waits = program, kind
                    self._suspended[waits] = self._suspended.get(waits, 0) + 1
            elif event.kind == "run_finished":
                refused = trace.error_kind == "refused" and not trace.steps
                ended = program, "refused" if refused else trace.status.value
                self._ended[ended] = self._ended.get(ended, 0) + 1
                if trace.finished_ns and not refused:
                    duration = trace.finished_ns - trace.started_ns
                    self._runs.setdefault(program, Histogram()).add(duration)

    # --- telling ---

    def describe(self) -> Iterator[Metric]:
        """What `collect` gives, without samples: a registry looks for names that it has."""
        return iter(self._families(told=False))

    def collect(self) -> Iterator[Metric]:
        """All metrics as they stand."""
        with self._lock:
            families = self._families(told=True)
        yield from families
        if self._pools:
            yield from self._of_pools()
        if self._store is not None:
            yield from self._of_store(self._store)

    def _families(self, *, told: bool) -> list[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        made = {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        values = self._values() if told else {}
        families = []
        for kind, name, about, labels in _FAMILIES:
            family: Any = made[kind](f"nano_vm_{name}", about, labels=labels.split())
            for key, value in values.get(name, {}).items():
                place = [key] if isinstance(key, str) else list(key)
                if isinstance(value, Histogram):
                    family.add_metric(place, buckets=value.buckets(), sum_value=value.sum_ns / 1e9)
                else:
                    family.add_metric(place, value)
            families.append(family)
        return families

    def _values(self) -> dict[str, Mapping[Any, float | Histogram]]:
        """What is counted, by the names of `_FAMILIES` and the values of their labels."""
        running = dict.fromkeys(self._started, 0)
        for program in self._running.values():
            running[program] = running.get(program, 0) + 1
        tokens: dict[tuple[str, str, str], int] = {}
        for (program, model), used in self._tokens.items():
            tokens[program, model, "input"] = used.input
            tokens[program, model, "output"] = used.output
        return {
            "runs_started": self._started,
            "runs": self._ended,
            "runs_suspended": self._suspended,
            "runs_in_flight": running,
            "run_duration_seconds": self._runs,
            "steps": {key: steps.count for key, steps in self._steps.items()},
            "step_duration_seconds": self._durations,
            "retries": self._retries,
            "tokens": tokens,
            "cached_answers": {key: used.cached for key, used in self._tokens.items()},
            "pool_attempts": self._pooled,
            "cost_usd": {key: float(used.cost_usd) for key, used in self._tokens.items()},
            "unpriced_calls": {key: used.unpriced for key, used in self._tokens.items()},
        }

    def watch(self, pools: Iterable[Any]) -> None:
        """Tell how the members of *pools* stand, too.

        Raises:
            VMError: If one of them is no pool.
        """
        for pool in pools:
            if not callable(getattr(pool, "standing", None)):
                raise VMError(f"{short(pool)} is no Pool")
            if not any(pool is known for known in self._pools):
                self._pools = (*self._pools, pool)

    def _of_pools(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        breakers = GaugeMetricFamily(
            "nano_vm_pool_breaker",
            "1 for the state that a member's breaker is in",
            labels=["pool", "member", "state"],
        )
        busy = GaugeMetricFamily(
            "nano_vm_pool_calls_in_flight",
            "Calls of a member under way",
            labels=["pool", "member"],
        )
        latency = GaugeMetricFamily(
            "nano_vm_pool_latency_seconds",
            "Average of a member's latencies, the latest of which weigh most",
            labels=["pool", "member"],
        )
        for pool in self._pools:
            for one in pool.standing():
                for state in ("closed", "open", "half_open"):
                    breakers.add_metric([pool.model, one.member, state], one.breaker == state)
                busy.add_metric([pool.model, one.member], one.busy)
                latency.add_metric([pool.model, one.member], one.latency_seconds)
        yield from (breakers, busy, latency)

    def _of_store(self, store: Store) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        up = GaugeMetricFamily("nano_vm_store_up", "Whether the store answered")
        runs = GaugeMetricFamily(
            "nano_vm_stored_runs", "Runs of the store that have not ended", labels=["status"]
        )
        oldest = GaugeMetricFamily(
            "nano_vm_oldest_run_age_seconds",
            "How long ago the oldest run of the store was made that has not ended",
            labels=["status"],
        )
        waits = GaugeMetricFamily(
            "nano_vm_waiting",
            f"What suspended runs wait for, of the newest {WAITING_LOOKED_AT:,}",
            labels=["kind"],
        )
        try:
            counts, made = store.counts(), store.oldest()
            kinds = dict.fromkeys(("approval", "wait", "in_doubt"), 0)
            suspended = RunFilter(status="suspended")
            for run in store.runs(suspended, limit=WAITING_LOOKED_AT, damaged=[]):
                for entry in run.waiting:
                    kinds[entry["kind"]] = kinds.get(entry["kind"], 0) + 1
        except StoreError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        for status in ("pending", "running", "suspended"):
            runs.add_metric([status], counts.get(status, 0))
            age_ns = time.time_ns() - made[status] if status in made else 0
            oldest.add_metric([status], max(age_ns, 0) / 1e9)
        for kind, count in kinds.items():
            waits.add_metric([kind], count)
        yield from (up, runs, oldest, waits)


class Serving:
    """A server of ``metrics`` that is up at ``url``."""

    def __init__(self, metrics: Prometheus, port: int, host: str) -> None:
        from prometheus_client import start_http_server

        self.metrics = metrics
        self._server, self._thread = start_http_server(port, host, metrics.registry)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(port: int, host: str = "127.0.0.1", *, store: Store | None = None) -> Serving:
    """Metrics of runs and of this process, served over HTTP in a thread; port 0 is any that is
    free. A host that serves metrics already gives `Prometheus` its registry instead.

    Raises:
        MissingExtra: If ``prometheus_client`` is not installed.
        OSError: If the port is taken, or *host* is none of this machine.
    """
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector
    except ImportError:
        raise MissingExtra("metrics for Prometheus", "prometheus") from None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return Serving(Prometheus(registry, store=store), port, host)
