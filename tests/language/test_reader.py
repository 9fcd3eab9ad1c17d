"""Program text: YAML as 1.2, JSON, places, and strings that mean harm."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nano_vm import Policy, Program, ProgramError
from nano_vm.language.reader import MAX_ALIAS_NODES, marks, read_text

STEP = "{id: a, type: set, values: {x: 1}}"


def fault_of(text: str, format: str = "yaml") -> Any:
    """The first Diagnostic of a string that is refused."""
    with pytest.raises(ProgramError) as caught:
        read_text(text, file="p.yaml", format=format)
    assert all(d.file == "p.yaml" for d in caught.value.diagnostics)
    return caught.value.diagnostics[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # texts in YAML 1.2, something else in 1.1
        *[
            (word, word)
            for word in ("yes", "Yes", "NO", "no", "on", "off", "ON", "y", "n", "Y", "N")
        ],
        ("12:30", "12:30"),
        ("1:2:3", "1:2:3"),
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("0o8", "0o8"),
        ("-0x1F", "-0x1F"),
        ("<<", "<<"),
        ("=", "="),
        ("tRUE", "tRUE"),
        ("nULL", "nULL"),
        ("none", "none"),
        ("None", "None"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("1e", "1e"),
        ("e1", "e1"),
        (".", "."),
        ("..", ".."),
        ("-", [None]),
        ("--", "--"),
        ("+", "+"),
        ("1.2.3", "1.2.3"),
        ("١", "١"),
        # the core schema
        *[(word, True) for word in ("true", "True", "TRUE")],
        *[(word, False) for word in ("false", "False", "FALSE")],
        *[(word, None) for word in ("null", "Null", "NULL", "~", "")],
        ("0", 0),
        ("-0", 0),
        ("+12", 12),
        ("010", 10),
        ("007", 7),
        ("0o10", 8),
        ("0x1F", 31),
        ("0xff", 255),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1e3", 1000.0),
        ("1E-2", 0.01),
        ("+1.5e+2", 150.0),
        # quoted and block texts are texts
        ("'1'", "1"),
        ('"true"', "true"),
        ("'null'", "null"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">-\n  a\n  b\n", "a b"),
        ('"\\u00e4\\n\\0"', "ä\n\0"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    found = read_text(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.slow
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**1900), 10**1900))
def test_numbers_are_read_as_written(number: float) -> None:
    assert read_text(repr(number)) == number


@pytest.mark.slow
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text("ab:#-'\"\n é", max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text("abc é", max_size=3), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_json_read_as_json_and_as_yaml_is_the_same(value: Any) -> None:
    text = json.dumps(value)
    assert read_text(text, format="json") == value
    assert read_text(text) == value


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("a: 1\na: 2", "P002", "duplicate key 'a'"),
        ("a: 1\n'a': 2", "P002", "duplicate key 'a'"),
        ("{a: {b: 1, b: 2}}", "P002", "duplicate key 'b'"),
        ("<<: {a: 1}", "P001", "merge keys"),
        ("? [a]\n: 1", "P001", "a key must be a plain text"),
        ("? {a: 1}\n: 1", "P001", "a key must be a plain text"),
        ("&a x: 1\n*a : 2", "P001", "a key must be a plain text"),
        ("*a", "P003", "unknown or cyclic alias *a"),
        ("&a [*a]", "P003", "unknown or cyclic alias *a"),
        ("!!python/object/apply:os.system [ls]", "P001", "tag"),
        ("!!python/name:os.system ''", "P001", "tag"),
        ("!custom 5", "P001", "tag"),
        ("!!int '5'", "P001", "tag"),
        ("!!binary aGk=", "P001", "tag"),
        ("!!set {a}", "P001", "tag"),
        ("!!timestamp 2026-01-01", "P001", "tag"),
        (".nan", "P004", "is not a JSON number"),
        ("-.inf", "P004", "is not a JSON number"),
        ("[.INF]", "P004", "is not a JSON number"),
        ("9" * 2001, "P004", "2,000 digits"),
        ("0x" + "f" * 2001, "P004", "2,000 digits"),
        ("1e400", "P004", "number"),
        ("a: [", "P001", "not YAML"),
        ("a: b: c", "P001", "not YAML"),
        ("\tx: 1", "P001", "not YAML"),
        ("a: 'x", "P001", "not YAML"),
        ("%YAML 3.0\n---\na", "P001", "not YAML"),
        ("a: \0", "P001", "not YAML"),
        ("a: \x07", "P001", "not YAML"),
        ("a: \ud800", "P001", "not YAML"),
        ('"\\ud800"', "P001", ""),
        ("a: 1\n---\nb: 2", "P001", "more than one document"),
        ("[" * 10_000, "P005", "deeper than 100"),
        ("{a: " * 10_000, "P005", "deeper than 100"),
        ("- " * 10_000, "P005", "deeper than 100"),
        ("? " * 10_000, "P001", ""),
        ("\n".join(" " * i + f"k{i}:" for i in range(500)), "P005", "deeper than 100"),
    ],
)
def test_yaml_refused(text: str, code: str, part: str) -> None:
    diagnostic = fault_of(text)
    assert diagnostic.code == code
    assert part in diagnostic.message


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ('{"a": 1, "a": 2}', "P002", "duplicate key 'a'"),
        ("[NaN]", "P004", "NaN"),
        ("-Infinity", "P004", "Infinity"),
        ("1e400", "P004", "number"),
        ("9" * 5000, "P004", "number"),
        ("{", "P001", "not JSON"),
        ("", "P001", "not JSON"),
        ("{} {}", "P001", "not JSON"),
        ("{'a': 1}", "P001", "not JSON"),
        ("[" * 10_000, "P005", "deeper"),
        ('{"a":' * 10_000, "P005", "deeper"),
        ("// x\n1", "P001", "not JSON"),
        ("[1,]", "P001", "not JSON"),
    ],
)
def test_json_refused(text: str, code: str, part: str) -> None:
    diagnostic = fault_of(text, "json")
    assert diagnostic.code == code
    assert part in diagnostic.message


def test_json_nested_deeper_than_values_may_be() -> None:
    """What Python's reader still takes is refused as the same text in YAML is."""
    text = '{"steps": [{"id": "a", "type": "set", "values": {"x": ' + "[" * 200 + "]" * 200 + "}}]}"
    for load in (Program.from_json, Program.from_yaml):
        with pytest.raises(ProgramError) as caught:
            load(text)
        assert caught.value.diagnostics[0].code in ("P004", "P005")


