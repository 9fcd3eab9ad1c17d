"""The costs of a project in the pages: summed by what is asked, of the runs that are filtered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import built, chromium, open_page  # noqa: F401 - fixtures

from .conftest import World
from .pages import can_be_read, log_in
from .serving import served
from .test_map import sorted_  # noqa: F401 - a fixture

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser(built: None, sorted_: World) -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 360)])
def test_costs_are_summed_and_filtered(
    sorted_: World, open_page: Open, theme: str, width: int
) -> None:
    with served(sorted_.state) as address:
        page = open_page(f"{address}/projects/shop/#/costs", width, 900, theme)
        log_in(page, "viewer")
        row = page.get_by_role("row", name="sort 10")
        row.wait_for()
        page.get_by_role("button", name="by model").click()
        page.get_by_role("row", name="scripted 10").wait_for()
        assert page.url.endswith("#/costs?by=model")
        field = page.get_by_label("Of which runs")
        field.fill("by:nobody since:7d")
        field.press("Enter")
        page.get_by_text("No run like this has called a model").wait_for()
        field.fill("by:developer status:failed")
        field.press("Enter")
        page.get_by_role("alert").get_by_text("costs are not filtered by status").wait_for()
        field.fill("by:developer")
        field.press("Enter")
        page.get_by_role("row", name="scripted 10").wait_for()
        page.keyboard.press("Escape")
        page.locator("h1").click()  # out of the field, in which it is a character
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Keys").get_by_text("Ctrl K").wait_for()
        can_be_read(page, "costs-keys", theme, width)
        page.keyboard.press("Escape")
        can_be_read(page, "costs-filtered", theme, width)
