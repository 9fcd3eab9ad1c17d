"""Anthropic's Messages API, by its own SDK: in go a step's messages, out comes a `Completion` or a
`ModelError`.

One request for each call, none repeated here: retries, deadlines and budgets belong to the VM. The
SDK is imported on the first call, in a thread, and never looks for credentials of its own.
"""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from ..errors import MissingExtra, ModelError
from ..given import string
from ..language.messages import text_of
from ..machine.ledger import DEFAULT_MAX_TOKENS
from ..records.usage import LLMUsage
from ._chat import (
    Answer,
    checked_messages,
    counted,
    failed,
    is_strict,
    read,
    status_of,
    unstreamed,
)
from ._sdk import SdkAdapter
from .protocol import Completion, Message

BASE_URL = "https://api.anthropic.com"

LEAST_THINKING = 1024
"""Tokens: a smaller thinking budget is refused. Source: Anthropic, "Extended thinking"."""

THINKING = {"minimal": 0.1, "low": 0.25, "medium": 0.5, "high": 0.8, "xhigh": 0.9}
"""The share of ``max_tokens`` that a step's ``reasoning_effort`` may think, at least
`LEAST_THINKING`. A share and no number, since what is thought counts against ``max_tokens``, which
is what the VM has reserved.
"""

EFFORTS = {"minimal": "low"}
"""Efforts that the API calls otherwise."""

ENDINGS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}
"""Why an answer ended, in the words that `Completion` has; all others are no end of an answer."""

STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status of each type of error, for those that arrive in a stream, whose status was 200."""

OPTIONS = frozenset(
    "cache_control context_management inference_geo metadata output_config service_tier speed "
    "thinking top_k".split()
)
"""The `options` that a step may have: fields of the request that shape an answer. All others would
have it do more than answer (tools, servers, containers), or say what other fields of the step say.
"""


_SIGNATURE = ("model", "max_tokens", "messages", "system")


class AnthropicAdapter(SdkAdapter):
    """A Claude model: ``AnthropicAdapter("claude-sonnet-4-5")``, with the key of
    ``ANTHROPIC_API_KEY``.

    With a *base_url* of your own, pass *api_key*: the key of the environment goes only to Anthropic,
    or to the ``ANTHROPIC_BASE_URL`` beside it. *max_tokens* bounds the answer of a step that declares none,
    since the API wants a bound. *temperature* None leaves the choice to the model; the newest
    refuse the field. *cache* (``"5m"`` or ``"1h"``) has the provider keep the prompt, which makes
    the same beginning cheaper the next time. *thinking* says how a step's ``reasoning_effort`` is
    sent: as a ``"budget"`` of tokens within ``max_tokens``, or as ``"adaptive"``, which newer
    models want. *structured* says whether an output schema is sent; only closed schemas are, others
    the API refuses. *timeout* is in seconds, for each wait on the network. *http_client* is an
    asynchronous client of the HTTP library that ``anthropic`` uses, yours to close.

    There is no ``seed``: the API has none, so a step that declares one is refused before the run.

    Raises:
        MissingExtra: The ``anthropic`` package is not installed.
        ValueError: *cache* or *thinking* is none of the above.

    Examples:
        >>> from nano_vm import AnthropicAdapter, ExecutionVM
        >>> adapter = AnthropicAdapter("claude-sonnet-4-5", api_key="...", cache="5m")
        >>> vm = ExecutionVM(adapter)
        >>> adapter.model
        'claude-sonnet-4-5'
    """

    _package = "anthropic"

    images = True
    """Whether messages may have parts, and pictures among them."""

    files = True
    """Whether files may be among them: PDF and plain text."""

    option_names = OPTIONS

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        temperature: float | None = None,
        cache: Literal["5m", "1h"] | None = None,
        thinking: Literal["budget", "adaptive"] = "budget",
        structured: bool = True,
        http_client: Any = None,
    ) -> None:
        if find_spec("anthropic") is None:
            raise MissingExtra("AnthropicAdapter", "anthropic")
        if cache not in (None, "5m", "1h"):
            raise ValueError(f"cache is '5m', '1h' or None, not {cache!r}")
        if thinking not in ("budget", "adaptive"):
            raise ValueError(f"thinking is 'budget' or 'adaptive', not {thinking!r}")
        if base_url is not None:
            string(base_url, "base_url")
        self.model = string(model, "model").removeprefix("anthropic/")
        """The model that a call uses which names none."""
        own = base_url or os.environ.get("ANTHROPIC_BASE_URL")
        self.base_url = own or BASE_URL
        self.timeout = timeout
        self.max_tokens = max_tokens
        self.temperature = temperature
        self._elsewhere = base_url is not None
        self._api_key = api_key
        self._cache = cache
        self._adaptive = thinking == "adaptive"
        self._structured = structured
        super().__init__(http_client)

    async def complete(
        self,
        messages: list[Message],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: Sequence[str] | None = None,
        reasoning_effort: str | None = None,
        output_schema: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Completion:
        """The model's answer to *messages*; *options* are fields of the request, see `OPTIONS`.

        Raises:
            RateLimited: Status 429, with the wait that the provider asked for.
            ModelTimeout: No answer in time, or status 408 or 504.
            ModelError: Any other failure; ``retryable`` for a lost connection, an unreadable answer
                and status 5xx.
        """
        request = self._request(
            messages,
            model,
            max_tokens,
            temperature,
            top_p,
            stop,
            reasoning_effort,
            output_schema,
            options,
        )
        reply = self._reply(request["model"])
        client = await self._client()
        try:
            reply.add(await client.messages.create(**request, stream=False))
            return reply.completion()
        except ModelError:
            raise
        except Exception as error:  # the SDK lets those of its HTTP and JSON libraries through
            raise reply.failure(error) from error

    async def stream(
        self,
        messages: list[Message],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: Sequence[str] | None = None,
        reasoning_effort: str | None = None,
        output_schema: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[str | Completion]:
        """As `complete`, in pieces of text as they come; last, one `Completion` with the whole."""
        request = self._request(
            messages,
            model,
            max_tokens,
            temperature,
            top_p,
            stop,
            reasoning_effort,
            output_schema,
            options,
        )
        reply = self._reply(request["model"])
        client = await self._client()
        try:
            async with await client.messages.create(**request, stream=True) as events:
                if (whole := await unstreamed(events)) is not None and (text := reply.add(whole)):
                    yield text
                async for event in events:
                    if text := reply.add_event(event):
                        yield text
            yield reply.completion()
        except ModelError:
            raise
        except Exception as error:  # as in complete
            raise reply.failure(error) from error

    def _request(
        self,
        messages: list[Message],
        model: str | None,
        max_tokens: int | None,
        temperature: float | None,
        top_p: float | None,
        stop: Sequence[str] | None,
        reasoning_effort: str | None,
        output_schema: Mapping[str, Any] | None,
        options: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        for name in options or ():
            if name not in OPTIONS:
                known = ", ".join(sorted(OPTIONS))
                raise ModelError(
                    f"options.{name}: not a field that shapes an answer; known are {known}",
                    retryable=False,
                )
        checked = checked_messages(messages, developer=False)
        request: dict[str, Any] = {
            "model": model.removeprefix("anthropic/") if model else self.model,
            "max_tokens": max_tokens or self.max_tokens,
            "messages": [_message(m) for m in checked if m["role"] != "system"],
        }
        if not request["messages"]:
            raise ModelError(
                "messages: one of the user is needed beside the system's", retryable=False
            )
        # the API has one system prompt, which comes first wherever it stood
        if system := "\n\n".join(text_of(m) for m in checked if m["role"] == "system"):
            request["system"] = system
        if reasoning_effort is not None and reasoning_effort != "none":
            request |= self._thinking(reasoning_effort, request["max_tokens"])
        elif (chosen := self.temperature if temperature is None else temperature) is not None:
            request["temperature"] = chosen
        if top_p is not None:
            request["top_p"] = top_p
        if stop:
            request["stop_sequences"] = list(stop)
        if output_schema is not None and self._structured and is_strict(output_schema):
            form = {"type": "json_schema", "schema": dict(output_schema)}
            request["output_config"] = {**request.get("output_config", {}), "format": form}
        if self._cache is not None:
            request["cache_control"] = {"type": "ephemeral", "ttl": self._cache}
        for name, value in (options or {}).items():
            both = isinstance(value, dict) and isinstance(request.get(name), dict)
            request[name] = {**request[name], **value} if both else value
        # in the body as they stand: which fields there are is the API's matter, and the SDK drops
        # from its signature what its newest models refuse
        body = {name: request.pop(name) for name in list(request) if name not in _SIGNATURE}
        return {**request, "extra_body": body} if body else request

    def _thinking(self, effort: str, max_tokens: int) -> dict[str, Any]:
        if self._adaptive:
            return {
                "thinking": {"type": "adaptive"},
                "output_config": {"effort": EFFORTS.get(effort, effort)},
            }
        if max_tokens <= LEAST_THINKING:
            raise ModelError(
                f"reasoning_effort: thinking takes at least {LEAST_THINKING} tokens of max_tokens, "
                f"which is {max_tokens}; raise max_tokens",
                retryable=False,
            )
        share = max(LEAST_THINKING, int(max_tokens * THINKING.get(effort, 0.5)))
        return {"thinking": {"type": "enabled", "budget_tokens": share}}

    def _open(self) -> Any:
        key = self._key()
        if key is None and not self._elsewhere:
            raise ModelError(
                "no key for anthropic: set ANTHROPIC_API_KEY, or pass api_key",
                status=401,
                retryable=False,
            )
        return self._sdk.AsyncAnthropic(
            api_key=key or "none",  # given, so that the SDK looks for no other credentials
            base_url=self.base_url,
            timeout=self.timeout,
            max_retries=0,
            http_client=self._http_client,
        )

    def _key(self) -> str | None:
        if self._api_key or self._elsewhere:
            return self._api_key
        return os.environ.get("ANTHROPIC_API_KEY")

    def _reply(self, model: str) -> Reply:
        return Reply(model, where=f"{model} at {self._host}", secrets=[self._key()])

    def __repr__(self) -> str:
        return f"AnthropicAdapter({self.model!r}) <{self._host}>"


class Reply(Answer):
    """An answer of the Messages API: `add` takes the whole of it, `add_event` one event of a
    stream.
    """

    invents_statuses = False

    def __init__(self, model: str, **where: Any) -> None:
        super().__init__(model, **where)
        self._counts: dict[str, Any] = {}

    def add(self, response: Any) -> str:
        if error := read(response, "error"):
            raise self._billed(self._failed(error))
        content = read(response, "content")
        if not isinstance(content, list):
            raise self._error(f"the answer is no message: {response!r:.200}")
        self._begun(response)
        self._ended(read(response, "stop_reason"), read(response, "stop_details"))
        return "".join(self._block(block) for block in content)

    def add_event(self, event: Any) -> str:
        """Take one *event* of a stream and return the text that it brought.

        Raises:
            ModelError: It is an error in the place of an answer, or of a kind that is not text.
        """
        self._streamed = True
        match read(event, "type"):
            case "message_start":
                self._begun(read(event, "message"))
            case "content_block_start":
                return self._block(read(event, "content_block"))
            case "content_block_delta":
                return self._delta(read(event, "delta"))
            case "message_delta":
                self._used(read(event, "usage"))
                delta = read(event, "delta")
                self._ended(read(delta, "stop_reason"), read(delta, "stop_details"))
            case "error":
                raise self._billed(self._failed(read(event, "error")))
        return ""

    def failure(self, error: Exception) -> ModelError:
        inner = read(getattr(error, "body", None), "error")
        kind = read(inner, "type")
        if kind in STATUSES and status_of(getattr(error, "status_code", None)) is None:
            return self._billed(self._failed(inner))
        return super().failure(error)

    def _failed(self, error: Any) -> ModelError:
        kind = str(read(error, "type"))
        return failed(
            self._message(f"{kind}: {read(error, 'message') or error}"), STATUSES.get(kind)
        )

    def _begun(self, message: Any) -> None:
        self._answered = True
        model = read(message, "model")
        self.model = model if isinstance(model, str) and model else self.model
        self._used(read(message, "usage"))

    def _used(self, usage: Any) -> None:
        """Take the counts of *usage*, of which an event of a stream has those that have changed."""
        for name in ("input", "output", "cache_creation_input", "cache_read_input"):
            count = read(usage, f"{name}_tokens")
            if type(count) is int and count >= 0:
                self._counts[name] = count
        thought = read(read(usage, "output_tokens_details"), "thinking_tokens")
        self._counts["thought"] = self._counts.get("thought") if thought is None else thought
        self.usage = self._usage()

    def _usage(self) -> LLMUsage | None:
        """The tokens so far; the API counts what is cached apart from the rest of the prompt."""
        counts = self._counts
        if "input" not in counts or "output" not in counts:
            return None
        cached, written = counts.get("cache_read_input", 0), counts.get("cache_creation_input", 0)
        return counted(
            counts["input"] + cached + written,
            counts["output"],
            cached=cached,
            written=written,
            reasoning=counts["thought"],
        )

    def _ended(self, reason: Any, details: Any) -> None:
        if reason in ("tool_use", "pause_turn"):
            self._tool_calls = True
        if isinstance(reason, str):
            self.finish_reason = ENDINGS.get(reason, reason)
        if reason == "refusal":
            said = read(details, "explanation")
            self._refusal = said if isinstance(said, str) and said else ""

    def _block(self, block: Any) -> str:
        match read(block, "type"):
            case "text":
                return self._text(read(block, "text"))
            case "thinking":
                self._thought(read(block, "thinking"))
            case "redacted_thinking":
                pass  # cannot be read: it is for the provider alone
            case "tool_use" | "server_tool_use":
                self._tool_calls = True
            case kind:
                raise self._error(
                    f"the answer has a part of type {kind!r}, and only text can be used",
                    retryable=False,
                )
        return ""

    def _delta(self, delta: Any) -> str:
        match read(delta, "type"):
            case "text_delta":
                return self._text(read(delta, "text"))
            case "thinking_delta":
                self._thought(read(delta, "thinking"))
        return ""

    def _text(self, text: Any) -> str:
        if not isinstance(text, str):
            raise self._error(f"a part of the answer has no text: {text!r:.200}")
        self._texts.append(text)
        return text

    def _thought(self, text: Any) -> None:
        if isinstance(text, str) and text:
            self._thoughts.append(text)


def _message(message: Message) -> dict[str, Any]:
    content = message["content"]
    if isinstance(content, str):
        return {"role": message["role"], "content": content}
    return {"role": message["role"], "content": [_part(part) for part in content]}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a content as the API has it."""
    match part["type"]:
        case "text":
            return {"type": "text", "text": part["text"]}
        case "file":
            return _document(part["file"])
    url = part["image_url"]["url"]
    return {"type": "image", "source": _source(url)}


def _document(file: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {"type": "document", "source": _source(file["file_data"])}
    if "filename" in file:
        document["title"] = file["filename"]
    return document


def _source(url: str) -> dict[str, Any]:
    """Where a picture or a file is: at an address, or in it."""
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url.partition(";base64,")
    kind = head.removeprefix("data:")
    if kind == "text/plain":  # which the API takes as it reads, and no other way
        text = b64decode(data).decode("utf-8", "replace")
        return {"type": "text", "media_type": kind, "data": text}
    return {"type": "base64", "media_type": kind, "data": data}
