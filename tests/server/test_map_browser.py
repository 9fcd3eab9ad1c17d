"""The path map in the pages: shares on the graph, and the ways that no run took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import chromium, expect

from .conftest import World
from .pages import can_be_read, log_in
from .serving import served
from .test_map import sorted_  # noqa: F401 - a fixture

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser(built: None, sorted_: World) -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 360])
def test_the_map_shows_shares_and_what_was_never_tried(
    sorted_: World,
    open_page: Open,
    theme: str,
    width: int,
) -> None:
    with served(sorted_.state) as address:
        page = open_page(f"{address}/projects/shop/#/programs/sort", width, 900, theme)
        log_in(page, "viewer")
        page.get_by_role("link", name="Path map").click()
        page.get_by_text("the last 10 runs").wait_for()
        page.locator(".arrow-label", has_text="70 %").first.wait_for()
        never = page.locator("section", has_text="Ways that no run took")
        ways = ["never kind → ask (odd)", "never refund → ask (on *)"]
        expect(never.locator("li")).to_have_text(ways, use_inner_text=True)
        can_be_read(page, "map", theme, width)
