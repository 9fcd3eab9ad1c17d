"""What is published: the SBOM, the licences of what is bundled, and the workflows that publish it.

`make dist` itself builds for minutes, and is run before a release.
"""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from loading import loaded

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def distribution() -> ModuleType:
    return loaded("scripts/distribution.py")


def test_what_git_ignores_stands_in_one_file_which_is_all_that_the_sdist_is_made_by() -> None:
    others = [path for path in ROOT.glob("[!.]*/.gitignore") if path.parent.name != "site"]
    assert others == []
    assert "benchmarks/.envs/" in (ROOT / ".gitignore").read_text().splitlines()


EDITOR = "# Licenses\n\n## d3 - 3.0 (BSD-3-Clause)\n\n## edit - 6.0 (MIT)\n"


def wheel(folder: Path, licenses: str | None, editor: str | None = EDITOR) -> Path:
    path = folder / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("nano_vm/__init__.py", "")
        if licenses is not None:
            file.writestr("nano_vm/ui/dist/LICENSES.md", licenses)
        if editor is not None:
            file.writestr("nano_vm/ui/dist/LICENSES-editor.md", editor)
    return path


def test_bundled_libraries_are_read_with_their_licences(
    distribution: ModuleType, tmp_path: Path
) -> None:
    text = "# Licenses\n\n## @a/b - 1.2.3 (MIT)\n\nwords\n\n## d3 - 3.0 (BSD-3-Clause)\n"
    found = distribution.bundled_libraries(wheel(tmp_path, text))
    assert found == [
        ("@a/b", "1.2.3", "MIT"),
        ("d3", "3.0", "BSD-3-Clause"),
        ("edit", "6.0", "MIT"),
    ]


@pytest.mark.parametrize("licenses", [None, "", "# Licenses\n"])
def test_a_wheel_that_does_not_say_what_it_bundles_is_refused(
    distribution: ModuleType, tmp_path: Path, licenses: str | None
) -> None:
    with pytest.raises(SystemExit, match=r"dist: .*LICENSES\.md"):
        distribution.bundled_libraries(wheel(tmp_path, licenses))


def test_what_the_editor_bundles_is_said_too(distribution: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"dist: .*LICENSES-editor\.md"):
        distribution.bundled_libraries(wheel(tmp_path, EDITOR, None))


def test_the_sbom_names_each_part_once_with_its_licence(distribution: ModuleType) -> None:
    bom = distribution.sbom(
        Path("x.whl"), [("PyYAML", "6", "MIT"), ("odd", "1", "")], [("@a/b", "2", "MIT")]
    )
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    own = bom["metadata"]["component"]
    assert own["purl"] == f"pkg:pypi/llm-nano-vm@{PROJECT['version']}"
    assert [part["purl"] for part in bom["components"]] == [
        "pkg:pypi/pyyaml@6",
        "pkg:pypi/odd@1",
        "pkg:npm/%40a/b@2",
    ]
    assert bom["components"][0]["licenses"] == [{"expression": "MIT"}]
    assert "licenses" not in bom["components"][1]
    (depends,) = bom["dependencies"]
    assert depends["dependsOn"] == [part["bom-ref"] for part in bom["components"]]


def test_pythons_of_the_machine_are_those_that_make_environments(
    distribution: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribution, "works", lambda python: "3.13" not in python)
    monkeypatch.setattr(distribution.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setenv("PYENV_ROOT", "/nowhere")
    found = distribution.pythons()
    assert not [python for python in found if "3.13" in python]
    assert [python for python in found if python.endswith("3.19")] == ["/bin/python3.19"]


def workflow(name: str) -> dict[str, object]:
    text = (ROOT / ".github" / "workflows" / name).read_text()
    found: dict[str, object] = yaml.safe_load(text)
    return found


def test_ci_runs_what_must_pass_on_each_python_that_the_package_names() -> None:
    job = workflow("ci.yml")["jobs"]["test"]  # type: ignore[index]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert job["strategy"]["matrix"]["python"] == named
    assert (ROOT / ".ci" / "run").exists()


def test_a_release_is_tested_first_and_published_without_a_key() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text()
    jobs = workflow("release.yml")["jobs"]
    assert jobs["build"]["needs"] == "test"  # type: ignore[index]
    assert jobs["publish"]["needs"] == "build"  # type: ignore[index]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}  # type: ignore[index]
    assert "secrets." not in text


@pytest.mark.parametrize("name", ["bug.yml", "feature.yml", "config.yml"])
def test_issue_templates_are_yaml(name: str) -> None:
    found = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / name).read_text())
    assert isinstance(found, dict)


@pytest.mark.parametrize("page", ["SECURITY.md", "CODE_OF_CONDUCT.md"])
def test_what_these_pages_lead_to_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert link.startswith("https://") or (ROOT / link).exists(), link
