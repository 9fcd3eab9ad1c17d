"""Two runs or two programs come in, what differs between them goes out, as data and as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .. import pictures
from ..errors import VMError
from ..language.program import Program
from ..records.result import StepResult
from ..records.trace import Trace
from ..values import kind_name
from .compare import same, shown

MEASURES = frozenset({"tokens", "cost_usd", "duration_ms"})
"""Fields in which two runs may differ and still have done the same."""


@dataclass(frozen=True, slots=True)
class StepDiff:
    """A step of either side: ``side`` is ``a`` or ``b`` where only one has it, else empty;
    ``fields`` are those that differ, as (a, b).
    """

    path: str
    side: Literal["", "a", "b"] = ""
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def differs(self) -> bool:
        """Whether it is not the same on both sides; what it cost and how long it took does not
        count.
        """
        return bool(self.side) or not MEASURES.issuperset(self.fields)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        fields = {name: {"a": a, "b": b} for name, (a, b) in self.fields.items()}
        return {
            "path": self.path,
            **({"only_in": self.side} if self.side else {}),
            **({"fields": fields} if fields else {}),
        }


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs between two runs or two programs (``kind``); ``whole`` are differences outside
    of steps, ``steps`` all steps of both.

    ``divergence`` is the path of the first step that differs, ``paths`` the steps of each side in
    order; ``traces`` are the runs. Values are shown as they are; `accepted` hides those that a
    receiver does not accept.
    """

    kind: str
    whole: dict[str, tuple[Any, Any]]
    steps: tuple[StepDiff, ...]
    paths: tuple[tuple[str, ...], tuple[str, ...]]
    traces: tuple[Trace, ...] = field(default=(), repr=False, compare=False)

    @property
    def same(self) -> bool:
        """Whether both did the same, or are the same program."""
        return MEASURES.issuperset(self.whole) and self.divergence is None

    @property
    def divergence(self) -> str | None:
        """The path of the first step that differs."""
        return next((step.path for step in self.steps if step.differs), None)

    def _repr_html_(self) -> str | None:
        """What a notebook shows."""
        return pictures.html(self)

    def lines(self) -> Iterator[tuple[str, str]]:
        """The text, line by line, each with its kind: ``head``, ``a``, ``b``, ``field``,
        ``measure``.
        """
        noun = "runs" if self.kind == "run" else "programs"
        if self.same:
            yield (
                "head",
                f"the {noun} do the same" if self.kind == "run" else "the programs are the same",
            )
        elif self.divergence is not None:
            yield "head", f"the {noun} differ first at {self.divergence!r}"
        else:
            yield (
                "head",
                f"the {noun} differ in "
                f"{', '.join(name for name in self.whole if name not in MEASURES)}",
            )
        for name, (a, b) in self.whole.items():
            yield (
                "measure" if name in MEASURES else "field",
                f"{name}: {_side(name, a)} -> {_side(name, b)}",
            )
        for step in self.steps:
            if step.side:
                yield step.side, f"{'-' if step.side == 'a' else '+'} {step.path}"
            elif step.fields:
                yield "head" if step.differs else "measure", f"  {step.path}"
                for name, (a, b) in step.fields.items():
                    text = f"      {name}: {_side(name, a)} -> {_side(name, b)}"
                    yield "measure" if name in MEASURES else "field", text

    def __str__(self) -> str:
        return "\n".join(text for _, text in self.lines())

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: steps that differ in anything, and the path of each side."""
        return {
            "kind": self.kind,
            "same": self.same,
            "divergence": self.divergence,
            "whole": {name: {"a": a, "b": b} for name, (a, b) in self.whole.items()},
            "steps": [step.to_dict() for step in self.steps if step.side or step.fields],
            "paths": {"a": list(self.paths[0]), "b": list(self.paths[1])},
        }


def diff(a: Trace | Program, b: Trace | Program) -> Diff:
    """What differs between two runs, or between two programs.

    Raises:
        VMError: If one is a run and the other a program, or the values of a run were erased.
    """
    for side in (a, b):
        if isinstance(side, Trace) and side.recording.erased:
            raise VMError(
                f"the values of run {side.run_id!r} were erased, so what it did cannot be compared"
            )
    if isinstance(a, Trace) and isinstance(b, Trace):
        return _diff_runs(a, b)
    if isinstance(a, Program) and isinstance(b, Program):
        return _diff_programs(a, b)
    raise VMError(f"diff takes two traces or two programs, not {kind_name(a)} and {kind_name(b)}")


def _diff_runs(a: Trace, b: Trace) -> Diff:
    pairs: dict[str, tuple[Any, Any]] = {
        "program": (a.program_digest, b.program_digest),
        "inputs": (a.inputs, b.inputs),
        "status": (a.status.value, b.status.value),
        "output": (a.output, b.output),
        "error": (a.error, b.error),
        "tokens": (a.total_tokens(), b.total_tokens()),
        "cost_usd": (_cost(a.total_cost_usd()), _cost(b.total_cost_usd())),
        "duration_ms": (a.duration_ms, b.duration_ms),
    }
    whole = {name: pair for name, pair in pairs.items() if not same(*pair)}
    steps = [{step.path: _run_fields(step) for step in trace.steps} for trace in (a, b)]
    return replace(_diff("run", whole, steps[0], steps[1]), traces=(a, b))


def _cost(cost: Any) -> str | None:
    return str(cost) if cost is not None else None


def _run_fields(step: StepResult) -> dict[str, Any]:
    usage = step.usage
    return {
        "type": step.type,
        "input": step.request,
        "references": step.references,
        "status": step.status.value,
        "branch": step.branch,
        "output": step.output,
        "error": step.error,
        "retries": step.retries,
        "tokens": usage.total_tokens if usage is not None else None,
        "cost_usd": _cost(usage.cost_usd) if usage is not None else None,
        "duration_ms": step.duration_ms,
    }


def _diff_programs(a: Program, b: Program) -> Diff:
    documents = [a.to_dict(), b.to_dict()]
    names = dict.fromkeys(name for document in documents for name in document if name != "steps")
    whole = {name: (documents[0].get(name), documents[1].get(name)) for name in names}
    whole = {name: pair for name, pair in whole.items() if not same(*pair)}
    if a.digest != b.digest:
        whole["digest"] = a.digest, b.digest
    steps = [dict(_written(document["steps"], "", "")) for document in documents]
    return _diff("program", whole, steps[0], steps[1])


def _written(
    block: list[dict[str, Any]], inside: str, scope: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each step of a block by its id, with its own fields: blocks in it are shown by the ids in
    them, and where it stands itself.
    """
    for step in block:
        own: dict[str, Any] = {"inside": inside or None}
        blocks: list[tuple[str, list[dict[str, Any]]]] = []
        for name, value in step.items():
            if name == "id":
                continue
            own[name], found = _ids_of(name, value)
            blocks += found
        yield scope + step["id"], own
        for name, inner in blocks:
            within = f"{scope}{step['id']}/" if name == "program" else scope
            yield from _written(inner, f"{step['id']}.{name}", within)


