"""What an adapter has to do before its first call is no part of that call's time."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from nano_vm import ExecutionVM, LiteLLMAdapter, OpenAIAdapter, Pool, Program
from nano_vm.adapters import Cached
from nano_vm.adapters.anthropic import AnthropicAdapter

PROGRAM = Program.from_yaml("""\
steps:
  - {id: ask, type: llm, prompt: Well?, timeout_seconds: 0.2}
  - {id: again, type: llm, prompt: Well?, timeout_seconds: 0.2}
""")


class Sleeper:
    model = "sleeper"

    def __init__(self, seconds: float = 0.5, fault: Exception | None = None) -> None:
        self.seconds, self.fault = seconds, fault
        self.woken = self.calls = 0

    async def ready(self) -> None:
        self.woken += 1
        await asyncio.sleep(self.seconds)
        if self.fault is not None:
            raise self.fault

    async def complete(self, messages: Any) -> str:
        self.calls += 1
        if self.fault is not None:
            raise self.fault
        return "yes"


@pytest.mark.parametrize(
    "over", [lambda a: a, lambda a: Pool([a]), Cached], ids="plain pool kept".split()
)
@pytest.mark.parametrize("store", [None, "sqlite://"], ids=["process", "store"])
def test_a_first_call_does_not_pay_for_what_comes_before_it(over: Any, store: str | None) -> None:
    adapter = Sleeper()
    vm = ExecutionVM(over(adapter), store=store)
    for _ in range(2):
        assert vm.run_sync(PROGRAM).ok
    assert adapter.woken == 1
    vm.close()


def test_what_cannot_be_made_ready_says_so_in_the_call() -> None:
    adapter = Sleeper(0, OSError("no weights"))
    trace = ExecutionVM(adapter).run_sync(PROGRAM)
    assert trace.error == "Step 'ask' failed: OSError: no weights"
    assert (adapter.woken, adapter.calls) == (1, 1)


def test_a_run_that_is_cancelled_meanwhile_makes_no_call() -> None:
    adapter = Sleeper(30)

    async def cancelled() -> str:
        run = ExecutionVM(adapter).start(PROGRAM)
        for _ in range(5):
            await asyncio.sleep(0)
        assert adapter.woken == 1
        return (await run.cancel()).status.value

    assert asyncio.run(cancelled()) == "cancelled"
    assert adapter.calls == 0


def test_a_deadline_of_the_run_holds_meanwhile() -> None:
    program = Program.from_dict({**PROGRAM.to_dict(), "timeout_seconds": 0.05})
    adapter = Sleeper(30)
    trace = ExecutionVM(adapter).run_sync(program)
    assert trace.error_kind == "timeout"
    assert "the run did not end within 0.05 s" in (trace.error or "")
    assert adapter.calls == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "package"),
    [
        (lambda: OpenAIAdapter("m", base_url="http://127.0.0.1:1/v1", api_key="k"), "openai"),
        (lambda: AnthropicAdapter("m", api_key="k"), "anthropic"),
        (lambda: LiteLLMAdapter("openai/m", api_base="http://127.0.0.1:1/v1"), "litellm"),
    ],
    ids=["openai", "anthropic", "litellm"],
)
def test_an_sdk_is_imported_by_what_comes_before_the_call(adapter: Any, package: str) -> None:
    made = adapter()

    async def ready() -> None:
        await made.ready()
        assert package in sys.modules
        if hasattr(made, "aclose"):
            await made.aclose()

    asyncio.run(ready())
    assert Path(sys.modules[package].__file__ or "").is_file()
