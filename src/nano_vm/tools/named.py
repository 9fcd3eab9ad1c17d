"""Where tools are, as it is written: ``file.py:object``, ``module:object``, or either without an
object. Nothing is imported here.
"""

from __future__ import annotations

import re

_OBJECT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


def is_dotted(name: str) -> bool:
    """Whether *name* may be a module's, or an object's in one."""
    return _OBJECT.match(name) is not None


def parts_of(spec: str) -> tuple[str, str]:
    """The file or module of *spec*, and the object in it, empty where none is named."""
    source, _, name = spec.rpartition(":")
    return (source, name) if source and is_dotted(name) else (spec, "")  # C:\tools.py has a colon


def tools_file(spec: str) -> str | None:
    """The file that tools are in; None where it is a module, which Python finds."""
    source, _ = parts_of(spec)
    return source if source.endswith(".py") else None
