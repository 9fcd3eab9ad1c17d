"""What must hold of a simulated world, whatever went wrong in it: at each call and append, and at the
end.

- One driver of a run at a time, in the store's eyes: `_begun`, `_appended`, `_claimed`.
- No `write` or `irreversible` call is begun again without a word on what became of it: `_begun`.
- Every acknowledged word is used, or came too late for a reason: `_messages`, `_in_time`.
- What is recorded of a call is what the ledger says, or in doubt, and then names who made it:
  `_effects`, `_handed_over`, `_appended`.
- What was done is undone exactly: `_undone`. Budgets are true, lost calls included: `_budget`.
- An approval is used once: `_messages`. Time goes on: `_times`.
- Every run ends within `PATIENCE_NS` after the last fault: `Life.live`.
- The digest is that of the undisturbed run of the same outcomes, and the seal holds: `_run`.
- Memory is bounded: `_leaks` of processes, `_ghosts` of the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from soak.programs import key_of

from nano_vm.records.record import Record, flattened
from nano_vm.records.trace import StepStatus
from nano_vm.replay import Replayer
from nano_vm.run.durable.stored import trace_of
from nano_vm.simulation.world import SECOND, Process
from nano_vm.store.protocol import Append
from nano_vm.store.records import ENDED, INTENT, STEP, SUSPENDED, Row, StoredRun
from nano_vm.store.seals import seal_of

from .life import Life, Said
from .outside import UNSAFE, Call
from .programs import CALLED, CALLED_NEXT, DEADLINES, EFFECTS, FOCUSED, PROGRAMS, UNDONE


def watch(life: Life) -> None:
    """Look at every call as it begins, and at every append that is stored or acknowledged."""
    life.ledger.fence_of = lambda run_id: life.database.model._runs[run_id].run.fence
    life.ledger.begun.append(lambda call, before: _begun(life, call, before))
    life.database.given.append(lambda process, item: _given(life, process, item))
    life.database.appended.append(lambda process, item: _appended(life, process, item))
    life.database.acknowledged.append(lambda process, item: _acknowledged(life, process, item))
    life.database.claimed.append(lambda run, before: _claimed(life, run, before))


def _claimed(life: Life, run: StoredRun, before: str | None) -> None:
    """A run that was *before*'s has another owner: on one machine none that is there loses it."""
    life.drivers[run.run_id, run.fence] = str(run.owner)
    names = {kind: {m.name for m in run.inbox if m.kind == kind} for kind in ("outcome", "resolve")}
    twice = names["outcome"] & names["resolve"]
    life.known_twice |= {(run.run_id, name) for name in twice}
    if before in (None, run.owner) or not life.database.one_machine:
        return
    there = any(
        process.alive and (before or "").startswith(_name(process))
        for process in life.world.processes
    )
    if there and before in life.database.model._owners:
        life.fault(f"{run.run_id}: taken from {before}, which is there")


def _name(process: Process) -> str:
    """How the owners begin that a process is."""
    return f"{process.computer.name}/{process.computer.boot}/simulated/{process.pid}/"


def _given(life: Life, process: Process, item: Append) -> None:
    run_id = life.database.model._by_key[item.key].run.run_id
    for row in item.rows:
        if row.kind == INTENT:
            life.meant_ns.setdefault((process, key_of(run_id, row.path)), life.world.now)


def _appended(life: Life, process: Process, item: Append) -> None:
    run = life.database.model._by_key[item.key].run
    if item.fence != run.fence:  # it was stored before another owner came, and is given again
        return
    run_id = run.run_id
    driver = life.drivers.get((run_id, item.fence))
    if driver is not None and not driver.startswith(_name(process)):
        life.fault(f"{run_id}: {process.name} appends to what {driver} has claimed")
    for row in item.rows:
        if row.kind == INTENT:
            life.makers[key_of(run_id, row.path)] = process
        if row.kind == STEP and row.type in ("tool", "llm"):
            life.ledger.kept_by.add((process, key_of(run_id, row.path)))
    update = item.update or {}
    for entry in update["waiting"] if update.get("status") == SUSPENDED else ():
        maker = life.makers.get(key_of(run_id, entry["path"]))
        if entry["kind"] == "in_doubt" and maker is not None:
            if not entry.get("owner", "").startswith(_name(maker)):
                life.fault(
                    f"{run_id}: {entry['path']} is in doubt, begun by {entry.get('owner')} as it "
                    f"says, and it was {maker.name}"
                )


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


