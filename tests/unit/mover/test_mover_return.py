"""The way back: what users wrote at the target since the switch comes to the source, and nothing of ours echoes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from memory_store import Call, MemoryStore

from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.returning import return_changes, still_frozen
from crossload.ledger.journal import Journal
from crossload.ports.errors import PreconditionFailed
from crossload.ports.store import ObjectMeta

OPTIONS = CopyOptions(part_size_bytes=64, workers=1)


@pytest.fixture
def moved(source: MemoryStore, target: MemoryStore, open_journal: Callable[..., Journal]) -> Journal:
    for key in ("kept", "edited", "deleted", "both"):
        source.put("docs", key, key.encode(), ObjectMeta("text/plain", user={"from": "a"}, tags={"t": "1"}))
    journal = open_journal()
    move_bucket(source, "docs", target, "docs", journal, OPTIONS)
    return journal


def users_work(source: MemoryStore, target: MemoryStore) -> None:
    target.put("docs", "edited", b"edited at b", ObjectMeta("text/html"))
    target.put("docs", "added", b"added at b" * 30, ObjectMeta("text/css", tags={"t": "2"}))
    target.drop("docs", "deleted")
    target.put("docs", "both", b"both: b")
    source.put("docs", "both", b"both: a")
    target.put("docs", ".crossload/probe-1", b"ours")


def test_changes_come_back_and_conflicts_stay(source: MemoryStore, target: MemoryStore, moved: Journal) -> None:
    users_work(source, target)
    report = return_changes(source, target, "docs", moved)
    assert sorted(report.returned) == ["added", "edited"]
    assert report.removed == ["deleted"]
    assert report.conflicts == ["both"]
    assert report.unchanged == 1
    assert source.bytes_of("docs") == {
        "kept": b"kept", "edited": b"edited at b", "added": b"added at b" * 30, "both": b"both: a",
    }  # fmt: skip
    assert source.contents("docs")["added"][1] == ObjectMeta("text/css", tags={"t": "2"})


def test_a_second_return_and_a_new_move_find_nothing(source: MemoryStore, target: MemoryStore, moved: Journal) -> None:
    users_work(source, target)
    target.drop("docs", ".crossload/probe-1")
    source.put("docs", "both", b"both: b")  # the people settled it
    return_changes(source, target, "docs", moved)
    again = return_changes(source, target, "docs", moved)
    assert (again.returned, again.removed, again.conflicts) == ([], [], [])
    forward = move_bucket(source, "docs", target, "docs", moved, OPTIONS)
    assert (forward.copied, forward.removed, forward.failures) == (0, 0, [])
    assert source.bytes_of("docs") == target.bytes_of("docs")


def test_cut_off_at_every_call_and_repeated(source: MemoryStore, target: MemoryStore, moved: Journal) -> None:
    """Repeating after any failure ends the same way, without a conflict that is none."""

    class Cut(Exception):
        pass

    users_work(source, target)
    for point in range(1, 80):
        seen = 0

        def hook(call: Call, at: int = point) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                raise Cut

        source.hook = target.hook = hook
        try:
            report = return_changes(source, target, "docs", moved)
        except Cut:
            continue
        break
    else:
        pytest.fail("it never came through")
    assert report.conflicts == ["both"]
    assert source.bytes_of("docs") == {
        "kept": b"kept", "edited": b"edited at b", "added": b"added at b" * 30, "both": b"both: a",
    }  # fmt: skip


def test_a_source_that_changes_during_the_return_is_a_conflict(
    source: MemoryStore, target: MemoryStore, moved: Journal
) -> None:
    target.put("docs", "edited", b"edited at b")
    target.drop("docs", "deleted")

    def writer(call: Call) -> None:
        if call.when == "before" and (call.name, call.key) in (("write", "edited"), ("delete", "deleted")):
            source.put("docs", call.key, b"edited at a, just now")

    source.hook = writer
    report = return_changes(source, target, "docs", moved)
    assert sorted(report.conflicts) == ["deleted", "edited"]
    assert source.bytes_of("docs")["edited"] == b"edited at a, just now"
    assert source.bytes_of("docs")["deleted"] == b"edited at a, just now"


def test_still_frozen_names_what_moved(source: MemoryStore, moved: Journal) -> None:
    assert still_frozen(source, "docs", moved) == []
    source.put("docs", "edited", b"thawed?")
    source.put("docs", "new", b"thawed?")
    source.drop("docs", "kept")
    assert still_frozen(source, "docs", moved) == ["edited", "kept", "new"]


def test_a_large_object_comes_back_in_parts(source: MemoryStore, target: MemoryStore, moved: Journal) -> None:
    """Memory is bounded by the part, whatever the size; and a read that meets a writer is never a mixture."""
    data = bytes(range(256)) * 5
    target.put("docs", "large", data, ObjectMeta("model/gguf"))
    lengths: list[int] = []
    read = target.read

    def watched(bucket: str, key: str, start: int = 0, length: int | None = None, if_match: str = "") -> bytes:
        found = read(bucket, key, start, length, if_match)
        lengths.append(len(found))
        return found

    target.read = watched  # type: ignore[method-assign]
    report = return_changes(source, target, "docs", moved, part_size_bytes=256)
    assert report.returned == ["large"]
    assert report.size_bytes == len(data)
    assert max(lengths) == 256
    assert source.contents("docs")["large"] == (data, ObjectMeta("model/gguf"))
    assert not source.uploads


def test_a_target_that_changes_during_the_return_is_said_so(
    source: MemoryStore, target: MemoryStore, moved: Journal
) -> None:
    target.put("docs", "edited", b"edited at b")

    def writer(call: Call) -> None:
        if call.name == "read" and call.when == "before" and call.key == "edited":
            target.put("docs", "edited", b"edited at b once more")

    target.hook = writer
    with pytest.raises(PreconditionFailed, match="changes at the target") as error:
        return_changes(source, target, "docs", moved)
    assert "stop the writers" in error.value.hint
    assert source.bytes_of("docs")["edited"] == b"edited"
    target.hook = lambda _: None
    assert return_changes(source, target, "docs", moved).returned == ["edited"]
    assert source.bytes_of("docs")["edited"] == b"edited at b once more"
