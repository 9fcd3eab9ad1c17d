"""Tools: a Python signature becomes a contract.

A callable comes in; a `ToolContract` goes out: parameter names, converters and JSON Schemas,
effect, and how it is to be called. Contracts are made when tools are registered; no tool is called
here.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import json
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast, overload

from ..errors import StepFault, VMError
from ..given import string, strings
from ..language.expr import EXPR, computed, parse_template
from ..language.policy import EFFECTS, Effect, Returns
from ..language.secrecy import ALL, NONE, Labels
from ..values import CONTAINERS, admit, kind_name, short
from .conversion import Converter, converter, hint_name

UNSAFE = frozenset({"write", "irreversible"})
IDEMPOTENCY_KEY = "idempotency_key"
MAX_TIMEOUT_SECONDS = 366 * 24 * 3600.0
"""A year, as for steps."""
_OPTIONS = "__nano_vm_tool__"

Function = TypeVar("Function", bound=Callable[..., Any])

Recheck = Callable[[Callable[..., Any]], Awaitable[None]]
"""Checks a program against what one of its tools has become, a function with another contract;
raises `ToolError` where it is refused."""
BIND = "__nano_vm_bind__"
"""The attribute of a tool whose contract can change while programs run: it is called with a
`Recheck` of the program, and returns what that program calls."""


class ArgumentError(StepFault):
    """An argument of the wrong type; the message names tool and argument."""

    retryable = False


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """What `tool` declares."""

    name: str | None = None
    effect: Effect | None = None
    inline: bool = False
    timeout_seconds: float | None = None
    trusted: tuple[str, ...] = ()
    returns: Returns | None = None
    returns_secret: Labels = NONE
    accepts: Labels | None = None
    queue: str | None = None


@overload
def tool(function: Function, /) -> Function: ...
@overload
def tool(
    *,
    name: str | None = None,
    effect: Effect | None = None,
    inline: bool = False,
    timeout_seconds: float | None = None,
    trusted: Iterable[str] = (),
    returns: Returns | None = None,
    returns_secret: bool | Iterable[str] = False,
    accepts: Iterable[str] | None = None,
    queue: str | None = None,
) -> Callable[[Function], Function]: ...
def tool(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    effect: Effect | None = None,
    inline: bool = False,
    timeout_seconds: float | None = None,
    trusted: Iterable[str] = (),
    returns: Returns | None = None,
    returns_secret: bool | Iterable[str] = False,
    accepts: Iterable[str] | None = None,
    queue: str | None = None,
) -> Any:
    """Declare what a function is as a tool; the function itself stays as it is.

    ``effect`` is ``read``, ``idempotent``, ``write`` (as if undeclared) or ``irreversible``.
    ``inline`` runs a sync function in the event loop's thread: for cheap ones that never block.
    ``timeout_seconds`` holds for each attempt, unless the step says otherwise. ``trusted`` names
    arguments (or ``*``) that no text from outside may reach. What the tool returns counts as text
    from outside, unless ``returns`` is ``trusted``, or ``args`` for a pure function, whose result
    is as trusted as its arguments. ``returns_secret`` says that it returns what not everybody may
    know, or names the labels of it; ``accepts`` names the labels that it may be given, `()` none.
    ``queue`` is the task queue of the workers of a Temporal cluster that have it.

    Examples:
        >>> from nano_vm import ExecutionVM, Program, tool
        >>> @tool(effect="read", returns="trusted")
        ... def price(weight: int) -> int:
        ...     return 2 * weight
        >>> program = Program.from_yaml("steps: [{id: a, type: tool, tool: price, args: {weight: 3}}]")
        >>> ExecutionVM(tools={"price": price}).run_sync(program).output
        6
    """
    if effect is not None and effect not in EFFECTS:
        raise VMError(f"effect is one of {', '.join(EFFECTS)}, not {effect!r}")

    protected = strings(trusted, "trusted", "name the arguments, or '*'")
    if function is not None and not callable(function):
        raise VMError(f"a tool is a function, not {short(function)}; write tool(search)")
    if name is not None:
        string(name, "the name of a tool")
    if queue is not None:
        string(queue, "the queue of a tool")
    if type(inline) is not bool:
        raise VMError(f"inline is True or False, not {short(inline)}")
    if returns not in (None, "trusted", "args"):
        raise VMError(f"returns is 'trusted' or 'args', not {returns!r}")
    secret = _labels(returns_secret, "returns_secret")
    accepted = None if accepts is None else strings(accepts, "accepts", "name the labels")
    seconds = timeout_seconds
    if seconds is not None and (
        type(seconds) not in (int, float) or not 0 < seconds <= MAX_TIMEOUT_SECONDS
    ):
        raise VMError(f"timeout_seconds is a number of seconds above 0, not {seconds!r}")

    def mark(target: Function) -> Function:
        options = ToolOptions(
            name, effect, inline, seconds, protected, returns, secret, accepted, queue
        )
        try:
            setattr(target, _OPTIONS, options)
        except (AttributeError, TypeError):  # a bound method or a builtin
            target = cast("Function", functools.partial(target))
            setattr(target, _OPTIONS, options)
        return target

    return mark if function is None else mark(function)


def _labels(given: bool | Iterable[str], what: str) -> Labels:
    if type(given) is bool:
        return ALL if given else NONE
    return strings(given, what, "say True, or name the labels")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a tool; ``convert`` checks a value and gives what the tool receives, None
    takes any value as it is.
    """

    name: str
    required: bool
    hint: Any = Any
    convert: Converter | None = None


