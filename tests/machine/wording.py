"""The messages of the corpus' runs as they are committed in ``wording.json``, beside the edition of
`faults.WORDING` under which they were written.

Run as a program it writes the file anew, and refuses to while a message of a case that is still the
same has changed under the same edition.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import test_corpus

from nano_vm import Trace
from nano_vm.machine.faults import WORDING

FILE = Path(__file__).with_name("wording.json")
REMEDY = (
    "What the machine says has changed. Recorded runs keep the words that they have only if "
    "WORDING in nano_vm/machine/faults.py is raised: raise it, and write the messages anew with "
    "`make wording`."
)


def spoken(trace: Trace) -> list[str]:
    """Every message of a run, in the order of its records."""
    said = [step.error for step in trace.steps] + [trace.error]
    return list(dict.fromkeys(message for message in said if message))


def current() -> dict[str, dict[str, Any]]:
    """The messages of each case that has some, with a digest of the case itself."""
    found = {}
    for parameter in test_corpus.cases():
        (case,) = parameter.values
        if "load" in case:
            continue
        messages = spoken(test_corpus.execute(case).trace)
        if messages:
            asked = repr({k: v for k, v in case.items() if k in ASKED}).encode()
            digest = hashlib.sha256(asked).hexdigest()[:12]
            found[str(parameter.id)] = {"case": digest, "messages": messages}
    return found


ASKED = ("text", "json", "program", "inputs", "vm", "run", "tools", "model")
"""What of a case decides what its run says."""


def committed() -> tuple[int, dict[str, dict[str, Any]]]:
    """The edition of the file, and its cases."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return content["edition"], content["cases"]


def reworded(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Cases that are the same and say something else, each with what it said and says."""
    return [
        f"{name}: {before[name]['messages']} -> {one['messages']}"
        for name, one in now.items()
        if name in before
        and before[name]["case"] == one["case"]
        and before[name]["messages"] != one["messages"]
    ]


def write() -> None:
    now = current()
    if FILE.exists():
        edition, before = committed()
        changed = reworded(before, now)
        if changed and edition >= WORDING:
            sys.exit("\n".join([*changed, REMEDY]))
    rows = [f"{json.dumps(name)}: {json.dumps(now[name])}" for name in sorted(now)]
    text = f'{{"edition": {WORDING}, "cases": {{\n' + ",\n".join(rows) + "\n}}\n"
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
