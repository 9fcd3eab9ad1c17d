"""What the pages take in a browser: from the address of a run to its first paint, of 50 steps and of
10,000, until the graph is drawn, and whether the list of those scrolls without stalls. Each time a
fresh window of the machine's Chromium, on the local server of `nano-vm ui`; medians. The first time
that a server shows a large program it makes its graph, after what its run did is shown.

    python benchmarks/pages.py [--rounds 5] [--write]     # wants the built pages
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import chromium

from nano_vm import ExecutionVM, Program
from nano_vm.cli import main as export
from nano_vm.store.protocol import open_store
from nano_vm.ui.library import Programs, StoreLibrary
from nano_vm.ui.local import LocalServer

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "page-benchmarks.md"

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

SHORT, LONG, DRAWN, WIDE = "of-50", "of-10000", "of-10000-drawn", "of-5000-items"

GRAPH, LIST = ".react-flow__node", ".main .row"
"""What is looked for in a page."""

FRAMES, PIXELS = 120, 700
"""Of a scroll: so many frames, each so many pixels further."""

STALL_MS = 200
"""A frame that takes longer is seen as one: a fifth of a second, twice what feels immediate."""

# what is looked for is drawn in the frame after it is in the document
WATCH = """
new MutationObserver((_, observer) => {
  if (document.querySelector("SELECTOR") === null) return;
  observer.disconnect();
  requestAnimationFrame(() => requestAnimationFrame(() => {
    window.paintedAt = performance.now();
  }));
}).observe(document, { childList: true, subtree: true });
"""

SCROLL = """
async ([frames, pixels]) => {
  const list = document.querySelector(".main .rows");
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let i = 0; i < frames; i++) {
    list.scrollTop += pixels;
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  return [took, list.scrollTop];
}
"""


class Place(NamedTuple):
    """What is opened, what is looked for in it, and the bar in seconds, if there is one; ``once`` it
    counts the first time only, after the server has begun.
    """

    what: str
    address: str
    looked_for: str
    bar: int | None
    once: bool = False


class Line(NamedTuple):
    """What was measured, its time, what page and server took of a processor, and the bar."""

    what: str
    took: str
    processor: str
    bar: str


def main() -> None:
    """Print the table; with ``--write`` also the page of the documentation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/runs.db"
        record(url)
        file = Path(folder) / "run.html"
        assert export(["export", LONG, "--store", url, "-o", str(file)]) == 0
        with served(url) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium.program(), args=FLAGS)
            lines = measured(browser, address, file.as_uri(), given.rounds)
            browser.close()
    for line in lines:
        print("{:60} {:>26} {:>10}   {}".format(*line))
    if given.write:
        PAGE.write_text(page_of(lines), encoding="utf-8")


def record(url: str) -> None:
    """The runs that are shown."""
    vm = ExecutionVM(store=url)
    for run_id, count in ((SHORT, 50), (LONG, 10_000), (DRAWN, 10_000)):
        steps = [{"id": f"s{n}", "type": "set", "values": {f"v{n}": n}} for n in range(count)]
        vm.run_sync(Program.from_dict({"name": run_id, "steps": steps}), {}, run_id=run_id)
    inner = [
        {"id": "a", "type": "set", "values": {"x": "$item"}},
        {"id": "b", "type": "set", "values": {"y": "$x"}},
    ]
    each = {"id": "each", "type": "map", "over": "$items", "as": "item", "max_items": 5_000}
    program = {"name": "items", "steps": [{**each, "steps": inner}]}
    vm.run_sync(Program.from_dict(program), {"items": list(range(5_000))}, run_id=WIDE)
    vm.close()


