"""Codes of a test file, which holds tests of a program as data."""

from __future__ import annotations

from typing import Final

from ..code import Code

CODES: Final = (
    Code(
        "P050",
        "An entry of a test file has the wrong kind of value",
        "What is written is of another type than the entry takes, is missing, or says nothing.",
        "Write a value of the kind that the message names.",
    ),
    Code(
        "P051",
        "Unknown field of a test file",
        "No field of that name exists there. An expectation that is dropped would hold nothing.",
        "Correct the name.",
    ),
    Code(
        "P052",
        "A test names what its program does not have",
        "A step, a tool or a branch of that name is not in the program, or is of another type: the "
        "answer would never be asked for, and the expectation would test nothing.",
        "Correct the name, or change the test with the program.",
    ),
)
