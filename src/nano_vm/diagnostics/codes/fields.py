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
        "A step without a known type",
        "The `type` of a step is missing, or none of the language's.",
        "Use one of the types that the message names.",
        example="steps: [{id: a, type: tol, tool: fetch}]\n",
    ),
    Code(
        "P015",
        "A field does not belong here",
        "The field or value means something only elsewhere: in steps of other types, beside `options` "
        "and not in them, or in the messages of a user.",
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
        "P017",
        "Two fields where one is meant",
        "The fields exclude each other, or say the same thing.",
        "Keep one of them.",
        example='steps: [{id: a, type: llm, prompt: "?", messages: $history}]\n',
    ),
    Code(
        "P018",
        "A field without the one that it is about",
        "The field says something of another field, which is not there.",
        "Add the field that it is about, or remove it.",
        example='steps: [{id: a, type: llm, prompt: "?", on_invalid: x}]\n',
    ),
    Code(
        "P019",
        "A field that says nothing",
        "The field is there and empty, and would be read as if it were not: a step that should be "
        "guarded would always run.",
        "Fill it in, or remove it.",
        example="steps: [{id: a, type: tool, tool: fetch, when: }]\n",
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
        "An id or a key has characters that it cannot have, or too many.",
        "Use letters, digits and `_`.",
        example="steps: [{id: a/b, type: set, values: {x: 1}}]\n",
    ),
    Code(
        "P022",
        "Not built yet",
        "The field is planned and does nothing yet; nothing is ignored in silence.",
        "Remove the field.",
        example="tools: {fetch: {}}\nsteps: [{id: a, type: tool, tool: fetch}]\n",
    ),
    Code(
        "P023",
        "Not the name of an error",
        "`errors`, `on` and `fail` name errors: by a kind, or by a class, which begins with a capital.",
        "Use one of the kinds that the message names, or the name of an exception's class.",
        example="steps: [{id: a, type: tool, tool: fetch, retry: {on: [timeuot]}, max_retries: 2}]\n",
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
    Code(
        "P035",
        "`expr` beside other keys",
        "`{expr: ...}` is computed, and holds a string under `expr` and nothing else.",
        "Remove the other keys, or write `$$expr` for a key of that name.",
        example='steps: [{id: a, type: set, values: {x: {expr: "1 + 1", y: 2}}}]\n',
    ),
    Code(
        "P036",
        "Labels that cannot be distinguished",
        "Two of `allowed_outputs` differ only in case or spaces, and answers are compared without.",
        "Remove one, or choose labels that differ in more.",
        example='steps: [{id: a, type: llm, prompt: "?", allowed_outputs: [yes, Yes]}]\n',
    ),
    Code(
        "P037",
        "A reference where nothing is replaced",
        "`options` are sent to the provider as they stand.",
        "Write the value itself.",
        example='steps: [{id: a, type: llm, prompt: "?", options: {user: $name}}]\n',
    ),
    Code(
        "P038",
        "A demand that says nothing",
        "The field bounds or checks what a run does, and stands there without a value: nothing is "
        "bounded or checked by it, as if it were not there.",
        "Fill it in, or remove it.",
        "warning",
        example="policy:\nsteps: [{id: a, type: set, values: {x: 1}}]\n",
    ),
)
