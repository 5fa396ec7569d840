"""What a disk does to objects behind the store's back: edits by hand, links, crashes, other programs."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from crossload.estate.place import Place
from crossload.ports.errors import Invalid, NotFound, PreconditionFailed
from crossload.ports.provider import Settings
from crossload.ports.store import ObjectMeta, Part
from crossload.providers.local import store as local
from crossload.providers.local.store import LocalStore, open_store

TEXT = ObjectMeta(content_type="text/plain", user={"owner": "helpdesk"})


def opened(root: Path) -> LocalStore:
    connection = {"root": str(root)}
    return open_store(Settings(Place("disk", "local", "here", "DE", connection), connection, {}))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    made = opened(tmp_path)
    made.ensure_bucket("docs")
    return made


def test_an_object_is_a_plain_file(store: LocalStore, tmp_path: Path) -> None:
    store.write("docs", "guide/über uns.md", b"hello", TEXT)
    assert (tmp_path / "docs" / "guide" / "über uns.md").read_bytes() == b"hello"


def test_a_file_put_there_by_hand_is_an_object(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "docs" / "by-hand.txt").write_bytes(b"mine")
    info, _ = store.head("docs", "by-hand.txt")
    assert (info.size_bytes, info.etag) == (4, hashlib.sha256(b"mine").hexdigest())
    assert [found.etag for found in store.list("docs")] == [info.etag]


def test_an_edit_by_hand_changes_the_etag_and_keeps_the_metadata(store: LocalStore, tmp_path: Path) -> None:
    old = store.write("docs", "note", b"before", TEXT)
    (tmp_path / "docs" / "note").write_bytes(b"after!")
    info, meta = store.head("docs", "note")
    assert info.etag == hashlib.sha256(b"after!").hexdigest() != old.etag
    assert dict(meta.user) == {"owner": "helpdesk"}
    with pytest.raises(PreconditionFailed):
        store.read("docs", "note", if_match=old.etag)


def test_a_flipped_bit_under_an_old_date_is_not_called_stored(store: LocalStore, tmp_path: Path) -> None:
    """Why `digests_returned` is empty: whoever wants proof must read the bytes again."""
    file = tmp_path / "docs" / "note"
    store.write("docs", "note", b"before", TEXT)
    stat = file.stat()
    file.write_bytes(b"beforf")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    info, _ = store.head("docs", "note")
    assert info.digests == ()
    assert not store.features.digests_returned
    assert store.read("docs", "note") == b"beforf"


def test_links_do_not_lead_out(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (tmp_path / "docs" / "link").symlink_to(outside)
    (tmp_path / "docs" / "file").symlink_to(outside / "secret")
    for key in ("link/secret", "file"):
        with pytest.raises(Invalid):
            store.read("docs", key)
        with pytest.raises(Invalid):
            store.write("docs", key, b"planted", TEXT)
    assert list(store.list("docs")) == []
    assert (outside / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a\0b", ".crossload/meta/x", "k" * 300, "\ud800"]
)
def test_keys_a_disk_cannot_hold_are_refused_with_a_hint(store: LocalStore, key: str) -> None:
    with pytest.raises(Invalid) as refusal:
        store.write("docs", key, b"x", TEXT)
    assert refusal.value.hint


def test_file_and_folder_of_one_name_are_refused_with_a_hint(store: LocalStore) -> None:
    store.write("docs", "a", b"file", TEXT)
    store.write("docs", "b/c", b"below", TEXT)
    for key in ("a/b", "b"):
        for if_absent in (False, True):
            with pytest.raises(Invalid) as refusal:
                store.write("docs", key, b"x", TEXT, if_absent=if_absent)
            assert "file and a folder" in refusal.value.hint


def test_an_emptied_folder_makes_room_for_a_file(store: LocalStore) -> None:
    store.write("docs", "a/b/c", b"deep", TEXT)
    store.delete("docs", "a/b/c")
    store.write("docs", "a", b"file", TEXT)
    assert store.read("docs", "a") == b"file"


def test_a_crash_before_the_rename_leaves_the_old_object_whole(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.write("docs", "note", b"same size 1", TEXT)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "_rename", crash)
    with pytest.raises(KeyboardInterrupt):
        store.write("docs", "note", b"same size 2", ObjectMeta(content_type="text/html"))
    info, meta = store.head("docs", "note")
    assert (info.etag, meta.content_type) == (old.etag, "text/plain")
    assert store.read("docs", "note", if_match=old.etag) == b"same size 1"


def test_no_draft_is_left_behind(store: LocalStore, tmp_path: Path) -> None:
    store.write("docs", "a", b"1", TEXT)
    with pytest.raises(PreconditionFailed):
        store.write("docs", "a", b"2", TEXT, if_absent=True)
    upload = store.open_upload("docs", "b", TEXT, 2)
    part = store.write_part("docs", "b", upload, Part(1, 0, 2, ""), b"bb", last=True)
    store.complete("docs", "b", upload, [part])
    side = tmp_path / "docs" / ".crossload"
    assert list((side / "drafts").iterdir()) == []
    assert list((side / "uploads").iterdir()) == []


def test_the_sidecar_can_be_read_by_a_person(store: LocalStore, tmp_path: Path) -> None:
    store.write("docs", "note", b"x", TEXT)
    (sidecar,) = (tmp_path / "docs" / ".crossload" / "meta").rglob("*.json")
    held = json.loads(sidecar.read_text())
    assert held["key"] == "note"
    assert held["states"][0]["sha256"] == hashlib.sha256(b"x").hexdigest()
    assert held["states"][0]["meta"]["user"] == {"owner": "helpdesk"}


def test_a_bucket_lost_its_sidecar_and_keeps_its_objects(store: LocalStore, tmp_path: Path) -> None:
    etag = store.write("docs", "note", b"x", TEXT).etag
    for sidecar in (tmp_path / "docs" / ".crossload" / "meta").rglob("*.json"):
        sidecar.write_text("not json")
    assert store.head("docs", "note")[0].etag == etag


def test_a_missing_root_is_not_made(tmp_path: Path) -> None:
    """A disk that is not mounted must not become a folder on the disk below."""
    with pytest.raises(NotFound) as refusal:
        opened(tmp_path / "absent").ensure_bucket("docs")
    assert "mount" in refusal.value.hint
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("bucket", ["", ".hidden", "..", "a/b", "a\0b"])
def test_bucket_names_are_single_folders(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(Invalid):
        opened(tmp_path).ensure_bucket(bucket)
