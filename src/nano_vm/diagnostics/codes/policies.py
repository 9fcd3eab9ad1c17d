"""Codes of a policy's text, without a program."""

from __future__ import annotations

from typing import Final

from ..code import Code

CODES: Final = (
    Code(
        "P040",
        "A policy cannot be read",
        "The file cannot be read, or an entry has the wrong kind of value.",
        "Write what the message names.",
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
)
