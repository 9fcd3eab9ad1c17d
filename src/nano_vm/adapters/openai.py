"""Any API that speaks OpenAI's chat completions: in go a step's messages, out comes a `Completion`
or a `ModelError`.

One request for each call, none repeated here: retries, deadlines and budgets belong to the VM, and
two owners of retries multiply them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..errors import MissingExtra, ModelError
from ..given import string
from ._chat import Answer, checked_messages, schema_format, unstreamed
from ._grammar import choice_grammar
from ._sdk import SdkAdapter
from .protocol import Completion, Message


@dataclass(frozen=True, slots=True)
class Provider:
    """Where an OpenAI-compatible API lives, and the few ways in which they differ.

    For a provider named ``groq``, the variable ``GROQ_BASE_URL`` overrides ``base_url`` and
    ``GROQ_API_KEY`` is the key.
    """

    base_url: str
    needs_key: bool = True
    max_tokens: str = "max_tokens"
    """The field that limits the answer. OpenAI's newer models refuse the old name, most others know
    no new one.
    """
    grammar: bool = False
    """Whether it takes llama.cpp's ``grammar``."""
    developer: bool = True
    """Whether it knows the role ``developer``; templates of open models do not."""


PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider("https://api.openai.com/v1", max_tokens="max_completion_tokens"),
    "groq": Provider("https://api.groq.com/openai/v1", developer=False),
    "openrouter": Provider("https://openrouter.ai/api/v1"),
    "together": Provider("https://api.together.ai/v1", developer=False),
    "ollama": Provider("http://localhost:11434/v1", needs_key=False, developer=False),
    "vllm": Provider("http://localhost:8000/v1", needs_key=False, developer=False),
    "llamacpp": Provider(
        "http://localhost:8080/v1", needs_key=False, grammar=True, developer=False
    ),
}
"""The providers known by name, from the documentation of each."""


