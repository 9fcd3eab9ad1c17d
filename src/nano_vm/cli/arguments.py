"""The command line's grammar and its help. Nothing heavy is imported: ``--help`` answers at
once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from .text import USAGE, note, safe

Result = TypeVar("Result")

EXIT_CODES = """\
exit codes:
  0    success
  1    the run failed; check found errors; the file is not what it should be
  2    the command line is wrong, or a file that it names can not be used
  3    the run is suspended: it waits for a person, a time or an event
  70   an error in nano-vm itself (NANO_VM_DEBUG=1 shows the traceback)
  130  interrupted by Ctrl-C; the run was cancelled and undone (143: terminated)
  141  stdout was closed by its reader
"""

DESCRIPTION = """\
Run, check and explain programs that call language models and tools.

A program is YAML or JSON. The VM owns every transition; models and tools only answer.
"""

EXAMPLES = """\
examples:
  nano-vm check refund.yaml --tools refund.py:tools
  nano-vm run refund.yaml --tools refund.py:tools --model local -i user_input="It arrived broken"
  nano-vm run refund.yaml --tools refund.py:tools --model groq/llama-3.3-70b-versatile \\
      --input-file order.json --trace run.json
  nano-vm trace show run.json
  nano-vm graph refund.yaml --format svg -o refund.svg

"""

RUN_HELP = """\
Run a program and show its steps as they happen.

inputs:
  -i name=text        the value is the text
  -i name:=json       the value is JSON: -i amount:=30 -i tags:='["a", "b"]'
  -i name=@FILE       the text of a file (@- is standard input); name:=@FILE reads JSON
  --input-file FILE   an object of inputs, in JSON or YAML; -i goes over it

tools:
  --tools refund.py:tools      object 'tools' of a file
  --tools package.module:obj   object of a module, found from the current folder
  The object is a dict of callables, a list of functions, or whatever holds functions marked
  with @tool. Without ':object' it is the module's 'tools', else its functions marked with @tool.

models:
  local, local:FILE.gguf              in this process            pip install 'llm-nano-vm[local]'
  openai/NAME, groq/NAME, ollama/NAME, openrouter/NAME, together/NAME, vllm/NAME, llamacpp/NAME
                                      key from OPENAI_API_KEY, GROQ_API_KEY, ...
                                                                 pip install 'llm-nano-vm[openai]'
  NAME with --base-url URL            any OpenAI-compatible server
  litellm:NAME                        what LiteLLM knows         pip install 'llm-nano-vm[litellm]'
  Several models: --model fast=groq/NAME --model good=openai/NAME, for steps with 'model: fast'.

called programs:
  A 'call' may name a file, relative to the file that it stands in, inside the program's folder.
  Any other is given as --program name=FILE.

"""

EXPLORE_HELP = """\
Run a program under every outcome worth trying: each side of every branch, errors, timeouts, invalid answers.

No tool and no model is called. Values are made up from enums, schemas and the types that tools declare, and from
what conditions compare them with. What no run reaches is listed; it may still be reachable by values not tried.

"""

CHECK_HELP = """\
List every fault of a program, with its place, and what can be said of all its runs. Nothing is run.

What a policy demands is proved, or refuted by a run that was found and executed with made-up outcomes, or unproved.
The last lines tell the worst case: steps, calls, tokens and dollars. Without --tools and --model, what depends on
them is not checked, and the last line says so.

"""

CHECK_EXAMPLES = """\
examples:
  nano-vm check refund.yaml --tools refund.py:tools --strict
  nano-vm check refund.yaml --tools refund.py:tools --policy refund.policy.yaml
  nano-vm check plan.yaml --tools refund.py:tools --untrusted user_input --json | jq .proofs

"""

RUN_EXAMPLES = """\
examples:
  nano-vm run refund.yaml --tools refund.py:tools --model local -i user_input="It arrived broken"
  nano-vm run report.yaml --model ollama/llama3.2 -i text=@mail.txt --budget max_tokens=5000
  nano-vm run refund.yaml --tools refund.py:tools --model local --json | jq .digest

"""

PLAN_HELP = """\
Let a model write a program for a text, by one call, and check it. Nothing of it is run.

