"""What lies outside of the simulated processes: receivers of calls, each of which keeps what it did,
and the ways to them.

A request leaves its process, arrives, has its effect or not, and is answered or not; whoever sent
it may be dead by then. The ledger is the truth, by which what runs record is judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from soak.programs import Broken, Flaky, drawn

from nano_vm import Completion, LLMUsage, tool
from nano_vm.simulation.world import SLOW_NS, WAY_NS, Process, Waiter, World, here

from .programs import EFFECTS

UNSAFE = ("write", "irreversible")


@dataclass(eq=False)
class Call:
    """A call that a process began: what became of it."""

    key: str
    tool: str
    process: Process
    begun_ns: int
    given: str | None  # the idempotency key
    state: str = "sending"  # then sent; done, failed, or gone: it never happens
    output: Any = None
    answered_ns: int | None = None  # when who awaited it got what it gave
    cleared: bool = False  # whether somebody was told that it did not happen
    hung: bool = False  # whether it is never answered
    fence: int = 0  # of its run, as it was begun
    threaded: bool = False  # whether a thread waits for its answer
    over: bool = False  # whether that thread has one

    @property
    def open(self) -> bool:
        """Whether it may still happen."""
        return self.state == "sent" or (self.state == "sending" and self.process.alive)


@dataclass
class Ledger:
    """All calls of a world, by key; and which outcomes the store has acknowledged."""

    world: World
    calls: dict[str, list[Call]] = field(default_factory=dict)
    of_runs: dict[str, dict[str, list[Call]]] = field(default_factory=dict)  # the same, of each
    # by key: when a reconcile tool first gave an answer to who asked
    told_ns: dict[str, int] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    kept_by: set[tuple[Process, str]] = field(
        default_factory=set
    )  # who stored which, answered or not
    begun: list[Callable[[Call, list[Call]], None]] = field(default_factory=list)
    fence_of: Callable[[str], int] = lambda _: 0  # of a run, as its store has it
    count: int = 0
    way_ns: tuple[int, int] = WAY_NS  # how long a call, or its answer, is on its way

    def begin(self, key: str, name: str, given: str | None = None) -> Call:
        """Note that the current process makes a call."""
        process = here()
        before = self.calls.setdefault(key, [])
        run_id = key.partition(":")[0]
        self.of_runs.setdefault(run_id, {})[key] = before
        call = Call(key, name, process, self.world.now, given, fence=self.fence_of(run_id))
        self.world.tell(process.name, f"calls {name} {key}")
        for check in self.begun:
            check(call, before)
        before.append(call)
        self.count += 1
        return call

    def of_run(self, run_id: str) -> dict[str, list[Call]]:
        """The calls of a run, by key."""
        return self.of_runs.get(run_id, {})

    def truth(self, key: str) -> Call | None:
        """The call that had its effect, if any."""
        return next((call for call in self.calls.get(key, ()) if call.state == "done"), None)

    def open(self, key: str) -> bool:
        """Whether a call may still have its effect, so that nobody can tell."""
        return any(call.open for call in self.calls.get(key, ()))

    def makes(self, process: Process, call: Call) -> bool:
        """Whether a thread of *process* is still making a call of a run that it drives anew, so that
        it knows better than to ask.
        """
        drives = call.threaded and not call.over and call.process is process
        return drives and call.fence != self.fence_of(call.key.partition(":")[0])

    def clear(self, key: str) -> None:
        """Note that somebody is told that no call of *key* happened, and none will."""
        for call in self.calls.get(key, ()):
            call.cleared = True


class Outside:
    """The receivers, and the tools by which programs reach them."""

    def __init__(self) -> None:
        self.ledgers: dict[int, Ledger] = {}  # by world
        self.tools = _tools(self)
        self.next_tools = _next_tools(self)

    def begin_world(self, world: World) -> Ledger:
        """A ledger for a new world; those of others are forgotten."""
        self.ledgers = {id(world): Ledger(world)}
        return self.ledgers[id(world)]

    @property
    def ledger(self) -> Ledger:
        """Of the world that runs."""
        return self.ledgers[id(here().world)]

    # --- calls ---

    def _leave(self, call: Call, answer: Callable[[Any, BaseException | None], None]) -> None:
        """Let a call go: it leaves its process, arrives, and is answered."""
        world, process = call.process.world, call.process
        ledger = self.ledgers[id(world)]
        effect = EFFECTS.get(call.tool, "model")

        def back(value: Any, error: BaseException | None) -> None:
            if world.strikes("lost", process.name):
                value, error = None, ConnectionError("the answer was lost")
            if world.strikes("hung", process.name):
                call.hung = True
                return
            process.at(world.now + world.delay(*ledger.way_ns), lambda: answer(value, error))

        def arrive() -> None:
            if call.state == "gone":
                return
            error = self._refusal(call)
            if error is not None:
                call.state = "failed"
                world.tell(call.tool, f"refuses {call.key}")
                back(None, error)
                return
            done = ledger.truth(call.key)
            if done is not None and call.given is not None and done.given == call.given:
                call.state = "again"  # by its key the receiver knows that it has done it
                back(done.output, None)
                return
            call.state, call.output = "done", self._output(call)
            if effect in UNSAFE:
                world.tell(call.tool, f"does {call.key}")
            back(call.output, None)

        def leave() -> None:
            call.state = "sent"
            if world.strikes("lost", process.name):
                call.state = "gone"
                error = ConnectionError("the connection was lost")
                process.at(world.now + world.delay(*ledger.way_ns), lambda: answer(None, error))
                return
            slow = world.strikes("slow", process.name)
            way = SLOW_NS if slow else ledger.way_ns
            world.at(world.now + world.delay(*way), arrive)

        # the microseconds between the last look at the lease and the call
        process.at(world.now + world.delay(1_000, 50_000), leave)

    def _refusal(self, call: Call) -> Exception | None:
        if call.tool == "broken":
            return Broken("this tool never works")
        calls = self.ledgers[id(call.process.world)].calls[call.key]
        if call.tool == "note" and not any(other.state == "failed" for other in calls):
            return Flaky("the first attempt fails")
        if call.tool != "model" and call.process.world.strikes("failed", call.process.name):
            return Broken("it was refused")
        return None

    def _output(self, call: Call) -> Any:
        if call.tool == "model":
            return "yes" if drawn(call.key, 3) else "no"
        return {"by": call.tool, "key": call.key}

    async def awaited(self, key: str, name: str, given: str | None = None) -> Any:
        """A call of an async tool."""
        call = self.ledger.begin(key, name, given)
        future = asyncio.get_running_loop().create_future()

        def answer(value: Any, error: BaseException | None) -> None:
            if not future.done():
                if error is not None:
                    future.set_exception(error)
                else:
                    call.answered_ns = call.process.world.now
                    future.set_result(value)

        self._leave(call, answer)
        return await future

    def waited(self, key: str, name: str, given: str | None = None) -> Any:
        """A call of a sync tool, which runs in a thread."""
        call = self.ledger.begin(key, name, given)
        call.threaded = True
        waiter = Waiter(call.process)
        answered: list[Any] = []

        def answer(value: Any, error: BaseException | None) -> None:
            answered.append((value, error))
            waiter.wake()

        self._leave(call, answer)
        waiter.wait()
        call.over = True
        value, error = answered[0]
        if error is not None:
            raise error
        return value

    async def asked(self, key: str) -> dict[str, Any]:
        """What a reconcile tool says of a call: the truth, late, and nothing where it cannot tell."""
        world, ledger = here().world, self.ledger
        await asyncio.sleep(world.delay(*WAY_NS) / 1e9)
        done = ledger.truth(key)
        # only the process that made a call knows that it is under way; the receiver does not, and
        # says so of a process that lives: nobody is to ask it then. Of one that stands still with
        # the call in its hands, or did since, it cannot tell: no lease closes that gap
        # (reliability.md)
        asker = here()
        calls = ledger.calls.get(key, ())
        under_way = [call for call in calls if call.open and not ledger.makes(asker, call)]
        if done is None and any(
            call.process is asker
            or not call.process.alive
            or call.process.frozen_until > call.begun_ns
            for call in under_way
        ):
            raise Broken("it was begun, and may be under way")
        if done is None:
            ledger.clear(key)
            world.tell("receiver", f"says that {key} did not happen")
        answer = {"done": True, "output": done.output} if done else {"done": False}
        await asyncio.sleep(world.delay(*WAY_NS) / 1e9)
        ledger.told_ns.setdefault(key, world.now)
        return answer


class Model:
    """Answers by the key in the prompt."""

    model = "scripted"

    def __init__(self, outside: Outside) -> None:
        self.outside = outside

    async def complete(self, messages: list[dict[str, str]], **_: Any) -> Completion:
        key = messages[-1]["content"].removeprefix("key ")
        answer = await self.outside.awaited(key, "model")
        return Completion(answer, LLMUsage(7, 1, 8), "scripted", "stop")


def _tools(outside: Outside) -> dict[str, Callable[..., Any]]:
    @tool(effect="read")
    async def look(key: str) -> Any:
        return await outside.awaited(key, "look")

    @tool(effect="idempotent")
    def put(key: str, idempotency_key: str) -> Any:
        return outside.waited(key, "put", idempotency_key)

    @tool(effect="write")
    async def charge(key: str, idempotency_key: str) -> Any:
        return await outside.awaited(key, "charge", idempotency_key)

    @tool(effect="read")
    async def find(key: str) -> Any:
        return await outside.asked(key)

    @tool(effect="write")
    async def refund(key: str, idempotency_key: str) -> Any:
        return await outside.awaited(key, "refund", idempotency_key)

    @tool(effect="irreversible")
    def mail(key: str) -> Any:
        return outside.waited(key, "mail")

    @tool(effect="write")
    def wire(key: str, idempotency_key: str) -> Any:
        return outside.waited(key, "wire", idempotency_key)

    async def note(key: str) -> Any:
        return await outside.awaited(key, "note")

    async def unnote(key: str) -> Any:
        return await outside.awaited(key, "unnote")

    @tool(effect="irreversible")
    async def book(key: str, idempotency_key: str) -> Any:
        return await outside.awaited(key, "book", idempotency_key)

    async def find_slowly(key: str) -> Any:
        return await outside.asked(key)

    @tool(effect="idempotent")
    async def broken(key: str) -> Any:
        return await outside.awaited(key, "broken")

    tools = (look, put, charge, find, refund, mail, wire, note, unnote, book, find_slowly, broken)
    return {f.__name__: f for f in tools}


def _next_tools(outside: Outside) -> dict[str, Callable[..., Any]]:
    """What the next version of the tools has otherwise: one that said that it may be called again
    says no more.
    """

    @tool(effect="write")
    def put(key: str, idempotency_key: str) -> Any:
        return outside.waited(key, "put", idempotency_key)

    return {"put": put}
