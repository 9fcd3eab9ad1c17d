"""A changed program and the runs in flight: may a run go on with the new one?

A stored run and a new program come in; None goes out where what is recorded is exactly what the new
program would have recorded so far, with all the data that it needs from here on, else the first
reason why not. Nothing is called and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import VMError
from ..language.program import Program
from ..language.semantics import CALLS, Calls, control, tool_calls
from ..machine.machine import Machine, machine_of
from ..machine.plan import Op, ToolOp
from ..machine.terms import RunTerms
from ..records.record import Record, branch_of, full
from ..run.durable.stored import recorded_in
from ..run.vm import ExecutionVM
from ..store.protocol import RunFilter
from ..store.records import INTENT, STEP, Row, StoredRun
from ..values import UNSET, short


@dataclass(frozen=True, slots=True)
class Migration:
    """Whether a run may go on with another program, and if not, why."""

    run_id: str
    status: str
    program_digest: str
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        told = {"run_id": self.run_id, "status": self.status, "program_digest": self.program_digest}
        return {
            **told,
            "may_move": self.reason is None,
            **({"reason": self.reason} if self.reason else {}),
        }


def migrations(
    vm: ExecutionVM, program: Program, *, name: str | None = None
) -> Iterator[Migration]:
    """Of each unfinished run in the VM's store of a program called *name* (that of *program* unless
    given): may it move to *program*?

    Raises:
        ProgramError: If the VM cannot run *program*.
    """
    store = vm.require_store()
    vm.plan(program)
    for header in store.runs(RunFilter(program=name or program.name)):
        if header.status not in ("pending", "running", "suspended"):
            continue
        run = store.load(header.run_id)
        reason = _why_not(vm, program, run) if run.program_digest != program.digest else None
        yield Migration(run.run_id, run.status, run.program_digest, reason)


def _why_not(vm: ExecutionVM, program: Program, run: StoredRun) -> str | None:
    """Why *run* may not move to *program* on the host of *vm*; None if it may."""
    prepared = vm.preparer.prepare(program, tuple(run.about.get("untrusted_here", ())))
    plan = prepared.plan
    if plan is not None:
        root = plan.frames[0]
        missing = [needed for needed in root.needed if needed not in run.inputs]
        if missing:
            return f"the new program needs input {missing[0]!r}, which the run was not given"
        fault = root.check(run.inputs) if root.check is not None else None
        if fault is not None:
            return f"the run's inputs do not fit the new program's schema: {fault}"
    try:
        vm.preparer.fits(prepared, run)
    except VMError as error:
        return f"this host cannot go on with it: {error}"
    assert plan is not None
    # under the terms that the run was begun with, as a resume has them
    terms = RunTerms.of_record(run.about, program.budget)
    return unlike(
        run,
        machine_of(plan, run.inputs, terms, run.started_ns, run_id=run.run_id, seed=run.seed),
        plan.ops,
        _tools(Program.from_dict(run.document["program"])),
    )


def _tools(program: Program) -> dict[str, str]:
    """The tool of each step, those of programs that are called inline among them."""
    found = {}
    for step, _ in program.walk():
        for call in tool_calls(step)[:1]:
            found[step.id] = call.tool
        match control(step):
            case Calls(Program() as inner):
                found |= _tools(inner)
    return found


def unlike(run: StoredRun, machine: Machine, ops: list[Op], tools: dict[str, str]) -> str | None:
    """The first record of *run* that *machine* would not have made, driven by what is recorded;
    None if there is none.

    *tools* are those that the steps of the run's own program call.
    """
    steps = [row for row in run.rows if row.kind == STEP]
    done = {row.path for row in steps}
    recorded = recorded_in(run, 0)
    asked: dict[str, Op] = {}  # the calls that are not recorded

    def following(one: Machine, op: Op) -> Op | None:
        after = recorded.feed(one, op)
        if after is None:
            asked[one.path] = op
        return after

    machines = recorded.walk(machine, run.started_ns, following)
    made = {
        record.path: record for one in machines for record in (full(r, ops) for r in one.records)
    }
    for row in steps:
        record = made.get(row.path)
        if record is None:
            return f"step {row.path!r} ran, and the new program does not run it there"
        op = record.step
        if isinstance(op, ToolOp) and tools.get(op.step_id, op.tool) != op.tool:
            return (
                f"step {row.path!r}: it called tool {tools[op.step_id]!r}, and with the new "
                f"program it calls {op.tool!r}"
            )
        different = _difference(row, record)
        if different is not None:
            return f"step {row.path!r}: {different}"
    for row in run.rows:
        if row.kind == INTENT and row.path not in done:
            begun = asked.get(row.path)
            same = (
                not isinstance(begun, ToolOp) or tools.get(begun.step_id, begun.tool) == begun.tool
            )
            if begun is None or begun.type != row.type or not same:
                return (
                    f"call {row.path!r} was begun and has no outcome yet, and the new program "
                    f"does not make it there"
                )
    extra = set(made) - done
    for path in sorted(extra):
        if made[path].step.type in CALLS:
            return f"the new program has step {path!r} before what ran already"
    return None


def _difference(row: Row, record: Record) -> str | None:
    """What the new program would have recorded otherwise in the place of *row*."""
    pairs = (
        ("type", row.type, record.step.type),
        ("request", None if row.request is UNSET else row.request, record.asked()),
        ("status", row.status, record.status),
        ("output", None if row.output is UNSET else row.output, record.output),
        ("branch", ((row.rest or {}).get("extra") or {}).get("branch"), branch_of(record.extra)),
    )
    for name, old, new in pairs:
        if old != new:
            return f"its {name} was {short(old)}, and with the new program it is {short(new)}"
    return None
