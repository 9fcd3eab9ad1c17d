"""The text of a test file comes in, a `Document` goes out, or every fault with its place.

A test file stands beside a program (``refund.test.yaml`` beside ``refund.yaml``) and holds tests:
inputs, what models, tools and people answer by step, and what is expected of the run. What a name
in it means is held against the program, so that a misspelled step cannot make a test pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..diagnostics import Diagnostic, Loc
from ..errors import ProgramError, VMError
from ..language.policy import Budget
from ..language.program import ApprovalStep, LLMStep, Program, Step, ToolStep, WaitStep
from ..language.program_schema import without_examples
from ..language.programs import programs_in
from ..language.reader import placed, read_text
from ..prices import checked_price
from ..spelling import Hints
from ..values import kind_name, short

ENDINGS = (".test.yaml", ".test.yml", ".test.json")
"""How the names of test files end."""

PROGRAM_ENDINGS = (".yaml", ".yml", ".json")

Name = Annotated[str, Field(strict=True, min_length=1)]
Count = Annotated[int, Field(strict=True, ge=0)]


class Part(BaseModel):
    """A part of a test file: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def says(self, name: str) -> bool:
        """Whether the field is written."""
        return name in self.model_fields_set


class ExpectedStep(Part):
    """What is expected of one step; what is not written is not looked at."""

    status: Literal["success", "failed", "skipped", "cancelled", "suspended"] | None = None
    output: Any = None  # which may be expected; see `says`
    branch: Name | None = None
    error: Name | None = None
    error_kind: Name | None = None
    attempts: Count | None = None


class Expected(Part):
    """What is expected of a run. ``path`` are the paths of all its steps in order, ``calls`` by
    tool how often it is called or with which arguments, ``budget`` the most that it may use.
    """

    status: Literal["success", "failed", "cancelled", "suspended", "refused"] | None = None
    output: Any = None  # which may be expected; see `says`
    error: Name | None = None
    error_kind: Name | None = None
    path: list[Name] | None = None
    reached: list[Name] = []
    never: list[Name] = []
    steps: dict[Name, ExpectedStep] = {}
    calls: dict[Name, Count | list[dict[str, Any]]] = {}
    budget: Budget | None = None
    waiting: list[Name] | None = None
    diagnostics: list[Name] | None = None


class Case(Part):
    """One run that is tried."""

    name: Name
    inputs: dict[Name, Any] = {}
    untrusted: list[Name] = []
    models: dict[Name, Any] = {}
    tools: dict[Name, Any] = {}
    approvals: dict[Name, Any] = {}
    events: dict[Name, Any] = {}
    real_tools: bool | list[Name] | None = None
    starts_at: Name | None = None
    expect: Expected = Expected()
    golden: Name | None = None


class PropertyCase(Part):
    """What must hold of every run: the program is explored, nothing is called."""

    name: Name
    at_most: dict[Name, Count] = {}
    never: list[Name] = []
    only_after: dict[Name, Name] = {}
    inputs: dict[Name, Any] | None = None
    errors: bool = True
    max_runs: Annotated[int, Field(strict=True, ge=1)] = 10_000


class Document(Part):
    """A test file, as it is written."""

    program: Name | None = None
    programs: dict[Name, Name] = {}
    tools: Name | None = None
    policy: Name | None = None
    prices: dict[Name, Any] = {}
    inputs: dict[Name, Any] = {}
    real_tools: bool | list[Name] = []
    tests: list[Case] = []
    properties: list[PropertyCase] = []


NESTED: dict[type[Part], dict[str, type[Part]]] = {
    Document: {"tests": Case, "properties": PropertyCase},
    Case: {"expect": Expected},
    Expected: {"steps": ExpectedStep},
}
"""Which fields hold parts of their own, for the names that are known at a place."""


def read_document(text: str, file: str | None = None) -> Document:
    """The test file in *text*.

    Raises:
        ProgramError: With every fault of it, at its place.
    """
    data = read_text(text, file=file, format="json" if (file or "").endswith(".json") else "yaml")
    if not isinstance(data, dict):
        message = f"a test file is an object with 'tests', not {kind_name(data)}"
        raise ProgramError([Diagnostic("P050", (), message, file=file)])
    data = {key: value for key, value in data.items() if not str(key).startswith(("x-", "$schema"))}
    try:
        document = Document.model_validate(data)
    except ValidationError as error:
        raise ProgramError(placed(list(_faults(error)), text, file)) from None
    found = list(_own_faults(document))
    if found:
        raise ProgramError(placed(found, text, file))
    return document


