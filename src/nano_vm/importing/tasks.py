"""What a Task state calls, as a tool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .documents import Fields, Given, Reference, Value
from .identifiers import identifier
from .report import NoCounterpart

_LAMBDA, _INVOKE, _SERVICE = ":function:", "arn:aws:states:::lambda:invoke", "arn:aws:states:::"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool with its arguments; *shape* makes of its output what the state machine would see."""

    tool: str
    arguments: Value
    shape: Callable[[Reference], Value]
    differences: tuple[tuple[str, str], ...] = ()


def call_of(state: dict[str, Any], given: Value) -> Call:
    """The call that a Task makes with what it is *given*.

    Raises:
        NoCounterpart: If no tool can stand for it.
    """
    resource = state.get("Resource")
    if not isinstance(resource, str):
        raise NoCounterpart("has no Resource", "call a tool that does its work")
    if ".waitForTaskToken" in resource:
        raise NoCounterpart(
            "waits for a task token",
            "write an 'approval' step for a person, or a 'wait' step with an event",
        )
    if resource.startswith(f"{_SERVICE}states:startExecution"):
        raise NoCounterpart(
            "starts another state machine", "import that one, too, and write a 'call' step"
        )
    if resource == _INVOKE:
        return _invoked(given)
    if _LAMBDA in resource:
        return Call(_function(resource), given, lambda result: result)
    if resource.startswith(_SERVICE):
        service = resource.removeprefix(_SERVICE).removesuffix(".sync").removesuffix(".sync:2")
        tool = identifier(service)
        note = (f"calls {service}", f"write a tool {tool!r} that makes the call")
        return Call(tool, given, lambda result: result, (note,))
    tool = identifier(resource.rpartition(":")[2])
    note = (f"calls {resource}", f"write a tool {tool!r} that does its work")
    return Call(tool, given, lambda result: result, (note,))


def _function(name: str) -> str:
    """The name of a function, from its name, partial or whole ARN, without version."""
    bare = name.rpartition(_LAMBDA)[2] if _LAMBDA in name else name
    return identifier(bare.partition(":")[0])


def _invoked(given: Value) -> Call:
    """What ``lambda:invoke`` calls; a state machine sees the function's result as ``Payload``."""
    fields = dict(given.fields) if isinstance(given, Fields) else {}
    name = fields.get("FunctionName")
    if not isinstance(name, Given) or not isinstance(name.value, str):
        raise NoCounterpart(
            "calls a function that its Parameters do not name",
            "write FunctionName, or a 'switch' over the tools that it can be",
        )
    if isinstance(kind := fields.get("InvocationType"), Given) and kind.value == "Event":
        raise NoCounterpart(
            "calls a function and does not wait for it", "submit a run of another program in a tool"
        )
    return Call(
        _function(name.value),
        fields.get("Payload", Given({})),
        lambda result: Fields((("Payload", result),)),
    )
