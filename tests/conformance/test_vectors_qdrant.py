"""QdrantVectors against the client's local mode: the same client, the same calls, and no server to start."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models

from crossload.conformance.vectors import CASES, Case, VectorsBench
from crossload.estate.place import Place
from crossload.ports.errors import Invalid
from crossload.ports.provider import Settings
from crossload.ports.vectors import Block, IndexInfo, VectorRow
from crossload.providers.qdrant.vectors import QdrantVectors, open_vectors


def vectors_of(**connection: str) -> QdrantVectors:
    return open_vectors(Settings(Place("q", "qdrant", "here", "DE", connection), connection, {}))


def in_memory() -> QdrantVectors:
    return QdrantVectors("q", QdrantClient(":memory:", force_disable_check_same_thread=True), served=False)


@pytest.fixture(scope="module")
def bench(dead_port: int) -> Iterator[VectorsBench]:
    """In memory: the local mode's folder takes some ten milliseconds a row."""
    store = in_memory()
    made = VectorsBench(open=lambda: store, absent=lambda: vectors_of(url=f"http://127.0.0.1:{dead_port}"))
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_local_mode(case: Case[VectorsBench], bench: VectorsBench, keeps: Callable[..., None]) -> None:
    keeps(case, bench, {})


@pytest.fixture
def store() -> QdrantVectors:
    return in_memory()


def rows(*ids: str) -> Block:
    return Block.of([VectorRow(name, b"\0\0\x80?" * 4, {"text": name}) for name in ids])


def test_points_keep_the_id_they_came_with(store: QdrantVectors) -> None:
    """The server wants UUIDs; the row's own id lies in the payload, and search gives it back."""
    store.load(IndexInfo("docs", 4, 2, "l2"), [rows("a/1", "b 2")])
    points, _ = store._client.scroll("docs")
    assert {point.payload["_crossload"]["id"] for point in points if point.payload} == {"a/1", "b 2"}
    assert all(uuid.UUID(str(point.id)).version == 5 for point in points)
    assert [row.payload for block in store.export("docs") for row in block.rows()] == [{"text": "a/1"}, {"text": "b 2"}]
    assert sorted(store.search("docs", [b"\0\0\x80?" * 4], 2)[0]) == ["a/1", "b 2"]


def test_collections_of_others_are_read_and_replaced(store: QdrantVectors) -> None:
    """Their points go by their own ids; a load puts an alias in the place of the collection."""
    client = store._client
    client.create_collection("theirs", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    client.upsert("theirs", [models.PointStruct(id=10, vector=[1, 2], payload={"n": 1}),
                             models.PointStruct(id=9, vector=[3, 4])])  # fmt: skip
    (block,) = store.export("theirs")
    assert [(row.id, row.payload) for row in block.rows()] == [("10", {"n": 1}), ("9", {})]
    store.load(IndexInfo("theirs", 2, 2, "ip"), [block])
    assert [info.name for info in store.indexes()] == ["theirs"]
    assert [again.ids for again in store.export("theirs")] == [["10", "9"]]


def test_a_killed_load_leaves_nothing_in_the_way(store: QdrantVectors) -> None:
    """The collection of a load that never ended is not listed, is filled anew by the next, and goes with drop."""
    info = IndexInfo("docs", 4, 1, "l2")
    store.load(info, [rows("old")])

    def killed() -> Iterator[Block]:
        yield rows("new")
        raise KeyboardInterrupt

    store._client.delete_collection = lambda *_, **__: True  # type: ignore[method-assign]  # kill -9 tidies nothing up
    with pytest.raises(KeyboardInterrupt):
        store.load(info, killed())
    del store._client.delete_collection
    assert [found.name for found in store.indexes()] == ["docs"]
    assert [block.ids for block in store.export("docs")] == [["old"]]
    store.load(info, [rows("newer")])
    assert [block.ids for block in store.export("docs")] == [["newer"]]
    store.drop("docs")
    assert store._client.get_collections().collections == []


def test_our_own_field_is_not_theirs(store: QdrantVectors) -> None:
    row = VectorRow("a", b"\0\0\x80?" * 4, {"_crossload": 1})
    with pytest.raises(Invalid, match="is ours"):
        store.load(IndexInfo("docs", 4, 1, "l2"), [Block.of([row])])


def test_a_folder_is_opened_once_and_keeps_its_rows(tmp_path: Path) -> None:
    """Two ports of one folder share a client; another client finds what they left."""
    one, two = vectors_of(path=str(tmp_path)), vectors_of(path=str(tmp_path))
    one.load(IndexInfo("docs", 4, 2, "l2"), [rows("a", "b")])
    assert two.describe("docs").rows == 2
    one._client.close()
    again = QdrantVectors("q", QdrantClient(path=str(tmp_path)), served=False)
    assert [block.ids for block in again.export("docs")] == [["a", "b"]]
    again._client.close()


def test_a_place_needs_an_address(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="`url` is missing"):
        vectors_of(key="env:X")


def test_a_server_that_is_down_has_denied_nothing(dead_port: int) -> None:
    from crossload.ports.errors import Unavailable
    from crossload.ports.identity import Permission
    from crossload.providers.qdrant.identity import open_identity

    connection = {"url": f"http://127.0.0.1:{dead_port}"}
    identity = open_identity(Settings(Place("q", "qdrant", "here", "DE", connection), connection, {}))
    assert identity.check(Permission("vectors.read", "docs")).verdict == "unknown"
    with pytest.raises(Unavailable):
        identity.sign_in()
