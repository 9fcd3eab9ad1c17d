"""Replay and verify: a recorded run computed once more, and held against what is recorded. No call
is made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..collector import collector_paused
from ..diagnostics import summary
from ..errors import ExprError, VMError
from ..given import instance
from ..language.flow import Flow
from ..language.program import Program
from ..language.programs import program_given, programs_given
from ..machine.compile import plan_of
from ..machine.faults import CANCELLED_UNBEGUN, WORDING
from ..machine.machine import Machine, machine_of
from ..machine.plan import Plan
from ..machine.recorded import (
    Missing,
    Recorded,
    Unfit,
    contracts_of,
    play,
)
from ..machine.terms import RunTerms
from ..records.record import flattened
from ..records.recording import Recording
from ..records.secrecy import NOTHING_SECRET, Levels, Receiver, levels_of
from ..records.status import TraceStatus
from ..records.trace import Trace
from ..run.durable.stored import trace_of
from ..store.protocol import Store
from ..store.records import ENDED, STEP, StoredRun
from ..store.seals import seal_of, sealed_as, signature_holds
from ..store.signing import public_keys, signer_of
from ..tools.contract import ToolContract
from ..values import short
from .accepted import accepted_difference
from .compare import Difference, compare, compare_ends, difference_of


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay: ``identical`` where every record is the one that the machine makes.

    ``steps`` is how many records agree, up to the first that does not; ``trace`` is the computed
    run (None where it could not be begun), ``complete`` is False for the trace of a run that had
    not ended.
    """

    run_id: str
    program_name: str
    difference: Difference | None
    steps: int
    trace: Trace | None = None
    complete: bool = True
    levels: Levels = field(default=NOTHING_SECRET, repr=False, compare=False)

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

    def shown_to(self, receiver: Receiver) -> Replay:
        """The same as *receiver* is shown it, without values that it does not accept."""
        difference = accepted_difference(receiver, self.levels, self.difference)
        return replace(self, difference=difference)

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
    run: Trace | StoredRun | str,
    program: Program | None = None,
    *,
    programs: Mapping[str, Program] | None = None,
    store: Store | None = None,
) -> Replay:
    """Compute a run once more from its recorded outcomes, with no call, and hold every record
    against it.

    Conditions, budgets, deadlines, retries, joins, status, output and error are computed; only what
    came from outside (results, answers, errors, decisions, times) is taken from the records. *run*
    is a trace, or a stored run, or its id in *store*. *program* may be left out for a stored run
    and for a trace that was made in this process; *programs* are those that it calls by name.

    Raises:
        VMError: If there is no program to replay against, or it has faults.
        UnknownRun: If *store* has no such run.
    """
    subject = subject_of(run, program, programs, store)
    subject.demand_values()
    return Replayer(subject.program, subject.programs).replay(subject.trace, subject.stored)


@dataclass(frozen=True, slots=True)
class Subject:
    """A recorded run with the program that it is of; ``stored`` where it comes from a store or an
    export.
    """

    trace: Trace
    program: Program
    programs: Mapping[str, Program]
    stored: StoredRun | None = None

    def demand_values(self) -> None:
        """Raises `VMError` where the values of the run were erased: nothing can be computed without
        them.
        """
        if self.trace.recording.erased:
            raise VMError(
                f"the values of run {self.trace.run_id!r} were erased, so what it did cannot be "
                f"computed again"
            )


def subject_of(
    run: Trace | StoredRun | str,
    program: Program | None = None,
    programs: Mapping[str, Program] | None = None,
    store: Store | None = None,
) -> Subject:
    """What is replayed, verified or forked; raises as `replay`."""
    if isinstance(run, str):
        if store is None:
            raise VMError(f"run {run!r} is looked up in a store; give store=")
        run = store.load(run)
    if not isinstance(run, (Trace, StoredRun)):
        raise VMError(
            f"a run is a Trace, a stored run or its id, not {short(run)}; see Trace.from_json and "
            f"ExecutionVM.load"
        )
    if isinstance(run, StoredRun):
        own, called = programs_of(run)
        return Subject(trace_of(run), program or own, {**called, **programs_given(programs)}, run)
    return Subject(
        run, program if program is not None else program_of(run), programs_given(programs)
    )


