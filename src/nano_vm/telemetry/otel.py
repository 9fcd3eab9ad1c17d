"""OpenTelemetry: a run becomes a span, and so does each of its steps and each attempt that failed.

Events of runs come in; spans go to the provider that the host has. What was said in a run is in
them only where the host asks for it. Needs the extra ``otel``; nothing of it is imported before an
`OpenTelemetry` is made.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra, VMError
from ..records.record import Attempt, StepError, branch_of
from ..records.secrecy import Levels, levels_of, shown_to
from ..records.status import StepStatus, TraceStatus
from ..records.usage import LLMUsage
from ..run.observers import KINDS, Event
from ..values import short
from . import names
from .redaction import Redaction, checked, content

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

SCOPE = "nano_vm"
JSON_TYPE, TEXT_TYPE = "application/json", "text/plain"

_NUMBERED = re.compile(r"#\d+$")
_ITEM = re.compile(r"\[[^]/]*\]$")

Attributes = dict[str, Any]


class OpenTelemetry:
    """Gives the spans of runs to a ``TracerProvider``, that of the process unless one is given.

    The span of a run is a child of the caller's current span; while a tool or a model is called,
    the span of its step is the current one, so what an instrumented HTTP client does stands below
    it. Inputs, prompts, answers, arguments and results are in spans where *content* is true; None
    asks the environment's ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``. *redaction* is
    applied to them, see `Redaction`. With a *meter_provider*, durations and tokens of model calls
    are recorded as metrics besides.

    Raises:
        MissingExtra: If OpenTelemetry is not installed.
        VMError: If an argument is not of its kind.
    """

    event_kinds = KINDS - {"text"}

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        content: bool | None = None,
        redaction: Redaction | Any = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.context import attach, get_current
        except ImportError:
            raise MissingExtra("OpenTelemetry", "otel") from None
        for what, given, method in (
            ("tracer_provider", tracer_provider, "get_tracer"),
            ("meter_provider", meter_provider, "get_meter"),
        ):
            if given is not None and not callable(getattr(given, method, None)):
                raise VMError(f"{what} is {short(given)}, which has no {method}()")
        if content is not None and type(content) is not bool:
            raise VMError(f"content is true or false, not {short(content)}")
        self.redaction = checked(redaction)
        self.content = _captured() if content is None else content
        self._given = tracer_provider
        self._provider_now = trace.get_tracer_provider
        self._provider: Any = None
        self._tracer: Any = None
        self._light = _light_spans()
        self._in, self._attach, self._current = trace.set_span_in_context, attach, get_current
        self._client = trace.SpanKind.CLIENT
        self._internal = trace.SpanKind.INTERNAL
        self._failed = trace.StatusCode.ERROR
        self._meters = Meters(meter_provider) if meter_provider is not None else None
        self._runs: dict[str, _Run] = {}

    def observe(self, event: Event) -> None:
        """Take an event of a run."""
        kind = event.kind
        if kind == "step_started":
            self._step_started(event)
        elif kind in ("step_finished", "step_suspended"):
            self._step_ended(event)
        elif kind == "attempt_failed":
            self._attempt_failed(event)
        elif kind in ("run_started", "run_resumed"):
            self._run_started(event)
        else:
            self._run_left(event)

    # --- runs ---

    def _run_started(self, event: Event) -> None:
        trace, caller = event.trace, self._current()
        levels = levels_of(trace)
        attributes: Attributes = {
            names.OPERATION: names.INVOKE_WORKFLOW,
            names.SPAN_KIND: "CHAIN",
            names.RUN_ID: event.run_id,
            names.PROGRAM: trace.program_name,
            names.WORKFLOW: trace.program_name,
            names.PROGRAM_DIGEST: trace.program_digest,
        }
        if event.kind == "run_resumed":
            attributes[names.RUN_RESUMED] = True
        if self.content:
            shown = levels.inputs_for("telemetry", trace.inputs)
            attributes[names.INPUT] = content(shown, self.redaction)
            attributes[names.INPUT_TYPE] = JSON_TYPE
        span = self._tracer_now().start_span(
            f"{names.INVOKE_WORKFLOW} {trace.program_name}".rstrip(), caller, attributes=attributes
        )
        context = self._in(span, caller)
        self._runs[event.run_id] = _Run(span, caller, context, event.run_id, levels)
        self._attach(context)

    def _run_left(self, event: Event) -> None:
        if event.run_id not in self._runs:
            if event.kind != "run_finished":
                return
            self._run_started(event)  # it was refused, and had no start
        run, trace = self._runs.pop(event.run_id), event.trace
        self._attach(run.caller)
        for span, _ in reversed(run.open.values()):  # of steps that are left as they stand
            span.end()
        span = run.span
        span.set_attribute(names.RUN_STATUS, trace.status.value)
        if trace.error_kind is not None:
            span.set_attribute(names.ERROR_TYPE, trace.error_kind)
        if trace.status is TraceStatus.FAILED:
            shown = shown_to("telemetry", trace)
            span.set_status(self._failed, shown.error if self.content else trace.error_kind)
        if self.content and trace.output is not None:
            output = run.levels.run_output("telemetry", trace.output)
            span.set_attributes(self._value(names.OUTPUT, names.OUTPUT_TYPE, output))
        span.end()

    def _tracer_now(self) -> Any:
        """That of the provider, which a process may set after this was made."""
        provider = self._given or self._provider_now()
        if provider is not self._provider:
            self._provider, self._tracer = provider, provider.get_tracer(SCOPE)
        return self._tracer

    def _start(
        self,
        name: str,
        parent: Context,
        attributes: Attributes,
        started_ns: int | None = None,
        kind: Any = None,
    ) -> Span:
        """A span below that of *parent*."""
        kind = kind or self._internal
        if self._light is not None:
            light: Span | None = self._light(
                self._tracer, name, parent, kind, attributes, started_ns
            )
            if light is not None:
                return light
        span: Span = self._tracer.start_span(name, parent, kind, attributes, start_time=started_ns)
        return span

    # --- steps ---

    def _step_started(self, event: Event) -> None:
        run = self._runs.get(event.run_id)
        if run is None or event.path in run.open:
            return
        parent = self._parent(run, event.path, time.time_ns())
        kind = self._client if event.type == "llm" else None
        span = self._start(_name(event), parent, _attributes(event), None, kind)
        context = self._in(span, parent)
        run.open[event.path] = span, context
        self._attach(context)

    def _step_ended(self, event: Event) -> None:
        run = self._runs.get(event.run_id)
        record = event.record
        if run is None or record is None:
            return
        record = run.levels.record("telemetry", record)
        _, path, status, output, error, request, _, _, attempts, usage, extra = record
        opened = run.open.pop(path, None)
        if opened is None:
            parent = self._parent(run, path, event.started_ns)
            kind = self._client if event.type == "llm" else None
            started = event.started_ns
            span = self._start(_name(event), parent, _attributes(event), started, kind)
            ended: int | None = event.finished_ns
        else:
            # by the same clock as its start: the run's may be another
            span, parent, ended = opened[0], self._parent(run, path, 0), None
            self._attach(parent)
            if path in run.unnamed:
                run.unnamed.discard(path)
                span.update_name(_name(event))
                span.set_attributes(_attributes(event))
        if not span.is_recording():
            span.end(ended)
            return
        if status is not StepStatus.SUCCESS:
            span.set_attribute(names.STEP_STATUS, status.value)
        if extra is not None and (branch := branch_of(extra)) is not None:
            span.set_attribute(names.STEP_BRANCH, branch)
        if attempts:
            span.set_attribute(names.RETRIES, len(attempts))
        if event.replayed:
            span.set_attribute(names.REPLAYED, True)
        if event.type == "llm":
            told = extra if type(extra) is dict else {}
            span.set_attributes(_answer(event, told, request, None if event.replayed else usage))
            if self._meters is not None and not event.replayed:
                self._meters.record(event, usage, error)
        if self.content:
            span.set_attributes(self._said(event, record.asked(), output))
        if error is not None:
            self._fail(span, error, failed=status is StepStatus.FAILED)
        span.end(ended)

    def _attempt_failed(self, event: Event) -> None:
        run, attempt = self._runs.get(event.run_id), event.attempt
        if run is None or attempt is None or event.replayed:
            return
        attempt = run.levels.attempt("telemetry", event.step_id, attempt)
        opened = run.open.get(event.path)
        parent = opened[1] if opened else self._parent(run, event.path, attempt.started_ns)
        number = run.attempts[event.path] = run.attempts.get(event.path, 0) + 1
        attributes: Attributes = {
            names.ATTEMPT: number,
            names.SPAN_KIND: "CHAIN",
            names.RUN_ID: event.run_id,
            names.STEP_PATH: event.path,
            **_routed(attempt.route),
        }
        span = self._start(f"attempt {number}", parent, attributes, attempt.started_ns)
        self._fail(span, attempt.error, failed=True)
        if self.content and attempt.answer is not None:
            span.set_attribute(names.OUTPUT, content(attempt.answer, self.redaction))
        span.end(_not_before(attempt))

    def _parent(self, run: _Run, path: str, started_ns: int) -> Context:
        """The context of the step that *path* stands in, else that of the run.

        A loop has no beginning of its own to be reported: it begins with the first step in it.
        """
        head, slash, _ = path.rpartition("/")
        if not slash:
            return run.context
        head = _ITEM.sub("", head)
        for name in (head, _NUMBERED.sub("", head)):
            if name in run.open:
                return run.open[name][1]
        parent = self._parent(run, name, started_ns)
        attributes: Attributes = {
            names.SPAN_KIND: "CHAIN",
            names.RUN_ID: run.run_id,
            names.STEP_PATH: name,
        }
        span = self._start(name.rpartition("/")[2], parent, attributes, started_ns)
        context = self._in(span, parent)
        run.open[name] = span, context
        run.unnamed.add(name)
        return context

    # --- what was said ---

    def _said(self, event: Event, request: Any, output: Any) -> Attributes:
        """What went into a step and came out of it."""
        attributes: Attributes = {}
        if event.type == "llm":
            if type(request) is dict and "messages" in request:
                attributes |= self._messages(request["messages"], output)
        elif event.type == "tool":
            if request is not None:
                attributes[names.TOOL_ARGUMENTS] = content(request, self.redaction)
                attributes[names.INPUT] = attributes[names.TOOL_ARGUMENTS]
                attributes[names.INPUT_TYPE] = JSON_TYPE
            if output is not None:
                attributes[names.TOOL_RESULT] = content(output, self.redaction)
        if output is not None:
            attributes |= self._value(names.OUTPUT, names.OUTPUT_TYPE, output)
        return attributes

    def _messages(self, messages: Any, output: Any) -> Attributes:
        shown = self.redaction(messages) if self.redaction is not None else messages
        attributes: Attributes = {
            names.INPUT: content(shown, None),
            names.INPUT_TYPE: JSON_TYPE,
            names.INPUT_MESSAGES: content([_parts(message) for message in shown], None),
        }
        for number, message in enumerate(shown):
            at = f"llm.input_messages.{number}.message"
            attributes[f"{at}.role"] = message["role"]
            attributes[f"{at}.content"] = content(message["content"], None)
        if output is not None:
            answer = {"role": "assistant", "content": content(output, self.redaction)}
            attributes[names.OUTPUT_MESSAGES] = content([_parts(answer)], None)
            attributes["llm.output_messages.0.message.role"] = "assistant"
            attributes["llm.output_messages.0.message.content"] = answer["content"]
        return attributes

    def _value(self, name: str, kind: str, value: Any) -> Attributes:
        return {
            name: content(value, self.redaction),
            kind: TEXT_TYPE if isinstance(value, str) else JSON_TYPE,
        }

    def _fail(self, span: Span, error: StepError, *, failed: bool) -> None:
        span.set_attributes({names.ERROR_TYPE: error.type, names.ERROR_KIND: error.kind})
        # a message may quote what was said
        message = content(error.message, self.redaction) if self.content else None
        told = {names.EXCEPTION_TYPE: error.type}
        if message is not None:
            told[names.EXCEPTION_MESSAGE] = message
        span.add_event(names.EXCEPTION, told)
        if failed:
            span.set_status(self._failed, message or error.kind)


class _Run:
    """A run under way: its span, where it was called from, and the steps that have begun."""

    __slots__ = ("attempts", "caller", "context", "levels", "open", "run_id", "span", "unnamed")

    def __init__(
        self, span: Span, caller: Context, context: Context, run_id: str, levels: Levels
    ) -> None:
        self.span = span
        self.caller = caller
        self.context = context
        self.run_id = run_id
        self.levels = levels
        self.open: dict[str, tuple[Span, Context]] = {}
        self.unnamed: set[str] = set()  # begun with the first step in them: see `_parent`
        self.attempts: dict[str, int] = {}


class Meters:
    """The metrics of the conventions for generative AI, for each model call."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(SCOPE)
        self.duration = meter.create_histogram(
            names.OPERATION_DURATION,
            unit="s",
            description="Duration of a model step, with its failed attempts",
            explicit_bucket_boundaries_advisory=names.DURATION_BUCKETS,
        )
        self.tokens = meter.create_histogram(
            names.TOKEN_USAGE,
            unit="{token}",
            description="Tokens of a model step, with its failed attempts",
            explicit_bucket_boundaries_advisory=names.TOKEN_BUCKETS,
        )

    def record(self, event: Event, usage: LLMUsage | None, error: StepError | None) -> None:
        """A model step that has ended."""
        attributes = {names.OPERATION: names.CHAT}
        if event.target:
            attributes[names.REQUEST_MODEL] = event.target
        failed = {names.ERROR_TYPE: error.type} if error is not None else {}
        seconds = (event.finished_ns - event.started_ns) / 1e9
        self.duration.record(seconds, {**attributes, **failed})
        if usage is not None:
            self.tokens.record(usage.prompt_tokens, {**attributes, names.TOKEN_TYPE: "input"})
            self.tokens.record(usage.completion_tokens, {**attributes, names.TOKEN_TYPE: "output"})


