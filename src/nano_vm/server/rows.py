"""Rows of the server's tables: statements of SQLAlchemy Core, executed on the store's own
connections, so that they share its transactions.

Rule: a statement on a table that has projects says of which project it is; one that does not is
an error of ours, and is not executed. What is of all projects says that by `everywhere`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Executable, Insert, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import BinaryExpression, BindParameter

from ..store.protocol import TableStore, Transaction

T = TypeVar("T")
Statement = TypeVar("Statement", bound=Executable)

_EVERYWHERE = "nano_vm_everywhere"

_DIALECTS = {
    "SQLite": sqlite.dialect(paramstyle="qmark"),
    "PostgreSQL": postgresql.dialect(paramstyle="qmark"),  # type: ignore[no-untyped-call]
}


class Unscoped(AssertionError):
    """A statement would reach rows of all projects, and does not say so."""


def everywhere(statement: Statement) -> Statement:
    """*statement*, which is meant for the rows of all projects."""
    return statement.execution_options(**{_EVERYWHERE: True})


class Prepared:
    """A *statement* that is compiled once for each database, for requests that come all the time: to
    compile one takes ten times as long as to execute it in SQLite (0.25 ms, 0.02 ms). Its values are
    given by the names of its ``sa.bindparam``; one that is *expanding*, for an IN, takes a list.
    """

    def __init__(self, statement: Any) -> None:
        require_scope(statement)
        self._statement = statement
        self._expands = any(
            isinstance(element, BindParameter) and element.expanding
            for element in visitors.iterate(statement)
        )
        self._made: dict[str, tuple[Any, str, list[str], dict[str, Any]]] = {}  # by database
        self.names: list[str] = (
            [] if isinstance(statement, UpdateBase) else [c.key for c in statement.selected_columns]
        )

    def compiled(self, dialect: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Its text in the words of a database, and parameters."""
        found = self._made.get(dialect)
        if found is None:
            made = self._statement.compile(dialect=_DIALECTS[dialect])
            found = self._made[dialect] = made, str(made), made.positiontup or [], made.params
        made, text, order, own = found
        if self._expands:  # an IN has as many places as its list is long
            state = made.construct_expanded_state(values)
            return state.statement, *(state.parameters[name] for name in state.positiontup or ())
        return text, *(values[name] if name in values else own[name] for name in order)


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

    def all(self, statement: Any, **values: Any) -> list[Row]:
        """All rows of a SELECT; *values* are those of one that is prepared."""
        if isinstance(statement, Prepared):
            names = statement.names
        else:
            names = [column.key for column in statement.selected_columns]
        found = self.transaction.all(*self._executed(statement, values))
        return [Row(zip(names, cells, strict=True)) for cells in found]

    def one(self, statement: Any, **values: Any) -> Row | None:
        """The first row of a SELECT, or None; as `all`."""
        return next(iter(self.all(statement, **values)), None)

    def run(self, statement: Executable | Prepared, **values: Any) -> int:
        """Execute what changes rows; how many it changed. *values* as of `all`."""
        return self.transaction.run(*self._executed(statement, values))

    def _executed(self, statement: Any, values: Mapping[str, Any]) -> tuple[Any, ...]:
        dialect = self.transaction.dialect
        if isinstance(statement, Prepared):
            return statement.compiled(dialect, values)
        require_scope(statement)
        made = _compiled(statement, _DIALECTS[dialect])
        return str(made), *(made.params[name] for name in made.positiontup or ())


def _compiled(statement: Any, dialect: Any) -> Any:
    return statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})


def require_scope(statement: Any) -> None:
    """Hold a statement to one project, where a table that it reaches has projects.

    Raises:
        Unscoped: If it does not say of which, nor that it is meant for all.
    """
    if statement.get_execution_options().get(_EVERYWHERE):
        return
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
