"""``nano-vm run``."""

from __future__ import annotations

from .. import completion
from ..grammar import Options, command, flag, option
from ..parameters import (
    STORE,
    keeps_in_store,
    takes_budget,
    takes_host,
    takes_inputs,
    takes_keys,
    takes_policy,
    takes_price,
    takes_program,
)

EXAMPLES = """\
nano-vm run refund.yaml --tools refund.py:tools --model local -i user_input="It arrived broken"
nano-vm run report.yaml --model ollama/llama3.2 -i text=@mail.txt --budget max_tokens=5000
nano-vm run refund.yaml --tools refund.py:tools --model local --json | jq .digest
"""


@command(examples=EXAMPLES)
@takes_program
@takes_inputs("an input; repeat for more")
@flag("--json", help="print the trace as JSON, and nothing else")
@option(
    "--trace",
    metavar="FILE",
    help="write the trace to FILE",
    shell_complete=completion.files,
)
@option("--seed", type=int, metavar="N", help="seed of the waits between attempts")
@takes_host
@takes_policy
@takes_budget("a limit: max_steps, max_tokens, max_seconds, ...")
@takes_price("for max_cost_usd")
@keeps_in_store("the run")
@option(
    "--run-id",
    metavar="ID",
    help="the run's id; with --store, one that is there is joined",
    section=STORE,
)
@takes_keys
def run(options: Options) -> int:
    """
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
      with @tool. Without ':object' it is the module's 'tools', else its functions marked with
      @tool.

    models:
      local, local:FILE.gguf              in this process        pip install 'llm-nano-vm[local]'
      openai/NAME, groq/NAME, ollama/NAME, openrouter/NAME, together/NAME, vllm/NAME,
      llamacpp/NAME                       key from OPENAI_API_KEY, GROQ_API_KEY, ...
                                                                 pip install 'llm-nano-vm[openai]'
      NAME with --base-url URL            any OpenAI-compatible server
      litellm:NAME                        what LiteLLM knows     pip install 'llm-nano-vm[litellm]'
      Several models: --model fast=groq/NAME --model good=openai/NAME, for steps with 'model: fast'.

    called programs:
      A 'call' may name a file, relative to the file that it stands in, inside the program's folder.
      Any other is given as --program name=FILE.
    """
    from ..run import run

    return run(options)
