"""Take the pictures of the pages of a server that docs/ and README show, from the real pages: the
refund of the examples in a project with a policy, driven by a scripted model.

    python scripts/screens.py [FOLDER]     # default: docs/screens; wants the built pages and Chromium

Whoever changes a page takes them again. A test sees that all of them can still be taken, by name and
size; it does not compare what they show.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from chromium import program
from loading import ROOT, loaded
from server.serving import served

from nano_vm import ExecutionVM
from nano_vm.client import Client
from nano_vm.server.state import State
from nano_vm.store.protocol import open_tables
from nano_vm.testing import ScriptedLLM

SCREENS = ROOT / "docs" / "screens"

PASSWORD = "a password for pictures"
POLICY = "tools:\n  issue_refund: {approval: manager, max_calls: 1}\n"
WIDTH, HEIGHT = 1280, 800

CUSTOMERS = (
    ("A-1001", "The blender arrived broken, I want my money back"),
    ("A-1002", "Thanks, works well!"),
    ("A-1001", "It makes a terrible noise and smells of smoke, please refund me"),
    ("A-1002", "My daughter loves it"),
    ("A-1001", "Wrong colour and scratched. I am not happy at all."),
)

FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run".split()


def answer(messages: Any, **_: Any) -> str:
    """What the scripted model thinks of a customer."""
    words = messages[-1]["content"].lower()
    return "unhappy" if any(word in words for word in ("broken", "noise", "wrong")) else "happy"


def host(tools: dict[str, Any], **more: Any) -> ExecutionVM:
    """A worker of the project."""
    return ExecutionVM(ScriptedLLM(answer), tools, prices={"scripted": (0.3, 1.2)}, **more)


def work(state: State, tools: dict[str, Any]) -> None:
    """Drive what is to be driven."""
    vm = host(tools, store=state.store)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(lambda: asyncio.run(vm.work(until_idle=True))).result(60)


def take(folder: Path) -> list[str]:
    """Take all pictures into *folder*; their names."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    made = loaded("scripts/demo_server.py")
    with tempfile.TemporaryDirectory() as place:
        tools = made.tools(Path(place))
        store = open_tables(f"sqlite:///{place}/runs.db")
        state = State(store, b"a secret of pictures, 32 bytes..", vm=host(tools))
        made.seed(state, state.vm, PASSWORD)
        with served(state) as address:
            runs = prepared(state, tools, address)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=program(), args=FLAGS)
                names = pictures(browser, f"{address}/projects/{made.PROJECT}/", runs, folder)
                browser.close()
        store.close()
    return names


def prepared(state: State, tools: dict[str, Any], address: str) -> list[str]:
    """Runs of the project; the first waits for a manager. A policy is in force then."""
    import httpx

    api = f"{address}/api/v1"
    headers = {"origin": address}
    with httpx.Client(headers=headers) as ada:
        ada.post(f"{api}/login", json={"name": "ada", "password": PASSWORD}).raise_for_status()
        key = ada.post(
            f"{api}/projects/shop/keys", json={"name": "pictures", "role": "admin"}
        ).json()["key"]
        ada.post(f"{api}/projects/shop/policies", json={"source": POLICY}).raise_for_status()
    with Client(address, key=key, project="shop") as server:
        runs = [
            server.start(
                "refund_with_approval",
                {"order_id": order, "user_input": said},
                labels={"team": "returns"},
            )
            for order, said in CUSTOMERS
        ]
    work(state, tools)
    return runs


def pictures(browser: Any, pages: str, runs: list[str], folder: Path) -> list[str]:
    """Visit each page, and take its picture."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.set_default_timeout(20_000)
    names = []

    def picture(name: str) -> None:
        page.mouse.move(0, 0)
        page.wait_for_timeout(400)  # what moves has come to rest
        page.screenshot(path=folder / f"{name}.png")
        names.append(f"{name}.png")

    page.goto(f"{pages}#/run/{runs[0]}?step=manager")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in", exact=True).click()
    page.locator(".box.selected", has_text="manager").wait_for()
    picture("run")
    page.goto(f"{pages}#/inbox")
    page.locator(".question").wait_for()
    picture("inbox")
    page.goto(f"{pages}#/fork/{runs[0]}?step=analyze")
    page.get_by_label("Output").fill("happy")
    page.get_by_text("takes its record").first.wait_for()
    page.get_by_text("calls answer_politely").wait_for()
    picture("fork")
    page.goto(f"{pages}#/programs/refund_with_approval/map")
    page.locator(".arrow-label", has_text="%").first.wait_for()
    picture("map")
    page.goto(f"{pages}#/programs/refund_with_approval/edit")
    page.get_by_text("under policy 1").wait_for()
    text = (ROOT / "examples/refund-approval.yaml").read_text(encoding="utf-8")
    page.get_by_label("Program", exact=True).click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text.replace("    next: manager\n", "    next: refund\n"))
    page.get_by_role("button", name="show the run that breaks it").first.click()
    page.get_by_label("Counterexample").wait_for()
    picture("editor")
    return names


if __name__ == "__main__":
    for taken in take(Path(sys.argv[1]) if len(sys.argv) > 1 else SCREENS):
        print(taken)
