"""Several models behind one name. A call comes in, goes to one member after another until one
answers, and comes out as a `Completion` whose ``route`` tells every attempt with its reason.

One owner of retries: each member is tried once for a call; another try of all is the step's
``max_retries``. What is random follows from the seed and the call's key, and the clock is given.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from ...errors import ModelError, ModelTimeout, RateLimited, TruncatedAnswer, VMError
from ...language.answers import ending, read_answer
from ...language.messages import has_files, has_parts, has_pictures, text_of
from ...language.program import Strategy
from ...language.schemas import schema_check
from ...machine.billing import Prices, Served
from ...machine.faults import NOTHING_USED, consumed
from ...machine.ledger import DEFAULT_MAX_TOKENS, token_bound
from ...prices import Price, priced_name
from ...records.usage import LLMUsage
from ...values import canonical, error_named, writable
from ..contract import completed
from ..protocol import Completion, Message
from . import choice
from .breaker import SECOND
from .faults import Fault, classified
from .member import BESIDE, Member
from .sharing import SHARING, Sharing, Ticket

logger = logging.getLogger("nano_vm")

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

PATIENCE_SECONDS = 65.0
"""How long a call waits for a member that is at its limits: a provider's window, and some."""

ENDED_NS = SECOND // 20
"""How soon to ask again whether a call in another process has ended."""

ERROR_CHARS = 300
"""Characters of an error's message that a route keeps."""

BYTES_OF_TOKEN = 4
"""Of an expected token, in the languages that most prompts have; for choosing, never for limits."""

Check = Callable[[str], bool]


