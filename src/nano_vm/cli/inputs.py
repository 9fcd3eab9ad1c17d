"""The inputs that the command line gives a program. Anything wrong is a `UsageFault`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ProgramError
from ..language.flow import Flow
from ..language.program import Program
from ..spelling import meant
from ..values import parse_json, short
from .faults import UsageFault

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
            text = text_of(text[1:], f"-i {key}")
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
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageFault(f"{what}: can not read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageFault(f"{what}: {path} is not UTF-8: byte {error.start}") from None
    except ValueError as error:  # a NUL in the name
        raise UsageFault(f"{what}: can not read {path!r}: {error}") from None


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
