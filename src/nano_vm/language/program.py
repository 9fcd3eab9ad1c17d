"""The language: what a user writes, as frozen models.

Plain data or text comes in; a `Program` goes out, or one `ProgramError` with every fault that a
single step shows. `shape` finds those in the plain data before a model is made of it; it reads the
fields of the models here, so these import it when they are called. What needs the whole graph or
the host (targets, names, tools) is found over the `Flow`, in `verify`. Nothing here runs anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from .. import pictures
from ..collector import collector_paused
from ..diagnostics import Diagnostic, Loc
from ..errors import ProgramError
from ..given import path as given_path
from ..values import canonical
from .fields import Part, free
from .kinds import StepType
from .policy import MAX_FAULTS, Budget, Count, Policy, Seconds
from .reader import MAX_PROGRAM_BYTES, placed, read_text

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


HOLD_STEPS = frozenset({Holds.TARGET, Holds.TARGETS, Holds.BLOCK, Holds.BRANCHES})
"""Those of fields that may hold steps; all others hold references."""


class OnError(str, Enum):
    """What a step does when its attempts and catches are used up.

    Examples:
        >>> from nano_vm import OnError, Program
        >>> program = Program.from_yaml("steps: [{id: a, type: tool, tool: look, on_error: skip}]")
        >>> program.steps[0].on_error is OnError.SKIP
        True
    """

    FAIL = "fail"
    SKIP = "skip"
    RETRY = "retry"


class Retry(Part):
    """Waits between attempts, in seconds: ``delay_seconds`` after the first, ``factor`` times as
    long after each that follows, with jitter.
    """

    delay_seconds: Annotated[float, Field(strict=True, ge=0, le=3600)] = 0.5
    factor: Annotated[float, Field(strict=True, ge=1, le=100)] = 2.0
    max_delay_seconds: Annotated[float, Field(strict=True, ge=0, le=24 * 3600)] = 30.0
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


class Shaped(dict[str, Any]):
    """A document that `shape.prepare` made."""


class Step(Part):
    """One step. ``Step(type=..., ...)`` builds the class of that type.

    Examples:
        >>> from nano_vm import Program
        >>> program = Program.from_yaml("{name: hello, steps: [{id: a, type: set, values: {x: 1}}]}")
        >>> step = program.steps[0]
        >>> step.id, step.type.value
        ('a', 'set')
    """

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
                cls = STEP_CLASSES[StepType(data.get("type"))]
            except ValueError:
                from .shape import unknown_type

                raise ProgramError([unknown_type((), data.get("type"))]) from None
        return super().__new__(cls)

    @model_validator(mode="before")
    @classmethod
    def _prepared(cls, data: Any) -> Any:
        """What is built by the constructor is checked as what is loaded; `Shaped` was,
        already.
        """
        if isinstance(data, Shaped) or not isinstance(data, dict):
            return data
        from .shape import prepare_step

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


TopP = Annotated[float, Field(strict=True, gt=0, le=1)]
Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
Stop = Union[Annotated[str, Field(min_length=1)], Texts]
Queue = Annotated[str, Field(min_length=1, max_length=200)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
MOST_CACHE_SECONDS = 366 * 24 * 3600
"""As of any number of seconds in a program."""


def _lifetime(given: Any) -> Any:
    if type(given) in (int, float) and 0 < given <= MOST_CACHE_SECONDS:
        return given
    if given is None or type(given) is bool:
        return given
    raise ValueError(f"it is true, or seconds above 0 and at most {MOST_CACHE_SECONDS:,}")


Cache = Annotated[
    Any,
    BeforeValidator(_lifetime),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "boolean"},
                {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_CACHE_SECONDS},
            ]
        }
    ),
]
"""Whether an answer from before is taken; a number is how old it may be, in seconds."""

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
    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] | None = None
    top_p: TopP | None = None
    stop: Stop | None = None
    seed: Annotated[int, Field(strict=True)] | None = None
    reasoning_effort: Effort | None = None
    options: dict[str, Any] | None = None
    on_truncated: Literal["fail", "accept"] = "fail"
    cache: Cache = None
    queue: Queue | None = None

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
    cache: Cache = None
    queue: Queue | None = None

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
    seconds: (
        Annotated[float, Field(strict=True, ge=0)] | str | dict[Literal["expr"], str] | None
    ) = None
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

STEP_CLASSES: dict[StepType, type[Step]] = {
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


ATTRIBUTES = {
    field.alias: name
    for model in STEP_CLASSES.values()
    for name, field in model.model_fields.items()
    if field.alias is not None
}
"""The attribute of each field that a document names otherwise."""


class Defaults(Part):
    """Values for steps that do not say otherwise."""

    model: str | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] | None = None
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
    hedge_after_seconds: Annotated[float, Field(strict=True, ge=0, le=600)] | None = None


class Program(Part):
    """A program: declared steps, and what surrounds them. Immutable.

    Examples:
        >>> from nano_vm import Program
        >>> program = Program.from_yaml("{name: hello, steps: [{id: a, type: set, values: {x: 1}}]}")
        >>> program.name, [step.id for step in program.steps]
        ('hello', ['a'])
    """

    dsl: Literal[1] = 1
    name: str = "unnamed"
    description: str = ""
    version: str = "1.0"
    inputs: dict[str, Any] | None = None
    output: Any = None
    timeout_seconds: Seconds | None = None
    budget: Budget | None = None
    policy: dict[str, Any] | None = None
    untrusted: Annotated[bool, Field(strict=True)] = False
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
        """What is built by the constructor is checked as what is loaded; `Shaped` was,
        already.
        """
        if isinstance(data, Shaped) or not isinstance(data, dict):
            return dict(data) if isinstance(data, Shaped) else data
        from .shape import prepare

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
    @collector_paused()
    def from_dict(cls, data: dict[str, Any]) -> Program:
        """A program from plain data.

        Raises:
            ProgramError: With every fault that a single step shows.
        """
        from .shape import merge, prepare, translate

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
    @collector_paused()
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
    def source(self) -> tuple[str, str | None] | None:
        """The text that it was read from, and its file; None where it was not read from text."""
        return self._text

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

    def _repr_html_(self) -> str | None:
        """What a notebook shows."""
        return pictures.html(self)

    def _repr_svg_(self) -> str | None:
        """Its picture."""
        return pictures.svg(self)

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
        from .program_schema import json_schema

        return json_schema()


def walk(step: Step, loc: Loc) -> Iterator[tuple[Step, Loc]]:
    """*step* and each step in its blocks, with their places."""
    yield step, loc
    if _holding_steps(type(step)):
        for block in blocks(step):
            for inner, at in block:
                yield from walk(inner, (*loc, *at))


Block = list[tuple[Step, Loc]]
"""Steps in order, each with its place in the step that they stand in."""


def blocks(step: Step) -> Iterator[Block]:
    """Each block of steps in *step*."""
    for field, holds in _holding_steps(type(step)):
        value = getattr(step, field)
        if holds is Holds.BRANCHES:
            for i, branch in enumerate(value):
                # a branch that is one step has no list of its own in the document
                one = not isinstance(branch, list)
                yield [(branch, (field, i))] if one else block_at(branch, (field, i))
        elif holds is Holds.TARGETS:
            for name, target in value.items():
                if isinstance(target, list):
                    yield block_at(target, (field, name))
        elif isinstance(value, list):
            yield block_at(value, (field,))


@cache
def _holding_steps(kind: type[Step]) -> tuple[tuple[str, Holds], ...]:
    """The fields of a type that may hold steps."""
    return tuple((field, holds) for field, holds in kind.HOLDS.items() if holds in HOLD_STEPS)


def block_at(steps: Sequence[Step], at: Loc) -> Block:
    """The steps of a list that stands at *at*."""
    return [(step, (*at, i)) for i, step in enumerate(steps)]


def written(step: Step, field: str) -> Any:
    """What stands in *field*, by its name in the document."""
    return getattr(step, ATTRIBUTES.get(field, field))


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
