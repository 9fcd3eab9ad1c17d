"""A record has one JSON form, a recording is filled, and a trace only shows it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from build import parallel, program, step
from hypothesis import given, settings
from hypothesis import strategies as st

from nano_vm import ExecutionVM, Trace, tool
from nano_vm.records.record import (
    BRIEF,
    Attempt,
    Record,
    StepError,
    StepName,
    flattened,
    full,
)
from nano_vm.records.status import StepStatus, TraceStatus
from nano_vm.records.usage import MAX_COUNT, LLMUsage

texts = st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
times = st.integers(0, 2**62)
counts = st.integers(0, 10**9)
usages = st.builds(
    LLMUsage, counts, counts, counts, st.none() | st.decimals(0, 100, places=6).map(Decimal)
)
errors = st.builds(StepError, texts, texts, texts, bases=st.lists(texts, max_size=3).map(tuple))
attempts = st.builds(Attempt, errors, times, times, st.none() | usages, st.none() | texts)
records = st.builds(
    Record,
    st.builds(StepName, texts, texts, st.just(())),
    texts,
    st.sampled_from(StepStatus),
    values,
    st.none() | errors,
    st.none() | st.dictionaries(texts, values, max_size=3),
    times,
    times,
    st.none() | st.lists(attempts, min_size=1, max_size=3).map(tuple),
    st.none() | usages,
    st.none() | st.dictionaries(texts.filter(lambda key: key != "children"), values, max_size=3),
)


@pytest.mark.parametrize("name", LLMUsage().__slots__)
def test_a_usage_is_plausible_where_each_of_its_counts_is(name: str) -> None:
    if name == "cost_usd":  # no count
        assert LLMUsage(cost_usd=Decimal(10**12)).plausible
        return
    for count in (0, 1, MAX_COUNT):
        assert LLMUsage(**{name: count}).plausible
    for none in (-1, MAX_COUNT + 1, True, 1.0, "1", None, Decimal(1)):
        assert not LLMUsage(**{name: none}).plausible


@pytest.mark.slow
@settings(max_examples=200)
@given(records, st.integers(0, 10**18))
def test_the_json_form_says_all(record: Record, base: int) -> None:
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    later = Record.from_dict(record.to_dict(base))
    assert (later.started_ns, later.finished_ns) == (
        record.started_ns + base,
        record.finished_ns + base,
    )
    assert later.attempts == (record.dated_attempts(base) or None)


def run(*steps: Any, **inputs: Any) -> Trace:
    vm = ExecutionVM(tools={"t": lambda **given: given or 1})
    return vm.run_sync(program(*steps), inputs)


def test_what_a_machine_appends_is_read_as_records() -> None:
    trace = run(step("a", "t", args={"x": "$x"}), parallel(step("b", "t"), step("c", "t")), x=2)
    recording = trace.recording
    assert len(recording.records[0]) == BRIEF
    first, fork = recording.full()
    assert (first.path, first.asked(), first.output) == ("a", {"x": 2}, {"x": 2})
    assert fork.children is not None
    assert [record.path for child in fork.children for record in child] == ["p/b", "p/c"]
    assert [record.path for record in flattened([first, fork])] == ["a", "p/b", "p/c", "p"]
    assert full(first, ()) is first


@pytest.mark.parametrize(
    "name", ["status", "output", "error", "inputs", "waiting", "steps", "digest", "run_id", "more"]
)
def test_a_trace_is_read_only(name: str) -> None:
    trace = run(step("a", "t"))
    with pytest.raises(AttributeError):
        setattr(trace, name, None)


def test_what_was_looked_at_is_forgotten_where_the_run_went_on() -> None:
    trace, other = run(step("a", "t")), run(step("a", "t"), step("b", "t"))
    before = len(trace.steps), trace.digest
    trace.recording.become(Trace.from_json(other.to_json()).recording)
    assert (len(trace.steps), trace.run_id, trace.digest) == (2, other.run_id, other.digest)
    assert trace.digest not in before
    trace.recording.status = TraceStatus.CANCELLED
    trace.recording.changed()
    assert trace.digest != other.digest


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (MemoryError(), "Step 'a' failed: MemoryError"),
        (MemoryError("no room"), "Step 'a' failed: MemoryError: no room"),
        (ConnectionResetError(), "ConnectionResetError: whether 't' took effect is not known"),
    ],
)
def test_an_error_without_a_message_is_named_by_its_class(raised: Exception, error: str) -> None:
    @tool(effect="write")
    def t() -> None:
        raise raised

    trace = ExecutionVM(tools={"t": t}).run_sync(program(step("a", "t")))
    found = trace.error or trace.steps[0].error or ""
    assert found.endswith(error)
    assert found.count(type(raised).__name__) == 1
