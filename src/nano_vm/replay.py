"""Replay, diff and fork: what a recorded run was, computed once more and held against what is recorded. No call is made here.

A trace (or a stored run) and its program come in. Replay gives the outcomes to a new machine and tells the first record that the machine
would not have made; diff tells two runs or two programs apart; fork decides, call by call, which recorded outcomes a changed run may take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from .compile import compile_flow
from .errors import ExprError, VMError, summary
from .flow import Flow
from .ledger import Ledger
from .machine import FOREVER, Facts, Machine, loaded
from .plan import END, FORK, MODEL, TOOL, Op, Plan
from .program import Program
from .recorded import Missing, Recorded, Unfit, asked, bounds_of, contracts_of, forks_of, path_of, play, stops
from .tools import ToolContract
from .trace import (
    Record,
    StepError,
    StepResult,
    StepStatus,
    Trace,
    TraceStatus,
    _extra_json,
    _request,
    flattened,
    full,
)
from .values import UNSET, admit, as_text, canonical, kind_name

SHOWN_CHARS = 300
"""Of a value that is told in a message; `to_dict` has all of it."""


# --- replay ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where what is recorded is not what the machine computes.

    ``kind`` is ``program`` (another program), ``inputs``, ``changed`` (``field`` of the record at ``path``), ``missing`` (a step that
    is not recorded), ``extra`` (a record of a step that the run does not have), ``order``, ``unfit`` (a record that no call can have), or
    ``end`` (status, output or error of the run). ``index`` counts the records before it.
    """

    kind: str
    path: str = ""
    field: str = ""
    recorded: Any = None
    computed: Any = None
    index: int = 0
    why: str = ""

    def __str__(self) -> str:
        where = f"step {self.path!r}" if self.path else "the run"
        sides = f"recorded {_shown(self.recorded)}, computed {_shown(self.computed)}"
        match self.kind:
            case "program":
                return f"the trace is of another program: {sides}"
            case "inputs":
                return f"the recorded inputs are none that the program takes: {self.why}"
            case "missing":
                return f"{where} is not recorded, and the run comes to it here"
            case "extra":
                return f"{where} is recorded, and the run does not come to it"
            case "order":
                return f"{where} is recorded here, and the run comes to {self.computed!r} first"
            case "unfit":
                return f"{where}: {self.why}"
            case "end":
                return f"the {self.field} of the run: {sides}"
        return f"{where}: {self.field}: {sides}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; both sides are whole."""
        told = {"kind": self.kind, "path": self.path, "field": self.field, "index": self.index, "why": self.why}
        result: dict[str, Any] = {key: value for key, value in told.items() if value or key in ("kind", "index")}
        if self.kind in ("changed", "end", "program", "order"):
            result |= {"recorded": self.recorded, "computed": self.computed}
        return {**result, "text": str(self)}


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay: ``identical`` where every record is the one that the machine makes.

    ``steps`` is how many records agree, up to the first that does not; ``trace`` is the computed run (None where
    it could not be begun), ``complete`` is False for the trace of a run that had not ended.
    """

    run_id: str
    program_name: str
    difference: Difference | None
    steps: int
    trace: Trace | None = None
    complete: bool = True

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return self.difference is None

    def __bool__(self) -> bool:
        return self.identical

    def __str__(self) -> str:
        name = f"{self.program_name}, run {self.run_id}"
        if self.difference is None:
            far = "" if self.complete else ", as far as it went"
            return f"{name}: identical{far}; {self.steps} steps"
        return f"{name}: differs after {self.difference.index} records: {self.difference}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "run_id": self.run_id,
            "program_name": self.program_name,
            "identical": self.identical,
            "complete": self.complete,
            "steps": self.steps,
            "difference": self.difference.to_dict() if self.difference is not None else None,
        }


def replay(
    trace: Trace,
    program: Program | None = None,
    *,
    programs: Mapping[str, Program] | None = None,
) -> Replay:
    """Compute the run of *trace* once more from its recorded outcomes, with no call, and hold every record against it.

    Conditions, budgets, deadlines, retries, joins, status, output and error are computed; only what came from outside (results, answers,
    errors, decisions, times) is taken from the records. *program* may be left out where the trace was made in this process;
    *programs* are those that it calls by name.

    Raises:
        VMError: If there is no program to replay against, or it has faults.
    """
    if program is None:
        program = program_of(trace)
    return Replayer(program, programs).replay(trace)


def program_of(trace: Trace) -> Program:
    """The program that *trace* still holds, where it was made in this process.

    Raises:
        VMError: If it holds none.
    """
    held = trace._program or trace._program_digest
    if isinstance(held, Program):
        return held
    raise VMError(f"the trace of run {trace.run_id!r} does not hold its program; give the program too")


class Replayer:
    """Replays any number of runs of one program; its plan is made once for each set of tools.

    Raises:
        VMError: If it is not a `Program`.
    """

    def __init__(self, program: Program, programs: Mapping[str, Program] | None = None) -> None:
        if not isinstance(program, Program):
            raise VMError(f"a program is a Program, not {kind_name(program)}; see Program.from_dict and from_file")
        self.program = program
        self.flow = Flow(program, dict(programs or {}))
        self.digest = self.flow.digest or program.digest
        self._plans: dict[tuple[tuple[str, str, bool], ...], Plan] = {}

    def plan(self, contracts: Mapping[str, ToolContract]) -> Plan:
        """The plan with these tools; one that nothing is known of is taken to write.

        Raises:
            ProgramError: If the program has faults.
        """
        key = tuple((name, c.effect, c.takes_key) for name, c in contracts.items())
        found = self._plans.get(key)
        if found is None:
            known = contracts_of({"tools": {name: {"effect": "write"} for name in _tools_of(self.flow)}})
            try:
                found = compile_flow(self.flow, {**known, **contracts})
            except ExprError as error:
                raise VMError(f"the program {self.program.name!r} can not be run: {error}") from None
            self._plans[key] = found
        return found

    def machine(self, trace: Trace) -> tuple[Machine, Plan]:
        """A machine at the beginning of the run.

        Raises:
            ValueError: If what the trace tells of its host can not be read.
        """
        about = trace.about
        contracts = contracts_of(about)
        plan = self.plan(contracts)
        for name in plan.tools:
            if "tools" in about and name not in contracts:
                raise ValueError(f"tool {name!r} is none of those that the run had")
        root = plan.frames[0]
        bounds = bounds_of(about, self.program.budget)
        facts = Facts(trace.run_id, trace._seed, bounds.limits, bounds.prices, bounds.default_model)
        seconds = bounds.budget.max_seconds if bounds.budget is not None else None
        deadline = trace.started_ns + int(seconds * 1e9) if seconds is not None else FOREVER
        frame = loaded(root, trace.inputs)
        return Machine.of_run(root, frame, facts, Ledger.of(bounds.limits, bounds.budget), deadline), plan

    def replay(self, trace: Trace) -> Replay:
        """As the function `replay`."""
        records = trace._full()
        begun = Replay(trace.run_id, trace.program_name, None, 0, complete=trace.status is not TraceStatus.RUNNING)
        if trace.program_digest != self.digest:
            differs = Difference("program", recorded=trace.program_digest, computed=self.digest)
            return replace(begun, difference=differs)
        if not records and trace.status in (TraceStatus.FAILED, TraceStatus.CANCELLED):
            unbegun = self._unbegun(trace)
            if unbegun is not None:
                return replace(begun, difference=unbegun if unbegun.why else None)
        try:
            machine, plan = self.machine(trace)
        except ValueError as error:
            return replace(begun, difference=Difference("unfit", why=f"what is told of its host: {error}"))
        fault = _inputs_fault(trace.inputs, plan)
        if fault is not None:
            return replace(begun, difference=Difference("inputs", why=fault))
        ended = trace.status is not TraceStatus.RUNNING
        forks = forks_of(records)
        stopped = stops(records, trace.status is TraceStatus.CANCELLED)
        recorded = Recorded(flattened(records) if forks else records, stopped=stopped, ended=ended)
        stop: Missing | Unfit | None = None
        try:
            play(machine, recorded, forks, trace.started_ns)
        except (Missing, Unfit) as at:
            stop = at
        done, difference = _compare(records, machine.records, plan.ops)
        if isinstance(stop, Unfit) and (difference is None or difference.kind in ("missing", "extra")):
            difference = Difference("unfit", stop.path, why=str(stop), index=done)
        elif isinstance(stop, Missing) and ended and (difference is None or difference.kind == "extra"):
            difference = Difference("missing", stop.path, index=done)
        computed = _trace_of(trace, machine, plan)
        if difference is None and ended:
            difference = _compare_ends(trace, computed, done)
        return replace(begun, difference=difference, steps=done, trace=computed)

    def _unbegun(self, trace: Trace) -> Difference | None:
        """For a run that has no step: an empty difference where it was refused or cancelled before its first, and says so."""
        if trace.output is not None or trace.waiting:
            return None
        if trace.status is TraceStatus.CANCELLED:
            said = trace.error == "the run was cancelled before it began" and trace.error_kind == "cancelled"
            return Difference("end") if said else None
        if trace.error_kind != "refused" or not trace.diagnostics:
            return None
        text = summary(trace.diagnostics)
        return Difference("end", why="" if text == trace.error else "the error is not what the diagnostics say")


def _tools_of(flow: Flow) -> list[str]:
    """Every tool that a program names."""
    found: dict[str, None] = {}
    for names in {id(frame.names): frame.names for frame in flow.frames}.values():
        for step, _ in names.steps:
            for reference in (step, getattr(step, "undo", None), getattr(step, "reconcile", None)):
                tool = getattr(reference, "tool", None)
                if isinstance(tool, str):
                    found[tool] = None
    return list(found)


def _inputs_fault(inputs: Mapping[str, Any], plan: Plan) -> str | None:
    """What is wrong with recorded inputs: a run with them would have been refused."""
    root = plan.frames[0]
    missing = [name for name in root.needed if name not in inputs]
    if missing:
        return f"input {missing[0]!r} is needed and not there"
    return root.check(dict(inputs)) if root.check is not None else None


def _trace_of(trace: Trace, machine: Machine, plan: Plan) -> Trace:
    """What *machine* recorded, as a trace of the same run."""
    computed = Trace(
        trace.program_name,
        trace.program_digest,
        trace.run_id,
        trace._seed,
        trace.started_ns,
        trace._base_ns,
        machine.records,
        plan.ops,
    )
    computed._salt, computed._about, computed.inputs = trace._salt, trace._about, trace.inputs
    computed.status, computed.output, computed.waiting = machine.status, machine.output, machine.waiting
    if machine.error is not None:
        computed.error, computed.error_kind = machine.error_summary(), machine.error.kind
    computed.finished_ns = trace.finished_ns
    return computed


# --- comparing -------------------------------------------------------------------------------------------------------


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values have the same canonical form: 1 is not 1.0, 0.0 not -0.0, and keys have an order."""
    if a is b:
        return True
    kind = type(a)
    if kind is not type(b) or a != b:
        return False
    return kind is str or kind is int or kind is bool or repr(a) == repr(b)  # repr tells all that == does not, in C


