"""One HTML file that shows a run with no server and no network: data and program of the page in it.

The page is built from ``ui/`` by ``make ui``, and stands in ``dist`` beside this module. Its policy
lets it run its own script by hash and fetch nothing. Data is JSON in a block that no browser
executes, with every character escaped that could end the block.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ..errors import VMError

DIST = Path(__file__).with_name("dist")

SCRIPT, STYLE = "assets/app.js", "assets/app.css"

EDITOR = "assets/editor.js"
"""The editor of programs, which the pages of a server load where somebody edits."""

_SPECIAL = re.compile("[<>&\u2028\u2029]")
_ENDING = re.compile(r"<(?=/script|script|!--)", re.IGNORECASE)


class NotBuilt(VMError):
    """The page was not built into this installation."""

    def __init__(self) -> None:
        super().__init__(
            "the pages of the UI are not built: this is a source tree without them; run 'make ui' "
            "in it (which needs Node), or install a released wheel, which has them"
        )


def asset(name: str) -> bytes:
    """A file of the built page.

    Raises:
        NotBuilt: If it is not there.
    """
    try:
        return (DIST / name).read_bytes()
    except FileNotFoundError:
        raise NotBuilt from None


def page(title: str, data: Mapping[str, Any]) -> str:
    """The file that shows *data*.

    Raises:
        NotBuilt: If the page was not built.
    """
    # a string of the script that begins like markup would end the element that it stands in
    script = _ENDING.sub(r"\\x3c", asset(SCRIPT).decode())
    style = asset(STYLE).decode()
    if "</style" in style.lower():
        raise AssertionError("the style sheet would end the element that it stands in")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "style-src-attr 'unsafe-inline'",  # places of nodes on the canvas
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{style}</style></head>\n"
        '<body><div id="root"></div>\n'
        f'<script type="application/json" id="nano-vm-data">{embedded(data)}</script>\n'
        f"<script>{script}</script></body></html>\n"
    )


def embedded(data: Any) -> str:
    """*data* as JSON that stands in a script element: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return _SPECIAL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
