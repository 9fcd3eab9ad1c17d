"""What must hold of a simulated world, whatever went wrong in it: at each call, and at the end."""

from __future__ import annotations

from typing import Any

from soak.programs import EFFECTS, key_of

from nano_vm.records.trace import StepStatus
from nano_vm.replay import replay
from nano_vm.run.durable.stored import trace_of
from nano_vm.simulation.world import SECOND, Process
from nano_vm.store.protocol import Append
from nano_vm.store.records import ENDED, INTENT, STEP, StoredRun
from nano_vm.store.seals import seal_of

from .life import Life
from .outside import UNSAFE, Call
from .programs import CALLED, UNDONE


def watch(life: Life) -> None:
    """Look at every call as it begins, and at every append that is acknowledged."""
    life.ledger.begun.append(lambda call, before: _begun(life, call, before))
    life.database.acknowledged.append(lambda process, item: _acknowledged(life, process, item))


def _acknowledged(life: Life, process: Process, item: Append) -> None:
    run = life.database.model._by_key[item.key].run
    if (item.update or {}).get("status") in ENDED:
        life.ended_ns.setdefault(run.run_id, life.world.now)
    for row in item.rows:
        if row.kind == STEP and row.type in ("tool", "llm"):
            life.ledger.kept.add(key_of(run.run_id, row.path))


def _begun(life: Life, call: Call, before: list[Call]) -> None:
    run_id, _, path = call.key.partition(":")
    kept = life.database.model._runs.get(run_id)
    if kept is None:
        life.fault(f"{call.key}: called before its run was stored")
        return
    run, process = kept.run, call.process
    effect = EFFECTS.get(call.tool, "model")
    owner = f"{process.computer.name}/{process.computer.boot}/simulated/{process.pid}/"
    if not (run.owner or "").startswith(owner):
        life.fault(f"{call.key}: called by {process.name}, and its run is {run.owner}'s")
    if call.key in life.ledger.kept:
        life.fault(f"{call.key}: called again after its outcome was acknowledged")
    intents = sum(row.kind == INTENT and row.path == path for row in run.rows)
    if effect != "read" and not intents:
        life.fault(f"{call.key}: called before its intent was stored")
    if effect in UNSAFE:
        for other in before:
            if other.state == "done":
                life.fault(f"{call.key}: called again after it was done")
            elif other.state != "failed" and not other.cleared:
                life.fault(f"{call.key}: called again, and nobody said that it did not happen")


REPLAYED_RUNS = 3
"""How many runs of a world are replayed: to compile their programs again costs more than the rest."""


def whole(life: Life) -> None:
    """Look at each run once all have ended."""
    model = life.database.model
    for number, run_id in enumerate(life.ids):
        if model.has(run_id):
            stored = model.load(run_id)
            if stored.status in ENDED:
                replayed = (number + life.seed) % len(life.ids) < REPLAYED_RUNS
                for fault in _run(life, stored, replayed=replayed):
                    life.fault(f"{run_id} ({stored.program_name}): {fault}")


def _run(life: Life, stored: StoredRun, *, replayed: bool) -> Any:
    if seal_of(stored) != stored.seal:
        yield "its seal does not fit its records"
    steps = [(row.frame, row.path) for row in stored.rows if row.kind == STEP]
    if len(steps) != len(set(steps)):
        yield "a step is recorded twice"
    trace = trace_of(stored)
    program = next(p for p in life.programs if p.name == stored.program_name)
    if replayed:
        again = replay(trace, program, programs=CALLED)
        if not again.identical:
            yield f"replay: {again}"
    yield from _effects(life, stored, trace)
    yield from _undone(stored, trace)
    yield from _budget(life, stored, program)
    yield from _messages(life, stored, trace)


