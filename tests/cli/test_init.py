"""`nano-vm init`: what it makes is checked, runs as it says, passes its own tests, and overwrites
nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from damage import full_after
from patience import HANGS_SECONDS

from nano_vm.adapters import hostfile
from nano_vm.adapters.hostfile import read_project
from nano_vm.cli import main
from nano_vm.cli.commands import init
from nano_vm.cli.commands.init import ALWAYS, NEXT
from nano_vm.cli.schemas import MADE_BY
from nano_vm.language.reader import read_text

SOURCE = Path(__file__).parents[2] / "src"
TEMPLATES = SOURCE / "nano_vm/cli/templates"

ENDED = {
    "guardrail": "a colleague looks at A-2",
    "agentic-review": '"verdict":"approve"',
    "approval": "nano-vm approve first ask --shown",
    "map": '{"happy":3,"unhappy":0}',
    "rag": '"sources":["returns-2"]',
}


@pytest.mark.slow
@pytest.mark.parametrize("template", NEXT)
def test_what_is_made_runs_as_it_says(
    template: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["init", "my flow", "--template", template]) == 0
    out = capsys.readouterr().out
    assert "my flow/program.yaml: written" in out
    assert "  cd 'my flow'\n" in out
    monkeypatch.chdir("my flow")
    readme = Path("README.md").read_text()
    for line in (*ALWAYS, *NEXT[template]):
        assert f"  {line}\n" in out
        assert f"{line}\n" in readme
        program, *arguments = shlex.split(line)
        assert program == "nano-vm"
        assert main(arguments) == (3 if "--run-id" in arguments else 0), line
    said = capsys.readouterr().out
    assert ENDED[template] in said
    assert "program.yaml: no faults" in said
    assert "not checked" not in said
    assert main(["test", "--min-coverage", "100"]) == 0


@pytest.mark.parametrize("template", NEXT)
def test_editors_and_ci_are_told_where_all_is(template: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert main(["init", str(made), "--template", template]) == 0
    for name in ("program.yaml", "program.test.yaml"):
        text = (made / name).read_text()
        found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
        assert found is not None
        schema = json.loads((made / found[1]).read_text())
        assert MADE_BY in schema
        validator = jsonschema_rs.validator_for(schema)
        assert list(map(str, validator.iter_errors(read_text(text)))) == []
    settings = json.loads((made / ".vscode/settings.json").read_text())
    assert all((made / schema).exists() for schema in settings["yaml.schemas"])
    host = tomllib.loads((made / "nano-vm.toml").read_text())
    assert (made / host["tools"].partition(":")[0]).exists()
    assert (made / host["policy"]).exists()
    workflow = yaml.safe_load((made / ".github/workflows/test.yml").read_text())
    runs = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert runs[1] in ALWAYS
    assert runs[2].startswith(ALWAYS[1])


@pytest.mark.slow
def test_what_is_made_is_collected_by_pytest(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "made"), "--template", "approval"]) == 0
    done = subprocess.run(
        [
            *[sys.executable, "-m", "pytest", "-q", "-p", "nano_vm.pytest_plugin"],
            *["-p", "no:asyncio", "-p", "no:cacheprovider"],
        ],
        cwd=tmp_path / "made",
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_the_help_names_every_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--help"]) == 0
    page = capsys.readouterr().out
    folders = {path.name for path in TEMPLATES.iterdir()} - {"__pycache__", "shared"}
    assert set(NEXT) == folders
    assert all(f"\n  {name} " in page for name in NEXT)


@pytest.mark.slow
def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("there/mine.py").write_text("mine = 1")
    Path("there/notes").mkdir()
    assert main(["init", "there"]) == 2
    assert capsys.readouterr().err == (
        "nano-vm: there is not empty: it holds mine.py and 1 more; name another folder\n"
    )
    assert sorted(file.name for file in Path("there").iterdir()) == ["mine.py", "notes"]
    assert main(["init"]) == 2  # the current folder, which has that one in it
    assert ". is not empty: it holds there; name another folder" in capsys.readouterr().err
    Path("file").write_text("")
    assert main(["init", "file/inside"]) == 2
    assert "cannot write to file/inside: " in capsys.readouterr().err
    assert main(["init", "a\0b"]) == 2
    assert main(["init", "new", "--template", "gaurdrail"]) == 2
    assert "'gaurdrail' is not one of" in capsys.readouterr().err


@pytest.mark.parametrize("template", NEXT)
def test_a_project_for_which_there_is_no_room_is_not_half_made(
    template: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    for folder, above in (("there", "there"), ("new/er/one", "new")):
        with full_after(2_000):
            assert main(["init", folder, "--template", template]) == 2
        assert capsys.readouterr() == ("", f"nano-vm: cannot write to {folder}: File too large\n")
        assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
        assert main(["init", folder, "--template", template]) == 0
        first = capsys.readouterr().out.partition(": written")[0]
        assert Path(first).stat().st_size < 2_000  # which was there when another had no room
        shutil.rmtree(above)
        Path("there").mkdir(exist_ok=True)


def test_a_folder_that_cannot_be_made_leaves_none_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    long = "x" * 300
    assert main(["init", f"new/{long}"]) == 2
    assert capsys.readouterr().err == f"nano-vm: cannot write to new/{long}: File name too long\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_project_that_is_interrupted_is_not_half_made(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whenever the signal comes: right after any of its files or folders was begun."""
    monkeypatch.chdir(tmp_path)
    moments = 0

    def signalled(made: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *given: Any, **options: Any) -> Any:
            nonlocal left
            result = made(path, *given, **options)
            if path.is_relative_to("new") and "r" not in given:
                left -= 1
                if left == 0:
                    signal.raise_signal(number)
            return result

        return call

    # else a signal that is not minded ends the process of the tests
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        monkeypatch.setattr(Path, "mkdir", signalled(Path.mkdir))
        monkeypatch.setattr(Path, "open", signalled(Path.open))
        while True:
            left = moments + 1
            code = main(["init", "new/er"])
            if left > 0:
                break
            moments += 1
            assert code == 128 + number
            assert capsys.readouterr().err.startswith("nano-vm: interrupted")
            assert list(tmp_path.iterdir()) == []
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 0
    assert moments > 10  # files and folders


