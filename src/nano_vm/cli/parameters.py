"""Options and arguments that several commands take, as decorators of their functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from . import completion
from .grammar import Decorator, argument, flag, option, read, together, typed, values

HOST = "tools and models"
RULES = "what programs may do"
TELEMETRY = "what is reported of runs"
STORE = "the store, and keys that sign what runs record"

SERVER = "a server, in place of a store"
CLUSTER = "a Temporal cluster, in place of a store"

STORED = """\
the store: --store URL, or the environment variable NANO_VM_STORE
  sqlite:///runs.db                file runs.db, made where it is not there
  postgresql://user@host/name      a database for many machines
                                   pip install 'llm-nano-vm[postgres]'

A run is named by its id, or by its beginning where that is unique.
"""
"""The end of the help of a command about stored runs."""


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 10 else 0
    if not number:
        raise ValueError(f"{text!r} is not a positive integer")
    return number


def _time(text: str) -> int:
    from .times import time_ns

    return time_ns(text)


def _age(text: str) -> float:
    from .times import age_seconds

    return age_seconds(text)


def _dollars(text: str) -> str:
    number = text.removeprefix("$")
    if not number.isascii() or not number.replace(".", "", 1).isdecimal():
        raise ValueError(f"{text!r} is not an amount of dollars")
    return number


def _place(text: str) -> tuple[str, int]:
    from .telemetry import place_of

    return place_of(text)


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 6 else -1
    if not 0 <= number < 65_536:
        raise ValueError(f"{text!r} is no port: 1 to 65535, or 0 for one that is free")
    return number


COUNT = read(_count)
PORT = read(_port)
TIME = read(_time)
AGE = read(_age)
DOLLARS = read(_dollars)
PLACE = read(_place)


def of_project(name: str) -> Callable[[], str | None]:
    """What the project's nano-vm.toml says, where the command line does not."""

    def default() -> str | None:
        ctx = click.get_current_context(silent=True)
        if ctx is None or ctx.resilient_parsing:
            return None
        from .models import project

        host = ctx.params["host"] if typed("host") else None
        found: str | None = getattr(project(host), name)
        return found

    return default


def file_option(*names: str, help: str, **attributes: Any) -> Decorator[Any]:
    """An option whose value is the path of a file."""
    return option(*names, metavar="FILE", help=help, shell_complete=completion.files, **attributes)


def takes_json(help: str = "print JSON") -> Decorator[Any]:
    """``--json``."""
    return flag("--json", help=help)


takes_one_program = argument(
    "program",
    help="a file in YAML or JSON (- is standard input)",
    shell_complete=completion.programs,
)

takes_program = together(
    takes_one_program,
    values(
        "--program",
        "program_file",
        metavar="NAME=FILE",
        help="a program that 'call' steps name",
    ),
)


def takes_inputs(
    help: str, file: str = "inputs in JSON or YAML (- is standard input)"
) -> Decorator[Any]:
    """``-i NAME=VALUE`` and ``--input-file``."""
    return together(
        values("-i", "--input", metavar="NAME=VALUE", help=help),
        file_option("--input-file", help=file),
    )


def takes_tools(help: str = "the tools: module:object or file.py:object") -> Decorator[Any]:
    """``--tools``."""
    return option(
        "--tools",
        metavar="MODULE:OBJECT",
        help=f"{help}; default: nano-vm.toml's",
        section=HOST,
        default=of_project("tools"),
        shell_complete=completion.tools,
    )


takes_model = together(
    values(
        "--model",
        metavar="MODEL",
        help="the model: local, openai/NAME, litellm:NAME, scripted:FILE, ...",
        section=HOST,
        shell_complete=completion.models,
    ),
    option(
        "--base-url",
        metavar="URL",
        help="an OpenAI-compatible server that has the model",
        section=HOST,
    ),
    file_option(
        "--host",
        help="models, pools, limits and prices in TOML; without --model: nano-vm.toml, if it is here",
        section=HOST,
    ),
)

