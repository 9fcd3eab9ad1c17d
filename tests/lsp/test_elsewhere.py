"""What other files of a project name of a program: a rename changes them too, and nothing else."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from nano_vm.cli import main
from nano_vm.cli.commands.init import NEXT
from nano_vm.language.program import Program
from nano_vm.lsp.documents import path_of
from nano_vm.lsp.elsewhere import Project, files_of
from nano_vm.lsp.index import Index, Span
from nano_vm.lsp.navigate import CannotRename, renamed, symbol_at


def read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def project_of(folder: Path) -> Project:
    policy = folder / "policy.yaml"
    files = files_of(folder / "program.yaml", folder)
    return Project(files, policy if policy.exists() else None, read)


def edited(text: str, spans: Iterable[Span], name: str) -> str:
    lines = text.split("\n")
    for span in sorted(spans, key=lambda one: (one.line, -one.start)):
        old = lines[span.line]
        lines[span.line] = old[: span.start] + name + old[span.end :]
    return "\n".join(lines)


def rename(file: Path, place: tuple[int, int], name: str, folder: Path | None = None) -> set[str]:
    """Rename what stands at *place* in all files of the project; the names of those that changed."""
    text = file.read_text()
    index = Index(text)
    symbol = symbol_at(index, place)
    assert symbol is not None
    spans = renamed(index, place, name)
    others = project_of(folder or file.parent).renamed(symbol, index, file)
    file.write_text(edited(text, spans, name))
    for other in others:
        other.path.write_text(edited(other.index.text, other.spans, name))
    return {other.path.name for other in others}


def place_of(file: Path, text: str) -> tuple[int, int]:
    """Where *text* stands first."""
    before = file.read_text().partition(text)[0]
    return before.count("\n"), len(before.rpartition("\n")[2]) + len(text)


@pytest.mark.slow
@pytest.mark.parametrize("template", NEXT)
def test_a_project_passes_its_tests_after_every_step_and_input_was_renamed(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--template", template]) == 0
    for file in sorted(tmp_path.glob("*.yaml")):
        index = Index(file.read_text())
        if not list(index.steps()):
            continue
        program = Program.from_yaml(file.read_text())
        for number, step in enumerate(list(index.steps())):
            if step.scope == 0 and step.id is not None:
                rename(file, place_of(file, f"id: {step.id}"), f"step{number}")
        inputs = list((program.inputs or {}).get("properties", {}))
        for number, name in enumerate(inputs):
            names = [use for use in Index(file.read_text()).uses() if use.name == name]
            declared = next(use for use in names if use.how == "input")
            rename(file, (declared.span.line, declared.span.start), f"input{number}")
    changed = Path("program.test.yaml").read_text()
    assert re.search(r"\bstep\d", changed)
    assert main(["check", "program.yaml", "--strict"]) == 0
    assert main(["test"]) == 0


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A program that calls another, with a policy and tests of both."""
    files = {
        "program.yaml": """
            inputs: {type: object, properties: {mail: {type: string}}}
            steps:
              - {id: judge, type: llm, prompt: "Refund? $mail", allowed_outputs: [yes, no]}
              - {id: gate, type: condition, condition: $judge.output == 'yes', then: pay, otherwise: $end}
              - {id: pay, type: call, program: inner.yaml, with: {text: $mail}}
            """,
        "inner.yaml": """
            inputs: {type: object, properties: {text: {type: string}}}
            steps:
              - {id: judge, type: llm, prompt: $text}
              - {id: send, type: tool, tool: send, args: {to: $judge.output}}
            """,
        "program.test.yaml": """
            inputs: {mail: hello}
            tests:
              - name: judge
                untrusted: [mail]
                models: {judge: yes, pay/judge: [ann]}
                tools: {pay/send: {returns: judge}}
                expect:
                  path: [judge, gate, 'pay/judge', pay/send, pay]
                  steps: {judge: {output: yes}, pay/judge: {output: ann}}
            properties: [{name: a, at_most: {send: 1}, only_after: {send: gate.then}}]
            """,
        "inner.test.yaml": """
            tests: [{name: a, inputs: {text: x}, models: {judge: x}, tools: {send: {returns: 1}}}]
            """,
        "policy.yaml": "tools: {send: {guarded_by: [gate.then]}}\n",
    }
    for name, text in files.items():
        lines = text.strip("\n").split("\n")
        width = len(lines[0]) - len(lines[0].lstrip())
        (tmp_path / name).write_text("\n".join(line[width:] for line in lines) + "\n")
    return tmp_path


