"""A bucket's history arrives in its order, once, whatever happens on the way."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from memory_store import FEATURES, Call, MemoryStore

from crossload.engines.mover.bucket import move_bucket
from crossload.engines.mover.history import HistoryReport, carry_history, check_history, undo_history
from crossload.engines.mover.options import CopyOptions
from crossload.engines.mover.removal import remove_copy
from crossload.ledger.journal import Journal
from crossload.ports.errors import AccessDenied, Refused, Unavailable, Unsupported
from crossload.ports.retrying import RetryingStore, RetryPolicy
from crossload.ports.store import ObjectMeta, StoreFeatures

OPTIONS = CopyOptions(part_size_bytes=1000, workers=3, allow_mass_delete=True)


class NoMarkers(MemoryStore):
    """Deletes leave no marker, as in Cloud Storage."""

    def mark_deleted(self, bucket: str, key: str) -> str:
        self._object(bucket, key)
        self.objects[bucket].pop(key)
        return ""

    def _remove(self, bucket: str, key: str) -> None:
        self.objects[bucket].pop(key, None)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as made:
        yield made


def ends() -> tuple[MemoryStore, MemoryStore]:
    source, target = MemoryStore("a"), MemoryStore("b")
    for store in (source, target):
        store.ensure_bucket("box")
    return source, target


def fill(store: MemoryStore, steps: int = 60, seed: int = 1) -> None:
    """A random life: writes, rewrites with equal bytes, deletes, also twice."""
    choose = random.Random(seed)
    for number in range(steps):
        key = f"k/{choose.randrange(6)}"
        if choose.random() < 0.25:
            store.mark_deleted("box", key)
        else:
            data = b"same" if choose.random() < 0.3 else choose.randbytes(choose.choice([0, 10, 999, 1000, 2500]))
            store.put("box", key, data, ObjectMeta("text/plain", user={"number": str(number)}))


def story(store: MemoryStore) -> dict[str, list[object]]:
    """What a bucket tells, by key, the oldest first."""
    told: dict[str, list[object]] = {}
    for info in store.history["box"]:
        if info.is_delete_marker:
            told.setdefault(info.key, []).append("deleted")
        else:
            kept = store.kept["box", info.version]
            told.setdefault(info.key, []).append((kept.data, kept.meta))
    return told


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "versions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_target_tells_the_same_story(tmp_path: Path, journal: Journal) -> None:
    source, target = ends()
    fill(source)
    report = carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
    assert report.failures == [] and report.late == 0
    assert story(target) == story(source)
    assert report.versions + report.markers == 60
    assert check_history(target, "box", tmp_path) == {}
    written = lines(tmp_path)
    assert len(written) == 60
    for line in written:
        assert line["source_version"] and line["target_version"]
        if not line.get("delete_marker"):
            data = source.kept["box", str(line["source_version"])].data
            assert data == target.kept["box", str(line["target_version"])].data
            assert (line["size_bytes"], len(str(line["sha256"]))) == (len(data), 64)


def test_again_nothing_is_sent_and_the_bucket_copy_finds_nothing_to_do(tmp_path: Path, journal: Journal) -> None:
    source, target = ends()
    fill(source)
    carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
    before, sent = story(target), target.sent_bytes
    again = carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
    assert (again.versions, again.markers, again.known, again.sent_bytes) == (0, 0, 60, 0)
    report = move_bucket(source, "box", target, "box", journal, OPTIONS)
    assert report.empty and report.sent_bytes == 0
    assert (story(target), target.sent_bytes) == (before, sent)


def test_what_came_later_is_put_on_top(tmp_path: Path, journal: Journal) -> None:
    source, target = ends()
    for seed in range(4):
        fill(source, 20, seed)
        carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
        assert move_bucket(source, "box", target, "box", journal, OPTIONS).empty
        assert story(target) == story(source)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("broken", ["write", "complete", "mark_deleted", "write_part"])
def test_killed_at_any_call_it_goes_on(tmp_path: Path, when: str, broken: str) -> None:
    """The n-th such call kills the run (as kill -9 would: nothing is said to anybody); the next one goes on."""
    source, target = ends()
    fill(source)

    class Killed(BaseException):
        pass

    kills, report = 0, HistoryReport()
    for _ in range(100):
        left = [random.Random(kills).randrange(1, 5)]

        def hook(call: Call, left: list[int] = left) -> None:
            if call.name == broken and call.when == when:
                left[0] -= 1
                if left[0] == 0:
                    raise Killed

        target.hook = hook
        with Journal(tmp_path / "journal.db") as journal:
            try:
                report = carry_history(source, "box", target, "box", journal, tmp_path, replace(OPTIONS, workers=1))
            except Killed:
                kills += 1
                continue
        break
    target.hook = lambda _: None
    assert kills >= 1
    assert report.failures == [] and report.late == 0
    assert (story(target), target.uploads) == (story(source), {})
    assert not any(line["found"] for line in lines(tmp_path)), "all of it is ours, so undo removes it"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("broken", ["write", "complete", "mark_deleted", "write_part"])
def test_a_killed_run_is_undone_too(tmp_path: Path, journal: Journal, when: str, broken: str) -> None:
    source, target = ends()
    fill(source)

    class Killed(BaseException):
        pass

    def hook(call: Call) -> None:
        if call.name == broken and call.when == when:
            raise Killed

    target.hook = hook
    with pytest.raises(Killed):
        carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
    target.hook = lambda _: None
    undo_history(target, "box", journal, tmp_path)
    assert (story(target), target.uploads) == ({}, {})


def test_a_lost_answer_makes_no_second_version(tmp_path: Path, journal: Journal) -> None:
    source, target = ends()
    for number in range(5):
        source.put("box", "doc", b"%d" % number)
    seen = [0]

    def hook(call: Call) -> None:
        if call.name == "write" and call.when == "after":
            seen[0] += 1
            if seen[0] == 2:
                raise Unavailable("the answer was lost")

    target.hook = hook
    patient = RetryingStore(target, RetryPolicy(base_seconds=0.01, delay_seconds_max=0.02), lambda _: None)
    first = carry_history(source, "box", patient, "box", journal, tmp_path, OPTIONS)
    assert len(first.failures) == 1 and "doc" in first.failures[0]
    again = carry_history(source, "box", patient, "box", journal, tmp_path, OPTIONS)
    assert (again.failures, again.versions) == ([], 3)
    assert story(target) == story(source)


def test_versions_of_others_are_not_buried(tmp_path: Path, journal: Journal) -> None:
    source, target = ends()
    source.put("box", "doc", b"one")
    source.put("box", "other", b"fine")
    target.put("box", "doc", b"theirs")
    report = carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
    assert len(report.failures) == 1 and report.failures[0].startswith("doc: the target holds version")
    assert story(target) == {"doc": [(b"theirs", ObjectMeta())], "other": story(source)["other"]}


def test_what_a_copy_of_the_latest_brought_is_named_as_too_late(tmp_path: Path, journal: Journal) -> None:
    source, target = ends()
    for data in (b"one", b"two", b"three"):
        source.put("box", "doc", data)
    move_bucket(source, "box", target, "box", journal, OPTIONS)
    source.put("box", "doc", b"four")
    report = carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
    assert (report.late, report.late_keys, report.versions, report.failures) == (2, ["doc"], 1, [])
    assert [item[0] for item in story(target)["doc"]] == [b"three", b"four"]  # type: ignore[index]
    assert [line["found"] for line in lines(tmp_path)] == [True, False]


def test_undo_removes_ours_and_leaves_theirs(tmp_path: Path, journal: Journal) -> None:
    source, target = ends()
    fill(source, 30)
    carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
    target.put("box", "k/1", b"theirs")
    assert undo_history(target, "box", journal, tmp_path) == 30
    remove_copy(target, "box", journal)
    assert story(target) == {"k/1": [(b"theirs", ObjectMeta())]}
    assert undo_history(target, "box", journal, tmp_path) == 0
    assert lines(tmp_path) == []


def test_after_undo_it_may_be_carried_again(tmp_path: Path, journal: Journal) -> None:
    source, target = ends()
    fill(source, 30)
    for _ in range(2):
        carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
        assert story(target) == story(source)
        undo_history(target, "box", journal, tmp_path)
        assert story(target) == {}


def test_a_damaged_history_is_found(tmp_path: Path, journal: Journal) -> None:
    source, target = ends()
    for data in (b"one", b"two--", b"three"):
        source.put("box", "doc", data)
        source.put("box", "whole", data)
    carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
    middle = [info for info in target.history["box"] if info.key == "doc"][1]
    target.delete_version("box", "doc", middle.version)
    assert check_history(target, "box", tmp_path) == {"doc": f"version {middle.version} is gone"}
    order = [info for info in target.history["box"] if info.key == "whole"]
    target.history["box"] = [*(info for info in target.history["box"] if info.key != "whole"), *reversed(order)]
    assert "out of turn" in check_history(target, "box", tmp_path)["whole"]


@pytest.mark.parametrize("kinds", [(NoMarkers, MemoryStore), (MemoryStore, NoMarkers), (NoMarkers, NoMarkers)])
def test_stores_that_mark_no_deletes(
    tmp_path: Path, journal: Journal, kinds: tuple[Callable[[str], MemoryStore], ...]
) -> None:
    source, target = kinds[0]("a"), kinds[1]("b")
    for store in (source, target):
        store.ensure_bucket("box")
    for data in (b"one", b"two"):
        source.put("box", "gone", data)
        source.put("box", "there", data)
    source.drop("box", "gone")
    report = HistoryReport()
    for _ in range(2):
        report = carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
        assert report.failures == []
        assert target.bytes_of("box") == source.bytes_of("box") == {"there": b"two"}
        held = [item for item in story(target)["gone"] if item != "deleted"]
        assert [item[0] for item in held] == [b"one", b"two"]  # type: ignore[index]
    assert (report.versions, report.markers) == (0, 0)


def test_a_bucket_without_versions_is_refused_unless_it_may_be_turned_on(tmp_path: Path, journal: Journal) -> None:
    source, target = ends()
    source.put("box", "doc", b"one")
    target.versioned_buckets = set()
    with pytest.raises(Refused) as caught:
        carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)
    assert "versions: latest" in caught.value.hint
    report = carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS, may_keep_versions=True)
    assert (report.versions, target.versioned_buckets) == (1, {"box"})


def test_a_store_that_keeps_none_is_told_before_anything_happens(tmp_path: Path, journal: Journal) -> None:
    source, _ = ends()
    bare = MemoryStore("bare", StoreFeatures())
    bare.ensure_bucket("box")
    for pair in ((source, bare), (bare, source)):
        with pytest.raises(Unsupported):
            carry_history(pair[0], "box", pair[1], "box", journal, tmp_path, OPTIONS)


def test_a_refusal_for_all_keys_stops_the_run(tmp_path: Path, journal: Journal) -> None:
    source, target = ends()
    fill(source)

    def hook(call: Call) -> None:
        if call.name == "write":
            raise AccessDenied("no")

    target.hook = hook
    with pytest.raises(AccessDenied):
        carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS)


def test_losses_and_the_prefix_are_kept_to(tmp_path: Path, journal: Journal) -> None:
    source = MemoryStore("a")
    target = MemoryStore("b", replace(FEATURES, tags=False))
    for store in (source, target):
        store.ensure_bucket("box")
    source.put("box", "in/doc", b"one", ObjectMeta(tags={"a": "b"}, storage_class="archive"))
    source.put("box", "out/doc", b"two")
    report = carry_history(source, "box", target, "box", journal, tmp_path, OPTIONS, prefix="in/")
    assert set(target.objects["box"]) == {"in/doc"}
    assert sorted(report.losses.values()) == [1, 1]
    assert any("archive" in loss for loss in report.losses)
