"""What belongs to an image, and what a move writes down: without a registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crossload.engines.mover.image_graph import node_of
from crossload.engines.mover.image_notes import ImageNotes
from crossload.engines.mover.images import is_attached
from crossload.ports.errors import Invalid, Unsupported
from crossload.ports.registry import IMAGE_INDEX, IMAGE_MANIFEST, Manifest, descriptor_of

A, B, C = ("sha256:" + letter * 64 for letter in "abc")
ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"


def manifest(document: Any, media_type: str = IMAGE_MANIFEST) -> Manifest:
    return Manifest(A, media_type, json.dumps(document).encode())


def entry(digest: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": "x/y", "digest": digest, "size": 3, **more}


def test_an_image_has_blobs_and_an_index_has_children() -> None:
    image = node_of(manifest({"config": entry(B), "layers": [entry(C)], "subject": entry(A)}))
    assert [one.digest for one in image.blobs] == [B, C]
    assert (image.children, image.subject) == ((), A)
    index = node_of(manifest({"manifests": [entry(B), entry(C)]}, IMAGE_INDEX))
    assert [one.digest for one in index.children] == [B, C]
    assert index.blobs == ()
    artifact = node_of(manifest({"blobs": [entry(B)]}, ARTIFACT))
    assert [one.digest for one in artifact.blobs] == [B]


@pytest.mark.parametrize(
    "document, error",
    [
        ({"manifests": [], "layers": []}, Invalid),
        ({"manifests": [], "config": {}}, Invalid),
        ({"layers": [{"digest": "md5:abc"}]}, Invalid),
        ({"layers": ["text"]}, Invalid),
        ([1], Invalid),
        ({"schemaVersion": 1, "fsLayers": []}, Unsupported),
    ],
)
def test_what_has_no_one_meaning_is_refused(document: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        node_of(manifest(document))
    with pytest.raises(Invalid, match="no JSON"):
        node_of(Manifest(A, IMAGE_MANIFEST, b"\xff"))


def test_a_size_that_is_not_said_is_not_zero() -> None:
    assert descriptor_of({"digest": A}).size_bytes is None
    assert descriptor_of(entry(A, urls=["https://example.com"])).urls == ("https://example.com",)


def test_tags_that_hang_on_other_images() -> None:
    name = A.replace(":", "-")
    assert all(is_attached(tag) for tag in (name, f"{name}.sig", f"{name}.att", f"{name}.sbom"))
    assert not any(is_attached(tag) for tag in ("v1", "sha256-abc", f"{name}.other", f"x{name}", "latest.sig"))


def test_notes_outlive_a_process_and_belong_to_one_target(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "notes.json"
    notes = ImageNotes(path, "there/app")
    notes.note_upload(A, "where")
    notes.note_tag("v1", A)
    notes.note_tag("v1", B)
    again = ImageNotes(path, "there/app")
    assert again.upload(A) == "where"
    assert again.gave("v1", A) and again.gave("v1", B) and not again.gave("v2", A)
    again.note_upload(A, "")
    assert ImageNotes(path, "there/app").upload(A) == ""
    other = ImageNotes(path, "elsewhere/app")
    assert not other.gave("v1", A)
    path.write_text("{torn")
    assert ImageNotes(path, "there/app").upload(A) == ""


def test_notes_without_a_file_are_kept_in_memory() -> None:
    notes = ImageNotes(None, "x")
    notes.note_upload(A, "where")
    assert notes.upload(A) == "where"
    assert not notes.durable
