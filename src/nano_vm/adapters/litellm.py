"""The hundred providers of LiteLLM: in go a step's messages, out comes a `Completion` or a
`ModelError`.

LiteLLM is imported before the first call, in a thread (4 s of CPU), from its bundled price list (it
would fetch one from the network), and asked for one attempt only: retries belong to the VM.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from ..errors import EmptyAnswer, MissingExtra, ModelError, VMError
from ..given import string
from ..machine.faults import consumed
from ..records.usage import LLMUsage
from ._chat import Answer, checked_messages, read, schema_format, unstreamed
from ._loops import PerLoop
from .protocol import Completion, Message

STOLEN_VERSIONS = frozenset({"1.82.7", "1.82.8"})
"""Uploaded in March 2026 with a stolen token; they send the machine's credentials away
(PYSEC-2026-2).
"""


OPTIONS = frozenset(
    "presence_penalty frequency_penalty logit_bias user logprobs top_logprobs top_k verbosity "
    "safety_identifier "
    "prompt_cache_key thinking web_search_options modalities prediction audio store".split()
)
"""Options of a step that LiteLLM translates for its providers. All others go into the body as they
stand: among its own arguments are addresses, keys and accounts, which a program must not choose.
"""


class LiteLLMAdapter:
    """A model reached through LiteLLM: ``LiteLLMAdapter("groq/llama-3.3-70b-versatile")``.

    *fallbacks* are models tried in order when one fails. *timeout* is in seconds. *max_retries* is
    accepted so that code written for 0.1 runs, and has no effect: LiteLLM's retries would multiply
    with the VM's, unseen by budget and trace; say ``max_retries`` on the step. *temperature* None
    leaves the choice to the model. *structured* says whether an output schema is sent as
    ``response_format``. *kwargs* go into each request (``api_base``, ``api_key``, ``drop_params``,
    ...).

    An answer whose content is a list of parts LiteLLM itself cannot read: it is an error. It names
    no ``allowed_outputs``, for which its providers have no common form: the VM checks the answer.
    The cost is the one that LiteLLM knows for the model, else None.

    Raises:
        MissingExtra: The ``litellm`` package is not installed.
        VMError: The installed version is one of `STOLEN_VERSIONS`.

    Examples:
        >>> from nano_vm import ExecutionVM, LiteLLMAdapter
        >>> adapter = LiteLLMAdapter("groq/llama-3.3-70b-versatile", api_key="...")
        >>> vm = ExecutionVM(adapter)
        >>> adapter.model
        'groq/llama-3.3-70b-versatile'
    """

    images = True
    """Whether messages may have parts, and pictures among them."""

    files = True
    """Whether files may be among them: which kinds is the provider's matter."""

    def __init__(
        self,
        model: str,
        fallbacks: list[str] | None = None,
        timeout: float = 30.0,
        max_retries: int = 0,
        temperature: float | None = 0.0,
        *,
        structured: bool = True,
        **kwargs: Any,
    ) -> None:
        if find_spec("litellm") is None:
            raise MissingExtra("LiteLLMAdapter", "litellm")
        # read from its metadata: nothing of it has run yet
        if (found := version("litellm")) in STOLEN_VERSIONS:
            raise VMError(
                f"litellm {found} holds a credential stealer (PYSEC-2026-2): uninstall it, "
                f"install another version,"
                " and renew every credential that this machine could read"
            )
        # Its import fetches a price list from the network: 12 s of tries where there is none. Set here and
        # not only before our own import, since code that makes an adapter often imports litellm itself; a
        # setting of the user's stays.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        self.model = string(model, "model")
        """The model that a call uses which names none."""
        self.fallbacks = fallbacks
        self.timeout = timeout
        self.max_retries = max_retries
        self.temperature = temperature
        self._structured = structured
        self._defaults = kwargs
        self._litellm: Any = None

    async def complete(
        self,
        messages: list[Message],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        output_schema: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Completion:
        """The model's answer to *messages*.

        *options* are fields of the request's body; *kwargs* (``top_p``, ``stop``,
        ``reasoning_effort``, ...) are further arguments of ``litellm.acompletion``.

        Raises:
            RateLimited: Status 429, with the wait that the provider asked for.
            ModelTimeout: No answer in time, or status 408 or 504.
            ModelError: Any other failure; ``retryable`` for a lost connection, an unreadable answer
                and status 5xx.
        """
        request = self._request(
            messages, max_tokens, temperature, seed, output_schema, options, kwargs
        )
        models = self._models(model)
        spent: list[LLMUsage | None] = []
        for place, name in enumerate(models, 1):
            try:
                completion = await self._complete(name, request)
                return replace(completion, usage=_together(spent, completion.usage))
            except ModelError as error:
                spent.append(consumed(error))
                if place == len(models):
                    raise _with_usage(error, spent) from error.__cause__
        raise AssertionError(models)

    async def stream(
        self,
        messages: list[Message],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        output_schema: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[str | Completion]:
        """As `complete`, in pieces of text as they come; last, one `Completion` with the whole.

        A fallback is tried only before the first piece: what was shown cannot be taken back. A
        stream that the server ends too early, without an error, LiteLLM passes on as whole, with a
        usage that it guesses; `OpenAIAdapter` tells.
        """
        request = self._request(
            messages, max_tokens, temperature, seed, output_schema, options, kwargs
        )
        request = {"stream_options": {"include_usage": True}, **request, "stream": True}
        models = self._models(model)
        spent: list[LLMUsage | None] = []
        for place, name in enumerate(models, 1):
            answer = self._answer(name)
            begun = False
            failure: ModelError
            try:
                # it does not close by itself
                async with aclosing(await self._call(name, request)) as chunks:
                    whole = await unstreamed(getattr(chunks, "completion_stream", None))
                    if whole is not None and (text := answer.add(whole)):
                        begun = True
                        yield text
                    elif whole is None:
                        async for chunk in chunks:
                            if text := answer.add(chunk):
                                begun = True
                                yield text
                completion = self._priced(_whole(answer), name, None)
                yield replace(completion, usage=_together(spent, completion.usage))
                return
            except ModelError as error:
                failure = error
            except Exception as error:  # noqa: BLE001  LiteLLM lets those of its providers' libraries through
                failure = answer.failure(error)
                failure.__cause__ = error
            spent.append(consumed(self._billed(failure, name)))
            if begun or place == len(models):
                raise _with_usage(failure, spent)

    async def aclose(self) -> None:
        """Close LiteLLM's connections in the running event loop; `asyncio.run` does it at its
        end.
        """
        await _CLIENTS.aclose()

    def _models(self, model: str | None) -> list[str]:
        return [model or self.model, *(self.fallbacks or ())]

    def _request(
        self,
        messages: list[Message],
        max_tokens: int | None,
        temperature: float | None,
        seed: int | None,
        output_schema: Mapping[str, Any] | None,
        options: Mapping[str, Any] | None,
        further: dict[str, Any],
    ) -> dict[str, Any]:
        request = {
            "timeout": self.timeout,
            **self._defaults,
            **further,
            "messages": checked_messages(messages),
        }
        request.update(num_retries=0, max_retries=0)
        # models that reason refuse any but their own
        if temperature is None and "reasoning_effort" not in further:
            temperature = self.temperature
        if temperature is not None:
            request["temperature"] = temperature
        if max_tokens is not None:
            request["max_tokens"] = max_tokens
        if seed is not None:
            request["seed"] = seed
        if output_schema is not None and self._structured:
            request["response_format"] = schema_format(output_schema)
        for name, value in (options or {}).items():
            if name in OPTIONS:
                request[name] = value
            else:
                request["extra_body"] = {**request.get("extra_body", {}), name: value}
        return request

    async def _complete(self, model: str, request: dict[str, Any]) -> Completion:
        answer = self._answer(model)
        try:
            response = await self._call(model, request)
            answer.add(response)
            return self._priced(answer.completion(), model, response)
        except ModelError as error:
            raise self._billed(error, model) from None
        except Exception as error:  # LiteLLM lets those of its providers' libraries through
            raise self._billed(answer.failure(error), model) from error

    async def ready(self) -> None:
        """Import LiteLLM, before the time of a first call begins."""
        if self._litellm is None:
            self._litellm = await asyncio.to_thread(_imported)

    async def _call(self, model: str, request: dict[str, Any]) -> Any:
        await self.ready()
        await _CLIENTS.get()
        return await self._litellm.acompletion(model=model, **request)

    def _priced(self, completion: Completion, model: str, response: Any) -> Completion:
        """*completion* with the cost that LiteLLM knows, which it hides in a private field, and in
        a stream forgets.
        """
        if completion.usage is None:
            return completion
        cost = read(getattr(response, "_hidden_params", None), "response_cost")
        return replace(completion, usage=self._with_cost(completion.usage, model, cost))

    def _billed(self, error: ModelError, model: str) -> ModelError:
        """*error* with the cost of what it consumed."""
        if isinstance(error.usage, LLMUsage):
            error.usage = self._with_cost(error.usage, model, None)
        return error

    def _with_cost(self, usage: LLMUsage, model: str, cost: float | None) -> LLMUsage:
        if cost is None:
            try:
                cost = sum(
                    self._litellm.cost_per_token(
                        model, usage.prompt_tokens, usage.completion_tokens
                    )
                )
            except Exception:  # noqa: BLE001  a bare Exception is how it says that it has no price
                return usage
        # it multiplies floats: 2.2499999999999996e-06
        return replace(usage, cost_usd=Decimal(f"{cost:.12g}"))

    def _answer(self, model: str) -> Answer:
        secrets = [
            value
            for name, value in os.environ.items()
            if name.endswith(("_KEY", "_TOKEN", "_SECRET"))
        ]
        return Answer(model, where=model, secrets=[self._defaults.get("api_key"), *secrets])

    def __repr__(self) -> str:
        fallbacks = f", fallbacks={self.fallbacks!r}" if self.fallbacks else ""
        return f"LiteLLMAdapter({self.model!r}{fallbacks})"


def _whole(answer: Answer) -> Completion:
    """The answer of a stream. LiteLLM ends one that it could not read as if the model had answered
    with nothing.
    """
    try:
        return answer.completion()
    except EmptyAnswer:
        if answer.usage is None or not answer.usage.completion_tokens:
            raise answer.silent() from None
        raise


def _together(spent: list[LLMUsage | None], last: LLMUsage | None) -> LLMUsage | None:
    """What a call and the fallbacks before it consumed; the cost is None where that of any is not
    known.
    """
    if last is None:
        return None
    total = sum((usage for usage in spent if usage is not None), last)
    return replace(total, cost_usd=None) if None in spent else total


def _with_usage(error: ModelError, spent: list[LLMUsage | None]) -> ModelError:
    """*error*, of the last of several models, with what all of them consumed."""
    *before, last = spent
    if any(usage is None or usage.total_tokens for usage in before):
        error.usage = _together(before, last)
        error.answered = True
    return error


def _imported() -> Any:
    litellm: Any = import_module("litellm")
    litellm.suppress_debug_info = True  # else each error prints advertising
    return litellm


async def _close_clients(loop: AbstractEventLoop) -> None:
    """Close and forget LiteLLM's clients of *loop*, which it caches, for all adapters, under the
    loop's id.

    It closes none of them itself, and Python gives the id to a later loop, which would be handed a
    dead client.
    """
    cache = getattr(
        getattr(sys.modules.get("litellm"), "in_memory_llm_clients_cache", None), "cache_dict", {}
    )
    for key in [key for key in cache if str(key).endswith(f"-{id(loop)}")]:
        if (close := getattr(cache.pop(key, None), "close", None)) is not None:
            await close()


_CLIENTS = PerLoop(get_running_loop, _close_clients)
