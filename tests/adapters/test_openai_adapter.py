"""The OpenAI-compatible adapter against a server that answers as told, faults first."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from canned import canned, chat, http

from nano_vm import ExecutionVM, Program
from nano_vm.adapters import OpenAIAdapter
from nano_vm.adapters._chat import is_strict, retry_after_seconds
from nano_vm.adapters.openai import PROVIDERS
from nano_vm.adapters.protocol import Completion
from nano_vm.errors import EmptyAnswer, FilteredAnswer, ModelError, ModelTimeout, RateLimited
from nano_vm.machine.faults import NOTHING_USED, consumed
from nano_vm.records.usage import LLMUsage

MESSAGES = [{"role": "user", "content": "What is 2+2?"}]
SSE = {"content-type": "text/event-stream"}


def reply(status: int = 200, body: Any = None, **headers: str) -> Any:
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    if isinstance(body, str):
        return http.Response(status, text=body, headers=sent)
    return http.Response(status, json=chat() if body is None else body, headers=sent)


def sent(adapter: Any) -> Any:
    return json.loads(adapter.requests[-1].content)


async def failure(adapter: OpenAIAdapter) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await adapter.complete(MESSAGES)
    return caught.value


@pytest.mark.slow
async def test_answer() -> None:
    completion = await canned(reply()).complete(MESSAGES)
    assert completion == Completion("yes", LLMUsage(7, 2, 9), "tiny-2026", "stop")


async def test_request_has_what_the_step_declares() -> None:
    adapter = canned(reply(), top_p=0.5)
    await adapter.complete(
        MESSAGES,
        model="other",
        max_tokens=5,
        temperature=0.7,
        seed=3,
        idempotency_key="k1",
        user="u",
    )
    assert sent(adapter) == {
        "model": "other",
        "messages": MESSAGES,
        "max_tokens": 5,
        "temperature": 0.7,
        "seed": 3,
        "top_p": 0.5,
        "user": "u",
    }
    headers = adapter.requests[-1].headers  # type: ignore[attr-defined]
    assert headers["idempotency-key"].startswith("k1-")
    assert headers["authorization"] == "Bearer sk-0123456789"


async def test_idempotency_key_is_that_of_the_request() -> None:
    """The same for the same messages, another one when the model is shown what was wrong with its
    answer.
    """
    adapter = canned(reply())
    for messages in (
        MESSAGES,
        MESSAGES,
        [*MESSAGES, {"role": "user", "content": "Answer yes or no."}],
    ):
        await adapter.complete(messages, idempotency_key="k1")
    first, again, other = [request.headers["idempotency-key"] for request in adapter.requests]  # type: ignore[attr-defined]
    assert first == again != other


async def test_request_has_nothing_that_nobody_declared() -> None:
    adapter = canned(reply())
    await adapter.complete(MESSAGES)
    assert sent(adapter) == {"model": "tiny", "messages": MESSAGES, "temperature": 0.0}
    adapter = canned(reply(), temperature=None)
    await adapter.complete(MESSAGES)
    assert sent(adapter) == {"model": "tiny", "messages": MESSAGES}


CLOSED = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
OPEN = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(("schema", "strict"), [(CLOSED, True), (OPEN, False)])
async def test_output_schema(schema: dict[str, Any], strict: bool) -> None:
    adapter = canned(reply(body=chat('{"a": "b"}')))
    await adapter.complete(MESSAGES, output_schema=schema)
    assert sent(adapter)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": strict},
    }
    adapter = canned(reply(), structured=False)
    await adapter.complete(MESSAGES, output_schema=schema)
    assert "response_format" not in sent(adapter)


def test_strict_looks_into_every_part() -> None:
    assert is_strict({"type": "array", "items": CLOSED})
    assert not is_strict({"type": "array", "items": OPEN})
    assert not is_strict({**CLOSED, "properties": {"a": OPEN}})
    assert not is_strict({**CLOSED, "$defs": {"x": OPEN}})
    assert not is_strict({"anyOf": [CLOSED, OPEN]})
    assert not is_strict({**CLOSED, "required": []})
    assert is_strict({"enum": [{"type": "object"}]})


async def test_allowed_outputs() -> None:
    adapter = canned(reply())
    await adapter.complete(MESSAGES, allowed_outputs=["yes", "no"])
    assert set(sent(adapter)) == {"model", "messages", "temperature"}
    for options in ({"grammar": True}, {"provider": "llamacpp"}):
        adapter = canned(reply(), **options)
        await adapter.complete(
            MESSAGES, allowed_outputs=["yes", "no"], extra_body={"cache_prompt": False}
        )
        assert sent(adapter)["grammar"] == 'root ::= "yes" | "no"'
        assert sent(adapter)["cache_prompt"] is False


async def test_rate_limit_then_answer() -> None:
    adapter = canned(reply(429, {"error": {"message": "slow down"}}, retry_after="3"), reply())
    error = await failure(adapter)
    assert isinstance(error, RateLimited)
    assert (error.retry_after_seconds, error.status, error.retryable) == (3.0, 429, True)
    assert str(error) == "tiny at llm.test: HTTP 429: slow down"
    assert len(adapter.requests) == 1  # type: ignore[attr-defined]  the SDK's own retries are off
    assert (await adapter.complete(MESSAGES)).text == "yes"


async def test_rate_limit_that_waiting_cannot_end() -> None:
    error = await failure(
        canned(reply(429, {"error": {"message": "no credit", "code": "insufficient_quota"}}))
    )
    assert not isinstance(error, RateLimited)
    assert not error.retryable


def test_retry_after() -> None:
    now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    date = format_datetime(now + timedelta(seconds=90), usegmt=True)
    past = format_datetime(now - timedelta(seconds=90), usegmt=True)
    stamp = now.timestamp()
    assert retry_after_seconds({"retry-after": date}, stamp) == 90
    assert retry_after_seconds({"retry-after": past}, stamp) == 0
    assert retry_after_seconds({"retry-after": "1.5"}, stamp) == 1.5
    assert retry_after_seconds({"retry-after-ms": "250", "retry-after": "9"}, stamp) == 0.25
    for nonsense in ("soon", "nan", "inf", "", "Fri, 99 Nov 2026"):
        assert retry_after_seconds({"retry-after": nonsense}, stamp) is None
    assert retry_after_seconds({}, stamp) is None


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (408, True),
        (409, True),
        (413, False),
        (422, False),
        (500, True),
        (502, True),
        (503, True),
        (504, True),
    ],
)
async def test_status(status: int, retryable: bool) -> None:
    error = await failure(canned(reply(status, {"error": {"message": "because"}})))
    assert (error.status, error.retryable) == (status, retryable)
    assert isinstance(error, ModelTimeout) == (status in (408, 504))
    assert str(error) == f"tiny at llm.test: HTTP {status}: because"


async def test_error_texts() -> None:
    error = await failure(canned(reply(401, {"error": {"message": "bad key: sk-0123456789"}})))
    assert str(error) == "tiny at llm.test: HTTP 401: bad key: ***"
    error = await failure(canned(reply(422, {"detail": [{"loc": ["x"], "msg": "bad"}]})))
    assert "'msg': 'bad'" in str(error)
    error = await failure(canned(reply(500, "<html>\n\x1b[2J\u2028" + "x" * 10_000)))
    assert str(error).startswith("tiny at llm.test: HTTP 500: <html> \ufffd[2J xxx")
    assert len(str(error)) < 600
    assert "\n" not in str(error)


async def test_no_connection() -> None:
    error = await failure(canned(http.ConnectError("refused")))
    assert str(error) == "tiny at llm.test: Connection error. refused"
    assert (error.kind, error.status, error.retryable) == ("model", None, True)
    error = await failure(canned(http.ReadTimeout("slow")))
    assert isinstance(error, ModelTimeout)
    assert error.retryable


@pytest.mark.parametrize(
    "body", ["<html>hello</html>", "", [1], "null", {}, {"choices": []}, {"choices": "yes"}]
)
async def test_answer_that_is_none(body: Any) -> None:
    error = await failure(canned(reply(body=body)))
    assert error.retryable


async def test_body_that_is_no_json() -> None:
    error = await failure(canned(reply(body="{oops", content_type="application/json")))
    assert error.retryable
    assert "tiny at llm.test" in str(error)


async def test_error_with_status_200() -> None:
    """As OpenRouter sends when the provider behind it fails."""
    error = await failure(
        canned(reply(body={"error": {"message": "upstream is down", "code": 502}}))
    )
    assert (str(error), error.status, error.retryable) == (
        "tiny at llm.test: upstream is down",
        502,
        True,
    )
    error = await failure(canned(reply(body={"error": {"message": "slow down", "code": 429}})))
    assert isinstance(error, RateLimited)


@pytest.mark.parametrize(
    ("body", "says", "retryable"),
    [
        (chat(None), "no text", True),
        (chat([]), "no text", True),
        (chat(None, "tool_calls", tool_calls=[{"id": "1"}]), "a tool call, not with text", False),
        (chat("half", "error"), "the provider failed after 4 characters", True),
        (
            chat([{"type": "image_url"}]),
            "a part of type 'image_url', and only text can be used",
            False,
        ),
        (chat([{"type": "text", "text": 5}]), "a part of type 'text'", False),
        (chat(["text"]), "a part of type None", False),
    ],
)
async def test_answer_without_text(body: Any, says: str, retryable: bool) -> None:
    """It is billed all the same."""
    error = await failure(canned(reply(body=body)))
    assert says in str(error)
    assert error.retryable == retryable
    assert (error.usage, error.answered) == (LLMUsage(7, 2, 9), True)
    del body["usage"]
    assert consumed(await failure(canned(reply(body=body)))) is None


@pytest.mark.parametrize(
    ("body", "text", "reason"),
    [
        (chat(None, "length"), "", "length"),
        (chat("half", "length"), "half", "length"),
        (chat(None, "content_filter"), "", "content_filter"),
        (chat(None, refusal="I cannot\nhelp"), "I cannot\nhelp", "refusal"),
        (chat("", refusal=["no"]), "['no']", "refusal"),
        (chat([{"type": "refusal", "refusal": "never"}]), "never", "refusal"),
    ],
)
async def test_an_answer_that_is_not_finished_is_for_the_vm_to_judge(
    body: Any, text: str, reason: str
) -> None:
    assert await canned(reply(body=body)).complete(MESSAGES) == Completion(
        text, LLMUsage(7, 2, 9), "tiny-2026", reason
    )


THINKING = {
    "type": "thinking",
    "thinking": [{"type": "text", "text": "it is "}, {"type": "text", "text": "plain"}],
}


@pytest.mark.parametrize(
    ("body", "text", "reasoning"),
    [
        (
            chat([{"type": "text", "text": "2+2 "}, {"type": "text", "text": "is 4"}]),
            "2+2 is 4",
            None,
        ),
        (chat([THINKING, {"type": "text", "text": "4"}]), "4", "it is plain"),
        (
            chat([{"type": "reasoning", "text": "plain"}, {"type": "output_text", "text": "4"}]),
            "4",
            "plain",
        ),
        (chat("4", reasoning_content="it is plain"), "4", "it is plain"),
        (chat("4", reasoning="it is plain"), "4", "it is plain"),
        (chat("4", reasoning="the same", reasoning_content="the same"), "4", "the same"),
    ],
)
async def test_parts_and_reasoning(body: Any, text: str, reasoning: str | None) -> None:
    completion = await canned(reply(body=body)).complete(MESSAGES)
    assert (completion.text, completion.reasoning) == (text, reasoning)


async def test_a_prompt_that_a_filter_refused() -> None:
    """As Azure answers: with an error, before anything was consumed."""
    error = await failure(
        canned(reply(400, {"error": {"message": "against the policy", "code": "content_filter"}}))
    )
    assert isinstance(error, FilteredAnswer)
    assert (error.kind, error.status, error.retryable, consumed(error)) == (
        "filtered",
        400,
        False,
        NOTHING_USED,
    )


@pytest.mark.parametrize("status", [400, 401, 408, 429, 500, 503, 504])
async def test_what_a_provider_refused_has_consumed_nothing_unless_it_says_so(status: int) -> None:
    assert (
        consumed(await failure(canned(reply(status, {"error": {"message": "no"}})))) == NOTHING_USED
    )
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    assert consumed(
        await failure(canned(reply(status, {"error": {"message": "no", "usage": usage}})))
    ) == LLMUsage(7, 2, 9)


async def test_what_was_lost_has_consumed_nobody_knows_what() -> None:
    for lost in (http.RemoteProtocolError("peer left"), http.ReadTimeout("slow")):
        assert consumed(await failure(canned(lost))) is None
    for never_sent in (http.ConnectError("refused"), http.ConnectTimeout("slow")):
        assert consumed(await failure(canned(never_sent))) == NOTHING_USED


@pytest.mark.parametrize("content", ["", None])
async def test_empty_text_is_no_answer(content: str | None) -> None:
    with pytest.raises(EmptyAnswer, match=r"the answer has no text \(finish_reason: 'stop'\)") as e:
        await canned(reply(body=chat(content))).complete(MESSAGES)  # type: ignore[arg-type]
    assert (e.value.kind, e.value.retryable, e.value.answered) == ("model", True, True)


def test_a_step_can_name_an_empty_answer() -> None:
    """It is billed, tried again, and caught by its name."""
    step = {"id": "s", "type": "llm", "prompt": "q", "max_retries": 2}
    caught = {"catch": [{"errors": ["EmptyAnswer"], "next": "after"}]}
    after = {"id": "after", "type": "set", "values": {"x": 1}}
    trace = ExecutionVM(canned(reply(body=chat("")), reply(body=chat("")))).run_sync(
        Program.from_dict({"steps": [{**step, **caught}, after]})
    )
    assert trace.ok
    (first,) = trace.steps[0].attempts
    assert first.error.type == "EmptyAnswer"
    assert first.usage == LLMUsage(7, 2, 9)
    assert "EmptyAnswer: tiny at llm.test: the answer has no text" in str(trace.steps[0].error)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 7}, None),
        ({"prompt_tokens": 7, "completion_tokens": -1}, None),
        ({"prompt_tokens": True, "completion_tokens": 2}, None),
        ({"prompt_tokens": 2**63, "completion_tokens": 2}, None),
        ({"prompt_tokens": 7, "completion_tokens": 2}, LLMUsage(7, 2, 9)),
        ({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 30}, LLMUsage(7, 2, 30)),
        ({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 0}, LLMUsage(7, 2, 9)),
    ],
)
async def test_usage(usage: Any, expected: LLMUsage | None) -> None:
    assert (
        await canned(reply(body={**chat(), "usage": usage})).complete(MESSAGES)
    ).usage == expected


async def test_argument_that_the_library_does_not_know() -> None:
    with pytest.raises(ModelError, match="unexpected keyword argument 'tempurature'") as caught:
        await canned(reply()).complete(MESSAGES, tempurature=1)
    assert not caught.value.retryable


def events(*data: Any) -> bytes:
    return b"".join(
        b"data: " + (item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n\n"
        for item in data
    )


def piece(text: str | None = None, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}],
        **more,
    }


LAST = {
    "model": "tiny",
    "choices": [],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}


class Broken(http.AsyncByteStream):  # type: ignore[misc]
    """A body whose connection is lost, or goes silent, after the first piece."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield events(piece("2+2 "))
        raise self.error


