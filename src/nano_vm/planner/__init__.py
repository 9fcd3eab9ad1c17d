"""An intent in, a verified `Program` out, after one model call."""

from __future__ import annotations

from .planner import Planner

__all__ = ["Planner"]
