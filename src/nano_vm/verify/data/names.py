"""Definite assignment: is every name that a step reads written on the paths that lead there?

Forward data flow over the graph, two bit sets a node: what every path has written (*must*) and what
some path has (*may*). At a merge *must* is the intersection and *may* the union; a skip without
default and a caught failure clear what the step would have written, and write what went wrong in
it. Nodes are visited in reverse postorder, so that an acyclic graph is done in one pass; loops go
on to the fixed point. Source: Aho, Lam, Sethi, Ullman, *Compilers*, 2nd ed., 9.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import NamedTuple

from ...diagnostics import Diagnostic, Loc
from ...errors import ExprError
from ...language.expr import Ref, value_references
from ...language.flow import Flow, FrameGraph, Names, Node
from ...language.program import OnError, Step, walk
from ...language.semantics import (
    Chooses,
    External,
    Forks,
    Item,
    Output,
    Repeats,
    Told,
    Value,
    Write,
    writes,
)
from ...spelling import Hints
from ...tools.contract import ToolContract

State = tuple[int, int]  # must, may: bit i is slot i

MAX_REMEDIES = 50
"""Reads whose remedy is looked for, which takes a look at every step: more than are shown of any
kind of fault.
"""


def check_names(flow: Flow, solved: Assigned | None = None) -> Iterator[Diagnostic]:
    """Unknown names, reads that no path has written (errors), reads that only some paths have
    (warnings).

    *solved* is what `assigned` gives for the same flow, where it is there already.
    """
    for frame in flow.roots:
        yield from _unknown(frame.names)
        yield from _written_by_two(frame.names)
    for frame in flow.frames:
        if frame.kind == "call":
            yield from _arguments(frame)
    if solved is None:
        solved = assigned(flow)
    for name, loc in flow.frames[0].names.early().items():
        message = f"'${name}' is read before any step has written it, so it is needed as an input"
        hint = "declare it in 'inputs' if it is one, or write it before"
        yield Diagnostic("V024", loc, message, hint, "warning")
    yield from solved.faults()


def assigned(flow: Flow) -> Assigned:
    """What is written at each node of *flow*, where inputs hold the names that they must.

    In a program that declares no inputs, a name that is read before any step can have written it is
    one that inputs must hold: `Names.needed` says so from then on, as it does of names that no step
    writes.
    """
    found = Assigned(flow)
    found.solve()
    early = found.early()
    if not early:
        return found
    flow.frames[0].names.needed.update(early)
    found = Assigned(flow)
    found.solve()
    return found


def _unknown(names: Names) -> Iterator[Diagnostic]:
    """Names that are neither written nor declared, in a program that declares its inputs; steps
    read as values.
    """
    hints, declared, written = Hints(), sorted(names.declared), sorted(names.written)
    for name, loc in [*names.needed.items(), *names.optional.items()]:
        if names.program.inputs is not None and name not in names.declared:
            near = hints.nearest(name, declared, written, names.outputs)
            hint = (
                f"did you mean '${near}'?"
                if near
                else "declare it in 'inputs', or write $$ for a dollar sign"
            )
            yield Diagnostic("V012", (*names.loc, *loc), f"unknown name '${name}'", hint)
    for step, at in names.steps:
        for ref, where in names.all_reads(step):
            if ref.path or ref.name in names.outputs or ref.name not in names.keys:
                for message, remedy in _odd(names, ref, hints):
                    yield Diagnostic("V010", (*names.loc, *at, *where), message, remedy)
    for ref in value_references(names.program.output):
        for message, remedy in _odd(names, ref, hints):
            yield Diagnostic("V010", (*names.loc, "output"), message, remedy)


def _odd(names: Names, ref: Ref, hints: Hints) -> Iterator[tuple[str, str | None]]:
    """What is wrong with a reference that means nothing, and what to write."""
    try:
        names.load(ref)
    except ExprError as error:
        yield str(error), None
        return
    if ref.path[:1] != ("output",) or ref.name not in names.needed:
        return
    if ref.name not in names.declared and ref.name not in names.written:
        near = hints.nearest(ref.name, names.outputs)
        hint = (
            f"did you mean '${near}.output'?" if near else "write the id of a step before '.output'"
        )
        yield f"{str(ref)!r}: no step {ref.name!r}", hint


def check_unused(
    flow: Flow, contracts: Mapping[str, ToolContract] | None = None
) -> Iterator[Diagnostic]:
    """Hints: what is written or asked for and read by nobody, and reads that look like it
    misspelled.

    What may be the last step of its frame or block is its output, and a call may be made for its
    effect: neither is reported.
    """
    final = _final(flow)
    for names in flow.spaces:
        hints = Hints()
        reads = [ref for step, _ in names.steps for ref, _ in names.all_reads(step)]
        reads += value_references(names.program.output)
        read = {ref.name for ref in reads if not ref.path or not names.is_error(ref)}
        unread: list[str] = []  # names that steps write
        used = final[id(names)]
        for step, at in names.steps:
            key_name = step.output_key
            kept = used.get(step.id, True) or step.id in read or key_name in read
            if key_name is not None and key_name not in read:
                unread.append(key_name)
            for name, write in names.named.get(step.id, ()):
                if isinstance(write, Value) and name not in read:
                    unread.append(name)
                    if not kept:
                        message = f"step {step.id!r} sets {name!r}, which nobody reads"
                        loc = (*names.loc, *at, "values", name)
                        yield Diagnostic("V016", loc, message, "remove it", "hint")
            what = None if kept else _idle(names, step, contracts)
            if what is not None:
                message = f"nobody reads what {what}"
                remedy = "read its output, or remove the step"
                yield Diagnostic("V016", (*names.loc, *at), message, remedy, "hint")
        if names.program.inputs is None:  # else an unknown name is told as such
            for name, loc in [*names.needed.items(), *names.optional.items()]:
                if name in names.written:
                    continue  # told as read too early
                near = hints.nearest(name, unread, likeness=0.75)
                if near is not None:
                    message = f"'${name}' is taken for an input: no step writes it"
                    hint = f"did you mean '${near}', which is written and read by nobody?"
                    yield Diagnostic("V018", (*names.loc, *loc), message, hint, "hint")


def _final(flow: Flow) -> dict[int, dict[str, bool]]:
    """By names and step that is entered, whether it may be the last of its frame or block in one of
    its states.
    """
    nodes = flow.nodes
    ends = [node.kind in ("end", "close", "test") for node in nodes]
    found: dict[int, dict[str, bool]] = {id(names): {} for names in flow.spaces}
    for node in nodes:
        if node.kind == "step":
            steps, step_id = found[id(node.frame.names)], node.step.id
            steps.setdefault(step_id, False)
            for edge in node.edges:
                if ends[edge.target] and edge.label not in ("error", "catch"):
                    steps[step_id] = True
    return found


def _idle(names: Names, step: Step, contracts: Mapping[str, ToolContract] | None) -> str | None:
    """What the call of *step* gives, where it has no other use than that."""
    match names.output(step)[0]:
        case External("model"):
            return f"the model answers in step {step.id!r}"
        case External("tool"):
            own, *beside = names.calls[step.id]
            contract = (contracts or {}).get(own.tool)
            undone = any(call.use == "undo" for call in beside)
            if contract is not None and contract.effect == "read" and not undone:
                return f"tool {own.tool!r} gives in step {step.id!r}, and it has no effect"
    return None


def _arguments(frame: FrameGraph) -> Iterator[Diagnostic]:
    """What a `call` gives its program, against what the program takes."""
    names, caller = frame.names, frame.owner
    assert caller is not None
    given = frame.arguments
    schema = names.program.inputs or {}
    properties = schema.get("properties", {})
    defaulted = {
        name for name, part in properties.items() if isinstance(part, dict) and "default" in part
    }
    needed = (set(names.needed) - names.declared) | set(schema.get("required", []))
    unused = [name for name in given if name not in names.inputs]
    free = [name for name in names.keys if name in names.inputs and name not in given]
    hints = Hints()
    for name in sorted(needed - set(given) - defaulted):
        near = hints.nearest(name, unused)
        hint = f"did you mean it for {near!r}?" if near else "give it by 'with'"
        message = f"program {names.program.name!r} needs input {name!r}"
        yield Diagnostic("V040", (*caller.loc, "with"), message, hint)
    for name in unused:
        near = hints.nearest(name, free)
        message = f"program {names.program.name!r} reads no input {name!r}"
        meant = f"did you mean {near!r}?" if near else None
        yield Diagnostic(
            "V042", (*caller.loc, "with", name), message, meant, "error" if near else "warning"
        )


def _written_by_two(names: Names) -> Iterator[Diagnostic]:
    """Branches of one `parallel` that write the same name: which of the values should it be
    afterwards?
    """
    for step, at in names.steps:
        forks = names.controls[step.id]
        if not isinstance(forks, Forks):
            continue
        writers: dict[str, int] = {}
        for number, (_, steps) in enumerate(forks.frames):
            for first, where in steps:
                for inner, inside in walk(first, (*at, *where)):
                    for name, write in writes(inner):
                        if isinstance(write, Item):
                            continue
                        if writers.setdefault(name, number) != number:
                            field = "output_key" if name == inner.output_key else "values"
                            message = f"two branches of {step.id!r} write the name {name!r}"
                            hint = "give each its own name; the step's output holds both by branch"
                            yield Diagnostic("V013", (*names.loc, *inside, field), message, hint)


class Written(NamedTuple):
    """What a step writes and anybody reads, as bits: its output and the key of it; all that it
    writes where it succeeds; its error where it fails; what is cleared where it does not end well.
    """

    output: int
    every: int
    error: int
    results: int


UNREAD = Written(0, 0, 0, 0)
"""Of a step of which nobody reads anything, as of most: behind it all is as before."""


class Change(NamedTuple):
    """What an edge does to a state, as bits: what is cleared, and what is written then, surely and
    maybe.
    """

    cleared: int
    must: int
    may: int

    def of(self, state: State) -> State:
        """The *state* behind the edge."""
        kept = ~self.cleared
        return state[0] & kept | self.must, state[1] & kept | self.may


class Assigned:
    """By node, what every path to it has written and what some path has, of what is read
    anywhere.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.states: list[State | None] = [None] * len(flow.nodes)
        self.bits: dict[int, dict[str, Written]] = {}
        self.slots = {id(names): _slots_read(names) for names in flow.spaces}
        self.read = {
            key: frozenset[int]().union(*steps.values()) for key, steps in self.slots.items()
        }
        # by node, as `ways` gives it
        self.changes: list[list[tuple[int, Change | None]] | None] = [None] * len(flow.nodes)

    def written(self, names: Names) -> dict[str, Written]:
        """By step, what it writes."""
        found = self.bits.get(id(names))
        if found is None:
            found = self.bits[id(names)] = {}
            read = self.read[id(names)]
            for step, _ in names.steps:
                wrote = [one for one in names.writes(step) if one[0] in read]
                found[step.id] = _written(names, step, wrote) if wrote else UNREAD
        return found

    def solve(self) -> None:
        flow, states = self.flow, self.states
        nodes, place = flow.nodes, flow.order.place
        root = flow.frames[0]
        start = self.initial(root)
        states[root.entry] = start, start | self.optional(root)
        queued = bytearray(len(flow.order.nodes))
        queued[place[root.entry]] = 1
        for index in flow.order.sweep(queued):
            state = states[index]
            assert state is not None
            before, after = None, state
            for target, change in self.ways(nodes[index]):
                if change is not before:
                    before, after = change, state if change is None else change.of(state)
                old = states[target]
                if old is None:
                    states[target] = after
                elif old is after:
                    continue
                else:
                    must, may = old[0] & after[0], old[1] | after[1]
                    if must == old[0] and may == old[1]:
                        continue
                    states[target] = must, may
                queued[place[target]] = 1

    def initial(self, frame: FrameGraph) -> int:
        """What a run or called program surely has at its start."""
        names = frame.names
        schema = names.program.inputs
        if frame.kind == "run":
            have = set(names.needed) if schema is None else set(schema.get("required", []))
        else:
            have = set(frame.arguments) & names.inputs
        for name, part in (schema or {}).get("properties", {}).items():
            if isinstance(part, dict) and "default" in part:
                have.add(name)
        return self.bits_of(names, have)

    def optional(self, frame: FrameGraph) -> int:
        """Inputs that may be left out, since they are declared or only `default` reads them: some
        runs have them.
        """
        names = frame.names
        return self.bits_of(names, {*names.declared, *names.optional})

    def bits_of(self, names: Names, given: Set[str]) -> int:
        """Those of the names *given* that anybody reads."""
        read = self.read[id(names)]
        slots = (names.keys[name] for name in given if name in names.keys)
        return sum(1 << slot for slot in slots if slot in read)

    def ways(self, node: Node) -> list[tuple[int, Change | None]]:
        """Where the edges of *node* lead, and what changes on the way; None where nothing does.
        Each change to the same place stands there once: a step has as many handlers as the loops
        around it.
        """
        found = self.changes[node.index]
        if found is not None:
            return found
        own = self.written(node.frame.names).get(node.step.id, UNREAD)
        # most: nothing that anybody reads is written here, and no failure is gone on from
        if own is UNREAD and not node.frames and node.index not in self.flow.caught:
            found = [(edge.target, None) for edge in node.edges if edge.label != "error"]
        else:
            found = list(self._ways(node))
        if len(found) > FEW_WAYS:
            found = list(dict.fromkeys(found))
        self.changes[node.index] = found
        return found

    def _ways(self, node: Node) -> Iterator[tuple[int, Change | None]]:
        kind, step, names = node.kind, node.step, node.frame.names
        written = self.written(names)
        own = written[step.id]
        every = (own.every if kind == "step" else own.output) & ~own.error
        # a loop writes when it ends, and what decides whether a step runs writes where it does not
        begins = kind == "when" or (kind == "step" and isinstance(node.control, Repeats))
        done = None if begins or own is UNREAD else Change(own.error, every, every)
        for edge in node.edges:
            label = edge.label
            if label == "error":
                continue  # to the frame's `fail`, where nothing is read
            if label == "fork":
                child = self.flow.nodes[edge.target].frame
                if child.kind == "call":
                    start = self.initial(child)
                    yield edge.target, Change(-1, start, start | self.optional(child))
                elif child.item is not None:
                    item = 1 << child.item if child.item in self.read[id(names)] else 0
                    yield edge.target, Change(0, item, item)
                else:
                    yield edge.target, None
            elif label in ("skip", "catch", "unless"):
                # What failed has its output cleared, or that of the loop around it which handles
                # the failure. What `set` would have written beside it keeps the value that it had.
                by = step if edge.by in (-1, node.index) else self.flow.nodes[edge.by].step
                handled = written[by.id]
                kept = 0 if label == "unless" else handled.error
                # what the branches or items gave that did not fail, see `partial_output`
                partial = isinstance(names.controls[by.id], Forks)
                if partial if label == "catch" else by.has_default:
                    kept |= handled.output
                unread = handled is UNREAD
                yield edge.target, None if unread else Change(handled.results, kept, kept)
            else:
                yield edge.target, None if label == "again" else done

    def early(self) -> dict[str, Loc]:
        """Names of the run's own program that no path has written where they are read first, and
        that inputs may give.
        """
        own = self.flow.frames[0].names
        if own.program.inputs is not None:
            return {}
        found: dict[str, Loc] = {}
        seen: dict[str, set[Loc]] | None = None
        for loc, ref, names, lacking, there in self.reads():
            if names is not own or there or not lacking or ref.optional:
                continue
            if names.load(ref)[0] != names.keys.get(ref.name):
                continue  # the output of a step
            if seen is None:
                seen = _seen_in(own)
            if any(loc[: len(frame)] == frame for frame in seen.get(ref.name, ())):
                found.setdefault(ref.name, loc)
        return found

    def faults(self) -> Iterator[Diagnostic]:
        """Reads that no path, or not every path, has written."""
        for number, (loc, ref, names, lacking, there) in enumerate(self.reads()):
            hinted = number < MAX_REMEDIES
            if ref.optional:
                if not there and not names.takes(ref.name):
                    message = (
                        f"default({ref}, ...) {_other(ref, names)}: no step has written "
                        f"'{ref}' before"
                    )
                    yield Diagnostic("V019", loc, message, _where(ref, names), "warning")
            elif lacking and there:
                message = f"{str(ref)!r} is not written on every path that leads here"
                yield Diagnostic(
                    "V011", loc, message, _remedy(ref, names) if hinted else None, "warning"
                )
            elif lacking:
                message = f"{str(ref)!r} is read before any step has written it"
                yield Diagnostic("V010", loc, message, _where(ref, names) if hinted else None)

    def reads(self) -> Iterator[tuple[Loc, Ref, Names, bool, bool]]:
        """Each read of a step that some state of it lacks: whether one lacks it, and whether in one
        it is there.
        """
        # A step has several states: what one lacks and another has is lacking on some paths only.
        # lacking in some state, there in some
        found: dict[tuple[Loc, str, bool], tuple[bool, bool]] = {}
        refs: dict[tuple[Loc, str, bool], tuple[Ref, Names]] = {}
        short: set[tuple[int, str]] = set()
        for node in self.flow.nodes:
            read = self.slots[id(node.frame.names)].get(node.step.id)
            state = self.states[node.index]
            if read is None or state is None or not node.looks:
                continue
            must = state[0]
            if not all(must >> slot & 1 for slot in read):
                short.add((id(node.frame.names), node.step.id))
        if not short:
            return
        for node in self.flow.nodes:
            state = self.states[node.index]
            names = node.frame.names
            if state is None or (id(names), node.step.id) not in short:
                continue
            for ref, where, before in self.node_reads(node):
                try:
                    slot = names.load(ref)[0]
                except ExprError:
                    continue  # told as unknown
                if ref.name in names.needed and _is_reported(ref.name, names):
                    continue  # likewise
                must, may = state if before is None else before
                place = (*node.loc, *where) if where != ("output",) else (*names.loc, "output")
                key = place, str(ref), ref.optional
                lacking, there = found.get(key, (False, False))
                found[key] = (lacking or not must >> slot & 1, there or bool(may >> slot & 1))
                refs[key] = (ref, names)
        for (loc, ref_text, optional), (lacking, there) in found.items():
            yield loc, *refs[loc, ref_text, optional], lacking, there

    def node_reads(self, node: Node) -> Iterator[tuple[Ref, Loc, State | None]]:
        """What is read at *node*, and in which state; None for that in which the node is
        reached.
        """
        step, names = node.step, node.frame.names
        after: State | None = None
        if node.kind in ("step", "test"):
            own, state = self.written(names)[step.id], self.states[node.index]
            assert state is not None
            after = (state[0] | own.every) & ~own.error, (state[1] | own.every) & ~own.error
        for ref, where in node.reads:
            # undo's arguments are fixed when the step has finished
            yield ref, where, after if where[0] == "undo" else None