def _compare(
    recorded: Sequence[Record], computed: Sequence[Any], ops: Sequence[Any], done: int = 0
) -> tuple[int, Difference | None]:
    """How many records agree and the first difference of two frames, children before the record that joined them.

    *computed* are a machine's own records, the short ones by the index of their op; *done* counts those before.
    """
    success = StepStatus.SUCCESS
    for number, (old, new) in enumerate(zip(recorded, computed, strict=False)):
        if len(new) == 5:  # by far the most, written out
            index, output, values, _, _ = new
            op = ops[index]
            step, path, status, told, error, request, _, _, attempts, usage, extra = old
            if (
                path == op.path
                and status is success
                and (told is output or same(told, output))
                and error is None
                and attempts is None
                and usage is None
                and extra is None
                and type(request) is dict
                and len(request) == 1
                and op.names[0] in request
                and same(request[op.names[0]], values[0])
                and step.step_id == op.step_id
                and step.type == "tool"
            ):
                done += 1
                continue
            new = full(new, ops)
        if old[1] != new[1]:
            return done, _order(recorded[number:], [full(record, ops) for record in computed[number:]], done)
        old_extra, new_extra = old[10], new[10]
        if new_extra is not None and type(new_extra) is dict and "children" in new_extra:
            before = old_extra.get("children", ()) if type(old_extra) is dict else ()
            children = new_extra["children"]
            for a, b in zip(before, children, strict=False):
                done, found = _compare(a, b, ops, done)
                if found is not None:
                    return done, found
            if len(before) != len(children):
                return done, Difference("changed", old[1], "children", len(before), len(children), done)
        found_field = _field(old, new)
        if found_field is not None:
            return done, Difference("changed", old[1], *found_field, done)
        done += 1
    if len(recorded) > len(computed):
        return done, Difference("extra", recorded[len(computed)][1], index=done)
    if len(computed) > len(recorded):
        return done, Difference("missing", full(computed[len(recorded)], ops)[1], index=done)
    return done, None