def _effects(life: Life, stored: StoredRun, trace: Any) -> Any:
    recorded = {
        key_of(stored.run_id, step.path): step
        for step in trace.steps
        if step.type in ("tool", "llm") and not step.step_id.endswith("/reconcile")
    }
    for key, step in recorded.items():
        done = life.ledger.truth(key)
        success = step.status is StepStatus.SUCCESS
        if step.type != "tool":
            continue
        if success and done is None:
            yield f"{key}: recorded as done, and it was not"
        if success and done is not None and step.output != done.output:
            yield f"{key}: recorded {step.output!r}, and it gave {done.output!r}"
        tool = next((c.tool for c in life.ledger.calls.get(key, ())), None)
        unknown = success or step.status is StepStatus.IN_DOUBT
        if tool is not None and EFFECTS[tool] in UNSAFE and done is not None and not unknown:
            yield f"{key}: recorded as {step.status.value} ({step.error}), and it was done"
    for key, calls in life.ledger.calls.items():
        if key.partition(":")[0] != stored.run_id:
            continue
        unsafe = [call for call in calls if EFFECTS.get(call.tool) in UNSAFE]
        if sum(call.state == "done" for call in unsafe) > 1:
            yield f"{key}: done twice"
        if unsafe and key not in recorded:
            yield f"{key}: called, and no step says so"


def _undone(stored: StoredRun, trace: Any) -> Any:
    """That all that was done is undone, last first, and nothing where the run succeeded."""
    done = [step.path for step in trace.steps if step.status is StepStatus.SUCCESS]
    undone = [s.path.removesuffix("/undo") for s in trace.steps if s.path.endswith("/undo")]
    if stored.status == "success":
        if undone:
            yield f"{undone} were undone, and the run succeeded"
        return
    due = [path for path in reversed(UNDONE.get(stored.program_name, ())) if path in done]
    if undone != due:
        yield f"{undone} were undone, and {due} were due"


def _budget(life: Life, stored: StoredRun, program: Any) -> Any:
    budget = program.budget
    if budget is None:
        return
    of_run = [
        call
        for key, calls in life.ledger.calls.items()
        if key.partition(":")[0] == stored.run_id
        for call in calls
    ]
    counts = {
        "max_llm_calls": sum(call.tool == "model" for call in of_run),
        "max_tool_calls": sum(call.tool != "model" for call in of_run),
    }
    for name, count in counts.items():
        most = getattr(budget, name)
        if most is not None and count > most:
            yield f"{count} calls, and {name} is {most}"


def _messages(life: Life, stored: StoredRun, trace: Any) -> Any:
    used = {(m.kind, m.name, m.by) for m in stored.decided}
    approvals = [m.name for m in stored.decided if m.kind in ("approve", "reject")]
    if len(approvals) != len(set(approvals)):
        yield f"an approval was used twice: {approvals}"
    if stored.run_id in life.cancelled_at_rest and stored.status == "success":
        yield "cancelled while it waited, and went on"
    if stored.status == "cancelled" and not any(m.kind == "cancel" for m in stored.decided):
        yield "cancelled, and by nobody"
    cancelled = any(m.kind == "cancel" for m in (*stored.decided, *stored.inbox))
    outcomes = {m.name for m in (*stored.decided, *stored.inbox) if m.kind == "outcome"}
    for said in life.said:
        if said.run_id != stored.run_id:
            continue
        by = None if said.kind == "event" else said.by
        if said.kind == "cancel":
            noticed_ns = said.at_ns + _noticed_ns(life)
            if _called_after(life, stored, noticed_ns):
                yield "cancelled, and went on"
            if stored.status == "success" and life.ended_ns.get(stored.run_id, 0) > noticed_ns:
                yield "cancelled, and ended in success"
        elif said.kind == "resolve" and said.name in outcomes:
            continue  # what the call really gave came at the same time, and counts for more
        elif said.kind == "resolve" and said.name.endswith("/reconcile"):
            continue  # who resumed the run since may not ask it: the call itself may be under way
        elif (said.kind, said.name, by) not in used and not cancelled:
            yield f"{said.kind} of {said.name} by {said.by} was acknowledged and is not used"


def _noticed_ns(life: Life) -> int:
    """How long a cancellation may go unnoticed: half a second, unless its process stands still or
    does not reach the store.
    """
    rates = life.world.rates
    disturbed = rates.freeze or rates.partition or rates.slow or rates.refused or life.outages
    return (60 if disturbed else 3) * SECOND


def _called_after(life: Life, stored: StoredRun, at_ns: int) -> bool:
    """Whether a call was begun after that, but for those that undo."""
    return any(
        call.begun_ns > at_ns and not key.endswith("/undo")
        for key, calls in life.ledger.calls.items()
        if key.partition(":")[0] == stored.run_id
        for call in calls
    )
