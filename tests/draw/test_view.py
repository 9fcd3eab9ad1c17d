"""A run as data for a page: its boxes are the program's, its arrows are those that it took."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from test_corpus import cases, execute, load

from nano_vm import ExecutionVM, Program, tool
from nano_vm.draw import view
from nano_vm.draw.chart import Chart, Stop
from nano_vm.draw.view import RunView, is_soon_drawn, view_of
from nano_vm.language.flow import Flow
from nano_vm.newest import Newest
from nano_vm.run.durable.stored import trace_of
from nano_vm.store.protocol import open_store

CASES = [
    case for case in cases() if "load" not in case.values[0] and "refused" not in case.values[0]
]


SHAPE = TypeAdapter(RunView)


def as_declared(view: RunView) -> RunView:
    """*view* with the fields that its type has, each of which it must have."""
    return SHAPE.dump_python(SHAPE.validate_python(view, strict=True))  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_run_of_the_corpus_is_found_on_its_graph(case: dict[str, Any]) -> None:
    programs = {
        name: Program.from_dict(data)
        for name, data in case.get("vm", {}).get("programs", {}).items()
    }
    trace = execute(case).trace
    view = view_of(trace, load(case), programs)
    assert as_declared(view) == view
    assert as_declared(view_of(trace, load(case), programs, content=False))["content"] is False
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


# --- stored runs ---

WAITS_IN_FORKS = """
name: forks
steps:
  - id: both
    type: parallel
    parallel_steps:
      - [{id: first, type: tool, tool: f, args: {x: 1}},
         {id: ask, type: approval, role: boss, show: {a: 1}, then: $next, otherwise: $end},
         {id: after, type: set, values: {y: 1}}]
      - id: each
        type: map
        over: [1, 2, 3]
        as: item
        on_item_error: continue
        steps:
          - {id: call, type: tool, tool: f, args: {x: $item}}
          - {id: odd, type: condition, condition: "$call.output == 2", then: [{id: two, type: set, values: {z: 2}}]}
  - id: turns
    type: loop
    max_iterations: 3
    until: "$count.output.n >= 2"
    steps:
      - {id: start, type: set, when: "$both.output == null", values: {n: 0}}
      - {id: count, type: set, values: {n: 2}}
"""


def stored_run(url: str) -> None:
    @tool(effect="read")
    async def f(x: int) -> int:
        if x == 3:
            raise ValueError("three")
        return x

    async def run() -> None:
        vm = ExecutionVM(None, {"f": f}, store=url)
        await vm.run(Program.from_yaml(WAITS_IN_FORKS), {}, run_id="forks-1")

    asyncio.run(run())


def resumed(url: str) -> None:
    @tool(effect="read")
    async def f(x: int) -> int:
        raise AssertionError("all of its calls are recorded")

    async def run() -> None:
        vm = ExecutionVM(None, {"f": f}, store=url)
        asked = vm.inbox.waiting("forks-1")[0]
        vm.inbox.approve("forks-1", asked["path"], shown=asked["shown"], by="mia")
        await vm.resume("forks-1")

    asyncio.run(run())


@pytest.mark.slow
def test_a_stored_run_is_shown_as_its_trace_is_and_what_waits_in_a_fork_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    stored_run(url)
    store = open_store(url)
    try:
        run = store.load("forks-1")
        view = view_of(run)
        assert as_declared(view) == view
        assert view["lost"] == []
        assert view["taken"]["both/each/call > both/each/odd"] == 2
        states = {step["path"]: step["status"] for step in view["steps"]}
        assert states["both/ask"] == "suspended"
        assert states["both/each[2]/call"] == "failed"
        assert "both/after" not in states
        assert [json.loads(entry)["path"] for entry in view["waiting"]] == ["both/ask"]

        resumed(url)
        run = store.load("forks-1")
        ours, theirs = view_of(run), view_of(trace_of(run), Program.from_yaml(WAITS_IN_FORKS))
        assert ours["status"] == "success"
        by_path = [sorted(v["steps"], key=lambda step: step["path"]) for v in (ours, theirs)]
        assert by_path[0] == by_path[1]
        for key in ("taken", "lost", "chart", "output", "digest", "duration"):
            assert ours[key] == theirs[key], key  # type: ignore[literal-required]
        assert ours["taken"]["both > turns"] == 1

        # values that were erased are gone from the view; the path is found without them
        store.erase("forks-1")
        erased = view_of(store.load("forks-1"))
        assert erased["erased"]
        assert (erased["taken"], erased["lost"]) == (ours["taken"], [])
        assert erased["inputs"] == {}
        text = json.dumps({**erased, "chart": None})
        assert "three" not in text
        assert '"mia"' not in text
    finally:
        store.close()


def test_a_run_under_way_says_where_it_is() -> None:
    steps = [
        {"id": "a", "type": "set", "values": {"x": 1}},
        {
            "id": "l",
            "type": "loop",
            "max_iterations": 2,
            "until": "$x == 2",
            "steps": [{"id": "b", "type": "tool", "tool": "f", "when": "$x == 1"}],
        },
        {"id": "c", "type": "condition", "condition": "$x == 1", "then": "d", "otherwise": "$end"},
        {"id": "d", "type": "set", "values": {"y": 1}},
    ]
    chart = Chart(Flow(Program.from_dict({"name": "p", "steps": steps})))
    run = chart.flow.frames[0]
    assert chart.route(run, []).current == ["a"]
    assert chart.route(run, [Stop("a", "success")]).current == ["l/b"]
    done = [Stop("a", "success"), Stop("l/b", "success")]
    assert chart.route(run, done).current == ["l/b"]  # once more: its end is its own record
    ended = [*done, Stop("l", "success", "until")]
    assert chart.route(run, ended).current == ["c"]
    assert chart.route(run, [*ended, Stop("c", "success", "then")]).current == ["d"]
    assert (
        chart.route(
            run, [*ended, Stop("c", "success", "then"), Stop("d", "success")], "well"
        ).current
        == []
    )


def test_a_record_of_no_step_of_the_graph_is_told() -> None:
    chart = Chart(
        Flow(
            Program.from_dict(
                {"name": "p", "steps": [{"id": "a", "type": "set", "values": {"x": 1}}]}
            )
        )
    )
    route = chart.route(chart.flow.frames[0], [Stop("b", "success"), Stop("a", "success")], "well")
    assert route.lost == ["b"]
    assert chart.frame_of("b:0") is None
    assert chart.frame_of("a:0") is None


def test_a_view_is_made_without_the_cycle_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its looks at the graph of 10,000 steps took as long as the graph."""
    program = Program.from_dict(
        {"name": "p", "steps": [{"id": "a", "type": "set", "values": {"x": 1}}]}
    )
    trace = ExecutionVM().run_sync(program)
    seen: list[bool] = []
    made = view._made_chart

    def looked(*given: Any) -> Any:
        seen.append(gc.isenabled())
        return made(*given)

    monkeypatch.setattr(view, "_made_chart", looked)
    assert gc.isenabled()
    assert view_of(trace)["chart"] is not None
    assert seen == [False]
    assert gc.isenabled()


