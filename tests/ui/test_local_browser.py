"""`nano-vm ui` in a browser: a list that follows the store, a run that grows, two runs compared;
and what holds for every page: it can be read by all, in both themes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nano_vm.store.protocol import open_store
from nano_vm.ui.library import StoreLibrary

AXE = Path(__file__).parents[2] / "ui" / "node_modules" / "axe-core" / "axe.min.js"
PICTURES = os.environ.get("NANO_VM_SCREENSHOTS")

Open = Callable[..., Any]

LATER = """
import asyncio, sys
from pathlib import Path
from nano_vm import ExecutionVM, Program, tool

gate = Path(sys.argv[2])

@tool(effect="read")
async def slow() -> str:
    while not gate.exists():
        await asyncio.sleep(0.02)
    return "opened"

program = Program.from_dict({"name": "gate", "steps": [
    {"id": "first", "type": "set", "values": {"x": 1}},
    {"id": "slow", "type": "tool", "tool": "slow"},
    {"id": "last", "type": "set", "values": {"y": 2}},
]})
vm = ExecutionVM(None, {"slow": slow}, store=sys.argv[1])
asyncio.run(vm.run(program, {}, run_id="gate-1"))
"""


def test_filters_stand_in_the_address(serve: Any, stored: StoreLibrary, open_page: Open) -> None:
    page = open_page(serve(stored).address)
    rows = page.locator(".runs tbody tr")
    rows.nth(4).wait_for()
    assert "waiting for manager" in rows.nth(0).inner_text()
    page.get_by_role("button", name="Failed").click()
    page.wait_for_function("document.querySelectorAll('.runs tbody tr').length === 1")
    assert "payment gateway timed out" in rows.nth(0).inner_text()
    assert page.url.endswith("#/?q=status%3Afailed")
    page.get_by_label("Filter runs").fill("status:failed colour:red")
    page.keyboard.press("Enter")
    assert "colour:red is no filter" in page.get_by_role("alert").inner_text()
    page.get_by_label("Filter runs").fill("program:none")
    page.keyboard.press("Enter")
    page.get_by_text("No run is like this.").wait_for()
    page.get_by_role("button", name="Show all").click()
    rows.nth(4).wait_for()
    page.get_by_role("link", name="refund-2003").click()
    page.locator(".title", has_text="failed").wait_for()
    page.get_by_role("button", name="Verify").click()
    page.get_by_text("identical").wait_for()
    page.get_by_role("link", name="Runs").click()
    rows.nth(4).wait_for()


def test_a_run_under_way_is_followed(serve: Any, open_page: Open, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    gate = tmp_path / "gate"
    open_store(url).close()
    worker = subprocess.Popen([sys.executable, "-c", LATER, url, str(gate)])
    store = open_store(url, read_only=True)
    try:
        page = open_page(serve(StoreLibrary(store)).address)
        page.get_by_role("link", name="gate-1").click(timeout=30_000)
        node = page.locator('.react-flow__node[data-id="slow"]')
        node.locator(".state-running").wait_for(timeout=30_000)
        assert page.locator('.react-flow__node[data-id="last"] .state-queued').count() == 1
        gate.touch()
        node.locator(".state-done").wait_for(timeout=30_000)
        page.locator(".title", has_text="done").wait_for()
        assert page.locator('.react-flow__node[data-id="last"] .state-done').count() == 1
    finally:
        gate.touch()
        worker.wait(30)
        store.close()


def test_two_runs_are_compared_on_one_graph(
    serve: Any, stored: StoreLibrary, open_page: Open
) -> None:
    page = open_page(serve(stored).address)
    for run_id in ("refund-2001", "refund-2004"):
        page.get_by_label(f"Compare {run_id}").check()
    page.get_by_role("link", name="Compare the two").click()
    page.get_by_text("First difference at").wait_for()
    assert page.url.endswith("#/compare/refund-2001/refund-2004")
    box = page.locator('.react-flow__node[data-id="analyze"]')
    box.locator(".side-changed").wait_for()
    assert "diverges here" in box.inner_text()
    assert page.locator('.react-flow__node[data-id="fetch"] .side-a').count() == 1
    assert page.locator('.react-flow__node[data-id="reject"] .side-b').count() == 1
    assert page.locator(".arrow.side-a").count() >= 5
    detail = page.locator(".detail")
    assert "no, they are happy" in detail.locator("ins").all_inner_texts()
    page.keyboard.press("n")
    assert detail.locator("h2").inner_text() == "guard"
    page.keyboard.press("p")
    assert detail.locator("h2").inner_text() == "analyze"


def test_a_server_that_is_gone_is_told(serve: Any, stored: StoreLibrary, open_page: Open) -> None:
    page = open_page(serve(stored).address)
    page.locator(".runs tbody tr").nth(4).wait_for()
    page.route("**/api/**", lambda route: route.fulfill(status=503, body="the store is gone"))
    page.get_by_role("alert").wait_for()
    assert "the store is gone" in page.get_by_role("alert").inner_text()
    assert page.locator(".runs tbody tr").count() == 5  # what was known stays


PAGES = {
    "runs": "",
    "run-graph": "#/run/refund-2003?view=g",
    "run-timeline": "#/run/refund-2001?view=t&step=guard",
    "run-list": "#/run/refund-2005?view=l",
    "compare": "#/compare/refund-2001/refund-2003",
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_can_be_read_by_all(
    serve: Any, stored: StoreLibrary, open_page: Open, theme: str
) -> None:
    address = serve(stored).address
    for name, place in PAGES.items():
        page = open_page(address + place, theme=theme)
        page.locator(".react-flow__node, .runs td, .rows .row").first.wait_for()
        page.wait_for_timeout(300)  # the canvas settles
        if PICTURES:
            page.screenshot(path=Path(PICTURES) / f"{name}-{theme}.png")
        found = page.evaluate(f"{AXE.read_text()}; axe.run(document)")
        told = [
            (fault["id"], node["target"], node["failureSummary"])
            for fault in found["violations"]
            for node in fault["nodes"]
        ]
        assert told == [], name


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_fits_a_phone(
    serve: Any, stored: StoreLibrary, open_page: Open, theme: str
) -> None:
    address = serve(stored).address
    for name, place in PAGES.items():
        page = open_page(address + place, 360, 740, theme)
        page.locator(".react-flow__node, .runs td, .main .row").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
        if PICTURES:
            page.screenshot(path=Path(PICTURES) / f"{name}-{theme}-phone.png")
