"""Spans of runs sent by OTLP over HTTP, for a process that has no OpenTelemetry of its own.

An address goes in; out comes an observer that sends to it in the background. No run waits for it,
or fails of it: what cannot be delivered is dropped, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..errors import MissingExtra, VMError
from ..values import short
from .otel import OpenTelemetry
from .redaction import Redaction

TIMEOUT_SECONDS = 5.0
"""For a request, with the exporter's own attempts; the default of 10 would keep a command from
ending for as long."""


class Otlp(OpenTelemetry):
    """Sends the spans of runs to *endpoint*, ``http://localhost:4318`` for example, or to where the
    environment's ``OTEL_EXPORTER_OTLP_ENDPOINT`` says.

    ``close`` sends what is left. *content* and *redaction* are those of `OpenTelemetry`.

    Raises:
        MissingExtra: If the exporter is not installed.
        VMError: If *endpoint* is no address.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        service_name: str = "nano-vm",
        content: bool | None = None,
        redaction: Redaction | Any = None,
    ) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
            from opentelemetry.sdk.trace.export import (
                BatchSpanProcessor,
                SpanExporter,
                SpanExportResult,
            )
        except ImportError:
            raise MissingExtra("sending spans by OTLP", "otel") from None
        counts = self.counts = Counts()

        class Counted(SpanExporter):
            """Counts what was delivered."""

            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                result = exporter.export(spans)
                if result is SpanExportResult.SUCCESS:
                    counts.delivered += len(spans)
                return result

            def shutdown(self) -> None:
                exporter.shutdown()  # type: ignore[no-untyped-call]

        class Counting(BatchSpanProcessor):
            """Counts what ended."""

            def on_end(self, span: ReadableSpan) -> None:
                counts.ended += 1
                super().on_end(span)

        exporter = OTLPSpanExporter(
            None if endpoint is None else traces_url(endpoint),
            headers=dict(headers or {}),
            timeout=TIMEOUT_SECONDS,
        )
        self.provider = TracerProvider(
            resource=Resource.create({"service.name": service_name}), shutdown_on_exit=False
        )
        self.provider.add_span_processor(Counting(Counted()))
        super().__init__(self.provider, content=content, redaction=redaction)

    def flush(self) -> None:
        """Send what has ended, and wait for it."""
        self.provider.force_flush()

    def close(self) -> None:
        """The same, once and for all."""
        self.provider.shutdown()


class Counts:
    """Spans that ended, and of them those that the other side has taken."""

    __slots__ = ("delivered", "ended")

    def __init__(self) -> None:
        self.ended = 0
        self.delivered = 0

    @property
    def dropped(self) -> int:
        """Spans that were not delivered; after `Otlp.flush` or `Otlp.close` they never will be."""
        return self.ended - self.delivered


def traces_url(endpoint: str) -> str:
    """The address for traces: the standard path, unless *endpoint* has one.

    Raises:
        VMError: If it is no address.
    """
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError):
        good = False
    if not good:
        raise VMError(
            f"{short(endpoint)} is no address of an OTLP receiver; write http://HOST:PORT"
        )
    return endpoint if parts.path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"