takes_host = together(
    takes_tools(),
    values(
        "--mcp",
        metavar="SERVER",
        help="an MCP server whose tools there are, too: a command, or a URL; default: "
        "nano-vm.toml's",
        section=HOST,
    ),
    takes_model,
    values(
        "--answer",
        metavar="STEP=TEXT",
        help="what a model step answers, in place of a model (@FILE reads it from a file)",
        section=HOST,
        shell_complete=completion.steps,
    ),
)
"""What a program that runs calls."""

takes_rules = together(
    file_option(
        "--policy",
        help="what programs may do; one not proved to keep to it is refused; default: nano-vm.toml's",
        section=RULES,
        default=of_project("policy"),
    ),
    values(
        "--approve",
        metavar="DIGEST",
        help="a program from an untrusted source that you have read",
        section=RULES,
    ),
)
"""The host's policy, and the programs that a person has approved."""

takes_policy = together(
    values(
        "--untrusted",
        metavar="NAME",
        help="an input whose value comes from outside",
        section=RULES,
    ),
    takes_rules,
)


def takes_budget(help: str) -> Decorator[Any]:
    """``--budget``."""
    return values(
        "--budget",
        metavar="NAME=N",
        help=help,
        section=RULES,
        shell_complete=completion.budgets,
    )


def takes_price(help: str) -> Decorator[Any]:
    """``--price``."""
    return values(
        "--price",
        metavar="MODEL=IN,OUT",
        help=f"dollars per million tokens, {help}",
        section=RULES,
    )


def takes_concurrency() -> Decorator[Any]:
    """``--concurrency``."""
    return option(
        "--concurrency",
        type=COUNT,
        default="16",
        metavar="N",
        help="runs at a time; default: 16",
    )


def keeps_in_store(what: str) -> Decorator[Any]:
    """``--store`` of a command that also works without one."""
    return option(
        "--store",
        metavar="URL",
        help=f"a database that keeps {what}: sqlite:///runs.db, postgresql://...",
        section=STORE,
    )


takes_store = together(
    option(
        "--store",
        metavar="URL",
        help="the database of runs; default: NANO_VM_STORE",
        section=STORE,
    ),
    takes_json(),
)
"""The store that a command is about."""

takes_server = option(
    "--server",
    metavar="URL",
    help="a server of nano-vm that has the runs; default: NANO_VM_SERVER; its key: NANO_VM_KEY",
    section=SERVER,
)
"""The server that has the runs that a command is about."""

takes_said = together(
    values(
        "--label",
        metavar="NAME=VALUE",
        help="what runs are found by; repeat for more",
        section=STORE,
    ),
    option("--project", metavar="NAME", help="what runs belong to", section=STORE),
    option(
        "--submitter",
        metavar="NAME",
        help="who asks for them; with --store, default: your account",
        section=STORE,
    ),
)
"""What is said of runs that begin, beside their inputs."""

STATUSES = ("pending", "running", "suspended", "success", "failed", "cancelled")

takes_filter = together(
    values(
        "--status",
        type=click.Choice(STATUSES),
        metavar="STATUS",
        help=f"only these: {', '.join(STATUSES)}; repeat for more",
    ),
    option("--program", "program_name", metavar="NAME", help="only runs of this program"),
    option(
        "--program-version",
        metavar="DIGEST",
        help="only of programs whose digest begins so: 8 characters of it or more",
    ),
    values("--label", metavar="NAME=VALUE", help="only with this label; repeat for more"),
    option("--project", metavar="NAME", help="only of this project"),
    option("--submitter", metavar="NAME", help="only those that this person asked for"),
    option("--since", type=TIME, metavar="TIME", help="begun since: 2h (ago), 2027-01-31, ..."),
    option("--until", type=TIME, metavar="TIME", help="begun before"),
)
"""Which runs of a store."""

takes_signing_key = file_option(
    "--signing-key",
    help="a key that signs what is recorded; default: NANO_VM_SIGNING_KEY",
    section=STORE,
)

