"""What Alembic runs for each of its commands: on the connection that it is given, and no other."""

from alembic import context

from nano_vm.store.sql.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite changes a column by copying its table
    transactional_ddl=False,  # the caller's transaction has all of it
)
context.run_migrations()
