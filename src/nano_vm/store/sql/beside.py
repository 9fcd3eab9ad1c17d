"""A store with the tables of a server beside those of runs."""

from __future__ import annotations

from ...errors import MissingExtra, StoreError
from . import migrations
from .store import SqlStore


def opened(url: str, **options: object) -> SqlStore:
    """The store at *url*, with the tables of this version's server.

    Raises:
        MissingExtra: If what the server needs is not installed.
        StoreError: If it cannot be opened, or its tables are of another version.
    """
    _require_installed()
    store = SqlStore(url, **options)  # type: ignore[arg-type]
    try:
        known = _revision(store)
        if known is None:
            store.close()
            store = SqlStore(url, upgrade=True, **options)  # type: ignore[arg-type]
        elif known not in migrations.revisions():
            raise StoreError(
                f"{store.database.name} was made by a newer llm-nano-vm: its tables are of revision "
                f"{known}; install that version or a newer one; nothing was changed"
            )
        elif known != migrations.head():
            raise StoreError(
                f"{store.database.name} has the tables of an older server; nano-vm store upgrade; "
                f"nothing was changed"
            )
    except BaseException:
        store.close()
        raise
    return store


def _require_installed() -> None:
    try:
        import alembic  # noqa: F401
        import sqlalchemy  # noqa: F401
    except ImportError:
        raise MissingExtra("the server", "server") from None


def _revision(store: SqlStore) -> str | None:
    """The revision of the tables; None where no server has made its own yet."""
    with store.database.reading() as connection:
        if migrations.VERSION_TABLE not in store.database.dialect.tables(connection):
            return None
        found = connection.one("SELECT version_num FROM nano_alembic")
    return found[0] if found is not None else None