def test_a_path_into_a_called_program_names_the_steps_of_that_program(shop: Path) -> None:
    changed = rename(shop / "inner.yaml", (2, 10), "asks")
    assert changed == {"program.test.yaml", "inner.test.yaml"}
    text = (shop / "program.test.yaml").read_text()
    assert "models: {judge: yes, pay/asks: [ann]}" in text
    assert "path: [judge, gate, 'pay/asks', pay/send, pay]" in text
    assert "steps: {judge: {output: yes}, pay/asks: {output: ann}}" in text
    assert "returns: judge" in text
    assert "name: judge" in text
    assert "models: {asks: x}" in (shop / "inner.test.yaml").read_text()


def test_a_step_of_the_caller_is_renamed_where_its_paths_begin(shop: Path) -> None:
    assert rename(shop / "program.yaml", (2, 10), "asks") == {"program.test.yaml"}
    text = (shop / "program.test.yaml").read_text()
    assert "models: {asks: yes, pay/judge: [ann]}" in text
    assert "path: [asks, gate, 'pay/judge', pay/send, pay]" in text
    assert rename(shop / "program.yaml", (4, 10), "paying") == {"program.test.yaml"}
    assert (
        "path: [asks, gate, 'paying/judge', paying/send, paying]"
        in (shop / "program.test.yaml").read_text()
    )
    assert rename(shop / "program.yaml", (3, 10), "door") == {"program.test.yaml", "policy.yaml"}
    assert "only_after: {send: door.then}" in (shop / "program.test.yaml").read_text()
    assert (shop / "policy.yaml").read_text() == "tools: {send: {guarded_by: [door.then]}}\n"


def test_an_input_is_renamed_in_tests_and_where_others_give_it(shop: Path) -> None:
    assert rename(shop / "program.yaml", place_of(shop / "program.yaml", "{mail"), "letter") == {
        "program.test.yaml"
    }
    text = (shop / "program.test.yaml").read_text()
    assert "inputs: {letter: hello}" in text
    assert "untrusted: [letter]" in text
    assert rename(shop / "inner.yaml", place_of(shop / "inner.yaml", "{text"), "body") == {
        "inner.test.yaml",
        "program.yaml",
    }
    assert "with: {body: $letter}" in (shop / "program.yaml").read_text()
    assert "inputs: {body: x}" in (shop / "inner.test.yaml").read_text()


@pytest.mark.parametrize("name", ["sub", "inner.yaml"])
def test_a_test_file_names_programs_otherwise_than_their_files(shop: Path, name: str) -> None:
    """`programs` of a test file stands before the file of that name."""
    program, tests = shop / "program.yaml", shop / "program.test.yaml"
    (shop / "deep").mkdir()
    (shop / "inner.yaml").rename(shop / "deep" / "given.yaml")
    (shop / "inner.test.yaml").unlink()
    (shop / "inner.yaml").write_text("steps: [{id: judge, type: set, values: {a: 1}}]\n")
    program.write_text(program.read_text().replace("program: inner.yaml", f"program: {name}"))
    tests.write_text(f"programs: {{{name}: deep/given.yaml}}\n{tests.read_text()}")
    given = shop / "deep" / "given.yaml"
    assert rename(given, (2, 10), "asks", shop) == {"program.test.yaml"}
    text = tests.read_text()
    assert "models: {judge: yes, pay/asks: [ann]}" in text
    assert "path: [judge, gate, 'pay/asks', pay/send, pay]" in text
    assert "steps: {judge: {output: yes}, pay/asks: {output: ann}}" in text
    assert rename(shop / "inner.yaml", (0, 14), "other", shop) == set()
    changed = rename(given, place_of(given, "{text"), "body", shop)
    assert changed == ({"program.yaml"} if name == "sub" else set())