def test_a_chart_is_soon_there_if_it_is_kept_or_of_few_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_CHARTS", Newest(view.KEPT_NODES, view._size))
    store = open_store(f"sqlite:///{tmp_path}/runs.db")
    vm = ExecutionVM(store=store)

    def run(name: str, count: int) -> Any:
        inner = [{"id": f"s{n}", "type": "set", "values": {"x": n}} for n in range(count - 1)]
        loop = {"id": "loop", "type": "loop", "max_iterations": 1, "until": "true", "steps": inner}
        trace = vm.run_sync(Program.from_dict({"name": name, "steps": [loop]}))
        return store.load(trace.run_id)

    few, many = run("few", view.LARGE_STEPS - 1), run("many", view.LARGE_STEPS)
    assert [is_soon_drawn(one) for one in (few, many, trace_of(many))] == [True, False, True]
    bare = view_of(many, drawn=False)
    assert (bare["chart"], bare["chart_fault"], bare["taken"], bare["lost"]) == (None, None, {}, [])
    assert not is_soon_drawn(many)
    whole = view_of(many)
    assert is_soon_drawn(many)
    assert [step["path"] for step in whole["steps"]] == [step["path"] for step in bare["steps"]]
    vm.close()
    store.close()


def test_charts_that_are_kept_are_those_of_each_program_and_not_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"sqlite:///{tmp_path}/runs.db")
    vm = ExecutionVM(store=store)
    runs = []
    for name in ("a", "b", "c"):
        steps = [{"id": f"{name}{n}", "type": "set", "values": {"x": n}} for n in range(3)]
        trace = vm.run_sync(Program.from_dict({"name": "p", "steps": steps}))
        runs.append(trace.run_id)
    charts: Newest[Any, Any] = Newest(view.KEPT_NODES, view._size)
    monkeypatch.setattr(view, "_CHARTS", charts)
    fresh = [view_of(store.load(run_id), content=False) for run_id in runs]
    again = [view_of(store.load(run_id), content=False) for run_id in runs]
    assert again == fresh
    assert [[box["id"] for box in v["chart"]["boxes"]][:3] for v in again] == [  # type: ignore[index]
        [f"{name}{n}" for n in range(3)] for name in ("a", "b", "c")
    ]
    assert len(charts) == 3
    other = store.load(runs[0])
    other.program_digest = "d" * 64
    assert "another program" in str(view_of(other)["chart_fault"])
    few: Newest[Any, Any] = Newest(1, view._size)
    monkeypatch.setattr(view, "_CHARTS", few)
    assert view_of(store.load(runs[2])) == view_of(store.load(runs[2]))
    assert view_of(store.load(runs[0]))["chart"]["boxes"][0]["id"] == "a0"  # type: ignore[index]
    assert len(few) == 0, "each has more nodes than are kept"
    vm.close()
    store.close()
