"""Codes of single steps and their fields."""

from __future__ import annotations

from typing import Final

from ..code import Code

CODES: Final = (
    Code(
        "P010",
        "Something is missing",
        "A step or program lacks a field without which it means nothing.",
        "Add the field.",
        example="steps: [{id: a, type: tool}]\n",
    ),
    Code(
        "P012",
        "Unknown field",
        "No field of that name exists here. It is an error since a guard that is dropped in silence is "
        "worse than a program that does not load.",
        "Correct the name; keys that begin with `x-`, and `metadata`, are free.",
        example="steps: [{id: a, type: tool, tool: fetch, retries: 3}]\n",
    ),
    Code(
        "P013",
        "A field has the wrong kind of value",
        "What is written is of another type than the field takes, or outside of its range.",
        "Write a value of the kind that the message names.",
        example="steps: [{id: a, type: tool, tool: fetch, max_retries: many}]\n",
    ),
    Code(
        "P014",
        "Unknown type of step",
        "The `type` of a step is none of the language's.",
        "Use one of the types that the message names.",
        example="steps: [{id: a, type: tol, tool: fetch}]\n",
    ),
    Code(
        "P015",
        "A field does not belong here",
        "The field is one of other types of steps, says what another field says already, or stands "
        "beside one that excludes it.",
        "Remove it, or move it to where it means something.",
        example="steps: [{id: a, type: set, values: {x: 1}, timeout_seconds: 5}]\n",
    ),
    Code(
        "P016",
        "`on_invalid` is none of the labels",
        "The value that stands in for an invalid answer is not among `allowed_outputs`: what reads the "
        "answer may not expect it.",
        "Add it to the labels, or see that every reader takes it.",
        "warning",
        example='steps: [{id: a, type: llm, prompt: "?", allowed_outputs: [x, y], on_invalid: z}]\n',
    ),
    Code(
        "P020",
        "A name is taken",
        "Two steps have one id, in whatever blocks they stand, or an input has the id of a step.",
        "Rename one of them.",
        example="steps: [{id: a, type: set, values: {x: 1}}, {id: a, type: set, values: {y: 1}}]\n",
    ),
    Code(
        "P021",
        "Not a usable name",
        "An id, a key or the name of an error has characters that it cannot have, or too many.",
        "Use letters, digits and `_`.",
        example="steps: [{id: a/b, type: set, values: {x: 1}}]\n",
    ),
    Code(
        "P022",
        "Not built yet",
        "The field is planned and does nothing yet; nothing is ignored in silence.",
        "Remove the field.",
        example="steps: [{id: a, type: tool, tool: fetch, cache: true}]\n",
    ),
    Code(
        "P030",
        "Not a condition or expression",
        "The text does not follow the grammar of conditions.",
        "Correct it at the column that the message names.",
        example='steps: [{id: a, type: condition, condition: "$x ==", then: $end}]\n',
    ),
    Code(
        "P031",
        "Not a template",
        "A `$` in the text begins no reference that can be read: `${` is not closed, for example.",
        "Close it, or write `$$` for a dollar sign.",
        example='steps: [{id: a, type: llm, prompt: "${x"}]\n',
    ),
    Code(
        "P032",
        "Not a usable JSON Schema",
        "The schema is malformed, refers to another document, or could take too long to check.",
        "Correct the schema at the place that the message names.",
        example='steps: [{id: a, type: llm, prompt: "?", output_schema: {type: txt}}]\n',
    ),
    Code(
        "P033",
        "An expression in a literal",
        "`default` and `on_invalid` are literals: `{expr: ...}` in them is data and is not computed.",
        "Compute it in a `set` step where it is needed.",
        "warning",
        example='steps: [{id: a, type: tool, tool: fetch, on_error: skip, default: {expr: "1 + 1"}}]\n',
    ),
    Code(
        "P034",
        "`retry` without attempts",
        "It says how to wait between attempts, and there is only one.",
        "Add `max_retries`, or remove `retry`.",
        "warning",
        example="steps: [{id: a, type: tool, tool: fetch, retry: {delay_seconds: 1}}]\n",
    ),
)
