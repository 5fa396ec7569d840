"""Ranges of keys: whatever the keys, and whoever asks when, each key is taken exactly once."""

from __future__ import annotations

import random
from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from crossload.engines.mover.ranges import Alphabet, Range, RangePlan, Unsorted, Worth

PAGE = 5
LETTERS = some.sampled_from("ab/0_~é中\U0001f680\x01")
ODD = some.text(LETTERS, min_size=1, max_size=6)
COMMON = some.builds("very/long/common/beginning/of/all/{}".format, some.text("0123456789", min_size=1, max_size=5))
FREE = some.text(some.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
KEYS = some.sets(ODD | COMMON | FREE, max_size=120)


def page_of(keys: list[str], part: Range, count: int) -> list[str]:
    begin = bisect_right(keys, part.at or part.after)
    return keys[begin : begin + count]


def run(
    keys: list[str], prefix: str, choose: random.Random, most: int, count: int = PAGE
) -> tuple[list[str], RangePlan]:
    """List with up to `most` ranges, in any order, pages being asked for before others cut the range they are for."""
    there = sorted(key for key in keys if key.startswith(prefix))
    plan = RangePlan(prefix, count)
    work = [plan.open[0]]
    asked: dict[int, list[str]] = {}
    taken: list[str] = []
    while work:
        part = choose.choice(work)
        if id(part) not in asked:
            asked[id(part)] = page_of(there, part, count)  # comes back later
        else:
            page = asked.pop(id(part))
            taken += page[: plan.take(part, page, more=len(page) == count)]
            if part.done:
                work.remove(part)
        if len(work) < most and (new := plan.cut()) is not None:
            work.append(new)
        covered(plan)
    assert not plan.open
    return taken, plan


def covered(plan: RangePlan) -> None:
    """What is open is in order, without a gap between two neighbours that are both open, and ends where it must."""
    parts = sorted(plan.open, key=lambda part: part.after)
    for one, other in pairwise(parts):
        assert one.upto is not None
        assert one.after < one.upto <= other.after
    assert all(part.upto is not None for part in parts[:-1])


@settings(max_examples=300, deadline=None)
@given(
    KEYS, some.sampled_from(["", "a", "very/long/", "中"]), some.integers(1, 12), some.randoms(use_true_random=False)
)
def test_each_key_is_taken_exactly_once(keys: set[str], prefix: str, most: int, choose: random.Random) -> None:
    taken, _ = run(sorted(keys), prefix, choose, most)
    assert sorted(taken) == sorted(key for key in keys if key.startswith(prefix))


@settings(max_examples=300, deadline=None)
@given(FREE | ODD | COMMON, FREE | ODD | COMMON, some.integers(1, 300), some.lists(FREE, max_size=3))
def test_a_cut_lies_strictly_between(one: str, other: str, bits: int, learnt: list[str]) -> None:
    low, high = sorted([one, other])
    alphabet = Alphabet()
    for key in [one, other, *learnt]:
        alphabet.learn(key)
    middle = alphabet.between(low, high, "", bits)
    if middle is not None:
        assert low < middle < high
        assert low.encode() < middle.encode() < high.encode()
    open_end = alphabet.between(low, None, low[:1], bits)
    assert open_end is None or (open_end > low and open_end.startswith(low[:1]))


def test_there_is_no_room_between_a_key_and_itself_with_the_least_letter_behind() -> None:
    alphabet = Alphabet()
    assert alphabet.between("a", "a-", "", 1) is None
    assert alphabet.between("a", "b", "", 1) is not None


@pytest.mark.parametrize(
    "keys",
    [
        [f"data/2024/part-{n:08d}.parquet" for n in range(100_000)],
        [f"{n * 2654435761 % 2**32:08x}" for n in range(100_000)],
        [f"train/class_{n % 100:03d}/img_{n // 100:05d}.jpg" for n in range(100_000)],
        ["a", *(f"zz/a/long/beginning/which/never/changes/{n:08d}" for n in range(100_000)), "zzz"],
        [f"данные/{n % 97}/файл-{n}" for n in range(100_000)],
    ],
    ids=["numbers", "hashes", "classes", "one deep folder", "cyrillic"],
)
def test_the_work_is_shared_out(keys: list[str]) -> None:
    """All ranges take one page at a time, as workers with one network would: 8 of them need an eighth of the rounds,
    but for the start, and ask for few pages more than one would."""
    keys = sorted(keys)
    plan = RangePlan("", 100)
    work, rounds, asked, taken = [plan.open[0]], 0, 0, 0
    while work:
        rounds += 1
        for part in list(work):
            page = page_of(keys, part, 100)
            asked += 1
            taken += plan.take(part, page, more=len(page) == 100)
            if part.done:
                work.remove(part)
        while len(work) < 8 and (new := plan.cut()) is not None:
            work.append(new)
    assert taken == len(keys)
    assert rounds < 1.5 * len(keys) / 100 / 8
    assert asked < 1.2 * len(keys) / 100


def test_a_listing_out_of_order_is_noticed() -> None:
    plan = RangePlan("", 3)
    part = plan.open[0]
    assert plan.take(part, ["a b", "a/b", "a/c"], more=True) == 3
    with pytest.raises(Unsorted, match="out of order"):
        plan.take(part, ["a c", "a d", "a e"], more=True)
    with pytest.raises(Unsorted):
        RangePlan("", 3).take(Range("", None), ["a/b", "a b"], more=False)


def test_a_range_ends_where_it_was_cut_even_with_a_page_under_way() -> None:
    plan = RangePlan("", 2)
    first = plan.open[0]
    plan.take(first, ["0", "1"], more=True)
    under_way = ["2", "z"]
    second = plan.cut()
    assert second is not None and "2" < second.after < "z"
    assert plan.take(first, under_way, more=True) == 1
    assert first.done
    assert plan.take(second, ["z"], more=False) == 1


# -- how many --------------------------------------------------------------------------------------------------------


def pages(worth: Worth, seconds: float, count: int) -> None:
    for _ in range(count):
        worth.page(seconds, worth.limit)


def test_more_ranges_as_long_as_they_pay() -> None:
    """A store that takes 100 ms for a page, however many are asked for."""
    worth = Worth(16)
    for limit in (1, 2, 4, 8, 16):
        assert worth.limit == limit
        pages(worth, 0.1, 4 * limit)
    pages(worth, 0.1, 1000)
    assert worth.limit == 16


def test_no_more_when_they_only_wait_for_one_another() -> None:
    """A machine that is busy: twice the ranges, twice the time for a page."""
    worth = Worth(16)
    limits: list[int] = []
    for _ in range(4000):
        worth.page(0.02 * worth.limit, worth.limit)
        limits.append(worth.limit)
    assert max(limits) == 2
    assert limits.count(1) > 0.6 * len(limits)


def test_pages_of_fewer_ranges_than_allowed_say_nothing() -> None:
    worth = Worth(16)
    pages(worth, 0.1, 4)
    for _ in range(1000):
        worth.page(0.1, 1)
    assert worth.limit == 2
