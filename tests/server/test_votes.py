"""Approvals that need several people, and whose word a key's is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from nano_vm.server.scope import Scope

from .conftest import PASSWORD, World

SHOP = "/api/v1/projects/shop"


@pytest.fixture
def two(make_world: Callable[[str], World], tmp_path: Any) -> World:
    """A project in which two managers approve: ``operator``, ``second`` and ``third`` are some."""
    world = make_world(f"sqlite:///{tmp_path}/runs.db")
    for name in ("second", "third"):
        add_manager(world, name)
    assert world.admin.put(f"{SHOP}/settings", json={"approvers": {"manager": 2}}).is_success
    return world


def add_manager(world: World, name: str) -> None:
    world.owner.post("/api/v1/users", json={"name": name, "password": PASSWORD})
    give(world, name, "manager")
    world.people[name] = world.login(name)


def give(world: World, name: str, *roles: str) -> None:
    given = {"role": "operator", "approves": list(roles)}
    assert world.admin.put(f"{SHOP}/members/{name}", json=given).is_success


def asked(world: World, run_id: str) -> Any:
    found = world.operator.get(f"{SHOP}/inbox").json()["asked"]
    return next((one for one in found if one["run"] == run_id), None)


def answered(client: TestClient, world: World, run_id: str, answer: str = "approve") -> Any:
    shown = asked(world, run_id)["shown"]
    body = {"run": run_id, "path": "approve", "shown": shown, "answer": answer, "reason": "seen"}
    return client.post(f"{SHOP}/inbox", json=body)


def actions(world: World, run_id: str) -> list[tuple[str, str]]:
    found = world.admin.get(f"{SHOP}/audit").json()["entries"]
    return [(one["actor"], one["action"]) for one in found if one["target"] == run_id]


def test_the_last_of_those_who_are_needed_decides(two: World) -> None:
    run_id = two.start()
    assert (asked(two, run_id)["needed"], asked(two, run_id)["approved"]) == (2, [])
    first = answered(two.operator, two, run_id)
    assert first.json() == {"recorded": True, "missing": 1}
    assert asked(two, run_id)["approved"] == ["operator"]
    two.work()
    assert two.state.store.load(run_id, rows=False).status == "suspended"
    assert answered(two.second, two, run_id).json() == {"recorded": True, "missing": 0}
    assert asked(two, run_id) is None
    two.work()
    run = two.state.store.load(run_id)
    [decision] = [message for message in run.decided if message.kind == "approve"]
    assert (decision.by, decision.body) == ("second", {"reason": "seen; with operator"})
    assert run.status == "success"
    assert actions(two, run_id) == [
        ("second", "step.approved"),
        ("second", "step.voted"),
        ("operator", "step.voted"),
        ("developer", "run.started"),
    ]
    assert two.developer.get(f"{SHOP}/runs/{run_id}/verify").json()["identical"]


def test_one_person_is_one_vote_also_by_a_key(two: World) -> None:
    run_id = two.start()
    listed = {"role": "admin", "approves": ["manager"]}
    assert two.admin.put(f"{SHOP}/members/admin", json=listed).is_success
    key = two.admin.post(f"{SHOP}/keys", json={"name": "x", "role": "operator"}).json()["key"]
    for client in (two.admin, two.admin, two.client(key)):
        assert answered(client, two, run_id).json() == {"recorded": True, "missing": 1}
    assert actions(two, run_id).count(("admin", "step.voted")) == 1
    assert answered(two.operator, two, run_id).json()["missing"] == 0


def test_an_owner_has_a_vote_in_each_project(two: World) -> None:
    run_id = two.start()
    assert answered(two.owner, two, run_id).json() == {"recorded": True, "missing": 1}
    assert asked(two, run_id)["approved"] == ["owner"]
    assert answered(two.operator, two, run_id).json() == {"recorded": True, "missing": 0}


def test_one_who_rejects_is_enough(two: World) -> None:
    run_id = two.start()
    assert answered(two.operator, two, run_id).json()["missing"] == 1
    assert answered(two.second, two, run_id, "reject").json() == {"recorded": True, "missing": 0}
    two.work()
    assert two.state.store.load(run_id, rows=False).status == "success"
    assert two.developer.get(f"{SHOP}/runs/{run_id}").json()["run"]["output"] in (None, "null")


@pytest.mark.parametrize("how", ["role", "permission", "membership", "account", "four eyes"])
def test_a_vote_counts_as_long_as_its_voter_may_decide(two: World, how: str) -> None:
    run_id = two.start("second")
    assert answered(two.second, two, run_id).json()["missing"] == 1
    if how == "role":
        give(two, "second", "clerk")
    elif how == "permission":
        listed = {"role": "viewer", "approves": ["manager"]}
        assert two.admin.put(f"{SHOP}/members/second", json=listed).is_success
    elif how == "four eyes":
        assert two.admin.put(f"{SHOP}/settings", json={"four_eyes": True}).is_success
    elif how == "membership":
        assert two.admin.delete(f"{SHOP}/members/second").status_code == 204
    else:
        assert two.owner.patch("/api/v1/users/second", json={"disabled": True}).is_success
    assert asked(two, run_id)["approved"] == []
    assert answered(two.operator, two, run_id).json()["missing"] == 1
    assert answered(two.third, two, run_id).json()["missing"] == 0


def test_who_may_not_decide_has_no_vote(two: World) -> None:
    run_id = two.start("operator")
    assert answered(two.admin, two, run_id).status_code == 403  # who has no role for approvals
    assert answered(two.stranger, two, run_id).status_code == 404
    assert answered(two.viewer, two, run_id).status_code == 403
    assert two.admin.put(f"{SHOP}/settings", json={"four_eyes": True}).is_success
    assert answered(two.operator, two, run_id).status_code == 403  # who has started it
    shown = {"run": run_id, "path": "approve", "shown": "0" * 64, "answer": "approve"}
    assert two.second.post(f"{SHOP}/inbox", json=shown).json()["title"] == "changed"
    assert asked(two, run_id)["approved"] == []
    assert [action for _, action in actions(two, run_id)] == ["run.started"]


def test_a_vote_for_what_was_shown_is_none_for_what_is_asked_now(two: World) -> None:
    """The digest of what was shown is a part of the vote, also where it is a run of the same id."""
    run_id = two.start()
    answered(two.operator, two, run_id)
    change = "UPDATE nano_votes SET shown = 'another'"
    two.state.tables.write(lambda rows: rows.transaction.run(change))
    assert answered(two.second, two, run_id).json()["missing"] == 1


def test_nothing_is_counted_for_what_is_decided_or_cancelled(two: World) -> None:
    run_id = two.start()
    shown = asked(two, run_id)["shown"]
    assert two.operator.post(f"{SHOP}/runs/{run_id}/cancel").is_success
    body = {"run": run_id, "path": "approve", "shown": shown, "answer": "approve"}
    late = two.second.post(f"{SHOP}/inbox", json=body)
    assert (late.status_code, late.json()["title"]) == (409, "already decided")
    assert ("second", "step.voted") not in actions(two, run_id)


@pytest.mark.parametrize("approvers", [1, 2])
def test_only_where_several_approve_is_looked_up_who_started_a_run(
    two: World, approvers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With four eyes; one who decides alone is refused as they decide."""
    run_id = two.start()
    settings = {"approvers": {"manager": approvers}, "four_eyes": True}
    assert two.owner.put(f"{SHOP}/settings", json=settings).is_success
    looked_up: list[str] = []
    header = Scope.header

    def counted(scope: Scope, run: str) -> Any:
        looked_up.append(run)
        return header(scope, run)

    monkeypatch.setattr(Scope, "header", counted)
    assert asked(two, run_id)["needed"] == approvers
    assert (run_id in looked_up) == (approvers > 1)


