"""Faults that plain data shows, found before any model is built: fields, types, expressions,
templates, bounds, ids. A walk over the document also resolves aliases and puts fields in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from ..diagnostics import Diagnostic, Loc
from ..errors import ExprError, ProgramError, VMError
from ..spelling import Hints
from ..values import admit, short
from .expr import EXPR, EXPR_KEY, parse_expr, parse_template, value_references
from .fields import NO_OPTIONS, PURPOSES, free, remedy, unknown
from .kinds import TYPES, StepType
from .messages import ROLES, message_fault, misplaced
from .policy import MAX_FAULTS, Budget, read_policy
from .program import (
    END,
    ERROR_KINDS,
    MAX_ID_CHARS,
    MAX_STEPS,
    STEP_CLASSES,
    Catch,
    Defaults,
    Holds,
    ModelPool,
    Program,
    Retry,
    Shaped,
    Step,
    ToolRef,
)
from .schemas import schema_fault

_ALIASES = {"next_step": "next"}
_LATER = {
    "tools": "a program's own list of tools is not built yet",
}
BUDGET_AT_TOP = ("max_steps", "max_tokens")
_ID = re.compile(r"[^/\[\]#$\x00-\x1f\x7f\u0085\u2028\u2029]+\Z")
_NAME = re.compile(r"[^\W\d]\w*\Z")
ERROR_NAMES = "begin it with a capital, as PaymentRefused, and use letters, digits and '_'"


def error_name(text: str) -> bool:
    """Whether a program may give an error this name: a `catch` tells it from a kind."""
    return len(text) <= MAX_ID_CHARS and text[:1].isupper() and _NAME.match(text) is not None


_LITERALS = ("default", "on_invalid")
_NULLABLE = ("default", "on_invalid", "show", "over", "on")
_DEMANDS_OF_PROGRAMS = ("policy", "budget", "untrusted", "inputs", *BUDGET_AT_TOP)
_DEMANDS_OF_STEPS = ("allowed_outputs", "output_schema", "match", "undo", "reconcile")
"""Fields by which something is checked, bounded or undone: a blank one may be a slip."""

_AS_HERE = (("on_timeout", "fail"), ("max_stalled_steps", None))
"""Fields of 0.8 with the value by which they ask for what is done here in any case."""


def _fields(model: type[BaseModel]) -> dict[str, None]:
    return {field.alias or name: None for name, field in model.model_fields.items()}


_STEP_FIELDS = {kind.value: _fields(model) for kind, model in STEP_CLASSES.items()}
ALL_STEP_FIELDS = {name: None for fields in _STEP_FIELDS.values() for name in fields}
_PROGRAM_FIELDS = _fields(Program)
# where the type is not known, a field counts as what it is in the first type that has it
_ALL_HOLDS = {
    field: holds
    for model in reversed(STEP_CLASSES.values())
    for field, holds in model.HOLDS.items()
    if field not in Step.model_fields
}


def _ordered(found: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """*found* in the order of *fields*; those that are free stand last."""
    return {name: found[name] for name in fields if name in found} | {
        k: v for k, v in found.items() if free(k)
    }


_STEPS_INSIDE = (Holds.TARGET, Holds.TARGETS, Holds.BLOCK, Holds.BRANCHES)
_BLOCK_FIELDS = ("steps", "parallel_steps", "then", "otherwise", "cases", "default")


def prepare(data: Any) -> tuple[Shaped, list[Diagnostic]]:
    """*data* as plain data with aliases resolved, and the faults that its shape shows."""
    if not isinstance(data, dict):
        kind = "nothing" if data is None else f"{short(data)}"
        raise ProgramError(
            [Diagnostic("P006", (), f"a program is an object with 'steps', not {kind}")]
        )
    traced = {"records", "seal"} <= data.keys() or isinstance(data.get("trace"), dict)
    if traced and not isinstance(data.get("steps"), list):
        hint = "nano-vm trace show prints it"
        raise ProgramError(
            [Diagnostic("P006", (), "this is the trace of a run, and no program", hint)]
        )
    shape = _Shape()
    document = shape.program(_plain(data), ())
    return Shaped(document), shape.faults


def prepare_step(data: dict[str, Any]) -> tuple[Any, list[Diagnostic]]:
    """As `prepare`, for one step."""
    shape = _Shape()
    return shape.step(_plain(data), (), {}), shape.faults


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = admit(_unmodelled(data))[0]
    except VMError as error:
        raise ProgramError([Diagnostic("P004", (), str(error))]) from None
    return plain


def _unmodelled(value: Any) -> Any:
    """Models inside *value* as what was written into them."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True, by_alias=True, warnings=False) | (
            {"type": value.type.value} if isinstance(value, Step) else {}
        )
    if type(value) is list:
        return [_unmodelled(item) for item in value]
    if type(value) is dict and ("steps" in value or any(field in value for field in _BLOCK_FIELDS)):
        return {key: _unmodelled(item) for key, item in value.items()}
    return value


