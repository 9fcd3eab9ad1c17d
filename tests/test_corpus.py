"""The language as cases of data: ``tests/corpus`` holds programs, inputs, scripted outcomes and
what must follow.

A case is ``case`` (its name), ``says`` (the sentence of the language that it shows), ``program``
(or ``text`` or ``json`` as written), ``inputs``, ``model`` and ``tools`` (scripts of outcomes),
``vm`` and ``run`` (options of both), and what is expected:

- ``load``: diagnostics of the loader, ``check``: those of ``vm.check``, ``refused``: those of the
  run. Each is ``[code, place]`` or ``[code, place, part of its text]``; ``warning X`` before the
  code is one that is no error.
- ``status``, ``output``, ``error`` (a part or several of the text), ``kind``, ``waiting``.
- ``steps``: all finished steps as ``[path, status]``, ``[path, status, output]`` or with a dict of
  further attributes.
- ``calls``: all tool calls as ``[tool, arguments]``; ``asked``: the text of each message sent;
  ``options``: those of each model call.
- ``variants``: changes to the case, each with ``digest: same`` or ``digest: other`` (of the trace),
  and ``program_digest`` likewise.

A script is one outcome, given for every call, or a list that must be used up exactly. An outcome is
a value or one of the tags below. Time is virtual: what waits, waits no time.
"""

from __future__ import annotations

import asyncio
import builtins
import datetime
import decimal
import enum
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from virtual_time import VirtualClock, VirtualLoop

from nano_vm import (
    Completion,
    Diagnostic,
    ExecutionVM,
    Limits,
    Program,
    ProgramError,
    StepResult,
    Trace,
    TraceStatus,
    errors,
    tool,
)
from nano_vm.diagnostics import format_loc

CORPUS = Path(__file__).with_name("corpus")


# --- outcomes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a scripted call does: the tag's name and its content."""

    kind: str
    content: Any


class CardDeclined(Exception):
    """An exception of a tool's own."""


class ConnectError(Exception):
    """Named as httpx names it: the request was never sent."""


class TransportError(Exception):
    """Named as httpx names it: nobody knows whether the request arrived."""


class ReadTimeout(TransportError):
    """A subclass, as httpx has it."""


class Colour(enum.Enum):
    RED = "red"


class Point(pydantic.BaseModel):
    x: int
    y: int = 2


@dataclass
class Pair:
    left: int
    right: list[int]


class _HostileRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class _HostileStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def _cycle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def _deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


async def _coroutine() -> str:
    return "awaited"


OBJECTS: dict[str, Callable[[], Any]] = {
    "model": lambda: Point(x=1),
    "dataclass": lambda: Pair(1, [2]),
    "date": lambda: datetime.date(2026, 1, 2),
    "datetime": lambda: datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    "enum": lambda: Colour.RED,
    "tuple": lambda: (1, 2),
    "decimal": lambda: decimal.Decimal("1.5"),
    "whole_decimal": lambda: decimal.Decimal("12"),
    "inexact_decimal": lambda: decimal.Decimal("0.1000000000000000055511151231257827"),
    "nan": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "cycle": _cycle,
    "deep": lambda: _deep(100_000),
    "surrogate": lambda: "a\ud800",
    "surrogate_key": lambda: {"\udfff": 1},
    "number_key": lambda: {1: "one"},
    "huge_int": lambda: 1 << 4096,
    "largest_int": lambda: (1 << 4096) - 1,
    "bytes": lambda: b"abc",
    "set": lambda: {1, 2},
    "object": _HostileRepr,
    "type": lambda: int,
    "generator": lambda: (i for i in range(3)),
    "async_generator": lambda: _async_generator(),
    "coroutine": _coroutine,
    "function": lambda: len,
    "large": lambda: "x" * (17 * 1024 * 1024),
    "nul": lambda: "a\0b",
    "none_completion": lambda: Completion(None),  # type: ignore[arg-type]
}


async def _async_generator() -> Any:
    yield 1


class Loader(yaml.CSafeLoader):
    """YAML 1.2's scalars, and a tag for each kind of outcome."""


Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"-?[0-9]+", "-0123456789"),
    ("float", r"-?[0-9]+\.[0-9]+([eE][-+]?[0-9]+)?", "-0123456789"),
):
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first)
    )


