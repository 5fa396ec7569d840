"""A store that waits for a store, and the mover on top of it: answers get lost, servers go away and come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from memory_store import FEATURES, Call, MemoryStore

from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.options import CopyOptions
from crossload.ledger.journal import Journal
from crossload.ports import retrying
from crossload.ports.errors import AccessDenied, NotFound, PreconditionFailed, Throttled, Unavailable
from crossload.ports.retrying import RetryingStore, RetryPolicy
from crossload.ports.store import ObjectMeta, Store

META = ObjectMeta("text/plain")
POLICY = RetryPolicy(base_seconds=0.1, delay_seconds_max=2.0, give_up_seconds=60.0)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(retrying, "time", made)
    return made


def patient(store: MemoryStore, said: list[str] | None = None, policy: RetryPolicy = POLICY) -> RetryingStore:
    return RetryingStore(store, policy, (said if said is not None else []).append)


def failing(times: int, error: Exception, *names: str, when: str = "before") -> Callable[[Call], None]:
    left = times

    def hook(call: Call) -> None:
        nonlocal left
        if left and call.when == when and (not names or call.name in names):
            left -= 1
            raise error

    return hook


def test_transient_errors_are_waited_out(target: MemoryStore, clock: Clock) -> None:
    target.put("docs", "k", b"data")
    target.hook = failing(5, Unavailable("503"))
    said: list[str] = []
    assert patient(target, said).read("docs", "k") == b"data"
    assert len(clock.slept) == 5
    for attempt, delay in enumerate(clock.slept):
        assert 0 <= delay <= min(2.0, 0.1 * 2**attempt)
    assert said == ["waiting for a store to come back: 503"]


def test_delays_differ_from_client_to_client(target: MemoryStore, clock: Clock) -> None:
    """Full jitter: a thousand workers must not come back in the same millisecond."""
    target.hook = failing(40, Unavailable("503"))
    patient(target).buckets()
    assert len({round(delay, 4) for delay in clock.slept[10:]}) > 20


def test_retry_after_is_a_lower_bound(target: MemoryStore, clock: Clock) -> None:
    target.hook = failing(3, Throttled("slow down", retry_after_seconds=7.5))
    patient(target).buckets()
    assert len(clock.slept) == 3
    assert all(delay >= 7.5 for delay in clock.slept)


def test_it_gives_up_in_the_end_with_the_servers_own_error(target: MemoryStore, clock: Clock) -> None:
    target.hook = failing(10**9, Unavailable("gone for good"))
    began = clock.now
    with pytest.raises(Unavailable, match="gone for good"):
        patient(target).buckets()
    assert 60.0 <= clock.now - began <= 60.0 + 2.0 + 0.1


@pytest.mark.parametrize("error", [AccessDenied("no"), NotFound("no"), PreconditionFailed("no")])
def test_final_errors_are_not_repeated(target: MemoryStore, clock: Clock, error: Exception) -> None:
    target.hook = failing(1, error)
    with pytest.raises(type(error)):
        patient(target).buckets()
    assert clock.slept == []


def test_a_programming_error_is_not_repeated(target: MemoryStore, clock: Clock) -> None:
    target.hook = failing(1, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        patient(target).buckets()
    assert clock.slept == []


def test_a_listing_that_breaks_off_gives_every_object_once(target: MemoryStore, clock: Clock) -> None:
    for number in range(20):
        target.put("docs", f"{number:02d}", b"x")
    broken = iter([3, 7, 15])
    at = next(broken)

    def hook(call: Call) -> None:
        nonlocal at
        if call.name == "list-item" and call.when == "before" and call.key == f"{19 - at:02d}":
            at = next(broken, 10**9)
            raise Unavailable("connection reset")

    target.hook = hook
    keys = [info.key for info in patient(target).list("docs")]
    assert sorted(keys) == [f"{number:02d}" for number in range(20)]
    assert len(clock.slept) == 3


def test_a_long_listing_is_not_given_up_for_its_length(target: MemoryStore, clock: Clock) -> None:
    """Listing a large bucket takes hours; one lost connection in it is no reason to stop."""
    for number in range(10):
        target.put("docs", f"{number}", b"x")
    failed: set[str] = set()

    def hook(call: Call) -> None:
        if call.name == "list-item" and call.when == "before":
            if call.key not in failed and int(call.key) % 3 == 0:
                failed.add(call.key)
                raise Unavailable("connection reset")
            clock.now += 30.0

    target.hook = hook
    assert len(list(patient(target).list("docs"))) == 10
    assert len(failed) == 4


def test_a_listing_gives_up_when_nothing_comes_any_more(target: MemoryStore, clock: Clock) -> None:
    target.hook = failing(10**9, Unavailable("down"), "list")
    with pytest.raises(Unavailable):
        list(patient(target).list("docs"))
    assert clock.slept


def test_every_call_of_the_port_goes_through_and_is_repeated(clock: Clock) -> None:
    """A new member of the port that the wrapper forgets would lose its retries in silence."""
    members = {name for name, value in vars(Store).items() if callable(value) and not name.startswith("_")}
    assert members <= {name for name in vars(RetryingStore) if not name.startswith("_")}
    inner = MemoryStore()
    store = patient(inner)
    assert (store.place, store.features) == (inner.place, inner.features)


@pytest.mark.parametrize("size", [9, 200])
@pytest.mark.parametrize("returned", [frozenset({"crc64nvme"}), frozenset()], ids=["digests", "silent"])
@pytest.mark.parametrize("conditional", [True, False], ids=["create", "replace"])
def test_a_write_whose_answer_was_lost_is_recognised_as_ours(
    source: MemoryStore,
    clock: Clock,
    open_journal: Callable[..., Journal],
    size: int,
    returned: frozenset[str],
    conditional: bool,
) -> None:
    """The repeat of a conditional write meets the object that the first attempt made: ours, not a stranger's."""
    target = MemoryStore("b", replace(FEATURES, digests_returned=returned))
    target.ensure_bucket("docs")
    journal = open_journal()
    options = CopyOptions(part_size_bytes=64, workers=1)
    source.put("docs", "k", b"1" * size)
    if not conditional:
        move_bucket(source, "docs", patient(target), "docs", journal, options)
        source.put("docs", "k", b"2" * size)
    target.hook = failing(1, Unavailable("connection reset"), "write", "complete", when="after")
    report = move_bucket(source, "docs", patient(target), "docs", journal, options)
    assert report.failures == []
    assert target.bytes_of("docs") == source.bytes_of("docs")
    assert len(clock.slept) == 1
    assert not target.uploads


def test_a_store_that_is_down_for_a_while_costs_time_and_nothing_else(
    source: MemoryStore, target: MemoryStore, clock: Clock, open_journal: Callable[..., Journal]
) -> None:
    for number in range(6):
        source.put("docs", f"{number}", bytes([number]) * 100)
    until = 0.0

    def hook(call: Call) -> None:
        nonlocal until
        if call.name in ("write", "write_part") and call.key == "3" and not until:
            until = clock.now + 20.0
        if clock.now < until:
            raise Unavailable("connection refused")

    target.hook = hook
    journal = open_journal()
    report = move_bucket(source, "docs", patient(target), "docs", journal, CopyOptions(part_size_bytes=64, workers=1))
    assert report.failures == []
    assert target.bytes_of("docs") == source.bytes_of("docs")
    assert sum(clock.slept) >= 20.0
