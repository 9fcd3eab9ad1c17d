"""Model APIs: one adapter for each way to reach a model, all with the same two methods, `complete`
and `stream`.

Importing this package imports no provider library; a name is loaded when it is first used, and a
missing library is named, with the extra that brings it, when an adapter is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .anthropic import AnthropicAdapter
    from .cache import Cached
    from .litellm import LiteLLMAdapter
    from .local import LocalAdapter
    from .openai import OpenAIAdapter
    from .pool import Member, Pool
    from .protocol import LLMAdapter

__all__ = [
    "AnthropicAdapter",
    "Cached",
    "LLMAdapter",
    "LiteLLMAdapter",
    "LocalAdapter",
    "Member",
    "OpenAIAdapter",
    "Pool",
]

_HOMES = {
    "AnthropicAdapter": "nano_vm.adapters.anthropic",
    "Cached": "nano_vm.adapters.cache",
    "LLMAdapter": "nano_vm.adapters.protocol",
    "LiteLLMAdapter": "nano_vm.adapters.litellm",
    "LocalAdapter": "nano_vm.adapters.local",
    "Member": "nano_vm.adapters.pool",
    "OpenAIAdapter": "nano_vm.adapters.openai",
    "Pool": "nano_vm.adapters.pool",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