def programs_of(run: StoredRun) -> tuple[Program, dict[str, Program]]:
    """The program that is stored with a run, and those that it calls by name.

    Raises:
        VMError: If what is stored is no program.
    """
    return programs_of_document(run.document, run.run_id)


def programs_of_document(
    document: Mapping[str, Any], run_id: str
) -> tuple[Program, dict[str, Program]]:
    """The same of the *document* of a run."""
    if not isinstance(document.get("program"), dict):
        raise VMError(f"run {run_id!r} has no program stored with it")
    called = {
        name: Program.from_dict(other) for name, other in document.get("programs", {}).items()
    }
    return Program.from_dict(document["program"]), called


def program_of(trace: Trace) -> Program:
    """The program that *trace* still holds, where it was made in this process.

    Raises:
        VMError: If it holds none.
    """
    held = instance(
        trace, Trace, "a run", "see Trace.from_json and ExecutionVM.load"
    ).recording.program
    if isinstance(held, Program):
        return held
    raise VMError(
        f"the trace of run {trace.run_id!r} does not hold its program; give the program too"
    )


class Replayer:
    """Replays any number of runs of one program; its plan is made once for each set of tools.

    Raises:
        VMError: If it is not a `Program`.
    """

    def __init__(self, program: Program, programs: Mapping[str, Program] | None = None) -> None:
        self.program = program_given(program)
        self.flow = Flow(program, programs_given(programs))
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
            known = contracts_of({"tools": {name: {"effect": "write"} for name in self.flow.tools}})
            try:
                found = plan_of(self.flow, {**known, **contracts})
            except ExprError as error:
                raise VMError(f"the program {self.program.name!r} cannot be run: {error}") from None
            self._plans[key] = found
        return found

    def machine(self, trace: Trace) -> tuple[Machine, Plan]:
        """A machine at the beginning of the run.

        Raises:
            ValueError: If what the trace tells of its host cannot be read.
        """
        recording = trace.recording
        about = recording.about
        contracts = contracts_of(about)
        plan = self.plan(contracts)
        for name in plan.tools:
            if "tools" in about and name not in contracts:
                raise ValueError(f"tool {name!r} is none of those that the run had")
        terms = RunTerms.of_record(about, self.program.budget)
        machine = machine_of(
            plan,
            recording.inputs,
            terms,
            recording.started_ns,
            run_id=recording.run_id,
            seed=recording.given_seed,
        )
        return machine, plan

    @collector_paused()
    def replay(self, trace: Trace, stored: StoredRun | None = None) -> Replay:
        """As the function `replay`; *stored* where the trace is that of a stored run."""
        recording = trace.recording
        records = recording.full()
        ended = trace.status is not TraceStatus.RUNNING and (
            stored is None or stored.status in ENDED
        )
        levels = levels_of(trace)
        begun = Replay(trace.run_id, trace.program_name, None, 0, complete=ended, levels=levels)
        if trace.program_digest != self.digest:
            differs = Difference("program", recorded=trace.program_digest, computed=self.digest)
            return replace(begun, difference=differs)
        reworded = recording.about.get("wording", 1) != WORDING
        if not records and _unbegun(trace):
            unsaid = None if reworded else _unsaid(trace)
            return replace(begun, difference=unsaid)
        try:
            machine, plan = self.machine(trace)
        except ValueError as error:
            return replace(
                begun,
                difference=Difference("unfit", why=f"what the trace says of its host: {error}"),
            )
        fault = _inputs_fault(recording.inputs, plan)
        if fault is not None:
            return replace(begun, difference=Difference("inputs", why=fault))
        if not ended:
            return self._unended(begun, trace, machine, plan, stored)
        recorded = Recorded(flattened(records), reword=reworded)
        recorded.attach(machine)
        stop: Missing | Unfit | None = None
        try:
            play(machine, recorded, trace.started_ns, cancelled=_was_cancelled(trace))
        except (Missing, Unfit) as at:
            stop = at
        done, difference = compare(records, machine.records, plan.ops)
        if isinstance(stop, Unfit) and (
            difference is None or difference.kind in ("missing", "extra")
        ):
            difference = Difference("unfit", stop.path, why=str(stop), index=done)
        elif isinstance(stop, Missing) and (difference is None or difference.kind == "extra"):
            difference = Difference("missing", stop.path, index=done)
        computed = _trace_of(trace, machine, plan)
        if difference is None:
            difference = compare_ends(trace, computed, done, reworded=reworded)
        return replace(begun, difference=difference, steps=done, trace=computed)

    def _unended(
        self, begun: Replay, trace: Trace, machine: Machine, plan: Plan, stored: StoredRun | None
    ) -> Replay:
        """A run that goes on: each record that there is must be one that the machine makes; what is
        not recorded is held.
        """
        records = every = flattened(trace.recording.full())
        if stored is not None:  # also of children whose fork has no record yet
            records = [row.record() for row in stored.rows if row.kind == STEP]
        joined = [record for record in every if record.children is not None]
        done, difference = 0, None
        try:
            # what is recorded so far is held against what it would be in its own words
            reworded = trace.about.get("wording", 1) != WORDING
            recorded = Recorded([*records, *joined], reword=reworded)
            recorded.attach(machine)
            play(
                machine,
                recorded,
                trace.started_ns,
                hold=True,
                cancelled=_was_cancelled(trace),
            )
        except Unfit as at:
            difference = Difference("unfit", at.path, why=str(at))
        computed = _trace_of(trace, machine, plan)
        made = {record.path: record for record in flattened(computed.recording.full())}
        for record in records:
            new = made.get(record.path)
            found = (
                difference_of(record, new) if new is not None else Difference("extra", record.path)
            )
            if found is not None:
                difference = replace(found, index=done)
                break
            done += 1
        return replace(begun, difference=difference, steps=done, trace=computed)


