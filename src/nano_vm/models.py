"""Names of ``llm-nano-vm`` 0.1 where it had them. Nothing new belongs here."""

from __future__ import annotations

from .language.kinds import StepType
from .language.program import OnError, Program, Step
from .records.result import StepResult
from .records.status import StepStatus, TraceStatus
from .records.trace import Trace
from .records.usage import LLMUsage

__all__ = [
    "LLMUsage",
    "OnError",
    "Program",
    "Step",
    "StepResult",
    "StepStatus",
    "StepType",
    "Trace",
    "TraceStatus",
]
