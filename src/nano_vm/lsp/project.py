"""What a program's host has, as far as an editor can know: tools, models and policy of the project.

The folder of a program goes in; what `nano-vm.toml` in it, or in a folder above it, names comes
out. Tools are imported by whoever starts the server, since that runs code; what cannot be read has
a reason, and the rest is there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from ..adapters.hostfile import HOST_FILE, Project, read_project
from ..errors import ProgramError, VMError
from ..language.policy import Policy
from ..tools.contract import ToolContract, contract
from ..tools.named import parts_of, tools_file

MAX_UP = 8
"""Folders above a program in which its project is looked for."""

LoadTools = Callable[[str], Mapping[str, Callable[..., Any]]]
"""Imports the tools that ``tools.py:tools`` names."""


@dataclass(frozen=True, slots=True)
class Known:
    """A project: its tools, or why they are not known."""

    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    contracts: dict[str, ToolContract] | None = None  # None: nothing is known of them
    models: tuple[str, ...] = ()
    policy: Policy | None = None
    policy_file: Path | None = None
    root: Path | None = None  # the folder of its host file
    faults: tuple[str, ...] = ()


class Projects:
    """The projects of the programs that are open, each read again when its files change: the host
    file, the file or module of its tools, and its policy. What a tools' module itself imports is
    not imported again.
    """

    def __init__(self, load_tools: LoadTools | None) -> None:
        self.load_tools = load_tools
        self._kept: dict[Path, tuple[_Stamps, Known]] = {}
        self._last: dict[Path | None, Known] = {}
        self._imported: dict[str, tuple[int, int] | None] = {}
        self._lock = Lock()  # documents are looked at in several threads; tools are imported once

    def of(self, file: Path | None) -> Known:
        """That of a program in *file*, as its files are now."""
        host = _above(file) if file is not None else None
        with self._lock:
            found = self._last[file] = self._at(host) if host is not None else Known()
        return found

    def last(self, file: Path | None) -> Known:
        """That of a program in *file*, as `of` found it last: nothing is read."""
        found = self._last.get(file)
        return found if found is not None else self.of(file)

    def _at(self, host: Path) -> Known:
        kept = self._kept.get(host)
        if kept is not None and kept[0] == _stamps(kept[0]):
            return kept[1]
        try:
            said = read_project(host)
        except VMError as error:
            self._kept[host] = _stamps([host]), Known(root=host.parent, faults=(str(error),))
            return self._kept[host][1]
        # before they are read: what changes meanwhile is read again
        stamps = _stamps([host, *_files_of(said)])
        known = self._read(host, said)
        self._kept[host] = {**_stamps(_files_of(said)), **stamps}, known
        return known

    def _read(self, host: Path, said: Project) -> Known:
        faults: list[str] = []
        functions: Mapping[str, Callable[..., Any]] = {}
        contracts = policy = None
        if said.tools is not None and self.load_tools is not None:
            self._forget(said.tools)
            try:
                functions = self.load_tools(said.tools)
                self._imported |= _module_stamp(said.tools)
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
        file = Path(said.policy) if said.policy is not None else None
        return Known(functions, contracts, said.models, policy, file, host.parent, tuple(faults))

    def _forget(self, spec: str) -> None:
        """Have a module imported anew whose file has changed since it was imported for tools."""
        for module, stamp in _module_stamp(spec).items():
            if self._imported.get(module, stamp) != stamp:
                del sys.modules[module]


def _above(file: Path) -> Path | None:
    for folder in [*file.parents][:MAX_UP]:
        host = folder / HOST_FILE
        if host.is_file():
            return host
        if (folder / ".git").exists():
            return None
    return None


_Stamps = dict[Path, "tuple[int, int] | None"]
"""Time and size of files; None of one that is not there."""


def _stamps(files: Iterable[Path]) -> _Stamps:
    return {file: _stamp(file) for file in files}


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        known = os.stat(file)
    except OSError:
        return None
    return known.st_mtime_ns, known.st_size


def _files_of(said: Project) -> list[Path]:
    """The files of a project beside its host file; that of a module where it has been imported."""
    found = [said.policy]
    if said.tools is not None:
        found.append(tools_file(said.tools) or _module_file(parts_of(said.tools)[0]))
    return [Path(file) for file in found if file is not None]


def _module_file(name: str) -> str | None:
    return getattr(sys.modules.get(name), "__file__", None)


def _module_stamp(spec: str) -> dict[str, tuple[int, int] | None]:
    """By the module that *spec* names, if it names one that has been imported, its file's."""
    name, _ = parts_of(spec)
    file = _module_file(name) if tools_file(spec) is None else None
    return {name: _stamp(Path(file))} if file is not None else {}
