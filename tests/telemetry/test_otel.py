"""Spans of runs, as an OTLP receiver gets them and as a provider of the host does."""

from __future__ import annotations

import asyncio
import logging
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from build import NOW, llm, mapped, parallel, program, step
from opentelemetry import trace as otel
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from receiver import Receiver, attributes

from nano_vm import Completion, ExecutionVM, ModelError, Program, VMError, tool
from nano_vm.adapters.pool import Pool
from nano_vm.records.usage import LLMUsage
from nano_vm.telemetry import names
from nano_vm.telemetry.otel import OpenTelemetry
from nano_vm.telemetry.otlp import Otlp, traces_url
from nano_vm.telemetry.redaction import Redaction

SECRET = "my card is 4000-1234"


class Model:
    """Answers, and says what it consumed."""

    model = "small"

    def __init__(self, usage: LLMUsage | None = None) -> None:
        self.usage = usage or LLMUsage(12, 3, 15, Decimal("0.0000021"))

    async def complete(self, messages: list[dict[str, Any]], **kwargs: Any) -> Completion:
        return Completion(f"I heard {SECRET}", self.usage, "small-2026", "stop")


def flaky_tool() -> Callable[..., Any]:
    """A tool that fails the first time."""
    calls = iter(range(100))

    @tool(effect="read")
    def flaky(number: str = "") -> dict[str, str]:
        if next(calls) == 0:
            raise ConnectionError(f"no line for {number}")
        return {"number": number, "password": "hunter2"}

    return flaky


WHOLE = {
    "inputs": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    "steps": [
        step("call", "flaky", args={"number": "$text"}, max_retries=2, retry=NOW),
        mapped(llm("say", "$text", max_tokens=99, temperature=0), over=[1, 2], id="each"),
        parallel(step("x", "flaky"), step("y", "flaky"), id="both"),
        {
            "id": "again",
            "type": "loop",
            "max_iterations": 2,
            "steps": [llm("draft", "go on")],
            "until": "$draft.output == 'never'",
            "on_exhausted": "continue",
        },
        {"id": "ok", "type": "assert", "condition": "$call.output.number != 'x'"},
    ],
}


def whole() -> Program:
    return Program.from_dict({"name": "whole", **WHOLE})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def recorded(**options: Any) -> tuple[TracerProvider, InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(**options)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def nested(spans: Any) -> dict[str, str | None]:
    """The name of each span's parent, by the span's path or name."""
    by_id = {span.context.span_id: span for span in spans}

    def place(span: Any) -> str:
        return str(span.attributes.get(names.STEP_PATH, span.name))

    return {
        place(span) if names.ATTEMPT not in span.attributes else f"{place(span)} {span.name}": None
        if span.parent is None or span.parent.span_id not in by_id
        else place(by_id[span.parent.span_id])
        for span in spans
    }


async def test_a_run_arrives_at_an_otlp_receiver(receiver: Receiver) -> None:
    observer = Otlp(receiver.url, headers={"x-key": "k"}, service_name="shop")
    vm = ExecutionVM(Model(), {"flaky": flaky_tool()}, observers=[observer])
    trace = await vm.run(whole(), {"text": SECRET}, run_id="r")
    observer.close()
    assert trace.ok, trace.error
    assert {(h[":path"], h["x-key"]) for h in receiver.headers} == {("/v1/traces", "k")}
    resource = receiver.requests[0].resource_spans[0].resource
    assert attributes(resource)["service.name"] == "shop"
    assert observer.counts.dropped == 0
    assert observer.counts.delivered == len(receiver.spans)
    spans = {span.name: span for span in receiver.spans}
    run = spans["invoke_workflow whole"]
    assert run.parent_span_id == b""
    assert len({span.trace_id for span in receiver.spans}) == 1
    assert attributes(run) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "whole",
        "openinference.span.kind": "CHAIN",
        "nano_vm.run.id": "r",
        "nano_vm.program.name": "whole",
        "nano_vm.program.digest": trace.program_digest,
        "nano_vm.run.status": "success",
    }
    chat = attributes(spans["chat small"])
    assert chat.pop("nano_vm.step.path") in ("each[0]/say", "each[1]/say", "again#2/draft")
    assert chat | {"gen_ai.request.max_tokens": 99, "gen_ai.request.temperature": 0} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "small",
        "gen_ai.response.model": "small-2026",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.request.max_tokens": 99,
        "gen_ai.request.temperature": 0,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "openinference.span.kind": "LLM",
        "llm.model_name": "small-2026",
        "llm.token_count.prompt": 12,
        "llm.token_count.completion": 3,
        "llm.token_count.total": 15,
        "llm.cost.total": 2.1e-06,
        "nano_vm.cost_usd": "0.0000021",
        "nano_vm.cost_source": "adapter",
        "nano_vm.run.id": "r",
        "nano_vm.step.type": "llm",
    }
    for span in receiver.spans:
        assert run.start_time_unix_nano <= span.end_time_unix_nano <= run.end_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    assert SECRET not in str(receiver.requests)
    assert "hunter2" not in str(receiver.requests)


