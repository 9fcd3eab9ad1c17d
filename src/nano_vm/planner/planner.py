"""From an intent to a program, with one model call.

In come an intent, the names and types of the inputs, the contracts of the tools and a policy; out
goes a `Program` that passed every check, or a `PlannerError` that says why there is none. The model
is asked once, never a second time, and sees no value of the context. Nothing that it wrote is run
here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any

from ..adapters.contract import Adapter, completed
from ..adapters.protocol import Completion, Message
from ..diagnostics import Diagnostic
from ..diagnostics.code import PLANNER
from ..diagnostics.register import has
from ..errors import PlannerError, ProgramError, VMError
from ..given import positive_integer
from ..language.answers import ending, filtered, without_reasoning
from ..language.expr import value_references
from ..language.flow import Flow
from ..language.policy import Budget, Policy, Rules, policy_of, rules_of, tightest
from ..language.program import Program
from ..language.programs import programs_given
from ..run.host import adapters_of, budget_of
from ..run.vm import ExecutionVM
from ..tools.contract import ToolContract, contract, name_of
from ..values import admit, kind_name, parse_json, short, text_size

MAX_REPLY_BYTES = 1_000_000
"""A reply larger than this is not read: a program may have no more either."""

MAX_INTENT_CHARS = 100_000
"""Some 25,000 tokens: what is longer is no intent but data, which belongs into the context."""

MAX_TOKENS = 1024
"""Of the reply: three times what the longest program that the schema allows mostly takes."""

TIMEOUT_SECONDS = 120.0
"""The language's own default for a model call."""

GRACE_SECONDS = 1.0
"""How long an adapter that was cancelled may take to end before nobody waits for it any more."""

PLANNED_STEPS = 6
"""Steps that the schema offers, not counting those in blocks. Each place has its own schema of
every tool: with sixty tools they are some 300 kB, which llama.cpp still takes.
"""

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
        kinds = _kinds(context)
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

        # A task of its own, since an adapter that swallows its cancellation would hold asyncio.timeout for
        # ever.
        task = asyncio.ensure_future(call())
        # nobody may be waiting any more
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            await asyncio.wait({task}, timeout=self._timeout)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=GRACE_SECONDS)
                late = True
            else:
                late = False
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
        # what an untrusted program's own text may reach is for a person to say, who sees it and approves its
        # digest; a VM asks for that
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


# --- what the planner is given --------------------------------------------------------------------


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


def _kinds(context: Any) -> dict[str, str]:
    """The names of the context that a program can read, and the kind of value of each; no value is
    looked into.
    """
    if context is None:
        return {}
    if not isinstance(context, Mapping):
        raise PlannerError(f"a context is a dict of inputs, not {kind_name(context)}")
    return {
        name: _kind(type(value))
        for name, value in context.items()
        if type(name) is str and name.isidentifier()
    }


_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool,), "boolean"),
    ((int, float, Decimal), "number"),
    ((str, date, time), "text"),
    ((list, tuple), "list"),
    ((Mapping,), "object"),
)


def _kind(kind: type) -> str:
    if issubclass(kind, Enum) and not issubclass(kind, (str, int)):
        return "any"
    for kinds, name in _KINDS:
        if issubclass(kind, kinds):
            return name
    return "object" if dataclasses.is_dataclass(kind) or hasattr(kind, "model_dump") else "any"


_INPUT_SCHEMAS = {
    "boolean": {"type": "boolean"},
    "number": {"type": "number"},
    "text": {"type": "string"},
    "list": {"type": "array"},
    "object": {"type": "object"},
}


# --- what the model is given --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool, or a program to call, as the model may use it."""

    name: str
    about: Mapping[str, Any]  # the contract's JSON form
    rules: Rules
    # the inputs that a protected argument takes
    sources: Mapping[str, list[str]] = field(default_factory=dict)
    literals: bool = True  # whether a protected argument takes what the model writes
    kind: str = "tool"

    @property
    def arguments(self) -> dict[str, Any]:
        """The schema of each argument."""
        return dict(self.about["arguments"].get("properties", {}))

    @property
    def required(self) -> list[str]:
        """The arguments that must be given."""
        return list(self.about["arguments"].get("required", []))

    @property
    def guards(self) -> list[tuple[str, str]]:
        """Step and edge of each guard."""
        pairs = [edge.rpartition(".") for edges in self.rules.guards for edge in edges[:1]]
        return [(step, edge) for step, _, edge in pairs]


