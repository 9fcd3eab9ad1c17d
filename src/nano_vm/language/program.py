"""The language: what a user writes, as frozen models.

Plain data or text comes in; a `Program` goes out, or one `ProgramError` with every fault that a
single step shows: fields, types, expressions, templates, bounds, ids. What needs the whole graph or
the host (targets, names, tools) is found over the `Flow`, in `verify`. Nothing here runs anything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from ..diagnostics import Diagnostic, Loc
from ..errors import ExprError, ProgramError, VMError
from ..given import path as given_path
from ..spelling import Hints
from ..values import admit, canonical, short
from .expr import EXPR, EXPR_KEY, parse_expr, parse_template, value_references
from .fields import EXTENSION, NO_OPTIONS, PURPOSES, Part, free, remedy, unknown
from .kinds import TYPES, StepType
from .messages import ROLES, message_fault, misplaced
from .policy import MAX_FAULTS, POLICY_SCHEMA, Budget, Count, Policy, Seconds, read_policy
from .reader import MAX_PROGRAM_BYTES, placed, read_text
from .schemas import schema_fault

LANGUAGE_VERSION = 1

MAX_STEPS = 10_000
"""Steps in a program, nested ones included; what a person can review has a hundredth of it."""

MAX_ID_CHARS = 200

ATTEMPTS_LIMIT = 10
"""Attempts at one call; with doubling waits from 0.5 s the tenth starts after four minutes."""

# on_error: retry without max_retries; the default of botocore and Temporal's samples
DEFAULT_RETRY_ATTEMPTS = 3
# a constrained answer without max_retries: one more try, with the error shown
DEFAULT_ANSWER_ATTEMPTS = 2
DEFAULT_MAX_ITEMS = 1_000
END, FAIL, NEXT = "$end", "$fail", "$next"
ERROR_KINDS = (
    *(
        "timeout",
        "invalid_answer",
        "truncated",
        "filtered",
        "assertion",
        "tool",
        "model",
        "rate_limit",
        "limit",
    ),
    *("budget", "refused", "value", "*"),
)


class Holds(Enum):
    """What a field of a step holds that is more than a plain value."""

    TEMPLATE = "template"  # with references in it, or an expression
    MESSAGES = "messages"  # likewise, of a conversation: a text stands for a list of such
    TEMPLATES = "templates"  # by name: the mapping itself is no value, and a name may be `expr`
    VALUES = "values"  # likewise, each with a place of its own: the names that it is written to
    EXPRESSION = "expression"
    CALL = "call"  # of a tool, with its arguments
    TARGET = "target"  # a block of steps, or the id of a step to jump to
    TARGETS = "targets"  # by case
    BLOCK = "block"  # of steps
    BRANCHES = "branches"  # a step each, or a block


class OnError(str, Enum):
    """What a step does when its attempts and catches are used up."""

    FAIL = "fail"
    SKIP = "skip"
    RETRY = "retry"


class Retry(Part):
    """Waits between attempts, in seconds: ``delay_seconds`` after the first, ``factor`` times as
    long after each that follows, with jitter.
    """

    delay_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.5
    factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    max_delay_seconds: Annotated[float, Field(ge=0, le=24 * 3600)] = 30.0
    on: list[str] | None = None


class Catch(Part):
    """Jumps to ``next`` on one of ``errors``: kinds, names of exception classes or of their base
    classes, or ``*``.
    """

    errors: list[str] = Field(default=["*"])
    next: str


class ToolRef(Part):
    """A tool call beside a step: its ``undo`` or ``reconcile``."""

    tool: str
    args: dict[str, Any] = Field(default_factory=dict)


class Step(Part):
    """One step. ``Step(type=..., ...)`` builds the class of that type."""

    id: str
    type: StepType
    when: str | None = None
    output_key: str | None = None
    next: str | None = None
    on_error: OnError = OnError.FAIL
    max_retries: Annotated[int, Field(strict=True, ge=1, le=ATTEMPTS_LIMIT)] | None = None
    default: Any = None
    retry: Retry | None = None
    catch: list[Catch] = Field(default_factory=list)
    timeout_seconds: Seconds | None = None
    description: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)

    HOLDS: ClassVar[Mapping[str, Holds]] = {}
    """By name in the document, in the order in which the fields are read."""
    CALLS: ClassVar[bool] = False
    """Whether it makes a call, which may be made again."""
    OUTSIDE: ClassVar[bool] = False
    """Whether what it gives comes from outside: from a tool, a model, a person, an event."""
    TIMED: ClassVar[bool] = True
    """Whether it may take time of its own, for a ``timeout_seconds`` to bound."""

    if TYPE_CHECKING:  # which fields there are depends on the type; 0.1 took them all

        def __init__(self, **data: Any) -> None: ...

    def __new__(cls, *args: Any, **data: Any) -> Step:
        if cls is Step:
            try:
                cls = _STEP_CLASSES[StepType(data.get("type"))]
            except ValueError:
                raise ProgramError([_unknown_type((), data.get("type"))]) from None
        return super().__new__(cls)

    @model_validator(mode="before")
    @classmethod
    def _prepared(cls, data: Any) -> Any:
        """What is built by the constructor is checked as what is loaded; `_Prepared` was checked
        already.
        """
        if isinstance(data, _Prepared) or not isinstance(data, dict):
            return data
        names: dict[str, str] = {
            name: field.alias or name for name, field in cls.model_fields.items()
        }
        written: dict[str, Any] = {"type": cls.model_fields["type"].default}
        for key, value in data.items():
            written[names.get(str(key), str(key))] = value
        document, faults = prepare_step(written)
        errors = [d for d in faults if d.severity == "error"]
        if errors:
            raise ProgramError(errors)
        return document

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> Any:
        """As pydantic's; on `Step` itself, an object of the class of its type."""
        if cls is Step and isinstance(obj, dict):
            return Step(**obj)
        return super().model_validate(obj, **kwargs)

    @property
    def attempts(self) -> int:
        """How many attempts the step has in all."""
        if self.max_retries is not None:
            return self.max_retries
        return DEFAULT_RETRY_ATTEMPTS if self.on_error is OnError.RETRY else 1

    @property
    def most_calls(self) -> int:
        """How many calls one execution makes at the most."""
        return self.attempts if self.CALLS else 0

    @property
    def has_default(self) -> bool:
        """Whether a literal is written when the step is skipped."""
        return "default" in self.model_fields_set


