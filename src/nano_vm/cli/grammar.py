"""What a command is: Click's, with help in our form and errors that fit one line.

A command is a function that takes its options as one object and returns the exit code; its
docstring is its help. Nothing heavy is imported here, nor in the modules of the commands, so that
help and completion answer at once.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping
from importlib import import_module
from types import SimpleNamespace
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ..spelling import nearest

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]
Result = TypeVar("Result")

WIDTH = 100
"""Columns of a help page at most, as of the sources that its text stands in."""

ARGUMENTS = f"{__name__}.arguments"
"""The entry of a context's ``meta`` that has the words of the command line."""

COMPLETE = "_NANO_VM_COMPLETE"
"""The variable by which a shell asks for completions, with Click's instruction as its value."""

GENERAL = "options"
"""The heading of options that belong to no section of their own."""


class Options(SimpleNamespace):
    """The values of a command's options and arguments, by their names."""

    def __contains__(self, name: str) -> bool:
        return name in self.__dict__

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an option, or *default* where the command has no such option."""
        return self.__dict__.get(name, default)


class Option(click.Option):
    """An option, under a heading of the help page."""

    def __init__(self, *args: Any, section: str = GENERAL, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class Argument(click.Argument):
    """A word of the command line by its place, with a help of its own."""

    def __init__(self, *args: Any, help: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = help


class _Page(click.Command):
    """A command's help page: usage, text, arguments, options by section, examples, a footer."""

    def __init__(self, *args: Any, examples: str = "", footer: str = "", **kwargs: Any) -> None:
        settings = {"max_content_width": WIDTH}
        super().__init__(*args, **{"context_settings": settings, **kwargs})
        self.examples = examples
        self.footer = footer

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the page."""
        formatter.write(f"usage: {ctx.command_path} {' '.join(self.collect_usage_pieces(ctx))}\n\n")
        for paragraph in inspect.cleandoc(self.help or "").split("\n\n"):
            formatter.write(f"{_filled(paragraph, formatter.width)}\n\n")
        self.format_sections(ctx, formatter)
        if self.examples:
            formatter.write("examples:\n")
            formatter.write(textwrap.indent(inspect.cleandoc(self.examples), "  ") + "\n\n")
        if self.footer:
            formatter.write(f"{self.footer.rstrip()}\n\n")
        if ctx.parent is not None:
            formatter.write(f"exit codes: see {ctx.find_root().command_path} --help\n")

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        """``-h`` too, which many try first."""
        return ["-h", "--help"]

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """``--help``, in our words."""
        found = super().get_help_option(ctx)
        if found is not None:
            found.help = "show this help"
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As Click's; a fault that Click finds before it knows the command has the command."""
        if ctx.resilient_parsing and args and self._takes_value(ctx, args[-1]):
            args = args[:-1]  # its value is being completed; Click would give up on all the words
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def _takes_value(self, ctx: click.Context, word: str) -> bool:
        return any(
            isinstance(parameter, click.Option) and word in parameter.opts and not parameter.is_flag
            for parameter in self.get_params(ctx)
        )

    def format_sections(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments and options."""
        for heading, rows in self.sections(ctx).items():
            formatter.write(f"{heading}:\n")
            with formatter.indentation():
                formatter.write_dl(rows)
            formatter.write("\n")

    def sections(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """Rows of arguments and options by their heading."""
        arguments: list[tuple[str, str]] = []
        found: dict[str, list[tuple[str, str]]] = {GENERAL: []}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, Argument):
                arguments.append((parameter.make_metavar(ctx), parameter.help or ""))
            elif (row := parameter.get_help_record(ctx)) is not None:
                found.setdefault(getattr(parameter, "section", GENERAL), []).append(row)
        return {**({"arguments": arguments} if arguments else {}), **found}


class Command(_Page):
    """A command that does something."""

    def invoke(self, ctx: click.Context) -> int:
        """Call its function; the exit code."""
        assert self.callback is not None
        code: int = self.callback(Options(**ctx.params))
        return code


class Group(_Page, click.Group):
    """Commands below a name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, **kwargs})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            near = nearest(args[0], self.list_commands(ctx))
            meant = f" (did you mean {near}?)" if near is not None else ""
            raise click.UsageError(f"there is no command {args[0]!r}{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_sections(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the options."""
        for heading, commands in self.headings(ctx).items():
            formatter.write(f"{heading}:\n")
            with formatter.indentation():
                formatter.write_dl(list(commands.items()))
            formatter.write("\n")
        super().format_sections(ctx, formatter)

    def headings(self, ctx: click.Context) -> Mapping[str, Mapping[str, str]]:
        """The commands with a line for each, by what they are for."""
        lines = {}
        for name in self.list_commands(ctx):
            found = self.get_command(ctx, name)
            assert found is not None
            lines[name] = _summary(found)
        return {"commands": lines}


class LazyGroup(Group):
    """Commands whose modules are imported when they are asked for; help has a table of its own."""

    def __init__(
        self, *args: Any, table: Mapping[str, Mapping[str, str]], home: str, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.table = table
        self.home = home

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the table's order."""
        return [name for commands in self.table.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, from its module."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"{self.home}.{cmd_name}")
        return next(
            found
            for found in vars(module).values()
            if isinstance(found, click.Command) and found.name == cmd_name
        )

    def headings(self, ctx: click.Context) -> Mapping[str, Mapping[str, str]]:
        """The table."""
        return self.table


def command(
    name: str | None = None, *, examples: str = "", footer: str = ""
) -> Callable[[Callable[[Options], int]], Command]:
    """Make a command of a function; its name is the function's, unless one is given."""
    return click.command(name, cls=Command, examples=examples, footer=footer)


def option(*names: str, section: str = GENERAL, **attributes: Any) -> Decorator[Any]:
    """As `click.option`, under a heading of the help page."""
    return click.option(*names, cls=Option, section=section, **attributes)


def values(*names: str, metavar: str, help: str, **attributes: Any) -> Decorator[Any]:
    """An option that can be given several times."""
    return option(*names, multiple=True, metavar=metavar, help=help, **attributes)


def flag(*names: str, help: str, **attributes: Any) -> Decorator[Any]:
    """An option without a value."""
    return option(*names, is_flag=True, help=help, **attributes)


def argument(name: str, *, help: str, **attributes: Any) -> Decorator[Any]:
    """As `click.argument`, with a help of its own."""
    return click.argument(name, cls=Argument, help=help, **attributes)


def read(function: Callable[[str], Result]) -> Callable[[str], Result]:
    """The type of an option whose values *function* reads; the message of its error is the
    fault.
    """

    def reading(text: str) -> Result:
        try:
            return function(text)
        except (ValueError, OverflowError) as error:
            raise click.BadParameter(str(error)) from None

    return reading


def together(*decorators: Decorator[Any]) -> Decorator[Any]:
    """Several options as one decorator, in this order."""

    def apply(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def only_one(options: Options, *names: str, required: bool = False) -> None:
    """Raises a usage error where more than one of some options is given, or none and one must be.

    Raises:
        click.UsageError: If that is so.
    """
    values = {name: getattr(options, name.lstrip("-").replace("-", "_")) for name in names}
    # by identity: a 0 is given, and equals False
    given = [name for name, value in values.items() if value is not None and value is not False]
    if len(given) > 1:
        raise click.UsageError(
            f"{given[0]} does not go with {given[1]}", click.get_current_context()
        )
    if required and not given:
        raise click.UsageError(
            f"one of {', '.join(names)} is required", click.get_current_context()
        )


def typed(name: str) -> bool:
    """Whether an option stands on the command line; what is not there may have a default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _summary(found: click.Command) -> str:
    """The first sentence of a command's help, as it stands in a list."""
    first = " ".join(inspect.cleandoc(found.help or "").partition("\n\n")[0].split())
    return f"{first[:1].lower()}{first[1:]}".rstrip(".")


def _filled(paragraph: str, width: int) -> str:
    """*paragraph* in lines of *width*; one with indented lines is a table and stays as it is."""
    lines = paragraph.split("\n")
    if any(line.startswith(" ") for line in lines):
        return paragraph
    return textwrap.fill(" ".join(lines), width)
