"""JSON values: what may enter at the border, its canonical bytes, and its text inside a template.

A value comes in from outside (inputs, outcomes of calls, literals of a program), and goes out
plain: None, bool, int, float, str, list, dict with text keys; finite, acyclic, of bounded size, in
containers that nobody else holds. Nothing here looks at what a string says.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Any, TypeVar

from .errors import LimitExceeded, ValueRefused

Value = TypeVar("Value")

MAX_DEPTH = 100
"""Levels of nesting in one value. Python's own JSON reader stops near 1,000; .NET's at 64, PHP's at
512.
"""

MAX_INT_BITS = 4096
"""Bits of an integer: room for RSA-4096 numbers; Python's own text limit of 4,300 digits is above
it.
"""

MAX_VALUE_BYTES = 16 * 1024 * 1024
"""Size of one value; MongoDB's document limit. A host may set another in `Limits`."""

NODE_BYTES = 8
"""What a scalar, or an entry of a container, counts for, beside its text."""

SMALL_TEXT = 4096
"""Shorter strings are not counted one by one: as many as a run may have steps are a sixth of its
state.
"""

SMALL_INT = 1 << 63  # below this an int needs no look at its bit length
MINUS_SMALL_INT = -SMALL_INT  # made once: to negate it costs as much as the look


