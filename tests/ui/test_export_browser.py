"""The exported file in a browser: it opens from disk, shows the path, and runs nothing that it shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browsing import expect, load

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
    expect(page.locator(".title")).to_contain_text("failed")
    expect(page.locator(".reason")).to_contain_text("payment gateway timed out")
    # what failed is selected, in sight, and told
    node(page, "refund").locator(".box.selected.state-failed").wait_for()
    expect(page.locator(".detail")).to_contain_text("GatewayDown")
    expect(page.locator(".attempts li")).to_have_count(2)
    expect(node(page, "reject").locator(".state-untaken")).to_have_count(1)
    expect(page.locator(".arrow.untaken").nth(2)).to_be_attached()
    expect(page.locator(".arrow.taken")).to_have_count(9)  # none in the item that failed
    # the map, brought into sight by its row, is one box with a cell for each item; a click looks inside the item
    row(page, "score").click()
    expect(node(page, "score").locator(".cell")).to_have_count(20)
    expect(node(page, "score").locator(".cell.state-failed")).to_have_count(1)
    expect(node(page, "score/price").locator(".state-failed")).to_have_count(1)
    node(page, "score").locator(".cell").nth(17).click()
    expect(node(page, "score/price").locator(".state-done")).to_have_count(1)
    expect(node(page, "score/high/flag").locator(".state-done")).to_have_count(1)
    expect(node(page, "score/high/pass").locator(".state-untaken")).to_have_count(1)
    # the loop shows its turns
    expect(node(page, "draft").locator(".turn")).to_have_count(4)


def test_why_this_path_and_where_a_name_comes_from(exported: Export, open_page: Open) -> None:
    page = open_page(exported("refund-2001").as_uri())
    row(page, "guard").click()
    box = node(page, "guard").locator(".box-main")
    expect(box).to_have_attribute("aria-pressed", "true")
    detail = page.locator(".detail")
    why = detail.locator("section", has_text="Why this path")
    expect(why).to_contain_text("'yes' in '$analyze.output'.lower()")
    expect(why).to_contain_text("Yes - damaged goods")
    expect(why.locator(".result")).to_contain_text("then")
    why.get_by_role("button", name="$analyze.output").first.click()
    expect(node(page, "analyze").locator(".lit-writer")).to_have_count(1)
    expect(node(page, "guard").locator(".lit-reader")).to_have_count(1)
    expect(page.locator(".row.lit-writer")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".lit-writer")).to_have_count(0)
    node(page, "analyze").locator(".box-main").click()
    expect(detail).to_contain_text("Does this customer report damaged goods? The TV")
    expect(detail).to_contain_text("401 in + 30 out = 431")
    expect(detail).to_contain_text("$0.000078")


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
    expect(page.locator(".main .row.selected")).to_have_text(re.compile("^price"))
    page.keyboard.press("t")
    expect(page.locator(".timeline .bar").nth(10)).to_be_attached()
    page.keyboard.press("g")
    expect(page.locator(".react-flow__node").nth(10)).to_be_attached()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()


def test_hostile_text_is_text(exported: Export, open_page: Open) -> None:
    file = exported("refund-2005").as_uri()
    page = open_page(file)
    for key in "glt":
        load(page, file)
        page.keyboard.press(key)
        for step in ("approve", "analyze"):
            page.locator(".row:visible", has_text=step).first.click()
            detail = expect(page.locator(".detail"))
            detail.to_contain_text("<script>window.hacked=1</script>", use_inner_text=True)
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0
        assert page.locator("a[href^='javascript']").count() == 0
        # what reorders or hides text is told as its code point, wherever it is shown
        expect(page.locator(".hidden-char", has_text="U+202E").nth(0)).to_be_attached()
        assert "\u202e" not in page.locator("body").inner_text()


def test_a_redacted_file_shows_the_path_alone(exported: Export, open_page: Open) -> None:
    file = exported("refund-2003", "--redact")
    assert "gateway" not in file.read_text()
    page = open_page(file.as_uri())
    expect(node(page, "refund").locator(".state-failed")).to_have_count(1)
    expect(page.locator(".reason")).to_contain_text("[redacted]")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(
    exported: Export, open_page: Open, theme: str
) -> None:
    page = open_page(exported("refund-2002").as_uri(), 360, 740, theme)
    for tab in ("Steps", "Graph", "Details"):
        page.get_by_role("button", name=tab, exact=True).click()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360
    expect(page.locator(".detail")).to_contain_text("A-2002")
    expect(page.locator(".detail")).to_contain_text("149.9")
