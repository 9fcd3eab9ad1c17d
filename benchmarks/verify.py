"""What verification costs, as a whole and by pass: milliseconds for a program of 5,000 steps and
for one of 20 or 50, best of several.

python benchmarks/verify.py
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from nano_vm import Program
from nano_vm.language.flow import Flow
from nano_vm.language.policy import Policy
from nano_vm.language.rules import Rules, rules_of
from nano_vm.tools.contract import ToolContract, contract
from nano_vm.verify import verify
from nano_vm.verify.order.proof import check_guards
from nano_vm.verify.secrecy.labels import Secrets
from nano_vm.verify.secrecy.proof import analyse as secrets_of
from nano_vm.verify.trust.proof import analyse, graph_of

Row = tuple[str, float, float | None]
"""What was measured, milliseconds, and the most that they may be."""


def best_ms(run: Callable[[], Any], times: int) -> float:
    """The shortest of *times* runs, in milliseconds: what disturbs a run only makes it longer."""
    found = []
    gc.collect()
    for _ in range(times):
        start = time.process_time_ns()
        run()
        found.append(time.process_time_ns() - start)
    return min(found) / 1e6


# --- programs -------------------------------------------------------------------------------------


def program(steps: int) -> Program:
    """Parts of ten steps: a decision, a guarded call, branches, a loop, and reads of what was
    written before.
    """
    found: list[dict[str, Any]] = []
    for n in range(steps // 10):
        found += [
            {
                "id": f"look{n}",
                "type": "tool",
                "tool": "fetch",
                "args": {"q": "$order"},
                "output_key": f"k{n}",
            },
            {
                "id": f"g{n}",
                "type": "condition",
                "condition": f"$k{n} == 'yes' and $order != 'none'",
                "then": [
                    {
                        "id": f"pay{n}",
                        "type": "tool",
                        "tool": "pay",
                        "args": {"to": "$order", "n": n},
                    }
                ],
                "otherwise": [{"id": f"no{n}", "type": "set", "values": {"state": n}}],
            },
            {
                "id": f"both{n}",
                "type": "parallel",
                "parallel_steps": [
                    {"id": f"a{n}", "type": "tool", "tool": "mail", "args": {"text": f"$k{n}"}},
                    {"id": f"b{n}", "type": "tool", "tool": "fetch", "args": {"q": n}},
                ],
            },
            {
                "id": f"loop{n}",
                "type": "loop",
                "max_iterations": 3,
                "until": f"$t{n}.output == 1",
                "on_exhausted": "continue",
                "steps": [
                    {
                        "id": f"t{n}",
                        "type": "tool",
                        "tool": "fetch",
                        "args": {"q": "$order"},
                        "on_error": "skip",
                        "default": 0,
                    }
                ],
            },
            {"id": f"end{n}", "type": "set", "values": {"state": {"expr": f"{n} + 1"}}},
        ]
    inputs = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
    return Program.from_dict({"name": "measured", "inputs": inputs, "steps": found})


NAMES = ("fetch", "pay", "mail")


def any_tool(**arguments: Any) -> None:
    """Never called."""


def tools() -> dict[str, ToolContract]:
    return {name: contract(name, any_tool) for name in NAMES}


def guard_rules(count: int, steps: int) -> dict[str, Rules]:
    """*count* statements: every call of `pay` is guarded by its own decision, some in other
    words.
    """
    edges = [f"g{n}.then" for n in range(steps // 10)]
    policies = [
        Policy.from_dict({"tools": {"pay": {"guarded_by": [*edges, f"look0.{n}"]}}})
        for n in range(count)
    ]
    return {"pay": rules_of("pay", policies)}


# --- passes ---------------------------------------------------------------------------------------


def report(steps: int, times: int, most: float | None) -> list[Row]:
    """All that `nano-vm check` says of a program, under a policy that demands an order, trusted
    values and labels: the graph, every pass, the report.
    """
    work = program(steps)
    policy = {
        "inputs": {"order": "untrusted"},
        "tools": {
            "pay": {
                "guarded_by": [f"g{n}.then" for n in range(steps // 10)],
                "args": {"n": "trusted"},
            },
            "mail": {"args": {"text": "any"}},
            "fetch": {"args": {"q": "any"}, "returns": "trusted"},
        },
    }
    functions = dict.fromkeys(NAMES, any_tool)

    def whole() -> None:
        found = verify(work, tools=functions, policy=policy)
        assert all(proof.status == "proved" for proof in found.proofs)

    return [(f"the whole report, {steps:,} steps", best_ms(whole, times), most)]


def guards(steps: int, times: int, five: float, further: float) -> list[Row]:
    flow, contracts = Flow(program(steps)), tools()

    def taken_by(count: int) -> float:
        rules = guard_rules(count, steps)
        assert all(finding.holds for finding in check_guards(flow, contracts, rules))
        return best_ms(lambda: list(check_guards(flow, contracts, rules)), times)

    taken = {count: taken_by(count) for count in (1, 5, 10)}
    return [
        (f"guards: one, {steps:,} steps", taken[1], None),
        (f"guards: five, {steps:,} steps", taken[5], five),
        (f"guards: each further, {steps:,} steps", (taken[10] - taken[5]) / 5, further),
    ]


def flows(steps: int, times: int) -> list[Row]:
    """Where untrusted values go, and both these and secret ones over the one graph. All that the
    tools return is secret, and most of what they are given.
    """
    flow, contracts = Flow(program(steps)), tools()
    policy = Policy.from_dict(
        {
            "inputs": {"order": {"trust": "untrusted", "secrecy": "secret"}},
            "tools": {
                "pay": {"args": {"*": {"trusted": True, "accepts": "public"}}},
                "mail": {"args": {"text": "any"}},
                "fetch": {"args": {"q": "any"}, "returns": {"trust": "args", "secrecy": "secret"}},
            },
        }
    )
    rules = {name: rules_of(name, [policy]) for name in contracts}
    untrusted = frozenset(policy.untrusted)

    def both() -> None:
        graph = graph_of(flow, untrusted, frozenset())
        analyse(flow, contracts, rules, untrusted=untrusted, graph=graph)
        secrets_of(graph, Secrets((policy,), contracts, flow.tools, {}))

    trust = best_ms(lambda: analyse(flow, contracts, rules, untrusted=untrusted), times)
    return [
        (f"flows: untrusted, {steps:,} steps", trust, None),
        (f"flows: untrusted and secret, {steps:,} steps", best_ms(both, times), 1.4 * trust),
    ]


def rows() -> list[Row]:
    """Every figure."""
    return [
        *report(5_000, 7, 200.0),
        *report(50, 100, None),
        *flows(5_000, 7),
        *flows(20, 300),
        *guards(5_000, 7, 100.0, 30.0),
        *guards(20, 300, 0.5, 0.1),
    ]


def main() -> None:
    print(f"{'':<44} {'ms':>9} {'at most':>9}")
    for name, taken, most in rows():
        late = "  too slow" if most is not None and taken > most else ""
        print(f"{name:<44} {taken:>9.3f} {'' if most is None else f'{most:9.3f}':>9}{late}")


if __name__ == "__main__":
    main()