TopP = Annotated[float, Field(gt=0, le=1)]
Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
Stop = Union[Annotated[str, Field(min_length=1)], Texts]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]

MODEL_OPTIONS = (
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "reasoning_effort",
    "options",
)
"""The fields of a model step, or of ``defaults``, that its adapter is given as they stand."""


Messages = Union[str, "list[Union[str, dict[str, Any]]]"]
"""Messages as they are written; a string is one reference, to messages that are put in its place."""


class LLMStep(Step):
    """One model call."""

    type: Literal[StepType.LLM] = StepType.LLM
    prompt: str | None = None
    messages: Messages | None = None
    system: str | None = None
    model: str | None = None
    allowed_outputs: Annotated[list[str], Field(min_length=1)] | None = None
    output_schema: dict[str, Any] | None = None
    on_invalid: Any = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: TopP | None = None
    stop: Stop | None = None
    seed: Annotated[int, Field(strict=True)] | None = None
    reasoning_effort: Effort | None = None
    options: dict[str, Any] | None = None
    on_truncated: Literal["fail", "accept"] = "fail"

    HOLDS: ClassVar[Mapping[str, Holds]] = {
        "prompt": Holds.TEMPLATE,
        "system": Holds.TEMPLATE,
        "messages": Holds.MESSAGES,
    }
    CALLS: ClassVar[bool] = True
    OUTSIDE: ClassVar[bool] = True

    @property
    def constrained(self) -> bool:
        """Whether an answer can be invalid."""
        return self.allowed_outputs is not None or self.output_schema is not None

    @property
    def most_calls(self) -> int:
        """As of any step; a constrained answer that is invalid is asked for once more."""
        again = self.constrained and self.max_retries is None
        return max(self.attempts, DEFAULT_ANSWER_ATTEMPTS if again else 1)


class ToolStep(Step):
    """One tool call."""

    type: Literal[StepType.TOOL] = StepType.TOOL
    tool: str
    args: dict[str, Any] = Field(default_factory=dict)
    undo: ToolRef | None = None
    reconcile: ToolRef | None = None

    HOLDS: ClassVar[Mapping[str, Holds]] = {
        "args": Holds.TEMPLATES,
        "undo": Holds.CALL,
        "reconcile": Holds.CALL,
    }
    CALLS: ClassVar[bool] = True
    OUTSIDE: ClassVar[bool] = True


