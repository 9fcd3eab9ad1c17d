"""Every program of the examples and the documents, through each command, with each option left out
in turn.

What is missing is told in a line, with an exit code of its own: never an internal error, never a
traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import find

from nano_vm.cli import main
from nano_vm.cli.faults import INTERNAL

ROOT = Path(__file__).parents[2]
INPUTS = [
    "-i",
    "user_input=hello",
    "-i",
    "order_id=A-1001",
    "-i",
    "mail=Pay me",
    "-i",
    "note=It smokes",
]
RECONCILED = "steps: [{id: a, type: tool, tool: pay, reconcile: {tool: look}}]\n"


def programs() -> Iterator[tuple[str, str, list[list[str]]]]:
    """A name, the text, and the options that it would be run with."""
    for file in sorted((ROOT / "examples").glob("*.yaml")):
        if file.stem.endswith(".policy"):
            continue
        options = [INPUTS]
        tools, policy = file.with_suffix(".py"), file.with_suffix(".policy.yaml")
        if tools.exists() and "def main" not in tools.read_text(encoding="utf-8"):
            options.append(["--tools", str(tools)])
        if policy.exists():
            options.append(["--policy", str(policy)])
        yield file.name, file.read_text(encoding="utf-8"), options
    for page in (
        ROOT / "README.md",
        *map(find, ("errors.md", "answers.md", "durable.md", "loop.md")),
    ):
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        for number, block in enumerate(
            block for block in blocks if re.search(r"^steps:", block, re.MULTILINE)
        ):
            yield f"{page.stem}-{number}", block, [INPUTS]
    yield "reconciled", RECONCILED, [INPUTS]


CASES = list(programs())


@pytest.mark.slow
@pytest.mark.parametrize(("text", "options"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
@pytest.mark.parametrize("command", ["run", "check", "explain", "graph", "fmt", "explore"])
def test_nothing_that_is_left_out_is_an_internal_error(
    command: str,
    text: str,
    options: list[list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = tmp_path / "program.yaml"
    program.write_text(text, encoding="utf-8")
    if command in ("explain", "graph", "fmt"):
        options = []
    elif command != "run":
        options = options[1:]
    store = [["--store", f"sqlite:///{tmp_path}/runs.db"]] if command == "run" else []
    bound = ["--max-runs", "20"] if command == "explore" else []
    with_all = [*options, ["--answer", "analyze=unhappy"], *store] if command == "run" else options
    for left_out in [None, *range(len(with_all))]:
        given = [
            word for number, part in enumerate(with_all) if number != left_out for word in part
        ]
        code = main([command, str(program), *given, *bound])
        told = capsys.readouterr()
        assert code in (0, 1, 2, 3), (given, told.err)
        assert code != INTERNAL
        assert "error in nano-vm itself" not in told.err, (given, told.err)
        assert "Traceback" not in told.err, (given, told.err)
