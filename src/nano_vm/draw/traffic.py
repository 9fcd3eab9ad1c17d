"""Many runs of one program on its chart: which part of them took each arrow, how long those took and
what they cost, and the ways that none of them took. No value of a run is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from typing_extensions import TypedDict

from ..records.record import edge_of
from ..records.usage import LLMUsage
from ..run.durable.stored import paused_rows
from ..store.records import ENDED, STEP, SUSPENDED, Row, StoredRun
from .chart import Arrow, Chart, Stop, box_of
from .routes import Passed, routes_of

DECIDED = ("branch", "unless", "catch", "skip")
"""Arrows that somebody wrote for a case: where none of many runs took one, nothing has tried it."""


class ArrowTraffic(TypedDict):
    """Of the runs that took an arrow: how many, their share of all, the time within which 95 of 100
    of them ended, and what they have cost in the mean; None where that is not known.
    """

    id: str
    runs: int
    share: float
    p95_ms: float | None
    cost_usd: str | None


class BoxTraffic(TypedDict):
    """Of the runs that came to a step: how many, how often, the time within which 95 of 100 of its
    calls ended, and what all its calls have cost; None where a price is missing.
    """

    id: str
    runs: int
    times: int
    p95_ms: float | None
    cost_usd: str | None


class Traffic(TypedDict):
    """What so many ``runs`` did; ``never`` are arrows that were written for a case, and that none
    of them took.
    """

    runs: int
    arrows: list[ArrowTraffic]
    boxes: list[BoxTraffic]
    never: list[str]


@dataclass(slots=True)
class _Sum:
    """What is added up of an arrow or a box."""

    runs: int = 0
    times: int = 0
    durations: list[float] = field(default_factory=list)
    cost: Decimal | None = Decimal(0)

    def add(self, duration_ms: float | None, cost: Decimal | None) -> None:
        self.times += 1
        if duration_ms is not None:
            self.durations.append(duration_ms)
        self.cost = None if self.cost is None or cost is None else self.cost + cost


def traffic_of(chart: Chart, runs: Iterable[StoredRun]) -> Traffic:
    """What *runs*, each with its rows, did on *chart*, which is of their program."""
    data = chart.data()
    arrows = {arrow["id"]: _Sum() for arrow in data["arrows"]}
    boxes = {box["id"]: _Sum() for box in data["boxes"]}
    count = 0
    for run in runs:
        count += 1
        cost = Decimal(0)
        known = True
        came: set[str] = set()
        for box, duration_ms, usage in _steps(run):
            price = Decimal(0) if usage is None else usage.cost_usd
            known = known and price is not None
            cost += price or 0
            if box in boxes:
                boxes[box].add(duration_ms, price)
                came.add(box)
        for box in came:
            boxes[box].runs += 1
        taken = routes_of(chart, _passed(run), run.status).taken
        for arrow in taken:
            if arrow in arrows:
                arrows[arrow].runs += 1
                arrows[arrow].add(_duration_ms(run), cost if known else None)
    return {
        "runs": count,
        "arrows": [_arrow(name, found, count) for name, found in arrows.items()],
        "boxes": [_box(name, found) for name, found in boxes.items()],
        "never": [
            arrow["id"]
            for arrow in data["arrows"]
            if count and _decided(arrow) and not arrows[arrow["id"]].runs
        ],
    }


def _decided(arrow: Arrow) -> bool:
    return arrow["way"] in DECIDED


def _rows(run: StoredRun) -> Iterator[Row]:
    """The steps of *run*, and those at which it waits."""
    yield from (row for row in run.rows if row.kind == STEP)
    if run.status == SUSPENDED:
        yield from paused_rows(run)


def _steps(run: StoredRun) -> Iterator[tuple[str, float | None, LLMUsage | None]]:
    """The box, the duration and the usage of each step of *run*; one that waits has no duration."""
    for row in _rows(run):
        took = (row.finished_ns - row.started_ns) / 1e6 if row.kind == STEP else None
        yield box_of(row.path), took, row.usage


def _passed(run: StoredRun) -> Iterator[Passed]:
    for row in _rows(run):
        record = row.record()
        if "/" in record.step.step_id:  # a call beside a step: its undo, or its reconcile
            continue
        stop = Stop(box_of(row.path), record.status.value, edge_of(record.extra))
        yield Passed(row.frame, row.path, stop)


def _duration_ms(run: StoredRun) -> float | None:
    return (run.finished_ns - run.started_ns) / 1e6 if run.status in ENDED else None


def _percentile(values: list[float]) -> float | None:
    """The smallest of *values* that 95 of 100 do not exceed."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]


def _arrow(name: str, found: _Sum, count: int) -> ArrowTraffic:
    mean = None if found.cost is None or not found.runs else found.cost / found.runs
    return {
        "id": name,
        "runs": found.runs,
        "share": found.runs / count if count else 0.0,
        "p95_ms": _percentile(found.durations),
        "cost_usd": None if mean is None else f"{mean:f}",
    }


def _box(name: str, found: _Sum) -> BoxTraffic:
    return {
        "id": name,
        "runs": found.runs,
        "times": found.times,
        "p95_ms": _percentile(found.durations),
        "cost_usd": None if found.cost is None else f"{found.cost:f}",
    }
