"""The chat shape that all providers here speak: messages in, one answer out, and what can go wrong
between.

In come the messages of a step and what the provider returned, whole or in pieces: objects of an
SDK, or llama.cpp's dicts. Out goes a `Completion`, or a `ModelError` that says whether another try
can help. No provider library is known by name here: its exceptions are distinguished by the status and
the class names they share.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

from ..errors import EmptyAnswer, FilteredAnswer, ModelError, ModelTimeout, RateLimited
from ..language.answers import ending
from ..language.messages import fault_of, text_of
from ..machine.faults import names_of
from ..records.usage import LLMUsage
from ..values import printable
from .protocol import Completion, Message

MAX_ERROR_CHARS = 500
"""Characters kept of a provider's error text: some gateways answer with a whole HTML page."""

TIMEOUT_NAMES = frozenset({"APITimeoutError", "TimeoutException", "TimeoutError"})
"""Names of the bases of timeouts: openai and litellm, httpx and httpx2, Python and asyncio."""

STATUS_ERROR = "HTTPStatusError"
"""Of httpx and httpx2: the cause of an error behind which a response stands, in openai, anthropic
and LiteLLM."""

FILTER_NAMES = frozenset({"ContentPolicyViolationError", "ContentFilterFinishReasonError"})
"""Names of exceptions for a prompt that a filter refused: LiteLLM's, openai's."""

FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"}
)
"""The same as codes of error bodies: Azure's, OpenAI's."""

REASONING = ("reasoning_content", "reasoning")
"""Where servers hand a model's reasoning over: DeepSeek, vLLM, llama.cpp and LiteLLM; OpenRouter,
Groq. Some fill in both."""


def checked_messages(messages: Any, *, developer: bool = True) -> list[Message]:
    """*messages*, if they can be sent; without *developer*, that role is the system's, which older
    APIs call it.

    Raises:
        ModelError: Not retryable, with the place of what is wrong.
    """
    if fault := fault_of(messages):
        raise ModelError(
            f"messages{fault if fault.startswith('[') else f': {fault}'}", retryable=False
        )
    for i, message in enumerate(messages):
        if (bad := unencodable(text_of(message))) is not None:
            raise ModelError(
                f"messages[{i}].content: character {bad} is a lone surrogate", retryable=False
            )
    return [
        {**m, "role": "system"} if m["role"] == "developer" and not developer else m
        for m in messages
    ]


def unencodable(text: str) -> int | None:
    """The place of the first lone surrogate in *text*, which has no form in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def schema_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The ``response_format`` that asks for JSON of *schema*.

    ``strict`` is set only where the schema keeps to OpenAI's rules for it, which refuses the call
    otherwise.
    """
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": dict(schema), "strict": is_strict(schema)},
    }


def is_strict(schema: Any) -> bool:
    """Whether every object in *schema* is closed and requires all its properties.

    Source: OpenAI, "Structured model outputs", supported schemas.
    """
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(
            schema.get("required", ())
        ) != set(properties):
            return False
        return all(map(is_strict, properties.values())) and is_strict(schema.get("$defs", {}))
    return all(
        is_strict(value) for key, value in schema.items() if key not in ("enum", "const", "default")
    )


def read(source: Any, name: str) -> Any:
    """A field of an SDK's object or of a dict; None where there is none."""
    return source.get(name) if isinstance(source, dict) else getattr(source, name, None)


