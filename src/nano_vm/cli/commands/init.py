"""``nano-vm init``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import click

from ..faults import OK, UsageFault
from ..grammar import Options, argument, command, option
from ..output import complain, say
from ..schemas import EDITOR_LINE, schema
from ..signals import noted_signals
from ..text import safe

RUN = "nano-vm run program.yaml"

NEXT = {
    "guardrail": (
        f"{RUN} -i message='It broke' -i order_id=A-1",
        f"{RUN} -i message='It broke' -i order_id=A-2",
    ),
    "approval": (
        f"{RUN} --store sqlite:///runs.db --run-id first -i recipient=ACME -i amount=30",
        "nano-vm show first --store sqlite:///runs.db",
    ),
    "map": (RUN,),
    "agentic-review": (f"{RUN} -i topic=lamps",),
    "rag": (f"{RUN} -i question='When is my money paid back?'",),
}
"""What to run in a new folder, by template: these need no model and no key."""

ALWAYS = ("nano-vm check program.yaml --strict", "nano-vm test")
"""What to try in any of them, before."""

SHARED = {
    "gitignore": ".gitignore",
    "settings.json": ".vscode/settings.json",
    "workflow.yml": ".github/workflows/test.yml",
}
"""Files that every project gets, by their names in the package, where no file begins with a dot."""

PROGRAM_SCHEMA = ".nano-vm/program.schema.json"
TESTS_SCHEMA = ".nano-vm/tests.schema.json"

MODELS = """
default = "scripted"

# Answers of a script, so that the program runs without a model. For one in this process, with
# pip install 'llm-nano-vm[local]', write model = "local"; for a provider's, "openai/NAME" and
# key_env = "OPENAI_API_KEY".
[models.scripted]
model = "scripted:answers.yaml"
"""

EXAMPLES = """\
nano-vm init refunds
nano-vm init letters --template agentic-review
"""


@command(examples=EXAMPLES)
@argument(
    "folder",
    required=False,
    default=".",
    metavar="[FOLDER]",
    help="the folder to make; default: the current one, if it is empty",
)
@option(
    "--template",
    type=click.Choice(tuple(NEXT)),
    default="guardrail",
    metavar="NAME",
    help="which of these; default: guardrail",
)
def init(options: Options) -> int:
    """
    Make a project: a program, its tools, a policy, tests, settings of editors and a CI file.

    All of it runs as it is, without a model and without a key: answers.yaml has the answers of a
    script. nano-vm.toml names the tools, the policy and the models. The folder must be empty, but
    for files that begin with a full stop; nothing is overwritten.

    templates:
      guardrail        a refund that no answer of a model can bypass, proved by a policy
      approval         a payment that waits in a store until a person approves it
      map              a model's label for each line of a file, some at a time
      agentic-review   a writer and a reviewer, until the reviewer approves
      rag              an answer from documents, given only if it cites what was found
    """
    folder = Path(options.folder)
    files = dict(_files(options.template))
    try:
        _require_empty(folder, files)
        signalled = _write_all(folder, files)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageFault(f"cannot write to {options.folder}: {reason}") from None
    if signalled is not None:
        complain("interrupted: nothing is left of the project")
        return 128 + signalled
    for name in files:
        say(safe(f"{folder / name}: written"))
    say("next:")
    there = [] if folder.resolve() == Path.cwd() else [f"cd {shlex.quote(str(folder))}"]
    for line in (*there, *ALWAYS, *NEXT[options.template]):
        say(safe(f"  {line}"))
    return OK


def _require_empty(folder: Path, files: dict[str, bytes]) -> None:
    """Refuse a folder that holds what may be somebody's work."""
    if not folder.is_dir():
        return
    held = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    held += [name for name in files if name.startswith(".") and (folder / name).exists()]
    if held:
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        raise UsageFault(f"{folder} is not empty: it holds {held[0]}{more}; name another folder")


def _write_all(folder: Path, files: Mapping[str, bytes]) -> int | None:
    """Make all *files*, or none: what is begun is removed where one cannot be written, or a signal
    comes, whose number is given back.
    """
    begun: list[Path] = []
    with noted_signals() as received:  # until it is removed: a second Ctrl-C leaves nothing either
        try:
            for name, data in files.items():
                _write(folder / name, data, begun)
                if received:
                    break
        except BaseException:
            _remove(begun)
            raise
        signalled = received[0] if received else None
        if signalled is not None:
            _remove(begun)
    return signalled


def _write(file: Path, data: bytes, begun: list[Path]) -> None:
    """Make *file*, and the folders above it; what is there of it at any moment is in *begun*."""
    for above in reversed(file.parents):
        if not above.exists():
            above.mkdir()
            begun.append(above)
    with file.open("xb") as new:
        begun.append(file)
        new.write(data)


def _remove(begun: list[Path]) -> None:
    """Leave nothing of a part of a project: it would be in the way of the next one."""
    for path in reversed(begun):  # so that a folder is empty by then
        with suppress(OSError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


def _files(template: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a project."""
    home = Path(__file__).parents[1] / "templates"
    source = home / template
    for file in sorted(source.rglob("*")):
        if not file.is_file() or "__pycache__" in file.parts:
            continue
        name = file.relative_to(source).as_posix()
        yield name, _line_of(name).encode() + file.read_bytes()
    yield "nano-vm.toml", _host_file(source).encode()
    for name, target in SHARED.items():
        yield target, (home / "shared" / name).read_bytes()
    yield "README.md", _readme(template).encode()
    yield PROGRAM_SCHEMA, _json(schema("program"))
    yield TESTS_SCHEMA, _json(schema("tests"))


def _line_of(name: str) -> str:
    """The editor's line of a file, where it has a schema."""
    if name == "program.yaml":
        return EDITOR_LINE.format(PROGRAM_SCHEMA)
    return EDITOR_LINE.format(TESTS_SCHEMA) if name.endswith(".test.yaml") else ""


def _readme(template: str) -> str:
    """What the project is, and what to run."""
    commands = "\n".join((*ALWAYS, *NEXT[template]))
    return (
        f"# {template}\n\n"
        f"A program of llm-nano-vm, made by `nano-vm init --template {template}`. "
        f"`program.yaml` is the\nprogram, `tools.py` has what it calls, `nano-vm.toml` the models, "
        f"and `program.test.yaml` its tests.\n\n```sh\n{commands}\n```\n"
    )


def _host_file(source: Path) -> str:
    said = ["# What the programs of this folder run with.", 'tools = "tools.py:tools"']
    if (source / "policy.yaml").exists():
        said.append('policy = "policy.yaml"')
    models = MODELS if (source / "answers.yaml").exists() else ""
    return "\n".join(said) + "\n" + models.replace("\ndefault", "default", 1)


def _json(value: dict[str, object]) -> bytes:
    return f"{json.dumps(value, indent=1)}\n".encode()
