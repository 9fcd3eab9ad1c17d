"""The tools that the command line names, and stubs for a program that is only looked at. Anything
wrong is a `UsageFault`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ..errors import VMError
from ..language.policy import Policy
from ..language.program import Program
from ..language.programs import programs_in
from ..language.semantics import tool_calls
from ..tools.contract import ToolOptions, contract, name_of, options_of
from ..tools.named import is_dotted, parts_of, tools_file
from ..values import error_named
from .faults import UsageFault

Result = TypeVar("Result")


def load_tools(spec: str) -> dict[str, Callable[..., Any]]:
    """The tools that ``module:object`` or ``file.py:object`` names.

    The object is a dict of callables, a list of functions, or anything with functions that `tool`
    marks. Without an object it is the module's ``tools``, or else the module itself.
    """
    source, attribute = parts_of(spec)
    module = _named_module(source) if tools_file(spec) is None else _file_module(source)
    found: Any = module
    if not attribute and hasattr(module, "tools"):
        attribute = "tools"
    for part in attribute.split(".") if attribute else ():
        try:
            found = getattr(found, part)
        except AttributeError:
            raise UsageFault(f"--tools: {source} has no {attribute!r}") from None
    tools = _guarded(spec, lambda: _tools_in(found))
    if not tools:
        what = f"{attribute!r} of {source}" if attribute else source
        raise UsageFault(
            f"--tools: {what} holds no tools; give a dict of callables, or mark functions with "
            f"@tool"
        )
    for name, function in tools.items():
        try:
            contract(name, function)
        except VMError as error:
            raise UsageFault(f"--tools: {error}") from None
    return tools


def _tools_in(found: Any) -> dict[str, Any]:
    if isinstance(found, Mapping):
        return dict(found)
    if isinstance(found, (list, tuple)):
        return {_name(function): function for function in found}
    tools = {}
    for name in dir(found) if not callable(found) or isinstance(found, type) else ():
        if not name.startswith("_") and isinstance(
            options_of(member := getattr(found, name, None)), ToolOptions
        ):
            tools[_name(member)] = member
    return tools


def _name(function: Any) -> str:
    try:
        return name_of(function)
    except VMError as error:
        raise UsageFault(f"--tools: {error}") from None


def _file_module(path: str) -> ModuleType:
    file = Path(path)
    if not os.path.isfile(file):
        raise UsageFault(f"--tools: there is no file {path}")
    name = f"tools_file_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageFault(f"--tools: cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and type hints look for it
    _importable(str(file.parent.resolve()))
    loader = spec.loader
    _guarded(path, lambda: loader.exec_module(module))
    return module


def _named_module(name: str) -> ModuleType:
    if not is_dotted(name):
        raise UsageFault(f"--tools takes module:object or file.py:object, not {name!r}")
    _importable(os.getcwd())
    try:
        return _guarded(name, lambda: importlib.import_module(name))
    except ModuleNotFoundError as error:
        # what the module itself imports
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UsageFault(f"--tools: cannot load {name}: {error}") from None
        hint = f"; for a file write {name}.py" if os.path.isfile(f"{name}.py") else ""
        raise UsageFault(f"--tools: there is no module {name!r}{hint}") from None


def _importable(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _guarded(source: str, load: Callable[[], Result]) -> Result:
    """*load* runs the user's code: whatever it raises is reported with its place."""
    try:
        return load()
    except (KeyboardInterrupt, UsageFault):
        raise
    except BaseException as error:  # SystemExit too: an import is not to end the command
        if (
            isinstance(error, ModuleNotFoundError)
            and error.name
            and f"{source}.".startswith(f"{error.name}.")
        ):
            raise
        own = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "importlib" not in frame.filename
        ]
        place = (
            f" ({own[-1].filename}:{own[-1].lineno})"
            if own and own[-1].filename != __file__
            else ""
        )
        raise UsageFault(f"--tools: cannot load {source}: {error_named(error)}{place}") from None


def tool_names(program: Program, programs: Mapping[str, Program]) -> Iterator[str]:
    """Every tool that *program* and what it calls may call; a name can come twice."""
    for one in programs_in(program, programs):
        for step, _ in one.walk():
            yield from (call.tool for call in tool_calls(step))


def stub_tools(
    program: Program, programs: Mapping[str, Program], policy: Policy | None = None
) -> dict[str, Callable[..., Any]]:
    """For looking at a program without its tools: something that takes any arguments, for each
    name, also of *policy*.
    """

    async def stub(**_: Any) -> Any:
        raise AssertionError("a stub is never called")

    named = (
        [rule.pattern for rule in policy.tools if "*" not in rule.pattern]
        if policy is not None
        else []
    )
    return dict.fromkeys([*tool_names(program, programs), *named], stub)