def _outcome(loader: Loader, suffix: str, node: yaml.Node) -> Outcome:
    if isinstance(node, yaml.ScalarNode):
        return Outcome(suffix, node.value)
    if isinstance(node, yaml.SequenceNode):
        return Outcome(suffix, loader.construct_sequence(node, deep=True))
    assert isinstance(node, yaml.MappingNode)
    return Outcome(suffix, loader.construct_mapping(node, deep=True))


Loader.add_multi_constructor("!", _outcome)  # type: ignore[no-untyped-call]


# --- a host made of scripts -----------------------------------------------------------------------


class Script:
    """Outcomes in order; what is not a list is the outcome of every call."""

    def __init__(self, name: str, outcomes: Any) -> None:
        self.name = name
        self.outcomes = outcomes
        self.used = 0

    def next(self) -> Any:
        self.used += 1
        if not isinstance(self.outcomes, list):
            return self.outcomes
        if self.used > len(self.outcomes):
            return Outcome(
                "raises",
                ["AssertionError", f"{self.name} was called more than {len(self.outcomes)} times"],
            )
        return self.outcomes[self.used - 1]

    def check(self) -> None:
        if isinstance(self.outcomes, list):
            assert self.used == len(self.outcomes), (
                f"{self.name}: {self.used} calls, {len(self.outcomes)} scripted"
            )


class HostScripts:
    """The tools and the model of one run of a case, and what they were called with."""

    def __init__(self, case: Mapping[str, Any]) -> None:
        self.calls: list[list[Any]] = []
        self.asked: list[Any] = []
        self.options: list[dict[str, Any]] = []
        self.scripts: list[Script] = []
        self.run: Any = None
        self.tools = {name: self.tool(name, spec) for name, spec in case.get("tools", {}).items()}
        self.llm = self.model(case["model"]) if "model" in case else None

    def script(self, name: str, outcomes: Any) -> Script:
        script = Script(name, outcomes)
        self.scripts.append(script)
        return script

    def tool(self, name: str, spec: Any) -> Any:
        """A tool of a script, or of ``!tool {does, effect, takes: {name: type}, optional, key,
        timeout_seconds}``.
        """
        options = (
            spec.content if isinstance(spec, Outcome) and spec.kind == "tool" else {"does": spec}
        )
        script = self.script(f"tool {name}", options["does"])

        async def call(**arguments: Any) -> Any:
            self.calls.append([name, dict(arguments)])
            return await self.play(script.next(), arguments)

        if "takes" in options or options.get("key"):
            types = {
                "int": int,
                "str": str,
                "float": float,
                "bool": bool,
                "list": list,
                "dict": dict,
                "any": Any,
            }
            hints = {argument: types[kind] for argument, kind in options.get("takes", {}).items()}
            optional = options.get("optional", [])
            if options.get("key"):
                hints["idempotency_key"] = str
            parameters = [
                inspect.Parameter(
                    a,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None if a in optional else inspect.Parameter.empty,
                )
                for a in hints
            ]
            if "takes" not in options:
                parameters.append(inspect.Parameter("rest", inspect.Parameter.VAR_KEYWORD))
            call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
            call.__annotations__ = hints
        return tool(effect=options.get("effect"), timeout_seconds=options.get("timeout_seconds"))(
            call
        )

    def model(self, outcomes: Any) -> Any:
        """An adapter of a script, or of ``!prompts {part of the last message: script}``."""
        if isinstance(outcomes, Outcome) and outcomes.kind == "prompts":
            scripts = {
                part: self.script(f"model {part!r}", does)
                for part, does in outcomes.content.items()
            }
        else:
            scripts = {"": self.script("the model", outcomes)}
        host = self

        class Scripted:
            model = "scripted"

            async def complete(self, messages: list[dict[str, str]], **options: Any) -> Any:
                host.asked.append(
                    messages[-1]["content"]
                    if len(messages) == 1
                    else [[m["role"], m["content"]] for m in messages]
                )
                host.options.append(options)
                script = next(s for part, s in scripts.items() if part in messages[-1]["content"])
                return await host.play(script.next(), options)

        return Scripted()

    async def play(self, outcome: Any, arguments: dict[str, Any]) -> Any:
        if not isinstance(outcome, Outcome):
            return outcome
        content = outcome.content
        match outcome.kind:
            case "raises":
                name, message = content
                kind = globals().get(name) or getattr(errors, name, None) or getattr(builtins, name)
                raise kind(resolved(message))
            case "fails":
                given = dict(content)
                raise getattr(errors, given.pop("type", "ModelError"))(
                    given.pop("message"), **given
                )
            case "refuses":
                raise errors.ModelError(content, retryable=False)
            case "slow_down":
                raise errors.RateLimited("slow down", retry_after_seconds=float(content))
            case "hangs":
                await asyncio.Event().wait()
            case "swallows":  # answers its own cancellation with a value
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    return content
            case "echo":
                return arguments[content] if content else dict(arguments)
            case "key":
                return {"key": arguments["idempotency_key"]}
            case "changes":  # a tool that changes what it was handed
                for value in arguments.values():
                    value.append("changed") if isinstance(value, list) else value.update(
                        changed=True
                    )
                return content
            case "by":
                return await self.play(content[str(arguments[content["argument"]])], arguments)
            case "after":
                seconds, then = content
                await asyncio.sleep(seconds)
                return await self.play(then, arguments)
            case "turns":
                turns, then = content
                for _ in range(turns):
                    await asyncio.sleep(0)
                return await self.play(then, arguments)
            case "cancels":  # whoever holds the run cancels it, while this call is under way
                self.run.task.cancel()
                await asyncio.Event().wait()
            case "answer":
                return Completion(**content)
            case "pair":
                return (content[0], content[1])
            case "object":
                return OBJECTS[content]()
            case "times":
                text, count = content
                return text * count
        raise AssertionError(outcome.kind)


