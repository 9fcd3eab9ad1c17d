"""A model's name in, the adapter that reaches it out; the command line and `ExecutionVM` read names
alike."""

from __future__ import annotations

from typing import Any

from ..errors import VMError


def adapter_named(name: str, base_url: str | None = None, api_key: str | None = None) -> Any:
    """The adapter for *name*: ``local``, ``local:FILE.gguf``, ``openai/NAME`` and its kin,
    ``litellm:NAME``, ``scripted:FILE``.

    With *base_url* it is the name of a model on that OpenAI-compatible server, whatever its form.
    *api_key* is the key, where the environment's usual variable does not have it.

    Raises:
        VMError: If no adapter is known by such a name, an extra is missing, or a file cannot be
        read.
    """
    from .openai import PROVIDERS

    more: dict[str, Any] = {} if api_key is None else {"api_key": api_key}
    kind, _, rest = name.partition(":")
    provider, slash, model = name.partition("/")
    if base_url is not None:
        from ..adapters import OpenAIAdapter

        return OpenAIAdapter(name, base_url=base_url, **more)
    if kind == "local":
        from ..adapters import LocalAdapter

        return LocalAdapter(rest or None)
    if kind == "litellm" and rest:
        from ..adapters import LiteLLMAdapter

        return LiteLLMAdapter(rest, **more)
    if kind == "scripted" and rest:
        from .scripted import read_script

        return read_script(rest)
    if slash and model and provider in PROVIDERS:
        from ..adapters import OpenAIAdapter

        return OpenAIAdapter(name, **more)
    if provider == "anthropic" and model:
        from ..adapters import AnthropicAdapter

        return AnthropicAdapter(model, **more)
    known = ", ".join(f"{provider}/NAME" for provider in (*PROVIDERS, "anthropic"))
    raise VMError(
        f"unknown model {name!r}; write local, local:FILE.gguf, {known}, litellm:NAME, "
        f"scripted:FILE"
    )
