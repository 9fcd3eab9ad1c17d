"""Wheel and sdist carry the built pages: who installs them needs no Node."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from loading import loaded

from nano_vm.ui.page import EDITOR, SCRIPT, asset

ROOT = Path(__file__).parents[2]
PAGES = {
    "index.html",
    "assets/app.js",
    "assets/app.css",
    "assets/editor.js",
    "LICENSES.md",
    "LICENSES-editor.md",
}
TEMPLATES = ROOT / "src/nano_vm/cli/templates"

MAIN_BUNDLE_BYTES = 250_000
"""Of the script, compressed: a page of a run is there at once, on a slow line too."""


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_pages_and_nothing_of_node(built: None, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        assert {f"nano_vm/ui/dist/{page}" for page in PAGES} <= set(names)
        templates = {
            path.relative_to(ROOT / "src").as_posix()
            for path in TEMPLATES.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert templates <= set(names)
        script = wheel.getinfo("nano_vm/ui/dist/assets/app.js")
        assert script.compress_size < MAIN_BUNDLE_BYTES
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        packed = sdist.getnames()
    inside = {name.partition("/")[2] for name in packed}
    assert {f"src/nano_vm/ui/dist/{page}" for page in PAGES} <= inside
    assert {"ui/package.json", "ui/src/main.tsx", "hatch_build.py"} <= inside
    assert not [name for name in [*names, *packed] if "node_modules" in name]


def test_the_editor_is_a_script_of_its_own_and_the_pages_stay_small(built: None) -> None:
    pages, editor = asset(SCRIPT), asset(EDITOR)
    assert len(gzip.compress(pages)) < MAIN_BUNDLE_BYTES
    assert b"cm-content" in editor
    assert b"cm-content" not in pages


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The build hook of a tree whose pages are not built, on a machine without npm."""
    module: Any = loaded("hatch_build.py")
    monkeypatch.setattr(module, "DIST", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NANO_VM_SKIP_UI", raising=False)
    return module.PagesHook(str(ROOT), {}, None, None, str(tmp_path), "wheel")


def test_a_package_without_pages_is_not_built_unseen(hook: Any) -> None:
    with pytest.raises(RuntimeError, match="npm"):
        hook.initialize("standard", {})


def test_pages_without_their_editor_are_not_built(hook: Any, tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    with pytest.raises(RuntimeError, match="npm"):
        hook.initialize("standard", {})
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "editor.js").touch()
    hook.initialize("standard", {})


def test_an_editable_installation_and_who_wants_none_build_no_pages(
    hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.initialize("editable", {})
    monkeypatch.setenv("NANO_VM_SKIP_UI", "1")
    hook.initialize("standard", {})
