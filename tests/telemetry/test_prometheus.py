"""Metrics for Prometheus: what is counted, that the labels are bounded, and what the tools of
Prometheus say of it.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from build import NOW, llm, mapped, program, step
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from receiver import Receiver
from scraping import asked, found, prometheus_over

from nano_vm import Completion, ExecutionVM, ModelError, VMError, tool
from nano_vm.adapters import Cached
from nano_vm.adapters.pool import Member, Pool
from nano_vm.adapters.pool.breaker import Breaking
from nano_vm.cli import main
from nano_vm.errors import StoreError
from nano_vm.records.usage import LLMUsage
from nano_vm.store.protocol import open_store
from nano_vm.telemetry.prometheus import (
    BUCKETS_SECONDS,
    MAX_VALUES,
    OTHER,
    Prometheus,
    Serving,
    serve,
)


class Model:
    model = "small"

    def __init__(self, cost: str | None = "0.0001") -> None:
        self.usage = LLMUsage(10, 2, 12, None if cost is None else Decimal(cost))

    async def complete(self, messages: list[dict[str, Any]], **kwargs: Any) -> Completion:
        return Completion("yes", self.usage, "small-2026")


@tool(effect="read")
def read() -> str:
    return "done"


def flaky_tool() -> Any:
    calls = iter(range(100))

    @tool(effect="read")
    def flaky() -> None:
        if next(calls) == 0:
            raise ConnectionError("once more")

    return flaky


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Each sample as it is on the wire, without buckets but the last."""
    text = generate_latest(registry).decode()
    return {
        f"{s.name}{json.dumps(s.labels, sort_keys=True)}".replace('"', "'"): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if not (s.name.endswith("_bucket") and s.labels["le"] != "+Inf")
        and not s.name.endswith("_created")
    }


async def test_what_runs_do_is_counted() -> None:
    registry = CollectorRegistry()
    metrics = Prometheus(registry)
    vm = ExecutionVM(Model(), {"read": read, "flaky": flaky_tool()}, observers=[metrics])
    one = program(
        step("a", "flaky", max_retries=2, retry=NOW),
        mapped(llm("m"), step("r", "read"), over=[1, 2, 3], id="each"),
        {"id": "fine", "type": "assert", "condition": "$a.output == 'no'"},
    )
    trace = await vm.run(one)
    assert trace.status.value == "failed"
    assert (await vm.run(program(step("a", "unknown")))).error_kind == "refused"
    found = samples(registry)
    durations = {
        name: found.pop(name)
        for name in list(found)
        if name.endswith("_seconds_sum{'program': 'p'}")
    }
    assert 0 < durations["nano_vm_run_duration_seconds_sum{'program': 'p'}"] < 60
    for name in [name for name in found if "_seconds_sum" in name or "_bucket" in name]:
        del found[name]
    assert found == {
        "nano_vm_runs_started_total{'program': 'p'}": 1,
        "nano_vm_runs_total{'program': 'p', 'status': 'failed'}": 1,
        "nano_vm_runs_total{'program': 'p', 'status': 'refused'}": 1,
        "nano_vm_runs_in_flight{'program': 'p'}": 0,
        "nano_vm_run_duration_seconds_count{'program': 'p'}": 1,
        "nano_vm_steps_total{'program': 'p', 'status': 'success', 'type': 'tool'}": 4,
        "nano_vm_steps_total{'program': 'p', 'status': 'success', 'type': 'llm'}": 3,
        "nano_vm_steps_total{'program': 'p', 'status': 'success', 'type': 'map'}": 1,
        "nano_vm_steps_total{'program': 'p', 'status': 'failed', 'type': 'assert'}": 1,
        "nano_vm_step_duration_seconds_count{'target': 'flaky', 'type': 'tool'}": 1,
        "nano_vm_step_duration_seconds_count{'target': 'read', 'type': 'tool'}": 3,
        "nano_vm_step_duration_seconds_count{'target': 'small', 'type': 'llm'}": 3,
        "nano_vm_step_duration_seconds_count{'target': '', 'type': 'map'}": 1,
        "nano_vm_step_duration_seconds_count{'target': '', 'type': 'assert'}": 1,
        "nano_vm_retries_total{'error_kind': 'tool', 'program': 'p', 'type': 'tool'}": 1,
        "nano_vm_tokens_total{'direction': 'input', 'model': 'small-2026', 'program': 'p'}": 30,
        "nano_vm_tokens_total{'direction': 'output', 'model': 'small-2026', 'program': 'p'}": 6,
        "nano_vm_cost_usd_total{'model': 'small-2026', 'program': 'p'}": 0.0003,
        "nano_vm_unpriced_calls_total{'model': 'small-2026', 'program': 'p'}": 0,
        "nano_vm_cached_answers_total{'model': 'small-2026', 'program': 'p'}": 0,
    }


