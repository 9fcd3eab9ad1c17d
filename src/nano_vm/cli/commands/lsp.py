"""``nano-vm lsp``."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout

from ...errors import MissingExtra
from ..faults import OK
from ..grammar import Options, command, flag, option
from ..parameters import PLACE

EXAMPLES = """\
nano-vm lsp                  (editors start it; see editors/README.md)
nano-vm lsp --tcp 2087       (one client, for debugging)
"""


@command(examples=EXAMPLES)
@option("--tcp", type=PLACE, metavar="[HOST:]PORT", help="listen there, not on standard input")
@flag("--no-tools", help="import no tools that nano-vm.toml names: that runs their code")
def lsp(options: Options) -> int:
    """
    Serve editors: diagnostics, completion, hover, definitions, rename, proofs, formatting.

    It speaks the Language Server Protocol on standard input and output. Tools, models and the
    policy are those of the nano-vm.toml beside a program, or above it. Needs pip install
    'llm-nano-vm[lsp]'.
    """
    from .. import schemas, tools

    try:
        import pygls  # noqa: F401 - so that the message is of what is missing
    except ModuleNotFoundError:
        raise MissingExtra("the language server", "lsp") from None
    from ...lsp.server import server_of

    server = server_of(schemas.own_version(), None if options.no_tools else tools.load_tools)
    if options.tcp is not None:
        server.start_tcp(*options.tcp)
        return OK
    # what a tool's module prints must not stand between the messages of the protocol
    ours = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with redirect_stdout(sys.stderr):
        server.start_io(stdout=ours)
    return OK
