"""What must hold of a simulated world, whatever went wrong in it: at each call, and at the end."""

from __future__ import annotations

from typing import Any

from soak.programs import EFFECTS, key_of

from nano_vm.records.trace import StepStatus
from nano_vm.replay import Replayer
from nano_vm.run.durable.stored import trace_of
from nano_vm.simulation.world import SECOND, Process
from nano_vm.store.protocol import Append
from nano_vm.store.records import ENDED, INTENT, STEP, StoredRun
from nano_vm.store.seals import seal_of

from .life import Life, Said
from .outside import UNSAFE, Call
from .programs import CALLED, CALLED_NEXT, DEADLINES, PROGRAMS, UNDONE


def watch(life: Life) -> None:
    """Look at every call as it begins, and at every append that is stored or acknowledged."""
    life.ledger.begun.append(lambda call, before: _begun(life, call, before))
    life.database.given.append(lambda process, item: _given(life, process, item))
    life.database.appended.append(lambda process, item: _appended(life, process, item))
    life.database.acknowledged.append(lambda process, item: _acknowledged(life, process, item))
    life.database.claimed.append(lambda run, owner: _claimed(life, run, owner))


def _claimed(life: Life, run: StoredRun, owner: str) -> None:
    """A run is about to be *owner*'s: on one machine none that is there loses it."""
    names = {kind: {m.name for m in run.inbox if m.kind == kind} for kind in ("outcome", "resolve")}
    twice = names["outcome"] & names["resolve"]
    life.known_twice |= {(run.run_id, name) for name in twice}
    if run.owner in (None, owner) or not life.database.one_machine:
        return
    there = any(
        process.alive and (run.owner or "").startswith(_name(process))
        for process in life.world.processes
    )
    if there and run.owner in life.database.model._owners:
        life.fault(f"{run.run_id}: taken from {run.owner}, which is there")


def _name(process: Process) -> str:
    """How the owners begin that a process is."""
    return f"{process.computer.name}/{process.computer.boot}/simulated/{process.pid}/"


def _given(life: Life, process: Process, item: Append) -> None:
    run_id = life.database.model._by_key[item.key].run.run_id
    for row in item.rows:
        if row.kind == INTENT:
            life.meant_ns.setdefault((process, key_of(run_id, row.path)), life.world.now)


def _appended(life: Life, process: Process, item: Append) -> None:
    run_id = life.database.model._by_key[item.key].run.run_id
    for row in item.rows:
        if row.kind == STEP and row.type in ("tool", "llm"):
            life.ledger.kept_by.add((process, key_of(run_id, row.path)))


def _acknowledged(life: Life, process: Process, item: Append) -> None:
    run = life.database.model._by_key[item.key].run
    if (item.update or {}).get("status") in ENDED:
        life.ended_ns.setdefault(run.run_id, life.world.now)
    for row in item.rows:
        if row.kind == STEP and row.type in ("tool", "llm"):
            life.ledger.kept.add(key_of(run.run_id, row.path))
    for entry in (item.update or {}).get("waiting", ()):
        ends_ns = _ends_ns(run, entry["path"])
        if ends_ns is not None and entry.get("deadline_ns") != ends_ns:
            life.fault(f"{run.run_id}: {entry['path']} has another deadline than when it began")


def _ends_ns(run: StoredRun, path: str) -> int | None:
    """When what a run waits for at *path* is over, by when it began."""
    seconds = DEADLINES.get((run.program_name, path))
    began = next((r.started_ns for r in run.rows if r.kind == INTENT and r.path == path), None)
    return None if seconds is None or began is None else began + seconds * SECOND


def _timed_out(run: StoredRun, path: str) -> bool:
    """Whether what a run waited for at *path* ended by its time."""
    ends_ns = _ends_ns(run, path)
    over = (r.finished_ns for r in run.rows if r.kind == STEP and r.path == path)
    return ends_ns is not None and max(over, default=0) >= ends_ns


STOPPED_NS = SECOND // 1000
"""How long after it was told to stop a worker may mean to make a call: it hears that in its next
turn.
"""

AWAKE_NS = SECOND // 100
"""The same of one that stood still as it was told: what came meanwhile takes many turns."""


def _after_stop(life: Life, process: Process, run: StoredRun, key: str, meant_ns: int) -> bool:
    """Whether a call was meant, by the clock of its process, after that was told to stop. One that
    was meant before is made: without it its intent would be in doubt. A run's own time may be ahead
    of that clock; and the intent may be given to the store later, where that refused what was given
    before.
    """
    if process not in life.stopped_ns or any(f.kind == "clock" for f in life.world.faults):
        return False
    told_ns = life.stopped_ns[process]
    stood_still = process.frozen_until >= told_ns
    until_ns = process.frozen_until + AWAKE_NS if stood_still else told_ns + STOPPED_NS
    given = {
        row.started_ns: life.meant_ns.get((process, key_of(run.run_id, row.path)))
        for row in run.rows
        if row.kind == INTENT
    }
    clock = process.computer.time_ns
    ahead_ns = [began - clock(at) for began, at in given.items() if at is not None]
    given_ns = life.meant_ns.get((process, key), 0)
    return given_ns > until_ns and meant_ns - max([0, *ahead_ns]) > clock(until_ns)


