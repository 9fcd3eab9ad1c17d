"""``nano-vm keys``."""

from __future__ import annotations

import click

from .. import completion
from ..grammar import Group, Options, argument, command
from ..parameters import STORED, takes_json, takes_store

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
    from ..keys import make

    return make(options)


@command(footer=FORM)
@argument("file", help="a private or public key in PEM", shell_complete=completion.files)
@takes_json()
def show(options: Options) -> int:
    """Print the public key of a key's file."""
    from ..keys import show

    return show(options)


@command("list", footer=STORED)
@takes_store
def list_(options: Options) -> int:
    """
    List the keys that signed a store's receipts.

    Each with the number of its receipts and when they were signed.
    """
    from ..keys import list_

    return list_(options)


for made in (make, show, list_):
    keys.add_command(made)
