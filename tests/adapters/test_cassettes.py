"""The OpenAI-compatible adapter against recorded answers of llama.cpp's server: no server, no
network.

The cassettes hold what went over the wire; a change of the request, even in its body, finds no
answer.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nano_vm.adapters import OpenAIAdapter
from nano_vm.adapters.protocol import Completion
from nano_vm.errors import ModelError
from nano_vm.records.usage import LLMUsage

pytestmark = [pytest.mark.vcr, pytest.mark.block_network]

SUM = [{"role": "user", "content": "What is 2+2?"}]
SUM_ANSWER = "The answer to this classic math problem is 4."
REFUND = [
    {"role": "user", "content": "I want my money back. Is this a refund request? Answer yes or no."}
]
TICKET = [
    {
        "role": "user",
        "content": "Describe this ticket as JSON with priority and subject: my parcel is late.",
    }
]
TICKET_SCHEMA = {
    "type": "object",
    "properties": {
        "priority": {"enum": ["low", "high"]},
        "subject": {"type": "string", "maxLength": 20},
    },
    "required": ["priority", "subject"],
    "additionalProperties": False,
}


@pytest.fixture
def adapter(wire_url: str, model_name: str) -> OpenAIAdapter:
    return OpenAIAdapter(
        model_name, base_url=wire_url, provider="llamacpp", api_key="sk-never-recorded"
    )


@pytest.mark.slow
async def test_complete(adapter: OpenAIAdapter) -> None:
    completion = await adapter.complete(SUM, max_tokens=16, seed=1)
    assert completion == Completion(SUM_ANSWER, LLMUsage(37, 12, 49), "smollm2", "stop")


async def test_stream(adapter: OpenAIAdapter) -> None:
    *pieces, completion = [part async for part in adapter.stream(SUM, max_tokens=16, seed=1)]
    assert len(pieces) > 5
    assert "".join(map(str, pieces)) == SUM_ANSWER
    # the server had read this prompt before
    usage = LLMUsage(37, 12, 49, cached_tokens=36)
    assert completion == Completion(SUM_ANSWER, usage, "smollm2", "stop")


async def test_cut_by_max_tokens(adapter: OpenAIAdapter) -> None:
    completion = await adapter.complete(SUM, max_tokens=4)
    assert (completion.text, completion.finish_reason) == ("The answer to this", "length")


async def test_allowed_outputs(adapter: OpenAIAdapter) -> None:
    completion = await adapter.complete(REFUND, max_tokens=8, allowed_outputs=["yes", "no"])
    assert completion.text in ("yes", "no")


async def test_output_schema(adapter: OpenAIAdapter) -> None:
    completion = await adapter.complete(TICKET, max_tokens=100, output_schema=TICKET_SCHEMA)
    assert set(json.loads(completion.text)) == {"priority", "subject"}


async def test_schema_that_the_server_refuses(adapter: OpenAIAdapter) -> None:
    with pytest.raises(ModelError, match=r"HTTP 400: .*unrecognized type") as caught:
        await adapter.complete(SUM, max_tokens=4, output_schema={"type": "nothing"})
    assert not caught.value.retryable


async def test_prompt_that_is_too_long(adapter: OpenAIAdapter) -> None:
    with pytest.raises(ModelError, match="exceeds the available context size") as caught:
        await adapter.complete([{"role": "user", "content": "7" * 1100}], max_tokens=4)
    assert (caught.value.status, caught.value.retryable) == (400, False)


@pytest.mark.vcr(record_mode="none")
@pytest.mark.default_cassette("test_complete")
async def test_another_request_is_not_in_the_cassette(
    adapter: OpenAIAdapter, record_mode: str
) -> None:
    if record_mode == "none":
        with pytest.raises(ModelError):
            await adapter.complete(
                [{"role": "user", "content": "What is 3+3?"}], max_tokens=16, seed=1
            )


def test_cassettes_hold_no_secret() -> None:
    for file in (Path(__file__).parent / "cassettes").rglob("*.yaml"):
        text = file.read_text()
        for word in ("sk-never", "authorization", "user-agent", "stainless", "127.0.0.1", ".gguf"):
            assert word not in text.lower(), f"{file.name} holds {word!r}"
