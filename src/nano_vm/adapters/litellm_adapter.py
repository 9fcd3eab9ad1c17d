"""Where 0.1 had its adapter."""

from .litellm import LiteLLMAdapter

__all__ = ["LiteLLMAdapter"]