class SystemClock:
    """The machine's own time."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    sleep = staticmethod(asyncio.sleep)


class Standing(NamedTuple):
    """How a member of a pool stands: its breaker, calls under way, and the average of latencies."""

    member: str
    breaker: Literal["closed", "open", "half_open"]
    busy: int
    latency_seconds: float


class Pool:
    """Several adapters as one: ``Pool(["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"])``.

    *members* are `Member`, adapters or models' names. The strategies:

    - ``ordered``: the first that can be called; the others stand in for it.
    - ``weighted``: by chance, in proportion to `Member.weight`; ``round_robin``: in turn.
    - ``least_busy``: with the fewest calls under way; ``fastest``: with the lowest latency.
    - ``cheapest``: by the prices and the tokens that are to be expected.
    - ``hash``: calls with the same first message (or *place*) go to the same member.
    - ``cascade``: as ordered, and on to the next where the answer is cut off, is none of the step's
      ``allowed_outputs``, does not fit its schema, or *check* says no.
    - ``hedge``: as ordered; if no answer has come after *hedge_after* seconds, the next is asked
      too, the first answer counts, and the other call is cancelled. Both are billed.

    *require* are tags that members must have; others are left out. *attempts* bounds the members
    that a call tries. *name* is the pool's in traces. *seed* is for what is random, with the call's
    effect key: the same run has the same draws. *patience_seconds* bounds the wait for a member at
    its limits. *clock* has ``monotonic_ns()`` and ``sleep(seconds)``.

    Raises:
        VMError: If there is no member, two have one name, or an argument cannot be one.

    Examples:
        >>> from nano_vm import ExecutionVM, ModelError, Pool, Program
        >>> from nano_vm.testing import ScriptedLLM
        >>> down = ScriptedLLM([ModelError("down", status=503)], model="down")
        >>> vm = ExecutionVM(Pool([down, ScriptedLLM(["yes"], model="up")]))
        >>> program = Program.from_yaml("steps: [{id: a, type: llm, prompt: Is it so?}]")
        >>> vm.run_sync(program).output
        'yes'
    """

    def __init__(
        self,
        members: Iterable[Any],
        strategy: Strategy = "ordered",
        *,
        name: str = "pool",
        require: Iterable[str] = (),
        attempts: int | None = None,
        check: Check | None = None,
        hedge_after: float | None = None,
        place: Callable[[list[Message]], str] | None = None,
        seed: int = 0,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Any = None,
        queue: str | None = None,
    ) -> None:
        if strategy not in STRATEGIES:
            raise VMError(f"strategy is one of {', '.join(STRATEGIES)}, not {strategy!r}")
        demanded = frozenset(require)
        given = [_member(name, one) for one in members]
        if not given:
            raise VMError(f"pool {name!r} has no members")
        self.queue = queue
        self.members = [member for member in given if demanded <= member.tags]
        if not self.members:
            told = ", ".join(sorted(demanded))
            raise VMError(f"pool {name!r}: no member has the tags that it requires: {told}")
        names = [member.name for member in self.members]
        for one in names:
            if names.count(one) > 1:
                raise VMError(f"pool {name!r}: two members have the name {one!r}; give them names")
        _check_arguments(name, strategy, attempts, check, hedge_after, place)
        self.model = name
        self.strategy: Strategy = strategy
        self.attempts = min(len(self.members), attempts or len(self.members))
        self.tags = frozenset.intersection(*(member.tags for member in self.members))
        """Those that every member has: what can be said of whoever answers."""
        self.images = any(member.adapter.images for member in self.members)
        self.files = any(member.adapter.files for member in self.members)
        self.served = Served(tuple(member.names for member in self.members), self.attempts)
        self.seed = seed
        self.patience_ns = int(patience_seconds * SECOND)
        self._check = check
        self._hedge_after = hedge_after
        self._place = place
        self._clock = clock or SystemClock
        self._now: Callable[[], int] = self._clock.monotonic_ns
        self._limited = any(m.tokens is not None or m.context is not None for m in self.members)
        self._calls = 0
        self._line_of: tuple[asyncio.AbstractEventLoop | None, _Line] = None, _Line()
        self._numbers = {member: number for number, member in enumerate(self.members)}
        self._answer_tokens = float(DEFAULT_MAX_TOKENS) / 4  # the average of answers
        self._ranked = {
            "least_busy": choice.Ranked(self.members, choice.busyness),
            "fastest": choice.Ranked(self.members, choice.slowness),
        }.get(strategy)
        self._able: dict[frozenset[str], tuple[bool, ...]] = {}
        self._schemas: dict[bytes, Callable[[Any], str | None]] = {}
        self.use_prices({})

    # --- what a host asks ---

    @property
    def prices(self) -> dict[str, Price]:
        """The prices that members have of their own."""
        return {member.name: member.price for member in self.members if member.price is not None}

    def use_prices(self, prices: Prices) -> None:
        """Know the host's *prices*, for ``cheapest``."""
        members = self.members
        match self.strategy:
            case "weighted":
                self._choose = choice.weighted(members, self.seed)
            case "round_robin":
                self._choose = choice.round_robin(members)
            case "hash":
                self._choose = choice.hashed(members)
            case "cheapest":
                known = {**prices, **self.prices}
                names = [priced_name(None, member.names, known) for member in members]
                self._choose = choice.cheapest(
                    members, [None if name is None else known[name] for name in names]
                )
            case _:
                ranked = self._ranked
                self._choose = choice.ordered(members) if ranked is None else ranked.choose

    def takes(self, option: str) -> bool:
        """Whether a step may have *option*: some member takes it."""
        return option != "model" and any(member.takes(option) for member in self.members)

    @property
    def option_names(self) -> frozenset[str] | None:
        """The options of a step that every member takes which takes options at all; None where any
        takes all.
        """
        known = [m.adapter.option_names for m in self.members if m.takes("options")]
        sets = [names for names in known if names is not None]
        return frozenset.intersection(*sets) if sets else None

    def count_tokens(self, messages: list[Message]) -> int:
        """The most tokens that *messages* can have for any member."""
        return max(member.adapter.tokens(messages) for member in self.members)

    async def ready(self) -> None:
        """Do what first calls of members would have to wait for."""
        await asyncio.gather(*(member.adapter.wake() for member in self.members))

    # --- calls ---

    async def complete(
        self,
        messages: list[Message],
        *,
        max_tokens: int | None = None,
        allowed_outputs: Sequence[str] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        step_id: str | None = None,
        idempotency_key: str | None = None,
        **kwargs: Any,
    ) -> Completion:
        """The answer of the first member that gives one.

        Raises:
            ModelError: Every member that could be tried has failed, or a member has refused the
                request for what it is; ``route`` tells the attempts.
        """
        call = self._begin(messages, kwargs, max_tokens, options, idempotency_key)
        call.beside = allowed_outputs, output_schema, step_id, idempotency_key
        try:
            if self.strategy == "hedge":
                return await self._hedged(call)
            return await self._one_by_one(call)
        except asyncio.CancelledError as error:
            error.route = self._route(call)  # type: ignore[attr-defined]
            raise

    async def _one_by_one(self, call: _Call) -> Completion:
        """The answer of members that are tried one after the other."""
        allowed_outputs, output_schema = call.beside[:2]
        while True:
            try:
                found = self._now_free(call) if self._line_of[1].waiting == 0 else 0
                member, why = found if type(found) is tuple else await self._pick(call)
            except ModelError:
                if call.rejected is None:
                    raise
                return self._told(call, call.rejected)  # what there is: the step judges it
            if not (member.free or await self._enter(member, call)):
                continue
            try:
                completion = await self._attempt(member, call, why)
            except Exception as error:  # noqa: BLE001 - classified, whatever an adapter raises
                self._failed(member, call, error)
                continue
            if self.strategy == "cascade" and len(call.tried) < self._most(call):
                if (fault := self._misfit(completion, allowed_outputs, output_schema)) is not None:
                    call.attempts[-1] |= {"outcome": "rejected", "error": fault[:ERROR_CHARS]}
                    call.rejected = completion
                    continue
            return self._told(call, completion)

    async def stream(
        self, messages: list[Message], **kwargs: Any
    ) -> AsyncIterator[str | Completion]:
        """As `complete`, in pieces of text; another member is tried only before the first piece.

        With ``cascade`` and ``hedge``, whose answers are judged or raced as a whole, there is one
        piece.
        """
        if self.strategy in ("cascade", "hedge"):
            yield await self.complete(messages, **kwargs)
            return
        beside = [kwargs.pop(name, None) for name in BESIDE]
        call = self._begin(
            messages, kwargs, kwargs.pop("max_tokens", None), kwargs.pop("options", None), beside[3]
        )
        call.beside = tuple(beside)
        while True:
            member, why = await self._pick(call)
            if not (member.free or await self._enter(member, call)):
                continue
            if member.adapter.stream is None:
                try:
                    completion = await self._attempt(member, call, why)
                except Exception as error:  # noqa: BLE001 - as in complete
                    self._failed(member, call, error)
                    continue
                yield self._told(call, completion)
                return
            pieces: list[str] = []
            last: Completion | None = None
            started, entry = self._open(member, call)
            call.attempts.append({"member": member.name, "why": why})
            try:
                stream = member.adapter.stream(
                    member.adapter.fitting(messages), **self._keywords(member, call)
                )
                async for piece in stream:
                    if isinstance(piece, str):
                        pieces.append(piece)
                        yield piece
                    else:
                        last = piece
                completion = completed(last if last is not None else "".join(pieces))
            except Exception as error:
                self._close(member, call, started, entry, error=error)
                if pieces:
                    raise self._error(call, error) from error
                self._failed(member, call, error)
                continue
            except BaseException as error:
                self._close(member, call, started, entry)
                if isinstance(error, asyncio.CancelledError):
                    error.route = self._route(call)  # type: ignore[attr-defined]
                raise
            self._close(member, call, started, entry, completion)
            yield self._told(call, completion)
            return

    def _begin(
        self,
        messages: list[Message],
        keywords: dict[str, Any],
        max_tokens: int | None,
        options: Mapping[str, Any] | None,
        key: str | None,
    ) -> _Call:
        number = self._calls
        self._calls = number + 1
        if max_tokens is not None:
            keywords["max_tokens"] = max_tokens
        if options:
            keywords["options"] = options
        call = _Call(self, messages, keywords, number, key)
        if self._limited:
            call.tokens = token_bound(messages) + (max_tokens or DEFAULT_MAX_TOKENS)
        wanted: Iterable[str] = keywords
        if has_parts(messages):
            shown = [_PICTURES] * has_pictures(messages) + [_FILES] * has_files(messages)
            wanted = [*keywords, *shown]
        if wanted:
            able = frozenset(wanted)
            found = self._able.get(able)
            if found is None:
                found = self._able[able] = tuple(_takes(m, able) for m in self.members)
            if not all(found):
                call.tried = {number for number, able_ in enumerate(found) if not able_}
                call.unable = len(call.tried)
        return call

    def _most(self, call: _Call) -> int:
        """How many members a call may have tried at the most, with those that it cannot try."""
        return min(len(self.members), self.attempts + call.unable)

    async def _pick(self, call: _Call) -> tuple[Member, str]:
        """The member to try next, and why it is this one."""
        if self._line_of[1].waiting == 0:
            found = self._now_free(call)
            if type(found) is tuple:
                return found
        async with self._line():
            while True:
                found = self._now_free(call)
                if not isinstance(found, int):
                    return found
                await self._wait(call, found)

    def _line(self) -> _Line:
        """The line of the running event loop: a lock belongs to one."""
        loop = asyncio.get_running_loop()
        if self._line_of[0] is not loop:
            self._line_of = loop, _Line()
        return self._line_of[1]

    def _now_free(self, call: _Call) -> tuple[Member, str] | int:
        """The member to try now; or how long to wait for one, -1 where only for the end of a call.

        Raises:
            ModelError: If there is none to wait for.
        """
        tried = call.tried
        if len(tried) >= self._most(call):
            raise self._exhausted(call)
        now = self._now()
        members = self.members
        wait = -1
        full = False
        passed: list[str] | None = None
        for number in self._choose(call):
            if number in tried:
                continue
            member = members[number]
            if member.breaker.opened and not member.breaker.admits(now):
                state = "open"
            elif (member.free and member.resting_until <= now) or (
                own := member.wait_ns(call.tokens, now)
            ) == 0:
                tried.add(number)
                plain = passed is None and not call.attempts
                return member, self.strategy if plain else self._reason(call, passed)
            else:
                state = "resting" if member.resting_until > now else "at its limits"
                full = full or own < 0
                if own > 0 and (wait < 0 or own < wait):
                    wait = own
            passed = [*(passed or ()), f"{member.name} is {state}"]
        if wait < 0 and not full:
            raise self._closed(call, now)
        left = call.began + self.patience_ns - now
        if left <= 0 or (not full and wait > left):
            raise self._impatient(call, max(wait, 0))
        return wait

    def _reason(self, call: _Call, passed: list[str] | None) -> str:
        reasons = list(passed or ())
        if call.attempts:
            last = call.attempts[-1]
            reasons.insert(0, f"{last['member']}: {last.get('outcome', 'under way')}")
        return "; ".join(reasons) or self.strategy

    async def _wait(self, call: _Call, wait_ns: int) -> None:
        """Wait so long, or until a call of a member ends."""
        freed = asyncio.get_running_loop().create_future()
        for member in self.members:
            member.waiters.append(freed)
        timer = None
        left = call.began + self.patience_ns - self._now()
        try:
            seconds = max(left if wait_ns < 0 else min(wait_ns, left), 0) / SECOND
            timer = asyncio.ensure_future(self._clock.sleep(seconds))
            await asyncio.wait({freed, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            freed.cancel()
            if timer is not None:
                timer.cancel()
            for member in self.members:
                if freed in member.waiters:
                    member.waiters.remove(freed)

    async def _enter(self, member: Member, call: _Call) -> bool:
        """Whether a call of *member* may begin, where processes share its limits; else the call may
        try it again later.

        Raises:
            ModelError: If who keeps the limits does not answer.
        """
        sharing = SHARING.get()
        if sharing is None:
            return True
        try:
            entered = await sharing.enter(member.shared, call.tokens)
        except ModelError as error:
            raise self._with_route(call, error) from error.__cause__
        now = self._now()
        if not isinstance(entered, Ticket):
            member.taken_until = now + (entered if entered > 0 else ENDED_NS)
        elif member.breaker.opened and not member.breaker.admits(now):
            sharing.leave(entered, 0)  # it went down meanwhile
        else:
            call.tickets[member] = sharing, entered
            return True
        call.tried.discard(self._numbers[member])
        return False

    async def _attempt(self, member: Member, call: _Call, why: str) -> Completion:
        """One call of one member."""
        started, entry = self._open(member, call)
        told = {"member": member.name, "why": why}
        call.attempts.append(told)
        adapter = member.adapter
        try:
            answer = adapter.complete(
                adapter.fitting(call.messages), **self._keywords(member, call)
            )
            if member.awaited or inspect.isawaitable(answer):
                if member.timeout_seconds is None:
                    answer = await answer
                else:
                    answer = await _within(answer, member)
            completion = completed(answer)
        except Exception as error:
            self._close(member, call, started, entry, error=error, told=told)
            raise
        except BaseException:
            self._close(member, call, started, entry, told=told)
            raise
        self._close(member, call, started, entry, completion, told=told)
        return completion

    def _keywords(self, member: Member, call: _Call) -> dict[str, Any]:
        keywords, beside = call.keywords.copy(), call.beside
        for at, name in member.beside:
            if (value := beside[at]) is not None:
                keywords[name] = value
        return keywords

    def _open(self, member: Member, call: _Call) -> tuple[int, list[int] | None]:
        """Count a call as begun; when it began, and its entry in the window of tokens."""
        now = self._now()
        member.busy += 1
        if member.breaker.opened:
            member.breaker.begin()
        if member.requests is not None:
            member.requests.take(1, now)
        if self._ranked is not None and self.strategy == "least_busy":
            self._ranked.touch(self._numbers[member])
        return now, None if member.tokens is None else member.tokens.take(call.tokens, now)

    def _close(
        self,
        member: Member,
        call: _Call,
        started: int,
        entry: list[int] | None,
        completion: Completion | None = None,
        *,
        error: Exception | None = None,
        told: dict[str, Any] | None = None,
    ) -> None:
        """Count a call as ended, and tell the route how: with an answer, an *error*, or neither,
        where it was cancelled.
        """
        now = self._now()
        told = call.attempts[-1] if told is None else told
        told["ms"] = (now - started) // 1_000_000
        member.busy -= 1
        usage: LLMUsage | None = None
        if completion is not None:
            usage = completion.usage
            if member.breaker.failures or member.breaker.opened:
                member.breaker.succeed()
            member.answered_in(now - started, now)
            told["outcome"] = "answered"
            if completion.model is not None and completion.model != member.name:
                told["model"] = completion.model
            if usage is not None:
                self._answer_tokens += 0.1 * (usage.completion_tokens - self._answer_tokens)
        elif error is not None:
            usage = consumed(error)
            self._learn(member, told, error, now)
        else:
            member.breaker.leave()
            told["outcome"] = "cancelled"
        if member.asked is not None:
            told["asked"] = member.asked
        ticket = call.tickets.pop(member, None) if call.tickets else None
        if ticket is not None:
            ticket[0].leave(ticket[1], None if usage is None else usage.total_tokens)
            if member.concurrency is not None:
                member.taken_until = 0
        if usage is not None:
            told["usage"] = usage.to_dict()
            if entry is not None and member.tokens is not None:
                member.tokens.settle(entry, usage.total_tokens)
        if self._ranked is not None:
            self._ranked.touch(self._numbers[member])
        if member.waiters:
            member.wake()

    def _learn(self, member: Member, told: dict[str, Any], error: Exception, now: int) -> None:
        """What an *error* says of its member."""
        fault = classified(error)
        told |= {"outcome": fault.kind, "error": writable(str(error))[:ERROR_CHARS]}
        breaker = member.breaker
        if fault.rest_seconds is not None:
            member.resting_until = max(member.resting_until, now + int(fault.rest_seconds * SECOND))
        if fault.kind in ("credentials", "unknown_model"):
            breaker.refuse(now)
            logger.error("pool %r: member %r is left out: %s", self.model, member.name, error)
        elif fault.kind == "transient":
            if breaker.fail(now):
                logger.warning("pool %r: member %r is down: %s", self.model, member.name, error)
        elif fault.kind == "limited":
            breaker.leave()
        else:
            breaker.succeed()  # it is there, and answers

    def _failed(self, member: Member, call: _Call, error: Exception) -> None:
        """Go on to another member after *error*, or raise what the step is to see."""
        fault = classified(error)
        call.errors.append((error, fault))
        if not fault.elsewhere:
            raise self._error(call, error) from error
        if fault.kind == "context":
            # only one with a longer context can do better
            least = member.context or 0
            for number, other in enumerate(self.members):
                if number not in call.tried and other.context is not None:
                    if other.context <= least:
                        call.tried.add(number)
                        call.unable += 1

    def _told(self, call: _Call, completion: Completion) -> Completion:
        """*completion* with the usage of all attempts, and the route."""
        usage = completion.usage
        if len(call.attempts) > 1:
            known = [LLMUsage.from_dict(a["usage"]) for a in call.attempts if "usage" in a]
            usage = sum(known[1:], known[0]) if known else None
        return Completion(
            completion.text,
            usage,
            completion.model,
            completion.finish_reason,
            completion.reasoning,
            self._route(call),
        )

    def standing(self) -> list[Standing]:
        """How each member stands now, for who watches."""
        now = self._now()
        return [
            Standing(m.name, m.breaker.state(now), m.busy, m.latency_ns / SECOND)
            for m in self.members
        ]

    def _route(self, call: _Call) -> dict[str, Any]:
        return {"pool": self.model, "strategy": self.strategy, "attempts": call.attempts}

    # --- hedging ---

    async def _hedged(self, call: _Call) -> Completion:
        """The first answer of calls that are begun one after the other."""
        running: dict[asyncio.Future[Completion], Member] = {}
        assert self._hedge_after is not None
        timer: asyncio.Future[Any] | None = None
        try:
            while True:
                if not running or (timer is not None and timer.done()):
                    timer = None
                    member, why = await self._next_hedge(call, bool(running))
                    if member is not None and (member.free or await self._enter(member, call)):
                        running[asyncio.ensure_future(self._attempt(member, call, why))] = member
                        if len(call.tried) < self._most(call):
                            timer = asyncio.ensure_future(self._clock.sleep(self._hedge_after))
                    elif not running:
                        continue
                waited = {*running, *([timer] if timer is not None else [])}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task.done()]:
                    member = running.pop(task)
                    error = task.exception()
                    if error is None:
                        await _cancelled(running)
                        return self._told(call, task.result())
                    if not isinstance(error, Exception):
                        raise error
                    self._failed(member, call, error)
        finally:
            if timer is not None:
                timer.cancel()
            await _cancelled(running)
            for sharing, ticket in call.tickets.values():  # of what was cancelled before it began
                sharing.leave(ticket, 0)

    async def _next_hedge(self, call: _Call, under_way: bool) -> tuple[Member | None, str]:
        """The member to try next; none where one is *under_way* and no other is free at once."""
        if not under_way:
            return await self._pick(call)
        try:
            found = self._now_free(call)
        except ModelError:
            return None, ""
        if type(found) is not tuple:
            return None, ""
        member, why = found
        return member, f"no answer in {self._hedge_after} s" if "under way" in why else why

    # --- judging ---

    def _misfit(
        self,
        completion: Completion,
        allowed: Sequence[str] | None,
        schema: Mapping[str, Any] | None,
    ) -> str | None:
        """Why an answer of a cascade is not good enough."""
        ended = ending(completion.finish_reason)
        if ended is not None:
            return f"the answer was {ended}"
        check = None
        if schema is not None and allowed is None:
            form = canonical(dict(schema))
            check = self._schemas.get(form)
            if check is None:
                check = self._schemas[form] = schema_check(dict(schema))
        try:
            read_answer(
                completion.text,
                allowed=tuple(allowed) if allowed is not None else None,
                check=check,
            )
        except (VMError, TruncatedAnswer) as error:
            return str(error)
        if self._check is not None and not self._check(completion.text):
            return "the pool's check does not hold"
        return None

    # --- ends without an answer ---

    def _error(self, call: _Call, error: Exception) -> ModelError:
        """What the step sees of *error*: itself, with what all attempts consumed and the route."""
        if isinstance(error, ModelError):
            found = error
        else:
            found = ModelError(error_named(error))
            found.__cause__ = error
        return self._with_route(call, found)

    def _with_route(self, call: _Call, error: ModelError) -> ModelError:
        if call.attempts:
            error.route = self._route(call)
            spent = [a.get("usage") for a in call.attempts]
            if None in spent:
                error.usage, error.answered = None, True
            else:
                known = [LLMUsage.from_dict(usage) for usage in spent if usage is not None]
                error.usage = sum(known[1:], known[0])
        else:
            error.usage = NOTHING_USED
        return error

    def _exhausted(self, call: _Call) -> ModelError:
        """Every member that could be tried has failed."""
        errors = call.errors
        if not errors:
            message = f"pool {self.model!r}: no member takes what the step asks for"
            return self._with_route(call, ModelError(message, retryable=False))
        if len(errors) == 1 and len(call.attempts) == 1:
            return self._error(call, errors[0][0])
        told = "; ".join(
            f"{a['member']}: {a.get('error') or a.get('outcome')}" for a in call.attempts
        )
        message = f"pool {self.model!r}: all {len(call.attempts)} members tried have failed: {told}"
        kinds = {fault.kind for _, fault in errors}
        last = errors[-1][0]
        found: ModelError
        if kinds == {"limited"}:
            waits = [fault.rest_seconds or 0.0 for _, fault in errors]
            found = RateLimited(message, retry_after_seconds=min(waits))
        elif all(isinstance(error, TimeoutError | ModelTimeout) for error, _ in errors):
            found = ModelTimeout(message)
        else:
            mendable = bool(kinds & {"transient", "limited"})
            found = ModelError(message, status=getattr(last, "status", None), retryable=mendable)
        found.__cause__ = last
        return self._with_route(call, found)

    def _closed(self, call: _Call, now: int) -> ModelError:
        """No member that is left may be called."""
        if call.errors:
            return self._exhausted(call)
        waits = [
            max(member.breaker.until - now, 0) / SECOND
            for number, member in enumerate(self.members)
            if number not in call.tried
        ]
        message = f"pool {self.model!r}: no member can be called: {self._standing(now)}"
        return self._with_route(
            call, ModelError(message, retry_after_seconds=min(waits, default=None))
        )

    def _impatient(self, call: _Call, wait_ns: int) -> ModelError:
        if call.errors:
            return self._exhausted(call)
        seconds = wait_ns / SECOND
        message = (
            f"pool {self.model!r}: every member is at its limits for another {seconds:.0f} s: "
            f"{self._standing(self._now())}"
        )
        return self._with_route(call, RateLimited(message, retry_after_seconds=seconds))

    def _standing(self, now: int) -> str:
        def state(member: Member) -> str:
            if member.resting_until > now:
                return "resting"
            found = member.breaker.state(now)
            return "at its limits" if found == "closed" else found.replace("_", " ")

        return ", ".join(f"{member.name} is {state(member)}" for member in self.members)

    def __repr__(self) -> str:
        names = ", ".join(member.name for member in self.members)
        return f"Pool({self.model!r}: {names}; {self.strategy})"


_PICTURES, _FILES = "a picture", "a file"


class _Call:
    """One call of a pool on its way."""

    __slots__ = (
        "_key",
        "attempts",
        "began",
        "beside",
        "errors",
        "keywords",
        "messages",
        "number",
        "pool",
        "rejected",
        "tickets",
        "tokens",
        "tried",
        "unable",
    )

    def __init__(
        self,
        pool: Pool,
        messages: list[Message],
        keywords: dict[str, Any],
        number: int,
        key: str | None,
    ) -> None:
        self.pool = pool
        self.messages = messages
        self.keywords = keywords
        self.number = number
        self._key = key
        self.tokens = 0
        self.began = pool._now()
        self.beside: tuple[Any, ...] = ()
        self.tried: set[int] = set()
        self.unable = 0  # of those tried, members that do not take what the step asks for
        self.attempts: list[dict[str, Any]] = []
        self.errors: list[tuple[Exception, Fault]] = []
        self.rejected: Completion | None = None
        self.tickets: dict[Member, tuple[Sharing, Ticket]] = {}

    @property
    def key(self) -> str:
        """Its effect key; of a call outside of a run, its number."""
        return self._key if self._key is not None else str(self.number)

    def place(self) -> str:
        """What ``hash`` goes by: the first message, which begins what providers keep of prompts."""
        pool = self.pool
        return text_of(self.messages[0]) if pool._place is None else pool._place(self.messages)

    def expected(self) -> tuple[int, int]:
        """How many tokens of prompt and answer are to be expected."""
        bound = self.keywords.get("max_tokens", DEFAULT_MAX_TOKENS)
        prompt = token_bound(self.messages) // BYTES_OF_TOKEN
        return prompt, min(int(self.pool._answer_tokens), bound)


class _Line(asyncio.Lock):
    """Calls that wait for a member, in the order in which they came."""

    waiting = 0

    async def __aenter__(self) -> None:
        self.waiting += 1
        try:
            await self.acquire()
        except BaseException:
            self.waiting -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self.waiting -= 1
        self.release()


def _check_arguments(
    pool: str, strategy: Strategy, attempts: Any, check: Any, hedge_after: Any, place: Any
) -> None:
    """Arguments that cannot be, or that go with another strategy."""
    if attempts is not None and (type(attempts) is not int or attempts < 1):
        raise VMError(f"pool {pool!r}: attempts is a whole number of at least 1, not {attempts!r}")
    if strategy == "hedge" and hedge_after is None:
        raise VMError(f"pool {pool!r}: hedge needs hedge_after, in seconds")
    for what, wanted, value in (
        ("hedge_after", "hedge", hedge_after),
        ("check", "cascade", check),
        ("place", "hash", place),
    ):
        if value is not None and strategy != wanted:
            raise VMError(f"pool {pool!r}: {what} is for strategy {wanted}, not {strategy}")
    if hedge_after is not None and not 0 <= hedge_after < float("inf"):
        raise VMError(f"pool {pool!r}: hedge_after is seconds, not {hedge_after!r}")


def _member(pool: str, given: Any) -> Member:
    member = given if isinstance(given, Member) else Member(given)
    if isinstance(member.adapter.adapter, Pool):
        raise VMError(
            f"pool {pool!r}: {member.name!r} is a pool, and a pool has no pools in it: name its members"
        )
    return member


def _takes(member: Member, wanted: frozenset[str]) -> bool:
    adapter = member.adapter
    return all(
        adapter.images if name == _PICTURES else adapter.files if name == _FILES
        else member.takes(name)
        for name in wanted
    )  # fmt: skip


async def _within(answer: Any, member: Member) -> Any:
    """*answer*, in the time that one attempt has."""
    try:
        async with asyncio.timeout(member.timeout_seconds):
            return await answer
    except TimeoutError as error:
        raise ModelTimeout(
            f"member {member.name!r} gave no answer in {member.timeout_seconds:g} s"
        ) from error


async def _cancelled(tasks: Mapping[asyncio.Future[Completion], Member]) -> None:
    """Cancel *tasks* and see them end."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.gather(*tasks, return_exceptions=True)
