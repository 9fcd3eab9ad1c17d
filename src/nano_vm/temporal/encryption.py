"""Payloads encrypted before they leave the process (AES-GCM), so that the cluster sees none of them.

The nonce is a keyed hash of the content: the same value gives the same ciphertext, which is then
stored once; who has no key learns of two payloads only whether they are equal.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from ..errors import MissingExtra, VMError
from .conversion import unreadable

ENCODING = b"binary/encrypted"
KEY_BYTES = 32
NONCE_BYTES = 12


class Encryption(PayloadCodec):
    """Encrypts with the first of *keys*, which are by name, and decrypts with any of them.

    Raises:
        VMError: If a key is not 32 bytes long.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingExtra("encryption of payloads", "sign") from None
        if not keys:
            raise VMError("encryption needs a key; give {name: 32 bytes}")
        for name, key in keys.items():
            if len(key) != KEY_BYTES:
                raise VMError(f"key {name!r} has {len(key)} bytes; a key has {KEY_BYTES}")
        self._name = next(iter(keys))
        self._ciphers = {name: AESGCM(_derived(key, b"encrypt")) for name, key in keys.items()}
        self._nonce_key = _derived(keys[self._name], b"nonce")

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See base class."""
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See base class; payloads that are not encrypted pass. One that cannot be decrypted is
        `unreadable`: to raise here would fail the task of a run, and all that others say to it,
        because of one client with a wrong key.
        """
        return [self._decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        plain = payload.SerializeToString(deterministic=True)
        nonce = hmac.digest(self._nonce_key, plain, "sha256")[:NONCE_BYTES]
        sealed = self._ciphers[self._name].encrypt(nonce, plain, self._name.encode())
        metadata = {"encoding": ENCODING, "key": self._name.encode()}
        return Payload(metadata=metadata, data=nonce + sealed)

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        from cryptography.exceptions import InvalidTag

        name = payload.metadata.get("key", b"").decode(errors="replace")
        cipher = self._ciphers.get(name)
        if cipher is None:
            return unreadable(f"a payload is encrypted with key {name!r}, which this process lacks")
        nonce, sealed = payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:]
        try:
            plain = cipher.decrypt(nonce, sealed, name.encode())
        except (InvalidTag, ValueError):  # the latter of one that is shorter than a nonce
            return unreadable(f"a payload was changed, or key {name!r} is another one")
        return Payload.FromString(plain)


def _derived(key: bytes, use: bytes) -> bytes:
    return hmac.digest(key, b"nano-vm temporal " + use, "sha256")


def key_of(text: str) -> bytes:
    """A key as people keep it: 64 hexadecimal digits.

    Raises:
        VMError: If it is none.
    """
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise VMError("an encryption key is 64 hexadecimal digits: openssl rand -hex 32")
    return key


def named(keys: Iterable[bytes]) -> dict[str, bytes]:
    """Keys by a name that each has of itself, which tells nothing of it."""
    return {hashlib.sha256(_derived(key, b"name")).hexdigest()[:16]: key for key in keys}
