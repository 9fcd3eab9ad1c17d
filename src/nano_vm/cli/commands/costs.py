"""``nano-vm costs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..faults import OK
from ..grammar import Options, command, values
from ..output import emit_json, say
from ..parameters import STORED, takes_filter, takes_store
from ..text import dollars, safe

if TYPE_CHECKING:
    from ...store.protocol import Cost

EXAMPLES = """\
nano-vm costs --store sqlite:///runs.db --by program --by model --since 30d
nano-vm costs --by day --label team=billing --json
"""

GROUPS = ("project", "program", "model", "step", "day")


@command(examples=EXAMPLES, footer=STORED)
@values(
    "--by",
    type=click.Choice(GROUPS),
    metavar="WHAT",
    help=f"sum by this: {', '.join(GROUPS)}; repeat for more; default: model",
)
@takes_filter
@takes_store
def costs(options: Options) -> int:
    """
    Sum what the model calls of runs have cost.

    A call counts in the run that made it: not in a fork that took its answer. Costs are exact; of
    calls whose cost is not known only the tokens are in a sum, and how many they are is told. Days
    are those of the calls, in UTC; --since and --until are about when runs began.
    """
    from ..said import filter_of
    from ..stores import store_of

    by = options.by or ("model",)
    with store_of(options, read=True) as store:
        found = store.costs(by, filter_of(options))
    if options.json:
        emit_json([_json(cost) for cost in found])
        return OK
    for cost in found:
        say("  ".join(_cells(cost)))
    if not found:
        say("no model was called")
    return OK


def _json(cost: Cost) -> dict[str, object]:
    return {
        **cost.of,
        "calls": cost.calls,
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": cost.completion_tokens,
        "total_tokens": cost.total_tokens,
        "cost_usd": str(cost.cost_usd),
        "unpriced": cost.unpriced,
    }


def _cells(cost: Cost) -> tuple[str, ...]:
    amount = dollars(None) if cost.unpriced == cost.calls else dollars(cost.cost_usd)
    if 0 < cost.unpriced < cost.calls:
        amount += f" and {cost.unpriced:,} unknown"
    return (
        *(f"{safe(value or '-'):<20}" for value in cost.of.values()),
        f"{cost.calls:>9,} call{'s' if cost.calls != 1 else ' '}",
        f"{cost.total_tokens:>12,} tokens",
        f"{amount:>10}",
    )