Target = Union[str, "list[AnyStep]"]


class ConditionStep(Step):
    """A branch that the VM decides."""

    type: Literal[StepType.CONDITION] = StepType.CONDITION
    condition: str
    then: Target | None = None
    otherwise: Target | None = None

    HOLDS: ClassVar[Mapping[str, Holds]] = {
        "condition": Holds.EXPRESSION,
        "then": Holds.TARGET,
        "otherwise": Holds.TARGET,
    }
    TIMED: ClassVar[bool] = False


class SwitchStep(Step):
    """A branch by value."""

    type: Literal[StepType.SWITCH] = StepType.SWITCH
    on: Any
    cases: Annotated[dict[str, Target], Field(min_length=1)]
    default: Target | None = None

    HOLDS: ClassVar[Mapping[str, Holds]] = {
        "on": Holds.TEMPLATE,
        "cases": Holds.TARGETS,
        "default": Holds.TARGET,
    }
    TIMED: ClassVar[bool] = False

    @property
    def has_default(self) -> bool:
        """A switch's ``default`` is a branch, not a literal."""
        return False


class ParallelStep(Step):
    """Branches at the same time; yields an object by branch id. A list of steps is named by its
    first step.
    """

    type: Literal[StepType.PARALLEL] = StepType.PARALLEL
    parallel_steps: Annotated[list[Union[AnyStep, list[AnyStep]]], Field(min_length=1)]
    max_concurrency: Count | None = None
    on_item_error: Literal["fail", "continue"] = "fail"

    HOLDS: ClassVar[Mapping[str, Holds]] = {"parallel_steps": Holds.BRANCHES}

    def branches(self) -> Iterator[tuple[str, list[Step], Loc]]:
        """Name, steps and place of each branch."""
        for i, branch in enumerate(self.parallel_steps):
            if isinstance(branch, list):
                yield branch[0].id, list(branch), ("parallel_steps", i)
            else:
                yield branch.id, [branch], ("parallel_steps", i)


class MapStep(Step):
    """The same steps for each item; yields a list in item order."""

    type: Literal[StepType.MAP] = StepType.MAP
    over: Any
    item_name: str = Field(default="item", alias="as")
    steps: Annotated[list[AnyStep], Field(min_length=1)]
    max_items: Count = DEFAULT_MAX_ITEMS
    max_concurrency: Count | None = None
    on_item_error: Literal["fail", "continue"] = "fail"

    HOLDS: ClassVar[Mapping[str, Holds]] = {"over": Holds.TEMPLATE, "steps": Holds.BLOCK}


class LoopStep(Step):
    """The same steps until a condition holds; the bound is mandatory."""

    type: Literal[StepType.LOOP] = StepType.LOOP
    steps: Annotated[list[AnyStep], Field(min_length=1)]
    until: str | None = None
    max_iterations: Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
    on_exhausted: Literal["fail", "continue"] = "fail"

    HOLDS: ClassVar[Mapping[str, Holds]] = {"until": Holds.EXPRESSION, "steps": Holds.BLOCK}


class CallStep(Step):
    """Another program, inline or by name."""

    type: Literal[StepType.CALL] = StepType.CALL
    program: Union[str, Program]
    arguments: dict[str, Any] = Field(default_factory=dict, alias="with")

    HOLDS: ClassVar[Mapping[str, Holds]] = {"with": Holds.TEMPLATES}


class SetStep(Step):
    """Writes names without any call. Every value reads what was there before the step."""

    type: Literal[StepType.SET] = StepType.SET
    values: Annotated[dict[str, Any], Field(min_length=1)]

    HOLDS: ClassVar[Mapping[str, Holds]] = {"values": Holds.VALUES}
    TIMED: ClassVar[bool] = False


class ApprovalStep(Step):
    """A pause for a person."""

    type: Literal[StepType.APPROVAL] = StepType.APPROVAL
    role: str
    show: Any = None
    then: Target | None = None
    otherwise: Target | None = None

    HOLDS: ClassVar[Mapping[str, Holds]] = {
        "show": Holds.TEMPLATE,
        "then": Holds.TARGET,
        "otherwise": Holds.TARGET,
    }
    OUTSIDE: ClassVar[bool] = True


