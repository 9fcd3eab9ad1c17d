"""The JSON Schema of the language, by which editors complete and check programs."""

from __future__ import annotations

from typing import Any

from .fields import EXTENSION
from .kinds import TYPES
from .policy_schema import POLICY_SCHEMA
from .program import Program
from .shape import ALL_STEP_FIELDS, BUDGET_AT_TOP

_WHOLE_RUN = "Of the whole run, waits and approvals included, which budget.max_seconds leaves out."
FIELD_TEXTS = {
    "id": "The step's name: $id.output is its output, jumps lead to it.",
    "when": "A condition: where it is false the step is skipped, as by `on_error: skip`, with its "
    "`default`.",
    "output_key": "A name for the output: $output_key.",
    "next": "What follows, in list order from there: a step's id, $end or $fail.",
    "on_error": "After retries and catches: fail, skip, or retry (3 attempts unless max_retries "
    "says otherwise).",
    "max_retries": "Attempts in all, the first included.",
    "retry": "Waits between attempts and which errors they are for.",
    "catch": "Jumps to `next` on one of `errors`: kinds, names of exception classes or base "
    "classes, or *.",
    "timeout_seconds": "Of one attempt; on parallel, map, call and loop of the whole.",
    "prompt": "One user message; a template.",
    "messages": "The whole conversation: role and content each; templates. $name stands for a "
    "list of messages.",
    "allowed_outputs": "The only answers that are valid; the stored value is one of these strings.",
    "output_schema": "A JSON Schema by which the answer, parsed as JSON, or the event's payload "
    "must be valid.",
    "top_p": "Sample from the likeliest tokens whose probabilities sum up to this.",
    "stop": "Strings at which the answer ends; they are no part of it.",
    "reasoning_effort": "How long a reasoning model may think.",
    "options": "Further fields of the request, as the provider names them.",
    "on_truncated": "What becomes of an answer that was cut off at max_tokens: fail, or accept "
    "what there is.",
    "cache": "Take the answer to an equal call that was given before: true, or for how many seconds. "
    "Of a tool that only reads.",
    "queue": "On a Temporal cluster, the task queue of the workers that make the call; elsewhere "
    "it says nothing.",
    "on_invalid": "Taken where no attempt gave a valid answer; without it the step fails.",
    "args": "Arguments by name; templates, or {expr: text}. One that is exactly one reference "
    "keeps its type.",
    "undo": "Called if the run fails or is cancelled later; its arguments are fixed when the step "
    "ends.",
    "reconcile": "Asked where the outcome is unknown; returns {done: true, output: ...} or {done: "
    "false}.",
    "condition": "True or false; $name is a value, '$name' is text.",
    "message": "What is wrong where it fails; a template.",
    "error": "The name of the error, which a caller's `catch` matches: PaymentRefused; a template.",
    "then": "A step's id (a jump: without `next` there the run ends after it) or a list of steps "
    "(a block).",
    "otherwise": "As `then`. Without it, beside a block nothing happens, beside a jump the step "
    "fails.",
    "on": "What is compared with the cases, as text.",
    "cases": "A target for each value.",
    "parallel_steps": "Branches: a step, or a list of steps that is named by its first.",
    "max_concurrency": "How many branches or items run at a time.",
    "on_item_error": "After a failed branch or item: fail, or continue with null for it, and the "
    "error in $id.errors.",
    "over": "A list: mostly one reference, or {expr: text}.",
    "as": "The item's name inside: $item unless given.",
    "max_items": "More items than this fail the step; they are never cut.",
    "until": "A loop ends when this holds after an iteration; a wait ends at this time.",
    "max_iterations": "The loop's bound.",
    "on_exhausted": "What a loop does whose `until` never held: fail, or continue.",
    "match": "Values that the event's payload must have, by its fields: {order: $order_id}; "
    "templates.",
    "program": "Another program: inline, or its name in ExecutionVM(programs=...), or a file in "
    "the command line.",
    "with": "The called program's inputs; templates, or {expr: text}.",
    "values": "Names to write: templates, or {expr: text}. All read what was there before the "
    "step.",
    "inputs": "A JSON Schema of the program's inputs.",
    "output": "The program's output; templates, or {expr: text}. Without it, that of the last "
    "step that succeeded.",
    "budget": "Hard limits; the tightest of program, VM and run counts.",
    "policy": "What the program demands of itself, in the words of a host's policy; it can only "
    "tighten that.",
    "untrusted": "Whether the program comes from an untrusted source: its literals are untrusted "
    "until its digest is approved.",
    "models": "Names that steps use, and what they stand for.",
    "defaults": "For steps that do not say otherwise.",
    "type": "What the step does: " + ", ".join(TYPES) + ".",
    "default": "A literal that is the output where the step is skipped.",
    "description": "For readers; no part of the digest.",
    "metadata": "Anything, for other tools; no part of the digest.",
    "system": "The system message; a template.",
    "model": "A name under `models`, of the host's models, or as the adapter names it.",
    "max_tokens": "The most tokens that an answer may have; at the top, of the whole run.",
    "temperature": "How freely the model chooses; 0 is the likeliest token each time.",
    "seed": "For models that draw by one.",
    "tool": "The tool's name, as the host registers it.",
    "steps": "Steps in order.",
    "role": "Who may decide.",
    "show": "What the person sees, and approves; templates.",
    "seconds": "How long it waits; a number or a reference to one.",
    "event": "The name of the event that it waits for.",
    "is_terminal": "The same as `next: $end`.",
    "next_step": "The same as `next`.",
    "dsl": "The version of the language.",
    "name": "The program's name, in traces and lists.",
    "version": "The program's own version.",
    "errors": "Kinds (timeout, tool, model, rate_limit, ...), names of exception classes or base "
    "classes, or *.",
    "delay_seconds": "The longest first wait; each is drawn below its longest.",
    "factor": "By how much the longest wait grows with each attempt.",
    "max_delay_seconds": "What no wait exceeds.",
    "max_steps": "The most steps that a run may take.",
    "max_llm_calls": "The most model calls, each attempt counted.",
    "max_tool_calls": "The most tool calls, each attempt counted.",
    "max_cost_usd": "The most dollars; every model needs a price.",
    "max_seconds": "The most time, approvals and waits left out.",
    "pool": "The host's models that may answer.",
    "strategy": "Which of them is asked first, and what follows.",
    "require": "Tags that a model must have to be asked.",
    "attempts": "How many of them are tried.",
    "hedge_after_seconds": "When a second model is asked beside the first.",
}
"""What an editor shows beside a field."""

