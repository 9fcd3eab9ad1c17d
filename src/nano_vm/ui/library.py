"""Runs to look at, of a store or of files: a list of them, one as a page shows it, one recomputed,
two compared. Nothing here changes a run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, Protocol, cast

from typing_extensions import TypedDict  # of typing, pydantic reads it from Python 3.12 on

from ..draw.view import RunView, is_soon_drawn, view_of
from ..errors import StoreError, UnknownRun
from ..language.program import Program
from ..records.secrecy import NOTHING_SECRET, Levels, error_of
from ..records.trace import Trace
from ..replay import Diff, Replay, accepted, diff, replay
from ..run.durable.lease import living
from ..run.durable.stored import trace_of
from ..store.few import few_runs
from ..store.protocol import Archive, RunFilter
from ..store.records import ENDED, SUSPENDED, StoredRun
from ..values import canonical
from .asked_for import NoSuchFilter
from .asking import Asking, asked
from .search import MOST_CHARS, Hit, Wanted

PAGE_RUNS = 50
"""Runs of a list that are asked for at once: what two screens show."""

MOST_SEARCHED = 1_000
"""Runs that are searched before it is answered."""

SEARCH_SECONDS = 2.0
"""After this, no others are: values of runs can be long."""

READ_AT_ONCE = 20
"""Runs that are searched together, if they have few steps."""


MOST_VIEWS_BYTES = 32_000_000
"""Of the views of runs that have ended, as they were answered: who looks at a run looks again, and
shows it to others. One of 20 steps has 10 KB.
"""


class Asked(TypedDict):
    """What a run waits for, in a list."""

    path: str
    kind: str
    role: NotRequired[str]
    event: NotRequired[str]
    deadline_ns: NotRequired[int]


class RunRow(TypedDict):
    """A run in a list. ``status`` is as a store has it; ``driven`` says whether the process that
    runs it is alive, and ``finished`` is None for one that has not ended. Times are milliseconds
    since the epoch.
    """

    id: str
    program: str
    program_digest: str
    status: str
    driven: bool
    waiting: list[Asked]
    created: float
    finished: float | None
    due: float | None
    steps: int
    tokens: int
    cost: str | None
    error: str | None
    parent: str | None
    project: str | None
    submitter: str | None
    labels: dict[str, str]
    erased: bool


class RunList(TypedDict):
    """Runs, newest first; ``after`` is what the next page is asked for with, and ``now`` the
    server's time, in milliseconds since the epoch.
    """

    runs: list[RunRow]
    after: str | None
    damaged: list[str]
    now: float


class FoundRow(RunRow):
    """A run in which the text was found, with the first places of it."""

    hits: list[Hit]


class FoundList(TypedDict):
    """Runs in which the text was found, newest first, of so many that were ``searched``; as `RunList`."""

    runs: list[FoundRow]
    searched: int
    after: str | None
    damaged: list[str]
    now: float


UNDRAWN = " undrawn"
"""Ends the version of a run that is shown without its graph, which is asked for then."""


class Current(TypedDict):
    """A run and its version; ``run`` is None where it is as it was seen."""

    version: str
    run: RunView | None


Graph = Literal["now", "later"]
"""When a run is shown with the graph of its program: ``later``, where to make that takes long, only
to who has seen the run without it.
"""


class StepDifference(TypedDict):
    """A step of either run, or of either program: ``side`` is ``a`` or ``b`` where only one has it."""

    path: str
    side: Literal["", "a", "b"]
    differs: bool
    fields: dict[str, tuple[str, str]]


class Comparison(TypedDict):
    """Two runs and what differs, as `replay.diff` has it; each value is canonical JSON."""

    a: RunView
    b: RunView
    same: bool
    divergence: str | None
    whole: dict[str, tuple[str, str]]
    steps: list[StepDifference]


class Library(Protocol):
    """Where runs are."""

    def page(self, filter: RunFilter, after: str | None = None) -> RunList:
        """Some runs, newest first."""
        ...

    def search(self, filter: RunFilter, text: str, after: str | None = None) -> FoundList:
        """Runs in which *text* was said, of the newest.

        Raises:
            NoSuchFilter: If it is empty, or too long.
        """
        ...

    def version(self, run_id: str) -> str:
        """Changes whenever what a page shows of the run does.

        Raises:
            UnknownRun: If there is no such run.
        """
        ...

    def recorded(self, run_id: str) -> Trace | StoredRun:
        """A run with its steps; raises as `version`."""
        ...

    def asked(self) -> tuple[list[Asking], list[str]]:
        """What runs ask of people; and what of runs cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs that the host was started with: traces do not hold theirs."""

    program: Program | None = None
    called: Mapping[str, Program] | None = None

    def of(self, run: Trace | StoredRun) -> Program | None:
        """The program for *run*, if it lacks its own."""
        return None if isinstance(run, StoredRun) else self.program


def shown(
    library: Library,
    run_id: str,
    programs: Programs,
    version: str,
    seen: str | None = None,
    graph: Graph = "now",
    *,
    content: bool = True,
) -> Current:
    """A run, which stands at *version*, as a page shows it to who has *seen* a version of it; what
    was said only with *content*.
    """
    run = library.recorded(run_id)
    waits = seen is not None and seen.endswith(UNDRAWN)  # in whatever version: for the graph
    if graph == "later" and not waits and not is_soon_drawn(run):
        view = view_of(run, content=content, drawn=False)
        return {"version": f"{version}{UNDRAWN}", "run": view}
    view = view_of(run, programs.of(run), programs.called, content=content)
    return {"version": version, "run": view}


def is_final(found: Current, version: str) -> bool:
    """Whether what was shown of a run, which stood at *version*, may be kept: with its graph, of a
    run that has ended. What is in doubt says whether its process lives.
    """
    run = found["run"]
    return run is not None and found["version"] == version and run["status"] in ENDED


def recomputed(library: Library, run_id: str, programs: Programs) -> Replay:
    """A run recomputed from its records, each held against what the program makes of it."""
    run = library.recorded(run_id)
    return replay(run, programs.of(run), programs=programs.called).shown_to("pages")


def compared(library: Library, a: str, b: str, programs: Programs) -> Comparison:
    """Two runs, and what differs between them."""
    runs = [library.recorded(run_id) for run_id in (a, b)]
    views = [view_of(run, programs.of(run), programs.called) for run in runs]
    traces = [run if isinstance(run, Trace) else trace_of(run) for run in runs]
    found = accepted("pages", diff(*traces))
    return {
        "a": views[0],
        "b": views[1],
        "same": found.same,
        "divergence": found.divergence,
        "whole": pairs(found.whole),
        "steps": step_differences(found),
    }


def step_differences(found: Diff) -> list[StepDifference]:
    """All steps of two runs, or of two programs."""
    return [
        {
            "path": step.path,
            "side": step.side,
            "differs": step.differs,
            "fields": pairs(step.fields),
        }
        for step in found.steps
    ]


def pairs(fields: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[str, str]]:
    """Fields in which two sides differ; each value is canonical JSON."""
    return {name: (canonical(a).decode(), canonical(b).decode()) for name, (a, b) in fields.items()}


def version_of(run: StoredRun) -> str:
    """What changes whenever what a page shows of the run does."""
    rows = f"{run.seal}" if run.status != "pending" else ""
    erased = " erased" if run.salt is None else ""  # which leaves the seal as it was
    return f"{run.status} {run.fence} {rows} {len(run.inbox)} {len(run.decided)}{erased}"


class StoreLibrary:
    """The runs of a store, which other processes go on writing."""

    def __init__(self, store: Archive) -> None:
        self.store = store

    def page(self, filter: RunFilter, after: str | None = None) -> RunList:
        """As `Library.page`: at the same cost among a million runs."""
        found = self.store.page(filter, size=PAGE_RUNS, after=after)
        owners = living(self.store)
        rows = [_row_of_store(run, run.owner in owners) for run in found.runs]
        now = time.time_ns() / 1e6
        return {"runs": rows, "after": found.after, "damaged": found.damaged, "now": now}

    def search(self, filter: RunFilter, text: str, after: str | None = None) -> FoundList:
        """As `Library.search`: of up to `MOST_SEARCHED` runs, for some `SEARCH_SECONDS`."""
        wanted = _wanted(text)
        owners = living(self.store)
        found: FoundList = {
            "runs": [],
            "searched": 0,
            "after": after,
            "damaged": [],
            "now": time.time_ns() / 1e6,
        }
        until = time.monotonic() + SEARCH_SECONDS
        while True:
            page = few_runs(self.store, filter, found["after"], READ_AT_ONCE)
            found["damaged"] += page.damaged
            found["searched"] += len(page.runs)
            readable = [run.run_id for run in page.runs if run.salt is not None]
            for run in self.store.load_each(readable).values():
                if isinstance(run, StoreError):
                    found["damaged"].append(str(run))
                elif hits := wanted.hits(view_of(run, drawn=False)):
                    found["runs"].append({**_row_of_store(run, run.owner in owners), "hits": hits})
            found["after"] = page.after
            enough = found["searched"] >= MOST_SEARCHED or len(found["runs"]) >= PAGE_RUNS
            if page.after is None or enough or time.monotonic() > until:
                return found

    def version(self, run_id: str) -> str:
        """As `Library.version`, without reading the run's values."""
        return version_of(self.header(run_id))

    def header(self, run_id: str) -> StoredRun:
        """A run without its steps.

        Raises:
            UnknownRun: If there is none of this id.
        """
        return self.store.load(run_id, rows=False)

    def within(self, filter: RunFilter) -> RunFilter:
        """*filter*, of the runs that are shown here."""
        return filter

    def forks_of(self, run_id: str, most: int) -> list[StoredRun]:
        """The runs that were made from a run, newest first, without their steps."""
        return self.store.page(self.within(RunFilter(parent=run_id)), size=most).runs

    def recorded(self, run_id: str) -> StoredRun:
        """As `Library.recorded`."""
        return self.store.load(run_id)

    def asked(self) -> tuple[list[Asking], list[str]]:
        """As `Library.asked`."""
        return asked(self.store)