class Unset:
    """The value of a name that nothing has written yet."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = Unset()


def admit(value: object, limit: int = MAX_VALUE_BYTES) -> tuple[Any, int]:
    """*value* as plain data in fresh containers, with its size in bytes.

    Raises:
        ValueRefused: If it has no exact JSON form; the message says where and what to return
        instead. LimitExceeded: If it is larger than *limit* bytes.
    """
    kind = type(value)
    if kind is str:
        size = text_size(value, ())  # type: ignore[arg-type]
        if size > limit:
            raise LimitExceeded(f"value is larger than {limit} bytes")
        return value, size
    if kind is dict or kind is list:
        try:
            return plain_copy(value, limit)
        except NotPlain:
            pass  # the long way finds the place, or converts
    if value is None or kind is bool:
        return value, NODE_BYTES
    if kind is int and MINUS_SMALL_INT < value < SMALL_INT:  # type: ignore[operator]
        return value, NODE_BYTES
    return converted(value, limit)


def converted(value: object, limit: int) -> tuple[Any, int]:
    """As `admit`, which asks this of what is not plain: it knows places and conversions."""
    walk = _Walk(limit)
    try:
        plain = walk.plain(value, 0, ())
    except (ValueRefused, LimitExceeded):
        raise
    except Exception as error:
        raise ValueRefused(
            f"{kind_name(value)} could not be converted: {kind_name(error)}; return plain data"
        ) from error
    if walk.size > limit:
        raise LimitExceeded(f"value is larger than {limit} bytes")
    return plain, walk.size


class NotPlain(Exception):
    """Something is not plain, or may not be."""


def plain_copy(value: Any, limit: int, depth: int = 1) -> tuple[Any, int]:
    """As `admit`, of a list or dict whose values are plain, in a third of the time of `converted`.

    Raises:
        NotPlain: If they may not be.
    """
    if depth > MAX_DEPTH:
        raise NotPlain
    copy = value.copy()
    total = NODE_BYTES * (len(copy) + 1)
    # The look at a scalar stands in both loops: as a function of its own it would double the time of
    # each.
    if type(copy) is dict:
        for key, item in copy.items():
            if type(key) is not str:
                raise NotPlain
            total += len(key) if key.isascii() else _encoded(key)
            kind = type(item)
            if kind is str:
                total += len(item) if item.isascii() else _encoded(item)
            elif kind is int:
                if not MINUS_SMALL_INT < item < SMALL_INT:
                    raise NotPlain
            elif kind is dict or kind is list:
                copy[key], size = plain_copy(item, limit, depth + 1)
                total += size - NODE_BYTES  # it is counted as an entry
                if total > limit:  # one that stands here a thousand times is not copied as often
                    raise NotPlain
            elif kind is float:
                if item - item != 0.0:
                    raise NotPlain
            elif item is not None and kind is not bool:
                raise NotPlain
    else:
        nested = False
        for item in copy:
            kind = type(item)
            if kind is str:
                total += len(item) if item.isascii() else _encoded(item)
            elif kind is int:
                if not MINUS_SMALL_INT < item < SMALL_INT:
                    raise NotPlain
            elif kind is dict or kind is list:
                nested = True
            elif kind is float:
                if item - item != 0.0:
                    raise NotPlain
            elif item is not None and kind is not bool:
                raise NotPlain
        if nested:
            for at, item in enumerate(copy):
                if type(item) is dict or type(item) is list:
                    copy[at], size = plain_copy(item, limit, depth + 1)
                    total += size - NODE_BYTES
                    if total > limit:
                        raise NotPlain
    if total > limit:  # the long way, which counts in the same order, would say the same
        raise LimitExceeded(f"value is larger than {limit} bytes")
    return copy, total


def _encoded(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise NotPlain from None


def is_small(value: Any) -> bool:
    """Whether a scalar is one that needs no counting: a short text, a number of 64 bits, true,
    false, null.
    """
    kind = type(value)
    if kind is str:
        try:
            return len(value) < SMALL_TEXT and (value.isascii() or len(value.encode()) < SMALL_TEXT)
        except UnicodeEncodeError:
            return False
    if kind is int:
        return bool(MINUS_SMALL_INT < value < SMALL_INT)
    if kind is float:
        return bool(value - value == 0.0)
    return value is None or kind is bool


class _Walk:
    """One pass over one value; ``size`` grows as it goes, so that sharing cannot make it
    endless.
    """

    __slots__ = ("in_model", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.in_model = 0  # how many pydantic models stand around the value

    def plain(self, value: Any, depth: int, at: tuple[Any, ...]) -> Any:
        self.size += NODE_BYTES
        kind = type(value)
        if kind is str:
            self.size += text_size(value, at)
        elif value is None or kind is bool:
            return value
        elif kind is int:
            if not MINUS_SMALL_INT < value < SMALL_INT:
                bits = value.bit_length()
                if bits > MAX_INT_BITS:
                    raise refused(
                        at,
                        f"an integer of {bits} bits",
                        f"return at most {MAX_INT_BITS} bits, or a string",
                    )
                self.size += bits // 3  # its digits: a list of two million would be 2.4 GB of text
        elif kind is float:
            if not isfinite(value):
                raise refused(at, repr(value), "JSON has no such number; return None or a string")
        elif kind is list:
            return self.items(value, depth, at)
        elif kind is dict:
            return self.entries(value, depth, at)
        else:
            return self.converted(value, depth, at)
        if self.size > self.limit:
            raise LimitExceeded(f"value is larger than {self.limit} bytes")
        return value

    def items(self, value: Any, depth: int, at: tuple[Any, ...]) -> list[Any]:
        self.check(depth, at)
        plain, below = self.plain, depth + 1
        return [plain(item, below, (*at, i)) for i, item in enumerate(value)]

    def entries(self, value: Any, depth: int, at: tuple[Any, ...]) -> dict[str, Any]:
        self.check(depth, at)
        plain, below = self.plain, depth + 1
        result = {}
        for key, item in value.items():
            if type(key) is not str:
                if not isinstance(key, str):
                    raise refused(at, f"a dict with the key {short(key)}", "keys must be strings")
                key = key.value if isinstance(key, Enum) else str.__str__(key)
            self.size += text_size(key, at)
            result[key] = plain(item, below, (*at, key))
        return result

    def check(self, depth: int, at: tuple[Any, ...]) -> None:
        if depth >= MAX_DEPTH:
            raise refused(
                at[:8], f"nested deeper than {MAX_DEPTH} levels, or contains itself", "flatten it"
            )
        if self.size > self.limit:
            raise LimitExceeded(f"value is larger than {self.limit} bytes")

    def converted(self, value: Any, depth: int, at: tuple[Any, ...]) -> Any:
        """What has an exact JSON form under another type."""
        if isinstance(value, Enum):
            self.check(depth, at)
            return self.plain(value.value, depth + 1, at)
        if isinstance(value, str):
            return self.plain(str.__str__(value), depth, at)
        if isinstance(value, int):
            return self.plain(int.__int__(value), depth, at)
        if isinstance(value, float):
            return self.plain(float.__float__(value), depth, at)
        if isinstance(value, (list, tuple)):
            return self.items(value, depth, at)
        if isinstance(value, dict):
            return self.entries(value, depth, at)
        if isinstance(value, (datetime, date, time)):
            if value != value:  # pandas' NaT is a datetime that is none
                raise refused(at, repr(value), "JSON has no such time; return None or a string")
            return value.isoformat()
        if isinstance(value, Decimal):
            return exact_number(value, at)
        if not isinstance(value, type):
            if any(
                (base.__module__.partition(".")[0], base.__name__) in _TEXTUAL
                for base in type(value).__mro__
            ):
                return self.plain(str(value), depth, at)
            if isinstance(value, timedelta):
                return self.plain(_duration(value), depth, at)
            # in the order of the members' bytes: that of a set is no fact
            if isinstance(value, (set, frozenset)):
                return sorted((self.plain(item, depth + 1, at) for item in value), key=canonical)
            if isinstance(value, deque):
                return self.items(value, depth, at)
            home = type(value).__module__.partition(".")[0]
            if home == "numpy" and callable(getattr(value, "tolist", None)):
                return self.plain(value.tolist(), depth, at)  # of a scalar, the Python number
            if home in ("pydantic", "pydantic_core") and type(value).__name__.endswith("Url"):
                return self.plain(str(value), depth, at)
            if callable(getattr(type(value), "model_dump", None)):
                return self.modelled(value, depth, at)
            if self.in_model:
                with suppress(UnicodeDecodeError):
                    if isinstance(value, (bytes, bytearray)):
                        return self.plain(value.decode(), depth, at)
                if home == "pydantic" and type(value).__name__.startswith("Secret"):
                    # asterisks: what a model keeps secret stays so
                    return self.plain(str(value), depth, at)
            if dataclasses.is_dataclass(value):
                fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
                return self.entries(fields, depth, at)
            attributes = getattr(type(value), "__attrs_attrs__", None)
            if attributes is not None:
                return self.entries({a.name: getattr(value, a.name) for a in attributes}, depth, at)
        raise refused(at, f"a value of type {kind_name(value)}", remedy(value))

    def modelled(self, value: Any, depth: int, at: tuple[Any, ...]) -> Any:
        """A pydantic model by its fields; bytes and secrets in them as pydantic writes them."""
        self.in_model += 1
        try:
            return self.plain(value.model_dump(), depth, at)
        finally:
            self.in_model -= 1


_TEXTUAL = {("uuid", "UUID"), ("pathlib", "PurePath"), ("ipaddress", "_IPAddressBase")}
"""Types whose `str` is the form in which everybody writes them; by name, since most programs import
none of them.
"""


def _duration(value: timedelta) -> str:
    """ISO 8601, to the microsecond, as pydantic writes it."""
    sign = "-" if value < timedelta(0) else ""
    value = abs(value)
    hours, rest = divmod(value.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    fraction = f".{value.microseconds:06d}".rstrip("0").rstrip(".")
    days = f"{value.days}D" if value.days else ""
    parts = f"{hours}H" * bool(hours) + f"{minutes}M" * bool(minutes)
    if seconds or value.microseconds or not (days or parts):
        parts += f"{seconds}{fraction}S"
    return f"{sign}P{days}" + (f"T{parts}" if parts else "")


def writable(text: str) -> str:
    """*text* with its lone surrogates escaped, which have no form in UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def is_text(text: str) -> bool:
    """Whether a string is one that UTF-8 has and a database holds."""
    return "\x00" not in text and writable(text) == text