FEW_WAYS = 2
"""Ways of a node that are looked at as they are; only of more can several be alike."""


def _written(names: Names, step: Step, wrote: Iterable[tuple[int, Write]]) -> Written:
    """What *step* writes, of which *wrote* are the slots that anybody reads."""
    out = every = error = cleared = 0
    results = names.results(step)
    for slot, write in wrote:
        bit = 1 << slot
        match write:
            case Output():
                out |= bit
            case Told("error"):
                error |= bit
            case Value() | Told():
                every |= bit
        if slot in results:
            cleared |= bit
    return Written(out, out | every, error, cleared)


def _is_reported(name: str, names: Names) -> bool:
    """Whether it is reported already that *name*, which inputs must give, may not be there: it is
    unknown where inputs are declared, or one that a call must give.
    """
    schema = names.program.inputs
    if name in names.declared:
        return names.loc != () and name in (schema or {}).get("required", [])
    return names.loc != () or schema is not None


def _slots_read(names: Names) -> dict[str, frozenset[int]]:
    """By step that reads any, the slots that it reads; by ``$end`` those that the program's output
    reads.
    """
    found: dict[str, frozenset[int]] = {}
    keys, outputs = names.keys, names.outputs
    end: list[tuple[Ref, Loc]] = [(ref, ()) for ref in value_references(names.program.output)]
    by_step = [(step.id, names.all_reads(step)) for step, _ in names.steps]
    for step_id, step_reads in [*by_step, ("$end", end)]:
        slots: list[int] = []
        for ref, _ in step_reads:
            # as `load`, for what most are
            if not ref.path and ref.name in keys and ref.name not in outputs:
                slots.append(keys[ref.name])
                continue
            try:
                slots.append(names.load(ref)[0])
            except ExprError:
                continue  # told as unknown
        if slots:
            found[step_id] = frozenset(slots)
    return found


