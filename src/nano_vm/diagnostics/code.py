"""What a code means, and the traits that callers ask for in place of numbers.

A code has one meaning for good: what has another cure gets another code. A fault that is the
`HOST`'s leaves the program's graph whole; a `DOUBT` is what a program may do that nobody vouches
for, a warning to its author and an error under a policy; `BUDGET` says that the worst case is over
a budget; `GRAPH` that the graph is too large to be there as a whole; `NAMES` that a policy names
what is not there, or does not name an input. `PLANNER` is no error in what a person wrote and a
fault of what a model wrote: it meant something else, or takes more steps and calls than it may. Of
tokens and money the worst case is that of the largest values, which would refuse nearly every
program; the run holds these budgets.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import fill
from typing import Final, Literal

Severity = Literal["error", "warning", "hint"]

HOST: Final = "host"
DOUBT: Final = "doubt"
BUDGET: Final = "budget"
GRAPH: Final = "graph"
NAMES: Final = "names"
PLANNER: Final = "planner"

PAY: Final = """\
steps:
  - {id: ask, type: llm, prompt: "Refund? $mail", allowed_outputs: [yes, no]}
  - {id: gate, type: condition, condition: "$ask.output == 'yes'", then: pay, otherwise: $end}
  - {id: pay, type: tool, tool: pay, args: {to: $account, amount: 5}}
"""
"""The program of the examples that are policies."""


TEXT_WIDTH = 100
"""Columns of the page and of a terminal."""


def _wrapped(paragraph: str) -> str:
    return fill(paragraph, TEXT_WIDTH, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True, slots=True)
class Code:
    """What a code means. ``example`` is a program, and ``policy`` a host's policy, that has it; a
    code that needs more of a host has none.
    """

    code: str
    title: str
    meaning: str
    cure: str
    severity: Severity = "error"
    example: str = ""
    policy: str = ""
    traits: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it, as Markdown."""
        grade = "" if self.severity == "error" else f"A {self.severity}. "
        parts = [
            f"## {self.code}: {self.title}",
            _wrapped(f"{grade}{self.meaning}"),
            _wrapped(f"*Remedy:* {self.cure}"),
        ]
        if self.example:
            parts.append(f"```yaml\n{self.example.rstrip()}\n```")
        if self.policy:
            parts.append(f"with the policy\n\n```yaml\n{self.policy.rstrip()}\n```")
        return "\n\n".join(parts)
