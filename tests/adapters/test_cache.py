"""Kept answers: what is asked once only, and what a hit says of itself."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from build import llm, mapped, program

from nano_vm import Completion, ExecutionVM, ModelError, VMError
from nano_vm.adapters import Cached, Pool
from nano_vm.adapters.contract import Adapter
from nano_vm.records.usage import LLMUsage
from nano_vm.replay import replay


class Model:
    """Answers with how often it was asked, or what it is told to."""

    model = "small"

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), 0
        self.keywords: list[dict[str, Any]] = []

    async def complete(
        self, messages: list[dict[str, Any]], *, temperature: float = 1.0, **keywords: Any
    ) -> Completion:
        self.asked += 1
        self.keywords.append({"temperature": temperature, **keywords})
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if self.answers else f"answer {self.asked}"
        if isinstance(answer, BaseException):
            raise answer
        usage = LLMUsage(10, 2, 12, Decimal("0.01"))
        if isinstance(answer, Completion):
            return answer
        return Completion(answer, usage, "small-2026", "stop", "I thought")


ASK = program(llm("m", "hello"))


async def test_what_was_asked_before_is_not_asked_again() -> None:
    model = Model()
    cached = Cached(model)
    vm = ExecutionVM(cached)
    first, second = [await vm.run(ASK, run_id=name) for name in "ab"]
    assert (model.asked, cached.hits, cached.misses) == (1, 1, 1)
    assert first.final_output == second.final_output == "answer 1"
    (hit,) = second.steps
    assert hit.extra["cached"] is True
    assert hit.extra["model"] == "small-2026"
    assert hit.reasoning == "I thought"
    assert "cached" not in first.steps[0].extra
    assert (first.total_tokens(), first.total_cost_usd()) == (12, Decimal("0.01"))
    assert (second.total_tokens(), second.total_cost_usd()) == (0, Decimal(0))


async def test_a_run_with_a_hit_is_replayed_as_it_was() -> None:
    vm = ExecutionVM(Cached(Model()))
    await vm.run(ASK)
    trace = await vm.run(ASK)
    assert replay(trace, ASK).identical


@pytest.mark.parametrize(
    "other",
    [
        llm("m", "hello!"),
        llm("m", "hello", temperature=0.5),
        llm("m", "hello", system="Be short."),
        llm("m", "hello", max_tokens=5),
        llm("m", "hello", output_schema={"type": "string"}),
        llm("m", "hello", seed=3),
    ],
)
async def test_whatever_shapes_an_answer_is_another_question(other: dict[str, Any]) -> None:
    model = Model("one", '"two"')
    vm = ExecutionVM(Cached(model))
    await vm.run(ASK)
    await vm.run(program(other))
    assert model.asked == 2


async def test_another_step_or_run_with_the_same_question_is_a_hit() -> None:
    model = Model()
    vm = ExecutionVM(Cached(model))
    await vm.run(program(llm("a", "x"), llm("b", "x")))
    assert model.asked == 1


async def test_equal_calls_at_the_same_time_are_one() -> None:
    model = Model()
    vm = ExecutionVM(Cached(model))
    trace = await vm.run(program(mapped(llm("m", "x"), over=list(range(20)), id="each")))
    assert trace.ok
    assert model.asked == 1
    assert trace.final_output == ["answer 1"] * 20


async def test_where_the_first_of_equal_calls_fails_the_next_is_made() -> None:
    model = Model(ModelError("busy", status=503))
    cached = Cached(model)
    calls = [cached.complete([{"role": "user", "content": "x"}]) for _ in range(3)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one).__name__ for one in results] == ["ModelError", "Completion", "Completion"]
    assert model.asked == 2


async def test_a_call_that_is_cancelled_leaves_the_others_to_ask() -> None:
    model = Model()
    cached = Cached(model)
    ask: Callable[[], Any] = lambda: cached.complete([{"role": "user", "content": "x"}])  # noqa: E731
    first, second = asyncio.create_task(ask()), asyncio.create_task(ask())
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).text == "answer 2"
    assert not cached._flying


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"allowed_outputs": ["yes", "no"]}, "maybe"),
        ({"output_schema": {"type": "object"}}, "[1]"),
        ({"output_schema": {"type": "object"}}, "no JSON"),
        ({}, Completion("cut o", LLMUsage(1, 1, 2), "small", "length")),
        ({}, Completion("I will not", LLMUsage(1, 1, 2), "small", "refusal")),
    ],
)
async def test_what_a_step_would_not_take_is_not_kept(fields: dict[str, Any], bad: Any) -> None:
    good = {"allowed_outputs": "yes", "output_schema": "{}"}.get(next(iter(fields), ""), "fine")
    model = Model(bad, good)
    cached = Cached(model)
    answers = [await cached.complete([{"role": "user", "content": "x"}], **fields) for _ in "abc"]
    assert [answer.cached for answer in answers] == [False, False, True]
    assert answers[2].text == answers[1].text == good
    assert model.asked == 2


async def test_answers_have_a_lifetime() -> None:
    time = [1000.0]
    model = Model()
    cached = Cached(model, seconds=60, now=lambda: time[0])
    vm = ExecutionVM(cached)
    for moment, asked in ((1000, 1), (1059.9, 1), (1060, 2), (1119, 2), (900, 3)):
        time[0] = moment
        await vm.run(ASK)
        assert model.asked == asked, moment


async def test_the_oldest_are_forgotten() -> None:
    model = Model()
    vm = ExecutionVM(Cached(model, most=2))
    for prompt in ("a", "b", "a", "c", "a", "b"):
        await vm.run(program(llm("m", prompt)))
    assert model.asked == 4  # b was not asked for longest when c came


async def test_a_file_serves_other_processes_and_later_ones(tmp_path: Path) -> None:
    path, models = tmp_path / "answers.db", [Model(), Model()]
    with closing(Cached(models[0], path)) as one, closing(Cached(models[1], path)) as other:
        await ExecutionVM(one).run(ASK)
        trace = await ExecutionVM(other).run(ASK)
        assert trace.final_output == "answer 1"
        assert trace.steps[0].extra["cached"] is True
    later = Model()
    with closing(Cached(later, str(path))) as third:
        assert (await ExecutionVM(third).run(ASK)).final_output == "answer 1"
    assert (models[1].asked, later.asked) == (0, 0)


async def test_a_file_keeps_no_more_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nano_vm.adapters.cache.PRUNED_EVERY", 1)
    path = tmp_path / "answers.db"
    time = iter(range(100))
    with closing(Cached(Model(), path, most=3, now=lambda: float(next(time)))) as cached:
        for n in range(10):
            await cached.complete([{"role": "user", "content": str(n)}])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM nano_answers").fetchone() == (3,)


async def test_a_file_that_breaks_costs_calls_and_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model()
    cached = Cached(model, tmp_path / "answers.db")
    cached.close()
    vm = ExecutionVM(cached)
    assert (await vm.run(ASK)).ok
    assert (await vm.run(ASK)).ok
    assert model.asked == 2
    assert "an answer cannot be kept" in caplog.text


async def test_it_takes_what_its_adapter_takes() -> None:
    class Closed:
        model = "closed"
        price = (1, 2)
        images = True

        async def complete(self, messages: Any, *, temperature: float = 1.0) -> str:
            return f"at {temperature}"

        def count_tokens(self, messages: Any) -> int:
            return 7

    known = Adapter(Cached(Closed()))
    assert (known.model, known.price, known.images, known.tokens([])) == ("closed", (1, 2), True, 7)
    assert known.takes("temperature")
    assert not known.takes("seed")
    vm = ExecutionVM(Cached(Closed()))
    assert (await vm.run(program(llm("m", "x", temperature=0.5)))).final_output == "at 0.5"
    refused = await vm.run(program(llm("m", "x", seed=1)))
    assert [d.code for d in refused.diagnostics] == ["V032"]


async def test_a_cached_pool_is_a_pool_and_a_member_can_be_cached() -> None:
    model = Model()
    vm = ExecutionVM(Cached(Pool([model], name="judges")))
    first, second = await vm.run(ASK), await vm.run(ASK)
    assert (first.ok, second.ok, model.asked) == (True, True, 1)
    assert second.total_cost_usd() == 0
    inner = Model()
    vm = ExecutionVM(Pool([Cached(inner)], name="judges"))
    assert (await vm.run(ASK)).ok
    assert (await vm.run(ASK)).ok
    assert inner.asked == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": 7}, r"7 is no adapter: it has no method complete\(\)"),
        ({"adapter": "nothing/at-all"}, "model 'nothing/at-all'"),
        ({"seconds": 0}, "seconds is a number above 0, not 0"),
        ({"seconds": "60"}, "seconds is a number above 0, not '60'"),
        ({"most": 0}, "most is a positive integer, not 0"),
        ({"path": "/nowhere/answers.db"}, "answers cannot be kept in '/nowhere/answers.db'"),
        ({"path": 7.5}, "answers cannot be kept in 7.5"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(VMError, match=message):
        Cached(**{"adapter": Model(), **options})


def test_a_file_that_is_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database" * 100)
    with pytest.raises(VMError, match=r"cannot be kept in .*: file is not a database"):
        Cached(Model(), path)
