"""Allowed answers as a grammar for llama.cpp (GBNF), which then can give no other."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ModelError
from ._chat import unencodable


def choice_grammar(allowed: Sequence[str]) -> str:
    r"""The GBNF for exactly one of *allowed*: ``root ::= "yes" | "no"``.

    The strings stand as given, with no space before them: after a chat template the answer starts on
    a new line. (In a bare completion, whose prompt ends with a word, the label would be `" yes"`.)

    Raises:
        ModelError: A string that no model can produce: with a NUL, at which llama.cpp's strings end, or
        a lone surrogate.

    Source: llama.cpp, ``grammars/README.md`` and ``parse_char`` in ``llama-grammar.cpp``.
    """
    for i, text in enumerate(allowed):
        if "\0" in text or unencodable(text) is not None:
            raise ModelError(f"allowed_outputs[{i}]: no model can answer {text!r}", retryable=False)
    return "root ::= " + " | ".join(f'"{"".join(map(_escaped, text))}"' for text in allowed)


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08X}"
