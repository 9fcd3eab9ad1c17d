"""What a policy says of secrets: which values carry a label, which labels each receiver accepts, and
what takes a label away.

The parts of a policy that speak of labels come in; a `Secrecy` goes out, and the faults go to the
reader. A label is a name; `secret` stands for all of them, `public` for none. What several
policies say together is joined in `verify.secrecy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..diagnostics import Loc
from ..spelling import Hints
from ..values import short

SECRET, PUBLIC, ANY = "secret", "public", "any"
WORDS = (PUBLIC, SECRET, ANY)
TAKEN = (*WORDS, "trusted", "untrusted", "args")
"""What no label may be called: words that stand where a label may stand, and say something else."""

Labels = tuple[str, ...]
"""Names of labels; `ALL` stands for each that is declared, and nothing for a public value."""

NONE: Labels = ()
ALL: Labels = (SECRET,)

MAX_LABELS = 16
"""Labels of one policy: people tell apart a handful, and every value is traced once for each."""

Implicit = Literal["list", "refuse"]
IMPLICIT: tuple[Implicit, ...] = ("list", "refuse")

RECEIVERS = ("output", "errors", "show", "export", "pages", "telemetry", "logs")
"""Who receives what, beside tools, models, people and events: the caller of a run its output and
its errors; and who is shown or sent its records.
"""


@dataclass(frozen=True, slots=True)
class ToolSecrecy:
    """What a policy says of the labels of one tool: what it returns beside what it is given, what
    each argument accepts, which labels its result no longer has, and why.
    """

    returns: Labels | None = None
    accepts: Mapping[str, Labels] = field(default_factory=dict)
    declassifies: Labels = NONE
    reason: str = ""

    @property
    def speaks(self) -> bool:
        """Whether it says anything."""
        return self.returns is not None or bool(self.accepts or self.declassifies)


SILENT = ToolSecrecy()


@dataclass(frozen=True, slots=True)
class Passing:
    """What a person of a role, or an event, may be given, and what comes of it: labels that a role's
    approval releases, or that an event carries.
    """

    accepts: Labels | None = None
    gives: Labels | None = None


@dataclass(frozen=True, slots=True)
class Secrecy:
    """What one policy says of labels, beside its tools; by name or pattern."""

    labels: Labels = NONE
    inputs: Mapping[str, Labels] = field(default_factory=dict)
    models: Mapping[str, Labels] = field(default_factory=dict)
    roles: Mapping[str, Passing] = field(default_factory=dict)
    events: Mapping[str, Passing] = field(default_factory=dict)
    accepts: Mapping[str, Labels] = field(default_factory=dict)
    implicit: Implicit = "list"

    @property
    def speaks(self) -> bool:
        """Whether it says anything."""
        return self != _NOTHING


_NOTHING = Secrecy()
TAG = "tag:"
"""How the name of a rule begins that is for the models with a tag."""


class Faults(Protocol):
    """The reader of a policy, as far as labels need it."""

    def add(self, code: str, loc: Loc, message: str, hint: str | None = None) -> None:
        """A fault at a place."""

    def table(
        self, data: Any, loc: Loc, what: str, fields: tuple[str, ...] | None = None
    ) -> dict[str, Any]:
        """An object."""


class LabelReader:
    """Reads what a policy says of labels; *declared* is its ``secret``."""

    def __init__(self, faults: Faults, declared: Any) -> None:
        self.faults = faults
        self.hints = Hints()
        self.declared = self._declared(declared)

    def _declared(self, data: Any) -> Labels:
        if data is None:
            return NONE
        names = data if type(data) is list else [data]
        good = [name for name in names if type(name) is str and name and name not in TAKEN]
        if len(good) != len(names) or not names or not all(map(_is_name, good)):
            hint = f"write secret: [customer, payroll]; {', '.join(TAKEN)} are taken"
            message = f"'secret' is a list of names of labels, not {short(data)}"
            self.faults.add("P047", ("secret",), message, hint)
            return NONE
        if len(good) > MAX_LABELS:
            message = f"{len(good)} labels are declared, and at most {MAX_LABELS} are possible"
            self.faults.add("P047", ("secret",), message, "join those that go the same ways")
            return NONE
        return tuple(dict.fromkeys(good))

    def is_labels(self, data: Any) -> bool:
        """Whether *data*, which may also be another rule, speaks of labels."""
        return type(data) is list or data in WORDS or data in self.declared

    def labels(self, data: Any, loc: Loc, *, any_of: bool = False) -> Labels | None:
        """*data* as labels: a word, a label, or a list of labels; of who may be given them also
        ``any``.
        """
        if data == PUBLIC:
            return NONE
        if data == SECRET or (data == ANY and any_of):
            return ALL
        names = [data] if type(data) is str else data
        words = ", ".join(WORDS if any_of else WORDS[:2])
        if type(names) is not list or not names or not all(type(name) is str for name in names):
            hint = f"write {words}, or a list of labels such as [customer]"
            self.faults.add("P040", loc, f"{loc[-1]!r} says labels, not {short(data)}", hint)
            return None
        for name in names:
            known = name in self.declared or (type(data) is list and name == SECRET)
            # without names of its own a program's policy may use those of its host
            if not known and (self.declared or type(data) is not list or not _is_name(name)):
                otherwise = f"write {words}, or declare it: secret: [{name}]"
                if self.declared:
                    otherwise = f"the labels are {', '.join(self.declared)}"
                meant = self.hints.meant(name, (*self.declared, *WORDS), otherwise=otherwise)
                self.faults.add("P047", loc, f"{name!r} is no label of this policy", meant)
                return None
        return ALL if SECRET in names else tuple(dict.fromkeys(names))

    def accepted(self, data: Any, loc: Loc) -> dict[str, Labels]:
        """Who else accepts what."""
        found = {}
        for name, labels in self.faults.table(data, loc, "'accepts'", RECEIVERS).items():
            read = self.labels(labels, (*loc, name), any_of=True)
            if read is not None:
                found[name] = read
        return found

    def passing(self, data: Any, loc: Loc, what: str, gives: str) -> dict[str, Passing]:
        """What is said by name of people or events: what they accept, and what they give."""
        found = {}
        for name, rule in self.faults.table(data, loc, f"'{loc[-1]}'").items():
            at = (*loc, name)
            body = self.faults.table(rule, at, f"the rule of {what} {name!r}", ("accepts", gives))
            accepts = body.get("accepts")
            given = body.get(gives)
            found[name] = Passing(
                None if accepts is None else self.labels(accepts, (*at, "accepts"), any_of=True),
                None if given is None else self.labels(given, (*at, gives)),
            )
        return found

    def implicit(self, data: Any) -> Implicit:
        """What becomes of branches that secrets decide."""
        if data is not None and data not in IMPLICIT:
            message = f"'implicit' is one of {', '.join(IMPLICIT)}, not {short(data)}"
            self.faults.add("P040", ("implicit",), message)
        return "refuse" if data == "refuse" else "list"

    def tool(self, body: Mapping[str, Any], loc: Loc) -> ToolSecrecy:
        """What the rule of a tool, whose fields are *body*, says of labels."""
        returns = self.returns(body.get("returns"), (*loc, "returns"))
        arguments = body.get("args")
        accepts = {}
        for name, rule in arguments.items() if type(arguments) is dict else ():
            at = (*loc, "args", name)
            said = rule.get("accepts") if type(rule) is dict else rule
            if said is not None and (type(rule) is dict or self.is_labels(rule)):
                read = self.labels(said, at, any_of=True)
                accepts[name] = NONE if read is None else read
        declassifies, reason = body.get("declassifies"), body.get("reason")
        taken = None
        if declassifies is not None:
            taken = self.labels(declassifies, (*loc, "declassifies"))
            if type(reason) is not str or not reason.strip():
                hint = "write why what it returns is no secret: reason: names and numbers are cut"
                message = f"{loc[-1]!r} declassifies, and no reason is given"
                self.faults.add("P048", (*loc, "declassifies"), message, hint)
        elif reason is not None:
            message = f"{loc[-1]!r} has a reason, and declassifies nothing"
            self.faults.add("P043", (*loc, "reason"), message, "add declassifies: [...]")
        return ToolSecrecy(returns, accepts, taken or NONE, str(reason or "").strip())

    def returns(self, data: Any, loc: Loc) -> Labels | None:
        """What a tool returns beside what it is given."""
        if type(data) is dict:
            data = data.get("secrecy")
        elif not self.is_labels(data):
            return None
        return None if data is None else self.labels(data, loc)


def _is_name(text: str) -> bool:
    return text.replace("-", "_").replace(".", "_").isidentifier()
