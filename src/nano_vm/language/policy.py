"""What the host allows: rules for tools, trust of inputs, values to check against, a budget.

Plain data or text comes in; a `Policy` goes out, or one `ProgramError` with every fault. What a
program must show for it is proved over its `Flow`, in `verify`; value checks are enforced by the
machine before the call.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from ..diagnostics import Diagnostic, Loc
from ..errors import ExprError, ProgramError, VMError
from ..given import path as given_path
from ..spelling import Hints
from ..values import admit, canonical, copied, kind_name, short
from .expr import Compare, Const, Items, Node, Ref, Template, children, parse_expr, references
from .fields import Part, free, remedy
from .reader import MAX_PROGRAM_BYTES, placed, read_text
from .secrecy import SILENT, LabelReader, Labels, Secrecy, ToolSecrecy

Count = Annotated[int, Field(strict=True, ge=1)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=366 * 24 * 3600)]

Effect = Literal["read", "idempotent", "write", "irreversible"]
EFFECTS: tuple[Effect, ...] = ("read", "idempotent", "write", "irreversible")
"""From the harmless to the final: a policy may only move a tool to the right."""

LOOSENED = "V057"
"""The code of a fault that is about the program's own policy, or about a tool's contract."""

Returns = Literal["trusted", "args"]
RETURNS: tuple[Returns, ...] = ("trusted", "args")
VALUE = "value"
"""The name of the argument's value in a value check."""


class Budget(Part):
    """Hard limits of a run; what is absent is not limited. ``max_seconds`` leaves approvals and
    waits out.

    Examples:
        >>> from nano_vm import Budget, ExecutionVM, Program
        >>> program = Program.from_yaml(
        ...     "steps: [{id: a, type: set, values: {x: 1}}, {id: b, type: set, values: {y: 2}}]"
        ... )
        >>> ExecutionVM(budget=Budget(max_steps=1)).run_sync(program).error_kind
        'budget'
    """

    max_steps: Count | None = None
    max_llm_calls: Annotated[int, Field(strict=True, ge=0)] | None = None
    max_tool_calls: Annotated[int, Field(strict=True, ge=0)] | None = None
    max_tokens: Annotated[int, Field(strict=True, ge=0)] | None = None
    max_cost_usd: Annotated[float, Field(strict=True, ge=0)] | None = None
    max_seconds: Seconds | None = None


def tightest(budgets: list[Budget]) -> Budget | None:
    """The minimum of each amount."""
    if not budgets:
        return None
    amounts = {}
    for name in Budget.model_fields:
        given = [getattr(b, name) for b in budgets if getattr(b, name) is not None]
        if given:
            amounts[name] = min(given)
    return Budget.model_construct(**amounts)


@dataclass(frozen=True, slots=True, eq=False)
class ArgRule:
    """What an argument's value must be, one of: trusted (where that is enough), shown to and
    approved by ``approval``, or such that ``check`` holds before the call; ``values`` are those of
    the policy that the check may name.
    """

    text: str
    trusted: bool = True
    check: Node | None = None
    approval: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    accepts: tuple[str, ...] = ()
    """Roles whose approval makes a value trusted: those that the same policy demands for the tool.
    """

    def reads(self) -> list[str]:
        """The inputs that the check reads, as the run was given them."""
        names = [ref.name for ref in references(self.check)] if self.check is not None else []
        return [name for name in dict.fromkeys(names) if name != VALUE and name not in self.values]


@dataclass(frozen=True, slots=True)
class Shown:
    """The value of an argument was shown to ``role``, who approved it: the tool must receive what
    was shown.
    """

    role: str

    @property
    def text(self) -> str:
        return f"as shown to {self.role}"


CallRule = ArgRule | Shown
"""What is held against the value of an argument immediately before its call."""


