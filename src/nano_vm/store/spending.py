"""What model calls of stored runs consumed, call of a provider by call of a provider: what a row's
own columns do not tell. Rows come in, one `Spent` for each call goes out; sums are exact.

A step that a pool served is as many calls as its route tells, each with its member and model.
Slower than `Store.costs`, since every row is read; for members, and for other prices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

from ..errors import StoreError
from ..prices import Price, cost_of, priced_name
from ..records.record import Record, step_of
from ..records.usage import LLMUsage
from .few import few_runs
from .protocol import (
    COST_GROUPS,
    LABEL_GROUP,
    PAGE_RUNS,
    Cost,
    RunFilter,
    RunPage,
    Store,
    Sums,
    checked_groups,
    refuse_waiting,
)
from .records import STEP, StoredRun

SPENDING_GROUPS = (*COST_GROUPS, "member", "prices")
"""What can be summed by here, beside labels. ``prices`` says where the cost of a call came from: a
table of prices with its version, the ``host``, the ``provider``; ``unknown`` where nobody knows.
"""

_READ = frozenset(SPENDING_GROUPS) - frozenset(COST_GROUPS)
"""Those of them that no column has."""

MOST_STEPS = 20_000
"""After so many `sums_of_newest` reads no further: some seconds."""

DIGITS = 60
"""Of sums: dollars of a trillion calls to the last digit of a price of one token."""


@dataclass(frozen=True, slots=True)
class Spent:
    """One call of a provider: ``of`` says which, ``names`` by what it is priced, the model that
    answered first; ``usage`` is None where nobody knows it.
    """

    of: Mapping[str, str]
    names: tuple[str, ...]
    usage: LLMUsage | None


def summed_by_columns(by: Iterable[str]) -> bool:
    """Whether a database sums costs by these itself (`Store.costs`), or refuses to; else the rows
    of each run are read.
    """
    return _READ.isdisjoint(by)


def spent_in(store: Store, filter: RunFilter) -> Iterator[Spent]:
    """The calls of the runs that *filter* lets through.

    Raises:
        StoreError: If a run was damaged.
    """
    for page in _pages(store, filter):
        if page.damaged:
            raise StoreError(page.damaged[0])
        for run in store.load_each([run.run_id for run in page.runs]).values():
            if isinstance(run, StoreError):
                raise run
            yield from spent_by(run)


def sums_of_newest(
    store: Store,
    by: Sequence[str],
    filter: RunFilter,
    most: int,
    prices: Mapping[str, Price] | None = None,
) -> tuple[Sums, list[Cost]]:
    """What the calls of up to *most* runs, the newest, have cost, summed; and what they would have
    by *prices*. Of fewer runs where these have more than `MOST_STEPS`.

    Raises:
        ValueError: If they are not summed by one of *by*.
    """
    by = checked_groups(by, SPENDING_GROUPS)  # before anything is read
    calls: list[Spent] = []
    damaged: list[str] = []
    runs, steps, last, page = 0, 0, None, None
    for page in _pages(store, filter, most):
        damaged += page.damaged
        for run in store.load_each([run.run_id for run in page.runs]).values():
            if isinstance(run, StoreError):
                damaged.append(str(run))
                continue
            calls += spent_by(run)
            runs, last = runs + 1, run.created_ns
            steps += sum(row.kind == STEP for row in run.rows)
        if steps > MOST_STEPS:
            break
    whole = page is None or not _follows(store, filter, page.after)
    found = Sums(summed(calls, by), runs, last, whole, damaged)
    return found, summed(calls, by, prices) if prices is not None else []


def _follows(store: Store, filter: RunFilter, after: str | None) -> bool:
    """Whether there is a run behind that place, be it damaged."""
    if after is None:
        return False
    rest = store.page(filter, size=1, after=after)
    return bool(rest.runs or rest.damaged)


def _pages(store: Store, filter: RunFilter, most: int | None = None) -> Iterator[RunPage]:
    """The pages of a list, of up to *most* runs, each so short that its steps fit into memory.

    Raises:
        ValueError: If it is of runs that wait for something, of which pages are short.
    """
    refuse_waiting(filter)
    left, after = most, None
    while left is None or left > 0:
        size = PAGE_RUNS if left is None else min(left, PAGE_RUNS)
        page = few_runs(store, filter, after, size)
        yield page
        if page.after is None:
            return
        looked_at = len(page.runs) + len(page.damaged)
        left, after = None if left is None else left - looked_at, page.after


def price_tables(run: StoredRun) -> Mapping[str, str]:
    """The tables of prices, with their versions, that a run was priced by, by names of models; none
    of one that was erased.
    """
    about: Any = run.about
    found: Mapping[str, str] = about.get("price_sources", {}) if type(about) is dict else {}
    return found


def spent_by(run: StoredRun) -> Iterator[Spent]:
    """The calls that one run made."""
    labels = run.labels if type(run.labels) is dict else {}  # else they were erased
    of_run = {
        "project": run.project,
        "program": run.program_name,
        "version": run.program_digest,
        **{f"{LABEL_GROUP}{name}": value for name, value in labels.items()},
    }
    tables = price_tables(run)
    for row in run.rows:
        if row.kind == STEP and row.model is not None:
            record = row.record()
            day = datetime.fromtimestamp(row.started_ns // 10**9, UTC).date().isoformat()
            of = {**of_run, "step": step_of(row.path), "day": day}
            extra = record.extra if type(record.extra) is dict else {}
            source = _SOURCES.get(str(extra.get("cost_source")), UNKNOWN)
            yield from _calls(_Step(row.model, of, tables, source), record, extra.get("route"))


UNKNOWN = "unknown"

_SOURCES = {"prices": "host", "adapter": "provider"}
"""Where a price came from that is in no table, as a record has it."""


class _Step(NamedTuple):
    """What all calls of a step have: its model, what they are summed by, the tables of prices by the
    names in them, and where a price came from that is in none.
    """

    model: str
    of: Mapping[str, str]
    tables: Mapping[str, str]
    source: str


def _calls(step: _Step, record: Record, last: Any) -> Iterator[Spent]:
    attempts = record.attempts or ()
    routes = [attempt.route for attempt in attempts]
    if last is None and not any(routes):
        yield _spent(step, step.model, None, record.usage)
        return
    for attempt, route in zip(attempts, routes, strict=True):
        if route is None:
            yield _spent(step, step.model, None, attempt.usage)
        else:
            yield from _routed(step, route)
    if last is not None:
        yield from _routed(step, last)


def _routed(step: _Step, route: Mapping[str, Any]) -> Iterator[Spent]:
    for attempt in route["attempts"]:
        member = str(attempt["member"])
        usage = LLMUsage.from_dict(attempt["usage"]) if "usage" in attempt else None
        model = str(attempt.get("model") or attempt.get("asked") or member)
        yield _spent(step, model, member, usage)


def _spent(step: _Step, model: str, member: str | None, usage: LLMUsage | None) -> Spent:
    names = (model,) if member in (None, model) else (model, str(member))
    table = priced_name(model, names, step.tables)
    source = step.source if table is None else step.tables[table]
    if usage is None or usage.cost_usd is None:
        source = UNKNOWN
    of = {**step.of, "model": model, "member": member or model, "prices": source}
    return Spent(of, names, usage)


def summed(
    calls: Iterable[Spent], by: Sequence[str], prices: Mapping[str, Price] | None = None
) -> list[Cost]:
    """*calls* summed for each value of *by*, in its order; with *prices*, as if these had held.

    Raises:
        ValueError: If they are not summed by one of *by*.
    """
    by = checked_groups(by, SPENDING_GROUPS)
    sums: dict[tuple[str, ...], list[Any]] = {}
    with localcontext(prec=DIGITS):
        for call in calls:
            key = tuple(call.of.get(name, "") for name in by)  # a label that the run has not
            found = sums.setdefault(key, [0, 0, 0, 0, Decimal(0), 0])
            cost = _cost(call, prices)
            found[0] += 1
            if call.usage is not None:
                found[1] += call.usage.prompt_tokens
                found[2] += call.usage.completion_tokens
                found[3] += call.usage.total_tokens
            if cost is None:
                found[5] += 1
            else:
                found[4] += cost
    return [Cost(dict(zip(by, key, strict=True)), *found) for key, found in sorted(sums.items())]


def _cost(call: Spent, prices: Mapping[str, Price] | None) -> Decimal | None:
    if call.usage is None:
        return None
    if prices is None or not call.usage.total_tokens:
        return call.usage.cost_usd
    name = priced_name(call.names[0], call.names, prices)
    return None if name is None else cost_of(prices[name], call.usage)