def test_two_who_are_last_at_once_decide_once(two: World) -> None:
    run_id = two.start()
    answered(two.operator, two, run_id)
    shown = asked(two, run_id)["shown"]
    body = {"run": run_id, "path": "approve", "shown": shown, "answer": "approve"}
    with ThreadPoolExecutor(2) as threads:
        answers = list(
            threads.map(
                lambda name: two.people[name].post(f"{SHOP}/inbox", json=body),
                ("second", "third"),
            )
        )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert [action for _, action in actions(two, run_id)].count("step.approved") == 1


def test_one_person_who_votes_several_times_at_once_has_one_vote(
    make_world: Callable[[str], World], database: str
) -> None:
    world = make_world(database)
    assert world.admin.put(f"{SHOP}/settings", json={"approvers": {"manager": 2}}).is_success
    run_id = world.start()
    body = {"run": run_id, "path": "approve", "answer": "approve"}
    body["shown"] = asked(world, run_id)["shown"]
    with ThreadPoolExecutor(8) as threads:
        votes = [threads.submit(world.operator.post, f"{SHOP}/inbox", json=body) for _ in range(8)]
    found = [(vote.result().status_code, vote.result().json().get("missing")) for vote in votes]
    assert found == [(200, 1)] * 8
    assert actions(world, run_id).count(("operator", "step.voted")) == 1


def test_settings_that_are_left_out_stay(two: World) -> None:
    settings = f"{SHOP}/settings"
    two.admin.put(settings, json={"four_eyes": True})
    assert two.viewer.get(settings).json() == {"four_eyes": True, "approvers": {"manager": 2}}
    for wrong in ({"manager": 0}, {"manager": 21}, {"": 2}, {"x" * 201: 2}, {"manager": "many"}):
        assert two.admin.put(settings, json={"approvers": wrong}).status_code == 422
    two.admin.put(settings, json={"approvers": {}})
    assert two.viewer.get(settings).json() == {"four_eyes": True, "approvers": {}}


def test_a_key_of_an_owner_decides_as_its_maker_is_listed(world: World) -> None:
    """Else whoever holds a key of an owner, for whatever it was made, would approve everything."""
    run_id = world.start()
    key = world.owner.post(f"{SHOP}/keys", json={"name": "ci", "role": "operator"}).json()["key"]
    client = world.client(key)
    refused = answered(client, world, run_id)
    assert (refused.status_code, "lacks the role 'manager'" in refused.text) == (403, True)
    listed = {"role": "viewer", "approves": ["manager"]}
    assert world.admin.put(f"{SHOP}/members/owner", json=listed).is_success
    assert answered(client, world, run_id).json() == {"recorded": True, "missing": 0}
    [entry] = [
        one
        for one in world.admin.get(f"{SHOP}/audit").json()["entries"]
        if one["action"] == "step.approved" and one["target"] == run_id
    ]
    assert (entry["actor"], entry["key_id"]) == ("owner", key.split("_")[1])
    assert world.admin.delete(f"{SHOP}/members/owner").status_code == 204
