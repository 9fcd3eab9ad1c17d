"""Values for tools: a type hint comes in, a function goes out that checks a plain value against it
and gives what the tool receives.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, TypeVar

from ..language.operators import described, exact_float, exactly
from ..values import as_text, short

Converter = Callable[[Any], Any]


def converter(hint: Any) -> Converter | None:
    """A function that checks a plain value against a type hint and gives what the tool receives;
    None for any value.

    A string that is a JSON number is taken for a number, and a scalar for a string, as inside
    templates: what comes from a model or from 0.1 programs is text. Nothing else is converted
    between plain types.
    """
    if (
        hint is Any
        or hint is inspect.Parameter.empty
        or hint is object
        or isinstance(hint, TypeVar)
    ):
        return None
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _annotated(hint)
    if isinstance(hint, type) and hint in _PLAIN:
        return _PLAIN[hint]
    if origin is dict and typing.get_args(hint) in ((str, Any), (typing.Any, typing.Any)):
        return _PLAIN[dict]
    if origin is list and typing.get_args(hint) == (Any,):
        return _PLAIN[list]
    if origin in (typing.Union, types.UnionType):
        return _union(typing.get_args(hint))
    return _modelled(hint)


def _annotated(hint: Any) -> Converter | None:
    """Metadata that pydantic reads are constraints; any other says nothing here, whatever it is."""
    base, *metadata = typing.get_args(hint)
    constraints = [
        note
        for note in metadata
        if type(note).__module__.partition(".")[0]
        in ("pydantic", "pydantic_core", "annotated_types")
        or hasattr(note, "__get_pydantic_core_schema__")
    ]
    return _modelled(typing.Annotated[(base, *constraints)]) if constraints else converter(base)


def _union(members: tuple[Any, ...]) -> Converter | None:
    converters: list[Converter] = []
    for member in members:
        one = converter(member)
        if one is None:
            return None
        converters.append(one)
    names = " or ".join(hint_name(member) for member in members)

    def convert(value: Any) -> Any:
        for member in members:  # a value of the very type first: "5" for int | str is a text
            if member is type(value) or (value is None and member is types.NoneType):
                return value
        found: list[tuple[int, Any]] = []
        for one in converters:
            try:
                result = one(value)
            except ValueError:
                continue
            found.append((_kept(value, result), result))
        if not found:
            raise ValueError(f"takes {names}, not {described(value)}")
        return max(found, key=lambda pair: pair[0])[1]  # the first of equal ones

    return convert


def _kept(value: Any, result: Any) -> int:
    """How much of *value* is in *result* as it was: its fields, and the scalars in them."""
    if type(value) is dict:
        if dataclasses.is_dataclass(result):
            fields = {
                field.name: getattr(result, field.name) for field in dataclasses.fields(result)
            }
        else:
            fields = result if isinstance(result, dict) else _fields(result)
        return sum(1 + _kept(item, fields[name]) for name, item in value.items() if name in fields)
    if type(value) is list:
        if not isinstance(result, (list, tuple)) or len(result) != len(value):
            return 0
        return sum(1 + _kept(item, other) for item, other in zip(value, result, strict=True))
    return int(type(value) is type(result) and value == result)


def hint_name(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)


def _modelled(hint: Any) -> Converter | None:
    """Through pydantic, built at first use: models, dataclasses, dates, enums, literals, typed
    containers.
    """
    validate: Any = None
    many = typing.get_origin(hint) is dict

    def convert(value: Any) -> Any:
        nonlocal validate
        from pydantic import PydanticSchemaGenerationError, PydanticUserError, ValidationError

        if validate is None:
            try:
                validate = _validator(hint)
            except (PydanticSchemaGenerationError, PydanticUserError):
                validate = False  # a class that pydantic does not know: nothing to check by
        if validate is False:
            return value
        try:
            if many and type(value) is dict and len(value) > ENTRIES_AT_ONCE:
                result: Any = {}
                entries = iter(value.items())
                while part := dict(itertools.islice(entries, ENTRIES_AT_ONCE)):
                    result |= validate(part)
            else:
                result = validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = "".join(f"[{part!r}]" for part in first["loc"])
            raise ValueError(
                f"{place}: {first['msg']}, got {short(first['input'])}".lstrip(": ")
            ) from None
        rounded = _rounded(value, result)
        if rounded is not None:
            raise ValueError(f"takes no number that is exactly {described(rounded)}")
        return result

    return convert


ENTRIES_AT_ONCE = 1_000
"""Entries of an object that are checked together: pydantic collects the faults of all of them, and
only the first is reported."""


def _validator(hint: Any) -> Callable[[Any], Any]:
    """What checks a value by *hint*; a list ends at its first fault, since pydantic would collect
    those of a million items.
    """
    from pydantic import TypeAdapter
    from pydantic_core import SchemaError, SchemaValidator

    adapter = TypeAdapter(_understood(hint))
    try:
        return SchemaValidator(_failing_fast(adapter.core_schema)).validate_python
    except SchemaError:  # a pydantic that knows no other way
        return adapter.validate_python


_SEQUENCES = frozenset({"list", "set", "frozenset", "tuple"})
_NO_SCHEMAS = frozenset({"default", "metadata", "serialization", "expected", "config"})


def _failing_fast(schema: Any) -> Any:
    """A core schema in which sequences end at their first fault."""
    if type(schema) is list:
        return [_failing_fast(item) for item in schema]
    if type(schema) is tuple:
        return tuple(_failing_fast(item) for item in schema)
    if type(schema) is not dict:
        return schema
    found = {
        key: part if key in _NO_SCHEMAS else _failing_fast(part) for key, part in schema.items()
    }
    kind = schema.get("type")
    if isinstance(kind, str) and kind in _SEQUENCES:  # else it is a field of that name
        found["fail_fast"] = True
    return found


def _understood(hint: Any) -> Any:
    """*hint* with the `TypedDict` of Python 3.11, which pydantic does not take, as that of
    `typing_extensions`.
    """
    if sys.version_info >= (3, 12):
        return hint
    if typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        import typing_extensions

        fields = {
            name: typing_extensions.Required[_understood(kind)]
            if name in hint.__required_keys__
            else typing_extensions.NotRequired[_understood(kind)]
            for name, kind in typing.get_type_hints(hint).items()
        }
        return typing_extensions.TypedDict(hint.__name__, fields)  # type: ignore[operator]
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return typing.Annotated[(_understood(members[0]), *members[1:])]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_understood, members))]
    if origin in (list, dict, set, frozenset, tuple):
        return origin[tuple(map(_understood, members))]
    return hint


def _rounded(value: Any, result: Any) -> Any:
    """The first number in *value*, as number or text, that *result* has rounded; None if there is
    none.

    Pydantic takes a string for the nearest float. What it moves elsewhere, into a set for example, is
    not found, and a validator of the tool's own may make any number of another.
    """
    if (
        type(value) in (str, int, float)
        and isinstance(result, (int, float))
        and not isinstance(result, bool)
    ):
        return value if _is_rounded(value, result) else None
    pairs: Iterable[tuple[Any, Any]] = ()
    if type(value) is list and isinstance(result, (list, tuple)) and len(value) == len(result):
        pairs = zip(value, result, strict=True)
    elif type(value) is dict:
        fields = result if isinstance(result, dict) else _fields(result)
        pairs = [(item, fields[name]) for name, item in value.items() if name in fields]
    return next(
        (found for one, other in pairs if (found := _rounded(one, other)) is not None), None
    )


def _is_rounded(value: Any, result: int | float) -> bool:
    try:
        if float(value) != result:
            return False
    except (ValueError, OverflowError):
        # no number, or a larger one: made into *result* by the tool's own rules
        return False
    return exactly(value) != (
        Decimal(repr(float(result))) if isinstance(result, float) else int(result)
    )


def _fields(result: Any) -> dict[str, Any]:
    """The fields of a pydantic model or dataclass, by the names under which a value may give
    them.
    """
    if not hasattr(result, "__dict__"):
        return {}
    fields = dict(vars(result))
    for name, field_info in getattr(type(result), "model_fields", {}).items():
        if isinstance(field_info.alias, str) and name in fields:
            fields[field_info.alias] = fields[name]
    return fields


def _exactly(kind: type, name: str) -> Converter:
    def convert(value: Any) -> Any:
        if type(value) is kind:
            return value
        raise ValueError(f"takes {name}, not {described(value)}")

    return convert


def _to_int(value: Any) -> Any:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    number = exactly(value) if type(value) is str else None
    if number is not None and number == (whole := int(number)):
        return whole
    raise ValueError(f"takes a whole number, not {described(value)}")


def _to_float(value: Any) -> Any:
    number = exact_float(value)
    if number is not None:
        return number
    rounded = "; no float is exactly that number" if exactly(value) is not None else ""
    raise ValueError(f"takes a number, not {described(value)}{rounded}")


def _to_str(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return value
    if kind is int or kind is float or kind is bool:
        return as_text(value)
    raise ValueError(f"takes a string, not {described(value)}")


_PLAIN: dict[Any, Converter] = {
    str: _to_str,
    int: _to_int,
    float: _to_float,
    bool: _exactly(bool, "true or false"),
    list: _exactly(list, "a list"),
    dict: _exactly(dict, "an object"),
    type(None): _exactly(type(None), "null"),
}