The model is shown the tools and the names and types of the inputs, never their values. What it writes is printed only
if it passes: every name, tool and argument, the policy, the budget. Read it before it is run.

"""

PLAN_EXAMPLES = """\
examples:
  nano-vm plan "Refund the customer if the message asks for it" --tools refund.py:tools \\
      --model groq/llama-3.3-70b-versatile -i user_input= -i order_id= -o plan.yaml
  nano-vm check plan.yaml --tools refund.py:tools

"""

BATCH_HELP = """\
Run a program on each line of a file, and write a line of results for each.

INPUTS is JSON Lines: an object of inputs a line. OUT is JSON Lines too: the number of the input's line, status, output or
error, steps, tokens, cost and digests. A line that is no input, and a run that fails, have their line and stop nothing.

Ctrl-C ends it cleanly: what is under way ends, nothing new begins. The same command goes on where it stopped, by what
OUT has. With --store also what was under way when the process was killed goes on and is not repeated.

"""

BATCH_EXAMPLES = """\
examples:
  nano-vm batch triage.yaml mails.jsonl -o results.jsonl --tools triage.py:tools --model local --concurrency 8
  jq -c 'select(.status != "success")' results.jsonl

"""


WORK_HELP = """\
Take up runs of a store that nobody drives: submitted, left behind by a process that is gone, due, or answered.

It goes on for ever; several may share one store, on one machine or many. It says of each run how far it came. Ctrl-C
lets calls that are under way end, and leaves the runs to others.

"""

SHOW_HELP = """\
Show a run: what it did and why it took its path, and what it waits for, with the commands that answer it.

An approval is given for what was shown: its digest stands with the request, and 'approve' is refused where the run asks
something else by then.

"""

REPLAY_HELP = """\
Compute a run once more from its recorded outcomes, and hold every record against it. No tool and no model is called.

