"""From an intent to a program, with one model call.

In come an intent, the names and types of the inputs, the contracts of the tools and a policy; out
goes a `Program` that passed every check, or a `PlannerError` that says why there is none. The model
is asked once, never a second time, and sees no value of the context. Nothing that it wrote is run
here.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..adapters.contract import Adapter, completed
from ..adapters.protocol import Completion, Message
from ..diagnostics import Diagnostic
from ..diagnostics.code import PLANNER
from ..diagnostics.register import has
from ..errors import PlannerError, ProgramError, VMError
from ..given import positive_integer
from ..language.answers import ending, filtered, without_reasoning
from ..language.flow import Flow
from ..language.policy import Budget, Policy, policy_of, tightest
from ..language.program import Program
from ..language.programs import programs_given
from ..language.rules import Rules, rules_of
from ..run.host import adapters_of, budget_of
from ..run.vm import ExecutionVM
from ..tools.contract import ToolContract, contract, name_of
from ..values import kind_name, short, text_size
from .offers import Offer, kinds_of
from .prompt import instructions
from .reply import read_reply
from .reply_schema import program_schema

MAX_INTENT_CHARS = 100_000
"""Some 25,000 tokens: what is longer is no intent but data, which belongs into the context."""

MAX_TOKENS = 1024
"""Of the reply: three times what the longest program that the schema allows mostly takes."""

TIMEOUT_SECONDS = 120.0
"""The language's own default for a model call."""

GRACE_SECONDS = 1.0
"""How long an adapter that was cancelled may take to end before nobody waits for it any more."""

SHOWN_FAULTS = 8
"""Lines of a `PlannerError`'s message; its attributes have them all."""


