"""The tables of a store: one schema for SQLite and PostgreSQL, with its version in it.

A value (a request, an output, the inputs of a run) stands in a *cell*: its canonical JSON text
where that is short, else the hash under which `contents` holds it once, however many cells name it.
Bytes and not a JSON type, because the order of keys is part of a value.

A durable step ends as the next begins, and both are appended together; so a row of a step holds the
intent that follows it too, which has a number of its own among the rows of the run. That takes a
fifth less time and room than a row for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

SCHEMA_VERSION = 5
"""Raised by every change after which an older package would read or write these tables wrongly."""

REVISIONS: dict[int, str] = {3: "0001", 4: "0002", 5: "0003"}
"""The revision in `migrations` whose tables are of each version, from which newer ones are
made. None are of those before 3: they were never published.
"""

_TABLES = """
CREATE TABLE nano_meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
)
CREATE TABLE nano_contents (
    hash {bytes} PRIMARY KEY,
    body {bytes} NOT NULL,
    refs BIGINT NOT NULL
) {clustered}
CREATE TABLE nano_runs (
    key {number},
    run_id TEXT{ordered} NOT NULL UNIQUE,
    -- never changed, but by erasure; `crc` covers them
    program_name TEXT NOT NULL,
    program_digest TEXT NOT NULL,
    created_ns BIGINT NOT NULL,
    document {bytes} NOT NULL,
    inputs {bytes} NOT NULL,
    about {bytes} NOT NULL,
    seed TEXT, -- of any length
    salt {bytes},
    parent TEXT,
    project TEXT NOT NULL,
    submitter TEXT,
    labels {bytes} NOT NULL,
    crc BIGINT NOT NULL,
    -- how it stands
    status TEXT NOT NULL,
    started_ns BIGINT NOT NULL,
    finished_ns BIGINT NOT NULL,
    output {bytes},
    error {bytes},
    error_kind TEXT,
    waiting {bytes},
    wake_ns BIGINT,
    owner TEXT,
    fence BIGINT NOT NULL,
    seal TEXT NOT NULL,
    signature TEXT,
    hidden TEXT,
    row_count BIGINT NOT NULL, -- a damaged tree of SQLite can end early without a word
    steps BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    cost_usd TEXT -- a decimal, exactly
)
CREATE INDEX nano_runs_created ON nano_runs (created_ns{key})
CREATE INDEX nano_runs_status ON nano_runs (status, created_ns{key})
CREATE INDEX nano_runs_program ON nano_runs (program_name, status, created_ns{key})
CREATE INDEX nano_runs_project ON nano_runs (project, status, created_ns{key})
CREATE INDEX nano_runs_submitter ON nano_runs (submitter, created_ns{key})
    WHERE submitter IS NOT NULL
