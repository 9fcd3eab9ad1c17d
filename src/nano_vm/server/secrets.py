"""What proves who somebody is: passwords, session cookies and API keys. In the database stands only
what nobody can log in with.

A password is hashed by argon2id. Cookies and keys are random and of 256 bits, so a fast hash is
enough: of keys one with the server's pepper, which is not in the database.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
from functools import cache
from pathlib import Path
from typing import NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from ..errors import VMError
from ..store.signing import write_private

SECRET_BYTES = 32
PASSWORD_CHARS = (12, 200)
"""At least, as NIST SP 800-63B has it for what is no one-time secret, and at most: argon2 hashes
all of it."""

AT_ONCE = 2
"""Passwords that are hashed at a time: each takes 64 MB and a processor."""

_KEY_ID_BYTES = 5  # 8 characters

HASHER = PasswordHasher()
_TURNS = threading.BoundedSemaphore(AT_ONCE)


@cache
def _nobodys() -> str:
    """The hash of a password that nobody has."""
    return HASHER.hash(secrets.token_hex())


class ApiKey(NamedTuple):
    """A new key: *text* is shown once."""

    id: str
    text: str


def hash_of_password(password: str) -> str:
    """What is kept of a password.

    Raises:
        VMError: If it is too short or too long.
    """
    least, most = PASSWORD_CHARS
    if not least <= len(password) <= most:
        raise VMError(f"a password has {least} to {most} characters, not {len(password)}")
    with _TURNS:
        return HASHER.hash(password)


def is_password(kept: str | None, password: str) -> bool:
    """Whether *password* is the one that was kept; as slow where nobody has one."""
    with _TURNS:
        try:
            HASHER.verify(kept or _nobodys(), password)
        except (Argon2Error, InvalidHashError):
            return False
    return kept is not None


def new_cookie() -> str:
    """What a new session's cookie holds."""
    return secrets.token_urlsafe(SECRET_BYTES)


def hash_of_cookie(cookie: str) -> str:
    """What is kept of it."""
    return hashlib.sha256(cookie.encode()).hexdigest()


def new_key() -> ApiKey:
    """A key that nobody has."""
    key_id = secrets.token_hex(_KEY_ID_BYTES)
    return ApiKey(key_id, f"nvm_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}")


def id_of_key(text: str) -> str | None:
    """The id of a key, by which it is found; None if *text* is none."""
    parts = text.split("_", 2)
    return parts[1] if len(parts) == 3 and parts[0] == "nvm" else None


def keyed_hash(text: str, pepper: bytes) -> str:
    """What is kept of a key, or of what somebody typed: without *pepper* it is not found again."""
    return hmac.new(pepper, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def pepper_of(file: Path) -> bytes:
    """The server's own secret, from a file that nobody else may read; made where there is none.

    Raises:
        VMError: If it cannot be made or read, is too short, or others may read it.
    """
    what = "the server's secret"
    try:
        write_private(file, secrets.token_hex(SECRET_BYTES).encode())
    except FileExistsError:
        pass
    except (OSError, ValueError) as error:
        raise _unread(file, what, error) from None
    found = private_bytes(file, what)
    if len(found) < SECRET_BYTES:
        raise VMError(f"{file}: {what} has at least {SECRET_BYTES} bytes")
    return found


def private_bytes(file: Path, what: str) -> bytes:
    """What is in *file*, without white space around it; *what* names it where it is refused.

    Raises:
        VMError: If it cannot be read, is empty, or others may read it.
    """
    try:
        found = file.read_bytes().strip()
        others = os.name == "posix" and bool(file.stat().st_mode & 0o077)
    except (OSError, ValueError) as error:
        raise _unread(file, what, error) from None
    if others:
        raise VMError(f"{file}: others may read {what}; chmod 600 it")
    if not found:
        raise VMError(f"{file}: {what}: the file is empty")
    return found


def private_text(file: Path, what: str) -> str:
    """As `private_bytes`, of a file that is text."""
    try:
        return private_bytes(file, what).decode("utf-8")
    except UnicodeDecodeError as error:
        # not the error itself, which shows a byte of the secret
        raise VMError(f"{file}: {what}: no UTF-8 at byte {error.start}") from None


def _unread(file: Path, what: str, error: OSError | ValueError) -> VMError:
    return VMError(f"{file}: {what}: {getattr(error, 'strerror', None) or error}")
