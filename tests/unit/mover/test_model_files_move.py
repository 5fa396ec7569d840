"""Models from store to store: every digest crosses once, addresses point at the target, nothing torn is visible."""

from __future__ import annotations

import pytest
from memory_store import Call, MemoryStore
from model_samples import ROOT, RUN, hub_cache, packed, sha256, shards, tracking_store

from crossload.engines.mover import models
from crossload.engines.mover.models import move_model
from crossload.ports.errors import DigestMismatch, Invalid, Refused, Unavailable
from crossload.ports.store import ObjectMeta


def fill(store: MemoryStore, files: dict[str, bytes]) -> None:
    for key, data in files.items():
        store.put("docs", key, data, ObjectMeta(content_type="x/y", user={"of": "ana"}))


def test_a_hub_cache_crosses_once(source: MemoryStore, target: MemoryStore) -> None:
    fill(source, hub_cache())
    report = move_model(source, "docs", target, "docs", prefix="hub/", target_prefix="cache/")
    wanted = {
        "cache/" + key.removeprefix("hub/"): data
        for key, data in hub_cache().items() if not key.endswith((".incomplete", ".lock"))
    }  # fmt: skip
    assert target.bytes_of("docs") == wanted
    assert report.files == {key: sha256(data) for key, data in wanted.items()}
    assert report.read_bytes == sum(map(len, set(wanted.values())))
    assert len(report.left_out) == 2
    assert next(iter(target.contents("docs").values()))[1].user == {"of": "ana"}


def test_references_come_last(source: MemoryStore, target: MemoryStore) -> None:
    fill(source, hub_cache())
    move_model(source, "docs", target, "docs", prefix="hub/")
    order = [key for name, key in target.log if name == "write"]
    assert all("/refs/" in key for key in order[-2:])


def test_a_tracking_store_points_at_its_new_place(source: MemoryStore, target: MemoryStore) -> None:
    fill(source, tracking_store())
    report = move_model(
        source, "docs", target, "docs", prefix="mlruns/", target_prefix="store/", roots={ROOT: "memory://docs/store"}
    )
    held = target.bytes_of("docs")
    for key, data in tracking_store().items():
        there = held["store/" + key.removeprefix("mlruns/")]
        changed = key in {change["key"] for change in report.changes}
        assert there == (data.replace(ROOT.encode(), b"memory://docs/store") if changed else data), key
    version = next(row for row in report.rows if row["kind"] == "model-version")
    assert version["fields"]["source"] == f"memory://docs/store/0/{RUN}/artifacts/model"
    assert report.mentions == [f"mlruns/0/{RUN}/tags/note"]
    assert report.trust == "reread"
    # The artifacts that the rows speak of are where the rows say.
    for place in [row["fields"].get("source") for row in report.rows if row["kind"] == "model-version"]:
        assert any(key.startswith(place.removeprefix("memory://docs/")) for key in held)


def test_the_stores_own_addresses_are_the_roots_when_none_are_named(source: MemoryStore, target: MemoryStore) -> None:
    fill(source, tracking_store("memory://docs/mlruns"))
    report = move_model(source, "docs", target, "docs", prefix="mlruns/", target_prefix="store/")
    assert len(report.changes) == 7
    assert report.uncovered == []


def test_large_files_go_in_parts_and_once(
    source: MemoryStore, target: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_PART_BYTES", 1000)
    big = bytes(range(256)) * 20
    fill(source, {"m/a.bin": big, "m/b.bin": big, "m/model.tar.gz": packed(*[f"f{n}" for n in range(400)])})
    report = move_model(source, "docs", target, "docs", prefix="m/", target_prefix="n/")
    assert target.bytes_of("docs") == {
        key.replace("m/", "n/", 1): data for key, data in source.bytes_of("docs").items()
    }
    assert report.read_bytes == len(big) + len(source.bytes_of("docs")["m/model.tar.gz"])
    assert target.uploads == {}


def test_a_second_move_writes_nothing_and_a_killed_one_goes_on(source: MemoryStore, target: MemoryStore) -> None:
    fill(source, tracking_store())
    left = 6

    def die(call: Call) -> None:
        nonlocal left
        if call.name == "write" and call.when == "after":
            left -= 1
            if left == 0:
                raise Unavailable("gone")

    target.hook = die
    with pytest.raises(Unavailable):
        move_model(source, "docs", target, "docs", prefix="mlruns/")
    target.hook = lambda _: None
    target.sent_bytes = 0
    report = move_model(source, "docs", target, "docs", prefix="mlruns/")
    assert report.found == 6
    again = move_model(source, "docs", target, "docs", prefix="mlruns/")
    assert (again.written_bytes, again.read_bytes, again.found) == (0, 0, len(again.files))


def test_a_source_that_is_not_whole_does_not_move(source: MemoryStore, target: MemoryStore) -> None:
    files = shards()
    del files["model-00002-of-00002.safetensors"]
    fill(source, files)
    with pytest.raises(Invalid, match="is not there"):
        move_model(source, "docs", target, "docs")
    assert target.bytes_of("docs") == {}


def test_other_bytes_at_the_target_are_not_overwritten(source: MemoryStore, target: MemoryStore) -> None:
    fill(source, shards())
    target.put("docs", "config.json", b"somebody's own")
    with pytest.raises(Refused, match=r"config\.json"):
        move_model(source, "docs", target, "docs")
    move_model(source, "docs", target, "docs", replace_foreign=True)
    assert target.bytes_of("docs") == shards()


@pytest.mark.parametrize("part_bytes", [16 * 2**20, 50])
def test_a_file_that_changes_meanwhile_is_seen(
    source: MemoryStore, target: MemoryStore, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    monkeypatch.setattr(models, "_PART_BYTES", part_bytes)
    fill(source, {"weights.bin": b"w" * 500})

    def change(call: Call) -> None:
        if call.when == "before":
            source.put("docs", "weights.bin", b"v" * 500)

    target.hook = change
    with pytest.raises(DigestMismatch):
        move_model(source, "docs", target, "docs")
    assert target.bytes_of("docs") == {}
    assert target.uploads == {}


def test_bytes_that_the_target_lost_are_seen(source: MemoryStore, target: MemoryStore) -> None:
    fill(source, shards())

    def spoil(call: Call) -> None:
        if call.name == "write" and call.when == "after" and call.key.endswith("00001-of-00002.safetensors"):
            target.flip("docs", call.key, 9)

    target.hook = spoil
    with pytest.raises(DigestMismatch, match="00001"):
        move_model(source, "docs", target, "docs")
