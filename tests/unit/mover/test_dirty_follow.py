"""The whole way on two folders: a stream is followed, quick rounds carry it, full passes come when they are due.

This is the loop that docs/changes.md shows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossload.engines.mover.dirty import DirtySet, listen
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.quick import bucket_copier, carry, full_round
from crossload.estate.place import Place
from crossload.ledger.journal import Journal
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta
from crossload.providers.local.changes import open_changes
from crossload.providers.local.store import LocalStore, open_store

OPTIONS = CopyOptions(part_size_bytes=1024, workers=2, allow_mass_delete=True)


def settings_for(root: Path) -> Settings:
    root.mkdir(exist_ok=True)
    connection = {"root": str(root)}
    return Settings(Place(root.name, "local", "here", "DE", connection), connection, {})


def contents(store: LocalStore) -> dict[str, str]:
    return {info.key: info.etag for info in store.list("docs")}


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[LocalStore, LocalStore, Journal, DirtySet]]:
    source, target = (open_store(settings_for(tmp_path / name)) for name in ("a", "b"))
    for store in (source, target):
        store.ensure_bucket("docs")
    with Journal(tmp_path / "journal.db") as journal, DirtySet(tmp_path / "dirty.db") as dirty:
        yield source, target, journal, dirty


def test_a_stream_is_followed(sides: tuple[LocalStore, LocalStore, Journal, DirtySet], tmp_path: Path) -> None:
    source, target, journal, dirty = sides
    luck = random.Random(3)
    meta = ObjectMeta(content_type="text/plain")
    for number in range(20):
        source.write("docs", f"k{number}", luck.randbytes(100), meta)
    changes = open_changes(settings_for(tmp_path / "a"))
    token = changes.ensure("docs", owner="m")
    stream = changes.follow("docs", token=token, cursor=dirty.cursor)
    copy = bucket_copier(source, "docs", target, "docs", journal, OPTIONS)
    full = quick = 0
    for step in range(12):
        if dirty.relist_in_seconds() == 0:
            full += 1
            full_round(source, "docs", target, "docs", journal, dirty, OPTIONS)
        if step in (4, 8):  # a large one goes in parts
            source.write("docs", f"k{luck.randrange(25)}", luck.randbytes(5000), meta)
        source.write("docs", f"k{luck.randrange(25)}", luck.randbytes(100), meta)
        source.delete("docs", f"k{luck.randrange(25)}")
        listen(stream, dirty, journal, 0)
        report = carry(source, "docs", target, "docs", journal, dirty, copy, allow_mass_delete=True)
        quick += report.copied + report.removed
        assert report.waiting == {}
        assert contents(source) == contents(target), step
        assert (dirty.lag().seconds, dirty.lag().size_bytes) == (0.0, 0)
    assert (full, quick >= 12) == (1, True), "one full pass at the beginning, the next is due in a minute"
    assert full_round(source, "docs", target, "docs", journal, dirty, OPTIONS).empty
    changes.remove(token)


def test_what_the_stream_did_not_tell_the_full_pass_finds(
    sides: tuple[LocalStore, LocalStore, Journal, DirtySet], tmp_path: Path
) -> None:
    source, target, journal, dirty = sides
    source.write("docs", "told", b"1", ObjectMeta())
    full_round(source, "docs", target, "docs", journal, dirty, OPTIONS)
    source.write("docs", "untold", b"2", ObjectMeta())  # nobody follows
    source.delete("docs", "told")
    assert dirty.lag().keys == 0
    report = full_round(source, "docs", target, "docs", journal, dirty, OPTIONS)
    assert (report.copied, report.removed) == (1, 1)
    assert contents(source) == contents(target)
    assert 59 < dirty.relist_in_seconds() <= 60


def test_a_full_pass_that_fails_in_part_leaves_the_hints(
    sides: tuple[LocalStore, LocalStore, Journal, DirtySet], tmp_path: Path
) -> None:
    source, target, journal, dirty = sides
    source.write("docs", "a/b", b"1", ObjectMeta())
    target.write("docs", "a", b"a file where a folder must be", ObjectMeta())
    stream = open_changes(settings_for(tmp_path / "a")).follow("docs", cursor="1")
    listen(stream, dirty, journal, 0)
    assert full_round(source, "docs", target, "docs", journal, dirty, OPTIONS).failures
    assert dirty.keys() == ["a/b"]
    assert dirty.relist_in_seconds() > 0
