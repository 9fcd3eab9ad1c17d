"""Payloads over a threshold in a database, each distinct value once, by the hash of its content:
histories hold only references.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    ExternalStorage,
    PayloadCodec,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)

from ..store.protocol import PayloadStore, open_payloads
from .conversion import data_converter

NAME = "nano-vm"
"""The driver's name, which stands in histories: one of another name does not read them."""

THRESHOLD_BYTES = 64 * 1024
"""Payloads from this size on are stored outside of histories; a server refuses those over 2 MB."""


class Storage(StorageDriver):
    """Keeps payloads in *payloads*. Their metadata stand in the reference, so that a value is the
    same wherever it is sent.
    """

    def __init__(self, payloads: PayloadStore) -> None:
        self.payloads = payloads

    def name(self) -> str:
        """See base class."""
        return NAME

    def type(self) -> str:
        """See base class."""
        return "nano-vm-store"

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """See base class."""
        bodies = [payload.data for payload in payloads]
        hashes = await asyncio.to_thread(self.payloads.put, bodies)
        return [
            StorageDriverClaim({"sha256": known, "metadata": _written(payload.metadata)})
            for known, payload in zip(hashes, payloads, strict=True)
        ]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """See base class."""
        hashes = [claim.claim_data["sha256"] for claim in claims]
        bodies = await asyncio.to_thread(self.payloads.get, hashes)
        return [
            Payload(metadata=_read(claim.claim_data["metadata"]), data=body)
            for claim, body in zip(claims, bodies, strict=True)
        ]


def converter_of(url: str | None, encryption: PayloadCodec | None) -> DataConverter:
    """How clients and workers of a cluster read and write payloads: *url* is that of the database of
    large ones.
    """
    return data_converter(encryption, None if url is None else external_storage(open_payloads(url)))


def external_storage(payloads: PayloadStore) -> ExternalStorage:
    """What the SDK's data converter takes."""
    return ExternalStorage(drivers=[Storage(payloads)], payload_size_threshold=THRESHOLD_BYTES)


def _written(metadata: Mapping[str, bytes]) -> str:
    return json.dumps(
        {name: base64.b64encode(value).decode() for name, value in sorted(metadata.items())}
    )


def _read(text: str) -> dict[str, bytes]:
    return {name: base64.b64decode(value) for name, value in json.loads(text).items()}
