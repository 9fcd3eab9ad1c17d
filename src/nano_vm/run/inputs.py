"""Inputs of a run: what a caller gives comes in, plain data or diagnostics go out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..diagnostics import Diagnostic
from ..errors import VMError
from ..language.flow import Names
from ..machine.plan import FramePlan, Plan
from ..spelling import Hints
from ..values import SMALL_TEXT, admit, is_small, kind_name
from ..verify.data.missing import missing_inputs


def names_of(given: Any, word: str = "untrusted", what: str = "names of inputs") -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if not all(isinstance(name, str) for name in names):
        raise VMError(f"{word} are {what}, not {given!r}")
    return tuple(sorted(set(names)))


MAX_RUN_ID = 200


def is_run_id(value: Any) -> bool:
    """Whether *value* may be a run's id: a string of visible ASCII characters, not too long."""
    return (
        type(value) is str
        and 0 < len(value) <= MAX_RUN_ID
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


_MISSING: Any = object()


def admitted_inputs(
    context: Any, frame: FramePlan | None, names: Names, also: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[Diagnostic]]:
    """Of *context* what the program can read and what the policy's checks read (*also*), as plain
    data, and what is wrong with it.

    What no step reads stays outside: it cannot change the run, and does not belong into its
    record. Against a declared schema the whole context is held.
    """
    if context is not None and not isinstance(context, Mapping):
        return {}, [
            Diagnostic("V041", ("context",), f"context is a dict, not {kind_name(context)}")
        ]
    given = context or {}
    inputs: dict[str, Any] = {}
    faults: list[Diagnostic] = []
    read = (
        [name for name, _ in frame.inputs]
        if frame is not None and frame.check is None
        else list(given)
    )
    read += [name for name in also if name not in read]
    for name in read:
        value = given.get(name, _MISSING)
        if is_small(value):
            inputs[name] = value
        elif value is not _MISSING:
            try:
                inputs[name] = admit(value)[0]
            except VMError as error:
                faults.append(Diagnostic("V041", ("context", str(name)), str(error)))
    if frame is None or (
        frame.check is None and all(name in inputs for name in (*frame.needed, *also))
    ):
        return inputs, faults
    missing = [name for name in dict.fromkeys((*frame.needed, *also)) if name not in given]
    faults += missing_inputs(names, missing, given)
    if frame.check is not None:
        faults += _misspelled(frame, given)
        faults += _unfit(frame.check, inputs) if not faults else []
    return inputs, faults


def _misspelled(frame: FramePlan, given: Mapping[Any, Any]) -> Iterator[Diagnostic]:
    """Inputs that nothing declares and that are nearly called like one that lacks."""
    hints, absent = Hints(), [name for name in frame.declared if name not in given]
    for name in given:
        meant = hints.meant(name, absent) if name not in frame.declared else None
        if meant is not None:
            message = f"the program takes no input {name!r}"
            yield Diagnostic("V042", ("context", str(name)), message, meant)


def _unfit(check: Callable[[Any], str | None], inputs: dict[str, Any]) -> list[Diagnostic]:
    named = all(type(name) is str for name in inputs)
    fault = check(inputs) if named else "a name is not a string"
    if fault is None:
        return []
    message = f"inputs do not fit the program's schema: {fault}"
    return [Diagnostic("V041", ("context",), message)]


def scalar_inputs(context: Any, plan: Plan) -> tuple[Any, ...] | None:
    """The needed inputs, which have the first slots of the root frame, where they are what they
    mostly are: all given, all small scalars, and nobody else reads them. ASCII strings are looked
    at in C.
    """
    frame = plan.frames[0]
    if plan.given or frame.take is None or frame.check is not None or type(context) is not dict:
        return None
    for name in frame.others:
        if name in context:
            return None
    if not frame.needed:
        return ()
    try:
        values = frame.take(context)
    except KeyError:
        return None
    for value in values:
        if type(value) is not str:
            break
    else:
        text = "".join(values)
        if len(text) < SMALL_TEXT and text.isascii():
            return values
    return values if all(map(is_small, values)) else None
