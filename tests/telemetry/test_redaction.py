"""What is hidden of values before they leave the process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nano_vm import VMError
from nano_vm.telemetry.redaction import MAX_CONTENT, REDACTED, Redaction, content

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"password": "x", "a": 1}, {"password": REDACTED, "a": 1}),
        ({"Pass-Word": {"deep": 1}}, {"Pass-Word": REDACTED}),
        ([{"PASS WORD": 1}, {"pass_word": 2}], [{"PASS WORD": REDACTED}, {"pass_word": REDACTED}]),
        ("call 030-1234567 now", f"call {REDACTED} now"),
        ({"030-1234567": 1}, {REDACTED: 1}),
        ('{"password": "x", "n": [1, 2]}', '{"password": "[redacted]", "n": [1, 2]}'),
        ('say {"password": "x"}', 'say {"password": "x"}'),
        ("{not json", "{not json"),
        (7, 7),
        (None, None),
    ],
)
def test_fields_and_patterns_are_hidden_wherever_they_stand(value: Any, shown: Any) -> None:
    before = json.dumps(value)
    assert Redaction(fields=["password"], patterns=[r"\d{3}-\d{7}"])(value) == shown
    assert json.dumps(value) == before


@pytest.mark.slow
@given(VALUES)
def test_what_has_nothing_to_hide_is_as_it_was(value: Any) -> None:
    assert Redaction()(value) == value


@pytest.mark.slow
@given(VALUES, st.text(alphabet="XYZ", min_size=6, max_size=6))
def test_a_secret_never_leaves(value: Any, secret: str) -> None:
    redaction = Redaction(fields=["secret"], patterns=[r"[XYZ]{6}"])
    nested = {"a": [value, {"secret": secret, "text": f"it is {secret}!"}], f"k{secret}": value}
    nested["json"] = json.dumps(nested)
    assert secret not in content(nested, redaction)


def test_nesting_has_an_end() -> None:
    deep: Any = "secret 1"
    for _ in range(500):
        deep = [deep]
    assert "secret" not in str(Redaction(patterns=["secret"])(deep))
    assert Redaction(fields=["x"])("[" * 100_000) == "[" * 100_000


def test_a_function_has_the_last_word() -> None:
    seen: list[Any] = []

    def hide(value: Any) -> Any:
        seen.append(value)
        return {"kept": True}

    assert Redaction(fields=["a"], function=hide)({"a": 1}) == {"kept": True}
    assert seen == [{"a": REDACTED}]
    assert Redaction(function=lambda value: 1 / 0)({"a": 1}) == REDACTED


def test_content_is_text_and_bounded() -> None:
    assert content("plain", None) == "plain"
    assert content({"a": [1, None]}, None) == '{"a": [1, null]}'
    assert len(content("x" * 10**6, None)) == MAX_CONTENT + 3
    assert content("\ud800", None) == "\\ud800"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": "password"}, r"fields is a list, not 'password'; write fields=\['password'\]"),
        ({"patterns": "x"}, "patterns is a list"),
        ({"fields": 7}, "fields is a list, not 7"),
        ({"patterns": ["("]}, r"'\(' is no regular expression: missing \)"),
        ({"patterns": [7]}, "7 is no regular expression"),
        ({"patterns": [b"x"]}, "is a pattern of bytes"),
        ({"function": 7}, "function is called with a value, and 7 cannot be"),
        ({"fields": [7]}, "a field's name is a string, not 7"),
    ],
)
def test_what_cannot_redact_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(VMError, match=message):
        Redaction(**options)