def _seen_in(names: Names) -> dict[str, set[Loc]]:
    """By name, where what steps write under it is seen: the places of the branches or items that
    they stand in, or of all.
    """
    forks = {}  # the field, and which branch
    for step, at in names.steps:
        control = names.controls[step.id]
        if isinstance(control, Forks):
            forks[at] = len(at) + (1 if control.kind == "item" else 2)
    found: dict[str, set[Loc]] = {}
    for step, at in names.steps:
        around = [at[: forks[at[:end]]] for end in range(len(at)) if at[:end] in forks]
        for name, write in writes(step):
            if not isinstance(write, Item):
                found.setdefault(name, set()).add(around[-1] if around else ())
    return found


def _remedy(ref: Ref, names: Names) -> str:
    """What makes sure that *ref* is written on each path, by why one does not write it; or how to
    do without.
    """
    return f'{_written_always(ref, names)}, or read it by {{expr: "default({ref}, null)"}}'


def _written_always(ref: Ref, names: Names) -> str:
    if ref.path[:1] in (("error",), ("errors",)) and ref.name in names.outputs:
        return _error_told(ref, names)
    slot = names.load(ref)[0]
    places = {at: step for step, at in names.steps}
    writers = [(step, names.ids[step.id]) for step, _ in names.writers.get(slot, ())]
    for step, _ in writers:
        if (step.when is not None or step.on_error is OnError.SKIP) and not step.has_default:
            return (
                f"give {step.id!r} a 'default', which is written where it is skipped, or set a "
                f"name before it"
            )
    for step, at in writers:
        around = [places[at[:end]] for end in range(len(at) - 1, 0, -1) if at[:end] in places]
        branching = [other for other in around if isinstance(names.controls[other.id], Chooses)]
        if branching:
            why = f"a run may take another branch of {branching[0].id!r} than that of {step.id!r}"
            return (
                f"{why}: write the same output_key in each branch, or set it before, and read that"
            )
    if not writers and ref.name in names.declared:
        by_call = ", give it by 'with'" if names.loc else ""
        return (
            f"input {ref.name!r} may be left out: put it into 'required'{by_call}, or give it a "
            f"'default' in 'inputs'"
        )
    for step, _ in writers:
        if step.catch:
            return (
                f"where a failure of {step.id!r} is caught there is none: set a name before "
                f"it, and in its handler"
            )
    return "write the same name on each way that leads here, or set it before they part"