takes_keys = together(
    takes_signing_key,
    values(
        "--trust",
        metavar="KEY",
        help="a public key of another process that runs may be from",
        section=STORE,
    ),
)
"""What signs runs, and who else may have."""

takes_public_keys = values(
    "--key",
    metavar="PUBLIC",
    help="a public key, or its file: it must have signed",
    section=STORE,
)

takes_worker = together(takes_host, takes_keys, takes_rules, takes_price("for max_cost_usd"))
"""What a host needs to drive runs that are stored: they bring their programs, inputs and budgets."""

takes_telemetry = together(
    option(
        "--metrics-port",
        type=PLACE,
        metavar="[HOST:]PORT",
        help="serve metrics for Prometheus there; needs the extra 'prometheus'",
        section=TELEMETRY,
    ),
    option(
        "--otlp",
        metavar="URL",
        help="send traces to an OpenTelemetry receiver; needs the extra 'otel'",
        section=TELEMETRY,
    ),
)
"""Where metrics and spans of runs go."""

ADDRESS, NAMESPACE = "127.0.0.1:7233", "default"
"""Of a Temporal server, where no other is named."""

_reaches_cluster = together(
    option(
        "--address",
        default=ADDRESS,
        metavar="HOST:PORT",
        help=f"of its server; default: {ADDRESS}",
        section=CLUSTER,
    ),
    option(
        "--namespace",
        default=NAMESPACE,
        metavar="NAME",
        help=f"default: {NAMESPACE}",
        section=CLUSTER,
    ),
)
_opens_cluster = together(
    flag("--tls", help="encrypt the connection", section=CLUSTER),
    file_option("--tls-ca", help="who signed the server's certificate", section=CLUSTER),
    file_option("--tls-cert", help="a certificate of your own, with --tls-key", section=CLUSTER),
    file_option("--tls-key", help="its key", section=CLUSTER),
    option(
        "--api-key-env",
        metavar="NAME",
        help="the environment variable that holds an API key",
        section=CLUSTER,
    ),
    option(
        "--payloads",
        metavar="URL",
        help="a database for values that are too large for a history, the same for all",
        section=CLUSTER,
    ),
    option(
        "--encryption-key-env",
        metavar="NAME",
        help="the environment variable that holds the key of payloads: 64 hexadecimal digits",
        section=CLUSTER,
    ),
)

takes_cluster_only = together(_reaches_cluster, _opens_cluster)
"""Which cluster a command is about that is about nothing else."""

takes_cluster = together(
    option(
        "--engine",
        type=click.Choice(["temporal"]),
        metavar="temporal",
        help="the runs are on a Temporal cluster; needs the extra 'temporal'",
        section=CLUSTER,
    ),
    _reaches_cluster,
    option(
        "--queue",
        default="nano-vm",
        metavar="NAME",
        help="the task queue that workers take runs from; default: nano-vm",
        section=CLUSTER,
    ),
    _opens_cluster,
)
"""Which cluster has the runs that a command is about."""

begins_on_cluster = flag(
    "--search-attributes",
    help="its lists find the run by NanoProgram, NanoVersion, NanoStatus, NanoProject, NanoLabels",
    section=CLUSTER,
)
"""What is said of a run that begins on a cluster."""

takes_run = argument(
    "run", help="the run's id, or its beginning", shell_complete=completion.run_ids
)

takes_recorded = together(
    argument(
        "run",
        help="a trace, an exported run, or the id of a run in the store",
        shell_complete=completion.recorded,
    ),
    values(
        "--program",
        "program_file",
        metavar="FILE",
        help="the program of a trace; NAME=FILE for one that it calls by name",
        shell_complete=completion.programs,
    ),
)
"""A run that was recorded, and its program."""

takes_decision = together(
    argument(
        "path",
        required=False,
        metavar="[PATH]",
        help="where it asks; needed where it asks several things",
        shell_complete=completion.asked_paths,
    ),
    option("--by", metavar="NAME", help="who decides; on a terminal, default: your account"),
    option("--reason", metavar="TEXT", help="why"),
    takes_signing_key,
)
"""What a person says to a request of a run."""