class WaitStep(Step):
    """A timer or an event from outside."""

    type: Literal[StepType.WAIT] = StepType.WAIT
    seconds: Annotated[float, Field(ge=0)] | str | dict[Literal["expr"], str] | None = None
    until: str | None = None
    event: str | None = None
    match: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None

    HOLDS: ClassVar[Mapping[str, Holds]] = {
        "match": Holds.TEMPLATES,
        "seconds": Holds.TEMPLATE,
        "until": Holds.TEMPLATE,
        "event": Holds.TEMPLATE,
    }
    OUTSIDE: ClassVar[bool] = True


class AssertStep(Step):
    """A condition without which the run does not go on."""

    type: Literal[StepType.ASSERT] = StepType.ASSERT
    condition: str
    message: str | None = None

    HOLDS: ClassVar[Mapping[str, Holds]] = {
        "condition": Holds.EXPRESSION,
        "message": Holds.TEMPLATE,
    }
    TIMED: ClassVar[bool] = False


class FailStep(Step):
    """The end of its frame, with an error that the program names."""

    type: Literal[StepType.FAIL] = StepType.FAIL
    error: str
    message: str

    HOLDS: ClassVar[Mapping[str, Holds]] = {"error": Holds.TEMPLATE, "message": Holds.TEMPLATE}
    TIMED: ClassVar[bool] = False


AnyStep = Annotated[
    Union[
        LLMStep,
        ToolStep,
        ConditionStep,
        SwitchStep,
        ParallelStep,
        MapStep,
        LoopStep,
        CallStep,
        SetStep,
        ApprovalStep,
        WaitStep,
        AssertStep,
        FailStep,
    ],
    Field(discriminator="type"),
]

_STEP_CLASSES: dict[StepType, type[Step]] = {
    StepType.LLM: LLMStep,
    StepType.TOOL: ToolStep,
    StepType.CONDITION: ConditionStep,
    StepType.SWITCH: SwitchStep,
    StepType.PARALLEL: ParallelStep,
    StepType.MAP: MapStep,
    StepType.LOOP: LoopStep,
    StepType.CALL: CallStep,
    StepType.SET: SetStep,
    StepType.APPROVAL: ApprovalStep,
    StepType.WAIT: WaitStep,
    StepType.ASSERT: AssertStep,
    StepType.FAIL: FailStep,
}


class Defaults(Part):
    """Values for steps that do not say otherwise."""

    model: str | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: TopP | None = None
    stop: Stop | None = None
    seed: Annotated[int, Field(strict=True)] | None = None
    reasoning_effort: Effort | None = None
    options: dict[str, Any] | None = None
    timeout_seconds: Seconds | None = None


Strategy = Literal[
    "ordered",
    "weighted",
    "round_robin",
    "least_busy",
    "fastest",
    "cheapest",
    "hash",
    "cascade",
    "hedge",
]
"""How a pool chooses; what each means is `nano_vm.adapters.pool`'s."""


class ModelPool(Part):
    """Several of the host's models behind one name."""

    pool: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=64)]
    strategy: Strategy = "ordered"
    require: list[str] = Field(default_factory=list)
    attempts: Annotated[int, Field(ge=1, strict=True)] | None = None
    hedge_after_seconds: Annotated[float, Field(ge=0, le=600)] | None = None


