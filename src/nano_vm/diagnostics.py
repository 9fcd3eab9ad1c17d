"""Every code of a diagnostic: what it means, an example that has it, how to mend it.

Codes come in; descriptions and traits go out. A code has one meaning for good: what has another
cure gets another code. Callers ask for traits, and never for numbers: a fault that is the `HOST`'s
leaves the program's graph whole; a `DOUBT` is what a program may do that nobody vouches for, a
warning to its author and an error under a policy; `BUDGET` says that the worst case is over a
budget; `GRAPH` that the graph is too large to be there as a whole; `NAMES` that a policy
names what is not there, or does not name an input. `PLANNER` is no error in what a person wrote and
a fault of what a model wrote: it meant something else, or takes more steps and calls than it may.
Of tokens and money the worst case is that of the largest values, which would refuse nearly every
program; the run holds these budgets.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

HOST: Final = "host"
DOUBT: Final = "doubt"
BUDGET: Final = "budget"
GRAPH: Final = "graph"
NAMES: Final = "names"
PLANNER: Final = "planner"


@dataclass(frozen=True, slots=True)
class Code:
    """What a code means. ``example`` is a program, and ``policy`` a host's policy, that has it; a
    code that needs more of a host has none.
    """

    code: str
    title: str
    meaning: str
    cure: str
    severity: str = "error"
    example: str = ""
    policy: str = ""
    traits: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        """All of it, as Markdown."""
        parts = [f"## {self.code}: {self.title}", self.meaning, f"*Remedy:* {self.cure}"]
        if self.severity != "error":
            parts[1] = f"A {self.severity}. {self.meaning}"
        if self.example:
            parts.append(f"```yaml\n{self.example.rstrip()}\n```")
        if self.policy:
            parts.append(f"with the policy\n\n```yaml\n{self.policy.rstrip()}\n```")
        return "\n\n".join(parts)


CODES: dict[str, Code] = {}


def _code(
    code: str,
    title: str,
    meaning: str,
    cure: str,
    severity: str = "error",
    *,
    example: str = "",
    policy: str = "",
    traits: tuple[str, ...] = (),
) -> None:
    assert code not in CODES
    CODES[code] = Code(code, title, meaning, cure, severity, example, policy, frozenset(traits))


def has(code: str, trait: str) -> bool:
    """Whether a *code* has a trait; a code of another version has none."""
    return code in CODES and trait in CODES[code].traits


def explained(code: str) -> str | None:
    """What *code* means, as Markdown; None where there is no such code."""
    found = CODES.get(code.upper())
    return found.text if found is not None else None


def document() -> str:
    """The page of all codes."""
    return "\n\n".join([_HEAD, *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    for code in sorted(CODES):
        yield CODES[code].text


_HEAD = """# Diagnostics

<!-- written by `python -m nano_vm.diagnostics`; do not edit -->
Every fault that is told of a program or policy has a code. `nano-vm explain CODE` prints what
stands here. Codes that begin with P are found in the document alone; those with V need the whole
program, and mostly the host: its tools, models and policy. An *error* keeps the program from
running; a *warning* does not, unless `--strict` or a policy makes it an error; a *hint* is shown by
`check` and `ExecutionVM.verify`."""

PAY = """\
steps:
  - {id: ask, type: llm, prompt: "Refund? $mail", allowed_outputs: [yes, no]}
  - {id: gate, type: condition, condition: "$ask.output == 'yes'", then: pay, otherwise: $end}
  - {id: pay, type: tool, tool: pay, args: {to: $account, amount: 5}}
"""
"""The program of policies' examples."""

# --- the text -------------------------------------------------------------------------------------