def _asked_at(run: StoredRun, name: str) -> str:
    """The path at which a run asks for what a message of that *name* says."""
    word = name.partition("-")[0]
    paths = (path for program, path in DEADLINES if program == run.program_name)
    return next((path for path in paths if path.rpartition("/")[2] == word), word)


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
    elif not life.database.model._lives(run.owner or ""):
        life.fault(f"{call.key}: called by {process.name}, whose lease has ended in the store")
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
    for replayer in (Replayer(program, called) for program in (*PROGRAMS, *FOCUSED))
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
    for fault in (*_leaks(life), *_ghosts(life)):
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
    made = flattened(trace.recording.full())
    yield from _effects(life, stored, made)
    yield from _undone(stored, made)
    yield from _budget(life, stored, program)
    yield from _messages(life, stored, made)
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


def _effects(life: Life, stored: StoredRun, made: Sequence[Record]) -> Any:
    recorded = {
        key_of(stored.run_id, step.path): step
        for step in made
        if step.step.type in ("tool", "llm") and not step.step.step_id.endswith("/reconcile")
    }
    for key, step in recorded.items():
        done = life.ledger.truth(key)
        success = step.status is StepStatus.SUCCESS
        if step.step.type != "tool":
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


def _undone(stored: StoredRun, made: Sequence[Record]) -> Any:
    """That all that was done is undone, last first, and nothing where the run succeeded."""
    done = [step.path for step in made if step.status is StepStatus.SUCCESS]
    undone = [s.path.removesuffix("/undo") for s in made if s.path.endswith("/undo")]
    if stored.status == "success":
        if undone:
            yield f"{undone} were undone, and the run succeeded"
        return
    due = [path for path in reversed(UNDONE.get(stored.program_name, ())) if path in done]
    if undone != due:
        yield f"{undone} were undone, and {due} were due"


def _budget(life: Life, stored: StoredRun, program: Any) -> Any:
    """That no budget is exceeded, lost calls included, and none used up before its time; and that
    what is recorded of tokens is what the answers took.
    """
    answers = [row for row in stored.rows if row.kind == STEP and row.usage is not None]
    tokens = sum(row.usage.total_tokens or 0 for row in answers if row.usage is not None)
    if stored.tokens != tokens:
        yield f"{stored.tokens} tokens, and its answers took {tokens}"
    budget = program.budget
    if budget is None:
        return
    calls = [call for calls in life.ledger.of_run(stored.run_id).values() for call in calls]
    begun = Counter(row.type for row in stored.rows if row.kind == INTENT)
    used = {
        "max_llm_calls": (sum(call.tool == "model" for call in calls), begun["llm"]),
        "max_tool_calls": (sum(call.tool != "model" for call in calls), begun["tool"]),
    }
    limits = {name: getattr(budget, name) for name in used if getattr(budget, name) is not None}
    for name, most in limits.items():
        if used[name][0] > most:
            yield f"{used[name][0]} calls, and {name} is {most}"
    if stored.error_kind == "budget" and all(used[name][1] < most for name, most in limits.items()):
        yield f"its budget is used up, and it began {dict(begun)} calls of {limits}"


