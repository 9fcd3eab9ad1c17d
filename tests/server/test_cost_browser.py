"""The costs of a project in the pages: summed by what is asked, of the runs that are filtered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from browsing import chromium, expect

from nano_vm import ExecutionVM
from nano_vm.testing import ScriptedLLM

from .conftest import World
from .pages import can_be_read, log_in, row
from .serving import served
from .test_map import send, sorted_  # noqa: F401 - a fixture

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def bound(sorted_: World) -> World:
    """The same, where a budget is used and another is met."""
    budgets: dict[str, Any] = {
        "of the shop": {"project": "shop", "max_llm_calls": 1},
        "of all": {"max_tokens": 100_000},
    }
    answer = ScriptedLLM(lambda messages, **_: "good")
    vm = ExecutionVM(
        answer,
        {"send": send},
        prices={"scripted": (1.0, 1.0)},
        budgets=budgets,
        store=sorted_.state.store,
    )
    sorted_.state.hosts.own = vm
    for _ in range(2):
        body = {"program": "sort", "inputs": {"text": "good"}, "labels": {"of": "budgets"}}
        assert sorted_.developer.post("/api/v1/projects/shop/runs", json=body).is_success
    with ThreadPoolExecutor(1) as threads:
        work = vm.work(until_idle=True, concurrency=1)
        threads.submit(lambda: asyncio.run(work)).result(60)
    return sorted_


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
        sort = row(page, "sort", "10")
        sort.wait_for()
        page.get_by_role("button", name="by model").click()
        row(page, "scripted", "10").wait_for()
        page.wait_for_url("**/#/costs?by=model")
        field = page.get_by_label("Of which runs")
        field.fill("by:nobody since:7d")
        field.press("Enter")
        page.get_by_text("No run like this has called a model").wait_for()
        field.fill("by:developer status:failed")
        field.press("Enter")
        page.get_by_role("alert").get_by_text("costs are not filtered by status").wait_for()
        expect(row(page, "scripted", "10")).to_have_count(0)  # nor of other runs
        field.fill("by:developer")
        field.press("Enter")
        row(page, "scripted", "10").wait_for()
        page.keyboard.press("Escape")
        page.locator("h1").click()  # out of the field, in which it is a character
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Keys").get_by_text("Ctrl K").wait_for()
        can_be_read(page, "costs-keys", theme, width)
        page.keyboard.press("Escape")
        page.get_by_role("dialog", name="Keys").wait_for(state="detached")
        can_be_read(page, "costs-filtered", theme, width)


@pytest.mark.parametrize(("theme", "width"), [("dark", 1440), ("light", 360)])
def test_costs_by_version_label_and_other_prices(
    sorted_: World, open_page: Open, theme: str, width: int
) -> None:
    with served(sorted_.state) as address:
        page = open_page(f"{address}/projects/shop/#/costs", width, 900, theme)
        log_in(page, "viewer")
        page.get_by_role("button", name="by version").click()
        row(page, "sort", "1", "10").wait_for()
        page.get_by_text("Of all 10 runs, since").wait_for()
        page.get_by_role("button", name="by label").click()
        field = page.get_by_role("textbox", name="Label")
        field.fill("team")
        field.press("Enter")
        row(page, "–", "10").wait_for()
        page.wait_for_url("**/#/costs?by=label%3Ateam")
        page.get_by_role("button", name="What if prices were others").click()
        form = page.get_by_role("form", name="Other prices")
        expect(form.get_by_role("button", name="Sum by these")).to_be_disabled()
        form.get_by_role("group", name="scripted").get_by_label("Prompt").fill("1000000")
        form.get_by_role("group", name="scripted").get_by_label("Answer").fill("0")
        form.get_by_role("button", name="Sum by these").click()
        would_be = page.locator('td[data-label="Would be"]')
        would_be.first.wait_for()
        would = row(page, "–", "10").get_by_role("cell").nth(4)
        expect(would).to_have_text(re.compile(r"^\$"))
        can_be_read(page, "costs-what-if", theme, width)
        form.get_by_role("button", name="As it was").click()
        expect(would_be).to_have_count(0)
        page.goto(f"{address}/projects/shop/#/costs?by=model&newest=3")
        page.get_by_text("Of the newest 3 runs").wait_for()
        page.get_by_role("button", name="Sum more").click()
        page.get_by_text("Of all 10 runs, since").wait_for()


def test_no_more_is_offered_than_a_server_sums(
    sorted_: World, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nano_vm.server.routes.costs.MOST_SUMMED", 6)
    with served(sorted_.state) as address:
        page = open_page(f"{address}/projects/shop/#/costs?by=model&newest=3")
        log_in(page, "viewer")
        more = page.get_by_role("button", name="Sum more")
        page.get_by_text("Of the newest 3 runs").wait_for()
        more.click()
        page.get_by_text("Of the newest 6 runs").wait_for()
        expect(more).to_have_count(0)
        for group in ("program", "label"):
            page.goto(f"{address}/projects/shop/#/costs?by=model&newest=15")
            page.get_by_text("Of the newest 6 runs").wait_for()
            page.get_by_role("button", name=f"by {group}").click()
            page.wait_for_url(f"**#/costs?by={group}*")
            assert "newest" not in page.url  # of another group a server may sum more
        page.goto(f"{address}/projects/shop/#/costs?by=label%3A&newest=15")
        page.get_by_role("textbox", name="Label").fill("team")
        page.get_by_role("textbox", name="Label").press("Enter")
        page.get_by_text("Of the newest 6 runs").wait_for()
        page.wait_for_url("**/#/costs?by=label%3Ateam")
        more.wait_for()  # nobody has asked for more than that


def test_other_prices_are_not_asked_for_by_a_wrong_filter(sorted_: World, open_page: Open) -> None:
    with served(sorted_.state) as address:
        page = open_page(f"{address}/projects/shop/#/costs?q=by%3Adeveloper%20status%3Afailed")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        log_in(page, "viewer")
        page.get_by_role("button", name="What if prices were others").click()
        page.get_by_role("form", name="Other prices").wait_for()
        field = page.get_by_label("Of which runs")
        field.fill("")
        field.press("Enter")
        page.get_by_role("group", name="scripted").wait_for()
        of_models = [url for url in asked if "by=member" in url]
        assert of_models == [f"{address}/api/v1/projects/shop/costs?by=member"]


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 360)])
def test_budgets_and_what_met_one(bound: World, open_page: Open, theme: str, width: int) -> None:
    with served(bound.state) as address:
        page = open_page(
            f"{address}/projects/shop/#/costs?q=label%3Aof%3Dbudgets", width, 900, theme
        )
        log_in(page, "viewer")
        row(page, "of the shop", "all", "1 call", "0 calls", "1 call").wait_for()
        page.get_by_text("of all: at most 100000 tokens; runs of other projects").wait_for()
        page.get_by_text("1 run of sort, of the newest 1 run that failed, met a budget").wait_for()
        can_be_read(page, "costs-budgets", theme, width)
        page.get_by_role("link", name="the newest of them").click()
        page.locator(".title", has_text="sort").wait_for()
