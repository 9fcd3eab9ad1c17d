"""A model's text in, what the program may use of it out: reasoning taken apart, a label found, JSON
found.

An answer is valid or it is not: nothing is guessed from a string that merely contains an allowed
output, and a JSON value that is part of a broken one is none. Nothing here knows what follows from
an answer; that is the machine's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

from ..errors import FilteredAnswer, InvalidAnswer, TruncatedAnswer
from ..values import MAX_DEPTH, canonical, parse_json, short

SHOWN_CHARS = 4000
"""Of an invalid answer that is shown to the model again: enough to see what was wrong, and a bound
for its price."""

MAX_ANSWER_CHARS = 4_000_000
"""Of an answer in which a label or JSON is looked for: eight times what a model writes at most, and
half a second to parse at worst."""

MAX_GROUPS = 1000
"""Pairs of brackets that are looked at in the words around a JSON value; 7 us each, and a page has
a dozen."""

QUOTES = frozenset(
    "\"'\u00ab\u00bb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\u2e42\u300c\u300d\u300e\u300f"
    # Quotation_Mark in Unicode's PropList.txt
    "\u301d\u301e\u301f\ufe41\ufe42\ufe43\ufe44\uff02\uff07\uff62\uff63"
    # used as such: acute accent, primes, CJK title marks
    "\u00b4\u2032\u2033\u300a\u300b\u3008\u3009"
)

FULL_STOPS = frozenset(
    ".!\u0589\u061e\u06d4\u0964\u0965\u104a\u104b\u1362\u166e\u17d4\u17d5\u1803\u1809\u2026\u203c\u2e3c\u3002"
    "\ufe12\ufe52\uff01\uff0e\uff61"  # Sentence_Terminal in PropList.txt, without question marks
)

EMPHASIS = frozenset("*_~`")
"""Markdown's; a fence is a run of backticks or tildes."""

INVISIBLE = frozenset("\u061c\u200b\u200e\u200f\u2060\ufeff")
"""No white space to Python, and nothing to a reader: zero-width space, marks of direction, byte
order marks."""

DECORATION = QUOTES | FULL_STOPS | EMPHASIS | INVISIBLE

MAX_LAYERS = 16
"""Taken off an answer one by one: bold in quotes in a fence has eight."""


WHOLE = (None, "stop")
"""The reasons of nearly every answer, which need no look."""

TRUNCATED = frozenset(
    "length max_tokens max_output_tokens model_length model_context_window_exceeded".split()
)
FILTERED = frozenset(
    "content_filter content_filtered refusal safety recitation prohibited_content blocklist spii "
    "image_safety "
    "guardrail_intervened error_toxic".split()
)
"""Why an answer ended, in the words of OpenAI, Anthropic, Gemini, Mistral, Bedrock and Cohere, in
lower case."""

MAX_REASONING_CHARS = 100_000
"""Of a model's reasoning that is recorded beside the answer: some 25,000 tokens, which few calls
are allowed."""

_OPENING_TAG = "<think>"
_THOUGHT = re.compile(rf"\s*{_OPENING_TAG}")
_END_OF_THOUGHT = "</think>"
_BEGINS_JSON = '{["`~'


def ending(finish_reason: Any) -> Literal["truncated", "filtered"] | None:
    """What kind of error the provider's *finish_reason* stands for; None where the answer is whole,
    as far as it says."""
    word = finish_reason.casefold() if isinstance(finish_reason, str) else ""
    return "truncated" if word in TRUNCATED else "filtered" if word in FILTERED else None


