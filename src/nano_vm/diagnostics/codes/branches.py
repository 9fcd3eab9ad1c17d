"""Codes of branches that no run takes."""

from __future__ import annotations

from typing import Final

from ..code import Code

CODES: Final = (
    Code(
        "V060",
        "A test that always comes out the same way",
        "By what the names can hold, one of its branches is never taken.",
        "Correct the test, or remove it.",
        "warning",
        example="""\
steps:
  - {id: a, type: llm, prompt: "?", allowed_outputs: [yes, no]}
  - {id: b, type: condition, condition: "$a.output != ''", then: [{id: c, type: tool, tool: fetch}]}
""",
    ),
    Code(
        "V061",
        "A switch that forgets a value",
        "The value can be one that has no case, and there is no `default`: the step fails then.",
        "Add a case or a default.",
        "warning",
        example="""\
steps:
  - {id: a, type: llm, prompt: "?", allowed_outputs: [x, y]}
  - {id: b, type: switch, on: $a.output, cases: {x: $end}}
""",
    ),
    Code(
        "V062",
        "A comparison that never matches",
        "By what the names can hold, this part of a test is never true, or always an error.",
        "Compare it with a value that it can have.",
        "warning",
        example="""\
steps:
  - {id: a, type: llm, prompt: "?", allowed_outputs: [x, y]}
  - {id: b, type: condition, condition: "$a.output == 'x' or $a.output == 'z'", then: $end, otherwise: $end}
""",
    ),
    Code(
        "V063",
        "A case that never comes about",
        "The value can never be this one.",
        "Correct the case, or remove it.",
        "warning",
        example="""\
steps:
  - {id: a, type: llm, prompt: "?", allowed_outputs: [x, y]}
  - {id: b, type: switch, on: $a.output, cases: {x: $end, y: $end, z: $end}}
""",
    ),
)
