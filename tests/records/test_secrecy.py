"""A run whose secrets are marked, through every command, log, span, export and page: none of them
holds a mark, unless the policy says that it accepts one.
"""

from __future__ import annotations

import copy
import io
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nano_vm import ExecutionVM, Program, Trace
from nano_vm.cli import main
from nano_vm.draw.view import view_of
from nano_vm.records.record import flattened, step_of
from nano_vm.records.secrecy import NOTHING_SECRET, REDACTED, Levels, shown_to
from nano_vm.records.trace import recording_of
from nano_vm.replay import accepted, diff, replay, subject_of, verify
from nano_vm.run.durable.facts import facts_of, header_of
from nano_vm.store.protocol import open_store
from nano_vm.store.records import StoredRun
from nano_vm.telemetry.logs import JsonFormatter, Logs
from nano_vm.telemetry.otel import OpenTelemetry
from nano_vm.testing import ScriptedLLM
from nano_vm.ui.asking import asked

MARK = "zq-secret-zq"
TOOLS = f'''
from nano_vm import tool

times = []

@tool(effect="read", inline=True)
def record(of: str) -> dict:
    return {{"name": "{MARK}", "rows": ["{MARK} 1", "{MARK} 2"], "sum": 3}}

@tool(effect="read", inline=True)
def vault(text: str) -> str:
    times.append(text)
    if len(times) % 2:
        raise ConnectionError("cannot keep " + text)
    return "kept " + text

@tool(effect="read", inline=True)
def broken(text: str) -> str:
    raise ValueError("no " + text)

@tool(effect="write", inline=True)
def post(text: str) -> str:
    return "posted " + text

tools = {{f.__name__: f for f in (record, vault, broken, post)}}
'''
PROGRAM = """
name: marked
inputs: {type: object, properties: {iban: {type: string}, ask: {type: string}}, required: [iban, ask]}
models: {local: local}
steps:
- {id: look, type: tool, tool: record, args: {of: $ask}}
- {id: keep, type: tool, tool: vault, args: {text: "$iban"}, max_retries: 2, retry: {delay_seconds: 0}}
- {id: lost, type: tool, tool: broken, args: {text: $look.output.name}, on_error: skip}
- {id: say, type: llm, model: local, prompt: "Repeat: $look.output", system: $iban}
- {id: word, type: llm, model: local, prompt: $iban, allowed_outputs: [a, b], max_retries: 2}
- {id: gate, type: condition, condition: "'$iban' == 'x'", then: [{id: no, type: set, values: {x: 1}}], otherwise: []}
- {id: names, type: set, values: {held: "see $iban", free: $ask}}
- id: each
  type: map
  over: $look.output.rows
  as: row
  steps: [{id: inner, type: tool, tool: vault, args: {text: $row}, max_retries: 2, retry: {delay_seconds: 0}}]
- id: called
  type: call
  program: {name: deep, steps: [{id: deeper, type: set, values: {y: $x}}]}
  with: {x: $held}
- {id: out, type: tool, tool: post, args: {text: "$ask $word.output"}}
- {id: end, type: tool, tool: broken, args: {text: $iban}, when: "'$ask' == 'fail'"}
output: {said: "$ask", word: $word.output}
"""
POLICY: dict[str, Any] = {
    "inputs": {"iban": "secret", "ask": "public"},
    "tools": {
        "record": {"returns": "secret", "args": {"of": "public"}},
        "vault": {"args": {"text": "any"}},
        "broken": {"args": {"text": "any"}},
        "post": {"args": {"text": "public"}},
    },
    "models": {"local": {"accepts": "secret"}, "*": {"accepts": "public"}},
}
ACCEPTING = dict.fromkeys(("show", "export", "pages", "telemetry", "logs"), "any")
ANSWERS = [f"{MARK} it is", f"neither {MARK}", "b"]


