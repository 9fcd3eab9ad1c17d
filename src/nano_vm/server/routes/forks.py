"""Forks of a project's runs: looked at before they are made, made, and shown as a tree.

A server has no tools. It takes from the records what a fork takes, up to its first calls, and
stores the run so; a worker goes on from there.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import Field, field_validator

from ...errors import UnknownRun, VMError
from ...language.kinds import StepType
from ...replay import Ahead, Edits, edits_of, fork_ahead
from ...replay.rerun import Subject, subject_of
from ...run.options import Said
from ...store.protocol import RunFilter
from ...store.records import StoredRun
from ..access import Caller, Who
from ..bodies import Body, is_text
from ..problems import Problem
from ..routing import PROJECT, Json, Routes, route
from ..scope import Scope
from ..shapes import ForkMade, ForkNode, ForkPreview, ForkTree, json_bytes
from .policies import demanded
from .programs import program_of
from .runs import RunId

ROUTES = Routes()

MOST_FORKS = 200
"""Runs of a tree that is shown: more than a person reads."""


class Fork(Body):
    """A run once more, with a change. *edit* has what changes: ``inputs``, by name; of a step, by
    its path, ``output``, or by its id any field as the program has it. The output of an approval is
    none of them: it is decided in the inbox. With *version* the fork runs that version of the
    program.
    """

    at: str | None = Field(None, description="the step from which on nothing is taken")
    edit: dict[str, dict[str, Any]] = Field(default_factory=dict, max_length=100)
    version: int | None = Field(None, ge=1, lt=2**63)
    effects: bool = Field(
        False, description="make calls that have an effect, too, and ask for each approval anew"
    )

    @field_validator("edit")
    @classmethod
    def _names(cls, edit: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not all(is_text(name) for part in (edit, *edit.values()) for name in part):
            raise ValueError("a name holds a NUL or a lone surrogate, which no text has")
        return edit


class ForkNamed(Fork):
    """A fork, and what is said of its run."""

    run_id: RunId | None = None
    labels: dict[str, str] | None = None


@route(
    ROUTES,
    "POST",
    f"{PROJECT}/runs/{{run_id}}/fork/preview",
    "run:fork",
    answers=ForkPreview,
)
def preview_fork(run_id: str, given: Fork, who: Who) -> Json:
    """What a fork would take from the records of its origin, and the calls that it would make
    first; nothing is made.
    """
    found = _ahead(who, run_id, given)
    calls = [asdict(call) for call in found.calls]
    return Json(json_bytes({"taken": found.taken, "calls": calls}))


@route(
    ROUTES,
    "POST",
    f"{PROJECT}/runs/{{run_id}}/fork",
    "run:fork",
    status=201,
    answers=ForkMade,
    responses={200: {"model": ForkMade, "description": "it was made before"}},
)
def fork_run(run_id: str, given: ForkNamed, who: Who) -> JSONResponse:
    """Fork a run: what is asked the same takes its recorded outcome, and a worker makes the calls
    that follow. One that has an effect waits for a person, unless *effects*. With those no recorded
    approval is taken.
    """
    found = _ahead(who, run_id, given, given.run_id, given.labels)
    run = found.run
    entry = who.entry("run.forked", run.run_id, origin=run_id, **_change(run))
    created = who.along(entry).create(run)
    if not created:
        known = who.scope.store.load(run.run_id, rows=False)
        if _identity(known) != _identity(run):
            raise Problem(
                409, "taken", f"run id {run.run_id!r} is taken by another run; choose another id"
            )
    answer = {"id": run.run_id, "created": created, "taken": len(found.taken)}
    return JSONResponse(answer, 201 if created else 200)


@route(ROUTES, "GET", f"{PROJECT}/runs/{{run_id}}/forks", "run:read", answers=ForkTree)
def list_forks(run_id: str, who: Who) -> Json:
    """The run that all began with, its forks and theirs, each behind the run that it was made
    from.
    """
    scope = who.scope
    first = _first(scope, scope.header(run_id))
    nodes: list[ForkNode] = []
    left = [(first, 0)]
    while left and len(nodes) < MOST_FORKS:
        run, depth = left.pop()
        nodes.append(_node(run, depth))
        forks = scope.store.page(scope.within(RunFilter(parent=run.run_id)), size=MOST_FORKS).runs
        left += [(fork, depth + 1) for fork in forks]  # the oldest is popped first
    return Json(json_bytes({"runs": nodes, "whole": not left}))


def _ahead(
    who: Caller,
    run_id: str,
    given: Fork,
    name: str | None = None,
    labels: dict[str, str] | None = None,
) -> Ahead:
    """A fork up to its first calls, by a host that can make those."""
    scope = who.scope
    run = scope.recorded(run_id)
    subject = subject_of(run)
    subject.demand_values()
    edit: dict[str, Any] = dict(given.edit)
    if "program" in edit:
        raise VMError("another program is given by its version")
    if given.version is not None:
        edit["program"] = program_of(scope, run.program_name, given.version)[1]
    edits = edits_of(subject.program, subject.trace, edit)
    _refuse_decisions(subject, edits)
    said: Said = {
        "project": scope.project,
        "submitter": who.name,
        "labels": run.labels if labels is None else labels,
    }
    return fork_ahead(
        who.state.hosts.for_program(edits.program, demanded(scope)),
        run,
        edits,
        at=given.at,
        effects=given.effects,
        run_id=name,
        said=said,
    )


def _refuse_decisions(subject: Subject, edits: Edits) -> None:
    """Refuse an output in place of what a person decides.

    Raises:
        Problem: If a step that it names is an approval, in the run or in a program of its fork.
    """
    asking = {
        name
        for step in subject.trace.steps
        if step.type == StepType.APPROVAL
        for name in (step.path, step.step_id)
    }
    for program in (edits.program, *subject.programs.values()):
        asking |= {step.id for step, _ in program.walk() if step.type == StepType.APPROVAL}
    for name in edits.outputs:
        if name in asking:
            raise Problem(
                403,
                "not-permitted",
                f"edit: {name!r} is an approval, which is decided in the inbox by who may; leave "
                f"out its output",
            )


def _first(scope: Scope, run: StoredRun) -> StoredRun:
    """The run that *run* descends from, as far as the project has it."""
    for _ in range(MOST_FORKS):
        if run.parent is None:
            break
        try:
            run = scope.header(run.parent)
        except UnknownRun:  # deleted, or of another project
            break
    return run


def _change(run: StoredRun) -> dict[str, Any]:
    """What a fork changes, as it is recorded."""
    parent = _parent(run) or {}
    return {"at": parent.get("at"), "changed": parent.get("changed", [])}


def _identity(run: StoredRun) -> tuple[Any, ...]:
    return run.project, run.program_digest, run.inputs, _parent(run)


def _parent(run: StoredRun) -> Any:
    """What is recorded of how a fork was made; None of a run that is none, or whose values were
    erased.
    """
    return run.about.get("parent") if run.salt is not None else None


def _node(run: StoredRun, depth: int) -> ForkNode:
    change = _change(run)
    return {
        "id": run.run_id,
        "depth": depth,
        "parent": run.parent,
        "status": run.status,
        "program": run.program_name,
        "created": run.created_ns / 1e6,
        "steps": run.steps,
        "cost": run.cost_usd,
        "submitter": run.submitter,
        "at": change["at"],
        "changed": change["changed"],
    }
