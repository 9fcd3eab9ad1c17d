"""A run as JSON for a page that shows it: its program's chart, the arrows that it took, its steps
in the order of their records, what is under way and what it waits for.

A trace comes in, or a stored run with its rows, and what is known of its program. Every value goes
out as a string of canonical JSON: a browser would round large integers, drop the ``.0`` of a float
and put keys that look like numbers in another order. Times are milliseconds since the run began.

With ``content=False`` nothing of what inputs, models, tools and people said goes out: path, times,
tokens and costs remain, and the program's own text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired

from typing_extensions import TypedDict  # of typing, pydantic reads it from Python 3.12 on

from ..collector import collector_paused
from ..errors import VMError
from ..language.flow import Flow
from ..language.program import Program
from ..language.semantics import CALLS
from ..machine.faults import effect_key
from ..newest import Newest
from ..records.record import Record, edge_of, step_of
from ..records.secrecy import NOTHING_SECRET, REDACTED, Levels, Receiver, redacted, shown_to
from ..records.trace import Trace
from ..replay import program_of
from ..replay.rerun import programs_of
from ..run.durable.stored import begun_calls, paused_rows, trace_of
from ..run.inbox import presented
from ..store.records import RUNNING, STEP, SUSPENDED, Message, Row, StoredRun
from ..values import canonical
from .chart import Chart, ChartData, Stop, box_of
from .routes import Passed, Routes, routes_of

VIEW_FORMAT = 1


class AttemptView(TypedDict):
    """An attempt that failed."""

    error: ErrorView
    answer: NotRequired[str]
    tokens: NotRequired[int]
    cost: NotRequired[str | None]
    start: float
    end: float


class ErrorView(TypedDict):
    """Why something failed."""

    kind: str
    type: str
    message: str


class UsageView(TypedDict):
    """The tokens of a call, with those that a provider tells apart; ``cost_usd`` is a decimal."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: NotRequired[int]
    cache_write_tokens: NotRequired[int]
    reasoning_tokens: NotRequired[int]
    cost_usd: NotRequired[str]


class StepView(TypedDict):
    """A step as it is recorded, or one that is ``running``: begun, and without an outcome.

    ``output``, ``request`` and the values of ``references`` are strings of canonical JSON.
    ``beside`` is ``undo`` or ``reconcile`` for a call that is made beside a step.
    """

    path: str
    box: str
    frame: str
    step: str
    type: str
    status: str
    start: float
    end: float | None
    output: NotRequired[str]
    request: NotRequired[str]
    error: NotRequired[ErrorView]
    attempts: NotRequired[list[AttemptView]]
    usage: NotRequired[UsageView]
    references: NotRequired[dict[str, str]]
    branch: NotRequired[str]
    beside: NotRequired[str]
    effect: NotRequired[str]
    effect_key: NotRequired[str]
    extra: NotRequired[str]


