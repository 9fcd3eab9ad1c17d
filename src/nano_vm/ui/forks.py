"""Forks of stored runs as pages make them: looked at before they are made, made, and shown as a tree.

A fork takes from the records what it can, up to its first calls, and is stored so: whoever has the
tools goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from typing_extensions import TypedDict  # of typing, pydantic reads it from Python 3.12 on

from ..errors import NotPermitted, UnknownRun, VMError
from ..language.kinds import StepType
from ..language.program import Program
from ..replay import Ahead, Edits, edits_of, fork_ahead
from ..replay.rerun import Subject, subject_of
from ..run.options import Said
from ..run.vm import ExecutionVM
from ..store.records import StoredRun
from .library import StoreLibrary

MOST_FORKS = 200
"""Runs of a tree that is shown: more than a person reads."""


class FirstCall(TypedDict):
    """A call that a fork makes first; with ``stops`` it waits for a person. ``called`` is the tool
    or the model.
    """

    path: str
    step: str
    type: str
    called: str | None
    effect: str | None
    stops: bool


class ForkPreview(TypedDict):
    """What a fork would do: the steps whose outcome it takes, by path, and its first calls."""

    taken: list[str]
    calls: list[FirstCall]


class ForkMade(TypedDict):
    """A fork that was made, or was there already; ``taken`` is how many outcomes it takes."""

    id: str
    created: bool
    taken: int


class ForkNode(TypedDict):
    """A run of a tree of forks; ``changed`` names what it changes of the run before."""

    id: str
    depth: int
    parent: str | None
    status: str
    program: str
    created: float
    steps: int
    cost: str | None
    submitter: str | None
    at: str | None
    changed: list[str]


class ForkTree(TypedDict):
    """A run with its forks and theirs, each behind its origin; not ``whole`` where there are
    more.
    """

    runs: list[ForkNode]
    whole: bool


def forked_ahead(
    run: StoredRun,
    edit: Mapping[str, Any],
    host_of: Callable[[Program], ExecutionVM],
    *,
    at: str | None,
    effects: bool,
    said: Said,
    run_id: str | None = None,
) -> Ahead:
    """A fork of *run* up to its first calls, by the host that can make those of its program.

    Raises:
        NotPermitted: If *edit* gives the output of an approval.
        VMError: As of `edits_of` and `fork_ahead`.
    """
    subject = subject_of(run)
    subject.demand_values()
    edits = edits_of(subject.program, subject.trace, edit)
    _refuse_decisions(subject, edits)
    return fork_ahead(
        host_of(edits.program), run, edits, at=at, effects=effects, run_id=run_id, said=said
    )


def preview_of(found: Ahead) -> ForkPreview:
    """What a page shows of a fork before it is made."""
    calls: list[Any] = [asdict(call) for call in found.calls]
    return {"taken": list(found.taken), "calls": calls}


def fork_tree(library: StoreLibrary, run_id: str) -> ForkTree:
    """The run that all began with, its forks and theirs.

    Raises:
        UnknownRun: If there is no such run.
    """
    first = _first(library, library.header(run_id))
    nodes: list[ForkNode] = []
    left = [(first, 0)]
    while left and len(nodes) < MOST_FORKS:
        run, depth = left.pop()
        nodes.append(_node(run, depth))
        forks = library.forks_of(run.run_id, MOST_FORKS)
        left += [(fork, depth + 1) for fork in forks]  # the oldest is popped first
    return {"runs": nodes, "whole": not left}


def change_of(run: StoredRun) -> dict[str, Any]:
    """What a fork changes, as it is recorded."""
    parent = parent_of(run) or {}
    return {"at": parent.get("at"), "changed": parent.get("changed", [])}


def parent_of(run: StoredRun) -> Any:
    """What is recorded of how a fork was made; None of a run that is none, or whose values were
    erased.
    """
    return run.about.get("parent") if run.salt is not None else None


def _refuse_decisions(subject: Subject, edits: Edits) -> None:
    """Refuse an output in place of what a person decides, in the run or in a program of its fork."""
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
            raise NotPermitted(
                f"edit: {name!r} is an approval, which is decided in the inbox by who may; leave "
                f"out its output"
            )


def _first(library: StoreLibrary, run: StoredRun) -> StoredRun:
    """The run that *run* descends from, as far as it is there."""
    for _ in range(MOST_FORKS):
        if run.parent is None:
            break
        try:
            run = library.header(run.parent)
        except UnknownRun:  # deleted, or of another project
            break
    return run


def _node(run: StoredRun, depth: int) -> ForkNode:
    change = change_of(run)
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


class Forks:
    """Forks the runs of *library* as *by*, for the host *vm*: what that cannot run is refused."""

    def __init__(self, library: StoreLibrary, vm: ExecutionVM, by: str) -> None:
        self.library, self.vm, self.by = library, vm, by

    def preview(self, run_id: str, body: Any) -> ForkPreview:
        """What a fork would do; raises as `make`."""
        return preview_of(self._ahead(run_id, body))

    def make(self, run_id: str, body: Any) -> ForkMade:
        """Store a fork as a page asks for it: ``edit``, ``at`` and ``effects``.

        Raises:
            VMError: If it is none, or as of `forked_ahead`.
        """
        found = self._ahead(run_id, body)
        created = self.library.store.create(found.run)
        return {"id": found.run.run_id, "created": created, "taken": len(found.taken)}

    def _ahead(self, run_id: str, body: Any) -> Ahead:
        match body:
            case {"edit": dict(edit), "at": str() | None as at, "effects": bool(effects)}:
                run = self.library.recorded(run_id)
                said: Said = {"project": run.project, "submitter": self.by, "labels": run.labels}
                return forked_ahead(run, edit, lambda _: self.vm, at=at, effects=effects, said=said)
        raise VMError("a fork has 'edit', an object, 'at', a string or null, and 'effects'")