def _other(ref: Ref, names: Names) -> str:
    """What `default` does with *ref*, which no step has written before."""
    if (
        names.program.inputs is None
        and not names.loc
        and names.load(ref)[0] == names.keys.get(ref.name)
    ):
        return f"gives its other value unless input {ref.name!r} is given"
    return "always gives its other value"


def _error_told(ref: Ref, names: Names) -> str:
    """Where `$step.error` or `$step.errors` can be read."""
    step = names.by_id[ref.name]
    if not names.is_error(ref):
        how = (
            "'catch', or 'on_error: skip'"
            if ref.path[0] == "error"
            else "'on_item_error: continue'"
        )
        return (
            f"it is the error of step {step.id!r} only where that has {how}; without, what "
            f"failed is not gone on from"
        )
    if ref.path[0] == "errors":
        return f"it is there where {step.id!r} has succeeded"
    targets = dict.fromkeys(catch.next for catch in step.catch)
    after = (
        f"where its 'catch' leads: {', '.join(map(repr, targets))}"
        if targets
        else "where it was skipped"
    )
    return f"it is there after {step.id!r} has failed, {after}"


def _where(ref: Ref, names: Names) -> str:
    """Where the value that is missed is written, and how it is read from outside."""
    if ref.path[:1] in (("error",), ("errors",)) and ref.name in names.outputs:
        return _error_told(ref, names)
    step_id = ref.name if ref.path[:1] == ("output",) else None
    for step, at in names.steps:
        forks = names.controls[step.id]
        if isinstance(forks, Forks) and forks.kind == "branch":
            for branch, steps in forks.frames:
                for first, _ in steps:
                    for inner, _ in walk(first, at):
                        if inner.id == step_id or (
                            step_id is None and ref.name in dict(writes(inner))
                        ):
                            return f"from outside a branch is read as ${step.id}.output.{branch}"
    if step_id in names.ids:
        return f"step {step_id!r} stands in an item that is not seen from here, or runs later"
    return "it is written in an item that is not seen from here, or later"
