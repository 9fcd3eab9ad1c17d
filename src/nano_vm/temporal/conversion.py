"""How values travel as Temporal payloads: as JSON with the keys in their order, and outcomes as
themselves.

The SDK's own converter sorts the keys of objects, which changes what a template prints of them. A
tool's value is the whole of its payload, so that it is the same bytes wherever it is sent.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
    ExternalStorage,
    JSONPlainPayloadConverter,
    PayloadCodec,
)

from ..errors import VMError
from ..machine.outcome import KINDS, Value, outcome_json, outcome_of
from .failures import SAME_FOR_ALL

MARK = "nano-vm"
"""The metadata of a payload that is an outcome: how it is written."""

UNREADABLE = "binary/unreadable"
"""The encoding of what stands for a payload that cannot be read; it is in no history."""

_OUTCOMES = tuple(KINDS.values())


def json_bytes(value: Any) -> bytes:
    """*value* as JSON, its keys in their order. A lone surrogate, which UTF-8 has not, is escaped."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


PAYLOAD_BYTES = 2_000_000
"""The most that a payload may have which is not stored apart: a server refuses more than 2 MiB, and
metadata and encryption add some.
"""


def most_bytes(converter: DataConverter) -> int:
    """The most bytes of a payload that *converter* sends; 0 where it stores large ones apart."""
    return PAYLOAD_BYTES if converter.external_storage is None else 0


def excess(values: Iterable[Any], most: int) -> int:
    """How many bytes the first of *values* has that has more than *most*; 0 where none has, or
    nothing limits them (0).
    """
    sizes = (len(json_bytes(_held(value))) for value in values) if most else ()
    return next((size for size in sizes if size > most), 0)


def _held(value: Any) -> Any:
    """What the payload of *value* holds."""
    if isinstance(value, Value):
        return value.value
    return outcome_json(value) if isinstance(value, _OUTCOMES) else value


class OrderedJSON(JSONPlainPayloadConverter):
    """JSON as the SDK reads and writes it, but for the order of keys; outcomes are marked."""

    def to_payload(self, value: Any) -> Payload | None:
        """The payload of *value*; what JSON does not have is left to the SDK's encoder."""
        metadata = {"encoding": self.encoding.encode()}
        if isinstance(value, _OUTCOMES):
            metadata[MARK] = b"value" if isinstance(value, Value) else b"outcome"
        try:
            return Payload(metadata=metadata, data=json_bytes(_held(value)))
        except (TypeError, ValueError):
            return super().to_payload(value)

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        """What the payload holds."""
        mark = payload.metadata.get(MARK)
        if mark is None:
            return super().from_payload(payload, type_hint)
        held = json.loads(payload.data)
        return Value(held) if mark == b"value" else outcome_of(held)


def unreadable(why: str) -> Payload:
    """What stands for a payload that cannot be read: an error for who needs its value."""
    return Payload(metadata={"encoding": UNREADABLE.encode()}, data=why.encode())


class Unreadable(EncodingPayloadConverter):
    """Reads no payload, and says why."""

    @property
    def encoding(self) -> str:
        """See base class."""
        return UNREADABLE

    def to_payload(self, value: Any) -> None:
        """See base class; no value is written so."""

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        """See base class.

        Raises:
            VMError: Always.
        """
        raise VMError(payload.data.decode())


class NanoPayloadConverter(CompositePayloadConverter):
    """The SDK's converters, with JSON that keeps the order of keys."""

    def __init__(self) -> None:
        known = DefaultPayloadConverter.default_encoding_payload_converters
        ours = OrderedJSON()
        converters: list[EncodingPayloadConverter] = [
            ours if one.encoding == ours.encoding else one for one in known
        ]
        super().__init__(*converters, Unreadable())

    def from_payloads(
        self, payloads: Sequence[Payload], type_hints: list[type] | None = None
    ) -> list[Any]:
        """What the payloads hold.

        Raises:
            VMError: If one has an encoding that nothing here reads, as where it is encrypted.
        """
        try:
            return super().from_payloads(payloads, type_hints)
        except KeyError as error:
            raise VMError(str(error.args[0])) from None


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Ask the cluster meanwhile for *what* is to be decoded here.

    Raises:
        VMError: If it cannot be decoded, with what this process needs for it.
    """
    try:
        yield
    except (RuntimeError, VMError) as error:
        raise VMError(f"{what} cannot be decoded here: {error}; {SAME_FOR_ALL}") from error


def data_converter(
    codec: PayloadCodec | None = None,
    storage: ExternalStorage | None = None,
    *,
    beside: DataConverter | None = None,
) -> DataConverter:
    """The converter that clients and workers share: *beside* is one that a host has already, of
    which all else is kept.
    """
    known = DataConverter() if beside is None else beside
    return dataclasses.replace(
        known,
        payload_converter_class=NanoPayloadConverter,
        payload_codec=known.payload_codec if codec is None else codec,
        external_storage=known.external_storage if storage is None else storage,
    )