def _begun(life: Life, call: Call, before: list[Call]) -> None:
    run_id, _, path = call.key.partition(":")
    kept = life.database.model._runs.get(run_id)
    if kept is None:
        life.fault(f"{call.key}: called before its run was stored")
        return
    run, process = kept.run, call.process
    effect = EFFECTS.get(call.tool, "model")
    if not (run.owner or "").startswith(_name(process)):
        life.fault(f"{call.key}: called by {process.name}, and its run is {run.owner}'s")
    if call.key in life.ledger.kept:
        life.fault(f"{call.key}: called again after its outcome was acknowledged")
    intents = [row.started_ns for row in run.rows if row.kind == INTENT and row.path == path]
    if intents and _after_stop(life, process, run, call.key, intents[-1]):
        life.fault(f"{call.key}: meant by {process.name} after it was told to stop")
    if effect != "read" and not intents:
        life.fault(f"{call.key}: called before its intent was stored")
    if effect in UNSAFE:
        for other in before:
            if other.state == "done":
                life.fault(f"{call.key}: called again after it was done")
            elif other.state != "failed" and not other.cleared:
                life.fault(f"{call.key}: called again, and nobody said that it did not happen")


REPLAYERS = {
    replayer.digest: replayer
    for called in (CALLED, CALLED_NEXT)
    for replayer in (Replayer(program, called) for program in PROGRAMS)
}
"""By what they replay: each makes a plan once, and not for each run."""


def whole(life: Life) -> None:
    """Look at each run once all have ended."""
    model = life.database.model
    for run_id in life.ids:
        if model.has(run_id):
            stored = model.load(run_id)
            if stored.status in ENDED:
                for fault in _run(life, stored):
                    life.fault(f"{run_id} ({stored.program_name}): {fault}")
    for fault in _leaks(life):
        life.fault(fault)


def _run(life: Life, stored: StoredRun) -> Any:
    if seal_of(stored) != stored.seal:
        yield "its seal does not fit its records"
    steps = [(row.frame, row.path) for row in stored.rows if row.kind == STEP]
    if len(steps) != len(set(steps)):
        yield "a step is recorded twice"
    yield from _times(stored)
    trace = trace_of(stored)
    program = next(p for p in life.programs if p.name == stored.program_name)
    again = REPLAYERS[stored.program_digest].replay(trace, stored)
    if not again.identical:
        yield f"replay: {again}"
    yield from _effects(life, stored, trace)
    yield from _undone(stored, trace)
    yield from _budget(life, stored, program)
    yield from _messages(life, stored, trace)
    yield from _handed_over(life, stored)


def _times(stored: StoredRun) -> Any:
    """That the time of a run goes on, whatever its clocks were set to."""
    last: dict[str, int] = {}
    for row in stored.rows:
        if row.kind == STEP:
            if row.finished_ns < max(row.started_ns, last.get(row.frame, 0)):
                yield f"its time goes back at {row.path}"
            last[row.frame] = row.finished_ns


