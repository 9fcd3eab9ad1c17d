"""Views of the list of runs, its last days, and several runs cancelled at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from .conftest import REFUND, World

SHOP = "/api/v1/projects/shop"


def test_a_view_is_of_one_person_in_one_project(world: World) -> None:
    def names(who: str, project: str = "shop") -> list[str]:
        found = world.people[who].get(f"/api/v1/projects/{project}/views").json()["views"]
        return [view["name"] for view in found]

    for name, query in (("mine", "by:viewer"), ("what failed", "status:failed")):
        put = world.viewer.put(f"{SHOP}/views/{name}", json={"query": query})
        assert put.status_code == 200, put.text
    assert world.viewer.put(f"{SHOP}/views/mine", json={"query": "since:24h"}).is_success
    assert world.viewer.put(f"{SHOP}/views/mine", json={}).status_code == 422
    assert world.viewer.get(f"{SHOP}/views").json()["views"] == [
        {"name": "mine", "query": "since:24h"},
        {"name": "what failed", "query": "status:failed"},
    ]
    assert (names("operator"), names("owner", "bank")) == ([], [])
    assert world.operator.delete(f"{SHOP}/views/mine").status_code == 204
    assert names("viewer") == ["mine", "what failed"]
    assert world.viewer.delete(f"{SHOP}/views/mine").status_code == 204
    assert names("viewer") == ["what failed"]


def test_so_many_views_are_kept_and_no_more(world: World) -> None:
    for number in range(100):
        kept = world.developer.put(f"{SHOP}/views/v{number}", json={"query": "by:x"})
        assert kept.status_code == 200
    more = world.developer.put(f"{SHOP}/views/more", json={"query": "by:x"})
    assert (more.status_code, more.json()["title"]) == (409, "too many")
    again = world.developer.put(f"{SHOP}/views/v7", json={"query": "by:y"})
    assert again.status_code == 200


def test_the_last_days_count_runs_by_how_they_stand(
    make_world: Callable[[str], World], database: str
) -> None:
    world = make_world(database)
    for name in ("one", "two"):
        world.start(run_id=name, labels={"team": name})
    assert world.operator.post(f"{SHOP}/runs/one/cancel").is_success
    world.work()
    days = world.viewer.get(f"{SHOP}/days").json()["days"]
    assert len(days) == 14
    assert days[-1]["statuses"] == {"cancelled": 1, "suspended": 1}
    assert all(day["statuses"] == {} for day in days[:-1])
    assert [b["day"] - a["day"] for a, b in pairwise(days)] == [86_400_000] * 13
    for query, count in (("labels=team%3Done", 1), ("program=none", 0), ("submitter=developer", 2)):
        found = world.viewer.get(f"{SHOP}/days?{query}").json()["days"][-1]["statuses"]
        assert sum(found.values()) == count, query


def test_runs_are_found_by_version_and_by_what_they_wait_for(
    make_world: Callable[[str], World], database: str
) -> None:
    world = make_world(database)
    world.start(run_id="first")
    source = REFUND.replace("role: manager", "role: boss")
    put = world.developer.post(f"{SHOP}/programs", json={"source": source}).json()
    world.start(run_id="second")

    def found(words: str, route: str = "runs") -> list[str]:
        answer = world.viewer.get(f"{SHOP}/{route}?{words}")
        assert answer.status_code == 200, answer.text
        return [row.get("id", row.get("run_id")) for row in answer.json()["runs"]]

    for route in ("runs", "standings"):
        assert found("program=refund&version=1", route) == ["first"]
        assert found("program=refund&version=2", route) == ["second"]
        assert found(f"version={put['digest'][:8]}", route) == ["second"]
        assert found("waiting=approval", route) == ["second", "first"]
        assert found("waiting=approval:manager", route) == ["first"]
        assert found("waiting=event", route) == []
    assert world.viewer.get(f"{SHOP}/costs?program=refund&version=1").json()["runs"] == 1
    for words, told in (
        ("version=1", "version 1 of which program"),
        ("version=abc", "a version is the digest"),
        (f"version={','.join(f'{n:08x}' for n in range(2000))}", "of at most 200 versions"),
        ("waiting=money", "no run waits for 'money'"),
    ):
        answer = world.viewer.get(f"{SHOP}/runs?{words}")
        assert (answer.status_code, told in answer.json()["detail"]) == (400, True), words
    assert world.viewer.get(f"{SHOP}/runs?program=refund&version=3").status_code == 404
    assert world.viewer.get(f"{SHOP}/costs?waiting=event").status_code == 400


def test_runs_are_searched_by_who_may_read_what_was_said(world: World) -> None:
    for name in ("one", "two"):
        inputs = {"order_id": f"search-{name}", "amount": 7}
        world.start(run_id=f"search-{name}", inputs=inputs, labels={"team": name})

    def found(words: str, who: str = "developer", project: str = "shop") -> list[str]:
        answer = world.people[who].get(f"/api/v1/projects/{project}/search?{words}")
        assert answer.status_code == 200, answer.text
        return [row["id"] for row in answer.json()["runs"]]

    assert found("text=SEARCH-") == ["search-two", "search-one"]
    assert found("text=search-&labels=team%3Done") == ["search-one"]
    assert found("text=search-", "stranger", "bank") == []
    for who in ("viewer", "operator"):
        assert world.people[who].get(f"{SHOP}/search?text=search-").status_code == 403
    for words in ("text=", f"text={'x' * 201}", "text=a&after=b", "text=a&status=odd"):
        answer = world.developer.get(f"{SHOP}/search?{words}")
        assert (answer.status_code, answer.json()["title"]) == (400, "no such filter"), words
    assert world.developer.get(f"{SHOP}/search").status_code == 422


def test_several_runs_are_cancelled_each_for_itself(world: World) -> None:
    ids = [world.start(run_id=f"many-{number}") for number in range(3)]
    assert world.operator.post(f"{SHOP}/runs/many-1/cancel").is_success
    world.work()
    given = {"ids": [*ids, "none"]}
    found = world.operator.post(f"{SHOP}/runs/cancel", json=given).json()["runs"]
    assert [(run["id"], run["recorded"]) for run in found] == [
        ("many-0", True),
        ("many-1", False),
        ("many-2", True),
        ("none", False),
    ]
    assert "it has ended: cancelled" in found[1]["fault"]
    assert "no run 'none'" in found[3]["fault"]
    world.work()
    rows = world.viewer.get(f"{SHOP}/runs?status=cancelled").json()["runs"]
    assert {row["id"] for row in rows} >= set(ids)
    entries = world.admin.get(f"{SHOP}/audit").json()["entries"]
    cancelled = [e["target"] for e in entries if e["action"] == "run.cancelled"]
    assert sorted(cancelled) == sorted(ids)
    of_others = world.stranger.post("/api/v1/projects/bank/runs/cancel", json={"ids": ids[:1]})
    assert of_others.json()["runs"][0]["recorded"] is False
    many = world.operator.post(f"{SHOP}/runs/cancel", json={"ids": ["x"] * 201})
    assert many.status_code == 422


def test_a_time_that_is_none_is_told_with_what_one_is(world: World) -> None:
    for name in ("since", "until"):
        for text in ("yesterday", "nan", "1e300", "2027-01-31"):
            found = world.viewer.get(f"{SHOP}/runs", params={name: text})
            assert found.status_code == 400
            said = f"{name} is a time in milliseconds since 1970, not '{text}'"
            assert found.json()["detail"] == said
