"""Did you mean: the known name that is nearest to one that nobody knows.

A name and the known ones come in; one of them goes out, or None. A program can hold ten thousand
misspelled names beside ten thousand known ones, and comparing all with all would take an hour: so
there are limits, and what is over them has no hint.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import SequenceMatcher
from itertools import chain, islice

MAX_COMPARISONS = 3_000
"""Comparisons of one pass over a program, 30 µs each at most: hints for fifteen faults among very
many names, and for hundreds among few. Nobody reads more."""

MAX_CANDIDATES = 200
"""Known names that one name is compared with; among more, one slip of the pen is found still."""

MAX_NAME_CHARS = 60
"""A longer name is compared with nothing: it is no slip of the pen, and its length would cost."""

SLIP_COMPARISONS = 20
"""What a search for slips of the pen counts for: a few thousand strings are made and looked up."""

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_"
LIKENESS = 0.6


class Hints:
    """The hints of one pass over a program; after `MAX_COMPARISONS` there are none."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_COMPARISONS

    def nearest(
        self, name: object, *known: Collection[str], likeness: float = LIKENESS
    ) -> str | None:
        """The *known* name that *name* is most like, where it is at least that like (0 to 1).

        Give lists and dicts, not sets: of names that are equally like the first one is taken.
        """
        text = str(name)
        count = sum(map(len, known))
        if self.left <= 0 or not count or len(text) > MAX_NAME_CHARS:
            return None
        self.left -= min(count, MAX_CANDIDATES)
        if count > MAX_CANDIDATES:
            self.left -= SLIP_COMPARISONS
            names = frozenset(chain(*known))
            slip = next((made for made in _slips(text) if made in names), None)
            if slip is not None:
                return slip
        return _most_like(text, islice(chain(*known), MAX_CANDIDATES), likeness)

    def meant(
        self, name: object, *known: Collection[str], otherwise: str | None = None
    ) -> str | None:
        """``did you mean 'x'?``, or *otherwise* where nothing is near."""
        near = self.nearest(name, *known)
        return f"did you mean {near!r}?" if near is not None else otherwise


def nearest(name: object, *known: Collection[str]) -> str | None:
    """As `Hints.nearest`, for one name."""
    return Hints().nearest(name, *known)


def meant(name: object, *known: Collection[str], otherwise: str | None = None) -> str | None:
    """As `Hints.meant`, for one name."""
    return Hints().meant(name, *known, otherwise=otherwise)


def _most_like(name: str, known: Iterator[str], likeness: float) -> str | None:
    matcher = SequenceMatcher()
    matcher.set_seq2(name)
    found = None
    for candidate in known:
        matcher.set_seq1(candidate)
        # the two quick ratios are upper bounds, and spare most of the work
        if matcher.real_quick_ratio() >= likeness and matcher.quick_ratio() >= likeness:
            ratio = matcher.ratio()
            if ratio > likeness or (found is None and ratio == likeness):
                found, likeness = candidate, ratio
    return found


def _slips(name: str) -> Iterator[str]:
    """*name* with one letter wrong, too few, too many, or changed with its neighbour.

    Source: P. Norvig, "How to Write a Spelling Corrector", 2007.
    """
    for i in range(len(name) + 1):
        head, tail = name[:i], name[i:]
        if tail:
            yield head + tail[1:]
            yield head + tail[1:2] + tail[0] + tail[2:]
        for letter in LETTERS:
            yield head + letter + tail[1:]
            yield head + letter + tail