class RunView(TypedDict):
    """A run. ``lost`` are boxes that no arrow was found to: none, for a run of this program.
    ``current`` are the boxes that a run under way has reached: of a call without an effect nothing
    is recorded before its end.
    """

    format: int
    id: str
    program: str
    program_digest: str
    status: str
    started: str
    duration: float | None
    inputs: dict[str, str]
    output: NotRequired[str]
    error: str | None
    error_kind: str | None
    tokens: int
    cost: str | None
    digest: str | None
    seal: str | None
    signed: bool
    erased: bool
    content: bool
    parent: str | None
    project: str | None
    submitter: str | None
    labels: dict[str, str]
    host: str
    chart: ChartData | None
    chart_fault: str | None
    taken: dict[str, int]
    lost: list[str]
    current: list[str]
    steps: list[StepView]
    waiting: list[str]
    messages: list[str]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is shown of a run, wherever it was recorded: its trace, each step as a line of the
    trace's JSON with the frame that it ran in, and what only a store knows.
    """

    trace: Trace
    steps: list[tuple[str, dict[str, Any]]]
    stored: StoredRun | None = None
    running: list[StepView] = field(default_factory=list)


@collector_paused()
def view_of(
    run: Trace | StoredRun,
    program: Program | None = None,
    programs: Mapping[str, Program] | None = None,
    *,
    content: bool = True,
    receiver: Receiver = "pages",
    drawn: bool = True,
) -> RunView:
    """What a page shows of *run* to *receiver*. Its program is *program*, or the one that it has with it: without
    one, or where it cannot be drawn, ``chart_fault`` says why there is no chart. Where *drawn* is
    False there is neither, nor a way over it, and nobody waits for it to be made.
    """
    stored = run if isinstance(run, StoredRun) else None
    trace = trace_of(run) if isinstance(run, StoredRun) else run
    levels = Levels.of(trace.recording.about)
    recorded = Recorded(trace, _lines(run, levels, receiver), stored, _under_way(stored))
    chart, fault = _chart(run, program, programs or {}) if drawn else (None, None)
    view = _header(recorded, content)
    if levels is not None:
        _accept(view, recorded, levels, receiver, content)
    view["chart"] = chart.data() if chart is not None else None
    view["chart_fault"] = fault
    recording = recorded.trace.recording
    start = recording.started_ns + recording.base_ns
    effects = {
        name: told.get("effect", "")
        for name, told in recorded.trace.about.get("tools", {}).items()
        if isinstance(told, dict)
    }
    by_box = chart.tools() if chart is not None else {}
    effect = {box: effects.get(tool, "") for box, tool in by_box.items()}
    steps = [
        _step(frame, line, start, recorded.trace.run_id, effect, content)
        for frame, line in recorded.steps
    ]
    view["steps"] = steps + recorded.running
    passed = [
        Passed(step["frame"], step["path"], Stop(step["box"], step["status"], step.get("branch")))
        for step in steps
        if "beside" not in step
    ]
    routes = Routes() if chart is None else routes_of(chart, passed, recorded.trace.status.value)
    view["taken"], view["lost"], view["current"] = routes
    return view


# --- where it was recorded ---


def _lines(
    run: Trace | StoredRun, levels: Levels | None, receiver: Receiver
) -> list[tuple[str, dict[str, Any]]]:
    """Each step of *run* as *receiver* is shown it, as a line of JSON, with its frame."""
    base = run.recording.base_ns if isinstance(run, Trace) else 0
    records = _stored(run) if isinstance(run, StoredRun) else _framed(run.recording.full(), "")
    return [
        (frame, (record if levels is None else levels.record(receiver, record)).to_dict(base))
        for frame, record in records
    ]


def _accept(
    view: RunView, recorded: Recorded, levels: Levels, receiver: Receiver, content: bool
) -> None:
    """Have a header say what *receiver* may know where something in the run is secret. Of what is
    asked of people pages have what its role accepts.
    """
    shown = shown_to(receiver, recorded.trace)
    view["error"] = shown.error if content else redacted(shown.error)
    if content and (recorded.stored is None or recorded.stored.salt is not None):
        view["inputs"] = {name: _json(value) for name, value in shown.inputs.items()}
        view["output"] = _json(shown.final_output)
    if levels.hides(receiver, levels.known):
        view["messages"] = [_message(m, content=False) for m in _messages(recorded.stored)]
        asked = content and receiver == "pages"
        view["waiting"] = _waiting(recorded.trace, recorded.stored, asked, levels)


def _framed(records: Iterable[Record], frame: str) -> Iterator[tuple[str, Record]]:
    """Each record with the name of its frame; those of a fork's frames come before its own."""
    for record in records:
        for number, child in enumerate(record.children or ()):
            yield from _framed(child, f"{record.path}:{number}")
        yield frame, record


def _stored(run: StoredRun) -> Iterator[tuple[str, Record]]:
    """The steps of a stored run. Its trace has those of a fork only when the fork has ended: what
    is under way in it is read from the rows.
    """
    rows = [row for row in run.rows if row.kind == STEP]
    if run.status == SUSPENDED:
        rows += paused_rows(run)
    return ((row.frame, row.record()) for row in rows)


def _under_way(run: StoredRun | None) -> list[StepView]:
    """Its calls that have begun, and not ended."""
    if run is None or run.status != RUNNING:
        return []
    return list(_running(run.rows, run.started_ns))


def _running(rows: Sequence[Row], start: int) -> Iterator[StepView]:
    frames = {row.path: row.frame for row in rows}
    for path, call in begun_calls(rows).items():
        if call.type not in CALLS:
            continue
        view: StepView = {
            "path": path,
            "box": box_of(path),
            "frame": frames.get(path, ""),
            "step": step_of(path),
            "type": call.type,
            "status": "running",
            "start": _ms(call.began_ns, start),
            "end": None,
        }
        yield view


