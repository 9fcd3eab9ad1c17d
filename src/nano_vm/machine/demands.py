"""What a policy demands of an argument, held against what the tool receives.

A rule of a call's argument comes in; a function goes out that is called before each call with the
value as the program gives it and as the tool receives it, after conversion. Both must keep to the
rule, or there is no call. No tool is called here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from ..errors import PolicyRefused, StepFault, ValueRefused
from ..language.closures import compile_condition, compile_expr
from ..language.expr import Ref
from ..language.operators import exactly
from ..language.policy import VALUE, ArgRule, CallRule, Shown, boxes
from ..values import (
    SCALARS,
    UNSET,
    admit,
    as_text,
    canonical,
    copied,
    exact_number,
    kind_name,
    short,
)

Enforce = Callable[[Any, Any, Mapping[str, Any]], None]
"""Takes the value, what the tool receives for it, and the inputs that checks read; raises
`PolicyRefused`.
"""


def enforcer(tool: str, name: str, rule: CallRule) -> Enforce:
    """The function that holds argument *name* of *tool* against *rule*."""
    if isinstance(rule, Shown):
        return _as_shown(tool, name, rule)
    return _checked(tool, name, rule)


def _checked(tool: str, name: str, rule: ArgRule) -> Enforce:
    passes = value_check(rule)

    def enforce(value: Any, received: Any, given: Mapping[str, Any]) -> None:
        if not passes(value, given):
            raise PolicyRefused(_refusal(tool, name, f"is {short(value)}", rule.text))
        if type(received) in SCALARS and type(received) is type(value) and received == value:
            return
        form = _form(tool, name, value, received)
        # no text is the boolean: 'true' and 'True' both spell it
        if type(value) is bool and type(form) is str:
            raise PolicyRefused(
                _refusal(tool, name, f"is {value!r}, which the tool takes as a string", rule.text)
            )
        if not passes(form, given):
            what = f"is {short(value)}, which the tool receives as {short(form)}"
            raise PolicyRefused(_refusal(tool, name, what, rule.text))

    return enforce


def _as_shown(tool: str, name: str, rule: Shown) -> Enforce:
    def enforce(value: Any, received: Any, given: Mapping[str, Any]) -> None:
        if type(received) in SCALARS and type(received) is type(value) and received == value:
            return
        form = _form(tool, name, value, received)
        if not same(value, form):
            raise PolicyRefused(
                f"argument {name!r} of tool {tool!r} was shown to {rule.role!r} as "
                f"{short(value)}, and the tool would "
                f"receive {short(form)}; show and send the value as the tool takes it"
            )

    return enforce


def _refusal(tool: str, name: str, what: str, demanded: str) -> str:
    return f"argument {name!r} of tool {tool!r} {what}, and the policy demands {demanded!r}"


def _form(tool: str, name: str, value: Any, received: Any) -> Any:
    try:
        return json_form(received)
    except ValueRefused as error:
        what = f"is {short(value)}, which the tool receives as {kind_name(received)}"
        raise PolicyRefused(f"argument {name!r} of tool {tool!r} {what}: {error}") from None


def value_check(rule: ArgRule) -> Callable[[Any, Mapping[str, Any]], bool]:
    """Whether a value passes the check of *rule*, given the inputs that the check reads.

    The policy's own values are constants; what stands right of ``in`` must be a list, since in a
    string any part is found.
    """
    assert rule.check is not None
    inputs = rule.reads()
    scope = _CheckScope({name: i for i, name in enumerate([VALUE, *inputs, *rule.values])})
    test = compile_condition(rule.check, scope)
    lists = [compile_expr(box, scope) for box in boxes(rule.check)]
    # what a policy holds may be changed by whoever has it
    constants = copied(list(rule.values.values()))

    def passes(value: Any, given: Mapping[str, Any]) -> bool:
        frame = [value, *(given.get(name, UNSET) for name in inputs), *constants]
        try:
            reason = (
                None
                if all(type(box(frame)) is list for box in lists)
                else "what stands right of 'in' is no list"
            )
            passed = reason is None and bool(test(frame))
        except StepFault as error:
            # refused like a check that does not hold: an error is no way around it
            reason = str(error)
        if reason is not None:
            raise PolicyRefused(f"the policy's check {rule.text!r} cannot be made: {reason}")
        return passed

    return passes


class _CheckScope:
    """The names of a value check, each in its slot."""

    def __init__(self, slots: dict[str, int]) -> None:
        self.slots = slots

    def load(self, ref: Ref) -> tuple[int, tuple[str | int, ...]]:
        return self.slots[ref.name], ref.path


def same(value: Any, form: Any) -> bool:
    """Whether *form*, what a tool receives as JSON, says what *value* says: equal, and a number may
    be a string or of another type.

    An object may have more fields than were given: what they default to is the tool's own.
    """
    if type(value) is list:
        return type(form) is list and len(form) == len(value) and all(map(same, value, form))
    if type(value) is dict:
        return type(form) is dict and all(
            key in form and same(item, form[key]) for key, item in value.items()
        )
    if type(value) is type(form):
        return bool(value == form)
    number = exactly(value)
    return number is not None and number == exactly(form)


def json_form(received: Any) -> Any:
    """What a tool receives, as the JSON value that it is; sets in the order of their members'
    bytes.

    Raises:
        ValueRefused: If it has none.
    """
    try:
        return admit(_plain(received))[0]
    except (ValueError, TypeError, RecursionError) as error:
        # pydantic's own errors are a ValueError
        raise ValueRefused(f"it has no JSON form that the policy could look at ({error})") from None


def _plain(received: Any) -> Any:
    kind = type(received)
    if kind in SCALARS:
        return received
    if kind is list or kind is tuple:
        return [_plain(item) for item in received]
    if kind is dict:
        return {
            key if type(key) is str else as_text(_plain(key)): _plain(item)
            for key, item in received.items()
        }
    if kind is set or kind is frozenset:
        return sorted(map(_plain, received), key=canonical)
    if kind is Decimal:
        try:
            return exact_number(received)
        except ValueRefused:
            return str(received)
    secret = getattr(received, "get_secret_value", None)
    if callable(secret):  # pydantic's own form of it is asterisks
        return _plain(secret())
    fields = _anything().dump_python(received, by_alias=True, warnings=False)
    if type(fields) is dict:  # of a model or a dataclass
        return _plain(fields)
    return _anything().dump_python(received, mode="json", warnings=False)


@cache
def _anything() -> Any:
    """What pydantic makes of a value by its own type alone."""
    from pydantic import TypeAdapter

    return TypeAdapter(Any)
