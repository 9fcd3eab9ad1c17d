"""What a shell completes: programs, files of tools, models, runs of a store, steps of a program.

Each answers from files that are there, in little time; what cannot be read has no completions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from .grammar import COMPLETE
from .stores import VARIABLE, opened, run_id_of

PROGRAM_ENDINGS = (".yaml", ".yml", ".json")
SHOWN_RUNS = 50
"""Ids that are offered: more are not read."""

MODELS = (
    "local",
    "openai/",
    "groq/",
    "ollama/",
    "openrouter/",
    "together/",
    "vllm/",
    "llamacpp/",
    "litellm:",
    "scripted:",
)

BUDGET = (
    "max_steps",
    "max_llm_calls",
    "max_tool_calls",
    "max_tokens",
    "max_cost_usd",
    "max_seconds",
)
"""As `Budget.model_fields`, which a test holds: completion imports no model."""

Items = list[CompletionItem]


def files(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Any file: the shell knows best."""
    return [CompletionItem(incomplete, type="file")]


def programs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Programs, and the folders on the way to them."""
    return _ending(PROGRAM_ENDINGS, incomplete)


def tests(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Test files of programs, and the folders on the way to them."""
    return _ending((".test.yaml", ".test.yml", ".test.json"), incomplete)


def tools(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Python files."""
    return _ending((".py",), incomplete)


def models(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """How models are named, behind those of the project as ``NAME=``."""
    found: list[str] = []
    with suppress(Exception):  # no project, or one that cannot be read: there is nobody to be told
        from .models import project

        found = [f"{name}=" for name in project(ctx.params.get("host")).models]
    return [CompletionItem(name) for name in (*found, *MODELS) if name.startswith(incomplete)]


def budgets(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """What a budget limits, each with an ``=`` behind it."""
    return [CompletionItem(f"{name}=") for name in BUDGET if name.startswith(incomplete)]


def called(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """The tools that the program calls; where a value follows, each with an ``=`` behind it."""
    end = "=" if "=" in (parameter.metavar or "") else ""
    with suppress(Exception):  # as above
        from ..language.program import Program
        from .tools import tool_names

        program = Program.from_file(ctx.params["program"])
        names = dict.fromkeys(tool_names(program, {}))
        return [CompletionItem(f"{name}{end}") for name in names if name.startswith(incomplete)]
    return []


def tested(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """The names of tests in the files that are named so far, or in the current folder."""
    with suppress(Exception):  # as above
        from ..program_tests.document import read_document
        from .program_tests import test_files

        found: list[str] = []
        for path in test_files(ctx.params.get("paths") or ["."]):
            document = read_document(path.read_text(encoding="utf-8"), str(path))
            found += [case.name for case in document.tests]
            found += [stated.name for stated in document.properties]
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]
    return []


def run_ids(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Ids of runs in the store that is named so far."""
    url = ctx.params.get("store") or os.environ.get(VARIABLE)
    if not url or ctx.params.get("server"):
        return []
    with suppress(Exception):  # no store, no completions: there is nobody to be told
        store = opened(url, there=True, read=True)
        try:
            return [
                CompletionItem(found) for found in store.ids_starting_with(incomplete, SHOWN_RUNS)
            ]
        finally:
            store.close()
    return []


def asked_paths(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Where the run that is named so far waits for a person."""
    url = ctx.params.get("store") or os.environ.get(VARIABLE)
    run = ctx.params.get("run")
    if not url or not run or ctx.params.get("server"):
        return []
    with suppress(Exception):  # as above
        store = opened(url, there=True, read=True)
        try:
            waiting = store.load(run_id_of(store, run), rows=False).waiting
        finally:
            store.close()
        paths = [str(entry["path"]) for entry in waiting]
        return [CompletionItem(path) for path in paths if path.startswith(incomplete)]
    return []


def recorded(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Runs of the store, and files."""
    return [*run_ids(ctx, parameter, incomplete), *files(ctx, parameter, incomplete)]


def steps(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Ids of the program's steps, each with an ``=`` behind it."""
    path = ctx.params.get("program")
    if not path or not Path(path).is_file():
        return []
    with suppress(Exception):  # as above
        from ..language.program import Program

        ids = dict.fromkeys(step.id for step, _ in Program.from_file(path).walk())
        return [CompletionItem(f"{name}=") for name in ids if name.startswith(incomplete)]
    return []


def _ending(endings: tuple[str, ...], incomplete: str) -> Items:
    found = [CompletionItem(name) for name in _named(endings, incomplete)]
    return [CompletionItem(incomplete, type="dir"), *found]


def _named(endings: tuple[str, ...], incomplete: str) -> Iterator[str]:
    _, _, beginning = incomplete.rpartition("/")
    head = incomplete[: len(incomplete) - len(beginning)]
    with suppress(OSError):
        for entry in sorted(os.scandir(head or "."), key=lambda entry: entry.name):
            if entry.name.startswith(beginning) and entry.name.endswith(endings):
                yield f"{head}{entry.name}"


class Bash(BashComplete):
    """Bash, by the line as it was typed: bash itself would break words at ``:`` and ``=``, so that
    the URL of a store were three words.
    """

    source_template = """\
%(complete_func)s() {
    local line=${COMP_LINE:0:COMP_POINT} type value kept=
    local word=${line##*[[:space:]]} breaks=${COMP_WORDBREAKS//[^:=]/}
    # bash replaces only what follows the last of these
    [[ $breaks ]] && kept=${word%%"${word##*[$breaks]}"}
    COMPREPLY=()
    while IFS=, read -r type value; do
        if [[ $type == plain ]]; then
            COMPREPLY+=("${value#"$kept"}")
            [[ $value == *= ]] && compopt -o nospace
        elif [[ $type == file ]]; then
            compopt -o default
        elif [[ $type == dir ]]; then
            compopt -o plusdirs -o filenames
        fi
    done < <(env COMP_WORDS="$line" COMP_CWORD=0 %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        under_way = words.pop() if words and not line[-1:].isspace() else ""
        return words[1:], under_way


add_completion_class(Bash)


def script(shell: str, root: click.Context) -> str:
    """The script that makes a shell ask for completions."""
    found = get_completion_class(shell)
    assert found is not None
    completer = found(root.command, {}, root.command_path, COMPLETE)
    # not source(), which starts a bash to ask for its version
    return completer.source_template % completer.source_vars()
