"""Random programs, as documents. A generator of numbers comes in, plain data goes out.

The programs are drawn from the language as it is written down; nothing here knows how the package
lowers or checks them. Most are valid, all step types occur, and calls of the protected tool ``pay``
mostly stand behind some decision, so that what a policy says of them is neither trivially true nor
trivially false.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal

from nano_vm import tool

YES_NO = ["yes", "no"]
KINDS = ["a", "b", "c"]
WORDS = [*YES_NO, *KINDS]
ROLES = ("boss", "clerk")
RETRIED = (
    ["tool"], ["timeout"], ["Oops"], ["truncated"], ["filtered"], ["rate_limit"], ["limit"], ["assertion"],
    ["filtered", "truncated"], ["rate_limit", "timeout"],
)  # fmt: skip
"""What `retry.on` names: the kinds of failed calls, answers that are none, and a class of
exceptions.
"""

# What a value may be, for those who write conditions on it: yes (yes or no), kind (a, b, c), bool,
# num, list, any.
Ref = tuple[str, str]


@tool(effect="irreversible")
def pay(to: Any = None, amount: Any = None) -> Any: ...


@tool(effect="write")
def mail(to: Any = None, text: Any = None) -> Any: ...


@tool(effect="read")
def fetch(q: Any = None) -> Any: ...


@tool(effect="read")
def look(q: Any = None) -> bool: ...


@tool(effect="read")
def sort(q: Any = None) -> Literal["a", "b", "c"]: ...


@tool(effect="idempotent")
def keep(v: Any = None) -> Any: ...


@tool(effect="write")
def keyed(v: Any = None, idempotency_key: str = "") -> Any: ...


@tool(effect="read", returns="args")
def join(v: Any = None, w: Any = None) -> Any: ...


TOOLS: dict[str, Callable[..., Any]] = {
    "pay": pay, "mail": mail, "fetch": fetch, "look": look, "sort": sort, "keep": keep, "keyed": keyed, "join": join,
}  # fmt: skip
PARAMETERS = {
    "pay": ["to", "amount"], "mail": ["to", "text"], "fetch": ["q"], "look": ["q"], "sort": ["q"], "keep": ["v"],
    "keyed": ["v"], "join": ["v", "w"],
}  # fmt: skip
RESULTS = {"look": "bool", "sort": "kind"}
UNSAFE = frozenset({"pay", "mail", "keyed"})


@dataclass(frozen=True)
class Style:
    """How often things occur in one program; drawn once for each, so that programs differ in
    kind.
    """

    forks: float = 1.0
    jumps: float = 0.4
    handlers: float = 0.15
    pauses: float = 0.0
    undo: float = 0.1
    overwrites: float = 0.2
    loose: float = 0.15  # calls of the protected tool outside of any decision
    when: float = 0.08  # steps that decide themselves whether they run
    told: float = 0.2  # steps that fail, are gone on from, and whose error is read; items likewise
    wild: float = 0.1  # conditions that may err
    # the protected tool stands mostly where an approval has shown its arguments
    shown_only: bool = False
    gates: bool = False  # little beside decisions, what they read, and what they guard
    dense: bool = False  # more blocks, fewer plain steps, names used again

    @classmethod
    def drawn(cls, rng: Random, pauses: bool) -> Style:
        style = cls.kind(rng, pauses)
        return replace(style, when=rng.choice((0.0, 0.08, 0.25)), told=rng.choice((0.0, 0.2, 0.5)))

    @classmethod
    def kind(cls, rng: Random, pauses: bool) -> Style:
        if pauses and rng.random() < 0.5:
            return cls(
                0.5,
                rng.choice((0.0, 0.3)),
                rng.choice((0.0, 0.1)),
                3.0,
                0.05,
                rng.choice((0.0, 0.3)),
                shown_only=True,
            )
        if rng.random() < 0.35:
            undo = rng.choice((0.0, 0.0, 0.4))
            pause = 1.0 if pauses else 0.0
            return cls(
                1.0,
                rng.choice((0.0, 0.3)),
                rng.choice((0.0, 0.2, 0.5)),
                pause,
                undo,
                0.5,
                0.08,
                0.0,
                gates=True,
            )
        if rng.random() < 0.3:  # dense: little beside what is hard to get right
            return cls(
                3.0,
                rng.choice((0.0, 0.5)),
                0.3,
                1.5 if pauses else 0.0,
                rng.choice((0.0, 0.6)),
                0.5,
                0.3,
                0.1,
                True,
            )
        return cls(
            rng.choice((0.0, 0.5, 1.0, 2.0)),
            rng.choice((0.0, 0.2, 0.6)),
            rng.choice((0.0, 0.1, 0.35)),
            rng.choice((0.0, 0.5, 1.5)) if pauses else 0.0,
            rng.choice((0.0, 0.0, 0.25)),
            rng.choice((0.0, 0.1, 0.4)),
            rng.choice((0.0, 0.05, 0.3)),
            rng.choice((0.0, 0.0, 0.3)),
        )


@dataclass
class Place:
    """Where a step is to stand: what can be read there, where jumps may go, what decisions are
    around it.
    """

    refs: list[Ref]
    later: tuple[str, ...] = ()
    guarded: bool = False
    shown: tuple[str, ...] = ()  # templates that an approval around has shown
    decided: tuple[str, ...] = ()  # conditions around, which may be asked again
    depth: int = 0
    branch: bool = False  # inside a branch of `parallel`, where outer names are not overwritten
    # ids that should become calls of the protected tool
    taken: list[str] = field(default_factory=list)


class Maker:
    """Draws one program; called programs have makers of their own."""

    def __init__(self, rng: Random, style: Style, size: int, depth: int = 0) -> None:
        self.rng, self.style, self.left, self.depth = rng, style, size, depth
        self.steps = self.keys = 0
        self.budgeted: dict[str, Any] = {}

    # --- small things ---

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def new_id(self) -> str:
        self.steps += 1
        return f"s{self.steps}"

    def new_key(self) -> str:
        self.keys += 1
        return f"k{self.keys}"

    def literal(self, kind: str = "any") -> Any:
        rng = self.rng
        match kind:
            case "yes":
                return rng.choice(YES_NO)
            case "kind":
                return rng.choice(KINDS)
            case "bool":
                return rng.choice((True, False))
            case "num":
                return rng.randrange(4)
            case "list":
                return [self.literal(rng.choice(("yes", "num"))) for _ in range(rng.randrange(4))]
        return rng.choice((True, False, 0, 1, 2, 3, *WORDS, None))

    def ref(self, at: Place, *kinds: str) -> Ref | None:
        fitting = [ref for ref in at.refs if not kinds or ref[1] in kinds]
        if not fitting:
            return None
        # what was written last is mostly what is looked at
        if self.style.gates:  # decision, call and write look at the same names
            keys = [ref for ref in fitting if "." not in ref[0]]
            fitting = keys[-2:] or fitting
        return fitting[-1 - min(int(self.rng.expovariate(0.5)), len(fitting) - 1)]

    def value(self, at: Place) -> Any:
        """A template: a reference, a string or a list with one in it, an expression, or a literal."""
        ref = self.ref(at)
        if ref is None or self.chance(0.2):
            return self.literal()
        match self.rng.randrange(7):
            case 6:
                other = json.dumps(self.literal())
                forms = (
                    f"default(${ref[0]}, {other})",
                    f"append([{other}], ${ref[0]})",
                    f"get([${ref[0]}], 0, {other})",
                )
                return {"expr": self.rng.choice(forms)}
            case 0:
                return f"about ${{{ref[0]}}}"
            case 1:
                return [f"${ref[0]}", self.literal()]
            case 2:
                return {"v": f"${ref[0]}"}
        return f"${ref[0]}"

    def condition(self, at: Place, depth: int = 0) -> str:
        rng = self.rng
        if depth == 0 and self.chance(0.15):
            joined = f" {rng.choice(('and', 'or'))} "
            return joined.join(f"({self.condition(at, 1)})" for _ in range(2))
        if at.decided and self.chance(0.2):
            again = rng.choice(at.decided)
            return again if self.chance(0.6) else f"not ({again})"
        if depth == 0 and self.chance(0.04):
            return rng.choice(("true", "1 > 2", "'a' == 'a'", "not true"))
        ref = self.ref(at)
        if ref is None:
            return rng.choice(("true", "false", "1 < 2"))
        name, kind = ref
        if self.chance(self.style.wild):
            return rng.choice(
                (f"${name}", f"${name} > 1", f"not ${name}", f"${name}.lower() == 'yes'")
            )
        if kind in ("yes", "kind", "bool", "label") and self.chance(0.2):
            kind = rng.choice(("yes", "kind", "num"))  # a comparison that never matches, or always
            if kind == "num":
                return f"${name} {rng.choice(('==', '!='))} 7"
        match kind:
            case "yes":
                return rng.choice(
                    (
                        f'${name} == "yes"',
                        f"'yes' in '${{{name}}}'",
                        f'${name} != "no"',
                        f"${name} in ['yes']",
                    )
                )
            case "kind":
                word = rng.choice(KINDS)
                return rng.choice(
                    (f"${name} == '{word}'", f"${name} != '{word}'", f"${name} in ['a', 'b']")
                )
            case "bool":
                return rng.choice((f"${name}", f"not ${name}", f"${name} == true"))
            case "num":
                return f"${name} {rng.choice(('>', '<', '==', '!=', '<='))} {rng.randrange(4)}"
            case "list":
                return rng.choice((f"len(${name}) > 1", f"'yes' in ${name}", f"${name} == []"))
            case "fault":
                fault = rng.choice(("tool", "timeout", "value"))
                return rng.choice(
                    (f"${name} == '{fault}'", f"default(${name}, 'none') != '{fault}'")
                )
        return (
            f"${name} {rng.choice(('==', '!='))} "
            f"{rng.choice(('true', '1', repr(rng.choice(WORDS))))}"
        )

    # --- blocks ---

    def block(self, at: Place, most: int = 4, key_ok: bool = True) -> list[dict[str, Any]]:
        """Steps in order; `at.refs` grows with what they write."""
        count = max(1, min(self.left, self.rng.randint(1, most)))
        ids = [self.new_id() for _ in range(count)]
        self.left -= count
        outer = at.later
        steps = []
        for i, step_id in enumerate(ids):
            at.later = (*ids[i + 1 :], *outer)
            steps.append(self.step(step_id, at))
        at.later = outer
        return steps

    def inner(self, at: Place, **changes: Any) -> Place:
        return replace(at, refs=list(at.refs), depth=at.depth + 1, **changes)

    def after_block(self, at: Place, inner: Place) -> None:
        """What a block wrote may be read after it, on paths that went through it."""
        new = [ref for ref in inner.refs if ref not in at.refs]
        at.refs += [ref for ref in new if self.chance(0.3)]

    def target(self, at: Place, others: tuple[str, ...] = ("$end", "$fail", "$next")) -> str:
        if at.later and self.chance(0.75):
            chosen = self.rng.choice(at.later[:4])
            return chosen
        return self.rng.choice(others)

    # --- steps ---

    def step(self, step_id: str, at: Place) -> dict[str, Any]:
        """One step; what decides whether it runs is drawn before it, of what is there by then."""
        when = self.condition(at) if self.chance(self.style.when) else None
        if when is None:
            return self.unguarded(step_id, at)
        outer = at.guarded, at.decided
        at.guarded, at.decided = True, (*at.decided, when) if len(when) < 200 else at.decided
        step = self.unguarded(step_id, at)
        at.guarded, at.decided = outer
        step["when"] = when
        if "output_key" in step and self.chance(0.3):  # looked at before it is written, or cleared
            step["when"] = (
                f"${step['output_key']} != {self.literal('yes')!r}" if self.chance(0.5) else when
            )
        if step["type"] != "switch" and "default" not in step and self.chance(0.6):
            step["default"] = self.literal()
        return step

    def unguarded(self, step_id: str, at: Place) -> dict[str, Any]:
        rng, style = self.rng, self.style
        deep = at.depth >= 3 or self.left <= 0
        protected = 0.5 if at.guarded else style.loose
        if style.shown_only:
            protected = 0.6 if at.shown else 0.02
        if step_id in at.taken or self.chance(protected):
            return self.tool(step_id, at, "pay")
        plain, again = (0.4, 2.0) if style.dense or style.gates else (1.0, 0.7)
        weights = {
            self.llm: 2.0 * plain,
            self.tool: 2.5 * plain,
            self.set: 1.0,
            self.demand: 0.5,
            self.failing: 0.2,
            self.two_ways: 0.0 if deep else 4.0 if style.gates else 2.5,
            self.switch: 0.0 if deep else 0.8,
            self.loop: 0.0 if deep else again,
            self.parallel: 0.0 if deep else 0.6 * style.forks,
            self.map: 0.0 if deep else 0.5 * style.forks,
            self.call: 0.0 if deep or self.depth >= 2 else 0.5 * style.forks,
            self.approval: 0.0 if deep else style.pauses,
            self.wait: 0.3 * style.pauses,
        }
        make: Any = rng.choices(list(weights), list(weights.values()))[0]
        step: dict[str, Any] = make(step_id, at)
        return step

    def common(
        self, step: dict[str, Any], at: Place, kind: str = "any", *, calls: bool = False
    ) -> dict[str, Any]:
        """What any step may have: an output key, handlers, a next."""
        rng, style = self.rng, self.style
        base = step["type"]
        if (
            base not in ("condition", "switch")
            and self.chance(0.05 * style.jumps / 0.4)
            and at.later
        ):
            step["next"] = self.target(at, ("$end",))
        if self.chance(style.handlers) and (at.later or self.chance(0.3)):
            errors = rng.choice(
                (["*"], ["tool"], ["timeout"], ["value"], ["invalid_answer", "model"], ["limit"])
            )
            step["catch"] = [{"errors": errors, "next": self.target(at, ("$end", "$fail"))}]
        if self.chance(style.handlers):
            step["on_error"] = "skip"
            if base != "switch" and self.chance(0.5):
                step["default"] = self.literal(kind)
        if ("catch" in step or "on_error" in step) and self.chance(style.told):
            at.refs += [(f"{step['id']}.error", "any"), (f"{step['id']}.error.kind", "fault")]
        if calls and self.chance(0.25):
            step["max_retries"] = rng.randint(1, 3)
            step["retry"] = {"delay_seconds": 0}
            if self.chance(0.3):
                step["retry"]["on"] = rng.choice(RETRIED)
        elif calls and self.chance(0.05) and "on_error" not in step:
            step["on_error"] = "retry"
            step["retry"] = {"delay_seconds": 0}
        if self.chance((0.9 if style.gates else 0.5) if base in ("llm", "tool") else 0.12):
            olds = [
                r
                for r in at.refs
                if (r[1] == kind or style.gates) and "." not in r[0] and r[0] != "item"
            ]
            if olds and not at.branch and self.chance(style.overwrites):
                step["output_key"] = rng.choice(olds)[0]
                at.refs[:] = [r for r in at.refs if r[0] != step["output_key"]]
            else:
                step["output_key"] = self.new_key()
            at.refs.append((step["output_key"], kind))
        at.refs.append((f"{step['id']}.output", kind))
        return step

    def llm(self, step_id: str, at: Place) -> dict[str, Any]:
        rng = self.rng
        ref = self.ref(at)
        step: dict[str, Any] = {
            "id": step_id,
            "type": "llm",
            "prompt": f"say: ${{{ref[0]}}}" if ref else "say",
        }
        if self.chance(0.2):
            other = self.ref(at)
            step["system"] = f"you are ${{{other[0]}}}" if other else "you"
        kind = "any"
        form = rng.randrange(4)
        if form < 2:
            words, kind = rng.choice(((YES_NO, "yes"), (KINDS, "kind")))
            step["allowed_outputs"] = list(words)
        elif form == 2:
            step["output_schema"] = {
                "type": "object",
                "properties": {
                    "ok": {"type": "boolean"},
                    "kind": {"enum": list(KINDS)},
                    "n": {"type": "integer"},
                    "text": {"type": "string"},
                },
                "required": ["ok", "kind", "n", "text"],
                "additionalProperties": False,
            }
        if form < 3 and self.chance(0.2):
            # what the machine takes unasked for; mostly of the right kind
            step["on_invalid"] = (
                self.literal(kind)
                if form < 2
                else {"ok": self.literal("bool"), "kind": "a", "n": 1, "text": "x"}
            )
        if self.chance(0.3):
            step["max_tokens"] = rng.choice((1, 16, 200))
        if self.chance(0.1):
            step["model"] = rng.choice(("big", "small"))
        self.common(step, at, kind, calls=True)
        if form == 2:
            at.refs.pop()
            names = [f"{step_id}.output"] + ([step["output_key"]] if "output_key" in step else [])
            at.refs = [r for r in at.refs if r[0] not in names]
            for name in names:
                at.refs += [
                    (f"{name}.ok", "bool"),
                    (f"{name}.kind", "kind"),
                    (f"{name}.n", "num"),
                    (f"{name}.text", "any"),
                ]
        return step

    def tool(self, step_id: str, at: Place, name: str | None = None) -> dict[str, Any]:
        rng, style = self.rng, self.style
        name = name or rng.choice(
            ("mail", "fetch", "fetch", "fetch", "look", "look", "sort", "keep", "keyed", "join")
        )
        step: dict[str, Any] = {
            "id": step_id,
            "type": "tool",
            "tool": name,
            "args": self.args(name, at),
        }
        kind = RESULTS.get(name, "any")
        if name == "fetch" and self.chance(0.2):
            kind = "list"  # what it gives is looped over; it may be no list, and then the map fails
        self.common(step, at, kind, calls=True)
        if name in UNSAFE or self.chance(0.2):
            if self.chance(style.undo):
                undo = rng.choice(("mail", "keep", "keep", "pay"))
                step["undo"] = {"tool": undo, "args": self.args(undo, at)}
            if self.chance(style.undo):
                ask = rng.choice(("fetch", "fetch", "fetch", "pay"))
                step["reconcile"] = {"tool": ask, "args": self.args(ask, at)}
        return step

    def args(self, name: str, at: Place) -> dict[str, Any]:
        args = {}
        for parameter in PARAMETERS[name]:
            if at.shown and name == "pay" and self.chance(0.85):
                args[parameter] = self.rng.choice(at.shown)
                if self.style.shown_only and self.chance(0.7):
                    at.shown = ()  # one decision, one call
                    break
            elif at.shown and name == "pay" and self.chance(0.5):
                continue
            elif self.chance(0.8):
                args[parameter] = self.value(at)
        return args

    def set(self, step_id: str, at: Place) -> dict[str, Any]:
        rng = self.rng
        values: dict[str, Any] = {}
        written: list[Ref] = []
        for _ in range(rng.choice((1, 1, 2))):
            kind = rng.choice(("yes", "kind", "bool", "num", "list"))
            olds = [r for r in at.refs if "." not in r[0] and r[0] != "item"]
            if olds and not at.branch and self.chance(self.style.overwrites * 1.5):
                name, kind = rng.choice(olds)
            else:
                name = self.new_key()
            number = self.ref(at, "num")
            same = self.ref(at, kind)
            if kind == "num" and number and self.chance(0.4):
                values[name] = {"expr": f"${number[0]} + 1"}
            elif kind == "bool" and self.chance(0.4):
                values[name] = {"expr": self.condition(at)}
            elif same and self.chance(0.4):
                values[name] = f"${same[0]}"
            else:
                values[name] = self.literal(kind)
            written.append((name, kind))
        step = self.common({"id": step_id, "type": "set", "values": values}, at)
        at.refs.pop()  # an object: read by key
        if "output_key" in step:
            at.refs = [r for r in at.refs if r[0] != step["output_key"]]
        at.refs += written
        return step

    def demand(self, step_id: str, at: Place) -> dict[str, Any]:
        """An assertion: mostly of what was decided already, so that programs get past it."""
        text = (
            self.rng.choice(at.decided) if at.decided and self.chance(0.5) else self.condition(at)
        )
        ref = self.ref(at)
        said = f"not so: ${{{ref[0]}}}" if ref and self.chance(0.5) else "not so"
        demanded = {"id": step_id, "type": "assert", "condition": text, "message": said}
        step = self.common(demanded, at, "bool")
        for name in ("on_error", "default"):
            step.pop(name, None)
        if "catch" in step and self.chance(0.5):
            step["catch"][0]["errors"] = ["assertion"]
        return step

    def failing(self, step_id: str, at: Place) -> dict[str, Any]:
        """The end of the frame, mostly where a condition says so."""
        ref = self.ref(at)
        said = f"it is ${{{ref[0]}}}" if ref and self.chance(0.5) else "it is over"
        step = {"id": step_id, "type": "fail", "error": self.rng.choice(("Over", "Oops"))}
        step |= {"message": said}
        if self.chance(0.8):
            step["when"] = self.condition(at)
        return step

    def two_ways(self, step_id: str, at: Place) -> dict[str, Any]:
        text = self.condition(at)
        step: dict[str, Any] = {"id": step_id, "type": "condition", "condition": text}
        outer = at.decided
        at.decided = (*outer, text) if len(text) < 200 else outer
        self.branches(step, at, ("then", "otherwise"))
        at.decided = outer
        return self.common(step, at, "label")

    def branches(
        self, step: dict[str, Any], at: Place, names: tuple[str, str], shown: tuple[str, ...] = ()
    ) -> None:
        """The two targets of a condition or approval, in either form."""
        first, second = names
        jumps = self.chance(self.style.jumps)
        if jumps:
            step[first] = self.target(at)
            if not step[first].startswith("$") and self.chance(0.7):
                at.taken = [*at.taken, step[first]]
                if shown:
                    at.shown = shown
            if self.chance(0.75):
                step[second] = self.target(at)
            elif self.chance(0.3):
                inside = self.inner(at)
                step[second] = self.block(inside, 2)
                self.after_block(at, inside)
        else:
            inside = self.inner(at, guarded=True, shown=shown or at.shown)
            step[first] = self.block(inside, 3)
            self.after_block(at, inside)
            if self.chance(0.35):
                other = self.inner(at)
                step[second] = self.block(other, 2)
                self.after_block(at, other)
            elif self.chance(0.3):
                step[second] = self.target(at)

    def switch(self, step_id: str, at: Place) -> dict[str, Any]:
        rng = self.rng
        ref = self.ref(at, "yes", "kind", "bool", "num", "any")
        name, kind = ref or ("", "yes")
        pool = {
            "yes": YES_NO,
            "kind": KINDS,
            "bool": ["true", "false"],
            "num": ["0", "1", "2"],
        }.get(kind, WORDS)
        step: dict[str, Any] = {"id": step_id, "type": "switch", "on": f"${name}" if ref else "yes"}
        cases: dict[str, Any] = {}
        for word in rng.sample(pool, rng.randint(1, len(pool))):
            if self.chance(self.style.jumps):
                cases[word] = self.target(at)
            else:
                inside = self.inner(at, guarded=True)
                cases[word] = self.block(inside, 2)
                self.after_block(at, inside)
        step["cases"] = cases
        if self.chance(0.6):
            if self.chance(0.5):
                step["default"] = self.target(at)
            else:
                inside = self.inner(at)
                step["default"] = self.block(inside, 2)
                self.after_block(at, inside)
        return self.common(step, at, "label")

    def loop(self, step_id: str, at: Place) -> dict[str, Any]:
        inside = self.inner(at)
        step: dict[str, Any] = {
            "id": step_id,
            "type": "loop",
            "max_iterations": self.rng.randint(1, 3),
        }
        if self.chance(0.05):
            inside.refs.append((f"{step_id}.output", "any"))  # not there before the loop has ended
        step["steps"] = self.block(inside, 3)
        at.refs = inside.refs  # the body runs at least once
        if self.chance(0.75):
            step["until"] = self.condition(at)
        if "until" not in step or self.chance(0.5):
            step["on_exhausted"] = "continue"
        return self.common(step, at)

    def parallel(self, step_id: str, at: Place) -> dict[str, Any]:
        branches: list[Any] = []
        count = self.rng.randint(1, 3)
        for number in range(count):
            # two branches that write one name are an error, so one alone may write outer names
            inside = self.inner(at, later=(), branch=number > 0 or not self.style.gates)
            steps = self.block(inside, 3)
            branches.append(steps[0] if len(steps) == 1 and self.chance(0.7) else steps)
        step = {"id": step_id, "type": "parallel", "parallel_steps": branches}
        self.common(step, at, "object")
        self.goes_on(step, at)
        at.refs = [r for r in at.refs if r[1] != "object"]
        first = branches[0]["id"] if isinstance(branches[0], dict) else branches[0][0]["id"]
        at.refs.append((f"{step_id}.output.{first}", "any"))
        return step

    def map(self, step_id: str, at: Place) -> dict[str, Any]:
        rng = self.rng
        ref = self.ref(at, "list")
        over = f"${ref[0]}" if ref and self.chance(0.7) else self.literal("list")
        gates = self.style.gates
        if gates and self.chance(0.5):
            over = [self.literal("yes")]
        inside = self.inner(at, later=(), branch=not gates)
        step: dict[str, Any] = {
            "id": step_id,
            "type": "map",
            "over": over,
            "max_items": rng.choice((1, 2, 3, 3, 5)),
        }
        name = "item"
        if self.chance(0.6 if gates else 0.3):
            olds = [r[0] for r in at.refs if "." not in r[0]]
            name = (
                rng.choice(olds[-3:])
                if olds and self.chance(0.8 if gates else 0.4)
                else self.new_key()
            )
            step["as"] = name
        inside.refs = [r for r in inside.refs if r[0] != name] + [(name, "any")]
        step["steps"] = self.block(inside, 3)
        self.common(step, at, "list")
        self.goes_on(step, at)
        return step

    def goes_on(self, step: dict[str, Any], at: Place) -> None:
        """A fork that goes on after a failed branch or item, and what failed."""
        if self.chance(self.style.told):
            step["on_item_error"] = "continue"
            at.refs.append((f"{step['id']}.errors", "list"))

    def call(self, step_id: str, at: Place) -> dict[str, Any]:
        rng = self.rng
        inner = Maker(rng, self.style, max(2, min(self.left, rng.randint(2, 6))), self.depth + 1)
        inputs = [(f"p{i + 1}", "any") for i in range(rng.randrange(3))]
        arguments = {}
        for i, (name, _) in enumerate(inputs):
            ref = self.ref(at)
            if ref is not None and self.chance(0.8):
                arguments[name] = f"${ref[0]}"
                inputs[i] = (name, ref[1])
            else:
                arguments[name] = self.literal()
        program: dict[str, Any] = {"name": f"called {step_id}"}
        if inputs and self.chance(0.5):
            program["inputs"] = {
                "type": "object",
                "properties": {name: {} for name, _ in inputs},
                "required": [name for name, _ in inputs],
            }
        place = Place(list(inputs), guarded=at.guarded and self.chance(0.5), shown=())
        program["steps"] = inner.block(place, 4)
        self.left -= inner.steps
        # what nothing reads is no input of a program that declares none
        if "inputs" not in program:
            text = str(program["steps"])
            arguments = {
                name: value
                for name, value in arguments.items()
                if f"${name}" in text or f"${{{name}" in text
            }
        if self.chance(0.4):
            ref = inner.ref(place)
            if ref is not None:
                program["output"] = f"${ref[0]}"
        if self.chance(0.15):
            program["budget"] = {
                rng.choice(("max_steps", "max_tool_calls", "max_llm_calls")): rng.randint(1, 4)
            }
        step: dict[str, Any] = {"id": step_id, "type": "call", "program": program}
        if arguments:
            step["with"] = arguments
        return self.common(step, at)

    def approval(self, step_id: str, at: Place) -> dict[str, Any]:
        rng = self.rng
        shown = tuple(
            value
            for value in (self.value(at) for _ in range(rng.randint(1, 2)))
            if type(value) is str
        )
        step: dict[str, Any] = {
            "id": step_id,
            "type": "approval",
            "role": rng.choice((*ROLES, "boss")),
        }
        if self.chance(0.3):
            step["timeout_seconds"] = 5
        if shown:
            step["show"] = {f"v{i}": value for i, value in enumerate(shown)}
        if self.chance(0.75):
            self.branches(step, at, ("then", "otherwise"), shown)
        else:
            at.shown = shown
            at.guarded = True
        return self.common(step, at)

    def wait(self, step_id: str, at: Place) -> dict[str, Any]:
        step: dict[str, Any] = {"id": step_id, "type": "wait"}
        step.update(
            self.rng.choice(
                ({"seconds": 1}, {"event": "paid"}, {"event": "paid", "timeout_seconds": 5})
            )
        )
        return self.common(step, at)


INPUTS: list[tuple[str, str, dict[str, Any]]] = [
    ("i1", "yes", {"enum": YES_NO}),
    ("i2", "bool", {"type": "boolean"}),
    ("i3", "any", {}),
    ("i4", "list", {"type": "array"}),
    ("i5", "num", {"type": "integer"}),
]


def draw_program(rng: Random, *, most: int = 22, pauses: bool = False) -> dict[str, Any]:
    """One program: 3 to about 25 steps."""
    maker = Maker(rng, Style.drawn(rng, pauses), rng.randint(3, most))
    inputs = rng.sample(INPUTS, rng.randint(0, 4))
    place = Place([(name, kind) for name, kind, _ in inputs])
    document: dict[str, Any] = {"name": "drawn"}
    if inputs:
        document["inputs"] = {
            "type": "object",
            "properties": {name: schema for name, _, schema in inputs},
            "required": [name for name, _, _ in inputs],
        }
    steps: list[dict[str, Any]] = []
    outer: list[dict[str, Any]] = maker.block(place, 8)
    steps += outer
    document["steps"] = steps
    if rng.random() < 0.15:
        ref = maker.ref(place)
        if ref is not None:
            document["output"] = f"${ref[0]}"
    return document


# --- shapes ---------------------------------------------------------------------------------------


class Shape:
    """Small programs about one hard thing each, with a step left out, doubled or moved: what is
    drawn freely is seldom just so.
    """

    def __init__(self, rng: Random) -> None:
        self.rng, self.count = rng, 0

    def id(self) -> str:
        self.count += 1
        return f"s{self.count}"

    def get(self, key: str = "k1", **fields: Any) -> dict[str, Any]:
        name = self.rng.choice(("fetch", "fetch", "keep"))
        return {
            "id": self.id(),
            "type": "tool",
            "tool": name,
            "args": {},
            "output_key": key,
            **fields,
        }

    def plain(self, **fields: Any) -> dict[str, Any]:
        return {
            "id": self.id(),
            "type": "tool",
            "tool": self.rng.choice(("look", "fetch")),
            "args": {},
            **fields,
        }

    def gate(self, *then: dict[str, Any], **fields: Any) -> dict[str, Any]:
        step: dict[str, Any] = {"id": self.id(), "type": "condition", "condition": "$k1 != 'no'"}
        return {
            **step,
            "then": list(then) or [self.plain()],
            "otherwise": self.rng.choice(("$end", "$end", "$fail")),
            **fields,
        }

    def pay(self, **fields: Any) -> dict[str, Any]:
        name = self.rng.choice(("$k1", "$k1", "$k2"))
        return {"id": self.id(), "type": "tool", "tool": "pay", "args": {"to": name}, **fields}

    def ask(self, *keys: str) -> dict[str, Any]:
        return {
            "id": self.id(),
            "type": "approval",
            "role": "boss",
            "show": {key: f"${key}" for key in keys},
        }

    def told(self, key: str, words: list[str] = YES_NO) -> dict[str, Any]:
        return {
            "id": self.id(),
            "type": "llm",
            "prompt": "say",
            "allowed_outputs": list(words),
            "output_key": key,
        }

    def sent(self, **fields: Any) -> dict[str, Any]:
        """A step whose undo is a call of the protected tool."""
        undo = {"tool": "pay", "args": {"to": "$k1"}}
        return {"id": self.id(), "type": "tool", "tool": "mail", "args": {}, "undo": undo, **fields}

    def write(self, key: str = "k1") -> dict[str, Any]:
        return {"id": self.id(), "type": "set", "values": {key: self.rng.choice(WORDS)}}

    def fork(self, *branches: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        return {"id": self.id(), "type": "parallel", "parallel_steps": list(branches), **fields}

    def each(self, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
        over = self.rng.choice((["yes"], ["yes"], ["yes", "no"], []))
        return {"id": self.id(), "type": "map", "over": over, "steps": list(steps), **fields}

    def turns(self, *steps: dict[str, Any]) -> dict[str, Any]:
        step = {"id": self.id(), "type": "loop", "max_iterations": 2, "steps": list(steps)}
        return {
            **step,
            **self.rng.choice(
                (
                    {"on_exhausted": "continue"},
                    {"until": "$k1 == 'yes'", "on_exhausted": "continue"},
                )
            ),
        }

    def call(self, *steps: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self.id(),
            "type": "call",
            "with": {"k1": "$k1", "k2": "$k2"},
            "program": {"steps": list(steps)},
        }

    def held(self, step: dict[str, Any]) -> dict[str, Any]:
        """*step*, where it decides itself whether it runs."""
        return {**step, "when": self.rng.choice(("$k1 != 'no'", "$k1 != 'no'", "$k2 == 'yes'"))}

    def steps(self) -> list[dict[str, Any]]:
        rng = self.rng
        handler: dict[str, Any] = rng.choice(
            ({"on_error": "skip"}, {"on_error": "skip", "default": "yes"}, {})
        )
        begin = [self.get("k1"), self.get("k2")]
        match rng.randrange(22):
            case 20:  # an error that is told where it is handled, or to what comes after
                last = self.pay()
                catch = (
                    {"catch": [{"errors": ["*"], "next": last["id"]}]}
                    if rng.random() < 0.5
                    else {"on_error": "skip"}
                )
                told = self.get("k1", **catch)
                name = f"${told['id']}.error"
                text = rng.choice((name, f"{name}.message", f"about ${{{name[1:]}.type}}"))
                args = {
                    "to": text
                    if "catch" in catch and rng.random() < 0.7
                    else {"expr": f"default({name}.kind, 'no')"}
                }
                steps = [
                    self.gate(),
                    told,
                    *([self.plain(next="$end")] if "catch" in catch else []),
                    {**last, "args": args},
                ]
            case 21:  # a decision about an error, and another error before the call
                told = self.get("k1", on_error="skip", default="yes")
                name = f"${told['id']}.error"
                gate = self.gate(condition=f"default({name}.kind, 'no') != 'timeout'")
                call = {**self.pay(), "args": {"to": {"expr": f"default({name}.message, 'no')"}}}
                last = [{**call, "id": self.id()}] if rng.random() < 0.5 else []
                steps = [self.turns(*rng.sample([told, gate, call], 3)), *last]
            case 17:
                # a call that decides itself whether it is made, before or after a write of what it
                # read
                steps = rng.sample(
                    [self.held(self.pay()), self.write(), self.held(self.plain())], 3
                )
            case 18:  # what decides about a loop or a fork, and a call in it
                calls = [self.pay(), *([self.write()] if rng.random() < 0.5 else [])]
                body = (
                    self.turns(*calls) if rng.random() < 0.5 else self.fork(calls, [self.plain()])
                )
                steps = [self.held(body), *([self.pay()] if rng.random() < 0.3 else [])]
            case 19:  # what is skipped has its output cleared
                steps = [self.gate(), self.held(self.get("k1", **handler)), self.pay()]
            case 0:  # an item of the name that the guard read
                steps = [
                    self.gate(),
                    self.each(self.pay(), **{"as": rng.choice(("k1", "k2", "item"))}),
                ]
            case 1:  # a guard in a branch that writes what it read
                inside = (
                    [self.write(), self.gate()]
                    if rng.random() < 0.6
                    else [self.gate(), self.write()]
                )
                steps = [
                    self.fork(inside, *([[self.plain()]] if rng.random() < 0.5 else [])),
                    self.pay(),
                ]
            case 2:  # a fork that calls, fails and is handled, or ends and has a guard
                gone: dict[str, Any] = (
                    {"on_item_error": "continue"} if rng.random() < 0.4 else handler
                )
                steps = [
                    self.gate(),
                    self.fork([self.pay(), self.plain(), self.gate()], **gone),
                    self.pay(),
                ]
            case 3:  # undos of siblings
                steps = [
                    self.gate(),
                    self.fork([self.sent()], [self.sent() if rng.random() < 0.7 else self.plain()]),
                    self.plain(),
                ]
            case 4:  # undo, then another guard and another call
                steps = [
                    self.gate(),
                    self.sent(),
                    self.plain(),
                    self.gate(),
                    self.pay(),
                    self.plain(),
                ]
            case 5:  # a write that is skipped or caught
                last = self.pay()
                catch = (
                    {"catch": [{"errors": ["*"], "next": last["id"]}]}
                    if rng.random() < 0.5
                    else handler
                )
                steps = [self.gate(), self.get("k1", **catch), last]
            case 6:  # a call in each turn, a guard in each turn before or after it
                steps = [
                    self.gate(),
                    self.turns(*rng.sample([self.pay(), self.gate(), self.get("k1")], 3)),
                ]
            case 7:  # a program that is called twice, with other inputs
                steps = [
                    self.gate(),
                    self.turns(
                        self.call(*rng.sample([self.pay(), self.gate()], 2)), self.get("k1")
                    ),
                ]
            case 8:  # a loop that fails in the middle and is left
                step = self.turns(self.gate(), self.pay(), self.plain(), self.gate())
                steps = [{**step, **handler}, self.pay()]
            case 9:  # one guard, two ways to the call
                last = self.pay()
                steps = [
                    self.gate(),
                    self.gate(self.plain(), otherwise=last["id"]),
                    self.plain(),
                    last,
                ]
            case 10:  # asked after what may have happened
                ask = {
                    "reconcile": {"tool": "pay", "args": {"to": "$k1"}},
                    "max_retries": rng.randint(1, 2),
                    "retry": {"delay_seconds": 0},
                }
                steps = [
                    self.gate(),
                    {**self.plain(), "tool": rng.choice(("mail", "keyed")), **ask},
                    self.plain(),
                ]
            case 15:  # what is known of a name, and another of its name inside
                name = rng.choice(("k1", "i1", "i1"))
                same = self.gate(condition=f"${name} == 'yes'")
                inner = self.each(
                    same,
                    over=rng.choice((["no"], ["yes", "no"])),
                    **{"as": rng.choice((name, "k2"))},
                )
                steps = [
                    self.told("k1"),
                    self.gate(inner, condition=f"${name} {rng.choice(('==', '!='))} 'yes'"),
                ]
            case 14:  # what a block leaves is the output of what it stands in
                gate = self.gate(
                    self.told("k3", rng.choice((YES_NO, KINDS))), otherwise=[self.plain()]
                )
                steps = [
                    gate,
                    self.gate(condition=f"${gate['id']}.output == '{rng.choice(WORDS)}'"),
                    self.pay(),
                ]
            case 13:  # each approval shows a part
                steps = [self.ask(*rng.choice((["k1"], ["k2"], ["k1", "k2"]))) for _ in range(2)]
                steps.append({**self.pay(), "args": {"to": "$k1", "amount": "$k2"}})
            case 12:  # nobody decided in time, or the decision is an error
                skipped: dict[str, Any] = {
                    "id": self.id(),
                    "type": "approval",
                    "role": "boss",
                    "show": {"v": "$k1"},
                }
                if rng.random() < 0.5:
                    skipped = {
                        "id": self.id(),
                        "type": "condition",
                        "condition": "$k1 > 1",
                        "then": "$next",
                        "otherwise": "$next",
                    }
                else:
                    skipped["timeout_seconds"] = 5
                steps = [{**skipped, "on_error": rng.choice(("skip", "fail"))}, self.pay()]
            case 11:  # what is reached by a failure alone
                last = self.pay()
                steps = [
                    self.get("k1", catch=[{"errors": ["*"], "next": last["id"]}]),
                    self.plain(next="$end"),
                    last,
                ]
            case _:  # a map whose items guard what comes after
                more: dict[str, Any] = {"on_item_error": "continue"} if rng.random() < 0.4 else {}
                steps = [self.each(self.gate(), self.plain(), **more), self.pay()]
        return self.edited([*begin, *steps])

    def edited(self, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rng = self.rng
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            at = rng.randrange(2, len(steps) + 1)
            match rng.randrange(4):
                case 0:
                    steps.insert(at, self.gate())
                case 1:
                    steps.insert(at, self.write(rng.choice(("k1", "k2"))))
                case 2 if at < len(steps) and len(steps) > 3:
                    del steps[at]
                case _:
                    if 2 < at < len(steps):
                        steps[at - 1], steps[at] = steps[at], steps[at - 1]
        return steps


def draw_shape(rng: Random) -> dict[str, Any]:
    """A program about one hard thing."""
    document: dict[str, Any] = {"name": "shape", "steps": Shape(rng).steps()}
    if "$i1" in str(document):
        document["inputs"] = {
            "type": "object",
            "properties": {"i1": {"enum": YES_NO}},
            "required": ["i1"],
        }
    return document


def draw_inputs(rng: Random, document: dict[str, Any]) -> dict[str, Any]:
    """Inputs that fit the program's schema."""
    values: dict[str, Any] = {}
    for name, schema in document.get("inputs", {}).get("properties", {}).items():
        if "enum" in schema:
            values[name] = rng.choice(schema["enum"])
        elif schema.get("type") == "boolean":
            values[name] = rng.random() < 0.5
        elif schema.get("type") == "integer":
            values[name] = rng.randrange(4)
        elif schema.get("type") == "array":
            values[name] = [rng.choice((*YES_NO, 1, 2)) for _ in range(rng.randrange(4))]
        else:
            values[name] = rng.choice((True, False, 0, 1, 2, *WORDS, None, [1, 2], {"v": "yes"}))
    return values
