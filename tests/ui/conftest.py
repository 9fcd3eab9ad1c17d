"""What the tests of pages need: a store of stories, the built pages, and a browser.

The browser is Debian's Chromium, or what else is called so; Playwright brings none. It goes with
its module: while it runs, no event loop of ours can begin in this process.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ui_stories import store_with_stories

from nano_vm.cli import main
from nano_vm.store.protocol import open_store
from nano_vm.ui.asking import Answers
from nano_vm.ui.library import Library, Programs, StoreLibrary
from nano_vm.ui.local import LocalServer
from nano_vm.ui.page import DIST

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a store in which the runs of `ui_stories` are."""
    return store_with_stories(tmp_path_factory.mktemp("stories"))


@pytest.fixture(scope="session")
def built() -> None:
    """The pages, which `make ui` builds."""
    if not (DIST / "index.html").exists():
        pytest.skip("the pages are not built: make ui (wants npm)")


@pytest.fixture(scope="session")
def exported(
    stories: str, built: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The file of a run of the stories."""
    folder = tmp_path_factory.mktemp("exported")

    def export(run_id: str, *options: str) -> Path:
        file = folder / f"{run_id}{''.join(options)}.html"
        assert main(["export", run_id, "--store", stories, "-o", str(file), *options]) == 0
        return file

    return export


@pytest.fixture
def serve(built: None) -> Iterator[Callable[..., LocalServer]]:
    """Starts a server of a library on a port of its own."""
    servers: list[LocalServer] = []

    def start(library: Library, answers: Answers | None = None) -> LocalServer:
        server = LocalServer(library, Programs(), answers=answers)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def stored(stories: str) -> Iterator[StoreLibrary]:
    """The runs of the stories, as `nano-vm ui` opens them."""
    store = open_store(stories, read_only=True)
    yield StoreLibrary(store)
    store.close()


@pytest.fixture(scope="module")
def browser(built: None, stories: str) -> Iterator[Browser]:
    """Chromium, without a window; begun after the stories, which an event loop of ours runs."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=FLAGS)
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
        page.set_default_timeout(20_000)  # of a machine that runs other tests beside
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
        page.goto(address)
        page.wait_for_selector(".top, .message")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []
