"""Settings for editors: each file can be read, and starts the server as the command line has it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from nano_vm.cli.commands.init import PROGRAM_SCHEMA, TESTS_SCHEMA

ROOT = Path(__file__).parents[1]
EDITORS = ROOT / "editors"
PACKAGE = json.loads((EDITORS / "vscode/package.json").read_text())


def test_every_editor_starts_the_same_command() -> None:
    helix = tomllib.loads((EDITORS / "helix.toml").read_text())
    server = helix["language-server"]["nano-vm"]
    properties = PACKAGE["contributes"]["configuration"]["properties"]
    assert [server["command"], *server["args"]] == ["nano-vm", "lsp"]
    assert properties["nanoVm.command"]["default"] == ["nano-vm", "lsp"]
    assert 'cmd = { "nano-vm", "lsp" }' in (EDITORS / "neovim.lua").read_text()
    assert "`nano-vm lsp`" in (EDITORS / "jetbrains.md").read_text()


def test_the_schemas_that_they_name_are_those_that_init_writes() -> None:
    zed = json.loads((EDITORS / "zed.json").read_text())
    settings = zed["lsp"]["yaml-language-server"]["settings"]
    assert set(settings["yaml"]["schemas"]) == {PROGRAM_SCHEMA, TESTS_SCHEMA}
    page = (EDITORS / "jetbrains.md").read_text()
    assert PROGRAM_SCHEMA in page
    assert TESTS_SCHEMA in page


def test_the_extension_asks_what_the_server_answers() -> None:
    source = (EDITORS / "vscode/src/extension.ts").read_text()
    server = (ROOT / "src/nano_vm/lsp/server.py").read_text()
    asked = set(re.findall(r'"(nano-vm\.\w+)"', source))
    assert asked == {"nano-vm.graph"}
    assert asked <= set(re.findall(r'"(nano-vm\.\w+)"', server))
    commands = {one["command"] for one in PACKAGE["contributes"]["commands"]}
    assert commands == set(re.findall(r'registerCommand\("(\w+\.\w+)"', source))
    assert '"--no-tools"' in source
    assert (EDITORS / "vscode/LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_lock_file_holds_versions_and_hashes_and_no_address() -> None:
    lock = json.loads((EDITORS / "vscode/package-lock.json").read_text())
    packages = [one for name, one in lock["packages"].items() if name]
    assert packages
    assert not [one for one in packages if "resolved" in one or "integrity" not in one]
