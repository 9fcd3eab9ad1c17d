"""What a program's host has, as far as an editor can know: tools, models and policy of the project.

The folder of a program goes in; what `nano-vm.toml` in it, or in a folder above it, names comes
out. Tools are imported by whoever starts the server, since that runs code; what cannot be read has
a reason, and the rest is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..adapters.hostfile import Project, read_project
from ..errors import ProgramError, VMError
from ..language.policy import Policy
from ..tools.contract import ToolContract, contract

HOST_FILE = "nano-vm.toml"

MAX_UP = 8
"""Folders above a program in which its project is looked for."""

LoadTools = Callable[[str], Mapping[str, Callable[..., Any]]]
"""Imports the tools that ``tools.py:tools`` names."""


@dataclass(slots=True)
class Known:
    """A project: its tools, or why they are not known; ``stamp`` changes with its files."""

    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    contracts: dict[str, ToolContract] | None = None  # None: nothing is known of them
    models: tuple[str, ...] = ()
    policy: Policy | None = None
    faults: tuple[str, ...] = ()
    stamp: Any = None


class Projects:
    """The projects of the programs that are open, each read again when its files change."""

    def __init__(self, load_tools: LoadTools | None) -> None:
        self.load_tools = load_tools
        self._known: dict[Path, Known] = {}

    def of(self, file: Path | None) -> Known:
        """That of a program in *file*."""
        host = _above(file) if file is not None else None
        if host is None:
            return Known()
        try:
            said = read_project(host)
        except VMError as error:
            return Known(faults=(str(error),))
        stamp = [_stamp(host), _stamp(_file_of(said.tools)), _stamp(said.policy)]
        known = self._known.get(host)
        if known is None or known.stamp != stamp:
            known = self._known[host] = self._read(said)
            known.stamp = stamp
        return known

    def _read(self, said: Project) -> Known:
        faults: list[str] = []
        functions: Mapping[str, Callable[..., Any]] = {}
        contracts = policy = None
        if said.tools is not None and self.load_tools is not None:
            try:
                functions = self.load_tools(said.tools)
                contracts = {name: contract(name, one) for name, one in functions.items()}
            except Exception as error:  # noqa: BLE001 - a project's own code, whatever it raises
                faults.append(str(error))
        if said.policy is not None:
            try:
                policy = Policy.from_file(said.policy)
            except ProgramError as error:
                faults += [str(d) for d in error.diagnostics[:3]]
            except VMError as error:
                faults.append(str(error))
        return Known(functions, contracts, said.models, policy, tuple(faults))


def _above(file: Path) -> Path | None:
    for folder in [*file.parents][:MAX_UP]:
        host = folder / HOST_FILE
        if host.is_file():
            return host
        if (folder / ".git").exists():
            return None
    return None


def _file_of(spec: str | None) -> str | None:
    if spec is None:
        return None
    return spec if spec.endswith(".py") else spec.rpartition(":")[0]


def _stamp(path: str | Path | None) -> Any:
    try:
        known = os.stat(path) if path else None
    except OSError:
        return None
    return (str(path), known.st_mtime_ns, known.st_size) if known is not None else None