def without_reasoning(text: str, *, cut: bool, constrained: bool) -> tuple[str, str | None]:
    """*text* without the ``<think>...</think>`` that it begins with, and what stood in there.

    A block that is not closed is reasoning only where the text was *cut* off in it. One that was
    not opened, since some templates of prompts end with ``<think>``, is taken for it where the
    answer is *constrained*: it could not be valid.
    """
    thoughts: list[str] = []
    while True:
        if (opening := _THOUGHT.match(text)) is not None:
            inside, closing, rest = text[opening.end() :].partition(_END_OF_THOUGHT)
            if not closing and not cut:
                break
        elif constrained and _END_OF_THOUGHT in text and text.lstrip()[0] not in _BEGINS_JSON:
            inside, _, rest = text.partition(_END_OF_THOUGHT)
        else:
            break
        thoughts.append(inside.strip())
        text = rest.lstrip()
    return text, "\n\n".join(filter(None, thoughts)) or None


class Spoken:
    """The pieces of an answer as they stream, without the ``<think>...</think>`` that it begins
    with."""

    def __init__(self) -> None:
        self._stage: Literal["before", "thinking", "answer"] = "before"
        self._held: list[str] = []  # what may yet be the answer
        self._tail = ""  # of what is thought: a closing tag may come in two pieces
        self._thought = False

    def piece(self, text: str) -> str:
        """What *text* adds to the answer, together with what had to be held back until now."""
        while self._stage != "answer":
            self._held.append(text)
            if self._stage == "thinking":
                window = self._tail + text
                at = window.find(_END_OF_THOUGHT)
                if at < 0:
                    self._tail = window[1 - len(_END_OF_THOUGHT) :]
                    return ""
                self._stage, self._thought, self._held = "before", True, []
                text = window[at + len(_END_OF_THOUGHT) :]
                continue
            whole = "".join(self._held)
            if (opening := _THOUGHT.match(whole)) is not None:
                self._stage, self._held, self._tail = "thinking", [opening[0]], ""
                text = whole[opening.end() :]
            elif _OPENING_TAG.startswith(whole.lstrip()):
                self._held = [whole]
                return ""
            else:
                self._stage, self._held = "answer", []
                return whole.lstrip() if self._thought else whole
        return text

    def rest(self, *, cut: bool) -> str:
        """What was held back to the end, unless it is reasoning in which the answer was *cut*
        off."""
        if cut and self._stage == "thinking":
            return ""
        held = "".join(self._held)
        return held.lstrip() if self._thought else held


def kept_reasoning(*parts: Any) -> str | None:
    """The *parts* of a model's reasoning that are text, as they are recorded: together, as text
    that has a form in UTF-8."""
    whole = "\n\n".join(part for part in parts if isinstance(part, str) and part)[
        :MAX_REASONING_CHARS
    ]
    return whole.encode("utf-8", "backslashreplace").decode()[:MAX_REASONING_CHARS] or None


def read_answer(
    text: str,
    *,
    allowed: tuple[str, ...] | None = None,
    check: Callable[[Any], str | None] | None = None,
    cut: bool = False,
    accepted: bool = False,
    max_tokens: int | None = None,
) -> Any:
    """The value of an answer: a label of *allowed*, JSON that passes *check*, or the text.

    One that was *cut* off counts where it is complete all the same (a label that begins no other,
    an object or array that is closed; a number may have lost digits), and where that is *accepted*.

    Raises:
        InvalidAnswer: If it is not what was asked for.
        TruncatedAnswer: If it was cut off before it was that.
    """
    value: Any = text
    whole = not cut or accepted
    try:
        if allowed is not None:
            value = allowed_answer(text, allowed)
            whole = whole or not begins_another(value, allowed)
        elif check is not None:
            value = json_in(text)
            whole = whole or isinstance(value, (dict, list))
    except InvalidAnswer:
        if cut:
            raise truncated(text, max_tokens) from None
        raise
    if not whole:
        raise truncated(text, max_tokens)
    if check is not None and (fault := check(value)) is not None:
        raise InvalidAnswer(f"answer does not fit the schema: {fault}")
    return value