@dataclass(frozen=True, slots=True)
class ToolRule:
    """What a policy says of the tools that ``pattern`` names."""

    pattern: str
    allow: bool = True
    args: Mapping[str, ArgRule] = field(default_factory=dict)
    guarded_by: tuple[str, ...] = ()
    approval: str | None = None
    max_calls: int | None = None
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    effect: Effect | None = None
    returns: Returns | None = None
    secrecy: ToolSecrecy = SILENT

    @property
    def rank(self) -> tuple[bool, int]:
        """How closely the pattern names a tool: the closest decides whether it is allowed."""
        return "*" not in self.pattern, len(self.pattern)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a host allows, or what a program demands of itself. Immutable.

    ``untrusted`` names inputs whose values come from outside (``*`` all that are not named),
    ``trusted`` those that are not. A host's policy that names any must cover each input of a run.
    ``replaces`` are digests of policies: runs that were begun under one of them may go on under
    this one.

    Examples:
        >>> from nano_vm import ExecutionVM, Policy, Program
        >>> policy = Policy.from_dict({"tools": {"pay": {"max_calls": 1}}})
        >>> vm = ExecutionVM(tools={"pay": lambda: "paid"}, policy=policy)
        >>> once = Program.from_yaml("steps: [{id: a, type: tool, tool: pay}]")
        >>> print(vm.verify(once).proofs[0])
        proved: 'pay' is called at most once, attempts included
    """

    tools: tuple[ToolRule, ...] = ()
    untrusted: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    budget: Budget | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    replaces: tuple[str, ...] = ()
    models: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """By pattern of a model's name, the tags that whoever answers for it must have."""
    secrecy: Secrecy = field(default_factory=Secrecy)
    # as written, and its file
    text: tuple[str, str | None] | None = field(default=None, compare=False, repr=False)
    # where in `tools` a rule stands, by what its pattern is found by
    _places: dict[tuple[str, str], list[int]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    # --- loading ---

    @classmethod
    def from_dict(cls, data: Any) -> Policy:
        """A policy from plain data.

        Raises:
            ProgramError: With every fault.
        """
        policy, faults = read_policy(data)
        if policy is None or faults:
            raise ProgramError(faults)
        return policy

    @classmethod
    def from_yaml(cls, text: str, *, file: str | None = None) -> Policy:
        """A policy from YAML 1.2 text, which JSON is too; faults name line and column."""
        policy, faults = cls.readable(text, file=file)
        if policy is None or faults:
            raise ProgramError(faults)
        return policy

    @classmethod
    def readable(
        cls, text: str, *, file: str | None = None
    ) -> tuple[Policy | None, list[Diagnostic]]:
        """As `from_yaml` for those who look for faults: what can be read of *text*, and what is
        wrong with it.

        A policy that comes with faults lacks demands, and is good for finding more of them.
        """
        try:
            data = read_text(text, file=file, format="yaml")
        except ProgramError as error:
            return None, list(error.diagnostics)
        reader = _Reader(())
        policy = reader.policy(data)
        faults = placed(reader.faults, text, file) if reader.faults else []
        return (replace(policy, text=(text, file)) if policy is not None else None), faults

    @classmethod
    def from_file(cls, path: str | Path) -> Policy:
        """A policy from a YAML or JSON file.

        Raises:
            ProgramError: If it cannot be read or holds a faulty policy.
        """
        try:
            with given_path(path, "a policy's file").open("rb") as file:
                text = file.read(MAX_PROGRAM_BYTES + 1).decode("utf-8-sig")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ProgramError(
                [Diagnostic("P008", (), f"cannot read the policy: {reason}", file=str(path))]
            ) from None
        return cls.from_yaml(text, file=str(path))

    # --- views ---

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what was written, but for ``description`` and ``replaces``, which
        demand nothing.
        """
        demands = {
            name: value
            for name, value in self.source.items()
            if name not in ("description", "replaces")
        }
        return hashlib.sha256(canonical({"policy": demands})).hexdigest()

    def place(self, diagnostics: Iterable[Diagnostic], own: Policy | None) -> list[Diagnostic]:
        """*diagnostics* of a program for a host with this policy, those about it at their place in
        its own text.

        A place ``policy.…`` may be one of the program's *own* policy: it is in the one that holds
        more of the path.
        """
        result = []
        for d in diagnostics:
            if d.loc[:1] == ("policy",):
                here = _depth(self.source, d.loc[1:])
                there = _depth(own.source, d.loc[1:]) if own is not None else -1
                if here > there or (here == there and d.code != LOOSENED):
                    inner = d.loc[1:] if self.text is not None else d.loc
                    d = Diagnostic(d.code, inner, d.message, d.hint, d.severity)
                    (d,) = placed([d], *self.text) if self.text is not None else (d,)
            result.append(d)
        return result

    def to_dict(self) -> dict[str, Any]:
        """What was written, as plain data of its own."""
        return copied(dict(self.source))

    @property
    def names_inputs(self) -> bool:
        """Whether it says of inputs which are trusted: then it must say so of each, by name or by
        ``*``.
        """
        only_labels = bool(self.secrecy.inputs) and not (self.untrusted or self.trusted)
        named = "inputs" in self.source or bool(self.untrusted or self.trusted)
        return named and not only_labels

    @property
    def speaks_of_secrets(self) -> bool:
        """Whether it says of anything what may be known of it."""
        return self.secrecy.speaks or any(rule.secrecy.speaks for rule in self.tools)

    def matching(self, tool: str) -> list[ToolRule]:
        """The rules that name *tool*, the closest last."""
        if not self._places and self.tools:
            for number, rule in enumerate(self.tools):
                self._places.setdefault(_key(rule.pattern), []).append(number)
        keys = [(tool, ""), *((tool[:end], "*") for end in range(len(tool) + 1))]
        keys += [("", tool[start:]) for start in range(len(tool))]
        numbers = sorted({number for key in keys for number in self._places.get(key, ())})
        rules = [self.tools[number] for number in numbers]
        found = [r for r in rules if r.pattern == tool or fnmatchcase(tool, r.pattern)]
        return sorted(found, key=lambda rule: rule.rank)


_SPECIAL = re.compile(r"[*?\[]")


def _key(pattern: str) -> tuple[str, str]:
    """By what a pattern is found: the whole name, or what stands before its first special
    character, or else behind its last one.
    """
    parts = _SPECIAL.split(pattern)
    if len(parts) == 1:
        return pattern, ""
    if parts[0] or "]" in pattern or not parts[-1]:
        return parts[0], "*"
    return "", parts[-1]


def _depth(source: Any, loc: Loc) -> int:
    """How many parts of *loc* lead on in *source*."""
    for depth, part in enumerate(loc):
        if not isinstance(source, Mapping) or part not in source:
            return depth
        source = source[part]
    return len(loc)


def policy_of(policy: Any) -> Policy | None:
    """A policy from what a host may give: a `Policy`, a dict, a file's path.

    Raises:
        ProgramError: With every fault of it.
        VMError: If it is none of these.
    """
    if policy is None or isinstance(policy, Policy):
        return policy
    if isinstance(policy, Mapping):
        return Policy.from_dict(dict(policy))
    if isinstance(policy, (str, Path)):
        return Policy.from_file(policy)
    raise VMError(f"a policy is a Policy, a dict or the path of a file, not {kind_name(policy)}")


# --- reading --------------------------------------------------------------------------------------

_FIELDS = (
    "inputs",
    "tools",
    "models",
    "values",
    "budget",
    "secret",
    "roles",
    "events",
    "accepts",
    "implicit",
    "replaces",
    "version",
    "description",
)
_TOOL_FIELDS = (
    "allow",
    "args",
    "guarded_by",
    "approval",
    "max_calls",
    "after",
    "before",
    "effect",
    "returns",
    "declassifies",
    "reason",
)
_ARG_FIELDS = ("trusted", "check", "approval", "accepts")


def read_policy(data: Any, loc: Loc = ()) -> tuple[Policy | None, list[Diagnostic]]:
    """*data* as a policy, and its faults."""
    reader = _Reader(loc)
    policy = reader.policy(data)
    return (policy if not reader.faults else None), reader.faults


MAX_FAULTS = 1_000
"""Faults of one document that are listed: more than anybody mends before the next look."""


Word = TypeVar("Word", bound=str)


class _Reader:
    def __init__(self, loc: Loc) -> None:
        self.loc = loc
        self.faults: list[Diagnostic] = []
        self.hints = Hints()

    def add(self, code: str, loc: Loc, message: str, hint: str | None = None) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Diagnostic(code, (*self.loc, *loc), message, hint))

    def table(
        self, data: Any, loc: Loc, what: str, fields: tuple[str, ...] | None = None
    ) -> dict[str, Any]:
        """*data* as an object, without unknown fields; absent ones are absent."""
        if data is None:
            return {}
        if not isinstance(data, dict):
            self.add("P040", loc, f"{what} is an object, not {short(data)}")
            return {}
        known = fields if fields is not None else data.keys()
        for key in data:
            if key not in known and not free(key) and key != "metadata":
                self.add(
                    "P041",
                    (*loc, key),
                    f"{what} has no field {short(key)}",
                    remedy(key, known, "policy", self.hints),
                )
        for key in known if fields is not None else ():
            if key in data and data[key] is None:
                self.add(
                    "P044",
                    (*loc, key),
                    f"{key!r} of {what} says nothing",
                    "fill it in, or remove it",
                )
        return {
            key: value
            for key, value in data.items()
            if fields is None or (key in known and value is not None)
        }

    def policy(self, data: Any) -> Policy | None:
        try:
            data, _ = admit(data)
        except VMError as error:
            self.add("P004", (), str(error))
            return None
        if not isinstance(data, dict):
            self.add(
                "P040",
                (),
                f"a policy is an object, not {short(data)}",
                "write tools: {name: {...}}",
            )
            return None
        body = self.table(data, (), "a policy", _FIELDS)
        reader = LabelReader(self, body.get("secret"))
        inputs, labels = self.inputs(body.get("inputs"), reader)
        values = self.table(body.get("values"), ("values",), "'values'")
        if VALUE in values:
            self.add(
                "P043",
                ("values", VALUE),
                f"${VALUE} is the argument's own value",
                "choose another name",
            )
        names = frozenset(values) | {name for name, trust in inputs.items() if trust == "trusted"}
        tools = []
        for pattern, rule in self.table(body.get("tools"), ("tools",), "'tools'").items():
            tools.append(self.tool(pattern, rule, values, names, reader))
        self.opposed(tools)
        models, accepting = self.models(body.get("models"), reader)
        return Policy(
            tuple(tools),
            tuple(name for name, trust in inputs.items() if trust == "untrusted"),
            tuple(name for name, trust in inputs.items() if trust == "trusted"),
            values,
            self.budget(body.get("budget")),
            data,
            self.digests(body.get("replaces")),
            models,
            Secrecy(
                reader.declared,
                labels,
                accepting,
                reader.passing(body.get("roles"), ("roles",), "role", "releases"),
                reader.passing(body.get("events"), ("events",), "event", "returns"),
                reader.accepted(body.get("accepts"), ("accepts",)),
                reader.implicit(body.get("implicit")),
            ),
        )

    def inputs(self, data: Any, reader: LabelReader) -> tuple[dict[str, str], dict[str, Labels]]:
        """What is said of the trust of inputs, and of their labels."""
        trusts: dict[str, str] = {}
        labelled: dict[str, Labels] = {}
        for name, said in self.table(data, ("inputs",), "'inputs'").items():
            at: Loc = ("inputs", name)
            if "*" in name and name != "*":
                self.add(
                    "P045", at, f"{name!r} names no input", "write its name, or * for all others"
                )
            if type(said) is dict:
                both = self.table(said, at, "the rule of an input", _INPUT_FIELDS)
            else:
                both = {"secrecy" if reader.is_labels(said) else "trust": said}
            trust = both.get("trust")
            if trust in ("trusted", "untrusted"):
                trusts[name] = trust
            elif "trust" in both or not said:
                message = f"an input is trusted or untrusted, not {short(trust)}"
                self.add("P040", at, message, "its labels stand as {secrecy: [customer]}")
            labels = reader.labels(both["secrecy"], at) if "secrecy" in both else None
            if labels is not None:
                labelled[name] = labels
        return trusts, labelled

    def models(
        self, data: Any, reader: LabelReader
    ) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], dict[str, Labels]]:
        """What is demanded of models, by pattern, and what they accept."""
        demands = []
        accepting = {}
        for pattern, rule in self.table(data, ("models",), "'models'").items():
            at: Loc = ("models", pattern)
            body = self.table(rule, at, f"the rule of model {pattern!r}", ("tags", "accepts"))
            if "accepts" in body:
                labels = reader.labels(body["accepts"], (*at, "accepts"), any_of=True)
                accepting[pattern] = labels if labels is not None else ()
            tags = body.get("tags")
            if tags is None and "accepts" in body:
                continue
            if not isinstance(tags, list) or not tags or not all(type(t) is str for t in tags):
                hint = "write tags: [eu]"
                self.add("P040", at, f"'tags' are words, not {short(tags)}", hint)
                continue
            demands.append((pattern, tuple(tags)))
        return tuple(demands), accepting

    def budget(self, data: Any) -> Budget | None:
        body = self.table(data, ("budget",), "a budget", tuple(Budget.model_fields))
        try:
            return Budget.model_validate(body) if body else None
        except ValidationError as error:
            for item in error.errors(include_url=False):
                self.add(
                    "P040",
                    ("budget", *item["loc"]),
                    f"{item['msg'].lower()}, not {short(item['input'])}",
                )
            return None

    def tool(
        self,
        pattern: str,
        data: Any,
        values: dict[str, Any],
        names: frozenset[str],
        reader: LabelReader,
    ) -> ToolRule:
        at: Loc = ("tools", pattern)
        if data is None:
            self.add(
                "P044",
                at,
                f"the rule of {pattern!r} says nothing",
                "write {} to allow it without demands, or fill it in",
            )
        body = self.table(data, at, f"the rule of {pattern!r}", _TOOL_FIELDS)
        if not pattern or any(c in pattern for c in "?["):
            self.add(
                "P045",
                at,
                f"{pattern!r} names no tool",
                "write a tool's name; * stands for any characters",
            )
        allow = self.allow(pattern, body, at)
        args = self.arguments(body, at, values, names, reader)
        calls = self.calls(body, (*at, "max_calls"))
        approval = body.get("approval")
        if approval is not None:
            self.role(approval, (*at, "approval"))
        return ToolRule(
            pattern,
            allow,
            args,
            self.guards(body, (*at, "guarded_by")),
            approval,
            calls,
            self.texts(body.get("after"), (*at, "after")),
            self.texts(body.get("before"), (*at, "before")),
            self.choice(body.get("effect"), EFFECTS, (*at, "effect")),
            self.returns(body.get("returns"), (*at, "returns"), reader),
            reader.tool(body, at),
        )

    def allow(self, pattern: str, body: dict[str, Any], at: Loc) -> bool:
        allow = body.get("allow", True)
        if type(allow) is not bool:
            self.add("P040", (*at, "allow"), f"'allow' is true or false, not {short(allow)}")
        if allow is False and len(body) > 1:
            other = next(key for key in body if key != "allow")
            self.add(
                "P043",
                (*at, other),
                f"{pattern!r} is forbidden, and {other!r} says how it may be called",
                "keep one",
            )
        return allow is True

    def arguments(
        self,
        body: dict[str, Any],
        at: Loc,
        values: dict[str, Any],
        names: frozenset[str],
        reader: LabelReader,
    ) -> dict[str, ArgRule]:
        rules = self.table(body.get("args"), (*at, "args"), "'args'")
        args = {
            name: self.argument(rule, (*at, "args", name), values, names)
            for name, rule in rules.items()
            if not reader.is_labels(rule) and not (type(rule) is dict and [*rule] == ["accepts"])
        }
        for name in rules:
            if "*" in name and name != "*":
                self.add(
                    "P045",
                    (*at, "args", name),
                    f"{name!r} names no argument",
                    "write its name, or * for all",
                )
        return args

    def calls(self, body: dict[str, Any], loc: Loc) -> int | None:
        calls = body.get("max_calls")
        if calls is None or (type(calls) is int and calls >= 0):
            return calls
        self.add("P040", loc, f"'max_calls' is a whole number of at least 0, not {short(calls)}")
        return None

    def guards(self, body: dict[str, Any], loc: Loc) -> tuple[str, ...]:
        guards = self.texts(body.get("guarded_by"), loc)
        for guard in guards:
            if "." not in guard or guard.startswith(".") or guard.endswith("."):
                hint = "write step.then, step.otherwise, step.default or step.<case>"
                self.add("P046", loc, f"{guard!r} is no edge of a step", hint)
        return guards

    def role(self, value: Any, loc: Loc) -> bool:
        """Whether *value* is a role's name, and a fault if not."""
        named = type(value) is str and bool(value)
        if not named:
            self.add("P040", loc, f"'approval' is the name of a role, not {short(value)}")
        return named

    def returns(self, data: Any, loc: Loc, reader: LabelReader) -> Returns | None:
        """What a rule says of the trust of what a tool returns."""
        if type(data) is dict:
            data = self.table(data, loc, "'returns'", _INPUT_FIELDS).get("trust")
        elif reader.is_labels(data):
            return None
        return self.choice(data, RETURNS, loc)

    def choice(self, value: Any, known: tuple[Word, ...], loc: Loc) -> Word | None:
        for word in known:
            if value == word:
                return word
        if value is not None:
            self.add("P040", loc, f"{loc[-1]!r} is one of {', '.join(known)}, not {short(value)}")
        return None

    def texts(self, value: Any, loc: Loc) -> tuple[str, ...]:
        if value is None:
            return ()
        items = [value] if type(value) is str else value
        if (
            type(items) is not list
            or not items
            or not all(type(item) is str and item for item in items)
        ):
            self.add("P040", loc, f"{loc[-1]!r} is a list of names, not {short(value)}")
            return ()
        return tuple(dict.fromkeys(items))

    def digests(self, value: Any) -> tuple[str, ...]:
        digests = self.texts(value, ("replaces",))
        for digest in digests:
            if not _DIGEST.fullmatch(digest):
                hint = "write the 64 hexadecimal digits of a policy's digest"
                self.add("P040", ("replaces",), f"{short(digest)} is no digest of a policy", hint)
        return digests

    def argument(
        self, data: Any, loc: Loc, values: dict[str, Any], names: frozenset[str]
    ) -> ArgRule:
        hint = (
            "write trusted, 'trusted or <check>', a check like '$value in $payees', or {check: "
            "..., approval: role}"
        )
        if type(data) is dict:
            body = self.table(data, loc, "a rule of an argument", _ARG_FIELDS)
            trusted = body.get("trusted", True)
            approval = body.get("approval")
            if "approval" in body and not self.role(approval, (*loc, "approval")):
                return ArgRule("trusted")
            if type(trusted) is not bool or (
                not trusted and not body.keys() & {"check", "approval"}
            ):
                self.add("P040", loc, f"{short(data)} is no rule of an argument", hint)
                return ArgRule("trusted")
            parts = ["trusted"] if trusted else []
            parts += [f"approved by {body['approval']}"] if "approval" in body else []
            parts += [str(body["check"])] if "check" in body else []
            check = self.check(body["check"], loc, values, names) if "check" in body else None
            return ArgRule(" or ".join(parts), trusted, check, body.get("approval"), values)
        if type(data) is not str or not data.strip():
            self.add("P040", loc, f"{short(data)} is no rule of an argument", hint)
            return ArgRule("trusted")
        text = data.strip()
        if text == "trusted":
            return ArgRule(text)
        trusted = text.startswith("trusted or ")
        return ArgRule(
            text,
            trusted,
            self.check(text.removeprefix("trusted or "), loc, values, names),
            None,
            values,
        )

    def check(
        self, text: Any, loc: Loc, values: dict[str, Any], names: frozenset[str]
    ) -> Node | None:
        """A value check: an expression over $value, the policy's values, and inputs that it calls
        trusted.
        """
        try:
            if type(text) is not str:
                raise ExprError(f"a check is a string, not {short(text)}")
            node = parse_expr(text)
        except ExprError as error:
            self.add("P042", loc, str(error), "write a check like '$value in $payees'")
            return None
        if isinstance(node, (Const, Ref, Template, Items)):
            self.add(
                "P042",
                loc,
                f"the check {text!r} compares nothing",
                "compare the argument: $value in $payees",
            )
        for ref in references(node):
            if ref.name != VALUE and ref.name not in names:
                near = self.hints.nearest(ref.name, (VALUE,), sorted(names))
                hint = (
                    f"did you mean '${near}'?"
                    if near
                    else "declare it under 'values', or as a trusted input"
                )
                self.add(
                    "P042", loc, f"a check reads ${ref.name}, which is no value of the policy", hint
                )
        if not any(ref.name == VALUE for ref in references(node)):
            self.add(
                "P042",
                loc,
                f"the check {text!r} does not look at ${VALUE}",
                "compare the argument: $value in $payees",
            )
        for box in boxes(node):
            fault = _no_list(box, values)
            if fault is not None:
                self.add(
                    "P042", loc, f"{fault}, and 'in' of a check takes a list", "make it a list"
                )
        return node

    def opposed(self, tools: list[ToolRule]) -> None:
        """Orders that no run can keep."""
        first = {(rule.pattern, name) for rule in tools for name in rule.before}
        first |= {(name, rule.pattern) for rule in tools for name in rule.after}
        for a, b in sorted(first):
            if a < b and (b, a) in first:
                self.add(
                    "P043",
                    ("tools", a),
                    f"{a!r} must come before {b!r}, and {b!r} before {a!r}",
                    "remove one",
                )
            if a == b:
                self.add("P043", ("tools", a), f"{a!r} must come before itself", "remove it")


_INPUT_FIELDS = ("trust", "secrecy")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def boxes(node: Node) -> Iterator[Node]:
    """What stands right of each ``in`` and ``not in``."""
    if isinstance(node, Compare):
        yield from (operand for op, operand in node.rest if op in ("in", "not in"))
    for child in children(node):
        yield from boxes(child)


def _no_list(box: Node, values: Mapping[str, Any]) -> str | None:
    """Why *box* is surely no list; one that an input gives is looked at when it is there."""
    match box:
        case Items():
            return None
        case Const(value):
            return None if type(value) is list else f"{short(value)} is no list"
        case (
            Ref(name=name, path=path) | Template(parts=(Ref(name=name, path=path),), typed=True)
        ) if name != VALUE:
            return (
                None
                if name not in values or path or type(values[name]) is list
                else f"${name} is no list"
            )
    return "what stands right of 'in' is neither a name nor a list"
