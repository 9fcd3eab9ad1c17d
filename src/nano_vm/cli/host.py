"""What the command line gives a program: inputs, tools, models, prices, budget. Anything wrong is a
`UsageFault`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ..errors import Diagnostic, ProgramError, VMError
from ..language.flow import Flow
from ..language.policy import Policy
from ..language.program import Program, ToolStep
from ..language.reader import MAX_PROGRAM_BYTES
from ..spelling import meant
from ..tools.contract import ToolOptions, contract, options_of
from ..values import kind_name, parse_json, short
from .faults import UsageFault

Result = TypeVar("Result")

# --- inputs ---------------------------------------------------------------------------------------

_INPUT = re.compile(r"(.+?)(:?=)(.*)\Z", re.DOTALL)


def read_inputs(given: Sequence[str], file: str | None) -> dict[str, Any]:
    """The inputs of a run: those of *file*, and over them each ``key=text``, ``key:=json``,
    ``key=@file``.
    """
    inputs = _input_file(file) if file is not None else {}
    seen: set[str] = set()
    for entry in given:
        match = _INPUT.match(entry)
        if match is None:
            raise UsageFault(f"-i takes key=text, key:=json or key=@file, not {entry!r}")
        key, kind, text = match.groups()
        if key in seen:
            raise UsageFault(f"-i gives {key!r} twice")
        seen.add(key)
        if text.startswith("@"):
            text = _text_of(text[1:], f"-i {key}")
        if kind == "=":
            inputs[key] = text
            continue
        try:
            inputs[key] = parse_json(text)
        except ValueError as error:
            raise UsageFault(
                f"-i {key}:= takes JSON, not {short(text)}: {error}; for a text write {key}=..."
            ) from None
    return inputs


def _input_file(path: str) -> dict[str, Any]:
    from ..language.reader import read_text

    text = _text_of(path, "--input-file")
    try:
        data = parse_json(text) if path.endswith(".json") else read_text(text, file=path)
    except ProgramError as error:
        raise UsageFault(f"--input-file: {error.diagnostics[0]}") from None
    except ValueError as error:
        raise UsageFault(f"--input-file: {path}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise UsageFault(f"--input-file: {path}: an object of inputs is needed, not {short(data)}")
    return data


def _text_of(path: str, what: str) -> str:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageFault(f"{what}: can not read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageFault(f"{what}: {path} is not UTF-8: byte {error.start}") from None
    except ValueError as error:  # a NUL in the name
        raise UsageFault(f"{what}: can not read {path!r}: {error}") from None


# --- tools ----------------------------------------------------------------------------------------

_ATTRIBUTE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


def load_tools(spec: str) -> dict[str, Callable[..., Any]]:
    """The tools that ``module:object`` or ``file.py:object`` names.

    The object is a dict of callables, a list of functions, or anything with functions that `tool`
    marks. Without an object it is the module's ``tools``, or else the module itself.
    """
    source, _, attribute = spec.rpartition(":")
    if not source or not _ATTRIBUTE.match(attribute):  # C:\tools.py has a colon as well
        source, attribute = spec, ""
    module = _file_module(source) if source.endswith(".py") else _named_module(source)
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
        return {_tool_name(function): function for function in found}
    tools = {}
    for name in dir(found) if not callable(found) or isinstance(found, type) else ():
        if not name.startswith("_") and isinstance(
            _options(member := getattr(found, name, None)), ToolOptions
        ):
            tools[_tool_name(member)] = member
    return tools


def _options(function: Any) -> Any:
    return options_of(function)


def _tool_name(function: Any) -> str:
    options = _options(function)
    declared = options.name if isinstance(options, ToolOptions) else None
    name = declared or getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise UsageFault(
            f"--tools: a {kind_name(function)} in a list has no name; give a dict of callables"
        )
    return name


def _file_module(path: str) -> ModuleType:
    file = Path(path)
    if not file.is_file():
        raise UsageFault(f"--tools: there is no file {path}")
    name = f"tools_file_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageFault(f"--tools: can not load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and type hints look for it
    _importable(str(file.parent.resolve()))
    loader = spec.loader
    _guarded(path, lambda: loader.exec_module(module))
    return module


def _named_module(name: str) -> ModuleType:
    if not _ATTRIBUTE.match(name):
        raise UsageFault(f"--tools takes module:object or file.py:object, not {name!r}")
    _importable(os.getcwd())
    try:
        return _guarded(name, lambda: importlib.import_module(name))
    except ModuleNotFoundError as error:
        # what the module itself imports
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UsageFault(f"--tools: can not load {name}: {error}") from None
        hint = f"; for a file write {name}.py" if Path(f"{name}.py").is_file() else ""
        raise UsageFault(f"--tools: there is no module {name!r}{hint}") from None


def _importable(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _guarded(source: str, load: Callable[[], Result]) -> Result:
    """*load* runs the user's code: whatever it raises is told with its place."""
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
        raise UsageFault(
            f"--tools: can not load {source}: {type(error).__name__}: {error}{place}"
        ) from None


def tool_names(program: Program, programs: Mapping[str, Program]) -> Iterator[str]:
    """Every tool that *program* and what it calls may call; a name can come twice."""
    work, seen = [program, *programs.values()], set()
    while work:
        at = work.pop()
        if id(at) in seen:
            continue
        seen.add(id(at))
        for step, _ in at.walk():
            if isinstance(step, ToolStep):
                yield step.tool
                yield from (call.tool for call in (step.undo, step.reconcile) if call is not None)
            elif isinstance(inner := getattr(step, "program", None), Program):
                work.append(inner)


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


# --- policy ---------------------------------------------------------------------------------------


