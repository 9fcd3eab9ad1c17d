"""What a command tells of its runs while they go on: metrics at a port, spans to an address."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from .faults import UsageFault
from .grammar import Options
from .output import note
from .text import safe

if TYPE_CHECKING:
    from ..store.protocol import Store


def observers_of(options: Options, store: Store | None, stack: ExitStack) -> list[Any]:
    """The observers that *options* ask for; *stack* closes them.

    Raises:
        UsageFault: If a port or an address is none, or the port is taken.
        MissingExtra: If what they need is not installed.
    """
    observers: list[Any] = []
    if (given := options.get("metrics_port")) is not None:
        observers.append(_metrics(given, store, stack))
    if (url := options.get("otlp")) is not None:
        observers.append(spans_to(url, stack))
    return observers


def place_of(text: str) -> tuple[str, int]:
    """Host and port of ``[HOST:]PORT``; without a host only this machine can ask.

    Raises:
        ValueError: If it is neither.
    """
    host, colon, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else -1
    if not 0 <= number < 65536 or (colon and not host.strip("[]")):
        raise ValueError(f"{text!r} is not a port; write 9464, or 0.0.0.0:9464 for other machines")
    return host.strip("[]") or "127.0.0.1", number


def _metrics(place: tuple[str, int], store: Store | None, stack: ExitStack) -> Any:
    from ..telemetry.prometheus import serve

    host, port = place
    try:
        server = serve(port, host, store=store)
    except OSError as error:
        raise UsageFault(
            f"--metrics-port: cannot listen on {host}:{port}: {error.strerror or error}; choose "
            f"another port"
        ) from None
    stack.callback(server.close)
    note(f"nano-vm: metrics at {server.url}")
    return server.metrics


def spans_to(url: str, stack: ExitStack) -> Any:
    """What sends spans to *url*; *stack* closes it.

    Raises:
        UsageFault: If that is no address.
        MissingExtra: If the exporter is not installed.
    """
    from ..errors import VMError
    from ..telemetry.otlp import Otlp

    # it would write of each attempt to stderr; what was not taken is reported once, at the end
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    logging.getLogger("opentelemetry").propagate = False
    try:
        spans = Otlp(url)
    except VMError as error:
        if isinstance(error, ImportError):  # the extra
            raise
        raise UsageFault(f"--otlp: {error}") from None

    def close() -> None:
        spans.close()
        if spans.counts.dropped:
            note(
                f"nano-vm: {spans.counts.dropped} of {spans.counts.ended} spans could not be sent "
                f"to {safe(url)}"
            )

    stack.callback(close)
    return spans
