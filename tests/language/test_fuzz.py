"""What must hold for any input: the loader raises `ProgramError` only; a program that passes ends,
always alike.

Programs are drawn with all step types in all nestings; tools and model answer as a number drawn for
the run says. Nothing sleeps: tools give way to others a drawn number of times, so that branches end
in every order.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import HANGS_SECONDS
from virtual_time import VirtualClock, VirtualLoop

from nano_vm import ExecutionVM, Limits, ModelError, Program, ProgramError, Trace, tool
from nano_vm.errors import ExprError
from nano_vm.language.expr import parse_expr, parse_template

# In CI the examples are the same every time; elsewhere each run looks at others.
fuzz = settings(
    derandomize=bool(os.environ.get("CI")),
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)

# --- the loader and the parser --------------------------------------------------------------------

WORDS = (
    "steps id type llm tool condition switch parallel parallel_steps map over as loop until "
    "max_iterations call "
    "program with set values approval role wait seconds event then otherwise next prompt args "
    "cases default on_error "
    "skip catch errors retry budget inputs "
    "properties output $x $a.output ${ } $end true null 1 -1 1e9 .nan "
    "[ ] { } : , - & * &a *a ! !!str | > ' \" # % @ ` --- ... ? << \n"
).split(" ")

soup = st.lists(
    st.sampled_from([*WORDS, "\n", "  ", "\n  ", "\n  - ", ": "]) | st.text(max_size=3), max_size=60
).map("".join)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([w for w in WORDS if w.isidentifier()])
)
anything = st.recursive(
    scalars | st.binary(max_size=3) | st.just({1}) | st.just(object()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([w for w in WORDS if w.isidentifier()]) | scalars, inner, max_size=6
        )
        | st.tuples(inner)
    ),
    max_leaves=25,
)


def loads_or_says_why(load: Any, value: Any) -> None:
    try:
        program = load(value)
    except ProgramError as error:
        found = error.diagnostics
    else:
        assert Program.from_dict(program.to_dict()).digest == program.digest
        ExecutionVM().check(program)
        return
    assert any(d.severity == "error" for d in found)
    for diagnostic in found:
        assert diagnostic.code[0] == "P"
        json.dumps(diagnostic.to_dict())


@pytest.mark.slow
@fuzz
@given(soup | st.text())
def test_any_text(text: str) -> None:
    loads_or_says_why(Program.from_yaml, text)
    loads_or_says_why(Program.from_json, text)


@pytest.mark.slow
@fuzz
@given(st.binary() | soup.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    loads_or_says_why(Program.from_file, path)


@pytest.mark.slow
@fuzz
@given(anything)
def test_any_data(data: Any) -> None:
    loads_or_says_why(Program.from_dict, data)


@pytest.mark.slow
@fuzz
@given(
    st.dictionaries(st.sampled_from([w for w in WORDS if w.isidentifier()]), anything, max_size=8),
    st.sampled_from(WORDS[2:30]),
)
def test_any_step(fields: dict[str, Any], kind: str) -> None:
    loads_or_says_why(Program.from_dict, {"steps": [{"id": "a", **fields, "type": kind}]})
    loads_or_says_why(
        Program.from_dict,
        {
            **fields,
            "steps": [{"id": "a", "type": "condition", "condition": "true", "then": [fields]}],
        },
    )


tokens = st.sampled_from(
    (
        "$a ${a} $a.b $a[0] $a[-1] ${a['k']} ['k'] [-1] ${ } $a[ 1 1.5 'x' '$a' \"y\" true null "
        "and or not in == != < <= "
        "+ - * / % ( ) [ ] , . lower() len( int( append( default( get( min( json( split( .strip() "
        "** is \\ ' \""
    ).split(" ")
)


@fuzz
@given(
    st.text()
    | st.lists(tokens, max_size=25).map(" ".join)
    | st.lists(tokens, max_size=25).map("".join)
)
def test_any_expression(text: str) -> None:
    for parse in (parse_expr, parse_template):
        try:
            parse(text)
        except ExprError:
            pass


# --- programs that pass ---------------------------------------------------------------------------


class Draw:
    """Draws a program that reads inputs only, so that it passes the check of names."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.count = 0
        self.ids: list[str] = []

    def pick(self, options: Any) -> Any:
        return self.data.draw(st.sampled_from(options))

    def number(self, low: int, high: int) -> int:
        return int(self.data.draw(st.integers(low, high)))

    def value(self, known: list[str]) -> Any:
        """A literal with references in it."""
        kind = self.number(0, 6)
        if kind == 0:
            return self.number(-3, 3)
        if kind == 6:
            return self.pick(
                [{"expr": self.call(known)}, [{"expr": self.call(known)}, f"${self.pick(known)}.k"]]
            )
        if kind == 1:
            return self.pick(["text", "$$", "$5", "it's", "ä", "", "' or true"])
        if kind == 2:
            return f"${self.pick(known)}"
        if kind == 3:
            return f"<${self.pick(known)}|${{{self.pick(known)}}}>"
        if kind == 4:
            return [f"${self.pick(known)}", None]
        return {"k": f"${self.pick(known)}", "b": True}

    def call(self, known: list[str]) -> str:
        """A function of what is known, sometimes an error: of the step, and never of the
        machine.
        """
        name, other = self.pick(known), self.pick(known)
        return str(
            self.pick(
                [
                    f"append([${name}], ${other})",
                    f"concat('${name}', '${other}')",
                    f"join([${name}, ${other}], '-')",
                    f"split('${name}', 'e')",
                    f"default(${name}.k, ${other})",
                    f"get(${name}, 'k', ${other})",
                    f"sorted(['${name}', '${other}'])",
                    f"json('${name}')",
                    f"max(len('${name}'), $n)",
                    "round($n / 2) + sum([$n])",
                    f"keys(${name})",
                ]
            )
        )

    def test(self, known: list[str]) -> str:
        name = self.pick(known)
        return str(
            self.pick(
                [
                    "true",
                    "false",
                    "$n > 2",
                    f"$n == '${name}'",
                    f"'a' in '${name}'.lower()",
                    f"$n % 2 == 0 or ${name} == null",
                    f"not (${name} == 'a')",
                    f"${name} < 3",  # often an error: of the step, never false
                    f"len('${name}') > 3 and $n < 9",
                ]
            )
        )

    def block(
        self, depth: int, known: list[str], jumps: list[str], most: int = 3
    ) -> list[dict[str, Any]]:
        """Steps of one list; a step may jump forward to one after it, so that no circle comes
        about.
        """
        count = self.number(1, most)
        ids = []
        for _ in range(count):
            self.count += 1
            ids.append(f"s{self.count}")
        return [
            self.step(ids[i], depth, known, [*ids[i + 1 :], *jumps, "$end", "$next"])
            for i in range(count)
        ]

    def target(self, depth: int, known: list[str], jumps: list[str]) -> Any:
        if depth > 0 and self.number(0, 1):
            return self.block(depth - 1, known, jumps, 2)
        return self.pick([*jumps, "$fail"])

    def step(self, step_id: str, depth: int, known: list[str], jumps: list[str]) -> dict[str, Any]:
        flat = ["tool", "tool", "llm", "set", "condition", "switch", "assert", "fail"]
        kind = self.pick(
            [*flat, "parallel", "map", "loop", "call", "approval", "wait"] if depth > 0 else flat
        )
        step: dict[str, Any] = {"id": step_id, "type": kind}
        inside = [name for name in jumps if not name.startswith("$")]
        if kind == "tool":
            step |= {
                "tool": self.pick(["read", "write", "keyed"]),
                "args": {"a": self.value(known), "i": step_id},
            }
            if self.number(0, 3) == 0:
                step |= {"max_retries": self.number(2, 3), "retry": {"delay_seconds": 0}}
            if self.number(0, 3) == 0:
                step["undo"] = {"tool": "read", "args": {"u": f"${step_id}.output"}}
        elif kind == "llm":
            step["prompt"] = f"{step_id}: {self.value(known)}"
            if self.number(0, 1):
                step |= {"allowed_outputs": ["yes", "no"], "on_invalid": "no"}
            step["retry"] = {"delay_seconds": 0}
        elif kind == "set":
            step["values"] = {"v": self.value(known), "w": {"expr": self.test(known)}}
        elif kind == "condition":
            step |= {
                "condition": self.test(known),
                "then": self.target(depth, known, jumps),
                "otherwise": self.target(depth, known, jumps),
            }
        elif kind == "switch":
            step |= {
                "on": f"${self.pick(known)}",
                "cases": {"a": self.target(depth, known, jumps), "3": "$end"},
            }
            step["default"] = self.target(depth, known, jumps)
        elif kind == "assert":
            step |= {"condition": self.test(known), "message": f"{step_id}: {self.value(known)}"}
        elif kind == "fail":
            step |= {"error": "Boom", "message": f"{step_id}: {self.value(known)}"}
            if self.number(0, 3):
                step["when"] = self.test(known)
        elif kind == "parallel":
            step["parallel_steps"] = [
                self.block(depth - 1, known, [], 2) for _ in range(self.number(1, 3))
            ]
        elif kind == "map":
            step |= {
                "over": self.pick([[1, 2, 3], [], "$items", {"expr": "append($items, $n)"}]),
                "as": "it",
                "steps": self.block(depth - 1, [*known, "it"], [], 2),
            }
        elif kind == "loop":
            step |= {
                "max_iterations": self.number(1, 3),
                "until": self.test(known),
                "on_exhausted": self.pick(["fail", "continue"]),
            }
            step["steps"] = self.block(depth - 1, known, jumps, 2)
        elif kind == "call":
            names = ["n", "items", "t"]
            step |= {
                "with": {name: f"${name}" for name in names},
                "program": {"steps": self.block(depth - 1, names, [], 2)},
            }
        elif kind == "approval":
            step |= {
                "role": "r",
                "show": self.value(known),
                "then": self.target(depth, known, jumps),
                "otherwise": "$end",
            }
        else:
            step["seconds"] = 5
        if kind == "fail":
            return step
        if self.number(0, 2) == 0 and kind not in ("wait", "approval", "assert"):
            step["on_error"] = "skip"
            if kind != "switch":
                step["default"] = self.value(["n"])
        if self.number(0, 5) == 0:
            step["next"] = self.pick(jumps)
        if self.number(0, 5) == 0 and inside and kind not in ("wait", "approval"):
            step["catch"] = [
                {
                    "errors": [self.pick(["tool", "model", "*", "Boom", "value"])],
                    "next": self.pick(inside),
                }
            ]
        return step