_FORM = """\
Write a program in JSON for the user's task. Its steps run in order and have the ids s1, s2, s3. Types of steps:
{"id": "s1", "type": "tool", "tool": NAME, "args": {...}} calls a tool.
{"id": "s2", "type": "llm", "prompt": TEXT} asks a language model. "allowed_outputs": ["yes", "no"] limits its answer.
{"id": "s3", "type": "condition", "condition": "$s2.output == 'yes'", "then": [STEP], "otherwise": [STEP]} chooses.
{"id": "s4", "type": "map", "over": "$s1.output", "steps": [STEP]} does a step for each $item of a list.
$s1.output is what s1 gave, $name an input; inside a string write ${s1.output}. Use few steps."""


def instructions(offers: Sequence[Offer], kinds: Mapping[str, str]) -> str:
    """The system message: the language in short, the tools, the names and types of the inputs, an
    example.
    """
    lines = [_FORM]
    for kind, title in (
        ("tool", "Tools:"),
        ("call", 'Programs, called by {"type": "call", "program": NAME, "with": {...}}:'),
    ):
        some = [_told(offer) for offer in offers if offer.kind == kind]
        lines += [title, *some] if some else ["There are no tools."] if kind == "tool" else []
    lines.append(
        "Inputs: " + (", ".join(f"${name} ({kind})" for name, kind in kinds.items()) or "none")
    )
    lines.append(
        f"Answer with the JSON alone, like "
        f"{json.dumps(_example(offers, kinds), ensure_ascii=False)}"
    )
    return "\n".join(lines)


def _example(offers: Sequence[Offer], kinds: Mapping[str, str]) -> dict[str, Any]:
    """A small program with a tool and an input of this host: what a small model is shown, it can
    copy.
    """
    steps: list[dict[str, Any]] = []
    free = [o for o in offers if o.kind == "tool" and not o.guards and not o.rules.approvals]
    for offer in free[:1]:
        arguments = {}
        for name in offer.required:
            schema, taken = offer.arguments[name], offer.sources.get(name, kinds)
            fitting = sorted(
                (n for n in kinds if n in taken and _fits(kinds[n], schema)),
                key=lambda n: n != name,
            )
            arguments[name] = f"${fitting[0]}" if fitting else "..."
        steps.append({"id": "s1", "type": "tool", "tool": offer.name, "args": arguments})
    subject = "s1.output" if steps else next(iter(kinds), None)
    prompt = f"Sum this up: ${{{subject}}}" if subject is not None else "Write a short poem"
    return {
        "name": "example",
        "steps": [*steps, {"id": f"s{len(steps) + 1}", "type": "llm", "prompt": prompt}],
    }


MAX_DESCRIPTION_CHARS = 120


def _told(offer: Offer) -> str:
    """One line on a tool: its arguments, effect, description, and what the policy demands."""
    required = offer.required
    arguments = ", ".join(
        f"{name}: {_type_name(schema)}{'' if name in required else '?'}"
        for name, schema in offer.arguments.items()
    )
    text = " ".join(str(offer.about.get("description", "")).split("\n\n", 1)[0].split())
    parts = [f"{offer.name}({arguments})"]
    if offer.about.get("effect") == "irreversible":
        parts.append("[irreversible]")
    if text:
        parts.append(text[:MAX_DESCRIPTION_CHARS])
    rules = offer.rules
    for step, edge in offer.guards:
        parts.append(f'Only inside "{edge}" of the step with the id "{step}".')
    for role in rules.approvals:
        parts.append(
            f'Only inside "then" of {{"type": "approval", "role": "{role}", "show": {{its '
            f"arguments}}}}."
        )
    if rules.max_calls is not None:
        parts.append(f"At most {rules.max_calls} {'call' if rules.max_calls == 1 else 'calls'}.")
    for name, inputs in offer.sources.items():
        own = ["your own words"] if offer.literals else []
        parts.append(
            f"{name} takes only {' or '.join([*own, *(f'${i}' for i in inputs)]) or 'nothing'}."
        )
    return "- " + " ".join(parts)


def _type_name(schema: Any) -> str:
    """A schema in one word."""
    if not isinstance(schema, Mapping):
        return "any"
    if isinstance(choices := schema.get("enum"), list) and len(choices) <= 8:
        return "|".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    if isinstance(members := schema.get("anyOf"), list):
        return "|".join(dict.fromkeys(_type_name(member) for member in members))
    return _TYPE_NAMES.get(str(schema.get("type")), "any")


_TYPE_NAMES = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "array": "list",
    "object": "object",
    "null": "null",
}


# --- what a model that can be constrained is held to ----------------------------------------------

