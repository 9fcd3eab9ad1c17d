"""Fork: a recorded run once more with a change. Call by call it is decided whether the recorded
outcome holds.

Rule: no call that has an effect is made because of a fork, unless its caller says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ProgramError, VMError
from ..given import by_name, instance
from ..language.program import Program
from ..language.programs import programs_given
from ..machine.machine import Machine
from ..machine.outcome import NotCalled, Suspended
from ..machine.plan import DOUBT, END, FORK, MODEL, TOOL, Op
from ..machine.recorded import HELD, Recorded
from ..records.record import Record, flattened, request_json
from ..records.status import StepStatus
from ..records.trace import Trace
from ..run.durable.resume import pending_run
from ..run.durable.rows import Rows
from ..run.durable.stored import parted
from ..run.live import Begun
from ..run.options import Said
from ..run.vm import ExecutionVM
from ..spelling import meant
from ..store.records import RUNNING, StoredRun
from ..values import UNSET, admit, canonical, kind_name
from .compare import same
from .rerun import Replay, Replayer, Subject, subject_of


@dataclass(frozen=True, slots=True)
class Edits:
    """What a fork changes: its program and inputs as they are afterwards, outputs put in place of
    recorded ones, by path or step id, and the names of all that *changed*.
    """

    program: Program
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    changed: tuple[str, ...] = ()


def edits_of(program: Program, trace: Trace, edit: Mapping[str, Any] | None) -> Edits:
    """*edit* as `fork` takes it.

    Raises:
        VMError: If it names what is not there.
        ProgramError: If the changed program has faults.
    """
    inputs, outputs = trace.inputs, {}
    fields: dict[str, dict[str, Any]] = {}
    recorded = {step.path for step in trace.steps}
    changed: list[str] = []
    for name, change in by_name(edit, "edit", "write edit={'inputs': {...}}").items():
        if name == "program":
            if not isinstance(change, Program):
                raise VMError(f"edit: 'program' is a Program, not {kind_name(change)}")
            program = change
            changed.append(name)
        elif not isinstance(change, Mapping) or not change:
            raise VMError(f"edit: {name!r} is an object with what changes, not {kind_name(change)}")
        elif name == "inputs":
            inputs |= {str(key): value for key, value in change.items()}
            changed += [f"inputs.{key}" for key in change]
        else:
            rest = dict(change)
            changed += [f"{name}.{key}" for key in change]
            if "output" in rest:
                outputs[name] = admit(rest.pop("output"))[0]
            if rest:
                fields[name] = rest
    ids = {step.id: step for step, _ in program.walk()}
    for name in outputs:
        step = ids.get(name)
        if name not in recorded and step is None:
            raise VMError(
                f"edit: there is no step {name!r} in the run or its "
                f"program{near_to(name, [*ids, *recorded])}"
            )
        if step is not None and not step.OUTSIDE:
            raise VMError(
                f"edit: the output of step {name!r} is computed, so it cannot be given; change "
                f"what it reads"
            )
    for name in fields:
        if name not in ids:
            raise VMError(
                f"edit: there is no step {name!r} in the program{near_to(name, list(ids))}"
            )
    if fields:
        document = program.to_dict()
        document["steps"] = _with_fields(document["steps"], fields)
        program = Program.from_dict(document)
    return Edits(program, inputs, outputs, tuple(changed))


def near_to(name: str, known: list[str]) -> str:
    hint = meant(name, known)
    return f"; {hint}" if hint else ""


def _with_fields(value: Any, fields: Mapping[str, Mapping[str, Any]]) -> Any:
    """Steps of a document with *fields* put over theirs, by id."""
    if isinstance(value, list):
        return [_with_fields(part, fields) for part in value]
    if isinstance(value, dict):
        made = {key: _with_fields(part, fields) for key, part in value.items()}
        return (
            {**made, **fields[made["id"]]} if "type" in made and made.get("id") in fields else made
        )
    return value


class Forked:
    """Decides, call by call, whether a fork takes the recorded outcome, makes the call, or stops
    before it.

    A recorded outcome is taken where path, call and request are the recorded ones. From *at* on (a
    path or step id, in the order of the records) nothing that was only read or answered is taken,
    nor is what was read after a live effect. A call with an effect (``write``, ``irreversible``) is
    made only with *effects*, or by one of *tools*, which stand in for the real ones; else the fork
    stops there. With *effects* no recorded approval is taken: it was given for the effects of that
    run, so it is asked for anew, unless *outputs* say how it is decided.

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
            raise VMError(f"run {replayed.run_id!r} cannot be forked: {replayed}")
        # those of the machine: each has its op, and so its tool
        records = flattened(replayed.trace.recording.full())
        self.outputs = dict(outputs or {})
        self.effects = effects
        self.tools = frozenset(tools)
        self.default_model = replayed.trace.about.get("default_model")
        self.ops: dict[str, Any] = {record.path: record.step for record in records}
        taken = [
            self._edited(record)
            for record in records
            if record.status not in _NO_OUTCOME or self._output(record) is not UNSET
        ]
        self.recorded = Recorded(taken, replayed.trace.recording.base_ns, clock=clock)
        self.stale = _from(records, at, replayed.run_id) if at is not None else frozenset()
        self.reused: dict[str, bool] = {}  # by path: whether the step's outcome is taken
        self.effected = False

    def known(self, machine: Machine, op: Any) -> Op | None:
        """The request that follows, where the outcome of *op* is taken from the records."""
        return self.recorded.feed(machine, op) if self.decide(machine, op) == "reuse" else None

    def makes(self, op: Any) -> bool:
        """Whether a call with an effect is made."""
        return self.effects or op.tool in self.tools

    def decide(self, machine: Machine, op: Any) -> Literal["reuse", "live", "stop"]:
        """What becomes of the requested call; each attempt of a step as its first, but one that is
        not recorded.
        """
        path = machine.path
        record = self.recorded.record(path)
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

    def _decide(
        self, machine: Machine, op: Any, path: str, record: Record | None
    ) -> Literal["reuse", "live", "stop"]:
        asks = op.type == "approval"
        if path in self.outputs or op.step_id in self.outputs:
            # only what was an approval decides one: whoever refuses such outputs looks for those
            fits = record is not None and (not asks or self.ops[path].type == op.type)
            return "reuse" if fits else self._live(op)
        if record is None or not self._is_same(machine, op, path, record):
            return self._live(op)
        if asks and self.effects:
            return "live"
        unsafe = op.code == TOOL and op.unsafe
        if path in self.stale or (self.effected and op.code == TOOL and op.effect == "read"):
            # an effect is not repeated because what is around it is looked at anew
            return "reuse" if unsafe and not self.makes(op) else self._live(op)
        return "reuse"

    def _live(self, op: Any) -> Literal["live", "stop"]:
        return "stop" if op.code == TOOL and op.unsafe and not self.makes(op) else "live"

    def _is_same(self, machine: Machine, op: Any, path: str, record: Record) -> bool:
        """Whether the call is the recorded one: the same tool or model, asked the same."""
        old = self.ops[path]
        if old.code != op.code or old.type != op.type:
            return False
        if op.code == TOOL and (old.tool, old.effect) != (op.tool, op.effect):
            return False
        if op.code == MODEL:
            if op.model is None and machine.terms.default_model != self.default_model:
                return False
            if (old.allowed, old.model) != (op.allowed, op.model) or not same(
                old.schema, op.schema
            ):
                return False
        return same(record.asked(), request_json(op, machine.request))

    def _output(self, record: Record) -> Any:
        return self.outputs.get(record.path, self.outputs.get(record.step.step_id, UNSET))

    def _edited(self, record: Record) -> Record:
        """The record, or one of a success with the output that was put in its place."""
        value = self._output(record)
        if value is UNSET:
            return record
        op = record.step
        extra: dict[str, Any] | None = None
        if op.type == "llm" and type(value) is not str:
            value = canonical(value).decode()
        if op.type == "llm":
            extra = {"answer": value}
        elif op.type == "approval":
            decided = value if isinstance(value, dict) else {"approved": value}
            value = {"approved": decided.get("approved"), "reason": decided.get("reason")}
        good = StepStatus.SUCCESS
        edited = record._replace(status=good, output=value, error=None, attempts=None, usage=None)
        return edited._replace(extra=extra)