RUN is a trace that 'run --trace' wrote, a run of a file that 'store export' wrote (FILE#RUN where it has several), or a run of
a store, by its id. A trace does not hold its program: give --program FILE.

"""

VERIFY_HELP = """\
Verify recorded runs: the hash chain holds, the program is the one that the run names, every step is the only one that could
follow. All that is needed is the file; for a trace, also its program.

RUN is a trace, a file that 'store export' wrote (all runs in it), or a run of a store.

"""

DIFF_HELP = """\
Tell two runs or two programs apart: where they differ first, and what differs in each step.

A and B are traces, runs of an exported file (FILE#RUN), runs of a store, or two programs. What a step cost and how long it
took is told too, and is no difference.

"""

FORK_HELP = """\
Run a recorded run once more with a change: an input, an output, a field of a step, or the whole program.

Steps that are asked the same take their recorded outcome at no cost; live calls begin where what is asked differs, or at --at.
A call of a tool with effect 'write' or 'irreversible' is not made without --effects: the fork stops before it. With --run-id it is
kept in the store, and goes on when what it waits for has come; a call that it stopped before is for 'resolve' to decide.

"""

KEYS = """\
A key is a file in PEM, as 'openssl genpkey -algorithm ed25519' makes it too; pip install 'llm-nano-vm[sign]'.

"""

STORED = """\
the store: --store URL, or the environment variable NANO_VM_STORE
  sqlite:///runs.db                file runs.db, made where it is not there
  postgresql://user@host/name      a database for many machines                  pip install 'llm-nano-vm[postgres]'

A run is named by its id, or by its beginning where that is unique.

"""


class _Parser(argparse.ArgumentParser):
    """argparse, whose errors are one line that shows how to go on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        note(f"{self.prog}: {safe(message)}; see {self.prog} --help")
        raise SystemExit(USAGE)


def parser() -> argparse.ArgumentParser:
    """The whole grammar; ``handler`` of what it parses names the module and function that do the
    work.
    """
    top = _Parser(prog="nano-vm", description=DESCRIPTION, epilog=EXAMPLES + EXIT_CODES)
    top.add_argument("--version", action="store_true", help="print the version and leave")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    def command(name: str, handler: str, help: str, **kwargs: Any) -> argparse.ArgumentParser:
        kwargs.setdefault("description", f"{help[0].upper()}{help[1:]}.")
        kwargs["epilog"] = kwargs.get("epilog", "") + EXIT_CODES
        made: argparse.ArgumentParser = commands.add_parser(name, help=help, **kwargs)
        made.set_defaults(handler=handler)
        return made

    run = command("run", "run.run", "run a program", description=RUN_HELP, epilog=RUN_EXAMPLES)
    _program(run)
    _host(run)
    _policy(run)
    run.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input; repeat for more",
    )
    run.add_argument(
        "--input-file", metavar="FILE", help="inputs in JSON or YAML (- is standard input)"
    )
    run.add_argument(
        "--json", action="store_true", help="print the trace as JSON, and nothing else"
    )
    run.add_argument("--trace", metavar="FILE", help="write the trace to FILE")
    run.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="NAME=N",
        help="a limit: max_steps, max_tokens, max_seconds, ...",
    )
    _price(run, "dollars per million tokens, for max_cost_usd")
    run.add_argument("--seed", type=int, metavar="N", help="seed of the waits between attempts")
    run.add_argument(
        "--store",
        metavar="URL",
        help="a database that keeps the run: sqlite:///runs.db, postgresql://...",
    )
    _keys(run)
    run.add_argument(
        "--run-id", metavar="ID", help="the run's id; with --store, one that is there is joined"
    )

    check = command(
        "check",
        "inspect.check",
        "list every fault of a program, and prove what a policy demands of it",
        description=CHECK_HELP,
        epilog=CHECK_EXAMPLES,
    )
    _program(check)
    _host(check)
    _policy(check)
    _price(check, "dollars per million tokens, for what a run can cost")
    check.add_argument("--strict", action="store_true", help="take warnings for errors")
    check.add_argument("--json", action="store_true", help="print the report as JSON")

    explore = command(
        "explore",
        "explore.explore",
        "run a program under every outcome worth trying, and look for runs that break a property",
        description=EXPLORE_HELP,
        epilog="examples:\n  nano-vm explore refund.yaml --tools refund.py:tools --at-most "
        "issue_refund=1\n"
        "  nano-vm explore refund.yaml --only-after issue_refund=guardrail.then --json | jq "
        ".failures\n\n",
    )
    _program(explore)
    explore.add_argument(
        "--tools",
        metavar="MODULE:OBJECT",
        help="the tools, for their types and effects: module:object or file.py:object",
    )
    explore.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input, as for 'run'; else made up",
    )
    explore.add_argument(
        "--input-file", metavar="FILE", help="inputs in JSON or YAML (- is standard input)"
    )
    explore.add_argument(
        "--policy", metavar="FILE", help="a policy, whose value checks hold in every run"
    )
    explore.add_argument(
        "--max-runs", type=int, metavar="N", help="stop after N runs; default: 10000"
    )
    explore.add_argument("--no-errors", action="store_true", help="inject no errors and timeouts")
    explore.add_argument("--cancel", action="store_true", help="cancel the run at each call, too")
    for flag, metavar, text in (
        ("--at-most", "TOOL=N", "no run calls the tool more often; each attempt counts"),
        ("--never", "TOOL", "no run calls the tool"),
        (
            "--only-after",
            "TOOL=STEP.BRANCH",
            "each call of the tool comes after the branch, taken since the call before",
        ),
    ):
        explore.add_argument(
            flag,
            action="append",
            default=[],
            metavar=metavar,
            help=f"property: {text}; repeat for more",
        )
    explore.add_argument("--json", action="store_true", help="print the result as JSON")

    explain = command(
        "explain", "inspect.explain", "print the plan: what is executed, operation by operation"
    )
    _program(explain)
    _host(explain)

    graph = command(
        "graph",
        "inspect.graph",
        "draw a program",
        description="Draw the graph of a program: the one that is verified and executed.",
        epilog="examples:\n  nano-vm graph refund.yaml --format svg -o refund.svg\n"
        "  nano-vm graph refund.yaml --proofs --policy refund.policy.yaml --format svg -o "
        "refund.svg\n"
        "  nano-vm graph refund.yaml >> README.md   (Mermaid, which GitHub shows)\n\n",
    )
    _program(graph)
    graph.add_argument(
        "--format", choices=("mermaid", "dot", "svg"), default="mermaid", help="default: mermaid"
    )
    graph.add_argument("-o", "--output", metavar="FILE", help="write to FILE")
    graph.add_argument(
        "--proofs",
        action="store_true",
        help="mark guards, the calls that they guard, and where outside text goes",
    )
    graph.add_argument(
        "--tools", metavar="MODULE:OBJECT", help="the tools, for what their contracts protect"
    )
    _policy(graph)

    plan = command(
        "plan",
        "plan.plan",
        "let a model write a program",
        description=PLAN_HELP,
        epilog=PLAN_EXAMPLES,
    )
    plan.add_argument("intent", metavar="INTENT", help="what the program is to do")
    _host(plan, steps=False)
    plan.add_argument(
        "--policy",
        metavar="FILE",
        help="what programs may do; one that does not keep to it is refused",
    )
    plan.add_argument(
        "--program",
        action="append",
        default=[],
        dest="program_file",
        metavar="NAME=FILE",
        help="a program that the new one may call",
    )
    plan.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input that it may read",
    )
    plan.add_argument(
        "--input-file", metavar="FILE", help="such inputs in JSON or YAML (- is standard input)"
    )
    plan.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="NAME=N",
        help="a limit for the program: max_steps, ...",
    )
    plan.add_argument(
        "--untrusted",
        action="store_true",
        help="the intent comes from outside: so does what the program says, until its digest is "
        "approved",
    )
    plan.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the program to FILE, in YAML or, if .json, in JSON",
    )
    plan.add_argument(
        "--json", action="store_true", help="print the program and its report as JSON"
    )

    batch = command(
        "batch",
        "batch.batch",
        "run a program on each line of a file",
        description=BATCH_HELP,
        epilog=BATCH_EXAMPLES,
    )
    _program(batch)
    batch.add_argument(
        "inputs", metavar="INPUTS", help="a file in JSON Lines (- is standard input)"
    )
    batch.add_argument("-o", "--output", metavar="OUT", required=True, help="the file of results")
    batch.add_argument(
        "--concurrency", type=_count, default=16, metavar="N", help="runs at a time; default: 16"
    )
    batch.add_argument(
        "--ordered", action="store_true", help="write results in the order of inputs"
    )
    batch.add_argument(
        "--retry-failed",
        action="store_true",
        help="run again what OUT says has failed or was cancelled, and nothing else",
    )
    batch.add_argument(
        "--restart",
        action="store_true",
        help="begin anew what OUT has: its results are lost, and effects are made again",
    )
    batch.add_argument("--yes", action="store_true", help="with --restart: do not ask")
    _host(batch)
    _policy(batch)
    batch.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="NAME=N",
        help="a limit for each run: max_steps, ...",
    )
    _price(batch, "dollars per million tokens, for max_cost_usd")
    batch.add_argument(
        "--store",
        metavar="URL",
        help="a database that keeps the runs: sqlite:///runs.db, postgresql://...",
    )
    _keys(batch)
    batch.add_argument("--json", action="store_true", help="print what it came to as JSON")

    _replayed(command)
    _durable(command)

    command(
        "schema",
        "inspect.schema",
        "print the JSON Schema of the language",
        epilog="examples:\n  nano-vm schema > nano-vm.schema.json   (editors complete and check "
        "programs by it)\n\n",
    )

    fmt = command(
        "fmt",
        "fmt.fmt",
        "print a program in canonical form",
        description="Print a program in canonical form: YAML, or JSON for a .json file.\n\n"
        "The form holds what the program means: COMMENTS ARE LOST, and so are fields without "
        "meaning, aliases and\n"
        "anchors. The result is read again before it goes out, and is the same program, with the "
        "same digest.",
        epilog="examples:\n  nano-vm fmt refund.yaml -w\n  nano-vm fmt refund.yaml --check\n\n",
    )
    fmt.add_argument(
        "program", metavar="PROGRAM", help="a file in YAML or JSON (- is standard input)"
    )
    how = fmt.add_mutually_exclusive_group()
    how.add_argument(
        "--check",
        action="store_true",
        help="print nothing; exit code 1 if the file has another form",
    )
    how.add_argument("-w", "--write", action="store_true", help="write it back to the file")

    trace = command("trace", "", "look at recorded runs")
    inner = trace.add_subparsers(dest="trace_command", metavar="COMMAND", required=True)
    show = inner.add_parser(
        "show",
        help="show a trace: steps, why each branch was taken, attempts and errors",
        description="Show a trace that 'run --trace' or 'run --json' wrote. One that was changed "
        "or cut is refused.",
        epilog="examples:\n  nano-vm trace show run.json\n\n" + EXIT_CODES,
    )
    show.add_argument("file", metavar="FILE", help="a trace in JSON (- is standard input)")
    show.set_defaults(handler="traces.show")
    return top


