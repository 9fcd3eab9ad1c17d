"""Answers: labels and JSON as models write them. The table is ``answers.yaml``; what holds for
every text is a property.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from nano_vm.errors import InvalidAnswer
from nano_vm.language.answers import (
    DECORATION,
    Spoken,
    allowed_answer,
    begins_another,
    json_in,
    without_reasoning,
)

TABLE = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text(encoding="utf-8"))
LABELS = [
    (tuple(case["allowed"]), text, label)
    for case in TABLE["labels"]
    for label, texts in case["texts"].items()
    for text in texts
]
JSON = [(text, case["value"]) for case in TABLE["json"] for text in case["texts"]]


def label_of(text: str, allowed: tuple[str, ...]) -> str:
    try:
        return allowed_answer(text, allowed)
    except InvalidAnswer:
        return "none"


@pytest.mark.parametrize(("allowed", "text", "label"), LABELS)
def test_label(allowed: tuple[str, ...], text: str, label: str) -> None:
    assert label_of(text, allowed) == label


@pytest.mark.parametrize(("text", "value"), JSON)
def test_json(text: str, value: Any) -> None:
    if value == "none":
        with pytest.raises(InvalidAnswer, match="is not JSON"):
            json_in(text)
    else:
        assert json_in(text) == value


def test_why_it_is_no_json() -> None:
    for text, reason in {
        "no": "Expecting value",
        '{"a": 1} or {"b": 2}': "it holds more than one JSON value",
        'so {"a": 1,}': "Illegal trailing comma|Expecting property name",
        'so {"a": [1': "it ends inside an object or array",
        '{"a": 1, "a": 2}': "a key stands twice in one object",
    }.items():
        with pytest.raises(InvalidAnswer, match=reason):
            json_in(text)


@pytest.mark.parametrize(
    ("label", "allowed", "begins"),
    [
        ("no", ("yes", "no"), False),
        ("no", ("no", "not sure"), True),
        ("No", ("No", "not sure"), True),
        ("A", ("A", "A*"), True),
        ("A*", ("A", "A*"), False),
        ("not sure", ("no", "not sure"), False),
    ],
)
def test_a_label_that_begins_another(label: str, allowed: tuple[str, ...], begins: bool) -> None:
    assert begins_another(label, allowed) == begins


labels = st.lists(
    st.text(min_size=1, max_size=8).filter(str.strip),
    min_size=1,
    max_size=5,
    unique_by=str.casefold,
)
decoration = st.text(sorted(DECORATION | set(" \n\t")), max_size=4)


@pytest.mark.slow
@given(labels)
def test_every_label_is_itself(allowed: list[str]) -> None:
    for label in allowed:
        assert allowed_answer(label, tuple(allowed)) == label


@pytest.mark.slow
@given(labels, st.data())
def test_a_decorated_label_is_it_or_nothing(allowed: list[str], data: st.DataObject) -> None:
    """Whatever is written around a label without such characters, it never becomes another one."""
    plain = [label for label in allowed if not set(label) & DECORATION and label.strip() == label]
    if not plain:
        return
    label = data.draw(st.sampled_from(plain))
    text = data.draw(decoration) + label + data.draw(decoration)
    assert label_of(text, tuple(plain)) in (label, "none")


@pytest.mark.slow
@given(labels, st.text(max_size=20))
def test_an_answer_holds_nothing_but_its_label_and_decoration(
    allowed: list[str], text: str
) -> None:
    label = label_of(text, tuple(allowed))
    if label == "none" or text.startswith(("```", "~~~")):
        return
    kept = [c for c in text if not c.isspace() and c not in DECORATION]
    meant = [c for c in label if not c.isspace() and c not in DECORATION]
    assert "".join(kept).casefold() == "".join(meant).casefold()


@pytest.mark.slow
@given(st.text(max_size=20), st.sampled_from([("yes", "no"), ("A", "A*"), ("...", "*")]))
def test_the_same_answer_twice(text: str, allowed: tuple[str, ...]) -> None:
    label = label_of(text, allowed)
    assert label == "none" or allowed_answer(label, allowed) == label


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
containers = values.filter(lambda value: isinstance(value, (dict, list)))
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}[]`~"), max_size=30)


@pytest.mark.slow
@given(values, st.sampled_from([None, 2]))
def test_json_alone_and_fenced(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    for form in (text, f"\n{text} ", f"```json\n{text}\n```", f"```\n{text}", f"~~~\n{text}\n~~~"):
        assert json_in(form) == value


@pytest.mark.slow
@given(containers, words, words)
def test_one_object_with_words_around_it(value: Any, before: str, after: str) -> None:
    text = json.dumps(value)
    # in quotes the whole is one value, a text
    assume(not (before.lstrip().startswith('"') and after.rstrip().endswith('"')))
    assert json_in(f"{before}{text}{after}") == value
    assert json_in(f"{before}\n```json\n{text}\n```\n{after}") == value


@pytest.mark.slow
@given(containers, containers, words)
def test_two_values_are_none(one: Any, two: Any, between: str) -> None:
    with pytest.raises(InvalidAnswer):
        json_in(f"{json.dumps(one)} {between} {json.dumps(two)}")


@pytest.mark.slow
@given(containers, st.data())
def test_a_part_of_a_broken_value_is_none(value: Any, data: st.DataObject) -> None:
    """However far an object or array got before it was cut, nothing inside of it passes for the
    answer.
    """
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    for form in (cut, f"So: {cut}", f"```json\n{cut}"):
        with pytest.raises(InvalidAnswer):
            json_in(form)


@given(st.text(st.sampled_from('{}[]",: \n`1a'), max_size=40))
def test_any_text_is_one_value_or_invalid(text: str) -> None:
    try:
        value = json_in(text)
    except InvalidAnswer:
        return
    assert json_in(json.dumps(value)) == value


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True])
@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", "think>", "a", " ", "\n", "<"])
    )
)
@example(["<think>", "</think>", " ", "<think>"])  # white space between two thoughts
def test_what_is_shown_of_a_stream_is_the_answer(cut: bool, pieces: list[str]) -> None:
    """However the text is cut into pieces, reasoning is held back, and only that."""
    spoken = Spoken()
    shown = [spoken.piece(piece) for piece in pieces]
    rest = spoken.rest(cut=cut)
    answer, _ = without_reasoning("".join(pieces), cut=cut, constrained=False)
    assert "".join([*shown, rest]) == answer
    whole = Spoken()
    assert whole.piece("".join(pieces)) + whole.rest(cut=cut) == answer


@pytest.mark.slow
def test_long_reasoning_streams_in_linear_time() -> None:
    spoken = Spoken()
    begin = time.process_time()
    pieces = ["<think>", *(["so it is "] * 200_000), "</think>", "yes"]
    assert "".join(map(spoken.piece, pieces)) == "yes"
    assert time.process_time() - begin < 5  # 0.15 s


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        '"',
        " .",
        "[",
        "{",
        "[x]",
        '{"',
        "```\n",
        '"\\',
        " ",
        "`",
        "\u200b ",
        "]",
        '[{"a":',
        "~~~ \n",
    ],
)
def test_time_is_linear(unit: str) -> None:
    """300 kB of what each pass takes off, skips or looks for: a third of a second at the most
    here; quadratic would be an hour.
    """
    text = unit * (300_000 // len(unit))
    begin = time.process_time()
    for answer in (text, text + "yes", "yes" + text):
        label_of(answer, ("yes", "no"))
        try:
            json_in(answer)
        except InvalidAnswer:
            pass
    assert time.process_time() - begin < 6
