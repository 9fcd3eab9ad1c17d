"""The inputs that the command line gives a program. Anything wrong is a `UsageFault`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ProgramError, VMError
from ..language.flow import Flow
from ..language.program import Program
from ..language.schemas import schema_check
from ..spelling import meant
from ..values import admit, parse_json, short
from .faults import UsageFault
from .stdin import STDIN, standard_input

JSON_WORDS = ("true", "false", "null")
"""Strings that are rarely meant as strings."""

_INPUT = re.compile(r"(.+?)(:?=)(.*)\Z", re.DOTALL)


def read_inputs(
    given: Sequence[str], file: str | None, program: Program | None = None
) -> dict[str, Any]:
    """The inputs of a run: those of *file*, and over them each ``key=text``, ``key:=json``,
    ``key=@file``.

    A string is read as JSON where *program* declares an input that no string can be.
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
            text = text_of(text[1:], f"-i {key}")
        if kind == "=":
            inputs[key] = _as_declared(program, key, text)
            continue
        try:
            inputs[key] = parse_json(text)
        except ValueError as error:
            raise UsageFault(
                f"-i {key}:= takes JSON, not {short(text)}: {error}; for a string write {key}=..."
            ) from None
    return inputs


def _as_declared(program: Program | None, key: str, text: str) -> Any:
    """*text*, or the value that it is as JSON where the program's schema refuses the text and takes
    the value.
    """
    schema = program.inputs if program is not None else None
    declared = (schema or {}).get("properties", {}).get(key)
    if schema is None or declared is None:
        return text
    kept = ("$schema", "$defs", "definitions", "properties")  # not what other inputs must be
    check = schema_check({name: schema[name] for name in kept if name in schema})
    if check({key: text}) is None:
        return text
    try:
        value = parse_json(text)
    except ValueError:
        return text
    # of two that do not fit, the fault to be reported is that of the type that was meant
    fits = _is_value(value) and check({key: value}) is None
    return value if fits or not _takes_strings(declared) else text


def _is_value(given: Any) -> bool:
    """Whether a run can have it: JSON can say half a character, and a number of any length."""
    try:
        admit(given)
    except VMError:
        return False
    return True


def _takes_strings(declared: Any) -> bool:
    types = declared.get("type", "string") if isinstance(declared, dict) else "string"
    return "string" in ([types] if isinstance(types, str) else types)


def misread_inputs(given: Sequence[str], program: Program) -> Iterator[str]:
    """What to say of each ``key=text`` that may be meant as another value than the string that it
    is: where the program declares no string, and where it declares nothing.
    """
    properties = (program.inputs or {}).get("properties", {})
    for entry in given:
        key, _, text = entry.partition("=")
        if key.endswith(":") or text.startswith("@"):
            continue
        if key not in properties and text in JSON_WORDS:
            yield (
                f"-i {key}={text} gives a string; for {text} write -i {key}:={text}, or declare the "
                f"type of {key!r} in the program's inputs"
            )
        elif not _takes_strings(properties.get(key)) and _as_declared(program, key, text) is text:
            yield (
                f"-i {key}=... is a string here, and the program declares another type; write JSON:"
                f" a number, true, null, or a list such as -i {key}='[1, 2]'"
            )


def _input_file(path: str) -> dict[str, Any]:
    from ..language.reader import read_text

    text = text_of(path, "--input-file")
    try:
        data = parse_json(text) if path.endswith(".json") else read_text(text, file=path)
    except ProgramError as error:
        raise UsageFault(f"--input-file: {error.diagnostics[0]}") from None
    except ValueError as error:
        raise UsageFault(f"--input-file: {path}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise UsageFault(f"--input-file: {path}: an object of inputs is needed, not {short(data)}")
    return data


def text_of(path: str, what: str) -> str:
    try:
        data = standard_input(what).read() if path == STDIN else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageFault(f"{what}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageFault(f"{what}: {path} is not UTF-8: byte {error.start}") from None
    except ValueError as error:  # a NUL in the name
        raise UsageFault(f"{what}: cannot read {path!r}: {error}") from None


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