@pytest.mark.parametrize("why", ["a signal", "no room"])
@pytest.mark.parametrize("remove", ["unlink", "rmdir"])
def test_a_signal_does_not_interrupt_the_removal_of_a_project_that_is_not_made(
    remove: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Who does not see a Ctrl-C do anything sends another."""
    removed, write = getattr(Path, remove), init._write
    signals = 0

    def removed_and_signalled(path: Path, **options: bool) -> None:
        nonlocal signals
        signals += 1
        signal.raise_signal(signal.SIGINT)
        removed(path, **options)

    def written_and_ended(file: Path, data: bytes, begun: list[Path]) -> None:
        write(file, data, begun)
        if file.name == "program.yaml":
            if why == "no room":
                raise OSError(errno.ENOSPC, "No space left on device")
            signal.raise_signal(signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, remove, removed_and_signalled)
        patch.setattr(init, "_write", written_and_ended)
        code = main(["init", "new/er"])
    said = capsys.readouterr().err
    if why == "no room":
        assert (code, said) == (2, "nano-vm: cannot write to new/er: No space left on device\n")
    else:
        assert code == 128 + signal.SIGINT
        assert said == "nano-vm: interrupted: nothing is left of the project\n"
    assert signals >= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("remove", ["unlink", "rmdir"])
def test_what_cannot_be_removed_does_not_hide_why_it_was_to_be(
    remove: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def denied(path: Path, **_: bool) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.chdir(tmp_path)
    with full_after(2_000), monkeypatch.context() as patch:
        patch.setattr(Path, remove, denied)
        assert main(["init", "new"]) == 2
    assert capsys.readouterr().err == "nano-vm: cannot write to new: File too large\n"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_project_is_made_also_where_nothing_can_be_said_of_it(tmp_path: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nano_vm", "init", "new"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=HANGS_SECONDS,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "nano-vm: cannot write the output: No space left on device\n"
    assert main(["init", str(tmp_path / "other")]) == 0
    made, other = (
        sorted(file.relative_to(folder) for file in folder.rglob("*"))
        for folder in (tmp_path / "new", tmp_path / "other")
    )
    assert made == other


def test_a_new_repository_is_empty_but_its_own_settings_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".git").mkdir()
    assert main(["init"]) == 0
    assert "  cd " not in capsys.readouterr().out
    other = tmp_path / ".other"
    (other / ".vscode").mkdir(parents=True)
    (other / ".vscode/settings.json").write_text("{}")
    assert main(["init", str(other)]) == 2
    assert "it holds .vscode/settings.json; name another folder" in capsys.readouterr().err
    assert not (other / "program.yaml").exists()


# --- what nano-vm.toml says ---


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert main(["init", "p"]) == 0
    monkeypatch.chdir(tmp_path / "p")
    return tmp_path / "p"


def test_tools_and_policy_are_those_of_the_project_unless_others_are_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["check", "program.yaml"]) == 0
    assert "no faults, 2 proved" in capsys.readouterr().out
    Path("none.yaml").write_text('tools: {"*": {allow: false}}\n')
    assert main(["check", "program.yaml", "--policy", "none.yaml"]) == 1
    Path("other.py").write_text("tools = {'reply': print}\n")
    assert main(["check", "program.yaml", "--tools", "other.py"]) == 1
    assert "get_order" in capsys.readouterr().out
    os.chdir(project.parent)
    assert main(["check", "p/program.yaml", "--host", "p/nano-vm.toml"]) == 0
    assert "no faults, 2 proved" in capsys.readouterr().out
    assert main(["check", "p/program.yaml"]) == 0
    assert "not checked: tools (give --tools)" in capsys.readouterr().out


def test_a_project_without_models_has_tools_all_the_same(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("nano-vm.toml").write_text('tools = "tools.py"\n')
    capsys.readouterr()
    assert main(["check", "program.yaml"]) == 0
    out = capsys.readouterr().out
    assert "not checked: models (give --model)" in out
    assert "tools (give" not in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tools = 3\n", "--host: nano-vm.toml: tools: input should be a valid string, not 3"),
        ("tool = 'tools.py'\n", "--host: nano-vm.toml: tool: unknown field; did you mean 'tools'?"),
        ("tools = 'gone.py'\n", "--tools: there is no file gone.py"),
        ("policy = 'gone.yaml'\n", "--policy: cannot read gone.yaml: No such file or directory"),
        ("tools = \n", "--host: nano-vm.toml: not TOML: "),
    ],
)
def test_a_project_that_names_what_is_not_there_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    Path("nano-vm.toml").write_text(text)
    capsys.readouterr()
    assert main(["check", "program.yaml"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_schema_newer_than_the_tool_is_said_where_a_field_is_unknown(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = Path(".nano-vm/program.schema.json")
    program = Path("program.yaml")
    program.write_text(program.read_text().replace("    max_tokens: 4", "    new_field: 4"))
    capsys.readouterr()
    assert main(["check", "program.yaml"]) == 1
    assert "note:" not in capsys.readouterr().out
    schema.write_text(json.dumps({**json.loads(schema.read_text()), MADE_BY: "98.7.0"}))
    assert main(["check", "program.yaml"]) == 1
    out = capsys.readouterr().out
    assert "unknown field 'new_field'" in out
    assert "note: .nano-vm/program.schema.json is of nano-vm 98.7.0, and this is" in out
    for broken in ("not JSON", "[]", '{"x-nano-vm": 3}'):
        schema.write_text(broken)
        assert main(["check", "program.yaml"]) == 1
        assert "note:" not in capsys.readouterr().out


def test_a_command_reads_the_projects_file_for_its_options_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    read: list[str] = []

    def counted(path: str | Path) -> hostfile.Project:
        read.append(str(path))
        return read_project(path)

    monkeypatch.setattr(hostfile, "read_project", counted)
    for command in (["check", "program.yaml", "--strict"], ["dev", "program.yaml", "--once"]):
        assert main(command) == 0
        assert read == ["nano-vm.toml"]
        read.clear()
