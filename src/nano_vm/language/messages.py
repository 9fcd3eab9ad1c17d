"""Messages of a model call: their form, what is wrong with one, what they say.

A message is ``{"role": ..., "content": ...}``; a content is text, or a list of parts: ``{"type":
"text", "text": ...}`` and ``{"type": "image_url", "image_url": {"url": ..., "detail": "auto" |
"low" | "high"}}``, as OpenAI has them. The url is of ``http`` or ``https``, or the picture itself:
``data:image/png;base64,...``. Nothing here fetches or decodes one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..values import short

ROLES = ("system", "developer", "user", "assistant")
DETAILS = ("auto", "low", "high")
PART_FORM = "{type: text, text: ...} or {type: image_url, image_url: {url: ...}}"

SCHEMA: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {"role": {"enum": ["user", "assistant"]}, "content": {"type": "string"}},
        "required": ["role", "content"],
        "additionalProperties": False,
    },
}
"""Of a conversation of texts, as a program may declare it of an input."""

_WEB = re.compile(r"https?://[^\s]+\Z")
_DATA = re.compile(r"data:image/[\w.+-]+;base64,[A-Za-z0-9+/]+={0,2}\Z")


def fault_of(messages: Any) -> str | None:
    """The first fault of *messages* with its place, or None: a list of at least one message."""
    if not isinstance(messages, list):
        return f"a list of messages, not {short(messages)}"
    if not messages:
        return "there is none: a call needs at least one message"
    for i, message in enumerate(messages):
        if fault := message_fault(message):
            return f"[{i}]{fault}"
    return None


def message_fault(message: Any) -> str | None:
    """What is wrong with one message, after the place in it."""
    if not isinstance(message, dict):
        return f": an object with role and content, not {short(message)}"
    if message.get("role") not in ROLES:
        return f".role: one of {', '.join(ROLES)}, not {short(message.get('role'))}"
    for key in message:
        if key not in ("role", "content"):
            return f": a field {short(key)}, which can not be sent; a message has role and content"
    content = message.get("content")
    if isinstance(content, str):
        return None
    if not isinstance(content, list) or not content:
        return f".content: a text or a list of parts, not {short(content)}"
    for i, part in enumerate(content):
        if fault := part_fault(part):
            return f".content[{i}]{fault}"
        if part["type"] == "image_url" and message["role"] != "user":
            return (
                f".content[{i}]: a picture stands in a message of the user, not of the "
                f"{message['role']}"
            )
    return None


def part_fault(part: Any) -> str | None:
    """What is wrong with one part of a content, after the place in it."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and part.keys() == {"type", "text"} and isinstance(part["text"], str):
        return None
    image = (
        part.get("image_url")
        if kind == "image_url" and part.keys() == {"type", "image_url"}
        else None
    )
    if not isinstance(image, dict) or not {"url"} <= image.keys() <= {"url", "detail"}:
        return f": a part is {PART_FORM}, not {short(part)}"
    if image.get("detail", "auto") not in DETAILS:
        return f".image_url.detail: one of {', '.join(DETAILS)}, not {short(image['detail'])}"
    return f".image_url.url: {fault}" if (fault := url_fault(image["url"])) else None


def url_fault(url: Any) -> str | None:
    """What is wrong with the address of a picture."""
    if isinstance(url, str) and (_WEB.match(url) or _DATA.match(url)):
        return None
    return f"http://..., https://... or data:image/...;base64,... is needed, not {short(url)}"


def parts_of(messages: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """The parts of those contents that have any."""
    for message in messages:
        if isinstance(message["content"], list):
            yield from message["content"]


def has_pictures(messages: Iterable[Any]) -> bool:
    """Whether any of *messages* shows a picture."""
    return any(part["type"] == "image_url" for part in parts_of(messages))


def joined(messages: Iterable[Any]) -> list[dict[str, Any]]:
    """*messages* with the parts of each content, which are all texts, as one text."""
    return [{**message, "content": text_of(message)} for message in messages]


def text_of(message: Any) -> str:
    """What a message says; of parts, the texts, one a line."""
    content = message["content"]
    return (
        content
        if isinstance(content, str)
        else "\n".join(part["text"] for part in content if part["type"] == "text")
    )