def test_a_lone_surrogate_in_json_is_no_value() -> None:
    text = '{"steps": [{"id": "a", "type": "set", "values": {"x": "\\ud800"}}]}'
    with pytest.raises(ProgramError, match="surrogate"):
        Program.from_json(text)


def test_all_duplicate_keys_are_told() -> None:
    with pytest.raises(ProgramError) as caught:
        read_text("a: 1\na: 2\nb:\n  c: 1\n  c: 2\n")
    assert [(d.code, d.loc, d.line, d.column) for d in caught.value.diagnostics] == [
        ("P002", ("a",), 2, 1),
        ("P002", ("b", "c"), 5, 3),
    ]


# --- size -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("format", ["yaml", "json"])
def test_100_mb_are_refused_unread(format: str) -> None:
    text = "[" * 100_000_000
    started = time.process_time()
    diagnostic = fault_of(text, format)
    assert diagnostic.code == "P005"
    assert "the limit is 1048576" in diagnostic.message
    assert time.process_time() - started < 2


def test_a_text_of_the_largest_size_is_read() -> None:
    head = f"steps: [{STEP}]\n"
    text = head + "#" * (1024 * 1024 - len(head))
    assert len(Program.from_yaml(text).steps) == 1
    assert fault_of(text + "#").code == "P005"


def test_size_is_that_of_utf_8() -> None:
    assert fault_of("# " + "é" * (512 * 1024)).code == "P005"


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(("levels", "width"), [(9, 10), (40, 2), (30, 9), (3, 2000)])
def test_alias_bombs(levels: int, width: int) -> None:
    started = time.process_time()
    diagnostic = fault_of(bomb(levels, width))
    assert diagnostic.code == "P003"
    assert f"more than {MAX_ALIAS_NODES}" in diagnostic.message
    assert time.process_time() - started < 2


def test_aliases_within_the_bound() -> None:
    data = read_text("a: &x {k: [1, 2]}\nb: *x\nc: [*x, *x]\n")
    assert data == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}, "c": [{"k": [1, 2]}, {"k": [1, 2]}]}
    assert read_text("a: &x 1\nb: &x 2\nc: *x") == {"a": 1, "b": 2, "c": 2}


def test_an_aliased_step_is_as_if_written_twice() -> None:
    text = (
        "x-v: &v {k: 1}\nsteps:\n - {id: a, type: set, values: *v}\n - {id: b, type: set, "
        "values: *v}\n"
    )
    program = Program.from_yaml(text)
    written = Program.from_dict(
        {"steps": [{"id": i, "type": "set", "values": {"k": 1}} for i in "ab"]}
    )
    assert program.digest == written.digest


def test_aliases_of_long_texts_are_bounded_too() -> None:
    """One text of half a megabyte, used a thousand times, is half a gigabyte as soon as somebody
    writes it out.
    """
    text = "steps:\n - id: a\n   type: set\n   values:\n    k0: &x '" + "x" * 500_000 + "'\n"
    text += "".join(f"    k{i}: *x\n" for i in range(1, 1000))
    with pytest.raises(ProgramError):
        Program.from_yaml(text)


