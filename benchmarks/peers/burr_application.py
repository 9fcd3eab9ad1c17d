"""Apache Burr: a graph of async actions built once, and an ``Application`` over it for each run.

An application holds one run's state, so its documentation builds one per run, and offers
``with_graph`` to share what can be shared. No tracker and no persister, so nothing is kept of a
run.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from typing import Any

from burr.core import ApplicationBuilder, GraphBuilder, State, action, default, expr
from workload import Workload, read_workload, serve


def build(workload: Workload) -> Any:
    work = workload.tools["work"]

    def step(key: str, output: str) -> Any:
        @action(reads=[key], writes=[output])
        async def call(state: State) -> State:
            return state.update(**{output: await work(x=state[key])})

        return call

    names = [name for name, _, _ in workload.calls]
    actions = {name: step(key, output) for name, key, output in workload.calls}
    transitions: list[Any] = list(pairwise(names))
    finish, reject = workload.ends
    actions |= {"finish": step(finish, "end"), "reject": step(reject, "end")}
    test = expr(f"'ok' in {workload.calls[-1][2]}.lower()")
    transitions += [(names[-1], "finish", test), (names[-1], "reject", default)]
    return GraphBuilder().with_actions(**actions).with_transitions(*transitions).build()


workload, _ = read_workload(argparse.ArgumentParser())
graph, context = build(workload), workload.context
first = workload.calls[0][0]


async def run() -> object:
    app = (
        ApplicationBuilder().with_graph(graph).with_state(**context).with_entrypoint(first).build()
    )
    _, _, state = await app.arun(halt_after=["finish", "reject"])
    return state["end"]


serve(workload, run)
