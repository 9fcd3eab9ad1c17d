"""Write the pages of docs/reference that are made of the code: a page for each command and for each
code of a diagnostic.

``make docs`` runs it; a test compares the pages with what it would write.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import click

from nano_vm import Policy, Program, ProgramError
from nano_vm.cli.commands import TABLE
from nano_vm.cli.grammar import Command, Group
from nano_vm.cli.main import nano_vm
from nano_vm.diagnostics import Diagnostic
from nano_vm.diagnostics.code import PAY, Code
from nano_vm.diagnostics.register import CODES
from nano_vm.tools.contract import tool
from nano_vm.verify import verify

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"

WIDTH = 98
"""Of the help pages: what stands in 100 columns."""

NOTE = "<!-- written by `make docs`; do not edit -->\n"

COMMANDS = f"""\
# Command line

{NOTE}
`nano-vm` checks, runs and looks after programs. Each command has a page; `nano-vm help COMMAND`
prints the same on a terminal.
"""

DIAGNOSTICS = f"""\
# Diagnostics

{NOTE}
Every fault that is reported of a program or policy has a code. `nano-vm explain CODE` prints what
its page says. Codes that begin with P are found in the document alone; those with V need the whole
program, and mostly the host: its tools, models and policy.

An *error* keeps the program from running. A *warning* does not, unless `--strict` or a policy makes
it an error. A *hint* is shown by `check` and `ExecutionVM.verify`.

| code | severity | meaning |
|---|---|---|
"""


def cell(text: str) -> str:
    """*text* in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def sentence(text: str) -> str:
    """*text* with a capital at its head."""
    return text[:1].upper() + text[1:]


def paragraph(text: str) -> str:
    """A paragraph of a help page; one with indented lines is a block, below its first line."""
    lines = text.split("\n")
    if not any(line.startswith(" ") for line in lines):
        return textwrap.fill(" ".join(lines), WIDTH)
    head = f"**{sentence(lines.pop(0).rstrip(':'))}**\n\n" if not lines[0].startswith(" ") else ""
    return f"{head}```text\n{textwrap.dedent(chr(10).join(lines))}\n```"


def table(heading: str, what: str, rows: Iterable[tuple[str, str]]) -> str:
    """Rows of *what* is named and its meaning, under their heading."""
    body = "\n".join(f"| {name} | {cell(sentence(text))} |" for name, text in rows)
    return f"## {sentence(heading)}\n\n| {what} | meaning |\n|---|---|\n{body}"


def code(text: str) -> str:
    """*text* as code, in a table."""
    return f"`{cell(text)}`"


def command_page(command: Command | Group, context: click.Context) -> str:
    """The page of one command."""
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    parts = [f"# {context.command_path}", NOTE.rstrip(), f"```text\n{usage}\n```"]
    parts += [paragraph(text) for text in inspect.cleandoc(command.help or "").split("\n\n")]
    if isinstance(command, Group):
        found = command.headings(context)["commands"]
        parts.append(table("commands", "command", linked(context, found)))
    for heading, rows in command.sections(context).items():
        what = "argument" if heading == "arguments" else "option"
        parts.append(table(heading, what, ((code(name), text) for name, text in rows)))
    if command.examples:
        parts.append(f"## Examples\n\n```text\n{inspect.cleandoc(command.examples)}\n```")
    parts += [paragraph(text) for text in command.footer.strip().split("\n\n") if text]
    return "\n\n".join(parts) + "\n"


def linked(parent: click.Context, lines: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Commands below *parent* with their lines, each a link to its page."""
    for name, line in lines.items():
        yield f"[`{name}`]({file_of(parent, name)})", line


def file_of(parent: click.Context, name: str) -> str:
    """The file of a command's page: ``store-check.md`` for ``nano-vm store check``."""
    return "-".join((*parent.command_path.split()[1:], name)) + ".md"


def command_pages(
    command: click.Command, name: str, parent: click.Context
) -> Iterator[tuple[str, str]]:
    """The pages of a command and of those below it, with their files."""
    assert isinstance(command, Command | Group)
    context = click.Context(command, parent=parent, info_name=name, terminal_width=WIDTH)
    yield file_of(parent, name), command_page(command, context)
    if isinstance(command, Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from command_pages(found, below, context)


def commands() -> Iterator[tuple[str, str]]:
    """The pages of all commands, and their list."""
    root = click.Context(nano_vm, info_name="nano-vm", terminal_width=WIDTH)
    index = [COMMANDS.rstrip()]
    for heading, lines in TABLE.items():
        index.append(table(heading, "command", linked(root, lines)))
        for name in lines:
            command = nano_vm.get_command(root, name)
            assert command is not None
            yield from command_pages(command, name, root)
    index.append(f"## The general page\n\n```text\n{root.get_help().strip()}\n```")
    yield "index.md", "\n\n".join(index) + "\n"


@tool(effect="read")
def fetch(q: str = "") -> str:
    """A tool of the examples, never called."""
    return q


def pay(to: str, amount: int) -> None:
    """A tool of the examples, never called."""


def reported(one: Code) -> list[Diagnostic]:
    """What `nano-vm check` reports of the example of a code, under that code."""
    try:
        policy = Policy.from_yaml(one.policy) if one.policy else None
        program = Program.from_yaml(one.example or PAY)
    except ProgramError as error:
        found: Iterable[Diagnostic] = error.diagnostics
    else:
        found = verify(program, tools={"fetch": fetch, "pay": pay}, policy=policy).faults
    return [diagnostic for diagnostic in found if diagnostic.code == one.code]


def line(one: Code, diagnostic: Diagnostic) -> str:
    """A diagnostic as it is printed of files with these names."""
    of_program = not one.policy or (diagnostic.loc and diagnostic.loc[0] == "steps")
    return str(diagnostic).replace("<text>", "program.yaml" if of_program else "policy.yaml")


def code_page(one: Code) -> str:
    """The page of one code."""
    heading, _, rest = one.text.removeprefix("#").partition("\n")
    parts = [heading, "", NOTE, rest.strip(), ""]
    if one.example or one.policy:
        lines = "\n".join(line(one, diagnostic) for diagnostic in reported(one))
        if not one.example:
            parts += ["of the program", "", f"```yaml\n{PAY.rstrip()}\n```", ""]
        parts += ["What `nano-vm check` reports:", "", f"```text\n{lines}\n```", ""]
    return "\n".join(parts)


def codes() -> Iterator[tuple[str, str]]:
    """The pages of all codes, and their table."""
    rows = ""
    for name in sorted(CODES):
        one = CODES[name]
        rows += f"| [{name}]({name}.md) | {one.severity} | {cell(one.title)} |\n"
        yield f"{name}.md", code_page(one)
    yield "index.md", DIAGNOSTICS + rows


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    return {
        REFERENCE / folder / name: text
        for folder, found in (("cli", commands()), ("diagnostics", codes()))
        for name, text in found
    }


def write() -> None:
    """Write the pages, and remove those of what is there no more."""
    made = pages()
    for folder in {path.parent for path in made}:
        folder.mkdir(exist_ok=True)
        for path in set(folder.glob("*.md")) - set(made):
            path.unlink()
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
