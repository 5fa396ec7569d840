"""Shards: how a pass is cut, what one is told, and what a second start of one does not do again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import Call, MemoryStore

from crossload.engines.mover.bucket import PassReport
from crossload.engines.mover.calendar import Calendar
from crossload.engines.mover.carrying import Beating, Ends, Lost, Progress, ShardReport, carry_shard
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.shards import cut
from crossload.engines.mover.spool import entries_in, entries_out, left_to_do, todo_in, todo_out
from crossload.estate.digest import Digest
from crossload.estate.migration import DataRules, Window
from crossload.ledger.comparison import Comparison, Settled, Todo
from crossload.ledger.journal import Entry, Journal
from crossload.ports import errors
from crossload.ports.fleet import error_of
from crossload.ports.store import ObjectInfo, ObjectMeta

OPTIONS = CopyOptions(part_size_bytes=16, workers=2)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=60),
    st.integers(1, 7),
    st.integers(1, 100),
)
def test_every_object_is_in_one_shard_and_no_shard_is_too_large(
    objects: list[tuple[int, bool]], objects_max: int, bytes_max: int
) -> None:
    sizes = [(number, size, done) for number, (size, done) in enumerate(objects, 1)]
    made = list(cut(iter(sizes), objects_max, bytes_max))
    shards = [shard for shard, _ in made]
    covered = [number for shard in shards for number in range(shard.first, shard.last + 1)]
    assert covered == [number for number, _, _ in sizes]
    assert [shard.number for shard in shards] == list(range(1, len(shards) + 1))
    for shard in shards:
        inside = [size for number, size, _ in sizes if shard.first <= number <= shard.last]
        assert (shard.objects, shard.size_bytes) == (len(inside), sum(inside))
        assert shard.objects <= objects_max and (shard.size_bytes <= bytes_max or shard.objects == 1)
    assert list(itertools.chain(*(again for _, again in made))) == [number for number, _, done in sizes if done]


def fill(store: MemoryStore, count: int, size_bytes: int = 5) -> None:
    for number in range(count):
        store.write("docs", f"k{number:03d}", bytes([number % 256]) * size_bytes, ObjectMeta())


def settled(journal: Journal, source: MemoryStore, target: MemoryStore) -> Comparison:
    comparison = Comparison(journal)
    comparison.source(source.list("docs"))
    comparison.target(target.list("docs"))
    comparison.settle(home=False)
    return comparison


def test_a_settled_comparison_is_read_past_its_lock(
    source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    """Whoever settled it still has it open, and locked; what the journal hears later is seen."""
    fill(source, 5)
    journal = open_journal()
    with settled(journal, source, target) as comparison, Settled(journal.path) as listing:
        assert list(listing.sizes()) == [(number, 5, False) for number in range(1, 6)]
        expected = [todo for _, todo in comparison.todo(0)]
        found = listing.between(2, 4)
        assert [(number, done) for number, _, done in found] == [(2, False), (3, False), (4, False)]
        assert [todo for _, todo, _ in found] == expected[1:4]
        one = found[0][1].entry
        journal.put(one.with_(state="done", sha256="0" * 64))
        journal.put(found[1][1].entry.with_(state="done", sha256="0" * 64, source_etag="another"))
        journal.barrier()
        assert [done for _, _, done in listing.between(2, 4)] == [True, False, False]


def todos(source: MemoryStore) -> list[Todo]:
    return [
        Todo(Entry(info.key, info.size_bytes, info.etag, modified_at=info.modified_at), None, False)
        for info in source.list("docs")
    ]


def test_a_shard_is_carried_and_counted(
    source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    fill(source, 6)
    source.write("docs", "large", b"x" * 50, ObjectMeta())
    journal, progress = open_journal(), Progress()
    rows = todos(source)
    report = carry_shard(Ends(source, "docs", target, "docs"), rows, journal, OPTIONS, progress, known=3)
    assert (report.copied, report.known, report.sent_bytes) == (7, 3, 80)
    assert (progress.moved, progress.sent_bytes) == (10, 80)
    assert journal.totals() == {"done": (7, 80)}, "what is reported is on disk"
    whole = PassReport()
    ShardReport.from_json(report.to_json()).add_to(whole)
    assert (whole.copied, whole.recognised, whole.sent_bytes) == (7, 3, 80)


def test_a_shard_that_is_lost_writes_nothing_more(
    source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    """An object that was just read is not written, and none is put down as failed."""
    fill(source, 6)
    progress = Progress()
    progress.end(Lost())
    journal = open_journal()
    with pytest.raises(Lost):
        carry_shard(Ends(source, "docs", target, "docs"), todos(source), journal, OPTIONS, progress)
    assert list(target.list("docs")) == []


def test_what_ends_the_beating_ends_the_shard(
    source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]
) -> None:
    fill(source, 40)
    met = threading.Event()

    def slow(call: Call) -> None:
        if call.when == "after" and call.name == "write":
            met.wait(5)

    def beat(_: Progress) -> None:
        met.set()
        raise errors.AccessDenied("the table is not ours")

    target.hook = slow
    progress = Progress()
    with pytest.raises(errors.AccessDenied, match="not ours"), Beating(0.05, beat, progress):
        carry_shard(Ends(source, "docs", target, "docs"), todos(source), open_journal(), OPTIONS, progress)
    assert len(list(target.list("docs"))) < 40


def test_what_travels_comes_back_as_it_was() -> None:
    there = ObjectInfo("käse/\U0001f9c0", 3, "e", "", 1.5, (Digest("crc32c", "0a0b0c0d"),))
    entry = Entry("käse/\U0001f9c0", 3, '"etag"', "sending", "upload", modified_at=2.25)
    rows = [Todo(entry, there, True), Todo(entry.with_(upload=""), None, False)]
    assert todo_in(todo_out(rows)) == rows
    assert entries_in(entries_out([entry])) == [entry]


def test_a_second_start_leaves_out_what_is_done_and_goes_on_with_uploads() -> None:
    done, open_, changed, new = (Todo(Entry(key, 3, "e1"), None, False) for key in "abcd")
    before = {
        "a": done.entry.with_(state="done", sha256="0" * 64),
        "b": open_.entry.with_(state="sending", upload="u1"),
        "c": changed.entry.with_(state="done", sha256="0" * 64, source_etag="e0"),
    }
    left = left_to_do([done, open_, changed, new], before)
    assert left == [replace(open_, entry=before["b"], interrupted=True), changed, new]


def test_a_ceiling_is_shared_and_never_exceeded() -> None:
    window = Window.model_validate({"from": "01:00", "to": "02:00", "mib_per_second": 2})
    rules = DataRules(bandwidth_mib_per_second=8, windows=[window])
    whole = Calendar.from_rules(rules)
    part = whole.share(4)
    for at in (0.0, 3600.0 * 1.5):
        rate, mine = whole.rate_at(at), part.rate_at(at)
        assert rate is not None and mine is not None and mine * 4 == rate
    assert Calendar().share(3).unlimited
    stopped = Calendar.from_rules(rules.model_copy(update={"outside": "stop"})).share(2)
    assert stopped.rate_at(0.0) == 0.0


def test_errors_of_other_processes_keep_their_kind(tmp_path: Path) -> None:
    for error in (errors.AccessDenied("a", hint="h"), errors.Unavailable("b"), errors.Refused("c")):
        again = error_of(error.code, str(error), error.hint)
        assert type(again) is type(error)
        assert (str(again), again.hint, again.retryable) == (str(error), error.hint, error.retryable)
    strange = error_of("ledger", "the disk is full", "free some")
    assert (strange.code, str(strange)) == ("ledger", "the disk is full")
