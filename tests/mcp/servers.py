"""MCP servers of the official SDK, over HTTP on this machine, for tests of both ways."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from mcp.server import Server
    from mcp_types import CallToolResult, ListToolsResult, Tool


def declared(name: str, properties: dict[str, Any] | None = None, **fields: Any) -> Tool:
    from mcp_types import Tool

    schema: dict[str, Any] = {"type": "object", "properties": properties or {}}
    required = fields.pop("required", None)
    if required is not None:
        schema["required"] = required
    return Tool(name=name, input_schema={**schema, **fields.pop("schema", {})}, **fields)


class Tools:
    """Tools that a test declares, and what they answer."""

    def __init__(self, *tools: Tool, **answers: Any) -> None:
        self.tools, self.answers = list(tools), answers
        self.calls: list[tuple[str, Any]] = []

    async def list(self, context: Any, params: Any) -> ListToolsResult:
        from mcp_types import ListToolsResult

        return ListToolsResult(tools=self.tools)

    async def call(self, context: Any, params: Any) -> CallToolResult:
        from mcp_types import CallToolResult, TextContent

        self.calls.append((params.name, params.arguments))
        answer = self.answers[params.name]
        if callable(answer):
            answer = answer(**(params.arguments or {}))
        if asyncio.iscoroutine(answer):
            answer = await answer
        if isinstance(answer, CallToolResult):
            return answer
        if isinstance(answer, str):
            return CallToolResult(content=[TextContent(type="text", text=answer)])
        return CallToolResult(content=[], structured_content=answer)

    def server(self) -> Server[Any]:
        from mcp.server import Server

        return Server("test", on_list_tools=self.list, on_call_tool=self.call)


class Http:
    """A server at a port of this machine, in a thread; it can be stopped, and come back."""

    def __init__(self, server: Server[Any], port: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        app = server.streamable_http_app()
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=0)
        self.uvicorn = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.uvicorn.run, args=([self.socket],), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(20)
        self.socket.close()
