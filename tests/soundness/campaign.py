"""The campaign: drawn programs and policies, what the passes say of them, and runs that look for a
contradiction.

Each pass has an *attack*: it asks the pass what it claims of a case, and holds every run against
the claims. What is claimed is told apart from how it is judged: claims come from the pass,
judgements from `oracles` and from what the driver of the run saw.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from nano_vm.diagnostics import Diagnostic
from nano_vm.language.flow import Flow
from nano_vm.language.policy import Budget, Policy
from nano_vm.language.program import Program
from nano_vm.language.rules import rules_of
from nano_vm.machine.compile import compile_flow
from nano_vm.machine.ledger import DEFAULT_LIMITS
from nano_vm.machine.machine import Machine, machine_of
from nano_vm.machine.plan import WHEN, Plan
from nano_vm.machine.simulate import simulate
from nano_vm.machine.terms import RunTerms
from nano_vm.records.record import full
from nano_vm.records.recording import Recording
from nano_vm.records.trace import Trace
from nano_vm.tools.contract import ToolContract, contract
from nano_vm.verify.examine import check

from .history import Document, History, Steps
from .labels import Labels
from .oracles import Statement, before, broken, distrusted
from .oracles import all_parts as parts
from .outcomes import MARK, Outcomes
from .policies import KNOWN, Demands, draw_demands, sites
from .programs import TOOLS, draw_inputs, draw_program, draw_shape
from .received import CHECKS, Digits, alike, draw_payments, typed

CONTRACTS: dict[str, ToolContract] = {
    name: contract(name, function) for name, function in TOOLS.items()
}


@dataclass
class Case:
    """A program that passes `check`, a policy for it, and all that is needed to run it."""

    seed: int
    document: Document
    demands: Demands
    program: Program
    flow: Flow
    plan: Plan
    steps: Steps
    diagnostics: list[Diagnostic]

    @classmethod
    def of(cls, document: Document, demands: Demands | None = None, seed: int = 0) -> Case | None:
        """None for a program with errors."""
        program = Program.from_dict(document)
        flow = Flow(program)
        found = check(flow, CONTRACTS)
        if any(d.severity == "error" for d in found):
            return None
        steps = Steps(document)
        if demands is None:
            demands = draw_demands(Random(f"policy {seed}"), document, steps)
        return cls(
            seed, document, demands, program, flow, compile_flow(flow, CONTRACTS), steps, found
        )


def drawn(seed: int, *, pauses: bool | None = None, most: int = 22) -> Case | None:
    """The case of a seed; every other one has approvals and waits, unless *pauses* says; each fifth
    is about one hard thing.
    """
    if pauses is None:
        pauses = seed % 2 == 1
    rng = Random(seed)
    document = draw_shape(rng) if seed % 5 == 0 else draw_program(rng, pauses=pauses, most=most)
    return Case.of(document, seed=seed)


@dataclass
class Seen:
    """One run, as the oracles see it."""

    case: Case
    plan: Plan
    inputs: dict[str, Any]
    feed: Outcomes
    machine: Machine
    used_steps: int
    _lines: list[dict[str, Any]] | None = None
    _history: History | None = None
    _labels: Labels | None = None

    @property
    def trace(self) -> Trace:
        return _trace(self.machine, self.plan)

    @property
    def lines(self) -> list[dict[str, Any]]:
        if self._lines is None:
            self._lines = list(self.trace.lines())
        return self._lines

    @property
    def history(self) -> History:
        if self._history is None:
            self._history = History(self.case.steps, self.lines, frozenset(self.feed.uncalled))
        return self._history

    @property
    def labels(self) -> Labels:
        if self._labels is None:
            demands = self.case.demands
            # the trace names inputs that the program reads; the others cannot matter
            self._labels = Labels(
                self.case.steps,
                [{"inputs": self.inputs}, *self.lines[1:]],
                _returns(demands),
                demands.untrusted,
            )
        return self._labels

    def branches(self) -> Iterator[tuple[int, str]]:
        """Index of the op, and the label of the edge that was taken from it."""
        yield from _branches(self.machine.records, self.plan)


def _branches(records: list[Any], plan: Plan) -> Iterator[tuple[int, str]]:
    for record in records:
        op, _, status, _, _, _, _, _, _, _, extra = full(record, plan.ops)
        if isinstance(extra, dict) and "children" in extra:
            for child in extra["children"]:
                yield from _branches(child, plan)
        if isinstance(extra, dict) and "when" in extra:
            yield op.when.index, "when"
        if op.code == WHEN and status.value == "skipped" and record[4] is None:
            yield op.index, "unless"
        if status.value != "success" or extra is None:
            continue
        if isinstance(extra, tuple):
            yield op.index, extra[0]
        elif "branch" in extra:
            label = extra["branch"]
            yield (
                op.index,
                label if label in ("default", "then", "otherwise", "holds") else f"case:{label}",
            )
        elif "iterations" in extra:
            yield op.index, "exhausted" if extra["exhausted"] else "until"


def run(
    case: Case,
    seed: int,
    *,
    marked: bool = False,
    plan: Plan | None = None,
    feed_class: type[Outcomes] = Outcomes,
    budget: Budget | None = None,
) -> Seen:
    """One run with the outcomes of *seed*."""
    rng = Random(f"inputs {seed}")
    inputs = draw_inputs(rng, case.document)
    marks: frozenset[str] | None = None
    _, pure = case.demands.marking()
    if marked:
        marks, _ = case.demands.marking()
        for name in case.demands.untrusted:
            if (
                "type" not in (schema := case.document["inputs"]["properties"][name])
                and "enum" not in schema
            ):
                inputs[name] = rng.choice(
                    (f"~{rng.randrange(1 << 30)}~", {"v": f"~{rng.randrange(1 << 30)}~"})
                )
            elif schema.get("type") == "array":
                inputs[name] = [f"~{rng.randrange(1 << 30)}~", "yes"]
    feed = feed_class(seed, marks=marks, pure=pure)
    plan = plan or case.plan
    root = plan.frames[0]
    for name in root.needed:  # without one the VM refuses the run before its first step
        if name not in inputs:
            inputs[name] = rng.choice((True, False, 1, "yes", "a", None))
    machine = machine_of(plan, inputs, RunTerms(budget=budget), run_id="run")
    machine.now = 0
    simulate(machine, feed, feed.order)
    return Seen(case, plan, inputs, feed, machine, DEFAULT_LIMITS.steps - machine.ledger.steps)


# --- attacks --------------------------------------------------------------------------------------


@dataclass
class Claims:
    """What a pass says of one case: ``proved`` and ``other`` statements by text, and the judge of a
    run.

    The judge gives the texts of proved statements that the run contradicts, and, under ``hit``,
    those of others that it breaks.
    """

    proved: list[str]
    other: list[str]
    judge: Callable[[Seen], Iterator[tuple[str, str]]]  # statement, how the run breaks it
    marked: bool = False
    plan: Plan | None = None  # to be run in place of the program's own: with value checks
    case: Case | None = None  # to be run in place of the one that was drawn
    always: tuple[str, ...] = ()  # claimed, and too plain to be counted
    feed_class: type[Outcomes] = Outcomes


Attack = Callable[[Case], Claims | None]


def attack_guards(case: Case) -> Claims | None:
    """guarded_by."""
    return _attack_order(case, ("guard",))


def attack_approvals(case: Case) -> Claims | None:
    """The approvals of tools."""
    return _attack_order(case, ("approval",))


def attack_order(case: Case) -> Claims | None:
    """after and before."""
    return _attack_order(case, ("after", "before"))


def _attack_order(case: Case, kinds: tuple[str, ...]) -> Claims | None:
    from nano_vm.verify.order.proof import check_guards

    statements = [s for s in case.demands.statements if s.kind in kinds]
    if not statements:
        return None
    said: dict[tuple[str, str], bool] = {}
    for finding in check_guards(case.flow, CONTRACTS, case.demands.rules(CONTRACTS)):
        key = finding.kind, finding.tool
        said[key] = said.get(key, True) and finding.holds
    return _statements(statements, said)


def _statements(statements: list[Statement], said: dict[tuple[str, str], bool]) -> Claims:
    by_text = {}
    proved, other = [], []
    for statement in statements:
        text = (
            f"{statement.kind} {statement.tool} {' '.join(statement.names)}{statement.role or ''}"
        )
        by_text[text] = statement
        (proved if said.get((statement.kind, statement.tool), False) else other).append(text)

    def judge(seen: Seen) -> Iterator[tuple[str, str]]:
        for text, statement in by_text.items():
            why = broken(statement, seen.history)
            if why is not None:
                yield text, why

    return Claims(proved, other, judge)


def attack_ceiling(case: Case) -> Claims | None:
    """Steps, calls by tool and model, tokens; and max_calls by them."""
    from nano_vm.verify.cost.ceiling import ceiling

    said = ceiling(case.flow, CONTRACTS)
    limits = [s for s in case.demands.statements if s.kind == "max_calls"]
    proved: list[str] = []
    other: list[str] = []
    for limit in limits:
        (proved if said.tools.get(limit.tool, 0) <= limit.most else other).append(
            f"max_calls {limit.tool} {limit.most}"
        )
    # a limit near the ceiling: how tight it is shows in the runs that break it
    rng = Random(f"limits {case.seed}")
    most_steps = max(1, said.steps - rng.choice((0, 0, 1, 2)))
    (proved if said.steps <= most_steps else other).append(f"at most {most_steps} steps")
    most_asked = max(0, said.llm_calls - rng.choice((0, 0, 1)))
    (proved if said.llm_calls <= most_asked else other).append(f"at most {most_asked} model calls")

    def judge(seen: Seen) -> Iterator[tuple[str, str]]:
        calls = Counter(name for _, kind, name, _ in seen.feed.calls if kind == "tool")
        asked = Counter(name for _, kind, name, _ in seen.feed.calls if kind == "model")
        if seen.used_steps > most_steps:
            yield f"at most {most_steps} steps", f"{seen.used_steps} steps"
        if sum(asked.values()) > most_asked:
            yield f"at most {most_asked} model calls", f"{sum(asked.values())} calls"
        if seen.used_steps > said.steps or seen.history.counted > said.steps:
            yield (
                "ceiling",
                f"{seen.used_steps} steps, {seen.history.counted} records, at most {said.steps}",
            )
        for names, most in ((calls, said.tools), (asked, said.models)):
            for name, count in names.items():
                if count > most.get(name, 0):
                    yield "ceiling", f"{count} calls of {name}, at most {most.get(name, 0)}"
        if sum(asked.values()) > said.llm_calls:
            yield "ceiling", f"{sum(asked.values())} model calls, at most {said.llm_calls}"
        plain = sum(
            1 for path, kind, _, _ in seen.feed.calls if kind == "tool" and not _aside(path)
        )
        if plain > said.tool_calls:
            yield "ceiling", f"{plain} tool calls, at most {said.tool_calls}"
        for word, used, most in zip(
            ("prompt", "completion"),
            seen.feed.tokens,
            (said.prompt_tokens, said.completion_tokens),
            strict=True,
        ):
            if most is not None and used > most:
                yield "ceiling", f"{used} {word} tokens, at most {most}"
        # a budget of just so much is enough, also where it is shared out at forks
        if seen.feed.seed % 3 == 0:
            amounts = {
                "max_steps": said.steps,
                "max_llm_calls": said.llm_calls,
                "max_tool_calls": said.tool_calls,
            }
            held = run(case, seen.feed.seed, budget=Budget.model_construct(**amounts))
            if held.trace.digest != seen.trace.digest:
                yield (
                    "ceiling",
                    f"with a budget of {amounts} the run is another: {held.machine.error}",
                )
        for limit in limits:
            if calls[limit.tool] > limit.most:
                yield f"max_calls {limit.tool} {limit.most}", f"{calls[limit.tool]} calls"

    return Claims(proved, other, judge, always=("ceiling",))


def _aside(path: str) -> bool:
    last = path.rpartition("/")[2]
    return last == "undo" or last.partition("#")[0] == "reconcile"


def attack_trust(case: Case) -> Claims | None:
    """No marked text reaches an argument that is said to get trusted values only."""
    return _attack_trust(case)


def attack_literals(case: Case) -> Claims | None:
    """The same for a program that nobody vouches for: its own strings are marked too."""
    document = _marked(case.document)
    inner = Case.of(document, case.demands, case.seed)
    return _attack_trust(inner, literals=True) if inner is not None else None


def _marked(value: Any) -> Any:
    """A document, or a part of it, in which texts that become values carry a mark; names, types and
    expressions do not.
    """
    if isinstance(value, list):
        return [_marked(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    texts = _TEXTS - {"default"} if value.get("type") == "switch" else _TEXTS
    return {
        key: _marked_text(inner) if key in texts else _marked(inner) for key, inner in value.items()
    }


def _marked_text(value: Any) -> Any:
    if isinstance(value, dict):
        return (
            value if "expr" in value else {key: _marked_text(inner) for key, inner in value.items()}
        )
    if isinstance(value, list):
        return [_marked_text(inner) for inner in value]
    if not isinstance(value, str) or (value.startswith("$") and " " not in value):
        return value
    return f"{value}~own~"


_TEXTS = frozenset(
    {
        "args",
        "values",
        "default",
        "on_invalid",
        "with",
        "prompt",
        "system",
        "allowed_outputs",
        "over",
    }
)


def _attack_trust(case: Case, *, literals: bool = False) -> Claims | None:
    from nano_vm.verify.trust.proof import analyse

    rules = case.demands.rules(CONTRACTS)
    trust = analyse(
        case.flow,
        CONTRACTS,
        rules,
        untrusted=frozenset(case.demands.untrusted),
        untrusted_literals=literals,
    )
    said: dict[tuple[str, str, str], bool] = {}
    for finding in trust.findings:
        place = _place(case, finding.loc)
        said[place] = said.get(place, True) and finding.holds
    if not said:
        return None
    proved = [_text(place) for place, holds in said.items() if holds]
    other = [_text(place) for place, holds in said.items() if not holds]
    roles: dict[str, tuple[str, ...]] = {
        s.tool: (s.role,) for s in case.demands.statements if s.kind == "approval"
    }

    def judge(seen: Seen) -> Iterator[tuple[str, str]]:
        places = {call.path: call for call in seen.history.calls}
        for path, kind, tool, keywords in seen.feed.calls:
            if kind != "tool":
                continue
            call = places[path]
            step, aside = (
                "/".join((*call.scope, call.step)),
                "" if call.kind == "step" else call.kind,
            )
            for name, rule in case.demands.protected.get(tool, {}).items():
                if name not in keywords:
                    continue
                value = keywords[name]
                marked = MARK.search(json.dumps(value)) is not None or (
                    not literals and seen.labels.args[path][name]
                )
                if distrusted(
                    seen.history, call, rule, roles.get(tool, ()), value, marked=marked, known=KNOWN
                ):
                    yield (
                        _text((step, aside, name)),
                        f"{path} gives {tool} {name}={value!r}, and {rule!r} is demanded",
                    )

    plan = compile_flow(case.flow, CONTRACTS, trust.checks)
    return Claims(proved, other, judge, marked=True, plan=plan, case=case if literals else None)


def _text(place: tuple[str, str, str]) -> str:
    return " ".join(part for part in place if part)


def _place(case: Case, loc: tuple[Any, ...]) -> tuple[str, str, str]:
    """Step id with the calls around, undo or reconcile, and the argument, of a place in the
    document.
    """
    at: Any = case.document
    ids: list[str] = []
    step = ""
    for part in loc:
        if part == "program":
            ids.append(step)
        at = at.get(part) if isinstance(at, dict) else at[part]
        if isinstance(at, dict) and "id" in at and "type" in at:
            step = at["id"]
        if part in ("undo", "reconcile", "args"):
            break
    aside = next((str(part) for part in loc if part in ("undo", "reconcile")), "")
    return "/".join((*ids, step)), aside, str(loc[-1])


def attack_branches(case: Case) -> Claims | None:
    """No edge that is said never to be taken is taken."""
    from nano_vm.verify.data.possible import infeasible_edges

    barred = infeasible_edges(case.flow, CONTRACTS)
    barred_at = {index for index, _ in barred}
    proved = [f"{index} {label}" for index, label in sorted(barred)]
    other = []
    for node in case.flow.nodes:  # one statement of each that nothing is said of
        decides = node.kind == "step" and node.step.type.value in ("condition", "switch", "assert")
        branching = node.kind in ("test", "when") or decides
        if branching and node.index not in barred_at:
            other.append(str(node.index))

    taken: dict[int, set[str]] = {}  # over all runs of the case

    def judge(seen: Seen) -> Iterator[tuple[str, str]]:
        for index, label in seen.branches():
            taken.setdefault(index, set()).add(label)
            if (index, label) in barred:
                yield (
                    f"{index} {label}",
                    f"the run takes {label} of {case.flow.nodes[index].step.id}",
                )
            elif len(taken[index]) > 1:
                yield str(index), "taken both ways"

    return Claims(proved, other, judge)


def attack_names(case: Case) -> Claims | None:
    """In a program without V010 and V011 no step fails for a name that was not written; what is
    unreachable does not run.

    V024 says that an input is needed: without it no run begins, and with it the claim holds.
    """
    clean = not any(d.code in ("V010", "V011") for d in case.diagnostics)
    lost = {_step_at(case.document, d.loc) for d in case.diagnostics if d.code == "V009"}
    proved = (["names"] if clean else []) + [f"unreachable {'/'.join((*s[0], s[1]))}" for s in lost]

    def judge(seen: Seen) -> Iterator[tuple[str, str]]:
        for _, step, message in seen.history.errors:
            if "has no value on this path" in message:
                yield "names", f"{step}: {message}"
        if (
            seen.machine.error is not None
            and "has no value on this path" in seen.machine.error.message
        ):
            yield "names", seen.machine.error.message
        for key in lost & seen.history.ran:
            yield f"unreachable {'/'.join((*key[0], key[1]))}", "it ran"

    return Claims(proved, [] if clean else ["names"], judge)


def _step_at(document: Document, loc: tuple[Any, ...]) -> tuple[tuple[str, ...], str]:
    at: Any = document
    ids: list[str] = []
    step = ""
    for part in loc:
        if part == "program":
            ids.append(step)
        at = at.get(part) if isinstance(at, dict) else at[part]
        if isinstance(at, dict) and "id" in at and "type" in at:
            step = at["id"]
    return tuple(ids), step


def attack_received(case: Case) -> Claims | None:
    """What a tool with typed parameters receives passed its check, and is what an approver was
    shown.
    """
    from nano_vm.verify.trust.proof import analyse

    rng = Random(f"received {case.seed}")
    # the others are drawn as for all attacks, and few of their values reach a check
    if case.seed % 4:
        payments = Case.of(draw_payments(rng), Demands([]), case.seed)
        if payments is None:
            return None
        case = payments
    drawn = typed(rng, CONTRACTS, case.steps)
    policy = Policy.from_dict(drawn.policy())
    rules = {name: rules_of(name, [policy]) for name in drawn.contracts}
    trust = analyse(case.flow, drawn.contracts, rules)
    said: dict[tuple[str, str, str], bool] = {}
    for finding in trust.findings:
        place = _place(case, finding.loc)
        said[place] = said.get(place, True) and finding.holds
    if not said:
        return None
    shown = {place: (rule,) for place, rule in trust.shown.items()}
    plan = compile_flow(case.flow, drawn.contracts, {**trust.checks, **shown})

    def judge(seen: Seen) -> Iterator[tuple[str, str]]:
        places = {call.path: call for call in seen.history.calls}
        for path, kind, tool, keywords in seen.feed.calls:
            for name, rule in drawn.rules.get(tool, {}).items() if kind == "tool" else ():
                if name not in keywords:
                    continue
                call, value = places[path], keywords[name]
                if isinstance(rule, str):
                    kept = CHECKS[rule](value)
                else:
                    kept = any(
                        approved.role == rule["approval"]
                        and before(approved.at, call.fixed)
                        and any(alike(part, value) for part in parts(approved.values))
                        for approved in seen.history.shown
                    )
                if not kept:
                    text = _text(
                        (
                            "/".join((*call.scope, call.step)),
                            "" if call.kind == "step" else call.kind,
                            name,
                        )
                    )
                    yield text, f"{path} gives {tool} {name}={value!r}, and {rule!r} is demanded"

    proved = [_text(place) for place, holds in said.items() if holds]
    return Claims(
        proved,
        [_text(p) for p, holds in said.items() if not holds],
        judge,
        plan=plan,
        case=case,
        feed_class=Digits,
    )


ATTACKS: dict[str, Attack] = {
    "guards": attack_guards,
    "approvals": attack_approvals,
    "order": attack_order,
    "ceiling": attack_ceiling,
    "trust": attack_trust,
    "literals": attack_literals,
    "branches": attack_branches,
    "names": attack_names,
    "received": attack_received,
}


# --- the campaign ---------------------------------------------------------------------------------


@dataclass
class Shown:
    """What `verify` says of policies: how often, and whether its counterexamples are what they
    seem.
    """

    programs: int = 0
    proved: Counter[str] = field(default_factory=Counter)
    refuted: Counter[str] = field(default_factory=Counter)
    unproved: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        for kind in sorted({*self.proved, *self.refuted, *self.unproved}):
            counts = self.proved[kind], self.refuted[kind], self.unproved[kind]
            total = sum(counts)
            shares = ", ".join(
                f"{count / total:>4.0%} {word}"
                for count, word in zip(counts, ("proved", "refuted", "unproved"), strict=True)
            )
            yield f"{kind:<10} {total:>7,} statements: {shares}"


def counterexamples(
    seeds: Iterator[int] | range, *, pauses: bool | None = None, stop_at: int = 20
) -> Shown:
    """Each refuted statement's run is executed again, and must break the statement by our own
    oracle too.
    """
    shown = Shown()
    for seed in seeds:
        case = drawn(seed, pauses=pauses)
        if case is not None:
            _refuted(case, shown)
        if len(shown.wrong) >= stop_at:
            break
    return shown


def _refuted(case: Case, shown: Shown) -> None:
    from nano_vm.verify.examine import examine

    policy = case.demands.policy()
    examined = examine(case.flow, CONTRACTS, policy=policy)
    if any(d.severity == "error" for d in examined.report.diagnostics):
        return  # under a policy, a read that some path lacks is one; nothing is proved then
    by_key = {(s.kind, s.tool): s for s in case.demands.statements}
    plan = compile_flow(case.flow, examined.contracts, examined.checks)
    shown.programs += 1
    said = {(proof.kind, proof.tool) for proof in examined.report.proofs}
    lost = {_step_at(case.document, d.loc) for d in case.diagnostics if d.code == "V009"}
    for key in sorted(by_key.keys() - said):
        if (
            all(_lost(case.steps, site, lost) for site in sites(case.steps, key[1]))
            and key[0] != "before"
        ):
            continue  # no call of it is ever reached
        shown.wrong.append(
            f"nothing is said of {key} (seed {case.seed}): {json.dumps(case.demands.to_dict())}"
        )
    for proof in examined.report.proofs:
        getattr(shown, proof.status)[proof.kind] += 1
        if proof.status != "refuted":
            continue
        statement = by_key.get((proof.kind, proof.tool))
        if proof.run is None:
            shown.wrong.append(f"refuted without a run: {proof.statement} (seed {case.seed})")
            continue
        machine = proof.run.replay(plan)
        lines = list(_trace(machine, plan).lines())
        history = History(case.steps, lines)
        if proof.kind == "flow":
            why = _flows(
                case, _place(case, proof.loc), proof.tool, lines, proof.run.inputs, history
            )
        else:
            assert statement is not None, proof
            why = broken(statement, history)
        if why is None:
            text = [f"refuted, and the run keeps it: {proof.statement} (seed {case.seed})"]
            corpus = {
                "statement": proof.statement,
                "program": case.document,
                "policy": case.demands.to_dict(),
            }
            text += [json.dumps(corpus, ensure_ascii=False), proof.run.text()]
            text += [
                "  " + json.dumps({k: v for k, v in line.items() if not k.endswith("_ns")})
                for line in lines[1:]
            ]
            shown.wrong.append("\n".join(text))


def _lost(
    steps: Steps, site: tuple[tuple[str, ...], str], lost: set[tuple[tuple[str, ...], str]]
) -> bool:
    """Whether a step, or what it stands in, is one of *lost*."""
    scope, step = site
    while True:
        if any((scope, at) in lost for at in (step, *steps.around(scope, step))):
            return True
        if not scope:
            return False
        scope, step = scope[:-1], scope[-1]


def _flows(
    case: Case,
    place: tuple[str, str, str],
    tool: str,
    lines: list[dict[str, Any]],
    inputs: dict[str, Any],
    history: History,
) -> str | None:
    """How the run gives an argument what its rule forbids; of a run without marks, by labels."""
    labels = Labels(
        case.steps, [{"inputs": inputs}, *lines[1:]], _returns(case.demands), case.demands.untrusted
    )
    requests = {line["path"]: line["request"] for line in lines if line.get("request") is not None}
    step, aside, name = place
    roles = tuple(
        s.role for s in case.demands.statements if s.kind == "approval" and s.tool == tool
    )
    for call in history.calls:
        kind = "" if call.kind == "step" else call.kind
        if ("/".join((*call.scope, call.step)), kind, call.tool) != (step, aside, tool):
            continue
        rule = case.demands.protected[tool][name]
        if name not in requests[call.path]:
            if not _trusts(rule) or roles:  # nobody is shown what the tool then takes
                return f"{call.path} leaves {name} to the tool"
            continue
        value, marked = requests[call.path][name], labels.args[call.path][name]
        if distrusted(
            history,
            call,
            rule,
            roles,
            value,
            marked=marked,
            known=KNOWN,
            written=call.args.get(name),
        ):
            return f"{call.path} gives {tool} {name}={value!r}"
    return None


def _trusts(rule: Any) -> bool:
    """Whether a trusted value is enough for the rule."""
    return bool(rule.get("trusted", True)) if isinstance(rule, dict) else rule.startswith("trusted")


def _returns(demands: Demands) -> dict[str, str]:
    return {name: demands.returns.get(name, "args" if name == "join" else "") for name in TOOLS}


def _trace(machine: Machine, plan: Plan) -> Trace:
    recording = Recording(
        "drawn", "0" * 64, "run", 1, 0, 0, "00", records=machine.records, ops=plan.ops
    )
    machine.fill(recording)
    return Trace(recording)


@dataclass
class Figures:
    """What one attack saw."""

    programs: int = 0
    runs: int = 0
    proved: int = 0
    other: int = 0
    hit: int = 0  # statements that were not proved, and that a run broke
    contradictions: list[str] = field(default_factory=list)

    @property
    def statements(self) -> int:
        return self.proved + self.other

    def line(self, name: str) -> str:
        total = max(self.statements, 1)
        return (
            f"{name:<10} {self.programs:>7,} programs {self.runs:>8,} runs {self.statements:>7,} "
            f"statements: "
            f"{self.proved / total:>4.0%} proved, {self.other / total:>4.0%} not, "
            f"{self.hit / max(self.other, 1):>4.0%} of these broken by a random run; "
            f"{len(self.contradictions)} contradictions"
        )


def campaign(
    seeds: Iterator[int] | range,
    runs: int,
    attacks: dict[str, Attack] | None = None,
    *,
    pauses: bool | None = None,
    stop_at: int = 20,
) -> dict[str, Figures]:
    """Each case of *seeds* with *runs* runs, held against what the passes claim."""
    attacks = ATTACKS if attacks is None else attacks
    figures = {name: Figures() for name in attacks}
    for seed in seeds:
        case = drawn(seed, pauses=pauses)
        if case is None:
            continue
        claims = {}
        for name, attack in attacks.items():
            claim = attack(case)
            if claim is not None:
                claims[name] = claim
                figures[name].programs += 1
                figures[name].proved += len(claim.proved)
                figures[name].other += len(claim.other)
        hits: dict[str, set[str]] = {name: set() for name in claims}
        for number in range(runs):
            seen: dict[tuple[bool, int], Seen] = {}
            for name, claim in claims.items():
                kind = claim.marked, id(claim.plan)
                if kind not in seen:
                    seen[kind] = run(
                        claim.case or case,
                        seed * 1_000 + number,
                        marked=claim.marked,
                        plan=claim.plan,
                        feed_class=claim.feed_class,
                    )
                one = seen[kind]
                figures[name].runs += 1
                for statement, why in claim.judge(one):
                    if (
                        statement in claim.proved or statement in claim.always
                    ) and statement not in hits[name]:
                        figures[name].contradictions.append(told(name, statement, why, one))
                    hits[name].add(statement)
        for name, found in hits.items():
            figures[name].hit += len(found.intersection(claims[name].other))
        if any(len(f.contradictions) >= stop_at for f in figures.values()):
            break
    return figures


def told(name: str, statement: str, why: str, seen: Seen) -> str:
    """A contradiction with all that is needed to see it again; the case is in the form of the
    corpus.
    """
    case = seen.case
    corpus = {
        "pass": name,
        "statement": statement,
        "program": case.document,
        "policy": case.demands.to_dict(),
        "inputs": seen.inputs,
        "outcomes": [list(pair) for pair in seen.feed.chosen],
    }
    lines = [
        f"{name}: proved, and broken by a run: {statement}: {why} (seed {case.seed}, run "
        f"{seen.feed.seed})"
    ]
    lines.append(json.dumps(corpus, ensure_ascii=False))
    for line in seen.lines:
        if line["record"] != "run":
            kept = {
                k: v for k, v in line.items() if k not in ("started_ns", "finished_ns", "usage")
            }
            lines.append("  " + json.dumps(kept, ensure_ascii=False))
    return "\n".join(lines)