async def test_a_known_answer_is_counted_and_consumes_nothing() -> None:
    registry = CollectorRegistry()
    vm = ExecutionVM(Cached(Model()), observers=[Prometheus(registry)])
    for _ in range(3):
        await vm.run(program(llm("m")))
    found, of = samples(registry), "{'model': 'small-2026', 'program': 'p'}"
    assert found[f"nano_vm_cached_answers_total{of}"] == 2
    assert found[f"nano_vm_cost_usd_total{of}"] == 0.0001
    assert found[f"nano_vm_unpriced_calls_total{of}"] == 0


async def test_an_unknown_cost_is_counted_and_is_not_zero() -> None:
    registry = CollectorRegistry()
    vm = ExecutionVM(Model(None), observers=[Prometheus(registry)])
    await vm.run(program(llm("m")))
    found = samples(registry)
    assert found["nano_vm_unpriced_calls_total{'model': 'small-2026', 'program': 'p'}"] == 1


class Down(Model):
    model = "down"

    async def complete(self, messages: list[dict[str, Any]], **kwargs: Any) -> Completion:
        raise ModelError("out of order", status=503)


async def test_a_pool_tells_its_attempts_and_how_its_members_stand() -> None:
    registry = CollectorRegistry()
    breaking = Breaking(failures=2)
    members = [Member(Down(), breaking=breaking), Member(Model())]
    pool = Pool(members, name="judges")
    vm = ExecutionVM(pool, observers=[Prometheus(registry, pools=[pool])])
    for _ in range(3):
        assert (await vm.run(program(llm("m")))).ok
    found = samples(registry)

    def attempts(member: str, outcome: str) -> float | None:
        labels = f"{{'member': '{member}', 'outcome': '{outcome}', 'pool': 'judges'}}"
        return found.get(f"nano_vm_pool_attempts_total{labels}")

    assert (attempts("down", "transient"), attempts("small", "answered")) == (2, 3)
    state = "nano_vm_pool_breaker{'member': '%s', 'pool': 'judges', 'state': '%s'}"
    assert [found[state % ("down", s)] for s in ("closed", "open", "half_open")] == [0, 1, 0]
    assert found[state % ("small", "closed")] == 1
    assert found["nano_vm_pool_calls_in_flight{'member': 'small', 'pool': 'judges'}"] == 0
    assert found["nano_vm_pool_latency_seconds{'member': 'small', 'pool': 'judges'}"] < 5
    tokens = "nano_vm_tokens_total{'direction': 'input', 'model': 'small-2026', 'program': 'p'}"
    assert found[tokens] == 30


async def test_attempts_of_a_pool_that_gives_up_are_counted_too() -> None:
    registry = CollectorRegistry()
    pool = Pool([Down()], name="judges")
    vm = ExecutionVM(pool, observers=[Prometheus(registry)])
    assert not (await vm.run(program(llm("m", max_retries=2, retry=NOW)))).ok
    labels = "{'member': 'down', 'outcome': 'transient', 'pool': 'judges'}"
    assert samples(registry)[f"nano_vm_pool_attempts_total{labels}"] == 2


async def test_a_run_under_way_is_in_flight() -> None:
    registry = CollectorRegistry()
    reached, go = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        reached.set()
        await go.wait()

    vm = ExecutionVM(tools={"hang": hang}, observers=[Prometheus(registry)])
    run = vm.start(program(step("a", "hang")))
    await reached.wait()
    name = "nano_vm_runs_in_flight{'program': 'p'}"
    assert samples(registry)[name] == 1
    go.set()
    await run
    assert samples(registry)[name] == 0