async def streamed(adapter: OpenAIAdapter) -> list[str | Completion]:
    return [part async for part in adapter.stream(MESSAGES)]


async def test_stream() -> None:
    filtered = {"model": "", "choices": [], "prompt_filter_results": []}  # Azure's first piece
    body = events(
        filtered, piece(""), piece("2+2 "), piece("is 4"), piece(None, "stop"), LAST, b"[DONE]"
    )
    adapter = canned(http.Response(200, content=body, headers=SSE))
    assert await streamed(adapter) == [
        "2+2 ",
        "is 4",
        Completion("2+2 is 4", LLMUsage(7, 2, 9), "tiny", "stop"),
    ]
    assert sent(adapter)["stream_options"] == {"include_usage": True}


async def test_stream_of_an_empty_answer() -> None:
    body = events(piece(None), piece(None, "stop"), b"[DONE]")
    with pytest.raises(EmptyAnswer, match="the answer has no text"):
        await streamed(canned(http.Response(200, content=body, headers=SSE)))


async def test_stream_without_usage() -> None:
    body = events(piece("4"), piece(None, "stop"), b"[DONE]")
    assert (await streamed(canned(http.Response(200, content=body, headers=SSE))))[
        -1
    ] == Completion("4", None, "tiny", "stop")


@pytest.mark.parametrize(
    ("response", "says", "kind"),
    [
        (
            http.Response(200, content=events(piece("2+2 ")), headers=SSE),
            "broke off after 4 characters",
            "model",
        ),
        (http.Response(200, content=b"", headers=SSE), "no text", "model"),
        (
            http.Response(200, stream=Broken(http.RemoteProtocolError("peer left")), headers=SSE),
            "peer left",
            "model",
        ),
        (
            http.Response(200, stream=Broken(http.ReadTimeout("silence")), headers=SSE),
            "",
            "timeout",
        ),
        (http.Response(200, content=events(b"{oops"), headers=SSE), "tiny at llm.test", "model"),
        (
            http.Response(
                200, content=events({"error": {"message": "boom", "code": 500}}), headers=SSE
            ),
            "boom",
            "model",
        ),
        (http.Response(200, html="<html>"), "no text", "model"),
        (http.Response(503, json={"error": {"message": "loading"}}), "loading", "model"),
    ],
)
async def test_stream_that_fails(response: Any, says: str, kind: str) -> None:
    with pytest.raises(ModelError) as caught:
        await streamed(canned(response))
    assert says in str(caught.value)
    assert (caught.value.kind, caught.value.retryable) == (kind, True)


