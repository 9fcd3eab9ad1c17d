"""Messages: their form, and what every pass knows of conversations that are referred to, parts and
pictures.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nano_vm import ExecutionVM, Program
from nano_vm.adapters._chat import checked_messages
from nano_vm.errors import ModelError
from nano_vm.language.messages import (
    ROLES,
    SCHEMA,
    fault_of,
    has_pictures,
    joined,
    text_of,
    url_fault,
)
from nano_vm.language.schemas import schema_check
from nano_vm.machine.ledger import token_bound
from nano_vm.testing import RecordedLLM, ScriptedLLM, explore
from nano_vm.values import copied

TURNS = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "so"},
]
PICTURE = {"type": "image_url", "image_url": {"url": "https://a.test/b.png", "detail": "low"}}

words = st.text(max_size=5)
parts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, words),
    st.just(PICTURE),
    st.just({"type": "image_url", "image_url": {"url": "data:image/webp;base64,AAAA"}}),
)
good = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(ROLES),
    words | st.lists(parts.filter(lambda part: part["type"] == "text"), min_size=1, max_size=3),
) | st.builds(
    lambda content: {"role": "user", "content": content}, st.lists(parts, min_size=1, max_size=3)
)
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | words
    | st.sampled_from(["user", "text", "image_url", "http://a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "image_url", "url", "detail", "x"]),
            inner,
        )
    ),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.lists(good, min_size=1, max_size=4))
def test_what_can_be_sent(messages: list[Any]) -> None:
    assert fault_of(messages) is None
    before = copied(messages)
    texts = [text_of(message) for message in messages]
    assert token_bound(messages) >= sum(len(text.encode()) for text in texts)
    if not has_pictures(messages):
        assert [message["content"] for message in joined(messages)] == texts
    assert messages == before


@pytest.mark.slow
@given(junk)
def test_whatever_it_is_it_has_a_fault_or_can_be_sent(messages: Any) -> None:
    fault = fault_of(messages)
    if fault is None:
        assert checked_messages(messages) == messages
    else:
        with pytest.raises(ModelError, match=r"^messages"):
            checked_messages(messages)


@pytest.mark.slow
@given(junk)
def test_what_the_schema_lets_through_can_be_sent(messages: Any) -> None:
    if schema_check(SCHEMA)(messages) is None:
        assert fault_of(messages) is None


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://a/b.png", True),
        ("https://a.test/b?c=d#e", True),
        ("data:image/svg+xml;base64,PHN2Zz4=", True),
        ("data:image/png;base64,", False),
        ("data:image/png;base64,A A", False),
        ("data:text/html;base64,AAAA", False),
        ("data:image/png,raw", False),
        ("file:///etc/passwd", False),
        ("javascript:alert(1)", False),
        ("ftp://a/b", False),
        ("/tmp/b.png", False),
        ("http://", False),
        ("http://a b", False),
        ("http://a\n", False),
        ("", False),
        (None, False),
    ],
)
def test_addresses_of_pictures(url: Any, good: bool) -> None:
    assert (url_fault(url) is None) == good


def conversing(**fields: Any) -> Program:
    step = {
        "id": "a",
        "type": "llm",
        "messages": [{"role": "system", "content": "Be kind"}, "$history"],
    }
    return Program.from_dict({"steps": [{**step, **fields}]})


def test_what_an_untrusted_conversation_makes_a_model_say_is_untrusted() -> None:
    pay = {"id": "pay", "type": "tool", "tool": "pay", "args": {"to": "$a.output"}}
    ask = {"id": "a", "type": "llm", "messages": "$history"}
    policy = {"inputs": {"history": "untrusted"}, "tools": {"pay": {"args": {"to": "trusted"}}}}
    parts = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "$history"}}]}]
    for messages in (
        "$history",
        ["$history"],
        ["$history", {"role": "user", "content": "x"}],
        parts,
    ):
        program = Program.from_dict({"steps": [{**ask, "messages": messages}, pay]})
        vm = ExecutionVM(ScriptedLLM({"": "x"}), {"pay": lambda to: to}, policy=policy)
        assert [d.code for d in vm.check(program) if d.severity == "error"] == ["V052"], messages
    labels = {**ask, "allowed_outputs": ["ann", "bob"]}
    vm = ExecutionVM(ScriptedLLM(["ann"]), {"pay": lambda to: to}, policy=policy)
    assert (
        vm.run_sync(Program.from_dict({"steps": [labels, pay]}), {"history": TURNS}).final_output
        == "ann"
    )


def test_exploring_makes_up_a_conversation() -> None:
    requests = []

    def seen(run: Any) -> bool:
        requests.extend(step.request for step in run.trace.steps if step.request is not None)
        return True

    assert explore(conversing(), errors=False, properties={"seen": seen}).runs > 0
    assert any(len(request["messages"]) > 1 for request in requests)
    assert [fault_of(request["messages"]) for request in requests] == [None] * len(requests)


def test_an_adapter_cannot_change_what_it_was_shown() -> None:
    class Changing(ScriptedLLM):
        async def complete(self, messages: Any, **kwargs: Any) -> Any:
            for message in messages:
                if isinstance(message["content"], list):
                    message["content"][0]["text"] = "changed"
                message["content"] = "changed"
            return await super().complete(messages, **kwargs)

    history = [{"role": "user", "content": [{"type": "text", "text": "look"}, PICTURE]}]
    program = Program.from_dict(
        {
            "steps": [
                {"id": "a", "type": "llm", "messages": "$history"},
                {"id": "b", "type": "set", "values": {"seen": "$history"}},
            ]
        }
    )
    trace = ExecutionVM(Changing({"": "ok"})).run_sync(program, {"history": history})
    assert trace.final_output == {"seen": history}
    assert trace.steps[0].request == {"messages": history}


def test_a_recording_of_pictures(tmp_path: Any) -> None:
    history = [{"role": "user", "content": [{"type": "text", "text": "look"}, PICTURE]}]
    path = tmp_path / "r.jsonl"
    program = Program.from_dict({"steps": [{"id": "a", "type": "llm", "messages": "$history"}]})
    assert (
        ExecutionVM(RecordedLLM(path, record=ScriptedLLM(["a tree"])))
        .run_sync(program, {"history": history})
        .ok
    )
    trace = ExecutionVM(RecordedLLM(path)).run_sync(program, {"history": history})
    assert trace.final_output == "a tree"
    trace = ExecutionVM(RecordedLLM(path)).run_sync(program, {"history": TURNS})
    assert "not recorded: 'so'" in (trace.error or "")


PDF = "data:application/pdf;base64,JVBERg=="


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ({"file_data": PDF}, None),
        ({"file_data": PDF, "filename": "a.pdf"}, None),
        ({"file_data": "data:text/plain;base64,YQ=="}, None),
        ({"file_data": "https://a.test/b.pdf"}, ".file.file_data: data:application/pdf;base64"),
        ({"file_data": "data:application/zip;base64,YQ=="}, ".file.file_data: data:application"),
        ({"file_data": PDF, "filename": 3}, ".file.filename: a string, not 3"),
        ({"filename": "a.pdf"}, ".file: a file is {file_data: ..., filename: ...}"),
        ({"file_data": PDF, "file_id": "x"}, ".file: a file is {file_data: ..., filename: ...}"),
        ("a.pdf", ".file: a file is {file_data: ..., filename: ...}"),
    ],
)
def test_files(file: Any, fault: str | None) -> None:
    found = fault_of([{"role": "user", "content": [{"type": "file", "file": file}]}])
    assert found is None if fault is None else str(found).startswith(f"[0].content[0]{fault}")


def test_a_file_reaches_an_adapter_that_takes_files_and_no_other() -> None:
    seen: list[Any] = []

    class Reader:
        files = True

        async def complete(self, messages: Any, **kwargs: Any) -> str:
            seen.extend(messages)
            return "yes"

    class Blind:
        images = True

        async def complete(self, messages: Any, **kwargs: Any) -> str:
            raise AssertionError("never called")

    part = {"type": "file", "file": {"file_data": "$pdf", "filename": "${name}.pdf"}}
    program = Program.from_dict(
        {"steps": [{"id": "s", "type": "llm", "messages": [{"role": "user", "content": [part]}]}]}
    )
    inputs = {"pdf": PDF, "name": "bill"}
    assert ExecutionVM(Reader()).run_sync(program, inputs).ok
    assert seen[0]["content"] == [
        {"type": "file", "file": {"file_data": PDF, "filename": "bill.pdf"}}
    ]
    assert [d.code for d in ExecutionVM(Blind()).check(program)] == ["V032"]
    history = Program.from_dict({"steps": [{"id": "s", "type": "llm", "messages": "$h"}]})
    told = {"h": [{"role": "user", "content": [{"type": "file", "file": {"file_data": PDF}}]}]}
    trace = ExecutionVM(Blind()).run_sync(history, told)
    assert "takes no files" in str(trace.error)
    trace = ExecutionVM(Reader()).run_sync(program, {**inputs, "pdf": "file:///etc/passwd"})
    assert "file_data" in str(trace.error)
