"""For tests, yours too: models that answer from a script or from a recording, the all-paths test,
and simulated worlds. No network, no randomness but that of a seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .adapters.contract import Adapter, completed
from .adapters.protocol import Completion, Message
from .adapters.scripted import Answer, Rule, ScriptedLLM
from .errors import ModelError, ProgramError, VMError
from .explore.search import (
    DEFAULT_MAX_RUNS,
    Broken,
    Exploration,
    Property,
    at_most,
    explore_plan,
    never,
    only_after,
)
from .explore.tree import ExploredRun, assumed
from .given import by_name
from .given import path as given_path
from .language.flow import Flow
from .language.policy import policy_of, tightest
from .language.program import Program
from .language.programs import program_given, programs_given
from .machine.compile import plan_of
from .records.usage import LLMUsage
from .tools.contract import contract
from .values import admit, canonical, kind_name, short
from .verify.examine import examine, placed_for

if TYPE_CHECKING:
    from .simulation.simulate import Outside, Simulation, simulate
    from .simulation.world import Faults, World


class RecordedLLM:
    """Answers from a recording; with an adapter, asks it for what is not recorded yet and records
    that.

    The file holds one JSON object a line: the request by which an answer is found (messages and
    options, by their hash), and the answer. Equal requests get equal answers, in whatever order and
    however often they come.

        RecordedLLM("tests/refund.jsonl", record=OpenAIAdapter("gpt-5"))     # once
        RecordedLLM("tests/refund.jsonl")                                    # from then on

    Raises:
        VMError: If the file cannot be read or is no recording.
    """

    def __init__(self, path: str | Path, record: Any = None) -> None:
        self.path = given_path(path, "a recording")
        self.adapter = record
        model = getattr(record, "model", None)
        self.model = model if isinstance(model, str) else None
        self.images = record is None or getattr(record, "images", False) is True
        self._known: dict[str, Completion] = {}
        if self.path.exists():
            self._load()
        elif record is None:
            raise VMError(
                f"no recording at {str(self.path)!r}; make one with RecordedLLM(path, "
                f"record=adapter)"
            )

    def _load(self) -> None:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise VMError(f"{self.path}: not a recording: {error}") from None
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                usage = LLMUsage.from_dict(entry["usage"]) if entry["usage"] is not None else None
                if not isinstance(entry["text"], str):
                    raise TypeError("the text is none")
                thoughts = entry.get("reasoning")
                known = Completion(
                    entry["text"], usage, entry["model"], entry["finish_reason"], thoughts
                )
                self._known[entry["key"]] = known
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise VMError(f"{self.path}:{number}: not a recorded answer: {error}") from None

    async def complete(
        self,
        messages: list[Message],
        *,
        allowed_outputs: list[str] | None = None,
        output_schema: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Completion:
        """The recorded answer to these messages and options.

        Raises:
            ModelError: If it is not recorded, and there is no adapter to ask.
        """
        constraints = {"allowed_outputs": allowed_outputs, "output_schema": output_schema}
        told = {} if options is None else {"options": options}
        request = {
            "messages": messages,
            **kwargs,
            **{k: v for k, v in constraints.items() if v is not None},
            **told,
        }
        key = hashlib.sha256(canonical(request)).hexdigest()
        found = self._known.get(key)
        if found is not None:
            return found
        if self.adapter is None:
            raise ModelError(
                f"not recorded: {short(messages[-1]['content'])}; record it again with "
                f"record=adapter",
                retryable=False,
            )
        asked = Adapter(self.adapter)
        if told and not asked.takes("options"):
            raise ModelError(
                f"{kind_name(self.adapter)} takes no options: {options!r}", retryable=False
            )
        taken = {k: v for k, v in request.items() if k not in constraints or k in asked.named}
        answer = completed(await self.adapter.complete(**taken))
        entry = {
            "key": key,
            "request": request,
            "text": answer.text,
            "usage": answer.usage.to_dict() if answer.usage is not None else None,
            "model": answer.model,
            "finish_reason": answer.finish_reason,
            **({} if answer.reasoning is None else {"reasoning": answer.reasoning}),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._known[key] = answer
        return answer


def explore(
    program: Program,
    *,
    tools: Mapping[str, Callable[..., Any]] | None = None,
    policy: Any = None,
    properties: Mapping[str, Property] | None = None,
    inputs: Mapping[str, Any] | None = None,
    programs: Mapping[str, Program] | None = None,
    max_runs: int = DEFAULT_MAX_RUNS,
    errors: bool = True,
    orders: bool = False,
    cancels: bool = False,
) -> Exploration:
    """Run *program* on the real machine under every combination of outcomes worth trying, and hold
    *properties* against each run.

    Nothing is called: *tools* are looked at for their types and effects only, and without them
    every tool may return anything. A call gives each member of an enum, each side of every
    comparison that its value meets, an error, a timeout; retries fail once or for good. *inputs*
    are as given, else made up likewise. *policy* is what `ExecutionVM` takes: its value checks,
    effects and budget hold in every run, and a run that it does not prove impossible is made all
    the same. *errors* false injects no failure; *orders* runs the children of a fork in other
    orders too, *cancels* cancels the run at each call.

    A property is called with the `ExploredRun` and breaks by returning False or by an
    AssertionError; `at_most`, `never` and `only_after` give common ones.

    Raises:
        ProgramError: If the program has faults.

    Examples:
        >>> from nano_vm import Program
        >>> from nano_vm.testing import explore, never
        >>> program = Program.from_yaml(
        ...     "steps: [{id: gate, type: condition, condition: $sure, then: pay, otherwise: $end},"
        ...     " {id: pay, type: tool, tool: pay}]"
        ... )
        >>> explore(program, properties=never("pay"), inputs={"sure": True}).ok
        False
    """
    flow = Flow(program_given(program), programs_given(programs))
    named = by_name(tools, "tools", "write tools={'search': search}")
    known = {name: contract(name, function) for name, function in named.items()}
    contracts = known if tools is not None else assumed(flow, known)
    rules = policy_of(policy)
    examined = examine(flow, contracts, policy=rules, thorough=False)
    faults = [d for d in examined.report.diagnostics if d.severity == "error"]
    if faults:
        raise ProgramError(placed_for(program, rules, faults))
    budgets = [program.budget, *(policy.budget for policy in examined.policies)]
    return explore_plan(
        plan_of(flow, examined.contracts, examined.checks),
        flow,
        examined.contracts,
        properties=properties,
        inputs=admit(by_name(inputs, "inputs", "write inputs={'name': value}"))[0]
        if inputs is not None
        else None,
        checks=examined.checks,
        budget=tightest([b for b in budgets if b is not None]),
        max_runs=max_runs,
        errors=errors,
        orders=orders,
        cancels=cancels,
    )


def __getattr__(name: str) -> Any:
    """What a simulated world needs is imported when it is asked for: it is an extra."""
    if name not in ("Faults", "Outside", "Simulation", "World", "simulate"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .simulation import simulate, world

    return getattr(world if name in ("Faults", "World") else simulate, name)


__all__ = [
    "Answer",
    "Broken",
    "Exploration",
    "ExploredRun",
    "Faults",
    "Outside",
    "Property",
    "RecordedLLM",
    "Rule",
    "ScriptedLLM",
    "Simulation",
    "World",
    "at_most",
    "explore",
    "never",
    "only_after",
    "simulate",
]