@pytest.mark.parametrize(
    ("pieces", "usage"),
    [
        ([piece("2+2 "), LAST], LLMUsage(7, 2, 9)),
        ([piece("2+2 ", usage={"prompt_tokens": 7, "completion_tokens": 1})], LLMUsage(7, 1, 8)),
        ([LAST, {"error": {"message": "boom", "code": 500}}], LLMUsage(7, 2, 9)),
        ([{"error": {"message": "boom", "code": 500, "usage": LAST["usage"]}}], LLMUsage(7, 2, 9)),
        ([piece("2+2 "), {"error": {"message": "boom", "code": 500}}], None),
        ([{"error": {"message": "boom", "code": 500}}], NOTHING_USED),
        ([piece("2+2 ", "error"), LAST], LLMUsage(7, 2, 9)),
        ([piece("2+2 ")], None),
    ],
)
async def test_the_usage_of_a_stream_that_ended_badly(
    pieces: list[Any], usage: LLMUsage | None
) -> None:
    with pytest.raises(ModelError) as caught:
        await streamed(canned(http.Response(200, content=events(*pieces), headers=SSE)))
    assert consumed(caught.value) == usage


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_stream_with_reasoning(name: str) -> None:
    def thought(text: str) -> dict[str, Any]:
        return {
            "model": "tiny",
            "choices": [{"index": 0, "delta": {name: text}, "finish_reason": None}],
        }

    body = events(thought("it is "), thought("plain"), piece("4"), piece(None, "length"), LAST)
    assert await streamed(canned(http.Response(200, content=body, headers=SSE))) == [
        "4",
        Completion("4", LLMUsage(7, 2, 9), "tiny", "length", "it is plain"),
    ]