def _order(recorded: Sequence[Record], computed: Sequence[Record], done: int) -> Difference:
    """Two frames whose next records are of different steps."""
    old, new = recorded[0][1], computed[0][1]
    later = any(record[1] == old for record in computed)
    if any(record[1] == new for record in recorded):
        return (
            Difference("order", old, recorded=old, computed=new, index=done)
            if later
            else Difference("extra", old, index=done)
        )
    return Difference("missing", new, index=done)


def _field(old: Record, new: Record) -> tuple[str, Any, Any] | None:
    """The first field in which two records of a step differ, with both sides; times are no part of what happened."""
    a, b = old[0], new[0]
    if a.type != b.type:
        return "type", a.type, b.type
    if a.step_id != b.step_id:
        return "step", a.step_id, b.step_id
    if old[2] is not new[2]:
        return "status", old[2].value, new[2].value
    if old[3] is not new[3] and not same(old[3], new[3]):
        return "output", old[3], new[3]
    if old[4] is not new[4] and old[4] != new[4]:
        return "error", _told(old[4]), _told(new[4])
    if old[5] is not new[5]:
        was, asks = _request(a, old[5]), _request(b, new[5])
        if not same(was, asks):
            return "request", was, asks
    if old[8] is not new[8] and old[8] != new[8]:
        tried = [[attempt.outcome() for attempt in record[8] or ()] for record in (old, new)]
        if not same(*tried):
            return "attempts", tried[0], tried[1]
    if old[9] is not new[9] and old[9] != new[9]:
        return "usage", _told(old[9]), _told(new[9])
    if old[10] is not new[10]:
        known, found = (_shown_extra(record) for record in (old, new))
        if not same(known, found):
            key = next((k for k in [*known, *found] if not same(known.get(k), found.get(k))), "extra")
            return key, known.get(key), found.get(key)
    return None