CREATE INDEX nano_runs_parent ON nano_runs (parent, created_ns{key}) WHERE parent IS NOT NULL
CREATE INDEX nano_runs_wake ON nano_runs (status, wake_ns) WHERE wake_ns IS NOT NULL
CREATE TABLE nano_labels ( -- of nano_runs, to be searched
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    created_ns BIGINT NOT NULL, -- of the run
    run BIGINT NOT NULL,
    PRIMARY KEY (name, value, created_ns, run)
) {clustered}
CREATE INDEX nano_labels_run ON nano_labels (run)
CREATE TABLE nano_rows (
    run BIGINT NOT NULL,
    seq INTEGER NOT NULL,
    kind SMALLINT NOT NULL,
    frame TEXT NOT NULL,
    path TEXT NOT NULL,
    type SMALLINT NOT NULL, -- an index into TYPES
    status SMALLINT, -- an index into STATUSES
    started_ns BIGINT NOT NULL,
    lasted_ns BIGINT, -- shorter than when it finished
    request {bytes},
    output {bytes},
    rest {bytes},
    model TEXT, -- that this run called
    step TEXT, -- that called it
    prompt_tokens BIGINT,
    completion_tokens BIGINT,
    total_tokens BIGINT,
    cost_usd TEXT, -- a decimal, exactly
    crc BIGINT NOT NULL, -- SQLite does not notice a flipped bit
    -- the intent in the same frame that is row seq + 1, if it is stored here
    next_path TEXT,
    next_type SMALLINT,
    next_ns BIGINT, -- from when the step began
    PRIMARY KEY (run, seq)
) {clustered}
CREATE INDEX nano_rows_calls ON nano_rows ( -- all that costs are summed from
    run, started_ns, model, step, prompt_tokens, completion_tokens, total_tokens, cost_usd
) WHERE model IS NOT NULL
CREATE TABLE nano_inbox (
    id {number},
    run BIGINT NOT NULL,
    kind TEXT NOT NULL,
    message {bytes} NOT NULL, -- as JSON: kind, name, body, by, created_ns
    signature TEXT,
    used SMALLINT NOT NULL -- 0: no, 1: yes, 2: no, and the run has no use for it yet
)
CREATE INDEX nano_inbox_run ON nano_inbox (run)
CREATE INDEX nano_inbox_telling ON nano_inbox (run) WHERE used = 0
CREATE TABLE nano_events ( -- addressed to no run
    id {number},
    name TEXT NOT NULL,
    event_id TEXT, -- the sender's
    created_ns BIGINT NOT NULL,
    message {bytes} NOT NULL, -- as in nano_inbox; empty once a run has it there
    signature TEXT,
    run BIGINT, -- that has it
    UNIQUE (name, event_id)
)
CREATE TABLE nano_marks ( -- by which events and waits find each other, and those that are still to be looked at
    mark BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    subject BIGINT NOT NULL, -- an event, or a run
    path TEXT NOT NULL, -- of the wait
    PRIMARY KEY (mark, kind, subject, path)
) {clustered}
CREATE TABLE nano_owners (
    owner TEXT PRIMARY KEY,
    until_ns BIGINT NOT NULL
)
CREATE TABLE nano_receipts (
    number {number},
    kind TEXT NOT NULL,
    run_id TEXT NOT NULL,
    seal TEXT NOT NULL,
    at_ns BIGINT NOT NULL,
    previous TEXT NOT NULL, -- hashes of those that it follows
    hash TEXT NOT NULL UNIQUE,
    signature TEXT
)
CREATE TABLE nano_tips ( -- receipts that none follows yet
    hash TEXT PRIMARY KEY
)
CREATE INDEX nano_receipts_run ON nano_receipts (run_id)
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

TABLES = tuple(re.findall(r"CREATE TABLE (\w+)", _TABLES))

RUN_FIELDS = tuple(
    "key run_id program_name program_digest created_ns document inputs about seed salt parent "
    "project submitter labels "
    "status started_ns finished_ns "
    "output error error_kind waiting wake_ns owner fence seal signature hidden steps tokens "
    "cost_usd".split()
)
"""The columns of a run that are fields of `StoredRun` too."""

ROW_CELLS = tuple(
    "kind frame path type status started_ns lasted_ns request output rest "
    "next_path next_type next_ns "
    "model step prompt_tokens completion_tokens total_tokens cost_usd".split()
)
"""The columns of a row, without its run, number and checksum."""

ROW_VALUES = slice(ROW_CELLS.index("request"), ROW_CELLS.index("rest") + 1)
"""Those of them that are cells of values."""

NEXT = ROW_CELLS.index("next_path")
"""Where those begin that only a row has which holds the intent after it too."""

CALL = ROW_CELLS.index("model")
"""Where those begin that only a model call has."""


def statements(words: Mapping[str, str]) -> Iterator[str]:
    """What makes the tables, one statement at a time, in the *words* of a dialect."""
    for text in _TABLES.strip().split("\nCREATE "):
        yield f"CREATE {text.removeprefix('CREATE ')}".format_map(words)
