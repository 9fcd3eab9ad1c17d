"""The grammar of the command line: help of every command, and what each misuse is answered with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import warm
from patience import HANGS_SECONDS

from nano_vm.cli import main
from nano_vm.cli.commands import TABLE
from nano_vm.cli.main import nano_vm

SOURCE = Path(__file__).parents[2] / "src"


def walk(context: click.Context) -> Iterator[click.Context]:
    """The context of each command, the group's before those of what is below it."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            found = context.command.get_command(context, name)
            assert found is not None
            yield from walk(click.Context(found, parent=context, info_name=name))


CONTEXTS = list(walk(click.Context(nano_vm, info_name="nano-vm")))
LEAVES = [c for c in CONTEXTS if not isinstance(c.command, click.Group)]
OPTIONS = [
    (context, parameter)
    for context in LEAVES
    for parameter in context.command.params
    if isinstance(parameter, click.Option)
]


def words(context: click.Context) -> list[str]:
    return context.command_path.split()[1:]


def needed(context: click.Context, leave: click.Parameter | None = None) -> list[str]:
    """Words for all that a command requires, but for one parameter."""
    given = []
    for parameter in context.command.params:
        if parameter.required and parameter is not leave:
            name = max(parameter.opts, key=len)
            given += [name, "1d"] if isinstance(parameter, click.Option) else ["x"]
    return given


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda c: c.command_path)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_a_page(
    context: click.Context, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words(context), flag]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"usage: {context.command_path}")
    assert max(map(len, out.splitlines())) <= 100
    assert "show this help" in out
    for parameter in context.command.params:
        for name in parameter.opts if isinstance(parameter, click.Option) else ():
            assert re.search(rf"^  (-., )?{name}\b|, {name}\b", out, re.MULTILINE), name
        assert getattr(parameter, "help", None), f"{parameter.name} has no help"


def test_help_lists_the_commands_by_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    places = [out.index(f"\n{heading}:\n") for heading in TABLE]
    assert places == sorted(places)
    modules = {path.stem for path in (SOURCE / "nano_vm/cli/commands").glob("[!_]*.py")}
    assert {name for commands in TABLE.values() for name in commands} == modules