_code(
    "P001",
    "The text cannot be read",
    "The file cannot be opened, is not UTF-8, or is neither YAML 1.2 nor JSON. Tags and merge keys "
    "of YAML are not part of programs.",
    "Mend the text at the place that is named; quote a text that begins with a special character "
    "or holds `: ` or ` #`.",
    example="steps: [\n",
)
_code(
    "P002",
    "A key stands twice",
    "An object has two entries of one name, and one of them would be lost.",
    "Keep one of them.",
    example="name: a\nname: b\nsteps: [{id: a, type: set, values: {x: 1}}]\n",
)
_code(
    "P003",
    "An alias cannot be used",
    "A YAML alias names no anchor, is part of itself, or all aliases together add too much.",
    "Write out what it stands for.",
    example="name: *other\nsteps: [{id: a, type: set, values: {x: 1}}]\n",
)
_code(
    "P004",
    "A value is no JSON value",
    "Programs hold JSON values: finite numbers, texts, lists, objects whose keys are texts.",
    "Quote it where it is meant as text.",
    example="steps: [{id: a, type: set, values: {x: .nan}}]\n",
)
_code(
    "P005",
    "The document is over a limit",
    "The text is too long, nested too deep, has too many steps, or more faults than are listed.",
    "Split the program with `call`, or mend the faults that are listed first.",
)

# --- fields ---------------------------------------------------------------------------------------

_code(
    "P010",
    "Something is missing",
    "A step or program lacks a field without which it means nothing.",
    "Add the field.",
    example="steps: [{id: a, type: tool}]\n",
)
_code(
    "P012",
    "Unknown field",
    "No field of that name exists here. It is an error since a guard that is dropped in silence is "
    "worse than a program that does not load.",
    "Correct the name; keys that begin with `x-`, and `metadata`, are free.",
    example="steps: [{id: a, type: tool, tool: fetch, retries: 3}]\n",
)
_code(
    "P013",
    "A field has the wrong kind of value",
    "What is written is of another type than the field takes, or outside of its range.",
    "Write a value of the kind that the message names.",
    example="steps: [{id: a, type: tool, tool: fetch, max_retries: many}]\n",
)
_code(
    "P014",
    "Unknown type of step",
    "The `type` of a step is none of the language's.",
    "Use one of the types that the message names.",
    example="steps: [{id: a, type: tol, tool: fetch}]\n",
)
_code(
    "P015",
    "A field does not belong here",
    "The field is one of other types of steps, says what another field says already, or stands "
    "beside one that excludes it.",
    "Remove it, or move it to where it means something.",
    example="steps: [{id: a, type: set, values: {x: 1}, timeout_seconds: 5}]\n",
)
_code(
    "P016",
    "`on_invalid` is none of the labels",
    "The value that stands in for an invalid answer is not among `allowed_outputs`: what reads the "
    "answer may not expect it.",
    "Add it to the labels, or see that every reader takes it.",
    "warning",
    example='steps: [{id: a, type: llm, prompt: "?", allowed_outputs: [x, y], on_invalid: z}]\n',
)
_code(
    "P020",
    "A name is taken",
    "Two steps have one id, in whatever blocks they stand, or an input has the id of a step.",
    "Rename one of them.",
    example="steps: [{id: a, type: set, values: {x: 1}}, {id: a, type: set, values: {y: 1}}]\n",
)
_code(
    "P021",
    "Not a usable name",
    "An id, a key or the name of an error has characters that it cannot have, or too many.",
    "Use letters, digits and `_`.",
    example="steps: [{id: a/b, type: set, values: {x: 1}}]\n",
)
_code(
    "P022",
    "Not built yet",
    "The field is planned and does nothing yet; nothing is ignored in silence.",
    "Remove the field.",
    example="steps: [{id: a, type: tool, tool: fetch, cache: true}]\n",
)
_code(
    "P030",
    "Not a condition or expression",
    "The text does not follow the grammar of conditions.",
    "Correct it at the column that the message names.",
    example='steps: [{id: a, type: condition, condition: "$x ==", then: $end}]\n',
)
_code(
    "P031",
    "Not a template",
    "A `$` in the text begins no reference that can be read: `${` is not closed, for example.",
    "Close it, or write `$$` for a dollar sign.",
    example='steps: [{id: a, type: llm, prompt: "${x"}]\n',
)
_code(
    "P032",
    "Not a usable JSON Schema",
    "The schema is malformed, refers to another document, or could take too long to check.",
    "Correct the schema at the place that the message names.",
    example='steps: [{id: a, type: llm, prompt: "?", output_schema: {type: txt}}]\n',
)
_code(
    "P033",
    "An expression in a literal",
    "`default` and `on_invalid` are literals: `{expr: ...}` in them is data and is not computed.",
    "Compute it in a `set` step where it is needed.",
    "warning",
    example='steps: [{id: a, type: tool, tool: fetch, on_error: skip, default: {expr: "1 + 1"}}]\n',
)
_code(
    "P034",
    "`retry` without attempts",
    "It says how to wait between attempts, and there is only one.",
    "Add `max_retries`, or remove `retry`.",
    "warning",
    example="steps: [{id: a, type: tool, tool: fetch, retry: {delay_seconds: 1}}]\n",
)

