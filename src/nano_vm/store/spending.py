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
from typing import Any

from ..errors import StoreError
from ..prices import Price, cost_of, priced_name
from ..records.record import step_of
from ..records.usage import LLMUsage
from .protocol import COST_GROUPS, Cost, RunFilter, Store
from .records import STEP, Row, StoredRun

SPENDING_GROUPS = (*COST_GROUPS, "member")
"""What can be summed by here."""

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


def spent_in(store: Store, filter: RunFilter) -> Iterator[Spent]:
    """The calls of the runs that *filter* lets through.

    Raises:
        StoreError: If a run was damaged.
    """
    after: str | None = None
    while True:
        page = store.page(filter, after=after)
        if page.damaged:
            raise StoreError(page.damaged[0])
        whole = store.load_each([run.run_id for run in page.runs])
        for run in whole.values():
            if isinstance(run, StoreError):
                raise run
            yield from spent_by(run)
        if page.after is None:
            return
        after = page.after


def spent_by(run: StoredRun) -> Iterator[Spent]:
    """The calls that one run made."""
    for row in run.rows:
        if row.kind == STEP and row.model is not None:
            of = {
                "project": run.project,
                "program": run.program_name,
                "step": step_of(row.path),
                "day": datetime.fromtimestamp(row.started_ns // 10**9, UTC).date().isoformat(),
            }
            yield from _calls(row, of)


def _calls(row: Row, of: dict[str, str]) -> Iterator[Spent]:
    record = row.record()
    attempts = record.attempts or ()
    routes = [attempt.route for attempt in attempts]
    last = record.extra.get("route") if type(record.extra) is dict else None
    if last is None and not any(routes):
        yield _spent(of, row.model or "", None, record.usage)
        return
    for attempt, route in zip(attempts, routes, strict=True):
        if route is None:
            yield _spent(of, row.model or "", None, attempt.usage)
        else:
            yield from _routed(of, route)
    if last is not None:
        yield from _routed(of, last)


def _routed(of: dict[str, str], route: Mapping[str, Any]) -> Iterator[Spent]:
    for attempt in route["attempts"]:
        member = str(attempt["member"])
        usage = LLMUsage.from_dict(attempt["usage"]) if "usage" in attempt else None
        model = str(attempt.get("model") or attempt.get("asked") or member)
        yield _spent(of, model, member, usage)


def _spent(of: dict[str, str], model: str, member: str | None, usage: LLMUsage | None) -> Spent:
    names = (model,) if member in (None, model) else (model, str(member))
    return Spent({**of, "model": model, "member": member or model}, names, usage)


def summed(
    calls: Iterable[Spent], by: Sequence[str], prices: Mapping[str, Price] | None = None
) -> list[Cost]:
    """*calls* summed for each value of *by*, in its order; with *prices*, as if these had held.

    Raises:
        ValueError: If they are not summed by one of *by*.
    """
    for name in by:
        if name not in SPENDING_GROUPS:
            raise ValueError(f"costs are summed by {', '.join(SPENDING_GROUPS)}, not by {name!r}")
    sums: dict[tuple[str, ...], list[Any]] = {}
    with localcontext(prec=DIGITS):
        for call in calls:
            key = tuple(call.of[name] for name in by)
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
