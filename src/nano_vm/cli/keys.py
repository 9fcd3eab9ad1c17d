"""``nano-vm keys``: the keys that sign what runs say of themselves, and those that a command is
given.
"""

from __future__ import annotations

import os
from typing import Any

from ..store.signing import KeyFault, SigningKey, public_key
from .faults import UsageFault
from .grammar import Options
from .stores import moment, store_of
from .text import OK, emit_json, safe, say

VARIABLE = "NANO_VM_SIGNING_KEY"


def signing_key(options: Options) -> SigningKey | None:
    """The key that the command line or the environment names.

    Raises:
        UsageFault: If it is none.
    """
    path = getattr(options, "signing_key", None) or os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        return SigningKey.load(path)
    except KeyFault as error:
        raise UsageFault(f"--signing-key: {error}") from None


def public_keys(given: list[str], flag: str) -> list[str]:
    """Public keys that the command line gives, as text or files.

    Raises:
        UsageFault: If one is none.
    """
    try:
        return [public_key(text) for text in given]
    except KeyFault as error:
        raise UsageFault(f"{flag}: {error}") from None


def make(options: Options) -> int:
    """Make a key."""
    key = SigningKey.generate()
    try:
        key.write(options.file)
    except FileExistsError:
        raise UsageFault(
            f"{options.file} is there already, and a key is not overwritten; name another file"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageFault(
            f"cannot write {options.file}: {getattr(error, 'strerror', None) or error}"
        ) from None
    return _printed(key.public, options)


def show(options: Options) -> int:
    """Print the public key of a key's file."""
    (public,) = public_keys([options.file], "keys show")
    return _printed(public, options)


def _printed(public: str, options: Options) -> int:
    if options.json:
        emit_json({"public": public})
    else:
        say(public)
    return OK


def list_(options: Options) -> int:
    """Which keys signed a store's receipts, how many, and when."""
    with store_of(options, read=True) as store:
        found = store.signers()
    if options.json:
        emit_json([_signer(*row) for row in found])
        return OK
    for public, count, first, last in found:
        name = public or "not signed"
        say(
            safe(
                f"{name:<64}  {count:>6,} receipt{'s' * (count != 1)}  {moment(first)} to "
                f"{moment(last)}"
            )
        )
    if not found:
        say("no receipts: no run has ended")
    return OK


def _signer(public: str | None, count: int, first: int, last: int) -> dict[str, Any]:
    return {"public": public, "receipts": count, "first_ns": first, "last_ns": last}