_CHAR = r'[^$"\\\x00-\x1f]'
"""What may stand in a string without an escape in JSON, and without a reference."""

_QUOTED = r"""[^$"'\\\x00-\x1f]"""

_GUESSED = ("input", "query", "text", "name", "id")
"""Arguments of a tool of which only the name is known: left free, a small model writes keys until
its tokens are used up.
"""


def program_schema(
    offers: Sequence[Offer], kinds: Mapping[str, str], steps: int = PLANNED_STEPS
) -> dict[str, Any]:
    """The JSON Schema of the programs that can be written with *offers* over inputs of these
    *kinds*.

    Each place in the list of steps has a schema of its own, in which ids are fixed and references
    lead back: whatever fits is well formed. The root is open, which keeps it out of OpenAI's strict
    mode, whose subset has no fixed places; llama.cpp closes it all the same.
    """
    shapes = _Shapes(offers, kinds)
    for number in range(1, steps + 1):
        shapes.place(number)
    lists = [
        {
            "type": "array",
            "prefixItems": [{"$ref": f"#/$defs/s{i}"} for i in range(1, n + 1)],
            "minItems": n,
            "maxItems": n,
        }
        for n in range(1, steps + 1)
    ]
    name = {"type": "string", "pattern": "^[a-z][a-z0-9_]{2,30}$"}
    return {
        "type": "object",
        "properties": {"name": name, "steps": {"anyOf": lists}},
        "required": ["name", "steps"],
        "$defs": shapes.definitions,
    }