async def test_what_is_replayed_was_counted_when_it_happened(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    one = program(llm("m"), {"id": "ask", "type": "approval", "role": "boss"}, step("r", "read"))
    registry = CollectorRegistry()
    metrics = Prometheus(registry)
    with closing(ExecutionVM(Model(), {"read": read}, store=url, observers=[metrics])) as first:
        waiting = (await first.run(one, run_id="r")).waiting
        assert (
            samples(registry)["nano_vm_runs_suspended_total{'kind': 'approval', 'program': 'p'}"]
            == 1
        )
        first.approve("r", "ask", shown=waiting[0].get("shown"), by="ann")
    with closing(ExecutionVM(Model(), {"read": read}, store=url, observers=[metrics])) as second:
        assert (await second.resume("r")).ok
    found = samples(registry)
    assert (
        found["nano_vm_tokens_total{'direction': 'input', 'model': 'small-2026', 'program': 'p'}"]
        == 10
    )
    assert found["nano_vm_steps_total{'program': 'p', 'status': 'success', 'type': 'llm'}"] == 1
    assert found["nano_vm_runs_started_total{'program': 'p'}"] == 1
    assert found["nano_vm_runs_total{'program': 'p', 'status': 'success'}"] == 1
    assert found["nano_vm_runs_in_flight{'program': 'p'}"] == 0


async def test_a_store_tells_its_queue(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    store = open_store(url)
    registry = CollectorRegistry()
    Prometheus(registry, store=store)
    one = program({"id": "ask", "type": "approval", "role": "boss"})
    with closing(ExecutionVM(store=url)) as vm:
        await vm.run(one)
        await vm.run(one)
        await vm.run(program({"id": "w", "type": "wait", "event": "paid"}))
        for _ in range(3):
            await vm.submit(one)
    found = samples(registry)
    assert {name: value for name, value in found.items() if "stored" in name or "wait" in name} == {
        "nano_vm_stored_runs{'status': 'pending'}": 3,
        "nano_vm_stored_runs{'status': 'running'}": 0,
        "nano_vm_stored_runs{'status': 'suspended'}": 3,
        "nano_vm_waiting{'kind': 'approval'}": 2,
        "nano_vm_waiting{'kind': 'wait'}": 1,
        "nano_vm_waiting{'kind': 'in_doubt'}": 0,
    }
    assert found["nano_vm_store_up{}"] == 1
    ages = {
        status: found[f"nano_vm_oldest_run_age_seconds{{'status': '{status}'}}"]
        for status in ("pending", "running", "suspended")
    }
    assert ages["running"] == 0
    assert 0 < ages["pending"] < ages["suspended"] < 600
    store.close()


def test_a_store_that_is_down_costs_its_own_metrics_only() -> None:
    class Down:
        def counts(self) -> dict[str, int]:
            raise StoreError("gone")

    registry = CollectorRegistry()
    Prometheus(registry, store=Down())  # type: ignore[arg-type]
    assert samples(registry) == {"nano_vm_store_up{}": 0}


@pytest.mark.slow
async def test_labels_have_bounded_values() -> None:
    registry = CollectorRegistry()
    tools = {f"t{n}": read for n in range(2 * MAX_VALUES)}
    vm = ExecutionVM(tools=tools, observers=[Prometheus(registry)])
    steps = [step(f"s{n}", name) for n, name in enumerate(tools)]
    for n in range(2 * MAX_VALUES):
        await vm.run(program(*steps[:1]) if n else program(*steps))
    families = {
        f.name: f for f in text_string_to_metric_families(generate_latest(registry).decode())
    }
    targets = {s.labels["target"] for s in families["nano_vm_step_duration_seconds"].samples}
    assert OTHER in targets
    assert len(targets) == MAX_VALUES + 1


async def test_hostile_names_stay_in_their_label() -> None:
    registry = CollectorRegistry()
    vm = ExecutionVM(tools={'a"\n} 1\n\\x': read}, observers=[Prometheus(registry)])
    await vm.run(program(step("a", 'a"\n} 1\n\\x')))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    (one,) = [f for f in families if f.name == "nano_vm_step_duration_seconds"]
    assert {s.labels["target"] for s in one.samples} == {'a"\n} 1\n\\x'}


def test_threads_count_together() -> None:
    registry = CollectorRegistry()
    vm = ExecutionVM(tools={"read": read}, observers=[Prometheus(registry)])
    one = program(*[step(f"s{n}", "read") for n in range(20)])
    stop = threading.Event()

    def scrape() -> None:
        while not stop.is_set():
            generate_latest(registry)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    workers = [
        threading.Thread(target=lambda: [vm.run_sync(one) for _ in range(5)]) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stop.set()
    scraper.join()
    assert (
        samples(registry)[
            "nano_vm_steps_total{'program': 'p', 'status': 'success', 'type': 'tool'}"
        ]
        == 400
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"registry": 3}, "registry is 3, which is no CollectorRegistry"),
        ({"pools": ["x"]}, "'x' is no Pool"),
        ({"store": "sqlite:///x"}, r"store is 'sqlite:///x', which is no store; give open_store"),
    ],
)
def test_wrong_arguments_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(VMError, match=message):
        Prometheus(**{"registry": CollectorRegistry(), **given})


