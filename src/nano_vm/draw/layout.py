"""Areas laid out: each dot and line gets its place.

After K. Sugiyama et al., "Methods for Visual Understanding of Hierarchical System Structures",
1981: layers by the longest path, order by barycenters, places by least squares that keep the order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from .graph import Area, Dot, Line, labels_of

CHAR = 7.0  # width of a character at 12 px, for a wide sans-serif font
TITLE_CHAR = 7.6
TEXT_HEIGHT = 16.0
PAD = 10.0
GAP_X = 26.0
GAP_Y = 40.0
ROW_WIDTH = 1500.0  # frames of a fork beyond this stand in another row
MAX_SPAN = 10
"""Layers that a line crosses; one to a place further away is a tag that names it, else a long
program is all lines.
"""
LONG = 40
PULL = 0.85
"""From so many layers on each box is drawn so far to the middle: else each join moves what follows
a little to one side, and a thousand of them make a staircase.
"""
SWEEPS = 6


@dataclass(slots=True, eq=False)
class Box:
    """Something with a place: a dot, or a bend of a line that crosses a layer (``dot`` is None)."""

    dot: Dot | None
    width: float
    height: float
    layer: int = 0
    x: float = 0.0  # of its middle
    y: float = 0.0  # of its top
    # areas, from the box's corner
    inner: list[tuple[Drawing, float, float, str]] = field(default_factory=list)
    ups: list[Box] = field(default_factory=list)
    downs: list[Box] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)  # lines that are only named, below the shape
    shape: float = 0.0  # width of the shape, where its tags are wider


@dataclass(slots=True, eq=False)
class Drawing:
    """An area laid out, from (0, 0)."""

    width: float = 0.0
    height: float = 0.0
    layers: list[list[Box]] = field(default_factory=list)
    tops: list[float] = field(default_factory=list)
    bottoms: list[float] = field(default_factory=list)
    routes: list[tuple[Line, list[Box]]] = field(default_factory=list)
    backs: list[tuple[Line, Box, Box, float]] = field(default_factory=list)


def lay_out(area: Area, *, root: bool) -> Drawing:
    drawing = Drawing()
    entering = sum(line.target is area.end for line in area.lines)
    dots = [d for d in area.dots if root or d is not area.end or entering > 1]
    kept = set(dots)
    lines = [line for line in area.lines if line.source in kept and line.target in kept]
    boxes = {d: _measure(d, root=root) for d in dots}
    _mark_back(dots, lines)
    _assign_layers(dots, lines, boxes)
    count = max((box.layer for box in boxes.values()), default=-1) + 1
    drawing.layers = [[] for _ in range(count)]
    for d in dots:
        drawing.layers[boxes[d].layer].append(boxes[d])
    backs = []
    for line in lines:
        source, target = boxes[line.source], boxes[line.target]
        if line.back:
            backs.append((line, source, target))
        elif target.layer - source.layer > MAX_SPAN:
            text = (
                f"{line.label} \u2192 {line.target.title}"
                if line.labels
                else f"\u2192 {line.target.title}"
            )
            source.shape = source.shape or source.width
            source.tags.append(text)
            source.height += TEXT_HEIGHT
            source.width = max(source.width, len(text) * CHAR + 2 * PAD)
        else:
            drawing.routes.append((line, _route(source, target, drawing.layers)))
    _order(drawing.layers)
    _place(drawing, backs)
    return drawing


def _measure(item: Dot, *, root: bool) -> Box:
    if item.look == "end" and not root:
        return Box(item, 12, 12)
    if item.ends:
        return Box(item, 56, 26)
    texts = labels_of(item)
    width = (
        max(len(texts[0]) * TITLE_CHAR, *(len(t) * CHAR for t in texts[1:]), 60.0)
        if len(texts) > 1
        else len(texts[0]) * CHAR
    )
    box = Box(item, width + 2 * PAD, len(texts) * TEXT_HEIGHT + PAD)
    if item.look == "decision":
        box.width += 24
    if item.frames:
        top, x, height = box.height + 4, PAD, 0.0
        rows: list[tuple[float, int]] = [(0.0, 0)]  # width and first frame of each
        for i, frame in enumerate(item.frames):
            drawing = lay_out(frame, root=False)
            name = frame.name if len(item.frames) > 1 else ""
            w, h = frame_size(drawing, name)
            if x > PAD and x + w > ROW_WIDTH:
                top, x, height = top + height + PAD, PAD, 0.0
                rows.append((0.0, i))
            box.inner.append((drawing, x, top, name))
            x += w + PAD
            height = max(height, h)
            rows[-1] = (x, rows[-1][1])
        box.width, box.height = max(box.width, *(width for width, _ in rows)), top + height + PAD
        for (width, first), (_, after) in zip(
            rows, [*rows[1:], (0.0, len(item.frames))], strict=True
        ):
            shift = (box.width - width) / 2  # each row stands in the middle
            box.inner[first:after] = [
                (d, left + shift, below, name) for d, left, below, name in box.inner[first:after]
            ]
    return box


def frame_size(drawing: Drawing, name: str) -> tuple[float, float]:
    """Width and height of a frame inside its fork."""
    head = TEXT_HEIGHT if name else 0.0
    return max(drawing.width, len(name) * CHAR) + 2 * PAD, drawing.height + head + 2 * PAD


def _mark_back(dots: list[Dot], lines: list[Line]) -> None:
    """Which lines lead back: those of loops, and in a faulty program those of a circle."""
    leaving: dict[Dot, list[Line]] = {d: [] for d in dots}
    for line in lines:
        leaving[line.source].append(line)
    state: dict[Dot, int] = {}
    for start in dots:
        if start in state:
            continue
        state[start] = 1
        stack = [(start, iter(leaving[start]))]
        while stack:
            at, rest = stack[-1]
            for line in rest:
                if state.get(line.target) == 1:
                    line.back = True
                elif line.target not in state:
                    state[line.target] = 1
                    stack.append((line.target, iter(leaving[line.target])))
                    break
            else:
                state[at] = 2
                stack.pop()


def _assign_layers(dots: list[Dot], lines: list[Line], boxes: dict[Dot, Box]) -> None:
    """The longest path from a dot without predecessors."""
    missing = dict.fromkeys(dots, 0)
    leaving: dict[Dot, list[Dot]] = {d: [] for d in dots}
    for line in lines:
        if not line.back:
            missing[line.target] += 1
            leaving[line.source].append(line.target)
    ready = [d for d in dots if not missing[d]]
    for d in ready:  # grows
        for target in leaving[d]:
            boxes[target].layer = max(boxes[target].layer, boxes[d].layer + 1)
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)


def _route(source: Box, target: Box, layers: list[list[Box]]) -> list[Box]:
    """The boxes that a line passes, with a bend in each layer between."""
    route = [source]
    for layer in range(source.layer + 1, target.layer):
        bend = Box(None, 8, 0, layer)
        layers[layer].append(bend)
        route.append(bend)
    route.append(target)
    for above, below in pairwise(route):
        above.downs.append(below)
        below.ups.append(above)
    return route


def _order(layers: list[list[Box]]) -> None:
    """Fewer crossings: each layer by the mean place of its neighbours, downwards and upwards in
    turn.
    """
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        place: dict[Box, float] = {}
        for layer in layers if down else reversed(layers):
            for i, box in enumerate(layer):
                near = box.ups if down else box.downs
                box.x = sum(place[n] for n in near) / len(near) if near else float(i)
            layer.sort(key=lambda box: box.x)
            place.update((box, float(i)) for i, box in enumerate(layer))


def _place(drawing: Drawing, backs: list[tuple[Line, Box, Box]]) -> None:
    layers = drawing.layers
    for layer in layers:
        x = 0.0
        for box in layer:
            box.x = x + box.width / 2
            x += box.width + GAP_X
        for box in layer:
            box.x -= (x - GAP_X) / 2
    for sweep in range(2 * SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            _settle(layer, down, PULL if len(layers) > LONG else 1.0)
    y = 0.0
    for layer in layers:
        height = max(box.height for box in layer)
        for box in layer:
            box.y = y
        drawing.tops.append(y)
        drawing.bottoms.append(y + height)
        y += height + GAP_Y
    boxes = [box for layer in layers for box in layer]
    left = min((box.x - box.width / 2 for box in boxes), default=0.0)
    for box in boxes:
        box.x -= left
    right = max((box.x + box.width / 2 for box in boxes), default=0.0)
    for line, source, target in backs:  # up the right side, clear of what stands between
        between = [b for layer in layers[target.layer : source.layer + 1] for b in layer]
        lane = max(b.x + b.width / 2 for b in between) + 14
        while any(abs(lane - other) < 10 for *_, other in drawing.backs):
            lane += 10
        drawing.backs.append((line, source, target, lane))
        right = max(right, lane + len(line.label) * CHAR + 8)
    drawing.width, drawing.height = right, max(y - GAP_Y, 0.0)


def _settle(layer: list[Box], down: bool, pull: float) -> None:
    """Each box as near to the mean of its neighbours as the order allows: least squares by pooling
    (Ayer, 1955).
    """
    pools: list[list[float]] = []  # sum of weight times wish, weight, number of boxes
    offsets, offset = [], 0.0
    for i, box in enumerate(layer):
        if i:
            offset += layer[i - 1].width / 2 + GAP_X + box.width / 2
        offsets.append(offset)
        near = box.ups if down else box.downs
        wish = sum(n.x for n in near) / len(near) if near else box.x
        wish *= pull
        # bends first: straight lines are easiest to follow
        weight = 8.0 if box.dot is None else 1.0 if near else 0.1
        pools.append([weight * (wish - offset), weight, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    places = (total / weight for total, weight, count in pools for _ in range(int(count)))
    for box, own, at in zip(layer, offsets, places, strict=True):
        box.x = at + own
