"""A program is edited in the pages: what the server says of it stands beside the text, a run that
breaks the policy is drawn on its graph, and what is refused is not saved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import Held, chromium, expect

from nano_vm import ExecutionVM
from nano_vm.testing import ScriptedLLM

from .conftest import World
from .pages import can_be_read, log_in
from .serving import served
from .test_policies import APPROVED, SHOP, UNASKED, pay, put_policy

Open = Callable[..., Any]

ASKED = UNASKED.replace(
    "  - {id: pay,",
    "  - id: ask\n    type: approval\n    role: manager\n    show: {order: $order_id}\n"
    "    then: pay\n    otherwise: $end\n  - {id: pay,",
).replace(
    "then: pay\n    otherwise: $end\n  - id: ask", "then: ask\n    otherwise: $end\n  - id: ask"
)


@pytest.fixture(scope="module")
def shop(world: World) -> World:
    """A project whose refunds a manager approves, and a program that was put before it did."""
    world.state.hosts.own = ExecutionVM(ScriptedLLM(["yes"]), {"pay": pay})
    answer = world.developer.post(f"{SHOP}/programs", json={"source": UNASKED})
    assert answer.status_code == 201, answer.text
    put_policy(world, APPROVED)
    return world


@pytest.fixture(scope="module")
def browser(built: None, shop: World) -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def address(shop: World, built: None) -> Iterator[str]:
    with served(shop.state) as found:
        yield found


def write(page: Any, text: str) -> None:
    """Replace what stands in the editor, as a person would."""
    page.get_by_label("Program", exact=True).click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


def test_a_broken_guard_shows_its_counterexample_and_is_not_saved(
    shop: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/programs/quick")
    log_in(page, "developer")
    page.get_by_role("link", name="Edit").click()
    page.get_by_text("under policy 1").wait_for()
    save = page.get_by_role("button", name="Save")
    expect(save).to_have_text("Save: refused, 1 fault")
    expect(save).to_be_disabled()
    page.get_by_text("refuted").first.wait_for()
    page.get_by_role("button", name="show the run that breaks it").click()
    walk = page.get_by_label("Counterexample")
    expect(walk).to_contain_text("step 1 of 3")
    page.locator(".arrow.taken").first.wait_for(state="attached")
    walk.get_by_role("button", name="Next step").click()
    walk.get_by_role("button", name="Next step").click()
    expect(walk).to_contain_text("pay")
    expect(page.locator(".box.selected")).to_have_text(re.compile("^pay"))
    # mended, it is proved, and saved
    write(page, ASKED)
    page.get_by_text("proved", exact=True).first.wait_for()
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("version 2").first.wait_for()
    assert shop.viewer.get(f"{SHOP}/programs/quick").json()["source"] == ASKED
    page.get_by_role("link", name="1 and 2").click()
    page.locator('.react-flow__node[data-id="ask"] .side-b').wait_for()
    page.get_by_role("button", name="The whole").click()
    page.locator("ins", has_text="approval").first.wait_for()


def test_a_fault_stands_at_its_line_and_leads_there(
    shop: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/new-program")
    log_in(page, "developer")
    page.get_by_text("checked for server").wait_for()
    page.locator(".box", has_text="answer").wait_for()
    write(page, "name: x\nsteps:\n  - {id: a, type: tool, tool: pya, args: {order_id: B}}\n")
    page.get_by_role("button", name="line 3").click()
    page.locator(".cm-lint-marker-error").wait_for()
    page.get_by_text("pay").first.wait_for()  # what is meant
    write(page, "name: [")
    page.get_by_text("this is no program yet").wait_for()
    page.get_by_text("As of the last text that can be drawn").wait_for()


def test_faults_are_marked_where_the_editor_comes_after_their_check(
    address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/")
    log_in(page, "developer")
    held = Held(page, "**/assets/editor.js")
    fault = {"code": "V001", "severity": "error", "place": "steps", "message": "no", "line": 3}
    said = {"host": None, "name": "hello", "policy": None, "bound": None, "diagnostics": [fault]}
    answer = {**said, "report": None, "chart": None, "counterexamples": []}
    page.route("**/programs/check", lambda route: route.fulfill(json=answer))
    page.goto(f"{address}/projects/shop/#/new-program")
    page.get_by_role("button", name="line 3").wait_for()
    held.first().continue_()
    page.locator(".cm-lint-marker-error").wait_for()


def test_a_key_that_is_typed_into_the_text_is_no_key_of_the_page(
    address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/new-program")
    log_in(page, "developer")
    page.get_by_text("checked for server").wait_for()
    write(page, "name: why")
    page.keyboard.press("?")
    page.get_by_text("why?").wait_for()
    assert page.get_by_role("dialog", name="Keys").count() == 0
    page.locator("h1").click()  # out of the field
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").wait_for()


def test_what_could_not_be_checked_is_checked_again(address: str, open_page: Open) -> None:
    page = open_page(f"{address}/projects/shop/#/new-program")
    log_in(page, "developer")
    page.get_by_text("checked for server").wait_for()
    page.route("**/programs/check", lambda route: route.abort())
    write(page, ASKED.replace("name: quick", "name: later"))
    page.get_by_text("not checked; this page tries again").wait_for()
    page.get_by_role("alert").get_by_text("the server does not answer").wait_for()
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    page.unroute("**/programs/check")
    page.get_by_text("checked for server").wait_for()
    page.get_by_role("button", name="Save", exact=True).click(trial=True)  # it can be
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_run_that_broke_another_text_is_not_shown(
    shop: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/new-program")
    log_in(page, "developer")
    page.get_by_text("checked for server").wait_for()
    write(page, UNASKED)
    page.get_by_role("button", name="show the run that breaks it").click()
    page.get_by_label("Counterexample").wait_for()
    write(page, f"# the same\n{UNASKED}")
    page.get_by_label("Counterexample").wait_for(state="detached")
    page.get_by_role("button", name="show the run that breaks it").click()
    assert "step 1 of" in page.get_by_label("Counterexample").inner_text()


def test_what_is_not_saved_outlives_its_session_and_its_page(
    shop: World, address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/new-program")
    log_in(page, "developer")
    page.get_by_text("checked for server").wait_for()
    write(page, "name: kept\nsteps: []\n")
    page.get_by_text("changed", exact=True).wait_for()
    page.get_by_role("button", name="Save: refused").wait_for()  # checked: nothing is under way
    shop.state.tables.write(lambda rows: rows.transaction.run("DELETE FROM nano_sessions"))
    write(page, "name: kept\nsteps: [] # until later\n")
    page.get_by_role("button", name="Log in", exact=True).wait_for()
    log_in(page, "developer")
    page.get_by_text("# until later").wait_for()
    page.get_by_role("link", name="Programs").first.click()
    page.get_by_role("link", name="New program").click()
    page.get_by_text("# until later").wait_for()
    page.get_by_role("button", name="Discard changes").click()
    page.get_by_text("Answer in one sentence").first.wait_for()
    assert page.get_by_text("changed", exact=True).count() == 0
    for name in ("owner", "admin", "developer", "operator", "viewer", "stranger"):
        shop.people[name] = shop.login(name)


def test_a_program_can_be_called_new(shop: World, address: str, open_page: Open) -> None:
    source = ASKED.replace("name: quick", "name: new")
    answer = shop.developer.post(f"{SHOP}/programs", json={"source": source})
    assert answer.status_code == 201, answer.text
    page = open_page(f"{address}/projects/shop/#/programs/new")
    log_in(page, "viewer")
    page.get_by_text("put by developer").wait_for()


def test_who_only_looks_is_not_offered_to_edit(shop: World, address: str, open_page: Open) -> None:
    page = open_page(f"{address}/projects/shop/#/programs/quick")
    log_in(page, "viewer")
    page.get_by_role("heading", name="Source").wait_for()
    assert page.get_by_role("link", name="Edit").count() == 0
    page.get_by_role("link", name="Policy").click()
    page.get_by_text("in force").wait_for()
    assert page.get_by_role("button", name="Put it in force").count() == 0


def test_an_admin_puts_a_policy(shop: World, address: str, open_page: Open) -> None:
    page = open_page(f"{address}/projects/shop/#/policy")
    log_in(page, "admin")
    field = page.get_by_label("The policy, in YAML or JSON")
    page.get_by_role("cell", name="admin").first.wait_for()
    field.fill("tools: {pay: {aproval: manager}}")
    page.get_by_role("button", name="Put it in force").click()
    page.get_by_role("alert").get_by_text("aproval").wait_for()
    field.fill(f"# as before\n{APPROVED}")
    page.get_by_role("button", name="Put it in force").click()
    page.get_by_role("row", name="2 in force").wait_for()


def test_a_policy_that_cannot_be_read_is_not_replaced_unseen(address: str, open_page: Open) -> None:
    for name in ("admin", "viewer"):
        page = open_page(f"{address}/projects/shop/#/programs")
        log_in(page, name)
        page.route("**/policies/*", lambda route: route.abort())
        page.get_by_role("link", name="Policy").click()
        page.get_by_role("alert").get_by_text("the server does not answer").wait_for()
        if name == "admin":
            page.get_by_label("The policy, in YAML or JSON").fill("{}")
            expect(page.get_by_role("button", name="Put it in force")).to_be_disabled()


def test_a_policy_is_put_once(shop: World, address: str, open_page: Open) -> None:
    page = open_page(f"{address}/projects/shop/#/policy")
    log_in(page, "admin")
    page.get_by_text("in force", exact=True).wait_for()
    held = Held(page, "**/policies", "POST")
    put = page.get_by_role("button", name="Put it in force")
    put.click()
    expect(put).to_be_disabled()
    held.first().continue_()
    put.click(trial=True)  # it can be again


def test_a_version_whose_text_cannot_be_read_is_told(
    shop: World, address: str, open_page: Open
) -> None:
    for order in ("A", "B"):
        source = ASKED.replace("name: quick", "name: pair").replace("broken?", f"broken, {order}?")
        assert shop.developer.post(f"{SHOP}/programs", json={"source": source}).is_success
    for version in (1, 2):
        page = open_page(f"{address}/projects/shop/#/programs")
        log_in(page, "viewer")
        page.route(f"**/programs/pair/versions/{version}", lambda route: route.abort())
        page.goto(f"{address}/projects/shop/#/programs/pair/diff/1/2")
        page.get_by_role("alert").get_by_text("the server does not answer").wait_for()


def test_a_key_that_something_else_has_taken_opens_no_palette(
    address: str, open_page: Open
) -> None:
    page = open_page(f"{address}/projects/shop/#/programs")
    log_in(page, "viewer")
    palette = page.get_by_role("dialog", name="Go to")
    page.evaluate("() => { document.body.onkeydown = event => event.preventDefault() }")
    page.keyboard.press("Control+k")
    page.wait_for_timeout(100)
    assert palette.count() == 0
    page.evaluate("document.body.onkeydown = null")
    page.keyboard.press("Control+k")
    palette.wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 360])
def test_the_editor_can_be_read_by_all(
    shop: World, address: str, open_page: Open, theme: str, width: int
) -> None:
    page = open_page(f"{address}/projects/shop/#/new-program", width, 900, theme)
    log_in(page, "developer")
    page.get_by_text("checked for server").wait_for()
    write(page, UNASKED)
    page.get_by_role("button", name="show the run that breaks it").click()
    page.get_by_label("Counterexample").wait_for()
    can_be_read(page, "editor", theme, width)
    page.goto(f"{address}/projects/shop/#/policy")
    page.get_by_text("in force").first.wait_for()
    can_be_read(page, "policy", theme, width)
