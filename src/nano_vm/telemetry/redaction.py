"""What may leave the process of what was said in a run: a value goes in, the same without what is
secret comes out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import VMError
from ..records.secrecy import REDACTED
from ..values import short

MAX_CONTENT = 16_384
"""Characters of a value as a sink is given it. Collectors refuse or cut larger attributes: Langfuse
and Jaeger over gRPC take 4 MB a request, in which there are up to 512 spans."""

MAX_NESTED = 64
"""Levels of lists and objects that are looked into; what is deeper is left out."""

Hide = Callable[[Any], Any]


class Redaction:
    """Hides parts of values before they leave the process.

    ``fields`` are names of fields whose values are hidden wherever they stand, in any case and with
    ``-``, ``_`` and blanks alike; ``patterns`` are regular expressions whose matches in strings are
    hidden, of names of fields too; ``function`` is given what is left and returns what may go. It
    may raise: the whole value is hidden then.

    Raises:
        VMError: If a pattern is none, or the function cannot be called.
    """

    def __init__(
        self,
        fields: Iterable[str] = (),
        patterns: Iterable[str | re.Pattern[str]] = (),
        function: Hide | None = None,
    ) -> None:
        self.fields = frozenset(_field(given) for given in _listed("fields", fields))
        self.patterns = tuple(_pattern(given) for given in _listed("patterns", patterns))
        if function is not None and not callable(function):
            raise VMError(f"function is called with a value, and {short(function)} cannot be")
        self.function = function

    def __call__(self, value: Any) -> Any:
        """*value*, which is not changed, without what is hidden."""
        hidden = self._hidden(value, MAX_NESTED)
        if self.function is None:
            return hidden
        try:
            return self.function(hidden)
        except Exception:  # noqa: BLE001 - what the function could not look at does not go out
            return REDACTED

    def _hidden(self, value: Any, levels: int) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            if not levels:
                return REDACTED
            return {
                self._text(str(key)): REDACTED
                if _plain(str(key)) in self.fields
                else self._hidden(item, levels - 1)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self._hidden(item, levels - 1) for item in value] if levels else REDACTED
        return value

    def _text(self, text: str) -> str:
        parsed = self._parsed(text)
        if parsed is not None:
            return parsed
        for pattern in self.patterns:
            text = pattern.sub(REDACTED, text)
        return text

    def _parsed(self, text: str) -> str | None:
        """A string that is JSON, as tools and models give it, redacted as what it says: its fields
        have names too. None where it is none, or there is nothing to look for.
        """
        if not self.fields or text[:1] not in ("{", "["):
            return None
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return json.dumps(self._hidden(value, MAX_NESTED), ensure_ascii=False)


def content(value: Any, redaction: Redaction | None) -> str:
    """*value* as a sink is given it: a string as it is, else JSON; cut at `MAX_CONTENT`."""
    if redaction is not None:
        value = redaction(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= MAX_CONTENT else f"{text[:MAX_CONTENT]}..."


def checked(redaction: Any) -> Redaction | None:
    """A `Redaction`, or a function in the place of one.

    Raises:
        VMError: If it is neither.
    """
    if redaction is None or isinstance(redaction, Redaction):
        return redaction
    if callable(redaction) and not isinstance(redaction, type):
        return Redaction(function=redaction)
    raise VMError(f"redaction is a Redaction or a function of a value, not {short(redaction)}")


def _plain(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).casefold()


def _field(given: Any) -> str:
    if not isinstance(given, str):
        raise VMError(f"a field's name is a string, not {short(given)}")
    return _plain(given)


def _listed(what: str, given: Any) -> list[Any]:
    if isinstance(given, (str, bytes)) or not hasattr(given, "__iter__"):
        raise VMError(f"{what} is a list, not {short(given)}; write {what}=[{short(given)}]")
    return list(given)


def _pattern(given: Any) -> re.Pattern[str]:
    try:
        pattern: re.Pattern[str] = re.compile(given)
    except (re.error, TypeError) as error:
        raise VMError(f"{short(given)} is no regular expression: {error}") from None
    if not isinstance(pattern.pattern, str):
        raise VMError(f"{short(given)} is a pattern of bytes; write one of a string")
    return pattern
