"""``nano-vm runs``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from ...errors import StoreError, UnknownRun
from ..faults import FAILED, OK, NoRun
from ..grammar import Options, command, flag, option
from ..output import complain, emit_json, say
from ..parameters import (
    COUNT,
    DOLLARS,
    STORED,
    takes_cluster,
    takes_filter,
    takes_server,
    takes_store,
)
from ..text import dollars, safe
from ..times import age

if TYPE_CHECKING:
    from ...run.durable.facts import Brief, Facts
    from ..places import Place

EXAMPLES = """\
nano-vm runs --store sqlite:///runs.db --status suspended
nano-vm runs --program refund --since 2d --json | jq -r '.[].run_id'
nano-vm runs --label team=billing --status failed
nano-vm runs --waiting-for approval:manager
nano-vm runs --engine temporal --waiting
"""

SHORT_ID = 12
"""Of an id that was made up, what a table shows: enough to name a run among millions."""


@command(examples=EXAMPLES, footer=STORED)
@takes_store
@takes_server
@takes_cluster
@flag("--waiting", help="only those that wait, with all that they wait for")
@option(
    "--waiting-for",
    metavar="WHAT",
    help="only those that wait for one of approval, event, time, in_doubt, effect; "
    "approval:ROLE, event:NAME",
)
@takes_filter
@option("--parent", metavar="RUN", help="only forks of this run")
@option("--min-cost", type=DOLLARS, metavar="USD", help="that cost so much or more")
@option(
    "--limit",
    type=COUNT,
    default="50",
    metavar="N",
    help="at most so many, the newest; default: 50",
)
def runs(options: Options) -> int:
    """
    List the runs of a store, or of a Temporal cluster.

    A cluster finds runs by what they are where they began with --search-attributes.
    """
    from ..places import is_cluster, place_of
    from ..said import filter_of
    from ..standing import listed, standing_lines

    if options.waiting:
        options.status = ("suspended",)
    if is_cluster(options):
        from .. import cluster

        return cluster.runs(options)
    damaged: list[str] = []
    with place_of(options, honours=_HONOURED, read=True) as place:
        found = place.runs(filter_of(options), options.limit, damaged)
        if options.waiting:
            whole = _whole(place, found, damaged)
            if options.json:
                emit_json([listed(run) for run in whole])
            else:
                for one in whole:
                    for line in (_line(one), *standing_lines(one, place)):
                        say(line)
        elif options.json:
            emit_json([listed(run) for run in found])
        elif sys.stdout.isatty():
            _print_table(found)
        else:
            for run in found:
                say(_line(run))
    for problem in damaged:
        complain(problem)
    return FAILED if damaged else OK


_HONOURED = (
    "waiting waiting_for status program_name program_version label submitter since until parent min_cost limit"
).split()


def _whole(place: Place, found: Sequence[Brief], damaged: list[str]) -> Iterator[Facts]:
    """Runs of a list with all that is known of each; what was deleted since is left out."""
    for run in found:
        try:
            yield place.run(run["run_id"])
        except (NoRun, UnknownRun):
            continue
        except StoreError as error:
            damaged.append(str(error))


def _line(run: Brief) -> str:
    return "  ".join(_cells(run)).rstrip()


def _cells(run: Brief) -> tuple[str, ...]:
    from ..said import said_words
    from ..standing import standing

    cost = dollars(Decimal(run["cost_usd"])) if run["cost_usd"] is not None else "-"
    count = f"{run['steps']} step{'s' * (run['steps'] != 1)}"
    told = run["error"] if run["status"] == "failed" else None
    parent = f"from {run['parent']}" if run["parent"] is not None else ""
    words = "; ".join(filter(None, (parent, safe(said_words(run)), safe(told or ""))))
    return (
        f"{run['run_id']:<32}",
        f"{safe(run['program'] or '-'):<20}",
        f"{safe(standing(run)):<20}",
        f"{age(run['created_ns']):>5}",
        f"{count:>9}",
        f"{cost:>8}",
        words[:200],
    )


STYLES = {
    "success": "green",
    "failed": "red",
    "cancelled": "yellow",
    "suspended": "cyan",
    "running": "bold",
}


def _print_table(found: Sequence[Brief]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("run", "program", "status"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in ("age", "steps", "cost"):
        table.add_column(name, no_wrap=True, justify="right")
    for run in found:
        cells = [cell.strip() for cell in _cells(run)]
        made = len(cells[0]) == 32 and all(c in "0123456789abcdef" for c in cells[0])
        cells[0] = cells[0][:SHORT_ID] if made else cells[0]
        cells[4] = str(run["steps"])
        status = Text(
            cells[2], style="bold red" if "in doubt" in cells[2] else STYLES.get(run["status"], "")
        )
        table.add_row(
            Text(cells[0], style="bold"),
            Text(cells[1]),
            status,
            *(Text(cell) for cell in cells[3:6]),
        )
    console = Console()
    if found:
        console.print(table)
    else:
        console.print("no runs", style="dim")