def _ids_of(name: str, value: Any) -> tuple[Any, list[tuple[str, list[dict[str, Any]]]]]:
    """A field of a step with ids for the steps in it, and its blocks."""
    if name == "program" and isinstance(value, dict):
        rest = {key: part for key, part in value.items() if key != "steps"}
        return {**rest, "steps": [step["id"] for step in value["steps"]]}, [(name, value["steps"])]
    if name in ("then", "otherwise", "steps", "default") and _is_block(value):
        return [step["id"] for step in value], [(name, value)]
    if name == "cases":
        inner = [(f"cases.{case}", target) for case, target in value.items() if _is_block(target)]
        return {
            c: [step["id"] for step in t] if _is_block(t) else t for c, t in value.items()
        }, inner
    if name == "parallel_steps":
        branches = [branch if isinstance(branch, list) else [branch] for branch in value]
        return [[step["id"] for step in branch] for branch in branches], [
            (name, branch) for branch in branches
        ]
    return value, []


def _is_block(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(s, dict) and "id" in s and "type" in s for s in value)
    )


def _diff(
    kind: str,
    whole: dict[str, tuple[Any, Any]],
    a: dict[str, dict[str, Any]],
    b: dict[str, dict[str, Any]],
) -> Diff:
    """Both sides' steps in one order: as in *a*, what only *b* has where it stands there."""
    steps: list[StepDiff] = []
    rest = iter(b)
    told: set[str] = set()
    for path, fields in a.items():
        if path in b and path not in told:
            for other in rest:
                told.add(other)
                if other == path:
                    break
                if other not in a:
                    steps.append(StepDiff(other, "b"))
        if path not in b:
            steps.append(StepDiff(path, "a"))
            continue
        pairs = {
            name: (fields.get(name), b[path].get(name))
            for name in dict.fromkeys([*fields, *b[path]])
        }
        steps.append(
            StepDiff(path, "", {name: pair for name, pair in pairs.items() if not same(*pair)})
        )
    steps += [StepDiff(other, "b") for other in rest if other not in a]
    return Diff(kind, whole, tuple(steps), (tuple(a), tuple(b)))


def _side(name: str, value: Any) -> str:
    if name == "duration_ms" and value is not None:
        return f"{value:.1f}"
    return shown(value)
