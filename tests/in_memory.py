"""Where files of tests are kept that nobody needs after a loss of power: in memory, where there is
room.

What is committed to a disk is flushed, thousands of times in a run of the suite, and the processor
waits; and no test is about a loss of power.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_MEMORY = Path("/dev/shm")
_FEWEST_FREE_BYTES = 2 << 30
"""A whole run leaves 200 MB of folders, where tests fail or are interrupted."""


def folder_in_memory() -> Path | None:
    """A folder whose files are in memory; None where the machine has none, or little of it."""
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _FEWEST_FREE_BYTES:
        return _MEMORY
    return None
