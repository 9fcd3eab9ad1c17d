"""The graph of a program as an SVG image."""

from __future__ import annotations

from html import escape

from ..language.flow import Flow
from .graph import (
    COLOURS,
    DASHED,
    LEGEND,
    Dot,
    Line,
    Look,
    Mark,
    Marks,
    label,
    labels_of,
    picture,
    shown_marks,
)
from .layout import CHAR, PAD, TEXT_HEIGHT, Box, Drawing, frame_size, lay_out

MARGIN = 16.0
LEGEND_HEIGHT = 22.0
LEGEND_SIGN = 28.0
# for a number of ports: lines side by side between the same boxes, whose labels stand beside them
TWINS = 0

_FILLS: dict[Look, tuple[str, str]] = {
    "model": ("#eef4ff", "#4a78c8"),
    "tool": ("#eefaf0", "#3f8f55"),
    "decision": ("#fff8e6", "#c08a1e"),
    "stop": ("#fdeeee", "#c0392b"),
    "end": ("#f3f3f3", "#666666"),
    "fail": ("#fdeeee", "#c0392b"),
    "pause": ("#f7effc", "#8e5bb0"),
}
_FORK = ("#fafafa", "#8a8a8a")


def svg(flow: Flow, marks: Marks | None = None) -> str:
    """The graph as an SVG image, laid out here."""
    area = picture(flow, marks)
    drawing = lay_out(area, root=True)
    shown = shown_marks(area)
    width, height = drawing.width + 2 * MARGIN, drawing.height + 2 * MARGIN
    if shown:
        width = max(
            width, max(len(LEGEND[mark]) for mark in shown) * CHAR + 2 * MARGIN + LEGEND_SIGN + PAD
        )
        height += MARGIN + len(shown) * LEGEND_HEIGHT
    name = escape(label(flow.program.name, 200))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" '
        f'font-size="12" role="img">',
        f"<title>{name}</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto">'
        '<path d="M0,0.5 L8,4 L0,7.5 z" fill="#555"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    arrows = "".join(
        f'<marker id="arrow-{mark}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="14" '
        f'markerHeight="14" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0,0.5 L8,4 L0,7.5 z" '
        f'fill="{COLOURS[mark][1]}"/></marker>'
        for mark in shown
    )
    if arrows:
        parts.append(f"<defs>{arrows}</defs>")
    _draw(drawing, MARGIN, MARGIN, parts)
    for number, mark in enumerate(shown):
        top = drawing.height + 3 * MARGIN + number * LEGEND_HEIGHT - MARGIN / 2
        paint = _paint(mark, ("#fff", "#777777"))
        parts.append(
            f'<rect x="{MARGIN:.1f}" y="{top:.1f}" width="{LEGEND_SIGN:.1f}" height="14" rx="3" '
            f"{paint}/>"
        )
        parts.append(
            _text(MARGIN + LEGEND_SIGN + PAD, top + 11, LEGEND[mark], "start", 'fill="#444"')
        )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _draw(drawing: Drawing, dx: float, dy: float, parts: list[str]) -> None:
    leaving: dict[Box, list[list[Box]]] = {}
    entering: dict[Box, list[list[Box]]] = {}
    for _, route in drawing.routes:
        leaving.setdefault(route[0], []).append(route)
        entering.setdefault(route[-1], []).append(route)
    for routes in leaving.values():
        routes.sort(key=lambda route: route[1].x)
    for routes in entering.values():
        routes.sort(key=lambda route: route[-2].x)
    labels: list[str] = []
    for line, route in drawing.routes:
        start = dx + _port(route[0], leaving[route[0]], route)
        end = dx + _port(route[-1], entering[route[-1]], route)
        twins = sum(other[-1] is route[-1] for other in leaving[route[0]]) > 1
        ports = TWINS if twins else len(leaving[route[0]])
        parts.append(_curve(drawing, line, route, start, end, ports, dx, dy, labels))
    for line, source, target, lane in drawing.backs:
        y0, y1 = dy + source.y + source.height / 2, dy + target.y + target.height / 2
        x0, x1, x = dx + source.x + source.width / 2, dx + target.x + target.width / 2, dx + lane
        path = f"M{x0:.1f},{y0:.1f} H{x - 8:.1f} Q{x:.1f},{y0:.1f} {x:.1f},{y0 - 8:.1f}"
        path += f" V{y1 + 8:.1f} Q{x:.1f},{y1:.1f} {x - 8:.1f},{y1:.1f} H{x1:.1f}"
        parts.append(_path(path, line))
        labels.append(_edge_text(x + 5, (y0 + y1) / 2, line.label, "start"))
    for layer in drawing.layers:
        for box in layer:
            if box.dot is not None:
                _draw_box(box, box.dot, dx, dy, parts)
    parts += labels


def _port(box: Box, routes: list[list[Box]], route: list[Box]) -> float:
    """Where at the box one of its lines begins or ends."""
    if len(routes) == 1:
        return box.x
    number = next(i for i, other in enumerate(routes) if other is route)
    spread = min((box.shape or box.width) * 0.6, 40.0 * (len(routes) - 1))
    return box.x + spread * (number / (len(routes) - 1) - 0.5)


