"""The JSON Schema of policies, for editors."""

from __future__ import annotations

from typing import Any

from .fields import EXTENSION
from .policy import EFFECTS, RETURNS, Budget
from .secrecy import IMPLICIT, RECEIVERS


def _object(**properties: Any) -> dict[str, Any]:
    """The schema of an object with these fields, and those that are free."""
    return {
        "type": "object",
        "properties": {**properties, "metadata": True},
        "patternProperties": {f"^{EXTENSION}": True},
        "additionalProperties": False,
    }


_TEXT: dict[str, Any] = {"type": "string"}
_NAMES: dict[str, Any] = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}


def _names_or(shape: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [*_NAMES["anyOf"], shape]}


_ARG_SCHEMA = _names_or(
    _object(trusted={"type": "boolean"}, check=_TEXT, approval=_TEXT, accepts=_NAMES)
)
_RULE_SCHEMA = _object(
    allow={"type": "boolean"},
    args={"type": "object", "additionalProperties": _ARG_SCHEMA},
    guarded_by=_NAMES,
    approval=_TEXT,
    max_calls={"type": "integer", "minimum": 0},
    after=_NAMES,
    before=_NAMES,
    effect={"enum": list(EFFECTS)},
    returns=_names_or(_object(trust={"enum": [*RETURNS]}, secrecy=_NAMES)),
    declassifies=_NAMES,
    reason=_TEXT,
)
_SHAPE: dict[str, Any] = _object(
    description=_TEXT,
    version={"type": ["string", "number"]},
    inputs={
        "type": "object",
        "additionalProperties": _names_or(
            _object(trust={"enum": ["trusted", "untrusted"]}, secrecy=_NAMES)
        ),
    },
    tools={"type": "object", "additionalProperties": _RULE_SCHEMA},
    models={
        "type": "object",
        "additionalProperties": _object(
            tags={"type": "array", "items": {"type": "string"}}, accepts=_NAMES
        ),
    },
    secret=_NAMES,
    roles={"type": "object", "additionalProperties": _object(accepts=_NAMES, releases=_NAMES)},
    events={"type": "object", "additionalProperties": _object(accepts=_NAMES, returns=_NAMES)},
    accepts=_object(**dict.fromkeys(RECEIVERS, _NAMES)),
    implicit={"enum": list(IMPLICIT)},
    values={"type": "object"},
    budget=_object(**{name: {"type": "number"} for name in Budget.model_fields}),
)


def _one_of(*words: str) -> dict[str, Any]:
    """What is not a string, or one of *words*."""
    return {"anyOf": [{"not": _TEXT}, {"enum": list(words)}]}


POLICY_SCHEMA: dict[str, Any] = {
    **_SHAPE,
    # a string that is no word is the name of a label, where the policy has any
    "if": {"not": {"required": ["secret"]}},
    "then": {
        "properties": {
            "inputs": {"additionalProperties": _one_of("trusted", "untrusted", "public", "secret")},
            "tools": {
                "additionalProperties": {
                    "properties": {"returns": _one_of(*RETURNS, "public", "secret")}
                }
            },
        }
    },
}
"""A JSON Schema of a policy, by which editors complete and check it."""
