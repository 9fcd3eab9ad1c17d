"""``nano-vm init``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from ..faults import OK, UsageFault
from ..grammar import Options, argument, command, option
from ..output import say
from ..text import safe

CHECK = "nano-vm check program.yaml --tools tools.py --strict"
RUN = "nano-vm run program.yaml --tools tools.py"

NEXT = {
    "guard": (
        f"{CHECK} --policy policy.yaml",
        f"{RUN} --policy policy.yaml --answer judge=yes -i message='It broke' -i order_id=A-1",
        f"{RUN} --policy policy.yaml --answer judge=yes -i message='It broke' -i order_id=A-2",
    ),
    "review": (
        CHECK,
        f"{RUN} --answer write='A lamp.' --answer review=shorter --answer verdict=approve "
        "-i topic=lamps",
    ),
    "approval": (
        f"{CHECK} --policy policy.yaml",
        f"{RUN} --policy policy.yaml --store sqlite:///runs.db --run-id first -i recipient=ACME "
        "-i amount=30",
        "nano-vm show first --store sqlite:///runs.db",
    ),
    "map": (CHECK, f"{RUN} --answer mood=happy"),
}
"""What to try in a new folder: these need no model and no key."""

EXAMPLES = """\
nano-vm init refunds
nano-vm init letters --template review
"""


@command(examples=EXAMPLES)
@argument("folder", help="the folder to make")
@option(
    "--template",
    type=click.Choice(tuple(NEXT)),
    default="guard",
    metavar="NAME",
    help="which of these; default: guard",
)
def init(options: Options) -> int:
    """
    Make a folder with a program, its tools, a policy where it has one, and tests.

    All of it runs as it is, without a model and without a key. Nothing that is there is
    overwritten.

    templates:
      guard      a refund that no answer of a model can bypass, proved by a policy
      review     a writer and a reviewer, until the reviewer approves
      approval   a payment that waits in a store until a person approves it
      map        a model's label for each line of a file, some at a time
    """
    folder = Path(options.folder)
    source = Path(__file__).parents[1] / "templates" / options.template
    files = sorted(file for file in source.iterdir() if file.is_file())
    try:
        taken = [file.name for file in files if (folder / file.name).exists()]
        if taken:
            raise UsageFault(f"{folder / taken[0]} is there already; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
            say(safe(f"{folder / file.name}: written"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageFault(f"cannot write to {options.folder}: {reason}") from None
    say("next:")
    for line in (f"cd {shlex.quote(str(folder))}", *NEXT[options.template], "python -m pytest"):
        say(safe(f"  {line}"))
    return OK
