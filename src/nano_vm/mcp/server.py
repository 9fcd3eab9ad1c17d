"""Programs as tools of an MCP server: a call goes in, the run's outcome comes out.

Each program is a tool with the schema of its inputs. What the caller gives comes from outside, and
most callers are models: so inputs are untrusted unless the host says otherwise, and a policy holds
for them. While a run goes on, the caller is notified of each step that ended, by its path; what it gave
is in no notification.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..diagnostics import Diagnostic
from ..errors import MissingExtra, VMError
from ..language.flow import Flow
from ..language.program import Program
from ..records.record import step_of
from ..records.secrecy import REDACTED, error_of, levels_of
from ..records.trace import Trace
from ..run.vm import ExecutionVM
from ..values import short

if TYPE_CHECKING:
    from mcp.server import Server, ServerRequestContext
    from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult

NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""Names of tools, as the protocol advises and clients demand."""

OUTCOME = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["success", "failed", "cancelled", "suspended"]},
        "run_id": {"type": "string"},
        "output": {"description": "what the run gave"},
        "error": {"type": "string"},
        "error_kind": {"type": "string"},
        "diagnostics": {
            "type": "array",
            "items": {"type": "object"},
            "description": "why the run was refused before its first step",
        },
        "waiting": {
            "type": "array",
            "items": {"type": "object"},
            "description": "what a suspended run waits for",
        },
    },
    "required": ["status", "run_id"],
}
"""The schema of what every call gives."""

SHOWN = ("kind", "path", "role", "show", "event", "until")
"""What a caller learns of a wait."""


def mcp_server(
    vm: ExecutionVM,
    programs: Mapping[str, Program],
    *,
    name: str = "nano-vm",
    trusted_inputs: bool = False,
) -> Server[Any]:
    """A server of the official SDK that runs *programs* on *vm*, by the names of the tools that
    they become. Serve it as any other: over stdio with its ``run``, over HTTP with its
    ``streamable_http_app``.

    Raises:
        MissingExtra: If the official SDK is not installed.
        VMError: If there is no program, or a name is none that tools can have.
    """
    try:
        from mcp.server import Server
    except ImportError:
        raise MissingExtra("MCP", "mcp") from None
    if not programs:
        raise VMError("a server needs at least one program")
    for tool in programs:
        if NAME.fullmatch(tool) is None:
            raise VMError(
                f"{short(tool)} is no name of a tool: it has letters, digits, '_', '-' and '.', at "
                f"most 128 of them"
            )
    served = Served(vm, programs, trusted_inputs)
    return Server(name, version=_version(), on_list_tools=served.list, on_call_tool=served.call)


class Served:
    """Programs that are called."""

    def __init__(
        self, vm: ExecutionVM, programs: Mapping[str, Program], trusted_inputs: bool
    ) -> None:
        self.vm = vm
        self.programs = dict(programs)
        self.trusted_inputs = trusted_inputs
        known = vm.preparer.programs
        self._inputs = {
            name: tuple(Flow(program, known).frames[0].names.keys)
            for name, program in self.programs.items()
        }

    async def list(self, context: ServerRequestContext[Any], params: Any) -> ListToolsResult:
        """The tools."""
        from mcp_types import ListToolsResult, Tool

        return ListToolsResult(
            tools=[
                Tool(
                    name=name,
                    description=program.description or f"Runs the program {name}",
                    input_schema=inputs_of(program),
                    output_schema=OUTCOME,
                )
                for name, program in self.programs.items()
            ]
        )

    async def call(
        self, context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        """Run a program. Who gives up the call cancels the run."""
        from mcp.shared.exceptions import MCPError
        from mcp_types import INVALID_PARAMS

        program = self.programs.get(params.name)
        if program is None:
            known = ", ".join(self.programs)
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name!r}; there is {known}")
        inputs = params.arguments or {}
        untrusted = () if self.trusted_inputs else self._inputs[params.name]
        count = 0
        trace: Trace | None = None
        async with aclosing(self.vm.stream(program, inputs, untrusted=untrusted)) as events:
            async for event in events:
                if event.kind == "step_finished":
                    count += 1
                    said = f"{event.path}: {event.result.status.value}"
                    await context.session.report_progress(count, None, said)
                elif event.kind == "run_finished":
                    trace = event.trace
        assert trace is not None
        return result_of(trace)


def result_of(trace: Trace) -> CallToolResult:
    """How a run ended, as a tool's result. One that waits is no error: it goes on when what it
    waits for has come. Where programs lie on this machine is not said.
    """
    from mcp_types import CallToolResult, TextContent

    told: dict[str, Any] = {"status": trace.status.value, "run_id": trace.run_id}
    if trace.final_output is not None:
        told["output"] = trace.final_output
    diagnostics = [replace(d, file=None, line=None, column=None) for d in trace.diagnostics]
    text = _text(trace, diagnostics)
    if trace.error is not None:
        told["error"] = text
    if trace.error_kind is not None:
        told["error_kind"] = trace.error_kind
    if diagnostics:
        told["diagnostics"] = [d.to_dict() for d in diagnostics]
    if trace.waiting:
        told["waiting"] = [
            {key: entry[key] for key in SHOWN if key in entry} for entry in _waiting(trace)
        ]
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=json.loads(json.dumps(told)),
        is_error=trace.status.value in ("failed", "cancelled"),
    )


def _waiting(trace: Trace) -> Iterator[dict[str, Any]]:
    """What a run waits for. A caller is not the role that accepts what is shown to it."""
    levels = levels_of(trace)
    for entry in trace.waiting:
        labels = levels.level(step_of(str(entry.get("path", ""))), "request")
        hidden = "show" in entry and levels.hides("output", labels)
        yield {**entry, "show": REDACTED} if hidden else entry


def _text(trace: Trace, diagnostics: Sequence[Diagnostic]) -> str:
    if diagnostics:
        return "\n".join(["refused, no step was run:", *map(str, diagnostics)])
    error = error_of("errors", trace)
    if error is not None:
        return error
    if trace.waiting:
        waits = ", ".join(f"{entry['kind']} at {entry['path']}" for entry in trace.waiting)
        return f"run {trace.run_id} waits for {waits}"
    output = trace.final_output
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


def inputs_of(program: Program) -> dict[str, Any]:
    """The schema of what a program takes."""
    return {"type": "object", **(program.inputs or {})}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llm-nano-vm")
    except PackageNotFoundError:  # run from its sources
        return ""
