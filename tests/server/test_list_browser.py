"""The list of runs in the pages: views that are kept, the last days, several runs cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import Held, chromium, expect, faults_for_readers

from .conftest import World
from .pages import can_be_read, log_in
from .serving import served

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def shop(world: World) -> World:
    for name in ("one", "two", "three"):
        world.start(run_id=name, labels={"team": "blue" if name == "one" else "red"})
    return world


@pytest.fixture(scope="module")
def browser(built: None, shop: World) -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def address(shop: World, built: None) -> Iterator[str]:
    with served(shop.state) as found:
        yield found


def test_a_view_is_kept_chosen_and_removed(shop: World, address: str, open_page: Open) -> None:
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "viewer")
    page.get_by_label("Filter runs").fill("label:team=blue")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Keep as a view").click()
    page.get_by_label("Name of the view").fill("Team blue")
    page.get_by_role("button", name="Keep", exact=True).click()
    page.get_by_label("View", exact=True).select_option("")
    page.get_by_role("link", name="two", exact=True).wait_for()
    page.get_by_label("View", exact=True).select_option("Team blue")
    page.get_by_role("link", name="two", exact=True).wait_for(state="detached")
    page.wait_for_url("**label%3Ateam%3Dblue*")
    page.get_by_role("button", name="Remove view").click()
    page.get_by_role("button", name="Keep as a view").wait_for()
    assert shop.viewer.get("/api/v1/projects/shop/views").json() == {"views": []}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 360])
def test_the_list_can_be_read_by_all(
    shop: World, address: str, open_page: Open, theme: str, width: int
) -> None:
    query = {"query": "label:team=red"}
    assert shop.operator.put("/api/v1/projects/shop/views/red", json=query).is_success
    page = open_page(f"{address}/projects/shop/#/?q=label%3Ateam%3Dred", width, 900, theme)
    log_in(page, "operator")
    page.get_by_label("2 runs in 14 days, 0 failed").wait_for()
    page.get_by_label("View", exact=True).wait_for()
    page.get_by_label("Pick two").check()
    page.get_by_label("Pick three").check()
    page.get_by_role("button", name="Cancel 2 runs…").click()
    can_be_read(page, "runs", theme, width)
    page.get_by_role("button", name="Let them run").click()
    page.get_by_role("button", name="Cancel 2 runs…").wait_for()


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 360)])
def test_runs_are_searched_for_what_was_said(
    shop: World, address: str, open_page: Open, theme: str, width: int
) -> None:
    page = open_page(f"{address}/projects/shop/#/", width, 900, theme)
    log_in(page, "developer")
    page.get_by_role("link", name="two", exact=True).wait_for()
    field = page.get_by_label("Filter runs")
    field.fill('label:team=red text:"a-1"')
    field.press("Enter")
    page.get_by_text("Searched all 2 runs: 2 found.").wait_for()
    page.get_by_role("link", name="one", exact=True).wait_for(state="detached")
    expect(page.locator("mark").first).to_have_text("A-1")
    can_be_read(page, "runs-searched", theme, width)
    field.fill('text:"no such words"')
    field.press("Enter")
    page.get_by_text("Searched all 3 runs: none found.").wait_for()


def test_runs_are_found_by_version_and_by_what_they_wait_for(
    shop: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/?q=waiting%3Aapproval%3Amanager")
    log_in(page, "viewer")
    page.get_by_role("link", name="two", exact=True).wait_for()
    field = page.get_by_label("Filter runs")
    for words, shown in (
        ("waiting:event", False),
        ("program:refund version:1", True),
        ("waiting:approval:boss", False),
    ):
        field.fill(words)
        field.press("Enter")
        page.get_by_role("link", name="two", exact=True).wait_for(
            state="visible" if shown else "detached"
        )
    field.fill("version:1")
    field.press("Enter")
    page.get_by_role("alert").get_by_text("version 1 of which program? Say program").wait_for()


def test_a_search_goes_on_with_those_before(
    shop: World, address: str, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nano_vm.ui.library.MOST_SEARCHED", 1)
    monkeypatch.setattr("nano_vm.ui.library.READ_AT_ONCE", 1)
    page = open_page(f"{address}/projects/shop/#/?q=text%3Ablue")
    log_in(page, "developer")
    page.get_by_text("Searched the newest 1 run: none found.").wait_for()
    page.get_by_role("button", name="Search further").click()
    page.get_by_text("Searched the newest 2 runs: none found.").wait_for()


def test_only_a_list_that_is_polled_says_that_it_is_tried_again(
    shop: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/")
    log_in(page, "developer")
    page.get_by_role("link", name="two", exact=True).wait_for()
    page.route("**/runs?*", lambda route: route.abort())
    page.route("**/search?*", lambda route: route.abort())
    page.get_by_role("alert").get_by_text("does not answer; this page tries again").wait_for()
    with page.expect_event("requestfailed", lambda request: "/search?" in request.url):
        page.get_by_label("Filter runs").fill("text:A-1")
        page.get_by_label("Filter runs").press("Enter")
    page.get_by_role("alert").get_by_text("the server does not answer", exact=True).wait_for()


def test_who_may_not_read_what_was_said_does_not_search_it(
    shop: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/?q=text%3AA-1")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    log_in(page, "operator")
    page.get_by_role("alert").get_by_text("is not for you to search").wait_for()
    assert not any("/search?" in url for url in asked)


def test_one_goes_anywhere_by_its_name(shop: World, address: str, open_page: Open) -> None:
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "viewer")
    page.get_by_role("link", name="two", exact=True).wait_for()
    page.keyboard.press("Control+k")
    page.get_by_role("option", name="refund program").wait_for()
    assert page.get_by_role("option", name="Members").count() == 0  # which a viewer does not see
    assert page.get_by_role("option", name="edit the program").count() == 0
    assert faults_for_readers(page) == []
    page.keyboard.type("ref map")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Path map").wait_for()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Control+k")
    field = page.get_by_role("combobox", name="Go to")
    expect(field).to_be_focused()
    page.keyboard.type("cos")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Costs").wait_for()
    page.keyboard.press("Control+k")
    expect(field).to_be_focused()
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    page.locator(".title", has_text="refund").wait_for()
    page.wait_for_url("**#/run/two*")
    page.keyboard.press("Control+k")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")


def test_a_run_that_is_not_shown_is_not_cancelled(
    shop: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "operator")
    filtered = page.get_by_label("Filter runs")
    page.get_by_label("Pick two").check()
    page.get_by_label("Pick three").check()
    page.get_by_role("button", name="Cancel 2 runs…").click()
    page.get_by_label("Pick three").uncheck()
    page.get_by_role("button", name="Cancel 1 run…").wait_for()  # asked again for other runs
    filtered.fill("label:team=blue")
    filtered.press("Enter")
    page.get_by_role("link", name="two", exact=True).wait_for(state="detached")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    # nor one that leaves the list by itself
    filtered.fill("status:suspended")
    filtered.press("Enter")
    shop.start(run_id="four")
    page.get_by_label("Pick four").check()
    page.get_by_role("button", name="Cancel 1 run…").click()
    assert shop.developer.post("/api/v1/projects/shop/runs/four/cancel").is_success
    shop.work()
    page.get_by_role("link", name="four", exact=True).wait_for(state="detached")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_an_answer_that_is_late_does_not_replace_a_newer_one(
    shop: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "viewer")
    page.get_by_role("link", name="two", exact=True).wait_for()
    page.get_by_role("button", name="Pause").click()
    held = Held(page, "**/shop/runs?*blue*")
    filtered = page.get_by_label("Filter runs")
    filtered.fill("label:team=blue")
    filtered.press("Enter")
    filtered.fill("label:team=red")
    filtered.press("Enter")
    page.get_by_role("link", name="one", exact=True).wait_for(state="detached")
    late = held.first()
    with page.expect_response("**/shop/runs?*blue*"):
        late.continue_()
    page.wait_for_timeout(300)
    assert page.get_by_role("link", name="two", exact=True).count() == 1
    assert page.get_by_role("link", name="one", exact=True).count() == 0


def test_the_costs_of_one_grouping_are_not_shown_under_another(
    shop: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/costs")
    log_in(page, "viewer")
    empty = page.get_by_text("No run of this project has called a model yet.")
    empty.wait_for()
    held = Held(page, "**/shop/costs?*by=model*")
    page.get_by_role("button", name="by model").click()
    empty.wait_for(state="detached")
    page.get_by_role("button", name="by day").click()
    empty.wait_for()
    row = {"calls": 1, "total_tokens": 1, "cost_usd": "1", "unpriced": 0}
    late = held.first()
    with page.expect_response("**/shop/costs?*by=model*"):
        late.fulfill(json={"costs": [{"of": {"model": "late"}, **row}]})
    page.wait_for_timeout(300)
    assert page.get_by_role("cell", name="late").count() == 0
    page.route("**/shop/costs?*by=step*", lambda route: route.fulfill(status=503, body="busy"))
    page.get_by_role("button", name="by step").click()
    page.get_by_role("alert").get_by_text("answered 503").wait_for()
    expect(empty).to_have_count(0)


def test_letters_belong_to_the_field_that_has_the_focus(
    shop: World, address: str, open_page: Open
) -> None:
    query = {"query": "label:team=red"}
    assert shop.developer.put("/api/v1/projects/shop/views/j", json=query).is_success
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "developer")
    page.get_by_role("link", name="two", exact=True).wait_for()
    page.get_by_label("View", exact=True).focus()
    page.keyboard.press("j")
    assert page.locator("tr.current").count() == 0
    page.goto(f"{address}/projects/shop/#/compare/one/two")
    page.locator(".compare-page").wait_for()
    page.keyboard.press("Control+k")
    field = page.get_by_label("Go to a page, a program or a run")
    expect(field).to_be_focused()
    page.keyboard.type("npm")
    expect(field).to_have_value("npm")


def test_who_may_cancels_what_is_picked(shop: World, address: str, open_page: Open) -> None:
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "operator")
    for name in ("one", "two"):
        page.get_by_label(f"Pick {name}").check()
    page.get_by_role("button", name="Cancel 2 runs…").click()
    page.get_by_role("button", name="Cancel 2 runs now").click()
    page.get_by_text("2 runs will be cancelled").wait_for()
    shop.work()
    page.locator("tr", has_text="one").get_by_text("cancelled").wait_for()
    viewer = open_page(f"{address}/projects/shop/")
    log_in(viewer, "viewer")
    viewer.get_by_label("Pick three").check()
    assert viewer.get_by_role("button", name="Cancel 1 run…").count() == 0
