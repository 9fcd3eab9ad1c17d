"""A program for people: its text, a line for each step, or all that can happen in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..language.expr import EXPR
from ..language.flow import Edge, Flow, Node
from ..language.program import (
    ApprovalStep,
    CallStep,
    LLMStep,
    LoopStep,
    MapStep,
    OnError,
    ParallelStep,
    Program,
    SetStep,
    Step,
    ToolStep,
    WaitStep,
)
from ..language.semantics import Chooses, Stops, control
from .decide import WHOLE_CHARS, broken
from .text import safe, shorten, shown

VALUE_CHARS = 80
"""Of a value, a condition or a prompt; the program has all of it."""

EFFECTS = {
    "read": ", which only reads",
    "idempotent": ", which can be repeated",
    "write": ", which writes",
    "irreversible": ", which cannot be taken back",
}


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
        when = f", when {shorten(step.when, VALUE_CHARS)}" if step.when is not None else ""
        yield safe(f"{indent}{step.id}: {_line(step)}{when}")


def _line(step: Step) -> str:
    match step:
        case ToolStep():
            return f"tool {_called(step.tool, step.args)}"
        case CallStep():
            name = step.program if isinstance(step.program, str) else step.program.name
            return f"call {_called(name, step.arguments)}"
        case LLMStep():
            labels = f" -> {' | '.join(step.allowed_outputs)}" if step.allowed_outputs else ""
            return f"llm {_prompt(step)}{labels}"
        case MapStep():
            return f"map over {shown(step.over, VALUE_CHARS)}"
    kind = step.type.value
    match control(step):
        case Chooses(condition=str(condition)):
            return f"{kind} {shorten(condition, VALUE_CHARS)}"
        case Stops(error):
            return f"{kind} {shorten(error, VALUE_CHARS)}"
    return kind


def _called(name: str, arguments: Mapping[str, Any]) -> str:
    return (
        f"{name}({', '.join(f'{_key(key)}={_value(value)}' for key, value in arguments.items())})"
    )


def _prompt(step: LLMStep) -> str:
    written = step.messages[-1] if isinstance(step.messages, list) else step.messages
    asked = step.prompt or (written["content"] if isinstance(written, dict) else written)
    return shown(asked, VALUE_CHARS)


def _value(value: Any) -> str:
    """A value as the program writes it: references and expressions stand without quotes."""
    return shorten(_written(value), VALUE_CHARS)


_REFERENCE = re.compile(r"\$(\{[\w.]+\}|[\w.]+)\Z", re.ASCII)
"""What stands without quotes: nothing that could be taken for another argument."""


def _key(key: str) -> str:
    return key if key.isidentifier() else shown(key)


def _written(value: Any) -> str:
    if isinstance(value, dict):
        if list(value) == [EXPR]:
            return str(value[EXPR])
        return f"{{{', '.join(f'{_key(key)}: {_written(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, str) and _REFERENCE.match(value):
        return value
    if type(value) is float:
        return f"{value:g}"
    return shown(value, VALUE_CHARS)


def in_words(flow: Flow, effects: Mapping[str, str]) -> Iterator[str]:
    """What a program does, step by step, and what follows what; *effects* of the tools that are
    known.
    """
    words = _Words(flow, effects)
    told: set[int] = set()
    for frame in flow.frames:
        program = frame.names.program
        if frame.kind not in ("run", "call") or id(program) in told:
            continue
        if told:
            yield ""
        told.add(id(program))
        yield from map(safe, words.program(program))


class _Words:
    def __init__(self, flow: Flow, effects: Mapping[str, str]) -> None:
        self.flow = flow
        self.effects = effects
        self.nodes: dict[int, list[Node]] = {}  # of a step; of its first frame, if it is in several
        for node in flow.nodes:
            if node.kind in ("step", "test"):
                found = self.nodes.setdefault(id(node.step), [])
                if not found or found[0].frame is node.frame:
                    found.append(node)

    def program(self, program: Program) -> Iterator[str]:
        yield program.name + (f": {program.description}" if program.description else "")
        inputs = program.inputs or {}
        for name, schema in inputs.get("properties", {}).items():
            yield f"  input {name}{_type(schema, name in inputs.get('required', ()))}"
        if program.timeout_seconds is not None:
            yield f"  it ends within {program.timeout_seconds:g} s"
        steps = list(program.walk())
        for number, (step, loc) in enumerate(steps):
            indent = "  " * sum(isinstance(part, int) for part in loc)
            yield f"{indent}{step.id}: {_doing(step, self.effects)}"
            below = steps[number + 1][0].id if number + 1 < len(steps) else None
            for line in (*_fields(step), *self.following(step, below)):
                yield f"{indent}    {line}"
        if program.output is not None:
            yield f"  output: {_value(program.output)}"
        yield "  a step that fails ends it, unless it says otherwise; what has an undo is undone then"

    def following(self, step: Step, below: str | None) -> Iterator[str]:
        """Where it goes on, a line for each edge; nothing where that is the step *below*."""
        nodes = self.nodes.get(id(step), [])
        modes = list(dict.fromkeys(node.mode for node in nodes))
        for mode in modes:
            reached = "by a jump" if mode == "jump" else "in order"
            found = [self.edges(node, below) for node in nodes if node.mode == mode]
            for line in dict.fromkeys(line for lines in found for line in lines):
                yield line if len(modes) == 1 else f"{line}, where it is reached {reached}"

    def edges(self, node: Node, below: str | None) -> Iterator[str]:
        for edge in node.edges:
            if edge.label in ("error", "fork", "again", "unless", "skip"):
                continue
            if edge.by not in (-1, node.index):
                continue
            target, is_step = self.target(edge)
            if edge.label != "next":
                yield f"{_label(edge)} -> {target}"
            elif target != below:
                yield f"then -> {target}" if is_step else f"then {target}"

    def target(self, edge: Edge) -> tuple[str, bool]:
        """What an edge leads to, and whether that is a step and not the end of something."""
        node = self.flow.nodes[edge.target]
        while node.kind == "close":
            node = self.flow.nodes[node.edges[0].target]
        match node.kind:
            case "end":
                what = {"run": "the run", "call": "the program", "branch": "the branch"}
                return f"{what.get(node.frame.kind, 'the item')} ends", False
            case "fail":
                return "it fails", False
            case "test":
                return f"the end of an iteration of {node.step.id}", False
        return node.step.id, True


def _type(schema: Any, required: bool) -> str:
    if not isinstance(schema, dict):
        return ""
    kinds = schema.get("type")
    said = ", ".join([kinds] if isinstance(kinds, str) else kinds or ())
    if "default" in schema:
        said += f"{', ' if said else ''}{shown(schema['default'], VALUE_CHARS)} unless it is given"
    elif not required:
        said += f"{', ' if said else ''}may be left out"
    return f" ({said})" if said else ""


def _doing(step: Step, effects: Mapping[str, str]) -> str:
    """What a step does, as a sentence without its end."""
    match step:
        case ToolStep():
            return f"calls {_called(step.tool, step.args)}{EFFECTS.get(effects.get(step.tool, ''), '')}"
        case LLMStep():
            model = f"model {step.model!r}" if step.model is not None else "the model"
            answer = "its text"
            if step.allowed_outputs:
                answer = f"one of {', '.join(step.allowed_outputs)}"
            elif step.output_schema is not None:
                answer = "JSON that fits the schema"
            return f"asks {model} {_prompt(step)}, for {answer}"
        case ParallelStep():
            return f"runs {len(step.parallel_steps)} branches side by side"
        case MapStep():
            return (
                f"runs the steps below for each ${step.item_name} of {_value(step.over)}, at most "
                f"{step.max_items:,}"
            )
        case LoopStep():
            until = f", until {shorten(step.until, VALUE_CHARS)}" if step.until else ""
            if step.until and step.on_exhausted == "fail":
                until += ", and fails where that does not come"
            return f"repeats the steps below at most {step.max_iterations:,} times{until}"
        case CallStep():
            name = step.program if isinstance(step.program, str) else step.program.name
            return f"runs the program {_called(name, step.arguments)}"
        case SetStep():
            values = ", ".join(f"${name} = {_value(value)}" for name, value in step.values.items())
            return f"sets {values}"
        case ApprovalStep():
            return f"waits until {step.role!r} approves or rejects {_value(step.show)}"
        case WaitStep():
            if step.event is not None:
                return f"waits for the event {step.event!r}"
            return f"waits {f'until {step.until}' if step.until else f'{_value(step.seconds)} s'}"
    match control(step):
        case Chooses("condition", ways, condition):
            verb = "decides" if len(ways) > 1 else "fails unless"
            return f"{verb} {shorten(str(condition), VALUE_CHARS)}"
        case Chooses(on=on):
            return f"decides by {_value(on)}"
        case Stops(error):
            return f"fails with {shorten(error, VALUE_CHARS)}"
    return step.type.value


def _fields(step: Step) -> Iterator[str]:
    """What else the step says of itself."""
    if step.when is not None:
        yield f"only when {shorten(step.when, VALUE_CHARS)}"
    if step.output_key is not None:
        yield f"its output is ${step.output_key}"
    if isinstance(step, LLMStep) and (step.allowed_outputs or step.output_schema is not None):
        other = "the step fails"
        if "on_invalid" in step.model_fields_set:
            other = f"{shown(step.on_invalid, VALUE_CHARS)} is taken"
        yield f"any other answer is asked again with what is wrong with it, then {other}"
    if step.on_error is OnError.RETRY or step.max_retries is not None:
        most = f", at most {step.max_retries} times" if step.max_retries is not None else ""
        yield f"tried again where it fails{most}"
    if step.on_error is OnError.SKIP:
        value = f" with {shown(step.default, VALUE_CHARS)}" if step.default is not None else ""
        yield f"skipped{value} where it fails"
    if step.timeout_seconds is not None:
        yield f"within {step.timeout_seconds:g} s"
    if isinstance(step, ToolStep):
        if step.undo is not None:
            yield f"undone by {_called(step.undo.tool, step.undo.args)}"
        if step.reconcile is not None:
            yield f"{step.reconcile.tool} is asked where it is not known whether it took place"


def _label(edge: Edge) -> str:
    if edge.label == "catch":
        return f"on {', '.join(edge.errors)}"
    if edge.label.startswith("case:"):
        return f"{edge.label[5:]!r}"
    return edge.label
