"""What requests bring: JSON whose strings are text that a database holds."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, model_validator

from ..values import is_text

VALUES = frozenset({"inputs", "payload", "edit"})
"""Fields with values of a run, which the language itself holds to what is a value."""


class Body(BaseModel):
    """The body of a request."""

    @model_validator(mode="before")
    @classmethod
    def _texts(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name, value in given.items():
                if name not in VALUES:
                    _require_text(value)
        return given


def _require_text(value: Any) -> None:
    """Raises `ValueError` at a string that holds a NUL or a lone surrogate."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if not is_text(one):
                raise ValueError("a string holds a NUL or a lone surrogate, which no text has")
        elif isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one
