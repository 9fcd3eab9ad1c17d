"""The steps of a run as they happen: a table that fills where stdout is a terminal, else a line for
each step.

Finished steps are printed once and stay; only what is running is redrawn. So a run of ten thousand
steps scrolls like any output, and nothing flickers. Every text of a value goes through `safe`, and
never through markup.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from ..records.secrecy import Levels
from ..run.observers import Event
from .rows import (
    columns,
    heading,
    plain_row,
    rich_row,
    tail,
    widths,
)
from .text import safe

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


RUNNING_SHOWN = 8
"""Running calls that the live part lists; the rest is a number. A third of a screen of 24 lines."""

REDRAWS_PER_SECOND = 8
TEXT_KEPT_CHARS = 2_000  # of a running answer; one line of it is shown


class View(Protocol):
    """What shows a run."""

    def event(self, event: Event) -> None:
        """Something happened."""
        ...

    def close(self) -> None:
        """Nothing more will."""
        ...


class Silent:
    """Shows nothing: for ``--json``."""

    def event(self, event: Event) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Accepted:
    """Shows a run by another view, without what a terminal does not accept."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.runs: dict[str, Levels | None] = {}

    def event(self, event: Event) -> None:
        """Give the event on, or one that hides what is secret."""
        if event.run_id not in self.runs:
            self.runs[event.run_id] = Levels.of(event.about)
        levels = self.runs[event.run_id]
        if levels is not None and event.kind == "text":
            if levels.hides("show", levels.level(event.step_id, "request")):
                return
        elif levels is not None and event.result is not None:
            result = levels.result("show", event.result)
            event = Event(event.kind, event.path, event.step_id, event.type, result=result)
        self.view.event(event)

    def close(self) -> None:
        """Close the other."""
        self.view.close()


class Lines:
    """A line for each finished step. A reader that goes away does not stop the run: its effects are
    under way.
    """

    def __init__(self) -> None:
        self.gone = False

    def event(self, event: Event) -> None:
        """Print a step that has finished, or at which the run waits."""
        if event.result is not None and not self.gone:
            try:
                print(plain_row(event.result), flush=True)
            except BrokenPipeError:
                self.gone = True

    def close(self) -> None:
        """Nothing is held back."""


def open_view(*, silent: bool) -> View:
    """The view that fits stdout."""
    if silent:
        return Silent()
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        if not console.is_dumb_terminal:
            return Accepted(Table(console))
    return Accepted(Lines())


class Table:
    """Rows of finished steps, and below them what runs now, with the text of an answer as it
    comes.
    """

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self.console = console
        self.running: dict[str, tuple[str, float]] = {}  # path: type and start
        self.texts: dict[str, str] = {}
        console.print(heading(console.width))
        self.live = Live(
            self, console=console, refresh_per_second=REDRAWS_PER_SECOND, transient=True
        )
        self.live.start()

    def event(self, event: Event) -> None:
        """Take note; the next redraw shows it."""
        if event.kind == "step_started":
            # the redraw has its own thread
            self.running = {**self.running, event.path: (event.type, time.monotonic())}
        elif event.kind == "text":
            text = self.texts.get(event.path, "") + (event.text or "")
            self.texts[event.path] = text[-TEXT_KEPT_CHARS:]
        elif event.kind == "attempt_failed":
            self.texts.pop(event.path, None)  # the next one begins its answer anew
        elif event.result is not None:
            self.running = {path: what for path, what in self.running.items() if path != event.path}
            self.texts.pop(event.path, None)
            self.console.print(rich_row(event.result, self.console.width))

    def close(self) -> None:
        """Take the live part away; the rows stay."""
        self.live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        running = self.running
        now = time.monotonic()
        for path, (kind, started) in list(running.items())[-RUNNING_SHOWN:]:
            yield from self._running(path, kind, now - started, width)
        if len(running) > RUNNING_SHOWN:
            yield columns(
                width,
                [("", ""), (f"and {len(running) - RUNNING_SHOWN} more", "dim"), *[("", "")] * 4],
            )

    def _running(self, path: str, kind: str, took: float, width: int) -> Iterator[Any]:
        text = self.texts.get(path, "")
        answer = tail(safe(text[-width:]), widths(width)[5]) if text else ""
        parts = [
            ("running", "cyan"),
            (safe(path), "bold"),
            (kind, "dim"),
            (f"{took:.1f} s", ""),
            ("", ""),
            (answer, "italic dim"),
        ]
        yield columns(width, parts)
