"""The README tells the truth on one screen: its program is proved to keep to its policy, its
commands exist, its links lead somewhere.
"""

from __future__ import annotations

import re
from pathlib import Path

from nano_vm import Program, tool
from nano_vm.verify import verify

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
(PROGRAM,) = [text for kind, text in BLOCKS if kind == "yaml"]


@tool(effect="read")
def get_order(order_id: str) -> dict:
    """Never called."""
    return {}


@tool(effect="irreversible")
def issue_refund(order_id: str, amount: float) -> str:
    """Never called."""
    return ""


TOOLS = {"get_order": get_order, "issue_refund": issue_refund}


def test_what_it_says_of_its_program_is_proved() -> None:
    report = verify(Program.from_yaml(PROGRAM), tools=TOOLS)
    assert report.ok, str(report)
    assert {proof.kind for proof in report.proofs} == {"guard", "approval", "max_calls"}


def test_a_way_around_the_manager_is_refused() -> None:
    around = PROGRAM.replace("then: manager", "then: pay")
    report = verify(Program.from_yaml(around), tools=TOOLS)
    assert not report.ok
    assert [proof.kind for proof in report.proofs if proof.status == "refuted"] == ["approval"]


def test_its_picture_is_of_a_run_of_these_steps() -> None:
    trace = (ROOT / "docs" / "trace.svg").read_text(encoding="utf-8")
    for step in Program.from_yaml(PROGRAM).steps:
        assert f"\u00a0{step.id}\u00a0" in trace


def test_it_fits_on_one_screen() -> None:
    assert len(README.splitlines()) <= 50


def test_the_commands_it_names_exist() -> None:
    targets = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    made = set(
        re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert targets == {"demo", "test"}
    assert targets <= made


def test_the_files_it_links_are_there() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
