"""Forks of a project's runs: looked at before they are made, made, and shown as a tree.

A server has no tools. It takes from the records what a fork takes, up to its first calls, and
stores the run so; a worker goes on from there.
"""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse
from pydantic import Field, field_validator

from ...errors import VMError
from ...replay import Ahead
from ...run.options import Said
from ...store.records import StoredRun
from ...ui.forks import (
    ForkMade,
    ForkPreview,
    ForkTree,
    change_of,
    fork_tree,
    forked_ahead,
    parent_of,
    preview_of,
)
from ...values import is_text
from ..access import Caller, Who
from ..bodies import Body
from ..problems import Problem
from ..routing import PROJECT, Json, Routes, route
from ..shapes import json_bytes
from ..versions import program_of
from .policies import demanded
from .runs import RunId

ROUTES = Routes()


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
    return Json(json_bytes(preview_of(_ahead(who, run_id, given))))


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
    entry = who.entry("run.forked", run.run_id, origin=run_id, **change_of(run))
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
    return Json(json_bytes(fork_tree(who.scope, run_id)))


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
    edit: dict[str, Any] = dict(given.edit)
    if "program" in edit:
        raise VMError("another program is given by its version")
    if given.version is not None:
        edit["program"] = program_of(scope, run.program_name, given.version)[1]
    said: Said = {
        "project": scope.project,
        "submitter": who.name,
        "labels": run.labels if labels is None else labels,
    }
    return forked_ahead(
        run,
        edit,
        lambda program: who.state.hosts.for_program(program, demanded(scope)),
        at=given.at,
        effects=given.effects,
        said=said,
        run_id=name,
    )


def _identity(run: StoredRun) -> tuple[Any, ...]:
    return run.project, run.program_digest, run.inputs, parent_of(run)
