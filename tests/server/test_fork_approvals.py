"""What a fork makes of approvals: a person decides each, and for one run."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import REFUND, World

SHOP = "/api/v1/projects/shop"

EACH = """
name: each
steps:
  - id: all
    type: map
    over: [1, 2]
    as: order
    steps:
      - id: word
        type: approval
        role: manager
        show: {order: $order}
"""


def _run(world: World, run_id: str) -> Any:
    return world.developer.get(f"{SHOP}/runs/{run_id}").json()["run"]


def approved(world: World, run_id: str) -> None:
    """Approve what a run asks, and let it pay."""
    [one] = [
        one for one in world.operator.get(f"{SHOP}/inbox").json()["asked"] if one["run"] == run_id
    ]
    body = {"run": run_id, "path": one["path"], "shown": one["shown"], "answer": "approve"}
    assert world.operator.post(f"{SHOP}/inbox", json=body).is_success
    world.work()
    assert _run(world, run_id)["status"] == "success"


@pytest.mark.parametrize("effects", [False, True])
@pytest.mark.parametrize("state", ["open", "approved", "another version"])
def test_an_approval_is_no_output_that_a_fork_gives(
    world: World, state: str, effects: bool
) -> None:
    run_id = world.start()
    body: dict[str, Any] = {"edit": {"approve": {"output": {"approved": True}}}, "effects": effects}
    if state != "open":
        approved(world, run_id)
    if state == "another version":
        put = world.developer.post(f"{SHOP}/programs", json={"source": REFUND + "# once more\n"})
        body["version"] = put.json()["version"]
    for part in ("/preview", ""):
        answer = world.developer.post(f"{SHOP}/runs/{run_id}/fork{part}", json=body)
        assert (answer.status_code, answer.json()["title"]) == (403, "not permitted")
        assert "'approve' is an approval, which is decided in the inbox" in answer.text


def test_nor_is_one_in_a_frame_of_another_step(world: World) -> None:
    assert world.developer.post(f"{SHOP}/programs", json={"source": EACH}).status_code == 201
    run_id = world.start(program="each", inputs={})
    for name in ("all[0]/word", "word"):
        body = {"edit": {name: {"output": True}}, "effects": True}
        answer = world.developer.post(f"{SHOP}/runs/{run_id}/fork", json=body)
        assert (answer.status_code, name in answer.text) == (403, True), answer.text


def test_with_effects_an_approval_is_asked_for_anew(world: World) -> None:
    """It was given for one payment: neither the fork nor a fork of that makes another by it."""
    run_id = world.start()
    approved(world, run_id)
    for _ in range(2):
        made = world.developer.post(f"{SHOP}/runs/{run_id}/fork", json={"effects": True}).json()
        world.work()
        run = _run(world, made["id"])
        assert (made["taken"], run["status"]) == (0, "suspended")
        assert '"kind":"approval"' in run["waiting"][0]
        again = world.developer.post(f"{SHOP}/runs/{run_id}/fork", json={}).json()
        assert again["taken"] == 2  # of approval and payment: nothing is called
        world.work()
        assert _run(world, again["id"])["status"] == "success"
        run_id = again["id"]
    approved(world, made["id"])