def _attributes(event: Event) -> Attributes:
    """What is known of a step before it is made."""
    kind = event.type
    attributes: Attributes = {
        names.SPAN_KIND: names.KINDS.get(kind, "CHAIN"),
        names.RUN_ID: event.run_id,
        names.STEP_PATH: event.path,
        names.STEP_TYPE: kind,
    }
    if kind == "tool":
        attributes[names.OPERATION] = names.EXECUTE_TOOL
        attributes[names.TOOL] = attributes[names.TOOL_NAME] = event.target
    elif kind == "llm":
        attributes[names.OPERATION] = names.CHAT
        if event.target:
            attributes[names.REQUEST_MODEL] = event.target
    return attributes


def _light_spans() -> Any:
    """What makes spans at less cost; None without the SDK, as with a provider of another make."""
    try:
        from .spans import started
    except ImportError:
        return None
    return started


def _answer(event: Event, told: Any, request: Any, usage: LLMUsage | None) -> Attributes:
    """What is known of a model step once it is made, but what was said."""
    model = told.get("model")
    attributes: Attributes = {}
    if shown := model or event.target:
        attributes[names.MODEL] = shown
    if model is not None:
        attributes[names.RESPONSE_MODEL] = model
    if "finish_reason" in told:
        attributes[names.FINISH_REASONS] = (told["finish_reason"],)
    if "cached" in told:
        attributes[names.CACHED] = True
    attributes |= _routed(told.get("route"))
    if type(request) is dict:
        for option, name in names.REQUEST_OPTIONS.items():
            if request.get(option) is not None:
                attributes[name] = request[option]
    if usage is not None:
        attributes[names.INPUT_TOKENS] = attributes[names.PROMPT_COUNT] = usage.prompt_tokens
        attributes[names.OUTPUT_TOKENS] = attributes[names.COMPLETION_COUNT] = (
            usage.completion_tokens
        )
        attributes[names.TOTAL_COUNT] = usage.total_tokens
        if usage.cost_usd is not None:  # unknown is not zero
            attributes[names.COST_USD] = str(usage.cost_usd)
            attributes[names.COST] = float(usage.cost_usd)
            if "cost_source" in told:
                attributes[names.COST_SOURCE] = told["cost_source"]
    return attributes