@dataclass(frozen=True, slots=True)
class ToolContract:
    """What is known of a tool before it is called: facts only, so that hosts whose tools are other
    functions of the same contracts can share a plan.
    """

    name: str
    parameters: Mapping[str, Parameter]
    positional: tuple[str, ...] = ()  # those that the function itself takes by position, in order
    open: bool = False  # takes any keyword
    effect: Effect = "write"
    declared: bool = False  # whether the effect was declared
    takes_key: bool = False
    how: Literal["async", "thread", "inline"] = "async"
    timeout_seconds: float | None = None
    doc: str = ""
    options: ToolOptions = field(default_factory=ToolOptions)
    result: Any = Any  # the type hint of what it returns; of a class, which says nothing, any value

    @property
    def unsafe(self) -> bool:
        """Whether a call whose outcome is unknown may have changed the world."""
        return self.effect in UNSAFE

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for contracts with which a program is compiled alike."""
        taken = tuple((p.name, p.required, _Hint(p.hint)) for p in self.parameters.values())
        how = self.effect, self.takes_key, self.how, self.timeout_seconds
        return self.name, *how, self.positional, self.open, taken

    def result_schema(self) -> dict[str, Any]:
        """A JSON Schema of what it returns; empty where that may be anything."""
        return _json_schema(self.result)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with a JSON Schema of the arguments."""
        properties = {p.name: _json_schema(p.hint) for p in self.parameters.values()}
        return {
            "name": self.name,
            "description": self.doc,
            "effect": self.effect,
            **({"trusted": list(self.options.trusted)} if self.options.trusted else {}),
            **({"returns": self.options.returns} if self.options.returns else {}),
            **(
                {"returns_secret": list(self.options.returns_secret)}
                if self.options.returns_secret
                else {}
            ),
            **({"accepts": list(self.options.accepts)} if self.options.accepts is not None else {}),
            "arguments": {
                "type": "object",
                "properties": properties,
                "required": [p.name for p in self.parameters.values() if p.required],
                "additionalProperties": self.open,
            },
        }


def _json_schema(hint: Any) -> dict[str, Any]:
    from pydantic import TypeAdapter

    if hint is Any:
        return {}
    try:
        return TypeAdapter(hint).json_schema()
    except Exception:  # noqa: BLE001 - a type without a JSON form, or whose schema fails: any value
        return {}


class _Hint:
    """A type hint, equal to another only where both take the same values alike: of a union the order
    of the members decides too, in which two that are otherwise equal may differ.
    """

    __slots__ = ("hint", "shown")

    def __init__(self, hint: Any) -> None:
        self.hint, self.shown = hint, repr(hint)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Hint) or self.shown != other.shown:
            return False
        return self.hint is other.hint or _is_same(self.hint, other.hint)

    def __hash__(self) -> int:
        return hash(self.shown)


