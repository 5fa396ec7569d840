"""LocalChanges over a folder of its own, and what only a folder can do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crossload.conformance.changes import CASES, Case, ChangesBench
from crossload.estate.place import Place
from crossload.ports.changes import CREATED
from crossload.ports.errors import Invalid, NotFound
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta
from crossload.providers.local.changes import open_changes
from crossload.providers.local.store import open_store


def settings_for(root: Path) -> Settings:
    connection = {"root": str(root)}
    return Settings(Place("disk", "local", "here", "DE", connection), connection, {})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChangesBench]:
    settings = settings_for(tmp_path_factory.mktemp("local-changes"))
    made = ChangesBench(open=lambda: open_changes(settings), store=lambda: open_store(settings), tells_etags=False)
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_local_changes(case: Case[ChangesBench], bench: ChangesBench, keeps: Callable[..., None]) -> None:
    keeps(case, bench, {})


def test_a_file_moved_in_with_its_old_date_is_heard(tmp_path: Path) -> None:
    """What a look at dates of modification would miss."""
    settings = settings_for(tmp_path)
    open_store(settings).ensure_bucket("docs")
    old = tmp_path / "old.txt"
    old.write_bytes(b"x")
    os.utime(old, (1, 1))
    stream = open_changes(settings).follow("docs")
    old.rename(tmp_path / "docs" / "old.txt")
    assert [(change.key, change.kind) for change in stream.poll(0).changes] == [("old.txt", CREATED)]


def test_after_a_restart_the_cursor_tells_what_came_meanwhile(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    store = open_store(settings)
    store.ensure_bucket("docs")
    store.write("docs", "before", b"x", ObjectMeta())
    cursor = open_changes(settings).follow("docs").poll(0).cursor
    store.write("docs", "meanwhile", b"x", ObjectMeta())
    heard = {change.key for change in open_changes(settings).follow("docs", cursor=cursor).poll(0).changes}
    assert "meanwhile" in heard


def test_a_missing_bucket_and_a_strange_cursor_are_refused(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with pytest.raises(NotFound):
        open_changes(settings).follow("docs")
    open_store(settings).ensure_bucket("docs")
    with pytest.raises(Invalid):
        open_changes(settings).follow("docs", cursor="yesterday")
