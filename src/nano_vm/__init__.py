"""llm-nano-vm: a deterministic virtual machine for LLM programs.

from nano_vm import ExecutionVM, Program

program = Program.from_file("refund.yaml")
vm = ExecutionVM(llm=adapter, tools={"process_refund": process_refund})
trace = await vm.run(program, context={"user_input": "..."})
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapters import (
        AnthropicAdapter,
        LiteLLMAdapter,
        LocalAdapter,
        Member,
        OpenAIAdapter,
        Pool,
    )
    from .adapters.protocol import Completion, LLMAdapter
    from .diagnostics import Diagnostic
    from .errors import (
        FilteredAnswer,
        ModelError,
        OutcomeUnknown,
        PlannerError,
        ProgramError,
        RateLimited,
        RunFailed,
        ToolError,
        TruncatedAnswer,
        VMError,
    )
    from .language.kinds import StepType
    from .language.policy import Budget, Policy
    from .language.program import OnError, Program, Step
    from .machine.ledger import Limits
    from .planner.planner import Planner
    from .records.result import StepResult
    from .records.status import StepStatus, TraceStatus
    from .records.trace import Trace
    from .records.usage import LLMUsage
    from .run.live import Run
    from .run.observers import Event
    from .run.vm import ExecutionVM
    from .tools.contract import tool

from .pictures import drawn_by

drawn_by(lambda: import_module(".draw.notebook", __name__))

# Loaded at first use, as pydantic does it: `import nano_vm` alone builds no model.
_HOMES = {
    "AnthropicAdapter": "adapters",
    "Budget": "language.policy",
    "Completion": "adapters.protocol",
    "Diagnostic": "diagnostics",
    "Event": "run.observers",
    "ExecutionVM": "run.vm",
    "FilteredAnswer": "errors",
    "LLMAdapter": "adapters.protocol",
    "LLMUsage": "records.usage",
    "Limits": "machine.ledger",
    "LiteLLMAdapter": "adapters",
    "LocalAdapter": "adapters",
    "Member": "adapters",
    "ModelError": "errors",
    "OnError": "language.program",
    "OpenAIAdapter": "adapters",
    "OutcomeUnknown": "errors",
    "Planner": "planner.planner",
    "PlannerError": "errors",
    "Pool": "adapters",
    "Policy": "language.policy",
    "Program": "language.program",
    "ProgramError": "errors",
    "RateLimited": "errors",
    "Run": "run.vm",
    "RunFailed": "errors",
    "Step": "language.program",
    "StepResult": "records.result",
    "StepStatus": "records.status",
    "StepType": "language.kinds",
    "ToolError": "errors",
    "Trace": "records.trace",
    "TraceStatus": "records.status",
    "TruncatedAnswer": "errors",
    "VMError": "errors",
    "tool": "tools.contract",
}

__all__ = [
    "AnthropicAdapter",
    "Budget",
    "Completion",
    "Diagnostic",
    "Event",
    "ExecutionVM",
    "FilteredAnswer",
    "LLMAdapter",
    "LLMUsage",
    "Limits",
    "LiteLLMAdapter",
    "LocalAdapter",
    "Member",
    "ModelError",
    "OnError",
    "OpenAIAdapter",
    "OutcomeUnknown",
    "Planner",
    "PlannerError",
    "Policy",
    "Pool",
    "Program",
    "ProgramError",
    "RateLimited",
    "Run",
    "RunFailed",
    "Step",
    "StepResult",
    "StepStatus",
    "StepType",
    "ToolError",
    "Trace",
    "TraceStatus",
    "TruncatedAnswer",
    "VMError",
    "__version__",
    "tool",
]


# silent until the host configures it: without a handler Python prints warnings to stderr
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("llm-nano-vm")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'nano_vm' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
