"""``nano-vm event``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..faults import Failure, UsageFault
from ..grammar import Options, argument, command, flag, option
from ..parameters import STORED, takes_cluster, takes_server, takes_store

if TYPE_CHECKING:
    from ...run.durable.facts import Header

EXAMPLES = """\
nano-vm event 3f2a paid '{"amount": 30}'
nano-vm event --match paid '{"order": "A7", "amount": 30}' --id evt_1
"""


@command(examples=EXAMPLES, footer=STORED)
@argument(
    "words",
    nargs=-1,
    required=True,
    metavar="RUN NAME [JSON]",
    help="the run, the event's name as a 'wait' step has it, and what it brings, or @FILE; "
    "default: null",
)
@flag(
    "--match",
    help="for the run whose 'wait' has a 'match' that the payload fits; then without RUN",
)
@option(
    "--id",
    metavar="ID",
    help="the sender's: what has the same name and id is recorded once",
)
@takes_store
@takes_server
@takes_cluster
def event(options: Options) -> int:
    """Send an event to a run, or to the one that waits for its values."""
    from ..inbox import payload, recorded
    from ..places import is_cluster, place_of

    words = list(options.words)
    usage = "nano-vm event RUN NAME [JSON], or nano-vm event --match NAME JSON"
    if not (len(words) == 2 if options.match else 2 <= len(words) <= 3):
        raise UsageFault(f"an event is sent by {usage}")
    if is_cluster(options):
        from .. import cluster

        return cluster.event(options, words[0], words[1], words[2] if len(words) > 2 else None)
    options.run = None if options.match else words.pop(0)
    brings = payload(words[1] if len(words) > 1 else None, "the payload")
    run_id = None
    with place_of(options, honours=("match", "id")) as place:
        if options.run is not None:
            run = place.header(options.run)
            run_id = run["run_id"]
            if run["status"] in ("pending", "running", "suspended"):
                _known_event(run, words[0])
        is_new = place.send_event(run_id, words[0], brings, options.id)
        how = (
            f"it goes on by nano-vm work{place.given}" if run_id is None else place.goes_on(run_id)
        )
    return recorded(options, run_id, "event" if is_new else None, words[0], how=how)


def _known_event(run: Header, name: str) -> None:
    """Raises if no step of the run's program can ever wait for *name*: it would be kept for
    nothing.
    """
    names = list(_events(run["document"]))
    if name not in names and not any("$" in other for other in names):
        known = (
            f"it waits for {', '.join(map(repr, names))}"
            if names
            else "it has no step that waits for an event"
        )
        raise Failure(f"the program of run {run['run_id']!r} waits for no event {name!r}; {known}")


def _events(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        if document.get("type") == "wait" and isinstance(document.get("event"), str):
            yield document["event"]
        for value in document.values():
            yield from _events(value)
    elif isinstance(document, list):
        for value in document:
            yield from _events(value)
