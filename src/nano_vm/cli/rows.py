"""A finished step as a row: of a table on a terminal, or as a line of text. Every text of a value
goes through `safe`, and never through markup.
"""

from __future__ import annotations

from typing import Any

from ..records.result import StepResult
from ..records.status import StepStatus
from .text import safe, seconds, shorten, shown

RESULT_CHARS = 500
"""Of an output or error in a row."""

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


def cells(step: StepResult) -> tuple[str, str, str, str, str, str]:
    """Status, path, type, time, tokens, and output or error: safe text, the last one unbounded but
    for huge values.
    """
    mark = MARKS.get(step.status, (step.status.value, ""))[0]
    tokens = str(step.usage.total_tokens) if step.usage is not None else ""
    return mark, safe(step.path), step.type, seconds(step.duration_ms), tokens, result_text(step)


def result_text(step: StepResult) -> str:
    """What the last column says of a step."""
    tries = f" (attempt {step.retries + 1})" if step.retries else ""
    if step.error is not None and step.status is not StepStatus.SUCCESS:
        return shorten(safe(step.error[:RESULT_CHARS]), RESULT_CHARS) + tries
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
    return shown(step.output, RESULT_CHARS) + tries


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
        cell = Text(tail(text, room) if i == 1 else text, style=style)
        number = i in (3, 4)
        cell.truncate(room, overflow="ellipsis", pad=not number and i != 5)
        if number:
            cell.align("right", room)
        if line:
            line.append(" ")
        line.append_text(cell)
    return line


def heading(width: int) -> Any:
    """The names of the columns."""
    names = ("status", "step", "type", "time", "tokens", "output")
    return columns(width, [(name, "dim") for name in names])


def tail(text: str, room: int) -> str:
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
