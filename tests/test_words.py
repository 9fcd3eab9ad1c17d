"""Pages, help, messages and docstrings in plain words, and prose within 100 columns.

The list is that of CONTRIBUTING: words of ours that the field has others for, which a reader whose
second language is English would have to guess.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COLUMNS = 100

WORDS = {
    r"can not": "cannot",
    r"told": "reported, shown, given",
    r"a text|texts": "a string, strings",
    r"takes? up|took up|taken up": "resume, claim, continue",
    r"nobody drives": "without a worker",
    r"spoil\w*": "damage, break",
    r"lapse[sd]?": "expire, run out",
    r"pil(?:e|es|ed|ing)(?: up)?": "accumulate, queue",
    r"hang(?:s|ing)? on": "depend on",
    r"comes? to(?! (?:the|this|a|an)\b)": "be, give",
    r"when (?:somebody|nobody) looks": "lazily",
    r"the least of": "the minimum of",
    r"by what right": "declassified by",
    r"forgiv\w+": "retract",
}
WORD = re.compile("|".join(rf"\b(?:{word})(?!\w)" for word in WORDS), re.IGNORECASE)

GENERATED = {
    "growth.md",
    "benchmarks.md",
    "durable-benchmarks.md",
    "reliability.md",
    "server-benchmarks.md",
    "page-benchmarks.md",
}
"""Pages of figures: their words stand in what measures, in `benchmarks/` and `tests/`."""

PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if path.name not in GENERATED
)
MODULES = sorted((ROOT / "src" / "nano_vm").rglob("*.py"))

NAMED = re.compile(r"`[^`]*`|\*\w+\*|\{[^{}]*\}|text file")
"""What is no prose: code, the names of parameters, fields of a format."""


def words_of(text: str) -> list[str]:
    return [found[0] for found in WORD.finditer(NAMED.sub("", " ".join(text.split())))]


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """The lines of *page* outside of its blocks of code and its tables."""
    code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code and not line.lstrip().startswith("|"):
            yield number, line


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_say_it_in_plain_words(page: Path) -> None:
    text = "\n".join(line for _, line in prose(page))
    assert words_of(text) == []


_RULE = re.compile(r"\s*\|[\s:|-]*-[\s:|-]*\|\s*\Z")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_each_column_of_a_table_says_what_it_holds(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    heads = [head for head, rule in pairwise(lines) if "|" in head and _RULE.match(rule)]
    assert [head for head in heads if re.search(r"\|\s*\|", head)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_prose_of_pages_fits_in_100_columns(page: Path) -> None:
    wide = [
        f"{page.name}:{number}: {line}"
        for number, line in prose(page)
        # a comment holds a command that can be copied
        if len(line) > COLUMNS and not line.startswith(("<!--", "    "))
    ]
    assert wide == []


def strings(module: Path) -> Iterator[tuple[int, str]]:
    """Docstrings and messages of *module*, with their lines. A message is what has a space in it:
    the rest are keys.
    """
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        match node:
            case ast.JoinedStr(values=values):
                parts = [p.value for p in values if isinstance(p, ast.Constant)]
                yield node.lineno, " ".join(map(str, parts))
            case ast.Constant(value=str(text)) if " " in text:
                yield node.lineno, text


def suspected(module: Path) -> bool:
    """Whether a word stands anywhere in *module*, in a name or comment too; most are not parsed."""
    text = re.sub(r"[\s\"']+", " ", module.read_text(encoding="utf-8"))
    return WORD.search(text) is not None


@pytest.mark.slow
def test_messages_and_docstrings_say_it_in_plain_words() -> None:
    found = [
        f"{module.relative_to(ROOT)}:{line}: {words}"
        for module in filter(suspected, MODULES)
        for line, text in strings(module)
        if (words := words_of(text))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It can not be\nread, nobody was told.", ["can not", "told"]),
        ("two texts; a text", ["texts", "a text"]),
        ("what it comes to; it comes to a stop", ["comes to"]),
        ("records pile up and the lease lapsed", ["pile up", "lapsed"]),
        ("`told` and *told* are names, {told} is a field, a text file", []),
    ],
)
def test_a_word_is_found(text: str, words: list[str]) -> None:
    assert [word.strip() for word in words_of(text)] == words


def test_the_list_for_contributors_is_this_one() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| not | but |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()]
    assert [len(words_of(left)) == len(left.split(", ")) for left, _ in rows] == [True] * len(WORDS)
    assert [words_of(right) for _, right in rows] == [[]] * len(WORDS)
    for word in WORDS:
        assert re.search(rf"\b(?:{word})(?!\w)", table), word


SHOWN = re.compile(r"\"[^\"]* [^\"]*\"|`[^`]* [^`]*`|>[^<>{}]+<")
"""What a page of runs may show: strings with a space, and text between tags."""


def test_the_pages_of_runs_say_it_in_plain_words() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {words}"
        for file in sorted((ROOT / "ui" / "src").rglob("*.ts*"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if (words := words_of(" ".join(re.sub(r"\$\{.*?\}", "", t) for t in SHOWN.findall(line))))
    ]
    assert found == []
