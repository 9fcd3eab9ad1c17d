"""What is kept of what is made again and again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from nano_vm.newest import Newest


def test_what_was_asked_for_least_lately_goes_first() -> None:
    kept: Newest[str, str] = Newest(25, len)
    made: list[str] = []

    def of(name: str) -> str:
        def make() -> str:
            made.append(name)
            return name * 10

        return kept.of(name, make)

    assert [of(name) for name in "abacab"] == [name * 10 for name in "abacab"]
    assert made == ["a", "b", "c", "b"]
    assert (len(kept), kept.held) == (2, 20)


def test_what_alone_is_too_large_is_given_and_takes_no_others_place() -> None:
    kept: Newest[str, str] = Newest(25, len)
    assert kept.of("a", lambda: "x" * 20) == "x" * 20
    assert kept.of("b", lambda: "y" * 26) == "y" * 26
    assert kept.of("a", lambda: "another") == "x" * 20
    assert kept.of("b", lambda: "z" * 3) == "z" * 3


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12))))
def test_no_more_is_held_than_may_be_and_that_is_counted_right(
    most: int, asked: list[tuple[int, int]]
) -> None:
    kept: Newest[int, bytes] = Newest(most, len)
    last: dict[int, bytes] = {}
    for key, size in asked:
        fresh = bytes(size)
        found = kept.of(key, lambda fresh=fresh: fresh)  # type: ignore[misc]
        assert found is fresh or found is last[key]
        last[key] = found
        assert kept.held == sum(size for _, size in kept._kept.values()) <= most


def test_of_what_several_make_at_once_one_is_kept() -> None:
    kept: Newest[str, list[int]] = Newest(10)
    together = threading.Barrier(4)

    def make() -> list[int]:
        together.wait(30)
        return []

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: kept.of("a", make), range(4)))
    assert len({id(one) for one in found}) == 1
    assert (len(kept), kept.held) == (1, 1)
