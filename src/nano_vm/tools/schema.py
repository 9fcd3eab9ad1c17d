"""A JSON Schema of arguments becomes the signature of a function, from which its contract is made."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable
from typing import Annotated, Any

from ..language.schemas import schema_check

_PLAIN = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
}
_SAYS_NOTHING = frozenset({"type", "title", "description", "default", "examples", "deprecated"})


class _NotGiven:
    """Stands for an argument that a step leaves out."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN = _NotGiven()


class Checked:
    """Holds values of a parameter against its JSON Schema, for pydantic."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self._check = schema_check(schema)

    def _held(self, value: Any) -> Any:
        fault = self._check(value)
        if fault is not None:
            from pydantic_core import PydanticCustomError

            raise PydanticCustomError("json_schema", "{fault}", {"fault": fault})
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._held, handler(source))

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return self.schema


def with_signature(function: Callable[..., Any], schema: dict[str, Any]) -> None:
    """Give *function*, which takes any keywords, the parameters that *schema* describes; where no
    signature can say what it does, it stays as it is.
    """
    hints = hints_of(schema)
    if hints is None:
        return
    required = set(schema.get("required", ()))
    signature = inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if name in required else NOT_GIVEN,
                annotation=hint,
            )
            for name, hint in hints.items()
        ]
    )
    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__annotations__ = hints


def hints_of(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The type of each parameter; None where a signature cannot say what *schema* does."""
    properties = schema.get("properties", {})
    usable = all(name.isidentifier() and not keyword.iskeyword(name) for name in properties)
    if not usable or schema.get("additionalProperties") not in (None, False):
        return None
    definitions: dict[str, Any] = {
        key: schema[key] for key in ("$defs", "definitions") if key in schema
    }
    return {name: hint_of(inner, definitions) for name, inner in properties.items()}


def hint_of(schema: Any, definitions: dict[str, Any]) -> Any:
    if schema is True or schema == {}:
        return Any
    if not isinstance(schema, dict):  # false: there is no value for it
        return Annotated[Any, Checked({"not": {}})]
    kind = schema.get("type")
    base = _PLAIN.get(kind, Any) if isinstance(kind, str) else Any
    if base is not Any and _SAYS_NOTHING.issuperset(schema):
        return base
    return Annotated[base, Checked({**definitions, **schema})]