def test_a_registry_takes_one() -> None:
    registry = CollectorRegistry()
    Prometheus(registry)
    with pytest.raises(VMError, match=r"has these metrics already .*one Prometheus\(\) serves any"):
        Prometheus(registry)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"pip install 'llm-nano-vm\[prometheus\]'"):
        Prometheus()


# --- with the tools of Prometheus -----------------------------------------------------------------

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "observability"


async def a_whole_registry(tmp_path: Path) -> CollectorRegistry:
    """One that has every metric, with samples."""
    registry = CollectorRegistry()
    store = open_store(f"sqlite:///{tmp_path / 'some.db'}")
    pool = Pool([Model()], name="judges")
    metrics = Prometheus(registry, store=store, pools=[pool])
    vm = ExecutionVM(pool, {"flaky": flaky_tool(), "read": read}, observers=[metrics])
    await vm.run(program(step("a", "flaky", max_retries=2, retry=NOW), llm("m"), step("b", "read")))
    await vm.run(program({"id": "ask", "type": "approval", "role": "boss"}))
    return registry


async def test_the_dashboard_and_the_alerts_ask_for_metrics_that_are_there(tmp_path: Path) -> None:
    text = generate_latest(await a_whole_registry(tmp_path)).decode()
    families = list(text_string_to_metric_families(text))
    told = {sample.name for family in families for sample in family.samples}
    labels = {name for family in families for sample in family.samples for name in sample.labels}
    dashboard = json.loads((EXAMPLES / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((EXAMPLES / "alerts.yml").read_text())["groups"][0]["rules"]
    assert len(queries) > 10
    for query in [*queries, *(rule["expr"] for rule in rules)]:
        wanted = set(re.findall(r"nano_vm_\w+", query))
        assert wanted
        assert wanted <= told, query
        grouped = re.findall(r"by \(([^)]*)\)", query)
        assert {name.strip() for names in grouped for name in names.split(",")} <= labels, query


def scraped(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(response.read().decode())


def test_metrics_are_served(tmp_path: Path) -> None:
    server = serve(0)
    ExecutionVM(tools={"read": read}, observers=[server.metrics]).run_sync(
        program(step("a", "read"))
    )
    text = scraped(server.url)
    assert 'nano_vm_runs_total{program="p",status="success"} 1.0' in text
    assert "process_cpu_seconds_total" in text
    server.close()
    with pytest.raises(OSError, match="refused"):
        scraped(server.url)


PROGRAM = "{name: p, steps: [{id: a, type: set, values: {x: 1}}]}"


@pytest.mark.parametrize("command", ["run", "batch", "work"])
def test_a_command_serves_metrics_and_sends_spans(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(PROGRAM)
    Path("in.jsonl").write_text("{}\n")
    with closing(ExecutionVM(store="sqlite:///runs.db")) as vm:
        asyncio.run(vm.submit(program({"id": "a", "type": "set", "values": {"x": 1}})))
    receiver = Receiver()
    texts: list[str] = []
    close = Serving.close

    def scraping(server: Serving) -> None:
        texts.append(scraped(server.url))
        close(server)

    monkeypatch.setattr(Serving, "close", scraping)
    store = ["--store", "sqlite:///runs.db"]
    arguments = {
        "run": ["run", "p.yaml", *store],
        "batch": ["batch", "p.yaml", "in.jsonl", "-o", "out.jsonl", *store],
        "work": ["work", "--until-idle", *store],
    }[command]
    assert main([*arguments, "--metrics-port", "0", "--otlp", receiver.url]) == 0
    receiver.close()
    assert "nano-vm: metrics at http://127.0.0.1:" in capsys.readouterr().err
    assert 'nano_vm_runs_total{program="p",status="success"} 1.0' in texts[0]
    left = 0 if command == "work" else 1
    assert f'nano_vm_stored_runs{{status="pending"}} {left}.0' in texts[0]
    assert [span.name for span in receiver.spans] == ["set a", "invoke_workflow p"]


def test_metrics_of_a_command_tell_how_the_pools_of_its_host_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text('steps: [{id: ask, type: llm, prompt: "?"}]')
    Path("a.yaml").write_text("ask: yes")
    Path("host.toml").write_text(
        '[models.a]\nmodel = "scripted:a.yaml"\n[models.b]\nmodel = "scripted:a.yaml"\n'
        '[pools.judge]\nmembers = ["a", "b"]\n'
    )
    texts: list[str] = []
    close = Serving.close

    def scraping(server: Serving) -> None:
        texts.append(scraped(server.url))
        close(server)

    monkeypatch.setattr(Serving, "close", scraping)
    assert main(["run", "p.yaml", "--host", "host.toml", "--metrics-port", "0"]) == 0
    for member in "ab":
        state = f'nano_vm_pool_breaker{{member="{member}",pool="judge",state="closed"}} 1.0'
        assert state in texts[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics-port", "x"], "'x' is not a port; write 9464, or 0.0.0.0:9464"),
        (["--metrics-port", "70000"], "'70000' is not a port"),
        (["--metrics-port", ":9464"], "':9464' is not a port"),
        (["--metrics-port", "TAKEN"], "--metrics-port: cannot listen on 127.0.0.1:"),
        (["--metrics-port", "192.0.2.1:9464"], "cannot listen on 192.0.2.1:9464"),
        (["--otlp", "localhost"], "--otlp: 'localhost' is no address of an OTLP receiver"),
    ],
)
def test_what_is_no_port_or_address_is_told(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(PROGRAM)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["run", "p.yaml", *(port if a == "TAKEN" else a for a in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_a_receiver_that_is_down_costs_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(PROGRAM)
    receiver = Receiver(status=400)
    assert main(["run", "p.yaml", "--otlp", receiver.url]) == 0
    receiver.close()
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == f"nano-vm: 2 of 2 spans could not be sent to {receiver.url}"


@pytest.mark.elsewhere("needs promtool, which Debian's package prometheus brings")
def test_promtool_finds_nothing_to_mend(tmp_path: Path) -> None:
    promtool = found("promtool")
    text = generate_latest(asyncio.run(a_whole_registry(tmp_path)))
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    rules = subprocess.run(
        [promtool, "check", "rules", EXAMPLES / "alerts.yml"], capture_output=True, check=False
    )
    assert rules.returncode == 0, rules.stdout + rules.stderr
    tests = subprocess.run(
        [promtool, "test", "rules", EXAMPLES / "alerts.test.yml"], capture_output=True, check=False
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, CollectorRegistry]]:
    """A real Prometheus that scrapes a registry; its address."""
    registry = CollectorRegistry()
    exporter, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        with prometheus_over(f"127.0.0.1:{exporter.server_port}", tmp_path) as address:
            yield address, registry
    finally:
        exporter.shutdown()
        exporter.server_close()
        thread.join()


@pytest.mark.slow
@pytest.mark.elsewhere("needs a Prometheus server, Debian's package prometheus")
async def test_a_real_prometheus_scrapes_and_answers(
    server: tuple[str, CollectorRegistry],
) -> None:
    url, registry = server

    async def slow() -> None:
        await asyncio.sleep(0.15)

    vm = ExecutionVM(Model(), {"slow": slow}, observers=[Prometheus(registry)])
    traces = [await vm.run(program(step("a", "slow"), llm("m"))) for _ in range(4)]
    assert all(trace.ok for trace in traces)
    p95 = 'histogram_quantile(0.95, sum by (le) (nano_vm_step_duration_seconds_bucket{target="slow"}))'
    (answer,) = await asyncio.to_thread(asked, url, p95)
    took = max((trace.steps[0].duration_ms or 0) / 1_000 for trace in traces)
    assert took >= 0.15
    ends = [0, *BUCKETS_SECONDS]
    begin, end = next(pair for pair in pairwise(ends) if took <= pair[1])
    assert begin <= float(answer["value"][1]) <= end  # the bucket that it fell into
    (cost,) = await asyncio.to_thread(asked, url, "sum(nano_vm_cost_usd_total)")
    assert float(cost["value"][1]) == pytest.approx(0.0004)
