"""The tables of the server: who may do what, programs, hosts, and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make them, where they are not there: they were another revision once (see `RENUMBERED`)."""
    if sa.inspect(op.get_bind()).has_table("nano_projects"):
        return
    _people()
    _work()
    _log()


def _people() -> None:
    op.create_table("nano_projects", _key("name"), _text("settings"), _number("created_ns"))
    op.create_table(
        "nano_users",
        _key("name"),
        _text("password", optional=True),
        _text("issuer", optional=True),
        _text("subject", optional=True),
        _small("owner"),
        _small("disabled"),
        _number("created_ns"),
    )
    op.create_index("nano_users_subject", "nano_users", ["issuer", "subject"], unique=True)
    op.create_table(
        "nano_members", _key("project"), _key("user_name"), _text("role"), _text("approves")
    )
    op.create_index("nano_members_user", "nano_members", ["user_name"])
    op.create_table(
        "nano_keys",
        _key("id"),
        _text("hash"),
        _text("project"),
        _text("name"),
        _text("maker"),
        _text("role"),
        _number("created_ns"),
        _number("expires_ns", optional=True),
        _number("used_ns", optional=True),
        _number("revoked_ns", optional=True),
    )
    op.create_index("nano_keys_project", "nano_keys", ["project"])
    op.create_table(
        "nano_sessions",
        _key("hash"),
        _text("user_name"),
        _number("created_ns"),
        _number("seen_ns"),
        _text("ip"),
    )
    op.create_index("nano_sessions_user", "nano_sessions", ["user_name"])
    op.create_table("nano_attempts", _key("who"), _number("failures"), _number("until_ns"))


def _work() -> None:
    op.create_table(
        "nano_votes",
        _key("project"),
        _key("run"),
        _key("path"),
        _key("shown"),
        _key("user_name"),
        _text("key_id", optional=True),
        _text("reason"),
        _number("at_ns"),
    )
    op.create_table(
        "nano_programs",
        _key("project"),
        _key("name"),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        _text("digest"),
        _text("source"),
        _text("document"),
        _text("put_by"),
        _number("put_ns"),
    )
    op.create_index("nano_programs_digest", "nano_programs", ["project", "digest"])
    op.create_table(
        "nano_policies",
        _key("project"),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        _text("digest"),
        _text("source"),
        _text("put_by"),
        _number("put_ns"),
    )
    op.create_table(
        "nano_hosts",
        _key("owner"),
        _text("name"),
        _text("document"),
        _number("since_ns"),
        _number("seen_ns"),
    )
    op.create_table("nano_views", _key("project"), _key("user_name"), _key("name"), _text("query"))


def _log() -> None:
    op.create_table(
        "nano_audit",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        _number("at_ns"),
        _text("project"),
        _text("actor"),
        _text("key_id", optional=True),
        _text("ip"),
        _text("action"),
        _text("target"),
        _text("detail"),
        _text("request_id"),
        _text("previous"),
        _text("hash"),
    )
    op.create_index("nano_audit_project", "nano_audit", ["project", "number"])
    head = op.create_table(
        "nano_audit_head",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        _number("number"),
        _text("hash"),
    )
    op.bulk_insert(head, [{"id": 1, "number": 0, "hash": ""}])


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True)


def _text(name: str, *, optional: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=optional)


def _number(name: str, *, optional: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=optional)


def _small(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.SmallInteger, nullable=False)
