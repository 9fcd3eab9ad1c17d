"""Codes of a policy's text, without a program."""

from __future__ import annotations

from typing import Final

from ..code import Code

CODES: Final = (
    Code(
        "P040",
        "An entry of a policy has the wrong kind of value",
        "What is written is of another type than the entry takes, or none of its words.",
        "Write a value of the kind that the message names.",
        policy="tools: {pay: {effect: raed}}\n",
    ),
    Code(
        "P041",
        "Unknown field of a policy",
        "No field of that name exists in a policy. A demand that is dropped would protect nothing.",
        "Correct the name.",
        policy="tools: {pay: {guard: [gate.then]}}\n",
    ),
    Code(
        "P042",
        "Not a check of values",
        "The check of an argument cannot be read, compares nothing, or reads a name that the policy "
        "does not declare.",
        "Write a check like `$value in $payees`, with `payees` under `values` or as a trusted input.",
        policy='tools: {pay: {args: {to: "$value in $payees"}}}\n',
    ),
    Code(
        "P043",
        "A policy contradicts itself",
        "Two entries exclude each other, or demand what no run can keep.",
        "Remove one of them.",
        policy="tools: {pay: {before: [pay]}}\n",
    ),
    Code(
        "P044",
        "An entry of a policy that says nothing",
        "The entry is there and empty: a demand that was meant and not written protects nothing.",
        "Fill it in, or remove it; `{}` allows a tool without demands.",
        policy="tools: {pay: {guarded_by: }}\n",
    ),
    Code(
        "P045",
        "A name that names nothing",
        "An entry of a policy stands under a name that no input, tool or argument can have, or mixes "
        "a name and `*` where only one of them is possible.",
        "Write the name, or `*` alone.",
        policy='tools: {pay: {args: {"acc*": trusted}}}\n',
    ),
    Code(
        "P046",
        "Not the name of an edge",
        "A guard is an edge of a step: the step's id, a full stop, and the way that is taken.",
        "Write `step.then`, `step.otherwise`, `step.default` or `step.<case>`.",
        policy="tools: {pay: {guarded_by: [gate]}}\n",
    ),
    Code(
        "P047",
        "Not a label of this policy",
        "A value is called secret by a name that the policy does not declare, or the declaration is no "
        "list of at most 16 names.",
        "Declare it under `secret`, or write `secret` or `public`.",
        policy="secret: [customer]\ninputs: {iban: [custmer]}\n",
    ),
    Code(
        "P048",
        "A declassifier without a reason",
        "What a tool returns no longer counts as secret, and nobody says why: whoever reads the report "
        "must be able to judge it.",
        "Write `reason` beside `declassifies`.",
        policy="tools: {redact: {declassifies: secret}}\n",
    ),
)