MAX_REMEDIES = 100
"""Unknown fields that are reported with a remedy: more than anybody mends before the next look."""


class _Shape:
    """One walk over a plain document: resolves aliases, collects faults."""

    def __init__(self) -> None:
        self.faults: list[Diagnostic] = []  # `MAX_FAULTS` of them
        self.failed = False
        self.steps = 0
        self.remedies = 0
        self.hints = Hints()

    def add(
        self,
        code: str,
        loc: Loc,
        message: str,
        hint: str | None = None,
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        error = severity == "error"
        if len(self.faults) < MAX_FAULTS or (error and not self.failed):
            self.faults.append(Diagnostic(code, loc, message, hint, severity))
        self.failed |= error

    def program(self, data: dict[str, Any], loc: Loc) -> dict[str, Any]:
        result: dict[str, Any] = {}
        top: dict[str, Any] = {}
        for key, value in data.items():
            if value is None and key in _DEMANDS_OF_PROGRAMS:
                self.blank(key, loc)
            elif key in BUDGET_AT_TOP:
                top[key] = value
            elif (
                self.known(key, _PROGRAM_FIELDS, value, (*loc, key), "program")
                and value is not None
            ):
                result[key] = value
        if top and isinstance(result.get("budget", {}), dict):
            budget = dict(result.get("budget", {}))
            for key, value in top.items():  # the tightest counts
                both = type(value) is int and type(budget.get(key)) is int
                budget[key] = min(value, budget[key]) if both else value
            result["budget"] = budget
        version = result.get("dsl")
        if version is not None:
            if version in (1, "1", "1.0", 1.0) and version is not True:
                result["dsl"] = 1
            else:
                self.add(
                    "P007",
                    (*loc, "dsl"),
                    f"language version {short(version)} is not known",
                    "this is version 1",
                )
                del result["dsl"]
        if isinstance(result.get("version"), (int, float)) and not isinstance(
            result["version"], bool
        ):
            result["version"] = str(result["version"])
        ids: dict[str, Loc] = {}
        if isinstance(result.get("steps"), list):
            result["steps"] = self.block(result["steps"], (*loc, "steps"), ids)
        self.inputs(result.get("inputs"), loc, ids)
        if "output" in result:
            self.templates(result["output"], (*loc, "output"))
        limits = result.get("budget")
        self.nested(limits, (*loc, "budget"), Budget)
        for key, value in limits.items() if isinstance(limits, dict) else ():
            if value is None and key in Budget.model_fields:
                self.blank(key, (*loc, "budget"))
        if isinstance(result.get("models"), dict):
            self.pools(result["models"], (*loc, "models"))
        if isinstance(result.get("policy"), dict):
            self.faults += read_policy(result["policy"], (*loc, "policy"))[1]
        self.nested(result.get("defaults"), (*loc, "defaults"), Defaults)
        if isinstance(result.get("defaults"), dict):
            self.options(result["defaults"].get("options"), (*loc, "defaults", "options"))
            self.stops(result["defaults"].get("stop"), (*loc, "defaults", "stop"))
        return _ordered(result, _PROGRAM_FIELDS)

    def pools(self, models: dict[str, Any], loc: Loc) -> None:
        """Those of *models* that are pools: what they hold are models, each once, and no pools."""
        for name, given in models.items():
            if not isinstance(given, dict):
                continue
            at = (*loc, name)
            self.nested(given, at, ModelPool)
            members = given.get("pool")
            if not isinstance(members, list):
                hint = f"write {name}: {{pool: [fast, good]}}"
                self.add("P013", at, f"a pool names its models, not {short(members)}", hint)
                continue
            for i, member in enumerate(members):
                if isinstance(member, str) and isinstance(models.get(member), dict):
                    what = "itself" if member == name else f"the pool {member!r}"
                    message = f"the pool {name!r} has {what} in it, and a pool has no pools"
                    self.add("P013", (*at, "pool", i), message, "name the models themselves")
                elif member in members[:i]:
                    self.add("P013", (*at, "pool", i), f"{short(member)} is in the pool twice")
            hedges = given.get("strategy") == "hedge"
            if hedges != (given.get("hedge_after_seconds") is not None):
                message = "strategy hedge and hedge_after_seconds belong together"
                self.add("P013", at, message, "give both, or neither")

    def inputs(self, schema: Any, loc: Loc, ids: dict[str, Loc]) -> None:
        if not isinstance(schema, dict):
            return
        properties = schema.get("properties")
        if schema.get("type", "object") != "object" or not isinstance(properties, dict):
            hint = (
                "write inputs: {type: object, properties: {user_input: {type: string}}, "
                "required: [user_input]}"
            )
            self.add(
                "P032",
                (*loc, "inputs"),
                "inputs is a JSON Schema of an object with 'properties'",
                hint,
            )
            return
        self.schema(schema, (*loc, "inputs"))
        for name in properties:
            if name in ids:
                message = f"{name!r} is both an input and a step id"
                self.add(
                    "P020", (*loc, "inputs", "properties", name), message, "rename one of them"
                )

    def schema(self, schema: dict[str, Any], loc: Loc) -> None:
        if fault := schema_fault(schema):
            self.add("P032", loc, f"not a usable JSON Schema: {fault}")

    def block(self, steps: list[Any], loc: Loc, ids: dict[str, Loc]) -> list[Any]:
        return [self.step(step, (*loc, i), ids) for i, step in enumerate(steps)]

    def target(self, value: Any, loc: Loc, ids: dict[str, Loc]) -> Any:
        if isinstance(value, dict):
            self.add(
                "P013", loc, "a target is a step id or a list of steps", "put the step into a list"
            )
        return self.block(value, loc, ids) if isinstance(value, list) else value

    def known(
        self, key: str, fields: Mapping[str, None], value: Any, loc: Loc, kind: str = ""
    ) -> bool:
        """Whether *key* may stand in an object of this *kind*; if not, that is said."""
        if key in fields or free(key):
            return True
        if key in _LATER:
            if value is not None:
                self.add("P022", loc, _LATER[key], "remove the field")
        elif (key, value) not in _AS_HERE:
            self.add("P012", loc, unknown(key), self.remedy(key, fields, kind))
        return False

    def blank(self, key: str, loc: Loc) -> None:
        """Say that a field by which something is demanded of a run has no value: nothing is."""
        message = f"{key!r} says nothing, and counts as if it were not there"
        self.add("P038", (*loc, key), message, "fill it in, or remove it", severity="warning")

    def remedy(self, key: str, fields: Mapping[str, None], kind: str) -> str | None:
        self.remedies += 1
        return remedy(key, fields, kind, self.hints) if self.remedies <= MAX_REMEDIES else None

    def nested(self, value: Any, loc: Loc, model: type[BaseModel]) -> None:
        if isinstance(value, dict):
            fields = _fields(model)
            for key in list(value):
                if not self.known(key, fields, value[key], (*loc, key)):
                    del value[key]  # told here, and not again by the model

    def step(self, data: Any, loc: Loc, ids: dict[str, Loc]) -> Any:
        self.steps += 1
        if self.steps == MAX_STEPS + 1:
            self.add("P005", loc, f"more than {MAX_STEPS} steps", "split it with 'call'")
        if not isinstance(data, dict):
            return data
        kind = data.get("type")
        fields = _STEP_FIELDS.get(kind) if isinstance(kind, str) else None
        if fields is None:
            self.add(*_unknown_type_parts(loc, kind, "type" in data, self.hints))
            fields = ALL_STEP_FIELDS
        found: dict[str, Any] = {}
        for written, value in data.items():
            key: str = _ALIASES[written] if written in _ALIASES else str(written)
            if key == "is_terminal":
                if value is True:
                    self.twice(found, "next", written, loc)
                    found["next"] = END
                elif value not in (False, None):
                    self.add(
                        "P013", (*loc, key), f"is_terminal is true or false, not {short(value)}"
                    )
            elif key in fields:
                if key == "when" and value is None:
                    message = "'when' says nothing, and the step would always run"
                    self.add("P019", (*loc, key), message, "write a condition, or remove the field")
                if value is not None or key in _NULLABLE:
                    self.twice(found, key, written, loc)
                    found[key] = value
                elif key in _DEMANDS_OF_STEPS:
                    self.blank(key, loc)
            elif key in ALL_STEP_FIELDS:
                self.misplaced(key, value, kind, loc)
            elif self.known(key, fields, value, (*loc, key), "step"):
                found[key] = value
        result = Shaped(_ordered(found, fields))
        self.identity(result, loc, ids)
        if fields is not ALL_STEP_FIELDS and kind in _CHECKS:
            _CHECKS[kind](self, result, loc)
        model = STEP_CLASSES[StepType(kind)] if fields is not ALL_STEP_FIELDS else None
        self.common(result, model, loc)
        held = _ALL_HOLDS if model is None else model.HOLDS
        self.expression(result.get("when"), (*loc, "when"))
        for field in _LITERALS:
            if field in result and field not in held:
                self.literal(result[field], (*loc, field))
        for field, holds in held.items():
            if field in result:
                result[field] = self.held(holds, result[field], (*loc, field), ids)
        return result

    def misplaced(self, key: str, value: Any, kind: Any, loc: Loc) -> None:
        """A field of steps of other types: a model of 0.1 had all of them, most of them empty."""
        if value is None or value in ({}, []):
            return
        types = [name for name, known in _STEP_FIELDS.items() if key in known]
        where = f"it is a field of a step of type {' or '.join(map(repr, types))}"
        purpose = PURPOSES["step"].get(key)
        message = f"field {key!r} means nothing in a step of type {kind!r}"
        self.add(
            "P015", (*loc, key), message, f"{where}; {purpose}" if purpose is not None else where
        )

    def twice(self, found: dict[str, Any], key: str, written: str, loc: Loc) -> None:
        if key in found:
            self.add(
                "P017",
                (*loc, key),
                f"{written!r} says what {key!r} says already",
                "keep one of them",
            )

    def identity(self, step: dict[str, Any], loc: Loc, ids: dict[str, Loc]) -> None:
        step_id = step.get("id")
        if isinstance(step_id, str):
            if not _ID.match(step_id) or len(step_id) > MAX_ID_CHARS or step_id != step_id.strip():
                hint = (
                    f"use letters, digits, '_' and '-', at most {MAX_ID_CHARS}; not / [ ] # $ "
                    f"or control characters"
                )
                self.add("P021", (*loc, "id"), f"{short(step_id)} cannot be a step id", hint)
            elif step_id in ids:
                from ..diagnostics import format_loc

                message = f"step id {step_id!r} stands twice, first at {format_loc(ids[step_id])}"
                self.add(
                    "P020", (*loc, "id"), message, "give each step its own id, also across blocks"
                )
            else:
                ids[step_id] = loc
        for field in ("output_key", "as"):
            name = step.get(field)
            if isinstance(name, str) and not _NAME.match(name):
                self.add(
                    "P021",
                    (*loc, field),
                    f"{short(name)} cannot be a name",
                    "use letters, digits and '_'",
                )

    def common(self, step: dict[str, Any], model: type[Step] | None, loc: Loc) -> None:
        kind = step.get("type")
        retries: list[str] = [f for f in ("max_retries", "retry") if f in step and step[f] != 1]
        if step.get("on_error") == "retry":
            retries.append("on_error")
        if model is not None and not model.CALLS and retries:
            message = f"{retries[0]!r} does not apply to a step of type {kind!r}"
            hint = (
                "its calls would run twice; give the steps inside their own retries"
                if any(holds in _STEPS_INSIDE for holds in model.HOLDS.values())
                else "it makes no call"
            )
            self.add("P015", (*loc, retries[0]), message, hint)
        if model is not None and not model.TIMED and "timeout_seconds" in step:
            message = f"'timeout_seconds' does not apply to a step of type {kind!r}"
            self.add(
                "P015",
                (*loc, "timeout_seconds"),
                message,
                "it waits for nothing; put it on a step inside",
            )
        retry = step.get("retry")
        if (
            isinstance(retry, dict)
            and "max_retries" not in step
            and step.get("on_error") != "retry"
        ):
            message = "'retry' says how to wait, and there is one attempt"
            self.add("P034", (*loc, "retry"), message, "add max_retries", severity="warning")
        self.nested(retry, (*loc, "retry"), Retry)
        if isinstance(retry, dict):
            self.kinds(retry.get("on"), (*loc, "retry", "on"))
        for i, catch in enumerate(step["catch"]) if isinstance(step.get("catch"), list) else ():
            self.nested(catch, (*loc, "catch", i), Catch)
            if isinstance(catch, dict):
                self.kinds(catch.get("errors"), (*loc, "catch", i, "errors"))

    def kinds(self, kinds: Any, loc: Loc) -> None:
        for i, kind in enumerate(kinds) if isinstance(kinds, list) else ():
            if isinstance(kind, str) and kind not in ERROR_KINDS and not kind[:1].isupper():
                hint = self.hints.meant(
                    kind, ERROR_KINDS, otherwise=f"kinds are {', '.join(ERROR_KINDS)}"
                )
                self.add(
                    "P023", (*loc, i), f"{kind!r} is neither a kind of error nor a class name", hint
                )

    def expression(self, text: Any, loc: Loc) -> None:
        if isinstance(text, str):
            try:
                parse_expr(text)
            except ExprError as error:
                self.add("P030", loc, str(error))

    def templates(self, value: Any, loc: Loc) -> None:
        kind = type(value)
        if kind is str:
            if "$" in value:
                try:
                    parse_template(value)
                except ExprError as error:
                    self.add("P031", loc, str(error))
        elif kind is list:
            for i, item in enumerate(value):
                self.templates(item, (*loc, i))
        elif kind is dict:
            if EXPR in value:
                self.computed(value, loc)
            else:
                self.named(value, loc)

    def named(self, values: Any, loc: Loc) -> None:
        """Templates by name: the arguments of a call, whose mapping is no value itself."""
        for name, value in values.items() if isinstance(values, dict) else ():
            self.templates(value, (*loc, name))

    def computed(self, value: dict[str, Any], loc: Loc) -> None:
        if len(value) == 1 and isinstance(value[EXPR], str):
            self.expression(value[EXPR], (*loc, EXPR))
        else:
            hint = f"write the key as '{EXPR_KEY}' where the object has a key of that name"
            self.add("P035", loc, f"an expression is {{{EXPR}: text}} and nothing else", hint)

    def literal(self, value: Any, loc: Loc) -> None:
        """A literal, in which nothing is computed."""
        if isinstance(value, dict) and len(value) == 1 and isinstance(value.get(EXPR), str):
            message = f"{loc[-1]!r} is a literal: {{{EXPR}: ...}} in it is data and is not computed"
            self.add(
                "P033",
                loc,
                message,
                "compute it in a 'set' step where it is needed",
                severity="warning",
            )
        elif isinstance(value, (dict, list)):
            for inner in value.values() if isinstance(value, dict) else value:
                self.literal(inner, loc)

    def held(self, holds: Holds, value: Any, loc: Loc, ids: dict[str, Loc]) -> Any:
        """What a field holds, with its faults reported and the aliases inside resolved."""
        match holds:
            case Holds.EXPRESSION:
                self.expression(value, loc)
            case Holds.TEMPLATE | Holds.MESSAGES:
                self.templates(value, loc)
            case Holds.TEMPLATES | Holds.VALUES:
                self.named(value, loc)
            case Holds.CALL:
                return self.beside(value, loc)
            case Holds.TARGET:
                return self.target(value, loc, ids)
            case Holds.TARGETS if isinstance(value, dict):
                return {name: self.target(to, (*loc, name), ids) for name, to in value.items()}
            case Holds.BLOCK if isinstance(value, list):
                return self.block(value, loc, ids)
            case Holds.BRANCHES if isinstance(value, list):
                return self.branches(value, loc, ids)
        return value

    def beside(self, reference: Any, loc: Loc) -> Any:
        """A tool call beside a step; a string is the name of a tool."""
        if isinstance(reference, str):
            return {"tool": reference}
        self.nested(reference, loc, ToolRef)
        if isinstance(reference, dict):
            self.named(reference.get("args"), (*loc, "args"))
        return reference

    def branches(self, branches: list[Any], loc: Loc, ids: dict[str, Loc]) -> list[Any]:
        if [] in branches:
            self.add("P013", loc, "a branch has no steps", "give it one, or remove it")
        return [
            self.block(branch, (*loc, i), ids)
            if isinstance(branch, list) and branch
            else self.step(branch, (*loc, i), ids)
            for i, branch in enumerate(branches)
        ]

    # --- what one type demands ---

    def llm(self, step: dict[str, Any], loc: Loc) -> None:
        given = [field for field in ("prompt", "messages") if step.get(field)]
        name = short(step.get("id"))
        if not given:
            self.add("P010", loc, f"llm step {name} needs a 'prompt' or 'messages'")
        elif len(given) > 1:
            message = f"llm step {name} has both 'prompt' and 'messages'"
            self.add("P017", loc, message, "keep one of them")
        if "messages" in given and "system" in step:
            self.add(
                "P017",
                (*loc, "system"),
                "'system' stands beside 'messages'",
                "make it the first message",
            )
        self.messages(step.get("messages"), (*loc, "messages"))
        allowed = step.get("allowed_outputs")
        if allowed is not None and "output_schema" in step:
            self.add(
                "P017",
                (*loc, "output_schema"),
                "'allowed_outputs' and 'output_schema' exclude each other",
                "keep one of them",
            )
        if isinstance(step.get("output_schema"), dict):
            self.schema(step["output_schema"], (*loc, "output_schema"))
        if isinstance(allowed, list):
            self.labels(allowed, (*loc, "allowed_outputs"))
        self.stops(step.get("stop"), (*loc, "stop"))
        self.options(step.get("options"), (*loc, "options"))
        if "on_invalid" in step and allowed is None and "output_schema" not in step:
            message = (
                "'on_invalid' without 'allowed_outputs' or 'output_schema': every answer is valid"
            )
            self.add("P018", (*loc, "on_invalid"), message, "add one of them, or remove it")
        if (
            isinstance(allowed, list)
            and step.get("on_invalid") is not None
            and step["on_invalid"] not in allowed
        ):
            message = f"'on_invalid' {short(step['on_invalid'])} is none of 'allowed_outputs'"
            hint = "see that what reads the answer expects it, too"
            self.add("P016", (*loc, "on_invalid"), message, hint, severity="warning")

    def labels(self, allowed: list[Any], loc: Loc) -> None:
        folded = [label.strip().casefold() for label in allowed if isinstance(label, str)]
        if len(set(folded)) < len(folded):
            self.add(
                "P036",
                loc,
                "two allowed outputs differ only in case or spaces",
                "remove one, or choose labels that differ in more",
            )
        if "" in folded:
            self.add("P013", loc, "an empty text cannot be an allowed output")
        for i, label in enumerate(allowed):
            if isinstance(label, (bool, int, float)):
                self.add("P013", (*loc, i), f"{short(label)} is not a string", "quote it")

    def stops(self, stop: Any, loc: Loc) -> None:
        texts = stop if isinstance(stop, list) else [stop]
        if stop is not None and not (
            texts and all(isinstance(text, str) and text for text in texts)
        ):
            self.add(
                "P013",
                loc,
                f"'stop' is a string or a list of strings, none of them empty, not {short(stop)}",
            )

    def options(self, options: Any, loc: Loc) -> None:
        """What a provider is sent beside the language's own fields: no field of those, nothing of
        the host's, no template.
        """
        for name, value in options.items() if isinstance(options, dict) else ():
            if name in NO_OPTIONS:
                self.add("P015", (*loc, name), f"{name!r} cannot be an option", NO_OPTIONS[name])
            elif _refers(value):
                self.add(
                    "P037",
                    (*loc, name),
                    "options are sent as they stand: no reference is replaced in them",
                    "write the value itself",
                )

    def messages(self, messages: Any, loc: Loc) -> None:
        if isinstance(messages, list):
            for i, message in enumerate(messages):
                if isinstance(message, str):
                    self.conversation(message, (*loc, i))
                else:
                    self.message(message, (*loc, i))
        elif isinstance(messages, str):
            self.conversation(messages, loc)
        elif messages is not None:
            self.add(
                "P013", loc, f"'messages' is a list, or a reference to one, not {short(messages)}"
            )

    def conversation(self, text: str, loc: Loc) -> None:
        try:
            typed = parse_template(text).typed
        except ExprError:  # told of every template
            return
        if not typed:
            hint = "write a message as {role: user, content: ...}"
            self.add(
                "P013",
                loc,
                f"{short(text)} is not one reference to a list of messages, like $history",
                hint,
            )

    def message(self, message: Any, loc: Loc) -> None:
        if not isinstance(message, dict):
            return
        for key in message:
            self.known(key, {"role": None, "content": None}, message[key], (*loc, key))
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            self.add(
                "P013", (*loc, "role"), f"role is one of {', '.join(ROLES)}, not {short(role)}"
            )
        if isinstance(content, list) and content:
            for i, part in enumerate(content):
                self.part(part, role, (*loc, "content", i))
        elif not isinstance(content, str):
            self.add(
                "P013",
                (*loc, "content"),
                f"content is a string or a list of parts, not {short(content)}",
            )

    def part(self, part: Any, role: Any, loc: Loc) -> None:
        """A part of a content; an address that holds a reference is looked at when it is known."""
        image = part.get("image_url") if isinstance(part, dict) else None
        if isinstance(image, dict) and isinstance(url := image.get("url"), str) and _refers(url):
            part = {**part, "image_url": {**image, "url": "http://later"}}
        file = part.get("file") if isinstance(part, dict) else None
        if (
            isinstance(file, dict)
            and isinstance(data := file.get("file_data"), str)
            and _refers(data)
        ):
            part = {**part, "file": {**file, "file_data": "data:text/plain;base64,YQ=="}}
        if fault := message_fault({"role": "user", "content": [part]}):
            place, _, message = fault.removeprefix(".content[0]").partition(": ")
            self.add("P013", (*loc, *place.split(".")[1:]), message)
        elif part["type"] != "text" and role != "user" and role in ROLES:
            self.add("P015", loc, misplaced(part, role), "move it into a message of the user")

    def condition(self, step: dict[str, Any], loc: Loc) -> None:
        if not step.get("then") and not step.get("otherwise"):
            self.add("P010", loc, f"condition {short(step.get('id'))} needs 'then' or 'otherwise'")

    def loop(self, step: dict[str, Any], loc: Loc) -> None:
        if "until" not in step and step.get("on_exhausted") != "continue":
            message = f"loop {short(step.get('id'))} without 'until' always fails"
            self.add(
                "P010",
                loc,
                message,
                "give it 'until', or 'on_exhausted: continue' to run a fixed number of times",
            )

    def call(self, step: dict[str, Any], loc: Loc) -> None:
        if isinstance(step.get("program"), dict):
            step["program"] = self.program(step["program"], (*loc, "program"))

    def never_skipped(self, step: dict[str, Any], loc: Loc) -> None:
        if step.get("on_error") == "skip":
            kind = step["type"]
            message = f"'on_error: skip' does not apply to a step of type {kind!r}"
            hint = "what it demands would not be demanded; a 'when' says where it is not meant"
            self.add("P015", (*loc, "on_error"), message, hint)

    def fail(self, step: dict[str, Any], loc: Loc) -> None:
        self.never_skipped(step, loc)
        if step.get("catch"):
            message = "'catch' does not apply to a step of type 'fail': it ends its frame"
            hint = "the 'catch' of the call, branch or map around it takes the error by its name"
            self.add("P015", (*loc, "catch"), message, hint)
        name = step.get("error")
        if isinstance(name, str) and "$" not in name and not error_name(name):
            message = f"{short(name)} cannot be the name of an error"
            self.add("P023", (*loc, "error"), message, ERROR_NAMES)

    def set(self, step: dict[str, Any], loc: Loc) -> None:
        values = step.get("values")
        for name in values if isinstance(values, dict) else ():
            at = (*loc, "values", name)
            if not _NAME.match(name):
                self.add(
                    "P021", at, f"{short(name)} cannot be a name", "use letters, digits and '_'"
                )

    def wait(self, step: dict[str, Any], loc: Loc) -> None:
        given = [field for field in ("seconds", "until", "event") if field in step]
        needs = f"wait {short(step.get('id'))} needs one of 'seconds', 'until', 'event', and has"
        if not given:
            self.add("P010", loc, f"{needs} none of them")
        elif len(given) > 1:
            self.add("P017", loc, f"{needs} {' and '.join(given)}", "keep one of them")
        if "match" in step:
            self.matched(step["match"], (*loc, "match"), of_event="event" in step)
        if "output_schema" in step and "event" not in step:
            self.add(
                "P018",
                (*loc, "output_schema"),
                "'output_schema' is of an event's payload, and this waits for a time",
                "add 'event', or remove it",
            )
        if isinstance(step.get("output_schema"), dict):
            self.schema(step["output_schema"], (*loc, "output_schema"))

    def matched(self, match: Any, loc: Loc, *, of_event: bool) -> None:
        """The values that an event's payload must have."""
        if not of_event:
            message = "'match' is of an event's payload, and this waits for a time"
            self.add("P018", loc, message, "add 'event', or remove it")
        elif match == {}:
            self.add(
                "P019",
                loc,
                "'match' names no value, and so any event would do",
                "name one, or leave it out",
            )


def _refers(value: Any) -> bool:
    """Whether *value* holds what would be a reference in a template."""
    if type(value) is list or (type(value) is dict and EXPR not in value):
        return any(map(_refers, value.values() if type(value) is dict else value))
    try:
        return bool(value_references(value))
    except ExprError:  # a `$` of another language, of a regular expression for one
        return False


_CHECKS = {
    "llm": _Shape.llm,
    "call": _Shape.call,
    "condition": _Shape.condition,
    "loop": _Shape.loop,
    "set": _Shape.set,
    "wait": _Shape.wait,
    "assert": _Shape.never_skipped,
    "fail": _Shape.fail,
}


def _unknown_type_parts(
    loc: Loc, kind: Any, given: bool, hints: Hints
) -> tuple[str, Loc, str, str | None]:
    hint = hints.meant(kind, TYPES, otherwise=f"types are {', '.join(TYPES)}")
    if not given:
        return "P014", (*loc, "type"), "a step needs a 'type'", hint
    return "P014", (*loc, "type"), f"unknown step type {short(kind)}", hint


def unknown_type(loc: Loc, kind: Any) -> Diagnostic:
    return Diagnostic(*_unknown_type_parts(loc, kind, kind is not None, Hints()))


_MESSAGES = {
    "missing": ("P010", "field required"),
    "union_tag_not_found": ("P014", "a step needs a 'type'"),
    "union_tag_invalid": ("P014", "unknown step type"),
}


def translate(error: ValidationError) -> list[Diagnostic]:
    """pydantic's errors as Diagnostics, in the words and places of the document."""
    result: list[Diagnostic] = []
    for item in error.errors(include_url=False)[:MAX_FAULTS]:
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, ProgramError):
            result.extend(cause.diagnostics)
            continue
        loc = _document_loc(item["loc"])
        if (
            item["type"] == "string_type"
            and isinstance(item["input"], (list, dict))
            and item["loc"][-1] == "str"
        ):
            continue  # the other member of `str | list of steps` says what is wrong inside
        code, message = _MESSAGES.get(item["type"], ("P013", ""))
        if code == "P010" and item["type"] == "missing":
            message = f"field {loc[-1]!r} is required"
            loc = loc[:-1]
        elif not message:
            message = f"{item['msg'][0].lower()}{item['msg'][1:]}, not {short(item['input'])}"
        hint = None
        if (
            item["type"] == "string_type"
            and isinstance(item["input"], dict)
            and EXPR in item["input"]
        ):
            hint = "compute it in a 'set' step before, and write its name here"
        result.append(Diagnostic(code, loc, message, hint))
    return result


