"""The list of objects: large enough, awkward enough, and nothing that a store of either cloud must refuse."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from crossload.lab.seed_clients import SeedError
from crossload.lab.seed_objects import (
    MULTIPART_KEY,
    RETIRED_KEY,
    VERSIONED_KEY,
    awkward_objects,
    docs_objects,
    router_object,
    versions_of_docs,
)


def size_of(item) -> int:
    return sum(len(part) for part in item.parts())


def test_the_full_set_is_as_large_as_promised() -> None:
    listed = docs_objects()
    sizes = [size_of(item) for item in listed]
    assert len(listed) >= 2_000
    assert sum(sizes) >= 300e6
    assert sum(5e6 <= size <= 40 * 2**20 for size in sizes) >= 4
    multipart = next(item for item in listed if item.key == MULTIPART_KEY)
    assert (multipart.part_size_bytes, size_of(multipart)) == (8 * 2**20, 64 * 2**20)


def test_the_small_set_has_the_same_shapes() -> None:
    full, small = docs_objects(), docs_objects(small=True)
    assert 120 <= len(small) <= 180
    assert 8e6 <= sum(map(size_of, small)) <= 14e6
    assert {item.key.split("/")[0] for item in small} == {item.key.split("/")[0] for item in full}
    assert {item.kind for item in small} == {item.kind for item in full}
    assert len(list(next(item for item in small if item.key == MULTIPART_KEY).parts())) == 2


def test_two_listings_are_equal_and_keys_are_unique() -> None:
    one, other = docs_objects(small=True), docs_objects(small=True)
    assert one == other
    assert [item.etag() for item in one] == [item.etag() for item in other]
    keys = [item.key for item in docs_objects()]
    assert len(set(keys)) == len(keys)
    assert not {VERSIONED_KEY, RETIRED_KEY} & set(keys)


def test_awkward_keys_hold_what_the_page_says() -> None:
    keys = {item.key for item in awkward_objects()}
    assert {"a b", "a/b"} <= keys
    for part in (" ", "+", "%", '"', "'", "&", "#", "?", "*", "\t", "🐍", "日本語"):
        assert any(part in key for key in keys), part
    composed = {unicodedata.normalize("NFC", key) for key in keys}
    assert len(composed) == len(keys) - 1  # one pair that only normalisation makes equal
    assert len({key.lower() for key in composed}) == len(composed) - 1  # and one that only case tells apart
    assert max(len(key.encode()) for key in keys) > 900
    assert any(size_of(item) == 0 for item in awkward_objects())


def test_no_key_that_a_store_refuses_or_changes() -> None:
    keys = [item.key for item in docs_objects()] + list(versions_of_docs())
    every = set(keys)
    for key in keys:
        assert len(key.encode()) <= 1024
        assert all(0 < len(part.encode()) < 250 for part in key.split("/")), key  # no `x//y`, no `a/`
        assert not {"\\", "\n", "\r", "\0"} & set(key), key
        parents = {"/".join(key.split("/")[:depth]) for depth in range(1, key.count("/") + 1)}
        assert not parents & every, f"{key} lies under a key that is an object"


def test_metadata_and_tags_are_within_the_limits() -> None:
    for item in docs_objects(small=True):
        assert sum(len(name) + len(value) for name, value in item.metadata.items()) <= 2048
        assert all((name + value).isascii() and name == name.lower() for name, value in item.metadata.items())
        assert len(item.tags) <= 10
        assert all(len(name) <= 128 and len(value) <= 256 for name, value in item.tags.items())
    assert any(len(item.tags) == 10 for item in awkward_objects())
    assert max(sum(map(len, [*item.metadata, *item.metadata.values()])) for item in awkward_objects()) > 1700


def test_histories() -> None:
    histories = versions_of_docs()
    policy = histories[VERSIONED_KEY]
    assert len({version.etag() for version in policy if version is not None}) == len(policy) == 3
    assert histories[RETIRED_KEY][-1] is None


def test_a_missing_router_is_named(tmp_path: Path) -> None:
    with pytest.raises(SeedError, match=r"topic_router\.json"):
        router_object(tmp_path)
