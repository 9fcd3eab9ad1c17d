"""Where 0.1 had the VM."""

from __future__ import annotations

from .errors import VMError
from .run.vm import ExecutionVM

__all__ = ["ExecutionVM", "VMError"]
