"""llm-nano-vm: a deterministic virtual machine for LLM programs.

from nano_vm import ExecutionVM, Program

program = Program.from_file("refund.yaml")
vm = ExecutionVM(llm=adapter, tools={"process_refund": process_refund})
trace = await vm.run(program, context={"user_input": "..."})
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapters import LiteLLMAdapter, LocalAdapter, OpenAIAdapter
    from .drive import Event
    from .errors import (
        Diagnostic,
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
    from .ledger import Limits
    from .planner import Planner
    from .policy import Budget, Policy
    from .program import OnError, Program, Step, StepType
    from .protocols import Completion, LLMAdapter
    from .tools import tool
    from .trace import LLMUsage, StepResult, StepStatus, Trace, TraceStatus
    from .vm import ExecutionVM, Run

# Loaded at first use, as pydantic does it: `import nano_vm` alone builds no model.
_HOMES = {
    "Budget": "policy",
    "Completion": "protocols",
    "Diagnostic": "errors",
    "Event": "drive",
    "ExecutionVM": "vm",
    "FilteredAnswer": "errors",
    "LLMAdapter": "protocols",
    "LLMUsage": "trace",
    "Limits": "ledger",
    "LiteLLMAdapter": "adapters",
    "LocalAdapter": "adapters",
    "ModelError": "errors",
    "OnError": "program",
    "OpenAIAdapter": "adapters",
    "OutcomeUnknown": "errors",
    "Planner": "planner",
    "PlannerError": "errors",
    "Policy": "policy",
    "Program": "program",
    "ProgramError": "errors",
    "RateLimited": "errors",
    "Run": "vm",
    "RunFailed": "errors",
    "Step": "program",
    "StepResult": "trace",
    "StepStatus": "trace",
    "StepType": "program",
    "ToolError": "errors",
    "Trace": "trace",
    "TraceStatus": "trace",
    "TruncatedAnswer": "errors",
    "VMError": "errors",
    "tool": "tools",
}

__all__ = [
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
    "ModelError",
    "OnError",
    "OpenAIAdapter",
    "OutcomeUnknown",
    "Planner",
    "PlannerError",
    "Policy",
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
