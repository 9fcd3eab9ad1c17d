"""Unknown fields of programs and policies: what to write in place of one.

A field's name and those that may stand there come in; the text of a remedy goes out. A field that
does nothing may be a guard that its author relies on, so each is an error; here is only what the
message says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, model_validator

from ..spelling import Hints
from ..values import short

if TYPE_CHECKING:
    from typing import Self

EXTENSION = "x-"
"""How keys begin that are free for tools of others, as in OpenAPI; nothing here reads them."""

_WHEN = "write `when: <condition>`: the step runs only where it holds"
_APPROVAL = "put a step of type `approval` before it, and the steps that need it into its `then`"
_ORDER = (
    "steps run in the order in which they stand; `next` changes it, and `parallel` runs "
    "branches at the same time"
)
_EACH = "write a step of type `map`, with `over` and `steps`"
_REPEAT = "write a step of type `loop`, with `steps`, `until` and `max_iterations`"
_HANDLED = "write `catch: [{errors: [...], next: <step>}]`"
_HOST = (
    "what a tool needs of its surroundings is the host's: give it to the tool, or to the "
    "program as an input"
)
_EFFECT = (
    "what a tool does to the world is declared with the tool: @tool(effect=...), or by a policy"
)
_WAIT = "put a step of type `wait` before it"

_STEP: Mapping[str, str] = {
    **dict.fromkeys(
        "if only_if run_if unless skip_if when_expr where cond predicate guard guards "
        "precondition enabled disabled "
        "active skip run_when condition".split(),
        _WHEN,
    ),
    **dict.fromkeys(
        "requires_approval require_approval needs_approval approval approvals approve approved "
        "approved_by approver "
        "confirm confirmation requires_confirmation human human_input manual interrupt "
        "interrupt_before".split(),
        _APPROVAL,
    ),
    **dict.fromkeys("guarded_by max_calls".split(), "it belongs into a policy, under `tools`"),
    **dict.fromkeys(
        "retries max_attempts attempts retry_count retry_limit num_retries max_tries tries".split(),
        "write `max_retries`, which counts all attempts",
    ),
    **dict.fromkeys(
        "concurrency parallelism max_parallel max_workers workers batch_size".split(),
        "write `max_concurrency`, on a step of type `parallel` or `map`",
    ),
    **dict.fromkeys(
        "timeout timeout_s timeout_ms timeout_minutes deadline max_seconds".split(),
        "write `timeout_seconds`",
    ),
    **dict.fromkeys(
        "backoff delay_seconds retry_delay retry_policy".split(),
        "write `retry: {delay_seconds, ...}`",
    ),
    **dict.fromkeys("delay sleep wait pause".split(), _WAIT),
    **dict.fromkeys(
        "depends_on depends needs after before requires dependencies run_after upstream "
        "parents".split(),
        _ORDER,
    ),
    **dict.fromkeys("goto go_to jump transition next_steps to".split(), "write `next: <step>`"),
    **dict.fromkeys(
        "else otherwise then".split(), "they are fields of a step of type `condition` or `approval`"
    ),
    **dict.fromkeys(
        "fallback on_failure rescue except on_exception error_handler catch_errors handlers "
        "on_timeout".split(),
        _HANDLED,
    ),
    **dict.fromkeys(
        "continue_on_error ignore_errors allow_failure continue_on_failure optional".split(),
        "write `on_error: skip`, with a `default` where its output is read; for items and "
        "branches `on_item_error: continue`",
    ),
    **dict.fromkeys(
        "fail_fast stop_on_error tolerate_failures tolerated_failures on_branch_error partial "
        "allow_partial".split(),
        "write `on_item_error: continue`, on a step of type `parallel` or `map`",
    ),
    **dict.fromkeys(
        "output outputs save_as register assign result result_key store_as into as_name "
        "variable".split(),
        "write `output_key: <name>`",
    ),
    **dict.fromkeys(
        "params parameters input inputs arguments kwargs with_args".split(),
        "write `args: {...}`, on a step of type `tool`",
    ),
    **dict.fromkeys(
        "uses function func action call_tool tool_name".split(),
        "write `tool: <name>`, on a step of type `tool`",
    ),
    **dict.fromkeys("name title label comment notes".split(), "write `description`"),
    **dict.fromkeys("foreach for_each with_items items each matrix iterate".split(), _EACH),
    **dict.fromkeys("while repeat times repeat_until".split(), _REPEAT),
    **dict.fromkeys(
        "max_loops max_rounds iterations".split(),
        "write `max_iterations`, on a step of type `loop`",
    ),
    **dict.fromkeys(
        "response_format schema json_schema response_schema response_model".split(),
        "write `output_schema`, on a step of type `llm`",
    ),
    **dict.fromkeys(
        "max_completion_tokens max_output_tokens max_new_tokens num_predict token_limit".split(),
        "write `max_tokens`",
    ),
    **dict.fromkeys("stop_sequences stop_words stops".split(), "write `stop: [...]`"),
    **dict.fromkeys(
        "thinking reasoning effort".split(),
        "write `reasoning_effort`, or the provider's own field in `options`",
    ),
    **dict.fromkeys(
        "top_k min_p presence_penalty frequency_penalty repetition_penalty logit_bias logprobs "
        "verbosity extra_body "
        "model_kwargs provider_options".split(),
        "write `options: {<field>: ...}`, on a step of type `llm`",
    ),
    **dict.fromkeys(
        "choices enum labels allowed".split(),
        "write `allowed_outputs: [...]`, on a step of type `llm`",
    ),
    **dict.fromkeys(
        "correlation correlation_id correlate correlate_by correlation_key matching filter "
        "where_payload".split(),
        "write `match: {field: value}`, on a step of type `wait` with `event`",
    ),
    **dict.fromkeys(
        "rollback compensate compensation undo_with".split(),
        "write `undo: {tool, args}`, on a step of type `tool`",
    ),
    **dict.fromkeys(
        "effect idempotent irreversible readonly read_only side_effects".split(), _EFFECT
    ),
    **dict.fromkeys("env environment secrets credentials".split(), _HOST),
    **dict.fromkeys(
        "trusted untrusted".split(), "trust is said by a policy: `inputs` and `tools.<tool>.args`"
    ),
    **dict.fromkeys("tags annotations meta".split(), "write `metadata: {...}`"),
    **dict.fromkeys(
        "cached caching cache_key cache_ttl cache_seconds ttl ttl_seconds memoize memo "
        "cache_policy".split(),
        "write `cache: true`, or for how many seconds, on a step of type `llm`, or of type `tool` "
        "whose tool only reads",
    ),
    **dict.fromkeys(
        "task_queue taskqueue taskQueue worker_queue worker_group".split(),
        "write `queue`, the task queue of the workers that make the call on a Temporal cluster",
    ),
}

_FIELD = "write it as a field of the step"
_LIMIT = "write `max_tokens`, which budgets count with"
_ONE = "a call gives one answer; for several write a step of type `map`"
_TEXT_ONLY = "an answer is text; tools are steps of type `tool`"
_OF_THE_HOST = (
    "where and under which account a model is called is the host's: give it to the adapter"
)

NO_OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(
        "messages prompt system model temperature top_p stop seed reasoning_effort".split(), _FIELD
    ),
    **dict.fromkeys(
        "output_schema allowed_outputs idempotency_key step_id options".split(), _FIELD
    ),
    **dict.fromkeys(
        "response_format json_schema grammar guided_json".split(),
        "write `output_schema` or `allowed_outputs`",
    ),
    **dict.fromkeys("stop_sequences stopSequences".split(), "write `stop`"),
    **dict.fromkeys(
        "max_tokens max_completion_tokens max_output_tokens max_new_tokens maxOutputTokens "
        "n_predict num_predict".split(),
        _LIMIT,
    ),
    **dict.fromkeys("n best_of num_completions candidate_count candidateCount".split(), _ONE),
    **dict.fromkeys(
        "stream stream_options".split(), "whether an answer is streamed is the host's to say"
    ),
    **dict.fromkeys(
        "tools tool_choice functions function_call parallel_tool_calls".split(), _TEXT_ONLY
    ),
    **dict.fromkeys(
        "api_key base_url api_base api_version headers extra_headers extra_query extra_body "
        "timeout max_retries num_retries "
        "fallbacks organization project http_client client custom_llm_provider model_list "
        "service_tier".split(),
        _OF_THE_HOST,
    ),
}
"""What cannot be an option of a model step, and what to do instead: budgets and proofs know the
fields of the language only, and a program does not choose to whom its prompts, and the host's keys,
are sent.
"""

_PROGRAM: Mapping[str, str] = {
    **dict.fromkeys("timeout timeout_s deadline max_duration".split(), "write `timeout_seconds`"),
    **dict.fromkeys(
        "retries max_retries retry on_error catch continue_on_error max_attempts".split(),
        "write it on each step that it is for",
    ),
    **dict.fromkeys(
        "concurrency max_concurrency parallelism".split(),
        "write `max_concurrency` on each `parallel` and `map`",
    ),
    **dict.fromkeys("env environment secrets credentials".split(), _HOST),
    **dict.fromkeys(
        "max_llm_calls max_tool_calls max_cost_usd max_seconds max_cost".split(),
        "it is a field of `budget`",
    ),
    **dict.fromkeys("limits quota".split(), "write `budget: {...}`"),
    **dict.fromkeys(
        "model temperature top_p stop seed reasoning_effort".split(), "it is a field of `defaults`"
    ),
    **dict.fromkeys(
        "variables vars state context".split(),
        "write a `default` in `inputs`, or a step of type `set`",
    ),
    **dict.fromkeys("input params parameters arguments".split(), "write `inputs`, a JSON Schema"),
    **dict.fromkeys("outputs result returns return".split(), "write `output`"),
    **dict.fromkeys("tasks nodes jobs stages workflow flow edges".split(), "write `steps: [...]`"),
    **dict.fromkeys("id title".split(), "write `name`"),
    **dict.fromkeys(
        "permissions rules guards guarded_by allow deny".split(), "write `policy: {...}`"
    ),
    **dict.fromkeys(
        "if when unless enabled disabled".split(),
        "whether a program runs is for its host; write `when` on each step that it is for",
    ),
    **dict.fromkeys("requires_approval approval approve confirm".split(), _APPROVAL),
    **dict.fromkeys(
        "on triggers trigger schedule cron".split(), "when a program runs is for its host"
    ),
    **dict.fromkeys(
        "max_stalled_steps".split(),
        "remove it: a program that passes the check ends; see `max_steps`",
    ),
    **dict.fromkeys("tags annotations meta author".split(), "write `metadata: {...}`"),
}

_POLICY: Mapping[str, str] = {
    **dict.fromkeys(
        "deny forbid forbidden denied blocked".split(),
        "write `allow: false` in the rule of the tool",
    ),
    **dict.fromkeys(
        "requires_approval needs_approval approve approved_by role".split(),
        "write `approval: <role>` in the rule",
    ),
    **dict.fromkeys(
        "guard guards guarded only_after requires".split(), "write `guarded_by: [<step>.<edge>]`"
    ),
    **dict.fromkeys(
        "limit max calls max_uses rate_limit".split(), "write `max_calls` in the rule of the tool"
    ),
    **dict.fromkeys("arguments params parameters".split(), "write `args: {<argument>: <rule>}`"),
    **dict.fromkeys("untrusted trusted".split(), "write `inputs: {<input>: untrusted}`"),
    **dict.fromkeys("constants lists allowlist".split(), "write `values: {...}`"),
    **dict.fromkeys(
        "limits max_steps max_llm_calls max_tool_calls max_tokens max_cost_usd max_seconds".split(),
        "it is a field of `budget`",
    ),
    **dict.fromkeys(
        "condition rule if when".split(), "write a `check`, such as '$value in $payees'"
    ),
}

PURPOSES: Mapping[str, Mapping[str, str]] = {"step": _STEP, "program": _PROGRAM, "policy": _POLICY}
"""By what kind of object it stands in: names that others use, and what serves their purpose here.
"""


def free(key: str) -> bool:
    """Whether *key* is one of those that anybody may write and nothing here reads."""
    return key.startswith(EXTENSION)


def remedy(key: str, known: Iterable[str], kind: str = "", hints: Hints | None = None) -> str:
    """What to write in place of the field *key*, which an object of this *kind* with the fields
    *known* does not have.
    """
    fields = list(known)
    plain = key.strip().lower().replace("-", "_")
    if plain in fields:
        return f"did you mean {plain!r}?"
    purpose = PURPOSES.get(kind, {}).get(plain)
    if purpose is not None:
        return purpose
    longer = next((field for field in fields if field.startswith(f"{plain}_")), None)
    near = longer or (hints or Hints()).nearest(plain, fields, likeness=0.7)
    return (
        f"did you mean {near!r}?"
        if near
        else f"fields are {', '.join(fields)}; keys that begin with x- are free"
    )


def unknown(key: object) -> str:
    """The message of an unknown field."""
    return f"unknown field {short(key)}"


class Part(BaseModel):
    """A part of a program: immutable, and without fields that it does not know, but for those that
    are `free`.
    """

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True, populate_by_name=True)

    @model_validator(mode="after")
    def _known(self) -> Self:
        """For what is built in Python; of what is loaded all faults are found at once, see
        `shape.prepare`.
        """
        for key in self.__pydantic_extra__ or ():
            if not free(key):
                raise ValueError(f"{unknown(key)}; {remedy(key, type(self).model_fields)}")
        return self