async def test_stream_of_a_refusal() -> None:
    refused = {
        "model": "tiny",
        "choices": [{"index": 0, "delta": {"refusal": "never"}, "finish_reason": None}],
    }
    body = events(refused, piece(None, "stop"), LAST)
    assert await streamed(canned(http.Response(200, content=body, headers=SSE))) == [
        Completion("never", LLMUsage(7, 2, 9), "tiny", "refusal")
    ]


async def test_stream_that_nobody_reads_to_its_end_is_closed() -> None:
    closed = asyncio.Event()

    class Endless(http.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield events(piece("again "))

        async def aclose(self) -> None:
            closed.set()

    pieces = canned(http.Response(200, stream=Endless(), headers=SSE)).stream(MESSAGES)
    assert await anext(pieces) == "again "
    await pieces.aclose()  # type: ignore[attr-defined]
    assert closed.is_set()


@pytest.mark.parametrize("name", PROVIDERS)
def test_providers_by_prefix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = OpenAIAdapter(f"{name}/org/model")
    assert (adapter.provider, adapter.model, adapter.base_url) == (
        name,
        "org/model",
        PROVIDERS[name].base_url,
    )
    monkeypatch.setenv(f"{name.upper()}_BASE_URL", "http://proxy/v1")
    assert OpenAIAdapter(f"{name}/model").base_url == "http://proxy/v1"


def test_providers_otherwise() -> None:
    assert OpenAIAdapter("gpt-4.1-mini").provider == "openai"
    adapter = OpenAIAdapter("openai/gpt-oss-20b", base_url="http://gpu:8000/v1")
    assert (adapter.provider, adapter.model) == (None, "openai/gpt-oss-20b")
    adapter = OpenAIAdapter("openai/gpt-oss-20b", provider="vllm")
    assert (adapter.model, adapter.base_url) == ("openai/gpt-oss-20b", "http://localhost:8000/v1")
    with pytest.raises(ValueError, match="unknown provider 'meta'; known are openai, groq"):
        OpenAIAdapter("meta/llama")


async def test_step_may_name_the_model_with_its_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "gsk-0123456789")
    client = http.AsyncClient(
        transport=http.MockTransport(
            lambda request: http.Response(200, json=chat(request.content.decode()))
        )
    )
    adapter = OpenAIAdapter("groq/big", http_client=client)
    assert '"model":"small"' in (await adapter.complete(MESSAGES, model="groq/small")).text
    assert '"model":"big"' in (await adapter.complete(MESSAGES)).text


