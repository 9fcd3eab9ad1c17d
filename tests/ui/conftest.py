"""What the tests of pages need: a store of stories, servers of it, and a browser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import chromium
from ui_stories import store_with_stories

from nano_vm.cli import main
from nano_vm.store.protocol import Archive, open_store
from nano_vm.ui.asking import Answers
from nano_vm.ui.forks import Forks
from nano_vm.ui.library import Library, Programs, StoreLibrary
from nano_vm.ui.local import LocalServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a store in which the runs of `ui_stories` are."""
    return store_with_stories(tmp_path_factory.mktemp("stories"))


@pytest.fixture
def store(url: str) -> Iterator[Archive]:
    """That at the *url* of a module's own."""
    found = open_store(url)
    yield found
    found.close()


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

    def start(
        library: Library, answers: Answers | None = None, forks: Forks | None = None
    ) -> LocalServer:
        server = LocalServer(library, Programs(), answers=answers, forks=forks)
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
    """Chromium; begun after the stories, which an event loop of ours runs."""
    with chromium() as found:
        yield found