def _unbegun(trace: Trace) -> bool:
    """Whether a run that has no step was refused or cancelled before its first."""
    if trace.output is not None or trace.recording.waiting:
        return False
    if trace.status is TraceStatus.CANCELLED:
        return trace.error_kind == "cancelled"
    refused = trace.status is TraceStatus.FAILED and trace.error_kind == "refused"
    return refused and bool(trace.diagnostics)


def _was_cancelled(trace: Trace) -> bool:
    """Whether a run all of whose steps were done was cancelled: it says so, or is being undone."""
    if trace.status in (TraceStatus.CANCELLED, TraceStatus.SUCCESS):
        return trace.status is TraceStatus.CANCELLED
    return any(record.step.step_id.endswith("/undo") for record in trace.recording.full())


def _unsaid(trace: Trace) -> Difference | None:
    """The difference where a run that never began does not say why."""
    if trace.status is TraceStatus.CANCELLED:
        text = CANCELLED_UNBEGUN
    else:
        text = summary(trace.diagnostics)
    return None if trace.error == text else Difference("end", "", "error", trace.error, text)


def _inputs_fault(inputs: Mapping[str, Any], plan: Plan) -> str | None:
    """What is wrong with recorded inputs: a run with them would have been refused."""
    root = plan.frames[0]
    missing = [name for name in root.needed if name not in inputs]
    if missing:
        return f"input {missing[0]!r} is needed and not there"
    return root.check(dict(inputs)) if root.check is not None else None


def _trace_of(trace: Trace, machine: Machine, plan: Plan) -> Trace:
    """What *machine* recorded, as a trace of the same run."""
    recorded = trace.recording
    computed = Recording(
        recorded.program_name,
        recorded.program,
        recorded.run_id,
        recorded.given_seed,
        recorded.started_ns,
        recorded.base_ns,
        recorded.salt,
        recorded.about,
        records=machine.records,
        ops=plan.ops,
    )
    computed.inputs = recorded.inputs
    machine.fill(computed)
    computed.finished_ns = recorded.finished_ns
    return Trace(computed)


