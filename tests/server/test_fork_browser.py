"""A run is forked in the pages: what it would do is seen before, and the forks are a tree after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import Held, chromium, expect

from .conftest import World
from .pages import can_be_read, log_in
from .serving import served
from .test_forks import Host, driven

Open = Callable[..., Any]

Triage = tuple[World, Host, str]


@pytest.fixture(scope="module")
def triage(world: World) -> Triage:
    return driven(world)


@pytest.fixture(scope="module")
def browser(built: None, triage: Triage) -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def address(triage: Triage, built: None) -> Iterator[str]:
    with served(triage[0].state) as found:
        yield found


def test_a_developer_forks_a_run_with_another_prompt(
    triage: Triage, address: str, open_page: Open
) -> None:
    world, host, run_id = triage
    page = open_page(f"{address}/projects/shop/#/run/{run_id}?step=judge")
    log_in(page, "developer")
    page.get_by_role("link", name="Fork", exact=True).click()
    steps = page.get_by_label("What the fork does")
    # with no change all is taken, the call of an effect too
    steps.locator("li", has_text="refund").get_by_text("takes its record").wait_for()
    page.get_by_label("Prompt").fill("Is it really broken? $order")
    steps.locator("li", has_text="judge").get_by_text("calls").wait_for()
    steps.locator("li", has_text="fetch").get_by_text("takes its record").wait_for()
    steps.locator("li", has_text="refund").get_by_text("behind the calls").wait_for()
    page.get_by_role("button", name="Fork: 1 step taken, calls from judge on").click()
    page.locator(".title", has_text="triage").wait_for()
    assert "Is it really broken? a lamp for A" in host.work(world)
    page.locator(".title", has_text="stopped before an effect").wait_for()
    page.get_by_role("button", name="Verify").click()
    page.get_by_text("identical").wait_for()
    page.get_by_role("link", name="Compare with its origin").click()
    page.get_by_text("really").first.wait_for()


def test_a_fork_is_not_sent_under_the_words_of_another(
    triage: Triage, address: str, open_page: Open
) -> None:
    _, _, run_id = triage
    page = open_page(f"{address}/projects/shop/#/fork/{run_id}?step=judge")
    log_in(page, "developer")
    page.get_by_role("button", name="no call").wait_for()
    held = Held(page, "**/fork/preview")
    page.get_by_label("Prompt").fill("Is it really broken? $order")
    asked = held.first()
    expect(page.get_by_role("button", name="Fork", exact=True)).to_be_disabled()
    with page.expect_response("**/fork/preview"):
        asked.continue_()
    page.get_by_role("button", name="calls from judge on").wait_for()


def test_what_is_no_change_of_a_program_is_told_at_once(
    triage: Triage, address: str, open_page: Open
) -> None:
    _, _, run_id = triage
    page = open_page(f"{address}/projects/shop/#/fork/{run_id}?step=fetch")
    log_in(page, "developer")
    page.get_by_label("Arguments").fill("{not json")
    page.get_by_role("alert").get_by_text("Arguments of fetch is JSON").wait_for()
    page.get_by_label("Arguments").fill('{"order": "B"}')
    page.get_by_role("alert").get_by_text("order").first.wait_for()
    page.get_by_role("button", name="leave it as it was").click()
    page.get_by_role("button", name="no call").wait_for()


def test_who_may_not_fork_is_not_offered_it(triage: Triage, address: str, open_page: Open) -> None:
    _, _, run_id = triage
    page = open_page(f"{address}/projects/shop/#/run/{run_id}")
    log_in(page, "operator")
    page.get_by_role("button", name="Verify").wait_for()
    assert page.get_by_role("link", name="Fork", exact=True).count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 360])
def test_the_page_of_a_fork_can_be_read_by_all(
    triage: Triage, address: str, open_page: Open, theme: str, width: int
) -> None:
    world, _, run_id = triage
    body = {"run_id": "another", "edit": {"judge": {"output": "no"}}}
    assert world.developer.post(f"/api/v1/projects/shop/runs/{run_id}/fork", json=body).is_success
    page = open_page(f"{address}/projects/shop/#/fork/{run_id}?step=judge", width, 900, theme)
    log_in(page, "developer")
    page.get_by_label("Prompt").fill("Is it really broken? $order")
    page.get_by_text("behind the calls").first.wait_for()
    page.get_by_role("link", name="another").wait_for()
    can_be_read(page, "fork", theme, width)
