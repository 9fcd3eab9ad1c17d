"""A call that begins right after a step stands in the row of that step: version 5."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make its columns; what is stored stays as it is."""
    op.add_column("nano_rows", sa.Column("next_path", sa.Text))
    op.add_column("nano_rows", sa.Column("next_type", sa.SmallInteger))
    op.add_column("nano_rows", sa.Column("next_ns", sa.BigInteger))
    op.execute("UPDATE nano_meta SET value = '5' WHERE name = 'schema'")
