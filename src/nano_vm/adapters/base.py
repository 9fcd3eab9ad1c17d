"""Where 0.1 had the adapter's contract."""

from .protocol import LLMAdapter

__all__ = ["LLMAdapter"]