KEPT_NODES = 25_000
"""Of charts that are kept, together some 60 MB, so that two of the largest programs are looked at in
turns: the runs that people look at are of few programs, and a chart takes most of the time of a view
(1.5 of 1.9 ms, of 20 steps).
"""


Made = tuple[Chart | None, str | None]
"""A chart, or why there is none."""


def _size(made: Made) -> int:
    return 1 if made[0] is None else len(made[0].flow.nodes)


_CHARTS: Newest[tuple[str, str], Made] = Newest(KEPT_NODES, _size)
"""Those of stored programs, by the hash of the document that a run holds and the digest that it ran
by. Charts are not changed, but for legs that they remember.
"""


def _chart(
    run: Trace | StoredRun, program: Program | None, programs: Mapping[str, Program]
) -> Made:
    """The chart of the program that *run* is of, or why there is none."""
    key = _key(run) if program is None and not programs else None
    if key is None:
        return _made_chart(run, program, programs)
    return _CHARTS.of(key, lambda: _made_chart(run, None, {}))


def _key(run: Trace | StoredRun) -> tuple[str, str] | None:
    """What the chart of a stored program is kept by."""
    if isinstance(run, Trace) or run.read is None or run.read[0] is not run.document:
        return None
    return run.read[1], run.program_digest


LARGE_STEPS = 1_000
"""Steps of a program that is a large one: its chart takes longer than the rest of a view (of 10,000
0.6 s, beside 0.1).
"""


def is_soon_drawn(run: Trace | StoredRun) -> bool:
    """Whether the chart of *run* is kept or soon made: pages need not show anything before it."""
    if isinstance(run, Trace) or _key(run) in _CHARTS:
        return True
    left: list[Any] = [run.document]
    steps = 0
    while left and steps < LARGE_STEPS:
        one = left.pop()
        if isinstance(one, dict):
            steps += "id" in one and "type" in one
            left += one.values()
        elif isinstance(one, list):
            left += one
    return steps < LARGE_STEPS


def _made_chart(
    run: Trace | StoredRun, program: Program | None, programs: Mapping[str, Program]
) -> Made:
    try:
        if isinstance(run, StoredRun):
            own, called = programs_of(run)
            program, programs = program or own, {**called, **programs}
        elif program is None:
            program = program_of(run)
    except VMError as error:
        return None, str(error)
    flow = Flow(program, programs)
    errors = [d for d in flow.diagnostics if d.severity == "error"]
    if errors:
        return None, f"the program has no graph: {errors[0]}"
    ran = flow.digest or program.digest
    if run.program_digest not in (ran, program.digest):
        return None, "this is another program than the one that ran, so its graph is not drawn"
    return Chart(flow), None


# --- what it says ---


def _header(recorded: Recorded, content: bool) -> RunView:
    """The view of a run without its chart and its steps."""
    trace, run = recorded.trace, recorded.stored
    erased = run is not None and run.salt is None
    usage = trace.usage()
    about = trace.about
    shown = content and not erased
    view: RunView = {
        "format": VIEW_FORMAT,
        "id": trace.run_id,
        "program": trace.program_name,
        "program_digest": trace.program_digest,
        "status": run.status if run is not None else trace.status.value,
        "started": trace.started_at.isoformat(),
        "duration": trace.duration_ms,
        "inputs": {name: _json(value) for name, value in trace.inputs.items()} if shown else {},
        "error": trace.error if content else redacted(trace.error),
        "error_kind": trace.error_kind,
        "tokens": usage.total_tokens,
        "cost": None if usage.cost_usd is None else str(usage.cost_usd),
        # whoever guesses what was said could compute it, and see that the guess is right
        "digest": trace.digest if shown else None,
        "seal": _seal(trace, run, erased),
        "signed": (run.signature if run is not None else trace.signature) is not None,
        "erased": erased,
        "content": content,
        "parent": run.parent if run is not None else None,
        "project": run.project if run is not None else about.get("project"),
        "submitter": run.submitter if run is not None else about.get("submitter"),
        "labels": dict(run.labels) if run is not None and not erased else about.get("labels", {}),
        "host": _json(about),
        "chart": None,
        "chart_fault": None,
        "taken": {},
        "lost": [],
        "current": [],
        "steps": [],
        "waiting": _waiting(trace, run, content),
        "messages": [_message(m, content) for m in _messages(run)],
    }
    if shown:
        view["output"] = _json(trace.final_output)
    return view


