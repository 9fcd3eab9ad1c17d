"""What the language server knows of a project: read again when its files change, whatever they hold."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nano_vm.cli import main
from nano_vm.cli.tools import load_tools
from nano_vm.lsp.project import Projects


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["init", str(tmp_path / "p")]) == 0
    return tmp_path / "p"


def test_a_program_has_the_project_of_its_folder_or_one_above(project: Path) -> None:
    inner = project / "more" / "deep.yaml"
    known = Projects(load_tools).of(inner)
    assert known.contracts is not None
    assert set(known.contracts) == {"get_order", "issue_refund", "reply"}
    assert known.models == ("scripted",)
    assert known.policy is not None
    assert known.faults == ()
    assert Projects(load_tools).of(project.parent / "other.yaml").contracts is None
    assert Projects(load_tools).of(None).contracts is None


def test_a_repository_is_where_the_search_ends(project: Path) -> None:
    inner = project / "vendored"
    (inner / ".git").mkdir(parents=True)
    assert Projects(load_tools).of(inner / "p.yaml").contracts is None


def test_without_a_loader_no_code_of_the_project_runs(project: Path) -> None:
    (project / "tools.py").write_text("raise SystemExit('ran')")
    known = Projects(None).of(project / "program.yaml")
    assert known.contracts is None
    assert known.policy is not None
    assert known.faults == ()


def test_files_are_read_again_when_they_change(project: Path) -> None:
    projects = Projects(load_tools)
    file = project / "program.yaml"
    first = projects.of(file)
    assert projects.of(file) is first
    tools = project / "tools.py"
    tools.write_text("tools = {'other': lambda x: x}\n")
    os.utime(tools, ns=(1, 1))
    known = projects.of(file)
    assert known.contracts is not None
    assert list(known.contracts) == ["other"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("tools.py", "1 / 0", "ZeroDivisionError"),
        ("tools.py", "raise SystemExit(3)", "SystemExit"),
        ("tools.py", "tools = {}", "holds no tools"),
        ("policy.yaml", "tools: {pay: {guard: x}}", "P041"),
        ("nano-vm.toml", "tools = ", "not TOML"),
        ("nano-vm.toml", "tool = 'x'", "unknown field"),
    ],
)
def test_what_cannot_be_read_is_a_reason_and_no_error(
    project: Path, name: str, text: str, said: str
) -> None:
    (project / name).write_text(text)
    known = Projects(load_tools).of(project / "program.yaml")
    assert said in " ".join(known.faults)


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pygls", None)
    assert main(["lsp"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "nano-vm: the language server needs an extra: pip install 'llm-nano-vm[lsp]'\n"
    )