# --- policies -------------------------------------------------------------------------------------

_code(
    "P040",
    "A policy cannot be read",
    "The file cannot be read, or an entry has the wrong kind of value.",
    "Write what the message names.",
    policy="tools: {pay: {effect: raed}}\n",
)
_code(
    "P041",
    "Unknown field of a policy",
    "No field of that name exists in a policy. A demand that is dropped would protect nothing.",
    "Correct the name.",
    policy="tools: {pay: {guard: [gate.then]}}\n",
)
_code(
    "P042",
    "Not a check of values",
    "The check of an argument cannot be read, compares nothing, or reads a name that the policy "
    "does not declare.",
    "Write a check like `$value in $payees`, with `payees` under `values` or as a trusted input.",
    policy='tools: {pay: {args: {to: "$value in $payees"}}}\n',
)
_code(
    "P043",
    "A policy contradicts itself",
    "Two entries exclude each other, or demand what no run can keep.",
    "Remove one of them.",
    policy="tools: {pay: {before: [pay]}}\n",
)

# --- what follows what ----------------------------------------------------------------------------

_code(
    "V003",
    "A jump to a step that does not exist",
    "A target names no step of this program.",
    "Correct the id, add the step, or use `$end` or `$fail`.",
    example="steps: [{id: a, type: tool, tool: fetch, next: b}]\n",
)
_code(
    "V004",
    "A jump into a block or out of a branch",
    "A jump leads to a step of its own block or of one around it, and never out of a branch or item.",
    "Move the step, or write what follows as a block.",
    example="""\
steps:
  - {id: a, type: tool, tool: fetch, next: b}
  - {id: c, type: condition, condition: "1 == 1", then: [{id: b, type: tool, tool: fetch}]}
""",
)
_code(
    "V005",
    "Steps run in a circle",
    "Jumps lead back to where they came from, and nothing would bound the run.",
    "Write a `loop` step, which has a bound.",
    example="""\
steps:
  - {id: a, type: tool, tool: fetch, next: b}
  - {id: b, type: tool, tool: fetch, next: a}
""",
)
_code(
    "V006",
    "A call of an unknown program",
    "The host has no program of that name.",
    "Give it by `ExecutionVM(programs={...})` or `--program name=FILE`.",
    example="steps: [{id: a, type: call, program: other}]\n",
)
_code(
    "V007",
    "A program calls itself",
    "A program runs inside of itself, and nothing would bound the run.",
    "Repetition is `loop` and `map` only.",
)
_code(
    "V008",
    "The program is too large",
    "With all that it calls, in all ways in which its steps are entered, the program's graph is "
    "over a limit; see the limits in language.md.",
    "Call fewer programs, or catch what fails in fewer loops.",
    traits=(GRAPH,),
)
_code(
    "V009",
    "A step that nothing reaches",
    "No path leads to the step: it never runs.",
    "Lead a branch or `next` to it, or remove it.",
    "warning",
    example="""\
steps:
  - {id: a, type: tool, tool: fetch, next: $end}
  - {id: b, type: tool, tool: fetch}
""",
)

