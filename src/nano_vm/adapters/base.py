"""Where 0.1 had the adapter's contract."""

from ..protocols import LLMAdapter

__all__ = ["LLMAdapter"]