OTHERWISE = (
    ("Retry", "on", f"Errors that are tried again. {FIELD_TEXTS['errors']}"),
    ("SwitchStep", "default", "The target where no case matches; without it the step fails."),
)
"""What it shows where a field has another meaning than elsewhere: part, field, text."""


def without_examples(schema: dict[str, Any]) -> dict[str, Any]:
    """*schema*, whose descriptions are docstrings, without their examples: those are in Python."""
    for part in [schema, *schema["$defs"].values()]:
        if "description" in part:
            part["description"] = part["description"].partition("\n\nExamples:")[0]
    return schema


def json_schema() -> dict[str, Any]:
    """See `Program.json_schema`."""
    schema = without_examples(Program.model_json_schema(by_alias=True))
    for part in [schema, *schema["$defs"].values()]:
        if part.get("type") != "object":
            continue
        part["additionalProperties"] = False
        part["patternProperties"] = {f"^{EXTENSION}": True}
        properties = part["properties"]
        for name, text in FIELD_TEXTS.items():
            if name in properties:
                properties[name] = {**properties[name], "description": text}
        for name, kind in properties.items():
            if name not in part.get("required", ()) and {"type": "null"} not in kind.get(
                "anyOf", ()
            ):
                # written, and absent
                wrapped: dict[str, Any] = {"anyOf": [kind, {"type": "null"}]}
                if "description" in kind:
                    wrapped["description"] = kind["description"]
                properties[name] = wrapped
        if "next" in properties and "id" in properties:
            for name in ALL_STEP_FIELDS:
                # of another type: may stand there empty
                properties.setdefault(name, {"enum": [None, {}, []]})
            properties["next_step"] = properties["next"]
            properties["is_terminal"] = {
                "type": "boolean",
                "description": FIELD_TEXTS["is_terminal"],
            }
        for beside in ("undo", "reconcile"):
            if "anyOf" in properties.get(beside, {}):
                properties[beside]["anyOf"].append({"type": "string"})
        for version in ("dsl", "version"):
            if version in properties:
                properties[version] = {
                    "type": ["string", "number"],
                    "description": FIELD_TEXTS[version],
                }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "llm-nano-vm program"
    # there and not at the top, since it contains itself by `call`
    program = schema["$defs"]["Program"]
    program["properties"]["timeout_seconds"]["description"] = _WHOLE_RUN
    program["properties"]["policy"] = {
        "anyOf": [POLICY_SCHEMA, {"type": "null"}],
        "description": FIELD_TEXTS["policy"],
    }
    for part_name, field, text in OTHERWISE:
        schema["$defs"][part_name]["properties"][field]["description"] = text
    program["properties"] |= {
        key: {"$ref": f"#/$defs/Budget/properties/{key}"} for key in BUDGET_AT_TOP
    }
    return schema