def _messages(life: Life, stored: StoredRun, made: Sequence[Record]) -> Any:
    used = {(m.kind, m.name, m.by) for m in stored.decided}
    waits = [s for s in made if s.step.type == "wait" and s.status is StepStatus.SUCCESS]
    events = [m for m in stored.decided if m.kind == "event"]
    if len(events) != sum(not s.step.step_id.startswith("pause") for s in waits):
        yield f"{len(waits)} waits are over, and {len(events)} events were used"
    approvals = [m.name for m in stored.decided if m.kind in ("approve", "reject")]
    if len(approvals) != len(set(approvals)):
        yield f"an approval was used twice: {approvals}"
    ids = [message.body["id"] for message in events if "id" in message.body]
    if len(ids) != len(set(ids)):
        yield f"an event was used twice: {ids}"
    yield from _after_cancel(stored)
    yield from _in_time(life, stored)
    for name in sorted(name for run_id, name in life.known_twice if run_id == stored.run_id):
        kinds = {m.kind for m in stored.decided if m.name == name}
        if "resolve" in kinds and "outcome" not in kinds:
            yield f"what {name} gave was there, and a person's word was used"
    for message in stored.decided:
        ends_ns = _ends_ns(stored, _asked_at(stored, message.name))
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
        key = key_of(stored.run_id, said.name)
        if said.kind == "cancel":
            yield from _not_stopped(life, stored, said)
        elif said.kind == "resolve" and said.name in outcomes:
            continue  # what the call really gave came at the same time, and counts for more
        elif said.kind == "resolve" and _told_before(life, key, said.at_ns):
            continue  # its reconcile tool had told what became of it
        elif said.kind == "resolve" and said.name.endswith("/reconcile"):
            continue  # who resumed the run since may not ask it: the call itself may be under way
        elif said.driven and _timed_out(stored, _asked_at(stored, said.name)):
            continue  # its time was over, by another clock, as it was said
        elif (said.kind, said.name, by) not in used and not cancelled:
            yield f"{said.kind} of {said.name} by {said.by} was acknowledged and is not used"


def _told_before(life: Life, key: str, at_ns: int) -> bool:
    """Whether a reconcile tool had told what became of a call by then."""
    told_ns = life.ledger.told_ns.get(key)
    return told_ns is not None and told_ns <= at_ns


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


def _in_time(life: Life, stored: StoredRun) -> Any:
    """That what came in time is used, also where it was asked for late. Those whose clocks differ do
    not agree on what is in time.
    """
    if not life.right_clocks or any(f.kind == "clock" for f in life.world.faults):
        return
    if any(m.kind == "cancel" for m in (*stored.decided, *stored.inbox)):
        return
    over = {r.path for r in stored.rows if r.kind == STEP and _kind_of_error(r) == "timeout"}
    for message in stored.inbox:
        path = _asked_at(stored, message.name)
        ends_ns = _ends_ns(stored, path)
        if path in over and ends_ns is not None and message.created_ns < ends_ns:
            yield f"{message.kind} of {path} came in time, and is not used"


def _kind_of_error(row: Row) -> str | None:
    error = (row.rest or {}).get("error")
    return error["kind"] if error is not None else None


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


FORGOTTEN_NS = 10 * SECOND
"""How long the store may know a process that others of its machine see to be gone: each looks
whenever it asks for runs.
"""


def _ghosts(life: Life) -> Any:
    """What the store still knows and needs no more: waits of runs that have ended, and owners that
    ended long ago on the machine of others.
    """
    now, model = life.world.now, life.database.model
    for key, path in model._marks:
        if model._by_key[key].run.status in ENDED:
            yield f"{model._by_key[key].run.run_id} has ended, and events are sought for {path}"
    if not life.database.one_machine or _disturbed(life, None, now - FORGOTTEN_NS, now):
        return
    for process in life.world.processes:
        if not process.alive and process.ended_ns < now - FORGOTTEN_NS:
            for owner in model._owners:
                if owner.startswith(_name(process)):
                    yield f"{process.name} ended long ago, and the store knows it as {owner}"


KEPT_NS = 5 * SECOND
"""How long a process may keep what it knows of a run that has ended elsewhere."""


def _leaks(life: Life) -> Any:
    """What workers still hold of runs that ended long ago: their memory is bounded. A client that
    asks for such a run again holds it while it looks.
    """
    now = life.world.now
    ended = {run for run, at_ns in life.ended_ns.items() if at_ns < now - KEPT_NS}
    keys = {key: kept.run.run_id for key, kept in life.database.model._by_key.items()}
    for process, vm in life.vms:
        disturbed = _disturbed(life, process.name, now - KEPT_NS, now)
        if not process.alive or process.frozen_until > now or disturbed:
            continue
        if not process.name.startswith("worker"):
            continue
        durable: Any = vm._durable
        held = ended.intersection(durable.lease._held)
        held |= {debt.run_id for debt in durable.lease._debts} & ended
        held |= {journal.run.run_id for journal in durable.journals} & ended
        held |= {keys[key] for key in durable.listener._runs} & ended
        for run_id in sorted(held):
            calls = (call for made in life.ledger.of_run(run_id).values() for call in made)
            if any(call.hung and call.process is process for call in calls):
                continue  # it waits for an answer that never comes
            yield f"{process.name} still holds {run_id}, which has ended"
