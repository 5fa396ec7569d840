"""The source does not hold still: whatever moment it changes at, the target never holds a mixture."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from memory_store import FEATURES, Call, MemoryStore

from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.options import CopyOptions
from crossload.ledger import journal as journal_module
from crossload.ledger.journal import Journal

PART = 16
OPTIONS = CopyOptions(part_size_bytes=PART, workers=1)
OLD, NEW, SHORT = b"o" * (PART * 3 + 1), b"n" * (PART * 3 + 1), b"s" * 5

Make = Callable[[], Journal]


@pytest.fixture
def fresh_journal(open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(journal_module, "_GROUP_SECONDS", 0.0005)
    numbers = itertools.count()
    return lambda: open_journal(f"{next(numbers)}.db")


def stores(*, conditional_read: bool) -> tuple[MemoryStore, MemoryStore]:
    source, target = MemoryStore("a", replace(FEATURES, conditional_read=conditional_read)), MemoryStore("b")
    for store in (source, target):
        store.ensure_bucket("docs")
    return source, target


class Down(Exception):
    pass


def down_before_complete(call: Call) -> None:
    if call.name == "complete" and call.when == "before":
        raise Down


@pytest.mark.parametrize("conditional_read", [True, False])
@pytest.mark.parametrize("replacement", [NEW, SHORT, None], ids=["same-size", "shorter", "removed"])
@pytest.mark.parametrize("before", [b"x" * 3, OLD], ids=["whole", "parts"])
def test_never_a_torn_mix(
    fresh_journal: Make, before: bytes, replacement: bytes | None, conditional_read: bool
) -> None:
    """The object changes right before the n-th call of either store, for every n there is."""
    number = 0
    while True:
        number += 1
        source, target = stores(conditional_read=conditional_read)
        source.put("docs", "moving", before)
        seen = 0

        def change(call: Call, at: int = number, source: MemoryStore = source) -> None:
            nonlocal seen
            seen += call.when == "before"
            if seen == at and call.when == "before":
                seen += 10_000
                if replacement is None:
                    source.drop("docs", "moving")
                else:
                    source.put("docs", "moving", replacement)

        source.hook = target.hook = change
        journal = fresh_journal()
        report = move_bucket(source, "docs", target, "docs", journal, OPTIONS)
        assert report.failures == []
        held = target.bytes_of("docs").get("moving")
        assert held in (before, replacement, None), f"torn at call {number}: {held!r}"
        for entry in journal.entries("done"):
            assert entry.size_bytes == len(held or b"")
        assert not target.uploads
        source.hook = target.hook = lambda _: None
        again = move_bucket(source, "docs", target, "docs", journal, OPTIONS)
        assert target.bytes_of("docs") == source.bytes_of("docs"), number
        assert not again.hot
        assert move_bucket(source, "docs", target, "docs", journal, OPTIONS).empty
        if seen < 10_000:
            break
    assert number > 4


def test_an_object_that_changes_faster_than_it_copies_is_said_to_be_hot(fresh_journal: Make) -> None:
    source, target = stores(conditional_read=True)
    source.put("docs", "log", OLD)
    source.put("docs", "calm", b"calm")
    versions = iter(range(10_000))

    def write_on(call: Call) -> None:
        if call.name == "read" and call.key == "log" and call.when == "before":
            source.put("docs", "log", OLD + b"%d" % next(versions))

    source.hook = write_on
    journal = fresh_journal()
    report = move_bucket(source, "docs", target, "docs", journal, OPTIONS)
    assert report.hot == ["log"]
    assert report.changed_during_copy == 3
    assert target.bytes_of("docs") == {"calm": b"calm"}
    assert not target.uploads
    source.hook = lambda _: None
    assert move_bucket(source, "docs", target, "docs", journal, OPTIONS).copied == 1
    assert target.bytes_of("docs") == source.bytes_of("docs")
    entry = journal.get("log")
    assert entry is not None
    assert entry.changed_during_copy == 3


def test_parts_of_an_older_object_are_not_gone_on_with(fresh_journal: Make) -> None:
    """An upload that was cut short holds parts of what the object was then."""
    source, target = stores(conditional_read=True)
    source.put("docs", "moving", OLD)
    journal = fresh_journal()

    def down(call: Call) -> None:
        if call.name == "write_part" and [name for name, _ in target.log].count("write_part") == 3:
            raise Down

    target.hook = down
    with pytest.raises(Down):
        move_bucket(source, "docs", target, "docs", journal, OPTIONS)
    assert [len(upload.parts) for upload in target.uploads.values()] == [2]
    target.hook = lambda _: None
    source.put("docs", "moving", NEW)
    move_bucket(source, "docs", target, "docs", journal, OPTIONS)
    assert target.bytes_of("docs") == {"moving": NEW}
    assert not target.uploads


def test_another_part_size_does_not_spoil_a_resumed_upload(fresh_journal: Make) -> None:
    source, target = stores(conditional_read=True)
    source.put("docs", "moving", bytes(range(PART * 3 + 1)))
    journal = fresh_journal()

    target.hook = down_before_complete
    with pytest.raises(Down):
        move_bucket(source, "docs", target, "docs", journal, OPTIONS)
    target.hook = lambda _: None
    move_bucket(source, "docs", target, "docs", journal, replace(OPTIONS, part_size_bytes=PART - 3))
    assert target.bytes_of("docs") == source.bytes_of("docs")


def test_a_larger_part_size_drops_the_open_upload(fresh_journal: Make) -> None:
    """The object fits into one request now: the upload in parts is aborted, not forgotten."""
    source, target = stores(conditional_read=True)
    source.put("docs", "moving", OLD)
    journal = fresh_journal()

    target.hook = down_before_complete
    with pytest.raises(Down):
        move_bucket(source, "docs", target, "docs", journal, OPTIONS)
    assert len(target.uploads) == 1
    target.hook = lambda _: None
    move_bucket(source, "docs", target, "docs", journal, replace(OPTIONS, part_size_bytes=1000))
    assert target.bytes_of("docs") == {"moving": OLD}
    assert not target.uploads
