"""Look at the site in a browser, as `make docs` built it: nothing is asked of another host, nothing
is wider than a telephone, the search finds, and axe finds no barrier; in light and dark.

Needs a Chromium of the machine, and axe from ``ui/node_modules``.
"""

from __future__ import annotations

import functools
import http.server
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as NotFoundInTime

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from chromium import program

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
AXE = ROOT / "ui" / "node_modules" / "axe-core" / "axe.min.js"

PAGES = (
    "index",
    "tutorial",
    "how-to/durable",
    "reference/language",
    "reference/steps/llm",
    "reference/api/vm",
    "reference/cli/run",
    "reference/diagnostics/index",
    "reference/diagnostics/V003",
    "explanation/guarantees",
)
FORMS = (("light", 1280), ("dark", 1280), ("light", 360))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """The files of the site, without a log."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served() -> Iterator[str]:
    """The address of the site on this machine."""
    handler = functools.partial(Quiet, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def barriers(page: Page) -> Iterator[str]:
    """What axe finds."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    for found in page.evaluate("axe.run(document)")["violations"]:
        nodes = [str(node["target"][0]) for node in found["nodes"][:3]]
        yield f"{found['id']}: {found['help']}: {', '.join(nodes)}"


def faults(browser: Browser, home: str, scheme: str, width: int) -> Iterator[str]:
    """What is wrong with the pages in one form."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((home, "data:", "blob:")) else said.append(request.url)
        ),
    )
    for name in PAGES:
        page.goto(f"{home}/{name}.html")
        wide = page.evaluate("document.documentElement.scrollWidth")
        found = [*barriers(page), *said, *([f"{wide} pixels wide"] if wide > width else [])]
        yield from (f"{name}, {scheme}, {width}: {fault}" for fault in found)
        said.clear()
    context.close()


def search_faults(browser: Browser, home: str) -> Iterator[str]:
    """What is wrong with the search."""
    page = browser.new_page()
    page.goto(f"{home}/index.html", wait_until="networkidle")
    page.keyboard.press("Control+k")
    page.keyboard.type("V003", delay=20)
    try:
        page.get_by_text("to a step that does not exist").first.wait_for()
    except NotFoundInTime as error:
        yield f"the search does not find V003: {error}"


def main() -> int:
    """The exit code: 1 where something is wrong."""
    chromium = program()
    if chromium is None or not AXE.exists():
        print("look.py: no Chromium or no axe here, so nobody looked at the site", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0  # what nobody looked at has not passed
    with served() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        found = [fault for scheme, width in FORMS for fault in faults(browser, home, scheme, width)]
        found += search_faults(browser, home)
        browser.close()
    for fault in found:
        print(fault)
    print(f"looked at {len(PAGES)} pages in {len(FORMS)} forms")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
