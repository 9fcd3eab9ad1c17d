"""`nano-vm init`: what it makes is checked, runs as it says, and passes its own tests."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from patience import HANGS_SECONDS

from nano_vm.cli import main
from nano_vm.cli.commands.init import NEXT

SOURCE = Path(__file__).parents[2] / "src"


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
    assert out.endswith("  python -m pytest\n")
    assert "  cd 'my flow'\n" in out
    monkeypatch.chdir("my flow")
    for line in NEXT[template]:
        assert f"  {line}\n" in out
        program, *arguments = shlex.split(line)
        assert program == "nano-vm"
        assert main(arguments) == (3 if "--run-id" in arguments else 0), line
    last = capsys.readouterr().out
    ended = {
        "guard": "a colleague looks at A-2",
        "review": "published: A lamp.",
        "approval": "nano-vm approve first ask --shown",
        "map": '{"happy":3,"unhappy":0}',
    }
    assert ended[template] in last


@pytest.mark.slow
@pytest.mark.parametrize("template", NEXT)
def test_what_is_made_passes_its_own_tests(template: str, tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "made"), "--template", template]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider"],
        cwd=tmp_path / "made",
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_the_help_names_every_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--help"]) == 0
    page = capsys.readouterr().out
    folders = {path.name for path in (SOURCE / "nano_vm/cli/templates").iterdir()}
    assert set(NEXT) == folders - {"__pycache__"}
    assert all(f"\n  {name} " in page for name in NEXT)


def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("there/tools.py").write_text("mine = 1")
    assert main(["init", "there"]) == 2
    assert capsys.readouterr().err == (
        "nano-vm: there/tools.py is there already; name another folder\n"
    )
    assert [file.name for file in Path("there").iterdir()] == ["tools.py"]
    Path("file").write_text("")
    assert main(["init", "file/inside"]) == 2
    assert "cannot write to file/inside: " in capsys.readouterr().err
    assert main(["init", "a\0b"]) == 2
    assert main(["init", "new", "--template", "gaurd"]) == 2
    assert "'gaurd' is not one of" in capsys.readouterr().err