def _shown_extra(record: Record) -> dict[str, Any]:
    """What a record says beside, but for attempts that were lost in a crash, which are no part of what happened."""
    extra = record[10]
    if type(extra) is dict:
        if "children" not in extra and "lost" not in extra:
            return extra
        return {key: value for key, value in extra.items() if key not in ("children", "lost")}
    return _extra_json(record[0], extra) if extra is not None else {}


def _told(part: Any) -> Any:
    return part.to_dict() if part is not None else None


def _compare_ends(recorded: Trace, computed: Trace, done: int) -> Difference | None:
    for name in ("status", "error", "error_kind", "output", "waiting"):
        a, b = getattr(recorded, name), getattr(computed, name)
        if name == "status":
            a, b = a.value, b.value
        elif name == "waiting":
            a, b = list(a), list(b)
        if not same(a, b):
            return Difference("end", "", name, a, b, done)
    return None


def _shown(value: Any) -> str:
    text = as_text(value) if isinstance(value, dict | list) else repr(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


# --- diff ------------------------------------------------------------------------------------------------------------

MEASURES = frozenset({"tokens", "cost_usd", "duration_ms"})
"""Fields in which two runs may differ and still have done the same."""


@dataclass(frozen=True, slots=True)
class StepDiff:
    """A step of either side: ``side`` is ``a`` or ``b`` where only one has it, else empty; ``fields`` are those that differ, as (a, b)."""

    path: str
    side: str = ""
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def differs(self) -> bool:
        """Whether it is not the same on both sides; what it cost and how long it took does not count."""
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
    """What differs between two runs or two programs (``kind``); ``whole`` are differences outside of steps, ``steps`` all steps of both.

    ``divergence`` is the path of the first step that differs, ``paths`` the steps of each side in order.
    """

    kind: str
    whole: dict[str, tuple[Any, Any]]
    steps: tuple[StepDiff, ...]
    paths: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def same(self) -> bool:
        """Whether both did the same, or are the same program."""
        return MEASURES.issuperset(self.whole) and self.divergence is None

    @property
    def divergence(self) -> str | None:
        """The path of the first step that differs."""
        return next((step.path for step in self.steps if step.differs), None)

    def lines(self) -> Iterator[tuple[str, str]]:
        """The text, line by line, each with its kind: ``head``, ``a``, ``b``, ``field``, ``measure``."""
        noun = "runs" if self.kind == "run" else "programs"
        if self.same:
            yield "head", f"the {noun} do the same" if self.kind == "run" else "the programs are the same"
        elif self.divergence is not None:
            yield "head", f"the {noun} differ first at {self.divergence!r}"
        else:
            yield "head", f"the {noun} differ in {', '.join(name for name in self.whole if name not in MEASURES)}"
        for name, (a, b) in self.whole.items():
            yield "measure" if name in MEASURES else "field", f"{name}: {_side(name, a)} -> {_side(name, b)}"
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
        VMError: If one is a run and the other a program.
    """
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
    return _diff("run", whole, steps[0], steps[1])


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


def _written(block: list[dict[str, Any]], inside: str, scope: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each step of a block by its id, with its own fields: blocks in it are told by the ids in them, and where it stands itself."""
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
        return {c: [step["id"] for step in t] if _is_block(t) else t for c, t in value.items()}, inner
    if name == "parallel_steps":
        branches = [branch if isinstance(branch, list) else [branch] for branch in value]
        return [[step["id"] for step in branch] for branch in branches], [(name, branch) for branch in branches]
    return value, []


def _is_block(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(s, dict) and "id" in s and "type" in s for s in value)
    )


