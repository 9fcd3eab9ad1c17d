"""The server of the installed wheel, in a browser: it serves its own pages, and a refund in them goes
from the first account to its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import chromium

from .conftest import PASSWORD, REFUND
from .pages import log_in
from .test_processes import FIRST, SERVE, running

ROOT = Path(__file__).parents[2]

TOOLS = """
from nano_vm import tool

@tool(effect="irreversible")
async def pay(order_id: str) -> str:
    return f"paid {order_id}"

tools = {"pay": pay}
"""


@pytest.fixture(scope="module")
def installed(built: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has installed the wheel of this tree, with nothing of a network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-compile"]
    command = [*pip, "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return target


@pytest.fixture(scope="module")
def browser(built: None) -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.slow
def test_a_refund_on_the_server_of_the_installed_wheel(
    installed: Path, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(TOOLS)
    env = {"PYTHONPATH": str(installed)}
    where = subprocess.run(
        [sys.executable, "-c", "import nano_vm, nano_vm.server; print(nano_vm.server.__file__)"],
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(installed)
    command = [sys.executable, str(installed / "bin" / "nano-vm"), *SERVE]
    command += ["--with-worker", "--tools", "shop.py:tools"]
    with running(command, tmp_path, FIRST, **env) as found:
        address, token = found[1], found[2]
        page = open_page(f"{address}/#/setup/{token}")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Make the account").click()
        page.locator(".team-bar", has_text="ada").wait_for()
        prepare(address)

        page.get_by_role("link", name="Programs").click()
        page.get_by_role("link", name="refund").click()
        page.get_by_label("order_id").fill("B-7")
        page.get_by_label("amount").fill("12")
        page.get_by_role("button", name="Start").click()
        page.locator(".title", has_text="waiting").wait_for()

        manager = open_page(address)
        log_in(manager, "max")
        manager.get_by_role("link", name="Inbox").click()
        manager.locator(".asked", has_text="B-7").get_by_role("button").first.click()
        manager.locator(".question").get_by_role("button", name="Approve").click()
        manager.get_by_text("Approved, for run").wait_for()

        page.locator(".title", has_text="done").wait_for()
        page.get_by_role("button", name="Verify").click()
        page.get_by_text("identical").wait_for()


def prepare(address: str) -> None:
    """A program in the first project, and somebody who approves there."""
    with httpx.Client(base_url=f"{address}/api/v1/", headers={"origin": address}) as ada:
        ada.post("login", json={"name": "ada", "password": PASSWORD}).raise_for_status()
        ada.post("users", json={"name": "max", "password": PASSWORD}).raise_for_status()
        role = {"role": "operator", "approves": ["manager"]}
        ada.put("projects/default/members/max", json=role).raise_for_status()
        ada.post("projects/default/programs", json={"source": REFUND}).raise_for_status()
