"""python.md tells the truth: its examples run and print what they say, and its tables name
what is there.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import page, printed, shown

from nano_vm.run.observers import Event
from nano_vm.run.options import RunOptions

TEXT, EXAMPLES = page("python.md")


@pytest.mark.slow
@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_its_examples_run(text: str, tmp_path: Path) -> None:
    assert printed(text, tmp_path) == shown(text)


def test_every_option_of_a_run_is_named() -> None:
    assert {name for name in RunOptions.__annotations__ if f"`{name}`" not in TEXT} == set()


def test_every_kind_of_event_is_named() -> None:
    kinds = set(re.findall(r"``(\w+_\w+|text)``", Event.__doc__ or ""))
    assert {"run_started", "attempt_failed", "text"} <= kinds
    assert {kind for kind in kinds if f"`{kind}`" not in TEXT} == set()
