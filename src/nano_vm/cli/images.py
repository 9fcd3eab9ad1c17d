"""Pictures in terminals that can show them: by the protocol of kitty, or of iTerm2.

PNG comes in, what the terminal is sent goes out. Which protocol a terminal speaks is read off the
environment, as it says so there; nothing is asked of the terminal itself.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

CHUNK = 4096
"""Base64 of one message of kitty's protocol, which takes no more."""

KITTY = frozenset({"kitty", "ghostty"})
ITERM = frozenset({"iTerm.app", "WezTerm", "vscode"})


def protocol(environment: Mapping[str, str], *, terminal: bool) -> str | None:
    """``kitty`` or ``iterm``, or None where the terminal is not known to show pictures."""
    if not terminal or environment.get("TMUX") or environment.get("STY"):
        return None  # inside of these the messages do not arrive
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("KITTY_WINDOW_ID") or term.removeprefix("xterm-") in KITTY:
        return "kitty"
    if program in KITTY:
        return "kitty"
    return "iterm" if program in ITERM else None


def messages(png: bytes, spoken: str) -> Iterator[str]:
    """What shows *png* in a terminal that speaks a protocol."""
    data = base64.b64encode(png).decode()
    if spoken == "iterm":
        yield f"\x1b]1337;File=inline=1;size={len(png)}:{data}\x07\n"
        return
    for at in range(0, len(data), CHUNK):
        more = int(at + CHUNK < len(data))
        head = f"a=T,f=100,m={more}" if at == 0 else f"m={more}"
        yield f"\x1b_G{head};{data[at : at + CHUNK]}\x1b\\"
    yield "\n"
