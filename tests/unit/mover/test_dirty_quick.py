"""The quick round: both sides are asked, and a key is called the same only where a full pass would do nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pytest
from memory_store import Call, MemoryStore

from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.dirty import DirtySet
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.quick import Carried, Difference, carry, quick_pass
from crossload.ledger.journal import Journal
from crossload.ports.changes import CREATED, Batch, Change
from crossload.ports.errors import AccessDenied, Invalid, Unavailable

OPTIONS = CopyOptions(part_size_bytes=64, workers=1, allow_mass_delete=True)


@pytest.fixture
def dirty(tmp_path: Path) -> Iterator[DirtySet]:
    with DirtySet(tmp_path / "quick.db") as made:
        yield made


@pytest.fixture
def moved(source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]) -> Journal:
    for number in range(300):
        source.put("docs", f"k{number:03d}", b"%d" % number)
    journal = open_journal("quick-journal.db")
    move_bucket(source, "docs", target, "docs", journal, OPTIONS)
    return journal


def copier(source: MemoryStore, target: MemoryStore, journal: Journal) -> Callable[[Sequence[Difference]], set[str]]:
    """The shortest honest copier: one write, conditional, with its digest in the journal."""

    def copy(wanted: Sequence[Difference]) -> set[str]:
        for one in wanted:
            entry = one.entry()
            data = source.read("docs", one.key, if_match=entry.source_etag)
            _, meta = source.head("docs", one.key)
            there = one.target.etag if one.target else ""
            info = target.write("docs", one.key, data, meta, if_absent=not there, if_match=there)
            digest = hashlib.sha256(data).hexdigest()
            journal.put(entry.with_(state="done", sha256=digest, target_etag=info.etag, trust="sent"))
        return {one.key for one in wanted}

    return copy


def hint(dirty: DirtySet, journal: Journal, *keys: str) -> None:
    dirty.record(Batch(tuple(Change(key, CREATED, 1.0) for key in keys)), journal, now=2.0)


def test_the_three_kinds_of_difference(
    source: MemoryStore, target: MemoryStore, moved: Journal, dirty: DirtySet
) -> None:
    source.put("docs", "k001", b"changed")
    source.put("docs", "new", b"new")
    source.drop("docs", "k002")
    target.flip("docs", "k003", 0)
    target.drop("docs", "k004")
    five = next(entry for entry in moved.entries() if entry.key == "k005")
    moved.put(five.with_(key="cut", state="sending", upload="u"))
    moved.put(five.with_(state="sending"))  # both sides look right, and nobody has confirmed it
    moved.barrier()
    hint(dirty, moved, "k000", "k001", "k002", "k003", "k004", "k005", "new", "cut", "never-was")
    found = quick_pass(source, "docs", target, "docs", moved, dirty.take())
    assert sorted(item.key for item in found.same) == ["k000", "never-was"]
    assert {one.key: one.kind for one in found.differ} == {
        "k001": "copy", "new": "copy", "k002": "remove", "k003": "copy", "k004": "copy", "k005": "copy", "cut": "leave",
    }  # fmt: skip
    assert found.failures == {}


def test_where_the_target_is_home_its_users_work_is_left_alone(
    source: MemoryStore, target: MemoryStore, moved: Journal, dirty: DirtySet
) -> None:
    source.drop("docs", "k002")
    target.flip("docs", "k003", 0)
    source.put("docs", "k001", b"changed")
    hint(dirty, moved, "k001", "k002", "k003")
    found = quick_pass(source, "docs", target, "docs", moved, dirty.take(), target_is_home=True)
    assert ([one.key for one in found.differ], len(found.same)) == (["k001"], 2)


def test_a_round_carries_and_the_next_full_pass_finds_nothing(
    source: MemoryStore, target: MemoryStore, moved: Journal, dirty: DirtySet
) -> None:
    source.put("docs", "k001", b"changed")
    source.put("docs", "new", b"new")
    source.drop("docs", "k002")
    hint(dirty, moved, "k000", "k001", "k002", "new")
    listings = sum(name == "list" for name, _ in [*source.log, *target.log])
    report = carry(source, "docs", target, "docs", moved, dirty, copier(source, target, moved))
    assert report == Carried(same=1, copied=2, removed=1)
    assert sum(name == "list" for name, _ in [*source.log, *target.log]) == listings, "nothing was listed"
    assert source.bytes_of("docs") == target.bytes_of("docs")
    assert dirty.keys() == []
    assert list(dirty.tombstones()) == ["k002"]
    assert move_bucket(source, "docs", target, "docs", moved, OPTIONS).empty


def test_many_removals_wait_for_a_full_pass_also_in_small_rounds(
    source: MemoryStore, target: MemoryStore, moved: Journal, dirty: DirtySet
) -> None:
    removed = 0
    for number in range(6):
        source.drop("docs", f"k{number:03d}")
        hint(dirty, moved, f"k{number:03d}")
        removed += carry(source, "docs", target, "docs", moved, dirty, copier(source, target, moved)).removed
    assert removed <= 3, "one percent of three hundred"
    assert len(dirty.keys()) == 6 - removed
    report = carry(source, "docs", target, "docs", moved, dirty, copier(source, target, moved), allow_mass_delete=True)
    assert (report.removed, dirty.keys()) == (6 - removed, [])


def test_users_work_at_the_target_is_not_removed(
    source: MemoryStore, target: MemoryStore, moved: Journal, dirty: DirtySet
) -> None:
    source.drop("docs", "k002")
    target.put("docs", "k002", b"users")
    hint(dirty, moved, "k002")
    report = carry(source, "docs", target, "docs", moved, dirty, copier(source, target, moved))
    assert "changed at the target" in report.waiting["k002"]
    assert target.bytes_of("docs")["k002"] == b"users"
    assert dirty.keys() == ["k002"]


def test_one_key_that_cannot_be_asked_stays_dirty_and_stops_nobody(
    source: MemoryStore, target: MemoryStore, moved: Journal, dirty: DirtySet
) -> None:
    def hook(call: Call) -> None:
        if call.name == "head" and call.key == "k001":
            raise Invalid("this store cannot hold that key")

    target.hook = hook
    source.put("docs", "k002", b"changed")
    hint(dirty, moved, "k001", "k002")
    report = carry(source, "docs", target, "docs", moved, dirty, copier(source, target, moved))
    assert (report.copied, report.waiting) == (1, {"k001": "this store cannot hold that key"})
    assert dirty.keys() == ["k001"]


@pytest.mark.parametrize("error", [Unavailable("down"), AccessDenied("no")])
def test_a_store_that_is_down_or_closed_leaves_everything_dirty(
    source: MemoryStore, target: MemoryStore, moved: Journal, dirty: DirtySet, error: Exception
) -> None:
    def hook(call: Call) -> None:
        if call.name == "head":
            raise error

    source.hook = hook
    hint(dirty, moved, "k001", "k002")
    with pytest.raises(type(error)):
        carry(source, "docs", target, "docs", moved, dirty, copier(source, target, moved))
    source.hook = lambda _: None
    assert [item.first_at for item in dirty.take()] == [1.0, 1.0]


def test_a_copier_that_fails_leaves_its_keys_dirty_and_cleans_the_others(
    source: MemoryStore, target: MemoryStore, moved: Journal, dirty: DirtySet
) -> None:
    def broken(wanted: Sequence[Difference]) -> Collection[str]:
        raise Unavailable("no way")

    source.put("docs", "k001", b"changed")
    hint(dirty, moved, "k000", "k001")
    with pytest.raises(Unavailable):
        carry(source, "docs", target, "docs", moved, dirty, broken)
    assert dirty.keys() == ["k001"]
