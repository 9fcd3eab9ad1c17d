"""The canonical form of a program as text.

Fields in the language's order, aliases resolved, absent fields absent; what nobody would see is
escaped, long runs of spaces too, since a person reads the text to approve it. What is written is
read again first, and nothing goes out that does not say the same.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from ..errors import ProgramError, VMError
from ..visible import HIDDEN, safe_json
from .expr import EXPR
from .program import Program

FLOW_WIDTH = 80  # a list of scalars up to here stands on one line

_BLANKS = re.compile(r"(?<=\S) {8,}")  # that push what follows out of sight


def formatted(program: Program, *, json_form: bool = False) -> str:
    """The canonical form of *program*, checked to be the same program.

    Raises:
        VMError: If no text could be written that is.
    """
    document = program.to_dict()
    for write in (_as_json,) if json_form else (_as_yaml, _as_quoted_yaml):
        text = write(document)
        try:
            again = Program.from_json(text) if json_form else Program.from_yaml(text)
        except ProgramError:
            continue
        if again.digest == program.digest and json.dumps(again.to_dict()) == json.dumps(document):
            return text
    raise VMError("this program cannot be written as text that reads the same; nothing was changed")


def _as_json(document: Any) -> str:
    text = safe_json(json.dumps(document, ensure_ascii=False, indent=2))
    return _BLANKS.sub(lambda run: "\\u0020" * len(run[0]), text) + "\n"


class _Writer(yaml.SafeDumper):
    """YAML that reads the same by 1.2 and by 1.1: strings that either takes for something else are
    quoted.
    """

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Lists stand deeper than their key."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Every value is written out."""
        return True


def _text(writer: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None
    if HIDDEN.search(text.replace("\n", "")) or _BLANKS.search(text):
        style = '"'  # the only form that has escapes
    elif "\n" in text and _fits_block(text):
        style = "|"
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _quoted(writer: yaml.SafeDumper, text: str) -> yaml.Node:
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style='"')


def _fits_block(text: str) -> bool:
    """Whether every line can stand as it is in a block of text."""
    lines = text.split("\n")
    return not text.startswith((" ", "\n")) and all(
        line.isprintable() and line == line.rstrip() for line in lines
    )


def _list(writer: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    scalars = all(item is None or type(item) in (str, int, float, bool) for item in items)
    short = (
        scalars
        and sum(len(str(item)) + 2 for item in items) <= FLOW_WIDTH
        and not any("\n" in str(i) for i in items)
    )
    return writer.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=short)


def _dict(writer: yaml.SafeDumper, items: dict[str, Any]) -> yaml.Node:
    short = not items or (
        list(items) == [EXPR] and type(items[EXPR]) is str and len(items[EXPR]) <= FLOW_WIDTH
    )
    # items(): not sorted
    return writer.represent_mapping("tag:yaml.org,2002:map", items.items(), flow_style=short)


class _QuotedWriter(_Writer):
    """Every text in double quotes: for what the readable form cannot carry."""


_Writer.add_representer(str, _text)
_Writer.add_representer(list, _list)
_Writer.add_representer(dict, _dict)
_QuotedWriter.add_representer(str, _quoted)

# Numbers of YAML 1.2 that PyYAML, a reader of 1.1, takes for texts.
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z", re.ASCII)
_Writer.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Writer.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _as_yaml(document: Any) -> str:
    text: str = yaml.dump(
        document, Dumper=_Writer, allow_unicode=True, width=1 << 20, sort_keys=False
    )
    return _BLANKS.sub(lambda run: "\\x20" * len(run[0]), HIDDEN.sub(_escape, text))


def _escape(match: re.Match[str]) -> str:
    """What is hidden stands in double quotes, as `_text` writes it; line breaks are the document's
    own.
    """
    char = match[0]
    return (
        char
        if char == "\n"
        else f"\\U{ord(char):08x}"
        if ord(char) > 0xFFFF
        else f"\\u{ord(char):04x}"
    )


def _as_quoted_yaml(document: Any) -> str:
    text: str = yaml.dump(document, Dumper=_QuotedWriter, width=1 << 20, sort_keys=False)
    return text
