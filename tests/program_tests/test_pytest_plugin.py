"""pytest collects test files: by the entry point, each test by its name, and golden files too."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import warm
from patience import HANGS_SECONDS

from nano_vm import pytest_plugin
from nano_vm.program_tests.document import ENDINGS

ROOT = Path(__file__).parents[2]

PROGRAM = "steps: [{id: ask, type: llm, prompt: hi}]\n"
TESTS = """
tests:
  - {name: good, models: {ask: x}, expect: {output: x}, golden: kept.json}
  - {name: bad, models: {ask: x}, expect: {output: y}}
"""


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "nano_vm.pytest_plugin"]
    done = warm.run(
        [*command, "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        # others of this environment take longer to import than all else
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_each_test_of_a_file_is_one_of_pytest(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PROGRAM)
    (tmp_path / "p.test.yaml").write_text(TESTS)
    (tmp_path / "other.test.yaml").write_text("kind: of another tool")
    code, out = run(tmp_path, "--nano-vm-update")
    assert code == 1
    assert 'p.test.yaml:4:44: expect.output: expected "y", and it is "x"' in out
    assert "FAILED p.test.yaml::bad" in out
    assert "1 failed, 1 passed" in out
    assert "Traceback" not in out
    assert "suite.py" not in out
    assert (tmp_path / "kept.json").exists()
    code, out = run(tmp_path, "-k", "good")
    assert code == 0, out
    (tmp_path / "p.test.yaml").write_text("tests: [{name: x, models: {ask: x, aks: y}}]")
    code, out = run(tmp_path)
    assert code == 2
    assert "P052: the program has no step 'aks'; did you mean 'ask'?" in out
    (tmp_path / "p.test.yaml").write_text("program: gone.yaml\ntests: [{name: x}]")
    code, out = run(tmp_path)
    assert code == 2
    assert "gone.yaml: No such file" in out
    assert "Traceback" not in out


def test_the_entry_point_names_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {pytest_plugin.__name__: pytest_plugin.__name__}
    assert pytest_plugin.ENDINGS == ENDINGS


@pytest.mark.slow
def test_pytest_loads_nothing_of_the_package_before_there_is_a_test_file() -> None:
    """The plugin is part of every pytest run of whoever has the package."""
    program = (
        "import sys, nano_vm.pytest_plugin\n"
        "print([m for m in sys.modules if m.startswith('nano_vm.') and m != 'nano_vm.pytest_plugin'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    # what `import nano_vm` alone loads: a place for whoever draws, which imports nothing
    assert done.stdout.strip() == "['nano_vm.pictures']"
