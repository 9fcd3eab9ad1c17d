"""MCP servers that the command line or a host file names, for as long as a command lasts. Anything
wrong is a `UsageFault`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from ..adapters.hostfile import McpServer
from ..errors import VMError
from .faults import UsageFault


def load_servers(
    given: Iterable[str], known: Iterable[McpServer], taken: Iterable[str]
) -> dict[str, Callable[..., Any]]:
    """The tools of the servers that are *given* by ``--mcp``, commands or URLs, and of those that a
    host file has; none has the name of one that is *taken*.
    """
    servers = [*(("--mcp", McpServer(source)) for source in given)]
    servers += [(f"mcp.{server.name}", server) for server in known]
    found: dict[str, Callable[..., Any]] = {}
    there = set(taken)
    for at, server in servers:
        for name, tool in _tools(at, server).items():
            if name in there:
                hint = "give it a prefix in nano-vm.toml: [mcp.NAME] prefix = ..."
                raise UsageFault(f"{at}: there are two tools {name!r}; {hint}")
            there.add(name)
            found[name] = tool
    return found


def _tools(at: str, server: McpServer) -> Any:
    from ..mcp.tools import mcp_tools

    options: dict[str, Any] = {
        "allow": server.allow,
        "prefix": server.prefix,
        "effects": server.effects,
        "trust_hints": server.trust_hints,
        "env": {name: _variable(at, name) for name in server.env},
        "headers": {name: _variable(at, of) for name, of in server.headers.items()},
    }
    if server.timeout_seconds is not None:
        options["timeout_seconds"] = float(server.timeout_seconds)
    try:
        # in a thread: the command may have an event loop of its own
        with ThreadPoolExecutor(1) as pool:
            tools = pool.submit(asyncio.run, mcp_tools(server.source, **options)).result()
    except ImportError:  # the extra, in its own words
        raise
    except VMError as error:
        raise UsageFault(f"{at}: {error}") from None
    context = click.get_current_context(silent=True)
    if context is not None:
        context.find_root().call_on_close(tools.close)
    return tools


def _variable(at: str, name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise UsageFault(f"{at}: {name} is not set in the environment")
    return value