# --- names ----------------------------------------------------------------------------------------

_code(
    "V010",
    "A read of what is never there",
    "No step has written it before, no input holds it, or it is a step and no value.",
    "Correct the name, or write the value before.",
    example="""\
inputs: {type: object, properties: {}}
steps:
  - {id: a, type: tool, tool: fetch, args: {q: $x}}
  - {id: b, type: set, values: {x: 1}}
""",
    traits=(HOST,),
)
_code(
    "V011",
    "A read of what some path lacks",
    "A path leads to the step on which nothing has written the name; the step fails there.",
    "Write the name in each branch or before, give a skipped step a `default`, or read it by "
    '`{expr: "default($name, null)"}`.',
    "warning",
    example="""\
steps:
  - {id: a, type: condition, condition: "$go == 1", then: [{id: b, type: set, values: {x: 1}}]}
  - {id: c, type: tool, tool: fetch, args: {q: $x}}
""",
    traits=(HOST, DOUBT),
)
_code(
    "V012",
    "Unknown name",
    "The program declares its inputs, and neither they nor a step have this name.",
    "Correct it, declare it in `inputs`, or write `$$` for a dollar sign.",
    example="""\
inputs: {type: object, properties: {order: {type: string}}}
steps: [{id: a, type: tool, tool: fetch, args: {q: $odrer}}]
""",
)
_code(
    "V013",
    "Two branches write one name",
    "Branches run at the same time: which of the values should it have afterwards?",
    "Give each its own name; the step's output holds both by branch.",
    example="""\
steps:
  - id: p
    type: parallel
    parallel_steps:
      - {id: a, type: set, values: {x: 1}}
      - {id: b, type: set, values: {x: 2}}
""",
)
_code(
    "V014",
    "A field that is not there",
    "What the value can be has no such field or item.",
    "Correct the path, or read it by `get`.",
    "warning",
)
_code(
    "V015",
    "A step that goes on in two ways",
    "It is reached in order and by a jump, and what follows it differs.",
    "Give it `next`, or write what belongs to the branch as a block.",
    "hint",
    example="""\
steps:
  - {id: a, type: condition, condition: "$go == 1", then: c, otherwise: $next}
  - {id: b, type: tool, tool: fetch}
  - {id: c, type: tool, tool: fetch}
  - {id: d, type: tool, tool: fetch}
""",
)
_code(
    "V016",
    "Written and never read",
    "Nothing reads the name, or the output of a call that is made for nothing else.",
    "Read it, or remove it.",
    "hint",
    example="""\
steps:
  - {id: a, type: set, values: {x: 1}}
  - {id: b, type: tool, tool: fetch}
""",
)
_code(
    "V017",
    "A field of what is no object",
    "`.x` after a name is a field, in text too, and the value is no object, or may be none.",
    "Write `${name}.x` where a full stop is meant.",
    "warning",
)
_code(
    "V018",
    "An input that looks misspelled",
    "The name is taken for an input, and a step writes a very similar one that nothing reads.",
    "Correct the spelling.",
    "hint",
    example="""\
steps:
  - {id: a, type: set, values: {customer_name: 1}}
  - {id: b, type: tool, tool: fetch, args: {q: $costumer_name}}
""",
)
_code(
    "V019",
    "`default` always gives the other value",
    "Nothing has written the name where `default` reads it.",
    "Correct the name, or write the other value.",
    "warning",
)
_code(
    "V023",
    "A jump back that repeats nothing",
    "The target also runs in order, so the run ends after it: a jump is no loop.",
    "Write a `loop` step; the message writes it out.",
    "warning",
    example="""\
steps:
  - {id: a, type: tool, tool: fetch}
  - {id: b, type: condition, condition: "$a.output == 1", then: $end, otherwise: a}
""",
    traits=(HOST, DOUBT, PLANNER),
)
_code(
    "V024",
    "A name that is read before it is written",
    "A step writes it later, so inputs must hold it first.",
    "Declare it in `inputs`, or write it before.",
    "warning",
    example="""\
steps:
  - {id: a, type: tool, tool: fetch, args: {q: $x}}
  - {id: b, type: set, values: {x: 1}}
""",
    traits=(HOST, DOUBT, PLANNER),
)
_code(
    "V025",
    "Braces of another template language",
    "`{{ name }}` and `{name}` are sent as they stand.",
    "Write `$name`.",
    "warning",
    example='steps: [{id: a, type: llm, prompt: "Hello {{ name }}"}]\n',
)