class OpenAIAdapter(SdkAdapter):
    """A model behind an OpenAI-compatible API.

    ::

        OpenAIAdapter("gpt-4.1-mini")                              # OPENAI_API_KEY
        OpenAIAdapter("groq/llama-3.3-70b-versatile")              # GROQ_API_KEY
        OpenAIAdapter("ollama/llama3.2")                           # this machine, no key
        OpenAIAdapter("my-model", base_url="http://gpu:8000/v1")   # any other server

    The first part of *model* names the provider, one of `PROVIDERS`. With *base_url* or *provider*
    given, *model* is sent as it stands. A key from the environment goes only to the provider that
    it is named for: with a *base_url* of your own, pass *api_key*, or *provider* if the server
    takes that provider's key.

    *timeout* is in seconds, for each wait on the network. *temperature* None leaves the choice to
    the model: some refuse the field. *structured* says whether an output schema is sent as
    ``response_format``; switch it off for a model that refuses it, and ask for JSON in the prompt.
    *grammar* says whether allowed outputs are sent as a llama.cpp grammar (by default where the
    provider is ``llamacpp``); elsewhere they are not sent, and the VM checks the answer.
    *http_client* is an asynchronous client of the HTTP library that ``openai`` uses, yours to
    close. *defaults* go into each request.

    Raises:
        MissingExtra: The ``openai`` package is not installed.
        ValueError: *model* or *provider* names an unknown provider.

    Examples:
        >>> from nano_vm import ExecutionVM, OpenAIAdapter
        >>> adapter = OpenAIAdapter("my-model", base_url="http://127.0.0.1:8000/v1")
        >>> vm = ExecutionVM(adapter)
        >>> adapter.model
        'my-model'
    """

    _package = "openai"

    images = True
    """Whether messages may have parts, and pictures among them."""

    files = True
    """Whether files may be among them: which kinds is the provider's matter."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        provider: str | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
        temperature: float | None = 0.0,
        structured: bool = True,
        grammar: bool | None = None,
        http_client: Any = None,
        **defaults: Any,
    ) -> None:
        if find_spec("openai") is None:
            raise MissingExtra("OpenAIAdapter", "openai")
        string(model, "model")
        for value, name in ((provider, "provider"), (base_url, "base_url")):
            if value is not None:
                string(value, name)
        self._prefix = ""
        if provider is None and base_url is None:
            provider, slash, rest = model.partition("/")
            if not slash:
                provider = "openai"
            elif provider in PROVIDERS:
                self._prefix, model = provider + slash, rest
        if provider is not None and provider not in PROVIDERS:
            known = ", ".join(PROVIDERS)
            raise ValueError(
                f"unknown provider {provider!r}; known are {known}; for any other server give "
                f"base_url"
            )
        self.model = model
        """The model that a call uses which names none."""
        self.provider = provider
        """The name of the provider; None for a server that is known by its address only."""
        traits = PROVIDERS[provider] if provider else Provider("", needs_key=False)
        self.base_url = (
            base_url or os.environ.get(f"{provider}_BASE_URL".upper()) or traits.base_url
        )
        self.temperature = temperature
        self.timeout = timeout
        self._traits = traits
        self._api_key = api_key
        self._structured = structured
        self._grammar = traits.grammar if grammar is None else grammar
        self._defaults = defaults
        super().__init__(http_client)

    async def complete(
        self,
        messages: list[Message],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        allowed_outputs: Sequence[str] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        **kwargs: Any,
    ) -> Completion:
        """The model's answer to *messages*.

        *options* are fields of the request's body, whatever the ``openai`` package knows of them.
        *idempotency_key*, with a digest of *messages*, becomes the header ``Idempotency-Key``;
        *kwargs* (``top_p``, ``stop``, ``reasoning_effort``, ...) are further arguments of the
        package's ``create``.

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
            seed,
            allowed_outputs,
            output_schema,
            options,
            idempotency_key,
            kwargs,
        )
        answer = self._answer(request["model"])
        client = await self._client()
        try:
            answer.add(await client.chat.completions.create(**request))
            return answer.completion()
        except ModelError:
            raise
        except Exception as error:  # the SDK lets those of its HTTP and JSON libraries through
            raise answer.failure(error) from error

    async def stream(
        self,
        messages: list[Message],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        allowed_outputs: Sequence[str] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[str | Completion]:
        """As `complete`, in pieces of text as they come; last, one `Completion` with the whole.

        A server that ignores the wish gives one piece.
        """
        request = self._request(
            messages,
            model,
            max_tokens,
            temperature,
            seed,
            allowed_outputs,
            output_schema,
            options,
            idempotency_key,
            kwargs,
        )
        request = {"stream_options": {"include_usage": True}, **request, "stream": True}
        answer = self._answer(request["model"])
        client = await self._client()
        try:
            async with await client.chat.completions.create(**request) as chunks:
                if (whole := await unstreamed(chunks)) is not None and (text := answer.add(whole)):
                    yield text
                async for chunk in chunks:
                    if text := answer.add(chunk):
                        yield text
            yield answer.completion()
        except ModelError:
            raise
        except Exception as error:  # as in complete
            raise answer.failure(error) from error

    def _request(
        self,
        messages: list[Message],
        model: str | None,
        max_tokens: int | None,
        temperature: float | None,
        seed: int | None,
        allowed_outputs: Sequence[str] | None,
        output_schema: Mapping[str, Any] | None,
        options: Mapping[str, Any] | None,
        idempotency_key: str | None,
        further: dict[str, Any],
    ) -> dict[str, Any]:
        request = {
            **self._defaults,
            **further,
            "messages": checked_messages(messages, developer=self._traits.developer),
        }
        request["model"] = model.removeprefix(self._prefix) if model else self.model
        # models that reason refuse any but their own
        if temperature is None and "reasoning_effort" not in further:
            temperature = self.temperature
        if temperature is not None:
            request["temperature"] = temperature
        if max_tokens is not None:
            request[self._traits.max_tokens] = max_tokens
        if seed is not None:
            request["seed"] = seed
        if output_schema is not None and self._structured:
            request["response_format"] = schema_format(output_schema)
        if options:
            request["extra_body"] = {**request.get("extra_body", {}), **options}
        if allowed_outputs and self._grammar:
            request["extra_body"] = {
                **request.get("extra_body", {}),
                "grammar": choice_grammar(allowed_outputs),
            }
        if idempotency_key is not None:
            # the step's key is the same when an invalid answer is shown to the model, and that is another request
            content = hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16]
            headers = {"Idempotency-Key": f"{idempotency_key}-{content}"}
            request["extra_headers"] = {**request.get("extra_headers", {}), **headers}
        return request

    def _open(self) -> Any:
        key = self._key()
        if key is None and self._traits.needs_key:
            name = f"{self.provider}_API_KEY".upper()
            raise ModelError(
                f"no key for {self.provider}: set {name}, or pass api_key",
                status=401,
                retryable=False,
            )
        return self._sdk.AsyncOpenAI(
            api_key=key or "none",  # the SDK wants some text
            base_url=self.base_url,
            timeout=self.timeout,
            max_retries=0,
            http_client=self._http_client,
        )

    def _key(self) -> str | None:
        return self._api_key or (
            os.environ.get(f"{self.provider}_API_KEY".upper()) if self.provider else None
        )

    def _answer(self, model: str) -> Answer:
        return Answer(model, where=f"{model} at {self._host}", secrets=[self._key()])

    def __repr__(self) -> str:
        return f"OpenAIAdapter({self._prefix + self.model!r}) <{self._host}>"
