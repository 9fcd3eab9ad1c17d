"""What the model calls of a project's runs have cost, and would have by other prices: of the newest
runs, so that no question reads more than it may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, cast

from fastapi import Query
from fastapi.responses import JSONResponse

from ...errors import VMError
from ...prices import Price, checked_price
from ...store.protocol import LABEL_GROUP, Cost, RunFilter
from ...store.spending import (
    MOST_STEPS,
    SPENDING_GROUPS,
    price_tables,
    summed_by_columns,
    sums_of_newest,
)
from ..access import Caller, Who
from ..bodies import Body
from ..filters import Asked, understood
from ..problems import Problem
from ..routing import PROJECT, Routes, route
from ..scope import Scope
from ..shapes import CostRow, Costs
from ..tables import programs

ROUTES = Routes()

MOST_SUMMED = 100_000
"""Runs that are summed where the database does it: half a second."""

READ, MOST_READ = 1_000, 5_000
"""Runs that are read whole to be summed, for members, sources of prices and other prices: where
nobody says how many, and at most. A run of a few calls takes a millisecond.
"""

LOOKED_AT = 50
"""Runs, the newest, whose tables of prices are named."""

By = Annotated[str, Query(description=f"of {', '.join(SPENDING_GROUPS)}, {LABEL_GROUP}NAME")]
Newest = Annotated[
    int | None,
    Query(
        ge=1,
        description=f"of how many runs, the newest: at most {MOST_SUMMED}, which is meant if it is "
        f"absent; by member, by prices or with other prices at most {MOST_READ} that have some "
        f"{MOST_STEPS} steps, and {READ} if it is absent",
    ),
]


class Otherwise(Body):
    """Other prices: dollars per million tokens, by the names of models."""

    prices: dict[str, dict[str, str] | list[str]]


@route(ROUTES, "GET", f"{PROJECT}/costs", "cost:read", answers=Costs)
def costs(
    who: Who,
    asked: Asked,
    by: By = "model",
    newest: Newest = None,
) -> JSONResponse:
    """What the model calls of runs have cost, summed."""
    return _summed(who, asked, by, newest, None)


@route(ROUTES, "POST", f"{PROJECT}/costs/what-if", "cost:read", answers=Costs)
def what_if(
    given: Otherwise,
    who: Who,
    asked: Asked,
    by: By = "model",
    newest: Newest = None,
) -> JSONResponse:
    """The same, with what it would have cost by other prices. Nothing is recorded."""
    try:
        prices = {name: checked_price(name, price) for name, price in given.prices.items()}
    except VMError as error:
        raise Problem(422, "no-price", str(error)) from None
    return _summed(who, asked, by, newest, prices)


def _summed(
    who: Caller,
    asked: RunFilter,
    by: str,
    newest: int | None,
    prices: Mapping[str, Price] | None,
) -> JSONResponse:
    scope, store = who.scope, who.state.store
    groups = [part for part in by.split(",") if part]
    would: list[Cost] = []
    within = scope.within(asked)
    with understood():
        if prices is None and summed_by_columns(groups):
            most = min(newest or MOST_SUMMED, MOST_SUMMED)
            found = store.costs_of_newest(groups, within, most)
        else:
            most = min(newest or READ, MOST_READ)
            found, would = sums_of_newest(store, groups, within, most, prices)
    versions = {cost.of["version"] for cost in found.costs if "version" in cost.of}
    answer: Costs = {
        "costs": _rows(found.costs, would),
        "runs": found.runs,
        "since": None if found.since_ns is None else found.since_ns / 1e6,
        "whole": found.whole,
        "versions": _numbers(scope, versions),
        "tables": _tables(scope, within),
        "damaged": list(found.damaged),
    }
    return JSONResponse(answer)


def _rows(found: Iterable[Cost], would: Iterable[Cost]) -> list[CostRow]:
    by_other = {tuple(cost.of.values()): cost for cost in would}
    rows: list[CostRow] = []
    for cost in found:
        row = cast("CostRow", {"of": dict(cost.of), **cost.consumed()})
        other = by_other.get(tuple(cost.of.values()))
        if other is not None:
            row["what_if_usd"] = str(other.cost_usd)
            row["what_if_unpriced"] = other.unpriced
        rows.append(row)
    return rows


def _numbers(scope: Scope, digests: Iterable[str]) -> dict[str, list[int]]:
    """The numbers of the versions that were put with these digests."""
    wanted = sorted(digests)
    if not wanted:
        return {}
    statement = (
        scope.select(programs, programs.c.digest, programs.c.version)
        .where(programs.c.digest.in_(wanted))
        .order_by(programs.c.version)
    )
    found: dict[str, list[int]] = {}
    with scope.tables.reading() as rows:
        for row in rows.all(statement):
            found.setdefault(row.digest, []).append(row.version)
    return found


def _tables(scope: Scope, within: RunFilter) -> list[str]:
    """The tables of prices, with their versions, that the newest runs were priced by."""
    found: set[str] = set()
    for run in scope.store.page(within, size=LOOKED_AT).runs:
        found.update(price_tables(run).values())
    return sorted(found)
