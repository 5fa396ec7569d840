"""Leases: one live owner for each shard, none lost, and nobody's late word counts."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crossload.ledger.lease import STARTS_MAX, Leases, Shard, Worn
from crossload.ports.errors import AccessDenied, Unavailable

SECONDS = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(tmp_path: Path, clock: Clock) -> Iterator[Leases]:
    with Leases.fresh(tmp_path / "x.leases", clock=clock) as made:
        yield made


def shard(number: int, size_bytes: int = 5) -> Shard:
    return Shard(number, number * 10 - 9, number * 10, 10, size_bytes)


def test_the_largest_comes_first_and_each_goes_to_one(leases: Leases) -> None:
    leases.fill([shard(1, 5), shard(2, 50), shard(3, 5)])
    taken = [leases.claim(owner, SECONDS) for owner in "abcd"]
    assert [one and one.number for one in taken] == [2, 1, 3, None]
    assert not leases.over()


def test_a_lease_that_ran_out_is_anybodys_and_its_former_owner_is_told(leases: Leases, clock: Clock) -> None:
    leases.fill([shard(1)])
    assert leases.claim("a", SECONDS)
    clock.now += SECONDS - 1
    assert leases.claim("b", SECONDS) is None
    assert leases.renew(1, "a", SECONDS, moved=3, sent_bytes=30)
    clock.now += SECONDS - 1
    assert leases.claim("b", SECONDS) is None, "renewing did not hold it"
    clock.now += 1
    again = leases.claim("b", SECONDS)
    assert again is not None and again.starts == 2
    assert not leases.renew(1, "a", SECONDS)
    assert not leases.finish(1, "a", {"copied": 99})
    assert leases.standing().moved == 0, "what the first owner told is not what the second did"
    assert leases.finish(1, "b", {"copied": 10})
    assert leases.reports() == [{"copied": 10}]
    assert leases.over() and leases.standing().starts == 2


def test_what_is_given_back_is_free_at_once(leases: Leases) -> None:
    leases.fill([shard(1), shard(2)])
    leases.claim("a", SECONDS)
    leases.claim("a", SECONDS)
    assert leases.claim("b", SECONDS) is None
    assert leases.give_back("a") == 2
    assert leases.give_back("a") == 0
    assert leases.claim("b", SECONDS) is not None


def test_a_shard_that_ends_every_worker_is_not_handed_out_for_ever(leases: Leases, clock: Clock) -> None:
    leases.fill([shard(1)])
    for _ in range(STARTS_MAX):
        assert leases.claim("a", SECONDS)
        clock.now += SECONDS
    with pytest.raises(Worn, match="objects 1 to 10"):
        leases.claim("a", SECONDS)


def test_the_first_trouble_ends_it_and_is_remembered(leases: Leases) -> None:
    leases.fill([shard(1)])
    leases.fail(AccessDenied("no", hint="ask"))
    leases.fail(Unavailable("later"))
    assert leases.over()
    assert leases.trouble() == ("access-denied", "no", "ask")


def test_numbers_to_do_again_are_those_of_the_shard(leases: Leases) -> None:
    leases.fill([shard(1), shard(2)], [3, 12, 20])
    assert leases.again(shard(2)) == {12, 20}


def test_a_fresh_table_forgets_the_one_of_a_killed_pass(tmp_path: Path) -> None:
    path = tmp_path / "x.leases"
    with Leases.fresh(path) as old:
        old.fill([shard(1)])
        with Leases.fresh(path) as new:
            assert new.over()


def test_the_clock_is_the_databases(tmp_path: Path) -> None:
    with Leases.fresh(tmp_path / "x.leases") as leases:
        leases.fill([shard(1)])
        assert leases.claim("a", 0.0) is not None
        assert leases.claim("b", 60.0) is not None, "a lease of no length is over"
        assert leases.claim("c", 60.0) is None


def test_many_threads_share_out_every_shard_once(tmp_path: Path) -> None:
    path = tmp_path / "x.leases"
    with Leases.fresh(path) as leases:
        leases.fill(shard(number) for number in range(1, 61))
    finished: Counter[int] = Counter()

    def work(owner: str) -> None:
        with Leases(path) as mine:
            while (got := mine.claim(owner, 60.0)) is not None:
                finished[got.number] += mine.finish(got.number, owner, {})

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert finished == Counter({number: 1 for number in range(1, 61)})


class Crowd(RuleBasedStateMachine):
    """Owners that claim, renew, finish, give up, fall silent, and speak again when it is too late."""

    OWNERS = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.leases = Leases.fresh(Path(self.folder.name) / "x.leases", clock=self.clock)
        self.leases.fill(shard(number, number) for number in range(1, 4))
        self.held: dict[int, tuple[str, float]] = {}  # shard -> who holds it, and until when
        self.starts: Counter[int] = Counter()
        self.done: Counter[int] = Counter()

    def teardown(self) -> None:
        """Nothing is lost: after all fell silent, one owner alone can finish the rest, each shard once."""
        self.clock.now += SECONDS
        while True:
            try:
                left = self.leases.claim("last", SECONDS)
            except Worn:
                break
            if left is None:
                assert self.leases.over()
                assert self.done == Counter({1: 1, 2: 1, 3: 1})
                break
            self.done[left.number] += self.leases.finish(left.number, "last", {})
        assert max(self.done.values(), default=0) <= 1
        self.leases.close()
        self.folder.cleanup()

    def live(self, number: int) -> bool:
        return number in self.held and self.held[number][1] > self.clock.now

    @precondition(lambda self: max(self.starts.values(), default=0) < STARTS_MAX)
    @rule(owner=st.sampled_from(OWNERS))
    def claim(self, owner: str) -> None:
        got = self.leases.claim(owner, SECONDS)
        free = [number for number in (1, 2, 3) if not self.done[number] and not self.live(number)]
        assert (got.number if got else None) == (max(free) if free else None)
        if got is not None:
            self.starts[got.number] += 1
            self.held[got.number] = (owner, self.clock.now + SECONDS)

    @rule(owner=st.sampled_from(OWNERS), number=st.integers(1, 3))
    def renew(self, owner: str, number: int) -> None:
        ours = not self.done[number] and self.held.get(number, ("", 0))[0] == owner
        assert self.leases.renew(number, owner, SECONDS) == ours
        if ours:
            self.held[number] = (owner, self.clock.now + SECONDS)

    @rule(owner=st.sampled_from(OWNERS), number=st.integers(1, 3))
    def finish(self, owner: str, number: int) -> None:
        ours = not self.done[number] and self.held.get(number, ("", 0))[0] == owner
        assert self.leases.finish(number, owner, {"by": owner}) == ours
        self.done[number] += ours

    @rule(owner=st.sampled_from(OWNERS))
    def give_back(self, owner: str) -> None:
        mine = [number for number, (who, _) in self.held.items() if who == owner and not self.done[number]]
        assert self.leases.give_back(owner) == len(mine)
        for number in mine:
            del self.held[number]

    @rule(seconds=st.sampled_from([1.0, 4.0, SECONDS]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def counted(self) -> None:
        standing = self.leases.standing()
        assert standing.done == sum(self.done.values()) == len(self.leases.reports())
        assert standing.starts == sum(self.starts.values())


Crowd.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestCrowd = Crowd.TestCase