def _routed(route: Any) -> Attributes:
    """Which way a pool of models took; nothing where there was none."""
    if type(route) is not dict:
        return {}
    members = [str(attempt["member"]) for attempt in route["attempts"]]
    attributes: Attributes = {
        names.POOL: route["pool"],
        names.POOL_STRATEGY: route["strategy"],
        names.POOL_TRIED: tuple(members),
    }
    answered = [a["member"] for a in route["attempts"] if a.get("outcome") == "answered"]
    if answered:
        attributes[names.POOL_MEMBER] = answered[-1]
    return attributes


def _parts(message: Any) -> Any:
    """A message in the form of the conventions."""
    given = message["content"]
    if isinstance(given, list):
        parts = [
            {"type": "text", "content": part["text"]}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else {"type": "blob"}
            for part in given
        ]
    else:
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        parts = [{"type": "text", "content": text}]
    return {"role": message["role"], "parts": parts}


def _name(event: Event) -> str:
    if event.type == "llm":
        return f"{names.CHAT} {event.target}" if event.target else names.CHAT
    if event.type == "tool":
        return f"{names.EXECUTE_TOOL} {event.target}"
    return f"{event.type} {event.step_id}"


def _not_before(attempt: Attempt) -> int:
    return max(attempt.started_ns, attempt.finished_ns)


def _captured() -> bool:
    return os.environ.get(names.CAPTURE_CONTENT, "").strip().lower() in names.CAPTURING
