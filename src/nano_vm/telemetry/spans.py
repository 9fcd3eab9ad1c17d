"""A step's span, at a fifth of the cost of the SDK's: what the tracer of a provider of the SDK is
asked for goes in, finished spans go to its processors.

The SDK takes 17 us for a span with six attributes (locks, and a look at each value), which is more
than a step costs here. These spans are used by one task at a time, and most of what is in them is
text of our own. They follow the sampling decision of the run, as with a parent-based sampler. They
are made by this module alone; imported where OpenTelemetry's SDK is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, Tracer
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
)

SCOPE = InstrumentationScope("nano_vm")
UNSET = Status(StatusCode.UNSET)


class StepSpan(Span):
    """A span under way, for our own use, for processors as it starts, and for tools that ask for
    the current one.
    """

    __slots__ = (
        "_context",
        "_ended",
        "_tracer",
        "attributes",
        "end_time",
        "events",
        "kind",
        "links",
        "name",
        "parent",
        "start_time",
        "status",
    )

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        parent: SpanContext,
        kind: SpanKind,
        attributes: dict[str, Any],
        start_time: int,
    ) -> None:
        self._tracer = tracer
        self._context = SpanContext(
            parent.trace_id,
            tracer.id_generator.generate_span_id(),
            False,
            parent.trace_flags,
            parent.trace_state,
        )
        self._ended = False
        self.name = name
        self.parent = parent
        self.kind = kind
        self.attributes = attributes
        self.events: list[Event] = []
        self.links: list[Link] = []
        self.start_time = start_time
        self.end_time: int | None = None
        self.status = UNSET

    @property
    def context(self) -> SpanContext:
        """As the SDK's spans have it."""
        return self._context

    @property
    def resource(self) -> Any:
        """What the spans of the provider are of."""
        return self._tracer.resource

    def get_span_context(self) -> SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return not self._ended

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        for name, value in attributes.items():
            self.set_attribute(name, value)

    def set_attribute(self, key: str, value: Any) -> None:
        if not self._ended:
            self.attributes[key] = value if type(value) in _PLAIN else _plain(value)

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
    ) -> None:
        if not self._ended:
            plain = {key: _plain(value) for key, value in (attributes or {}).items()}
            self.events.append(Event(name, plain, timestamp or time.time_ns()))

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        if not self._ended:
            plain = {key: _plain(value) for key, value in (attributes or {}).items()}
            self.links.append(Link(context, plain))

    def update_name(self, name: str) -> None:
        if not self._ended:
            self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if not self._ended and self.status.status_code is not StatusCode.OK:
            self.status = status if isinstance(status, Status) else Status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        told = {"exception.type": type(exception).__name__, "exception.message": str(exception)}
        self.add_event("exception", {**told, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        self.end_time = end_time if end_time is not None else time.time_ns()
        tracer = self._tracer
        tracer.span_processor.on_end(
            ReadableSpan(
                name=self.name,
                context=self._context,
                parent=self.parent,
                resource=tracer.resource,
                attributes=self.attributes,
                events=self.events,
                links=self.links,
                kind=self.kind,
                status=self.status,
                start_time=self.start_time,
                end_time=self.end_time,
                instrumentation_scope=SCOPE,
            )
        )


def started(
    tracer: Any,
    name: str,
    parent: Context,
    kind: SpanKind,
    attributes: dict[str, Any],
    start_time: int | None = None,
) -> Span | None:
    """A span below that of *parent*; None where *tracer* or the span above are not the SDK's, or
    that is not recorded.
    """
    above = get_current_span(parent)
    if type(tracer) is not Tracer or not above.is_recording():
        return None
    begun = time.time_ns() if start_time is None else start_time
    span = StepSpan(tracer, name, above.get_span_context(), kind, attributes, begun)
    tracer.span_processor.on_start(span, parent)  # type: ignore[arg-type]
    return span


_PLAIN = frozenset({str, int, float, bool})


def _plain(value: Any) -> Any:
    """*value* as spans may have it."""
    if type(value) in _PLAIN or value is None:
        return value
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return tuple(_plain(item) for item in value)
    return value if isinstance(value, (str, bytes, int, float)) else str(value)
