"""Hints become dirty keys, dirty keys become clean only by a look or a full pass, and the lag tells the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crossload.engines.mover.dirty import TOMBSTONE_SECONDS, DirtySet, Heard, listen, relist_period_seconds
from crossload.ledger.journal import Entry, Journal
from crossload.ports.changes import CREATED, REMOVED, Batch, Change

T = 1_000_000.0


@pytest.fixture
def journal(open_journal: Callable[..., Journal]) -> Journal:
    return open_journal("dirty-journal.db")


@pytest.fixture
def dirty(tmp_path: Path) -> Iterator[DirtySet]:
    with DirtySet(tmp_path / "dirty.db") as made:
        yield made


def batch(*changes: Change, cursor: str = "") -> Batch:
    return Batch(changes, ("r",), cursor)


def made(key: str, at: float | None = T, **more: object) -> Change:
    return Change(key, CREATED, at, **more)  # pyright: ignore[reportArgumentType]


def test_many_events_are_one_dirty_key_as_old_as_the_first(dirty: DirtySet, journal: Journal) -> None:
    events = [made("a", T + 5, size_bytes=7, sequence="2"), made("a", T + 1, size_bytes=3, sequence="1"), made("b")]
    assert dirty.record(batch(*events), journal, now=T + 9) == Heard(3, 0, 0)
    assert dirty.keys() == ["a", "b"]
    taken = {item.key: item for item in dirty.take()}
    assert (taken["a"].first_at, taken["a"].size_bytes) == (T + 1, 7)  # the later sequence's size, the older time


def test_lag_is_unknown_until_somebody_told_anything(dirty: DirtySet, journal: Journal) -> None:
    assert (dirty.lag(T).seconds, dirty.lag(T).size_bytes, dirty.lag(T).as_of) == (None, None, None)
    assert dirty.lag(T).to_json()["lag_seconds"] == "unknown"
    dirty.record(batch(), journal, now=T)
    assert (dirty.lag(T).seconds, dirty.lag(T).size_bytes, dirty.lag(T).as_of) == (0.0, 0, T)


def test_lag_counts_from_the_oldest_unconfirmed_change(dirty: DirtySet, journal: Journal) -> None:
    dirty.record(batch(made("a", T, size_bytes=10), made("b", T + 30, size_bytes=5)), journal, now=T + 40)
    assert (dirty.lag(T + 50).seconds, dirty.lag(T + 50).size_bytes) == (50.0, 15)
    (a,) = dirty.take(1)
    assert a.key == "a"
    assert dirty.lag(T + 50).seconds == 50.0, "taken is not confirmed"
    assert dirty.clean([a]) == 1
    assert (dirty.lag(T + 50).seconds, dirty.lag(T + 50).size_bytes) == (20.0, 5)


def test_a_size_nobody_told_makes_the_sum_unknown_until_it_is_weighed(dirty: DirtySet, journal: Journal) -> None:
    dirty.record(batch(made("a", size_bytes=10), made("b")), journal, now=T)
    assert (dirty.lag(T).size_bytes, dirty.lag(T).sized_bytes) == (None, 10)
    dirty.weigh([("b", 4)])
    assert dirty.lag(T).size_bytes == 14


def test_a_change_without_a_time_and_one_from_the_future_count_from_now(dirty: DirtySet, journal: Journal) -> None:
    dirty.record(batch(made("a", None), made("b", T + 500)), journal, now=T)
    assert dirty.lag(T + 5).seconds == 5.0
    assert [item.first_at for item in dirty.take()] == [T, T]


def test_a_hint_that_comes_while_a_key_is_carried_keeps_it_dirty(dirty: DirtySet, journal: Journal) -> None:
    dirty.record(batch(made("a", T)), journal, now=T)
    (a,) = dirty.take()
    dirty.record(batch(made("a", T + 60)), journal, now=T + 61)
    assert dirty.take() == [], "it is somebody's already"
    assert dirty.clean([a]) == 0
    (again,) = dirty.take()
    assert (again.key, again.first_at) == ("a", T + 60)  # what happened before was carried


def test_released_keys_keep_their_age(dirty: DirtySet, journal: Journal) -> None:
    dirty.record(batch(made("a", T)), journal, now=T)
    taken = dirty.take()
    dirty.record(batch(made("a", T + 60)), journal, now=T + 61)
    dirty.release(taken)
    assert [item.first_at for item in dirty.take()] == [T]


def test_taken_keys_are_free_again_after_a_kill(tmp_path: Path, journal: Journal) -> None:
    first = DirtySet(tmp_path / "killed.db")
    first.record(batch(made("a", T), cursor="c1"), journal, now=T)
    first.take()
    first.record(batch(made("a", T + 60)), journal, now=T + 61)
    second = DirtySet(tmp_path / "killed.db")  # the first one never closed
    assert ([item.first_at for item in second.take()], second.cursor) == ([T], "c1")
    first.close()
    second.close()


# -- echoes


DONE = Entry("a", 1, "s1", "done", sha256="x" * 64, target_etag="t1")


@pytest.mark.parametrize(
    "side, etag, echo", [("source", "s1", True), ("target", "t1", True), ("source", "t1", False), ("target", "", False)]
)
def test_a_change_that_the_journal_knows_is_dropped(
    dirty: DirtySet, journal: Journal, side: str, etag: str, echo: bool
) -> None:
    journal.put(DONE)
    journal.barrier()
    heard = dirty.record(batch(made("a", etag=etag)), journal, side, now=T)
    assert heard == (Heard(0, 1) if echo else Heard(1, 0))


def test_an_echo_does_not_hide_what_else_happened_to_the_key(dirty: DirtySet, journal: Journal) -> None:
    journal.put(DONE)
    journal.barrier()
    dirty.record(batch(made("a", etag="users")), journal, "target", now=T)
    (a,) = dirty.take()
    assert dirty.record(batch(made("a", etag="t1")), journal, "target", now=T) == Heard(1, 0)
    assert dirty.clean([a]) == 0, "the order of the two is not known, so the key is looked at again"


def test_our_own_removal_is_an_echo_and_another_is_not(dirty: DirtySet, journal: Journal) -> None:
    journal.put(DONE)
    journal.put(DONE.with_(key="b", state="gone"))
    journal.barrier()
    gone = batch(Change("a", REMOVED, T), Change("b", REMOVED, T))
    assert dirty.record(gone, journal, now=T) == Heard(1, 1)
    assert dirty.keys() == ["a"]


def test_what_we_keep_beside_the_objects_is_nobodys_data(dirty: DirtySet, journal: Journal) -> None:
    assert dirty.record(batch(made(".crossload/uploads/1")), journal, now=T) == Heard(0, 0)
    assert dirty.keys() == []


# -- full passes


def test_a_full_pass_cleans_what_was_heard_before_it_listed(dirty: DirtySet, journal: Journal) -> None:
    dirty.record(batch(made("a", T), made("b", T), made("hot", T)), journal, now=T)
    mark = dirty.mark()
    dirty.record(batch(made("b", T + 30), made("c", T + 31), made("hot", T + 32)), journal, now=T + 32)
    dirty.settle(mark, T + 1, 2.0, unless=["hot"])
    assert {item.key: item.first_at for item in dirty.take()} == {"b": T + 30, "c": T + 31, "hot": T}


def test_a_full_pass_with_failures_cleans_nothing(dirty: DirtySet, journal: Journal) -> None:
    dirty.record(batch(made("a", T)), journal, now=T)
    dirty.settle(dirty.mark(), T + 1, 2.0, complete=False)
    assert [item.first_at for item in dirty.take()] == [T]


@pytest.mark.parametrize("list_seconds, period", [(None, 60), (0.5, 60), (30, 60), (31, 62), (4000, 8000)])
def test_the_period_is_a_minute_or_twice_a_listing(list_seconds: float | None, period: float) -> None:
    assert relist_period_seconds(list_seconds) == period


def test_a_full_pass_is_due_at_first_and_then_after_its_period(dirty: DirtySet) -> None:
    assert dirty.relist_in_seconds(T) == 0.0
    dirty.settle(dirty.mark(), T, 100.0)
    assert dirty.relist_in_seconds(T + 50) == 150.0
    assert dirty.relist_in_seconds(T + 200) == 0.0
    assert dirty.relist_in_seconds(T - 9999) == 0.0, "a clock that was set back"


def test_tombstones_are_counted_since_the_last_pass_and_kept_thirty_days(dirty: DirtySet) -> None:
    dirty.bury("old", "e0", T - TOMBSTONE_SECONDS - 20)
    dirty.bury("a", "e1", T - 10)
    dirty.settle(dirty.mark(), T, 1.0)
    dirty.bury("b", "e2", T + 10)
    assert dirty.tombstones() == {"a": (T - 10, "e1"), "b": (T + 10, "e2")}
    assert dirty.buried_since_pass() == 1


# -- the order of writing down and acknowledging


class Stream:
    def __init__(self, log: list[str], dirty: DirtySet) -> None:
        self.log, self.dirty = log, dirty

    def poll(self, wait_seconds: float) -> Batch:
        self.log.append("polled")
        return Batch((made("a"),), ("r1",), "c9", unread=2)

    def acknowledge(self, batch: Batch) -> None:
        self.log.append(f"acknowledged {batch.receipts} with {self.dirty.keys()} at {self.dirty.cursor}")


def test_a_hint_is_on_disk_before_it_is_acknowledged(dirty: DirtySet, journal: Journal) -> None:
    log: list[str] = []
    assert listen(Stream(log, dirty), dirty, journal, 0) == Heard(1, 0, 2)
    assert log == ["polled", "acknowledged ('r1',) with ['a'] at c9"]


def test_a_hint_that_could_not_be_written_is_not_acknowledged(tmp_path: Path, journal: Journal) -> None:
    log: list[str] = []
    closed = DirtySet(tmp_path / "closed.db")
    closed.close()
    with pytest.raises(Exception, match="closed"):
        listen(Stream(log, closed), closed, journal, 0)
    assert log == ["polled"]