def _curve(
    drawing: Drawing,
    line: Line,
    route: list[Box],
    start: float,
    end: float,
    ports: int,
    dx: float,
    dy: float,
    labels: list[str],
) -> str:
    x, y = start, dy + route[0].y + route[0].height
    path = f"M{x:.1f},{y:.1f}"
    for i, box in enumerate(route[1:]):
        bottom, top = dy + drawing.bottoms[box.layer - 1], dy + drawing.tops[box.layer]
        if bottom > y:
            path += f" V{bottom:.1f}"
        to, middle = end if box is route[-1] else dx + box.x, (bottom + top) / 2
        path += f" C{x:.1f},{middle:.1f} {to:.1f},{middle:.1f} {to:.1f},{top:.1f}"
        if i == 0 and line.labels:
            if ports == TWINS:
                anchor, at = ("end", -5.0) if start < dx + route[0].x else ("start", 5.0)
            else:
                anchor, at = (
                    ("middle", 0.0)
                    if ports < 3
                    else ("end", 4.0)
                    if to < x - 1
                    else ("start", -4.0)
                )
            labels.append(_edge_text((x + to) / 2 + at, middle + 3, line.label, anchor))
        x, y = to, top
        if box is not route[-1]:
            y = dy + drawing.bottoms[box.layer]
            path += f" V{y:.1f}"
    return _path(path, line)


def _path(path: str, line: Line) -> str:
    dashes = ' stroke-dasharray="4 3"' if line.handled else ""
    colour, wide, arrow = (
        ("#555", "1.2", "arrow")
        if line.mark is None
        else (COLOURS[line.mark][1], "2.6", f"arrow-{line.mark}")
    )
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{wide}"{dashes} '
        f'marker-end="url(#{arrow})"/>'
    )


def _paint(mark: Mark | None, plain: tuple[str, str]) -> str:
    """Fill and stroke of a box of this kind, or of what is marked."""
    fill, stroke = plain
    if mark is None:
        return f'fill="{fill}" stroke="{stroke}" stroke-width="1.2"'
    dashes = ' stroke-dasharray="5 3"' if mark in DASHED else ""
    return (
        f'fill="{COLOURS[mark][0] or fill}" stroke="{COLOURS[mark][1]}" stroke-width="2.8"{dashes}'
    )


def _draw_box(box: Box, item: Dot, dx: float, dy: float, parts: list[str]) -> None:
    w, h = box.shape or box.width, box.height
    x, y = dx + box.x - w / 2, dy + box.y
    h -= len(box.tags) * TEXT_HEIGHT
    paint = _paint(
        item.mark, _FORK if item.frames else _FILLS.get(item.look, ("#f7f7f7", "#777777"))
    )
    if box.width == 12 and item.look == "end":
        parts.append(f'<circle cx="{x + 6:.1f}" cy="{y + 6:.1f}" r="5" fill="#666"/>')
        return
    if item.look == "decision":
        m = y + h / 2
        corners = [
            (x, m),
            (x + 14, y),
            (x + w - 14, y),
            (x + w, m),
            (x + w - 14, y + h),
            (x + 14, y + h),
        ]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        parts.append(f'<polygon points="{points}" {paint}/>')
    else:
        round_ = h / 2 if item.ends else 10 if item.look == "model" or item.frames else 3
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{round_:.0f}" '
            f"{paint}/>"
        )
    texts = labels_of(item)
    top = y + PAD / 2 + 12 if not item.ends else y + 17
    for i, text in enumerate(texts):
        style = 'font-weight="bold"' if i == 0 and len(texts) > 1 else 'fill="#555"' if i else ""
        if item.notes and i >= len(texts) - len(item.notes):
            style = 'fill="#333" font-size="11" font-style="italic"'
        parts.append(_text(x + w / 2, top + i * TEXT_HEIGHT, text, "middle", style))
    for i, tag in enumerate(box.tags):
        parts.append(
            _text(
                x + w / 2,
                y + h + 12 + i * TEXT_HEIGHT,
                tag,
                "middle",
                'fill="#555" font-size="11" font-style="italic"',
            )
        )
    for drawing, left, below, name in box.inner:
        head = TEXT_HEIGHT if name else 0.0
        width, height = frame_size(drawing, name)
        parts.append(
            f'<rect x="{x + left:.1f}" y="{y + below:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" rx="6" '
            'fill="#fff" stroke="#aaa" stroke-dasharray="3 3"/>'
        )
        if name:
            parts.append(
                _text(x + left + 6, y + below + 13, name, "start", 'fill="#555" font-size="11"')
            )
        inset = (width - drawing.width) / 2
        _draw(drawing, x + left + inset, y + below + head + PAD, parts)


def _text(x: float, y: float, text: str, anchor: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style}>{escape(text)}</text>'


def _edge_text(x: float, y: float, text: str, anchor: str) -> str:
    """A label that stays readable over a line: its white outline is drawn first."""
    outline = _text(x, y, text, anchor, 'fill="#fff" stroke="#fff" stroke-width="4" font-size="11"')
    return outline + _text(x, y, text, anchor, 'fill="#444" font-size="11"')