class Answer:
    """An answer as it arrives: `add` takes the whole of it or one piece of a stream, `completion`
    closes it.

    *where* names the model and its address in messages; none of *secrets* is left in one, since
    some servers repeat the key that they refuse.
    """

    invents_statuses = True
    """Whether the library gives errors a status that no server has said."""

    def __init__(self, model: str, *, where: str, secrets: Iterable[str | None] = ()) -> None:
        self.model = model
        self._where = where
        # shorter ones are placeholders
        self._secrets = [secret for secret in secrets if secret and len(secret) > 7]
        self.usage: LLMUsage | None = None
        self.finish_reason: str | None = None
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._refusal = ""
        self._tool_calls = False
        self._answered = False
        self._streamed = False

    def add(self, response: Any) -> str:
        """Take *response* and return the text that it brought.

        Raises:
            ModelError: It is no chat completion, or an error in the place of one, as some gateways
            send with status
                200.
        """
        self.usage = usage_of(read(response, "usage")) or self.usage
        if error := read(response, "error"):
            raise self._billed(
                failed(
                    self._message(str(read(error, "message") or error)),
                    status_of(read(error, "code")),
                )
            )
        choices = read(response, "choices")
        if not isinstance(choices, list):
            raise self._error(f"the answer is no chat completion: {response!r:.200}")
        model = read(response, "model")
        self.model = model if isinstance(model, str) and model else self.model
        # usage, a content filter's note; or a further choice
        if not choices or read(choices[0], "index"):
            return ""
        self._answered = True
        reason = read(choices[0], "finish_reason")
        self.finish_reason = reason if isinstance(reason, str) else self.finish_reason
        delta = read(choices[0], "delta")
        self._streamed = self._streamed or delta is not None
        message = read(choices[0], "message") if delta is None else delta
        # where LiteLLM keeps what its own type does not have
        apart = read(message, "provider_specific_fields")
        self._refusal = self._refusal or str(
            read(message, "refusal") or read(apart, "refusal") or ""
        )
        self._tool_calls = self._tool_calls or bool(read(message, "tool_calls"))
        for name in REASONING:
            if isinstance(thought := read(message, name), str) and thought:
                self._thoughts.append(thought)
                break
        content = read(message, "content")
        texts = (
            [content]
            if isinstance(content, str)
            else self._parts(content)
            if isinstance(content, list)
            else []
        )
        self._texts += texts
        return "".join(texts)

    def _parts(self, content: list[Any]) -> list[str]:
        """The strings of a *content* in parts; what a model thought and that it refused are kept
        beside them."""
        texts = []
        for part in content:
            kind = read(part, "type")
            inner = next(
                (found for name in (str(kind), "text") if (found := read(part, name)) is not None),
                None,
            )
            if isinstance(inner, list):  # Mistral's thinking is a list of parts
                inner = "".join(str(read(piece, "text") or "") for piece in inner)
            if kind in ("text", "output_text") and isinstance(inner, str):
                texts.append(inner)
            elif kind in ("thinking", "reasoning") and isinstance(inner, str):
                self._thoughts.append(inner)
            elif kind == "refusal" and isinstance(inner, str):
                self._refusal = self._refusal or inner
            else:
                raise self._error(
                    f"the answer has a part of type {kind!r}, and only text can be used",
                    retryable=False,
                )
        return texts

    def completion(self) -> Completion:
        """The answer, now that all of it has arrived; cut off or refused, it is for the VM to
        judge.

        Raises:
            EmptyAnswer: It ended well and holds no text. ModelError: It broke off, or is a call of
            a tool. What is known of its usage goes with it.
        """
        text = "".join(self._texts)
        thoughts = "".join(self._thoughts) if self._streamed else "\n\n".join(self._thoughts)
        if self._streamed and self.finish_reason is None:
            raise self._error(f"the stream broke off after {len(text)} characters")
        if self.finish_reason == "error":  # OpenRouter's word for a provider that failed on the way
            raise self._error(f"the provider failed after {len(text)} characters")
        if self._refusal:
            return Completion(self._refusal, self.usage, self.model, "refusal", thoughts or None)
        if text or ending(self.finish_reason) is not None:
            return Completion(text, self.usage, self.model, self.finish_reason, thoughts or None)
        if self._tool_calls:
            why = "the model answered with a tool call, not with text; offer it no tools"
            raise self._error(why, retryable=False)
        message = f"the answer has no text (finish_reason: {self.finish_reason!r})"
        raise EmptyAnswer(self._message(message), usage=self.usage)

    def silent(self) -> ModelError:
        """The error of a stream that ended without a piece of an answer."""
        return self._error("the stream held no answer; does the server stream at all?")

    def failure(self, error: Exception) -> ModelError:
        """The `ModelError` for an exception of the provider's library."""
        names = {kind.__name__ for kind in type(error).__mro__}
        status = status_of(getattr(error, "status_code", None))
        own = self.invents_statuses and STATUS_ERROR not in names_of(error)
        if own and (status or 0) in (408, *range(500, 600)):
            status = None  # LiteLLM's own, of a lost connection or an answer that it cannot read
        body = getattr(error, "body", None)
        message = self._message(f"HTTP {status}: " * bool(status) + error_text(error, body))
        self.usage = usage_of(read(body, "usage")) or self.usage
        wait = retry_after_seconds(headers_of(error), time.time())
        code = read(read(body, "error") or body, "code")
        if names & TIMEOUT_NAMES:
            return self._billed(ModelTimeout(message, status=status, retry_after_seconds=wait))
        if isinstance(error, TypeError):  # an argument that the library does not know
            return ModelError(message, retryable=False)
        if names & FILTER_NAMES or code in FILTER_CODES:
            return self._billed(FilteredAnswer(message, status=status))
        if status == 429 and code == "insufficient_quota":  # waiting buys no credit
            return ModelError(message, status=status, retryable=False)
        return self._billed(failed(message, status or status_of(read(body, "code")), wait))

    def _error(self, text: str, *, retryable: bool = True) -> ModelError:
        """The error of an answer that cannot be used."""
        return self._billed(ModelError(self._message(text), retryable=retryable, answered=True))

    def _billed(self, error: ModelError) -> ModelError:
        """*error* with what is known of the usage; once an answer has begun, a provider's error is
        no refusal."""
        error.usage = self.usage
        error.answered = error.answered or self._answered
        return error

    def _message(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        line = " ".join(text.split())
        if len(line) > MAX_ERROR_CHARS:
            line = line[:MAX_ERROR_CHARS] + "..."
        return f"{self._where}: {printable(line)}"


async def unstreamed(chunks: Any) -> Any:
    """The whole answer of a server that was asked for a stream and gives plain JSON; None where it
    streams.

    *chunks* is the SDK's stream, which would find no event in such a body and end without a word.
    """
    response: Any = getattr(chunks, "response", None)
    kind = str(headers_of_response(response).get("content-type", ""))
    if kind.partition(";")[0].strip().lower() != "application/json":
        return None
    return json.loads(await response.aread())


def headers_of_response(response: Any) -> Mapping[str, str]:
    headers = getattr(response, "headers", None)
    return headers if isinstance(headers, Mapping) else {}


def usage_of(usage: Any) -> LLMUsage | None:
    """The tokens that a provider reports; None where it does not say, since 0 would be a lie to the
    budget."""
    prompt, completion = read(usage, "prompt_tokens"), read(usage, "completion_tokens")
    if type(prompt) is not int or type(completion) is not int or prompt < 0 or completion < 0:
        return None
    # more than the sum where a provider counts its thinking apart
    total = read(usage, "total_tokens")
    return counted(
        prompt,
        completion,
        total if isinstance(total, int) else 0,
        cached=_first(
            read(read(usage, "prompt_tokens_details"), "cached_tokens"),
            read(usage, "prompt_cache_hit_tokens"),  # DeepSeek's
        ),
        reasoning=read(read(usage, "completion_tokens_details"), "reasoning_tokens"),
    )


def counted(
    prompt: int,
    completion: int,
    total: int = 0,
    *,
    cached: Any = None,
    written: Any = None,
    reasoning: Any = None,
) -> LLMUsage | None:
    """The usage of a call; a part that is no count, or more than there can be, is left out. None for
    what no call has used.
    """
    read_ = _part(cached, prompt)
    usage = LLMUsage(
        prompt,
        completion,
        max(total, prompt + completion),
        None,
        read_,
        _part(written, prompt - read_),
        _part(reasoning, completion),
    )
    return usage if usage.plausible else None


def _part(count: Any, most: int) -> int:
    return count if type(count) is int and 0 <= count <= most else 0


def _first(*found: Any) -> Any:
    return next((one for one in found if one is not None), None)


def failed(message: str, status: int | None, retry_after: float | None = None) -> ModelError:
    """The kind of failure that an HTTP status stands for; without one, the connection failed."""
    match status:
        case 429:
            return RateLimited(message, retry_after_seconds=retry_after)
        case 408 | 504:
            return ModelTimeout(message, status=status, retry_after_seconds=retry_after)
        case _:
            retryable = status is None or status in (409, 425) or status >= 500
            return ModelError(
                message, status=status, retryable=retryable, retry_after_seconds=retry_after
            )


def status_of(code: Any) -> int | None:
    return code if isinstance(code, int) and 400 <= code <= 599 else None


def error_text(error: Exception, body: Any) -> str:
    """What the provider said, else what the library said, with the cause that a bare "Connection
    error." hides."""
    inner = read(body, "error") or body
    said = (
        read(inner, "message") or read(inner, "detail") or (body if isinstance(body, str) else None)
    )
    text = str(said or str(error) or type(error).__name__)
    # which LiteLLM puts into its messages
    text = text.partition("Traceback (most recent call last)")[0]
    return text if said or error.__cause__ is None else f"{text} {error.__cause__}"


def headers_of(error: Exception) -> Mapping[str, str]:
    headers = headers_of_response(getattr(error, "response", None)) or getattr(
        error, "litellm_response_headers", None
    )
    return headers if isinstance(headers, Mapping) else {}


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """How long a provider asks to wait; *now* is in seconds since the epoch.

    Source: RFC 9110, 10.2.3: seconds, or a date. ``retry-after-ms`` is OpenAI's.
    """
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            wait = float(milliseconds) / 1000
        else:
            wait = float(headers.get("retry-after", "nan"))
    except ValueError:
        try:
            wait = parsedate_to_datetime(headers["retry-after"]).timestamp() - now
        except (ValueError, KeyError, OverflowError):
            return None
    return max(wait, 0.0) if isfinite(wait) else None
