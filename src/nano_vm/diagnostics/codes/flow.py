"""Codes of what follows what in a program."""

from __future__ import annotations

from typing import Final

from ..code import GRAPH, Code

CODES: Final = (
    Code(
        "V003",
        "A jump to a step that does not exist",
        "A target names no step of this program.",
        "Correct the id, add the step, or use `$end` or `$fail`.",
        example="steps: [{id: a, type: tool, tool: fetch, next: b}]\n",
    ),
    Code(
        "V004",
        "A jump into a block or out of a branch",
        "A jump leads to a step of its own block or of one around it, and never out of a branch or item.",
        "Move the step, or write what follows as a block.",
        example="""\
steps:
  - {id: a, type: tool, tool: fetch, next: b}
  - {id: c, type: condition, condition: "1 == 1", then: [{id: b, type: tool, tool: fetch}]}
""",
    ),
    Code(
        "V005",
        "Steps run in a circle",
        "Jumps lead back to where they came from, and nothing would bound the run.",
        "Write a `loop` step, which has a bound.",
        example="""\
steps:
  - {id: a, type: tool, tool: fetch, next: b}
  - {id: b, type: tool, tool: fetch, next: a}
""",
    ),
    Code(
        "V006",
        "A call of an unknown program",
        "The host has no program of that name.",
        "Give it by `ExecutionVM(programs={...})` or `--program name=FILE`.",
        example="steps: [{id: a, type: call, program: other}]\n",
    ),
    Code(
        "V007",
        "A program calls itself",
        "A program runs inside of itself, and nothing would bound the run.",
        "Repetition is `loop` and `map` only.",
    ),
    Code(
        "V008",
        "The program is too large",
        "With all that it calls, in all ways in which its steps are entered, the program's graph is "
        "over a limit; see the limits in language.md.",
        "Call fewer programs, or catch what fails in fewer loops.",
        traits=(GRAPH,),
    ),
    Code(
        "V009",
        "A step that nothing reaches",
        "No path leads to the step: it never runs.",
        "Lead a branch or `next` to it, or remove it.",
        "warning",
        example="""\
steps:
  - {id: a, type: tool, tool: fetch, next: $end}
  - {id: b, type: tool, tool: fetch}
""",
    ),
)
