"""``nano-vm runs``."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ...errors import StoreError
from ..faults import FAILED, OK
from ..grammar import Options, command, flag, option
from ..output import complain, emit_json, say
from ..parameters import COUNT, DOLLARS, STORED, takes_filter, takes_store
from ..text import dollars, safe
from ..times import age

if TYPE_CHECKING:
    from ...store.records import StoredRun

EXAMPLES = """\
nano-vm runs --store sqlite:///runs.db --status suspended
nano-vm runs --program refund --since 2d --json | jq -r '.[].run_id'
nano-vm runs --label team=billing --status failed
"""

SHORT_ID = 12
"""Of an id that was made up, what a table shows: enough to name a run among millions."""


@command(examples=EXAMPLES, footer=STORED)
@takes_store
@flag("--waiting", help="only those that wait, with all that they wait for")
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
    """List the runs of a store."""
    from ...run.durable.lease import living
    from ...run.inbox import presented
    from ..said import filter_of
    from ..standing import header, standing_lines
    from ..stores import store_of

    if options.waiting:
        options.status = ("suspended",)
    with store_of(options, read=True) as store:
        owners = living(store)
        damaged: list[str] = []
        found = store.runs(filter_of(options), limit=options.limit, damaged=damaged)
        if options.json and options.waiting:
            emit_json([header(run, owners) | {"waiting": presented(run.waiting)} for run in found])
        elif options.json:
            emit_json([header(run, owners) for run in found])
        elif options.waiting:
            for run in found:
                say("  ".join(_cells(run, owners)).rstrip())
                try:
                    whole = store.load(run.run_id)
                except StoreError as error:
                    damaged.append(str(error))
                    continue
                for line in standing_lines(whole, owners, options):
                    say(line)
        elif sys.stdout.isatty():
            _print_table(list(found), owners)
        else:
            for run in found:
                say("  ".join(_cells(run, owners)).rstrip())
    for problem in damaged:
        complain(problem)
    return FAILED if damaged else OK


def _cells(run: StoredRun, owners: Any) -> tuple[str, ...]:
    from ...records.secrecy import NOTHING_SECRET, Levels
    from ..said import said_words
    from ..standing import standing

    cost = dollars(Decimal(run.cost_usd)) if run.cost_usd is not None else "-"
    count = f"{run.steps} step{'s' * (run.steps != 1)}"
    levels = Levels.of(run.about) or NOTHING_SECRET
    told = levels.any_error("show", run.error)
    error = f"{safe(told)}" if run.status == "failed" and type(told) is str else ""
    parent = f"from {run.parent}" if run.parent is not None else ""
    words = "; ".join(filter(None, (parent, safe(said_words(run)), error)))
    return (
        f"{run.run_id:<32}",
        f"{safe(run.program_name or '-'):<20}",
        f"{safe(standing(run, owners)):<20}",
        f"{age(run.created_ns):>5}",
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


def _print_table(found: list[StoredRun], owners: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("run", "program", "status"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in ("age", "steps", "cost"):
        table.add_column(name, no_wrap=True, justify="right")
    for run in found:
        cells = [cell.strip() for cell in _cells(run, owners)]
        made = len(run.run_id) == 32 and all(c in "0123456789abcdef" for c in run.run_id)
        cells[0] = run.run_id[:SHORT_ID] if made else run.run_id
        cells[4] = str(run.steps)
        status = Text(
            cells[2], style="bold red" if "in doubt" in cells[2] else STYLES.get(run.status, "")
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
