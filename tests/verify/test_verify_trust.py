"""Trust: a table of flows, a campaign of random programs with marked values, and mutants of the
pass that must be found.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
from build import llm, mapped, parallel, program, step
from campaigns import cases
from mutated import mutated
from trust_campaign import CONTRACTS, POLICY, Analyse, campaign

from nano_vm import Program
from nano_vm.diagnostics import format_loc
from nano_vm.language.flow import Flow
from nano_vm.language.policy import Policy
from nano_vm.language.rules import rules_of
from nano_vm.verify.trust.labels import choices, restricted
from nano_vm.verify.trust.proof import Trust, analyse


def analysed(
    document: Program,
    policy: Mapping[str, Any] = POLICY,
    *,
    literals: bool = False,
    by: Analyse = analyse,
    programs: Mapping[str, Program] | None = None,
) -> Trust:
    flow = Flow(document, programs)
    rules = Policy.from_dict(dict(policy))
    joined = {
        name: rules_of(name, [rules], known.options.trusted, known.options.returns)
        for name, known in CONTRACTS.items()
    }
    return by(
        flow, CONTRACTS, joined, untrusted=frozenset(rules.untrusted), untrusted_literals=literals
    )


def lines(trust: Trust) -> list[str]:
    """Each finding, with what reaches its place; then each branch."""
    reaches = {flow.loc: flow for flow in trust.flows if flow.kind == "argument"}
    found = []
    for finding in trust.findings:
        text = f"{'ok' if finding.holds else 'NO'} {format_loc(finding.loc)}"
        if finding.loc in reaches:
            flow = reaches[finding.loc]
            text += f": {' > '.join([flow.source, *flow.way])}" + (
                f" ({flow.allowed})" if flow.allowed else ""
            )
        found.append(text)
    for flow in trust.flows:
        if flow.kind == "branch":
            found.append(f"{flow.target}: {' > '.join([flow.source, *flow.way])} ({flow.allowed})")
    return found


def condition(id: str, text: str, then: Any, **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "condition", "condition": text, "then": then, **fields}


def approval(
    id: str, show: Any, then: Any = "$next", role: str = "treasurer", **fields: Any
) -> dict[str, Any]:
    return {"id": id, "type": "approval", "role": role, "show": show, "then": then, **fields}


def written(id: str, **values: Any) -> dict[str, Any]:
    return {"id": id, "type": "set", "values": values}


def loop(id: str, *steps: Any, **fields: Any) -> dict[str, Any]:
    return {
        "id": id,
        "type": "loop",
        "steps": list(steps),
        "max_iterations": 2,
        "on_exhausted": "continue",
        **fields,
    }


def call(
    id: str, *steps: Any, output: Any = None, inputs: Any = None, **fields: Any
) -> dict[str, Any]:
    inner: dict[str, Any] = {"name": "inner", "steps": list(steps)}
    inner |= {"output": output} if output is not None else {}
    inner |= {"inputs": inputs} if inputs is not None else {}
    return {"id": id, "type": "call", "program": inner, **fields}


def send(to: Any, id: str = "s", tool: str = "send", **fields: Any) -> dict[str, Any]:
    return step(id, tool, args={"to": to}, **fields)


FETCH = step("get", "fetch", output_key="page")
GOT = "result of tool 'fetch' (step 'get')"
MAIL = "untrusted input 'mail'"
KIND = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["a", "b"]},
        "ok": {"type": "boolean"},
        "text": {"type": "string"},
        "tags": {"type": "array", "items": {"enum": ["x", "y"]}},
        "loose": {"items": {"enum": ["x", "y"]}},
        "deep": {"$ref": "#/$defs/Deep"},
    },
    "$defs": {
        "Deep": {"type": "object", "properties": {"n": {"const": 7}, "t": {"type": "string"}}}
    },
}

CASES: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "literal": ([send("A")], ["ok steps[0].args.to"]),
    "input": ([send("$mail")], [f"NO steps[0].args.to: {MAIL}"]),
    "trusted input": ([send("$boss")], ["ok steps[0].args.to"]),
    "input in text": ([send("to: $mail.")], [f"NO steps[0].args.to: {MAIL}"]),
    "the second of two references": ([send("$boss and $mail")], [f"NO steps[0].args.to: {MAIL}"]),
    "input deep inside": ([send({"a": ["x", "$mail"]})], [f"NO steps[0].args.to: {MAIL}"]),
    "a run may be given a name that a step writes": (
        [written("w", mail="A"), send("$mail")],
        [f"NO steps[1].args.to: {MAIL}"],
    ),
    "tool": ([FETCH, send("$page")], [f"NO steps[1].args.to: {GOT} > $page"]),
    "tool by output": ([FETCH, send("$get.output.to")], [f"NO steps[1].args.to: {GOT}"]),
    "trusted tool": (
        [step("l", "lookup", args={"q": "$mail"}), send("$l.output")],
        ["ok steps[1].args.to"],
    ),
    "tool of its arguments": (
        [step("j", "join", args={"q": "$mail"}), send("$j.output")],
        [f"NO steps[1].args.to: {MAIL} > j.output"],
    ),
    "tool of trusted arguments": (
        [step("j", "join", args={"q": "x"}), send("$j.output")],
        ["ok steps[1].args.to"],
    ),
    "reconcile may give the output": (
        [step("l", "lookup", reconcile={"tool": "ask", "args": {}}), send("$l.output")],
        ["NO steps[1].args.to: result of tool 'ask' (reconcile of step 'l')"],
    ),
    "trusted reconcile": (
        [step("l", "lookup", reconcile={"tool": "ask_ledger"}), send("$l.output")],
        ["ok steps[1].args.to"],
    ),
    "model": (
        [llm("m", "who? $mail", output_key="to"), send("$to")],
        [f"NO steps[1].args.to: {MAIL} > m.output > $to"],
    ),
    "model, system": (
        [llm("m", "who?", system="$mail", output_key="to"), send("$to")],
        [f"NO steps[1].args.to: {MAIL} > m.output > $to"],
    ),
    "model, messages": (
        [
            {
                "id": "m",
                "type": "llm",
                "messages": [{"role": "user", "content": "$mail"}],
                "output_key": "to",
            },
            send("$to"),
        ],
        [f"NO steps[1].args.to: {MAIL} > m.output > $to"],
    ),
    "model asked with trusted text": (
        [llm("m", "who? $boss", output_key="to"), send("$to")],
        ["ok steps[1].args.to"],
    ),
    "allowed outputs": (
        [llm("m", "$mail", allowed_outputs=["A", "B"], output_key="to"), send("$to")],
        [f"ok steps[1].args.to: {MAIL} > m.output > $to (one of 'A', 'B')"],
    ),
    "schema: enum": (
        [llm("m", "$mail", output_schema=KIND, output_key="v"), send("$v.kind")],
        [f"ok steps[1].args.to: {MAIL} > m.output > $v (one of 'a', 'b')"],
    ),
    "schema: boolean": (
        [llm("m", "$mail", output_schema=KIND), send("$m.output.ok")],
        [f"ok steps[1].args.to: {MAIL} > m.output (true or false)"],
    ),
    "schema: item": (
        [llm("m", "$mail", output_schema=KIND), send("$m.output.tags[3]")],
        [f"ok steps[1].args.to: {MAIL} > m.output (one of 'x', 'y')"],
    ),
    "schema: items of what may be a string": (
        [llm("m", "$mail", output_schema=KIND), send("$m.output.loose[0]")],
        [f"NO steps[1].args.to: {MAIL} > m.output"],
    ),
    "schema: a reference inside": (
        [
            llm("m", "$mail", output_schema=KIND),
            send("$m.output.deep.n"),
            send("$m.output.deep.t", "s2"),
        ],
        [
            f"ok steps[1].args.to: {MAIL} > m.output (always 7)",
            f"NO steps[2].args.to: {MAIL} > m.output",
        ],
    ),
    "schema: text": (
        [llm("m", "$mail", output_schema=KIND), send("$m.output.text")],
        [f"NO steps[1].args.to: {MAIL} > m.output"],
    ),
    "schema: whole": (
        [llm("m", "$mail", output_schema=KIND), send("$m.output")],
        [f"NO steps[1].args.to: {MAIL} > m.output"],
    ),
    "schema that is an enum": (
        [llm("m", "$mail", output_schema={"enum": ["A", 1]}), send("$m.output")],
        [f"ok steps[1].args.to: {MAIL} > m.output (one of 'A', 1)"],
    ),
    "schema: a name that something else writes too": (
        [
            llm("m", "$mail", output_schema=KIND, output_key="v"),
            step("f", "fetch", output_key="v"),
            send("$v.kind"),
        ],
        ["NO steps[2].args.to: result of tool 'fetch' (step 'f') > $v"],
    ),
    "schema: a name that an input may be": (
        [llm("m", "x", output_schema=KIND, output_key="mail"), send("$mail.kind")],
        [f"NO steps[1].args.to: {MAIL}"],
    ),
    "schema: a name that two answers write": (
        [
            llm("m", "$mail", output_schema=KIND, output_key="v"),
            llm("n", "$mail", output_schema=KIND, output_key="v"),
            send("$v.kind"),
        ],
        [f"ok steps[2].args.to: {MAIL} > m.output > $v (one of 'a', 'b')"],
    ),
    "schema: a name that two answers write, and one of them freely": (
        [
            llm("m", "$mail", output_schema=KIND, output_key="v"),
            llm("n", "$mail", output_schema={"type": "object"}, output_key="v"),
            send("$v.kind"),
        ],
        [f"NO steps[2].args.to: {MAIL} > m.output > $v"],
    ),
    "set": (
        [
            written("w", a="$mail", b="x"),
            send("$a", "s1"),
            send("$b", "s2"),
            send("$w.output", "s3"),
        ],
        [
            f"NO steps[1].args.to: {MAIL} > $a",
            "ok steps[2].args.to",
            f"NO steps[3].args.to: {MAIL} > w.output",
        ],
    ),
    "set by expression": (
        [written("w", a={"expr": "$mail + 1"}), send("$a")],
        [f"NO steps[1].args.to: {MAIL} > $a"],
    ),
    "an argument is computed": (
        [send({"expr": "append([$boss], $mail)"}), send([{"expr": "len($boss)"}], "s2")],
        [f"NO steps[0].args.to: {MAIL}", "ok steps[1].args.to"],
    ),
    "what default does not take is joined too": (
        [send({"expr": "default($boss, $mail)"})],
        [f"NO steps[0].args.to: {MAIL}"],
    ),
    "output_key joins": (
        [FETCH, written("w", page="A"), send("$page")],
        [f"NO steps[2].args.to: {GOT} > $page"],
    ),
    "map: items and results": (
        [
            step("get", "fetch"),
            mapped(send("$item"), over="$get.output", id="each"),
            send("$each.output", "s2"),
        ],
        [
            f"NO steps[1].steps[0].args.to: {GOT} > $item",
            "NO steps[2].args.to: result of tool 'send' (step 's') > each.output",
            f"each: {GOT} (only a branch)",
        ],
    ),
    "map: trusted items": (
        [mapped(send("$item"), over="$people", id="each")],
        ["ok steps[0].steps[0].args.to"],
    ),
    "parallel": (
        [parallel(FETCH, step("l", "lookup"), id="both"), send("$both.output.l")],
        [f"NO steps[1].args.to: {GOT} > both.output"],
    ),
    "a loop carries what it wrote": (
        [written("w", x="A"), loop("again", send("$x"), step("get", "fetch", output_key="x"))],
        [f"NO steps[1].steps[0].args.to: {GOT} > $x"],
    ),
    "a loop's output": (
        [loop("again", FETCH), send("$again.output")],
        [f"NO steps[1].args.to: {GOT} > again.output"],
    ),
    "a block's output": (
        [condition("c", "$boss == 'x'", [FETCH], output_key="k"), send("$k")],
        [f"NO steps[1].args.to: {GOT} > c.output > $k"],
    ),
    "the output of a block in a block": (
        [condition("c", "$boss == 'x'", [condition("d", "true", [FETCH])]), send("$c.output")],
        [f"NO steps[1].args.to: {GOT} > d.output > c.output"],
    ),
    "a branch decided by outside text": (
        [
            llm("m", "$mail", allowed_outputs=["yes", "no"], output_key="ok"),
            condition("c", "$ok == 'yes'", [send("$boss")]),
        ],
        ["ok steps[1].then[0].args.to", f"c: {MAIL} > m.output > $ok (one of 'yes', 'no')"],
    ),
    "other branches": (
        [
            FETCH,
            {
                "id": "w",
                "type": "switch",
                "on": "$page",
                "cases": {"a": "$next"},
                "default": "$next",
            },
            loop("l", step("x", "fetch"), until="$x.output == 'done'"),
        ],
        [
            f"w: {GOT} > $page (only a branch)",
            "l: result of tool 'fetch' (step 'x') (only a branch)",
        ],
    ),
    "a called program's input and output": (
        [
            call(
                "c",
                send("$x", tool="wire"),
                step("n", "join", args={"a": "$x"}),
                **{"with": {"x": "$mail"}},
            ),
            send("$c.output", "t"),
        ],
        [
            f"NO steps[0].program.steps[0].args.to: {MAIL} > c/$x",
            f"NO steps[1].args.to: {MAIL} > c/$x > c/n.output > c.output",
        ],
    ),
    "a called program's declared output": (
        [
            call("c", FETCH, step("l", "lookup"), output="$l.output", **{"with": {}}),
            call("d", step("get2", "fetch"), output={"a": ["$get2.output"]}, **{"with": {}}),
            send("$c.output", "s1"),
            send("$d.output", "s2"),
        ],
        [
            "ok steps[2].args.to",
            "NO steps[3].args.to: result of tool 'fetch' (step 'get2') > d.output",
        ],
    ),
    "calls share nothing": (
        [
            call("c", send("$x"), **{"with": {"x": "$boss"}}),
            call("d", send("$x"), **{"with": {"x": "$mail"}}),
        ],
        [
            "ok steps[0].program.steps[0].args.to",
            f"NO steps[1].program.steps[0].args.to: {MAIL} > d/$x",
        ],
    ),
    "an event": (
        [{"id": "w", "type": "wait", "event": "reply", "output_key": "e"}, send("$e")],
        ["NO steps[1].args.to: event of step 'w' > $e"],
    ),
    "a comment": (
        [approval("a", "$boss", role="x", output_key="e"), send("$e")],
        ["NO steps[1].args.to: comment of approval 'a' > $e"],
    ),
    "a decision": (
        [
            approval("a", "$boss", output_key="d"),
            send("$d.approved"),
            send("$d.reason", "s2"),
            send("$d", "s3"),
        ],
        [
            "ok steps[1].args.to: comment of approval 'a' > $d (true or false)",
            "NO steps[2].args.to: comment of approval 'a' > $d",
            "NO steps[3].args.to: comment of approval 'a' > $d",
        ],
    ),
    "a decision with a block, whose output it gets": (
        [approval("a", "$boss", then=[FETCH]), send("$a.output.approved")],
        ["NO steps[1].args.to: comment of approval 'a'"],
    ),
    "undo and reconcile are calls": (
        [
            step(
                "a",
                "fetch",
                args={"to": "$mail"},
                undo={"tool": "send", "args": {"to": "$a.output"}},
            ),
            step("b", "lookup", args={"to": "$mail"}, reconcile={"tool": "pay"}),
            step(
                "c", "lookup", args={"to": "$mail"}, reconcile={"tool": "pay", "args": {"to": "A"}}
            ),
        ],
        [
            "NO steps[0].undo.args.to: result of tool 'fetch' (step 'a')",
            f"NO steps[1].reconcile.args.to: {MAIL}",
            "ok steps[2].reconcile.args.to",
        ],
    ),
    "all arguments": (
        [step("a", "pay", args={"x": "$mail", "y": "A"})],
        [f"NO steps[0].args.x: {MAIL}", "ok steps[0].args.y"],
    ),
    "what the tool itself demands": (
        [step("a", "note", args={"text": "$mail", "y": "$mail"})],
        [f"NO steps[0].args.text: {MAIL}"],
    ),
    "a value check": (
        [send("$mail", tool="list_pay"), send("$boss", "s2", tool="list_pay")],
        [
            f"ok steps[0].args.to: {MAIL} (checked before the call: $value in $payees)",
            "ok steps[1].args.to",
        ],
    ),
    "steps that nothing reaches write nothing": (
        [
            step("a", "fetch", output_key="x", next="c"),
            step("b", "fetch", output_key="y"),
            written("c", y="A"),
            send("$y"),
        ],
        ["ok steps[3].args.to"],
    ),
    "approved": (
        [FETCH, approval("a", {"to": "$page"}), send("$page", tool="wire")],
        [f"ok steps[2].args.to: {GOT} > $page (approved by treasurer at step a)"],
    ),
    "approved, and written since": (
        [
            FETCH,
            approval("a", {"to": "$page"}),
            step("g", "fetch", output_key="page"),
            send("$page", tool="wire"),
        ],
        [f"NO steps[3].args.to: {GOT} > $page"],
    ),
    "approved something else": (
        [FETCH, approval("a", ["$page.to", "the ${page.from}"]), send("$page", tool="wire")],
        [f"NO steps[2].args.to: {GOT} > $page"],
    ),
    "approved in a string": (
        [FETCH, approval("a", "Send to $page?"), send("$page", tool="wire")],
        [f"NO steps[2].args.to: {GOT} > $page"],
    ),
    "approved by another": (
        [FETCH, approval("a", "$page", role="intern"), send("$page", tool="wire")],
        [f"NO steps[2].args.to: {GOT} > $page"],
    ),
    "rejected": (
        [FETCH, approval("a", "$page", then="$end", otherwise=[send("$page", tool="wire")])],
        [f"NO steps[1].otherwise[0].args.to: {GOT} > $page"],
    ),
    "approved in a block": (
        [FETCH, approval("a", "$page", then=[send("$page", tool="wire")])],
        [f"ok steps[1].then[0].args.to: {GOT} > $page (approved by treasurer at step a)"],
    ),
    "approved on one path only": (
        [
            FETCH,
            condition("c", "$boss == 'x'", [approval("a", "$page")]),
            send("$page", tool="wire"),
        ],
        [f"NO steps[2].args.to: {GOT} > $page"],
    ),
    "approved unless it failed": (
        [FETCH, approval("a", "$page", on_error="skip"), send("$page", tool="wire")],
        [f"NO steps[2].args.to: {GOT} > $page"],
    ),
    "an approved computation": (
        [
            FETCH,
            approval("a", {"to": {"expr": "concat($page.a, 'x')"}}),
            send({"expr": "concat($page.a, 'x')"}, tool="wire"),
        ],
        [f"ok steps[2].args.to: {GOT} > $page (approved by treasurer at step a)"],
    ),
    "an approved name, written as an expression": (
        [
            FETCH,
            approval("a", {"expr": "$page"}),
            send("$page", tool="wire"),
            send({"expr": "$page"}, "s2", tool="wire"),
        ],
        [
            f"ok steps[2].args.to: {GOT} > $page (approved by treasurer at step a)",
            f"ok steps[3].args.to: {GOT} > $page (approved by treasurer at step a)",
        ],
    ),
    "another computation than what was approved": (
        [
            FETCH,
            approval(
                "a",
                [{"expr": "$page.a + 1"}, {"expr": "$page < 2"}, {"expr": "default($page.a, 1)"}],
            ),
            send({"expr": "$page.a - 1"}, "s1", tool="wire"),
            send({"expr": "$page.b + 1"}, "s2", tool="wire"),
            send({"expr": "$page.a + 2"}, "s3", tool="wire"),
            send({"expr": "$page <= 2"}, "s4", tool="wire"),
            send({"expr": "get($page, 'a', 1)"}, "s5", tool="wire"),
            send("$page", "s6", tool="wire"),
        ],
        [f"NO steps[{number}].args.to: {GOT} > $page" for number in range(2, 8)],
    ),
    "a name in an approved computation is written": (
        [
            FETCH,
            approval("a", {"expr": "$page.a + 1"}),
            step("g", "fetch", output_key="page"),
            send({"expr": "$page.a + 1"}, tool="wire"),
        ],
        [f"NO steps[3].args.to: {GOT} > $page"],
    ),
    "approved by a sibling": (
        [FETCH, parallel([approval("a", "$page")], [send("$page", tool="wire")])],
        [f"NO steps[1].parallel_steps[1][0].args.to: {GOT} > $page"],
    ),
    "approved before the branches": (
        [
            FETCH,
            approval("a", "$page"),
            parallel([send("$page", tool="wire")], [step("l", "lookup")]),
        ],
        [
            f"ok steps[2].parallel_steps[0][0].args.to: {GOT} > $page (approved by treasurer at "
            f"step a)"
        ],
    ),
    "approved as the item of another map": (
        [
            step("get", "fetch", output_key="item"),
            approval("a", "$item"),
            mapped(send("$item", tool="wire"), over="$get.output"),
        ],
        [f"NO steps[2].steps[0].args.to: {GOT} > $item", f"m: {GOT} (only a branch)"],
    ),
    "approved, and written by a map under the name of its item": (
        [
            FETCH,
            approval("a", "$page"),
            mapped(step("l", "fetch"), over="$people", id="m", output_key="page", **{"as": "page"}),
            send("$page", tool="wire"),
        ],
        [f"NO steps[3].args.to: {GOT} > $page"],
    ),
    "approved outside of the called program": (
        [
            FETCH,
            approval("a", "$page"),
            call("c", send("$page", tool="wire"), **{"with": {"page": "$page"}}),
        ],
        [f"NO steps[2].program.steps[0].args.to: {GOT} > $page > c/$page"],
    ),
    "approved, then fetched again in the loop": (
        [
            FETCH,
            approval("a", "$page"),
            loop("l", send("$page", tool="wire"), step("again", "fetch", output_key="page")),
        ],
        [f"NO steps[2].steps[0].args.to: {GOT} > $page"],
    ),
    "approved, and caught where it would have been written": (
        [
            FETCH,
            approval("a", "$page"),
            step(
                "g",
                "lookup",
                output_key="page",
                catch=[{"errors": ["*"], "next": "s"}],
                next="$end",
            ),
            send("$page", tool="wire"),
        ],
        [f"NO steps[3].args.to: {GOT} > $page"],
    ),
    "approved when it is reached in order, and not by jump": (
        [
            FETCH,
            approval("a", "$page"),
            send("$page", tool="wire"),
            step("g", "fetch", output_key="page"),
            condition("c", "true", "s"),
        ],
        [f"NO steps[2].args.to: {GOT} > $page"],
    ),
    "an approved undo": (
        [
            FETCH,
            approval("a", "$page"),
            step("b", "fetch", output_key="x", undo={"tool": "wire", "args": {"to": "$page"}}),
            step("c", "fetch", output_key="page", undo={"tool": "wire", "args": {"to": "$page"}}),
        ],
        [
            f"ok steps[2].undo.args.to: {GOT} > $page (approved by treasurer at step a)",
            f"NO steps[3].undo.args.to: {GOT} > $page",
        ],
    ),
}

CASES["approved, then set to something else"] = (
    [
        approval("a", {"x": "$mail"}),
        written("w", mail="$evil"),
        send("$mail", tool="wire"),
    ],
    [f"NO steps[2].args.to: {MAIL}"],
)

UNTRUSTED_TEXT = "untrusted text of the program (step {!r})"
LITERAL_CASES: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "literal": ([send("A")], [f"NO steps[0].args.to: {UNTRUSTED_TEXT.format('s')}"]),
    "template": ([send("to $boss")], [f"NO steps[0].args.to: {UNTRUSTED_TEXT.format('s')}"]),
    "keys": ([send({"$boss": "$boss"})], [f"NO steps[0].args.to: {UNTRUSTED_TEXT.format('s')}"]),
    "reference": (
        [send("$boss"), send(["$boss"], "s2")],
        ["ok steps[0].args.to", "ok steps[1].args.to"],
    ),
    "trusted tool": (
        [step("l", "lookup", args={"q": "x"}), send("$l.output.to")],
        ["ok steps[1].args.to"],
    ),
    "through a trusted branch": (
        [
            parallel(step("l", "lookup"), step("k", "lookup"), id="p"),
            send("$p.output.l"),
            send("$p.output", "s2"),
        ],
        ["ok steps[1].args.to", f"NO steps[2].args.to: {UNTRUSTED_TEXT.format('p')}"],
    ),
    "set": (
        [written("w", a="$boss", b="x"), send("$a"), send("$b", "s2")],
        ["ok steps[1].args.to", f"NO steps[2].args.to: {UNTRUSTED_TEXT.format('w')}"],
    ),
    "computed": (
        [written("w", a={"expr": "$n / $n"}, b={"expr": "$n"}), send("$a"), send("$b", "s2")],
        [f"NO steps[1].args.to: {UNTRUSTED_TEXT.format('w')}", "ok steps[2].args.to"],
    ),
    "computed where it is given": (
        [
            send({"expr": "$boss"}),
            send({"expr": "str($boss)"}, "s2"),
            send([{"expr": "$boss['k']"}], "s3"),
        ],
        [
            "ok steps[0].args.to",
            f"NO steps[1].args.to: {UNTRUSTED_TEXT.format('s2')}",
            "ok steps[2].args.to",
        ],
    ),
    "a key that is named expr": (
        [send({"$$expr": "$boss"})],
        [f"NO steps[0].args.to: {UNTRUSTED_TEXT.format('s')}"],
    ),
    "allowed outputs": (
        [llm("m", "$boss", allowed_outputs=["A", "B"]), send("$m.output")],
        [f"NO steps[1].args.to: {UNTRUSTED_TEXT.format('m')}"],
    ),
    "schema": (
        [llm("m", "$boss", output_schema=KIND), send("$m.output.ok")],
        [f"NO steps[1].args.to: {UNTRUSTED_TEXT.format('m')}"],
    ),
    "default": (
        [step("l", "lookup", on_error="skip", default="A", output_key="x"), send("$x")],
        [f"NO steps[1].args.to: {UNTRUSTED_TEXT.format('l')} > $x"],
    ),
    "branch names": (
        [condition("A", "true", "$next", output_key="x"), send("$x")],
        [f"NO steps[1].args.to: {UNTRUSTED_TEXT.format('A')} > $x"],
    ),
    "items": (
        [
            mapped(send("$item"), over=["A"], id="each"),
            mapped(send("$who", "s2"), over="$people", id="m", **{"as": "who"}),
        ],
        [
            f"NO steps[0].steps[0].args.to: {UNTRUSTED_TEXT.format('each')}",
            "ok steps[1].steps[0].args.to",
        ],
    ),
    "a called program's input": (
        [
            call("c", send("$x"), **{"with": {"x": "A"}}),
            call("d", send("$x"), **{"with": {"x": "$boss"}}),
        ],
        [
            f"NO steps[0].program.steps[0].args.to: {UNTRUSTED_TEXT.format('c')}",
            "ok steps[1].program.steps[0].args.to",
        ],
    ),
    "a default input": (
        [
            call(
                "c",
                send("$x"),
                inputs={"type": "object", "properties": {"x": {"default": "A"}}},
                **{"with": {}},
            )
        ],
        [
            "NO steps[0].program.steps[0].args.to: untrusted text of the program (default of "
            "input 'x')"
        ],
    ),
    "a pure tool's names of arguments": (
        [
            step("m", "join", args={"EVIL": "$boss"}),
            send("$m.output"),
            step("n", "join", args={"to": "$boss"}),  # a name that the host spells
            send("$n.output", "s2"),
        ],
        [
            "NO steps[1].args.to: untrusted text of the program (argument 'EVIL' of step 'm')",
            "ok steps[3].args.to",
        ],
    ),
    "the names of a reconcile's arguments": (
        [
            step("l", "lookup", reconcile={"tool": "join", "args": {"EVIL": "$boss"}}),
            send("$l.output"),
        ],
        ["NO steps[1].args.to: untrusted text of the program (argument 'EVIL' of step 'l')"],
    ),
    "names of arguments of a tool that protects all": (
        [step("s", "pay", args={"EVIL": "$boss", "to": "$boss"})],
        [f"NO steps[0].args.EVIL: {UNTRUSTED_TEXT.format('s')}", "ok steps[0].args.to"],
    ),
    "approved": (
        [approval("a", {"to": "DE89"}), send("DE89", tool="wire"), send("DE88", "s2", tool="wire")],
        [
            f"ok steps[1].args.to: {UNTRUSTED_TEXT.format('s')} (approved by treasurer at step a)",
            f"NO steps[2].args.to: {UNTRUSTED_TEXT.format('s2')}",
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_flows(name: str) -> None:
    steps, expected = CASES[name]
    assert lines(analysed(program(*steps))) == expected


@pytest.mark.parametrize("name", LITERAL_CASES)
def test_flows_of_untrusted_text(name: str) -> None:
    steps, expected = LITERAL_CASES[name]
    assert lines(analysed(program(*steps), literals=True)) == expected


def test_words() -> None:
    trust = analysed(
        program(llm("extract", "who? $mail", output_key="recipient"), send("$recipient", "pay"))
    )
    (finding,) = trust.findings
    assert (
        finding.statement == "only trusted values reach argument 'to' of tool 'send' (step 'pay')"
    )
    assert [str(move) for move in finding.path] == ["extract", "pay"]
    text = (
        "untrusted input 'mail' reaches argument 'to' of 'send' by way of extract.output -> "
        "$recipient"
    )
    assert [str(flow) for flow in trust.flows] == [text]


def test_long_ways_are_told_from_their_end() -> None:
    steps = [written(f"w{i}", **{f"k{i + 1}": f"$k{i}" if i else "$mail"}) for i in range(30)]
    trust = analysed(program(*steps, send("$k30")))
    assert trust.flows[0].way == ("...", *(f"$k{i}" for i in range(15, 31)))
    assert [move.step_id for move in trust.findings[0].path] == [
        *(f"w{i}" for i in range(14, 30)),
        "s",
    ]


def test_checks_are_where_the_arguments_are() -> None:
    rule = {"to": {"check": "$value in $payees", "trusted": False}}
    policy = {
        **POLICY,
        "tools": {
            "list_pay": {"args": rule},
            "ask": {"args": {"*": "trusted or $value in $payees"}},
        },
    }
    trust = analysed(
        program(
            send("$boss", tool="list_pay"),  # trusted is not enough
            step(
                "l",
                "lookup",
                args={"q": "$mail"},
                reconcile="ask",
                undo={"tool": "list_pay", "args": {"to": "$mail"}},
            ),
            step("none", "list_pay", args={}),  # left to the tool's default, which nobody checks
        ),
        policy,
    )
    assert [format_loc(loc) for loc in trust.checks] == [
        "steps[0].args.to",
        "steps[1].undo.args.to",
        "steps[1].reconcile.args.q",
    ]
    assert {rule.text for rules in trust.checks.values() for rule in rules} == {
        "$value in $payees",
        "trusted or $value in $payees",
    }
    assert [finding.holds for finding in trust.findings] == [True, True, True, False]
    assert trust.findings[0].statement == (
        "only what passes $value in $payees reaches argument 'to' of tool 'list_pay' (step 's')"
    )


def test_an_approval_that_a_rule_names() -> None:
    rule = {"to": {"check": "$value in $payees", "approval": "boss"}}
    policy = {**POLICY, "tools": {"list_pay": {"args": rule}}}
    steps = [FETCH, approval("a", "$page", role="boss"), send("$page", tool="list_pay")]
    trust = analysed(program(*steps), policy)
    assert lines(trust) == [f"ok steps[2].args.to: {GOT} > $page (approved by boss at step a)"]
    assert not trust.checks
    trust = analysed(program(*steps[:1], *steps[2:]), policy)
    assert lines(trust) == [
        f"ok steps[1].args.to: {GOT} > $page (checked before the call: $value in $payees)"
    ]


def test_a_step_entered_in_two_ways_is_judged_by_the_worse() -> None:
    trust = analysed(
        program(
            FETCH,
            condition("c", "$boss == 'x'", "s", otherwise="a"),
            approval("a", "$page", next="s2"),
            step("s2", "lookup"),
            send("$page", "s", tool="wire"),
        )
    )
    assert [finding.holds for finding in trust.findings] == [False]


def test_programs_called_by_name() -> None:
    inner = program(send("$x"))
    outer = program({"id": "c", "type": "call", "program": "inner", "with": {"x": "$mail"}})
    trust = analysed(outer, programs={"inner": inner})
    assert lines(trust) == ["NO steps[0].program.steps[0].args.to: untrusted input 'mail' > c/$x"]
    steps = {"id": "c", "type": "call", "program": "inner", "with": {}}
    for untrusted, verdict in ((False, "ok"), (True, "NO")):
        text = program(send("A"), untrusted=untrusted)
        assert lines(analysed(program(steps), programs={"inner": text}))[0][:2] == verdict


RESTRICTS: list[tuple[dict[str, Any], tuple[str | int, ...], bool]] = [
    ({"enum": [1, "a"]}, (), True),
    ({"enum": ["ab"]}, (0,), True),
    ({"const": None}, (), True),
    ({"type": "boolean"}, (), True),
    ({"type": ["boolean", "null"]}, (), True),
    ({"type": ["boolean", "string"]}, (), False),
    ({"type": "integer"}, (), False),
    ({}, ("a",), False),
    ({"properties": {"a": {"const": 1}}}, ("a",), True),
    ({"properties": {"a": {"const": 1}}}, ("b",), False),
    ({"properties": {"a": {"const": 1}}}, (), False),
    ({"properties": {"a": True}}, ("a",), False),
    ({"patternProperties": {"a": {"const": 1}}}, ("a",), False),
    ({"type": "array", "items": {"enum": [1]}}, (0,), True),
    ({"type": "array", "items": {"enum": [1]}, "prefixItems": [{}]}, (0,), False),
    ({"type": "array", "items": {"enum": [1]}, "prefixItems": [{}]}, (1,), True),
    ({"type": "array", "items": {}, "prefixItems": [{"enum": [1]}]}, (0,), True),
    ({"type": "array", "items": {"enum": [1]}}, (-1,), True),
    # where a list ends, and so what is last in it, is for the model to say
    ({"type": "array", "prefixItems": [{"enum": [1]}]}, (-1,), False),
    ({"type": "array", "prefixItems": [{"enum": [1]}]}, (-2,), False),
    ({"type": "array", "prefixItems": [{"enum": [1]}], "items": {}}, (-1,), False),
    ({"type": "array", "items": {"enum": [1]}, "prefixItems": [{}, {"enum": [1]}]}, (-1,), False),
    ({"type": "array", "items": {"enum": [1]}, "prefixItems": [{"const": 2}]}, (-9,), True),
    # nothing fits `false`: such a list has no more than what comes before
    ({"type": "array", "prefixItems": [{"enum": [1]}], "items": False}, (-1,), True),
    ({"type": "array", "prefixItems": [{"enum": [1]}, {}], "items": False}, (-1,), False),
    ({"type": "array", "prefixItems": [{"enum": [1]}, False]}, (-1,), False),
    ({"type": "array", "prefixItems": [False], "items": {"enum": [1]}}, (-1,), True),
    ({"type": "array", "items": False}, (-1,), False),
    ({"type": "array", "prefixItems": [{"enum": [1]}], "items": True}, (-1,), False),
    ({"anyOf": [False, {"const": 1}]}, (), True),
    ({"anyOf": [True, {"const": 1}]}, (), False),
    ({"items": {"enum": ["x"]}}, (0,), False),
    ({"type": ["array", "string"], "items": {"enum": ["x"]}}, (0,), False),
    ({"allOf": [{"type": "string"}, {"enum": ["a"]}]}, (), True),
    ({"anyOf": [{"const": 1}, {"enum": ["a"]}]}, (), True),
    ({"anyOf": [{"const": 1}, {"type": "string"}]}, (), False),
    (
        {"oneOf": [{"properties": {"k": {"const": "a"}}}, {"properties": {"k": {"const": "b"}}}]},
        ("k",),
        True,
    ),
    ({"if": {"const": 1}, "then": {"const": 1}}, (), False),
    ({"not": {"const": 1}}, (), False),
    ({"$ref": "#/$defs/A", "$defs": {"A": {"enum": [1]}}}, (), True),
    ({"$ref": "#/$defs/A", "$defs": {"A": {"enum": [1], "$id": "x"}}}, (), False),
    ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, (), False),
    ({"$ref": "#/properties/a", "properties": {"a": {"const": 1}}}, (), False),
    ({"$ref": "#"}, ("a",), False),
]


@pytest.mark.parametrize(("schema", "path", "restricts"), RESTRICTS)
def test_what_a_schema_restricts(
    schema: dict[str, Any], path: tuple[str | int, ...], restricts: bool
) -> None:
    assert (restricted(schema, path) is not None) is restricts


def test_what_is_last_in_a_list_is_one_of_all_that_may_be_there() -> None:
    lists = {"type": "array", "prefixItems": [{"enum": ["a", "b"]}], "items": {"const": "c"}}
    assert restricted(lists, (-1,)) == "one of 'a', 'b' or always 'c'"
    assert choices(lists, (-1,)) == 3


# --- campaign and mutants -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("marked", [False, True])
def test_no_run_breaks_what_holds(marked: bool) -> None:
    figures = campaign(analyse, range(240), 12, marked=marked)
    print(figures)
    assert not figures.contradictions, figures.contradictions[0]
    assert figures.runs > 1_000
    assert 0.2 < figures.holds / figures.statements < 0.8, figures
    assert figures.confirmed > 40
    assert figures.by_right > 5


@pytest.mark.campaign
@pytest.mark.parametrize("marked", [False, True])
def test_no_run_of_many_breaks_what_holds(marked: bool) -> None:
    programs = cases(2_500)
    figures = campaign(analyse, range(1_000, 1_000 + programs), 20, marked=marked)
    print(figures)
    assert not figures.contradictions, figures.contradictions[0]
    assert figures.runs > 10 * programs


WITHOUT_UNDO = (
    "for call in [call for call in node.calls if call.use != 'undo']:\n                yield"
)
MUTANTS = {
    "a tool's result is trusted": ("elif returns is None:", "elif returns is None and False:"),
    "a pure tool forgets its arguments": (
        """            for value in args.values():
                self.graph.reads(""",
        """            for value in ():
                self.graph.reads(""",
    ),
    "a reconcile gives nothing": (
        'if call.use == "reconcile":  # may',
        "if False:  # may",
    ),
    "inputs are trusted": (
        "if name in self.untrusted:",
        "if name in self.untrusted and name not in names.keys:",
    ),
    "a name written is no input": (
        "if name in self.untrusted:",
        "if name in self.untrusted and name not in names.written:",
    ),
    "an output_key gets nothing": (
        "if step.output_key is not None:\n                strong",
        "if False:\n                strong",
    ),
    "ends of blocks and frames give nothing": ("if around is not None:", "if False:"),
    "a block gives its container nothing": ("around = node.owner\n", "around = None\n"),
    "a frame gives the fork nothing": ("around = frame.owner\n", "pass\n"),
    "a declared output gives nothing": (
        'if frame.kind == "call" and frame.names.program.output is not None:',
        "if False:",
    ),
    "a model forgets what it was asked": (
        "self.edge(names, ref, out, node.index, right)",
        "self.edge(names, ref, out, node.index, 'x')",
    ),
    "a model's free answer is harmless under a schema": (
        "right = restricted(answer.schema, ())",
        "right = 'x'",
    ),
    "set gives its names nothing": (
        "self.reads(names, write.template, start + slot, node.index)",
        "pass",
    ),
    "set gives its output nothing": ("self.reads(names, template, out, node.index)", "pass"),
    "items are trusted": ("self.reads(names, write.over, start + slot, node.index)", "pass"),
    "a called program's inputs are trusted": (
        "self.reads(names, value, target, node.index)",
        "pass",
    ),
    "events are trusted": ('self.seed(out, f"event of', '(out, f"event of'),
    "comments are trusted": ('self.seed(out, f"comment of', '(out, f"comment of'),
    "one step is enough": (
        "                        queue.append(target)\n        if not",
        "                        pass\n        if not",
    ),
    "a field is restricted if one writer's is": (
        "            if all(found):",
        "            if any(found):",
    ),
    "a name of a schema has no other writers": (
        "if len(schemas) == len(writers):",
        "if schemas:",
    ),
    "a name of a schema is no input": ("and key not in given", ""),
    "a string's items are restricted": ('if kinds != "array":', "if False:"),
    "one of the alternatives is restricted": (
        "if not every or len(every) < len(found):",
        "if not every:",
    ),
    "a list ends where its schema does": ("if head < 0:", "if head < 0 and not first:"),
    "unions with a string are booleans": (
        "if kinds is not None and all(",
        "if kinds is not None and any(",
    ),
    "prefix items are items": (
        "first[head] if head < len(first) else",
        "first[head] if False else",
    ),
    "undo is no call": ("for call in node.calls:\n                yield", WITHOUT_UNDO),
    "reconcile is no call": (
        "for call in node.calls:\n                yield",
        WITHOUT_UNDO.replace("undo", "reconcile"),
    ),
    "the first reference of a value counts": (
        "        for ref in references:",
        "        for ref in list(references)[:1]:",
    ),
    "one rule is enough": ("            holds = False\n", "            pass\n"),
    "the first state of a step is enough": (
        "if known is None or (known.holds and not verdict.holds):",
        "if known is None:",
    ),
    "an approval outlives a write": (
        "                held &= ~own\n            yield",
        "                pass\n            yield",
    ),
    "an approval outlives a failed write": (
        "                held &= ~own\n                if edge.by >= 0:",
        "                if False:",
    ),
    "an approval is taken from either path": ("old & after", "old | after"),
    "an approval outlives a new item": (
        "held &= ~self.killed(names, [child.item])",
        "pass",
    ),
    "a rejection approves": (
        'if label == "then" and node.kind',
        'if label in ("then", "otherwise") and node.kind',
    ),
    "a skipped approval approves": (
        "held &= ~own\n                if edge",
        "held = held & ~own | self.granted.get(node.index, 0)\n                if edge",
    ),
    "anybody approves": (
        ".append(node)\n        self.states",
        ".append(node)\n                self.steps.setdefault((id(node.frame.names), "
        "'treasurer'), []).append(node)\n        self.states",
    ),
    "an approval of another's": ("return key in self.shown[node.index]", "return True"),
    "an undo is fixed before its step": ("        if after:\n", "        if False:\n"),
    "an undo's check is its step's": (
        '(*node.loc, *call.at, "args")\n    for name, value',
        '(*node.loc, "args")\n    for name, value',
    ),
    "an approval outlives a set": (
        "slots += [slot for slot, write in names.writes(step) if isinstance(write, Value)]",
        "pass",
    ),
    "own text: names of what a pure tool is given": (
        "if own is not None and self.graph.literal",
        "if False and self.graph.literal",
    ),
    "own text: names of arguments": ("and name not in found.known:", "and False:"),
    "own text: templates are references": (
        "return not parse_template(value).typed",
        'return "$" not in value',
    ),
    "own text: keys": (
        "return not (type(value) is list and value)",
        "return type(value) not in (list, dict)",
    ),
    "own text: defaults of steps": ("if step.has_default or own:", "if own:"),
    "own text: what a model may answer": ("or _answers(term) for term", "for term"),
    "own text: branch names": ("isinstance(term, Literals) or _answers(term)", "_answers(term)"),
    "own text: items": ("case Item(over) if spells(over):", "case Item(over) if False:"),
    "own text: values that are set": (
        "case Value(template) if spells(template):",
        "case Value(template) if False:",
    ),
    "own text: defaults of inputs": (
        'if isinstance(part, dict) and "default" in part:',
        "if False:",
    ),
    "own text: what is given to calls": (
        "and spells(value):\n            self.seed(target",
        "and False:\n            self.seed(target",
    ),
    "own text: arguments": (
        "and spells(value):\n            reached",
        "and False:\n            reached",
    ),
}


PARTS = [f"nano_vm.verify.trust.{part}" for part in ("labels", "graph", "approvals", "proof")]


def mutant(name: str) -> tuple[ModuleType, ModuleType]:
    """The pass with one thing wrong, in its own module or in those that it builds on; and the
    definitions that it goes by.
    """
    made = mutated(PARTS, *MUTANTS[name])
    return made[PARTS[-1]], made[PARTS[0]]


def killed_by(module: ModuleType, labels: ModuleType) -> str | None:
    """What finds the mutant: a row of the tables, or a run of the campaign."""
    wrong: Analyse = module.analyse
    if any(
        (labels.restricted(schema, path) is not None) is not expected
        for schema, path, expected in RESTRICTS
    ):
        return "schemas"
    for table, literals in ((CASES, False), (LITERAL_CASES, True)):
        for name, (steps, expected) in table.items():
            if lines(analysed(program(*steps), literals=literals, by=wrong)) != expected:
                return name
    for marked in (False, True):
        if campaign(wrong, range(60), 5, marked=marked, stop=True).contradictions:
            return "campaign"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(name: str) -> None:
    assert killed_by(*mutant(name)) is not None


@pytest.mark.slow
def test_the_campaign_finds_what_is_wrong() -> None:
    """Without the tables: runs alone find most that makes the pass trust too much."""
    names = [
        "a tool's result is trusted",
        "inputs are trusted",
        "an output_key gets nothing",
        "ends of blocks and frames give nothing",
        "a called program's inputs are trusted",
        "items are trusted",
        "one step is enough",
    ]
    for name in names:
        assert campaign(mutant(name)[0].analyse, range(300), 5, stop=True).contradictions, name