def _replayed(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands about recorded runs, from files or from a store."""

    def about(name: str, help: str, example: str, description: str) -> argparse.ArgumentParser:
        made = command(
            name, f"replay.{name}", help, description=description, epilog=f"examples:\n{example}\n"
        )
        if name != "diff":
            made.add_argument(
                "run",
                metavar="RUN",
                help="a trace, an exported run, or the id of a run in the store",
            )
            made.add_argument(
                "--program",
                action="append",
                default=[],
                dest="program_file",
                metavar="FILE",
                help="the program of a trace; NAME=FILE for one that it calls by name",
            )
        _store(made)
        return made

    about(
        "replay",
        "compute a run once more from its records, and tell the first that differs",
        "  nano-vm replay run.json --program refund.yaml\n  nano-vm replay 3f2a --store "
        "sqlite:///runs.db --json\n",
        REPLAY_HELP,
    )
    verify = about(
        "verify",
        "verify recorded runs: hash chain, signature, program, and every transition",
        "  nano-vm verify run.json --program refund.yaml\n  nano-vm verify runs.jsonl --key "
        "public.pem\n",
        VERIFY_HELP,
    )
    _key(verify)
    diff = about(
        "diff",
        "tell two runs or two programs apart",
        "  nano-vm diff monday.json tuesday.json\n  nano-vm diff refund.yaml refund-2.yaml --json "
        "| jq .divergence\n",
        DIFF_HELP,
    )
    diff.add_argument("a", metavar="A", help="a run or a program")
    diff.add_argument("b", metavar="B", help="another")
    fork = about(
        "fork",
        "run a recorded run once more, with a change",
        "  nano-vm fork run.json --program refund.yaml --tools refund.py:tools --output judge=no\n"
        "  nano-vm fork 3f2a --store sqlite:///runs.db --tools refund.py:tools --model local "
        "--set judge.prompt='Is it broken?'\n"
        "  nano-vm fork refund-A7 --run-id refund-A8 --tools refund.py:tools -i order_id=A8   "
        "(kept, with its parent)\n",
        FORK_HELP,
    )
    _host(fork)
    fork.add_argument(
        "--at", metavar="STEP", help="ask models and read anew from this step on: its path or id"
    )
    fork.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input that changes",
    )
    fork.add_argument(
        "--input-file", metavar="FILE", help="such inputs in JSON or YAML (- is standard input)"
    )
    fork.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="STEP=VALUE",
        help="what a step gives instead; STEP:=JSON",
    )
    fork.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STEP.FIELD=VALUE",
        help="a field of a step; STEP.FIELD:=JSON",
    )
    fork.add_argument("--to", metavar="FILE", help="the changed program")
    fork.add_argument("--effects", action="store_true", help="make calls that have an effect, too")
    fork.add_argument(
        "--run-id",
        metavar="ID",
        help="keep the fork in the store under this id: it can wait, and go on",
    )
    fork.add_argument("--trace", metavar="FILE", help="write the fork's trace to FILE")


def _durable(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands about runs in a store."""

    def stored(
        name: str, handler: str, help: str, example: str = "", **kwargs: Any
    ) -> argparse.ArgumentParser:
        epilog = (f"examples:\n{example}\n" if example else "") + STORED
        made = command(name, handler, help, epilog=epilog, **kwargs)
        _store(made)
        return made

    def about(name: str, help: str, example: str = "", **kwargs: Any) -> argparse.ArgumentParser:
        made = stored(name, f"runs.{name}", help, example, **kwargs)
        made.add_argument("run", metavar="RUN", help="the run's id, or its beginning")
        return made

    runs = stored(
        "runs",
        "runs.runs",
        "list the runs of a store",
        "  nano-vm runs --store sqlite:///runs.db --status suspended\n"
        "  nano-vm runs --program refund --since 2d --json | jq -r '.[].run_id'\n",
    )
    runs.add_argument(
        "--status",
        action="append",
        choices=("pending", "running", "suspended", "success", "failed", "cancelled"),
        help="only these; repeat for more",
    )
    runs.add_argument(
        "--waiting", action="store_true", help="only those that wait, with all that they wait for"
    )
    runs.add_argument(
        "--program", dest="program_name", metavar="NAME", help="only runs of this program"
    )
    runs.add_argument(
        "--since", type=_time, metavar="TIME", help="begun since: 2h (ago), 2027-01-31, ..."
    )
    runs.add_argument("--until", type=_time, metavar="TIME", help="begun before")
    runs.add_argument("--min-cost", type=_dollars, metavar="USD", help="that cost so much or more")
    runs.add_argument(
        "--limit",
        type=_count,
        default=50,
        metavar="N",
        help="at most so many, the newest; default: 50",
    )

    about(
        "show",
        "show a run, and what it waits for",
        "  nano-vm show 3f2a --store sqlite:///runs.db\n",
        description=SHOW_HELP,
    )

    work = stored(
        "work",
        "runs.work",
        "take up runs that nobody drives",
        "  nano-vm work --tools refund.py:tools --model local --store sqlite:///runs.db\n"
        "  nano-vm work --tools refund.py:tools --until-idle   (from cron)\n",
        description=WORK_HELP,
    )
    _worker(work)
    work.add_argument(
        "--until-idle", action="store_true", help="end when there is nothing to take up"
    )
    work.add_argument(
        "--concurrency", type=_count, default=16, metavar="N", help="runs at a time; default: 16"
    )

    migrate = command(
        "migrate",
        "migrate.migrate",
        "which runs in flight may go on with a changed program",
        description="For each unfinished run of a program: whether what it did so far is what the "
        "new program would have done, with all "
        "the data that it needs from here on; and if not, why. Nothing is changed.",
        epilog="examples:\n  nano-vm migrate refund-v2.yaml --dry-run --tools refund.py:tools "
        "--store sqlite:///runs.db\n\n",
    )
    _program(migrate)
    _host(migrate)
    _rules(migrate)
    migrate.add_argument(
        "--dry-run", action="store_true", help="only say which may; moving them is not built yet"
    )
    migrate.add_argument(
        "--of", metavar="NAME", help="the program's name in the store; default: that of PROGRAM"
    )
    _store(migrate)

    _worker(about("resume", "go on with a run", "  nano-vm resume 3f2a --tools refund.py:tools\n"))

    approve = about(
        "approve",
        "approve what a run asks",
        "  nano-vm approve 3f2a                                         on a terminal: shows it "
        "and asks\n"
        "  nano-vm approve 3f2a ask --shown 3073ee8b0c41 --by ann       its digest as 'nano-vm "
        "show 3f2a' prints it\n",
    )
    approve.add_argument(
        "--shown", metavar="DIGEST", help="of the request that you have seen; 12 digits are enough"
    )
    reject = about(
        "reject",
        "reject what a run asks",
        "  nano-vm reject 3f2a ask --by ann --reason 'too much'\n",
    )
    reject.add_argument("--shown", metavar="DIGEST", help="of the request that you have seen")
    for decision in (approve, reject):
        decision.add_argument(
            "path",
            nargs="?",
            metavar="PATH",
            help="where it asks; needed where it asks several things",
        )
        decision.add_argument(
            "--by", metavar="NAME", help="who decides; on a terminal, default: your account"
        )
        decision.add_argument("--reason", metavar="TEXT", help="why")

        _signing_key(decision)

    event = stored(
        "event",
        "runs.event",
        "send an event to a run, or to the one that waits for its values",
        "  nano-vm event 3f2a paid '{\"amount\": 30}'\n"
        '  nano-vm event --match paid \'{"order": "A7", "amount": 30}\' --id evt_1\n',
    )
    event.add_argument(
        "words",
        nargs="+",
        metavar=("RUN NAME", "JSON"),
        help="the run, the event's name as a 'wait' step has it, and what it brings, or @FILE; "
        "default: null",
    )
    event.add_argument(
        "--match",
        action="store_true",
        help="for the run whose 'wait' has a 'match' that the payload fits; then without RUN",
    )
    event.add_argument(
        "--id", metavar="ID", help="the sender's: what has the same name and id is recorded once"
    )

    resolve = about(
        "resolve",
        "say what became of a call in doubt",
        "  nano-vm resolve 3f2a pay --done '\"receipt 77\"' --by ann     it took place, and gave "
        "this\n"
        "  nano-vm resolve 3f2a pay --retry --by ann                  it did not: make it\n",
    )
    resolve.add_argument("path", metavar="PATH", help="of the call, as 'show' prints it")
    how = resolve.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--done", metavar="JSON", help="it took place, and this is its output (or @FILE)"
    )
    how.add_argument("--retry", action="store_true", help="it did not take place: make it again")
    how.add_argument("--fail", metavar="REASON", help="it failed")
    resolve.add_argument("--by", metavar="NAME", help="who says so; default: your account")
    _signing_key(resolve)

    cancel = about(
        "cancel",
        "cancel a run, and undo what it did",
        "  nano-vm cancel 3f2a --tools refund.py:tools\n",
    )
    _worker(cancel)
    cancel.add_argument("--by", metavar="NAME", help="who wants it; default: your account")

    keys = command("keys", "", "make and show the keys that sign what runs say of themselves")
    inner = keys.add_subparsers(dest="keys_command", metavar="COMMAND", required=True)
    for name, does, what in (
        (
            "make",
            "make a signing key, and print its public key",
            "the file to write the private key to",
        ),
        ("show", "print the public key of a key's file", "a private or public key in PEM"),
    ):
        key = inner.add_parser(
            name, help=does, description=f"{does[0].upper()}{does[1:]}.", epilog=KEYS + EXIT_CODES
        )
        key.add_argument("file", metavar="FILE", help=what)
        key.add_argument("--json", action="store_true", help="print JSON")
        key.set_defaults(handler=f"keys.{name}")
    listed = inner.add_parser(
        "list",
        help="list the keys that signed a store's receipts",
        description="List the public keys that signed a store's receipts, with their number and "
        "times.",
        epilog=STORED + EXIT_CODES,
    )
    listed.set_defaults(handler="keys.list_")
    _store(listed)

    store = command(
        "store", "", "look after a store: prune, export, import, check, erase, head, accept"
    )
    inner = store.add_subparsers(dest="store_command", metavar="COMMAND", required=True)

    def upkeep(name: str, help: str, **kwargs: Any) -> argparse.ArgumentParser:
        kwargs.setdefault("description", f"{help[0].upper()}{help[1:]}.")
        made: argparse.ArgumentParser = inner.add_parser(
            name, help=help, epilog=STORED + EXIT_CODES, **kwargs
        )
        made.set_defaults(handler=f"upkeep.{name}{'_' * (name == 'import')}")
        _store(made)
        return made

    prune = upkeep("prune", "delete runs that ended long ago")
    prune.add_argument(
        "--older-than",
        required=True,
        type=_age,
        metavar="AGE",
        help="that ended before: 30d, 12h, ...",
    )
    prune.add_argument(
        "--status",
        action="append",
        choices=("success", "failed", "cancelled"),
        help="only these; repeat for more",
    )
    prune.add_argument(
        "--dry-run", action="store_true", help="only list the runs that would be deleted"
    )
    prune.add_argument(
        "--yes", action="store_true", help="do not ask; without a terminal nobody is asked"
    )
    _signing_key(prune)
    export = upkeep(
        "export", "write runs as JSON Lines, with all that is needed to verify and replay them"
    )
    export.add_argument("run", nargs="*", metavar="RUN", help="the runs; default: all")
    export.add_argument("-o", "--output", metavar="FILE", help="write to FILE, not to stdout")
    import_ = upkeep("import", "take in runs that 'store export' wrote, all or nothing")
    import_.add_argument("file", metavar="FILE", help="(- is standard input)")
    import_.add_argument(
        "--unfinished",
        action="store_true",
        help="take in also runs that have not ended: only if the other store is given up",
    )
    _signing_key(import_)
    check = upkeep(
        "check", "look for damage: checksums, hashes, references, seals, signatures and receipts"
    )
    _key(check)
    check.add_argument(
        "--head",
        metavar="NUMBER:HASH",
        help="what 'store head' printed before: its receipt must still be there",
    )
    upkeep(
        "accept",
        "use a file of SQLite as it is whose log is missing",
        description="A file of SQLite that was copied without its log while it was in use, or "
        "restored from a backup that was taken\n"
        "then, is of an earlier moment: going on with its runs would make calls again that were "
        "made since. So a command\n"
        "that would is refused, until this one says that the file is to be used as it is.",
    )
    upkeep("head", "print number and hash of the newest receipt, to be kept elsewhere")
    erase = upkeep(
        "erase",
        "erase the values of a run that has ended; its seal still verifies",
        description="Erase the inputs, requests and outputs of a run that has ended. What "
        "happened when stays, and the\n"
        "seal still verifies; values that other runs have too stay with them.",
    )
    erase.add_argument("run", metavar="RUN", help="the run's whole id")
    _signing_key(erase)