# --- places ---------------------------------------------------------------------------------------


TEXT = """\
# a comment
name: "x"
steps:
  - id: a
    type: set
    values: {x: 1, y: [1, 2]}
  -
    id: b
    type: condition
    condition: "true"
    then:
      - {id: c, type: set, values: {x: 2}}
"""


def test_marks() -> None:
    found = marks(TEXT)
    assert found[("name",)] == (2, 1)
    assert found[("steps",)] == (3, 1)
    assert found[("steps", 0)] == (4, 5)
    assert found[("steps", 0, "id")] == (4, 5)
    assert found[("steps", 0, "values", "y")] == (6, 20)
    assert found[("steps", 0, "values", "y", 1)] == (6, 27)
    assert found[("steps", 1, "then", 0, "values", "x")] == (12, 37)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_places_whatever_ends_a_line(newline: str) -> None:
    text = TEXT.replace("condition: ", "conditoin: ").replace("\n", newline)
    with pytest.raises(ProgramError) as caught:
        Program.from_yaml(text, file="p.yaml")
    assert caught.value.diagnostics[-1].place == "p.yaml:10:5: steps[1].conditoin"


def test_places_in_json() -> None:
    text = json.dumps(yaml.safe_load(TEXT.replace("condition: ", "conditoin: ")), indent=2)
    with pytest.raises(ProgramError) as caught:
        Program.from_json(text, file="p.json")
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "conditoin" in row)
    assert f"p.json:{line}:7: steps[1].conditoin" in [d.place for d in caught.value.diagnostics]


def test_a_place_that_is_not_written_is_that_of_what_holds_it() -> None:
    with pytest.raises(ProgramError) as caught:
        Program.from_yaml("steps:\n  - id: a\n    type: llm\n", file="p")
    assert [(d.line, d.column) for d in caught.value.diagnostics] == [(2, 5)]


def test_check_has_places_too() -> None:
    from nano_vm import ExecutionVM

    program = Program.from_yaml(
        "steps:\n  - id: a\n    type: tool\n    tool: missing\n", file="p.yaml"
    )
    assert [d.place for d in ExecutionVM().check(program)] == ["p.yaml:4:5: steps[0].tool"]


# --- files ----------------------------------------------------------------------------------------


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"\xef\xbb\xbfsteps: [" + STEP.encode() + b"]\r\n")
    assert Program.from_file(path).steps[0].id == "a"
    path = tmp_path / "p.json"
    path.write_text(
        '\ufeff{"steps": [{"id": "a", "type": "set", "values": {"x": 1}}]}', encoding="utf-8"
    )
    assert Program.from_file(str(path)).steps[0].id == "a"


def test_a_byte_order_mark_in_a_text() -> None:
    assert Program.from_yaml(f"\ufeffsteps: [{STEP}]").steps[0].id == "a"


def test_a_file_of_nul_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"\x00\x01")
    with pytest.raises(ProgramError, match="P001: not YAML"):
        Program.from_file(path)


@pytest.mark.parametrize("path", [".", "absent.yaml"])
def test_files_that_cannot_be_opened(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for read in (Program.from_file, Policy.from_file):
        with pytest.raises(ProgramError) as caught:
            read(path)
        (fault,) = caught.value.diagnostics
        assert (fault.code, fault.file) == ("P008", path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"steps: \xe9", b"a: \xed\xa0\x80"])
def test_files_that_are_not_utf_8(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    with pytest.raises(ProgramError) as caught:
        Program.from_file(path)
    assert caught.value.diagnostics[0].code == "P008"
    assert caught.value.diagnostics[0].file == str(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ProgramError, match="cannot read it"):
            Program.from_file(path)


def test_crlf_and_lf_are_one_program() -> None:
    text = "steps:\n  - id: a\n    type: llm\n    prompt: |\n      one\n      two\n"
    assert Program.from_yaml(text).digest == Program.from_yaml(text.replace("\n", "\r\n")).digest


def test_not_a_text() -> None:
    for value in (b"steps: []", None, 5, Path("x")):
        with pytest.raises((ProgramError, TypeError)):
            Program.from_yaml(value)  # type: ignore[arg-type]


@pytest.mark.slow
def test_reading_is_linear() -> None:
    """Four times the text takes four times the time, not sixteen."""

    def seconds(count: int) -> float:
        text = "steps:\n" + "".join(
            f"  - {{id: s{i}, type: set, values: {{x: 1}}}}\n" for i in range(count)
        )
        best = math.inf
        for _ in range(3):
            started = time.process_time()
            read_text(text)
            best = min(best, time.process_time() - started)
        return best

    seconds(100)
    assert seconds(4000) < 12 * seconds(1000)
