"""Versions of programs that were put into a project, as all that is asked of one needs them."""

from __future__ import annotations

from functools import lru_cache

import sqlalchemy as sa

from ..language.program import Program
from ..values import parse_json
from .problems import Problem
from .rows import Prepared, Row, Rows
from .scope import Scope
from .tables import programs

KEPT_PROGRAMS = 256
"""Programs that are not read anew at each start."""

_NAMED = sa.select(programs).where(
    programs.c.project == sa.bindparam("project"), programs.c.name == sa.bindparam("name")
)
_NEWEST = Prepared(_NAMED.order_by(programs.c.version.desc()).limit(1))
_VERSION = Prepared(_NAMED.where(programs.c.version == sa.bindparam("version")))


def program_of(scope: Scope, name: str, version: int | None) -> tuple[Row, Program]:
    """A version of a program, or the newest.

    Raises:
        Problem: If there is none.
    """
    with scope.tables.reading() as rows:
        return program_in(rows, scope.project, name, version)


def program_in(rows: Rows, project: str, name: str, version: int | None) -> tuple[Row, Program]:
    """As `program_of`, in a transaction that is open."""
    if version is None:
        row = rows.one(_NEWEST, project=project, name=name)
    else:
        row = rows.one(_VERSION, project=project, name=name, version=version)
    if row is None:
        told = f"version {version} of program {name!r}" if version is not None else repr(name)
        raise Problem(404, "not-found", f"there is no program {told} in this project")
    return row, parsed_program(row.document)


@lru_cache(maxsize=KEPT_PROGRAMS)
def parsed_program(document: str) -> Program:
    """A program, which is the same object as long as it is kept: hosts know what they have checked."""
    return Program.from_dict(parse_json(document))