# --- the host -------------------------------------------------------------------------------------

_code(
    "V020",
    "An unknown tool",
    "The host has no tool of that name.",
    "Give it by `ExecutionVM(tools={...})` or `--tools module:object`.",
    example="steps: [{id: a, type: tool, tool: fecth}]\n",
    traits=(HOST,),
)
_code(
    "V021",
    "Wrong arguments of a tool",
    "The tool needs an argument that is not given, or takes none of that name.",
    "Correct the arguments.",
    example="steps: [{id: a, type: tool, tool: pay, args: {to: ann}}]\n",
)
_code(
    "V022",
    "A literal of the wrong type",
    "The tool's parameter does not take this value.",
    "Write a value of the parameter's type.",
    example="steps: [{id: a, type: tool, tool: pay, args: {to: ann, amount: many}}]\n",
)
_code(
    "V030",
    "No model",
    "A step calls a model, and the host has none.",
    "Give one by `ExecutionVM(llm=...)` or `--model`.",
    traits=(HOST,),
)
_code(
    "V031",
    "Not a model of the host",
    "The step names a model that the host does not have.",
    "Correct the name, or add it to `ExecutionVM(llm={...})`.",
    traits=(HOST,),
)
_code(
    "V032",
    "The adapter does not take it",
    "The step's adapter cannot send this option or this part of a message.",
    "Remove it, or use an adapter that takes it.",
    traits=(HOST,),
)
_code(
    "V033",
    "A model without a price",
    "The budget is in dollars, and nothing says what the model costs.",
    "Give `ExecutionVM(prices={model: (input, output)})`.",
    traits=(HOST,),
)
_code(
    "V034",
    "Options that the adapter refuses",
    "The adapter does not know these options, or has set them itself.",
    "Remove them.",
    traits=(HOST,),
)
_code(
    "V040",
    "An input is missing",
    "The run, or a called program, needs an input that is not given.",
    "Give it in the context, or by `with`; write `$$` where a dollar sign was meant.",
)
_code(
    "V041",
    "Inputs that do not fit",
    "The context is no object of JSON values, or does not fit the program's `inputs`.",
    "Correct the value that the message names.",
)
_code(
    "V042",
    "An input that the program does not take",
    "The program does not read this name.",
    "Remove it, or correct the name.",
)

# --- what policies demand -------------------------------------------------------------------------