class Program(Part):
    """A program: declared steps, and what surrounds them. Immutable."""

    dsl: Literal[1] = 1
    name: str = "unnamed"
    description: str = ""
    version: str = "1.0"
    inputs: dict[str, Any] | None = None
    output: Any = None
    timeout_seconds: Seconds | None = None
    budget: Budget | None = None
    policy: dict[str, Any] | None = None
    untrusted: bool = False
    models: dict[str, str | ModelPool] = Field(default_factory=dict)
    defaults: Defaults = Defaults.model_construct()
    metadata: dict[str, Any] = Field(default_factory=dict)
    steps: Annotated[list[AnyStep], Field(min_length=1)]

    if TYPE_CHECKING:

        def __init__(self, **data: Any) -> None: ...

    _warnings: tuple[Diagnostic, ...] = PrivateAttr(default=())
    _digest: str | None = PrivateAttr(default=None)
    _policy: Policy | None = PrivateAttr(default=None)
    _text: tuple[str, str | None] | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _prepared(cls, data: Any) -> Any:
        """What is built by the constructor is checked as what is loaded; `_Prepared` was checked
        already.
        """
        if isinstance(data, _Prepared) or not isinstance(data, dict):
            return dict(data) if isinstance(data, _Prepared) else data
        document, faults = prepare(data)
        errors = [d for d in faults if d.severity == "error"]
        if errors:
            raise ProgramError(errors)
        return dict(document)

    def model_named(self, declared: str | None) -> str | None:
        """What a step's model stands for, by `models`; a pool stands for itself."""
        known = self.models.get(declared, declared) if declared is not None else None
        return declared if isinstance(known, ModelPool) else known

    def __repr__(self) -> str:
        count = len(self.steps)
        return (
            f"Program(name={self.name!r}, version={self.version!r}, {count} "
            f"step{'' if count == 1 else 's'})"
        )

    __str__ = __repr__

    # --- loading ---

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Program:
        """A program from plain data.

        Raises:
            ProgramError: With every fault that a single step shows.
        """
        document, faults = prepare(data)
        program = None
        try:
            if len(faults) < MAX_FAULTS:
                program = cls.model_validate(document)
        except ValidationError as error:
            faults = merge(faults, translate(error))[:MAX_FAULTS]
        if len(faults) >= MAX_FAULTS:
            message = f"{MAX_FAULTS} faults are listed, and there may be more"
            faults.append(Diagnostic("P009", (), message, "mend these first"))
        if program is None or any(d.severity == "error" for d in faults):
            raise ProgramError(faults)
        program._warnings = tuple(faults)
        return program

    @classmethod
    def from_yaml(cls, text: str, *, file: str | None = None) -> Program:
        """A program from YAML 1.2 text; faults name line and column."""
        return cls._from_text(text, file, "yaml")

    @classmethod
    def from_json(cls, text: str, *, file: str | None = None) -> Program:
        """A program from JSON text; faults name line and column."""
        return cls._from_text(text, file, "json")

    @classmethod
    def from_file(cls, path: str | Path) -> Program:
        """A program from a ``.json`` file, or a YAML file of any other name.

        Raises:
            ProgramError: If the file cannot be read, is not UTF-8, or holds a faulty program.
        """
        path = given_path(path, "a program's file")
        try:
            with path.open("rb") as file:
                data = file.read(MAX_PROGRAM_BYTES + 4)  # and no more: /dev/zero has no end
            if len(data) > MAX_PROGRAM_BYTES + 3:
                message = f"program text has more than {MAX_PROGRAM_BYTES} bytes"
                raise ProgramError([Diagnostic("P005", (), message, file=str(path))])
            text = data.decode("utf-8-sig")
        except OSError as error:
            raise ProgramError(
                [Diagnostic("P008", (), f"cannot read it: {error.strerror}", file=str(path))]
            ) from None
        except UnicodeDecodeError as error:
            message = f"not UTF-8: byte {error.start}"
            raise ProgramError(
                [Diagnostic("P008", (), message, "save it as UTF-8", file=str(path))]
            ) from None
        return cls._from_text(text, str(path), "json" if path.suffix == ".json" else "yaml")

    @classmethod
    def _from_text(cls, text: str, file: str | None, format: str) -> Program:
        data = read_text(text, file=file, format=format)
        try:
            program = cls.from_dict(data)
        except ProgramError as error:
            raise ProgramError(placed(list(error.diagnostics), text, file)) from None
        program._text = (text, file)
        return program

    # --- views ---

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What was noticed at load and is no error."""
        return self._warnings

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the canonical form of what was written."""
        if self._digest is None:
            body = {"language": LANGUAGE_VERSION, "program": _digested(self.to_dict())}
            self._digest = hashlib.sha256(canonical(body)).hexdigest()
        return self._digest

    @property
    def own_policy(self) -> Policy | None:
        """What the program demands of itself, beside what the host does."""
        if self._policy is None and self.policy is not None:
            self._policy = Policy.from_dict(self.policy)
        return self._policy

    def get_step(self, step_id: str) -> Step | None:
        """The step with this id, in whatever block it stands."""
        return next((step for step, _ in self.walk() if step.id == step_id), None)

    def walk(self) -> Iterator[tuple[Step, Loc]]:
        """Each step of this program with its place, in document order; called programs are left
        out.
        """
        for i, step in enumerate(self.steps):
            yield from walk(step, ("steps", i))

    def to_dict(self) -> dict[str, Any]:
        """The canonical form of what was written: fields in the language's order, absent ones
        absent.
        """
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True, warnings=False)

    def place(self, diagnostics: list[Diagnostic]) -> list[Diagnostic]:
        """*diagnostics* with line and column, where the program was read from text."""
        if self._text is None or not diagnostics:
            return diagnostics
        return placed(diagnostics, *self._text)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Program:
        """As pydantic's; what was derived from the fields is not taken along."""
        copy = super().model_copy(update=update, deep=deep)
        copy._digest = copy._text = None
        return copy

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(self.digest)

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """A JSON Schema of the language, by which editors complete and check programs; typos are
        faults there.
        """
        schema = Program.model_json_schema(by_alias=True)
        for part in [schema, *schema["$defs"].values()]:
            if part.get("type") != "object":
                continue
            part["additionalProperties"] = False
            part["patternProperties"] = {f"^{EXTENSION}": True}
            properties = part["properties"]
            for name, text in _SCHEMA_TEXTS.items():
                if name in properties:
                    properties[name] = {**properties[name], "description": text}
            for name, kind in properties.items():
                if name not in part.get("required", ()) and {"type": "null"} not in kind.get(
                    "anyOf", ()
                ):
                    properties[name] = {"anyOf": [kind, {"type": "null"}]}  # written, and absent
            if "next" in properties and "id" in properties:
                for name in _ALL_STEP_FIELDS:
                    # of another type: may stand there empty
                    properties.setdefault(name, {"enum": [None, {}, []]})
                properties["next_step"] = properties["next"]
                properties["is_terminal"] = {"type": "boolean"}
            for beside in ("undo", "reconcile"):
                if "anyOf" in properties.get(beside, {}):
                    properties[beside]["anyOf"].append({"type": "string"})
            for version in ("dsl", "version"):
                if version in properties:
                    properties[version] = {"type": ["string", "number"]}
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["title"] = "llm-nano-vm program"
        # there and not at the top, since it contains itself by `call`
        program = schema["$defs"]["Program"]
        program["properties"]["timeout_seconds"]["description"] = _WHOLE_RUN
        program["properties"]["policy"] = {"anyOf": [POLICY_SCHEMA, {"type": "null"}]}
        program["properties"] |= {
            key: {"$ref": f"#/$defs/Budget/properties/{key}"} for key in _BUDGET_AT_TOP
        }
        return schema


