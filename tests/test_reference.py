"""The reference is complete: each function, field, option, variable and public name that is there has
its place in a table or on a page. That what stands there is true is `test_stories`.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable

import pytest
from pages import DOCS, find
from pydantic import BaseModel

import nano_vm
from nano_vm.adapters.hostfile import _File, _Model, _Pool
from nano_vm.cli.commands import TABLE
from nano_vm.language.functions import FUNCTIONS
from nano_vm.language.policy import Budget
from nano_vm.language.program import ERROR_KINDS, STEP_CLASSES, Program, Step
from nano_vm.machine.ledger import Limits
from nano_vm.mcp.server import OUTCOME
from nano_vm.mcp.tools import mcp_tools
from nano_vm.records.record import MAX_WORD
from nano_vm.records.usage import MAX_COUNT
from nano_vm.run.observers import Event
from nano_vm.run.options import RunOptions
from nano_vm.store.shared_budget import SharedBudget

REFERENCE = DOCS / "reference"
SOURCES = DOCS.parent / "src" / "nano_vm"


def text_of(name: str) -> str:
    return find(name).read_text(encoding="utf-8")


def rows(text: str) -> set[str]:
    """What stands as code in the first column of the tables."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    return {name for cell in cells for name in re.findall(r"`([^`(]+)[^`]*`", cell)}


def fields_of(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_every_function_is_in_the_table_and_no_other() -> None:
    cells = [line.split("|")[1] for line in text_of("expressions.md").splitlines() if "|" in line]
    assert set(re.findall(r"`(\w+)\(", "".join(cells))) == set(FUNCTIONS)


def test_every_field_of_a_program_is_in_the_table() -> None:
    assert fields_of(Program) <= rows(text_of("language.md"))


def test_the_fields_of_every_step_are_in_the_table_of_steps() -> None:
    steps = (REFERENCE / "steps" / "index.md").read_text(encoding="utf-8")
    assert {kind.value for kind in STEP_CLASSES} <= rows(steps)
    assert fields_of(Step) <= rows(steps)


@pytest.mark.parametrize("kind", STEP_CLASSES, ids=lambda kind: kind.value)
def test_each_type_of_step_has_a_page_with_an_example_its_trace_and_its_fields(
    kind: nano_vm.StepType,
) -> None:
    text = (REFERENCE / "steps" / f"{kind.value}.md").read_text(encoding="utf-8")
    assert f"type: {kind.value}" in text
    assert "$ nano-vm run " in text
    own = fields_of(STEP_CLASSES[kind]) - fields_of(Step)
    if kind is nano_vm.StepType.SWITCH:
        own |= {"default"}
    assert rows(text) == own


def test_every_public_name_is_documented() -> None:
    documented = set(
        re.findall(
            r"^::: nano_vm\.(\w+)$",
            "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("api/*.md")),
            re.MULTILINE,
        )
    )
    assert documented == set(nano_vm.__all__) - {"__version__"}


METHODS = [
    getattr(nano_vm.ExecutionVM, name) for name in ("work", "run_many", "approve", "resolve")
]


@pytest.mark.parametrize("documented", [nano_vm.ExecutionVM, *METHODS], ids=lambda f: f.__name__)
def test_every_argument_is_documented(documented: Callable[..., object]) -> None:
    described = inspect.getdoc(documented) or ""
    arguments = described.partition("Args:\n")[2].partition("\n\n")[0]
    parameters = inspect.signature(documented).parameters.values()
    named = re.findall(r"^    (\**\w+): ", arguments, re.MULTILINE)
    assert named == [str(p).split(":")[0] for p in parameters if p.name != "self"]


@pytest.mark.slow
def test_every_variable_of_the_environment_is_in_the_table() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py"))
    read = set(re.findall(r"[\"\'](_?NANO_VM_[A-Z_]+|OTEL_[A-Z_]+)[\"\']", source))
    assert len(read) > 4
    assert read <= rows(text_of("environment.md"))


@pytest.mark.parametrize("table", [_File, _Model, _Pool])
def test_every_field_of_the_host_file_is_in_the_table(table: type[BaseModel]) -> None:
    text = text_of("configuration.md")
    assert {name for name in table.model_fields if f"`{name}`" not in text} == set()


def test_the_host_file_that_is_shown_is_one() -> None:
    (block,) = re.findall(r"^```toml .*?\n(.*?)^```$", text_of("configuration.md"), re.M | re.S)
    assert set(tomllib.loads(block)) <= set(_File.model_fields)


def test_every_extra_is_in_the_table() -> None:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) <= rows(text_of("install.md"))


def test_every_kind_of_error_is_in_the_table() -> None:
    assert set(ERROR_KINDS) <= rows(text_of("errors.md"))


def test_every_field_of_a_budget_is_in_the_table() -> None:
    text = text_of("budgets.md")
    assert set(Budget.model_fields) | set(SharedBudget.model_fields) <= rows(text)


def test_every_limit_of_a_host_is_in_the_table() -> None:
    text = text_of("limits.md")
    assert {name for name in Limits.__slots__ if f"Limits({name}=" not in text} == set()


def test_what_an_answer_says_of_itself_is_limited_as_the_table_says() -> None:
    text = text_of("limits.md")
    assert f"| {MAX_WORD} characters; the rest is cut |" in text
    assert f"| {MAX_COUNT:,}; more is unknown" in text


def test_every_option_of_a_run_is_named() -> None:
    text = text_of("python.md")
    assert {name for name in RunOptions.__annotations__ if f"`{name}`" not in text} == set()


def test_every_kind_of_event_is_named() -> None:
    text = text_of("python.md")
    kinds = set(re.findall(r"``(\w+_\w+|text)``", Event.__doc__ or ""))
    assert {"run_started", "attempt_failed", "text"} <= kinds
    assert {kind for kind in kinds if f"`{kind}`" not in text} == set()


def test_every_command_about_runs_is_on_a_page() -> None:
    names = {
        name
        for heading in ("run", "durable runs", "inspect recorded runs")
        for name in TABLE[heading]
    }
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "how-to").glob("*.md"))
    missing = {name for name in names if not re.search(rf"nano-vm {name}\b|`{name}`", text)}
    assert missing == set()


def test_every_argument_and_field_of_mcp_is_named() -> None:
    text = text_of("mcp.md")
    arguments = set(inspect.signature(mcp_tools).parameters) - {"source"}
    assert {name for name in arguments if f"| `{name}` |" not in text} == set()
    assert {name for name in OUTCOME["properties"] if f"`{name}`" not in text} == set()
