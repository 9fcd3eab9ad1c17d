"""Messages of a model call: their form, what is wrong with one, what they say.

A message is ``{"role": ..., "content": ...}``; a content is text, or a list of parts: ``{"type":
"text", "text": ...}``, ``{"type": "image_url", "image_url": {"url": ..., "detail": "auto" | "low" |
"high"}}`` and ``{"type": "file", "file": {"file_data": ..., "filename": ...}}``, as OpenAI has them.
The url is of ``http`` or ``https``, or the picture itself: ``data:image/png;base64,...``; the data
of a file are ``data:application/pdf;base64,...`` or ``data:text/plain;base64,...``. Nothing here
fetches or decodes one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..values import short

ROLES = ("system", "developer", "user", "assistant")
DETAILS = ("auto", "low", "high")
PART_FORM = (
    "{type: text, text: ...} or {type: image_url, image_url: {url: ...}} or "
    "{type: file, file: {file_data: ...}}"
)

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
"""Of a conversation of strings, as a program may declare it of an input."""

_WEB = re.compile(r"https?://[^\s]+\Z")
_FILE = re.compile(r"data:(?:application/pdf|text/plain);base64,[A-Za-z0-9+/]+={0,2}\Z")
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
            return f": a field {short(key)}, which cannot be sent; a message has role and content"
    content = message.get("content")
    if isinstance(content, str):
        return None
    if not isinstance(content, list) or not content:
        return f".content: a string or a list of parts, not {short(content)}"
    for i, part in enumerate(content):
        if fault := part_fault(part):
            return f".content[{i}]{fault}"
        if part["type"] != "text" and message["role"] != "user":
            what = misplaced(part, message["role"])
            return f".content[{i}]: {what}"
    return None


def misplaced(part: dict[str, Any], role: Any) -> str:
    """That *part*, which is no text, stands in a message of another role than the user's."""
    what = "a picture" if part["type"] == "image_url" else "a file"
    return f"{what} stands in a message of the user, not of the {role}"


def part_fault(part: Any) -> str | None:
    """What is wrong with one part of a content, after the place in it."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and part.keys() == {"type", "text"} and isinstance(part["text"], str):
        return None
    if kind == "file" and part.keys() == {"type", "file"}:
        return _file_fault(part["file"])
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


def _file_fault(file: Any) -> str | None:
    if not isinstance(file, dict) or not {"file_data"} <= file.keys() <= {"file_data", "filename"}:
        return f".file: a file is {{file_data: ..., filename: ...}}, not {short(file)}"
    if not isinstance(file.get("filename", ""), str):
        return f".file.filename: a string, not {short(file['filename'])}"
    data = file["file_data"]
    if isinstance(data, str) and _FILE.match(data):
        return None
    return (
        f".file.file_data: data:application/pdf;base64,... or data:text/plain;base64,... is "
        f"needed, not {short(data)}"
    )


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


def has_parts(messages: Iterable[Any]) -> bool:
    """Whether the content of any of *messages* is a list."""
    for message in messages:  # noqa: SIM110 - every call of a model asks; this takes half as long
        if type(message["content"]) is list:
            return True
    return False


def has_pictures(messages: Iterable[Any]) -> bool:
    """Whether any of *messages* shows a picture."""
    return any(part["type"] == "image_url" for part in parts_of(messages))


def has_files(messages: Iterable[Any]) -> bool:
    """Whether any of *messages* shows a file."""
    return any(part["type"] == "file" for part in parts_of(messages))


def joined(messages: Iterable[Any]) -> list[dict[str, Any]]:
    """*messages* with the parts of each content, which are all strings, as one text."""
    return [{**message, "content": text_of(message)} for message in messages]


def text_of(message: Any) -> str:
    """What a message says; of parts, the strings, one a line."""
    content = message["content"]
    return (
        content
        if isinstance(content, str)
        else "\n".join(part["text"] for part in content if part["type"] == "text")
    )
