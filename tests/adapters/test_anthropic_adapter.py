"""The Anthropic adapter against a server that speaks the Messages API and answers as told, faults
first.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from threading import Thread
from typing import Any

import pytest
from canned import http_of, served

from nano_vm import AnthropicAdapter, ExecutionVM, Program
from nano_vm.adapters.names import adapter_named
from nano_vm.adapters.protocol import Completion
from nano_vm.errors import ModelError, ModelTimeout, RateLimited
from nano_vm.machine.faults import consumed
from nano_vm.records.usage import LLMUsage

if find_spec("anthropic") is None:
    pytest.skip("anthropic is not installed", allow_module_level=True)

http = http_of("anthropic")

MESSAGES = [{"role": "user", "content": "What is 2+2?"}]
KEY = "sk-ant-0123456789"
PDF = "data:application/pdf;base64," + b64encode(b"%PDF-1.7").decode()
PNG = "data:image/png;base64,iVBORw0KGgo="


def message(
    *content: dict[str, Any], stop: str | None = "end_turn", **usage: Any
) -> dict[str, Any]:
    """The body of an answer."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test-20260101",
        "content": list(content) or [text("yes")],
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 2, **usage},
    }


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def error(kind: str, words: str = "because") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": words}}


def reply(status: int = 200, body: Any = None, **headers: str) -> Any:
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    return http.Response(status, json=message() if body is None else body, headers=sent)


def events(*parts: dict[str, Any]) -> Any:
    """A streamed answer."""
    sent = "".join(f"event: {part['type']}\ndata: {json.dumps(part)}\n\n" for part in parts)
    return http.Response(200, text=sent, headers={"content-type": "text/event-stream"})


