"""Replay, diff and fork: what a recorded run was, computed once more and held against what is recorded. No call is made here.

A trace (or a stored run) and its program come in. Replay gives the outcomes to a new machine and tells the first record that the machine
would not have made; diff tells two runs or two programs apart; fork decides, call by call, which recorded outcomes a changed run may take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .compile import compile_flow
from .errors import ExprError, VMError, summary
from .flow import Flow
from .ledger import Ledger
from .machine import FOREVER, Facts, Machine, loaded
from .plan import Plan
from .program import Program
from .recorded import Missing, Recorded, Unfit, bounds_of, contracts_of, forks_of, play, stops
from .tools import ToolContract
from .trace import Record, StepStatus, Trace, TraceStatus, _extra_json, _request, flattened, full
from .values import as_text, kind_name

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
    held = trace._program_digest
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
            index, output, asked, _, _ = new
            op = ops[index]
            name, path, status, told, error, request, _, _, attempts, usage, extra = old
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
                and same(request[op.names[0]], asked[0])
                and name.step_id == op.step_id
                and name.type == "tool"
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
        field = _field(old, new)
        if field is not None:
            return done, Difference("changed", old[1], *field, done)
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
        asked, asks = _request(a, old[5]), _request(b, new[5])
        if not same(asked, asks):
            return "request", asked, asks
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
