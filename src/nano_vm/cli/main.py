"""The command ``nano-vm``: reads its arguments, calls one function, and turns what happens into an
exit code.

Whatever happens below becomes one line here; no traceback reaches the user.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

from ..collector import collector_eased
from ..values import error_named, short
from .commands import TABLE
from .faults import FAILED, INTERNAL, INTERRUPTED, OK, PIPE_CLOSED, USAGE, Failure, UsageFault
from .grammar import ARGUMENTS, COMPLETE, LazyGroup, flag
from .output import abandon_stdout, complain, leave_at_once, note, prepare_streams, say
from .text import diagnostic_lines, safe
from .usage import fault

NAME = "nano-vm"

EXAMPLES = """\
nano-vm check refund.yaml --tools refund.py:tools
nano-vm run refund.yaml --tools refund.py:tools --model local -i user_input="It arrived broken"
nano-vm run refund.yaml --tools refund.py:tools --model groq/llama-3.3-70b-versatile \\
    --input-file order.json --trace run.json
nano-vm trace show run.json
nano-vm graph refund.yaml -o refund.svg
"""

EXIT_CODES = """\
exit codes:
  0    success
  1    the run failed; check found errors; diff found differences; a file is not what it should be
  2    the command line is wrong, or a file that it names cannot be used
  3    the run is suspended: it waits for a person, a time or an event
  70   an error in nano-vm itself (NANO_VM_DEBUG=1 shows the traceback)
  130  interrupted by Ctrl-C; the run was cancelled and undone (143: terminated)
  141  stdout was closed by its reader
"""


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        say(f"{NAME} {_version()}")
        ctx.exit(OK)


@click.command(
    NAME,
    cls=LazyGroup,
    table=TABLE,
    home=f"{__package__}.commands",
    invoke_without_command=True,
    examples=EXAMPLES,
    footer=EXIT_CODES,
)
@flag(
    "--version",
    help="print the version and leave",
    is_eager=True,
    expose_value=False,
    callback=_show_version,
)
@click.pass_context
def nano_vm(ctx: click.Context) -> int:
    """
    Run, check and explain programs that call language models and tools.

    A program is YAML or JSON. The VM owns every transition; models and tools only answer.
    """
    if ctx.invoked_subcommand is None:
        say(ctx.get_help())
    return USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with *arguments*, those of the process unless given; the exit code."""
    prepare_streams()
    if arguments is not None:
        return _main(list(arguments))
    code = _main(sys.argv[1:])
    if "temporalio" in sys.modules:
        # its threads now and then abort a process that ends the usual way (temporalio/sdk-python#300)
        leave_at_once(code)
    return code


def _main(arguments: list[str]) -> int:
    try:
        with collector_eased():  # the process is ours
            return _called(arguments)
    except BrokenPipeError:
        abandon_stdout()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            return _internal(error)
        abandon_stdout()
        complain(f"cannot write the output: {error.strerror}")
        return FAILED
    except Exception as error:  # noqa: BLE001 - one line, whatever it is
        return _internal(error)


def _internal(error: Exception) -> int:
    """An exception that nobody expected: one line, or the traceback where it is asked for."""
    if os.environ.get("NANO_VM_DEBUG", "") not in ("", "0"):
        raise error
    complain(
        f"an error in nano-vm itself: {error_named(error)}; please report it, with the "
        f"traceback that NANO_VM_DEBUG=1 shows"
    )
    return INTERNAL


def _require_text(arguments: list[str]) -> None:
    """Bytes that are no UTF-8 have no place in what is recorded, asked of a store or shown.

    Raises:
        UsageFault: If an argument holds some.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageFault(
                f"{short(argument)} is not UTF-8; write it in UTF-8, and rename a file that is "
                f"called so"
            ) from None


def _called(arguments: list[str]) -> int:
    if instruction := os.environ.get(COMPLETE):
        from click.shell_completion import shell_complete

        from . import completion  # noqa: F401 - it tells Click of a bash that is ours

        return shell_complete(nano_vm, {}, NAME, COMPLETE, instruction)
    from ..errors import MissingExtra, ProgramError, VMError

    try:
        _require_text(arguments)
        # not click's own main, which makes an error of Ctrl-C and leaves the process
        with nano_vm.make_context(NAME, list(arguments)) as ctx:
            ctx.meta[ARGUMENTS] = arguments
            code: int = nano_vm.invoke(ctx)
            return code
    except click.exceptions.Exit as leaving:  # after help or the version
        return leaving.exit_code
    except click.UsageError as error:
        note(safe(fault(error)))
        return USAGE
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
