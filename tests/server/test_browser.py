"""The pages of a server in a browser: people log in, start, decide and verify, each in their role."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import PATIENCE_MS, chromium, expect
from campaigns import first

from nano_vm.draw import view
from nano_vm.newest import Newest
from nano_vm.server.state import State

from .conftest import PASSWORD, World
from .pages import can_be_read, log_in
from .serving import served

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser(built: None, world: World) -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def address(world: World, built: None) -> Iterator[str]:
    with served(world.state) as found:
        yield found


def test_a_refund_from_its_start_to_the_auditor(
    world: World, address: str, open_page: Open
) -> None:
    starter = open_page(address)
    log_in(starter, "developer")
    starter.get_by_role("link", name="Programs").click()
    starter.get_by_role("link", name="refund").click()
    starter.get_by_label("order_id").fill("B-7")
    starter.get_by_label("amount").fill("not a number")
    starter.get_by_role("button", name="Start").click()
    assert "amount is a number" in starter.get_by_role("alert").inner_text()
    starter.get_by_label("amount").fill("12345678901234567890")
    starter.get_by_role("button", name="Start").click()
    starter.locator(".title", has_text="pending").wait_for()
    world.work()
    starter.locator(".title", has_text="waiting").wait_for()

    manager = open_page(address, 360, 740)
    log_in(manager, "operator")
    manager.get_by_role("link", name="Inbox").click()
    manager.locator(".asked", has_text="B-7").get_by_role("button").first.click()
    question = manager.locator(".question")
    expect(question).to_contain_text("12345678901234567890")
    assert manager.evaluate("document.documentElement.scrollWidth") <= 360
    question.get_by_role("button", name="Approve").click()
    manager.get_by_text("Approved, for run").wait_for()
    world.work()
    starter.locator(".title", has_text="done").wait_for()
    said = starter.locator("section", has_text="Said to this run").locator("li")
    assert said.inner_text().split() == ["approve", "approve", "by", "operator"]

    auditor = open_page(f"{address}/projects/shop/")
    log_in(auditor, "viewer")
    assert auditor.get_by_role("link", name="Inbox").count() == 0
    auditor.get_by_role("link", name=starter.url.rpartition("/")[2]).click()
    auditor.get_by_role("button", name="Verify").click()
    auditor.get_by_text("identical").wait_for()
    assert "B-7" not in auditor.locator("body").inner_text()
    auditor.get_by_role("button", name="Log out").click()
    auditor.get_by_role("button", name="Log in").wait_for()


def test_by_the_keyboard_one_logs_in_at_once_and_passes_over_the_bar(
    world: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/programs/refund")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("developer")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Start").wait_for()
    page.reload()
    page.get_by_role("button", name="Start").wait_for()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Skip the bar")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Path map")).to_be_focused()


def test_who_guesses_is_told_so(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.get_by_label("Name").fill("viewer")
    page.get_by_label("Password").fill("a wrong one, twelve")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").wait_for()
    assert "the name or the password is wrong" in page.get_by_role("alert").inner_text()


def test_a_session_that_ends_asks_to_log_in_where_one_was(
    world: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "viewer")
    page.get_by_role("link", name="Programs").click()
    page.get_by_role("link", name="refund").wait_for()
    world.state.tables.write(lambda rows: rows.transaction.run("DELETE FROM nano_sessions"))
    page.get_by_role("link", name="refund").click()
    log_in(page, "viewer")
    page.get_by_text("put by developer").wait_for()
    for name in ("owner", "admin", "developer", "operator", "stranger"):
        world.people[name] = world.login(name)


def test_a_project_of_others_is_as_if_it_were_not_there(address: str, open_page: Open) -> None:
    page = open_page(f"{address}/projects/bank/")
    log_in(page, "viewer")
    page.get_by_text("There is no project bank for you").wait_for()
    page.get_by_label("Project", exact=True).select_option("shop")
    page.get_by_role("link", name="Programs").wait_for()


def test_the_first_owner_is_made_in_the_browser(
    tmp_path: Path, built: None, open_page: Open
) -> None:
    from nano_vm.store.protocol import open_tables

    store = open_tables(f"sqlite:///{tmp_path}/new.db")
    state = State(store, b"p" * 32)
    with served(state) as address:
        page = open_page(f"{address}/#/setup/{state.setup_token}")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill("short")
        page.get_by_role("button", name="Make the account").click()
        page.get_by_role("alert").wait_for()
        assert "12 to 200 characters" in page.get_by_role("alert").inner_text()
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Make the account").click()
        page.locator(".team-bar", has_text="ada").wait_for()
        page.get_by_text("No run").first.wait_for()
    store.close()


def test_an_admin_gives_roles_and_keys(world: World, address: str, open_page: Open) -> None:
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "admin")
    page.get_by_role("link", name="Members").click()
    page.get_by_label("Name, as they log in").fill("nobody at all")
    page.get_by_role("button", name="Give the role").click()
    page.get_by_role("alert").wait_for()
    assert "nobody called 'nobody at all'" in page.get_by_role("alert").inner_text()
    page.get_by_label("Name, as they log in").fill("stranger")
    page.get_by_label("Roles that approvals ask for").fill("manager, auditor")
    page.get_by_role("button", name="Give the role").click()
    page.get_by_role("cell", name="auditor, manager").wait_for()
    assert world.stranger.get("/api/v1/projects/shop/runs").status_code == 200
    page.get_by_role("button", name="Remove stranger").click()
    page.get_by_role("cell", name="auditor, manager").wait_for(state="detached")
    assert world.stranger.get("/api/v1/projects/shop/runs").status_code == 404
    page.get_by_role("link", name="Keys").click()
    page.get_by_label("What it is for").fill("nightly")
    page.get_by_role("button", name="Make the key").click()
    key = page.locator("output code").inner_text()
    assert world.client(key).get("/api/v1/projects/shop/runs").status_code == 200
    page.get_by_role("button", name="Revoke nightly").click()
    page.get_by_role("cell", name="revoked").wait_for()
    assert world.client(key).get("/api/v1/projects/shop/runs").status_code == 401
    page.get_by_role("link", name="Audit").click()
    page.get_by_role("cell", name="key.revoked").wait_for()
    page.get_by_role("link", name="Settings").click()
    box = page.get_by_label("A run is decided by another")
    for tick in (box.check, box.uncheck):
        with page.expect_response(lambda answer: answer.request.method == "PUT"):
            tick()
    page.keyboard.press("?")  # in a box that is ticked, nothing is typed
    page.get_by_role("dialog", name="Keys").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog", name="Keys").wait_for(state="detached")


def test_an_owner_adds_people_and_projects(world: World, address: str, open_page: Open) -> None:
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "owner")
    page.get_by_role("link", name="Instance").click()
    page.get_by_label("Name", exact=True).fill("lin")
    page.get_by_label("First password").fill("short")
    page.get_by_role("button", name="Add the person").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("First password").fill(PASSWORD)
    page.get_by_role("button", name="Add the person").click()
    page.get_by_role("cell", name="lin", exact=True).wait_for()
    lin = world.login("lin")
    page.get_by_role("button", name="Disable lin").click()
    page.get_by_role("button", name="Enable lin").wait_for()
    assert lin.get("/api/v1/me").status_code == 401
    page.get_by_label("Project name").fill("till")
    page.get_by_role("button", name="Make the project").click()
    page.locator("select option", has_text="till").wait_for(state="attached")


def test_a_person_changes_their_password(world: World, address: str, open_page: Open) -> None:
    world.owner.post("/api/v1/users", json={"name": "kim", "password": PASSWORD})
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "kim")
    page.get_by_role("link", name="kim").click()
    page.get_by_label("Password now").fill("a wrong one, twelve")
    page.get_by_label("New password").fill("another long one")
    page.get_by_role("button", name="Change it").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("Password now").fill(PASSWORD)
    page.get_by_role("button", name="Change it").click()
    page.get_by_role("button", name="Log in", exact=True).wait_for()
    log_in(page, "kim", "another long one")
    other = world.login("kim", "another long one")
    page.get_by_role("link", name="kim").click()
    page.get_by_role("button", name="Log out everywhere").click()
    page.get_by_role("button", name="Log in", exact=True).wait_for()
    assert other.get("/api/v1/me").status_code == 401


def test_a_run_is_followed_without_being_asked_for(
    world: World, address: str, open_page: Open
) -> None:
    run_id = world.start()
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "developer")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/projects/shop/#/run/{run_id}")
    page.locator(".title", has_text="waiting").wait_for()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").get_by_text("Ctrl K").wait_for()
    page.keyboard.press("Escape")
    until = time.monotonic() + PATIENCE_MS / 1000
    count = -1
    while len(asked) != count:  # nothing has changed, so in the end nothing is asked
        assert time.monotonic() < until, asked
        count = len(asked)
        page.wait_for_timeout(1500)
    assert world.operator.post(f"/api/v1/projects/shop/runs/{run_id}/cancel").is_success
    world.work()
    page.locator(".title", has_text="cancelled").wait_for()


def test_who_could_not_be_logged_out_is_told_so(address: str, open_page: Open) -> None:
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "viewer")
    page.evaluate("sessionStorage.setItem('nano-vm-draft kept', 'a draft')")
    page.route("**/logout", lambda route: route.fulfill(status=503, json={"detail": "away"}))
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("alert").get_by_text("Not logged out: away").wait_for()
    expect(page.locator(".team-bar")).to_have_count(1)
    assert page.evaluate("sessionStorage.getItem('nano-vm-draft kept')") == "a draft"
    page.unroute("**/logout")
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="Log in", exact=True).wait_for()
    assert page.evaluate("sessionStorage.getItem('nano-vm-draft kept')") is None


def test_an_older_answer_does_not_replace_a_newer_one(
    world: World, address: str, open_page: Open
) -> None:
    run_id = world.start()
    world.work()
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "operator")
    held: list[Any] = []

    def hold_the_first(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/projects/shop/inbox", hold_the_first)
    page.get_by_role("link", name="Inbox").click()
    page.locator(".asked", has_text=run_id).wait_for()
    with page.expect_response("**/projects/shop/inbox"):
        held[0].fulfill(json={"asked": [], "by": "operator", "now": 0})
    page.wait_for_timeout(100)  # it is not drawn
    assert page.locator(".asked", has_text=run_id).count() == 1


def test_a_run_is_followed_once_though_its_graph_comes_later(
    world: World, address: str, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_CHARTS", Newest(view.KEPT_NODES, view._size))
    monkeypatch.setattr(view, "LARGE_STEPS", 2)
    run_id = world.start()
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "operator")
    followed: list[str] = []
    page.on("request", lambda asked: followed.append(asked.url))
    with page.expect_response("**/runs/*?graph=later"):
        page.evaluate(f"location.hash = '#/run/{run_id}?view=g'")
    page.locator(".react-flow__node").first.wait_for()
    path = f"/api/v1/projects/shop/runs/{run_id}/cancel"
    assert world.people["operator"].post(path).is_success
    world.work()
    page.locator(".title", has_text="cancelled").wait_for()
    assert [url.rpartition("/")[2] for url in followed].count("events") == 1


def test_the_end_of_a_run_is_seen_though_the_look_at_it_was_lost(
    world: World, address: str, open_page: Open
) -> None:
    """Nothing happens to the run after that, of which a stream could tell."""
    run_id = world.start()
    world.work()
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "operator")
    page.evaluate(f"location.hash = '#/run/{run_id}'")
    page.locator(".title", has_text="waiting").wait_for()
    away, lost = True, 0

    def answer(route: Any) -> None:
        nonlocal lost
        if away:
            lost += 1
            route.fulfill(status=503, json={"detail": "away"})
        else:
            route.continue_()

    page.route(f"**/runs/{run_id}?*", answer)
    assert world.people["operator"].post(f"/api/v1/projects/shop/runs/{run_id}/cancel").is_success
    world.work()
    until = time.monotonic() + PATIENCE_MS / 1000
    while not lost and time.monotonic() < until:
        page.wait_for_timeout(50)
    page.wait_for_timeout(500)  # all that the stream has to tell is there
    away = False
    page.locator(".title", has_text="cancelled").wait_for()
    assert lost > 0


def test_a_refused_decision_is_told_until_the_next(
    world: World, address: str, open_page: Open
) -> None:
    run_id = world.start()
    world.work()
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "operator")
    page.get_by_role("link", name="Inbox").click()
    page.locator(".asked").get_by_text(run_id).click()
    refused = {"detail": "two must decide"}
    page.route(
        "**/inbox",
        lambda route: (
            route.fulfill(status=409, json=refused)
            if route.request.method == "POST"
            else route.continue_()
        ),
    )
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.get_by_role("button", name="Approve", exact=True).click()
    for _ in range(2):  # the list is asked for again, and answered
        with page.expect_response("**/projects/shop/inbox"):
            pass
    page.wait_for_timeout(100)
    assert page.get_by_role("alert").inner_text() == "two must decide"


PLACES_OF_ALL = ["Runs", "Programs", "Policy", "Costs", "Workers", "Settings"]

PLACES_OF = {
    "viewer": PLACES_OF_ALL,
    "operator": [*PLACES_OF_ALL, "Inbox"],
    "developer": PLACES_OF_ALL,
    "admin": [*PLACES_OF_ALL, "Inbox", "Members", "Keys", "Audit"],
    "owner": [*PLACES_OF_ALL, "Inbox", "Members", "Keys", "Audit", "Instance"],
}


@pytest.mark.parametrize("who", PLACES_OF)
def test_each_role_reaches_the_pages_that_it_may_see(
    world: World, address: str, open_page: Open, who: str
) -> None:
    page = open_page(f"{address}/projects/shop/")
    log_in(page, who)
    bar = page.get_by_role("navigation", name="Pages")
    links = [link.inner_text() for link in bar.get_by_role("link").all()]
    assert sorted(links) == sorted([*PLACES_OF[who], who])  # the last is one's own account
    for name in links:
        link = bar.get_by_role("link", name=name, exact=True)
        link.click()
        expect(link).to_have_attribute("aria-current", "page")
        page.locator("h1").first.wait_for()
        page.wait_for_timeout(100)  # what is refused would be said
        assert page.get_by_role("alert").count() == 0, (who, name)


def test_settings_are_read_by_all_and_changed_by_admins(
    world: World, address: str, open_page: Open
) -> None:
    given = {"approvers": {"boss": 3}}
    assert world.admin.put("/api/v1/projects/shop/settings", json=given).is_success
    try:
        viewer = open_page(f"{address}/projects/shop/#/settings", 360, 740)
        log_in(viewer, "viewer")
        viewer.get_by_text("boss: 3 people").wait_for()
        viewer.get_by_text("An admin of the project changes these").wait_for()
        box = viewer.get_by_role("link", name="Settings").bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] < 361  # the bar shows where one is
        assert viewer.get_by_role("checkbox").is_disabled()
        assert viewer.locator("main").get_by_role("button").count() == 0
        admin = open_page(f"{address}/projects/shop/#/settings")
        log_in(admin, "admin")
        admin.get_by_role("button", name="Remove boss").click()
        admin.get_by_text("One person approves, whatever the role").wait_for()
        assert admin.get_by_role("checkbox").is_enabled()
    finally:
        given = {"approvers": {}}
        assert world.admin.put("/api/v1/projects/shop/settings", json=given).is_success


def test_on_a_phone_each_cell_of_a_table_is_in_sight_and_says_what_it_is(
    world: World, address: str, open_page: Open
) -> None:
    said = "cells => cells.map(cell => getComputedStyle(cell, '::before').content)"
    for width, heads in ((360, ['"Name"', '"Role"', '"Decides as"', '""']), (1440, ["none"] * 4)):
        page = open_page(f"{address}/projects/shop/#/members", width, 740)
        log_in(page, "admin")
        row = page.locator(".sheet-rows tbody tr", has_text="manager")
        row.wait_for()
        assert row.locator("td").evaluate_all(said) == heads
        frame = page.locator(".rows-frame")
        assert frame.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_a_fork_of_a_run_that_waits_for_a_person_asks_one(
    world: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/fork/{world.start()}")
    log_in(page, "developer")
    steps = page.get_by_label("What the fork does")
    steps.locator("li", has_text="approve").get_by_text("asks a person").wait_for()


def test_what_is_not_there_is_told_and_what_is_empty_says_what_to_do(
    address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/bank/#/nowhere/at-all")
    log_in(page, "stranger")
    page.get_by_role("heading", name="There is no such page").wait_for()
    page.get_by_role("link", name="All runs").click()
    page.get_by_text("There is no run here yet").wait_for()
    page.get_by_role("link", name="a program").click()
    page.get_by_text("No program was put here yet").wait_for()
    page.goto(f"{address}/projects/bank/#/programs/nothing")
    page.get_by_text("there is no program 'nothing'").wait_for()
    assert page.get_by_role("link", name="Path map").count() == 0
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/projects/bank/#/run/nothing")
    heading = page.get_by_role("heading", name="This run cannot be shown").bounding_box()
    link = page.get_by_role("link", name="All runs").bounding_box()
    assert heading is not None
    assert link is not None
    assert link["y"] - heading["y"] < 100, "what is said stands together"
    page.wait_for_timeout(200)  # what is under way has ended
    before = len(asked)
    page.wait_for_timeout(3_500)  # a page that follows a run asks again after three seconds
    assert asked[before:] == [], "what is not there is not asked for again and again"


PLACES = {
    "login": None,
    "runs-of-team": "#/",
    "run": "#/run/seen-1",
    "inbox": "#/inbox",
    "compare": "#/compare/seen-1/seen-2",
    "policy": "#/policy",
    "new-program": "#/new-program",
    "programs": "#/programs",
    "program": "#/programs/refund",
    "costs": "#/costs",
    "workers": "#/workers",
    "members": "#/members",
    "keys": "#/keys",
    "audit": "#/audit",
    "settings": "#/settings",
    "instance": "#/instance",
    "account": "#/account",
}


SHOWN = (
    "main .sheet, .sheet-rows, main .muted, .choice, table.runs, .react-flow, .asked, .compare-page"
)
"""What is there once a page has what it shows."""

LOOKS = [("light", 1440), ("dark", 360), ("light", 360), ("dark", 1440)]


@pytest.mark.campaign
@pytest.mark.parametrize(("theme", "width"), first(2, LOOKS))
def test_every_page_can_be_read_by_all(
    world: World, address: str, open_page: Open, theme: str, width: int
) -> None:
    for name in ("seen-1", "seen-2"):
        body = {"program": "refund", "inputs": {"order_id": name, "amount": 7}, "run_id": name}
        assert world.developer.post("/api/v1/projects/shop/runs", json=body).is_success
    world.work()
    page = open_page(address, width, 900, theme)
    for name, place in PLACES.items():
        if name == "runs-of-team":
            log_in(page, "owner")
        if place is not None:
            page.goto(f"{address}/projects/shop/{place}")
        page.locator(f":visible:is({SHOWN})").first.wait_for()
        page.wait_for_timeout(200)  # what is still to come is there
        can_be_read(page, name, theme, width)
        if place is not None:
            here = page.locator(".team-bar [aria-current=page]").bounding_box()
            assert here is not None
            # the bar is scrolled by whole pixels
            assert -1 < here["x"] < here["x"] + here["width"] < width + 1, name
