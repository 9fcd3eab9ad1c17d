"""What the language server knows of a project: read again when its files change, whatever they hold."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from nano_vm.cli import main
from nano_vm.cli.tools import load_tools
from nano_vm.lsp.project import Known, Projects


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["init", str(tmp_path / "p")]) == 0
    return tmp_path / "p"


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_repository_is_where_the_search_ends(project: Path) -> None:
    inner = project / "vendored"
    (inner / ".git").mkdir(parents=True)
    assert Projects(load_tools).of(inner / "p.yaml").contracts is None


@pytest.mark.slow
def test_without_a_loader_no_code_of_the_project_runs(project: Path) -> None:
    (project / "tools.py").write_text("raise SystemExit('ran')")
    known = Projects(None).of(project / "program.yaml")
    assert known.contracts is None
    assert known.policy is not None
    assert known.faults == ()


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_module_of_tools_is_imported_again_when_it_changes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    module = project / "own_tools_of_a_test.py"
    module.write_text("tools = {'one': lambda x: x}\n")
    (project / "nano-vm.toml").write_text('tools = "own_tools_of_a_test:tools"\n')
    projects, file = Projects(load_tools), project / "program.yaml"
    assert list(projects.of(file).contracts or ()) == ["one"]
    first = sys.modules[module.stem]
    module.write_text("tools = {'another': lambda x: x}\n")
    assert list(projects.of(file).contracts or ()) == ["another"]
    second = sys.modules.pop(module.stem)
    assert second is not first


@pytest.mark.slow
def test_what_is_known_is_given_without_a_look_at_the_files(project: Path) -> None:
    projects, file = Projects(load_tools), project / "program.yaml"
    known = projects.last(file)
    assert known.contracts is not None
    (project / "nano-vm.toml").write_text("tools = ")
    assert projects.last(file) is known
    assert "not TOML" in " ".join(projects.of(file).faults)
    assert projects.last(file) is not known
    assert projects.of(file) is projects.of(file)


@pytest.mark.slow
def test_a_project_is_read_once_for_documents_that_are_looked_at_together(project: Path) -> None:
    loaded, together = [], Barrier(4)

    def load(spec: str) -> Mapping[str, Any]:
        loaded.append(spec)
        return load_tools(spec)

    projects = Projects(load)

    def look(name: str) -> Known:
        together.wait()
        return projects.of(project / name)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(look, ["a.yaml", "b.yaml", "c.yaml", "d.yaml"]))
    assert len(loaded) == 1
    assert all(one is found[0] for one in found)


@pytest.mark.slow
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