def _handed_over(life: Life, stored: StoredRun) -> Any:
    """That what a call gave is never forgotten by a process that goes on: it is recorded, or told
    to who has the run by then.
    """
    told = {m.name for m in (*stored.decided, *stored.inbox) if m.kind == "outcome"}
    for key, calls in life.ledger.of_run(stored.run_id).items():
        path = key.partition(":")[2]
        for call in calls:
            process, at = call.process, call.answered_ns
            if at is None or EFFECTS.get(call.tool) not in UNSAFE or not process.alive:
                continue
            if (process, key) in life.ledger.kept_by or path in told:
                continue
            late = life.world.now - at > LONGEST_NS and process not in life.stopped_ns
            since = max(at, life.world.now - PAID_NS)
            if late and not _disturbed(life, process.name, since, life.world.now):
                yield f"{key}: {process.name} got what it gave, and told nobody"


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
    for key, calls in life.ledger.of_run(stored.run_id).items():
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
    of_run = [call for calls in life.ledger.of_run(stored.run_id).values() for call in calls]
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
    waits = [s for s in trace.steps if s.type == "wait" and s.status is StepStatus.SUCCESS]
    events = [m for m in stored.decided if m.kind == "event"]
    if len(events) != sum(not s.step_id.endswith("pause") for s in waits):
        yield f"{len(waits)} waits are over, and {len(events)} events were used"
    approvals = [m.name for m in stored.decided if m.kind in ("approve", "reject")]
    if len(approvals) != len(set(approvals)):
        yield f"an approval was used twice: {approvals}"
    ids = [message.body["id"] for message in events if "id" in message.body]
    if len(ids) != len(set(ids)):
        yield f"an event was used twice: {ids}"
    yield from _after_cancel(stored)
    for name in sorted(name for run_id, name in life.known_twice if run_id == stored.run_id):
        kinds = {m.kind for m in stored.decided if m.name == name}
        if "resolve" in kinds and "outcome" not in kinds:
            yield f"what {name} gave was there, and a person's word was used"
    for message in stored.decided:
        ends_ns = _ends_ns(stored, message.name.partition("-")[0])
        if ends_ns is not None and message.created_ns >= ends_ns:
            yield f"{message.kind} of {message.name} came too late, and was used"
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
            yield from _not_stopped(life, stored, said)
        elif said.kind == "resolve" and said.name in outcomes:
            continue  # what the call really gave came at the same time, and counts for more
        elif said.kind == "resolve" and said.name.endswith("/reconcile"):
            continue  # who resumed the run since may not ask it: the call itself may be under way
        elif said.driven and _timed_out(stored, said.name.partition("-")[0]):
            continue  # its time was over, by another clock, as it was said
        elif (said.kind, said.name, by) not in used and not cancelled:
            yield f"{said.kind} of {said.name} by {said.by} was acknowledged and is not used"


PAID_NS = 4 * SECOND
"""How long a process may keep what it owes to a run while nothing keeps it from the store: that is
tried twice a second, and an attempt that fails takes up to two.
"""


def _after_cancel(stored: StoredRun) -> Any:
    """That nobody is told that they decide what is to be cancelled already."""
    told = (*stored.decided, *stored.inbox)
    first = min((m.id for m in told if m.kind == "cancel"), default=None)
    for message in told:
        late = first is not None and message.id > first
        if late and message.kind in ("approve", "reject"):
            yield f"{message.kind} of {message.name} was recorded after it was cancelled"


NOTICED_NS = 3 * SECOND // 2
"""How long a cancellation may go unnoticed where nothing is wrong: it is asked for twice a second."""

LONGEST_NS = 10 * SECOND
"""How long what befell a process may last: longer than it is frozen or cut off."""

DISTURBING = frozenset({"freeze", "stall", "partition", "slow", "refused", "lost_answer"})


def _not_stopped(life: Life, stored: StoredRun, said: Said) -> Any:
    """What was begun, or ended well, after a cancellation must have been noticed."""
    late_ns = said.at_ns + NOTICED_NS
    for key, calls in life.ledger.of_run(stored.run_id).items():
        if not key.endswith("/undo"):
            for call in calls:
                if call.begun_ns > late_ns and not _disturbed(
                    life, call.process.name, said.at_ns, call.begun_ns
                ):
                    yield f"cancelled, and {key} was called by {call.process.name}"
    ended_ns = life.ended_ns.get(stored.run_id, 0)
    if stored.status == "success" and ended_ns > late_ns:
        if not _disturbed(life, None, said.at_ns, ended_ns):
            yield "cancelled, and ended in success"


def _disturbed(life: Life, name: str | None, since_ns: int, until_ns: int) -> bool:
    """Whether anything kept a process, or any of them, from hearing the store in that time."""
    return any(at < until_ns and at + life.outage_ns > since_ns for at in life.outages) or any(
        since_ns - LONGEST_NS < fault.at_ns < until_ns
        and fault.kind in DISTURBING
        and name in (None, fault.who)
        for fault in life.world.faults
    )


KEPT_NS = 5 * SECOND
"""How long a process may keep what it knows of a run that has ended elsewhere."""


def _leaks(life: Life) -> Any:
    """What workers still hold of runs that ended long ago: their memory is bounded. A client that
    asks for such a run again holds it while it looks.
    """
    now = life.world.now
    ended = {run for run, at_ns in life.ended_ns.items() if at_ns < now - KEPT_NS}
    for process, vm in life.vms:
        disturbed = _disturbed(life, process.name, now - KEPT_NS, now)
        if not process.alive or process.frozen_until > now or disturbed:
            continue
        if not process.name.startswith("worker"):
            continue
        durable: Any = vm._durable
        held = ended.intersection(durable.lease._held)
        driven = {journal.run.run_id for journal in durable.journals} & ended
        for run_id in sorted(held | driven):
            calls = (call for made in life.ledger.of_run(run_id).values() for call in made)
            if any(call.hung and call.process is process for call in calls):
                continue  # it waits for an answer that never comes
            yield f"{process.name} still holds {run_id}, which has ended"
