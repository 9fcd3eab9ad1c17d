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

from ..records.trace import StepResult, StepStatus
from .text import safe, seconds, shorten, shown

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from ..run.observers import Event

RUNNING_SHOWN = 8
"""Running calls that the live part lists; the rest is a number. A third of a screen of 24 lines."""

REDRAWS_PER_SECOND = 8
TEXT_KEPT_CHARS = 2_000  # of a running answer; one line of it is shown

MARKS = {
    StepStatus.SUCCESS: ("ok", "green"),
    StepStatus.FAILED: ("failed", "bold red"),
    StepStatus.SKIPPED: ("skipped", "yellow"),
    StepStatus.CANCELLED: ("cancelled", "yellow"),
    StepStatus.SUSPENDED: ("waiting", "cyan"),
    StepStatus.IN_DOUBT: ("in doubt", "bold red"),
}
MARK_WIDTH, TYPE_WIDTH, TIME_WIDTH, TOKENS_WIDTH = 9, 9, 8, 7
PLAIN_PATH, PLAIN_OUTPUT = 28, 60


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
            return Table(console)
    return Lines()


# --- rows -----------------------------------------------------------------------------------------


def cells(step: StepResult) -> tuple[str, str, str, str, str, str]:
    """Status, path, type, time, tokens, and output or error: safe text, the last one unbounded but
    for huge values.
    """
    mark = MARKS.get(step.status, (step.status.value, ""))[0]
    tokens = str(step.usage.total_tokens) if step.usage is not None else ""
    return mark, safe(step.path), step.type, seconds(step.duration_ms), tokens, result_text(step)


def result_text(step: StepResult, length: int = 500) -> str:
    """What the last column says of a step."""
    tries = f" (attempt {step.retries + 1})" if step.retries else ""
    if step.error is not None and step.status is not StepStatus.SUCCESS:
        return shorten(safe(step.error[:length]), length) + tries
    if step.type == "condition" and step.branch is not None:
        return safe(branch_text(step)) + tries
    if step.status is StepStatus.SKIPPED:
        read = ", ".join(
            f"{safe(name)} = {shown(value, 80)}" for name, value in (step.references or {}).items()
        )
        return (
            f"when is false{f': {read}' if read else ''}"
            if step.branch == "unless"
            else tries.strip()
        )
    return shown(step.output, length) + tries


def branch_text(step: StepResult) -> str:
    """Where a condition went."""
    went = step.branch or ""
    return (
        f"{went} -> {step.output}" if isinstance(step.output, str) and step.output != went else went
    )


def plain_row(step: StepResult) -> str:
    """One line, in columns as far as the widths allow."""
    mark, path, kind, took, tokens, result = cells(step)
    tokens = f"{tokens} tok" if tokens else ""
    return (
        f"{mark:<9} {path:<{PLAIN_PATH}} {kind:<9} {took:>8} {tokens:>9}  "
        f"{shorten(result, PLAIN_OUTPUT)}"
    ).rstrip()


def rich_row(step: StepResult, width: int) -> Any:
    """One line of the table, as wide as the terminal; cut by the width that characters have on
    it.
    """
    mark, path, kind, took, tokens, result = cells(step)
    style = MARKS.get(step.status, ("", ""))[1]
    failed = step.status in (StepStatus.FAILED, StepStatus.IN_DOUBT)
    return columns(
        width,
        [
            (mark, style),
            (path, "bold"),
            (kind, "dim"),
            (took, ""),
            (tokens, ""),
            (result, "red" if failed else ""),
        ],
    )


def widths(width: int) -> list[int]:
    """How wide each of the six columns is; a narrow terminal has no room for some."""
    path = max(12, min(40, (width - 45) // 2))
    if width < 45:
        return [MARK_WIDTH, max(width - MARK_WIDTH - 2, 4), 0, 0, 0, 0]
    if width < 70:
        path = (width - MARK_WIDTH - TIME_WIDTH - 4) // 2
        return [MARK_WIDTH, path, 0, TIME_WIDTH, 0, width - MARK_WIDTH - TIME_WIDTH - path - 4]
    rest = width - MARK_WIDTH - TYPE_WIDTH - TIME_WIDTH - TOKENS_WIDTH - path - 6
    return [MARK_WIDTH, path, TYPE_WIDTH, TIME_WIDTH, TOKENS_WIDTH, rest]


def columns(width: int, parts: list[tuple[str, str]]) -> Any:
    """The six parts, each text with its style, in their columns."""
    from rich.text import Text

    line = Text(no_wrap=True, overflow="ellipsis")
    for i, ((text, style), room) in enumerate(zip(parts, widths(width), strict=True)):
        if not room:
            continue
        cell = Text(_tail(text, room) if i == 1 else text, style=style)
        number = i in (3, 4)
        cell.truncate(room, overflow="ellipsis", pad=not number and i != 5)
        if number:
            cell.align("right", room)
        if line:
            line.append(" ")
        line.append_text(cell)
    return line


def _tail(text: str, room: int) -> str:
    """The end of *text* in *room* cells: it says more of a long path or answer than the
    beginning.
    """
    from rich.cells import cell_len

    if cell_len(text) <= room:
        return text
    text = text[-room:] if room else ""
    while text and cell_len(text) >= room:
        text = text[1:]
    return f"…{text}"


def heading(width: int) -> Any:
    """The names of the columns."""
    names = ("status", "step", "type", "time", "tokens", "output")
    return columns(width, [(name, "dim") for name in names])


# --- the live table -------------------------------------------------------------------------------


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
        answer = _tail(safe(text[-width:]), widths(width)[5]) if text else ""
        parts = [
            ("running", "cyan"),
            (safe(path), "bold"),
            (kind, "dim"),
            (f"{took:.1f} s", ""),
            ("", ""),
            (answer, "italic dim"),
        ]
        yield columns(width, parts)
