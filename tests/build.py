"""Programs and steps in one line, for tests."""

from __future__ import annotations

from typing import Any

from nano_vm import Program, Trace

NOW = {"delay_seconds": 0}  # a `retry` that does not wait


def program(*steps: dict[str, Any], **fields: Any) -> Program:
    return Program.from_dict({"name": "p", "steps": list(steps), **fields})


def step(id: str = "a", tool: str = "t", **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "tool", "tool": tool, **fields}


def llm(id: str = "m", prompt: str = "x", **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "llm", "prompt": prompt, **fields}


def parallel(*branches: Any, id: str = "p", **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "parallel", "parallel_steps": list(branches), **fields}


def mapped(*steps: Any, over: Any, id: str = "m", **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "map", "over": over, "steps": list(steps), **fields}


def statuses(trace: Trace) -> dict[str, str]:
    return {s.path: s.status.value for s in trace.steps}
