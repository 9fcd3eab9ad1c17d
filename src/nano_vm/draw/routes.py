"""The way of a whole run over its chart: what `Chart.route` finds for each of its frames, together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ..store.records import RUNNING
from .chart import Chart, Ended, Stop


class Passed(NamedTuple):
    """A step of a run on its way: the frame that it ran in, its path, and where it went on."""

    frame: str
    path: str
    stop: Stop


class Routes(NamedTuple):
    """How often each arrow was taken, boxes that no arrow was found to, boxes under way."""

    taken: dict[str, int] = {}  # noqa: RUF012 - of a tuple, which nobody changes
    lost: list[str] = []  # noqa: RUF012 - likewise
    current: list[str] = []  # noqa: RUF012 - likewise


def routes_of(chart: Chart, steps: Iterable[Passed], status: str) -> Routes:
    """The way of a run with these steps, in the order of their records, which stands at *status*."""
    taken: Counter[str] = Counter()
    lost: list[str] = []
    current: list[str] = []
    frames: dict[str, list[Stop]] = {"": []}
    ends: dict[str, Ended] = {"": _ended(status)}  # by the path of a fork; "" is the run
    for frame_name, path, stop in steps:
        frames.setdefault(frame_name, []).append(stop)
        ends[path] = _ended(stop.status)
    for name, stops in frames.items():
        frame = chart.frame_of(name)
        if frame is None:
            lost.append(name)
            continue
        ended = ends.get(name.rpartition(":")[0])
        if ended == "well" and stops and stops[-1].status == "failed":
            ended = "badly"  # an item that failed, of a fork that goes on without it
        route = chart.route(frame, stops, ended)
        taken.update(route.arrows)
        lost += route.lost
        if status == RUNNING:
            current += [box for box in route.current if box not in current]
    return Routes(dict(taken), lost, current)


def _ended(status: str) -> Ended:
    if status in ("failed", "cancelled"):
        return "badly"
    return "well" if status == "success" else None