@contextmanager
def served(url: str) -> Iterator[str]:
    """The address of the pages of a store."""
    store = open_store(url, read_only=True)
    with LocalServer(StoreLibrary(store), Programs()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.address
        server.shutdown()
    store.close()


def measured(browser: Browser, address: str, file: str, rounds: int) -> list[Line]:
    """Each paint in turn, and the scroll of the longest list."""
    long, graph = "a run of 10,000 steps in a row", f"{address}#/run/{DRAWN}?view=g"
    places = [
        Place(f"{long}, its list, the first time", f"{address}#/run/{LONG}", LIST, 2, once=True),
        Place(f"{long}, its graph, the first time", graph, GRAPH, None, once=True),
        Place("a run of 50 steps, its graph", f"{address}#/run/{SHORT}?view=g", GRAPH, 1),
        Place(f"{long}, its list", f"{address}#/run/{LONG}", LIST, 2),
        Place(f"{long}, its graph", graph, GRAPH, 2),
        Place(f"{long}, its list, exported", file, LIST, 2),
        Place("a run of 5,000 items of two steps, its graph", f"{address}#/run/{WIDE}", GRAPH, 2),
    ]
    found: dict[str, list[tuple[float, float]]] = {place.what: [] for place in places}
    with opened(browser, f"{address}#/run/{SHORT}", LIST):
        pass  # the program of the page and the server's modules are loaded
    for number in range(rounds):
        for place in places:
            if place.once and number:
                continue
            before = time.process_time()
            with opened(browser, place.address, place.looked_for) as (page, session):
                painted, thread = page.evaluate("window.paintedAt"), processor_ms(session)
            found[place.what].append((painted, thread + (time.process_time() - before) * 1e3))
    lines = []
    for place in places:
        took, processor = (statistics.median(part) for part in zip(*found[place.what], strict=True))
        lines.append(line_of(place, took, processor))
    return [*lines, scrolled(browser, f"{address}#/run/{LONG}?view=l")]


def line_of(place: Place, took: float, processor: float) -> Line:
    """A paint, held against its bar."""
    bar = "-"
    if place.bar is not None:
        bar = f"at most {place.bar} s" + ("" if took <= place.bar * 1e3 else ": missed")
    return Line(place.what, f"{took:,.0f} ms", f"{processor:,.0f} ms", bar)


@contextmanager
def opened(browser: Browser, address: str, looked_for: str) -> Iterator[tuple[Page, CDPSession]]:
    """A page in a window of its own, once what is *looked_for* is painted."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.add_init_script(WATCH.replace("SELECTOR", looked_for))
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(address)
    page.locator(looked_for).first.wait_for(timeout=120_000)
    # the page's policy lets Playwright not wait in it
    while page.evaluate("window.paintedAt === undefined"):
        time.sleep(0.01)
    yield page, session
    context.close()


def processor_ms(session: CDPSession) -> float:
    """What the thread of a page has taken of a processor."""
    metrics: list[Any] = session.send("Performance.getMetrics")["metrics"]
    (found,) = (one["value"] for one in metrics if one["name"] == "TaskDuration")
    return float(found) * 1e3


def scrolled(browser: Browser, address: str) -> Line:
    """Frames of a list that is scrolled from its beginning on."""
    with opened(browser, address, LIST) as (page, session):
        before = processor_ms(session)
        took, reached = page.evaluate(SCROLL, [FRAMES, PIXELS])
        processor = (processor_ms(session) - before) / FRAMES
    assert reached > FRAMES * PIXELS * 0.9, "the list is shorter than the scroll"
    stalls = sum(frame > STALL_MS for frame in took)
    p95 = statistics.quantiles(took, n=20)[-1]
    return Line(
        "a frame of the list of 10,000 that is scrolled",
        f"p95 {p95:,.0f}, at most {max(took):,.0f} ms",
        f"{processor:,.1f} ms",
        "no stall" + (f": {stalls} of {FRAMES} frames" if stalls else ""),
    )


def page_of(lines: Sequence[Line]) -> str:
    """The page of the documentation."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        "# What the pages cost\n\n"
        "<!-- written by benchmarks/pages.py --write; do not edit -->\n"
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores,\nCPython {platform.python_version()}, load average {load}; "
        "Chromium without a graphics card. Medians, from the\naddress to the frame in which the "
        "steps are drawn, and what the thread of the page and the\nserver took of a processor for "
        "it.\n\n"
        "| what | takes | of a processor | bar |\n|---|---|---|---|\n"
        f"{rows}\n\n"
        "On a machine that has much else to do, a time is above all that of waiting for a "
        "processor.\n"
    )


if __name__ == "__main__":
    main()
