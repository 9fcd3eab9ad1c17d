"""The tables of the server, as they are now. `store.migrations` has how they became so.

They stand beside those of runs, in the same database. Times are nanoseconds since the epoch;
``document`` and ``detail`` are canonical JSON.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, MetaData, SmallInteger, Table, Text

METADATA = MetaData()


def _table(name: str, *columns: Column[object] | Index) -> Table:
    return Table(name, METADATA, *columns)


def _text(name: str, *, key: bool = False, optional: bool = False) -> Column[object]:
    return Column(name, Text, primary_key=key, nullable=optional)


def _number(name: str, *, key: bool = False, optional: bool = False) -> Column[object]:
    return Column(name, BigInteger, primary_key=key, nullable=optional, autoincrement=False)


def _flag(name: str) -> Column[object]:
    return Column(name, SmallInteger, nullable=False)


projects = _table(
    "nano_projects",
    _text("name", key=True),
    _text("settings"),  # JSON
    _number("created_ns"),
)

users = _table(
    "nano_users",
    _text("name", key=True),  # what decisions and the audit log call them
    _text("password", optional=True),  # argon2id; None for who logs in by OIDC only
    _text("issuer", optional=True),
    _text("subject", optional=True),  # by which the issuer knows them
    _flag("owner"),  # of the instance
    _flag("disabled"),
    _number("created_ns"),
    Index("nano_users_subject", "issuer", "subject", unique=True),
)

members = _table(
    "nano_members",
    _text("project", key=True),
    _text("user_name", key=True),
    _text("role"),
    _text("approves"),  # JSON: the roles that approvals ask for and this member has
    Index("nano_members_user", "user_name"),
)

keys = _table(
    "nano_keys",
    _text("id", key=True),
    _text("hash"),  # HMAC-SHA-256 of the secret, with the server's pepper
    _text("project"),
    _text("name"),
    _text("maker"),
    _text("role"),
    _number("created_ns"),
    _number("expires_ns", optional=True),
    _number("used_ns", optional=True),
    _number("revoked_ns", optional=True),
    Index("nano_keys_project", "project"),
)

sessions = _table(
    "nano_sessions",
    _text("hash", key=True),  # SHA-256 of what the cookie holds
    _text("user_name"),
    _number("created_ns"),
    _number("seen_ns"),
    _text("ip"),
    Index("nano_sessions_user", "user_name"),
)

attempts = _table(  # to log in that failed, by whose and from where
    "nano_attempts", _text("who", key=True), _number("failures"), _number("until_ns")
)

votes = _table(  # of approvals that need several people
    "nano_votes",
    _text("project", key=True),
    _text("run", key=True),
    _text("path", key=True),
    _text("shown", key=True),  # the digest of what was approved
    _text("user_name", key=True),
    _text("key_id", optional=True),
    _text("reason"),
    _number("at_ns"),
)

programs = _table(
    "nano_programs",
    _text("project", key=True),
    _text("name", key=True),
    _number("version", key=True),
    _text("digest"),  # of the program with those that it calls, as runs have it
    _text("source"),  # as it was put
    _text("document"),
    _text("put_by"),
    _number("put_ns"),
    Index("nano_programs_digest", "project", "digest"),
)

policies = _table(
    "nano_policies",
    _text("project", key=True),
    _number("version", key=True),
    _text("digest"),
    _text("source"),
    _text("put_by"),
    _number("put_ns"),
)

hosts = _table(
    "nano_hosts",
    _text("owner", key=True),  # as runs name who drives them
    _text("name"),
    _text("document"),  # see `run.announced`
    _number("since_ns"),
    _number("seen_ns"),
)

views = _table(
    "nano_views",
    _text("project", key=True),
    _text("user_name", key=True),
    _text("name", key=True),
    _text("query"),
)

audit = _table(
    "nano_audit",
    _number("number", key=True),
    _number("at_ns"),
    _text("project"),  # empty: of the instance
    _text("actor"),
    _text("key_id", optional=True),
    _text("ip"),
    _text("action"),
    _text("target"),
    _text("detail"),
    _text("request_id"),
    _text("previous"),
    _text("hash"),
    Index("nano_audit_project", "project", "number"),
)

audit_head = _table(  # one row, which whoever adds an entry holds
    "nano_audit_head",
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    _number("number"),
    _text("hash"),
)
