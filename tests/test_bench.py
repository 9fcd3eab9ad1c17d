"""The page that `make bench` writes says of the bars what their sections say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
bench = pytest.importorskip("bench")

MET = "## Growth\n\n| steps | bar |\n| - | - |\n| 20 | ✓ 1.1 × that at 10, at most 1.2 |"
MISSED = "## Imports\n\n| what | bar |\n| - | - |\n| all | ✗ 3 × nothing, at most 2 |"


def test_the_page_of_benchmarks_explains_a_missed_bar_where_one_is_missed() -> None:
    met = bench.page({"Growth": MET}, "Measured today.").splitlines()
    assert [line for line in met if line.startswith("Bars met")] == ["Bars met: 1 of 1."]
    assert "Missed:" not in met
    missed = bench.page({"Growth": MET, "Imports": MISSED}, "Measured today.")
    assert (
        "Bars met: 1 of 2. [What the costs are made of](costs.md) says why one is missed.\n\n"
        "Missed:\n\n- Imports, all: ✗ 3 × nothing, at most 2\n"
    ) in missed


def test_the_page_is_as_it_would_be_written() -> None:
    page = (Path(__file__).parent.parent / "docs/explanation/benchmarks.md").read_text("utf-8")
    titles = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    parts = page.split("\n\n## ")
    sections = {title: f"## {part.rstrip()}" for title, part in zip(titles, parts[1:], strict=True)}
    measured = next(line for line in page.splitlines() if line.startswith("Measured on"))
    assert bench.page(sections, measured) == page
