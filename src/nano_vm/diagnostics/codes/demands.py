"""Codes of what a policy demands of a program."""

from __future__ import annotations

from typing import Final

from ..code import HOST, NAMES, Code

CODES: Final = (
    Code(
        "V050",
        "A forbidden tool",
        "The policy does not allow the program to call this tool.",
        "Name it in the policy, or do without.",
        policy='tools: {"*": {allow: false}}\n',
    ),
    Code(
        "V051",
        "A policy names a tool that is not there",
        "The host has no tool of that name: a misspelled demand protects nothing. A pattern that "
        "matches none is a warning.",
        "Correct the name, or remove the entry.",
        policy="tools: {pya: {max_calls: 1}}\n",
        traits=(HOST, NAMES),
    ),
    Code(
        "V052",
        "A demand of the policy is not proved",
        "*Refuted*: a run was found and executed that breaks it. *Unproved*: the graph has a path that "
        "breaks it, or the demand was not looked at.",
        "Close the path that the message shows.",
        policy="tools: {pay: {guarded_by: [gate.otherwise]}}\n",
    ),
    Code(
        "V053",
        "A literal that the policy refuses",
        "The policy's check of values does not hold for the value that the program writes: the step "
        "fails when it is reached.",
        "Write a value that the policy allows.",
        "warning",
        policy='tools: {pay: {args: {amount: "$value < 5"}}}\n',
    ),
    Code(
        "V054",
        "A policy names a step or edge that is not there",
        "The program has no such step, edge or tool, and nothing could come before or after it. A "
        "guard is a warning where others of its list are there.",
        "Name a step, an edge like `step.then`, or a tool of this program.",
        policy="tools: {pay: {before: [fecth]}}\n",
        traits=(HOST, NAMES),
    ),
    Code(
        "V055",
        "A policy names an argument that is not there",
        "The tool takes no argument of that name: a misspelled demand protects nothing.",
        "Correct the name.",
        policy="tools: {pay: {args: {acount: trusted}}}\n",
        traits=(HOST, NAMES),
    ),
    Code(
        "V056",
        "An input called untrusted or secret that is not there",
        "The program reads no input of that name, and one that is nearly called so stays trusted, or "
        "public.",
        "Correct the name.",
        policy='inputs: {mial: untrusted, "*": trusted}\n',
        traits=(HOST, NAMES),
    ),
    Code(
        "V057",
        "A policy that allows more than it may",
        "A program's own policy can only add demands to the host's, and a policy can only make a tool's "
        "declared effect graver.",
        "Remove the entry.",
        example="""\
policy: {inputs: {mail: trusted}}
steps: [{id: a, type: tool, tool: fetch, args: {q: $mail}}]
""",
        policy="inputs: {mail: untrusted}\n",
        traits=(HOST,),
    ),
    Code(
        "V058",
        "A check that reads an untrusted input",
        "Whoever gives the input would choose what the value is held against.",
        "Write what is allowed into the policy's `values`, or take the input from a trusted place.",
    ),
    Code(
        "V059",
        "A policy that does not say whether an input is trusted, or secret",
        "With `inputs` in a host's policy every input is covered: a missing name is as likely "
        "misspelled as meant.",
        "Name it as trusted or untrusted, secret or public, or write `*`.",
        policy="inputs: {mail: untrusted}\n",
        traits=(HOST, NAMES),
    ),
    Code(
        "V064",
        "A model without a tag that the policy demands",
        "Some model that may answer here does not have the tag: of a pool, each member must.",
        "Give the models their tags with `Member(tags=[...])`, or the pool `require: [...]`.",
        policy='models: {"*": {tags: [eu]}}\n',
        traits=(HOST,),
    ),
    Code(
        "V065",
        "A label that nobody declares",
        "A program's policy or a tool's contract names a label that the host's policy does not have.",
        "Declare it under the host's `secret`, or use one that is there.",
        example="""\
inputs: {properties: {mail: {type: string}}}
policy: {inputs: {mail: [custmer]}}
steps: [{id: a, type: set, values: {x: 1}}]
""",
        policy="secret: [customer]\ninputs: {mail: [customer]}\n",
        traits=(HOST, NAMES),
    ),
    Code(
        "V066",
        "A label that is accepted, and that no value has",
        "No input, tool or event has the label, so accepting it says nothing: a misspelled source would "
        "leave its values public.",
        "Say which values have it, or remove it.",
        example="steps: [{id: a, type: set, values: {x: 1}}]\n",
        policy="secret: [customer, payroll]\ninputs: {mail: [customer]}\n"
        "accepts: {output: [payroll]}\n",
        traits=(HOST, NAMES),
    ),
    Code(
        "V067",
        "A model of which the policy does not say what it accepts",
        "The policy has labels. Which of them a model may see is then declared, and never assumed.",
        'Write `models: {"*": {accepts: public}}`, or what this one accepts.',
        example="steps: [{id: a, type: llm, prompt: hello}]\n",
        policy="inputs: {mail: secret}\n",
        traits=(HOST,),
    ),
)