_NO_OUTCOME = frozenset({StepStatus.CANCELLED, StepStatus.SUSPENDED, StepStatus.IN_DOUBT})


def _from(records: list[Record], at: str, run_id: str) -> frozenset[str]:
    """Paths of the records from *at* on; a step that contains others begins with them."""
    for number, record in enumerate(records):
        path, step_id = record.path, record.step.step_id
        if at in (path, step_id) or path.startswith((f"{at}/", f"{at}[", f"{at}#")):
            return frozenset(later.path for later in records[number:])
    known = [record.path for record in records]
    raise VMError(f"run {run_id!r} has no step {at!r}: it never ran{near_to(at, known)}")


class ForkJournal:
    """Tells the driver what is known: recorded outcomes, as `Forked` decides."""

    leaving = False

    def __init__(self, forked: Forked) -> None:
        self.forked = forked

    async def before(self, machine: Machine, op: Op, now: int) -> Op | None:
        """The request that follows, where the outcome of *op* is taken from the records; None where
        the call is to be made.
        """
        if op.code in (FORK, DOUBT, END):
            return None
        decision = self.forked.decide(machine, op)
        if decision == "reuse":
            return self.forked.recorded.feed(machine, op)
        if decision == "live":
            return None
        if machine.side_call == "reconcile":
            return machine.resume(NotCalled(HELD), now)
        return machine.resume(Suspended(), now)

    def rest(self, machine: Machine) -> AbstractContextManager[bool]:
        """Nothing stops the fork but its caller."""
        return nullcontext(True)

    async def reconciled(self, machine: Machine) -> None:
        """Nobody says anything meanwhile."""

    def child(self, machine: Machine, number: int) -> Machine:
        """The machine of one child of the requested fork."""
        return machine.child(number)

    def replayed(self, machine: Machine, number: int, path: str) -> bool:
        """Whether the outcome of the step at *path* is the recorded one."""
        return self.forked.reused.get(path, False)

    def check(self) -> None:
        """Nobody else has this run."""

    def outlived(self, machine: Machine, op: Op, call: Any) -> None:
        """Nobody asks later what became of it."""


