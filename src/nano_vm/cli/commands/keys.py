"""``nano-vm keys``."""

from __future__ import annotations

from typing import Any

import click

from .. import completion
from ..faults import OK, UsageFault
from ..grammar import Group, Options, argument, command
from ..output import emit_json, say
from ..parameters import STORED, takes_json, takes_store
from ..text import safe
from ..times import moment

FORM = """\
A key is a file in PEM, as 'openssl genpkey -algorithm ed25519' makes it too.
Signing needs pip install 'llm-nano-vm[sign]'.
"""


@click.command(cls=Group)
def keys() -> None:
    """Make and show the keys that sign what runs record."""


@command(footer=FORM)
@argument("file", help="the file to write the private key to")
@takes_json()
def make(options: Options) -> int:
    """Make a signing key, and print its public key."""
    from ...store.signing import SigningKey

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


@command(footer=FORM)
@argument("file", help="a private or public key in PEM", shell_complete=completion.files)
@takes_json()
def show(options: Options) -> int:
    """Print the public key of a key's file."""
    from ..keys import public_keys

    (public,) = public_keys([options.file], "keys show")
    return _printed(public, options)


@command("list", footer=STORED)
@takes_store
def list_(options: Options) -> int:
    """
    List the keys that signed a store's receipts.

    Each with the number of its receipts and when they were signed.
    """
    from ..stores import store_of

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


def _printed(public: str, options: Options) -> int:
    if options.json:
        emit_json({"public": public})
    else:
        say(public)
    return OK


def _signer(public: str | None, count: int, first: int, last: int) -> dict[str, Any]:
    return {"public": public, "receipts": count, "first_ns": first, "last_ns": last}


for made in (make, show, list_):
    keys.add_command(made)
