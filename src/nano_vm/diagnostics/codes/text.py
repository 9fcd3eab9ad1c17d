"""Codes of a document that cannot be read."""

from __future__ import annotations

from typing import Final

from ..code import Code

CODES: Final = (
    Code(
        "P001",
        "The text cannot be read",
        "It is neither YAML 1.2 nor JSON. Tags and merge keys of YAML are not part of programs.",
        "Mend the text at the place that is named; quote a string that begins with a special character "
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
        "Programs hold JSON values: finite numbers, strings, lists, objects whose keys are strings.",
        "Quote it where it is meant as text.",
        example="steps: [{id: a, type: set, values: {x: .nan}}]\n",
    ),
    Code(
        "P005",
        "The document is over a limit",
        "The text is too long, nested too deep, or has too many steps.",
        "Split the program with `call`.",
    ),
    Code(
        "P006",
        "Not a program",
        "A program is an object with `steps`; this is something else, the trace of a run for one.",
        "Give the program's own document.",
        example="- {id: a, type: set, values: {x: 1}}\n",
    ),
    Code(
        "P007",
        "Another version of the language",
        "`dsl` names a version that this release does not know.",
        "Write `dsl: 1`, or use a release that knows the version.",
        example="dsl: 2\nsteps: [{id: a, type: set, values: {x: 1}}]\n",
    ),
    Code(
        "P008",
        "The file cannot be read",
        "The file of a program or policy cannot be opened, or is not UTF-8.",
        "Correct the path or its permissions, or save the file as UTF-8.",
    ),
    Code(
        "P009",
        "More faults than are listed",
        "The document has so many faults that not all are listed.",
        "Mend those that are listed first.",
    ),
)