def _diff(
    kind: str, whole: dict[str, tuple[Any, Any]], a: dict[str, dict[str, Any]], b: dict[str, dict[str, Any]]
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
        pairs = {name: (fields.get(name), b[path].get(name)) for name in dict.fromkeys([*fields, *b[path]])}
        steps.append(StepDiff(path, "", {name: pair for name, pair in pairs.items() if not same(*pair)}))
    steps += [StepDiff(other, "b") for other in rest if other not in a]
    return Diff(kind, whole, tuple(steps), (tuple(a), tuple(b)))


def _side(name: str, value: Any) -> str:
    if name == "duration_ms" and value is not None:
        return f"{value:.1f}"
    return _shown(value)


# --- fork ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Edits:
    """What a fork changes: its program and inputs as they are afterwards, and outputs put in place of recorded ones, by path or step id."""

    program: Program
    inputs: dict[str, Any]
    outputs: dict[str, Any]


def edits_of(program: Program, trace: Trace, edit: Mapping[str, Any] | None) -> Edits:
    """*edit* as `fork` takes it.

    Raises:
        VMError: If it names what is not there.
        ProgramError: If the changed program has faults.
    """
    inputs, outputs = trace.inputs, {}
    fields: dict[str, dict[str, Any]] = {}
    recorded = {step.path for step in trace.steps}
    for name, change in (edit or {}).items():
        if name == "program":
            if not isinstance(change, Program):
                raise VMError(f"edit: 'program' is a Program, not {kind_name(change)}")
            program = change
        elif not isinstance(change, Mapping) or not change:
            raise VMError(f"edit: {name!r} is an object with what changes, not {kind_name(change)}")
        elif name == "inputs":
            inputs |= {str(key): value for key, value in change.items()}
        else:
            rest = dict(change)
            if "output" in rest:
                outputs[name] = admit(rest.pop("output"))[0]
            if rest:
                fields[name] = rest
    ids = {step.id: step for step, _ in program.walk()}
    for name in outputs:
        step = ids.get(name)
        if name not in recorded and step is None:
            raise VMError(f"edit: there is no step {name!r} in the run or its program{_near(name, [*ids, *recorded])}")
        if step is not None and step.type.value not in ("tool", "llm", "approval", "wait"):
            raise VMError(
                f"edit: the output of step {name!r} is computed, so it can not be given; change what it reads"
            )
    for name in fields:
        if name not in ids:
            raise VMError(f"edit: there is no step {name!r} in the program{_near(name, list(ids))}")
    if fields:
        document = program.to_dict()
        document["steps"] = _with_fields(document["steps"], fields)
        program = Program.from_dict(document)
    return Edits(program, inputs, outputs)


def _near(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _with_fields(value: Any, fields: Mapping[str, Mapping[str, Any]]) -> Any:
    """Steps of a document with *fields* put over theirs, by id."""
    if isinstance(value, list):
        return [_with_fields(part, fields) for part in value]
    if isinstance(value, dict):
        made = {key: _with_fields(part, fields) for key, part in value.items()}
        return {**made, **fields[made["id"]]} if "type" in made and made.get("id") in fields else made
    return value


class Forked:
    """Decides, call by call, whether a fork takes the recorded outcome, makes the call, or stops before it.

    A recorded outcome is taken where path, call and request are the recorded ones. From *at* on (a path or step id, in the order of the
    records) nothing that was only read or answered is taken, nor is what was read after a live effect. A call with an effect (``write``,
    ``irreversible``) is made only with *effects*, or by one of *tools*, which stand in for the real ones; else the fork stops there.

    Raises:
        VMError: If the run does not replay, or *at* never ran.
    """

    def __init__(
        self,
        replayed: Replay,
        outputs: Mapping[str, Any] | None = None,
        *,
        at: str | None = None,
        effects: bool = False,
        tools: Iterable[str] = (),
        clock: Callable[[], int] | None = None,
    ) -> None:
        if replayed.trace is None or replayed.difference is not None:
            raise VMError(f"run {replayed.run_id!r} can not be forked: {replayed}")
        records = list(flattened(replayed.trace._full()))  # those of the machine: each has its op, and so its tool
        self.outputs = dict(outputs or {})
        self.effects = effects
        self.tools = frozenset(tools)
        self.default_model = replayed.trace.about.get("default_model")
        self.ops: dict[str, Any] = {record[1]: record[0] for record in records}
        taken = [
            self._edited(record)
            for record in records
            if record[2] not in _NO_OUTCOME or self._output(record) is not UNSET
        ]
        self.recorded = Recorded(taken, replayed.trace._base_ns, clock=clock)
        self.stale = _from(records, at, replayed.run_id) if at is not None else frozenset()
        self.reused: dict[str, bool] = {}  # by path: whether the step's outcome is taken
        self.effected = False

    def decide(self, machine: Machine, op: Any) -> Literal["reuse", "live", "stop"]:
        """What becomes of the requested call; each attempt of a step as its first, but one that is not recorded."""
        path = path_of(machine, op)
        record = self.recorded.by_path.get(path)
        earlier = self.reused.get(path)
        if earlier is None:
            decision = self._decide(machine, op, path, record)
        elif earlier:  # all that is recorded of it is taken, and it is asked for once more
            left = record is not None and self.recorded.left(path)
            decision = "reuse" if left else self._live(op)
        else:
            decision = self._live(op)
        self.reused[path] = decision == "reuse"
        if decision == "live" and op.code == TOOL and op.effect != "read":
            self.effected = True
        return decision

    def _decide(self, machine: Machine, op: Any, path: str, record: Record | None) -> Literal["reuse", "live", "stop"]:
        if path in self.outputs or op.step_id in self.outputs:
            return "reuse" if record is not None else self._live(op)
        if record is None or not self._is_same(machine, op, path, record):
            return self._live(op)
        unsafe = op.code == TOOL and op.unsafe
        if path in self.stale or (self.effected and op.code == TOOL and op.effect == "read"):
            # an effect is not repeated because what is around it is looked at anew
            return "reuse" if unsafe and not (self.effects or op.tool in self.tools) else self._live(op)
        return "reuse"

    def _live(self, op: Any) -> Literal["live", "stop"]:
        if op.code == TOOL and op.unsafe and not self.effects and op.tool not in self.tools:
            return "stop"
        return "live"

    def _is_same(self, machine: Machine, op: Any, path: str, record: Record) -> bool:
        """Whether the call is the recorded one: the same tool or model, asked the same."""
        old = self.ops[path]
        if old.code != op.code or old.type != op.type:
            return False
        if op.code == TOOL and (old.tool, old.effect) != (op.tool, op.effect):
            return False
        if op.code == MODEL:
            if op.model is None and machine.facts.default_model != self.default_model:
                return False
            if (old.allowed, old.model) != (op.allowed, op.model) or not same(old.schema, op.schema):
                return False
        return same(_request(old, record[5]), _request(op, asked(machine, op)))

    def _output(self, record: Record) -> Any:
        return self.outputs.get(record[1], self.outputs.get(record[0].step_id, UNSET))

    def _edited(self, record: Record) -> Record:
        """The record, or one of a success with the output that was put in its place."""
        value = self._output(record)
        if value is UNSET:
            return record
        op, path, _, _, _, request, started, finished, _, _, _ = record
        extra: dict[str, Any] | None = None
        if op.type == "llm" and type(value) is not str:
            value = canonical(value).decode()
        if op.type == "llm":
            extra = {"answer": value}
        elif op.type == "approval":
            decided = value if isinstance(value, dict) else {"approved": value}
            value = {"approved": decided.get("approved"), "reason": decided.get("reason")}
        return (op, path, StepStatus.SUCCESS, value, None, request, started, finished, None, None, extra)


_NO_OUTCOME = frozenset({StepStatus.CANCELLED, StepStatus.SUSPENDED, StepStatus.IN_DOUBT})


def _from(records: list[Record], at: str, run_id: str) -> frozenset[str]:
    """Paths of the records from *at* on; a step that contains others begins with them."""
    for number, record in enumerate(records):
        path, step_id = record[1], record[0].step_id
        if at in (path, step_id) or path.startswith((f"{at}/", f"{at}[", f"{at}#")):
            return frozenset(later[1] for later in records[number:])
    known = [record[1] for record in records]
    raise VMError(f"run {run_id!r} has no step {at!r}: it never ran{_near(at, known)}")


class ForkJournal:
    """Tells the driver what is known: recorded outcomes, as `Forked` decides."""

    leaving = False

    def __init__(self, forked: Forked) -> None:
        self.forked = forked

    async def before(self, machine: Machine, op: Op, now: int) -> Op | None:
        """The request that follows, where the outcome of *op* is taken from the records; None where the call is to be made."""
        if op.code in (FORK, END):
            return None
        decision = self.forked.decide(machine, op)
        if decision == "reuse":
            return self.forked.recorded.feed(machine, op)
        if decision == "live":
            return None
        if machine._aside is None:
            return machine.suspend(now)
        return machine.refuse(HELD, now)

    def child(self, machine: Machine, number: int) -> Machine:
        """The machine of one child of the requested fork."""
        return machine.child(number)

    def check(self) -> None:
        """Nobody else has this run."""


def _with_tools(vm: Any, tools: Mapping[str, Callable[..., Any]], programs: Mapping[str, Program]) -> Any:
    """The same host with other tools in place of some of its own, and without its store."""
    host = copy(vm)
    host._contracts, host._programs = dict(vm._contracts), {**vm._programs, **programs}
    host._prepared, host._store = type(vm._prepared)(), None
    for name, function in tools.items():
        host.register_tool(name, function)
    return host


HELD = StepError("refused", "ForkStopped", "a fork makes no call that has an effect", retryable=False)


async def fork(
    vm: Any,
    trace: Trace,
    program: Program | None = None,
    *,
    at: str | None = None,
    edit: Mapping[str, Any] | None = None,
    effects: bool = False,
    tools: Mapping[str, Callable[..., Any]] | None = None,
    run_id: str | None = None,
    programs: Mapping[str, Program] | None = None,
) -> Trace:
    """Run *trace* once more with a change, by the host *vm*: what did not change takes its recorded outcome, live calls begin where it did.

    *at* is the path or id of the step from which on models are asked and data is read anew. *edit* is ``{"inputs": {...}}``,
    ``{"program": Program}``, ``{path or id: {"output": ...}}`` or ``{id: {"prompt": ...}}`` (any field of a step). No ``write`` or
    ``irreversible`` call is made unless *effects*, or *tools* have a stand-in for it: the fork waits before it
    (``SUSPENDED``; see `Trace.waiting`). *program* and *programs* are as for `replay`. The fork's ``about["parent"]`` names its run.

    Raises:
        VMError: If the run does not replay, *at* never ran, or *edit* names what is not there.
    """
    original = program if program is not None else program_of(trace)
    replayed = Replayer(original, {**vm._programs, **(programs or {})}).replay(trace)
    edits = edits_of(original, trace, edit)
    host = _with_tools(vm, tools or {}, programs or {})
    clock = host._clock.monotonic_ns
    forked = Forked(replayed, edits.outputs, at=at, effects=effects, tools=tools or (), clock=clock)
    made, machine = host._begin(edits.program, edits.inputs, run_id, trace.seed, None, ())
    made._about = {
        **made.about,
        "parent": {"run_id": trace.run_id, "digest": trace.digest, **({"at": at} if at else {})},
    }
    if machine is not None:
        await host._execute(made, machine, None, ForkJournal(forked))
    return made  # type: ignore[no-any-return]
