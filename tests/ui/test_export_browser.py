"""The exported file in a browser: it opens from disk, shows the path, and runs nothing that it shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browsing import load

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[..., Any]
Export = Callable[..., Path]


def node(page: Page, box: str) -> Any:
    return page.locator(f'.react-flow__node[data-id="{box}"]')


def row(page: Page, name: str) -> Any:
    return page.locator(".steps .row", has=page.get_by_text(name, exact=True))


def test_the_path_of_a_run_is_drawn_on_its_program(exported: Export, open_page: Open) -> None:
    page = open_page(exported("refund-2003").as_uri())
    assert "failed" in page.locator(".title").inner_text()
    assert "payment gateway timed out" in page.locator(".reason").inner_text()
    # what failed is selected, in sight, and told
    assert node(page, "refund").locator(".box.selected.state-failed").is_visible()
    assert "GatewayDown" in page.locator(".detail").inner_text()
    assert page.locator(".attempts li").count() == 2
    assert node(page, "reject").locator(".state-untaken").count() == 1
    assert page.locator(".arrow.untaken").count() >= 3
    assert page.locator(".arrow.taken").count() == 9  # none in the item that failed
    # the map, brought into sight by its row, is one box with a cell for each item; a click looks inside the item
    row(page, "score").click()
    assert node(page, "score").locator(".cell").count() == 20
    assert node(page, "score").locator(".cell.state-failed").count() == 1
    assert node(page, "score/price").locator(".state-failed").count() == 1
    node(page, "score").locator(".cell").nth(17).click()
    assert node(page, "score/price").locator(".state-done").count() == 1
    assert node(page, "score/high/flag").locator(".state-done").count() == 1
    assert node(page, "score/high/pass").locator(".state-untaken").count() == 1
    # the loop shows its turns
    assert node(page, "draft").locator(".turn").count() == 4


def test_why_this_path_and_where_a_name_comes_from(exported: Export, open_page: Open) -> None:
    page = open_page(exported("refund-2001").as_uri())
    row(page, "guard").click()
    box = node(page, "guard").locator(".box-main")
    assert box.get_attribute("aria-pressed") == "true"
    detail = page.locator(".detail")
    why = detail.locator("section", has_text="Why this path")
    assert "'yes' in '$analyze.output'.lower()" in why.inner_text()
    assert "Yes - damaged goods" in why.inner_text()
    assert "then" in why.locator(".result").inner_text()
    why.get_by_role("button", name="$analyze.output").first.click()
    assert node(page, "analyze").locator(".lit-writer").count() == 1
    assert node(page, "guard").locator(".lit-reader").count() == 1
    assert page.locator(".row.lit-writer").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".lit-writer").count() == 0
    node(page, "analyze").locator(".box-main").click()
    assert "Does this customer report damaged goods? The TV" in detail.inner_text()
    assert "401 in + 30 out = 431" in detail.inner_text()
    assert "$0.000078" in detail.inner_text()


def test_keys(exported: Export, open_page: Open) -> None:
    page = open_page(exported("refund-2001").as_uri())
    page.keyboard.press("l")
    page.wait_for_url("**view=l*")  # that of the page is known a moment later than it is set
    page.keyboard.press("j")
    page.wait_for_url("**step=analyze*")
    page.keyboard.press("j")
    page.wait_for_url("**step=guard*")
    page.keyboard.press("k")
    page.wait_for_url("**step=analyze*")
    page.keyboard.press("e")
    assert page.locator(".main .row.selected").inner_text().startswith("price")
    page.keyboard.press("t")
    assert page.locator(".timeline .bar").count() > 10
    page.keyboard.press("g")
    assert page.locator(".react-flow__node").count() > 10
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()


def test_hostile_text_is_text(exported: Export, open_page: Open) -> None:
    file = exported("refund-2005").as_uri()
    page = open_page(file)
    for key in "glt":
        load(page, file)
        page.keyboard.press(key)
        for step in ("approve", "analyze"):
            page.locator(".row:visible", has_text=step).first.click()
            shown = page.locator(".detail").inner_text()
            assert "<script>window.hacked=1</script>" in shown
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0
        assert page.locator("a[href^='javascript']").count() == 0
        # what reorders or hides text is told as its code point, wherever it is shown
        assert page.locator(".hidden-char", has_text="U+202E").count() > 0
        assert "\u202e" not in page.locator("body").inner_text()


def test_a_redacted_file_shows_the_path_alone(exported: Export, open_page: Open) -> None:
    file = exported("refund-2003", "--redact")
    assert "gateway" not in file.read_text()
    page = open_page(file.as_uri())
    assert node(page, "refund").locator(".state-failed").count() == 1
    assert "[redacted]" in page.locator(".reason").inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(
    exported: Export, open_page: Open, theme: str
) -> None:
    page = open_page(exported("refund-2002").as_uri(), 360, 740, theme)
    for tab in ("Steps", "Graph", "Details"):
        page.get_by_role("button", name=tab, exact=True).click()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360
    assert "A-2002" in page.locator(".detail").inner_text()
    assert "149.9" in page.locator(".detail").inner_text()