def printable(text: str) -> str:
    """*text* with a mark for each character that has no form on a line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def text_size(text: str, at: tuple[Any, ...]) -> int:
    """The UTF-8 length of *text*, which must not hold a lone surrogate."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise refused(
            at, "a string with a lone surrogate", "decode it with errors='replace'"
        ) from None


def exact_number(value: Decimal, at: tuple[Any, ...] = ()) -> int | float:
    """A Decimal as the JSON number that reads back as the same Decimal."""
    # above it no float; an int this long is no amount
    if value.is_finite() and value.adjusted() < 400:
        if value == value.to_integral_value() and value.as_tuple().exponent >= 0:  # type: ignore[operator]
            return int(value)
        number = float(value)
        if isfinite(number) and Decimal(repr(number)) == value:
            return number
    raise refused(at, f"{value!r}, which no JSON number holds exactly", "return str(value)")


def refused(at: tuple[Any, ...], what: str, hint: str) -> ValueRefused:
    """The error for what cannot come in, with its place inside the value."""
    place = "value" + "".join(f"[{part!r}]" for part in at)
    return ValueRefused(f"{place} is {what}; {hint}")


def error_named(error: BaseException) -> str:
    """The class of an exception and its message; the class alone where it has none."""
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def kind_name(value: object) -> str:
    """``module.Class`` of *value*, or the bare name of a builtin."""
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def remedy(value: object) -> str:
    """What to return instead of a *value* that is not JSON."""
    if inspect.isasyncgen(value) or inspect.isgenerator(value):
        return "collect it into a list"
    if inspect.isawaitable(value):
        return "await it"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "decode it to a string"
    return "return None, bool, int, float, str, list or dict"