# --- running a case -------------------------------------------------------------------------------


@dataclass
class Ran:
    """What came of one run."""

    trace: Trace
    host: HostScripts
    checked: list[Diagnostic] = field(default_factory=list)


def load(case: Mapping[str, Any]) -> Program:
    if "text" in case:
        return Program.from_yaml(case["text"])
    if "json" in case:
        return Program.from_json(case["json"])
    return Program.from_dict(case["program"])


def execute(case: Mapping[str, Any]) -> Ran:
    """Load, check and run, in an event loop of its own."""
    host = HostScripts(case)
    options = dict(case.get("vm", {}))
    if "limits" in options:
        options["limits"] = Limits(**options["limits"])
    options["programs"] = {
        name: Program.from_dict(data) for name, data in options.get("programs", {}).items()
    }
    program = load(case)

    async def run() -> Ran:
        vm = ExecutionVM(host.llm, host.tools, clock=VirtualClock, **options)
        checked = vm.check(program)
        inputs = {name: resolved(value) for name, value in case.get("inputs", {}).items()}
        run_options = {"run_id": "run", "seed": 7, **case.get("run", {})}
        host.run = vm.start(program, inputs, **run_options)
        return Ran(await host.run.result(), host, checked)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


def resolved(value: Any) -> Any:
    return OBJECTS[value.content]() if isinstance(value, Outcome) else value


@functools.cache  # several files of tests are about every case
def written(path: Path) -> list[dict[str, Any]]:
    """The cases of a file of the corpus."""
    found: list[dict[str, Any]] = yaml.load(path.read_text(encoding="utf-8"), Loader)
    return found


def cases() -> Iterator[Any]:
    for path in sorted(CORPUS.glob("*.yaml")):
        seen = set()
        for case in written(path):
            name = case["case"]
            assert name not in seen, f"{path.name}: two cases {name!r}"
            seen.add(name)
            yield pytest.param(case, id=f"{path.stem}-{name}")


def assert_diagnostics(
    found: list[Diagnostic] | tuple[Diagnostic, ...], expected: list[list[str]]
) -> None:
    shown = [
        [f"{'' if d.severity == 'error' else d.severity + ' '}{d.code}", format_loc(d.loc)]
        for d in found
    ]
    assert shown == [e[:2] for e in expected], "\n".join(map(str, found))
    for diagnostic, (_, _, *parts) in zip(found, expected, strict=True):
        for part in parts:
            assert part in str(diagnostic)


def assert_steps(trace: Trace, expected: list[list[Any]]) -> None:
    shown = [[s.path, s.status.value] for s in trace.steps]
    assert shown == [e[:2] for e in expected], [
        (s.path, s.status.value, s.error) for s in trace.steps
    ]
    for step, (_, _, *rest) in zip(trace.steps, expected, strict=True):
        if rest:
            assert same(step.output, rest[0]), (step.path, step.output)
        for name, value in (rest[1] if len(rest) > 1 else {}).items():
            found = getattr(step, name)
            if name == "error":
                assert value in (found or ""), (step.path, found)
            elif name == "usage":
                assert found is not None
                assert found.total_tokens == value, step.path
            else:
                assert same(found, value), (step.path, name, found)