def _store(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--store", metavar="URL", help="the database of runs; default: NANO_VM_STORE"
    )
    command.add_argument("--json", action="store_true", help="print JSON")


def _signing_key(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--signing-key",
        metavar="FILE",
        help="a key that signs what is recorded; default: NANO_VM_SIGNING_KEY",
    )


def _keys(command: argparse.ArgumentParser) -> None:
    """What signs runs, and who else may have."""
    _signing_key(command)
    command.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="KEY",
        help="a public key of another process that runs may be from",
    )


def _key(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="PUBLIC",
        help="a public key, or its file: it must have signed",
    )


def _worker(command: argparse.ArgumentParser) -> None:
    """What a host needs to drive runs that are stored: they bring their programs, inputs and
    budgets.
    """
    _host(command)
    _keys(command)
    _rules(command)
    _price(command, "dollars per million tokens, for max_cost_usd")


def _program(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "program", metavar="PROGRAM", help="a file in YAML or JSON (- is standard input)"
    )
    command.add_argument(
        "--program",
        action="append",
        default=[],
        dest="program_file",
        metavar="NAME=FILE",
        help="a program that 'call' steps name",
    )


def _host(command: argparse.ArgumentParser, *, steps: bool = True) -> None:
    """What a command calls; *steps* where it runs programs."""
    command.add_argument(
        "--tools", metavar="MODULE:OBJECT", help="the tools: module:object or file.py:object"
    )
    command.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="MODEL",
        help="the model: local, openai/NAME, litellm:NAME, scripted:FILE, ...",
    )
    if steps:
        command.add_argument(
            "--answer",
            action="append",
            default=[],
            metavar="STEP=TEXT",
            help="what a model step answers, in place of a model (@FILE reads it from a file)",
        )
    command.add_argument(
        "--base-url", metavar="URL", help="an OpenAI-compatible server that has the model"
    )


def _policy(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--untrusted",
        action="append",
        default=[],
        metavar="NAME",
        help="an input whose value comes from outside",
    )
    _rules(command)


def _rules(command: argparse.ArgumentParser) -> None:
    """The host's policy, and the programs that a person has approved."""
    command.add_argument(
        "--policy",
        metavar="FILE",
        help="what programs may do; one not proved to keep to it is refused",
    )
    command.add_argument(
        "--approve",
        action="append",
        default=[],
        metavar="DIGEST",
        help="a program from an untrusted source that you have read",
    )


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 10 else 0
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return number


def _time(text: str) -> int:
    from .stores import time_ns

    return _parsed(time_ns, text)


def _age(text: str) -> float:
    from .stores import age_seconds

    return _parsed(age_seconds, text)


def _dollars(text: str) -> str:
    number = text.removeprefix("$")
    if not number.isascii() or not number.replace(".", "", 1).isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of dollars")
    return number


def _parsed(read: Callable[[str], Result], text: str) -> Result:
    try:
        return read(text)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _price(command: argparse.ArgumentParser, help: str) -> None:
    command.add_argument("--price", action="append", default=[], metavar="MODEL=IN,OUT", help=help)
