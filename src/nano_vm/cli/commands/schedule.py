"""``nano-vm schedule``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..faults import OK
from ..grammar import Group, Options, argument, command, option
from ..output import emit_json, say
from ..parameters import takes_cluster_only, takes_json
from ..text import safe
from ..times import moment

if TYPE_CHECKING:
    from ...temporal.schedules import Scheduled, Schedules

T = TypeVar("T")

MADE = """\
A schedule is made by nano-vm submit --engine temporal --cron EXPR --run-id NAME, and has this name.
"""

takes_schedule = argument("name", metavar="NAME", help="the schedule")


@click.command(cls=Group, footer=MADE)
def schedule() -> None:
    """Look after what begins runs at times on a Temporal cluster."""


@command("list", footer=MADE)
@takes_json()
@takes_cluster_only
def list_(options: Options) -> int:
    """
    List the schedules of programs.

    Each with its times and the next of them. The list of a cluster lags behind by a moment.
    """
    found = _on_cluster(options, lambda schedules: schedules.all())
    if options.json:
        emit_json([_json(one) for one in found])
        return OK
    for one in found:
        say(safe(f"{one.name:<20}  {one.program:<16}  {_times(one):<20}  {_next(one)}".rstrip()))
    if not found:
        say("no schedules")
    return OK


@command(footer=MADE)
@takes_schedule
@takes_json()
@takes_cluster_only
def show(options: Options) -> int:
    """Show a schedule: its times, the next of them, and its latest runs."""
    found = _on_cluster(options, lambda schedules: schedules.find(options.name))
    if options.json:
        emit_json(_json(found))
        return OK
    say(safe(f"{found.name}: {found.program}, {_times(found)}"))
    if found.paused:
        say(safe(_next(found)))
    for at in found.next_ns:
        say(f"next {moment(at)}")
    for run_id, at in found.begun:
        say(safe(f"begun {moment(at)}: {run_id}"))
    return OK


@command(footer=MADE)
@takes_schedule
@option("--reason", metavar="TEXT", help="why, for who looks at it")
@takes_json()
@takes_cluster_only
def pause(options: Options) -> int:
    """
    Begin no runs until the schedule is resumed.

    Runs under way go on. Times that pass meanwhile are left out.
    """
    _on_cluster(options, lambda schedules: schedules.pause(options.name, options.reason))
    return _done(options, "paused")


@command(footer=MADE)
@takes_schedule
@takes_json()
@takes_cluster_only
def resume(options: Options) -> int:
    """Begin runs again, from the next time on."""
    _on_cluster(options, lambda schedules: schedules.resume(options.name))
    return _done(options, "resumed")


@command(footer=MADE)
@takes_schedule
@takes_json()
@takes_cluster_only
def remove(options: Options) -> int:
    """
    Remove a schedule.

    Runs under way go on.
    """
    _on_cluster(options, lambda schedules: schedules.remove(options.name))
    return _done(options, "removed")


def _on_cluster(options: Options, job: Callable[[Schedules], Awaitable[T]]) -> T:
    from ..connection import on_cluster

    return on_cluster(options, lambda runs: job(runs.schedules))


def _done(options: Options, what: str) -> int:
    if options.json:
        emit_json({"name": options.name, "did": what})
    else:
        say(safe(f"{what}: {options.name}"))
    return OK


def _times(found: Scheduled) -> str:
    return f"{found.cron} {found.time_zone or 'UTC'}"


def _next(found: Scheduled) -> str:
    if found.paused:
        return f"paused: {found.note}" if found.note else "paused"
    return f"next {moment(found.next_ns[0])}" if found.next_ns else "no more times"


def _json(found: Scheduled) -> dict[str, Any]:
    return {
        "name": found.name,
        "program": found.program,
        "cron": found.cron,
        "time_zone": found.time_zone or "UTC",
        "paused": found.paused,
        "note": found.note,
        "next_ns": list(found.next_ns),
        "begun": [{"run_id": run_id, "began_ns": at} for run_id, at in found.begun],
    }


for made in (list_, show, pause, resume, remove):
    schedule.add_command(made)
