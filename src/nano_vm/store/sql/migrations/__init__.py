"""The history of a store's tables: Alembic revisions, which `nano-vm store upgrade` runs.

The tables of runs are made by `schema` without SQLAlchemy, which costs each command that only
runs programs nothing. A test holds that a database made so and one that comes up from the first
revision have the same tables, on SQLite and on PostgreSQL. Needs the extra ``server``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....errors import MissingExtra, StoreError

if TYPE_CHECKING:
    from alembic.config import Config

HERE = Path(__file__).parent

PLACES: list[Path] = [HERE / "versions"]
"""Folders with revisions."""

VERSION_TABLE = "nano_alembic"

HEAD = "head"

RENUMBERED = ("0002", "0003")
"""Tables of runs of the first of these revisions, stamped with the second: beside them are the
tables of a server, whose revision that was before it became ``0004``.
"""

_DRIVERS = {"SQLite": "sqlite://", "PostgreSQL": "postgresql+psycopg://"}


def run(driver: Any, dialect: str, *, at: str | None, to: str = HEAD) -> None:
    """Bring the tables that *driver*, a connection in a transaction, has open to revision *to*.
    *at* is the revision of the tables of runs as they say themselves, None where there are none; it
    counts where Alembic has not seen them yet, or knows them by a number that is another's now.

    Nothing is committed here: all of it is done, or nothing, as the caller's transaction ends.

    Raises:
        MissingExtra: If SQLAlchemy or Alembic is not installed.
        StoreError: If the tables are of a revision that is not known here.
    """
    try:
        from alembic import command
        from alembic.util import CommandError
        from sqlalchemy.exc import DBAPIError
    except ImportError:
        raise MissingExtra("an upgrade of a store's tables", "server") from None
    connection = _over(driver, dialect)
    try:
        config = _config(connection)
        if at is not None and (at, current(driver, dialect)) in ((at, None), RENUMBERED):
            command.stamp(config, at)
        command.upgrade(config, to)
    except CommandError as error:
        raise StoreError(
            f"the tables were made by a newer llm-nano-vm ({error}); install that version or a "
            f"newer one; nothing was changed"
        ) from error
    except DBAPIError as error:  # as the driver raised it, which the store knows
        if error.orig is None:
            raise
        raise error.orig from None
    finally:
        connection.close()


def current(driver: Any, dialect: str) -> str | None:
    """The revision of the tables, as Alembic knows it; None where it has not seen them yet."""
    from alembic.migration import MigrationContext

    connection = _over(driver, dialect)
    try:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        return context.get_current_revision()
    finally:
        connection.close()


def head() -> str:
    """The newest revision."""
    from alembic.script import ScriptDirectory

    found = ScriptDirectory.from_config(_config(None)).get_current_head()
    assert found is not None
    return found


def revisions() -> list[str]:
    """All revisions, oldest first."""
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_config(None))
    return [revision.revision for revision in script.walk_revisions()][::-1]


def _config(connection: Any) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    places = "\n".join(str(place).replace("%", "%%") for place in PLACES)
    config.set_main_option("version_locations", places)
    config.attributes["connection"] = connection
    return config


def _over(driver: Any, dialect: str) -> Any:
    """A connection of SQLAlchemy over one of ours, whose transaction stays ours."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import StaticPool

    engine = create_engine(
        _DRIVERS[dialect], creator=lambda: driver, poolclass=StaticPool, pool_reset_on_return=None
    )
    for name in ("do_commit", "do_rollback", "do_close"):
        setattr(engine.dialect, name, lambda *_: None)
    return engine.connect()
