"""Codes of a document that cannot be read."""

from __future__ import annotations

from typing import Final

from ..code import Code

CODES: Final = (
    Code(
        "P001",
        "The text cannot be read",
        "The file cannot be opened, is not UTF-8, or is neither YAML 1.2 nor JSON. Tags and merge keys "
        "of YAML are not part of programs.",
        "Mend the text at the place that is named; quote a text that begins with a special character "
        "or holds `: ` or ` #`.",
        example="steps: [\n",
    ),
    Code(
        "P002",
        "A key stands twice",
        "An object has two entries of one name, and one of them would be lost.",
        "Keep one of them.",
        example="name: a\nname: b\nsteps: [{id: a, type: set, values: {x: 1}}]\n",
    ),
    Code(
        "P003",
        "An alias cannot be used",
        "A YAML alias names no anchor, is part of itself, or all aliases together add too much.",
        "Write out what it stands for.",
        example="name: *other\nsteps: [{id: a, type: set, values: {x: 1}}]\n",
    ),
    Code(
        "P004",
        "A value is no JSON value",
        "Programs hold JSON values: finite numbers, texts, lists, objects whose keys are texts.",
        "Quote it where it is meant as text.",
        example="steps: [{id: a, type: set, values: {x: .nan}}]\n",
    ),
    Code(
        "P005",
        "The document is over a limit",
        "The text is too long, nested too deep, has too many steps, or more faults than are listed.",
        "Split the program with `call`, or mend the faults that are listed first.",
    ),
)
