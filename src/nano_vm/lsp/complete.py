"""What can stand at a cursor: fields, types, steps, names, tools and their arguments, words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ..language.kinds import TYPES
from . import offers
from .cursor import Cursor, Frame, cursor_at
from .index import BLOCKS, GUARDS, TARGETS, Index
from .names import (
    answers_of,
    edges_of,
    fields_of,
    hint_text,
    names_of,
    read_by,
    schema_type,
    signature,
)
from .project import Known
from .tree import Place

_DOLLAR = re.compile(r"\$\{?([\w.]*)\Z")
_COMPARED = re.compile(r"""\$\{?([\w.]+)\}?\s*[!=]=\s*(['"])([^'"]*)\Z""")

PARTS = {
    "budget": "Budget",
    "retry": "Retry",
    "catch": "Catch",
    "undo": "ToolRef",
    "reconcile": "ToolRef",
    "defaults": "Defaults",
}
"""Fields whose values are parts with fields of their own."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Something that can stand there. *kind* is ``field``, ``word``, ``step``, ``name``, ``tool`` or
    ``argument``; *insert* is what is written, and *begun* how many characters of it are there.
    """

    label: str
    kind: str
    detail: str = ""
    text: str = ""
    insert: str = ""
    begun: int = 0


_PLAIN_WORD = re.compile(r"[A-Za-z][\w -]*\Z")
_READ_OTHERWISE = frozenset({"true", "false", "null", "yes", "no", "on", "off"})


def quoted(word: str) -> str:
    """*word* as YAML reads it as a string, in every version of it."""
    plain = _PLAIN_WORD.match(word) and word.lower() not in _READ_OTHERWISE
    return word if plain else json.dumps(word, ensure_ascii=False)


def completions(index: Index, place: Place, known: Known) -> list[Completion]:
    """What can stand at *place*."""
    if not index.parts:
        return []
    part = index.parts[index.part_at(place[0])]
    cursor = cursor_at(part.lines, (place[0] - part.line, place[1]))
    return list(_Choice(index, place, known, cursor, in_step=part.step).all())


class _Choice:
    """What fits one cursor."""

    def __init__(
        self, index: Index, place: Place, known: Known, cursor: Cursor, *, in_step: bool
    ) -> None:
        self.index = index
        self.place = place
        self.known = known
        self.cursor = cursor
        self.step_frame = _step_frame(cursor, in_step)
        written = dict(self.step_frame.seen) if self.step_frame is not None else {}
        whole = index.step_at(place[0])
        if whole is not None and whole.id == written.get("id", whole.id):
            for key, value in whole.node.pairs:  # those behind the cursor, too
                written.setdefault(key.value, value.value if value.kind == "text" else "")
        self.written = written

    def all(self) -> Iterator[Completion]:
        cursor = self.cursor
        dollar = _DOLLAR.search(cursor.text)
        compared = _COMPARED.search(cursor.text)
        if dollar is not None and (cursor.key is not None or cursor.in_list):
            yield from self.references(dollar[1])
        elif compared is not None and cursor.key is not None:
            yield from self.said(compared[1], len(compared[3]))
        elif self.in_policy():
            yield from self.policy()
        elif cursor.key is None and not (cursor.in_list and not self.at_step()):
            yield from self.fields()
        elif not cursor.inside_text or cursor.key in (*TARGETS, "tool", "type", "model"):
            yield from self.values(cursor.key or "")

    def at_step(self) -> bool:
        """Whether a step may begin here."""
        return self.step_frame is None or self.cursor.container[-2:-1] != ("errors",)

    # --- fields ---

    def fields(self) -> Iterator[Completion]:
        container = self.cursor.container
        around = self.cursor.around
        if self.step_frame is not None and (around[-1] is self.step_frame or self.begins_step()):
            kind = self.written.get("type")
            yield from self.named(offers.step_fields(kind), self.written, offers.needed(kind))
            return
        if not container:
            there = {part.name: "" for part in self.index.parts}
            yield from self.named(offers.part_fields("Program"), there, ("steps",))
            return
        last = container[-1] if container[-1] != "-" else container[-2] if container[:-1] else ""
        seen = self.cursor.fields
        if last == "cases" and self.step_frame is not None:
            for one in self.said(self.written.get("on", ""), len(self.cursor.text)):
                if one.label not in seen:
                    yield replace(one, insert=f"{quoted(one.label)}: ")
        elif last in ("args", "with") and self.step_frame is not None:
            yield from self.arguments(container, seen)
        elif last in PARTS:
            yield from self.named(offers.part_fields(PARTS[last]), seen)
        elif {"inputs", "output_schema"} & set(container) and last != "properties":
            yield from self.named(offers.SCHEMA_FIELDS, seen)

    def begins_step(self) -> bool:
        """Whether the cursor is behind the dash of a step that has nothing yet."""
        return self.cursor.in_list and self.cursor.around[-1] is self.step_frame

    def named(
        self, fields: dict[str, str], there: Iterable[str], first: Iterable[str] = ()
    ) -> Iterator[Completion]:
        begun = len(self.cursor.text)
        needed = set(first)
        for name, text in fields.items():
            if name not in there or name == self.cursor.text:
                detail = "required" if name in needed else ""
                yield Completion(name, "field", detail, text, f"{name}: ", begun)

    def arguments(self, container: tuple[str, ...], seen: dict[str, str]) -> Iterator[Completion]:
        name = self.written.get("tool", "")
        for frame in self.cursor.frames:
            if frame.key == "args" and {"undo", "reconcile"} & set(container):
                name = frame.seen.get("tool", name)
        tool = self.known.contracts.get(name) if self.known.contracts else None
        for one in tool.parameters.values() if tool is not None else ():
            if one.name not in seen:
                detail = hint_text(one.hint) + ("" if one.required else ", may be left out")
                begun = len(self.cursor.text)
                yield Completion(one.name, "argument", detail, "", f"{one.name}: ", begun)

    # --- policies ---

    def in_policy(self) -> bool:
        """Whether the cursor is in the program's policy."""
        part = self.index.parts[self.index.part_at(self.place[0])]
        return part.name == "policy" and "policy" in self.cursor.container

    def policy(self) -> Iterator[Completion]:
        """Names of tools, fields of their rules, and branches that guard them."""
        container, key, begun = self.cursor.container, self.cursor.key, len(self.cursor.text)
        tools = container[:2] == ("policy", "tools")
        if key in GUARDS and tools:
            for edge in edges_of(self.index):
                yield Completion(edge, "step", insert=edge, begun=begun)
        elif key is None and tools and len(container) == 2:
            called = (step.node.text("tool") for step in self.index.steps())
            for name in dict.fromkeys([*(self.known.contracts or ()), *filter(None, called)]):
                if name not in self.cursor.fields:
                    yield Completion(name, "tool", insert=f"{name}: ", begun=begun)
        elif key is None:
            yield from self.named(offers.policy_fields(container[1:]), self.cursor.fields)
        else:
            yield from self.words(offers.policy_words((*container[1:], key)))

    # --- values ---

    def values(self, key: str) -> Iterator[Completion]:
        begun = len(self.cursor.text)
        container = self.cursor.container
        in_step = self.step_frame is not None and self.cursor.around[-1] is self.step_frame
        if key == "type" and in_step:
            for kind in TYPES:
                yield Completion(kind, "word", "", offers.step_text(kind), kind, begun)
        elif key == "type" and {"inputs", "output_schema"} & set(container):
            yield from self.words(offers.JSON_TYPES)
        elif self.is_target(key, container):
            yield from self.targets()
        elif key == "tool":
            for tool in (self.known.contracts or {}).values():
                yield Completion(tool.name, "tool", signature(tool), tool.doc, tool.name, begun)
        elif key == "model":
            found = self.index.program_node("models")
            own = [k.value for k, _ in found[0].pairs] if found is not None else []
            yield from self.words(dict.fromkeys([*own, *self.known.models]))
        elif key in ("errors", "on") and (self.cursor.in_list or "retry" in container):
            yield from self.words(offers.ERRORS)
        elif key == "on_invalid" and in_step:
            here = self.index.step_at(self.place[0])
            yield from self.words(map(quoted, answers_of(here.node if here else None)))
        elif in_step:
            yield from self.words(offers.words(self.written.get("type"), key))

    def is_target(self, key: str, container: tuple[str, ...]) -> bool:
        if key == "default":
            return self.written.get("type") == "switch"
        return key in TARGETS or container[-1:] == ("cases",)

    def words(self, words: Iterable[str]) -> Iterator[Completion]:
        for word in words:
            yield Completion(word, "word", insert=word, begun=len(self.cursor.text))

    def targets(self) -> Iterator[Completion]:
        begun = len(self.cursor.text)
        own = self.written.get("id")
        here = self.index.step_at(self.place[0])
        scope = here.scope if here is not None else 0
        for step in self.index.steps():
            if step.id and step.id != own and step.scope == scope:
                yield Completion(step.id, "step", step.type or "", "", step.id, begun)
        for word in ("$end", "$fail", "$next"):
            yield Completion(word, "word", insert=word, begun=begun)

    def said(self, reference: str, begun: int) -> Iterator[Completion]:
        """The words that what *reference* reads is one of."""
        here = self.index.step_at(self.place[0])
        node = read_by(self.index, reference.strip("${}"), here.scope if here is not None else 0)
        for word in answers_of(node):
            yield Completion(word, "word", insert=word, begun=begun)

    def references(self, begun: str) -> Iterator[Completion]:
        """Names behind a dollar sign, ``.output`` behind the id of a step, and then the fields of
        what it gives.
        """
        path, dot, rest = begun.rpartition(".")
        here = self.index.step_at(self.place[0])
        scope = here.scope if here is not None else 0
        found = names_of(self.index, self.known, scope)
        if dot:
            named = found.get(path)
            if named is not None and named.by.startswith("step "):
                for word in ("output", "error"):
                    yield Completion(word, "word", named.holds, "", word, len(rest))
            for name, node in fields_of(read_by(self.index, path, scope)):
                yield Completion(name, "field", schema_type(node), "", name, len(rest))
            return
        for one in found.values():
            yield Completion(one.name, "name", one.holds, one.by, one.name, len(begun))


def _step_frame(cursor: Cursor, in_step: bool) -> Frame | None:
    """The frame of the innermost step that the cursor is in, or the list in which one begins."""
    found: Frame | None = None
    frames = cursor.around
    for number, frame in enumerate(frames):
        if not _holds_steps(frames, number, in_step):
            continue
        inner = frames[number + 1] if number + 1 < len(frames) else None
        if inner is None or inner.kind == "map":
            found = inner or frame
    return found


def _holds_steps(frames: list[Frame], number: int, in_step: bool) -> bool:
    """Whether a frame is a list of steps."""
    if frames[number].kind != "list":
        return False
    if number == 0:
        return in_step
    before = frames[number - 1]
    if before.kind == "list":
        return _holds_steps(frames, number - 1, in_step)
    if before.key in BLOCKS:
        return True
    return number > 1 and frames[number - 2].key == "cases"