async def fork(
    vm: ExecutionVM,
    run: Trace | StoredRun | str,
    program: Program | None = None,
    *,
    at: str | None = None,
    edit: Mapping[str, Any] | None = None,
    effects: bool = False,
    tools: Mapping[str, Callable[..., Any]] | None = None,
    run_id: str | None = None,
    programs: Mapping[str, Program] | None = None,
) -> Trace:
    """Run a recorded run once more, with a change, by the host *vm*: live calls begin where what is
    asked for differs.

    *at* is the path or id of the step from which on models are asked and data is read anew. *edit*
    is ``{"inputs": {...}}``, ``{"program": Program}``, ``{path or id: {"output": ...}}`` or ``{id:
    {"prompt": ...}}`` (any field of a step). No ``write`` or ``irreversible`` call is made unless
    *effects*, or *tools* have a stand-in for it: the fork waits before it (``SUSPENDED``; see
    `Trace.waiting`). With *effects* each approval is asked for anew, but one whose output *edit*
    gives: whoever has the records decides that. *run*, *program* and *programs* are as for
    `replay`, an id is one of *vm*'s store. ``about["parent"]`` of the fork names its run.

    With *run_id*, and a store in *vm*, the fork is stored under that id and goes on as any run once
    what it waits for has come; then nothing more is taken from the run that it was made from. A
    call with an effect is still not made unless *effects*: the fork waits for `resolve`, which says
    what it gives, or that it is to be made.

    Raises:
        VMError: If the run does not replay, *at* never ran, or *edit* names what is not there.
    """
    instance(vm, ExecutionVM, "the host of a fork", "write fork(ExecutionVM(...), run)")
    subject = subject_of(
        run, program, {**vm.preparer.programs, **programs_given(programs)}, vm.store
    )
    kept = run_id is not None and vm.store is not None
    host = vm.with_(tools=tools, programs=subject.programs, store=UNSET if kept else None)
    # what the run belongs to and is found by holds for the fork; who asked for it is another matter
    about = subject.trace.about
    said: Said = {"project": about.get("project"), "labels": about.get("labels")}
    edits = edits_of(subject.program, subject.trace, edit)
    begun, forked = _begun(
        host, subject, edits, said, at=at, effects=effects, run_id=run_id, tools=tools or ()
    )
    if begun.machine is not None and kept:
        await host.execution(begun, origin=forked)
    elif begun.machine is not None:
        await host.execution(begun, journal=ForkJournal(forked))
    return begun.trace


