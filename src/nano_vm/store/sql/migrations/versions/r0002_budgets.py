"""Budgets, limits of members and answers that runs share: version 4."""

from __future__ import annotations

from alembic import op

from nano_vm.store.sql.migrations.statements import create

revision = "0002"
down_revision = "0001"

_TABLES = """
CREATE TABLE nano_accounts ( -- of budgets that runs share: what is spent, and what is reserved
    account TEXT{ordered} PRIMARY KEY,
    calls BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    picodollars BIGINT NOT NULL,
    held_calls BIGINT NOT NULL,
    held_tokens BIGINT NOT NULL,
    held_picodollars BIGINT NOT NULL
)
CREATE TABLE nano_reserved ( -- what a call under way may use, in each of its accounts
    id TEXT NOT NULL,
    account TEXT{ordered} NOT NULL,
    run_id TEXT{ordered} NOT NULL,
    calls BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    picodollars BIGINT NOT NULL,
    PRIMARY KEY (id, account)
) {clustered}
CREATE INDEX nano_reserved_run ON nano_reserved (run_id)
CREATE TABLE nano_limits ( -- members of pools, whose limits processes share
    member TEXT PRIMARY KEY
)
CREATE TABLE nano_windows ( -- what began in each part of a member's window
    member TEXT NOT NULL,
    part BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    PRIMARY KEY (member, part)
) {clustered}
CREATE TABLE nano_calls ( -- under way, of members that bound how many these are
    id TEXT PRIMARY KEY,
    member TEXT NOT NULL,
    owner TEXT NOT NULL
)
CREATE INDEX nano_calls_member ON nano_calls (member)
CREATE TABLE nano_kept ( -- answers to calls of steps with `cache`
    key TEXT PRIMARY KEY,
    run_id TEXT{ordered} NOT NULL, -- that was given it
    body TEXT NOT NULL,
    at_ns BIGINT NOT NULL,
    until_ns BIGINT NOT NULL
)
CREATE INDEX nano_kept_run ON nano_kept (run_id)
"""


def upgrade() -> None:
    """Make their tables."""
    create(_TABLES)
    op.execute("UPDATE nano_meta SET value = '4' WHERE name = 'schema'")