def same(a: Any, b: Any) -> bool:
    """Equal by type too: 1 is not 1.0 and not true."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def merged(case: Any, change: Any) -> Any:
    """*change* put over *case*; null removes a field."""
    if not isinstance(case, dict) or not isinstance(change, dict):
        return change
    result = dict(case)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(case.get(key), value)
    return result


FIELDS = frozenset(
    "case says program text json inputs model tools vm run load check refused status output error "
    "kind waiting steps "
    "calls asked options variants total_tokens cost".split()
)


@pytest.mark.parametrize("case", list(cases()))
def test_case(case: dict[str, Any]) -> None:
    assert set(case) <= FIELDS, sorted(set(case) - FIELDS)
    assert len(case["says"]) > 5
    if "load" in case:
        with pytest.raises(ProgramError) as caught:
            load(case)
        assert_diagnostics(caught.value.diagnostics, case["load"])
        return
    ran = execute(case)
    trace, host = ran.trace, ran.host
    if "check" in case:
        assert_diagnostics(ran.checked, case["check"])
    elif "refused" not in case:
        assert ran.checked == [], "\n".join(map(str, ran.checked))
    if "refused" in case or "status" not in case:
        errors_found = [d for d in trace.diagnostics if d.severity == "error"]
        expected = (
            case["refused"] if "refused" in case else [d for d in case["check"] if " " not in d[0]]
        )
        assert_diagnostics(errors_found, expected)
        assert expected or "status" in case, "the case expects nothing"
        assert trace.status is TraceStatus.FAILED
        assert trace.steps == []
        assert host.calls == []
        assert host.asked == []
        return
    assert trace.status.value == case["status"], trace.error
    if "output" in case:
        assert same(trace.final_output, case["output"]), trace.final_output
    parts = case.get("error", [])
    for part in [parts] if isinstance(parts, str) else parts:
        assert part in (trace.error or ""), trace.error
    if "error" not in case and case["status"] == "success":
        assert trace.error is None
    if "kind" in case:
        assert trace.error_kind == case["kind"]
    if "steps" in case:
        assert_steps(trace, case["steps"])
    if "waiting" in case:
        assert trace.waiting == case["waiting"]
    if "calls" in case:
        assert same(host.calls, case["calls"]), host.calls
    if "asked" in case:
        assert host.asked == case["asked"], host.asked
    if "options" in case:
        assert host.options == case["options"], host.options
    if "total_tokens" in case:
        assert trace.total_tokens() == case["total_tokens"]
    if "cost" in case:
        cost = trace.total_cost_usd()
        assert (str(cost) if cost is not None else None) == case["cost"]
    for script in host.scripts:
        script.check()
    assert_holds_for_every_run(case, trace)
    for variant in case.get("variants", ()):
        assert_variant(case, trace, variant)


def assert_holds_for_every_run(case: dict[str, Any], trace: Trace) -> None:
    """Same again: same digest; read back: same digest, seal and steps; paths are unique."""
    assert execute(case).trace.digest == trace.digest
    back = Trace.from_json(trace.to_json())
    assert (back.digest, back.seal, back.status) == (trace.digest, trace.seal, trace.status)
    assert list(map(shown, back.steps)) == list(map(shown, trace.steps))
    paths = [step.path for step in trace.steps]
    assert len(set(paths)) == len(paths), paths
    program = load(case)
    assert Program.from_dict(program.to_dict()).digest == program.digest
    if "programs" not in case.get("vm", {}):  # those that it calls by name are in the trace's
        assert trace.program_digest == program.digest


def shown(step: StepResult) -> tuple[Any, ...]:
    """All of a step; of the errors of its attempts what a trace tells."""
    return replace(step, attempts=()), [
        (a.outcome(), a.started_ns, a.finished_ns) for a in step.attempts
    ]


def assert_variant(case: dict[str, Any], trace: Trace, variant: dict[str, Any]) -> None:
    changed = merged(
        case,
        {key: value for key, value in variant.items() if key not in ("digest", "program_digest")},
    )
    if "program_digest" in variant:
        equal = load(changed).digest == load(case).digest
        assert equal == (variant["program_digest"] == "same"), variant
    if "digest" in variant:
        other = execute(changed).trace
        assert (other.digest == trace.digest) == (variant["digest"] == "same"), (
            variant,
            other.steps,
        )
