"""What must hold of a store and of the world after runs were disturbed, whatever disturbed them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from nano_vm import Program, Trace
from nano_vm.machine.faults import effect_key
from nano_vm.records.status import StepStatus
from nano_vm.run.durable.stored import trace_of
from nano_vm.store.protocol import open_store
from nano_vm.store.records import ENDED, StoredRun
from nano_vm.store.seals import seal_of

from .effects import Line
from .life import Place
from .programs import CALLED, EFFECTS, PROGRAMS, drawn, key_of
from .undisturbed import Stage

UNSAFE = ("write", "irreversible")
UNKNOWN = "begun, and nothing says what became of it"


def examine(place: Place, *programs: Program, thorough: bool = True) -> dict[str, Any]:
    """What there is, counted, and under ``faults`` all that must not be.

    *programs* are those that ran, in place of the usual ones; without *thorough*, one run in ten is
    run again undisturbed.
    """
    faults: list[str] = []
    by_run: dict[str, list[Line]] = defaultdict(list)
    for line in place.world.lines():
        by_run[line[1].partition(":")[0]].append(line)
    counted: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    stage = Stage()
    store: Any = open_store(place.url)
    try:
        faults += [f"the store's own check: {problem}" for problem in store.check()]
        for header in store.runs():
            stored = store.load(header.run_id)
            runs[stored.status] += 1
            if stored.status not in ENDED:
                faults.append(
                    f"{stored.run_id}: {stored.status}, owner {stored.owner}, waits for "
                    f"{stored.waiting}"
                )
                continue
            trace = trace_of(stored)
            again = stage if thorough or not drawn(stored.run_id, 10) else None
            faults += [
                f"{stored.run_id}: {fault}"
                for fault in kept_well(stored, trace, programs or PROGRAMS, again)
            ]
            lines = by_run.pop(stored.run_id, [])
            faults += world_fits(stored, trace, lines, counted)
            faults += within_budget(stored, programs or PROGRAMS, lines)
    finally:
        store.close()
    faults += [f"{run_id}: calls were made, and the store has no such run" for run_id in by_run]
    return {
        "runs": dict(runs),
        "steps": counted.pop("steps", 0),
        "world": dict(counted),
        "faults": faults,
    }


def kept_well(
    stored: StoredRun, trace: Trace, programs: Sequence[Program], stage: Stage | None
) -> list[str]:
    """Seal, replay, and the digest of an undisturbed run with the same outcomes."""
    faults = []
    if seal_of(stored) != stored.seal:
        faults.append(f"the seal is {stored.seal}, its records give {seal_of(stored)}")
    program = next(program for program in programs if program.name == stored.program_name)
    try:
        from nano_vm.replay import replay
    except ImportError:
        pass
    else:
        replayed = replay(trace, program, programs=CALLED)
        if not replayed.identical:
            faults.append(f"replay: {replayed}")
    if stage is None or (
        trace.error_kind == "budget" and any("lost" in step.extra for step in trace.steps)
    ):
        return faults  # nobody who is undisturbed runs out of calls
    try:
        other = stage.again(trace, program)
    except Exception as error:  # noqa: BLE001 - whatever a record that cannot be makes of it is a finding
        return [
            *faults,
            f"no undisturbed run has these outcomes: {type(error).__name__}: {error}; "
            f"{trace.error}",
        ]
    if other.digest != trace.digest:
        faults.append(f"an undisturbed run gives another digest: {difference(trace, other)}")
    return faults


def difference(trace: Trace, other: Trace) -> str:
    """The first step at which two traces differ."""
    ours = [_told(step) for step in trace.steps]
    theirs = [_told(step) for step in other.steps]
    for i in range(max(len(ours), len(theirs))):
        a, b = ours[i] if i < len(ours) else None, theirs[i] if i < len(theirs) else None
        if a != b:
            return f"step {i}: {a} and {b}"
    return (
        f"the end: {(trace.status, trace.error, trace.output)} and "
        f"{(other.status, other.error, other.output)}"
    )


def _told(step: Any) -> Any:
    extra = {
        key: value
        for key, value in step.extra.items()
        if key not in ("children", "lost", "settled")
    }
    attempts = [attempt.outcome() for attempt in step.attempts]
    return (
        step.path,
        step.status.value,
        step.request,
        step.output,
        step.error,
        attempts,
        step.usage,
        extra,
        step.branch,
    )


def world_fits(
    stored: StoredRun, trace: Trace, lines: list[Line], counted: Counter[str]
) -> list[str]:
    """That each call was made as often as it may be, and that the trace says of it what
    happened.
    """
    faults = []
    by_key: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_key[line[1]].append(line)
    steps = {
        key_of(stored.run_id, step.path): step
        for step in trace.steps
        if step.type in ("tool", "llm")
    }
    counted["steps"] += len(trace.steps)
    for key, of_key in by_key.items():
        step = steps.get(key)
        refused = step is not None and step.error_kind == "budget" and "lost" in step.extra
        faults += [
            f"{key}: {fault}: {[line[0] for line in of_key]}"
            for fault in calls(key, of_key, counted)
            # a safe call was lost, and none was left to make it again
            if not (refused and fault == UNKNOWN)
        ]
        if step is None:
            faults.append(
                f"{key}: was called, and the trace has no such step: {[line[0] for line in of_key]}"
            )
            continue
        # what it asked about stands under the key of that call
        if step.step_id.endswith("/reconcile"):
            continue
        happened = [line[3] for line in of_key if line[0] == "done"]
        if refused and step.type == "tool":
            continue
        if step.type == "tool" and (step.status is StepStatus.SUCCESS) != bool(happened):
            faults.append(
                f"{key}: the trace says {step.status.value}, the world "
                f"{[line[0] for line in of_key]}"
            )
        if step.type == "tool" and happened and step.output != happened[0]:
            faults.append(f"{key}: the trace says {step.output!r}, the world {happened[0]!r}")
        counted["calls recorded as lost"] += len(step.extra.get("lost", ()))
    for key, step in steps.items():
        if (
            step.status is StepStatus.SUCCESS
            and key not in by_key
            and not step.step_id.endswith("/reconcile")
        ):
            faults.append(f"{key}: the trace says success, and nothing was called")
    return faults


def within_budget(
    stored: StoredRun, programs: Sequence[Program], lines: Sequence[Line]
) -> list[str]:
    """That the world saw no more calls than the budget has; those beside steps count on none."""
    budget = next(program.budget for program in programs if program.name == stored.program_name)
    if budget is None or budget.max_tool_calls is None:
        return []
    begun = [what for word, _, _, what in lines if word == "begin"]
    made = {
        "max_llm_calls": begun.count("model"),
        "max_tool_calls": sum(what != "model" for what in begun),
    }
    return [
        f"{stored.run_id}: {count} calls were made, and {name} is {getattr(budget, name)}"
        for name, count in made.items()
        if count > getattr(budget, name)
    ]


def calls(key: str, lines: list[Line], counted: Counter[str]) -> list[str]:
    """What is wrong with the order of a call's lines."""
    faults = []
    name, given = None, None
    state = "new"  # or begun, over
    kept = False
    run_id, _, path = key.partition(":")
    for word, _, _, what in lines:
        counted[word] += 1
        if word == "begin":
            if what != "model":
                name, given = what
                if given is not None and given != effect_key(run_id, path):
                    faults.append(f"was given the key {given}")
            unsafe = what != "model" and EFFECTS[name] in UNSAFE
            if kept:
                faults.append("made again after its outcome was durable")
            if state == "done" and unsafe:
                faults.append("made again after it was done")
            if state == "begun":
                counted["begun again, safe or a model"] += not unsafe
                if unsafe:
                    faults.append("made again, and nobody had said that it did not happen")
            state = "begun"
        elif word == "cleared":
            counted["in doubt, had not happened"] += 1
            if state != "done":
                state = "new"
        elif word == "kept":
            kept = True
        else:
            state = "done" if word == "done" or state == "done" else "new"
    if state == "begun":
        faults.append(UNKNOWN)
    return faults