def walk(step: Step, loc: Loc) -> Iterator[tuple[Step, Loc]]:
    """*step* and each step in its blocks, with their places."""
    yield step, loc
    for block in blocks(step):
        for inner, at in block:
            yield from walk(inner, (*loc, *at))


Block = list[tuple[Step, Loc]]
"""Steps in order, each with its place in the step that they stand in."""


def blocks(step: Step) -> Iterator[Block]:
    """Each block of steps in *step*."""
    for field, holds in step.HOLDS.items():
        value = written(step, field)
        if holds is Holds.BRANCHES:
            for i, branch in enumerate(value):
                # a branch that is one step has no list of its own in the document
                one = not isinstance(branch, list)
                yield [(branch, (field, i))] if one else block_at(branch, (field, i))
        elif holds is Holds.TARGETS:
            for name, target in value.items():
                if isinstance(target, list):
                    yield block_at(target, (field, name))
        elif holds in (Holds.TARGET, Holds.BLOCK) and isinstance(value, list):
            yield block_at(value, (field,))


def block_at(steps: Sequence[Step], at: Loc) -> Block:
    """The steps of a list that stands at *at*."""
    return [(step, (*at, i)) for i, step in enumerate(steps)]


def written(step: Step, field: str) -> Any:
    """What stands in *field*, by its name in the document."""
    return getattr(step, _ATTRIBUTES.get(field, field))


