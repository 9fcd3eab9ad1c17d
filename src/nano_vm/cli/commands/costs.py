"""``nano-vm costs``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from ..faults import OK, UsageFault
from ..grammar import Options, command, flag, values
from ..output import emit_json, note, say
from ..parameters import STORED, file_option, takes_filter, takes_server, takes_store
from ..text import dollars, safe

if TYPE_CHECKING:
    from ...prices import Price
    from ...store.accounts import Account, Standing
    from ...store.protocol import Cost

EXAMPLES = """\
nano-vm costs --store sqlite:///runs.db --by program --by model --since 30d
nano-vm costs --by day --label team=billing --plot costs.svg
nano-vm costs --by label:customer --by version
nano-vm costs --by member --what-if cheaper.toml --json
nano-vm costs --budgets --host nano-vm.toml
"""

GROUPS = ("project", "program", "version", "model", "member", "step", "day", "prices")

LABEL = "label:"


class _Group(click.Choice[str]):
    """One of `GROUPS`, or a label by its name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """*value*, if costs can be summed by it."""
        if not str(value).startswith(LABEL):
            return super().convert(value, param, ctx)
        from ...store.records import Unfit, checked_name

        try:
            checked_name("the name of a label", str(value).removeprefix(LABEL))
        except Unfit as error:
            self.fail(str(error), param, ctx)
        return str(value)


@command(examples=EXAMPLES, footer=STORED)
@values(
    "--by",
    type=_Group(GROUPS),
    metavar="WHAT",
    help=f"sum by this: {', '.join(GROUPS)}, label:NAME; repeat for more; default: model",
)
@file_option("--what-if", help="what the same calls would have cost by the prices of a host file")
@file_option("--plot", help="write a bar chart to FILE, in SVG")
@flag("--budgets", help="show what is spent and reserved in the budgets that runs share, instead")
@file_option("--host", help="with --budgets: their limits are those of this host file")
@takes_filter
@takes_store
@takes_server
def costs(options: Options) -> int:
    """
    Sum what the model calls of runs have cost.

    A call counts in the run that made it: not in a fork that took its answer. Costs are exact; of
    calls whose cost is not known only the tokens are in a sum, and their number is shown. Days
    are those of the calls, in UTC; --since and --until are about when runs began.

    A version is the digest of a run's program; --by prices says by which table, in which version,
    a call was priced, or that its host or provider said what it cost.

    With --by member, --by prices or --what-if each attempt that a pool made is a call, and every
    run is read. A server sums the newest runs, and says so where there are more. Limits of budgets
    are those of its workers.
    """
    from ..places import place_of, store_only
    from ..said import filter_of

    store_only(options, _HONOURED)  # before a file is read
    if options.budgets:
        return _show_budgets(options)
    if options.host is not None:
        raise UsageFault("--host needs --budgets: costs are those that were recorded")
    by = options.by or ("model",)
    prices = _prices(options.what_if)
    with place_of(options, honours=_HONOURED, read=True) as place:
        found, priced, notes = place.costs(by, filter_of(options), prices)
    for told in notes:
        note(safe(told))
    would = {_key(cost): cost for cost in priced}
    if options.plot is not None:
        _plot(options.plot, by, found)
    if options.json:
        emit_json([_json(cost, would.get(_key(cost))) for cost in found])
        return OK
    for cost in found:
        say("  ".join(_cells(cost, would.get(_key(cost)))))
    if not found:
        say("no model was called")
    return OK


_HONOURED = "budgets by what_if plot status program_name program_version label submitter since until".split()

WIDTH = 20
"""Of a column of what is summed by: a digest that is longer is cut."""


def _show_budgets(options: Options) -> int:
    """How the accounts of the store stand."""
    from ...store.accounts import account_json
    from ..places import place_of

    budgets = {}
    if options.host is not None:
        from ...adapters.hostfile import budgets_in
        from ...errors import VMError

        try:
            budgets = budgets_in(options.host)
        except VMError as error:
            raise UsageFault(f"--host: {error}") from None
    with place_of(options, honours=("budgets",), read=True) as place:
        found = place.accounts(budgets)
    if options.json:
        emit_json([account_json(*one) for one in found])
        return OK
    for line in _account_lines(found):
        say(line)
    if not found:
        say("no budget that runs share has counted a call")
    return OK


def _account_lines(found: Iterable[tuple[Account, Standing]]) -> Iterable[str]:
    from ...store.accounts import LIMITS, in_dollars

    for account, (spent, reserved) in found:
        for limit, used, held, most in zip(LIMITS, spent, reserved, account.limits, strict=True):
            if most is None and account.limits != (None, None, None):
                continue
            if limit == "max_cost_usd":
                amounts = [f"${in_dollars(a):f}" for a in (used, held, most or 0)]
            else:
                amounts = [f"{a:,}" for a in (used, held, most or 0)]
            of = "" if most is None else f" of {amounts[2]}"
            yield f"{safe(str(account))}: {limit}: {amounts[0]} spent, {amounts[1]} reserved{of}"


def _prices(path: str | None) -> Mapping[str, Price] | None:
    if path is None:
        return None
    from ...adapters.hostfile import prices_in
    from ...errors import VMError

    try:
        return prices_in(path)
    except VMError as error:
        raise UsageFault(f"--what-if: {error}") from None


def _key(cost: Cost) -> tuple[str, ...]:
    return tuple(cost.of.values())


def _plot(path: str, by: Sequence[str], found: Sequence[Cost]) -> None:
    from ...draw.bars import bars
    from ..output import OutputFile

    rows = [(" · ".join(_key(cost)) or "all", cost.cost_usd) for cost in found]
    with closing(OutputFile(path, "--plot: ")) as file:
        file.stream.write(bars(f"Dollars by {', '.join(by)}", rows).encode())
        try:
            file.commit()
        except OSError as error:
            raise UsageFault(str(file.fault(error))) from None


def _json(cost: Cost, would: Cost | None = None) -> dict[str, object]:
    told: dict[str, object] = {**cost.of, **cost.consumed()}
    if would is not None:
        told |= {"what_if_usd": str(would.cost_usd), "what_if_unpriced": would.unpriced}
    return told


def _amount(cost: Cost) -> str:
    amount = dollars(None) if cost.unpriced == cost.calls else dollars(cost.cost_usd)
    if 0 < cost.unpriced < cost.calls:
        amount += f" and {cost.unpriced:,} unknown"
    return amount


def _cells(cost: Cost, would: Cost | None = None) -> tuple[str, ...]:
    return (
        *(
            f"{safe((value[:WIDTH] if name == 'version' else value) or '-'):<{WIDTH}}"
            for name, value in cost.of.items()
        ),
        f"{cost.calls:>9,} call{'s' if cost.calls != 1 else ' '}",
        f"{cost.total_tokens:>12,} tokens",
        f"{_amount(cost):>10}",
        *((f"would be {_amount(would):>10}",) if would is not None else ()),
    )
