"""``nano-vm fmt``."""

from __future__ import annotations

from ..faults import FAILED, OK, UsageFault
from ..grammar import Options, command, flag, only_one
from ..output import emit, note, say, write_file
from ..parameters import takes_one_program
from ..text import diagnostic_lines, safe

EXAMPLES = """\
nano-vm fmt refund.yaml -w
nano-vm fmt refund.yaml --check
"""


@command(examples=EXAMPLES)
@takes_one_program
@flag("--check", help="print nothing; exit code 1 if the file has another form")
@flag("-w", "--write", help="write it back to the file")
def fmt(options: Options) -> int:
    """
    Print a program in canonical form: YAML, or JSON for a .json file.

    The form holds what the program means: COMMENTS ARE LOST, and so are fields without meaning,
    aliases and anchors. The result is read again before it goes out, and is the same program, with
    the same digest.
    """
    from ...language.canonical import formatted
    from ..sources import load
    from ..stdin import STDIN

    only_one(options, "--check", "--write")
    path = options.program
    if path == STDIN and options.write:
        raise UsageFault("-w needs a file to write to")
    loaded = load(path, follow=False).program
    source, file = loaded.source or ("", None)
    text = formatted(loaded, json_form=(file or "").endswith(".json"))
    for line in diagnostic_lines(loaded.place(list(loaded.warnings))):
        note(line)
    same = text == source
    if options.check:
        if not same:
            say(safe(f"{path}: not in canonical form"))
        return OK if same else FAILED
    if options.write:
        if not same:
            write_file(path, text)
            say(safe(f"{path}: written"))
        return OK
    emit(text)
    return OK
