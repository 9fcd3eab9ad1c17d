"""The LiteLLM adapter. What it shares with the OpenAI-compatible one is tested there and against
the real server.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import os
import subprocess
import sys
import warnings
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

import pytest
from canned import LITELLM_NOISE

from nano_vm.adapters import LiteLLMAdapter
from nano_vm.adapters._chat import Answer
from nano_vm.adapters.protocol import Completion
from nano_vm.errors import ModelError, ModelTimeout, RateLimited, VMError

if find_spec("litellm") is None:
    pytest.skip("litellm is not installed", allow_module_level=True)

pytestmark = [*LITELLM_NOISE, pytest.mark.slow]  # importing LiteLLM takes seconds

MESSAGES = [{"role": "user", "content": "What is 2+2?"}]


def adapter_of(url: str, **options: Any) -> LiteLLMAdapter:
    return LiteLLMAdapter("openai/tiny", api_base=url, api_key="sk-0123456789", **options)


async def test_answer(http_server: str) -> None:
    completion = await adapter_of(http_server).complete(MESSAGES, max_tokens=5, seed=1)
    assert isinstance(completion, Completion)
    assert (completion.text, completion.model, completion.finish_reason) == (
        "yes",
        "tiny-2026",
        "stop",
    )
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (7, 2)
    assert completion.usage.cost_usd is None


async def test_cost_is_decimal(http_server: str) -> None:
    adapter = adapter_of(http_server, input_cost_per_token=0.001, output_cost_per_token=0.01)
    usage = (await adapter.complete(MESSAGES)).usage
    assert usage is not None
    assert usage.cost_usd == Decimal("0.027")


async def test_cost_is_the_same_in_a_stream(http_server: str) -> None:
    adapter = LiteLLMAdapter("openai/gpt-4o-mini", api_base=http_server, api_key="none")
    *_, last = [part async for part in adapter.stream(MESSAGES)]
    whole = await adapter.complete(MESSAGES)
    assert isinstance(last, Completion)
    assert last.usage == whole.usage
    assert whole.usage is not None
    # 7 tokens at 0.15 and 2 at 0.60 dollars a million
    assert whole.usage.cost_usd == Decimal("0.00000225")


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8"])
def test_stolen_versions_are_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nano_vm.adapters.litellm.version", lambda name: version)
    with pytest.raises(
        VMError, match=rf"litellm {version} holds a credential stealer \(PYSEC-2026-2\)"
    ):
        LiteLLMAdapter("groq/llama")


def test_constructor_is_that_of_0_1(http_server: str) -> None:
    adapter = LiteLLMAdapter("groq/llama", ["openai/other"], 30.0, 2, 0.0, api_base=http_server)
    assert (adapter.model, adapter.fallbacks, adapter.timeout, adapter.max_retries) == (
        "groq/llama",
        ["openai/other"],
        30.0,
        2,
    )
    assert repr(adapter) == "LiteLLMAdapter('groq/llama', fallbacks=['openai/other'])"


async def test_one_attempt_only(faulty_server: Any) -> None:
    for options in ({}, {"max_retries": 3}):
        faulty_server.calls = 0
        with pytest.raises(ModelError) as caught:
            await adapter_of(faulty_server.url, **options).complete(MESSAGES, model="openai/500")
        assert caught.value.retryable
        assert faulty_server.calls == 1


async def test_kinds_of_failure(faulty_server: Any) -> None:
    adapter = adapter_of(faulty_server.url, timeout=0.3)
    with pytest.raises(RateLimited) as limited:
        await adapter.complete(MESSAGES, model="openai/429")
    assert limited.value.retry_after_seconds == 3
    with pytest.raises(ModelError) as refused:
        await adapter.complete(MESSAGES, model="openai/401")
    assert (refused.value.status, refused.value.retryable) == (401, False)
    assert "sk-0123456789" not in str(refused.value)
    with pytest.raises(ModelTimeout):
        await adapter.complete(MESSAGES, model="openai/slow")
    with pytest.raises(ModelError, match="LLM Provider NOT provided") as unknown:
        await adapter.complete(MESSAGES, model="tiny")
    assert not unknown.value.retryable
    with pytest.raises(ModelError) as dead:
        await adapter.complete(MESSAGES, api_base="http://127.0.0.1:9/v1")
    assert dead.value.retryable


async def test_fallbacks(faulty_server: Any) -> None:
    adapter = LiteLLMAdapter(
        "openai/500", ["openai/401", "openai/ok"], api_base=faulty_server.url, api_key="none"
    )
    assert (await adapter.complete(MESSAGES)).text == "yes"
    assert faulty_server.calls == 3
    with pytest.raises(ModelError) as caught:
        await LiteLLMAdapter(
            "openai/500", ["openai/401"], api_base=faulty_server.url, api_key="none"
        ).complete(MESSAGES)
    assert caught.value.status == 401
    *_, last = [part async for part in adapter.stream(MESSAGES)]
    assert isinstance(last, Completion)
    assert last.text == "yes"


async def test_no_fallback_after_the_first_piece(faulty_server: Any) -> None:
    adapter = LiteLLMAdapter(
        "openai/cut", ["openai/ok"], api_base=faulty_server.url, api_key="none"
    )
    pieces = adapter.stream(MESSAGES)
    assert await anext(pieces) == "yes"
    with pytest.raises(ModelError) as caught:
        await anext(pieces)
    assert caught.value.retryable
    assert faulty_server.calls == 1


def test_tracebacks_in_its_messages_are_cut_off() -> None:
    error = Answer("tiny", where="tiny").failure(
        KeyError("Boom. Traceback (most recent call last): File x")
    )
    assert str(error) == "tiny: 'Boom."


@pytest.mark.slow
def test_import_is_silent_and_fetches_nothing(http_server: str) -> None:
    """By itself LiteLLM would fetch its price list, and print advertising with each error."""
    code = f"""
import asyncio, socket
from nano_vm.adapters import LiteLLMAdapter
from nano_vm.errors import ModelError
hosts, look_up = set(), socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: hosts.add(host) or look_up(host, *rest, **named)

async def main():
    adapter = LiteLLMAdapter("openai/tiny", api_base={http_server!r}, api_key="none")
    print((await adapter.complete({MESSAGES!r})).text)
    try:
        await adapter.complete({MESSAGES!r}, model="openai/401")
    except ModelError as error:
        print(error.status)

asyncio.run(main())
print(*sorted(map(str, hosts - {{"127.0.0.1"}})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["yes", "401"]
    assert done.stderr == ""


def test_its_price_list_is_the_bundled_one_unless_somebody_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LITELLM_LOCAL_MODEL_COST_MAP", raising=False)
    LiteLLMAdapter("groq/llama")
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "False")
    LiteLLMAdapter("groq/llama")
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "False"


def test_installed_version_is_a_safe_one() -> None:
    assert importlib.metadata.version("litellm") not in ("1.82.7", "1.82.8")


@pytest.mark.slow
def test_several_loops_one_adapter(http_server: str) -> None:
    adapter = adapter_of(http_server)

    async def calls() -> list[str]:
        answers = await asyncio.gather(*(adapter.complete(MESSAGES) for _ in range(3)))
        return [answer.text for answer in answers]

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(4):
            assert asyncio.run(calls()) == ["yes"] * 3
        gc.collect()
    assert [str(warning.message) for warning in seen if warning.category is ResourceWarning] == []
