"""How steps and runs stand."""

from __future__ import annotations

from enum import Enum


class StepStatus(str, Enum):
    """How a step stands or ended.

    Examples:
        >>> from nano_vm import ExecutionVM, Program, StepStatus
        >>> program = Program.from_yaml("{name: hello, steps: [{id: a, type: set, values: {x: 1}}]}")
        >>> ExecutionVM().run_sync(program).steps[0].status is StepStatus.SUCCESS
        True
    """

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    SUSPENDED = "suspended"
    IN_DOUBT = "in_doubt"


class TraceStatus(str, Enum):
    """How a run stands or ended. ``SUSPENDED`` waits for a person, a time or an event; see
    `Trace.waiting`.

    Examples:
        >>> from nano_vm import ExecutionVM, Program, TraceStatus
        >>> program = Program.from_yaml("{name: hello, steps: [{id: a, type: set, values: {x: 1}}]}")
        >>> ExecutionVM().run_sync(program).status is TraceStatus.SUCCESS
        True
    """

    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUSPENDED = "suspended"


RUNNING, SUCCEEDED = TraceStatus.RUNNING, TraceStatus.SUCCESS
"""What each run is and becomes, for what is in a hurry: of a class of members CPython 3.11 looks one
up five times as slowly as a name of a module.
"""