@pytest.mark.parametrize("light", [True, False])
async def test_spans_are_nested_as_steps_are(light: bool) -> None:
    provider, exporter = recorded()
    observer = OpenTelemetry(provider)
    if not light:
        observer._light = None  # as with a provider that is not the SDK's
    vm = ExecutionVM(Model(), {"flaky": flaky_tool()}, observers=[observer])
    assert (await vm.run(whole(), {"text": "7"})).ok
    spans = exporter.get_finished_spans()
    run = "invoke_workflow whole"
    assert nested(spans) == {
        run: None,
        "call": run,
        "call attempt 1": "call",
        "each": run,
        "each[0]/say": "each",
        "each[1]/say": "each",
        "both": run,
        "both/x": "both",
        "both/y": "both",
        "again": run,
        "again#1/draft": "again",
        "again#2/draft": "again",
        "ok": run,
    }
    kinds = {s.attributes.get(names.STEP_PATH): s.attributes[names.SPAN_KIND] for s in spans}
    assert (kinds["each[0]/say"], kinds["both/x"], kinds["again"], kinds["ok"]) == (
        "LLM",
        "TOOL",
        "CHAIN",
        "GUARDRAIL",
    )
    assert {span.name for span in spans} >= {"loop again", "map each", "assert ok", "attempt 1"}
    attempt = next(span for span in spans if span.name == "attempt 1")
    assert not attempt.status.is_ok
    assert attempt.attributes[names.ERROR_TYPE] == "ConnectionError"
    call = next(
        s for s in spans if s.name == "execute_tool flaky" and names.RETRIES in s.attributes
    )
    assert call.attributes[names.STEP_PATH] == "call"
    assert call.attributes[names.RETRIES] == 1
    assert call.status.status_code is otel.StatusCode.UNSET


@pytest.mark.parametrize("light", [True, False])
async def test_both_ways_to_make_spans_say_the_same(light: bool) -> None:
    told = []
    for way in (True, light):
        provider, exporter = recorded()
        observer = OpenTelemetry(provider, content=True)
        observer._light = observer._light if way else None
        vm = ExecutionVM(Model(), {"flaky": flaky_tool()}, observers=[observer])
        await vm.run(whole(), {"text": "7"}, run_id="r")
        spans = exporter.get_finished_spans()
        told.append(
            sorted(
                (s.name, s.kind.name, s.status.status_code.name, str(sorted(s.attributes.items())))
                for s in spans
            )
        )
        assert {s.instrumentation_scope.name for s in spans} == {"nano_vm"}
        assert {s.resource for s in spans} == {provider.resource}
    assert told[0] == told[1]