class FileLibrary:
    """Runs of files, which do not change."""

    def __init__(self, runs: Sequence[Trace | StoredRun]) -> None:
        self.runs = {run.run_id: run for run in runs}

    def page(self, filter: RunFilter, after: str | None = None) -> RunList:
        """As `Library.page`, all at once."""
        rows = [
            _row_of_store(run, driven=False) if isinstance(run, StoredRun) else _row_of_trace(run)
            for run in self.runs.values()
        ]
        kept = sorted(
            (row for row in rows if _fits(row, filter)),
            key=lambda row: row["created"],
            reverse=True,
        )
        return {"runs": kept, "after": None, "damaged": [], "now": time.time_ns() / 1e6}

    def search(self, filter: RunFilter, text: str, after: str | None = None) -> FoundList:
        """As `Library.search`, of all."""
        wanted = _wanted(text)
        page = self.page(filter)
        rows: list[FoundRow] = []
        for row in page["runs"]:
            if hits := wanted.hits(view_of(self.runs[row["id"]], drawn=False)):
                rows.append({**row, "hits": hits})
        searched = len(page["runs"])
        return {**page, "runs": rows, "searched": searched}

    def version(self, run_id: str) -> str:
        """As `Library.version`: always the same."""
        self.recorded(run_id)
        return "recorded"

    def recorded(self, run_id: str) -> Trace | StoredRun:
        """As `Library.recorded`."""
        run = self.runs.get(run_id)
        if run is None:
            raise UnknownRun(f"there is no run {run_id!r} in these files")
        return run

    def asked(self) -> tuple[list[Asking], list[str]]:
        """As `Library.asked`: a file takes no answers."""
        return [], []


