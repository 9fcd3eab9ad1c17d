"""PNG of a picture: the SVG that `graph.svg` draws, as pixels."""

from __future__ import annotations

from ..errors import MissingExtra, VMError

SCALE = 2.0
"""Pixels for each unit of the SVG: sharp on the screens of today."""

FAMILIES = (
    "Arial",
    "Helvetica",
    "DejaVu Sans",
    "Liberation Sans",
    "Noto Sans",
    "Segoe UI",
    "Roboto",
    "Ubuntu",
    "Cantarell",
)
"""What the common systems have. Resvg knows fonts by name only: a string in a family that is not
there is left out without a word.
"""

_PROBE = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{}</svg>'
_LETTER = '<text x="1" y="15" font-family="sans-serif">A</text>'


def png(svg: str) -> bytes:
    """The picture *svg* as PNG, by resvg.

    Raises:
        MissingExtra: If resvg is not installed.
        VMError: If none of `FAMILIES` is, so that every text would be missing.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise MissingExtra("PNG", "png") from None
    empty, letter = svg_to_bytes(_PROBE.format("")), _PROBE.format(_LETTER)
    for family in FAMILIES:
        if svg_to_bytes(letter, sans_serif_family=family) != empty:
            return svg_to_bytes(svg, zoom=SCALE, background="white", sans_serif_family=family)
    raise VMError(
        "this machine has no font that a PNG could be written with; install one, such as DejaVu "
        "(apt-get install fonts-dejavu-core), or draw SVG"
    )