def _is_same(one: Any, other: Any) -> bool:
    try:
        return hash(one) == hash(other) and bool(one == other)
    except Exception:  # noqa: BLE001 - metadata of a hint may be anything: then only itself is the same
        return False


def options_of(function: Any) -> ToolOptions | None:
    """What `tool` declared of *function*, if it did."""
    return getattr(function, _OPTIONS, None)


def name_of(function: Any) -> str:
    """The name of a tool that stands in a list: as `tool` declares it, else the function's own.

    Raises:
        VMError: If it has none.
    """
    declared = getattr(options_of(function), "name", None)
    name = declared or getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise VMError(f"a {kind_name(function)} in a list has no name; give a dict of callables")
    return name


def contract(name: Any, function: Any) -> ToolContract:
    """The contract of *function* under *name*.

    Raises:
        VMError: If it cannot be called with keywords.
    """
    string(name, "a tool's name")
    if not callable(function):
        raise VMError(f"tool {name!r} is {kind_name(function)}, which cannot be called")
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    options = getattr(function, _OPTIONS, None) or getattr(inner, _OPTIONS, None) or ToolOptions()
    target: Any = (
        inner if inspect.isroutine(inner) or isinstance(inner, type) else type(inner).__call__
    )
    signature = _signature(function)
    if inspect.isasyncgenfunction(target) or inspect.isgeneratorfunction(target):
        raise VMError(f"tool {name!r} is a generator; return a list instead")
    parameters, is_open = (
        _parameters(name, signature, target) if signature is not None else ({}, True)
    )
    declared = type_hints(target).get("return", Any)
    unwritable = _unwritable(inner if isinstance(inner, type) else declared)
    if unwritable is not None:
        kind, instead = unwritable
        raise VMError(
            f"tool {name!r} says that it returns {kind}, which is no JSON value; {instead}"
        )
    for protected in options.trusted:
        if protected not in parameters and protected != "*" and not is_open:
            raise VMError(f"tool {name!r} has no argument {protected!r} to be trusted")
    takes_key = IDEMPOTENCY_KEY in parameters
    parameters.pop(IDEMPOTENCY_KEY, None)
    how: Literal["async", "thread", "inline"] = "thread"
    if inspect.iscoroutinefunction(target):
        how = "async"
    elif options.inline or _is_lambda(inner):
        how = "inline"
    return ToolContract(
        name=name,
        parameters=parameters,
        positional=_positional(function),
        open=is_open,
        effect=options.effect or "write",
        declared=options.effect is not None,
        takes_key=takes_key,
        how=how,
        timeout_seconds=options.timeout_seconds,
        doc=inspect.getdoc(inner) or "" if inspect.isroutine(inner) else "",
        options=options,
        result=Any if isinstance(inner, type) else declared,
    )


_UNWRITABLE: dict[Any, str] = {
    **dict.fromkeys(
        (bytes, bytearray, memoryview), "decode it to a string, or encode it as base64"
    ),
    complex: "return its parts",
    **dict.fromkeys(
        (collections.abc.Generator, collections.abc.Iterator, collections.abc.AsyncIterator),
        "return a list instead",
    ),
}


def _unwritable(hint: Any) -> tuple[str, str] | None:
    """The type inside the annotation of a result that has no JSON form whatever its value is, and
    what to return instead.

    Better than after the first call, whose effect is then done and whose result is lost.
    """
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        return None  # another member may be what it returns
    for kind, instead in _UNWRITABLE.items():
        if isinstance(origin, type) and issubclass(origin, kind):
            return hint_name(hint), instead
    if origin is typing.Annotated or (
        isinstance(origin, type) and issubclass(origin, (list, tuple, set, dict))
    ):
        parts = typing.get_args(hint)
        inner = parts[:1] if origin is typing.Annotated else parts
        return next((found for part in inner if (found := _unwritable(part)) is not None), None)
    return None


def _signature(function: Any) -> inspect.Signature | None:
    """What *function* takes by name; of a wrapper that passes on any keyword, what the wrapped
    function takes.
    """
    try:
        own = inspect.signature(function, follow_wrapped=False)
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in own.parameters.values()):
            return own
        return inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return None