@pytest.mark.slow
def test_help_of_a_command_is_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    for context in CONTEXTS:
        assert main([*words(context), "--help"]) == 0
        page = capsys.readouterr().out
        assert main(["help", *words(context)]) == 0
        assert capsys.readouterr().out.strip() == page.strip()
    assert main(["help", "rnu"]) == 2
    assert capsys.readouterr().err == (
        "nano-vm: there is no command 'rnu' (did you mean run?); see nano-vm --help\n"
    )
    assert main(["help", "run", "x"]) == 2
    assert "there is nothing below nano-vm run" in capsys.readouterr().err


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a wrong command line is answered with."""
    assert main(arguments) == 2, arguments
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("context", "parameter"), OPTIONS, ids=[f"{c.command_path} {p.opts[-1]}" for c, p in OPTIONS]
)
def test_every_option_misused_is_one_line(
    context: click.Context, parameter: click.Option, capsys: pytest.CaptureFixture[str]
) -> None:
    path, longest = context.command_path, max(parameter.opts, key=len)
    see = f"; see {path} --help"
    given = [*words(context), *needed(context)]
    if parameter.is_flag:
        told = refused([*given, f"{longest}=1"], capsys)
        assert told == f"{path}: {longest} takes no value{see}"
    else:
        assert refused([*given, longest], capsys) == f"{path}: {longest} needs a value{see}"
    slip = f"{longest[:-1]}{'z' if longest[-1] != 'z' else 'q'}"
    told = refused([*given, slip], capsys)
    assert told.startswith(f"{path}: there is no option {slip} (did you mean {longest}?)"), told
    assert told.endswith(see)


@pytest.mark.parametrize("context", LEAVES, ids=lambda c: c.command_path)
def test_what_is_required_is_named(
    context: click.Context, capsys: pytest.CaptureFixture[str]
) -> None:
    for parameter in context.command.params:
        if parameter.required:
            told = refused([*words(context), *needed(context, leave=parameter)], capsys)
            name = parameter.opts[-1] if isinstance(parameter, click.Option) else ""
            assert re.match(rf"{context.command_path}: {name}.* is required; see", told), told
    plain = all(p.nargs == 1 and p.type is click.STRING for p in context.command.params)
    if plain and not any(p.required for c, p in OPTIONS if c is context):
        extra = refused([*words(context), *["x"] * 9], capsys)
        assert "unexpected argument" in extra


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("rnu", "nano-vm: there is no command 'rnu' (did you mean run?); see nano-vm --help"),
        ("frobnicate", "nano-vm: there is no command 'frobnicate'; see nano-vm --help"),
        ("store prun", "nano-vm store: there is no command 'prun' (did you mean prune?); see"),
        ("--versoin", "nano-vm: there is no option --versoin (did you mean --version?); see"),
        ("run p.yaml --tool x", "there is no option --tool (did you mean --tools?); see nano-vm"),
        ("batch a b -o c --conc 3", "there is no option --conc (did you mean --concurrency?)"),
        ("run p.yaml --\x1b[31m x", "there is no option --\\x1b[31m"),
        ("fmt p.yaml -w --check", "nano-vm fmt: --check does not go with --write; see"),
        ("resolve r p", "nano-vm resolve: one of --done, --retry, --fail is required; see"),
        ("graph p.yaml --format gif", "--format: 'gif' is not one of 'mermaid', 'dot', 'svg'"),
        ("store", "nano-vm store: missing command; see nano-vm store --help"),
    ],
)
def test_a_wrong_command_line_says_what_was_meant(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refused(line.split(" "), capsys)


def completed(line: str, folder: Path, **env: str) -> list[str]:
    """What bash is offered for a line, whose last word is under way."""
    done = warm.run(
        [sys.executable, "-m", "nano_vm"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "_NANO_VM_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            **env,
        },
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=True,
    )
    return done.stdout.split()


def test_a_shell_completes_each_option_that_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for ending in ("yaml", "test.yaml", "py"):
        Path(f"a.{ending}").touch()
    named = [
        (context, option)
        for context in CONTEXTS
        for option in context.command.params
        if option.metavar == "FILE"
    ]
    assert len(named) > 20
    for context, option in named:
        offered = option.shell_complete(context, "a")
        assert offered, f"{context.command_path} {option.opts[0]}"


@pytest.mark.slow
def test_a_shell_completes_commands_options_and_values(tmp_path: Path) -> None:
    (tmp_path / "refund.yaml").write_text(
        "steps: [{id: judge, type: llm, prompt: q}, {id: pay, type: set, values: {x: 1}}]"
    )
    (tmp_path / "refund.py").write_text("tools = {}")
    store = f"sqlite:///{tmp_path}/runs.db"
    run = ["run", str(tmp_path / "refund.yaml"), "--answer", "judge=yes", "--store", store]
    assert main([*run, "--run-id", "refund-A7"]) == 0
    begun = ["plain,resume", "plain,reject", "plain,resolve", "plain,replay"]
    assert completed("nano-vm re", tmp_path) == begun
    assert completed("nano-vm store pr", tmp_path) == ["plain,prune"]
    assert completed("nano-vm run --untr", tmp_path) == ["plain,--untrusted"]
    assert completed("nano-vm graph r.yaml --format s", tmp_path) == ["plain,svg"]
    assert completed("nano-vm run ref", tmp_path) == ["dir,ref", "plain,refund.yaml"]
    assert completed("nano-vm run refund.yaml --tools ", tmp_path) == ["dir,", "plain,refund.py"]
    assert completed("nano-vm run refund.yaml --answer ju", tmp_path) == ["plain,judge="]
    assert completed("nano-vm run refund.yaml --model gr", tmp_path) == ["plain,groq/"]
    assert completed(f"nano-vm show --store {store} re", tmp_path) == ["plain,refund-A7"]
    assert completed("nano-vm show re", tmp_path, NANO_VM_STORE=store) == ["plain,refund-A7"]
    assert completed("nano-vm show re", tmp_path, NANO_VM_STORE="sqlite:///none.db") == []
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "ask.yaml").write_text("steps: [{id: treasurer, type: approval, role: boss}]")
    assert main(["run", str(tmp_path / "ask.yaml"), "--store", store, "--run-id", "paying"]) == 3
    for command in ("approve", "reject", "resolve"):
        line = f"nano-vm {command} pay "
        assert completed(line, tmp_path, NANO_VM_STORE=store) == ["plain,treasurer"]
    assert completed("nano-vm approve refund ", tmp_path, NANO_VM_STORE=store) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_NANO_VM_COMPLETE={shell}_complete" in script
    assert "nano-vm" in script


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("nano-vm schem", ["schema"]),
        ("nano-vm show --store STORE re", ["refund-A7"]),
        ("nano-vm show --store=STORE re", ["refund-A7"]),
        ("nano-vm run refund.yaml --model lite", ["litellm:"]),
        ("nano-vm run refund.yaml --model fast=gr", []),
        ("nano-vm run refund.yaml --answer=ju", ["judge="]),
        ("nano-vm run my\\ ref", ["my refund.yaml"]),
    ],
)
def test_bash_takes_the_script(line: str, replies: list[str], tmp_path: Path) -> None:
    for name in ("refund.yaml", "my refund.yaml"):
        (tmp_path / name).write_text("steps: [{id: judge, type: llm, prompt: q}]")
    store = f"sqlite:///{tmp_path}/runs.db"
    run = ["run", str(tmp_path / "refund.yaml"), "--answer", "judge=yes", "--store", store]
    assert main([*run, "--run-id", "refund-A7"]) == 0
    line = line.replace("STORE", store)
    script = (
        'compopt() { :; }; eval "$(nano-vm completion bash)"; COMP_LINE=$1; COMP_POINT=${#1}; '
        '_nano_vm_completion nano-vm; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    bash = subprocess.run(
        ["bash", "-c", script, "bash", line],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{_command(tmp_path)}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=False,
    )
    assert bash.stdout.splitlines() == (replies or [""]), bash.stderr


def _command(folder: Path) -> Path:
    """A folder with a ``nano-vm`` that runs these sources."""
    script = folder / "bin" / "nano-vm"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{SOURCE}" exec "{sys.executable}" -m nano_vm "$@"\n')
    script.chmod(0o755)
    return script.parent


@pytest.mark.slow
def test_help_answers_at_once() -> None:
    """At most 150 ms of the processor: other processes run beside a test."""
    taken = []
    for _ in range(5):
        began = os.times()
        subprocess.run(
            [sys.executable, "-m", "nano_vm", "--help"],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            check=True,
        )
        ended = os.times()
        taken.append(
            ended.children_user
            + ended.children_system
            - began.children_user
            - began.children_system
        )
    assert min(taken) < 0.15