def _seal(trace: Trace, run: StoredRun | None, erased: bool) -> str | None:
    if run is not None:
        return run.seal
    return None if erased else trace.seal


def _waiting(
    trace: Trace, run: StoredRun | None, content: bool, levels: Levels = NOTHING_SECRET
) -> list[str]:
    """What the run waits for as pages are shown it, each entry as canonical JSON."""
    if run is not None:
        found = presented(run.waiting) if run.status == SUSPENDED else []
    else:
        found = [dict(entry) for entry in trace.waiting]
    if not content:
        kept = ("path", "step_id", "kind", "role", "event", "deadline_ns")
        found = [{key: entry[key] for key in kept if key in entry} for entry in found]
    return [_json(levels.waiting("pages", entry)) for entry in found]


def _messages(run: StoredRun | None) -> list[Message]:
    return [*run.decided, *run.inbox] if run is not None and run.salt is not None else []


def _message(message: Message, content: bool) -> str:
    told = {
        "kind": message.kind,
        "name": message.name,
        "by": message.by,
        "at_ns": message.created_ns,
    }
    return _json({**told, "body": message.body} if content else told)


def _step(
    frame: str,
    line: Mapping[str, Any],
    start: int,
    run_id: str,
    effects: Mapping[str, str],
    content: bool,
) -> StepView:
    path = line["path"]
    beside = line["step"].rpartition("/")[2] if "/" in line["step"] else ""
    box = box_of(path).removesuffix(f"/{beside}") if beside else box_of(path)
    extra = dict(line.get("extra", {}))
    view: StepView = {
        "path": path,
        "box": box,
        "frame": frame,
        "step": line["step"],
        "type": line["type"],
        "status": line["status"],
        "start": _ms(line["started_ns"], start),
        "end": _ms(line["finished_ns"], start),
    }
    if beside:
        view["beside"] = beside
    if error := line.get("error"):
        view["error"] = _error(error, content)
    if attempts := line.get("attempts"):
        view["attempts"] = [_attempt(attempt, start, content) for attempt in attempts]
    if usage := line.get("usage"):
        view["usage"] = usage
    branch = edge_of(extra)
    if branch is not None:
        view["branch"] = branch
    if line["type"] == "tool":
        view["effect_key"] = effect_key(run_id, path)
        if not beside and (effect := effects.get(box, "")):
            view["effect"] = effect
    if content:
        view["output"] = _json(line["output"])
        if "request" in line:
            view["request"] = _json(line["request"])
        read = extra.pop("references", None) or extra.pop("when", None)
        if isinstance(read, dict):
            view["references"] = {name: _json(value) for name, value in read.items()}
    else:
        extra = {key: extra[key] for key in _PLAIN if key in extra}
    extra.pop("branch", None)
    if extra:
        view["extra"] = _json(extra)
    return view


_PLAIN = (
    "model",
    "finish_reason",
    "cost_source",
    "iterations",
    "exhausted",
    "forked",
    "lost",
    "settled",
)
"""What stands beside a record and says nothing of what was said."""


def _attempt(attempt: Mapping[str, Any], start: int, content: bool) -> AttemptView:
    usage = attempt.get("usage", {})
    view: AttemptView = {
        "error": _error(attempt["error"], content),
        "start": _ms(attempt["started_ns"], start),
        "end": _ms(attempt["finished_ns"], start),
    }
    if usage:
        view["tokens"], view["cost"] = usage["total_tokens"], usage.get("cost_usd")
    if content and attempt.get("answer") is not None:
        view["answer"] = attempt["answer"]
    return view


def _error(error: Mapping[str, Any], content: bool) -> ErrorView:
    message = error["message"] if content else REDACTED
    return {"kind": error["kind"], "type": error["type"], "message": message}


def _ms(ns: int, start: int) -> float:
    return (ns - start) / 1e6


def _json(value: Any) -> str:
    return canonical(value).decode()
