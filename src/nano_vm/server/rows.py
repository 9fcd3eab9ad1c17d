"""Rows of the server's tables: statements of SQLAlchemy Core, executed on the store's own
connections, so that they share its transactions.

Rule: a statement on a table that has projects says of which project it is; one that does not is
an error of ours, and is not executed. What is of all projects says that by `everywhere`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Executable, Insert, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import BinaryExpression

from ..store.protocol import TableStore, Transaction

T = TypeVar("T")

_EVERYWHERE = "nano_vm_everywhere"

_DIALECTS = {
    "SQLite": sqlite.dialect(paramstyle="qmark"),
    "PostgreSQL": postgresql.dialect(paramstyle="qmark"),  # type: ignore[no-untyped-call]
}


class Unscoped(AssertionError):
    """A statement would reach rows of all projects, and does not say so."""


def everywhere(statement: T) -> T:
    """*statement*, which is meant for the rows of all projects."""
    return statement.execution_options(**{_EVERYWHERE: True})  # type: ignore[attr-defined, no-any-return]


class Row(dict[str, Any]):
    """A row: its values by column, also as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Rows:
    """Executes statements in one transaction of the store."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self._dialect = _DIALECTS[transaction.dialect]

    def all(self, statement: Any) -> list[Row]:
        """All rows of a SELECT."""
        names = [column.key for column in statement.selected_columns]
        found = self.transaction.all(*self._compiled(statement))
        return [Row(zip(names, values, strict=True)) for values in found]

    def one(self, statement: Any) -> Row | None:
        """The first row of a SELECT, or None."""
        return next(iter(self.all(statement)), None)

    def run(self, statement: Executable) -> int:
        """Execute what changes rows; how many it changed."""
        return self.transaction.run(*self._compiled(statement))

    def _compiled(self, statement: Any) -> tuple[Any, ...]:
        if not statement.get_execution_options().get(_EVERYWHERE):
            _require_scope(statement)
        compiled = statement.compile(
            dialect=self._dialect, compile_kwargs={"render_postcompile": True}
        )
        return str(compiled), *(compiled.params[name] for name in compiled.positiontup or ())


def _require_scope(statement: Any) -> None:
    """Raises `Unscoped` if a table with projects is not held to one."""
    tables: set[Table] = set()
    scoped: set[Table] = set()
    if isinstance(statement, UpdateBase) and isinstance(statement.table, Table):
        tables.add(statement.table)
        if isinstance(statement, Insert) and "project" in statement.compile().params:
            scoped.add(statement.table)
    for element in visitors.iterate(statement):
        if isinstance(element, Table):
            tables.add(element)
        if isinstance(element, BinaryExpression) and element.operator is operators.eq:
            scoped |= {
                side.table
                for side in (element.left, element.right)
                if getattr(side, "key", None) == "project" and hasattr(side, "table")
            }
    for table in tables:
        if "project" in table.c and table not in scoped:
            raise Unscoped(f"a statement reaches {table.name} of all projects: {statement}")


class Tables:
    """The server's rows in a store."""

    def __init__(self, store: TableStore) -> None:
        self.store = store

    @contextmanager
    def reading(self) -> Iterator[Rows]:
        """Rows as one state of the database has them."""
        with self.store.reading() as transaction:
            yield Rows(transaction)

    def write(self, job: Callable[[Rows], T]) -> T:
        """What *job* gave, once all that it wrote is durable. It may be called again, and raises a
        `VMError` only before it writes.
        """
        return self.store.transact(lambda transaction: job(Rows(transaction)))