def streamed(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of an answer, its text in two pieces."""
    start = {**body, "content": [], "stop_reason": None}
    start["usage"] = {**body["usage"], "output_tokens": 1}
    found: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(body["content"]):
        kind = block["type"]
        name, delta = {"text": ("text", "text_delta"), "thinking": ("thinking", "thinking_delta")}[
            kind
        ]
        empty = {**block, name: ""}
        half = len(block[name]) // 2
        found.append({"type": "content_block_start", "index": index, "content_block": empty})
        for piece in (block[name][:half], block[name][half:]):
            part = {"type": delta, name: piece}
            found.append({"type": "content_block_delta", "index": index, "delta": part})
        found.append({"type": "content_block_stop", "index": index})
    used = {"output_tokens": body["usage"]["output_tokens"]}
    end = {"stop_reason": body["stop_reason"], "stop_sequence": None}
    found.append({"type": "message_delta", "delta": end, "usage": used})
    return [*found, {"type": "message_stop"}]


def canned(*responses: Any, **options: Any) -> Any:
    """An adapter whose server gives *responses* in turn, or raises them; `adapter.requests` keeps
    the calls.
    """
    client, requests = served(http, *responses)
    given: dict[str, Any] = {"base_url": "http://llm.test", "api_key": KEY, **options}
    adapter: Any = AnthropicAdapter("claude-test", http_client=client, **given)
    adapter.requests = requests
    return adapter


def sent(adapter: Any) -> Any:
    return json.loads(adapter.requests[-1].content)


async def failure(adapter: Any, messages: Any = MESSAGES, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await adapter.complete(messages, **options)
    return caught.value


async def pieces_of(adapter: Any, **options: Any) -> tuple[list[str], Completion]:
    *pieces, last = [piece async for piece in adapter.stream(MESSAGES, **options)]
    return pieces, last


async def test_answer() -> None:
    completion = await canned(reply()).complete(MESSAGES)
    assert completion == Completion("yes", LLMUsage(7, 2, 9), "claude-test-20260101", "stop")


async def test_request_has_what_the_step_declares_and_nothing_else() -> None:
    adapter = canned(reply())
    await adapter.complete(MESSAGES)
    assert sent(adapter) == {
        "model": "claude-test",
        "messages": MESSAGES,
        "max_tokens": 1024,
        "stream": False,
    }
    system = {"role": "system", "content": "Be brief."}
    late = {"role": "developer", "content": "In French."}
    await adapter.complete(
        [system, *MESSAGES, late],
        model="anthropic/other",
        max_tokens=5,
        temperature=0.7,
        top_p=0.9,
        stop=["END"],
        options={"top_k": 3, "metadata": {"user_id": "u"}},
    )
    assert sent(adapter) == {
        "model": "other",
        "messages": MESSAGES,
        "system": "Be brief.\n\nIn French.",
        "max_tokens": 5,
        "temperature": 0.7,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "top_k": 3,
        "metadata": {"user_id": "u"},
        "stream": False,
    }
    assert adapter.requests[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_pictures_and_files_are_sent_as_the_api_has_them() -> None:
    adapter = canned(reply())
    plain = "data:text/plain;base64," + b64encode("Grüße".encode()).decode()
    content = [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}},
        {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": plain}},
    ]
    await adapter.complete([{"role": "user", "content": content}])
    picture = {"type": "base64", "media_type": "image/png", "data": PNG.partition(",")[2]}
    document = {"type": "base64", "media_type": "application/pdf", "data": PDF.partition(",")[2]}
    assert sent(adapter)["messages"][0]["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "image", "source": picture},
        {"type": "image", "source": {"type": "url", "url": "https://a.test/b.png"}},
        {"type": "document", "source": document, "title": "a.pdf"},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
        },
    ]


@pytest.mark.parametrize(
    ("effort", "most", "thought"),
    [("low", 8000, 2000), ("medium", 8000, 4000), ("high", 8000, 6400), ("low", 2000, 1024)],
)
async def test_reasoning_effort_is_a_share_of_max_tokens(
    effort: str, most: int, thought: int
) -> None:
    adapter = canned(reply(), temperature=0.5)
    await adapter.complete(MESSAGES, max_tokens=most, reasoning_effort=effort)
    request = sent(adapter)
    assert request["thinking"] == {"type": "enabled", "budget_tokens": thought}
    assert request["max_tokens"] == most
    assert "temperature" not in request, "models that think refuse it"


async def test_reasoning_effort_otherwise() -> None:
    adapter = canned(reply(), thinking="adaptive")
    schema = {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }
    await adapter.complete(MESSAGES, reasoning_effort="minimal", output_schema=schema)
    assert sent(adapter)["thinking"] == {"type": "adaptive"}
    assert sent(adapter)["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": schema},
    }
    await adapter.complete(MESSAGES, reasoning_effort="none", temperature=0.1)
    assert "thinking" not in sent(adapter)
    assert sent(adapter)["temperature"] == 0.1
    found = await failure(canned(reply()), max_tokens=1024, reasoning_effort="low")
    assert (found.retryable, consumed(found)) == (False, LLMUsage(cost_usd=Decimal(0)))
    assert "raise max_tokens" in str(found)


async def test_a_schema_that_the_api_refuses_is_not_sent() -> None:
    adapter = canned(reply())
    await adapter.complete(MESSAGES, output_schema={"type": "object"})
    assert "output_config" not in sent(adapter)


async def test_what_is_cached_is_counted() -> None:
    body = message(cache_read_input_tokens=100, cache_creation_input_tokens=20)
    adapter = canned(reply(200, body), cache="1h")
    completion = await adapter.complete(MESSAGES)
    usage = LLMUsage(127, 2, 129, cached_tokens=100, cache_write_tokens=20)
    assert completion.usage == usage
    assert sent(adapter)["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    adapter = canned(events(*streamed(body)))
    assert (await pieces_of(adapter))[1].usage == usage


async def test_thoughts_are_kept_apart() -> None:
    content = (
        {"type": "thinking", "thinking": "two and two", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        text("4"),
    )
    body = message(*content, output_tokens=30, output_tokens_details={"thinking_tokens": 28})
    completion = await canned(reply(200, body)).complete(MESSAGES)
    assert (completion.text, completion.reasoning) == ("4", "two and two")
    assert completion.usage == LLMUsage(7, 30, 37, reasoning_tokens=28)


async def test_stream() -> None:
    body = message({"type": "thinking", "thinking": "hm, 2", "signature": ""}, text("four!!"))
    pieces, last = await pieces_of(canned(events(*streamed(body))))
    assert pieces == ["fou", "r!!"]
    assert last == Completion("four!!", LLMUsage(7, 2, 9), "claude-test-20260101", "stop", "hm, 2")


async def test_a_stream_that_breaks_off_is_no_answer_and_says_what_it_used() -> None:
    parts = streamed(message(text("half an answer")))
    with pytest.raises(ModelError, match="broke off") as caught:
        await pieces_of(canned(events(*parts[:4])))
    assert caught.value.retryable
    assert consumed(caught.value) == LLMUsage(7, 1, 8)


async def test_an_error_in_a_stream_has_the_status_of_its_type() -> None:
    parts = [*streamed(message())[:2], error("overloaded_error")]
    with pytest.raises(ModelError, match="overloaded_error: because") as caught:
        await pieces_of(canned(events(*parts)))
    assert (caught.value.status, caught.value.retryable) == (529, True)
    with pytest.raises(RateLimited):
        await pieces_of(canned(events(error("rate_limit_error"))))


async def test_a_server_that_ignores_the_wish_for_a_stream() -> None:
    pieces, last = await pieces_of(canned(reply()))
    assert (pieces, last.text) == (["yes"], "yes")


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refusal"),
    ],
)
async def test_endings(stop: str, reason: str) -> None:
    completion = await canned(reply(200, message(stop=stop))).complete(MESSAGES)
    assert completion.finish_reason == reason


async def test_what_is_no_text_is_no_answer() -> None:
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    found = await failure(canned(reply(200, message(call, stop="tool_use"))))
    assert (found.retryable, found.usage) == (False, LLMUsage(7, 2, 9))
    assert "tool call" in str(found)
    found = await failure(canned(reply(200, message({"type": "chart"}))))
    assert "a part of type 'chart'" in str(found)
    found = await failure(canned(reply(200, {"hello": 1})))
    assert "no message" in str(found)


async def test_an_empty_answer() -> None:
    found = await failure(canned(reply(200, {**message(), "content": []})))
    assert "no text" in str(found)
    assert found.usage == LLMUsage(7, 2, 9)


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, "invalid_request_error", False),
        (401, "authentication_error", False),
        (403, "permission_error", False),
        (404, "not_found_error", False),
        (413, "request_too_large", False),
        (500, "api_error", True),
        (504, "timeout_error", True),
        (529, "overloaded_error", True),
    ],
)
async def test_status(status: int, kind: str, retryable: bool) -> None:
    found = await failure(canned(reply(status, error(kind))))
    assert (found.status, found.retryable) == (status, retryable)
    assert isinstance(found, ModelTimeout) == (status == 504)
    assert str(found) == f"claude-test at llm.test: HTTP {status}: because"


async def test_rate_limit_says_how_long_and_is_not_repeated_here() -> None:
    adapter = canned(reply(429, error("rate_limit_error"), retry_after="3"), reply())
    found = await failure(adapter)
    assert isinstance(found, RateLimited)
    assert found.retry_after_seconds == 3.0
    assert len(adapter.requests) == 1
    assert (await adapter.complete(MESSAGES)).text == "yes"


async def test_connections_that_fail() -> None:
    found = await failure(canned(http.ConnectError("refused")))
    assert found.retryable
    assert isinstance(await failure(canned(http.ReadTimeout("slow"))), ModelTimeout)


async def test_the_key_is_in_no_message() -> None:
    found = await failure(canned(reply(401, error("authentication_error", f"bad key {KEY}"))))
    assert KEY not in str(found)
    assert "***" in str(found)


async def test_keys_of_the_environment_go_to_anthropic_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-environment")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-of-the-environment")
    adapter = canned(reply(), api_key=None)
    await adapter.complete(MESSAGES)
    headers = str(dict(adapter.requests[-1].headers))
    assert "of-the-environment" not in headers
    adapter = canned(reply(), api_key=None, base_url=None)
    await adapter.complete(MESSAGES)
    assert adapter.requests[-1].headers["authorization"] == "Bearer sk-ant-of-the-environment"
    assert str(adapter.requests[-1].url).startswith("https://api.anthropic.com/")


async def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    found = await failure(AnthropicAdapter("claude-test"))
    assert "set ANTHROPIC_API_KEY" in str(found)
    assert not found.retryable


async def test_messages_that_cannot_be_sent() -> None:
    found = await failure(canned(reply()), [{"role": "system", "content": "Be brief."}])
    assert "one of the user is needed" in str(found)
    found = await failure(canned(reply()), options={"tools": []})
    assert "options.tools" in str(found)


def test_arguments() -> None:
    with pytest.raises(ValueError, match="cache is '5m', '1h' or None"):
        AnthropicAdapter("c", cache="2h")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="thinking is"):
        AnthropicAdapter("c", thinking="much")  # type: ignore[arg-type]
    named = adapter_named("anthropic/claude-test")
    assert repr(named) == "AnthropicAdapter('claude-test') <api.anthropic.com>"


def program(**step: Any) -> Program:
    return Program.from_dict({"steps": [{"id": "s", "type": "llm", "prompt": "x", **step}]})


@pytest.mark.parametrize(
    ("step", "place"),
    [
        ({"seed": 3}, ("steps", 0, "seed")),
        ({"options": {"container": "c"}}, ("steps", 0, "options", "container")),
    ],
)
def test_what_it_does_not_take_is_refused_before_the_run(
    step: dict[str, Any], place: tuple[str | int, ...]
) -> None:
    vm = ExecutionVM(AnthropicAdapter("c", api_key=KEY))
    found = vm.check(program(**step))
    assert [(d.code, d.loc) for d in found] == [("V032", place)]


@contextmanager
def messages_server(*bodies: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on a loopback port that speaks the Messages API and gives *bodies* in turn."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            requests.append(request)
            body = bodies[min(len(requests), len(bodies)) - 1]
            if request["stream"]:
                kind = "text/event-stream"
                parts = streamed(body)
                written = "".join(
                    f"event: {p['type']}\ndata: {json.dumps(p)}\n\n" for p in parts
                ).encode()
            else:
                kind, written = "application/json", json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


@pytest.mark.parametrize("way", ["run", "stream"])
@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (message(), "success", None),
        (message(stop="max_tokens"), "failed", "truncated"),
        (message(stop="refusal"), "failed", "filtered"),
        (message({"type": "thinking", "thinking": "hm", "signature": ""}), "failed", "model"),
    ],
)
async def test_programs_over_http(way: str, body: Any, status: str, kind: str | None) -> None:
    """Refusals, cut-off and empty answers are outcomes of their own kinds, streamed and not."""
    with messages_server(body) as (url, requests):
        vm = ExecutionVM(
            AnthropicAdapter("claude-test", base_url=url, api_key=KEY),
            prices={"claude-test": (3, 15)},
        )
        if way == "run":
            trace = await vm.run(program())
        else:
            trace = [event async for event in vm.stream(program())][-1].trace
    assert (trace.status.value, trace.error_kind) == (status, kind)
    assert len(requests) == 1
    usage = trace.steps[0].usage
    assert usage == LLMUsage(7, 2, 9, Decimal("0.000051"))
