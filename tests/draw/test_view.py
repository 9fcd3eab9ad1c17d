"""A run as data for a page: its boxes are the program's, its arrows are those that it took."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_corpus import cases, execute, load

from nano_vm.draw.view import view_of
from nano_vm.language.program import Program

CASES = [
    case for case in cases() if "load" not in case.values[0] and "refused" not in case.values[0]
]


@pytest.mark.parametrize("case", CASES)
def test_every_run_of_the_corpus_is_found_on_its_graph(case: dict[str, Any]) -> None:
    programs = {
        name: Program.from_dict(data)
        for name, data in case.get("vm", {}).get("programs", {}).items()
    }
    trace = execute(case).trace
    view = view_of(trace, load(case), programs)
    if view["chart"] is None:  # refused: it jumps or calls where nothing is
        assert "the program has no graph" in str(view["chart_fault"])
        assert any(d.severity == "error" for d in trace.diagnostics)
        return
    assert view["lost"] == []
    boxes = {box["id"] for box in view["chart"]["boxes"]}
    assert {step["box"] for step in view["steps"]} <= boxes
    arrows = {arrow["id"]: arrow for arrow in view["chart"]["arrows"]}
    assert view["taken"].keys() <= arrows.keys()
    for arrow in arrows.values():
        assert {arrow["source"], arrow["target"]} <= boxes
    for box in view["chart"]["boxes"]:
        assert box["parent"] in boxes or box["parent"] == ""
    json.dumps(view)