def _faults(error: ValidationError) -> Iterator[Diagnostic]:
    """pydantic's errors, in the words of other documents; of a union that of its first member."""
    seen: set[Loc] = set()
    hints = Hints()
    for one in error.errors(include_url=False):
        loc = _place(one["loc"])
        if loc in seen:
            continue
        seen.add(loc)
        if one["type"] == "extra_forbidden":
            known = fields_at(loc[:-1])
            meant = hints.meant(loc[-1], known, otherwise=f"known are {', '.join(known)}")
            yield Diagnostic("P051", loc, f"unknown field {loc[-1]!r}", meant)
        elif one["type"] == "missing":
            yield Diagnostic("P050", loc[:-1], f"{loc[-1]!r} is missing", "write it")
        else:
            said = f"{one['msg'][:1].lower()}{one['msg'][1:]}, not {short(one['input'])}"
            yield Diagnostic("P050", loc, said)


_UNIONS = {("real_tools",), ("tests", 0, "real_tools"), ("tests", 0, "expect", "calls", "")}
"""Where values of several types may stand, with 0 and "" for any number and name: pydantic puts the
type that it tried behind the place, which the document lacks.
"""


def _place(loc: tuple[int | str, ...]) -> Loc:
    """The place of a fault in the document, without what pydantic adds to it."""
    return tuple(
        part
        for number, part in enumerate(loc)
        if part != "[key]" and _shape(loc[:number]) not in _UNIONS
    )


def _shape(loc: Loc) -> Loc:
    """*loc* as in `_UNIONS`: numbers as 0, and the tool that is called as ""."""
    plain = tuple(0 if isinstance(part, int) else part for part in loc)
    return (*plain[:-1], "") if plain[-2:-1] == ("calls",) else plain


def fields_at(loc: Loc) -> list[str]:
    """The names that may stand at a place."""
    at: type[Part] = Document
    for part in loc:
        at = NESTED.get(at, {}).get(str(part), at) if isinstance(part, str) else at
    return list(at.model_fields)


def _own_faults(document: Document) -> Iterator[Diagnostic]:
    """What the fields alone do not show."""
    if not document.tests and not document.properties:
        hint = "write tests: [{name: ..., expect: {...}}]"
        yield Diagnostic("P050", (), "there is no test in it", hint)
    for name, price in document.prices.items():
        try:
            checked_price(name, price)
        except VMError as error:
            yield Diagnostic("P050", ("prices", name), str(error))
    seen: set[str] = set()
    for section in ("tests", "properties"):
        for number, case in enumerate(getattr(document, section)):
            if case.name in seen:
                message = f"two tests are called {case.name!r}"
                yield Diagnostic("P050", (section, number, "name"), message, "rename one of them")
            seen.add(case.name)
    for number, case in enumerate(document.tests):
        if case.golden is not None and not _inside(case.golden):
            message = f"{case.golden!r} is no file beside the test file"
            yield Diagnostic("P050", ("tests", number, "golden"), message, "write name.json")
        if case.starts_at is not None and moment_of(case.starts_at) is None:
            message = f"{case.starts_at!r} is no time"
            hint = "write 2027-01-31T12:00:00Z"
            yield Diagnostic("P050", ("tests", number, "starts_at"), message, hint)
    for number, stated in enumerate(document.properties):
        if not (stated.at_most or stated.never or stated.only_after):
            hint = "write at_most, never or only_after"
            yield Diagnostic("P050", ("properties", number), "the property states nothing", hint)


def _inside(name: str) -> bool:
    """Whether *name* is a file in the folder or below it, on every system."""
    path = PurePosixPath(name)
    return (
        path.suffix == ".json"
        and not path.is_absolute()
        and ".." not in path.parts
        and not set("\\:") & set(name)
    )


