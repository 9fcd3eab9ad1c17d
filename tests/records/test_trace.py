"""The trace: what users read, its JSON, and its hashes: the digest says what happened, the seal
covers every byte.
"""

from __future__ import annotations

import asyncio
import copy
import datetime
import functools
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from build import NOW, llm, parallel, program, step
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nano_vm import (
    Completion,
    ExecutionVM,
    LLMUsage,
    RunFailed,
    StepResult,
    StepStatus,
    Trace,
    TraceStatus,
    VMError,
    tool,
)
from nano_vm.errors import TraceError
from nano_vm.records.digest import Chain
from nano_vm.records.record import Record
from nano_vm.testing import ScriptedLLM


async def echo(x: Any = None) -> Any:
    return x


def vm(answers: Any = None, **options: Any) -> ExecutionVM:
    return ExecutionVM(
        ScriptedLLM(answers or {"": "yes"}), options.pop("tools", {"t": echo}), **options
    )


RICH = program(
    step(args={"x": "$x"}),
    llm("m", "is $x good?", allowed_outputs=["yes", "no"], max_retries=3),
    {
        "id": "c",
        "type": "condition",
        "condition": "$m.output == 'yes' and $x == 'ü'",
        "then": [{"id": "s", "type": "set", "values": {"n": 1.0}}],
    },
    parallel(
        [step("b", args={"x": [1, {"k": None}]}), step("d")],
        {"id": "i", "type": "map", "over": "$items", "steps": [step("e", args={"x": "$item"})]},
    ),
    {
        "id": "l",
        "type": "loop",
        "max_iterations": 2,
        "on_exhausted": "continue",
        "steps": [step("g")],
    },
    step("f", "fails", on_error="skip", default="d", max_retries=2, retry=NOW),
    {"id": "h", "type": "call", "program": {"steps": [step("k")]}},
)


def rich(**options: Any) -> Trace:
    @tool(effect="read")
    async def fails() -> None:
        raise ValueError("always")

    answers = [
        Completion("maybe", LLMUsage(3, 1, 4), "big"),
        Completion("yes", LLMUsage(5, 1, 6), "big", "stop"),
    ]
    host = vm(answers, tools={"t": echo, "fails": fails}, prices={"scripted": ("0.15", "0.60")})
    return host.run_sync(RICH, {"x": "ü", "items": [1, 2]}, **options)


def refused() -> Trace:
    return vm().run_sync(program(step("a", "unknown"), step("b", "nowhere")))


def suspended() -> Trace:
    async def lost() -> None:
        raise ConnectionResetError("gone")

    return vm(tools={"t": lost}).run_sync(program(step()), run_id="r")


def failed() -> Trace:
    return vm(tools={"t": echo, "fails": lambda: 1 / 0}).run_sync(
        program(step("a", undo={"tool": "t"}), parallel(step("b"), step("c", "fails")))
    )


# --- what users read ------------------------------------------------------------------------------


def test_the_attributes_of_a_trace() -> None:
    before = datetime.datetime.now(datetime.UTC)
    trace = rich()
    after = datetime.datetime.now(datetime.UTC)
    assert (trace.status, trace.ok, trace.error, trace.error_kind) == (
        TraceStatus.SUCCESS,
        True,
        None,
        None,
    )
    assert (trace.program_name, trace.program_digest) == ("p", RICH.digest)
    assert trace.inputs == {"x": "ü", "items": [1, 2]}
    assert trace.final_output is None
    assert trace.last_output() is None
    assert trace.total_tokens() == 10
    assert trace.total_cost_usd() == Decimal("0.15") * 8 / 10**6 + Decimal("0.60") * 2 / 10**6
    assert trace.usage() == LLMUsage(8, 2, 10, trace.total_cost_usd())
    assert trace.duration_ms is not None
    assert 0 < trace.duration_ms < 5000
    assert trace.finished_at is not None
    assert before <= trace.started_at + datetime.timedelta(milliseconds=1)
    assert trace.started_at <= trace.finished_at <= after + datetime.timedelta(milliseconds=1)
    assert (len(trace.run_id), trace.waiting, trace.diagnostics) == (32, (), ())
    assert trace.raise_for_status() is trace
    assert repr(trace) == f"Trace(program_name='p', run_id={trace.run_id!r}, status='success')"