class Planner:
    """Writes programs for intents.

    ``llm`` is an adapter as for `ExecutionVM`; ``tools`` are callables by name (or ``vm.tools``), a
    list of functions, or a list of bare names, of whose arguments nothing is known then; ``policy``
    is a `Policy`, its dict, or the path of its file; ``programs`` are those that `call` steps may
    name; ``budget`` bounds each program that is written. ``max_tokens`` and ``timeout_seconds``
    bound the one call.

    Raises:
        VMError: If one of them cannot be what it is given for.

    Examples:
        >>> import asyncio
        >>> from nano_vm import Planner
        >>> from nano_vm.testing import ScriptedLLM
        >>> model = ScriptedLLM(['{"steps": [{"id": "pay", "type": "tool", "tool": "pay"}]}'])
        >>> planner = Planner(model, tools={"pay": lambda: "paid"})
        >>> program = asyncio.run(planner.generate("pay the customer"))
        >>> [step.id for step in program.steps]
        ['pay']
    """

    def __init__(
        self,
        llm: Any,
        tools: Mapping[str, Any] | Iterable[Any] | None = None,
        policy: Policy | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        *,
        programs: Mapping[str, Program] | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        max_tokens: int = MAX_TOKENS,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        adapters = adapters_of(llm)
        if not adapters:
            raise VMError("a planner needs a model: Planner(llm=adapter)")
        positive_integer(max_tokens, "max_tokens")
        if type(timeout_seconds) not in (int, float) or not timeout_seconds > 0:
            raise VMError(
                f"timeout_seconds is a number of seconds above 0, not {timeout_seconds!r}"
            )
        self._llm = llm
        self._adapter: Adapter = adapters[None]
        self._contracts = _contracts(tools)
        self._policy = policy_of(policy)
        self._programs = programs_given(programs)
        self._budget = budget_of(budget)
        self._max_tokens = max_tokens
        self._timeout = timeout_seconds
        nothing = Program.from_dict(
            {"name": "nothing", "steps": [{"id": "nothing", "type": "set", "values": {"x": 1}}]}
        )
        faults = self._faults(nothing)[0]
        if faults:  # of the policy, and told before a model is paid for
            raise ProgramError(faults)

    async def generate(
        self,
        intent: str | None = None,
        context: Mapping[str, Any] | None = None,
        *,
        untrusted: bool = False,
        user_input: str | None = None,
    ) -> Program:
        """The program for *intent*, ready to run.

        Of *context* the model sees the names and the types. With it, the program may read these
        names and no other, and declares those that it reads as its ``inputs``; without, what it
        reads and no step writes is to be given to the run. *untrusted* says that the intent comes
        from outside: so do the program's literals then, which no protected argument takes until a
        person has approved the program's digest. *user_input* is what 0.1 called *intent*.

        Raises:
            PlannerError: If there is no such program: the intent is none, the model failed or took
                too long, or what it wrote is no program or does not pass.
        """
        wish = intent if intent is not None else user_input
        _check_intent(wish)
        assert isinstance(wish, str)
        kinds = kinds_of(context)
        offers = list(self._offers(kinds, untrusted))
        messages = [
            {"role": "system", "content": instructions(offers, kinds)},
            {"role": "user", "content": wish},
        ]
        schema = program_schema(offers, kinds) if "output_schema" in self._adapter.named else None
        completion = await self._asked(wish, messages, schema)
        ended = ending(completion.finish_reason)
        reply, _ = without_reasoning(completion.text, cut=ended == "truncated", constrained=True)
        if ended == "filtered":
            raise PlannerError(
                _message(wish, str(filtered(reply, str(completion.finish_reason)))), reply
            )
        try:
            document = read_reply(reply, cut=ended == "truncated")
            program = self._program(document, context is not None, kinds, untrusted)
        except ProgramError as error:
            errors = [d for d in error.diagnostics if d.severity == "error"]
            raise PlannerError(
                _message(wish, "it is no valid program", errors), reply, error.diagnostics
            ) from error
        except (ValueError, VMError) as error:
            raise PlannerError(_message(wish, str(error)), reply) from error
        diagnostics, counterexamples = self._faults(program)
        if diagnostics or counterexamples:
            message = _message(wish, "it does not pass", diagnostics, counterexamples)
            raise PlannerError(message, reply, diagnostics, counterexamples)
        return program

    def _offers(self, kinds: Mapping[str, str], untrusted: bool) -> Iterator[Offer]:
        policies = [self._policy] if self._policy is not None else []
        for name, known in self._contracts.items():
            options = known.options
            rules = rules_of(name, policies, options.trusted, options.returns)
            if rules.allow:
                yield Offer(
                    name,
                    known.to_dict(),
                    rules,
                    self._sources(rules, known, kinds),
                    literals=not untrusted,
                )
        for name, program in self._programs.items():
            about = {"description": program.description, "arguments": program.inputs or {}}
            yield Offer(name, about, Rules(name), {}, kind="call")

    def _sources(
        self, rules: Rules, known: ToolContract, kinds: Mapping[str, str]
    ) -> dict[str, list[str]]:
        """For each protected argument the inputs that it takes: no output of a step is trusted
        beforehand.
        """
        outside = self._policy.untrusted if self._policy is not None else ()
        inputs = [name for name in kinds if name not in outside]
        protected = {}
        for name in known.parameters:
            demands = rules.argument(name)
            if any(rule.check is None for rule in demands):
                protected[name] = inputs
        return protected

    async def _asked(
        self, wish: str, messages: list[Message], schema: dict[str, Any] | None
    ) -> Completion:
        """The one call, and what came of it."""
        adapter = self._adapter
        options: dict[str, Any] = {}
        if adapter.takes("max_tokens"):
            options["max_tokens"] = self._max_tokens
        if schema is not None:
            options["output_schema"] = schema

        async def call() -> Any:
            answer = adapter.complete(messages, **options)
            return await answer if inspect.isawaitable(answer) else answer

        # A task of its own, since an adapter that swallows its cancellation would hold
        # asyncio.timeout for ever.
        task = asyncio.ensure_future(call())
        # nobody may be waiting any more
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            await asyncio.wait({task}, timeout=self._timeout)
        finally:
            late = not task.done()
            if late:
                task.cancel()
                await asyncio.wait({task}, timeout=GRACE_SECONDS)
        if late:
            raise PlannerError(
                _message(wish, f"the model gave no answer within {self._timeout:g} seconds")
            )
        if task.cancelled():
            raise PlannerError(_message(wish, "the adapter cancelled its own call"))
        try:
            return completed(task.result())
        except Exception as error:  # whatever an adapter raises
            told = str(error) or kind_name(error)
            what = told if isinstance(error, VMError) else f"{kind_name(error)}: {told}"
            raise PlannerError(_message(wish, f"the model call failed: {what}")) from error

    def _program(
        self, document: dict[str, Any], told: bool, kinds: Mapping[str, str], untrusted: bool
    ) -> Program:
        """The program in *document*, with what the host says of its inputs and budget.

        Raises:
            ProgramError: With every fault that it shows by itself.
        """
        if untrusted:
            document = {**document, "untrusted": True}
        if told:
            document = {key: value for key, value in document.items() if key != "inputs"}
        program = Program.from_dict(document)
        added: dict[str, Any] = {}
        if told:
            names = Flow(program, self._programs).frames[0].names
            read = [name for name in kinds if names.takes(name)]
            if names.needed or names.optional:
                properties = {name: _INPUT_SCHEMAS.get(kinds[name], {}) for name in read}
                required = [name for name in read if name in names.needed]
                added["inputs"] = {"type": "object", "properties": properties, "required": required}
        if self._budget is not None:
            budget = tightest([b for b in (program.budget, self._budget) if b is not None])
            assert budget is not None
            added["budget"] = budget.model_dump(exclude_none=True)
        return Program.from_dict({**document, **added}) if added else program

    def _faults(self, program: Program) -> tuple[list[Diagnostic], list[str]]:
        """What speaks against *program*: faults, and the runs that break a demand."""
        # what an untrusted program's own text may reach is for a person to say, who sees it and
        # approves its digest; a VM asks for that
        vm = ExecutionVM(
            self._llm,
            programs=self._programs,
            budget=self._budget,
            policy=self._policy,
            approved=(program.digest,) if program.untrusted else (),
        )
        vm.preparer.contracts.update(self._contracts)
        report = vm.verify(program)
        faults = [d for d in report.diagnostics if d.severity == "error" or has(d.code, PLANNER)]
        broken = []
        for proof in report.proofs:
            if proof.status != "proved":
                flows = [f for f in report.flows if proof.about(f) and f.allowed is None]
                broken.append("\n  ".join([str(proof), *map(str, flows)]))
        if not report.ok and not faults and not broken:
            broken.append(str(report))
        return faults, broken


_INPUT_SCHEMAS = {
    "boolean": {"type": "boolean"},
    "number": {"type": "number"},
    "text": {"type": "string"},
    "list": {"type": "array"},
    "object": {"type": "object"},
}


def _contracts(tools: Any) -> dict[str, ToolContract]:
    """The contract of each tool; of a bare name nothing is known but that it is there."""
    if tools is None:
        return {}
    if isinstance(tools, (str, bytes)) or not isinstance(tools, Iterable):
        raise VMError(
            f"tools are callables by name, or a list of functions or names, not {short(tools)}"
        )
    named = (
        tools.items()
        if isinstance(tools, Mapping)
        else [(_listed_name(tool), tool) for tool in tools]
    )
    result: dict[str, ToolContract] = {}
    for name, given in named:
        if isinstance(given, str):
            given = _unknown_tool
        if name in result:
            raise VMError(f"two tools are called {name!r}")
        result[name] = given if isinstance(given, ToolContract) else contract(name, given)
    return result


def _listed_name(tool: Any) -> Any:
    if isinstance(tool, str):
        return tool
    return tool.name if isinstance(tool, ToolContract) else name_of(tool)


async def _unknown_tool(**_: Any) -> None:
    raise AssertionError("stands for a tool of which only the name is known, and is never called")


def _check_intent(wish: Any) -> None:
    if not isinstance(wish, str):
        raise PlannerError(f"an intent is a string, not {kind_name(wish)}")
    if not wish.strip():
        raise PlannerError("the intent is empty; say what is to be done")
    if len(wish) > MAX_INTENT_CHARS:
        raise PlannerError(
            f"the intent has {len(wish)} characters, above {MAX_INTENT_CHARS}; give data by the "
            f"context"
        )
    try:
        text_size(wish, ())
    except VMError as error:
        raise PlannerError(f"the intent: {error}") from error


def _message(
    wish: str,
    reason: str,
    diagnostics: Sequence[Diagnostic] = (),
    counterexamples: Sequence[str] = (),
) -> str:
    """Why there is no program, on a few lines."""
    lines = [line for fault in (*diagnostics, *counterexamples) for line in str(fault).split("\n")]
    more = [f"and {len(lines) - SHOWN_FAULTS} more"] if len(lines) > SHOWN_FAULTS else []
    return "\n  ".join([f"no program for {short(wish)}: {reason}", *lines[:SHOWN_FAULTS], *more])


__all__ = ["Planner", "PlannerError"]