def moment_of(text: str) -> datetime | None:
    """The time that *text* is, in ISO 8601 with its zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


# --- beside its program ---


def program_file(document: Document, file: Path) -> Path | None:
    """The program that a test file is about: the one that it names, or the one beside it that has
    its name.
    """
    return named_or_beside(document.program, file)


def named_or_beside(named: str | None, file: Path) -> Path | None:
    """The program that the test file *file* names as *named*, else the one beside it that has its
    name.
    """
    if named is not None:
        return file.parent / named
    stem = next(file.name.removesuffix(ending) for ending in ENDINGS if file.name.endswith(ending))
    beside = (file.parent / f"{stem}{ending}" for ending in PROGRAM_ENDINGS)
    return next((path for path in beside if path.is_file()), None)


SECTIONS: dict[str, tuple[str, type[Step]]] = {
    "models": ("model", LLMStep),
    "tools": ("tool", ToolStep),
    "approvals": ("approval", ApprovalStep),
    "events": ("wait", WaitStep),
}
"""Which steps the answers of a section are for, and what these are called."""


def misnamed(
    document: Document,
    program: Program,
    programs: Mapping[str, Program],
    *,
    tools: Sequence[str],
    inputs: Sequence[str],
) -> list[Diagnostic]:
    """The names in *document* that are no step of *program* and those that it calls, or not one of
    the section's type, the tools that are not among those that it calls, and the untrusted inputs
    that are not among those that it reads.
    """
    return list(_Names(program, programs, tools, inputs).faults(document))


def step_of(path: str) -> str:
    """The id of the step at *path*: ``moods[3]/label#2`` is of ``label``."""
    last = path.rpartition("/")[2]
    return last.partition("[")[0].partition("#")[0]


class _Names:
    """The names of a program."""

    def __init__(
        self,
        program: Program,
        programs: Mapping[str, Program],
        tools: Sequence[str],
        inputs: Sequence[str],
    ) -> None:
        self.steps: dict[str, list[Step]] = {}
        for one in programs_in(program, programs):
            for step, _ in one.walk():
                self.steps.setdefault(step.id, []).append(step)
        self.tools = tools
        self.inputs = inputs
        self.hints = Hints()

    def faults(self, document: Document) -> Iterator[Diagnostic]:
        yield from self.real(document.real_tools, ())
        for number, case in enumerate(document.tests):
            yield from self.case(case, ("tests", number))
        for number, stated in enumerate(document.properties):
            loc: Loc = ("properties", number)
            for name in stated.at_most:
                yield from self.tool(name, (*loc, "at_most", name))
            for place, name in enumerate(stated.never):
                yield from self.tool(name, (*loc, "never", place))
            for name, edge in stated.only_after.items():
                yield from self.tool(name, (*loc, "only_after", name))
                yield from self.edge(edge, (*loc, "only_after", name))

    def case(self, case: Case, loc: Loc) -> Iterator[Diagnostic]:
        for section, (word, kind) in SECTIONS.items():
            for name in getattr(case, section):
                yield from self.answered(name, word, kind, (*loc, section, name))
        expect = case.expect
        for field in ("path", "reached", "never", "waiting"):
            for number, name in enumerate(getattr(expect, field) or ()):
                yield from self.step(name, (*loc, "expect", field, number))
        for name in expect.steps:
            yield from self.step(name, (*loc, "expect", "steps", name))
        for name in expect.calls:
            yield from self.tool(name, (*loc, "expect", "calls", name))
        yield from self.real(case.real_tools, loc)
        for number, name in enumerate(case.untrusted):
            yield from self.input(name, (*loc, "untrusted", number))

    def real(self, tools: bool | list[str] | None, loc: Loc) -> Iterator[Diagnostic]:
        for number, name in enumerate(tools) if isinstance(tools, list) else ():
            yield from self.tool(name, (*loc, "real_tools", number))

    def answered(self, name: str, word: str, kind: type[Step], loc: Loc) -> Iterator[Diagnostic]:
        found = list(self.step(name, loc))
        known = self.steps.get(step_of(aside(name)), [])
        if not found and not any(isinstance(step, kind) for step in known):
            message = (
                f"step {step_of(aside(name))!r} is a {known[0].type.value} step, no {word} step"
            )
            sections = [section for section, (_, k) in SECTIONS.items() if isinstance(known[0], k)]
            hint = f"its answers stand under {sections[0]!r}" if sections else None
            found.append(Diagnostic("P052", loc, message, hint))
        yield from found

    def step(self, name: str, loc: Loc) -> Iterator[Diagnostic]:
        wanted = step_of(aside(name))
        if wanted not in self.steps:
            meant = self.hints.meant(wanted, self.steps)
            yield Diagnostic("P052", loc, f"the program has no step {wanted!r}", meant)

    def tool(self, name: str, loc: Loc) -> Iterator[Diagnostic]:
        if name not in self.tools:
            called = f"it calls {', '.join(self.tools)}" if self.tools else "it calls none"
            meant = self.hints.meant(name, self.tools, otherwise=called)
            yield Diagnostic("P052", loc, f"the program calls no tool {name!r}", meant)

    def input(self, name: str, loc: Loc) -> Iterator[Diagnostic]:
        if name not in self.inputs:
            read = f"it reads {', '.join(self.inputs) or 'none'}"
            meant = self.hints.meant(name, self.inputs, otherwise=read)
            yield Diagnostic("P052", loc, f"the program reads no input {name!r}", meant)

    def edge(self, name: str, loc: Loc) -> Iterator[Diagnostic]:
        step, _, label = name.rpartition(".")
        if not step:
            hint = "write step.then, step.otherwise or step.<case>"
            yield Diagnostic("P052", loc, f"{label!r} is no branch of a step", hint)
        else:
            yield from self.step(step, loc)