def truncated(text: str, max_tokens: int | None) -> TruncatedAnswer:
    """The error of an answer of which only *text* came."""
    limit = (
        f"max_tokens ({max_tokens})"
        if max_tokens is not None
        else "the limit of tokens that server or model set"
    )
    if not text:
        return TruncatedAnswer(
            f"{limit} left no room for an answer: all was used up before it; raise max_tokens"
        )
    return TruncatedAnswer(
        f"the answer was cut off after {len(text)} characters, at {limit}; raise max_tokens, or "
        f"take what there is by "
        "on_truncated: accept"
    )


def filtered(text: str, finish_reason: str) -> FilteredAnswer:
    """The error of an answer that was refused or filtered; *text* is what came of it, or the
    refusal's own words."""
    if finish_reason.casefold() == "refusal":
        return FilteredAnswer(
            f"the model refused to answer: {short(text)}" if text else "the model refused to answer"
        )
    return FilteredAnswer(f"a content filter stopped the answer (finish_reason: {finish_reason!r})")


def allowed_answer(text: str, allowed: tuple[str, ...]) -> str:
    """The allowed output that *text* is: exactly, or but for case and what is written around an
    answer.

    White space, quotes, full stops, markdown emphasis and fences are taken off one layer at a time,
    so that a label which itself ends in such a character is found before a shorter one. Where the
    layers do not pair, all of them are taken off text and labels alike, and the answer counts only
    if exactly one label is left.

    Raises:
        InvalidAnswer: If it is none of them, or may be more than one.
    """
    if text in allowed:
        return text
    _check_length(text)
    for form in _layers(text):
        folded = form.casefold()
        found = [label for label in allowed if _trimmed(label).casefold() == folded]
        if len(found) == 1:
            return found[0]
    bare = _bare(text)
    found = [label for label in allowed if bare and _bare(label) == bare]
    if len(found) == 1:
        return found[0]
    raise InvalidAnswer(f"answer {short(text)} is not one of {', '.join(repr(a) for a in allowed)}")


def _check_length(text: str) -> None:
    if len(text) > MAX_ANSWER_CHARS:
        raise InvalidAnswer(
            f"answer {short(text)} has {len(text)} characters, more than {MAX_ANSWER_CHARS}"
        )


def begins_another(label: str, allowed: tuple[str, ...]) -> bool:
    """Whether an answer that was cut off after *label* may have been going to be another of
    *allowed*."""
    begun = _trimmed(label).casefold()
    return any(other != label and _trimmed(other).casefold().startswith(begun) for other in allowed)


def _layers(text: str) -> Iterator[str]:
    """*text* without white space, then without one more layer of what stands around it, and so
    on."""
    text = _trimmed(text)
    blocks, outside = _fences(text)
    if len(blocks) == 1 and not outside:
        text = _trimmed(blocks[0])
    for _ in range(MAX_LAYERS):
        if not text:
            return
        yield text
        first, last = text[0], text[-1]
        if len(text) > 1 and (
            (first in QUOTES and last in QUOTES) or (first in EMPHASIS and first == last)
        ):
            text = _trimmed(text[1:-1])
        elif last in FULL_STOPS:
            text = _trimmed(text[:-1])
        else:
            return


def _trimmed(text: str, marks: frozenset[str] = INVISIBLE) -> str:
    """*text* without white space and *marks* at its ends, however they alternate."""
    start, end = 0, len(text)
    while start < end and (text[start] in marks or text[start].isspace()):
        start += 1
    while start < end and (text[end - 1] in marks or text[end - 1].isspace()):
        end -= 1
    return text[start:end]


def _bare(text: str) -> str:
    return _trimmed(text, DECORATION).casefold()


_FENCE = re.compile(r" {0,3}(?:`{3,}|~{3,})(.*)")
# what may follow an opening fence on its line: the name of a language
_INFO = re.compile(r"\s*[\w+.-]*\s*")