async def test_the_callers_span_is_the_parent_and_tools_see_their_steps() -> None:
    provider, exporter = recorded()
    tracer = provider.get_tracer("host")

    def in_thread() -> None:
        otel.get_current_span().set_attribute("mine", "thread")
        tracer.start_span("inner thread").end()

    async def in_loop() -> None:
        await asyncio.sleep(0)
        otel.get_current_span().set_attribute("mine", ["loop", 1])
        tracer.start_span("inner loop").end()

    one = program(
        parallel(step("a", "in_thread"), step("b", "in_loop"), id="both"), step("c", "in_loop")
    )
    vm = ExecutionVM(
        tools={"in_thread": in_thread, "in_loop": in_loop}, observers=[OpenTelemetry(provider)]
    )
    with tracer.start_as_current_span("request") as request:
        assert (await vm.run(one)).ok
        assert otel.get_current_span() is request
        await vm.start(one)
        assert otel.get_current_span() is request
    spans = exporter.get_finished_spans()
    parents = [nested(spans)["invoke_workflow p"]]
    assert parents == ["request"]
    by_id = {span.context.span_id: span for span in spans}
    inner = [span for span in spans if span.name.startswith("inner")]
    above = sorted(by_id[s.parent.span_id].attributes[names.STEP_PATH] for s in inner)
    assert above == sorted(["both/a", "both/b", "c"] * 2)
    mine = {
        s.attributes[names.STEP_PATH]: s.attributes["mine"] for s in spans if "mine" in s.attributes
    }
    assert mine == {"both/a": "thread", "both/b": ("loop", 1), "c": ("loop", 1)}
    assert len({span.context.trace_id for span in spans}) == 1


async def test_a_run_that_a_tool_begins_stands_below_its_step() -> None:
    provider, exporter = recorded()
    observer = OpenTelemetry(provider)
    inner = ExecutionVM(tools={"say": lambda: None}, observers=[observer])

    async def begin() -> None:
        await inner.run(program(step("b", "say"), name="inner"))
        otel.get_current_span().set_attribute("mine", "still")

    vm = ExecutionVM(tools={"begin": begin}, observers=[observer])
    await vm.run(program(step("a", "begin"), name="outer"))
    spans = exporter.get_finished_spans()
    assert nested(spans) == {
        "invoke_workflow outer": None,
        "a": "invoke_workflow outer",
        "invoke_workflow inner": "a",
        "b": "invoke_workflow inner",
    }
    assert [s.name for s in spans if "mine" in s.attributes] == ["execute_tool begin"]


async def test_what_was_said_is_in_spans_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def said(**options: Any) -> str:
        provider, exporter = recorded()
        vm = ExecutionVM(
            Model(), {"flaky": flaky_tool()}, observers=[OpenTelemetry(provider, **options)]
        )
        await vm.run(whole(), {"text": SECRET})
        spans = exporter.get_finished_spans()
        return str([(dict(s.attributes), [dict(e.attributes) for e in s.events]) for s in spans])

    monkeypatch.delenv(names.CAPTURE_CONTENT, raising=False)
    assert SECRET not in await said()
    for value in ("true", "SPAN_ONLY", "span_and_event"):
        monkeypatch.setenv(names.CAPTURE_CONTENT, value)
        assert SECRET in await said()
    assert SECRET not in await said(content=False)
    for value in ("false", "NO_CONTENT", "event_only", ""):
        monkeypatch.setenv(names.CAPTURE_CONTENT, value)
        assert SECRET not in await said()
    whole_text = await said(content=True)
    for place in (
        "input.value",
        "output.value",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
        "exception.message",
    ):
        assert place in whole_text
    assert "hunter2" in whole_text
    redaction = Redaction(fields=["Pass-Word"], patterns=[r"\d{4}-\d{4}"])
    hidden = await said(content=True, redaction=redaction)
    assert "my card is [redacted]" in hidden
    assert "4000-" not in hidden
    assert "hunter2" not in hidden


async def test_failures_say_their_kind_and_not_what_was_said() -> None:
    provider, exporter = recorded()

    def broken(text: str) -> None:
        raise ValueError(f"cannot read {text}")

    vm = ExecutionVM(tools={"broken": broken}, observers=[OpenTelemetry(provider, content=False)])
    one = program(step("a", "broken", args={"text": SECRET}))
    assert not (await vm.run(one)).ok
    refused = await vm.run(program(step("a", "unknown")))
    assert refused.error_kind == "refused"
    spans = exporter.get_finished_spans()
    assert [(s.name, s.status.status_code.name, s.status.description) for s in spans] == [
        ("execute_tool broken", "ERROR", "tool"),
        ("invoke_workflow p", "ERROR", "tool"),
        ("invoke_workflow p", "ERROR", "refused"),
    ]
    (event,) = spans[0].events
    assert (event.name, dict(event.attributes)) == ("exception", {"exception.type": "ValueError"})