def _wanted(text: str) -> Wanted:
    """What is looked for.

    Raises:
        NoSuchFilter: If it is nothing, or too long.
    """
    if not 0 < len(text) <= MOST_CHARS:
        raise NoSuchFilter(f"the text that is looked for has 1 to {MOST_CHARS} characters")
    return Wanted(text)


def _row_of_store(run: StoredRun, driven: bool) -> RunRow:
    waiting = run.waiting if run.status == SUSPENDED else []
    return {
        "id": run.run_id,
        "program": run.program_name,
        "program_digest": run.program_digest,
        "status": run.status,
        "driven": driven,
        "waiting": [_asked_for(entry) for entry in waiting],
        "created": run.created_ns / 1e6,
        "finished": run.finished_ns / 1e6 if run.finished_ns else None,
        "due": None if run.wake_ns is None else run.wake_ns / 1e6,
        "steps": run.steps,
        "tokens": run.tokens,
        "cost": run.cost_usd,
        "error": _error(run),
        "parent": run.parent,
        "project": run.project,
        "submitter": run.submitter,
        "labels": {} if run.salt is None else dict(run.labels),
        "erased": run.salt is None,
    }


def _asked_for(entry: Mapping[str, Any]) -> Asked:
    found: Asked = {"path": entry["path"], "kind": entry["kind"]}
    if "role" in entry:
        found["role"] = entry["role"]
    if "event" in entry:
        found["event"] = entry["event"]
    if "deadline_ns" in entry:
        found["deadline_ns"] = entry["deadline_ns"]
    return found


