"""Pools of models that answer, fail and wait as told, on a clock of their own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from nano_vm import Completion, ExecutionVM, LLMUsage, Member, ModelError, Pool, Program, Trace
from nano_vm.adapters.pool.breaker import Breaking
from nano_vm.adapters.pool.pool import STRATEGIES
from nano_vm.errors import FilteredAnswer, ModelTimeout, RateLimited, VMError
from nano_vm.machine.faults import consumed
from nano_vm.replay import replay

MESSAGES = [{"role": "user", "content": "x"}]


class Clock:
    """Time that passes when it is slept, and when a model takes it."""

    def __init__(self) -> None:
        self.now = 1_000_000_000
        self.slept: list[float] = []

    def monotonic_ns(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)
        self.now += int(seconds * 1e9)


class Model:
    """Gives *answers* in turn, the last for ever: a string, or an exception that is raised."""

    def __init__(self, model: str, *answers: Any, clock: Clock | None = None, takes: float = 0.1):
        self.model = model
        self.answers = answers or ("yes",)
        self.calls: list[dict[str, Any]] = []
        self.clock, self.takes = clock, takes

    async def complete(self, messages: list[dict[str, Any]], **kwargs: Any) -> Completion:
        self.calls.append({"messages": messages, **kwargs})
        if self.clock is not None:
            self.clock.now += int(self.takes * 1e9)
        answer = self.answers[min(len(self.calls), len(self.answers)) - 1]
        if isinstance(answer, BaseException):
            raise answer
        return Completion(answer, LLMUsage(10, 2, 12), self.model, "stop")


DOWN = ModelError("HTTP 503: down", status=503)


def models(*names: str) -> list[Model]:
    return [Model(name) for name in names]


async def who(pool: Pool, messages: Any = None, **kwargs: Any) -> str:
    return str((await pool.complete(messages or MESSAGES, **kwargs)).model)


def attempts(completion: Any) -> list[tuple[str, str]]:
    return [(a["member"], a["outcome"]) for a in completion.route["attempts"]]


async def failure(pool: Pool, **kwargs: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await pool.complete(MESSAGES, **kwargs)
    return caught.value


# --- what an answer comes from ---


async def test_ordered_and_what_is_recorded() -> None:
    pool = Pool([Model("a", DOWN), Model("b")], name="judge")
    completion = await pool.complete(MESSAGES)
    route = completion.route
    assert route is not None
    assert (route["pool"], route["strategy"]) == ("judge", "ordered")
    first, second = route["attempts"]
    assert first | {"ms": 0} == {
        "member": "a",
        "why": "ordered",
        "outcome": "transient",
        "error": "HTTP 503: down",
        "usage": {
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "total_tokens": 0,
            "cost_usd": "0",
        },
        "ms": 0,
    }
    assert (second["member"], second["why"]) == ("b", "a: transient")
    assert completion.usage == LLMUsage(10, 2, 12)


@pytest.mark.parametrize(
    ("error", "kind", "elsewhere"),
    [
        (DOWN, "transient", True),
        (ModelTimeout("slow"), "transient", True),
        (OSError("no route"), "transient", True),
        (RateLimited("wait", retry_after_seconds=7), "limited", True),
        (ModelError("no key", status=401, retryable=False), "credentials", True),
        (ModelError("no credit", status=429, retryable=False), "credentials", True),
        (ModelError("who?", status=404, retryable=False), "unknown_model", True),
        (ModelError("bad", status=400, retryable=False), "bad_request", False),
        (FilteredAnswer("filtered", status=400), "filtered", False),
        (ModelError("takes no pictures", retryable=False), "bad_request", True),
    ],
)
async def test_errors_are_classified_once(error: Exception, kind: str, elsewhere: bool) -> None:
    second = Model("b")
    pool = Pool([Model("a", error), second])
    if elsewhere:
        assert attempts(await pool.complete(MESSAGES)) == [("a", kind), ("b", "answered")]
    else:
        found = await failure(pool)
        assert found is error
        assert found.route is not None
        assert [a["outcome"] for a in found.route["attempts"]] == [kind]
        assert second.calls == []


async def test_a_prompt_that_is_too_long_goes_to_a_longer_context_only() -> None:
    error = ModelError("HTTP 400: prompt is too long: 9000 tokens", status=400, retryable=False)
    small, same, large = Model("small", error), Model("same"), Model("large")
    pool = Pool(
        [Member(small, context=8000), Member(same, context=8000), Member(large, context=9999)]
    )
    assert attempts(await pool.complete(MESSAGES)) == [("small", "context"), ("large", "answered")]
    assert same.calls == []
    found = await failure(Pool([Member(small, context=8000), Member(same, context=8000)]))
    assert found is error


async def test_all_have_failed() -> None:
    pool = Pool([Model("a", DOWN), Model("b", OSError("lost"))])
    found = await failure(pool)
    assert str(found) == "pool 'pool': all 2 members tried have failed: a: HTTP 503: down; b: lost"
    assert found.retryable
    assert consumed(found) is None, "nobody knows what the lost call has used"
    limited = [Model(n, RateLimited("w", retry_after_seconds=s)) for n, s in (("a", 9), ("b", 5))]
    found = await failure(Pool(limited))
    assert isinstance(found, RateLimited)
    assert found.retry_after_seconds == 5
    refused = [Model(n, ModelError("key", status=401, retryable=False)) for n in "ab"]
    assert not (await failure(Pool(refused))).retryable
    assert isinstance(
        await failure(Pool([Model(n, ModelTimeout("t")) for n in "ab"])), ModelTimeout
    )


async def test_attempts_bound_the_members_tried() -> None:
    made = [Model("a", DOWN), Model("b", DOWN), Model("c")]
    pool = Pool(made, attempts=2)
    assert pool.served.attempts == 2
    await failure(pool)
    assert [len(model.calls) for model in made] == [1, 1, 0]


# --- strategies ---


async def test_round_robin() -> None:
    pool = Pool(models("a", "b", "c"), "round_robin")
    assert [await who(pool) for _ in range(7)] == ["a", "b", "c", "a", "b", "c", "a"]


@pytest.mark.slow
async def test_weighted_follows_weights_and_the_seed() -> None:
    def pool(seed: int) -> Pool:
        made = [Member(model, weight=w) for model, w in zip(models("a", "b"), (3, 1), strict=True)]
        return Pool(made, "weighted", seed=seed)

    chosen = [await who(pool(1), idempotency_key=f"k{i}") for i in range(400)]
    assert 270 < Counter(chosen)["a"] < 330
    again = [await who(pool(1), idempotency_key=f"k{i}") for i in range(400)]
    assert again == chosen, "the same seed and keys choose the same"
    other = [await who(pool(2), idempotency_key=f"k{i}") for i in range(400)]
    assert other != chosen


async def test_hash_keeps_to_a_member_and_moves_only_its_own_calls() -> None:
    made = models("a", "b", "c", "d")
    pool = Pool(made, "hash")
    texts = [[{"role": "user", "content": f"text {i}"}] for i in range(200)]
    first = [await who(pool, text) for text in texts]
    assert [await who(pool, text) for text in texts] == first
    assert min(Counter(first).values()) > 20
    made[0].answers = (DOWN,)
    after = [await who(pool, text) for text in texts]
    assert [b for a, b in zip(first, after, strict=True) if a != "a"] == [
        a for a in first if a != "a"
    ]
    by_length = Pool(models("a", "b", "c"), "hash", place=lambda m: str(len(m)))
    assert len({await who(by_length, text) for text in texts}) == 1


async def test_least_busy() -> None:
    gate = asyncio.Event()

    class Slow(Model):
        async def complete(self, messages: Any, **kwargs: Any) -> Completion:
            self.calls.append({})
            await gate.wait()
            return Completion("yes", None, self.model)

    made = [Slow(name) for name in "abc"]
    pool = Pool(made, "least_busy")
    tasks = [asyncio.create_task(pool.complete(MESSAGES)) for _ in range(9)]
    await asyncio.sleep(0)
    assert [len(model.calls) for model in made] == [3, 3, 3]
    gate.set()
    await asyncio.gather(*tasks)
    assert {member.busy for member in pool.members} == {0}


async def test_fastest_forgets() -> None:
    clock = Clock()
    slow, fast = Model("slow", clock=clock, takes=4), Model("fast", clock=clock, takes=1)
    pool = Pool([slow, fast], "fastest", clock=clock)
    assert [await who(pool) for _ in range(6)] == ["slow", *["fast"] * 5]
    clock.now += int(200e9)  # more than three half-lives: 4 s count as less than half a second
    fast.takes = slow.takes = 1
    assert "slow" in [await who(pool) for _ in range(2)]


async def test_cheapest_by_the_tokens_that_are_expected() -> None:
    reader = Member(Model("reader"), price=(1, 50))
    writer = Member(Model("writer"), price=(5, 10))
    unpriced = Model("unpriced")
    pool = Pool([unpriced, writer, reader], "cheapest")
    long = [{"role": "user", "content": "word " * 4000}]
    assert await who(pool, long, max_tokens=10) == "reader"
    assert await who(pool, MESSAGES, max_tokens=1000) == "writer"
    priced = ExecutionVM(pool, prices={"unpriced": ("0.1", "0.1")})
    program = Program.from_dict({"steps": [{"id": "s", "type": "llm", "prompt": "x"}]})
    assert (await priced.run(program)).steps[0].extra["model"] == "unpriced"


@pytest.mark.parametrize(
    ("asked", "answer", "why"),
    [
        ({"allowed_outputs": ["yes", "no"]}, "perhaps", "is not one of"),
        ({"output_schema": {"type": "object"}}, "[1]", "does not fit the schema"),
        ({"output_schema": {"type": "object"}}, "words", "is not JSON"),
        ({}, "short", "check does not hold"),
    ],
)
async def test_cascade(asked: dict[str, Any], answer: str, why: str) -> None:
    good = '{"a": 1}' if "output_schema" in asked else "no" if asked else "long enough"
    made = [Model("cheap", answer), Model("dear", good), Model("last")]
    check: Callable[[str], bool] | None = None if asked else (lambda text: len(text) > 6)
    pool = Pool(made, "cascade", check=check)
    completion = await pool.complete(MESSAGES, **asked)
    assert (completion.text, completion.model) == (good, "dear")
    assert attempts(completion) == [("cheap", "rejected"), ("dear", "answered")]
    assert why in completion.route["attempts"][0]["error"]  # type: ignore[index]
    assert completion.usage == LLMUsage(20, 4, 24), "both are billed"
    assert made[2].calls == []


async def test_the_last_of_a_cascade_is_judged_by_the_step() -> None:
    pool = Pool([Model("a", "hm"), Model("b", "well")], "cascade")
    assert (await pool.complete(MESSAGES, allowed_outputs=["yes"])).text == "well"
    pool = Pool([Model("a", "hm"), Model("b", DOWN)], "cascade")
    assert (await pool.complete(MESSAGES, allowed_outputs=["yes"])).text == "hm"


async def test_hedge() -> None:
    first_cancelled = asyncio.Event()

    class Hanging(Model):
        async def complete(self, messages: Any, **kwargs: Any) -> Completion:
            try:
                await asyncio.Event().wait()
            finally:
                first_cancelled.set()
            raise AssertionError

    class Patient(Clock):
        async def sleep(self, seconds: float) -> None:
            self.slept.append(seconds)
            await asyncio.sleep(0.005)

    clock = Patient()
    pool = Pool([Hanging("a"), Model("b"), Model("c")], "hedge", hedge_after=0.5, clock=clock)
    completion = await pool.complete(MESSAGES)
    assert completion.model == "b"
    assert attempts(completion) == [("a", "cancelled"), ("b", "answered")]
    assert completion.route["attempts"][1]["why"] == "no answer in 0.5 s"  # type: ignore[index]
    assert first_cancelled.is_set()
    assert clock.slept[0] == 0.5
    assert "usage" not in completion.route["attempts"][0]  # type: ignore[index]


async def test_a_hedge_that_fails_at_once_goes_on_at_once() -> None:
    clock = Clock()
    pool = Pool([Model("a", DOWN), Model("b")], "hedge", hedge_after=60, clock=clock)
    assert attempts(await pool.complete(MESSAGES)) == [("a", "transient"), ("b", "answered")]
    assert await failure(Pool([Model("a", DOWN), Model("b", DOWN)], "hedge", hedge_after=60))


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_every_strategy_finds_the_one_that_answers(strategy: Any) -> None:
    for position in range(3):
        made = [Model(n, *([] if i == position else [DOWN])) for i, n in enumerate("abc")]
        more = {"hedge_after": 0.001} if strategy == "hedge" else {}
        pool = Pool(made, strategy, **more)
        for _ in range(4):
            assert await who(pool) == "abc"[position]
        assert sum(len(m.calls) for m in made) - 4 <= 4, "at most two of each that is down"


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_pool_that_is_cancelled_leaves_nothing_behind(strategy: Any) -> None:
    class Hanging(Model):
        async def complete(self, messages: Any, **kwargs: Any) -> Completion:
            await asyncio.Event().wait()
            raise AssertionError

    more = {"hedge_after": 0.001} if strategy == "hedge" else {}
    pool = Pool([Member(Hanging(n), concurrency=1) for n in "ab"], strategy, **more)
    tasks = [asyncio.create_task(pool.complete(MESSAGES)) for _ in range(4)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [(m.busy, m.waiters, m.breaker.failures) for m in pool.members] == [(0, [], 0)] * 2
    assert pool._line_of[1].waiting == 0


# --- health ---


async def test_breaker_opens_probes_and_closes() -> None:
    clock = Clock()
    first, second = Model("a", DOWN), Model("b")
    pool = Pool([Member(first, breaking=Breaking(open_seconds=30)), second], clock=clock)
    for _ in range(10):
        assert await who(pool) == "b"
    assert len(first.calls) == 2, "then its breaker is open"
    completion = await pool.complete(MESSAGES)
    assert completion.route["attempts"][0]["why"] == "a is open"  # type: ignore[index]
    clock.now += int(30e9)
    for _ in range(5):
        assert await who(pool) == "b"
    assert len(first.calls) == 3, "one probe, and open for twice as long"
    clock.now += int(31e9)
    assert await who(pool) == "b"
    assert len(first.calls) == 3
    clock.now += int(30e9)
    first.answers = ("back",)
    assert [await who(pool) for _ in range(3)] == ["a"] * 3


async def test_one_probe_at_a_time() -> None:
    clock = Clock()
    gate = asyncio.Event()

    class Sick(Model):
        async def complete(self, messages: Any, **kwargs: Any) -> Completion:
            self.calls.append({})
            if len(self.calls) <= 2:
                raise DOWN
            await gate.wait()
            return Completion("yes", None, "a")

    sick, well = Sick("a"), Model("b")
    pool = Pool([sick, well], clock=clock)
    for _ in range(2):
        await who(pool)
    clock.now += int(31e9)
    tasks = [asyncio.create_task(who(pool)) for _ in range(5)]
    await asyncio.sleep(0)
    gate.set()
    assert sorted(await asyncio.gather(*tasks)) == ["a", "b", "b", "b", "b"]


async def test_a_refused_key_rests_long_and_loudly(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    first = Model("a", ModelError("HTTP 401: bad key", status=401, retryable=False))
    pool = Pool([first, Model("b")], clock=clock)
    for _ in range(3):
        assert await who(pool) == "b"
        clock.now += int(60e9)
    assert len(first.calls) == 1
    assert "member 'a' is left out: HTTP 401: bad key" in caplog.text


async def test_retry_after_is_honoured() -> None:
    clock = Clock()
    first = Model("a", RateLimited("slow", retry_after_seconds=20), "yes")
    pool = Pool([first, Model("b")], clock=clock)
    assert await who(pool) == "b"
    clock.now += int(19e9)
    assert await who(pool) == "b"
    clock.now += int(2e9)
    assert await who(pool) == "a"
    alone = Pool([Model("a", RateLimited("slow", retry_after_seconds=20), "yes")], clock=clock)
    assert isinstance(await failure(alone), RateLimited)
    assert await who(alone) == "a", "the next call waits"
    assert clock.slept[-1] == pytest.approx(20)


async def test_nobody_can_be_called() -> None:
    clock = Clock()
    pool = Pool([Model("a", DOWN)], clock=clock)
    for _ in range(2):
        await failure(pool)
    found = await failure(pool)
    assert str(found) == "pool 'pool': no member can be called: a is open"
    assert (found.retryable, found.retry_after_seconds) == (True, pytest.approx(30))
    assert consumed(found) == LLMUsage(cost_usd=Decimal(0))


async def test_a_member_has_its_own_time() -> None:
    class Hanging(Model):
        async def complete(self, messages: Any, **kwargs: Any) -> Completion:
            await asyncio.Event().wait()
            raise AssertionError

    pool = Pool([Member(Hanging("a"), timeout_seconds=0.01), Model("b")])
    completion = await pool.complete(MESSAGES)
    assert attempts(completion) == [("a", "transient"), ("b", "answered")]
    assert "gave no answer in 0.01 s" in completion.route["attempts"][0]["error"]  # type: ignore[index]


# --- limits ---


async def test_concurrency_is_never_exceeded_and_calls_wait_in_order() -> None:
    under_way = most = 0
    ended: list[int] = []

    class Counting(Model):
        async def complete(self, messages: Any, **kwargs: Any) -> Completion:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.001)
            under_way -= 1
            ended.append(int(messages[0]["content"]))
            return Completion("yes", None, self.model)

    pool = Pool([Member(Counting("a"), concurrency=3)])
    calls = [pool.complete([{"role": "user", "content": str(i)}]) for i in range(40)]
    await asyncio.gather(*calls)
    assert most == 3
    assert ended == sorted(ended)


async def test_requests_per_minute_wait_for_the_window() -> None:
    clock = Clock()
    pool = Pool([Member(Model("a"), requests_per_minute=2)], clock=clock, patience_seconds=300)
    for _ in range(5):
        await who(pool)
    assert [round(s) for s in clock.slept] == [60, 60]


async def test_tokens_per_minute_count_what_was_used() -> None:
    clock = Clock()
    # a call may use 17 + 20 tokens, and uses 12
    pool = Pool([Member(Model("a"), tokens_per_minute=61)], clock=clock)
    for _ in range(3):
        await who(pool, max_tokens=20)
    assert clock.slept == []
    await who(pool, max_tokens=20)
    assert len(clock.slept) == 1


async def test_patience_ends() -> None:
    clock = Clock()
    pool = Pool([Member(Model("a"), requests_per_minute=1)], clock=clock, patience_seconds=5)
    await who(pool)
    found = await failure(pool)
    assert isinstance(found, RateLimited)
    assert "at its limits for another 60 s" in str(found)
    assert clock.slept == []


async def test_a_full_member_is_passed_over() -> None:
    clock = Clock()
    pool = Pool([Member(Model("a"), requests_per_minute=1), Model("b")], clock=clock)
    assert [await who(pool) for _ in range(3)] == ["a", "b", "b"]


# --- what members take ---


async def test_members_that_lack_what_a_step_asks_for_are_passed_over() -> None:
    class NoSeed:
        model = "plain"

        async def complete(self, messages: Any) -> str:
            raise AssertionError("never called")

    lacking = Member(Model("lacking"), lacks=["seed"])
    pool = Pool([NoSeed(), lacking, Model("able")])
    assert await who(pool, seed=3) == "able"
    assert pool.takes("seed")
    assert not Pool([NoSeed()]).takes("seed")
    found = await failure(Pool([NoSeed(), lacking]), seed=3)
    assert "no member takes what the step asks for" in str(found)
    picture = [{"type": "image_url", "image_url": {"url": "http://a.test/b"}}]
    seeing = Model("seeing")
    seeing.images = True  # type: ignore[attr-defined]
    assert (
        await who(Pool([Model("blind"), seeing]), [{"role": "user", "content": picture}])
        == "seeing"
    )


async def test_a_member_cannot_change_what_the_next_is_sent() -> None:
    class Vandal(Model):
        async def complete(self, messages: Any, **kwargs: Any) -> Completion:
            messages[0]["content"] = "changed"
            kwargs.clear()
            raise DOWN

    second = Model("b")
    await Pool([Vandal("a"), second]).complete(MESSAGES, temperature=0.5)
    assert second.calls == [{"messages": MESSAGES, "temperature": 0.5}]


async def test_stream() -> None:
    class Streaming(Model):
        def __init__(self, model: str, *pieces: Any) -> None:
            super().__init__(model)
            self.pieces = pieces

        async def stream(self, messages: Any, **kwargs: Any) -> Any:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield piece

    last = Completion("ab", LLMUsage(1, 2, 3), "b")
    pool = Pool([Streaming("a", DOWN), Streaming("b", "a", "b", last)])
    *pieces, end = [piece async for piece in pool.stream(MESSAGES)]
    assert pieces == ["a", "b"]
    assert (end.text, attempts(end)) == ("ab", [("a", "transient"), ("b", "answered")])  # type: ignore[union-attr]
    pool = Pool([Streaming("a", "x", DOWN), Model("b")])
    cut = pool.stream(MESSAGES)
    assert await anext(cut) == "x", "what was shown cannot be taken back"
    with pytest.raises(ModelError, match="down"):
        await anext(cut)
    assert [end async for end in Pool([Model("plain")]).stream(MESSAGES)][-1].text == "yes"  # type: ignore[union-attr]
    assert [m.busy for m in pool.members] == [0, 0]


# --- in a program ---

PRICES = {"a": (1, 2), "b": (10, 20)}


def run(pool: Any, *, budget: Any = None, prices: Any = PRICES, **step: Any) -> Trace:
    steps = [{"id": "s", "type": "llm", "prompt": "x", "max_tokens": 10, **step}]
    program = Program.from_dict({"steps": steps})
    trace = ExecutionVM(pool, prices=prices, budget=budget).run_sync(program)
    assert replay(trace, program), str(replay(trace, program))
    return Trace.from_json(trace.to_json())


def test_each_attempt_is_priced_by_its_member() -> None:
    billed = ModelError("half an answer", usage=LLMUsage(100, 50, 150))
    trace = run(Pool([Model("a", billed), Model("b")]))
    step = trace.steps[0]
    assert step.usage == LLMUsage(110, 52, 162, Decimal("0.000340"))
    costs = [a["usage"]["cost_usd"] for a in step.extra["route"]["attempts"]]
    assert [Decimal(cost) for cost in costs] == [Decimal("0.0002"), Decimal("0.00014")]
    assert step.cost_source == "prices"


def test_what_nobody_knows_is_not_told_as_zero() -> None:
    trace = run(Pool([Model("a", OSError("lost")), Model("b")]))
    assert trace.steps[0].usage == LLMUsage(10, 2, 12)
    assert trace.total_cost_usd() is None


def test_a_budget_reserves_every_attempt_at_the_dearest_member() -> None:
    pool = Pool([Model("a"), Model("b")])
    # 17 tokens of prompt and 10 of answer, at 10 and 20 dollars a million, twice
    assert run(pool, budget={"max_cost_usd": 0.00074}).ok
    trace = run(pool, budget={"max_cost_usd": 0.00073})
    assert trace.error_kind == "budget"
    assert "the call may cost $0.000740" in str(trace.error)
    assert run(pool, budget={"max_tokens": 54}).ok
    assert run(pool, budget={"max_tokens": 53}).error_kind == "budget"


def test_lost_attempts_keep_their_reservation() -> None:
    steps = [
        {"id": f"s{i}", "type": "llm", "prompt": "x", "max_tokens": 10, "on_error": "fail"}
        for i in range(2)
    ]
    program = Program.from_dict({"steps": steps})

    def vm(first: Model, tokens: int) -> ExecutionVM:
        return ExecutionVM(Pool([first, Model("b")]), budget={"max_tokens": tokens})

    # the first step: 27 for the lost attempt and 12; the second reserves 54
    assert vm(Model("a", OSError("lost"), "yes"), 27 + 12 + 54).run_sync(program).ok
    trace = vm(Model("a", OSError("lost"), "yes"), 27 + 12 + 53).run_sync(program)
    assert trace.error_kind == "budget"


def test_a_member_without_a_price_is_refused_under_a_budget_of_money() -> None:
    trace = run(Pool([Model("a"), Model("c")]), budget={"max_cost_usd": 1})
    assert [d.code for d in trace.diagnostics] == ["V033"]
    assert "member 'c' of pool 'pool'" in trace.diagnostics[0].message


def test_failed_attempts_of_a_step_keep_their_routes() -> None:
    pool = Pool([Model("a", DOWN, DOWN, "yes"), Model("b", DOWN, DOWN, "yes")])
    trace = run(pool, max_retries=2, retry={"delay_seconds": 0})
    (attempt,) = trace.steps[0].attempts
    assert attempt.route is not None
    assert [a["member"] for a in attempt.route["attempts"]] == ["a", "b"]
    assert trace.error_kind == "model"


def test_the_worst_case_counts_every_attempt_at_the_dearest() -> None:
    program = Program.from_dict(
        {"steps": [{"id": "s", "type": "llm", "prompt": "x", "max_tokens": 10, "max_retries": 2}]}
    )
    one = ExecutionVM(Model("b"), prices=PRICES).verify(program).ceiling
    two = ExecutionVM(Pool([Model("a"), Model("b")]), prices=PRICES).verify(program).ceiling
    assert one is not None
    assert two is not None
    assert two.tokens == 2 * one.tokens  # type: ignore[operator]
    assert two.cost_usd == 2 * one.cost_usd  # type: ignore[operator]
    unpriced = ExecutionVM(Pool([Model("a"), Model("c")]), prices=PRICES).verify(program).ceiling
    assert unpriced is not None
    assert unpriced.cost_usd is None
    assert "member 'c' of pool 'pool'" in str(unpriced.open)


def test_two_runs_with_the_same_answers_have_one_digest() -> None:
    direct, around = run(Model("b")), run(Pool([Model("a", DOWN), Model("b")]))
    assert direct.digest == around.digest


# --- bad input ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pool([]), "pool 'pool' has no members"),
        (lambda: Pool(models("a", "a")), "two members have the name 'a'"),
        (lambda: Pool(models("a"), "random"), "strategy is one of ordered, "),
        (lambda: Pool(models("a"), attempts=0), "attempts is a whole number"),
        (lambda: Pool(models("a"), "hedge"), "hedge needs hedge_after"),
        (lambda: Pool(models("a"), check=bool), "check is for strategy cascade, not ordered"),
        (lambda: Pool(models("a"), require=["eu"]), "no member has the tags"),
        (lambda: Pool([object()]), "is no adapter"),
        (lambda: Pool([Pool(models("a"))]), "a pool has no pools in it"),
        (lambda: Pool(["no such model"]), "unknown model 'no such model'"),
        (lambda: Member(Model("a"), concurrency=0), "concurrency is a whole number"),
        (lambda: Member(Model("a"), weight=0), "weight is a number above 0"),
        (lambda: Member(Model("a"), tags="eu"), "tags and lacks are lists"),
        (lambda: Member(Model("a"), price=(1, -1)), "the price of 'a' is"),
    ],
)
def test_what_is_no_pool(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(VMError, match=message.replace("(", r"\(")):
        make()


def test_required_tags_leave_members_out() -> None:
    eu, us = Member(Model("a"), tags=["eu", "gold"]), Member(Model("b"), tags=["us"])
    assert [m.name for m in Pool([eu, us], require=["eu"]).members] == ["a"]
    assert Pool([eu, us]).tags == frozenset()
    assert Pool([eu], require=["eu"]).tags == {"eu", "gold"}


async def test_members_that_lie_about_usage() -> None:
    class Liar(Model):
        async def complete(self, messages: Any, **kwargs: Any) -> Any:
            return "yes", {"prompt_tokens": -5}

    completion = await Pool([Liar("a"), Model("b")]).complete(MESSAGES)
    assert completion.model == "b"