def test_steps_are_in_order_and_those_of_forks_before_their_join() -> None:
    assert [s.path for s in rich().steps] == [
        "a", "m", "c", "c/s", "p/b", "p/d", "p/i[0]/e", "p/i[1]/e", "p/i", "p", "l#1/g", "l#2/g", "l", "f", "h/k", "h",
    ]  # fmt: skip


def test_the_attributes_of_a_step() -> None:
    steps = {s.path: s for s in rich().steps}
    first, model, condition, skipped = steps["a"], steps["m"], steps["c"], steps["f"]
    assert isinstance(first, StepResult)
    assert (first.step_id, first.type, first.status, first.output, first.request) == (
        "a",
        "tool",
        StepStatus.SUCCESS,
        "ü",
        {"x": "ü"},
    )
    assert (first.error, first.retries, first.usage, first.attempts) == (None, 0, None, ())
    assert first.started_at is not None
    assert first.finished_at is not None
    assert first.started_at <= first.finished_at
    assert first.duration_ms is not None
    assert 0 <= first.duration_ms < 5000
    assert (model.output, model.retries, model.cost_source) == ("yes", 1, "prices")
    assert model.request == {"messages": [{"role": "user", "content": "is ü good?"}]}
    assert model.extra["model"] == "big"
    assert (model.attempts[0].error.kind, model.attempts[0].answer) == ("invalid_answer", "maybe")
    assert (condition.output, condition.branch) == ("then", "then")
    assert condition.references == {"$m.output": "yes", "$x": "ü"}  # why this path
    assert (skipped.status, skipped.output, skipped.error, skipped.error_kind) == (
        StepStatus.SKIPPED,
        "d",
        "ValueError: always",
        "tool",
    )
    assert skipped.extra["default"] is True
    assert [a.error.message for a in skipped.attempts] == ["always"]


def test_an_error_names_its_step() -> None:
    trace = failed()
    assert (
        trace.error
        == "Step 'p' failed: ZeroDivisionError: branch 'c': Step 'c' failed: ZeroDivisionError: "
        "division by zero"
    )
    assert [s.path for s in trace.steps] == ["a", "p/b", "p/c", "p", "a/undo"]
    with pytest.raises(RunFailed, match="p: failed: Step 'p' failed") as caught:
        trace.raise_for_status()
    assert caught.value.trace is trace


def test_raise_for_status_of_a_suspended_run() -> None:
    with pytest.raises(RunFailed, match="suspended"):
        suspended().raise_for_status()
    waits = vm().run_sync(program({"id": "w", "type": "wait", "seconds": 3}))
    with pytest.raises(RunFailed, match="run is waiting for wait"):
        waits.raise_for_status()


def test_what_is_handed_out_is_not_the_record() -> None:
    trace = vm().run_sync(
        program(step(args={"x": "$x"}), step("b", args={"x": "$a.output"})), {"x": {"k": [1]}}
    )
    digest = trace.digest
    again = Trace.from_json(trace.to_json())
    trace.final_output["k"].append("changed")
    trace.inputs["x"]["k"].append("changed")
    trace.steps[0].output["k"].append("changed")
    trace.steps[0].request["x"]["k"].append("changed")
    trace.recording.changed()
    assert trace.digest == digest == again.digest
    assert Trace.from_json(trace.to_json()).steps[1].request == {"x": {"k": [1]}}


def test_what_was_given_is_not_the_record() -> None:
    inputs: dict[str, Any] = {"x": {"k": [1]}}
    trace = vm().run_sync(program(step(args={"x": "$x"})), inputs)
    digest = trace.digest
    inputs["x"]["k"].append("changed")
    trace.recording.changed()
    assert (trace.digest, trace.final_output) == (digest, {"k": [1]})


