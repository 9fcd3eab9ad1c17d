"""Rows of durable runs: the protocol of a store, and its SQL implementation."""

from __future__ import annotations

from .protocol import Store, open_store

__all__ = ["Store", "open_store"]
