"""What tests of MCP share: the official SDK."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def sdk() -> None:
    """Imported once a test of it runs, and before one puts another in the place of the standard
    error output, which the SDK keeps.
    """
    import mcp.client.stdio  # noqa: F401
