"""Text that a person decides about, written so that nothing in it hides and no two values look the
same.

A value comes in from a program, a model or a tool; out goes one line that shows all of it. The
rules:

1. Printable ASCII stands for itself, and so do the Latin letters in `_PLAIN`, which look like no
   other. A run of spaces is counted, because a screen does not show how long it is or what stands
   behind it.
2. What is invisible, blank, unassigned, or reorders or changes what is around it is escaped.
3. So is what imitates: a letter of another script in a word with Latin letters, a compatibility
   form (fullwidth, mathematical), an accent apart from its letter, text from right to left beside
   other text.
4. Other letters are readable text and stay. A word of them may still look like another (all of it
   Cyrillic, say), so `exact` gives the same value once more, in ASCII.

A backslash is always written twice, so no text can spell an escape.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

# Everything that Unicode tells a screen to draw as nothing (Default_Ignorable_Code_Point), and what
# is drawn as blank.
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_BLANK = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000\U0001d159\U00013441\U00013442"
HIDDEN = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_IGNORABLE}{_BLANK}]")
"""Every character that a terminal acts on, or that nobody sees."""

# Letters of Latin-1 and Latin Extended-A but for those that look like another: dotless i, long s,
# kra, the two that are drawn as two, and D with stroke beside Eth. The euro sign is as unlike
# anything.
_PLAIN = re.compile(
    "[\x20-\x7e\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u010f\u0111-\u0130\u0134-\u0137\u0139-\u013e"
    "\u0141-\u0148\u014a-\u017e\u20ac]"
)
_WORD = re.compile(r"[^\W_]+")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_ASCII_ALNUM = re.compile("[A-Za-z0-9]")
_RUN = re.compile("  +")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}\Z")

COUNTED = 8
"""The same escape more often than this in a row is counted and not repeated."""

MARKS_TOGETHER = 2
"""Accents on one letter; more are drawn over the lines around it."""

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})
_FROM_RIGHT = frozenset({"R", "AL", "AN"})


def escaped(char: str) -> str:
    """The escape of one character."""
    code = ord(char)
    return _ESCAPES.get(char) or (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def safe_json(text: str) -> str:
    """JSON text with the same characters as JSON escapes, so that it means the same and can be
    shown.
    """

    def escape(match: re.Match[str]) -> str:
        # a raw line break is indentation
        return match[0] if match[0] == "\n" else json.dumps(match[0])[1:-1]

    return HIDDEN.sub(escape, text)


def written(value: Any) -> str:
    """*value* on one line, all of it, as JSON with the escapes of this module."""
    return "".join(_parts(value, _text))


def exact(value: Any) -> str | None:
    """*value* in printable ASCII, where `written` has other letters than the plain ones; else
    None.
    """
    line = written(value)
    return None if _all_plain(line) else "".join(_parts(value, _ascii))


def name(text: str) -> str:
    """A name as it is where it is a plain short word, else as `written`: with a space in it, it
    could imitate a line.
    """
    return text if _NAME.match(text) else written(text)


def lines(label: str, value: Any) -> Iterator[str]:
    """A labelled value on a line, and on a second one its exact form where that says more."""
    yield f"{label}{written(value)}"
    more = exact(value)
    if more is not None:
        yield f"{' ' * (len(label) - len(label.lstrip()))}  exactly {more}"


def _parts(value: Any, text: Any) -> Iterator[str]:
    if type(value) is str:
        yield f'"{text(value)}"'
    elif isinstance(value, dict):
        mark = "{"
        for key, item in value.items():
            yield f'{mark}"{text(key)}":'
            yield from _parts(item, text)
            mark = ","
        yield "{}" if mark == "{" else "}"
    elif isinstance(value, (list, tuple)):
        mark = "["
        for item in value:
            yield mark
            yield from _parts(item, text)
            mark = ","
        yield "[]" if mark == "[" else "]"
    else:
        yield json.dumps(value)


def _all_plain(text: str) -> bool:
    return text.isascii() or all(_PLAIN.match(char) for char in text)


def _ascii(text: str) -> str:
    return _counted(
        [char if " " <= char <= "~" and char not in _ESCAPES else escaped(char) for char in text]
    )


def _text(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return _RUN.sub(lambda run: f"\\{{{len(run[0])} spaces}}", text)
    imitating = _imitating(text)
    units = []
    marks = 0
    previous = ""
    for at, char in enumerate(text):
        marks = marks + 1 if _is_mark(char) else 0
        shown = char not in _ESCAPES and _is_visible(char) and at not in imitating
        if shown and marks:
            shown = marks <= MARKS_TOGETHER and previous.isalpha() and not _LATIN.match(previous)
        units.append(char if shown else escaped(char))
        previous = char if not marks else previous
    return _counted(units)


@lru_cache(4096)
def _is_visible(char: str) -> bool:
    """Whether *char* is seen, and seen as itself."""
    if _PLAIN.match(char):
        return True
    if HIDDEN.match(char) or unicodedata.category(char) in _UNSEEN:
        return False
    return unicodedata.normalize("NFKC", char) == char


def _is_mark(char: str) -> bool:
    return not char.isascii() and unicodedata.category(char) in ("Mn", "Me")


def _imitating(text: str) -> frozenset[int]:
    """Places of letters that stand among those of another script: in a word with Latin letters, or
    from right to left.
    """
    found: set[int] = set()
    for word in _WORD.finditer(text):
        if not word[0].isascii() and _LATIN.search(word[0]):
            found.update(at for at, char in enumerate(word[0], word.start()) if _is_foreign(char))
    from_right = [
        at for at, char in enumerate(text) if unicodedata.bidirectional(char) in _FROM_RIGHT
    ]
    if from_right and _ASCII_ALNUM.search(text):
        found.update(from_right)
    return frozenset(found)


def _is_foreign(char: str) -> bool:
    """Whether *char* could be taken for a Latin letter; one that is two cells wide could not."""
    return not _PLAIN.match(char) and unicodedata.east_asian_width(char) != "W"


def _counted(units: list[str]) -> str:
    """The units in one text, with runs of spaces and long runs of one escape counted."""
    parts: list[str] = []
    at = 0
    while at < len(units):
        unit, end = units[at], at + 1
        if unit == " " or len(unit) > 1:
            while end < len(units) and units[end] == unit:
                end += 1
        count = end - at
        if unit == " " and count > 1:
            parts.append(f"\\{{{count} spaces}}")
        elif count > COUNTED:
            parts.append(f"\\{{{count} times {unit}}}")
        else:
            parts.append(unit * count)
        at = end
    return "".join(parts)
