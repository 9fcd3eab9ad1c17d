"""Runs on a Temporal cluster, for commands that are given ``--engine temporal``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UnknownRun, VMError
from ..machine.pending import shown_digest
from ..records.secrecy import levels_of, shown_to
from .connection import connected, encryption_of, given, on_cluster, refuse
from .decide import waiting_lines
from .faults import FAILED, OK, UsageFault
from .grammar import Options, typed
from .inbox import agreed, asked_at, asks_here, payload, principal, recorded
from .inputs import text_of
from .output import complain, emit_json, json_line, note, say
from .said import filter_of
from .stdin import STDIN
from .summary import exit_code, print_steps, summary_lines
from .text import diagnostic_lines, safe, shown
from .times import age

if TYPE_CHECKING:
    from ..records.trace import Trace
    from ..run.vm import ExecutionVM
    from ..temporal import Listed, TemporalRuns
    from ..temporal.histories import Replayed

T = TypeVar("T")


def runs(options: Options) -> int:
    """As ``nano-vm runs``."""
    from ..temporal import listed

    refuse(options, _OF_RUNS)
    if "pending" in (options.status or ()):
        raise UsageFault("--status pending: a run on a cluster is running from its beginning")
    queue = options.queue if typed("queue") else None
    wanted = filter_of(options)

    async def found(runs: TemporalRuns) -> list[tuple[Listed, Trace | None]]:
        rows = await listed(runs.client, wanted, queue=queue, limit=options.limit)
        return await _traced(runs, rows) if options.waiting else [(one, None) for one in rows]

    rows = on_cluster(options, found)
    if options.json:
        emit_json([_listed_json(one, trace) for one, trace in rows])
        return OK
    for one, trace in rows:
        say(_listed_line(one))
        if trace is not None:
            waiting = shown_to("show", trace).waiting
            for line in waiting_lines(one.run_id, waiting, given(options)):
                say(line)
    return OK


TRACES_AT_ONCE = 16
"""Of how many runs of a list the traces are asked for at a time: one may have 2 MB, and the workers
have it to compute.
"""


async def _traced(
    runs: TemporalRuns, rows: Collection[Listed]
) -> list[tuple[Listed, Trace | None]]:
    """The *rows* with the traces of their runs: none where no worker answers, or with a note where
    it cannot be had. What was deleted since is left out.
    """
    slots = asyncio.Semaphore(TRACES_AT_ONCE)

    async def traced(one: Listed) -> tuple[Listed, Trace | None] | None:
        async with slots:
            try:
                return one, await runs.trace(one.run_id)
            except UnknownRun:
                return None
            except VMError as error:
                complain(str(error))
                return one, None

    found = await asyncio.gather(*map(traced, rows))
    return [each for each in found if each is not None]


_OF_RUNS = {
    **dict.fromkeys(
        ("parent", "submitter", "min_cost", "waiting_for"),
        "a cluster finds no runs by it; the store of a worker does",
    ),
    "program_version": (
        "a cluster finds no runs by a digest; the store of a worker does, and temporal workflow "
        "list --query \"NanoVersion = '7.1'\" finds them by the version that their author wrote"
    ),
}


def _listed_line(one: Listed) -> str:
    labels = [f"{name}={value}" for name, value in one.labels.items()]
    words = [f"project {one.project}", *labels] if one.project is not None else labels
    cells = (
        f"{one.run_id:<32}",
        f"{one.program or '-':<20}",
        f"{one.status:<10}",
        f"{age(one.began_ns):>5}",
        ", ".join(words),
    )
    return safe("  ".join(cells).rstrip())


def _listed_json(one: Listed, trace: Trace | None) -> dict[str, Any]:
    told = asdict(one)
    if trace is not None:
        levels = levels_of(trace)
        told["waiting"] = [
            # of the whole entry, as the run itself holds a decision against it
            {**levels.waiting("show", entry), "shown": shown_digest(entry)}
            for entry in trace.waiting
        ]
    return told


def show(options: Options) -> int:
    """As ``nano-vm show``."""
    refuse(options)

    async def found(runs: TemporalRuns) -> tuple[Trace | None, list[dict[str, Any]], str | None]:
        fault = await runs.fault(options.run)
        if fault is not None:  # nobody would answer
            return None, [], fault
        trace = await runs.trace(options.run)
        return trace, [] if trace is None else await runs.waiting(options.run), None

    trace, waiting, fault = on_cluster(options, found)
    if options.json:
        emit_json(_shown_json(options.run, trace, waiting, fault))
        return OK
    if trace is None:
        why = "has no worker that answers: none has taken it yet, or none runs now"
        if fault is not None:
            why = f"stands still: no worker can go on with it: {fault}"
        say(safe(f"run {options.run} {why}"))
        return OK
    say(safe(f"{trace.program_name}, run {trace.run_id}"))
    printed(trace, options)
    return OK


def _shown_json(
    run_id: str, whole: Trace | None, waiting: list[dict[str, Any]], fault: str | None
) -> dict[str, Any]:
    if whole is None:
        told: dict[str, Any] = {"run_id": run_id, "status": "pending", "waiting": [], "trace": None}
        return told if fault is None else {**told, "fault": fault}
    levels = levels_of(whole)
    return {
        "run_id": run_id,
        "status": whole.status.value,
        "waiting": [levels.waiting("show", entry) for entry in waiting],
        "trace": shown_to("show", whole).to_dict(),
    }


def printed(whole: Trace, options: Options) -> None:
    """A run as it stands, and the commands that answer what it waits for."""
    trace = shown_to("show", whole)
    print_steps(trace)
    for line in diagnostic_lines(trace.diagnostics):
        note(line)
    if trace.error is not None and not trace.diagnostics:
        note(f"error: {safe(trace.error)}")
    for line in waiting_lines(trace.run_id, trace.waiting, given(options)):
        say(line)
    for line in summary_lines(trace):
        say(line)


def replay(options: Options) -> int:
    """As ``nano-vm replay``: the history of a run on the cluster, or of a file."""
    from ..temporal.histories import histories_of, history_of, replayed
    from ..temporal.storage import converter_of

    refuse(options)
    if options.program_file:
        raise UsageFault("--program does not go with --engine temporal: a history has its program")
    named = options.run == STDIN or os.path.exists(options.run)
    file = history_of(text_of(options.run, "the history"), options.run) if named else None

    async def done() -> list[Replayed]:
        if file is not None:
            return [await replayed(file, converter_of(options.payloads, encryption_of(options)))]
        client = await connected(options)
        histories = await histories_of(client, options.run)
        return [await replayed(history, client.data_converter) for history in histories]

    found = asyncio.run(done())
    if options.json:
        emit_json([_replayed_json(one) for one in found])
        return OK
    for one in found:
        say(safe(f"{one.run_id}: {one.events} events; each command is as recorded; {_end(one)}"))
    return OK


def _end(one: Replayed) -> str:
    if one.trace is not None:
        return f"so is the trace: {one.trace.status.value}, digest {one.trace.digest}"
    return one.end or "it has not ended, or the history is cut short"


def _replayed_json(one: Replayed) -> dict[str, Any]:
    trace = one.trace
    return {
        "run_id": one.run_id,
        "events": one.events,
        "end": one.end,
        "status": None if trace is None else trace.status.value,
        "digest": None if trace is None else trace.digest,
    }


def approve(options: Options) -> int:
    """As ``nano-vm approve``."""
    refuse(options)
    asks = asks_here(options, options.run, given(options))
    options.by = principal(options)

    async def decide(runs: TemporalRuns) -> str | None:
        entry = await _asked(runs, options)
        if asks and not agreed(options.run, entry, options.by, given(options)):
            return None
        digest = entry["shown"] if asks else options.shown
        path = str(entry["path"])
        await runs.approve(options.run, path, shown=digest, by=options.by, reason=options.reason)
        return path

    path = on_cluster(options, decide)
    if path is None:
        note("nothing was recorded")
        return FAILED
    return _recorded(options, "approve", path)


async def _asked(runs: TemporalRuns, options: Options) -> dict[str, Any]:
    waiting = await runs.waiting(options.run)
    return asked_at(waiting, options.run, options.path, given(options))


def reject(options: Options) -> int:
    """As ``nano-vm reject``."""
    refuse(options)
    options.by = principal(options)

    async def decide(runs: TemporalRuns) -> str:
        path = str((await _asked(runs, options))["path"])
        await runs.reject(
            options.run, path, shown=options.shown, by=options.by, reason=options.reason
        )
        return path

    return _recorded(options, "reject", on_cluster(options, decide))


def event(options: Options, run_id: str, name: str, text: str | None) -> int:
    """As ``nano-vm event``, to one run."""
    refuse(options)
    brings = payload(text, "the payload")
    options.run = run_id
    is_new = on_cluster(options, lambda runs: runs.send_event(run_id, name, brings, id=options.id))
    return _recorded(options, "event" if is_new else None, name)


def resolve(options: Options, done: Any, by: str) -> int:
    """As ``nano-vm resolve``."""
    refuse(options)
    options.by = by
    on_cluster(
        options,
        lambda runs: runs.resolve(
            options.run, options.path, done=done, retry=options.retry, fail=options.fail, by=by
        ),
    )
    return _recorded(options, "resolve", options.path)


_OF_CANCEL = {
    "by": "a cluster does not record who cancels",
    **dict.fromkeys(
        ("tools", "mcp", "model", "answer", "policy", "price", "untrusted"),
        "the workers of the cluster undo what a run did",
    ),
}


def cancel(options: Options) -> int:
    """As ``nano-vm cancel``: waits until what was done is undone."""
    refuse(options, _OF_CANCEL)
    trace = on_cluster(options, lambda runs: runs.cancel(options.run))
    if options.json:
        emit_json(trace.to_dict())
    else:
        printed(trace, options)
    return OK if trace.status.value == "cancelled" else FAILED


def _recorded(options: Options, what: str | None, name: str) -> int:
    """Say that a word was recorded; a worker goes on with the run at once."""
    return recorded(options, options.run, what, name, how="")


def finished(trace: Trace, options: Options) -> int:
    """Print how a run ended, or stands; the exit code."""
    if options.json:
        say(json_line({**trace.summary(), "trace": trace.to_dict()}))
    else:
        say(safe(f"run {trace.run_id}"))
        printed(trace, options)
    return exit_code(trace, None)


def joined(options: Options) -> None:
    """Say that a run is there already; its steps are not made again."""

    async def look(runs: TemporalRuns) -> str | None:
        try:
            trace = await runs.trace(options.run_id)
        except UnknownRun:
            return None
        return "pending" if trace is None else trace.status.value

    status = on_cluster(options, look)
    if status is not None:
        note(safe(f"nano-vm: run {options.run_id} is there already ({status})"))


async def working(vm: ExecutionVM, options: Options, telemetry: Mapping[str, Any]) -> int:
    """Work on the cluster until a signal; calls under way have ten seconds to end. *telemetry* as
    `telemetry_of`.
    """
    from ..temporal import worker
    from .signals import stopped_by_signals

    client = await connected(options, **telemetry)
    stop = asyncio.Event()

    def stopping() -> None:
        note("stopping: calls under way have ten seconds to end; Ctrl-C again stops at once")
        stop.set()

    farewell = "calls that were under way are in doubt, or made again by another worker"
    with stopped_by_signals(stopping, farewell=farewell):
        async with worker(
            client, vm, options.queue, max_concurrent_activities=vm.preparer.threads.size
        ):
            note(f"working on queue {shown(options.queue)} of {safe(options.address)}")
            await stop.wait()
    return OK
