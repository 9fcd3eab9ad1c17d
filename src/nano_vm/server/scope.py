"""What belongs to one project, for whoever may see it: runs as a `Library`, and statements on the
server's tables. What is of another project is as if it were not there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from ..errors import UnknownRun
from ..store.protocol import RunFilter, TableStore
from ..store.records import StoredRun
from ..ui.asking import Asking, asked
from ..ui.library import FoundList, RunList, StoreLibrary
from ..values import parse_json
from .problems import Problem
from .rows import Prepared, Tables
from .tables import projects

SHOWN_IDS = 5
"""Runs that a short id could mean and that are named."""


_SETTINGS = Prepared(
    sa.select(projects.c.settings).where(projects.c.name == sa.bindparam("project"))
)


class Scope(StoreLibrary):
    """The runs and rows of *project*."""

    def __init__(self, store: TableStore, project: str) -> None:
        super().__init__(store)
        self.project = project
        self.tables = Tables(store)

    def page(self, filter: RunFilter, after: str | None = None) -> RunList:
        """As `Library.page`."""
        return super().page(self.within(filter), after)

    def search(self, filter: RunFilter, text: str, after: str | None = None) -> FoundList:
        """As `Library.search`."""
        return super().search(self.within(filter), text, after)

    def within(self, filter: RunFilter) -> RunFilter:
        """*filter*, of this project."""
        return replace(filter, project=self.project)

    def settings(self) -> dict[str, Any]:
        """What the project's admins have set."""
        with self.tables.reading() as rows:
            found = rows.one(_SETTINGS, project=self.project)
        return parse_json(found.settings) if found is not None else {}

    def header(self, run_id: str) -> StoredRun:
        """As `StoreLibrary.header`; a run of another project is none."""
        return self._own(super().header(run_id))

    def find(self, text: str) -> str:
        """The id of the run that *text* is, or is the beginning of.

        Raises:
            UnknownRun: If the project has none.
            Problem: If it has several.
        """
        found = self.store.ids_starting_with(text, SHOWN_IDS + 1, project=self.project)
        if text in found or len(found) == 1:
            return text if text in found else found[0]
        if not found:
            raise UnknownRun(f"there is no run {text!r}")
        some = ", ".join(found[:SHOWN_IDS]) + (", ..." if len(found) > SHOWN_IDS else "")
        raise Problem(409, "ambiguous", f"{text!r} begins the id of several runs: {some}")

    def recorded(self, run_id: str) -> StoredRun:
        """As `Library.recorded`."""
        return self._own(super().recorded(run_id))

    def asked(self) -> tuple[list[Asking], list[str]]:
        """As `Library.asked`."""
        return asked(self.store, self.project)

    def select(self, table: sa.Table, *columns: Any) -> sa.Select[Any]:
        """A SELECT of the project's rows of *table*."""
        return sa.select(*(columns or (table,))).where(table.c.project == self.project)

    def update(self, table: sa.Table) -> sa.Update:
        """An UPDATE of the project's rows of *table*."""
        return sa.update(table).where(table.c.project == self.project)

    def delete(self, table: sa.Table) -> sa.Delete:
        """A DELETE of the project's rows of *table*."""
        return sa.delete(table).where(table.c.project == self.project)

    def insert(self, table: sa.Table, **values: Any) -> sa.Insert:
        """An INSERT of a row of *table* into the project."""
        return sa.insert(table).values(project=self.project, **values)

    def _own(self, run: StoredRun) -> StoredRun:
        if run.project != self.project:
            raise UnknownRun(f"there is no run {run.run_id!r}")
        return run
