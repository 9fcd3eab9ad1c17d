"""Two versions of a program in the pages, on one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import chromium, expect

from .conftest import REFUND, World
from .pages import can_be_read, log_in
from .serving import served

Open = Callable[..., Any]

ASKED = REFUND.replace("name: refund", "name: returns")
CHANGED = (
    ASKED.replace("role: manager", "role: auditor")
    .replace("then: pay", "then: look")
    .replace("otherwise: $end", "otherwise: deny")
    .replace(
        "  - {id: pay, type: tool, tool: pay, args: {order_id: $order_id}}",
        "  - {id: look, type: set, values: {looked: true}, next: again}\n"
        "  - {id: again, type: tool, tool: pay, args: {order_id: $order_id}, next: $end}\n"
        "  - {id: deny, type: set, values: {denied: true}}",
    )
)


@pytest.fixture(scope="module")
def versions(world: World) -> World:
    for source in (ASKED, CHANGED):
        put = world.developer.post("/api/v1/projects/shop/programs", json={"source": source})
        assert put.status_code == 201, put.text
    return world


@pytest.fixture(scope="module")
def browser(built: None, versions: World) -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def address(versions: World, built: None) -> Iterator[str]:
    with served(versions.state) as found:
        yield found


def test_what_changed_stands_on_one_graph_and_in_the_inspector(
    address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/programs/returns")
    log_in(page, "viewer")
    page.get_by_role("link", name="1 and 2").click()

    def box(name: str) -> Any:
        return page.locator(f'.react-flow__node[data-id="{name}"]')

    box("approve").locator(".side-changed").wait_for()
    expect(box("approve")).to_contain_text("changed: role, then, otherwise")
    expect(box("pay").locator(".side-a")).to_have_count(1)
    expect(box("pay")).to_contain_text("only in A")
    for name in ("look", "again", "deny"):
        expect(box(name).locator(".side-b")).to_have_count(1)
        expect(box(name)).to_contain_text("only in B")
    expect(box("$end").locator(".side-same")).to_have_count(1)
    page.get_by_text("5 steps of 5 differ").wait_for()
    detail = page.locator(".detail")
    expect(detail.locator("h2")).to_have_text("approve")  # the first that differs
    expect(detail.locator("section", has_text="role").locator("ins")).to_have_text("auditor")
    page.keyboard.press("n")
    expect(detail.locator("h2")).to_have_text("pay")
    expect(detail).to_contain_text("B does not have it")
    box("deny").get_by_role("button").click()
    expect(detail).to_contain_text("A does not have it")
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").get_by_text("next difference").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="The whole").click()
    written = detail.locator("section", has_text="How they are written")
    written.locator("ins").get_by_text("auditor", exact=True).first.wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 360])
def test_the_page_of_two_versions_can_be_read_by_all(
    address: str, open_page: Open, theme: str, width: int
) -> None:
    page = open_page(f"{address}/projects/shop/#/programs/returns/diff/1/2", width, 900, theme)
    log_in(page, "viewer")
    page.locator('.react-flow__node[data-id="deny"] .side-b').wait_for()
    page.wait_for_timeout(300)  # the canvas settles
    can_be_read(page, "versions", theme, width)
