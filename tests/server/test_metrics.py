"""What a server tells Prometheus, and whom."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from scraping import asked, prometheus_over

from nano_vm import ExecutionVM
from nano_vm.cli import main
from nano_vm.server.app import application
from nano_vm.server.metrics import observer_of
from nano_vm.server.state import State
from nano_vm.store.protocol import Announced, open_tables

from .conftest import PEPPER, World, pay
from .serving import served

TOKEN = "a-token-of-the-tests-long-enough"


def samples(text: str) -> dict[str, float]:
    """Each sample by its name and labels."""
    return {
        f"{sample.name}{sample.labels or ''}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def shop(make_world: Callable[[str], World], database: str) -> World:
    """A server on each database, whose metrics have a token."""
    world = make_world(database)
    world.state.metrics_token = TOKEN
    return world


@pytest.mark.slow
def test_runs_queue_waits_workers_and_requests_are_told(shop: World) -> None:
    shop.start(run_id="waits-1")
    for number in range(2):
        body = {"program": "refund", "inputs": {"order_id": "A", "amount": 1}}
        answer = shop.developer.post(
            "/api/v1/projects/shop/runs", json={**body, "run_id": f"queue-{number}"}
        )
        assert answer.status_code == 201
    assert shop.viewer.post("/api/v1/projects/shop/runs", json=body).status_code == 403
    assert shop.nobody.get("/nothing-here").status_code == 404
    found = samples(shop.client(TOKEN).get("/metrics").text)
    assert found["nano_vm_store_up"] == 1
    assert found["nano_vm_stored_runs{'status': 'pending'}"] == 2
    assert found["nano_vm_stored_runs{'status': 'suspended'}"] == 1
    assert found["nano_vm_waiting{'kind': 'approval'}"] == 1
    assert 0 < found["nano_vm_oldest_run_age_seconds{'status': 'pending'}"] < 600
    assert found["nano_vm_http_requests_total{'operation': 'start_run', 'status': '201'}"] == 3
    assert found["nano_vm_http_requests_total{'operation': 'start_run', 'status': '403'}"] == 1
    assert found["nano_vm_http_requests_total{'operation': 'none', 'status': '404'}"] == 1
    assert found["nano_vm_http_request_duration_seconds_count{'operation': 'start_run'}"] == 4
    assert found["nano_vm_streams"] == 0
    assert found["nano_vm_workers"] == 0, "that of the tests has left"


def test_a_worker_that_comes_while_they_are_counted_counts(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, announced = shop.state.store, shop.state.store.announced

    def just_come() -> list[Announced]:
        store.heartbeat("new", 60)
        store.announce(Announced("new", "new", "{}", 1, 2))
        return announced()

    monkeypatch.setattr(store, "announced", just_come)
    assert samples(shop.client(TOKEN).get("/metrics").text)["nano_vm_workers"] == 1


@pytest.mark.slow
def test_who_may_read_them(shop: World) -> None:
    key = shop.owner.post("/api/v1/projects/shop/keys", json={"name": "m", "role": "admin"}).json()[
        "key"
    ]
    asked = {
        "owner": shop.owner,
        "admin": shop.admin,
        "nobody": shop.nobody,
        "a key": shop.client(key),
        "the token": shop.client(TOKEN),
        "another token": shop.client(TOKEN[:-1]),
        "no token": shop.client(""),
    }
    found = {who: client.get("/metrics").status_code for who, client in asked.items()}
    assert found == {
        "owner": 200,
        "admin": 403,
        "nobody": 401,
        "a key": 403,
        "the token": 200,
        "another token": 401,
        "no token": 401,
    }
    assert shop.client(TOKEN).get("/api/v1/me").status_code == 401, "it opens nothing else"
    shop.state.metrics_token = None
    assert shop.client(TOKEN).get("/metrics").status_code == 401
    assert shop.client("").get("/metrics").status_code == 401


@pytest.mark.slow
def test_prometheus_asks_by_the_address_of_the_process(shop: World) -> None:
    state = State(shop.state.store, PEPPER, public_url="https://runs.example.org")
    state.metrics_token = TOKEN
    world = World(state, application(state), {})
    answer = world.client(TOKEN).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert world.client(TOKEN).get("/api/v1/me").status_code == 421


@pytest.mark.slow
def test_a_store_that_is_down_is_told_and_costs_only_its_own(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nano_vm.errors import StoreError

    def down(*_: Any) -> None:
        raise StoreError("gone", passing=True)

    shop.login("viewer")
    for name in ("counts", "owners"):
        monkeypatch.setattr(type(shop.state.store), name, down)
    found = samples(shop.client(TOKEN).get("/metrics").text)
    assert found["nano_vm_store_up"] == 0
    assert "nano_vm_workers" not in found
    assert "nano_vm_http_requests_total{'operation': 'login', 'status': '200'}" in found


@pytest.mark.slow
def test_without_the_extra_it_is_said(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    state = State(shop.state.store, PEPPER, metrics_token=TOKEN)
    answer = World(state, application(state), {}).client(TOKEN).get("/metrics")
    assert answer.status_code == 501
    assert "llm-nano-vm[prometheus]" in answer.json()["detail"]


@pytest.mark.parametrize(
    "token", ["short", "with a space in the middle", "ünicode-ünicode-ünicode"]
)
def test_a_token_that_is_none_is_refused(
    token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("NANO_VM_METRICS_TOKEN", token)
    assert main(["serve", "--store", f"sqlite:///{tmp_path}/runs.db", "--bind", "0"]) == 2
    told = capsys.readouterr().err
    assert "NANO_VM_METRICS_TOKEN has at least 16 characters" in told
    assert token not in told


@pytest.mark.slow
@pytest.mark.elsewhere("needs a Prometheus server, Debian's package prometheus")
def test_a_real_prometheus_scrapes_the_server(tmp_path: Path) -> None:
    store = open_tables(f"sqlite:///{tmp_path}/runs.db")
    observer = observer_of(store)
    assert observer is not None
    vm = ExecutionVM(None, {"pay": pay}, store=store, observers=[observer])
    state = State(store, PEPPER, vm=vm, observer=observer, metrics_token=TOKEN)
    with served(state) as address:
        target = address.removeprefix("http://")
        with prometheus_over(target, tmp_path, TOKEN) as url:
            [up] = asked(url, 'up{job="vm"} == 1')
            assert up["metric"]["instance"] == target
            [scrapes] = asked(
                url, 'nano_vm_http_requests_total{operation="metrics",status="200"} > 1'
            )
            assert float(scrapes["value"][1]) > 1
            [there] = asked(url, "nano_vm_store_up")
            assert there["value"][1] == "1"
    store.close()