_ASIDE = re.compile(r"/(undo|reconcile)(#\d+)?\Z")


def aside(path: str) -> str:
    """The step of a call beside a step's own: ``pay/undo`` is of ``pay``."""
    return _ASIDE.sub("", path)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of test files, by which editors complete and check them."""
    schema = without_examples(Document.model_json_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "tests of an llm-nano-vm program"
    schema["patternProperties"] = {"^x-": True}
    for name, text in FIELD_TEXTS.items():
        at, _, field = name.rpartition(".")
        part = schema if not at else schema["$defs"][at]
        part["properties"][field]["description"] = text
    return schema


FIELD_TEXTS = {
    "program": "The program's file; default: the one beside this file of the same name.",
    "programs": "Files of programs that `call` steps name, by these names.",
    "tools": "Real tools, tools.py:tools or module:object, for their types and effects.",
    "policy": "A policy's file: a program that does not keep to it is refused.",
    "prices": "Dollars per million tokens by model: [input, output], or {input: ..., output: ..., "
    "cached: ..., cache_write: ...}; `default` is that of steps without one.",
    "inputs": "Inputs of every test, unless it gives its own.",
    "real_tools": "Tools that are called where a test has no answer: names, or true for all.",
    "tests": "Runs, with their answers and what is expected of them.",
    "properties": "What must hold of every run that outcomes can make.",
    "Case.name": "What the test shows.",
    "Case.inputs": "Inputs, over those of the file.",
    "Case.untrusted": "Inputs whose values come from outside.",
    "Case.models": "Answers of llm steps, by id or path: a string, {json: ...}, {error: ...}, or a "
    "list, one a call.",
    "Case.tools": "Answers of tool steps, by id or path: {returns: ...}, {raises: ...}, "
    "{times_out: true}, a scalar, or a list, one a call.",
    "Case.approvals": "Decisions: approve, reject, times_out, {approved: true, reason: ..., by: "
    "...}. Without one the run waits.",
    "Case.events": "Events of wait steps: {payload: ...} or times_out. Without one the run waits.",
    "Case.real_tools": "In place of the file's.",
    "Case.starts_at": "When the run begins, 2027-01-31T12:00:00Z.",
    "Case.expect": "What is expected of the run; it ends well unless something here says otherwise.",
    "Case.golden": "A JSON file beside this one that holds all that the run did; --update writes it.",
    "Expected.status": "How the run ends; refused is before the first step.",
    "Expected.output": "What the run gives.",
    "Expected.error": "A part of its error.",
    "Expected.error_kind": "The kind of its error.",
    "Expected.path": "The paths of all steps, in order.",
    "Expected.reached": "Steps that are in it.",
    "Expected.never": "Steps that are not in it.",
    "Expected.steps": "Of single steps, by id or path.",
    "Expected.calls": "By tool: how many calls, or the arguments of each.",
    "Expected.budget": "The most that it uses.",
    "Expected.waiting": "Paths at which it waits.",
    "Expected.diagnostics": "Codes for which it is refused.",
    "ExpectedStep.status": "How the step ended.",
    "ExpectedStep.output": "Its output.",
    "ExpectedStep.branch": "Where a condition, switch or loop went.",
    "ExpectedStep.error": "A part of its error.",
    "ExpectedStep.error_kind": "The kind of its error.",
    "ExpectedStep.attempts": "How often it was tried.",
    "PropertyCase.name": "What the property says.",
    "PropertyCase.at_most": "By tool: no run calls it more often; each attempt counts.",
    "PropertyCase.never": "Tools that no run calls.",
    "PropertyCase.only_after": "By tool: each call comes after this branch, taken since the last "
    "call.",
    "PropertyCase.inputs": "The inputs of every run; else they are made up.",
    "PropertyCase.errors": "Whether calls fail and time out, too.",
    "PropertyCase.max_runs": "Runs that are made at most.",
}
"""What an editor shows beside a field, by its name and, below the top, the part that it stands in."""
