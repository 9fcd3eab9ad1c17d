"""Stores that the command line names, and the runs in them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import StoreError
from .faults import UsageFault

if TYPE_CHECKING:
    from ..store import Store

VARIABLE = "NANO_VM_STORE"


def opened(url: str) -> Store:
    """The store at a URL.

    Raises:
        UsageFault: If it can not be opened.
    """
    from ..store import open_store

    try:
        return open_store(url)
    except StoreError as error:
        raise UsageFault(f"--store: {error}") from None


def named(url: str | None) -> str:
    """The URL that the command line or the environment gives."""
    url = url or os.environ.get(VARIABLE)
    if not url:
        raise UsageFault(f"which store? Give --store sqlite:///runs.db or postgresql://..., or set {VARIABLE}")
    return url
