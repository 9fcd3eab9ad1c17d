"""Values that a shell completes: of the project, of the program, of its tests."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from nano_vm.cli import completion, main
from nano_vm.language.policy import Budget


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> click.Context:
    """The context of a command in a project, with its program named."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    ctx = click.Context(click.Command("x"))
    ctx.params["program"] = "program.yaml"
    return ctx


def offered(items: completion.Items) -> list[str]:
    return [item.value for item in items]


PLAIN = click.Option(["--x"])
PAIRS = click.Option(["--x"], metavar="TOOL=N")


@pytest.mark.slow
def test_models_of_the_project_come_first(context: click.Context) -> None:
    assert offered(completion.models(context, PLAIN, ""))[:2] == ["scripted=", "local"]
    assert offered(completion.models(context, PLAIN, "op")) == ["openai/", "openrouter/"]
    Path("nano-vm.toml").write_text("not TOML")
    assert offered(completion.models(context, PLAIN, ""))[0] == "local"


@pytest.mark.slow
def test_budgets_are_those_that_there_are(context: click.Context) -> None:
    assert tuple(Budget.model_fields) == completion.BUDGET
    assert offered(completion.budgets(context, PLAIN, "max_t")) == [
        "max_tool_calls=",
        "max_tokens=",
    ]


@pytest.mark.slow
def test_tools_are_those_that_the_program_calls(context: click.Context) -> None:
    assert offered(completion.called(context, PLAIN, "")) == ["get_order", "issue_refund", "reply"]
    assert offered(completion.called(context, PAIRS, "iss")) == ["issue_refund="]
    context.params["program"] = "gone.yaml"
    assert completion.called(context, PLAIN, "") == []


@pytest.mark.slow
def test_tests_are_offered_by_name_and_by_file(context: click.Context) -> None:
    assert "a returned order is refunded" in offered(completion.tested(context, PLAIN, "a r"))
    files = completion.tests(context, PLAIN, "prog")
    assert "program.test.yaml" in offered(files)
    assert "program.yaml" not in offered(files)
    Path("program.test.yaml").write_text("broken: [")
    assert completion.tested(context, PLAIN, "") == []
