"""A run is forked in the pages of `nano-vm ui`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from browsing import expect, faults_for_readers
from ui_stories import go_on, host, reject

from nano_vm.store.protocol import open_store
from nano_vm.ui.forks import Forks
from nano_vm.ui.library import StoreLibrary

Open = Callable[..., Any]


def elsewhere(job: Callable[[], Any]) -> Any:
    """What *job* gives, in a thread: in that of the browser no event loop can begin."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(job).result(60)


def test_a_run_is_forked_where_there_is_a_host(serve: Any, open_page: Open, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    elsewhere(lambda: asyncio.run(reject(url)))
    store, vm = open_store(url), host(url)
    try:
        library = StoreLibrary(store)
        server = serve(library, None, Forks(library, vm, "mia"))
        page = open_page(f"{server.address}#/run/refund-2004?step=analyze")
        page.get_by_role("link", name="Fork", exact=True).click()
        page.get_by_text("There is none yet.").wait_for()
        page.get_by_label("Output").fill("yes, it is broken")
        steps = page.get_by_label("What the fork does")
        steps.locator("li", has_text="fetch").get_by_text("calls get_order").wait_for()
        page.get_by_role("button", name="Fork: 1 step taken, calls from fetch on").click()
        page.locator(".title", has_text="Compare with its origin").wait_for()
        page.wait_for_url(re.compile("#/run/(?!refund-2004)"))
        made = page.url.rpartition("/")[2]
        assert store.load(made).submitter == "mia"
        assert elsewhere(lambda: asyncio.run(go_on(url, made))) == "suspended"
        page.locator(".title", has_text="waiting").wait_for()
        page.get_by_role("link", name="Fork", exact=True).click()
        page.get_by_role("link", name="compare").click()
        page.get_by_text("First difference at").wait_for()
        page.locator('.react-flow__node[data-id="approve"] .side-b').wait_for()
    finally:
        vm.close()
        store.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 360])
def test_who_has_no_host_reads_what_to_start(
    serve: Any, stored: StoreLibrary, open_page: Open, theme: str, width: int
) -> None:
    page = open_page(f"{serve(stored).address}#/fork/refund-2001", width, 900, theme)
    page.get_by_role("alert").get_by_text("start it with --as NAME").wait_for()
    expect(page.get_by_role("button", name="Fork", exact=True)).to_be_disabled()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert faults_for_readers(page) == []
