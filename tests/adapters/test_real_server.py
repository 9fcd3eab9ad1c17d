"""The adapters against a real OpenAI-compatible server, llama.cpp's own, with a real model behind
it.

The model is small and knows little: form, usage, limits and sameness are asserted, never that an
answer is right.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from canned import LITELLM_NOISE

from nano_vm import ExecutionVM, Program
from nano_vm.adapters import LiteLLMAdapter, OpenAIAdapter
from nano_vm.errors import MissingExtra, ModelError

pytestmark = [pytest.mark.real_llm, *LITELLM_NOISE]

SUM = [{"role": "user", "content": "What is 2+2?"}]
STORY = [{"role": "user", "content": "Tell a story about a dog."}]
ENDLESS = {"ignore_eos": True}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "legs": {"type": "integer", "maximum": 99},
    },
    "required": ["name", "legs"],
    "additionalProperties": False,
}


@pytest.fixture(params=["openai", "litellm"])
def adapter(request: pytest.FixtureRequest, llm_url: str, model_name: str) -> Any:
    if request.param == "openai":
        return OpenAIAdapter(model_name, base_url=llm_url, provider="llamacpp")
    try:
        return LiteLLMAdapter(f"openai/{model_name}", api_base=llm_url, api_key="none")
    except MissingExtra as missing:
        pytest.skip(str(missing))


@pytest.mark.slow
async def test_complete(adapter: Any, model_name: str) -> None:
    completion = await adapter.complete(SUM, max_tokens=16, seed=1)
    assert "4" in completion.text
    assert (completion.model, completion.finish_reason) == (model_name, "stop")
    usage = completion.usage
    assert usage.prompt_tokens > 5
    assert 0 < usage.completion_tokens <= 16
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.cost_usd is None


async def test_stream_gives_the_same(adapter: Any) -> None:
    completion = await adapter.complete(STORY, max_tokens=20)
    *pieces, last = [part async for part in adapter.stream(STORY, max_tokens=20)]
    assert len(pieces) > 10
    assert "".join(pieces) == last.text == completion.text
    # how much of the prompt the server had kept differs
    assert last.usage.whole() == completion.usage.whole()
    assert last.finish_reason == completion.finish_reason == "length"


async def test_same_call_same_answer(adapter: Any) -> None:
    """Alone, beside others, and drawn with a seed."""
    alone = await adapter.complete(STORY, max_tokens=24)
    beside = await asyncio.gather(*(adapter.complete(STORY, max_tokens=24) for _ in range(4)))
    assert [answer.text for answer in beside] == [alone.text] * 4
    drawn = [
        await adapter.complete(STORY, max_tokens=24, temperature=0.9, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert drawn[0].text == drawn[1].text != drawn[2].text


async def test_allowed_outputs(llm_url: str, model_name: str) -> None:
    adapter = OpenAIAdapter(model_name, base_url=llm_url, provider="llamacpp")
    for allowed in (["yes", "no"], ['"quoted"\\', "two\nlines"], ["да", "нет 😀"]):
        assert (
            await adapter.complete(STORY, max_tokens=16, allowed_outputs=allowed)
        ).text in allowed


async def test_output_schema(adapter: Any) -> None:
    answer = json.loads((await adapter.complete(STORY, max_tokens=100, output_schema=SCHEMA)).text)
    assert set(answer) == {"name", "legs"}
    assert isinstance(answer["legs"], int)


async def test_what_a_step_declares(adapter: Any) -> None:
    """Sampling from one token is greedy, a stop ends the answer before it, an option of the
    server's own gets there.
    """
    greedy = await adapter.complete(STORY, max_tokens=12)
    drawn = await adapter.complete(STORY, max_tokens=12, temperature=0.9, seed=1)
    narrow = await adapter.complete(
        STORY, max_tokens=12, temperature=0.9, seed=1, options={"top_k": 1}
    )
    assert narrow.text == greedy.text != drawn.text
    assert (
        await adapter.complete(STORY, max_tokens=12, temperature=0.9, seed=1, top_p=0.01)
    ).text == greedy.text
    word = greedy.text.split()[3]
    stopped = await adapter.complete(STORY, max_tokens=12, stop=[word])
    assert stopped.finish_reason == "stop"
    assert stopped.text == greedy.text[: greedy.text.index(word)]
    messages = [{"role": "developer", "content": "Be short."}, *SUM]
    assert (await adapter.complete(messages, max_tokens=4)).usage.prompt_tokens > 5


async def test_what_is_cut_off_is_no_answer_of_a_program(adapter: Any) -> None:
    def steps(**fields: Any) -> Program:
        return Program.from_dict(
            {"steps": [{"id": "a", "type": "llm", "prompt": STORY[0]["content"], **fields}]}
        )

    vm = ExecutionVM(adapter)
    trace = await vm.run(steps(max_tokens=5))
    assert (trace.status.value, trace.error_kind, trace.steps[0].usage.completion_tokens) == (
        "failed",
        "truncated",
        5,
    )
    events = [event async for event in vm.stream(steps(max_tokens=5, on_truncated="accept"))]
    assert events[-1].trace.final_output == trace.steps[0].extra["answer"]
    assert (
        "".join(event.text for event in events if event.kind == "text")
        == events[-1].trace.final_output
    )


async def test_refusal_of_the_server(adapter: Any) -> None:
    with pytest.raises(ModelError, match="exceeds the available context size") as caught:
        await adapter.complete([{"role": "user", "content": "again " * 2000}], max_tokens=4)
    assert not caught.value.retryable


async def test_cancelled_call_leaves_the_adapter_usable(adapter: Any) -> None:
    call = asyncio.create_task(adapter.complete(STORY, max_tokens=800, extra_body=ENDLESS))
    await asyncio.sleep(0.2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert "4" in (await adapter.complete(SUM, max_tokens=16)).text


async def test_stream_left_early(adapter: Any) -> None:
    """The server, which takes four calls at a time, is told to stop."""
    for _ in range(6):
        pieces = adapter.stream(STORY, max_tokens=800, extra_body=ENDLESS)
        assert isinstance(await anext(pieces), str)
        await pieces.aclose()
    begin = time.perf_counter()
    assert "4" in (await adapter.complete(SUM, max_tokens=16)).text
    assert time.perf_counter() - begin < 15  # 0.2 s; 800 tokens in each of four places take 30 s