_WHOLE_RUN = "Of the whole run, waits and approvals included, which budget.max_seconds leaves out."
_SCHEMA_TEXTS = {
    "id": "The step's name: $id.output is its output, jumps lead to it.",
    "when": "A condition: where it is false the step is skipped, as by `on_error: skip`, with its "
    "`default`.",
    "output_key": "A name for the output: $output_key.",
    "next": "What follows, in list order from there: a step's id, $end or $fail.",
    "on_error": "After retries and catches: fail, skip, or retry (3 attempts unless max_retries "
    "says otherwise).",
    "max_retries": "Attempts in all, the first included.",
    "retry": "Waits between attempts and which errors they are for.",
    "catch": "Jumps to `next` on one of `errors`: kinds, names of exception classes or base "
    "classes, or *.",
    "timeout_seconds": "Of one attempt; on parallel, map, call and loop of the whole.",
    "prompt": "One user message; a template.",
    "messages": "The whole conversation: role and content each; templates. $name stands for a "
    "list of messages.",
    "allowed_outputs": "The only answers that are valid; the stored value is one of these strings.",
    "output_schema": "A JSON Schema by which the answer, parsed as JSON, or the event's payload "
    "must be valid.",
    "top_p": "Sample from the likeliest tokens whose probabilities sum up to this.",
    "stop": "Strings at which the answer ends; they are no part of it.",
    "reasoning_effort": "How long a reasoning model may think.",
    "options": "Further fields of the request, as the provider names them.",
    "on_truncated": "What becomes of an answer that was cut off at max_tokens: fail, or accept "
    "what there is.",
    "on_invalid": "Taken where no attempt gave a valid answer; without it the step fails.",
    "args": "Arguments by name; templates, or {expr: text}. One that is exactly one reference "
    "keeps its type.",
    "undo": "Called if the run fails or is cancelled later; its arguments are fixed when the step "
    "ends.",
    "reconcile": "Asked where the outcome is unknown; returns {done: true, output: ...} or {done: "
    "false}.",
    "condition": "True or false; $name is a value, '$name' is text.",
    "message": "What is wrong where it fails; a template.",
    "error": "The name of the error, which a caller's `catch` matches: PaymentRefused; a template.",
    "then": "A step's id (a jump: without `next` there the run ends after it) or a list of steps "
    "(a block).",
    "otherwise": "As `then`. Without it, beside a block nothing happens, beside a jump the step "
    "fails.",
    "on": "What is compared with the cases, as text.",
    "cases": "A target for each value.",
    "parallel_steps": "Branches: a step, or a list of steps that is named by its first.",
    "max_concurrency": "How many branches or items run at a time.",
    "on_item_error": "After a failed branch or item: fail, or continue with null for it, and the "
    "error in $id.errors.",
    "over": "A list: mostly one reference, or {expr: text}.",
    "as": "The item's name inside: $item unless given.",
    "max_items": "More items than this fail the step; they are never cut.",
    "until": "A loop ends when this holds after an iteration; a wait ends at this time.",
    "max_iterations": "The loop's bound.",
    "on_exhausted": "What a loop does whose `until` never held: fail, or continue.",
    "match": "Values that the event's payload must have, by its fields: {order: $order_id}; "
    "templates.",
    "program": "Another program: inline, or its name in ExecutionVM(programs=...), or a file in "
    "the command line.",
    "with": "The called program's inputs; templates, or {expr: text}.",
    "values": "Names to write: templates, or {expr: text}. All read what was there before the "
    "step.",
    "inputs": "A JSON Schema of the program's inputs.",
    "output": "The program's output; templates, or {expr: text}. Without it, that of the last "
    "step that succeeded.",
    "budget": "Hard limits; the tightest of program, VM and run counts.",
    "policy": "What the program demands of itself, in the words of a host's policy; it can only "
    "tighten that.",
    "untrusted": "Whether the program comes from an untrusted source: its literals are untrusted "
    "until its digest is approved.",
    "models": "Names that steps use, and what they stand for.",
    "defaults": "For steps that do not say otherwise.",
}  # what an editor shows beside a field

# --- shape: faults that plain data shows, found before any model is built -------------------------


class _Prepared(dict[str, Any]):
    """A document that `prepare` made."""


_ALIASES = {"next_step": "next"}
_LATER = {
    "cache": "caching of steps is not built yet",
    "tools": "a program's own list of tools is not built yet",
}
_BUDGET_AT_TOP = ("max_steps", "max_tokens")
_ID = re.compile(r"[^/\[\]#$\x00-\x1f\x7f\u0085\u2028\u2029]+\Z")
_NAME = re.compile(r"[^\W\d]\w*\Z")
ERROR_NAMES = "begin it with a capital, as PaymentRefused, and use letters, digits and '_'"


def error_name(text: str) -> bool:
    """Whether a program may give an error this name: a `catch` tells it from a kind."""
    return len(text) <= MAX_ID_CHARS and text[:1].isupper() and _NAME.match(text) is not None


_LITERALS = ("default", "on_invalid")
_NULLABLE = ("default", "on_invalid", "show", "over", "on")
_AS_HERE = (("on_timeout", "fail"), ("max_stalled_steps", None))
"""Fields of 0.8 with the value by which they ask for what is done here in any case."""


