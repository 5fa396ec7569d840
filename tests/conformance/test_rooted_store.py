"""A prefix as if it were a bucket keeps every promise of the Store port; what leaves a store is counted in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crossload.conformance.store import CASES, Case, StoreBench
from crossload.estate.place import Place
from crossload.ports.errors import NotFound, PreconditionFailed
from crossload.ports.metered import metered
from crossload.ports.provider import Settings
from crossload.ports.rooted import RootedStore
from crossload.ports.store import BucketInfo, ObjectMeta, Store
from crossload.providers.local.store import LocalStore, open_store

_AT = "deep/in/the bucket/"
_META = ObjectMeta()


def folder_store(root: Path) -> LocalStore:
    connection = {"root": str(root)}
    return open_store(Settings(Place("disk", "local", "here", "DE", connection), connection, {}))


class Prefixes:
    """Every bucket of a store as the prefix `_AT` in it: one RootedStore a bucket."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.place, self.features = inner.place, inner.features

    def buckets(self) -> list[BucketInfo]:
        return [item for one in self._inner.buckets() for item in RootedStore(self._inner, one.name, _AT).buckets()]

    def __getattr__(self, name: str) -> Any:
        def call(bucket: str, *more: Any, **named: Any) -> Any:
            return getattr(RootedStore(self._inner, bucket, _AT), name)("whatever it is called", *more, **named)

        return call


@pytest.fixture(scope="module")
def rooted_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreBench]:
    root = tmp_path_factory.mktemp("rooted")
    made = StoreBench(open=lambda: Prefixes(folder_store(root)), many_keys=300)  # pyright: ignore[reportArgumentType]
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rooted(case: Case[StoreBench], rooted_bench: StoreBench, keeps: Callable[..., None]) -> None:
    keeps(case, rooted_bench, {})


@pytest.fixture
def shelf(tmp_path: Path) -> LocalStore:
    """A bucket `b` with objects in and around the prefix `p/`."""
    store = folder_store(tmp_path)
    store.ensure_bucket("b")
    for key in ("a", "p/1", "p/2", "p/22", "p2/1", "q"):
        store.write("b", key, key.encode(), _META)
    return store


def test_a_prefix_shows_nothing_of_its_neighbours(shelf: LocalStore) -> None:
    rooted = RootedStore(shelf, "b", "p/")
    assert [info.key for info in rooted.list("")] == ["1", "2", "22"]
    assert [info.key for info in rooted.list("", "2")] == ["2", "22"]
    assert [info.key for info in rooted.list("", "", "1")] == ["2", "22"]
    assert rooted.uri("", "1") == shelf.uri("b", "p/1")
    with pytest.raises(NotFound):
        rooted.head("", "q")


def test_one_object_is_all_there_is(shelf: LocalStore) -> None:
    only = RootedStore(shelf, "b", "p/", "2")
    assert [info.key for info in only.list("")] == ["2"]
    assert [info.key for info in only.list("", "", "2")] == []
    assert [info.key for info in only.list("", "1")] == []
    assert [info.key for info in RootedStore(shelf, "b", "p/", "3").list("")] == []


def test_a_bucket_around_a_prefix_is_not_removed(shelf: LocalStore) -> None:
    rooted = RootedStore(shelf, "b", "p/")
    for info in list(rooted.list("")):
        rooted.delete("", info.key)
    with pytest.raises(PreconditionFailed):
        rooted.remove_bucket("")


def test_what_is_read_is_counted_before_it_is_read(shelf: LocalStore) -> None:
    counted: list[int] = []
    read: list[int] = []

    class Watched:
        """The shelf, which notes how much was counted when a read began."""

        def __getattr__(self, name: str) -> Any:
            if name in ("read", "read_into", "fetch"):
                read.append(sum(counted))
            return getattr(shelf, name)

    store = metered(Watched(), counted.append)  # pyright: ignore[reportArgumentType]
    assert len(store.read("b", "p/22")) == sum(counted) == 4
    assert len(store.read("b", "p/22", 1, 2)) == 2
    assert sum(counted) == 6
    buffer = memoryview(bytearray(4))
    assert store.read_into("b", "p/22", 0, buffer) == 4
    store.fetch("b", "p/22", buffer)
    assert sum(counted) == 14
    assert read == [4, 6, 10, 14]


def test_a_read_that_fails_counts(shelf: LocalStore) -> None:
    counted: list[int] = []
    store = metered(shelf, counted.append)
    with pytest.raises(PreconditionFailed):
        store.read("b", "p/1", 0, 3, if_match="other")
    assert counted == [3]


def test_an_object_that_grew_counts_in_full(shelf: LocalStore) -> None:
    counted: list[int] = []

    class Growing:
        """Between its head and its read the object is replaced by a longer one."""

        def __getattr__(self, name: str) -> Any:
            if name == "read":
                shelf.write("b", "p/1", b"much longer", _META)
            return getattr(shelf, name)

    data = metered(Growing(), counted.append).read("b", "p/1")  # pyright: ignore[reportArgumentType]
    assert data == b"much longer"
    assert sum(counted) == len(data)


def test_an_older_version_counts_where_a_store_has_such(shelf: LocalStore) -> None:
    counted: list[int] = []

    class Old:
        def read_version_into(self, bucket: str, key: str, version: str, start: int, buffer: memoryview) -> int:
            return sum(counted)

    store: Any = metered(Old(), counted.append)  # pyright: ignore[reportArgumentType]
    assert store.read_version_into("b", "p/1", "v1", 0, memoryview(bytearray(7))) == 7
    assert not hasattr(metered(shelf, counted.append), "read_version_into")


def test_everything_else_is_the_inner_stores(shelf: LocalStore) -> None:
    counted: list[int] = []
    store = metered(shelf, counted.append)
    store.write("b", "new", b"12345", _META)
    assert [info.key for info in store.list("b", "new")] == ["new"]
    assert (store.place, store.features) == (shelf.place, shelf.features)
    assert counted == []
