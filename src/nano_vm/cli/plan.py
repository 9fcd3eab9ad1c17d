"""``nano-vm plan``: a text becomes a program, by one model call, and the program a file that a
person can review.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from typing import Any

from ..errors import PlannerError
from ..language.program import CallStep, ConditionStep, LLMStep, MapStep, Program, Step, ToolStep
from .decide import WHOLE_CHARS, broken
from .faults import UsageFault
from .grammar import Options
from .text import FAILED, OK, diagnostic_lines, emit, emit_json, note, safe, say, shorten, shown

SHOWN_REPLY_CHARS = 300


def plan(options: Options) -> int:
    """Ask the model for a program; print it, or write it to a file and tell what it does and what
    was proved.
    """
    from ..cli import host
    from .fmt import formatted
    from .inspect import write_file
    from .sources import load

    if not options.model:
        raise UsageFault(
            "plan needs a model that writes the program: --model local, --model groq/NAME, ..."
        )
    told = options.input or options.input_file is not None
    context = host.read_inputs(options.input, options.input_file) if told else None
    budget = host.read_budget(options.budget)
    programs = {}
    for entry in options.program_file:
        name, separator, file = entry.partition("=")
        if not (name and separator and file):
            raise UsageFault(f"--program takes name=FILE, not {entry!r}")
        programs[name] = load(file).program
    tools = host.load_tools(options.tools) if options.tools is not None else {}
    llm = host.load_models(options.model, options.base_url)

    from ..planner.planner import Planner
    from ..run.vm import ExecutionVM

    planner = Planner(llm, tools, options.policy, programs=programs, budget=budget)
    try:
        program = asyncio.run(
            planner.generate(options.intent, context, untrusted=options.untrusted)
        )
    except PlannerError as error:
        for line in str(error).split("\n"):
            note(safe(line))
        if error.reply:
            note(f"the model wrote: {shown(error.reply, SHOWN_REPLY_CHARS)}")
        return FAILED
    report = ExecutionVM(
        llm, tools, programs=programs, policy=options.policy, budget=budget
    ).verify(program)
    text = formatted(program, json_form=(options.output or "").endswith(".json"))
    if options.output is not None:
        write_file(options.output, text)
    if options.json:
        emit_json({"program": program.to_dict(), "report": report.to_dict()})
        return OK
    tell = say if options.output is not None else note
    # by its digest, on what is shown here
    decided = options.output is not None and program.untrusted
    for line in whole_lines(text) if decided else summary(program):
        tell(line)
    for line in diagnostic_lines(report.diagnostics):
        tell(line)
    for line in report.lines():
        if line not in map(str, report.diagnostics) and not line.startswith(
            ("warning: ", "hint: ")
        ):
            tell(safe(line))
    if options.output is None:
        emit(text)
    elif decided and len(text) > WHOLE_CHARS:
        say(
            safe(
                f"{options.output}: written; it is too long for a screen. Read it, and ask for "
                f"its digest then:"
            )
        )
        say(safe(f"  nano-vm check {shlex.quote(options.output)} --json | jq .digest"))
    else:
        say(safe(f"{options.output}: written, digest {program.digest}"))
    return OK


def whole_lines(text: str) -> Iterator[str]:
    """A program's text, all of it; the beginning, where it is too long for a screen."""
    for line in text[:WHOLE_CHARS].splitlines():
        yield from broken(safe(line))
    if len(text) > WHOLE_CHARS:
        yield "..."


def summary(program: Program) -> Iterator[str]:
    """What the program is called, and a line for each step."""
    count = sum(1 for _ in program.walk())
    yield safe(f"{program.name}: {count} step{'s' * (count != 1)}")
    for step, loc in program.walk():
        indent = "  " * sum(isinstance(part, int) for part in loc)
        when = f", when {shorten(step.when, 80)}" if step.when is not None else ""
        yield safe(f"{indent}{step.id}: {_line(step)}{when}")


def _line(step: Step) -> str:
    match step:
        case ToolStep():
            return f"tool {step.tool}({_arguments(step.args)})"
        case CallStep():
            name = step.program if isinstance(step.program, str) else step.program.name
            return f"call {name}({_arguments(step.arguments)})"
        case LLMStep():
            written = step.messages[-1] if isinstance(step.messages, list) else step.messages
            asked = step.prompt or (written["content"] if isinstance(written, dict) else written)
            labels = f" -> {' | '.join(step.allowed_outputs)}" if step.allowed_outputs else ""
            return f"llm {shown(asked, 80)}{labels}"
        case ConditionStep():
            return f"condition {shorten(step.condition, 80)}"
        case MapStep():
            return f"map over {shown(step.over, 80)}"
    return step.type.value


def _arguments(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={shown(value, 60)}" for name, value in arguments.items())