@st.composite
def programs(draw: Any) -> dict[str, Any]:
    class Source:
        @staticmethod
        def draw(strategy: Any) -> Any:
            return draw(strategy)

    inputs = {
        "type": "object",
        "properties": {"n": {}, "items": {"type": "array"}, "t": {}},
        "required": ["n", "items", "t"],
    }
    return {
        "inputs": inputs,
        "steps": Draw(Source).block(draw(st.integers(0, 3)), ["n", "items", "t"], []),
    }


class Boom(Exception):
    """What the tools raise."""


def chance(*parts: Any) -> int:
    """A number from 0 to 255 that depends on *parts* alone."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()[0]


def machine_of(seed: int, order: int) -> ExecutionVM:
    """A host whose outcomes depend on *seed* and the request, and whose order of completion on
    *order*.
    """
    tried: dict[str, int] = {}

    async def outcome(*request: Any) -> Any:
        for _ in range(chance(order, request) % 7 if order else 0):
            await asyncio.sleep(0)
        attempt = tried[key] = tried.get(key := json.dumps(request, sort_keys=True), 0) + 1
        # two items of a map may ask the same: only a key tells whose second attempt this is
        number = chance(seed, request, attempt if request[0] == "keyed" else 0)
        if number < 50:
            raise Boom(f"boom {number}")
        if number < 60:
            raise ValueError(f"value {number}")
        return [None, True, number % 5, 1.5, "a", "$n", ["x", {"y": 1}], {"a": "b"}, "yes", "No."][
            number % 10
        ]

    @tool(effect="read")
    async def read(**arguments: Any) -> Any:
        return await outcome("read", arguments)

    async def write(**arguments: Any) -> Any:
        return await outcome("write", arguments)

    async def keyed(idempotency_key: str, **arguments: Any) -> Any:
        return await outcome("keyed", idempotency_key, arguments)

    class Model:
        async def complete(self, messages: list[dict[str, str]], **options: Any) -> Any:
            try:
                answer = await outcome("model", messages)
            except Boom as error:
                raise ModelError(str(error), retryable=False) from None
            return (str(answer), {"prompt_tokens": len(messages), "completion_tokens": 1})

    return ExecutionVM(
        Model(),
        {"read": read, "write": write, "keyed": keyed},
        clock=VirtualClock,
        limits=Limits(steps=2000),
    )


def ran(program: Program, seed: int, order: int) -> Trace:
    async def run() -> Trace:
        inputs = {"n": seed % 7, "items": [3, "a", None], "t": "text"}
        return await machine_of(seed, order).start(program, inputs, run_id=f"run-{seed}").result()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


@pytest.mark.slow
@fuzz
@given(programs(), st.integers(0, 1000))
def test_a_program_that_passes_ends_and_its_digest_is_its_own(
    data: dict[str, Any], seed: int
) -> None:
    program = Program.from_dict(data)
    found = ExecutionVM(
        machine_of(0, 0).preparer.adapters[None].adapter,
        {"read": print, "write": print, "keyed": print},
    ).check(program)
    wrong = [str(d) for d in found if d.code in ("V003", "V004", "V005")]
    assert wrong == []
    trace = ran(program, seed, 0)
    if trace.diagnostics:  # refused, with its reasons
        assert not trace.steps
        return
    assert trace.status.value in ("success", "failed", "suspended"), trace.error
    assert len(trace.steps) <= 2000 * 2
    paths = [step.path for step in trace.steps]
    assert len(set(paths)) == len(paths), paths
    assert ran(program, seed, 0).digest == trace.digest
    for order in (1, 2):
        other = ran(program, seed, order)
        assert [s.path for s in other.steps] == paths
        assert other.digest == trace.digest
    back = Trace.from_json(trace.to_json())
    assert (back.digest, back.seal) == (trace.digest, trace.seal)
    assert ran(Program.from_json(json.dumps(program.to_dict())), seed, 0).digest == trace.digest


@pytest.mark.slow
@fuzz
@given(programs(), st.integers(0, 1000))
def test_a_guard_fails_closed(data: dict[str, Any], seed: int) -> None:
    """Behind a condition, its `then` runs only where the trace shows that it held."""
    steps = [
        *data["steps"],
        {
            "id": "guard",
            "type": "condition",
            "condition": "$t == 'never' and $n < 3",
            "then": "pay",
            "otherwise": "$end",
            "on_error": "skip",
        },
        {"id": "pay", "type": "tool", "tool": "write", "args": {"a": "pay"}},
    ]
    trace = ran(Program.from_dict({**data, "steps": steps}), seed, 0)
    assert "pay" not in [step.step_id for step in trace.steps]


# --- the same everywhere --------------------------------------------------------------------------


def drawn_programs(count: int) -> list[Any]:
    """Programs that are the same on every machine: drawn by hashes, not by Hypothesis."""

    class Hashed:
        def __init__(self, seed: int) -> None:
            self.state = [seed, 0]

        def draw(self, strategy: Any) -> Any:
            self.state[1] += 1
            number = int.from_bytes(
                hashlib.sha256(json.dumps(self.state).encode()).digest()[:4], "big"
            )
            return strategy(number)

    class Hand(Draw):
        def pick(self, options: Any) -> Any:
            return self.data.draw(lambda number: options[number % len(options)])

        def number(self, low: int, high: int) -> int:
            return int(self.data.draw(lambda number: low + number % (high - low + 1)))

    inputs = {
        "type": "object",
        "properties": {"n": {}, "items": {"type": "array"}, "t": {}},
        "required": ["n", "items", "t"],
    }
    return [
        {"inputs": inputs, "steps": Hand(Hashed(i)).block(3, ["n", "items", "t"], [])}
        for i in range(count)
    ]


def digests(count: int) -> list[str]:
    result = []
    for seed, data in enumerate(drawn_programs(count)):
        program = Program.from_dict(data)
        trace = ran(program, seed, seed % 3)
        found = [d.to_dict() for d in trace.diagnostics]
        result.append(f"{program.digest} {trace.digest} {trace.status.value} {trace.error} {found}")
    return result


COUNT = 60


def digests_elsewhere(python: str | Path, hash_seed: str) -> list[str]:
    """What `digests` gives in another process."""
    source = Path(sys.modules["nano_vm"].__file__ or "").parent.parent
    here = Path(__file__).parent
    paths = [str(source), str(here.parent), str(here)]
    if Path(python) == Path(sys.executable):
        paths += [path for path in sys.path if path]
    program = STAND_IN + f"import json, test_fuzz; print(json.dumps(test_fuzz.digests({COUNT})))"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONHASHSEED": hash_seed,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [str(python), "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[str] = json.loads(done.stdout)
    return found


# Other Pythons may lack pytest and Hypothesis: anything is good enough to import these modules with.
STAND_IN = """
import sys, importlib.util, unittest.mock
for name in ("pytest", "hypothesis", "hypothesis.strategies"):
    if name.split(".")[0] in sys.modules or importlib.util.find_spec(name.split(".")[0]) is None:
        sys.modules[name] = unittest.mock.MagicMock()