def _begun(
    host: ExecutionVM,
    subject: Subject,
    edits: Edits,
    said: Said,
    *,
    at: str | None,
    effects: bool,
    run_id: str | None,
    tools: Iterable[str] = (),
) -> tuple[Begun, Forked]:
    """A fork before its first step, and what it takes from the run that it is made from."""
    subject.demand_values()
    trace = subject.trace
    forked = Forked(
        Replayer(subject.program, subject.programs).replay(trace),
        edits.outputs,
        at=at,
        effects=effects,
        tools=tools,
        clock=host.clock.monotonic_ns,
    )
    begun = host.begin(edits.program, edits.inputs, run_id=run_id, seed=trace.seed, **said)
    made = begun.trace
    about, own = parted(made.about)
    parent = {"run_id": trace.run_id, "digest": trace.digest, **({"at": at} if at else {})}
    made.recording.about = {
        # a host that has no policy for it does not make public what the run held
        **({"secrecy": labels} if (labels := trace.about.get("secrecy")) else {}),
        **about,
        "parent": {**parent, **({"changed": list(edits.changed)} if edits.changed else {})},
        "effects": effects,
        **own,
    }
    return begun, forked


@dataclass(frozen=True, slots=True)
class FirstCall:
    """A call that a fork reaches behind what it takes from its origin. *called* is the tool or
    model, if it has a name; with *stops* it is not made before a person says so.
    """

    path: str
    step: str
    type: str
    called: str | None
    effect: str | None
    stops: bool


@dataclass(frozen=True, slots=True)
class Ahead:
    """A fork up to its first calls: the steps whose outcome is *taken*, by path, the calls that
    come next, and the run for a store, to be driven by any host.
    """

    taken: tuple[str, ...]
    calls: tuple[FirstCall, ...]
    run: StoredRun


def fork_ahead(
    vm: ExecutionVM,
    run: StoredRun,
    edits: Edits,
    *,
    at: str | None = None,
    effects: bool = False,
    run_id: str | None = None,
    said: Said | None = None,
) -> Ahead:
    """A fork of *run* for hosts elsewhere: all that it takes from the records is in it, and no call
    is made. Behind its first calls nothing more is taken: who drives it makes them.

    *vm* has what the calls will have, see `fork`; *said* is what is said of the new run.

    Raises:
        VMError: If the run does not replay, or *at* never ran.
        ProgramError: If the fork would be refused.
    """
    subject = subject_of(run)
    host = vm.with_(programs=subject.programs, store=None)
    begun, forked = _begun(host, subject, edits, said or {}, at=at, effects=effects, run_id=run_id)
    trace, machine = begun.trace, begun.machine
    if machine is None:
        raise ProgramError(trace.diagnostics)
    calls: list[FirstCall] = []

    def following(one: Machine, op: Op) -> Op | None:
        after = None if op.code == DOUBT else forked.known(one, op)
        if after is None:
            calls.append(_first_call(one, op, forked))
        return after

    machines = forked.recorded.walk(machine, trace.started_ns, following)
    stored = pending_run(host.preparer, edits.program, trace)
    base = trace.recording.base_ns
    # as a run that its process has left: it began when the first outcome was taken
    stored.status, stored.started_ns = RUNNING, trace.started_ns + base
    taken = tuple(path for path, reused in forked.reused.items() if reused)
    rows = Rows(stored, trace.recording.ops, base, "")
    rows.taken |= set(taken)
    stored.rows = [row for one in machines for row in rows.new(one)]
    return Ahead(taken, tuple(calls), stored)


def _first_call(machine: Machine, op: Any, forked: Forked) -> FirstCall:
    tool = op.tool if op.code == TOOL else None
    model = op.model or machine.terms.default_model if op.code == MODEL else None
    return FirstCall(
        machine.path,
        op.step_id,
        op.type,
        tool or model,
        op.effect if op.code == TOOL else None,
        op.code == TOOL and op.unsafe and not forked.makes(op),
    )