async def test_unknown_usage_and_cost_are_left_out() -> None:
    provider, exporter = recorded()
    vm = ExecutionVM(Model(LLMUsage(1, 2, 3)), observers=[OpenTelemetry(provider)])
    await vm.run(program(llm("m")))
    (span,) = [s for s in exporter.get_finished_spans() if s.name == "chat small"]
    assert span.attributes[names.INPUT_TOKENS] == 1
    assert not {names.COST, names.COST_USD} & set(span.attributes)


async def test_the_way_through_a_pool_is_told() -> None:
    class Down(Model):
        model = "down"

        async def complete(self, messages: list[dict[str, Any]], **kwargs: Any) -> Completion:
            raise ModelError("out of order", status=503)

    provider, exporter = recorded()
    pool = Pool([Down(), Model()], name="judges")
    await ExecutionVM(pool, observers=[OpenTelemetry(provider)]).run(program(llm("m")))
    (span,) = [s for s in exporter.get_finished_spans() if s.name == "chat judges"]
    told = {name: value for name, value in span.attributes.items() if ".pool." in name}
    assert told == {
        "nano_vm.pool.name": "judges",
        "nano_vm.pool.strategy": "ordered",
        "nano_vm.pool.tried": ("down", "small"),
        "nano_vm.pool.member": "small",
    }
    assert span.attributes[names.RESPONSE_MODEL] == "small-2026"


async def test_replayed_steps_are_marked_and_consume_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    one = program(
        mapped(llm("m"), over=[1], id="each"),
        {"id": "ask", "type": "approval", "role": "boss"},
        llm("n"),
    )
    observers, exporters = [], []
    for _ in range(2):
        provider, exporter = recorded()
        observers.append(OpenTelemetry(provider, content=True))
        exporters.append(exporter)
    first = ExecutionVM(Model(), store=url, observers=[observers[0]])
    waiting = (await first.run(one, run_id="r")).waiting
    first.approve("r", "ask", shown=waiting[0].get("shown"), by="ann")
    second = ExecutionVM(Model(), store=url, observers=[observers[1]])
    assert (await second.resume("r")).ok
    before, after = (
        {s.attributes.get(names.STEP_PATH): s for s in e.get_finished_spans()} for e in exporters
    )
    assert before[None].attributes[names.RUN_STATUS] == "suspended"
    assert after[None].attributes[names.RUN_RESUMED]
    assert after[None].attributes[names.RUN_STATUS] == "success"
    assert set(after) == {None, "each[0]/m", "each", "ask", "n"}
    replayed = {path for path, s in after.items() if s.attributes.get(names.REPLAYED)}
    assert replayed == {"each[0]/m", "each"}
    assert names.INPUT_TOKENS not in after["each[0]/m"].attributes
    assert after["n"].attributes[names.INPUT_TOKENS] == 12
    assert after["each[0]/m"].parent.span_id == after["each"].context.span_id
    assert not observers[0]._runs
    assert not observers[1]._runs
    first.close()
    second.close()


async def test_a_sampler_decides_for_the_whole_run() -> None:
    provider, exporter = recorded(sampler=ALWAYS_OFF)
    vm = ExecutionVM(Model(), {"flaky": flaky_tool()}, observers=[OpenTelemetry(provider)])
    assert (await vm.run(whole(), {"text": "7"})).ok
    assert exporter.get_finished_spans() == ()


@pytest.mark.slow
async def test_many_runs_at_a_time_are_told_apart() -> None:
    provider, exporter = recorded()

    async def slow(n: int) -> int:
        await asyncio.sleep(0.001 * (n % 3))
        return n

    vm = ExecutionVM(tools={"slow": slow}, observers=[OpenTelemetry(provider)])
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    one = program(
        step("a", "slow", args={"n": "$n"}), step("b", "slow", args={"n": "$n"}), inputs=schema
    )
    traces = await asyncio.gather(*[vm.run(one, {"n": n}) for n in range(20)])
    spans = exporter.get_finished_spans()
    assert len(spans) == 60
    by_run: dict[Any, set[int]] = {}
    for span in spans:
        by_run.setdefault(span.attributes[names.RUN_ID], set()).add(span.context.trace_id)
    assert set(by_run) == {trace.run_id for trace in traces}
    assert all(len(ids) == 1 for ids in by_run.values())
    assert len(set.union(*by_run.values())) == 20


