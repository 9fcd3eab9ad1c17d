"""Build what is published, and try it as who installs it does.

``make dist`` runs it: sdist and wheel in ``dist/``, held by twine; the wheel is installed into an
empty environment of each Python that the machine has, where a project of each template is made,
checked, tested and looked at as on a save; what it consists of is written beside it as a CycloneDX SBOM.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
OLDEST = (3, 11)
NEWEST_TRIED = 20
"""The minor version up to which Pythons are looked for: newer ones than are supported, too."""

LICENSES = ("nano_vm/ui/dist/LICENSES.md", "nano_vm/ui/dist/LICENSES-editor.md")
"""In the wheel: the libraries that the scripts of the pages and of the editor consist of, which
`make ui` writes.
"""

ALLOWED = frozenset(
    "0BSD Apache-2.0 BSD-2-Clause BSD-3-Clause ISC MIT MPL-2.0 PSF-2.0 Python-2.0 Unlicense".split()
)
"""Licences under which what is bundled may be passed on."""

TEMPLATES = ("guardrail", "approval", "map", "agentic-review", "rag")
"""Those of ``nano-vm init``: a project of each is made and tried."""

IN_PROJECT = (
    "check program.yaml --strict",
    "test --min-coverage 100",
    "dev program.yaml --once",
    "schema",
)
"""What the installed command is tried with in each."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", help="try the wheel on this Python alone")
    given = parser.parse_args()
    shutil.rmtree(DIST, ignore_errors=True)
    run([sys.executable, "-m", "hatchling", "build", "-d", str(DIST)])
    (wheel,) = DIST.glob("*.whl")
    run([sys.executable, "-m", "twine", "check", "--strict", *map(str, DIST.iterdir())])
    bundled = bundled_libraries(wheel)
    if refused := [name for name, _, terms in bundled if terms not in ALLOWED]:
        sys.exit(f"dist: may not be passed on under our licence: {', '.join(refused)}")
    installed: list[tuple[str, str, str]] = []
    for python in given.python or pythons():
        version, found = tried(wheel, python)
        print(f"dist: the wheel works on Python {version}", flush=True)
        installed = installed or found
    if not installed:
        sys.exit("dist: there is no Python to try the wheel on")
    target = wheel.with_suffix(".cdx.json")
    target.write_text(json.dumps(sbom(wheel, installed, bundled), indent=1) + "\n")
    for path in sorted(DIST.iterdir()):
        print(f"dist: {path.relative_to(ROOT)} ({path.stat().st_size:,} bytes)")


def run(command: list[str], **more: Any) -> str:
    """What *command* prints; it ends this process where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    if done.returncode:
        sys.exit(f"dist: {' '.join(command[:6])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def pythons() -> list[str]:
    """A Python of each version that the package may run on: on the path, or pyenv's."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for minor in range(OLDEST[1], NEWEST_TRIED):
        version = f"3.{minor}"
        for python in (shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python3")):
            if python is not None and works(str(python)):
                found.setdefault(version, str(python))
    return [found[version] for version in sorted(found, key=lambda one: int(one[2:]))]


def works(python: str) -> bool:
    """Whether it can make an environment."""
    done = subprocess.run(
        [python, "-c", "import ensurepip, venv"], capture_output=True, check=False
    )
    return done.returncode == 0


def tried(wheel: Path, python: str) -> tuple[str, list[tuple[str, str, str]]]:
    """The version of *python*, and name, version and licence of what the wheel brings there."""
    with tempfile.TemporaryDirectory() as folder:
        run([python, "-m", "venv", folder])
        binary = Path(folder) / ("Scripts" if os.name == "nt" else "bin")
        own = str(binary / "python")
        pip = [own, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
        run([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)])
        plain = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        command = str(binary / "nano-vm")
        run([command, "--version"], cwd=folder, env=plain)
        for template in TEMPLATES:
            run([command, "init", template, "--template", template], cwd=folder, env=plain)
            for arguments in IN_PROJECT:
                at = Path(folder) / template
                run([command, *arguments.split()], cwd=at, env=plain)
        names = "import nano_vm; [getattr(nano_vm, n) for n in nano_vm.__all__]"
        run([own, "-c", names], cwd=folder)
        version = run([own, "-c", "import platform; print(platform.python_version())"]).strip()
        return version, json.loads(run([own, "-c", INSTALLED]))


INSTALLED = """
import json
from importlib.metadata import distributions

def license(of):
    if of.get("License-Expression"):
        return of["License-Expression"]
    classified = [c.split(" :: ")[-1] for c in of.get_all("Classifier", []) if "License ::" in c]
    return ", ".join(classified) or (of.get("License") or "").split("\\n")[0][:60]

own = {"llm-nano-vm", "pip", "setuptools", "wheel"}
found = [(d.metadata["Name"], d.version, license(d.metadata)) for d in distributions()]
print(json.dumps(sorted(one for one in found if one[0].lower() not in own)))
"""
"""Prints name, version and licence of what is installed, as JSON."""

_ENTRY = re.compile(r"^## (.+) - (\S+) \((.+)\)$", re.MULTILINE)


def bundled_libraries(wheel: Path) -> list[tuple[str, str, str]]:
    """Name, version and licence of each library in the pages' scripts."""
    libraries: dict[tuple[str, str, str], None] = {}
    with zipfile.ZipFile(wheel) as file:
        for licenses in LICENSES:
            if licenses not in file.namelist():
                sys.exit(f"dist: the wheel has no {licenses}; run make clean ui")
            found = _ENTRY.findall(file.read(licenses).decode())
            if not found:
                sys.exit(f"dist: {licenses} lists nothing")
            libraries |= dict.fromkeys((name, version, terms) for name, version, terms in found)
    return list(libraries)


def sbom(
    wheel: Path, installed: list[tuple[str, str, str]], bundled: list[tuple[str, str, str]]
) -> dict[str, Any]:
    """What *wheel* consists of and brings, as CycloneDX 1.6."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    parts = [
        *(component("pypi", "required", *one) for one in installed),
        *(component("npm", "required", *one) for one in bundled),
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": project["name"],
                "version": project["version"],
                "purl": own,
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": parts,
        "dependencies": [{"ref": own, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def component(kind: str, scope: str, name: str, version: str, terms: str) -> dict[str, Any]:
    """One part."""
    quoted = name.replace("@", "%40") if kind == "npm" else name.lower().replace("_", "-")
    purl = f"pkg:{kind}/{quoted}@{version}"
    held = {"expression": terms} if terms in ALLOWED else {"license": {"name": terms}}
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "scope": scope,
        "purl": purl,
        **({"licenses": [held]} if terms else {}),
    }


if __name__ == "__main__":
    main()
