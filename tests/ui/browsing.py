"""A browser for tests of pages: a Chromium of the machine; Playwright brings none.

It goes with its module: while it runs, no event loop of ours can begin in this thread.

What an action brings about comes a moment later, on a busy machine a long one: after one, a test
waits for it, with `expect` or with `wait_for` of what was not there before. `count()` and
`inner_text()` look once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chromium import program

from nano_vm.ui.page import DIST

if TYPE_CHECKING:
    from playwright.sync_api import Browser, LocatorAssertions, Page, Route

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()

PATIENCE_MS = 20_000
"""How long a page may take on a machine that runs other tests beside."""

AXE = Path(__file__).parents[2] / "ui" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="session")
def built() -> None:
    """The pages, which `make ui` builds."""
    if not (DIST / "index.html").exists():
        pytest.skip("the pages are not built: make ui (wants npm)")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, without a window."""
    path = program()
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium-headless-shell")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens an address in a window of a size and a theme; at the end nothing must have gone wrong
    in it, and nothing must have been asked of a network.
    """
    faults: list[str] = []
    contexts: list[Any] = []

    def open_(address: str, width: int = 1440, height: int = 900, theme: Any = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on(
            "console",
            # that a server refuses, the page itself has to tell
            lambda said: (
                faults.append(f"console: {said.text}")
                if said.type == "error" and "Failed to load resource" not in said.text
                else None
            ),
        )
        page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith(("file:", "data:", "http://127.0.0.1:"))
                else faults.append(f"asked for {asked.url}")
            ),
        )
        load(page, address)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []


def load(page: Any, address: str) -> None:
    """Load what is at *address* anew, also where only the part after ``#`` is another. In a window
    that is open it takes a third of the time of another window.
    """
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector(".top, .message")


def expect(part: Any) -> LocatorAssertions:
    """What a part of a page is to come to, or a number of them."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    return expect(part)


class Held:
    """The requests of a page that a test answers when it likes: those to an address, by *method*
    alone where one is given.
    """

    def __init__(self, page: Page, address: str, method: str | None = None) -> None:
        self.page, self.method = page, method
        self.routes: list[Route] = []
        page.route(address, self._keep)

    def _keep(self, route: Route) -> None:
        if self.method in (None, route.request.method):
            self.routes.append(route)
        else:
            route.continue_()

    def first(self) -> Route:
        """The first of them, as soon as the page has sent it."""
        until = time.monotonic() + PATIENCE_MS / 1000
        while not self.routes:
            assert time.monotonic() < until, "the page asks for nothing"
            self.page.wait_for_timeout(10)
        return self.routes[0]


def faults_for_readers(page: Any) -> list[Any]:
    """What axe finds in a page: what some people could not read or use."""
    if not page.evaluate("'axe' in window"):  # it stays while the part after `#` changes
        page.evaluate(f"{AXE.read_text()}; null")
    # all rules are tried; what passes is not written out, which takes four times as long as trying
    run = "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)"
    return [
        (fault["id"], node["target"], node["failureSummary"])
        for fault in page.evaluate(run)
        for node in fault["nodes"]
    ]