@pytest.fixture(params=["a public run", "a failed run"])
def ask(request: pytest.FixtureRequest) -> str:
    return "fail" if request.param == "a failed run" else "what"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "marked.yaml").write_text(PROGRAM)
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    (tmp_path / "accepting.json").write_text(json.dumps({**POLICY, "accepts": ACCEPTING}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answers(folder: Path) -> str:
    file = folder / "answers.json"
    file.write_text(json.dumps(ANSWERS))
    return f"local=scripted:{file}"


def swept(files: Path, ask: str, policy: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What each command prints and writes of two runs."""
    for name in ("r1", "r2"):
        run = [
            *("run", "marked.yaml", "--tools", "tools.py:tools", "--model", answers(files)),
            *("--policy", policy, "-i", f"iban={MARK} {name}", "-i", f"ask={ask}"),
            *("--store", "sqlite:///runs.db", "--run-id", name, "--trace", f"{name}.json"),
        ]
        main(run)
    said = {"run": "".join(capsys.readouterr())}
    store = ["--store", "sqlite:///runs.db"]
    for command in (
        ["show", "r1", *store],
        ["show", "r1", "--json", *store],
        ["trace", "show", "r1.json"],
        ["export", "r1", "--json", *store],
        ["export", "r1.json", "--program", "marked.yaml", "--json"],
        ["diff", "r1", "r2", *store],
        ["diff", "r1.json", "r2.json", "--json"],
        ["runs", *store],
        ["runs", "--json", *store],
        ["costs", *store],
        ["replay", "r1", *store],
        ["verify", "r1", *store],
        [
            "fork",
            "r1",
            "--at",
            "say",
            "--tools",
            "tools.py:tools",
            "--model",
            answers(files),
            *store,
        ],
    ):
        main(command)
        said[" ".join(command[:3])] = "".join(capsys.readouterr())
    return said


@pytest.mark.slow
def test_no_command_shows_what_a_terminal_and_an_export_do_not_accept(
    files: Path, ask: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = swept(files, ask, "policy.json", capsys)
    assert [name for name, text in said.items() if MARK in text] == []
    assert REDACTED in said["show r1 --store"]
    assert REDACTED in said["export r1 --json"]
    assert "posted what b" in said["show r1 --store"] or ask == "fail"  # what is public stays


@pytest.mark.slow
def test_a_policy_can_accept_more(
    files: Path, ask: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = swept(files, ask, "accepting.json", capsys)
    for name in (
        "run",
        "show r1 --store",
        "show r1 --json",
        "trace show r1.json",
        "export r1 --json",
        "fork r1 --at",
    ):
        assert MARK in said[name], name


HEARING = """
name: hearing
inputs: {type: object, properties: {iban: {type: string}}, required: [iban]}
steps:
- {id: ask, type: approval, role: boss, show: go on}
- {id: hear, type: wait, event: paid}
- {id: lost, type: tool, tool: broken, args: {text: "$iban $hear.output"}, on_error: skip}
- {id: end, type: tool, tool: broken, args: {text: $iban}}
output: done
"""


def elsewhere(files: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What commands print that have runs made, decided, resumed, moved and looked after."""
    (files / "hearing.yaml").write_text(HEARING)
    policy = {**POLICY, "inputs": {"iban": "secret"}, "events": {"paid": {"returns": "secret"}}}
    (files / "hearing.json").write_text(json.dumps(policy))
    lines = [{"iban": f"{MARK} {n}", "ask": ask} for n, ask in enumerate(["fail", "what"])]
    (files / "inputs.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    again = {"iban": f"{MARK} 1", "ask": "what", "more": MARK}
    (files / "unfit.jsonl").write_text(f"{json.dumps({**again, 'iban': [MARK]})}\n")
    store, tools = ["--store", "sqlite:///more.db"], ["--tools", "tools.py:tools"]
    host = [*tools, "--model", answers(files)]
    marked = [*host, "--policy", "policy.json"]
    hearing = [*tools, "--policy", "hearing.json", *store]
    given = ["-i", f"iban={MARK} 0"]
    main(["run", "marked.yaml", *marked, *given, "-i", "ask=fail", "--trace", "t.json"])
    capsys.readouterr()
    said = {}
    for name, command in {
        "batch": ["batch", "marked.yaml", "inputs.jsonl", "-o", "out.jsonl", *marked],
        "batch of unfit": ["batch", "marked.yaml", "unfit.jsonl", "-o", "bad.jsonl", *marked],
        "submit": ["submit", "hearing.yaml", *given, "--run-id", "h", *hearing],
        "work": ["work", "--until-idle", *hearing],
        "asked": ["show", "h", "--json", *store],
        "approve": ["approve", "h", "--by", "anna", "--reason", "fine", "--shown", "SHOWN", *store],
        "inbox": ["show", "h", *store],
        "inbox as JSON": ["show", "h", "--json", *store],
        "resume": ["resume", "h", *hearing],
        "event": ["event", "h", "paid", json.dumps(MARK), *store],
        "runs": ["runs", *store],
        "work to the end": ["work", "--until-idle", "--json", *hearing],
        "show": ["show", "h", *store],
        "resume of what has ended": ["resume", "h", *hearing],
        "submit of another": ["submit", "hearing.yaml", *given, "--run-id", "i", *hearing],
        "run that waits": ["run", "hearing.yaml", *given, "--run-id", "j", *hearing],
        "migrate": ["migrate", "hearing.yaml", "--dry-run", *hearing],
        "cancel": ["cancel", "j", "--by", "anna", *store],
        "work after that": ["work", "--until-idle", *hearing],
        "dev": ["dev", "marked.yaml", "--once", "--recorded", "t.json", *marked],
        "dev of another": ["dev", "hearing.yaml", "--once", "--recorded", "t.json", *hearing[:-2]],
        "check of the store": ["store", "check", *store],
        "trace": ["trace", "show", "t.json"],
        "erase": ["store", "erase", "h", *store],
        "show of what was erased": ["show", "h", *store],
    }.items():
        if "SHOWN" in command:
            digest = json.loads(said["asked"])["waiting"][0]["shown"]
            command[command.index("SHOWN")] = digest
        code = main(command)
        said[name] = "".join(capsys.readouterr())
        assert code != 2, said[name]
    said |= {name: (files / name).read_text() for name in ("out.jsonl", "bad.jsonl")}
    return said


@pytest.mark.slow
def test_no_command_that_moves_a_run_shows_what_is_not_accepted(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = elsewhere(files, capsys)
    assert {name: text for name, text in said.items() if MARK in text} == {}
    assert REDACTED in said["show"]
    assert "failed" in said["out.jsonl"]
    assert "V041: an input does not fit: [redacted]" in said["bad.jsonl"]


@pytest.mark.slow
def test_a_fork_runs_under_the_policy_that_it_is_given(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = ["--tools", "tools.py:tools", "--model", answers(files)]
    store = ["--store", "sqlite:///runs.db"]
    given = ["-i", f"iban={MARK}", "-i", "ask=what"]
    main(["run", "marked.yaml", *host, *given, "--policy", "policy.json", "--run-id", "r", *store])
    capsys.readouterr()
    fork = ["fork", "r", *host, *store]
    leaking = ["--set", 'out.args:={"text": "$iban"}']
    assert main([*fork, *leaking, "--policy", "policy.json"]) == 1
    told = "".join(capsys.readouterr())
    assert "V052" in told
    assert "no secret value reaches argument 'text' of tool 'post'" in told
    assert main([*fork, "--effects", "-i", f"iban={MARK} 2", "--policy", "policy.json"]) == 0
    told = "".join(capsys.readouterr())
    assert REDACTED in told
    assert MARK not in told
    assert main([*fork, "--policy", "none.json"]) == 2


def observed(policy: dict[str, Any], ask: str, files: Path) -> tuple[Trace, dict[str, str]]:
    """A run in this process, and what its observers wrote."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("secrets", logging.DEBUG)
    logger.addHandler(handler)
    names: dict[str, Any] = {}
    exec(TOOLS, names)
    vm = ExecutionVM(
        {"local": ScriptedLLM(list(ANSWERS))},
        tools=names["tools"],
        policy=policy,
        observers=[OpenTelemetry(provider, content=True), Logs(logger, content=True)],
    )
    trace = vm.run_sync(Program.from_yaml(PROGRAM), {"iban": f"{MARK} 0", "ask": ask})
    spans = "".join(span.to_json() for span in exporter.get_finished_spans())
    return trace, {"telemetry": spans, "logs": stream.getvalue()}


def test_no_span_and_no_log_holds_what_it_does_not_accept(ask: str, files: Path) -> None:
    trace, said = observed(POLICY, ask, files)
    assert MARK in trace.to_json()  # the host itself has all of it
    for name, text in said.items():
        assert text, name
        assert MARK not in text, name
        assert REDACTED in text, name
    _, accepted = observed({**POLICY, "accepts": ACCEPTING}, ask, files)
    for name, text in accepted.items():
        assert MARK in text, name


@pytest.mark.slow
def test_no_page_holds_what_it_does_not_accept(ask: str, files: Path) -> None:
    trace, _ = observed(POLICY, ask, files)
    for receiver in ("pages", "export"):
        view = json.dumps(view_of(trace, Program.from_yaml(PROGRAM), receiver=receiver))
        assert MARK not in view
        assert REDACTED in view


def test_a_copy_that_hides_something_is_known_by_the_digest_of_the_whole(
    ask: str, files: Path
) -> None:
    trace, _ = observed(POLICY, ask, files)
    shown = shown_to("show", trace)
    assert shown is not trace
    assert (shown.digest, shown.seal) == (trace.digest, trace.seal)
    assert [step.path for step in shown.steps] == [step.path for step in trace.steps]
    assert shown_to("show", shown).to_json() == shown.to_json()


def test_a_run_without_secrets_is_shown_as_it_is() -> None:
    trace = ExecutionVM(tools={}).run_sync(
        Program.from_dict({"name": "p", "steps": [{"id": "a", "type": "set", "values": {"x": 1}}]})
    )
    assert Levels.of(trace.about) is None
    assert shown_to("show", trace) is trace


@pytest.mark.parametrize(
    ("path", "step_id"),
    [
        ("a", "a"),
        ("each[3]/inner", "inner"),
        ("draft#2/write", "write"),
        ("called/deeper", "deeper"),
        ("each[0]/keep/undo", "keep/undo"),
        ("keep/reconcile", "keep/reconcile"),
        ("each[0]/undo", "undo"),
        ("outer/each[0]/reconcile#2", "reconcile"),
    ],
)
def test_a_path_names_a_step(path: str, step_id: str) -> None:
    assert step_of(path) == step_id


SECRET = frozenset({"secret"})


def test_a_step_that_the_program_does_not_have_is_hidden() -> None:
    levels = Levels(steps={"a": {"output": SECRET}, "b": {}})
    assert levels.shown("pages", "b", "output", MARK) == MARK
    assert levels.shown("pages", "c", "request", MARK) == REDACTED
    assert Levels(inputs={"iban": SECRET}).shown("pages", "c", "error", MARK) == REDACTED
    assert NOTHING_SECRET.shown("pages", "c", "error", MARK) == MARK


@pytest.mark.parametrize("step_id", ["undo", "reconcile"])
@pytest.mark.parametrize("around", ["parallel", "map", "loop", "call"])
def test_a_step_with_the_id_of_a_call_beside_another_has_its_own_labels(
    around: str, step_id: str
) -> None:
    keep = {"id": step_id, "type": "tool", "tool": "record", "args": {"of": "$iban"}}
    open_ = {"id": "plain", "type": "set", "values": {"said": "open"}}
    held: dict[str, Any] = {
        "parallel": {"parallel_steps": [[open_, keep]]},
        "map": {"over": [1], "steps": [open_, keep]},
        "loop": {"steps": [open_, keep], "until": "1 == 1", "max_iterations": 2},
        "call": {
            "program": {"name": "inner", "steps": [open_, keep], "output": "done"},
            "with": {"iban": "$iban"},
        },
    }
    document = {"steps": [{"id": "x", "type": around, **held[around]}], "output": "done"}
    trace = ended(document, {"inputs": CODED, "tools": RETURNING})
    (record,) = [r for r in flattened(trace.recording.full()) if r.step.step_id == step_id]
    assert MARK in json.dumps([record.output, record.request])
    levels = Levels.of(trace.about)
    assert levels is not None
    assert levels.level(step_of(record.path), "output") == SECRET
    assert levels.level(step_of(record.path), "request") == SECRET
    assert levels.level("plain", "output") == frozenset()


def test_a_record_that_a_server_sends_as_it_happens_holds_nothing_that_pages_do_not_accept() -> (
    None
):
    from nano_vm.server.events import _shown
    from nano_vm.store.records import STEP, Row

    row = Row(STEP, "", "each[0]/inner", "tool", None, 1, 2, {"text": MARK}, f"kept {MARK}")
    levels = Levels(steps={"inner": {"request": frozenset({"secret"}), "output": frozenset()}})
    sent = _shown(0, row, True, levels)
    assert (sent["request"], sent["output"]) == (REDACTED, f"kept {MARK}")
    accepting = replace(levels, accepts={"pages": frozenset({"secret"})})
    assert _shown(0, row, True, accepting)["request"] == {"text": MARK}


PUBLIC = {"tools": {"*": {"args": {"*": "any"}}}}


def ended(document: dict[str, Any], policy: dict[str, Any], iban: str = MARK) -> Trace:
    names: dict[str, Any] = {}
    exec(TOOLS, names)
    vm = ExecutionVM(tools=names["tools"], policy={**PUBLIC, **policy})
    return vm.run_sync(Program.from_dict({"name": "p", **document}), {"iban": iban})


LOOK = {"id": "look", "type": "tool", "tool": "record", "args": {"of": "a"}}
BAD = {"id": "bad", "type": "tool", "tool": "broken", "args": {"text": "$iban"}, "on_error": "skip"}
CODED = {"iban": "secret"}
RETURNING = {"*": {"args": {"*": "any"}, "returns": "secret"}}
OUTPUTS: dict[str, tuple[list[dict[str, Any]], str, dict[str, Any]]] = {
    "of an input": ([], "$iban + 1", {"inputs": CODED}),
    "behind a step that failed and is skipped": ([BAD], "$iban + 1", {"inputs": CODED}),
    "of what a tool returned": (
        [LOOK],
        "$look.output.name + 1",
        {"inputs": {"iban": "public"}, "tools": RETURNING},
    ),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_error_of_an_output_is_labelled_as_what_it_reads(name: str) -> None:
    steps, output, policy = OUTPUTS[name]
    steps = steps or [{"id": "a", "type": "set", "values": {"x": 1}}]
    accepts = {"accepts": {"output": "any", "errors": "any"}}
    document = {"steps": steps, "output": {"v": {"expr": output}}}
    trace = ended(document, {**policy, **accepts})
    assert MARK in str(trace.error)
    shown = shown_to("show", trace)
    assert shown.error == REDACTED
    assert MARK not in shown.to_json()
    levels = Levels.of(trace.about)
    assert levels is not None
    assert levels.any_error("pages", trace.error) == REDACTED
    seen = {"accepts": {"output": "any", "show": "any"}}
    assert shown_to("show", ended(document, {**policy, **seen})).error == trace.error


def test_the_error_of_a_step_is_shown_where_only_the_output_is_secret() -> None:
    failing = {"id": "a", "type": "assert", "condition": "1 == 2", "message": "never"}
    document = {"steps": [failing], "output": {"v": "$iban"}}
    trace = ended(document, {"inputs": CODED, "accepts": {"output": "any"}})
    assert shown_to("show", trace).error == trace.error == "Step 'a' failed: AssertionError: never"


def test_a_comparison_shows_nothing_that_its_receiver_does_not_accept() -> None:
    document = {"steps": [{**BAD, "tool": "post"}], "output": {"v": "$iban"}}
    policy = {"inputs": CODED, "accepts": {"output": "any"}}
    found = diff(ended(document, policy), ended(document, policy, f"{MARK} 2"))
    assert {"inputs", "output"} <= set(found.whole)
    assert MARK in str(found)
    for receiver in ("show", "pages", "export"):
        shown = accepted(receiver, found)
        assert MARK not in f"{shown}{shown.to_dict()}{shown!r}"
        assert shown.divergence == found.divergence == "bad"
        assert [name for name in shown.whole if name != "duration_ms"] == ["inputs", "output"]
    page = found._repr_html_()
    assert REDACTED in str(page)
    assert MARK not in str(page)
    told = {**policy, "accepts": {"output": "any", "export": "any"}}
    other = diff(ended(document, told), ended(document, told, f"{MARK} 2"))
    assert MARK in str(other._repr_html_())


def edited(trace: Trace, change: Any) -> Trace:
    """The trace as one who can compute digest and seal would change it."""
    data = copy.deepcopy(trace.to_dict())
    change(*data["records"])
    return Trace(recording_of(data))


CHANGES: dict[str, Any] = {
    "an output": lambda run, step, end: step.update(output=f"{MARK} x"),
    "a request": lambda run, step, end: step.update(request={"held": f"{MARK} x"}),
    "an input": lambda run, step, end: run["inputs"].update(iban="x"),
    "an input that is none": lambda run, step, end: run["inputs"].update(iban=[MARK]),
    "the output of the run": lambda run, step, end: end.update(output={"v": f"{MARK} x"}),
    "the status of a step": lambda run, step, end: step.update(status="skipped"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_record_that_differs_is_shown_without_what_is_not_accepted(name: str) -> None:
    document = {
        "inputs": {
            "type": "object",
            "properties": {"iban": {"enum": [MARK, "x"]}},
            "required": ["iban"],
        },
        "steps": [{"id": "a", "type": "set", "values": {"held": "see $iban"}}],
        "output": {"v": "$held"},
    }
    program = Program.from_dict({"name": "p", **document})
    whole = ended(document, {"inputs": CODED, "accepts": {"output": "any"}})
    trace = edited(whole, CHANGES[name])
    again = replay(trace, program)
    verified = verify(subject_of(trace, program))
    assert not again
    assert not verified
    for shown in (again.shown_to("show"), verified.shown_to("show")):
        assert not shown
        assert MARK not in f"{shown}{shown.to_dict()}"
    assert again.shown_to("show").steps == again.steps
    assert MARK in f"{again}{verified}" or name == "the status of a step"


def test_what_is_asked_of_a_call_in_doubt_hides_its_arguments(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "wire.py").write_text(
        "def wire(text: str) -> str:\n    raise ConnectionError('lost ' + text)\n\n\ntools = {'wire': wire}\n"
    )
    (files / "wire.json").write_text(
        json.dumps(
            {
                "inputs": {"iban": "secret"},
                "tools": {"wire": {"args": {"text": "any"}}},
            }
        )
    )
    (files / "wire.yaml").write_text(
        "name: wire\nsteps:\n- {id: send, type: tool, tool: wire, args: {text: $iban}}\n"
        "output: done\n"
    )
    store = ["--store", "sqlite:///doubt.db"]
    main(
        [
            *("run", "wire.yaml", "--tools", "wire.py:tools", "--policy", "wire.json"),
            *("-i", f"iban={MARK}", "--run-id", "lost", *store),
        ]
    )
    main(["show", "lost", "--json", *store])
    main(["show", "lost", *store])
    out = "".join(capsys.readouterr())
    assert "in doubt at send" in out
    assert MARK not in out
    with open_store("sqlite:///doubt.db") as stored:  # type: ignore[attr-defined]
        run = stored.load("lost")
        [one], _ = asked(stored)
    for text in (
        json.dumps(one["facts"]),
        json.dumps(view_of(run)["waiting"]),
        json.dumps(header_of(run, (), "pages")["waiting"]),
        *(
            json.dumps(facts_of(run, (), "pages", content=some)["waiting"])
            for some in (True, False)
        ),
        str(facts_of(run, (), "pages")["error"]),
        str(view_of(run)["error"]),
    ):
        assert MARK not in text
        assert REDACTED in text


@pytest.mark.parametrize("field", ["until", "seconds"])
async def test_the_time_that_is_waited_for_is_hidden_where_it_is_secret(field: str) -> None:
    value = {"until": "2031-07-07T07:07:07Z", "seconds": 1_234_567}[field]
    steps = [{"id": "w", "type": "wait", field: "$iban"}]
    program = Program.from_dict({"name": "p", "steps": steps, "output": "done"})
    vm = ExecutionVM(policy={"inputs": {"iban": "secret"}}, store="sqlite://")
    trace = await vm.run(program, {"iban": value}, run_id="r")
    run = vm.require_store().load("r")
    vm.close()
    assert trace.waiting[0][field] == value
    assert shown_to("show", trace).waiting[0][field] == REDACTED
    [entry] = facts_of(run, (), "pages", content=False)["waiting"]
    assert entry[field] == REDACTED
    run.about = {}
    [entry] = facts_of(run, (), "pages")["waiting"]
    assert entry[field] == value


@pytest.mark.parametrize("hidden", [True, False])
def test_who_may_answer_but_not_read_sees_of_a_call_in_doubt_what_pages_accept(
    hidden: bool,
) -> None:
    waiting = {"path": "send", "kind": "in_doubt", "arguments": {"text": MARK}}
    about = {"secrecy": {"steps": {"send": {"request": ["secret"]}}}} if hidden else {}
    run = StoredRun("r-1", "p", "0" * 64, 1, status="suspended", waiting=[waiting], about=about)
    for content in (True, False):
        [entry] = facts_of(run, (), "pages", content=content, asked=True)["waiting"]
        assert entry["arguments"] == (REDACTED if hidden else {"text": MARK})
    [entry] = facts_of(run, (), "pages", content=False, asked=False)["waiting"]
    assert entry["arguments"] == REDACTED