# --- usage ----------------------------------------------------------------------------------------


def test_usage() -> None:
    assert str(LLMUsage(1, 2, 3)) == "tokens=3"
    assert str(LLMUsage(1, 2, 3, Decimal("0.5"))) == "tokens=3, cost=$0.500000"
    assert LLMUsage.from_dict({"prompt_tokens": 1, "completion_tokens": 2}) == LLMUsage(1, 2, 3)
    assert LLMUsage.from_dict({"total_tokens": 9, "cost_usd": None, "more": 1}) == LLMUsage(0, 0, 9)
    assert LLMUsage.from_dict(LLMUsage(1, 2, 3, Decimal("0.10")).to_dict()) == LLMUsage(
        1, 2, 3, Decimal("0.10")
    )
    assert LLMUsage(1, 1, 2, Decimal(1)) + LLMUsage(1, 1, 2, Decimal(2)) == LLMUsage(
        2, 2, 4, Decimal(3)
    )
    assert (LLMUsage(1, 1, 2, Decimal(1)) + LLMUsage(1, 1, 2)).cost_usd is None


# --- JSON -----------------------------------------------------------------------------------------

TRACES: dict[str, Callable[[], Trace]] = {
    "rich": rich,
    "refused": refused,
    "suspended": suspended,
    "failed": failed,
}


@pytest.mark.parametrize("kind", TRACES)
def test_json_there_and_back(kind: str) -> None:
    trace = TRACES[kind]()
    for text in (trace.to_json(), trace.to_json(indent=2), trace.to_json().encode()):
        back = Trace.from_json(text)
        assert (back.digest, back.seal) == (trace.digest, trace.seal)
        assert back.to_dict() == trace.to_dict()
        assert back.steps == trace.steps
        for name in ("status", "final_output", "error", "error_kind", "inputs", "run_id", "seed", "program_name", "program_digest", "started_at", "finished_at", "duration_ms", "diagnostics"):  # fmt: skip  # noqa: E501
            assert getattr(back, name) == getattr(trace, name), name
        assert list(back.waiting) == list(trace.waiting)
        assert (back.total_tokens(), back.total_cost_usd()) == (
            trace.total_tokens(),
            trace.total_cost_usd(),
        )
    assert Trace.from_dict(json.loads(trace.to_json())).digest == trace.digest


@functools.cache
def documents() -> dict[str, str]:
    return {kind: make().to_json() for kind, make in TRACES.items()}


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of everything inside a document."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield (*at, key)
        yield from leaves(item, (*at, key))


def inside(document: Any, at: tuple[Any, ...]) -> Any:
    return functools.reduce(lambda value, key: value[key], at, document)


