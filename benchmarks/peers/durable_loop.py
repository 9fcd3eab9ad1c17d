"""What a program of one's own would do: SQLite, WAL, ``synchronous=FULL``, a transaction for each
step, one program after the other.

Many in flight gain nothing here: a connection has one transaction at a time, and a database one
writer.
"""

from __future__ import annotations

import sqlite3
import sys
import time

from durable_peer import STEPS, folder, say

connection = sqlite3.connect(folder() / "loop.sqlite", isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("PRAGMA synchronous = FULL")
connection.execute(
    "CREATE TABLE steps (run INTEGER, seq INTEGER, output TEXT, PRIMARY KEY (run, seq)) WITHOUT "
    "ROWID"
)


def noop(x: str) -> str:
    return x


def program(run: int, x: str) -> str:
    for seq in range(STEPS):
        x = noop(x)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO steps VALUES (?, ?, ?)", (run, seq, x))
        connection.execute("COMMIT")
    return x


run = 0
for line in iter(sys.stdin.readline, ""):
    programs = int(line)
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    for number in range(programs):
        assert program(run, f"value {number}") == f"value {number}"
        run += 1
    say(
        programs,
        time.perf_counter_ns() - wall,
        time.process_time_ns() - cpu,
        commits=programs * STEPS,
    )