async def test_metrics_of_model_calls_follow_the_conventions() -> None:
    reader = InMemoryMetricReader()
    observer = OpenTelemetry(TracerProvider(), meter_provider=MeterProvider([reader]))
    vm = ExecutionVM(Model(), {"flaky": flaky_tool()}, observers=[observer])
    await vm.run(whole(), {"text": "7"})
    data: Any = reader.get_metrics_data()
    found = {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert found[names.OPERATION_DURATION].unit == "s"
    (duration,) = found[names.OPERATION_DURATION].data.data_points
    assert duration.count == 4
    assert tuple(duration.explicit_bounds) == names.DURATION_BUCKETS
    tokens = {
        p.attributes[names.TOKEN_TYPE]: p.sum for p in found[names.TOKEN_USAGE].data.data_points
    }
    assert tokens == {"input": 48, "output": 12}


@pytest.mark.parametrize("how", ["refuses", "is not there"])
async def test_a_receiver_that_is_down_costs_spans_and_no_run(how: str) -> None:
    receiver = Receiver(status=400)
    url = receiver.url
    if how == "is not there":
        receiver.close()
    observer = Otlp(url)
    vm = ExecutionVM(Model(), observers=[observer])
    assert (await vm.run(program(llm("m")))).ok
    await asyncio.to_thread(observer.close)
    assert (observer.counts.ended, observer.counts.delivered, observer.counts.dropped) == (2, 0, 2)
    if how == "refuses":
        receiver.close()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://h/api/otel/v1/traces", "https://h/api/otel/v1/traces"),
    ],
)
def test_an_address_gets_the_standard_path(given: str, url: str) -> None:
    assert traces_url(given) == url


@pytest.mark.parametrize("given", ["localhost:4318", "", "ftp://h", "http://", "http://h:x", 7])
def test_what_is_no_address_is_refused(given: Any) -> None:
    with pytest.raises(VMError, match="is no address of an OTLP receiver; write http://HOST:PORT"):
        Otlp(given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tracer_provider": object()}, r"tracer_provider is .* has no get_tracer"),
        ({"meter_provider": 3}, r"meter_provider is 3, which has no get_meter"),
        ({"content": "yes"}, r"content is true or false, not 'yes'"),
        ({"redaction": 3}, r"redaction is a Redaction or a function"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(VMError, match=message):
        OpenTelemetry(**options)


async def test_without_a_provider_the_process_s_own_is_asked_for_at_each_run() -> None:
    vm = ExecutionVM(Model(), observers=[OpenTelemetry()])
    assert (await vm.run(program(llm("m")))).ok  # there is none yet


@pytest.mark.slow
def test_nothing_is_imported_when_unused() -> None:
    code = (
        "import sys, nano_vm\n"
        "vm = nano_vm.ExecutionVM(tools={'t': lambda: 1})\n"
        "vm.run_sync(nano_vm.Program.from_yaml('steps: [{id: a, type: tool, tool: t}]'))\n"
        "import nano_vm.telemetry.otel, nano_vm.telemetry.names, nano_vm.telemetry.redaction\n"
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('opentelemetry', 'prometheus_client', 'mcp', 'google')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"pip install 'llm-nano-vm\[otel\]'"):
        OpenTelemetry()


def test_the_example_sends_a_run_without_what_is_redacted(
    receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(__file__).parents[2] / "examples" / "observability" / "refund.py"
    assert runpy.run_path(str(path))["main"](receiver.url) == 0
    assert capsys.readouterr().out == (
        f"refunded $49.90 for A-1001\n10 of 10 spans were sent to {receiver.url}\n"
    )
    text = str(receiver.requests)
    assert "It arrived broken. My card is [redacted]." in text
    assert "4000-" not in text  # the digits alone may be those of a time
    logging.getLogger("nano_vm").handlers.clear()
    logging.getLogger("nano_vm").setLevel(logging.NOTSET)
