"""Every page that a person wrote tells the truth: its programs load, its code runs, its commands
print what it shows, and what nothing runs says why.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import DOCS, GENERATED
from stories import Story, blocks, commands, fits, plain, told

FIGURES = {
    "growth",
    "benchmarks",
    "durable-benchmarks",
    "reliability",
    "server-benchmarks",
    "page-benchmarks",
}
"""Pages of figures, which `benchmarks/` and `tests/soak` write and show how to measure again."""

PAGES = sorted(
    page for page in DOCS.rglob("*.md") if page.parent not in GENERATED and page.stem not in FIGURES
)


OWN = {"observability"}
"""What configures logging runs in processes of its own: `test_docs_observability`."""


LABELS = {"tutorial": ("damaged", "late", "unwanted")}
"""Which of them the real model answers is not for a page to say."""


def case(page: Path) -> object:
    """The page, marked by what it needs."""
    text = page.read_text(encoding="utf-8")
    marks = [pytest.mark.real_llm] if "--model local" in text else []
    return pytest.param(page, marks=marks, id=page.relative_to(DOCS).with_suffix("").as_posix())


@pytest.mark.slow
@pytest.mark.parametrize("page", [case(page) for page in PAGES if page.stem not in OWN])
def test_a_page_happens_as_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NANO_VM_STORE", raising=False)
    told(page, tmp_path, LABELS.get(page.stem, ()))


@pytest.mark.slow
def test_every_block_is_run_or_says_why_not() -> None:
    runs = {"python", "yaml", "console", "sh"}
    wrong = [
        f"{page.relative_to(DOCS)}:{block.line}"
        for page in PAGES
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.kind not in runs and block.title is None and block.reason is None
    ]
    assert wrong == []


def test_blocks_are_read_with_their_title_reason_and_indent() -> None:
    text = (
        'a\n\n```yaml title="a.yaml"\nsteps: []\n```\n\n<!-- not run: no account -->\n```text\nx\n'
        '```\n\n=== "Tab"\n\n    ```python\n    if 1:\n        pass\n    ```\n'
    )
    assert [tuple(block) for block in blocks(text)] == [
        ("yaml", "a.yaml", "steps: []\n", None, 3),
        ("text", None, "x\n", "no account", 8),
        ("python", None, "if 1:\n    pass\n", None, 14),
    ]


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("```python\nprint(1)\n# 2\n```\n", "prints\n1"),
        ("```console\n$ nano-vm --nope\nfine\n```\n", "no option --nope"),
        ("```console\n$ rm -r /\n```\n", "no command 'rm'"),
        ("```\nwhat is this\n```\n", "nothing runs this block"),
        ("```yaml\nsteps: [{id: a, type: tol}]\n```\n", "unknown step type 'tol'"),
        ("```yaml\ntoolz: {}\n```\n", "a policy has no field 'toolz'"),
        ("```sh\npip install 'llm-nano-vm[all]'\n```\n", "llm-nano-vm"),
        ("```sh\nmake coffee\n```\n", "no target coffee"),
    ],
)
def test_what_is_not_true_is_noticed(page: str, fault: str, tmp_path: Path) -> None:
    (block,) = blocks(page)
    with pytest.raises(Exception, match=fault.replace("(", r"\(")):
        Story(tmp_path).tell(block)


def test_a_long_command_may_be_broken() -> None:
    assert list(commands("$ nano-vm run a.yaml \\\n    -i x=1\nok\n")) == [
        ("nano-vm run a.yaml -i x=1", ["ok"])
    ]


def test_what_differs_from_run_to_run_is_not_compared() -> None:
    assert plain("ok  a  tool   23 ms  {}") == plain("ok  a  tool  1.2 s   {}")
    assert plain("digest 57d0a…") != plain("digest none")
    assert fits(["a", "...", "c ... e"], ["a", "b", "b", "c d e"])
    assert not fits(["a", "c"], ["a", "b", "c"])
