"""Worlds of the tests are copies of one, of the database that they are asked for and no other."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from postgres import PostgresServer

from . import conftest
from .conftest import Worlds


def no_server() -> Any:
    raise AssertionError("no server is asked for")


@pytest.mark.parametrize("again", ["why it failed", "something that follows from it"])
def test_why_the_first_world_was_not_made_is_seen_by_each_test(
    again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worlds = Worlds(tmp_path, no_server)
    for said in ("why it failed", again):

        def fail(url: str, said: str = said) -> Any:
            raise sqlite3.OperationalError(said)

        monkeypatch.setattr(conftest, "world_at", fail)
        with pytest.raises(sqlite3.OperationalError, match="why it failed"):
            worlds.at(f"sqlite:///{tmp_path}/one.db")


def test_no_world_is_made_in_memory(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="is no file"):
        Worlds(tmp_path, no_server).at("sqlite://")


def test_no_world_is_made_in_another_server(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.database()
    other = url.replace(f":{postgres.port}/", f":{postgres.port + 1}/")
    with pytest.raises(AssertionError, match="is of another server"):
        Worlds(tmp_path, lambda: postgres).at(other)
    assert postgres.execute("SELECT 1", url.rpartition("/")[2]) == [(1,)]
