"""Commands that look at a program and run nothing: ``check``, ``explain``, ``graph``, ``schema``."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Diagnostic, ProgramError
from .faults import UsageFault
from .text import FAILED, OK, diagnostic_lines, emit, emit_json, note, safe, safe_lines, say

if TYPE_CHECKING:
    from ..vm import ExecutionVM
    from .sources import Loaded


def check(options: argparse.Namespace) -> int:
    """Every fault of a program, those of its files and those that the host's tools and models show, in one list."""
    from . import sources

    try:
        loaded = sources.load(options.program, options.program_file)
    except ProgramError as error:
        found, skipped = list(error.diagnostics), ["graph", "tools", "models"]
    else:
        found, skipped = _checked(loaded, options)
    errors = sum(d.severity == "error" for d in found)
    warnings = sum(d.severity == "warning" for d in found)
    failed = errors > 0 or (options.strict and warnings > 0)
    if options.json:
        emit_json({"ok": not failed, "diagnostics": [d.to_dict() for d in found], "not_checked": skipped})
        return FAILED if failed else OK
    for line in diagnostic_lines(found):
        say(line)
    counts = [f"{n} {what}{'s' * (n != 1)}" for n, what in ((errors, "error"), (warnings, "warning")) if n]
    hints = {
        "tools": "tools (give --tools)",
        "models": "models (give --model)",
        "graph": "what follows from the whole program",
    }
    rest = f"; not checked: {', '.join(hints[name] for name in skipped)}" if skipped else ""
    say(safe(f"{options.program}: {', '.join(counts) or 'no faults'}{rest}"))
    return FAILED if failed else OK


def _checked(loaded: Loaded, options: argparse.Namespace) -> tuple[list[Diagnostic], list[str]]:
    """What is found, and what could not be looked at."""
    from ..program import LLMStep
    from . import host

    vm, skipped = host_of(loaded, options)
    if "tools" in skipped and not any(True for _ in host.tool_names(loaded.program, loaded.programs)):
        skipped.remove("tools")
    steps = [step for program in (loaded.program, *loaded.programs.values()) for step, _ in program.walk()]
    if "models" in skipped and not any(isinstance(step, LLMStep) for step in steps):
        skipped.remove("models")
    found = loaded.placed([*loaded.warnings(), *vm.check(loaded.program)])
    return found, skipped


def host_of(loaded: Loaded, options: argparse.Namespace) -> tuple[ExecutionVM, list[str]]:
    """A VM with the tools and models of the command line, and stubs that take anything for those not given."""
    from ..vm import ExecutionVM
    from . import host

    skipped = []
    if options.tools is not None:
        tools = host.load_tools(options.tools)
    else:
        tools = host.stub_tools(loaded.program, loaded.programs)
        skipped.append("tools")
    llm: Any = host.load_models(options.model, options.base_url)
    if llm is None:
        llm = host.StubModel()
        skipped.append("models")
    return ExecutionVM(llm=llm, tools=tools, programs=loaded.programs), skipped


def explain(options: argparse.Namespace) -> int:
    """The plan: what is executed, a line an operation."""
    from . import sources

    loaded = sources.load(options.program, options.program_file)
    vm, skipped = host_of(loaded, options)
    try:
        plan = vm.plan(loaded.program)
    except ProgramError as error:
        raise ProgramError(loaded.placed(error.diagnostics)) from None
    say(safe_lines(plan.explain()))
    if "tools" in skipped and plan.tools:
        note("tools were not given: their effects are taken for 'write'; --tools shows what they declare")
    return OK


def graph(options: argparse.Namespace) -> int:
    """The graph that is verified and executed, drawn."""
    from ..flow import Flow
    from ..graph import FORMATS, MERMAID_MAX_EDGES
    from . import sources

    loaded = sources.load(options.program, options.program_file)
    flow = Flow(loaded.program, loaded.programs)
    errors = [d for d in flow.diagnostics if d.severity == "error"]
    if errors:
        raise ProgramError(loaded.placed(loaded.program.place(errors)))
    text = FORMATS[options.format](flow)
    if options.format == "mermaid" and sum("->" in line for line in text.splitlines()) > MERMAID_MAX_EDGES:
        note(f"more than {MERMAID_MAX_EDGES} edges, which Mermaid does not draw by default; --format svg does")
    if options.output is None:
        emit(text)
    else:
        write_file(options.output, text)
    return OK


def schema(options: argparse.Namespace) -> int:
    """The JSON Schema of the language."""
    from ..program import Program

    emit_json(Program.json_schema())
    return OK


def write_file(path: str, text: str) -> None:
    """Write *text* to *path*, whole or not at all; a pipe or device is written as it is.

    Raises:
        UsageFault: If it can not be written.
    """
    temporary = None
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            with open(target, "w", encoding="utf-8", newline="") as stream:
                stream.write(text)
            return
        if target.exists() and not os.access(target, os.W_OK):
            raise UsageFault(f"can not write {path}: it is write-protected")
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name[:50]}.", dir=target.parent)
        with open(descriptor, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        os.chmod(temporary, file_mode(target))
        os.replace(temporary, target)
        temporary = None
    except (OSError, ValueError) as error:
        raise UsageFault(f"can not write {path}: {getattr(error, 'strerror', None) or error}") from None
    finally:
        if temporary is not None:
            os.unlink(temporary)


def file_mode(target: Path) -> int:
    """The permissions that a file at *target* has or would get."""
    if target.exists():
        return target.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
