"""Codes of a program beside a host: its tools, models, prices and inputs."""

from __future__ import annotations

from typing import Final

from ..code import HOST, Code

CODES: Final = (
    Code(
        "V020",
        "An unknown tool",
        "The host has no tool of that name.",
        "Give it by `ExecutionVM(tools={...})` or `--tools module:object`.",
        example="steps: [{id: a, type: tool, tool: fecth}]\n",
        traits=(HOST,),
    ),
    Code(
        "V021",
        "An argument is missing",
        "The tool needs an argument that the step does not give.",
        "Add the argument.",
        example="steps: [{id: a, type: tool, tool: pay, args: {to: ann}}]\n",
    ),
    Code(
        "V022",
        "A literal of the wrong type",
        "The tool's parameter does not take this value.",
        "Write a value of the parameter's type.",
        example="steps: [{id: a, type: tool, tool: pay, args: {to: ann, amount: many}}]\n",
    ),
    Code(
        "V026",
        "An argument that the tool does not take",
        "The tool has no parameter of that name, or has one that only the VM gives.",
        "Correct the name, or remove the argument.",
        example="steps: [{id: a, type: tool, tool: fetch, args: {query: x}}]\n",
    ),
    Code(
        "V027",
        "A kept result of a tool that does something",
        "`cache` takes a result from before in place of the call, and the tool does more than read.",
        "Remove `cache`, or declare that the tool only reads.",
        example="steps: [{id: a, type: tool, tool: pay, args: {to: x, amount: 1}, cache: true}]\n",
    ),
    Code(
        "V030",
        "No model",
        "A step calls a model, and the host has none.",
        "Give one by `ExecutionVM(llm=...)` or `--model`.",
        traits=(HOST,),
    ),
    Code(
        "V031",
        "Not a model of the host",
        "The step names a model that the host does not have.",
        "Correct the name, or add it to `ExecutionVM(llm={...})`.",
        traits=(HOST,),
    ),
    Code(
        "V032",
        "The adapter does not take it",
        "The step's adapter cannot send this option or this part of a message.",
        "Remove it, or use an adapter that takes it.",
        traits=(HOST,),
    ),
    Code(
        "V033",
        "A model without a price",
        "The budget is in dollars, and nothing says what the model costs.",
        "Give `ExecutionVM(prices={model: (input, output)})`.",
        traits=(HOST,),
    ),
    Code(
        "V034",
        "Options that the adapter refuses",
        "The adapter does not know these options, or has set them itself.",
        "Remove them.",
        traits=(HOST,),
    ),
    Code(
        "V035",
        "A pool that the host cannot make",
        "A pool of the program names a model that the host does not have, or that is a pool itself; "
        "no model has the tags that it requires; or two programs of a run mean different pools by "
        "one name.",
        "Name models of `ExecutionVM(llm={...})`.",
        traits=(HOST,),
    ),
    Code(
        "V040",
        "An input is missing",
        "The run, or a called program, needs an input that is not given.",
        "Give it in the context, or by `with`; write `$$` where a dollar sign was meant.",
    ),
    Code(
        "V041",
        "Inputs that do not fit",
        "The context is no object of JSON values, or does not fit the program's `inputs`.",
        "Correct the value that the message names.",
    ),
    Code(
        "V042",
        "An input that the program does not take",
        "The program does not read this name.",
        "Remove it, or correct the name.",
    ),
)
