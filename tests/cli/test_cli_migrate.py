"""``nano-vm migrate``, on a store with runs that wait."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nano_vm import ExecutionVM, Program
from nano_vm.cli import main

FIRST = """
name: offer
steps:
- {id: price, type: set, values: {sum: 5}}
- {id: ask, type: approval, role: boss, show: {sum: $sum}}
- {id: done, type: set, values: {said: sent}}
"""


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    vm = ExecutionVM(store=url)
    await vm.run(Program.from_yaml(FIRST), run_id="r1")
    vm.close()
    return url


def test_each_run_with_the_reason_why_it_stays(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "later.yaml").write_text(FIRST.replace("sent", "sent later"))
    assert main(["migrate", "later.yaml", "--dry-run", "--store", store]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "r1  suspended  may move",
        "1 unfinished run of 'offer': 1 may go on with later.yaml",
    ]
    (tmp_path / "dearer.yaml").write_text(FIRST.replace("sum: 5", "sum: 6"))
    assert main(["migrate", "dearer.yaml", "--dry-run", "--store", store, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["runs"][0]["reason"] == (
        "step 'price': its output was {'sum': 5}, and with the new program it is {'sum': 6}"
    )


PAID = """
name: paid
steps:
- {id: pay, type: tool, tool: pay, args: {n: $n}}
- {id: ask, type: approval, role: boss}
"""
RULES = (
    "inputs: {n: untrusted, limit: trusted}\ntools: {pay: {args: {n: trusted or $value <= $limit}}}"
)


async def test_a_run_that_was_begun_under_a_policy(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "paid.yaml").write_text(PAID + "version: '2'\n")
    vm = ExecutionVM(tools={"pay": lambda n: n}, policy="rules.yaml", store=store)
    await vm.run(Program.from_yaml(PAID), {"n": 5, "limit": 10}, run_id="r2")
    vm.close()
    command = ["migrate", "paid.yaml", "--dry-run", "--store", store]
    assert main([*command, "--policy", "rules.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "r2  suspended  may move"
    assert main(command) == 1
    assert (
        "r2  suspended  stays: this host cannot go on with it: run 'r2' was begun under a policy"
        in (capsys.readouterr().out)
    )


def test_mistakes(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.yaml").write_text(FIRST)
    assert main(["migrate", "one.yaml", "--store", store]) == 2
    assert "--dry-run says which can" in capsys.readouterr().err
    assert main(["migrate", "one.yaml", "--dry-run"]) == 2
    assert "which store?" in capsys.readouterr().err
    assert main(["migrate", "none.yaml", "--dry-run", "--store", store]) != 0
    assert main(["migrate", "one.yaml", "--dry-run", "--store", store, "--of", "other"]) == 0
    assert "0 unfinished runs of 'other'" in capsys.readouterr().out