def _document_loc(loc: tuple[int | str, ...]) -> Loc:
    """pydantic's place without the tags and members of unions, which the document does not have."""
    result: list[str | int] = []
    tagged = False  # whether the part before was a tag: a field may have the name of a type
    for i, part in enumerate(loc):
        last = result[-1] if result else None
        tagged = part in TYPES and isinstance(last, int) and not tagged
        member = isinstance(part, str) and (
            "[" in part or (part == "Program" and last == "program")
        )
        if not (
            tagged
            or member
            or (part in _MEMBERS and i == len(loc) - 1 and last not in ("cases", "values", "args"))
        ):
            result.append(part)
    return tuple(result)


# of unions, as pydantic names them
_MEMBERS = frozenset({"str", "float", "constrained-float", "constrained-str"})


def merge(faults: list[Diagnostic], more: list[Diagnostic]) -> list[Diagnostic]:
    """*more* added to *faults*, but for places that have an error already. Several fields may lack
    at one place.
    """
    errors = {f.loc for f in faults if f.severity == "error"}
    typeless = {f.loc[:-1] for f in faults if f.code == "P014"}
    result = list(faults)
    for d in more:
        lacking = d.code == "P010"
        if d.code in ("P010", "P014") and (d.loc in typeless or d.loc[:-1] in typeless):
            continue
        if d.loc not in errors or lacking:
            if not lacking:
                errors.add(d.loc)
            result.append(d)
    return result
