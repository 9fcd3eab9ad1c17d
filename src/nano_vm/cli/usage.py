"""What is wrong with a command line, in one line that says where its help is."""

from __future__ import annotations

import click

from ..spelling import nearest


def fault(error: click.UsageError) -> str:
    """What is wrong with a command line, and where its help is."""
    path = error.ctx.command_path if error.ctx is not None else "nano-vm"
    return f"{path}: {_message(error)}; see {path} --help"


def _message(error: click.UsageError) -> str:
    match error:
        case click.NoSuchOption():
            return f"there is no option {error.option_name}{_meant(_near_option(error))}"
        case click.MissingParameter(param=click.Parameter() as parameter):
            return f"{_spelled(parameter, error.ctx)} is required"
        case click.BadParameter(param=click.Parameter() as parameter):
            return f"{_spelled(parameter, None)}: {_plain(error.message)}"
        case click.BadOptionUsage():
            return f"{error.option_name} {'takes no' if _is_flag(error) else 'needs a'} value"
    return _plain(error.message)


def _spelled(parameter: click.Parameter, ctx: click.Context | None) -> str:
    """How a parameter is written: its longest option, with what it takes where *ctx* is given."""
    if isinstance(parameter, click.Argument):
        return (parameter.metavar or parameter.human_readable_name).strip("[].")
    name = max(parameter.opts, key=len)
    return name if ctx is None else f"{name} {parameter.make_metavar(ctx)}"


def _is_flag(error: click.BadOptionUsage) -> bool:
    assert error.ctx is not None
    return any(
        isinstance(parameter, click.Option)
        and parameter.is_flag
        and error.option_name in parameter.opts
        for parameter in error.ctx.command.get_params(error.ctx)
    )


def _near_option(error: click.NoSuchOption) -> str | None:
    assert error.ctx is not None
    known = [
        name for parameter in error.ctx.command.get_params(error.ctx) for name in parameter.opts
    ]
    begun = [name for name in known if name.startswith(error.option_name)]
    return begun[0] if len(begun) == 1 else nearest(error.option_name, known)


def _meant(near: str | None) -> str:
    return f" (did you mean {near}?)" if near is not None else ""


def _plain(message: str) -> str:
    """A message of Click's as one of ours: no capital, no full stop."""
    text = message.replace("Got unexpected extra", "unexpected").rstrip(".")
    return f"{text[:1].lower()}{text[1:]}"
