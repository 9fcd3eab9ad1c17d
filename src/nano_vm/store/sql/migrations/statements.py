"""Statements of revisions that are text, as the tables of runs are made by."""

from __future__ import annotations

from alembic import op

_WORDS = {
    "sqlite": {
        "bytes": "BLOB",
        "number": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "clustered": "WITHOUT ROWID",
        "key": "",
        "ordered": "",
    },
    "postgresql": {
        "bytes": "BYTEA",
        "number": "BIGSERIAL PRIMARY KEY",
        "clustered": "",
        "key": ", key",
        "ordered": ' COLLATE "C"',
    },
}


def create(text: str) -> None:
    """Execute the CREATE statements in *text*, in the words of the database: of revisions, which are
    never changed, so these words are not changed either.
    """
    words = _WORDS[op.get_bind().dialect.name]
    for statement in text.strip().removeprefix("CREATE ").split("\nCREATE "):
        op.get_bind().exec_driver_sql(f"CREATE {statement}".format_map(words))
