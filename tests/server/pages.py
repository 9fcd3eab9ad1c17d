"""What tests of a server's pages do in each of them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from browsing import faults_for_readers

from .conftest import PASSWORD

WIDER = """
[...document.querySelectorAll("main, aside")]
  .filter((part) => part.scrollWidth > part.clientWidth)
  .map((part) => `${part.tagName} ${part.className}: ${part.scrollWidth}`)
"""
"""Parts of a page that are wider than they stand in it: only tables and texts scroll sideways."""

PICTURES = os.environ.get("NANO_VM_SCREENSHOTS")


def log_in(page: Any, name: str, password: str = PASSWORD) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in", exact=True).click()
    # the page goes on to a project by itself: what a test puts in its way before would be lost
    page.locator(".team:has(> .team-bar):not(:has(> main[aria-busy=true]))").wait_for()


def row(page: Any, *cells: str) -> Any:
    """The row of a table that has *cells* in this order; on a phone what each is stands before it."""
    return page.get_by_role("row", name=re.compile(r"\s(.*\s)?".join(map(re.escape, cells))))


def can_be_read(page: Any, name: str, theme: str, width: int) -> None:
    """Raises unless the page fits its width and axe finds nothing; with a picture, if they are
    wanted.
    """
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"team-{name}-{theme}-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    assert page.evaluate(WIDER) == [], name
    faults = faults_for_readers(page)
    assert faults == [], (name, faults)