"""


@pytest.mark.slow
def test_programs_of_the_set_are_of_all_kinds() -> None:
    found = digests(COUNT)
    text = json.dumps(drawn_programs(COUNT))
    for kind in (
        "tool",
        "llm",
        "set",
        "condition",
        "switch",
        "parallel",
        "map",
        "loop",
        "call",
        "approval",
        "wait",
        "assert",
        "fail",
    ):
        assert f'"type": "{kind}"' in text
    statuses = [line.split(" ")[2] for line in found]
    assert {"success", "failed", "suspended"} <= set(statuses)
    assert sum(line.endswith("[]") for line in found) > COUNT / 2, (
        "most programs of the set should run"
    )


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_same_digests_under_any_hash_seed(hash_seed: str) -> None:
    assert digests_elsewhere(sys.executable, hash_seed) == digests(COUNT)


OTHERS = Path(__file__).parents[2] / ".venv" / "others"


@pytest.mark.slow
@pytest.mark.elsewhere("another Python, which `make test` prepares where the machine has one")
@pytest.mark.parametrize(
    "version", [v for v in ("3.11", "3.12", "3.13") if v != "{}.{}".format(*sys.version_info)]
)
def test_same_digests_under_any_python(version: str) -> None:
    python = OTHERS / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no Python {version} beside this one")
    assert digests_elsewhere(python, "random") == digests(COUNT)