def load_policy(path: str | None) -> Policy | None:
    """The policy in a file.

    Raises:
        UsageFault: If it can not be read.
        ProgramError: With every fault of it.
    """
    policy, faults = read_policy(path)
    if faults:
        raise ProgramError(faults)
    return policy


def read_policy(path: str | None) -> tuple[Policy | None, list[Diagnostic]]:
    """What can be read of the policy in a file, and what is wrong with it; see `Policy.readable`.

    Raises:
        UsageFault: If the file can not be read.
    """
    if path is None:
        return None, []
    text = _text_of(path, "--policy")
    if len(text) > MAX_PROGRAM_BYTES:
        raise UsageFault(f"--policy: {path} is too long to be a policy: {len(text):,} characters")
    return Policy.readable(text, file="<stdin>" if path == "-" else path)


# --- models ---------------------------------------------------------------------------------------

_NAMED_MODEL = re.compile(r"([\w.-]+)=(.+)\Z", re.DOTALL)


class StubModel:
    """For looking at a program without its model: takes any model and any option."""

    images = True

    async def complete(
        self, messages: list[dict[str, str]], options: Any = None, **kwargs: Any
    ) -> str:
        """Never called."""
        raise AssertionError("a stub is never called")


def load_models(specs: Sequence[str], base_url: str | None, answers: Sequence[str] = ()) -> Any:
    """What ``ExecutionVM(llm=...)`` takes: None, an adapter, or adapters by name where *specs* hold
    ``name=MODEL``.

    *answers* are those of ``--answer``: the steps that they name ask no model.
    """
    if base_url is not None and not specs:
        raise UsageFault("--base-url needs --model: the model's name on that server")
    adapters: dict[str | None, Any] = {}
    for spec in specs:
        match = _NAMED_MODEL.match(spec)
        name, wanted = match.groups() if match else (None, spec)
        if name in adapters:
            raise UsageFault(
                f"--model gives {name!r} twice"
                if name
                else "--model is given twice; name them: fast=MODEL"
            )
        adapters[name] = _adapter(wanted, base_url)
    if answers:
        from ..adapters.scripted import FREE, Overlaid, ScriptedLLM

        script = ScriptedLLM(steps=_answers(answers), price=FREE)
        adapters = {name: Overlaid(script, adapter) for name, adapter in adapters.items()} or {
            None: script
        }
    if not adapters:
        return None
    return adapters[None] if list(adapters) == [None] else adapters


def _answers(given: Sequence[str]) -> dict[str, Any]:
    """``step=text`` and ``step=@file`` by step; of a step that is given several times, the answers
    in order.
    """
    found: dict[str, list[str]] = {}
    for entry in given:
        step, separator, text = entry.partition("=")
        if not separator or not step:
            raise UsageFault(f"--answer takes STEP=TEXT or STEP=@FILE, not {entry!r}")
        found.setdefault(step, []).append(
            _text_of(text[1:], f"--answer {step}") if text.startswith("@") else text
        )
    return {step: texts if len(texts) > 1 else texts[0] for step, texts in found.items()}


def _adapter(model: str, base_url: str | None) -> Any:
    from ..adapters.names import adapter_named

    try:
        return adapter_named(model, base_url)
    except (VMError, ValueError) as error:
        if str(error).startswith("unknown model"):
            raise UsageFault(f"{error}, or any name with --base-url URL") from None
        raise UsageFault(f"--model {model}: {error}") from None


# --- amounts --------------------------------------------------------------------------------------


def read_budget(given: Sequence[str]) -> dict[str, Any] | None:
    """``max_tokens=1000`` and its kin."""
    from pydantic import ValidationError

    from ..language.policy import Budget

    budget: dict[str, Any] = {}
    for entry in given:
        name, separator, text = entry.partition("=")
        if not separator or name not in Budget.model_fields:
            raise UsageFault(
                f"--budget takes name=number, not {entry!r}; names are "
                f"{', '.join(Budget.model_fields)}"
            )
        try:
            budget[name] = parse_json(text)
            Budget.model_validate({name: budget[name]})
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]["msg"]
            raise UsageFault(
                f"--budget {name}: {fault[0].lower()}{fault[1:]}, not {text}"
            ) from None
        except ValueError:
            raise UsageFault(f"--budget {name} takes a number, not {text!r}") from None
    return budget or None


def read_prices(given: Sequence[str]) -> dict[str, tuple[str, str]] | None:
    """``model=input,output``, in dollars per million tokens."""
    prices = {}
    for entry in given:
        model, _, amounts = entry.rpartition("=")
        pair = amounts.split(",")
        if not model or len(pair) != 2:
            raise UsageFault(
                f"--price takes MODEL=INPUT,OUTPUT in dollars per million tokens, not {entry!r}"
            )
        prices[model] = (pair[0].strip(), pair[1].strip())
    return prices or None


def untrusted_inputs(
    given: Sequence[str], program: Program, programs: Mapping[str, Program]
) -> list[str]:
    """The inputs that are called untrusted; a name that is none would leave the one that was meant
    trusted.
    """
    known = list(Flow(program, programs).frames[0].names.keys) if given else []
    for name in given:
        if name not in known:
            hint = meant(name, known, otherwise=f"it reads {', '.join(known) or 'none'}")
            raise UsageFault(f"--untrusted: the program reads no input {name!r}; {hint}")
    return list(given)


_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def read_digests(given: Sequence[str]) -> list[str]:
    """Digests of programs, as `nano-vm plan` prints them."""
    for digest in given:
        if not _DIGEST.match(digest):
            raise UsageFault(
                f"--approve takes the digest of a program, 64 hexadecimal digits, not {digest!r}"
            )
    return list(given)