def _fences(text: str) -> tuple[list[str], str]:
    """What stands in each fenced block of *text*, of which the last may be left open, and what
    stands outside of all."""
    blocks: list[str] = []
    outside: list[str] = []
    inside: list[str] | None = None
    for line in text.split("\n"):
        fence = _FENCE.fullmatch(line)
        if inside is None and fence is not None and _INFO.fullmatch(fence[1]):
            inside = []
        elif inside is not None and fence is not None and not fence[1].strip():
            blocks.append("\n".join(inside))
            inside = None
        elif inside is None:
            outside.append(line)
        elif line.rstrip().endswith(("```", "~~~")):  # closed at the end of its last line
            blocks.append("\n".join([*inside, line.rstrip().rstrip("`~")]))
            inside = None
        else:
            inside.append(line)
    if inside is not None:
        blocks.append("\n".join(inside))
    return blocks, _trimmed("\n".join(outside))


def json_in(text: str) -> Any:
    """The one JSON value of *text*: alone, in a fence that may be left open, or an object or array
    with words around it.

    Raises:
        InvalidAnswer: If there is none, or more than one.
    """
    _check_length(text)
    body = _trimmed(text)
    try:
        return _parsed(body)
    except ValueError as error:
        reason = str(error)
    blocks, outside = _fences(body)
    found, broken = _groups(outside)
    for block in blocks:
        try:
            found.append(_parsed(_trimmed(block)))
        except ValueError:
            more, fault = _groups(block)
            found += more
            broken = broken or fault
    if len(found) == 1 and broken is None:
        return found[0]
    if len(found) > 1:
        reason = "it holds more than one JSON value"
    raise InvalidAnswer(f"answer {short(text)} is not JSON: {broken or reason}")


def _parsed(text: str) -> Any:
    """The JSON value that *text* is.

    Raises:
        ValueError: If it is none, or one that has no canonical form.
    """
    value = parse_json(text)
    try:
        canonical(value)  # refuses lone surrogates, and what is nested too deep
    except RecursionError:
        raise ValueError(f"deeper than {MAX_DEPTH} levels") from None
    return value


# A string is one token, open or closed, so that no bracket in it counts and no text is looked at
# twice.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[{}\[\]]', re.DOTALL)
_OPENING = re.compile(r"[{\[]")
_CLOSES = {"{": "}", "[": "]"}


def _groups(text: str) -> tuple[list[Any], str | None]:
    """The JSON objects and arrays that stand in *text*, none of them inside brackets; and why there
    may be another.

    Brackets that are no JSON are words, with all that is in them: the array in a broken object is
    not the answer.
    """
    found: list[Any] = []
    broken = None
    at = 0
    for _ in range(MAX_GROUPS):
        opening = _OPENING.search(text, at)
        if opening is None or len(found) > 1:
            return found, broken
        at = _closed(text, opening.start())
        if at < 0:
            return found, "it ends inside an object or array"
        group = text[opening.start() : at]
        try:
            found.append(_parsed(group))
        except ValueError as error:
            if group[1:].lstrip()[0] in '"{[':  # meant as JSON, and not just words in brackets
                broken = broken or str(error)
    return found, f"it has more than {MAX_GROUPS} brackets"


def _closed(text: str, start: int) -> int:
    """Where the bracket at *start* is closed; -1 where it is not."""
    open_brackets: list[str] = []
    for token in _TOKEN.finditer(text, start):
        mark = token[0]
        if mark in _CLOSES:
            open_brackets.append(_CLOSES[mark])
        elif mark in ("}", "]"):
            if open_brackets.pop() != mark:
                return -1
            if not open_brackets:
                return token.end()
    return -1


def correction(text: str, error: str) -> list[dict[str, str]]:
    """The messages that show a model its invalid answer and what was wrong with it."""
    shown = text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."
    return [
        {"role": "assistant", "content": shown},
        {
            "role": "user",
            "content": f"That cannot be used: {error}. Answer again, with nothing but a valid "
            f"answer.",
        },
    ]
