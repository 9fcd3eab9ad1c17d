"""The pages of the UI are built into the wheel and the sdist, so that who installs them needs no Node.

A wheel that is built from the sdist finds them there. An editable installation is left as it is:
`make ui` builds them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
DIST = ROOT / "src" / "nano_vm" / "ui" / "dist"
BUILT = ("index.html", "assets/editor.js")  # of the two builds, one each


class PagesHook(BuildHookInterface):  # type: ignore[misc]
    """Builds ``ui/`` where it is not built."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a distribution is built."""
        if version == "editable" or os.environ.get("NANO_VM_SKIP_UI"):
            return
        if all((DIST / name).exists() for name in BUILT):
            return
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError(
                "the pages of the UI are not built, and there is no npm to build them: install "
                "Node 20 or newer, or set NANO_VM_SKIP_UI=1 for a package without them"
            )
        for command in ("ci", "run build"):
            subprocess.run([npm, *command.split()], cwd=ROOT / "ui", check=True)