def same(a: Any, b: Any) -> bool:
    """Equal as JSON text: 1 is not 1.0 and not true."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


def read_changed(document: Any) -> None:
    with pytest.raises(TraceError) as caught:
        Trace.from_json(json.dumps(document))
    assert isinstance(caught.value, VMError)
    assert "trace" in str(caught.value)


@pytest.mark.slow
@settings(max_examples=400, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(TRACES)), st.data())
def test_no_changed_value_is_accepted(kind: str, data: st.DataObject) -> None:
    document = json.loads(documents()[kind])
    at = data.draw(st.sampled_from(list(leaves(document))))
    box, old = inside(document, at[:-1]), inside(document, at)
    near = (
        [old + 1, float(old), str(old), -old]
        if type(old) is int
        else [old + "0", old[:-1], old.upper(), [old]]
        if type(old) is str
        else []
    )
    new = data.draw(st.sampled_from(near) | JSON if near else JSON)
    if not same(old, new):
        box[at[-1]] = new
        read_changed(document)


@pytest.mark.slow
@settings(max_examples=150, derandomize=True)
@given(st.sampled_from(sorted(TRACES)), st.data())
def test_nothing_can_be_taken_out_put_in_or_moved(kind: str, data: st.DataObject) -> None:
    document = json.loads(documents()[kind])
    before = copy.deepcopy(document)
    at = data.draw(
        st.sampled_from([(), *leaves(document)]).filter(
            lambda at: isinstance(inside(document, at), dict | list)
        )
    )
    box = inside(document, at)
    if isinstance(box, dict):
        if box and data.draw(st.booleans()):
            del box[data.draw(st.sampled_from(sorted(box)))]
        else:
            box[
                data.draw(st.sampled_from(["approved", "level", "usage", "error", "", "record "]))
            ] = data.draw(JSON)
    elif box and data.draw(st.booleans()):
        box.append(box.pop(data.draw(st.integers(0, len(box) - 1))))
    else:
        box.insert(data.draw(st.integers(0, len(box))), copy.deepcopy(box[0]) if box else 1)
    if not same(before, document):
        read_changed(document)


@pytest.mark.parametrize("kind", TRACES)
def test_every_cut_is_refused(kind: str) -> None:
    text = documents()[kind]
    for end in range(0, len(text), max(1, len(text) // 60)):
        with pytest.raises(TraceError):
            Trace.from_json(text[:end])
    document = json.loads(text)
    for count in range(len(document["records"])):
        read_changed({**document, "records": document["records"][:count]})


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("salt",), "zz"),
        (("salt",), None),
        (("salt",), 5),
        (("records", -1, "waiting"), 5),
        (("records", 1, "output"), "\ud800"),
        (("records", 1, "record"), "other"),
        (("records", 1, "level"), True),
        (("records", 0, "format"), 7),
        (("format",), 1.0),
        (("format",), 2),
        (("approved",), True),
        (("records", 1, "approved_by"), "boss"),
        (("records", 0, "started_ns"), 10**30),
        (("records",), {}),
        (("records",), [5, 5]),
    ],
)
def test_changes_that_once_got_through(at: tuple[Any, ...], value: Any) -> None:
    document = json.loads(documents()["rich"])
    inside(document, at[:-1])[at[-1]] = value
    read_changed(document)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "5",
        "{}",
        "{",
        b"\xff",
        '{"format": 1}',
        "[" * 100_000,
        '{"format": NaN}',
        '{"a": 1, "a": 2}',
    ],
)
def test_what_is_no_trace_is_refused(text: str | bytes) -> None:
    with pytest.raises(TraceError, match="not a trace"):
        Trace.from_json(text)


@pytest.mark.slow
@example("\0")
@given(st.text())
@settings(max_examples=50, derandomize=True)
def test_any_text_survives(text: str) -> None:
    trace = vm().run_sync(
        program(step(args={"x": ["$x", {"k": text.replace("$", "$$")}]})), {"x": text}
    )
    assert trace.final_output == [text, {"k": text}]
    assert Trace.from_json(trace.to_json()).final_output == trace.final_output


# --- the digest -----------------------------------------------------------------------------------


def test_the_digest_does_not_know_who_when_or_what_it_cost() -> None:
    first = rich(run_id="one", seed=1)
    second = rich(run_id="two", seed=2)
    assert first.digest == second.digest
    assert first.seal != second.seal
    assert re.fullmatch("[0-9a-f]{64}", first.digest)
    assert (
        suspended().digest == vm(tools={"t": lost}).run_sync(program(step()), run_id="other").digest
    )


async def lost() -> None:
    raise ConnectionResetError("gone")


def test_the_digest_does_not_know_the_price() -> None:
    one = program(llm())
    digests = {
        vm(prices=prices).run_sync(one).digest
        for prices in (None, {"scripted": (1, 2)}, {"scripted": (3, 4)})
    }
    costs = ScriptedLLM([Completion("yes", LLMUsage(1, 1, 2, Decimal(1)), "scripted", "stop")])
    assert ExecutionVM(costs).run_sync(one).digest in digests
    assert len(digests) == 1


def test_the_digest_does_not_know_the_effect_key() -> None:
    async def send(idempotency_key: str) -> str:
        return "sent"

    assert (
        len({vm(tools={"t": send}).run_sync(program(step()), run_id=name).digest for name in "abc"})
        == 1
    )


def answered(text: str = "yes", usage: LLMUsage | None = None, model: str = "big") -> Trace:
    return vm([Completion(text, usage or LLMUsage(1, 1, 2), model)]).run_sync(program(llm()))


def retried(times: int, message: str = "x") -> Trace:
    rest = [ValueError(message)] * times

    @tool(effect="read")
    async def flaky() -> str:
        if rest:
            raise rest.pop()
        return "ok"

    return vm(tools={"t": flaky}).run_sync(program(step(max_retries=5, retry=NOW)))


DIFFERENT: dict[str, tuple[Callable[[], Trace], Callable[[], Trace]]] = {
    "output": (lambda: answered("yes"), lambda: answered("no")),
    "output's type": (
        lambda: vm(tools={"t": lambda: 1}).run_sync(program(step())),
        lambda: vm(tools={"t": lambda: 1.0}).run_sync(program(step())),
    ),
    "order of keys": (
        lambda: vm(tools={"t": lambda: {"a": 1, "b": 2}}).run_sync(program(step())),
        lambda: vm(tools={"t": lambda: {"b": 2, "a": 1}}).run_sync(program(step())),
    ),
    "usage": (answered, lambda: answered(usage=LLMUsage(1, 2, 3))),
    "the model that answered": (answered, lambda: answered(model="small")),
    "attempts": (lambda: retried(1), lambda: retried(2)),
    "none or one attempt": (lambda: retried(0), lambda: retried(1)),
    "errors of attempts": (lambda: retried(1, "x"), lambda: retried(1, "y")),
    "inputs": (
        lambda: vm().run_sync(program(step(args={"x": "$x"})), {"x": 1}),
        lambda: vm().run_sync(program(step(args={"x": "$x"})), {"x": 2}),
    ),
    "request": (
        lambda: vm(tools={"t": lambda x: 1}).run_sync(program(step(args={"x": 1}))),
        lambda: vm(tools={"t": lambda x: 1}).run_sync(program(step(args={"x": 2}))),
    ),
    "path": (lambda: vm().run_sync(program(step("a"))), lambda: vm().run_sync(program(step("b")))),
    "status": (
        lambda: vm().run_sync(program(step())),
        lambda: vm(tools={"t": lost}).run_sync(program(step())),
    ),
    "which branch failed": (
        lambda: vm(tools={"t": echo, "f": lambda: 1 / 0}).run_sync(
            program(parallel(step("x", "f"), step("y")))
        ),
        lambda: vm(tools={"t": echo, "f": lambda: 1 / 0}).run_sync(
            program(parallel(step("x"), step("y", "f")))
        ),
    ),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_the_digest_knows(what: str) -> None:
    first, second = DIFFERENT[what]
    assert first().digest == first().digest
    assert first().digest != second().digest


@pytest.mark.parametrize(
    "turns", [[0] * 6, [9, 0, 3, 6, 1, 2], [0, 9, 0, 9, 0, 9], [5, 4, 3, 2, 1, 0]], ids=str
)
def test_the_digest_is_one_under_any_order_of_completion(turns: list[int]) -> None:
    assert forked(turns) == forked([1] * 6)


def forked(turns: list[int]) -> str:
    async def work(x: int) -> int:
        for _ in range(turns[x]):
            await asyncio.sleep(0)
        if x == 3:
            raise ValueError("three")
        return x

    each = step("i", args={"x": "$item"}, on_error="skip")
    items = {"id": "m", "type": "map", "over": [3, 4, 5], "steps": [each]}
    branch = [step("b0", args={"x": 0}), step("b1", args={"x": 1})]
    trace = vm(tools={"t": work}).run_sync(
        program(parallel(branch, step("b2", args={"x": 2}), items))
    )
    assert trace.ok, trace.error
    return trace.digest


@pytest.mark.slow
@settings(max_examples=40, derandomize=True)
@given(st.lists(st.integers(0, 6), min_size=6, max_size=6))
def test_the_digest_is_one_under_random_orders_of_completion(turns: list[int]) -> None:
    assert forked(turns) == forked([0] * 6)


def test_the_digest_of_a_fixed_run_does_not_change() -> None:
    """A digest written down years ago must still verify: what it is made of is a format."""
    trace = vm(tools={"t": lambda x: {"n": x}}).run_sync(
        program(step(args={"x": "$x"})), {"x": "ü"}
    )
    assert trace.digest == FIXED
    assert rich().digest == FIXED_RICH


FIXED = "e0dae5bb3aa2e844eff135129fe8c80e0a96f2a308405ab4b2fcd7fb6b182096"
FIXED_RICH = "bbb7b92d3fcb0f41127202499dd662b0cadc4f1ca69c1f551b5e00a7cf204c92"


# --- the seal -------------------------------------------------------------------------------------


def test_the_seal_holds_values_by_salted_hash_only() -> None:
    """With the salt gone no value can be guessed from the chain: under another salt the same run
    has another seal.
    """
    trace = rich(run_id="one", seed=1)
    document = trace.to_dict()
    other = {**document, "salt": "00" * 16}
    with pytest.raises(TraceError, match="its seal does not fit"):
        Trace.from_dict(other)


def test_the_seal_covers_times_identity_seed_and_price() -> None:
    document = json.loads(rich(run_id="one").to_json())
    for at, value in [
        (("records", 0, "run_id"), "two"),
        (("records", 0, "seed"), 5),
        (("records", 0, "started_ns"), document["records"][0]["started_ns"] + 1),
        (("records", 1, "finished_ns"), document["records"][1]["finished_ns"] + 1),
        (("records", 2, "usage", "cost_usd"), "1"),
        (("records", 2, "extra", "cost_source"), "adapter"),
        (("records", 2, "attempts", 0, "started_ns"), 1),
    ]:
        changed = copy.deepcopy(document)
        inside(changed, at[:-1])[at[-1]] = value
        with pytest.raises(
            TraceError, match="the trace was changed: its seal does not fit its records"
        ):
            Trace.from_dict(changed)


@pytest.mark.parametrize("kind", sorted(TRACES))
def test_a_trace_is_read_from_its_summary(kind: str) -> None:
    trace = TRACES[kind]()
    told = {**trace.summary(), "trace": trace.to_dict()}
    assert Trace.from_json(json.dumps(told)).digest == trace.digest
    assert told["status"] == trace.status.value
    assert told["output"] == trace.final_output
    for name in ("status", "output", "tokens", "digest"):
        with pytest.raises(TraceError, match="the summary was changed"):
            Trace.from_dict({**told, name: "another"})


def test_a_digest_can_be_kept_as_the_run_goes() -> None:
    """Record by record, of a fork with nothing but the heads of its frames."""
    made = program(
        step("a", "get"),
        {
            "id": "m",
            "type": "map",
            "over": "$items",
            "as": "item",
            "steps": [
                step("b", "get"),
                {"id": "w", "type": "wait", "event": "e", "when": "$item > 2"},
            ],
        },
    )
    trace = ExecutionVM(tools={"get": lambda: 1}).run_sync(made, {"items": [1, 2]})

    def head_of(records: list[Record]) -> bytes:
        chain = Chain()
        for record in records:
            add(chain, record)
        return chain.head

    def add(chain: Chain, record: Record) -> None:
        if record.children is not None:
            heads = [head_of(child) for child in record.children]
            alone = {key: value for key, value in record.extra.items() if key != "children"}
            chain.add(record._replace(extra=alone), heads)
        else:
            chain.add(record)

    chain = Chain.of_run(trace.program_digest, trace.inputs)
    for record in trace.recording.full():
        add(chain, record)
    assert chain.ended(trace.status, trace.output, trace.error, trace.waiting) == trace.digest
    assert chain.ended(trace.status, None, trace.error, trace.waiting) != trace.digest
