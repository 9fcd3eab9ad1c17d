"""Programs over real HTTP on a loopback port: what a server says in the place of an answer, through
both adapters, streamed and not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from importlib.util import find_spec
from threading import Thread
from typing import Any

import pytest
from canned import LITELLM_NOISE, Wire, chat

from nano_vm import Event, ExecutionVM, LiteLLMAdapter, OpenAIAdapter, Program, Trace, TraceStatus
from nano_vm.cli import main

pytestmark = LITELLM_NOISE

ADAPTERS = ["openai", *(["litellm"] if find_spec("litellm") is not None else [])]


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    with ExitStack() as stack:

        def start(*replies: Any, **options: Any) -> Wire:
            given = Wire(
                *(reply if isinstance(reply, tuple) else (200, {}, reply) for reply in replies),
                **options,
            )
            server = stack.enter_context(given.server)
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            return given

        yield start


@pytest.fixture(params=ADAPTERS)
def adapter_of(request: pytest.FixtureRequest) -> Callable[[Wire], Any]:
    def make(wire: Wire) -> Any:
        if request.param == "openai":
            return OpenAIAdapter("m", base_url=wire.url, api_key="none")
        return LiteLLMAdapter("openai/m", api_base=wire.url, api_key="none")

    return make


@pytest.fixture
def waited() -> list[float]:
    """The waits of what `run` ran, in seconds."""
    return []


@pytest.fixture(params=["run", "stream"])
def run(request: pytest.FixtureRequest, waited: list[float]) -> Callable[..., Trace]:
    """Runs steps to their end, streamed or not; waits take no time."""

    def start(adapter: Any, *steps: dict[str, Any], **options: Any) -> Trace:
        class Clock:
            @staticmethod
            def monotonic_ns() -> int:
                return round(asyncio.get_running_loop().time() * 1e9)

            @staticmethod
            def time_ns() -> int:
                return round(datetime.now(UTC).timestamp() * 1e9)

            @staticmethod
            async def sleep(seconds: float) -> None:
                waited.append(seconds)

        vm = ExecutionVM(
            adapter, clock=Clock, prices={"m": ("1", "2"), "openai/m": ("1", "2")}, **options
        )
        program = Program.from_dict(
            {
                "steps": [
                    {"id": f"s{i}", "type": "llm", "prompt": "x", **step}
                    for i, step in enumerate(steps)
                ]
            }
        )

        async def whole() -> Trace:
            if request.param == "run":
                return await vm.run(program)
            events: list[Event] = [event async for event in vm.stream(program)]
            trace = events[-1].trace
            assert trace is not None
            return trace

        return asyncio.run(whole())

    return start


def body(
    content: Any, reason: str = "stop", usage: tuple[int, int] = (7, 2), **message: Any
) -> dict[str, Any]:
    prompt, completion = usage
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    return {**chat(content, reason, **message), "usage": counts}


@pytest.mark.slow
def test_failed_calls_bind_a_budget(wire: Any, adapter_of: Any, run: Any) -> None:
    server = wire(body(None, "length", (50, 4000), reasoning_content="long thoughts"))
    steps = [{"max_tokens": 4000, "on_error": "skip"}] * 10
    trace = run(adapter_of(server), *steps, budget={"max_tokens": 9000})
    assert (trace.status, trace.error_kind, len(server.requests)) == (
        TraceStatus.FAILED,
        "budget",
        2,
    )
    assert trace.total_tokens() == 8100
    assert trace.total_cost_usd() == Decimal("0.0161")
    assert trace.steps[0].error_kind == "truncated"
    assert trace.steps[0].extra["reasoning"] == "long thoughts"


CALL = {"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (body("half", "length"), "truncated"),
        (body("half", "content_filter"), "filtered"),
        (body(None, "content_filter"), "filtered"),
        (body(None, refusal="I cannot"), "filtered"),
        (body(None, "tool_calls", tool_calls=[CALL]), "model"),
    ],
)
def test_what_is_no_answer_is_billed(
    wire: Any, adapter_of: Any, run: Any, answer: Any, kind: str
) -> None:
    trace = run(adapter_of(wire(answer)), {})
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, kind), trace.error
    assert (trace.total_tokens(), trace.total_cost_usd()) == (9, Decimal("0.000011"))


@pytest.mark.parametrize(
    ("answer", "reasoning"),
    [
        (body("yes", reasoning_content="it is plain"), "it is plain"),
        (body("<think>it is plain</think>\n\nyes"), "it is plain"),
        (body("yes"), None),
    ],
)
def test_reasoning_is_beside_the_answer(
    wire: Any, adapter_of: Any, run: Any, answer: Any, reasoning: str | None
) -> None:
    trace = run(adapter_of(wire(answer)), {}, {"allowed_outputs": ["yes", "no"]})
    assert [step.output for step in trace.steps] == ["yes", "yes"], trace.error
    assert [step.extra.get("reasoning") for step in trace.steps] == [reasoning] * 2
    texts = [event.text for event in getattr(trace, "events", ()) if event.kind == "text"]
    assert texts in ([], ["yes", "yes"])  # what is thought is not shown as the answer either


@pytest.mark.slow
def test_events_show_what_the_answer_is(wire: Any, adapter_of: Any, run: Any) -> None:
    for content in ("<think> is a tag", "<thinking>", " <thi", "a <think>b</think>"):
        trace = run(adapter_of(wire(body(content))), {})
        assert trace.final_output == content
        assert "".join(
            event.text for event in getattr(trace, "events", ()) if event.kind == "text"
        ) in ("", content)


SOON = format_datetime(datetime.now(UTC) + timedelta(hours=24), usegmt=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "error"), [(503, "model"), (429, "rate_limit"), (500, "model"), (504, "timeout")]
)
def test_retry_after_is_honoured_and_a_refused_call_is_free(
    wire: Any, adapter_of: Any, run: Any, waited: list[float], status: int, error: str
) -> None:
    refused = (status, {"retry-after": "17"}, {"error": {"message": "loading"}})
    later = (status, {"retry-after": SOON}, {"error": {"message": "loading"}})
    server = wire(refused, later, body("ok"))
    trace = run(
        adapter_of(server),
        {"max_retries": 3, "retry": {"delay_seconds": 0.01}},
        budget={"max_tokens": 1100},
    )
    assert (trace.final_output, [a.error.kind for a in trace.steps[0].attempts]) == (
        "ok",
        [error] * 2,
    ), trace.error
    assert waited == [17, 600]  # of a day, the most that the VM waits
    assert (trace.total_tokens(), trace.total_cost_usd()) == (9, Decimal("0.000011"))


@pytest.mark.slow
def test_a_server_that_ignores_stream(wire: Any, adapter_of: Any, run: Any) -> None:
    trace = run(adapter_of(wire(body("yes"), ignores_stream=True)), {})
    assert (trace.final_output, trace.total_tokens()) == ("yes", 9), trace.error
    trace = run(adapter_of(wire(body("half", "length"), ignores_stream=True)), {})
    assert (trace.error_kind, trace.total_tokens()) == ("truncated", 9), trace.error
    trace = run(
        adapter_of(wire({"error": {"message": "boom", "code": 500}}, ignores_stream=True)), {}
    )
    assert trace.error_kind == "model"
    assert "boom" in (trace.error or "")


@pytest.mark.slow
@pytest.mark.parametrize("texts", [["2+2 ", "is 4"], ["2+2 is 4"]])
def test_content_in_parts(wire: Any, adapter_of: Any, run: Any, texts: list[str]) -> None:
    adapter = adapter_of(wire(body([{"type": "text", "text": text} for text in texts])))
    trace = run(adapter, {})
    if isinstance(adapter, OpenAIAdapter):
        assert (trace.final_output, trace.total_tokens()) == ("2+2 is 4", 9)
    else:
        # LiteLLM's own types take no list: an answer came and was billed, and nobody knows at how
        # much
        assert (trace.error_kind, trace.total_cost_usd()) == ("model", None)


@pytest.mark.slow
def test_what_is_not_known_is_not_free(wire: Any, adapter_of: Any, run: Any) -> None:
    """A body that is no JSON came from somebody, an address at which nobody listens has charged
    nothing.
    """
    trace = run(adapter_of(wire("{oops")), {})
    assert (trace.error_kind, trace.total_cost_usd()) == ("model", None), trace.error
    server = wire(body("yes"))
    server.url = "http://127.0.0.1:9/v1"
    trace = run(adapter_of(server), {})
    assert (trace.error_kind, trace.total_cost_usd()) == ("model", 0), trace.error


@pytest.mark.slow
def test_the_command_line_takes_a_server_that_ignores_stream(
    wire: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ask.yaml").write_text("steps: [{id: a, type: llm, prompt: x}]")
    server = wire(body("fine"), ignores_stream=True)
    assert main(["run", str(tmp_path / "ask.yaml"), "--model", "m", "--base-url", server.url]) == 0
    assert 'output: "fine"' in capsys.readouterr().out
    assert server.requests[0]["stream"] is True


@pytest.mark.slow
def test_what_a_step_declares_is_in_the_request(wire: Any, adapter_of: Any, run: Any) -> None:
    server = wire(body("ok"))
    declared = {"max_tokens": 9, "top_p": 0.2, "stop": "END", "seed": 3, "reasoning_effort": "low"}
    trace = run(
        adapter_of(server), {**declared, "options": {"presence_penalty": 0.5, "min_p": 0.1}}
    )
    assert trace.ok, trace.error
    request = server.requests[0]
    expected = {**declared, "stop": ["END"], "presence_penalty": 0.5, "min_p": 0.1}
    assert {key: request[key] for key in expected} == expected
    assert "temperature" not in request  # the adapter's own, which models that reason refuse
    assert trace.steps[0].request["options"] == {"presence_penalty": 0.5, "min_p": 0.1}


@pytest.mark.slow
def test_options_do_not_choose_where_a_request_goes(wire: Any, adapter_of: Any) -> None:
    """A host that hands a model's program over does not hand its keys over: all that is no body is
    the body's all the same.
    """
    ours, theirs = wire(body("ours")), wire(body("theirs"))
    names = (
        "api_base",
        "base_url",
        "api_key",
        "extra_headers",
        "timeout",
        "mock_response",
        "aws_bedrock_runtime_endpoint",
    )
    options = dict.fromkeys(names, theirs.url)
    completion = asyncio.run(
        adapter_of(ours).complete([{"role": "user", "content": "x"}], options=options)
    )
    assert (completion.text, theirs.requests) == ("ours", [])
    assert {name: ours.requests[0][name] for name in names} == options


def test_options_of_a_program_from_an_untrusted_source(wire: Any, adapter_of: Any) -> None:
    steps = [{"id": "a", "type": "llm", "prompt": "x", "options": {"min_p": 0.1}}]
    strange = Program.from_dict({"untrusted": True, "steps": steps})
    adapter = adapter_of(wire(body("ok")))
    assert [d.code for d in ExecutionVM(adapter).check(strange) if d.severity == "error"] == [
        "V034"
    ]
    assert ExecutionVM(adapter, approved=[strange.digest]).check(strange) == []
    outer = Program.from_dict(
        {"untrusted": True, "steps": [{"id": "c", "type": "call", "program": {"steps": steps}}]}
    )
    assert [d.code for d in ExecutionVM(adapter).check(outer) if d.severity == "error"] == ["V034"]


PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.mark.slow
def test_pictures_and_roles_are_sent_as_they_stand(wire: Any, adapter_of: Any, run: Any) -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}},
    ]
    messages = [{"role": "developer", "content": "Be short"}, {"role": "user", "content": parts}]
    server = wire(body("a pixel"))
    trace = run(adapter_of(server), {"prompt": None, "messages": messages})
    assert trace.final_output == "a pixel", trace.error
    roles = (
        ["system", "developer"] if isinstance(adapter_of(server), LiteLLMAdapter) else ["developer"]
    )
    # LiteLLM calls it system where it thinks it must
    assert server.requests[0]["messages"][0]["role"] in roles
    assert server.requests[0]["messages"][0]["content"] == "Be short"
    assert server.requests[0]["messages"][1] == messages[1]
    assert trace.steps[0].request["messages"] == messages


@pytest.mark.slow
def test_a_picture_counts_in_a_budget(wire: Any, adapter_of: Any, run: Any) -> None:
    server = wire(body("a pixel"))
    parts = [{"type": "image_url", "image_url": {"url": PIXEL}}]
    step = {"prompt": None, "messages": [{"role": "user", "content": parts}], "max_tokens": 9}
    trace = run(adapter_of(server), step, budget={"max_tokens": 50_000})
    assert (trace.error_kind, server.requests) == ("budget", [])
    assert run(adapter_of(server), step, budget={"max_tokens": 50_100}).ok


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["openai", "groq", "llamacpp", None])
def test_open_models_are_given_the_role_that_they_know(wire: Any, provider: str | None) -> None:
    server = wire(body("ok"))
    adapter = OpenAIAdapter("m", base_url=server.url, provider=provider, api_key="none")
    asyncio.run(adapter.complete([{"role": "developer", "content": "Be short"}]))
    expected = "developer" if provider in ("openai", None) else "system"
    assert server.requests[0]["messages"] == [{"role": expected, "content": "Be short"}]


@pytest.mark.slow
@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_a_prompt_that_a_filter_refused_costs_nothing(
    wire: Any, adapter_of: Any, run: Any, code: str
) -> None:
    error = {
        "message": "The response was filtered due to the prompt triggering content management "
        "policy",
        "code": code,
    }
    server = wire((400, {}, {"error": error}))
    trace = run(adapter_of(server), {"max_retries": 3, "retry": {"delay_seconds": 0}})
    assert (trace.error_kind, len(server.requests), trace.total_cost_usd()) == ("filtered", 1, 0), (
        trace.error
    )


@pytest.mark.slow
def test_failed_calls_bind_a_budget_of_money(wire: Any, adapter_of: Any, run: Any) -> None:
    """Each call may cost $0.008016 and does cost $0.00805."""
    server = wire(body(None, "length", (50, 4000)))
    trace = run(
        adapter_of(server),
        *[{"max_tokens": 4000, "on_error": "skip"}] * 5,
        budget={"max_cost_usd": 0.017},
    )
    assert (trace.error_kind, len(server.requests), trace.total_cost_usd()) == (
        "budget",
        2,
        Decimal("0.0161"),
    )


@pytest.mark.slow
def test_failed_calls_of_branches_bind_what_follows(wire: Any, adapter_of: Any) -> None:
    server = wire(body(None, "length", (50, 4000)))
    ask = {"type": "llm", "prompt": "x", "max_tokens": 4000, "on_error": "skip"}
    program = Program.from_dict(
        {
            "steps": [
                {
                    "id": "p",
                    "type": "parallel",
                    "parallel_steps": [{**ask, "id": "a"}, {**ask, "id": "b"}],
                },
                {**ask, "id": "c"},
            ]
        }
    )
    trace = ExecutionVM(adapter_of(server), budget={"max_tokens": 9000}).run_sync(program)
    assert (trace.error_kind, len(server.requests), trace.total_tokens()) == ("budget", 2, 8100)


@pytest.mark.slow
def test_nothing_is_no_answer(
    request: pytest.FixtureRequest, wire: Any, adapter_of: Any, run: Any
) -> None:
    """A model that ends well and says nothing has failed; LiteLLM ends a stream that it cannot read
    in the same way.
    """
    adapter = adapter_of(wire(body("", usage=(7, 0))))
    trace = run(adapter, {})
    assert (trace.error_kind, trace.total_tokens()) == ("model", 7)
    streamed = request.node.callspec.params["run"] == "stream"
    lost = isinstance(adapter, LiteLLMAdapter) and streamed
    assert ("the stream held no answer" if lost else "the answer has no text") in trace.error