def test_a_name_that_test_files_give_to_several_programs_is_not_changed_in_the_caller(
    shop: Path,
) -> None:
    program = shop / "program.yaml"
    program.write_text(program.read_text().replace("program: inner.yaml", "program: sub"))
    (shop / "stub.yaml").write_text((shop / "inner.yaml").read_text())
    for number, file in enumerate(("inner.yaml", "stub.yaml")):
        text = f"program: program.yaml\nprograms: {{sub: {file}, odd: [1]}}\ntests: []\n"
        (shop / f"given{number}.test.yaml").write_text(text)
    inner = shop / "inner.yaml"
    assert rename(inner, place_of(inner, "{text"), "body") == {"inner.test.yaml"}


def test_a_step_that_a_policy_means_in_two_programs_is_not_renamed_by_halves(shop: Path) -> None:
    (shop / "other.yaml").write_text((shop / "program.yaml").read_text())
    before = {path: path.read_text() for path in shop.iterdir()}
    with pytest.raises(CannotRename, match=r"policy.yaml names 'gate' for other.yaml too"):
        rename(shop / "program.yaml", (3, 10), "door")
    assert {path: path.read_text() for path in shop.iterdir()} == before


def test_broken_files_and_names_that_stay_in_their_program_change_nothing(shop: Path) -> None:
    (shop / "broken.test.yaml").write_text("program: program.yaml\ntests: [{models: {judge: \n")
    (shop / "odd.test.yaml").write_text("- judge\n")
    (shop / "other.test.yaml").write_text("program: gone.yaml\ntests: [{models: {judge: 1}}]\n")
    assert "other.test.yaml" not in rename(shop / "program.yaml", (2, 10), "asks")
    keyed = "steps:\n  - {id: a, type: set, values: {mail: 1}, output_key: mail}\n"
    (shop / "program.yaml").write_text(keyed)
    assert rename(shop / "program.yaml", place_of(shop / "program.yaml", "{mail"), "said") == set()


def test_without_a_host_file_only_files_beside_are_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    for path in (file, tmp_path / "a.test.yaml", tmp_path / "below" / "b.yaml"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("steps: []")
    assert file in list(files_of(file, None))
    assert tmp_path / "below" / "b.yaml" not in list(files_of(file, None))
    assert tmp_path / "below" / "b.yaml" in list(files_of(file, tmp_path))
    assert list(files_of(tmp_path / "gone" / "a.yaml", None)) == []


def test_a_program_that_names_it_is_not_read_into_an_index_again(shop: Path) -> None:
    inner = shop / "inner.yaml"
    index = Index(inner.read_text())
    symbol = symbol_at(index, place_of(inner, "{text"))
    assert symbol is not None
    project = project_of(shop)
    found = {other.path.name: other.index for other in project.naming(symbol, index, inner)}
    assert found["program.yaml"] is project.programs[shop / "program.yaml"]


def test_each_open_document_is_asked_for_its_path_once_however_many_files_there_are(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lsprotocol import types
    from pygls.workspace import Workspace

    from nano_vm.lsp.server import ProgramServer

    asked = []

    def counted(uri: str) -> Path | None:
        asked.append(uri)
        return path_of(uri)

    for number in range(20):
        (shop / f"more{number}.yaml").write_text("steps: []\n")
    workspace = Workspace(None)
    inner, tests = shop / "inner.yaml", shop / "inner.test.yaml"
    for file in (inner, tests):
        text = file.read_text().replace("tests:", "# not saved yet\ntests:")
        workspace.put_text_document(types.TextDocumentItem(file.as_uri(), "yaml", 1, text))
    workspace.put_text_document(types.TextDocumentItem("untitled:1", "yaml", 1, ""))
    monkeypatch.setattr(ProgramServer, "workspace", workspace)
    monkeypatch.setattr("nano_vm.lsp.server.path_of", counted)
    server = ProgramServer("1", None)
    found = server.elsewhere(server.document(inner.as_uri()), (2, 10))
    lines = {uri: [span.line for span in spans] for uri, _, spans in found}
    assert lines[tests.as_uri()] == [1]  # as it stands in the editor
    assert (shop / "program.test.yaml").as_uri() in lines
    assert sorted(asked) == sorted(workspace.text_documents)