def short(value: object, length: int = 60) -> str:
    """`repr` cut to *length* characters; a hostile ``__repr__`` does no harm."""
    try:
        text = _glance(value, length)
    except Exception:  # noqa: BLE001 - a hostile __repr__
        text = f"<{kind_name(value)}>"
    return text if len(text) <= length else text[: length - 3] + "..."


def _glance(value: object, length: int) -> str:
    """The first characters of ``repr(value)``, at least *length* of them, without making those of a
    large one.
    """
    kind = type(value)
    if kind is str:
        return repr(value[: length * 2])  # type: ignore[index]
    if kind is dict:
        items = value.items()  # type: ignore[attr-defined]
        parts, ends = (f"{_glance(k, length)}: {_glance(v, length)}" for k, v in items), "{}"
    elif kind is list:
        parts, ends = (_glance(item, length) for item in value), "[]"  # type: ignore[attr-defined]
    else:
        return repr(value)
    text = ""
    for part in parts:
        text += f", {part}" if text else part
        if len(text) > length:
            break
    return f"{ends[0]}{text}{ends[1]}"


_encoder = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
)
_encode: Callable[[Any], str] = _encoder.encode
if json.encoder.c_make_encoder is not None:  # type: ignore[attr-defined]
    # What `JSONEncoder.encode` makes anew for every value costs three times what the value itself does.
    _chunks = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
        None, _encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False
    )

    def _encode(value: Any) -> str:
        if type(value) is str:
            return json.encoder.encode_basestring(value)
        return "".join(_chunks(value, 0))


def canonical(value: Any) -> bytes:
    """The canonical bytes of a plain value: no spaces, insertion order, shortest floats, UTF-8."""
    return _encode(value).encode()


def as_text(value: Any) -> str:
    """A plain value inside text: strings as they are, scalars by ``str``, lists and dicts as
    canonical JSON.
    """
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if kind is list or kind is dict:
        return _encode(value)
    return str(value)


def copied(value: Value) -> Value:
    """A plain value in fresh containers."""
    plain: Any = value  # of type `Any`, which both containers fit
    kind = type(plain)
    if kind is list:
        plain = [copied(item) if type(item) in CONTAINERS else item for item in plain]
    elif kind is dict:
        plain = {
            key: copied(item) if type(item) in CONTAINERS else item for key, item in plain.items()
        }
    return plain  # type: ignore[no-any-return]


def weighed(value: Any) -> Any:
    """*value*, a plain one that was built of others, if all of it is no larger than one value may
    be.

    Raises:
        LimitExceeded: If it is larger; the count stops there, so that parts which are named many
        times do no harm.
    """
    if type(value) not in CONTAINERS:
        return value
    total, work = 0, [value]
    while work:
        at = work.pop()
        total += NODE_BYTES * len(at)
        if type(at) is dict:
            total += sum(map(len, at))
            at = at.values()
        for item in at:
            if type(item) is str:
                total += len(item)
            elif type(item) in CONTAINERS:
                work.append(item)
        if total > MAX_VALUE_BYTES or len(work) > MAX_VALUE_BYTES // NODE_BYTES:
            raise LimitExceeded(f"value is larger than {MAX_VALUE_BYTES} bytes")
    return value


CONTAINERS = frozenset({list, dict})
SCALARS = frozenset({str, int, float, bool, type(None)})


LONG_INTEGER = "an integer of more than 4,096 bits; write it as a string"


def parse_json(text: str) -> Any:
    """The one JSON value in *text*; duplicate keys and non-finite numbers are errors.

    Raises:
        ValueError: With what is wrong and where.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) < len(items):
            raise ValueError("a key stands twice in one object")
        return result

    def constant(word: str) -> Any:
        raise ValueError(f"{word} is not a JSON number")

    def finite(digits: str) -> float:
        number = float(digits)
        if not isfinite(number):
            raise ValueError(f"{digits} is not a finite number")
        return number

    try:
        return json.loads(
            text, object_pairs_hook=pairs, parse_constant=constant, parse_float=finite
        )
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as error:
        if "int_max_str_digits" in str(error):  # Python's remedy would be none: see `admit`
            raise ValueError(LONG_INTEGER) from None
        raise
