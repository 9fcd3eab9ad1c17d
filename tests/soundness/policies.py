"""Random policies for a drawn program: demands that are mostly met, and sometimes not quite.

A demand is drawn from what stands around a call in the document: the decision whose branch holds it
or jumps to it, a step before it, an approval that shows its arguments. Whether it holds is for the
passes to say, and for runs to contradict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from nano_vm.language.policy import Policy
from nano_vm.language.rules import Rules, rules_of

from .history import Document, Scope, Steps, blocks_of
from .oracles import Statement
from .programs import PARAMETERS, ROLES, TOOLS

Site = tuple[Scope, str]


def sites(steps: Steps, tool: str) -> list[Site]:
    """The steps that call *tool*, also to undo or reconcile."""
    found = []
    for key, step in steps.by_id.items():
        calls = [step.get("tool")] + [
            (step.get(name) or {}).get("tool") for name in ("undo", "reconcile")
        ]
        if tool in calls:
            found.append(key)
    return found


def labels_of(step: Document) -> list[str]:
    """The edges of a step that a policy can name."""
    found = ["when", "unless"] if "when" in step else []
    match step["type"]:
        case "condition" | "approval":
            found += ["then", "otherwise"]
        case "switch":
            found += [*step["cases"], *(["default"] if "default" in step else [])]
        case "assert":
            found += ["holds"]
        case "loop":
            found += ["until", "exhausted"] if "until" in step else ["exhausted"]
    return found


def _target(step: Document, label: str) -> Any:
    if label in ("when", "unless"):
        return None
    if step["type"] == "switch":
        return step["cases"].get(label, step.get("default") if label == "default" else None)
    return step.get(label)


def around(steps: Steps, site: Site) -> Iterator[tuple[Scope, str, str]]:
    """The edges into the blocks that hold a step, innermost first, and those that jump to it."""
    scope, step_id = site
    while True:
        if "when" in steps.by_id[scope, step_id]:
            yield scope, step_id, "when"
        for key, step in steps.by_id.items():
            if key[0] == scope:
                yield from (
                    (scope, key[1], label)
                    for label in labels_of(step)
                    if _target(step, label) == step_id
                )
        parent = steps.parent[scope, step_id]
        if parent is None:
            if not scope:
                return
            scope, parent = scope[:-1], scope[-1]
        else:
            step = steps.by_id[scope, parent]
            for label in labels_of(step):
                block = _target(step, label)
                if isinstance(block, list) and any(inner["id"] == step_id for inner in block):
                    yield scope, parent, label
        step_id = parent


def earlier(steps: Steps, site: Site) -> list[Site]:
    """Steps that stand before *site* in its block, or in one around it, in the same program."""
    scope, step_id = site
    found: list[Site] = []
    while True:
        parent = steps.parent[scope, step_id]
        block = next(
            block
            for block in (
                blocks_of(steps.by_id[scope, parent])
                if parent is not None
                else [_top(steps, scope)]
            )
            if any(step["id"] == step_id for step in block)
        )
        for step in block:
            if step["id"] == step_id:
                break
            found.append((scope, step["id"]))
        if parent is None:
            return found
        step_id = parent


def _top(steps: Steps, scope: Scope) -> list[Document]:
    return [
        step for key, step in steps.by_id.items() if key[0] == scope and steps.parent[key] is None
    ]


def edge_text(scope: Scope, step_id: str, label: str) -> str:
    return "/".join((*scope, step_id)) + f".{label}"


class Drawer:
    """Draws the demands for one program."""

    def __init__(self, rng: Random, steps: Steps, *, shape: bool = False) -> None:
        self.rng, self.steps, self.shape = rng, steps, shape
        self.edges = [
            (key[0], key[1], label)
            for key, step in steps.by_id.items()
            for label in labels_of(step)
        ]

    def statements(self) -> list[Statement]:
        """At most one of each kind for each tool."""
        rng = self.rng
        found: list[Statement] = []
        tools = [tool for tool in TOOLS if sites(self.steps, tool)]
        if rng.random() < 0.05:
            found += self.before(next((tool for tool in TOOLS if tool not in tools), "pay"))
        for tool in tools:
            chance = {"pay": 0.9, "mail": 0.4}.get(tool, 0.12)
            if rng.random() < chance:
                found += self.guard(tool)
            if rng.random() < (0.9 if tool == "pay" else 0.05):
                found += self.approval(tool)
            if rng.random() < chance * 0.6:
                found += self.after(tool)
            if rng.random() < chance * 0.6:
                found += self.before(tool)
            if rng.random() < chance * 0.5:
                found.append(Statement("max_calls", tool, most=rng.choice((0, 1, 1, 2, 3, 6))))
        return found

    def guard(self, tool: str) -> list[Statement]:
        rng = self.rng
        names: dict[str, None] = {}
        if self.edges and rng.random() < (
            0.9 if self.shape else 0.25
        ):  # many: what matters is what uses them up and ends them
            many = [edge for edge in self.edges if edge[2] != "otherwise" or rng.random() < 0.5]
            return (
                [Statement("guard", tool, tuple(edge_text(*edge) for edge in many))] if many else []
            )
        for site in sites(self.steps, tool):
            if rng.random() < 0.06:
                continue  # a hole
            near = list(around(self.steps, site))
            before = [
                edge for key in earlier(self.steps, site) for edge in self.edges if edge[:2] == key
            ]
            edge = None
            if near and rng.random() < 0.9:
                edge = near[min(int(rng.expovariate(1.2)), len(near) - 1)]
            elif before:
                edge = before[-1 - min(int(rng.expovariate(1.0)), len(before) - 1)]
            elif self.edges and rng.random() < 0.5:
                edge = rng.choice(self.edges)
            if edge is not None:
                names[edge_text(*edge)] = None
        if self.edges and rng.random() < 0.15:
            names[edge_text(*rng.choice(self.edges))] = None
        return [Statement("guard", tool, tuple(names))] if names else []

    def approval(self, tool: str) -> list[Statement]:
        steps = [step for step in self.steps.by_id.values() if step["type"] == "approval"]
        if not steps:
            return []
        around_it = [
            self.steps.by_id[edge[:2]]
            for site in sites(self.steps, tool)
            for edge in around(self.steps, site)
        ]
        near = [step for step in around_it if step["type"] == "approval"]
        if not near and not self.shape and self.rng.random() < 0.7:
            return []  # it would hardly ever hold
        role = (
            self.rng.choice(near or steps)["role"]
            if self.rng.random() < 0.9
            else self.rng.choice(ROLES)
        )
        parameters = PARAMETERS[tool]
        chosen = self.rng.sample(parameters, self.rng.choice((0, 1, 1, len(parameters))))
        return [Statement("approval", tool, role=role, protected=tuple(chosen))]

    def after(self, tool: str) -> list[Statement]:
        rng = self.rng
        names = []
        site = rng.choice(sites(self.steps, tool))
        before = earlier(self.steps, site)
        roll = rng.random()
        if before and roll < 0.75:
            key = rng.choice(before)
            step = self.steps.by_id[key]
            names.append(
                step["tool"]
                if step["type"] == "tool" and roll < 0.3
                else "/".join((*key[0], key[1]))
            )
        elif roll < 0.9 and (near := list(around(self.steps, site))):
            names.append(edge_text(*rng.choice(near)))
        else:
            key = rng.choice(list(self.steps.by_id))
            names.append("/".join((*key[0], key[1])))
        return (
            [Statement("after", tool, tuple(n for n in names if n != tool))]
            if names != [tool]
            else []
        )

    def before(self, tool: str) -> list[Statement]:
        rng = self.rng
        found = [key for key, step in self.steps.by_id.items() if step.get("tool") == tool]
        if not found:
            if self.rng.random() < 0.3:  # never called, so never before anything
                return [
                    Statement(
                        "before",
                        tool,
                        ("/".join((*(key := rng.choice(list(self.steps.by_id)))[0], key[1])),),
                    )
                ]
            return []
        places = [
            key for key in self.steps.by_id if any(s in earlier(self.steps, key) for s in found)
        ]
        key = (
            rng.choice(places)
            if places and rng.random() < 0.85
            else rng.choice(list(self.steps.by_id))
        )
        step = self.steps.by_id[key]
        name = (
            step["tool"]
            if step["type"] == "tool" and rng.random() < 0.4
            else "/".join((*key[0], key[1]))
        )
        labels = labels_of(step)
        if labels and rng.random() < 0.4:
            name = edge_text(*key, rng.choice(labels))
        return [Statement("before", tool, (name,))] if name != tool else []


@dataclass
class Demands:
    """A drawn policy: the statements, what is trusted, and the policy that says so."""

    statements: list[Statement]
    # by tool: what its arguments must be
    protected: dict[str, dict[str, Any]] = field(default_factory=dict)
    returns: dict[str, str] = field(default_factory=dict)
    untrusted: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The policy as a host writes it."""
        tools: dict[str, dict[str, Any]] = {}
        for statement in self.statements:
            tools.setdefault(statement.tool, {}).update(statement.policy())
        for tool, rules in self.protected.items():
            if rules:
                tools.setdefault(tool, {})["args"] = dict(rules)
        for tool, returns in self.returns.items():
            tools.setdefault(tool, {})["returns"] = returns
        inputs = {**dict.fromkeys(self.untrusted, "untrusted"), "*": "trusted"}
        return {"inputs": inputs, "tools": tools, "values": {"known": KNOWN}}

    def policy(self) -> Policy:
        return Policy.from_dict(self.to_dict())

    def rules(self, contracts: Any) -> dict[str, Rules]:
        """What is demanded of each tool, joined with its contract."""
        policy = self.policy()
        return {
            name: rules_of(name, [policy], contract.options.trusted, contract.options.returns)
            for name, contract in contracts.items()
        }

    def marking(self) -> tuple[frozenset[str], frozenset[str]]:
        """The tools whose values come from outside, and those whose values are made of their
        arguments.
        """
        pure = {
            name
            for name in TOOLS
            if self.returns.get(name, "args" if name == "join" else None) == "args"
        }
        marks = {name for name in TOOLS if name not in pure and self.returns.get(name) != "trusted"}
        return frozenset(marks), frozenset(pure)


