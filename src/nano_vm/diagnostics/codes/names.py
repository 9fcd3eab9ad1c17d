"""Codes of names: what is written, read and meant."""

from __future__ import annotations

from typing import Final

from ..code import DOUBT, HOST, PLANNER, Code

CODES: Final = (
    Code(
        "V010",
        "A read of what is never there",
        "No step has written it before, no input holds it, or it is a step and no value.",
        "Correct the name, or write the value before.",
        example="""\
inputs: {type: object, properties: {}}
steps:
  - {id: a, type: tool, tool: fetch, args: {q: $x}}
  - {id: b, type: set, values: {x: 1}}
""",
        traits=(HOST,),
    ),
    Code(
        "V011",
        "A read of what some path lacks",
        "A path leads to the step on which nothing has written the name; the step fails there.",
        "Write the name in each branch or before, give a skipped step a `default`, or read it by "
        '`{expr: "default($name, null)"}`.',
        "warning",
        example="""\
steps:
  - {id: a, type: condition, condition: "$go == 1", then: [{id: b, type: set, values: {x: 1}}]}
  - {id: c, type: tool, tool: fetch, args: {q: $x}}
""",
        traits=(HOST, DOUBT),
    ),
    Code(
        "V012",
        "Unknown name",
        "The program declares its inputs, and neither they nor a step have this name.",
        "Correct it, declare it in `inputs`, or write `$$` for a dollar sign.",
        example="""\
inputs: {type: object, properties: {order: {type: string}}}
steps: [{id: a, type: tool, tool: fetch, args: {q: $odrer}}]
""",
    ),
    Code(
        "V013",
        "Two branches write one name",
        "Branches run at the same time: which of the values should it have afterwards?",
        "Give each its own name; the step's output holds both by branch.",
        example="""\
steps:
  - id: p
    type: parallel
    parallel_steps:
      - {id: a, type: set, values: {x: 1}}
      - {id: b, type: set, values: {x: 2}}
""",
    ),
    Code(
        "V014",
        "A field that is not there",
        "What the value can be has no such field or item.",
        "Correct the path, or read it by `get`.",
        "warning",
    ),
    Code(
        "V015",
        "A step that goes on in two ways",
        "It is reached in order and by a jump, and what follows it differs.",
        "Give it `next`, or write what belongs to the branch as a block.",
        "hint",
        example="""\
steps:
  - {id: a, type: condition, condition: "$go == 1", then: c, otherwise: $next}
  - {id: b, type: tool, tool: fetch}
  - {id: c, type: tool, tool: fetch}
  - {id: d, type: tool, tool: fetch}
""",
    ),
    Code(
        "V016",
        "Written and never read",
        "Nothing reads the name, or the output of a call that is made for nothing else.",
        "Read it, or remove it.",
        "hint",
        example="""\
steps:
  - {id: a, type: set, values: {x: 1}}
  - {id: b, type: tool, tool: fetch}
""",
    ),
    Code(
        "V017",
        "A field of what is no object",
        "`.x` after a name is a field, in text too, and the value is no object, or may be none.",
        "Write `${name}.x` where a full stop is meant.",
        "warning",
    ),
    Code(
        "V018",
        "An input that looks misspelled",
        "The name is taken for an input, and a step writes a very similar one that nothing reads.",
        "Correct the spelling.",
        "hint",
        example="""\
steps:
  - {id: a, type: set, values: {customer_name: 1}}
  - {id: b, type: tool, tool: fetch, args: {q: $costumer_name}}
""",
    ),
    Code(
        "V019",
        "`default` always gives the other value",
        "Nothing has written the name where `default` reads it.",
        "Correct the name, or write the other value.",
        "warning",
    ),
    Code(
        "V023",
        "A jump back that repeats nothing",
        "The target also runs in order, so the run ends after it: a jump is no loop.",
        "Write a `loop` step; the message writes it out.",
        "warning",
        example="""\
steps:
  - {id: a, type: tool, tool: fetch}
  - {id: b, type: condition, condition: "$a.output == 1", then: $end, otherwise: a}
""",
        traits=(HOST, DOUBT, PLANNER),
    ),
    Code(
        "V024",
        "A name that is read before it is written",
        "A step writes it later, so inputs must hold it first.",
        "Declare it in `inputs`, or write it before.",
        "warning",
        example="""\
steps:
  - {id: a, type: tool, tool: fetch, args: {q: $x}}
  - {id: b, type: set, values: {x: 1}}
""",
        traits=(HOST, DOUBT, PLANNER),
    ),
    Code(
        "V025",
        "Braces of another template language",
        "`{{ name }}` and `{name}` are sent as they stand.",
        "Write `$name`.",
        "warning",
        example='steps: [{id: a, type: llm, prompt: "Hello {{ name }}"}]\n',
    ),
)
