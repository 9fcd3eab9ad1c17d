"""Words in what was said in a run: in its inputs, what models were asked and answered, what tools
were given and gave, and what went wrong.

Rule: the view of a run comes in, as a page shows it, and nothing else: what a page does not show is
not found. Values in a store may be encrypted, so no database can look for it; runs are read one by
one, and `library` says of how many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from typing_extensions import TypedDict  # of typing, pydantic reads it from Python 3.12 on

from ..draw.view import RunView, StepView
from ..values import canonical, parse_json

MOST_CHARS = 200
"""Of what is looked for: a line."""

MOST_HITS = 3
"""Of one run: more is read in the run itself."""

BESIDE = 40
"""Characters that are shown before and after what was found."""

Place = Literal["input", "request", "answer", "output", "error"]


class Hit(TypedDict):
    """Where the text was found: in a field of the step at ``path``, or of the run; and as it stands
    there, with a little of what is before and after it.
    """

    path: str | None
    field: Place
    before: str
    found: str
    after: str


class Wanted:
    """Text that is looked for, whatever the case of its letters."""

    def __init__(self, text: str) -> None:
        self._pattern = re.compile(re.escape(text), re.IGNORECASE)

    def hits(self, view: RunView) -> list[Hit]:
        """The first places of *view* where it stands."""
        return list(islice(self._all(view), MOST_HITS))

    def _all(self, view: RunView) -> Iterator[Hit]:
        for path, field, text in _said(view):
            match = self._pattern.search(text)
            if match is not None:
                start, end = match.span()
                yield {
                    "path": path,
                    "field": field,
                    "before": text[max(start - BESIDE, 0) : start],
                    "found": text[start:end],
                    "after": text[end : end + BESIDE],
                }


def _said(view: RunView) -> Iterator[tuple[str | None, Place, str]]:
    """All that was said in a run, text by text, in the order in which it happened."""
    for value in view["inputs"].values():
        yield from ((None, "input", text) for text in _texts(value))
    for step in view["steps"]:
        yield from _said_in(step)
    yield from ((None, "output", text) for text in _texts(view.get("output")))
    if view["error"] is not None:
        yield None, "error", view["error"]


def _said_in(step: StepView) -> Iterator[tuple[str, Place, str]]:
    path = step["path"]
    yield from ((path, "request", text) for text in _texts(step.get("request")))
    for attempt in step.get("attempts", ()):
        if "answer" in attempt:
            yield path, "answer", attempt["answer"]
        yield path, "error", attempt["error"]["message"]
    yield from ((path, "output", text) for text in _texts(step.get("output")))
    if "error" in step:
        yield path, "error", step["error"]["message"]


def _texts(value: str | None) -> Iterator[str]:
    """The strings and numbers in a value that is canonical JSON, from its beginning to its end."""
    left: list[Any] = [] if value is None else [parse_json(value)]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            left += reversed(one.values())
        elif isinstance(one, list):
            left += reversed(one)
        elif one is not None and not isinstance(one, bool):
            yield canonical(one).decode()
