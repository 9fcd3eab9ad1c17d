"""How steps and runs stand."""

from __future__ import annotations

from enum import Enum


class StepStatus(str, Enum):
    """How a step stands or ended."""

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
    """

    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUSPENDED = "suspended"
