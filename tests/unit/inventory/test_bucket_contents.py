"""What a bucket's listing becomes: a dataset, models, or both; and unknown where nobody could count."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from crossload.estate.asset import Asset, Kind, KindReport
from crossload.ports.account import Contents, bucket_assets, distinct, index_assets, model_format, model_name
from crossload.ports.vectors import IndexInfo


def tally(*objects: tuple[str, int]) -> Contents:
    contents = Contents()
    for key, size in objects:
        contents.add(key, size)
    return contents


def assets(contents: Contents | None) -> list[Asset]:
    return bucket_assets("a", "b", "native:b", contents, {"encryption": "AES256", "older_versions": 2}, {"team": "x"})


def test_a_mixed_bucket_is_a_dataset_and_its_models_and_no_byte_twice() -> None:
    model, dataset = assets(tally(("m/llm.gguf", 100), ("a.txt", 3), ("b.txt", 4)))
    assert (model.id, model.fact("size_bytes"), model.fact("key"), model.fact("format")) == (
        "model:llm",
        100,
        "m/llm.gguf",
        "gguf",
    )
    assert (dataset.id, dataset.fact("object_count"), dataset.fact("size_bytes")) == ("dataset:b", 2, 7)
    assert dataset.fact("largest_bytes") == 4 and dataset.tags == {"team": "x"}
    assert model.fact("encryption") == "AES256" and "older_versions" not in model.facts


def test_a_bucket_of_models_only_is_no_dataset() -> None:
    assert [a.kind for a in assets(tally(("x.onnx", 1), ("y.pt", 2)))] == [Kind.MODEL, Kind.MODEL]


def test_an_empty_bucket_is_an_empty_dataset() -> None:
    (dataset,) = assets(tally())
    assert dataset.fact("object_count") == 0 and dataset.fact("size_bytes") == 0


def test_a_bucket_nobody_may_list_has_unknown_counts() -> None:
    (dataset,) = assets(None)
    assert dataset.facts["object_count"] is None and dataset.facts["size_bytes"] is None


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a.GGUF", "gguf"),
        ("a.safetensors", "safetensors"),
        ("a.onnx", "onnx"),
        ("a.pt", "pytorch"),
        ("a.ptx", ""),
        ("gguf", ""),
    ],
)
def test_formats(key: str, expected: str) -> None:
    assert model_format(key) == expected


@pytest.mark.parametrize(
    ("key", "name"),
    [("llm-7b/model.gguf", "llm-7b"), ("llm-7b/q4.gguf", "q4"), ("model.gguf", "model"), ("a/b/weights.pt", "b")],
)
def test_a_file_name_that_says_nothing_takes_its_folders(key: str, name: str) -> None:
    assert model_name(key) == name


def test_ids_are_distinct_whatever_the_order() -> None:
    twins = [
        Asset("model:m", Kind.MODEL, "m", "a", "n1", {"bucket": "b1", "key": "m.pt"}),
        Asset("model:m", Kind.MODEL, "m", "a", "n2", {"bucket": "b2", "key": "m.pt"}),
        Asset("queue:q", Kind.QUEUE, "q", "a", "n3"),
        Asset("queue:q", Kind.QUEUE, "q", "c", "n3"),
        Asset("table:t", Kind.TABLE, "t", "a", "n4"),
    ]
    expected = ["model:b1/m.pt", "model:b2/m.pt", "queue:a/q", "queue:c/q", "table:t"]
    for order in itertools.permutations(twins):
        assert [asset.id for asset in distinct(order)] == expected
    same_place = [twins[2], replace(twins[2], native="n9")]
    assert [asset.id for asset in distinct(same_place)] == ["queue:a/n3", "queue:a/n9"]


def test_indexes_become_assets_with_the_bytes_of_their_vectors() -> None:
    found = index_assets("a", [IndexInfo("c", 384, 240, "cosine", "hnsw", {"m": "16"})])
    (index,) = found.assets
    assert index.id == "index:c" and index.fact("vector_bytes") == 368_640 and index.fact("metric") == "cosine"
    assert found.reports == (KindReport("a", "index", "found", 1, ""),)
    refused = index_assets("a", [], "denied", "no")
    assert refused.assets == () and refused.reports == (KindReport("a", "index", "denied", None, "no"),)
