"""Ed25519 keys: who holds the private one signs what a run says of itself, who has the public one
can tell whether it was changed.

A public key and a signature are hexadecimal text; a private key is a file in PEM (PKCS 8), as
``openssl genpkey -algorithm ed25519`` writes it. ``cryptography`` is imported when a key is used,
and not before: hashes are verified without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import MissingExtra, VMError

PUBLIC_HEX = 64
"""Digits of a public key (RFC 8032)."""

KEY_FILE_BYTES = 10_000
"""A larger file is no key: one in PEM has 119 bytes."""


class KeyFault(VMError):
    """A key that is none, or that cannot be read."""


class SigningKey:
    """A private key. ``public`` is its public key, in hexadecimal."""

    def __init__(self, private: Any) -> None:
        self._private = private
        self.public: str = private.public_key().public_bytes_raw().hex()

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key.

        Raises:
            MissingExtra: If ``cryptography`` is not installed.
        """
        return cls(_ed25519().Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, given: str | Path | bytes | SigningKey) -> SigningKey:
        """A key from its file (a path) or from the content of one (bytes).

        Raises:
            KeyFault: If the file cannot be read, or is no private key of Ed25519.
            MissingExtra: If ``cryptography`` is not installed.
        """
        if isinstance(given, SigningKey):
            return given
        if isinstance(given, bytes):
            data, name = given, "the signing key"
        elif isinstance(given, str | Path):
            data, name = _content(given), f"{given}:"
        else:
            raise KeyFault(
                f"a signing key is the path of its file or its content in bytes, not {given!r}"
            )
        module = _ed25519()
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            private = load_pem_private_key(data, password=None)
        except TypeError:
            raise KeyFault(
                f"{name} is encrypted; a key that a program uses has no password"
            ) from None
        except Exception:  # noqa: BLE001 - which exceptions, the library does not say
            raise KeyFault(
                f"{name} is no private key in PEM; nano-vm keys make FILE makes one"
            ) from None
        if not isinstance(private, module.Ed25519PrivateKey):
            raise KeyFault(
                f"{name} is a key of another kind; Ed25519 is needed (nano-vm keys make FILE)"
            )
        return cls(private)

    def pem(self) -> bytes:
        """The content of the key's file."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        content: bytes = self._private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        return content

    def write(self, path: str | Path) -> None:
        """Write the key to a new file that only its owner may read.

        Raises:
            FileExistsError: If there is such a file; a key is not overwritten.
        """
        write_private(path, self.pem())

    def sign(self, purpose: str, content: bytes) -> str:
        """``PUBLIC:SIGNATURE`` of *content*; *purpose* keeps a signature from being one of
        something else.
        """
        return f"{self.public}:{self._private.sign(_signed(purpose, content)).hex()}"


def write_private(path: str | Path, content: bytes) -> None:
    """Write a new file that only its owner may read, whole or not at all.

    Raises:
        FileExistsError: If there is such a file.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
    except BaseException:  # Ctrl-C too
        os.unlink(path)  # a part of a key is none, and would be in the way of the next one
        raise


def signer_of(signature: str | None) -> str | None:
    """The public key that a signature names."""
    return signature.partition(":")[0] if signature is not None else None


def holds(signature: str, purpose: str, content: bytes) -> bool:
    """Whether a signature is one of *content* by the key that it names.

    Raises:
        MissingExtra: If ``cryptography`` is not installed.
    """
    module = _ed25519()
    from cryptography.exceptions import InvalidSignature

    public, _, value = signature.partition(":")
    try:
        module.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(
            bytes.fromhex(value), _signed(purpose, content)
        )
    except (ValueError, InvalidSignature):
        return False
    return True


def public_key(given: str) -> str:
    """A public key as hexadecimal text: as given, or from the file of a public or a private key.

    Raises:
        KeyFault: If it is neither.
    """
    text = given.strip().lower()
    if len(text) == PUBLIC_HEX and all(char in "0123456789abcdef" for char in text):
        return text
    data = _content(given)
    if b"PRIVATE" in data:
        return SigningKey.load(data).public
    module = _ed25519()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = load_pem_public_key(data)
    except Exception:  # noqa: BLE001 - which exceptions, the library does not say
        found = None
    if not isinstance(found, module.Ed25519PublicKey):
        raise KeyFault(
            f"{given} is no public key of Ed25519: {PUBLIC_HEX} hexadecimal digits, or a file in "
            f"PEM"
        )
    public: str = found.public_bytes_raw().hex()
    return public


def public_keys(given: Iterable[str]) -> frozenset[str]:
    """Several, as `public_key`."""
    names = (given,) if isinstance(given, str) else tuple(given)
    return frozenset(public_key(name) for name in names)


def _signed(purpose: str, content: bytes) -> bytes:
    return f"llm-nano-vm {purpose} 1\0".encode() + content


def _content(path: str | Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(KEY_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise KeyFault(
            f"cannot read the key {path}: {getattr(error, 'strerror', None) or error}"
        ) from None
    if len(data) > KEY_FILE_BYTES:
        raise KeyFault(f"{path} is no key: it is too long for one")
    return data


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingExtra("a signature", "sign") from None
    return ed25519
