"""Values encrypted where they lie: AES-256-GCM, with keys of the host.

The canonical bytes of a value come in; bytes that begin with `MARK` go out, and back. Equal values
under one key give equal bytes, so that a value which many runs hold is stored once and a repeated
write is recognised: the nonce is a keyed hash of the value (a synthetic IV, after P. Rogaway, T.
Shrimpton, "Deterministic Authenticated-Encryption", EUROCRYPT 2006). Whoever reads the database
learns that two values are equal, and how long they are. ``cryptography`` is imported when a key is
used, and not before.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import MissingExtra, StoreError, VMError

MARK = b"$"
"""How an encrypted value begins; JSON does not, nor does any other cell."""

ANY_PROJECT = ""
"""In the place of a project's name: each that has no key of its own."""

KEY_BYTES = 32
ID_BYTES, NONCE_BYTES = 4, 12

KEYS = "NANO_VM_STORE_KEY"
KEY_FILE = "NANO_VM_STORE_KEY_FILE"
"""The variables that hold keys, or the path of a file of them."""


class StoreKeys:
    """Keys of a store, each of 32 bytes in hexadecimal: the first encrypts, all decrypt. So a key is
    replaced by putting a new one before it. One with ``project:`` before it is for the runs of that
    project, the others are for all that have none of their own.

    Raises:
        VMError: If one is no key, or there is none for runs of any project.
        MissingExtra: If ``cryptography`` is not installed.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        found = [_key(number, text) for number, text in enumerate(keys, start=1)]
        self._first: dict[str, tuple[bytes, Any, bytes]] = {}
        self._by_id: dict[bytes, Any] = {}
        for project, key in found:
            made = _id(key), _aes(key), _derived(key, b"nonce")
            self._first.setdefault(project, made)
            self._by_id[made[0]] = made[1]
        if ANY_PROJECT not in self._first:
            every = " for runs of any project" if found else ""
            raise VMError(f"there is no key{every}; {_HOW}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> StoreKeys | None:
        """Those that `KEYS` (with commas between them) or the file of `KEY_FILE` (one a line)
        names; None where neither is set.

        Raises:
            VMError: If there is no such file, or it holds no keys.
        """
        if text := environment.get(KEYS):
            return cls(part.strip() for part in text.split(","))
        path = environment.get(KEY_FILE)
        if not path:
            return None
        try:
            lines = Path(path).read_text(encoding="utf-8").split()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise VMError(f"cannot read the keys of the store, {path}: {reason}") from None
        return cls(lines)

    def seal(self, body: bytes, project: str = ANY_PROJECT) -> bytes:
        """*body*, encrypted by the first key of *project*, or of those for any."""
        key_id, cipher, hashing = self._first.get(project) or self._first[ANY_PROJECT]
        nonce = hmac.new(hashing, body, sha256).digest()[:NONCE_BYTES]
        return MARK + key_id + nonce + bytes(cipher.encrypt(nonce, body, key_id))

    def open(self, sealed: bytes, where: str) -> bytes:
        """The inverse of `seal`.

        Raises:
            StoreError: If none of the keys fits, or what is there was changed.
        """
        key_id = sealed[1 : 1 + ID_BYTES]
        cipher = self._by_id.get(key_id)
        if cipher is None:
            raise StoreError(
                f"{where}: a value is encrypted by the key {key_id.hex()}, which is not among those "
                f"that are given; {_HOW}"
            )
        nonce = sealed[1 + ID_BYTES : 1 + ID_BYTES + NONCE_BYTES]
        try:
            return bytes(cipher.decrypt(nonce, sealed[1 + ID_BYTES + NONCE_BYTES :], key_id))
        except Exception:  # noqa: BLE001 - which exceptions, the library does not say
            raise StoreError(
                f"{where}: an encrypted value does not fit its key; the database is damaged"
            ) from None


_HOW = f"set {KEYS} to 64 hexadecimal digits, as `openssl rand -hex 32` gives them"


def opened(body: bytes, keys: StoreKeys | None, where: str) -> bytes:
    """*body* as it was before it was encrypted, if it was.

    Raises:
        StoreError: As `StoreKeys.open`, and where there are no keys.
    """
    if body[:1] != MARK:
        return body
    if keys is None:
        raise StoreError(f"{where}: its values are encrypted; {_HOW}")
    return keys.open(body, where)


def _key(number: int, text: str) -> tuple[str, bytes]:
    """The project of a key, and the key."""
    project, colon, digits = text.rpartition(":") if type(text) is str else ("", "", "")
    try:
        key = bytes.fromhex(digits)
    except (TypeError, ValueError):
        key = b""
    if len(key) != KEY_BYTES or (colon and not project):
        raise VMError(f"key {number} of the store is none; {_HOW}")
    return project, key


def _derived(key: bytes, use: bytes) -> bytes:
    """A key for another use, so that no key has two."""
    return hmac.new(key, b"nano-vm store " + use, sha256).digest()


def _id(key: bytes) -> bytes:
    return _derived(key, b"id")[:ID_BYTES]


def _aes(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise MissingExtra("an encrypted store", "sign") from None
    return AESGCM(_derived(key, b"values"))
