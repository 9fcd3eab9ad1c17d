"""The command ``nano-vm``: parses arguments, calls one function, prints.

Whatever happens below becomes one line and an exit code here; no traceback reaches the user.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from importlib import import_module

from .faults import Failure, UsageFault
from .text import (
    FAILED,
    INTERNAL,
    INTERRUPTED,
    OK,
    PIPE_CLOSED,
    USAGE,
    abandon_stdout,
    complain,
    diagnostic_lines,
    note,
    prepare_streams,
    say,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with *arguments*, those of the process unless given; the exit code."""
    prepare_streams()
    try:
        return _main(arguments)
    except BrokenPipeError:
        abandon_stdout()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except SystemExit as leaving:  # argparse, after its help or an error
        return leaving.code if isinstance(leaving.code, int) else OK
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            return _internal(error)
        abandon_stdout()
        complain(f"can not write the output: {error.strerror}")
        return FAILED
    except Exception as error:  # noqa: BLE001 - one line, whatever it is
        return _internal(error)


def _internal(error: Exception) -> int:
    """An exception that nobody expected: one line, or the traceback where it is asked for."""
    if os.environ.get("NANO_VM_DEBUG", "") not in ("", "0"):
        raise error
    complain(
        f"an error in nano-vm itself: {type(error).__name__}: {error}; please report it, with the "
        f"traceback that "
        "NANO_VM_DEBUG=1 shows"
    )
    return INTERNAL


def _main(arguments: Sequence[str] | None) -> int:
    from .arguments import parser

    grammar = parser()
    options = grammar.parse_args(arguments)
    if options.version:
        say(f"nano-vm {_version()}")
        return OK
    if options.command is None:
        grammar.print_help()
        return USAGE
    module, _, function = options.handler.partition(".")
    from ..errors import MissingExtra, ProgramError, VMError

    try:
        code: int = getattr(import_module(f"{__name__}.{module}"), function)(options)
        return code
    except ProgramError as error:
        for line in diagnostic_lines(error.diagnostics):
            note(line)
        return FAILED
    except (UsageFault, MissingExtra) as error:
        complain(str(error))
        return USAGE
    except (Failure, VMError) as error:
        complain(str(error))
        return FAILED


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llm-nano-vm")
    except PackageNotFoundError:  # run from its sources
        return "(not installed)"
