"""What a notebook shows of a program, a run, a report or a diff: HTML and SVG that need nothing else.

Every text of a program, a model or a tool is escaped; no script, no style sheet and no address is in
what goes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from ..language.flow import Flow
from ..language.program import Program
from ..records.secrecy import shown_to
from ..records.trace import Trace
from ..replay.accepted import accepted
from ..replay.diffs import Diff
from ..values import as_text, short
from ..verify.report import Report
from ..visible import HIDDEN, escaped
from .svg import svg as graph_svg
from .taken import marks_of_run
from .timeline import timeline

MAX_STEPS = 100
"""Steps that a table has; the trace has all of them."""

MAX_DRAWN = 200
"""Nodes of a graph that is drawn: what is larger is read on a page of its own."""

VALUE_CHARS = 120

_CELL = "text-align:left;vertical-align:top;padding:2px 8px"
_COLOURS = {"success": "#1a7f37", "failed": "#c0392b", "suspended": "#b7791f"}


def html(thing: Any) -> str | None:
    """*thing* as HTML."""
    if isinstance(thing, Trace):
        return _trace(thing)
    if isinstance(thing, Program):
        return _program(thing)
    if isinstance(thing, Report):
        return _report(thing)
    return _diff(thing) if isinstance(thing, Diff) else None


def svg(thing: Any) -> str | None:
    """*thing* as one picture: the graph of a program, with the way of a run; where the program of a
    trace is not known, its timeline.
    """
    if isinstance(thing, Program):
        return _graph(Flow(thing, {}), None)
    if isinstance(thing, Trace):
        program = thing.recording.program
        drawn = _graph(Flow(program, {}), thing) if isinstance(program, Program) else None
        return drawn or timeline(thing)
    return None


def _graph(flow: Flow, trace: Trace | None) -> str | None:
    broken = any(d.severity == "error" for d in flow.diagnostics)
    if broken or len(flow.nodes) > MAX_DRAWN:
        return None
    return graph_svg(flow, marks_of_run(flow, trace) if trace is not None else None)


def _trace(trace: Trace) -> str:
    trace = shown_to("export", trace)  # a notebook keeps what it shows, in its file
    usage = trace.usage()
    cost = "cost unknown" if usage.cost_usd is None else f"${usage.cost_usd:f}"
    status = trace.status.value
    head = (
        f"<b>{_text(trace.program_name)}</b> "
        f'<span style="color:{_COLOURS.get(status, "inherit")}">{_text(status)}</span>, '
        f"{len(trace.steps)} steps, {usage.total_tokens:,} tokens, {cost}"
    )
    rows = [
        (
            step.path,
            step.type,
            step.status.value + (f" ({step.branch})" if step.branch else ""),
            "" if step.duration_ms is None else f"{step.duration_ms:.1f} ms",
            "" if step.usage is None else f"{step.usage.total_tokens:,}",
            step.error or _value(step.output),
        )
        for step in trace.steps[:MAX_STEPS]
    ]
    parts = [f"<div>{head}</div>"]
    if trace.error is not None:
        parts.append(f"<pre>{_text(trace.error)}</pre>")
    parts += [d for d in (_pre(map(str, trace.diagnostics)),) if d]
    parts.append(_folded("graph", svg(trace)))
    parts.append(_table(("step", "type", "status", "time", "tokens", "output"), rows))
    if len(trace.steps) > MAX_STEPS:
        parts.append(f"<div>and {len(trace.steps) - MAX_STEPS:,} more steps</div>")
    parts.append(f"<div>output: <code>{_text(_value(trace.final_output))}</code></div>")
    return _whole(parts)


def _program(program: Program) -> str:
    flow = Flow(program, {})
    head = f"<b>{_text(program.name)}</b>, {len(list(program.walk()))} steps, {program.digest[:12]}"
    faults = [str(d) for d in program.place([*program.warnings, *flow.diagnostics])]
    return _whole([f"<div>{head}</div>", _pre(faults), _graph(flow, None) or ""])


def _report(report: Report) -> str:
    verdict = "may run" if report.ok else "is refused"
    rows = [(p.status, p.statement, p.note or p.reason or "") for p in report.proofs]
    faults = [str(d) for d in report.diagnostics]
    lines = [line for line in report.lines() if not line.startswith(("proved", *faults))]
    return _whole(
        [
            f"<div><b>{_text(report.program)}</b> {verdict}</div>",
            _table(("status", "statement", ""), rows) if rows else "",
            _pre(faults),
            _folded("all of it", _pre(lines)),
        ]
    )


def _diff(diff: Diff) -> str:
    diff = accepted("export", diff)  # as a trace is
    same = "the same" if diff.same else f"differs first at {diff.divergence or 'its end'}"
    colours = {"a": "#c0392b", "b": "#1a7f37"}
    lines = "\n".join(
        f'<span style="color:{colours.get(kind, "inherit")}">{_text(line)}</span>'
        for kind, line in diff.lines()
    )
    return _whole([f"<div>{_text(same)}</div>", f"<pre>{lines}</pre>"])


def _value(value: Any) -> str:
    if value is None:
        return ""
    return short(as_text(value) if isinstance(value, (dict, list)) else value, VALUE_CHARS)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th style="{_CELL}">{_text(name)}</th>' for name in heads)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{_text(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _pre(lines: Iterable[str]) -> str:
    text = "\n".join(lines)
    return f"<pre>{_text(text)}</pre>" if text else ""


def _folded(name: str, inner: str | None) -> str:
    return f"<details><summary>{_text(name)}</summary>{inner}</details>" if inner else ""


def _whole(parts: Iterable[str]) -> str:
    return f'<div class="nano-vm">{"".join(parts)}</div>'


def _text(text: str) -> str:
    """*text* as HTML text, in which nothing hides; line breaks stay."""
    shown = "\n".join(
        HIDDEN.sub(lambda match: escaped(match[0]), line) for line in text.split("\n")
    )
    return escape(shown)