def draw_demands(rng: Random, document: Document, steps: Steps) -> Demands:
    """A policy for a program."""
    statements = Drawer(rng, steps, shape=document["name"] == "shape").statements()
    statements = list(_kept(statements))
    names = {"pay": ("to",), "mail": ("text",), "keep": ("v",), "keyed": ("v",)}
    if rng.random() < 0.5:
        names["pay"] = ("to", "amount")
    by_approval = {s.tool: s.protected for s in statements if s.kind == "approval"}
    # an approval covers the arguments that are protected, all where none is
    names.update(by_approval)
    protected = {
        tool: {name: _rule(rng) for name in arguments}
        for tool, arguments in names.items()
        if arguments
    }
    returns = {
        name: rng.choice(("trusted", "args"))
        for name in ("fetch", "keep", "mail")
        if rng.random() < 0.5
    }
    inputs = list(document.get("inputs", {}).get("properties", ()))
    return Demands(
        statements, protected, returns, tuple(name for name in inputs if rng.random() < 0.4)
    )


KNOWN = ["yes", "a", 1, True]
"""The values that pass a value check."""


def _rule(rng: Random) -> Any:
    """What an argument must be."""
    if rng.random() < 0.8:
        return "trusted"
    return rng.choice(
        (
            "trusted or $value in $known",
            "$value in $known",
            {"approval": rng.choice(ROLES)},
            {"approval": rng.choice(ROLES), "check": "$value in $known", "trusted": False},
        )
    )


def _kept(statements: list[Statement]) -> Iterator[Statement]:
    """Without orders that no run can keep, which are refused when a policy is read."""
    order: set[tuple[str, str]] = set()
    for s in statements:
        pairs = (
            {(name, s.tool) if s.kind == "after" else (s.tool, name) for name in s.names}
            if s.kind in ("after", "before")
            else set()
        )
        if not any((b, a) in order or a == b for a, b in pairs):
            order |= pairs
            yield s
