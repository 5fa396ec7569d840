"""A move by itself between stores in memory: ends, the record of them, what is counted, what is told before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from memory_store import FEATURES, Call, MemoryStore

from crossload.engines.mover.ends import End, Meter
from crossload.engines.mover.losses import fit_losses, history_left
from crossload.engines.mover.move import Move
from crossload.engines.mover.options import CopyOptions, Watcher
from crossload.ports.errors import NotFound, Refused, Unavailable
from crossload.ports.metered import metered
from crossload.ports.retrying import RetryingStore, RetryPolicy
from crossload.ports.store import ObjectMeta, StoreFeatures

_META = ObjectMeta()
_QUICK = RetryPolicy(base_seconds=0.001, delay_seconds_max=0.002, give_up_seconds=5)


def end(store: MemoryStore, bucket: str, key: str = "", reach: tuple[str, ...] = ()) -> End:
    meter = Meter()
    waiting = RetryingStore(metered(store, meter.count), _QUICK, lambda _: None)
    return End(waiting, bucket, key, f"mem://{store.place}/{bucket}/{key}", reach or (store.place,), meter)


def move(
    source: End, target: End, folder: Path, *, chosen: bool = False, back: Callable[[], End] | None = None
) -> Move:
    options = CopyOptions(workers=2, part_size_bytes=1024)
    folder.mkdir(exist_ok=True)
    return Move(source, lambda single: target, folder, options, chosen=chosen, back=back)


def fill(store: MemoryStore, bucket: str, *keys: str, size: int = 100) -> None:
    for number, key in enumerate(keys):
        store.write(bucket, key, bytes([number % 256]) * size, _META)


def listed(store: MemoryStore, bucket: str) -> list[str]:
    return sorted(info.key for info in store.list(bucket))


def test_a_prefix_moves_without_its_neighbours(source: MemoryStore, target: MemoryStore, tmp_path: Path) -> None:
    fill(source, "docs", "in/a", "in/b", "in2/c", "inn")
    report = move(end(source, "docs", "in"), end(target, "docs", "out/"), tmp_path / "s").run()
    assert report.failures == []
    assert listed(target, "docs") == ["out/a", "out/b"]


def test_a_typing_error_in_a_prefix_makes_no_bucket(source: MemoryStore, target: MemoryStore, tmp_path: Path) -> None:
    fill(source, "docs", "in/a")
    with pytest.raises(NotFound, match="nothing lies at"):
        move(end(source, "docs", "inn"), end(target, "new"), tmp_path / "s").run()
    assert [item.name for item in target.buckets()] == ["docs"]


def test_an_object_wins_over_a_prefix_of_its_name(source: MemoryStore, target: MemoryStore, tmp_path: Path) -> None:
    fill(source, "docs", "in", "in/a")
    move(end(source, "docs", "in"), end(target, "docs", "x"), tmp_path / "s").run()
    assert listed(target, "docs") == ["x/in"]
    move(end(source, "docs", "in/"), end(target, "docs", "y"), tmp_path / "t").run()
    assert listed(target, "docs") == ["x/in", "y/a"]


def test_one_object_that_is_gone_is_not_taken_for_a_folder(
    source: MemoryStore, target: MemoryStore, tmp_path: Path
) -> None:
    fill(source, "docs", "model.bin")
    move(end(source, "docs", "model.bin"), end(target, "docs", "x/model.bin"), tmp_path / "s").run()
    assert listed(target, "docs") == ["x/model.bin"]
    source.delete("docs", "model.bin")
    report = move(end(source, "docs", "model.bin"), end(target, "docs", "x/model.bin"), tmp_path / "s").run()
    assert report.passes[0].removed == 1
    assert listed(target, "docs") == []


@pytest.mark.parametrize(
    ("here", "there"), [("", ""), ("", "copy"), ("in", ""), ("in/", "in"), ("in", "in/deeper"), ("in/deeper/", "in")]
)
def test_ends_that_overlap_are_refused(source: MemoryStore, tmp_path: Path, here: str, there: str) -> None:
    fill(source, "docs", "in/a", "in/deeper/b", "b")
    with pytest.raises(Refused):
        move(end(source, "docs", here), end(source, "docs", there), tmp_path / "s").run()
    assert listed(source, "docs") == ["b", "in/a", "in/deeper/b"]


def test_neighbours_in_one_bucket_are_fine(source: MemoryStore, tmp_path: Path) -> None:
    fill(source, "docs", "in/a")
    move(end(source, "docs", "in"), end(source, "docs", "in2"), tmp_path / "s").run()
    assert listed(source, "docs") == ["in/a", "in2/a"]


def test_two_servers_may_have_buckets_of_one_name(tmp_path: Path) -> None:
    """Their addresses are the same; what is there is not."""
    here, there = MemoryStore("a"), MemoryStore("a")
    for store in (here, there):
        store.ensure_bucket("docs")
    fill(here, "docs", "x", "y")
    assert here.uri("docs") == there.uri("docs")
    ends = end(here, "docs", reach=("a", "profile=1")), end(there, "docs", reach=("a", "profile=2"))
    move(*ends, tmp_path / "s").run()
    assert listed(there, "docs") == ["x", "y"]


def test_one_server_by_two_settings_is_known_by_what_is_there(source: MemoryStore, tmp_path: Path) -> None:
    fill(source, "docs", "x")
    with pytest.raises(Refused, match="same place"):
        move(end(source, "docs", reach=("p", "a=1")), end(source, "docs", reach=("p", "a=2")), tmp_path / "s").run()


def test_other_settings_are_another_place_until_somebody_says_not(
    source: MemoryStore, target: MemoryStore, tmp_path: Path
) -> None:
    fill(source, "docs", "x")
    move(end(source, "docs", reach=("p", "profile=1")), end(target, "docs"), tmp_path / "s").run()
    again = end(source, "docs", reach=("p", "profile=2")), end(target, "docs")
    with pytest.raises(Refused, match="other settings"):
        move(*again, tmp_path / "s").run()
    assert move(*again, tmp_path / "s", chosen=True).run().passes[0].empty
    other = end(source, "docs", reach=("p", "profile=2", "profile@return=3")), end(target, "docs")
    assert move(*other, tmp_path / "s").run().passes[0].empty  # another identity at the same place


def test_back_is_done_as_who_may_write_there(source: MemoryStore, target: MemoryStore, tmp_path: Path) -> None:
    fill(source, "docs", "x")
    move(end(source, "docs"), end(target, "docs"), tmp_path / "s").run()
    target.write("docs", "new", b"new", _META)
    opened: list[str] = []

    def back() -> End:
        opened.append("return")
        return end(source, "docs")

    found = move(end(source, "docs"), end(target, "docs"), tmp_path / "s", back=back).bring_back()
    assert (found.returned, opened) == (["new"], ["return"])
    assert '"new"' in (tmp_path / "s" / "manifest.jsonl").read_text()


def test_a_read_that_is_tried_again_is_counted_again(source: MemoryStore, target: MemoryStore, tmp_path: Path) -> None:
    fill(source, "docs", "x", size=500)
    broken: list[str] = []

    def hook(call: Call) -> None:
        if call.name == "read" and call.when == "after" and not broken:
            broken.append(call.key)
            raise Unavailable("the answer was lost")

    source.hook = hook
    report = move(end(source, "docs"), end(target, "docs"), tmp_path / "s").run()
    assert broken == ["x"]
    assert report.passes[0].sent_bytes == 500
    assert report.egress is not None
    counted = {place.place: place.size_bytes for place in report.egress.places}
    assert counted == {"mem://a/docs/": 1000}


def test_reading_back_counts_at_the_target(source: MemoryStore, target: MemoryStore, tmp_path: Path) -> None:
    fill(source, "docs", "x", size=500)
    made = move(end(source, "docs"), end(target, "docs"), tmp_path / "s")
    made.run()
    proof, finished = made.verify(reread_sample=1.0)
    assert (proof.reread, finished) == (1, True)
    report = made.run()
    assert report.egress is not None
    assert {place.place: place.size_bytes for place in report.egress.places}["mem://b/docs/"] == 500


def test_a_move_that_was_cut_short_is_not_verified_as_whole(
    source: MemoryStore, target: MemoryStore, tmp_path: Path
) -> None:
    fill(source, "docs", *(f"k{number:02d}" for number in range(20)))
    made = move(end(source, "docs"), end(target, "docs"), tmp_path / "s")

    def hook(call: Call) -> None:
        if call.name == "read" and call.key == "k10" and call.when == "before":
            raise KeyboardInterrupt

    source.hook = hook
    with pytest.raises(KeyboardInterrupt):
        made.run()
    source.hook = lambda call: None
    proof, finished = made.verify(reread_sample=0)
    assert proof.wrong == {}
    assert not finished
    made.run()
    assert made.verify(reread_sample=0)[1]


def test_a_second_pass_of_a_run_adds_to_what_is_to_do(source: MemoryStore, target: MemoryStore, tmp_path: Path) -> None:
    fill(source, "docs", "a", "b")
    told: list[tuple[int, int]] = []

    def start(objects: int, size_bytes: int) -> None:
        told.append((objects, size_bytes))
        if len(told) == 1:
            fill(source, "docs", "late", size=50)

    report = move(end(source, "docs"), end(target, "docs"), tmp_path / "s").run(Watcher(start=start))
    assert told == [(2, 200), (3, 250), (3, 250)]
    assert [item.copied for item in report.passes] == [2, 1, 0]


def test_a_preview_tells_history_in_the_words_of_a_plan(
    source: MemoryStore, target: MemoryStore, tmp_path: Path
) -> None:
    source.write("docs", "a", b"1", _META)
    source.write("docs", "a", b"2", _META)
    found = move(end(source, "docs"), end(target, "docs"), tmp_path / "s").preview()
    assert history_left(found.older_versions, found.delete_markers) in found.losses
    assert "1 older version(s) and 0 delete marker(s) stay at the source" in found.losses
    assert listed(target, "docs") == []
    assert found.to_json()["finish"] == "unknown (no probe was made)"


def test_unknown_history_is_told_as_unknown() -> None:
    assert history_left(0, 0) == ""
    assert history_left(None, None).startswith("unknown older version(s) and unknown delete marker(s)")


def test_losses_follow_from_what_the_stores_can_keep() -> None:
    full, bare = StoreFeatures(user_metadata_bytes_max=8192), StoreFeatures(tags=False, user_metadata_bytes_max=2048)
    assert fit_losses(bare, full) == []
    assert len(fit_losses(full, bare)) == 2


def test_a_preview_names_keys_that_the_target_cannot_hold(tmp_path: Path) -> None:
    """Told before anything moves: a folder cannot hold a file and a folder of one name."""
    source, target = MemoryStore("a"), MemoryStore("b", replace(FEATURES, hierarchical=True))
    for store in (source, target):
        store.ensure_bucket("docs")
    fill(source, "docs", "model", "model/weights", "plain")
    found = move(end(source, "docs"), end(target, "docs"), tmp_path / "state").preview()
    assert [item.code for item in found.hazards] == ["XL540"]
    assert "model" in str(found.hazards[0])
    target.features = FEATURES
    assert move(end(source, "docs"), end(target, "docs"), tmp_path / "state").preview().hazards == []