def _fields(model: type[BaseModel]) -> dict[str, None]:
    return {field.alias or name: None for name, field in model.model_fields.items()}


_STEP_FIELDS = {kind.value: _fields(model) for kind, model in _STEP_CLASSES.items()}
_ALL_STEP_FIELDS = {name: None for fields in _STEP_FIELDS.values() for name in fields}
_PROGRAM_FIELDS = _fields(Program)
_ATTRIBUTES = {
    field.alias: name
    for model in _STEP_CLASSES.values()
    for name, field in model.model_fields.items()
    if field.alias is not None
}
# where the type is not known, a field counts as what it is in the first type that has it
_ALL_HOLDS = {
    field: holds
    for model in reversed(_STEP_CLASSES.values())
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


def prepare(data: Any) -> tuple[_Prepared, list[Diagnostic]]:
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
    return _Prepared(document), shape.faults


def prepare_step(data: dict[str, Any]) -> tuple[Any, list[Diagnostic]]:
    """As `prepare`, for one step."""
    shape = _Shape()
    return shape.step(_plain(data), (), {}), shape.faults


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    try:
        plain, _ = admit(_unmodelled(data))
    except VMError as error:
        raise ProgramError([Diagnostic("P004", (), str(error))]) from None
    return plain  # type: ignore[no-any-return]


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
            if key in _BUDGET_AT_TOP:
                if value is not None:
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
        self.nested(result.get("budget"), (*loc, "budget"), Budget)
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
            fields = _ALL_STEP_FIELDS
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
            elif key in _ALL_STEP_FIELDS:
                self.misplaced(key, value, kind, loc)
            elif self.known(key, fields, value, (*loc, key), "step"):
                found[key] = value
        result = _Prepared(_ordered(found, fields))
        self.identity(result, loc, ids)
        if fields is not _ALL_STEP_FIELDS and kind in _CHECKS:
            _CHECKS[kind](self, result, loc)
        model = _STEP_CLASSES[StepType(kind)] if fields is not _ALL_STEP_FIELDS else None
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
            texts = [a for a in allowed if isinstance(a, str)]
            folded = [a.strip().casefold() for a in texts]
            if len(set(folded)) < len(folded):
                self.add(
                    "P036",
                    (*loc, "allowed_outputs"),
                    "two allowed outputs differ only in case or spaces",
                    "remove one, or choose labels that differ in more",
                )
            if any(not f for f in folded):
                self.add(
                    "P013", (*loc, "allowed_outputs"), "an empty text cannot be an allowed output"
                )
            for i, a in enumerate(allowed):
                if isinstance(a, (bool, int, float)):
                    self.add(
                        "P013",
                        (*loc, "allowed_outputs", i),
                        f"{short(a)} is not a string",
                        "quote it",
                    )
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
        url = image.get("url") if isinstance(image, dict) else None
        if isinstance(url, str) and _refers(url):
            part = {**part, "image_url": {**image, "url": "http://later"}}  # type: ignore[dict-item]
        file = part.get("file") if isinstance(part, dict) else None
        data = file.get("file_data") if isinstance(file, dict) else None
        if isinstance(data, str) and _refers(data):
            later = {**file, "file_data": "data:text/plain;base64,YQ=="}  # type: ignore[dict-item]
            part = {**part, "file": later}
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
    try:
        return any(True for _ in value_references(value))
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


def _unknown_type(loc: Loc, kind: Any) -> Diagnostic:
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


def _digested(document: dict[str, Any]) -> dict[str, Any]:
    """*document* without what does not change its meaning."""
    result = {
        key: value
        for key, value in document.items()
        if key not in ("description", "metadata") and not free(key)
    }
    for key in ("steps", "parallel_steps", "then", "otherwise", "default"):
        if isinstance(result.get(key), list) and (
            key != "default" or result.get("type") == "switch"
        ):
            result[key] = [_digested_block(item) for item in result[key]]
    if isinstance(result.get("cases"), dict):
        result["cases"] = {name: _digested_block(item) for name, item in result["cases"].items()}
    if isinstance(result.get("program"), dict):
        result["program"] = _digested(result["program"])
    return result


def _digested_block(item: Any) -> Any:
    if isinstance(item, list):
        return [_digested_block(inner) for inner in item]
    return _digested(item) if isinstance(item, dict) and "id" in item else item
