"""What the model answered: text comes in, the one JSON object in it goes out."""

from __future__ import annotations

import json
from typing import Any

from ..errors import VMError
from ..values import admit, parse_json, short

MAX_REPLY_BYTES = 1_000_000
"""A reply larger than this is not read: a program may have no more either."""


_DECODER = json.JSONDecoder()


def read_reply(text: str, *, cut: bool = False) -> dict[str, Any]:
    """The one JSON object in *text*; a fence or prose around it must hold no bracket of its own.
    Takes linear time.

    *cut* says that the model was stopped by its ``max_tokens``.

    Raises:
        ValueError: If there is none, more than one, or one that is malformed, broken off, or too
        large.
    """
    if len(text) > MAX_REPLY_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_REPLY_BYTES:
        raise ValueError(f"the reply has more than {MAX_REPLY_BYTES} bytes")
    if not text.strip():
        raise ValueError(
            "the reply is empty: max_tokens were used up before it" if cut else "the reply is empty"
        )
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    start = min(starts, default=-1)
    if start < 0:
        raise ValueError(f"the reply holds no JSON object: {short(text)}")
    if text[start] == "[":
        raise ValueError(
            f"the reply is to be one JSON object, and has a list or brackets first: "
            f"{short(text[start:])}"
        )
    try:
        _, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise ValueError("the reply is nested too deep") from None
    except json.JSONDecodeError as error:
        if cut or error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
            limit = "; it used up max_tokens" if cut else ""
            raise ValueError(
                f"the reply breaks off: its JSON object is not closed{limit}"
            ) from None
        raise ValueError(f"the reply is not JSON at character {error.pos}: {error.msg}") from None
    except ValueError as error:  # an integer that Python refuses to read
        raise ValueError(f"the reply is not JSON: {error}") from None
    if any(bracket in text[end:] for bracket in "{["):
        raise ValueError("the reply holds several JSON values, and it is to be one object")
    try:
        value, _ = admit(parse_json(text[start:end]))
    except (ValueError, VMError) as error:
        raise ValueError(f"the reply cannot be used: {error}") from None
    assert isinstance(value, dict)
    return value
