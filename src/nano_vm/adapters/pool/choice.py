"""In which order the members of a pool are tried: each strategy yields their numbers, the best
first. What may not be called now is passed over by the pool; nothing is called here.

The first number of each costs O(log members) or less. What is random is drawn from the call's own
key, so that the same call has the same order again.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate
from math import log2
from typing import Protocol

from ...prices import Price
from .member import LATENCY_HALF_LIFE_NS, Member

RING_POINTS = 64
"""Points of each member on the ring of ``hash``: shares then differ by an eighth, mostly."""

DRAWS = 8
"""Random draws before the members are gone through in order."""


class Asked(Protocol):
    """What a strategy may know of a call."""

    number: int
    """How many calls the pool had before."""

    @property
    def key(self) -> str:
        """Its identity: what is random follows from it."""
        ...

    def place(self) -> str:
        """What ``hash`` goes by: calls of one place go to one member."""
        ...

    def expected(self) -> tuple[int, int]:
        """How many tokens of prompt and answer it will take."""
        ...


Choice = Callable[[Asked], Iterator[int]]


def drawn(seed: int, key: str, number: int) -> float:
    """A number from 0 to 1, by the seed of the pool and the key of the call."""
    digest = hashlib.sha256(f"{seed}\0{key}\0{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def ordered(members: Sequence[Member]) -> Choice:
    """As they stand."""
    numbers = range(len(members))
    return lambda asked: iter(numbers)


def round_robin(members: Sequence[Member]) -> Choice:
    """Each in its turn."""
    count = len(members)
    twice = [*range(count), *range(count)]

    def choose(asked: Asked) -> Iterator[int]:
        start = asked.number % count
        return iter(twice[start : start + count]) if count > 1 else iter(twice[:1])

    return choose


def weighted(members: Sequence[Member], seed: int) -> Choice:
    """By chance, in proportion to their weights."""
    sums = list(accumulate(member.weight for member in members))

    def choose(asked: Asked) -> Iterator[int]:
        told: set[int] = set()
        for draw in range(DRAWS):
            number = bisect_right(sums, drawn(seed, asked.key, draw) * sums[-1], hi=len(sums) - 1)
            if number not in told:
                told.add(number)
                yield number
        yield from (number for number in range(len(members)) if number not in told)

    return choose


def hashed(members: Sequence[Member]) -> Choice:
    """The same place to the same member; where that cannot be called, to the next on the ring, so
    that only its own calls move.
    """
    ring = sorted(
        (_point(f"{member.name}\0{i}"), number)
        for number, member in enumerate(members)
        for i in range(RING_POINTS)
    )
    points = [point for point, _ in ring]

    def choose(asked: Asked) -> Iterator[int]:
        start = bisect_left(points, _point(asked.place())) % len(ring)
        told: set[int] = set()
        for i in range(len(ring)):
            number = ring[(start + i) % len(ring)][1]
            if number not in told:
                told.add(number)
                yield number

    return choose


def _point(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()[:8])


class Ranked:
    """Members by a rank that changes: `touch` one whose rank did, `choose` goes from the lowest.

    A heap whose old entries are dropped when they come up. A rank that was changed elsewhere (a
    member in two pools) is noticed then, too.
    """

    def __init__(self, members: Sequence[Member], rank: Callable[[Member], float]) -> None:
        self._members = members
        self._rank = rank
        self._heap = self._fresh()

    def _fresh(self) -> list[tuple[float, int]]:
        heap = [(self._rank(member), number) for number, member in enumerate(self._members)]
        heapify(heap)
        return heap

    def touch(self, number: int) -> None:
        """The rank of a member has changed."""
        heap = self._heap
        if len(heap) > 8 * len(self._members) + 64:
            self._heap = self._fresh()
        else:
            heappush(heap, (self._rank(self._members[number]), number))

    def choose(self, asked: Asked) -> Iterator[int]:
        """The members from the lowest rank on, ties as they stand."""
        heap, told = self._heap, set[int]()
        seen: list[tuple[float, int]] = []
        try:
            while heap and len(told) < len(self._members):
                rank, number = heappop(heap)
                now = self._rank(self._members[number])
                if number in told:
                    continue
                if rank != now:
                    heappush(heap, (now, number))
                    continue
                told.add(number)
                seen.append((rank, number))
                yield number
        finally:
            for entry in seen:
                heappush(heap, entry)


def busyness(member: Member) -> float:
    """How many calls of it are under way."""
    return member.busy


def slowness(member: Member) -> float:
    """Its latency, of which half is forgotten in each half-life: as a logarithm, so that time
    changes the order of no two members, and a heap stays one.
    """
    return log2(member.latency_ns) + member.latency_at / LATENCY_HALF_LIFE_NS


def cheapest(members: Sequence[Member], prices: Sequence[Price | None]) -> Choice:
    """By what the call is expected to cost; members without a price last.

    A cost is a line over the share of the answer in the tokens: the lowest of all lines at each
    share is found once, so that a call only looks for its share.
    """
    known = [(number, price) for number, price in enumerate(prices) if price is not None]
    unknown = [number for number, price in enumerate(prices) if price is None]
    lines = [(float(p[0]), float(p[1]), number) for number, p in known]
    starts, lowest = _envelope(lines)

    def choose(asked: Asked) -> Iterator[int]:
        prompt, answer = asked.expected()
        first = None
        if lowest:
            share = answer / max(prompt + answer, 1)
            first = lowest[bisect_right(starts, share) - 1]
            yield first
        costs = sorted((a * prompt + b * answer, number) for a, b, number in lines)
        yield from (number for _, number in costs if number != first)
        yield from unknown

    return choose


def _envelope(lines: list[tuple[float, float, int]]) -> tuple[list[float], list[int]]:
    """From which share of the answer on which line is the lowest: ``a`` at 0, ``b`` at 1."""
    starts: list[float] = []
    lowest: list[int] = []
    share = 0.0
    at = min(lines, key=lambda line: (line[0], _slope(line), line[2]), default=None)
    while at is not None and share < 1.0:
        starts.append(share)
        lowest.append(at[2])
        # those that fall against it meet it further on; the first of them is the next
        steeper = [line for line in lines if _slope(line) < _slope(at)]
        meeting = [
            ((line[0] - at[0]) / (_slope(at) - _slope(line)), _slope(line), line)
            for line in steeper
        ]
        share, _, at = min(meeting, default=(1.0, 0.0, None))
    return starts, lowest


def _slope(line: tuple[float, float, int]) -> float:
    return line[1] - line[0]
