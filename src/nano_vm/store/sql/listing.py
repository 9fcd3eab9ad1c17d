"""Runs by what they are found by, newest first, a page at a time; and what their calls have cost.

A page is read from where the one before ended, along an index that has the order of the list: it
costs the same among a thousand runs and a million. Where several statuses are asked for, each is a
way of its own along an index, and the ways are merged. Of what is asked beside (a second label, a
least cost) rows are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from heapq import merge
from itertools import islice
from typing import Any

from ...errors import StoreError
from ..protocol import COST_GROUPS, LABEL_GROUP, Cost, RunFilter, Sums, refuse_waiting
from ..records import RUN_STATUSES, StoredRun
from .database import Connection
from .read import HEADER

DAY_NS = 86_400 * 10**9

Place = tuple[int, int]
"""Where a run stands in the order of lists: when it was made, and its key."""


# --- labels ---


def index_labels(connection: Connection, run: StoredRun) -> None:
    """Make a new run, by its key, found by its labels; one that was erased has none."""
    if type(run.labels) is dict:
        connection.many(
            "INSERT INTO nano_labels (name, value, created_ns, run) VALUES (?, ?, ?, ?)",
            [(name, value, run.created_ns, run.key) for name, value in run.labels.items()],
        )


def label_faults(connection: Connection, run: StoredRun) -> Iterator[str]:
    """What is wrong with that by which a run is found."""
    found = connection.all("SELECT name, value, created_ns FROM nano_labels WHERE run = ?", run.key)
    labels = run.labels if type(run.labels) is dict else {}
    if sorted(map(tuple, found)) != sorted((*pair, run.created_ns) for pair in labels.items()):
        yield "it is found by other labels than it has: they were changed"


def unowned_labels(connection: Connection) -> list[str]:
    """Labels of runs that are not there."""
    lost = connection.all(
        "SELECT DISTINCT run FROM nano_labels WHERE run NOT IN (SELECT key FROM nano_runs)"
    )
    return [f"labels of run number {key}, which is not there" for (key,) in lost]


# --- pages ---


def page(
    connection: Connection, filter: RunFilter, size: int, after: Place | None
) -> tuple[list[Place], dict[int, Any]]:
    """The places of up to *size* runs that follow *after*; and by key their headers, as
    `read.headers` takes them.

    Raises:
        StoreError: If an index was damaged.
    """
    places = _places(connection, filter, size, after)
    keys = [key for _, key in places]
    headers = {fields[0]: fields for fields in connection.among(f"{HEADER} WHERE key IN (*)", keys)}
    return places, headers


def _places(
    connection: Connection, filter: RunFilter, size: int, after: Place | None = None
) -> list[Place]:
    """The places of up to *size* runs that follow *after*."""
    ways = [_way(connection, filter, status, size, after) for status in _statuses(filter)]
    try:
        return list(islice(merge(*ways, reverse=True), size))
    except TypeError as error:
        raise unordered(connection) from error


def unordered(connection: Connection) -> StoreError:
    """That an index does not say what its table does."""
    return StoreError(
        f"{connection.database.name}: an index is not what was written; the database is damaged: "
        f"restore a copy"
    )


def _statuses(filter: RunFilter) -> Sequence[str | None]:
    """The statuses that have a way of their own; None where one way has them all."""
    if filter.labels or filter.parent is not None or filter.submitter is not None:
        return (None,)
    if filter.status is not None:
        return filter.status
    # the indexes of these two have the status before the time
    return RUN_STATUSES if filter.program is not None or filter.project is not None else (None,)


def _way(
    connection: Connection, filter: RunFilter, status: str | None, size: int, after: Place | None
) -> list[Place]:
    """The places of the first runs along one index."""
    source, made, key, clauses, given = _source(filter)
    if status is not None:
        clauses.append("r.status = ?")
        given.append(status)
    elif filter.status is not None:
        clauses.append(_among(filter.status))
        given += filter.status
    more, also = clauses_of(filter, made)
    clauses += more
    given += also
    if after is not None:
        clauses.append(f"({made}, {key}) < (?, ?)")
        given += after
    where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
    text = f"SELECT {made}, {key} FROM {source}{where} ORDER BY {made} DESC, {key} DESC"
    # the number stands in the text: of a parameter a planner of PostgreSQL supposes that it is large
    found = connection.all(f"{text} LIMIT {size:d}", *given)
    return [(created, number) for created, number in found]


def _source(filter: RunFilter) -> tuple[str, str, str, list[str], list[Any]]:
    """What a list is read from: the runs, or one label of theirs; the columns of its order, and
    clauses with their values.
    """
    if not filter.labels:
        return "nano_runs r", "r.created_ns", "r.key", [], []
    (name, value), *_ = filter.labels.items()
    source = "nano_labels l JOIN nano_runs r ON r.key = l.run"
    return source, "l.created_ns", "l.run", ["l.name = ?", "l.value = ?"], [name, value]


def clauses_of(filter: RunFilter, made: str = "r.created_ns") -> tuple[list[str], list[Any]]:
    """The clauses of a filter on the runs *r*, but for its status and its first label; and their
    values. *made* is the column of when they were made.
    """
    clauses: list[str] = []
    given: list[Any] = []
    for clause, value in (
        ("r.program_name = ?", filter.program),
        ("r.project = ?", filter.project),
        ("r.submitter = ?", filter.submitter),
        ("r.parent = ?", filter.parent),
        (f"{made} >= ?", filter.since_ns),
        (f"{made} < ?", filter.until_ns),
    ):
        if value is not None:
            clauses.append(clause)
            given.append(value)
    if filter.version is not None:
        ways = [f"substr(r.program_digest, 1, {len(version)}) = ?" for version in filter.version]
        clauses.append(f"({' OR '.join(ways) or '1 = 0'})")
        given += filter.version
    for pair in list(filter.labels.items())[1:]:
        clauses.append(_LABELLED)
        given += pair
    if filter.min_cost_usd is not None:
        clauses.append("CAST(r.cost_usd AS NUMERIC) >= CAST(? AS NUMERIC)")
        given.append(str(filter.min_cost_usd))
    return clauses, given


def _among(statuses: Sequence[str]) -> str:
    return f"r.status IN ({', '.join('?' * len(statuses))})" if statuses else "1 = 0"


_LABELLED = (
    "EXISTS (SELECT 1 FROM nano_labels o WHERE o.run = r.key AND o.name = ? AND o.value = ?)"
)


# --- days ---


def per_day(connection: Connection, filter: RunFilter) -> dict[tuple[int, str], int]:
    """How many runs began on each day, as a number since 1970, and stand at each status."""
    refuse_waiting(filter)
    source, made, _, clauses, given = _source(filter)
    # each status named: so the index is used that has it before the time
    clauses.append(_among(filter.status or RUN_STATUSES))
    given += filter.status or RUN_STATUSES
    more, also = clauses_of(filter, made)
    found = connection.all(
        f"SELECT {made} / {DAY_NS}, r.status, count(*) FROM {source} "
        f"WHERE {' AND '.join([*clauses, *more])} GROUP BY {made} / {DAY_NS}, r.status",
        *given,
        *also,
    )
    return {(day, status): count for day, status, count in found}


# --- costs ---

_GROUPS = {
    "project": "r.project",
    "program": "r.program_name",
    "version": "r.program_digest",
    "model": "c.model",
    "step": "c.step",
    "day": f"c.started_ns / {DAY_NS}",
}
assert tuple(_GROUPS) == COST_GROUPS


def costs_of_newest(
    connection: Connection, by: Sequence[str], filter: RunFilter, most: int
) -> Sums:
    """The same of up to *most* runs, the newest."""
    places = _places(connection, filter, most + 1)
    whole, places = len(places) <= most, places[:most]
    last = places[-1] if places else None
    found = costs(connection, by, filter, None if whole else last)
    return Sums(found, len(places), last[0] if last else None, whole)


def costs(
    connection: Connection, by: Sequence[str], filter: RunFilter, last: Place | None = None
) -> list[Cost]:
    """What the calls of runs have cost, summed for each value of *by*, in its order; of those runs
    that stand before *last* in the list, and that one.
    """
    refuse_waiting(filter)
    source, made, run, clauses, given = _source(filter)
    more, also = clauses_of(filter, made)
    clauses += more
    given += also
    if filter.status is not None:
        clauses.append(_among(filter.status))
        given += filter.status
    if last is not None:
        clauses.append(f"({made}, {run}) >= (?, ?)")
        given += last
    columns, labels, names = _columns(by)
    groups = ", ".join(columns)
    # the index of calls has all that is asked, unless something is asked of runs
    of_runs = bool(clauses) or any(column.startswith("r.") for column in columns)
    calls_of = f"{source} JOIN nano_rows c ON c.run = r.key" if of_runs else "nano_rows c"
    where = " AND ".join(["c.model IS NOT NULL", *clauses])
    text = (
        f"SELECT {groups}{', ' * bool(by)}count(*), coalesce(sum(c.prompt_tokens), 0), "
        "coalesce(sum(c.completion_tokens), 0), coalesce(sum(c.total_tokens), 0), "
        f"{connection.database.dialect.sum('c.cost_usd')}, count(c.cost_usd) "
        f"FROM {calls_of}{labels} WHERE {where}{' GROUP BY ' * bool(by)}{groups}"
    )
    found = []
    # in the order of Python: databases order text each in their own way
    try:
        sums = sorted(connection.all(text, *names, *given), key=lambda sums: tuple(sums[: len(by)]))
    except TypeError as error:
        raise unordered(connection) from error
    for *values, calls, prompt, completion, total, cost, priced in sums:
        if not calls:
            continue
        shown = {
            name: _day(value) if name == "day" else value
            for name, value in zip(by, values, strict=True)
        }
        found.append(
            Cost(
                shown,
                calls,
                int(prompt),
                int(completion),
                int(total),
                Decimal(cost or 0),
                calls - priced,
            )
        )
    return found


def _columns(by: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """The columns of what is summed by; and the joins that find labels, with the names of these."""
    columns, labels, names = [], "", []
    for number, name in enumerate(by):
        if name.startswith(LABEL_GROUP):
            columns.append(f"coalesce(g{number}.value, '')")
            labels += f" LEFT JOIN nano_labels g{number} ON g{number}.run = c.run"
            labels += f" AND g{number}.name = ?"
            names.append(name.removeprefix(LABEL_GROUP))
        else:
            columns.append(_GROUPS[name])
    return columns, labels, names


def _day(number: Any) -> str:
    return datetime.fromtimestamp(int(number) * 86_400, UTC).date().isoformat()
