"""`nano-vm ui` in a browser: a list that follows the store, a run that grows, two runs compared;
and what holds for every page: it can be read by all, in both themes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import warm
from browsing import expect, faults_for_readers, load
from ui_stories import ask, go_on

from nano_vm.draw import view
from nano_vm.newest import Newest
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
    expect(rows.nth(0)).to_contain_text("waiting for manager")
    page.get_by_role("button", name="Failed").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("payment gateway timed out")
    page.wait_for_url("**#/?q=status%3Afailed")
    page.get_by_label("Filter runs").fill("status:failed colour:red")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("colour:red is no filter")
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
    worker = warm.Popen([sys.executable, "-c", LATER, url, str(gate)])
    store = open_store(url, read_only=True)
    try:
        page = open_page(serve(StoreLibrary(store)).address)
        page.get_by_role("link", name="gate-1").click(timeout=30_000)
        node = page.locator('.react-flow__node[data-id="slow"]')
        node.locator(".state-running").wait_for(timeout=30_000)
        expect(page.locator('.react-flow__node[data-id="last"] .state-queued')).to_have_count(1)
        gate.touch()
        node.locator(".state-done").wait_for(timeout=30_000)
        page.locator(".title", has_text="done").wait_for()
        expect(page.locator('.react-flow__node[data-id="last"] .state-done')).to_have_count(1)
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
    page.wait_for_url("**#/compare/refund-2001/refund-2004")
    box = page.locator('.react-flow__node[data-id="analyze"]')
    box.locator(".side-changed").wait_for()
    expect(box).to_contain_text("diverges here")
    expect(page.locator('.react-flow__node[data-id="fetch"] .side-a')).to_have_count(1)
    expect(page.locator('.react-flow__node[data-id="reject"] .side-b')).to_have_count(1)
    expect(page.locator(".arrow.side-a").nth(4)).to_be_attached()
    detail = page.locator(".detail")
    detail.locator("ins").get_by_text("no, they are happy", exact=True).first.wait_for()
    page.keyboard.press("n")
    expect(detail.locator("h2")).to_have_text("guard")
    page.keyboard.press("p")
    expect(detail.locator("h2")).to_have_text("analyze")


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
        expect(question).to_contain_text("The TV arrived damaged")
        expect(question.locator(".next")).to_contain_text("cannot be undone")
        expect(page.locator(".top")).to_contain_text("you decide as mia")
        reject, approve = (question.get_by_role("button", name=n) for n in ("Reject", "Approve"))
        expect(reject).to_be_disabled()  # without a reason
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
        expect(other.locator("#approve")).to_be_disabled()
        assert elsewhere(lambda: asyncio.run(go_on(url, "refund-2002"))) == "success"
        message = store.load("refund-2002").decided[0]
        assert (message.kind, message.by) == ("approve", "mia")
        assert message.body == {"reason": "seen the picture"}
        # what is in doubt is the next
        page.locator(".asked .difference", has_text="12.5").click()
        said = question.locator(".reconciled")
        said.get_by_text("Its reconcile answered").wait_for()
        expect(said).to_contain_text("two payments of 12.5 today")
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
        expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()


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
    expect(page.get_by_role("alert")).to_contain_text("the store is gone")
    expect(page.locator(".runs tbody tr")).to_have_count(5)  # what was known stays


def test_what_waits_says_for_whom_and_not_how_long_it_took_to_ask(
    serve: Any, stored: StoreLibrary, open_page: Open
) -> None:
    page = open_page(f"{serve(stored).address}#/run/refund-2002?view=g&step=approve")
    page.locator(".box.selected", has_text="waits for manager").wait_for()
    header = expect(page.locator(".detail header"))
    header.to_contain_text("approval · from", use_inner_text=True)
    page.keyboard.press("l")
    row = page.locator(".main .row", has_text="approve")
    expect(row.locator(".row-number").last).to_have_text("waiting")


def test_what_a_run_did_is_seen_before_the_graph_of_its_large_program_is_made(
    serve: Any, stored: StoreLibrary, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked, gate = view._made_chart, threading.Event(), threading.Event()

    def slowly(*given: Any) -> Any:
        asked.set()
        assert gate.wait(30)
        return made(*given)

    monkeypatch.setattr(view, "_CHARTS", Newest(view.KEPT_NODES, view._size))
    monkeypatch.setattr(view, "LARGE_STEPS", 2)
    monkeypatch.setattr(view, "_made_chart", slowly)
    address = serve(stored).address
    page = open_page(f"{address}#/run/refund-2003?view=g")
    page.get_by_text("The graph is being drawn").wait_for()
    expect(page.locator(".steps .row").nth(5)).to_be_attached()
    assert asked.wait(30), "the page asks for the graph by itself"
    gate.set()
    page.locator(".react-flow__node").first.wait_for()


def test_a_graph_is_asked_for_until_it_comes_and_the_page_stays_as_it_was_left(
    serve: Any, stored: StoreLibrary, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_CHARTS", Newest(view.KEPT_NODES, view._size))
    monkeypatch.setattr(view, "LARGE_STEPS", 2)
    address = serve(stored).address
    page = open_page(address)
    held: list[Any] = []
    page.route("**/api/run/refund-2003?seen=*", lambda one: held.append(one), times=1)
    with page.expect_request("**/api/run/refund-2003?seen=*"):
        page.evaluate("location.hash = '#/run/refund-2003?view=l'")
    page.get_by_role("button", name="Verify").click()
    page.locator("output.verified", has_text="identical").wait_for()
    page.get_by_role("button", name="Keys").click()
    folded = page.get_by_role("tree").last.locator("[aria-expanded=false]")
    expect(folded).to_have_count(0)
    held[0].abort()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("this page tries again")
    folded.first.wait_for()
    expect(alert).to_have_count(0)
    expect(page.locator("output.verified")).to_contain_text("identical")
    page.get_by_role("dialog", name="Keys").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.locator(".react-flow__node").first.wait_for()


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
