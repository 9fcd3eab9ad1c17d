"""What a person decides about is shown whole, and no two values look the same."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from nano_vm.values import canonical
from nano_vm.visible import HIDDEN, exact, lines, name, written

INVISIBLE = (
    "\u3164\u115f\u1160\uffa0\u034f\u2800\u200b\u200c\u200d\u2060\ufeff\u00ad\u00a0\u2007\u202f\u3000\u061c\u200e"
    "\u200f\u202a\u202e\u2066\u2069\ufe00\ufe0f\U000e0100\U000e0041\u180e\u17b4\u2028\x00\x7f\x85\ud800\U0001d173"
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
# texts that are apart by little: what two values that look alike are made of
NEAR = st.lists(
    st.sampled_from(
        [
            *'aA \\"{}sx2',
            "spaces",
            "\u0430",
            "\u0301",
            "\u00e9",
            "e",
            *INVISIBLE,
            "\n",
            "ﬁ",
            "ａ",
            "я",
        ]
    )
)


def seen(value: Any) -> list[str]:
    """The lines of a value, without what could be taken for something else: other scripts stand in
    ASCII below.
    """
    shown = list(lines("  x: ", value))
    return shown[1:] or shown


@pytest.mark.parametrize("char", INVISIBLE, ids=lambda char: f"{ord(char):04x}")
def test_what_is_invisible_is_escaped(char: str) -> None:
    for value in (f"DE89{char}", char, f"{char}{char}DE", {f"to{char}": 1}, [f"a{char}b"]):
        (line,) = lines("  x: ", value)
        assert char not in line
        assert f"{ord(char):x}" in line
        assert line != next(lines("  x: ", "DE89"))


@pytest.mark.slow
def test_every_ignorable_and_blank_character_is_hidden() -> None:
    """By the character database of this Python; Default_Ignorable_Code_Point itself is not in
    it.
    """
    unseen = [
        c
        for c in map(chr, range(0x110000))
        if unicodedata.category(c) in ("Zs", "Zl", "Zp", "Cc", "Cs") and c != " "
    ]
    assert [c for c in unseen if not HIDDEN.match(c)] == []
    shown = [
        c
        for c in map(chr, range(0x20, 0x3000))
        if unicodedata.category(c) in ("Cf", "Cn", "Co") and c in written(c)
    ]
    assert shown == []


@pytest.mark.slow
@given(VALUES, VALUES)
@example("p\u0430y", "pay")
@example("\u0441\u043e", "co")
@example("e\u0301", "\u00e9")
@example(" " * 9, "\\{9 spaces}")
@example("a  b", "a b")
@example({"a": 1, "b": 2}, {"b": 2, "a": 1})
@example(1, 1.0)
@example(True, "true")
@example([], {})
def test_two_values_never_look_the_same(a: Any, b: Any) -> None:
    assume(canonical(a) != canonical(b) if "\ud800" not in f"{a}{b}" else a != b)
    assert seen(a) != seen(b)


@pytest.mark.slow
@given(NEAR, NEAR)
def test_nor_do_two_texts_that_are_nearly_the_same(a: list[str], b: list[str]) -> None:
    assume("".join(a) != "".join(b))
    assert seen("".join(a)) != seen("".join(b))


@pytest.mark.slow
@given(st.text() | NEAR.map("".join))
def test_all_of_a_text_can_be_read_back(text: str) -> None:
    """The exact form, or the only one, says which text it is."""
    line = exact(text) or written(text)

    def char(escape: re.Match[str]) -> str:
        body = escape[0]
        if body[1] == "{":
            count, _, what = body[2:-1].partition(" ")
            unit = " " if what == "spaces" else UNIT.sub(char, what.removeprefix("times "))
            return unit * int(count)
        return {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}.get(body[1]) or chr(
            int(body[2:], 16)
        )

    assert UNIT.sub(char, line[1:-1]) == text


UNIT = re.compile(
    r'\\\{\d+ (?:spaces|times \\(?:[nrt"\\]|x..|u.{4}|U.{8}))\}|\\[nrt"\\]|\\x..|\\u.{4}|\\U.{8}'
)


@pytest.mark.slow
@given(st.text() | NEAR.map("".join))
def test_a_line_is_one_line_of_what_is_seen(text: str) -> None:
    for line in lines("  x: ", {text: text}):
        assert not HIDDEN.search(line)
        assert "  " not in line[4:]


@pytest.mark.parametrize(
    ("value", "line", "more"),
    [
        ("ACME GmbH", '"ACME GmbH"', None),
        ("Müller, Łódź, 5 €", '"Müller, Łódź, 5 €"', None),
        ("a" + " " * 2500 + "EVIL", r'"a\{2500 spaces}EVIL"', None),
        ("p\u0430ypal", r'"p\u0430ypal"', None),  # one Cyrillic letter in a Latin word
        ("\u0441\u043e\u0441\u043e", '"сосо"', r'"\u0441\u043e\u0441\u043e"'),  # a word of them
        ("日本語 CPUの数", '"日本語 CPUの数"', r'"\u65e5\u672c\u8a9e CPU\u306e\u6570"'),
        ("हिन्दी", '"हिन्दी"', r'"\u0939\u093f\u0928\u094d\u0926\u0940"'),
        ("שלום", '"שלום"', r'"\u05e9\u05dc\u05d5\u05dd"'),
        ("5 ש", r'"5 \u05e9"', None),  # which a terminal would turn round
        ("Ｐａｙ", r'"\uff30\uff41\uff59"', None),
        ("e\u0301", r'"e\u0301"', None),
        ("я" + "\u0300" * 3, r'"я' + "\u0300" * 2 + r'\u0300"', r'"\u044f\u0300\u0300\u0300"'),
        ("\n" * 30, r'"\{30 times \n}"', None),
        ("C:\\dir", r'"C:\\dir"', None),
        ({"a": [1, 1.0, None, True, {}]}, '{"a":[1,1.0,null,true,{}]}', None),
    ],
)
def test_forms(value: Any, line: str, more: str | None) -> None:
    assert (written(value), exact(value)) == (line, more)


def test_a_name_that_could_be_a_line_is_quoted() -> None:
    assert [name(text) for text in ("amount", "order-id", 'to: "ACME', "", "x" * 41, "ﬁ")] == [
        "amount",
        "order-id",
        r'"to: \"ACME"',
        '""',
        f'"{"x" * 41}"',
        r'"\ufb01"',
    ]