# --- verify ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: ``ok`` is None where it cannot be said."""

    name: str
    ok: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What can be said of a recorded run from its records alone; true where nothing is wrong."""

    run_id: str
    program_name: str
    checks: tuple[Check, ...]
    replayed: Replay | None = field(default=None, repr=False, compare=False)

    def __bool__(self) -> bool:
        return all(check.ok is not False for check in self.checks)

    def __str__(self) -> str:
        word = {True: "ok", False: "WRONG", None: "unknown"}
        lines = [
            f"{self.program_name}, run {self.run_id}: {'verified' if self else 'NOT VERIFIED'}"
        ]
        return "\n".join(
            [*lines, *(f"  {check.name}: {word[check.ok]}: {check.text}" for check in self.checks)]
        )

    def shown_to(self, receiver: Receiver) -> Verified:
        """The same as *receiver* is shown it, without values that it does not accept."""
        if self.replayed is None:
            return self
        shown = _steps_check(self.replayed.shown_to(receiver))
        checks = (shown if check.name == shown.name else check for check in self.checks)
        return replace(self, checks=tuple(checks))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        checks = {check.name: {"ok": check.ok, "text": check.text} for check in self.checks}
        return {
            "run_id": self.run_id,
            "program_name": self.program_name,
            "verified": bool(self),
            "checks": checks,
        }


def verify(subject: Subject, *, keys: Iterable[str] | None = None) -> Verified:
    """Whether the hash chain of a run holds, its program is the one that it names, and every
    transition was the only legal one; and, where public *keys* are given, whether one of them has
    signed it.

    Raises:
        KeyFault: If one of *keys* is no public key.
    """
    instance(subject, Subject, "what is verified", "write verify(subject_of(run))")
    trace, stored = subject.trace, subject.stored
    replayer = Replayer(subject.program, subject.programs)
    checks = [
        _seal_check(stored)
        if stored is not None
        else Check("seal", True, f"{trace.seal} holds for every record")
    ]
    checks += _signature_check(subject, public_keys(keys) if keys is not None else None)
    fits = replayer.digest == trace.program_digest
    checks.append(
        Check(
            "program",
            fits,
            f"the run is of {trace.program_digest}"
            + ("" if fits else f", not of {replayer.digest}"),
        )
    )
    found = None
    if stored is not None and stored.salt is None:
        checks.append(
            Check(
                "steps", None, "its contents were erased, so what it did can no longer be computed"
            )
        )
    elif fits:
        found = replayer.replay(trace, stored)
        checks.append(_steps_check(found))
    return Verified(trace.run_id, trace.program_name, tuple(checks), found)


def _steps_check(found: Replay) -> Check:
    far = "" if found.complete else "; it has not ended"
    text = (
        str(found.difference)
        if found.difference is not None
        else f"{found.steps}, each the only legal one{far}"
    )
    return Check("steps", found.identical, text)


def _signature_check(subject: Subject, trusted: frozenset[str] | None) -> Iterator[Check]:
    """What the signature of a run says; nothing where there is none and none is asked for."""
    run = subject.stored if subject.stored is not None else subject.trace
    if run.signature is None:
        if trusted is not None:
            yield Check("signature", False, "it is not signed")
        return
    signer = signer_of(run.signature)
    if trusted is not None and signer not in trusted:
        yield Check("signature", False, f"it is signed by another key: {signer}")
    elif not signature_holds(run):
        yield Check("signature", False, f"it is none of {signer} of this seal")
    else:
        told = "" if trusted is not None else "; --key says whether that is the right one"
        yield Check("signature", True, f"signed by {signer}{told}")


def _seal_check(run: StoredRun) -> Check:
    if sealed_as(run) is not None:
        return Check("seal", True, f"{run.seal} holds for every record")
    return Check("seal", False, f"it is {run.seal}, and the records give {seal_of(run)}")
