"""What is written to the log of a process: with ids, and nothing that was said."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from build import NOW, llm, mapped, program, step

from nano_vm import Completion, ExecutionVM, VMError, tool
from nano_vm.records.usage import LLMUsage
from nano_vm.telemetry.logs import FIELDS, LOGGER, Ids, JsonFormatter, Logs
from nano_vm.telemetry.redaction import Redaction

SECRET = "my card is 4000-1234"


class Model:
    model = "small"

    async def complete(self, messages: list[dict[str, Any]], **kwargs: Any) -> Completion:
        return Completion(SECRET, LLMUsage(10, 2, 12, Decimal("0.01")))


def flaky_tool() -> Any:
    calls = iter(range(100))

    @tool(effect="read")
    def flaky(text: str = "") -> None:
        if next(calls) == 0:
            raise ConnectionError(f"once more: {text}")

    return flaky


def broken(text: str = "") -> None:
    raise ValueError(f"cannot read {text}")


@contextmanager
def written(level: int = logging.DEBUG, name: str = LOGGER) -> Iterator[list[dict[str, Any]]]:
    """The lines of JSON that the logger *name* writes."""
    stream, lines = io.StringIO(), []
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger(name)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        lines += map(json.loads, stream.getvalue().splitlines())


async def test_a_run_is_written_with_its_ids() -> None:
    vm = ExecutionVM(Model(), {"flaky": flaky_tool(), "broken": broken}, observers=[Logs()])
    one = program(
        step("a", "flaky", args={"text": SECRET}, max_retries=2, retry=NOW),
        llm("m", SECRET),
        step("b", "broken", args={"text": SECRET}),
    )
    with written() as lines:
        assert not (await vm.run(one, run_id="r")).ok
    assert [(line["level"], line["message"]) for line in lines] == [
        ("INFO", "run r of p begins"),
        ("DEBUG", "step a begins"),
        ("WARNING", "step a: an attempt failed (tool), another follows"),
        ("DEBUG", "step a: success"),
        ("DEBUG", "step m begins"),
        ("DEBUG", "step m: success"),
        ("DEBUG", "step b begins"),
        ("WARNING", "step b: failed"),
        ("WARNING", "run r of p: failed"),
    ]
    assert {(line["run_id"], line["program"], line["logger"]) for line in lines} == {
        ("r", "p", LOGGER)
    }
    assert [line.get("path") for line in lines] == [None, *"aaammbb", None]
    model = lines[5]
    assert (model["target"], model["tokens"], model["cost_usd"]) == ("small", 12, "0.01")
    failed = lines[7]
    assert (failed["status"], failed["error_kind"], failed["error_type"]) == (
        "failed",
        "tool",
        "ValueError",
    )
    assert lines[3]["retries"] == 1
    assert list(failed)[:4] == ["time", "level", "logger", "message"]
    assert [name for name in FIELDS if name in failed] == list(failed)[4:]
    assert SECRET not in json.dumps(lines)


async def test_messages_of_errors_are_written_on_request_and_redacted() -> None:
    one = program(step("b", "broken", args={"text": SECRET}))
    with written() as lines:
        vm = ExecutionVM(tools={"broken": broken}, observers=[Logs(content=True)])
        await vm.run(one)
    assert f"cannot read {SECRET}" in json.dumps(lines)
    with written() as lines:
        logs = Logs(content=True, redaction=Redaction(patterns=[r"[\d-]{5,}"]))
        await ExecutionVM(tools={"broken": broken}, observers=[logs]).run(one)
    assert "cannot read my card is [redacted]" in json.dumps(lines)
    assert "4000-" not in json.dumps(lines)


async def test_below_its_level_nothing_is_written() -> None:
    vm = ExecutionVM(Model(), observers=[Logs()])
    with written(logging.INFO) as lines:
        await vm.run(program(llm("m")), run_id="r")
    assert [line["message"] for line in lines] == ["run r of p begins", "run r of p: success"]
    with written(logging.WARNING) as lines:
        await vm.run(program(llm("m")))
    assert lines == []


async def test_what_a_tool_writes_has_the_ids_of_its_step() -> None:
    shop = logging.getLogger("shop")

    async def look(n: int) -> None:
        shop.info("looking for %s", n)
        await asyncio.sleep(0.001 * n)
        shop.info("found %s", n)

    def in_thread() -> None:
        shop.info("in a thread")

    one = program(
        mapped(step("z", "look", args={"n": "$item"}), over=[3, 1, 2], id="each"),
        step("t", "in_thread"),
    )
    vm = ExecutionVM(tools={"look": look, "in_thread": in_thread}, observers=[Logs()])
    with written(name="shop") as lines:
        shop.info("before")
        assert (await vm.run(one, run_id="r")).ok
        shop.info("after")
    told = {(line["message"], line.get("run_id"), line.get("path")) for line in lines}
    assert told == {
        ("before", None, None),
        ("after", None, None),
        ("in a thread", "r", "t"),
        *(
            (f"{word} {n}", "r", f"each[{i}]/z")
            for i, n in enumerate((3, 1, 2))
            for word in ("looking for", "found")
        ),
    }


async def test_a_run_that_a_tool_begins_leaves_the_ids_as_they_were() -> None:
    shop = logging.getLogger("shop3")
    logs = Logs()
    inner = ExecutionVM(tools={"say": lambda: shop.info("inside")}, observers=[logs])

    async def begin() -> None:
        shop.info("before")
        await inner.run(program(step("b", "say")), run_id="inner")
        shop.info("after")

    vm = ExecutionVM(tools={"begin": begin}, observers=[logs])
    with written(name="shop3") as lines:
        await vm.run(program(step("a", "begin")), run_id="outer")
    assert [(line["message"], line["run_id"], line["path"]) for line in lines] == [
        ("before", "outer", "a"),
        ("inside", "inner", "b"),
        ("after", "outer", "a"),
    ]
    assert logs._callers == {}


async def test_a_format_of_ones_own_gets_the_ids_by_a_filter() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(run_id)s|%(path)s|%(message)s"))
    handler.addFilter(Ids())
    shop = logging.getLogger("shop2")
    shop.addHandler(handler)
    vm = ExecutionVM(tools={"look": lambda: shop.warning("here")}, observers=[Logs()])
    await vm.run(program(step("a", "look")), run_id="r")
    shop.warning("outside")
    shop.removeHandler(handler)
    assert stream.getvalue() == "r|a|here\n||outside\n"


async def test_a_run_that_waits_says_for_what_and_what_is_replayed_is_no_news(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    one = program(
        step("a", "flaky", max_retries=2, retry=NOW),
        {"id": "ask", "type": "approval", "role": "boss"},
    )
    with (
        written(logging.INFO) as lines,
        closing(ExecutionVM(tools={"flaky": flaky_tool()}, store=url, observers=[Logs()])) as vm,
    ):
        waiting = (await vm.run(one, run_id="r")).waiting
        vm.approve("r", "ask", shown=waiting[0].get("shown"), by="ann")
    assert lines[-1]["message"] == "run r of p: suspended"
    assert lines[-1]["waiting_for"] == ["approval at ask"]
    with (
        written() as lines,
        closing(ExecutionVM(tools={"flaky": flaky_tool()}, store=url, observers=[Logs()])) as vm,
    ):
        await vm.resume("r")
    assert [(line["level"], line["message"], line.get("replayed")) for line in lines] == [
        ("INFO", "run r of p is resumed", None),
        ("DEBUG", "step a: an attempt failed (tool), another follows", None),
        ("DEBUG", "step a: success", True),
        ("DEBUG", "step ask: success", None),
        ("INFO", "run r of p: success", None),
    ]


def test_hostile_text_stays_in_its_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("hostile")
    logger.addHandler(handler)
    try:
        raise ValueError("a\nb\ud800")
    except ValueError:
        logger.exception(
            'x\n{"level": "INFO"}\u2028%s', "y", extra={"run_id": object(), "error": {"a": {1}}}
        )
    logger.removeHandler(handler)
    (line,) = stream.getvalue().splitlines()
    data = json.loads(line)
    assert data["message"] == 'x\n{"level": "INFO"}\u2028y'
    assert "ValueError" in data["exception"]


@pytest.mark.slow
def test_without_configuration_only_warnings_are_seen() -> None:
    code = (
        "import nano_vm\n"
        "from nano_vm.telemetry.logs import Logs\n"
        "vm = nano_vm.ExecutionVM(tools={'t': lambda: 1}, observers=[Logs()])\n"
        "vm.run_sync(nano_vm.Program.from_yaml('steps: [{id: a, type: tool, tool: t}]'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logger": "nano"}, "logger is 'nano', which is no logging.Logger"),
        ({"content": 1}, "content is true or false, not 1"),
        ({"redaction": 1}, "redaction is a Redaction or a function"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(VMError, match=message):
        Logs(**options)