def _positional(function: Any) -> tuple[str, ...]:
    """The names that *function* takes by position, as its own code has them.

    What a signature says may be another function's: that of a wrapper made by `functools.wraps` is
    the wrapped one's, while the wrapper itself may take keywords alone, or look into them.
    """
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if not isinstance(function, (types.FunctionType, types.MethodType)) or code is None:
        return ()
    if code.co_posonlyargcount:
        return ()
    names: tuple[str, ...] = code.co_varnames[: code.co_argcount]
    return names[1:] if isinstance(function, types.MethodType) else names


def _is_lambda(function: Any) -> bool:
    """A lambda is an expression: it is called at once, and what it returns is awaited if it can
    be.
    """
    return isinstance(function, types.FunctionType) and function.__name__ == "<lambda>"


def _parameters(
    name: str, signature: inspect.Signature, target: Any
) -> tuple[dict[str, Parameter], bool]:
    hints = type_hints(getattr(target, "__init__") if isinstance(target, type) else target)  # noqa: B009 - mypy: unsound on an instance
    result: dict[str, Parameter] = {}
    is_open = False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            is_open = True
        elif (
            parameter.kind is inspect.Parameter.POSITIONAL_ONLY
            and parameter.default is inspect.Parameter.empty
        ):
            raise VMError(
                f"tool {name!r} takes {parameter.name!r} by position only; arguments are given by "
                f"name"
            )
        elif parameter.kind in (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        ):
            hint = hints.get(parameter.name, Any)
            required = parameter.default is inspect.Parameter.empty
            result[parameter.name] = Parameter(parameter.name, required, hint, converter(hint))
    return result, is_open


def type_hints(function: Any) -> dict[str, Any]:
    """The type hints of *function*; one that names what is not importable says nothing, and the
    others still hold.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation may raise anything
        hints: dict[str, Any] = {}
        local = _names_around(function)
        for name, hint in getattr(function, "__annotations__", {}).items():
            try:
                hints |= typing.get_type_hints(
                    types.SimpleNamespace(__annotations__={name: hint}),
                    getattr(function, "__globals__", {}),
                    local,
                    include_extras=True,
                )
            except Exception:  # noqa: BLE001, S112 - the others still hold
                continue
        return hints


def _names_around(function: Any) -> dict[str, Any]:
    """Names that the functions under way in the module of *function* have: a postponed annotation
    may mean a class of theirs.
    """
    home = getattr(function, "__globals__", None)
    found: dict[str, Any] = {}
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals is home and frame.f_code.co_name != "<module>":
            found = {**frame.f_locals, **found}
        frame = frame.f_back
    closure = (
        inspect.getclosurevars(function).nonlocals
        if isinstance(function, types.FunctionType)
        else {}
    )
    return {**found, **closure}


def handed(value: Any) -> Any:
    """*value* as a tool may have it: containers are copied, so that no tool changes the state
    behind the machine's back.
    """
    return admit(value)[0] if type(value) in CONTAINERS else value


def checked(tool_name: str, parameter: Parameter, value: Any, written: Any = None) -> Any:
    """What the tool receives for *value*, which the program writes as *written*.

    Raises:
        ArgumentError: If the value is of the wrong type.
    """
    value = handed(value)
    if parameter.convert is None:
        return value
    try:
        return parameter.convert(value)
    except ValueError as error:
        hint = _text_hint(parameter, value, written)
        raise ArgumentError(
            f"argument {parameter.name!r} of tool {tool_name!r} {error}{hint}"
        ) from None


def _text_hint(parameter: Parameter, value: Any, written: Any) -> str:
    """How a program writes the JSON text of a list or object that went to a parameter for text."""
    if type(value) not in CONTAINERS or str not in (
        parameter.hint,
        *typing.get_args(parameter.hint),
    ):
        return ""
    node = computed(written)
    if node is not None:
        source = written[EXPR]
    elif type(written) is str and parse_template(written).typed:
        source = written
    else:
        return ""
    return f"; for its JSON text write {{expr: {json.dumps(f'str({source})', ensure_ascii=False)}}}"
