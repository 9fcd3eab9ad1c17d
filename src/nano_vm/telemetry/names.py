"""The names under which tools look for what a run did: one place, so that a changed convention is
one change.

Of OpenTelemetry's conventions for generative AI, which are still in development and whose published
Python constants are deprecated, and of OpenInference, which Phoenix reads; and our own for what
neither has.
"""

from __future__ import annotations

# OpenTelemetry, as of semantic conventions 1.39
OPERATION = "gen_ai.operation.name"
WORKFLOW = "gen_ai.workflow.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL = "gen_ai.tool.name"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
TOKEN_TYPE = "gen_ai.token.type"
ERROR_TYPE = "error.type"
EXCEPTION = "exception"
EXCEPTION_TYPE = "exception.type"
EXCEPTION_MESSAGE = "exception.message"

REQUEST_OPTIONS = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "seed": "gen_ai.request.seed",
    "stop": "gen_ai.request.stop_sequences",
}
"""Of a model step, as its record has them."""

INVOKE_WORKFLOW, CHAT, EXECUTE_TOOL = "invoke_workflow", "chat", "execute_tool"

OPERATION_DURATION = "gen_ai.client.operation.duration"
TOKEN_USAGE = "gen_ai.client.token.usage"

DURATION_BUCKETS = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
"""Seconds, as the conventions advise for `OPERATION_DURATION`."""

TOKEN_BUCKETS = (
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
)  # fmt: skip
"""Tokens, as the conventions advise for `TOKEN_USAGE`."""

CAPTURE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The environment's switch, off unless it is one of `CAPTURING`: prompts, answers, arguments and
results are then in spans."""

CAPTURING = frozenset({"true", "1", "span_only", "span_and_event"})

# OpenInference
SPAN_KIND = "openinference.span.kind"
INPUT, INPUT_TYPE = "input.value", "input.mime_type"
OUTPUT, OUTPUT_TYPE = "output.value", "output.mime_type"
MODEL = "llm.model_name"
PROMPT_COUNT = "llm.token_count.prompt"
COMPLETION_COUNT = "llm.token_count.completion"
TOTAL_COUNT = "llm.token_count.total"
COST = "llm.cost.total"
TOOL_NAME = "tool.name"

KINDS = {"llm": "LLM", "tool": "TOOL", "assert": "GUARDRAIL"}
"""By the type of a step; all others are ``CHAIN``."""

# ours
RUN_ID = "nano_vm.run.id"
RUN_STATUS = "nano_vm.run.status"
RUN_RESUMED = "nano_vm.run.resumed"
PROGRAM = "nano_vm.program.name"
PROGRAM_DIGEST = "nano_vm.program.digest"
STEP_PATH = "nano_vm.step.path"
STEP_TYPE = "nano_vm.step.type"
STEP_STATUS = "nano_vm.step.status"
STEP_BRANCH = "nano_vm.step.branch"
RETRIES = "nano_vm.step.retries"
ATTEMPT = "nano_vm.attempt"
REPLAYED = "nano_vm.replayed"
ERROR_KIND = "nano_vm.error.kind"
COST_USD = "nano_vm.cost_usd"
COST_SOURCE = "nano_vm.cost_source"
CACHED = "nano_vm.cached"
POOL = "nano_vm.pool.name"
POOL_STRATEGY = "nano_vm.pool.strategy"
POOL_MEMBER = "nano_vm.pool.member"
POOL_TRIED = "nano_vm.pool.tried"
