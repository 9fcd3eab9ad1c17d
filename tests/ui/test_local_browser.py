"""`nano-vm ui` in a browser: a list that follows the store, a run that grows, two runs compared;
and what holds for every page: it can be read by all, in both themes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from browsing import faults_for_readers, load
from ui_stories import ask, go_on

from nano_vm.store.protocol import open_store
from nano_vm.ui.asking import Answers
from nano_vm.ui.library import StoreLibrary

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
    rows.nth(1).wait_for(state="detached")  # the page lets no test evaluate what it waits for
    rows.nth(0).wait_for()
    assert rows.count() == 1
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
        page.get_by_label(f"Pick {run_id}").check()
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


def elsewhere(job: Callable[[], Any]) -> Any:
    """What *job* gives, in a thread: in that of the browser no event loop can begin."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(job).result(60)


def test_a_person_decides(serve: Any, open_page: Open, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    elsewhere(lambda: asyncio.run(ask(url)))
    store = open_store(url)
    try:
        server = serve(StoreLibrary(store), Answers(store, "mia", time))
        page, other = open_page(server.address), open_page(server.address + "#/inbox", 360, 740)
        page.get_by_role("link", name="Inbox").click()
        page.locator(".asked", has_text="149.9").get_by_text("order").click()
        question = page.locator(".question")
        question.get_by_text("If yes").wait_for()
        assert "The TV arrived damaged" in question.inner_text()
        assert "cannot be undone" in question.locator(".next").inner_text()
        assert "you decide as mia" in page.locator(".top").inner_text()
        reject, approve = (question.get_by_role("button", name=n) for n in ("Reject", "Approve"))
        assert reject.is_disabled()  # without a reason
        page.keyboard.press("a")  # moves the focus and decides nothing
        page.locator("#approve:focus").wait_for()
        # on a phone the same is asked, with the buttons in sight
        other.locator(".asked", has_text="149.9").get_by_text("order").click()
        assert other.evaluate("document.documentElement.scrollWidth") <= 360
        other.locator(".question #approve").wait_for()
        question.get_by_label("Reason").fill("seen the picture")
        approve.click()
        page.get_by_text("Approved, for run refund-2002").wait_for()
        other.get_by_text("It is asked no longer").wait_for()
        assert other.locator("#approve").is_disabled()
        assert elsewhere(lambda: asyncio.run(go_on(url, "refund-2002"))) == "success"
        message = store.load("refund-2002").decided[0]
        assert (message.kind, message.by) == ("approve", "mia")
        assert message.body == {"reason": "seen the picture"}
        # what is in doubt is the next
        page.locator(".asked .difference", has_text="12.5").click()
        said = question.locator(".reconciled")
        said.get_by_text("Its reconcile answered").wait_for()
        assert "two payments of 12.5 today" in said.inner_text()
        question.get_by_label("What it gave").fill('"paid"')
        question.get_by_role("button", name="It was done").click()
        page.get_by_text("Nothing waits for a person here.").wait_for()
        assert store.load("payout-1").inbox[0].body == {"output": "paid"}
    finally:
        store.close()


def test_who_only_looks_cannot_decide(serve: Any, stored: StoreLibrary, open_page: Open) -> None:
    page = open_page(serve(stored).address + "#/inbox")
    page.get_by_text("start nano-vm ui with --as NAME").wait_for()
    page.get_by_label("Reason").fill("no")
    for name in ("Reject", "Approve"):
        assert page.get_by_role("button", name=name, exact=True).is_disabled()


def test_each_page_shows_its_keys(serve: Any, stored: StoreLibrary, open_page: Open) -> None:
    address = serve(stored).address
    page = open_page(address)
    for place, what in (
        ("", "compare the two that are chosen"),
        ("#/inbox", "to the button that approves"),
        ("#/compare/refund-2001/refund-2003", "next difference"),
        ("#/run/refund-2001", "graph, timeline, list"),
    ):
        load(page, address + place)
        page.locator(".react-flow__node, .runs td, .question").first.wait_for()
        page.keyboard.press("?")
        keys = page.get_by_role("dialog", name="Keys")
        keys.get_by_text(what).wait_for()
        assert keys.get_by_text("Ctrl K").count() == 0  # there is no project to go about in
        assert faults_for_readers(page) == [], place
        page.keyboard.press("Escape")
        keys.wait_for(state="detached")
    load(page, address)
    field = page.get_by_role("searchbox").or_(page.locator("form input")).first
    field.fill("")
    field.press("?")  # is a character here
    assert page.get_by_role("dialog", name="Keys").count() == 0


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
    "inbox": "#/inbox",
    "compare": "#/compare/refund-2001/refund-2003",
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_can_be_read_by_all(
    serve: Any, stored: StoreLibrary, open_page: Open, theme: str
) -> None:
    address = serve(stored).address
    page = open_page(address, theme=theme)
    for name, place in PAGES.items():
        load(page, address + place)
        page.locator(".react-flow__node, .runs td, .question, .main .row").first.wait_for()
        page.wait_for_timeout(300)  # the canvas settles
        if PICTURES:
            page.screenshot(path=Path(PICTURES) / f"{name}-{theme}.png")
        assert faults_for_readers(page) == [], name


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_fits_a_phone(
    serve: Any, stored: StoreLibrary, open_page: Open, theme: str
) -> None:
    address = serve(stored).address
    page = open_page(address, 360, 740, theme)
    for name, place in PAGES.items():
        load(page, address + place)
        page.locator(".react-flow__node, .runs td, .question, .main .row").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
        if PICTURES:
            page.screenshot(path=Path(PICTURES) / f"{name}-{theme}-phone.png")