class _Shapes:
    """The definitions of a schema, each made once."""

    def __init__(self, offers: Sequence[Offer], kinds: Mapping[str, str]) -> None:
        self.offers = offers
        self.kinds = kinds
        self.definitions: dict[str, Any] = {}
        self.known: dict[str, str] = {}  # the key of each definition by its text

    def shared(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A reference to *schema*, which is defined once however often it is needed: without, five
        tools make 77 kB.
        """
        key = self.known.setdefault(json.dumps(schema), f"d{len(self.known)}")
        self.definitions[key] = schema
        return _ref(key)

    def place(self, number: int) -> None:
        """What may stand as step *number*."""
        outputs = [f"s{i}.output" for i in range(1, number)]
        free = [offer for offer in self.offers if not offer.guards and not offer.rules.approvals]
        choices = [
            *self.calls(f"s{number}", free, outputs),
            *self.conditions(number, outputs),
            *self.approvals(number, outputs),
            *self.maps(number, free, outputs),
        ]
        self.definitions[f"s{number}"] = {"anyOf": choices}

    def calls(
        self,
        id: str,
        offers: Sequence[Offer],
        outputs: list[str],
        *,
        item: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Calls of tools and of the model."""
        names = [*self.kinds, *outputs, *(["item"] if item else [])]
        alike: dict[tuple[str, str], list[str]] = {}  # names of tools that take the same
        for offer in offers:
            arguments = self.arguments(offer, names, literals=True)
            if arguments is not None:
                alike.setdefault((offer.kind, arguments["$ref"]), []).append(offer.name)
        for (kind, reference), called in alike.items():
            fields = ("tool", "args") if kind == "tool" else ("program", "with")
            what = dict(zip(fields, ({"enum": called}, {"$ref": reference}), strict=True))
            yield _object({"id": _const(id), "type": _const(kind), **what})
        prompt = {
            "type": "string",
            "pattern": f"^{_CHAR}{{4,120}}{_inserted(names, needed=bool(outputs or item))}$",
        }
        label = {"type": "string", "pattern": "^[a-z][a-z_]{1,15}$"}
        labels = {"type": "array", "items": label, "minItems": 2, "maxItems": 4}
        asks = {"prompt": self.shared(prompt), "allowed_outputs": self.shared(labels)}
        yield _object({"id": _const(id), "type": _const("llm"), **asks}, optional=1)

    def conditions(self, number: int, outputs: list[str]) -> Iterator[dict[str, Any]]:
        """Branches; a tool that is guarded stands only behind its guard."""
        names = [
            *(name for name in self.kinds if self.kinds[name] not in ("list", "object")),
            *outputs,
        ]
        if not names:
            return
        any_name = "|".join(map(_escaped, names))
        tests = [
            rf"\$({any_name}) (==|!=) ('{_QUOTED}{{1,24}}'|true|false)",
            rf"\$({any_name}) (<|<=|>|>=|==) [0-9]{{1,6}}",
            rf"'{_QUOTED}{{1,24}}' in '\$({any_name})'",
        ]
        flags = [name for name in self.kinds if self.kinds[name] == "boolean"]
        tests += [rf"\$({'|'.join(map(_escaped, flags))})"] if flags else []
        condition = self.shared({"type": "string", "pattern": f"^({'|'.join(tests)})$"})
        free = [offer for offer in self.offers if not offer.guards and not offer.rules.approvals]
        guards = list(dict.fromkeys(step for offer in self.offers for step, _ in offer.guards))
        for name in (f"s{number}", *guards):
            branches = {}
            for edge in ("then", "otherwise"):
                inside = [
                    *free,
                    *(o for o in self.offers if (name, edge) in o.guards and not o.rules.approvals),
                ]
                branches[edge] = _block(self.calls(f"s{number}_{edge}", inside, outputs))
            yield _object(
                {
                    "id": _const(name),
                    "type": _const("condition"),
                    "condition": condition,
                    **branches,
                },
                optional=1,
            )

    def approvals(self, number: int, outputs: list[str]) -> Iterator[dict[str, Any]]:
        """A person's consent to calls that need it. They take references alone, and all of these
        are shown.
        """
        names = [*self.kinds, *outputs]
        roles = dict.fromkeys(role for offer in self.offers for role in offer.rules.approvals)
        for role in roles if names else ():
            behind = [o for o in self.offers if o.rules.approvals == (role,) and not o.guards]
            calls = [
                _object(
                    {
                        "id": _const(f"s{number}_then"),
                        "type": _const("tool"),
                        "tool": _const(o.name),
                        "args": arguments,
                    }
                )
                for o in behind
                if (arguments := self.arguments(o, names, literals=False)) is not None
            ]
            if calls:
                show = {"enum": [[f"${name}" for name in names]]}
                what = {"role": _const(role), "show": show, "then": _block(calls)}
                yield _object({"id": _const(f"s{number}"), "type": _const("approval"), **what})

    def maps(
        self, number: int, offers: Sequence[Offer], outputs: list[str]
    ) -> Iterator[dict[str, Any]]:
        """The same step for each item of a list."""
        lists = [*(name for name in self.kinds if self.kinds[name] in ("list", "any")), *outputs]
        if lists:
            steps = _block(self.calls(f"s{number}_item", offers, outputs, item=True))
            over = {"enum": [f"${name}" for name in lists]}
            yield _object(
                {"id": _const(f"s{number}"), "type": _const("map"), "over": over, "steps": steps}
            )

    def arguments(
        self, offer: Offer, names: Sequence[str], *, literals: bool
    ) -> dict[str, Any] | None:
        """The arguments of a call; None where one that is needed has nothing to take. Without
        *literals* only references are taken.
        """
        properties: dict[str, Any] = {}
        for name, schema in offer.arguments.items():
            members = self.argument(offer, name, schema, names, literals=literals)
            if members:
                properties[name] = {"anyOf": members} if len(members) > 1 else members[0]
            elif name in offer.required:
                return None
        if not properties and offer.about["arguments"].get("additionalProperties"):
            return self.guessed(names)
        closed = _object(properties)
        closed["required"] = [name for name in offer.required if name in properties]
        return self.shared(closed)

    def argument(
        self, offer: Offer, name: str, schema: Any, names: Sequence[str], *, literals: bool
    ) -> list[dict[str, Any]]:
        """What one argument takes: references, and what the model writes."""
        protected = offer.sources.get(name)
        sources = names if protected is None else protected
        fitting = [n for n in names if n in sources and _fits(self.kinds.get(n), schema)]
        members: list[dict[str, Any]] = (
            [self.shared({"enum": [f"${n}" for n in fitting]})] if fitting else []
        )
        if literals and (offer.literals or protected is None):
            members += self.literal(schema, names if protected is None else [])
        return members

    def guessed(self, names: Sequence[str]) -> dict[str, Any]:
        """Arguments of a tool that says nothing of them."""
        return self.shared(
            _object(dict.fromkeys(_GUESSED, self.text(names)), optional=len(_GUESSED))
        )

    def text(self, names: Sequence[str]) -> dict[str, Any]:
        """A string, with references in it."""
        return self.shared({"type": "string", "pattern": f"^{_CHAR}{{1,80}}{_inserted(names)}$"})

    def literal(self, schema: Any, names: Sequence[str], depth: int = 0) -> list[dict[str, Any]]:
        """What a value of *schema* may be written as; nothing for what is too involved to write."""
        kind = schema.get("type") if isinstance(schema, Mapping) else None
        if not isinstance(schema, Mapping) or depth > 3 or "$ref" in schema:
            return []
        if isinstance(members := schema.get("anyOf"), list):
            return [
                written for member in members for written in self.literal(member, names, depth + 1)
            ]
        if "const" in schema or isinstance(schema.get("enum"), list):
            choices = schema["enum"] if "enum" in schema else [schema["const"]]
            return [{"enum": [c.replace("$", "$$") if value_references(c) else c for c in choices]}]
        match kind:
            case "string" if schema.get("format") in ("date", "date-time", "time", "uuid"):
                return [{"type": "string", "format": schema["format"]}]
            case "string":
                return [self.text(names)]
            case "integer":
                bounds = {key: schema[key] for key in ("minimum", "maximum") if key in schema}
                return [
                    {"type": "integer", **(bounds or {"minimum": -999_999, "maximum": 999_999})}
                ]
            case "number" | "boolean" | "null":
                return [{"type": kind}]
            case "array":
                items = self.literal(schema.get("items", {}), names, depth + 1)
                return (
                    [{"type": "array", "items": {"anyOf": items}, "minItems": 1, "maxItems": 6}]
                    if items
                    else []
                )
            case "object":
                return []
        return [
            self.text(names),
            {"type": "boolean"},
            {"type": "integer", "minimum": -999_999, "maximum": 999_999},
        ]


def _fits(kind: str | None, schema: Any) -> bool:
    """Whether an input of *kind* may be what an argument takes; an output may be anything."""
    wanted = schema.get("type") if isinstance(schema, Mapping) else None
    if kind in (None, "any") or not isinstance(wanted, str):
        return True
    return kind in _FITTING.get(wanted, ())


_FITTING = {
    "string": ("text", "number", "boolean"),
    "integer": ("number", "text"),
    "number": ("number", "text"),
    "boolean": ("boolean",),
    "array": ("list",),
    "object": ("object",),
}


def _const(value: str) -> dict[str, Any]:
    return {"const": value}


def _ref(key: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{key}"}


def _object(properties: dict[str, Any], optional: int = 0) -> dict[str, Any]:
    """A closed object that needs all its fields but the last *optional* ones."""
    required = list(properties)[: len(properties) - optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _block(choices: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A list of one step."""
    return {"type": "array", "items": {"anyOf": list(choices)}, "minItems": 1, "maxItems": 1}


def _inserted(names: Sequence[str], *, needed: bool = False) -> str:
    """A pattern for references inside a string, with text behind them."""
    if not names:
        return ""
    reference = rf"\$\{{({'|'.join(map(_escaped, names))})\}}"
    return f"({reference}{_CHAR}{{0,60}}){{{int(needed)},2}}"


def _escaped(name: str) -> str:
    return name.replace(".", r"\.")


# --- what the model answered ----------------------------------------------------------------------

_DECODER = json.JSONDecoder()


def read_reply(text: str, *, cut: bool = False) -> dict[str, Any]:
    """The one JSON object in *text*; a fence or prose around it must hold no bracket of its own.
    Takes linear time.

    *cut* says that the model was stopped by its ``max_tokens``.

    Raises:
        ValueError: If there is none, more than one, or one that is malformed, broken off, or too
        large.
    """
    if len(text) > MAX_REPLY_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_REPLY_BYTES:
        raise ValueError(f"the reply has more than {MAX_REPLY_BYTES} bytes")
    if not text.strip():
        raise ValueError(
            "the reply is empty: max_tokens were used up before it" if cut else "the reply is empty"
        )
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    start = min(starts, default=-1)
    if start < 0:
        raise ValueError(f"the reply holds no JSON object: {short(text)}")
    if text[start] == "[":
        raise ValueError(
            f"the reply is to be one JSON object, and has a list or brackets first: "
            f"{short(text[start:])}"
        )
    try:
        _, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise ValueError("the reply is nested too deep") from None
    except json.JSONDecodeError as error:
        if cut or error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
            limit = "; it used up max_tokens" if cut else ""
            raise ValueError(
                f"the reply breaks off: its JSON object is not closed{limit}"
            ) from None
        raise ValueError(f"the reply is not JSON at character {error.pos}: {error.msg}") from None
    except ValueError as error:  # an integer that Python refuses to read
        raise ValueError(f"the reply is not JSON: {error}") from None
    if any(bracket in text[end:] for bracket in "{["):
        raise ValueError("the reply holds several JSON values, and it is to be one object")
    try:
        value, _ = admit(parse_json(text[start:end]))
    except (ValueError, VMError) as error:
        raise ValueError(f"the reply cannot be used: {error}") from None
    assert isinstance(value, dict)
    return value


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
