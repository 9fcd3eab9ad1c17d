"""The keys that a command is given: what signs, and whose signatures count. Anything wrong is a
`UsageFault`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..store.signing import KeyFault, SigningKey, public_key
from .faults import UsageFault
from .grammar import Options

VARIABLE = "NANO_VM_SIGNING_KEY"


def signing_key(options: Options) -> SigningKey | None:
    """The key that the command line or the environment names.

    Raises:
        UsageFault: If it is none.
    """
    path = options.get("signing_key") or os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        return SigningKey.load(path)
    except KeyFault as error:
        raise UsageFault(f"--signing-key: {error}") from None


def public_keys(given: Sequence[str], flag: str) -> list[str]:
    """Public keys that the command line gives, as text or files.

    Raises:
        UsageFault: If one is none.
    """
    try:
        return [public_key(text) for text in given]
    except KeyFault as error:
        raise UsageFault(f"{flag}: {error}") from None
