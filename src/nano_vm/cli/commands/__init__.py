"""The commands: what each is for, in a line, under what people look for.

A command's module has its name and is imported when it is called, so this table is what
`nano-vm --help` and did-you-mean know of it.
"""

TABLE = {
    "write programs": {
        "init": "make a folder with a program, its tools and tests",
        "dev": "watch a program, and check and test it on each save",
        "check": "list every fault of a program, and prove what a policy demands of it",
        "explain": "say in words what a program does",
        "graph": "draw a program",
        "explore": "run a program under every outcome worth trying, and look for runs that break a "
        "property",
        "test": "run the tests of programs, and say what they cover",
        "plan": "let a model write a program",
        "import": "convert a workflow of AWS Step Functions or Prompt flow into a program",
        "lsp": "serve editors: diagnostics, completion, hover, proofs, rename",
        "fmt": "print a program in canonical form",
        "schema": "print the JSON Schema of the language",
    },
    "run": {
        "run": "run a program",
        "submit": "begin a run that workers do",
        "batch": "run a program on each line of a file",
        "schedule": "list, show, pause, resume and remove what begins runs at times",
        "mcp": "serve programs as tools of an MCP server",
    },
    "durable runs": {
        "runs": "list the runs of a store",
        "costs": "sum what the model calls of runs have cost",
        "show": "show a run, and what it waits for",
        "work": "run what is pending, due, answered or abandoned in a store",
        "resume": "resume a run",
        "approve": "approve what a run asks",
        "reject": "reject what a run asks",
        "event": "send an event to a run, or to the one that waits for its values",
        "resolve": "record the outcome of a call whose result is unknown",
        "cancel": "cancel a run, and undo what it did",
        "migrate": "list the unfinished runs that can move to a changed program",
    },
    "inspect recorded runs": {
        "trace": "show what a recorded run did, and why",
        "replay": "replay a recorded run without calls, and report the first difference",
        "verify": "verify recorded runs: hash chain, signature, program, and every transition",
        "ui": "show runs in the browser",
        "export": "write a recorded run as one HTML file that draws it",
        "diff": "compare two runs or two programs",
        "fork": "run a recorded run again, with a change",
    },
    "a team": {
        "serve": "serve the pages and an HTTP API: logins, roles, an audit log",
        "audit": "verify and export the audit log of a server",
    },
    "look after a store": {
        "store": "prune, export, import, check, erase, head, accept, upgrade",
        "keys": "make and show the keys that sign what runs record",
    },
    "get help": {
        "help": "show the help of a command",
        "completion": "print a script that completes nano-vm in bash, zsh or fish",
    },
}