async def test_openai_limits_by_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = canned(reply(), provider="openai")
    await adapter.complete(MESSAGES, max_tokens=5)
    assert sent(adapter)["max_completion_tokens"] == 5
    assert "max_tokens" not in sent(adapter)


async def test_key_goes_only_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    adapter = canned(reply(), api_key=None)
    await adapter.complete(MESSAGES)
    assert adapter.requests[-1].headers["authorization"] == "Bearer none"  # type: ignore[attr-defined]
    adapter = canned(reply(), api_key=None, provider="openai")
    await adapter.complete(MESSAGES)
    assert adapter.requests[-1].headers["authorization"] == "Bearer sk-of-openai"  # type: ignore[attr-defined]


async def test_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    with pytest.raises(
        ModelError, match="no key for groq: set GROQ_API_KEY, or pass api_key"
    ) as caught:
        await OpenAIAdapter("groq/llama").complete(MESSAGES)
    assert not caught.value.retryable


def test_address_is_shown_without_credentials() -> None:
    adapter = OpenAIAdapter("tiny", base_url="http://me:secret@llm.test:81/v1?key=secret")
    assert repr(adapter) == "OpenAIAdapter('tiny') <llm.test:81>"


@pytest.mark.slow
def test_several_loops_one_adapter(http_server: str) -> None:
    """Each loop has connections of its own, and leaves none behind."""
    adapter = OpenAIAdapter("tiny", base_url=http_server)

    async def calls() -> list[str]:
        answers = await asyncio.gather(*(adapter.complete(MESSAGES) for _ in range(3)))
        return [answer.text for answer in answers]

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            assert asyncio.run(calls()) == ["yes"] * 3
        gc.collect()
    assert [str(warning.message) for warning in seen] == []
    assert adapter._clients._held == {}


@pytest.mark.slow
async def test_aclose_then_again(http_server: str) -> None:
    adapter = OpenAIAdapter("tiny", base_url=http_server)
    await adapter.complete(MESSAGES)
    await adapter.aclose()
    await adapter.aclose()
    assert (await adapter.complete(MESSAGES)).text == "yes"
    await adapter.aclose()
