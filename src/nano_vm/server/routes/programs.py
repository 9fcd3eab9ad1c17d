"""Programs of a project: versions that are put, listed and read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, cast

import sqlalchemy as sa
from fastapi import Path, Query
from fastapi.responses import JSONResponse
from pydantic import Field

from ...diagnostics import Diagnostic
from ...draw.chart import Chart, ChartData
from ...draw.traffic import traffic_of
from ...draw.view import view_of
from ...errors import ProgramError
from ...language.flow import Flow
from ...language.program import Program
from ...replay import diff
from ...replay.rerun import programs_of
from ...run.vm import ExecutionVM
from ...store.few import fit_together
from ...store.protocol import RunFilter
from ...store.records import StoredRun
from ...ui.library import pairs, step_differences
from ...values import canonical, parse_json
from ...verify.examine import placed_for
from ...verify.report import Report
from .. import audit
from ..access import Who
from ..addresses import addressed
from ..bodies import Body
from ..hosts import under
from ..problems import Problem
from ..routing import PROJECT, Json, Routes, route
from ..rows import Row, Rows
from ..scope import Scope
from ..shapes import (
    Checked,
    Counterexample,
    DiagnosticView,
    PathMap,
    ProgramDifference,
    ProgramList,
    ProgramVersion,
    ReportView,
    json_bytes,
)
from ..tables import programs
from ..versions import parsed_program, program_of
from .policies import demanded, in_force

ROUTES = Routes()

Number = Annotated[int, Path(ge=1, lt=2**63)]

MOST_COUNTEREXAMPLES = 8
"""Runs that a check answers with; who has mended these asks again."""

MAPPED, MOST_MAPPED, MOST_PAGES = 100, 500, 4
"""Runs of a map: how many where nobody says, and at most. So many pages of that most are looked at
for them, however few are asked for, since runs of other versions stand between them.
"""

LOADED_AT_ONCE = 20
"""Runs of a map whose rows are in memory at once, each with all its values, if they have few steps.
"""

MAX_SOURCE_CHARS = 1_000_000


class Put(Body):
    """A program as text, YAML or JSON."""

    source: str = Field(max_length=MAX_SOURCE_CHARS)


@route(ROUTES, "GET", f"{PROJECT}/programs", "program:read", answers=ProgramList)
def list_programs(who: Who) -> JSONResponse:
    """The newest version of each program, by name."""
    scope = who.scope
    newest = (
        scope.select(programs, programs.c.name, sa.func.max(programs.c.version).label("version"))
        .group_by(programs.c.name)
        .subquery()
    )
    statement = (
        scope.select(programs)
        .join(
            newest,
            sa.and_(newest.c.name == programs.c.name, newest.c.version == programs.c.version),
        )
        .order_by(programs.c.name)
    )
    with scope.tables.reading() as rows:
        found = rows.all(statement)
    return JSONResponse({"programs": [_shown(row) for row in found]})


@route(ROUTES, "POST", f"{PROJECT}/programs", "program:write", status=201, answers=ProgramVersion)
def put_program(given: Put, who: Who) -> JSONResponse:
    """Put a version of a program; one that is refused for the workers of this server is not put.

    The program that is the newest version already is not put again.
    """
    program = Program.from_yaml(given.source)
    addressed("the name of a program", program.name)
    scope, digest = who.scope, program.digest
    who.state.hosts.for_program(program, demanded(scope))  # which raises what is wrong with it
    document = canonical(program.to_dict()).decode()
    entry = who.entry("program.put", program.name, digest=digest)

    def job(rows: Rows) -> Row:
        last = rows.one(
            scope.select(programs)
            .where(programs.c.name == program.name)
            .order_by(programs.c.version.desc())
            .limit(1)
        )
        if last is not None and last.digest == digest:
            return last
        row = Row(
            name=program.name,
            version=1 if last is None else last.version + 1,
            digest=digest,
            source=given.source,
            document=document,
            put_by=who.name,
            put_ns=time.time_ns(),
        )
        rows.run(scope.insert(programs, **row))
        audit.add(rows, entry)
        return row

    row = who.state.tables.write(job)
    return JSONResponse(_version(scope, row), 201)


@route(ROUTES, "POST", f"{PROJECT}/programs/check", "program:read", answers=Checked)
def check_program(given: Put, who: Who) -> Json:
    """What is to be said of a program before it is put: every fault with its place, proofs with
    their counterexamples, the worst case, and its graph. It is held against the worker that has the
    least to object, and against the project's policy.
    """
    try:
        program = Program.from_yaml(given.source)
    except ProgramError as error:
        unread = {"host": None, "name": None, "policy": None, "bound": None, "report": None}
        found = [d.to_dict() for d in error.diagnostics]
        return Json(
            json_bytes({**unread, "diagnostics": found, "chart": None, "counterexamples": []})
        )
    force = in_force(who.scope)
    reports = [(host.name, host.vm, host.vm.verify(program)) for host in who.state.hosts.able()]
    name, vm, report = min(
        reports,
        key=lambda one: sum(d.severity == "error" for d in one[2].faults),
        default=(None, None, None),
    )
    if vm is not None and report is not None and force is not None:
        report = report.beside(under(vm, force[1]).verify(program))
    faults: list[Diagnostic] = []
    if vm is not None and report is not None:
        faults = placed_for(program, vm.preparer.policy, report.faults)
    bound = report.ceiling if report is not None else None
    answer: Checked = {
        "host": name,
        "name": program.name,
        "policy": force[0] if force is not None else None,
        "bound": str(bound) if bound is not None else None,
        "diagnostics": cast("list[DiagnosticView]", [d.to_dict() for d in faults]),
        "report": cast("ReportView", report.to_dict()) if report is not None else None,
        "chart": _chart(program),
        "counterexamples": list(_counterexamples(report, program, vm)),
    }
    return Json(json_bytes(answer))


def _counterexamples(
    report: Report | None, program: Program, vm: ExecutionVM | None
) -> Iterator[Counterexample]:
    """The first runs that break what is demanded, each as a page shows a run."""
    if report is None or vm is None:
        return
    broken = [(i, proof.run) for i, proof in enumerate(report.proofs) if proof.run is not None]
    for number, found in broken[:MOST_COUNTEREXAMPLES]:
        view = view_of(found.run.trace, program, vm.preparer.programs)
        yield {"proof": number, "run": {**view, "chart": None}}


@route(
    ROUTES,
    "GET",
    f"{PROJECT}/programs/{{name}}/diff/{{a}}/{{b}}",
    "program:read",
    answers=ProgramDifference,
)
def diff_programs(name: str, a: Number, b: Number, who: Who) -> Json:
    """What differs between two versions of a program."""
    sides = [program_of(who.scope, name, version)[1] for version in (a, b)]
    found = diff(*sides)
    answer: ProgramDifference = {
        "same": found.same,
        "text": str(found),
        "whole": pairs(found.whole),
        "steps": step_differences(found),
        "a": _chart(sides[0]),
        "b": _chart(sides[1]),
    }
    return Json(json_bytes(answer))


@route(ROUTES, "GET", f"{PROJECT}/programs/{{name}}/map", "run:read", answers=PathMap)
def map_program(
    name: str,
    who: Who,
    version: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    runs: Annotated[int, Query(ge=1, le=MOST_MAPPED)] = MAPPED,
) -> JSONResponse:
    """What the last *runs* of a version of a program did, or of the newest: of each arrow the share
    of runs that took it, how long those took and what they cost, and the ways that none took.
    """
    scope = who.scope
    row, program = program_of(scope, name, version)
    listed = _runs_of(scope, name, row.digest, runs)
    found = _loaded(scope, listed)
    newest = next(found, None)
    own, called = programs_of(newest) if newest is not None else (program, {})
    flow = Flow(own, called)
    if any(fault.severity == "error" for fault in flow.diagnostics):
        raise Problem(409, "no-graph", f"version {row.version} of {name!r} has no graph")
    chart = Chart(flow)
    since = min((run.created_ns / 1e6 for run in listed), default=None)
    traffic = traffic_of(chart, chain([newest] if newest is not None else [], found))
    return JSONResponse({**traffic, "version": row.version, "since": since, "chart": chart.data()})


def _runs_of(scope: Scope, name: str, digest: str, most: int) -> list[StoredRun]:
    """The last runs of a version of a program whose values were not erased, without their rows."""
    asked = scope.within(RunFilter(program=name))
    found: list[StoredRun] = []
    after: str | None = None
    for _ in range(MOST_PAGES):
        page = scope.store.page(asked, size=MOST_MAPPED, after=after)
        found += [run for run in page.runs if run.salt is not None and _is_of(run, digest)]
        after = page.after
        if after is None or len(found) >= most:
            break
    return found[:most]


def _loaded(scope: Scope, runs: list[StoredRun]) -> Iterator[StoredRun]:
    """Those of the runs that can be read, with their rows, some at a time."""
    first = 0
    while first < len(runs):
        few = runs[first : first + LOADED_AT_ONCE]
        few = few[: fit_together(few)]
        found = scope.store.load_each([run.run_id for run in few])
        yield from (run for run in found.values() if isinstance(run, StoredRun))
        first += len(few)


def _is_of(run: StoredRun, digest: str) -> bool:
    """Whether a run is of the program with this digest, or of it with those that it calls."""
    if run.program_digest == digest:
        return True
    document = run.document.get("program")
    return bool(run.document.get("programs")) and (
        parsed_program(canonical(document).decode()).digest == digest
    )


@route(ROUTES, "GET", f"{PROJECT}/programs/{{name}}/graph", "program:read", answers=ChartData)
def draw_program(name: str, who: Who) -> JSONResponse:
    """The graph of the newest version of a program."""
    return JSONResponse(_chart(program_of(who.scope, name, None)[1]))


@route(ROUTES, "GET", f"{PROJECT}/programs/{{name}}", "program:read", answers=ProgramVersion)
def read_program(name: str, who: Who) -> JSONResponse:
    """The newest version of a program."""
    return JSONResponse(_version(who.scope, program_of(who.scope, name, None)[0]))


@route(
    ROUTES,
    "GET",
    f"{PROJECT}/programs/{{name}}/versions/{{version}}",
    "program:read",
    answers=ProgramVersion,
)
def read_program_version(name: str, version: Number, who: Who) -> JSONResponse:
    """A version of a program."""
    return JSONResponse(_version(who.scope, program_of(who.scope, name, version)[0]))


def _chart(program: Program) -> ChartData | None:
    """The graph of a program; None where it has faults that leave it none."""
    flow = Flow(program, {})
    if any(found.severity == "error" for found in flow.diagnostics):
        return None
    return Chart(flow).data()


def _shown(row: Row) -> dict[str, Any]:
    shown = {name: row[name] for name in ("name", "version", "digest", "put_by")}
    return {**shown, "put": row.put_ns / 1e6}


def _version(scope: Scope, row: Row) -> dict[str, Any]:
    with scope.tables.reading() as rows:
        known = rows.all(
            scope.select(programs, programs.c.version)
            .where(programs.c.name == row.name)
            .order_by(programs.c.version)
        )
    inputs = parse_json(row.document).get("inputs") or {}
    versions = [one.version for one in known]
    return {**_shown(row), "source": row.source, "inputs": inputs, "versions": versions}