_code(
    "V050",
    "A forbidden tool",
    "The policy does not allow the program to call this tool.",
    "Name it in the policy, or do without.",
    policy='tools: {"*": {allow: false}}\n',
)
_code(
    "V051",
    "A policy names what is not there",
    "A tool, argument, step, edge or input of that name does not exist here: a misspelled demand "
    "protects nothing.",
    "Correct the name.",
    policy="tools: {pya: {max_calls: 1}}\n",
    traits=(HOST, NAMES),
)
_code(
    "V052",
    "A demand of the policy is not proved",
    "*Refuted*: a run was found and executed that breaks it. *Unproved*: the graph has a path that "
    "breaks it, or the demand was not looked at.",
    "Close the path that the message shows.",
    policy="tools: {pay: {guarded_by: [gate.otherwise]}}\n",
)
_code(
    "V053",
    "A literal that the policy refuses",
    "The policy's check of values does not hold for the value that the program writes: the step "
    "fails when it is reached.",
    "Write a value that the policy allows.",
    "warning",
    policy='tools: {pay: {args: {amount: "$value < 5"}}}\n',
)
_code(
    "V057",
    "A policy that allows more than it may",
    "A program's own policy can only add demands to the host's, and a policy can only make a tool's "
    "declared effect graver.",
    "Remove the entry.",
    example="""\
policy: {inputs: {mail: trusted}}
steps: [{id: a, type: tool, tool: fetch, args: {q: $mail}}]
""",
    policy="inputs: {mail: untrusted}\n",
    traits=(HOST,),
)
_code(
    "V058",
    "A check that reads an untrusted input",
    "Whoever gives the input would choose what the value is held against.",
    "Write what is allowed into the policy's `values`, or take the input from a trusted place.",
)
_code(
    "V059",
    "A policy that does not say whether an input is trusted",
    "With `inputs` in a host's policy every input is covered: a missing name is as likely "
    "misspelled as meant.",
    "Name it as trusted or untrusted, or write `*`.",
    policy="inputs: {mail: untrusted}\n",
    traits=(HOST, NAMES),
)

# --- branches -------------------------------------------------------------------------------------

_code(
    "V060",
    "A test that always comes out the same way",
    "By what the names can hold, one of its branches is never taken.",
    "Correct the test, or remove it.",
    "warning",
    example="""\
steps:
  - {id: a, type: llm, prompt: "?", allowed_outputs: [yes, no]}
  - {id: b, type: condition, condition: "$a.output != ''", then: [{id: c, type: tool, tool: fetch}]}
""",
)
_code(
    "V061",
    "A switch that forgets a value",
    "The value can be one that has no case, and there is no `default`: the step fails then.",
    "Add a case or a default.",
    "warning",
    example="""\
steps:
  - {id: a, type: llm, prompt: "?", allowed_outputs: [x, y]}
  - {id: b, type: switch, on: $a.output, cases: {x: $end}}
""",
)
_code(
    "V062",
    "A comparison that never matches",
    "By what the names can hold, this part of a test is never true, or always an error.",
    "Compare it with a value that it can have.",
    "warning",
    example="""\
steps:
  - {id: a, type: llm, prompt: "?", allowed_outputs: [x, y]}
  - {id: b, type: condition, condition: "$a.output == 'x' or $a.output == 'z'", then: $end, otherwise: $end}
""",
)
_code(
    "V063",
    "A case that never comes about",
    "The value can never be this one.",
    "Correct the case, or remove it.",
    "warning",
    example="""\
steps:
  - {id: a, type: llm, prompt: "?", allowed_outputs: [x, y]}
  - {id: b, type: switch, on: $a.output, cases: {x: $end, y: $end, z: $end}}
""",
)

# --- the worst case -------------------------------------------------------------------------------

for _number, _field, _what in (
    ("V070", "max_steps", "steps"),
    ("V071", "max_llm_calls", "model calls"),
    ("V072", "max_tool_calls", "tool calls"),
    ("V073", "max_tokens", "tokens"),
    ("V074", "max_cost_usd", "dollars"),
):
    _code(
        _number,
        f"More {_what} than the budget allows",
        f"The longest path takes more {_what} than `{_field}`: some run would be stopped by its "
        f"budget.",
        "Raise the budget, or bound the loops and maps on the path that is shown.",
        policy={
            "V070": "budget: {max_steps: 2}\n",
            "V071": "budget: {max_llm_calls: 1}\n",
        }.get(_number, ""),
        traits=(BUDGET, PLANNER) if _number <= "V072" else (BUDGET,),
    )
_code(
    "V075",
    "A budget that the size of inputs may break",
    "No bound is known for what is sent, or only the largest inputs would be over it. The budget is "
    "enforced while the program runs.",
    "Bound the inputs by `maxLength` and `maxItems`, or leave it to the run.",
    "warning",
    traits=(BUDGET,),
)


if __name__ == "__main__":
    sys.stdout.write(document())
