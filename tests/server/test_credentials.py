"""Whether somebody may still do something, asked for many at once: as a request of theirs would be
answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from nano_vm.server import secrets
from nano_vm.server.credentials import Credential, Right, holding, identified
from nano_vm.server.rows import Rows, everywhere
from nano_vm.server.tables import keys, sessions, users

from .conftest import PEPPER, World

Make = Callable[[str], World]


def session_of(world: World, name: str) -> Credential:
    cookie = world.login(name).cookies[world.state.cookie]
    return Credential(session=secrets.hash_of_cookie(cookie))


def key_of(world: World, name: str, role: str, project: str = "shop") -> Credential:
    body = {"name": "k", "role": role}
    made = world.people[name].post(f"/api/v1/projects/{project}/keys", json=body).json()
    return Credential(key_id=made["id"], key_hash=secrets.keyed_hash(made["key"], PEPPER))


@pytest.mark.slow
def test_what_holds_is_what_a_request_would_be_answered_by(make_world: Make, database: str) -> None:
    world = make_world(database)
    stays, goes = session_of(world, "viewer"), session_of(world, "viewer")
    people = {
        "a session": stays,
        "a session that was used": session_of(world, "developer"),
        "an owner": session_of(world, "owner"),
        "a session that is over": goes,
        "an account that is disabled": session_of(world, "operator"),
        "of another project": session_of(world, "stranger"),
        "of nobody": Credential(session="0" * 64),
        "a key": key_of(world, "admin", "developer"),
        "a narrow key": key_of(world, "admin", "viewer"),
        "a key of an owner": key_of(world, "owner", "viewer"),
        "a key of another project": key_of(world, "owner", "admin", "bank"),
        "a key that is over": key_of(world, "admin", "admin"),
        "a key that was revoked": key_of(world, "admin", "admin"),
        "a key with another secret": key_of(world, "admin", "admin")._replace(key_hash="f" * 64),
        "no key": Credential(key_id="none", key_hash="f" * 64),
    }
    now = time.time_ns()

    def spoil(rows: Rows) -> None:
        for table, column, of, value in (
            (sessions, sessions.c.hash, goes.session, {"seen_ns": 1}),
            (users, users.c.name, "operator", {"disabled": 1}),
            (keys, keys.c.id, people["a key that is over"].key_id, {"expires_ns": now}),
            (keys, keys.c.id, people["a key that was revoked"].key_id, {"revoked_ns": now}),
        ):
            rows.run(everywhere(sa.update(table).where(column == of).values(**value)))

    world.state.tables.write(spoil)
    wanted = {
        (who, project, permission): Right(credential, project, permission)
        for who, credential in people.items()
        for project in ("shop", "bank", "none")
        for permission in ("run:read", "run:content", "member:manage")
    }
    with world.state.tables.reading() as rows:
        found = holding(rows, list(wanted.values()))
        for (_, project, permission), right in wanted.items():
            identity = identified(rows, right.credential, project)
            one = identity is not None and permission in identity.permissions
            assert (right in found) == one, right
    read = {
        who
        for (who, project, permission), right in wanted.items()
        if right in found and (project, permission) == ("shop", "run:read")
    }
    assert read == {
        "a session",
        "a session that was used",
        "an owner",
        "a key",
        "a narrow key",
        "a key of an owner",
    }
    told = {
        who: {
            p
            for (w, project, p), right in wanted.items()
            if (w, project) == (who, "shop") and right in found
        }
        for who in read
    }
    assert told["a session"] == told["a narrow key"] == told["a key of an owner"] == {"run:read"}
    assert told["a key"] == told["a session that was used"] == {"run:read", "run:content"}
    assert told["an owner"] == {"run:read", "run:content", "member:manage"}
    assert {
        who for (who, project, _), right in wanted.items() if right in found and project != "shop"
    } == {"an owner", "of another project", "a key of another project"}