def _error(run: StoredRun) -> str | None:
    levels = Levels.of(run.about) or NOTHING_SECRET
    return levels.any_error("pages", run.error) if isinstance(run.error, str) else None


def _row_of_trace(trace: Trace) -> RunRow:
    usage, about = trace.usage(), trace.about
    finished = trace.finished_at
    return {
        "id": trace.run_id,
        "program": trace.program_name,
        "program_digest": trace.program_digest,
        "status": trace.status.value,
        "driven": False,
        "waiting": [_asked_for(entry) for entry in trace.waiting],
        "created": trace.started_at.timestamp() * 1e3,
        "finished": None if finished is None else finished.timestamp() * 1e3,
        "due": None,
        "steps": len(trace.steps),
        "tokens": usage.total_tokens,
        "cost": None if usage.cost_usd is None else str(usage.cost_usd),
        "error": error_of("pages", trace),
        "parent": None,
        "project": about.get("project"),
        "submitter": about.get("submitter"),
        "labels": about.get("labels", {}),
        "erased": False,
    }


def _fits(row: RunRow, filter: RunFilter) -> bool:
    """Whether a row has all that is asked for, as a store would find it."""
    created = row["created"] * 1e6
    return (
        (filter.status is None or row["status"] in filter.status)
        and (filter.program is None or row["program"] == filter.program)
        and (filter.project is None or (row["project"] or "default") == filter.project)
        and (filter.submitter is None or row["submitter"] == filter.submitter)
        and (filter.parent is None or row["parent"] == filter.parent)
        and (filter.version is None or row["program_digest"].startswith(tuple(filter.version)))
        and filter.is_waited_by(row["status"], cast("list[dict[str, Any]]", row["waiting"]))
        and all(row["labels"].get(name) == value for name, value in filter.labels.items())
        and (filter.since_ns is None or created >= filter.since_ns)
        and (filter.until_ns is None or created < filter.until_ns)
        and (
            filter.min_cost_usd is None
            or (row["cost"] is not None and float(row["cost"]) >= float(filter.min_cost_usd))
        )
    )
